"""Adapters to other projects, each behind an extra. They use the public API alone."""
