"""Kernels (Cython, sources in the top-level ``ext/``). They take arrays and know nothing of storage."""
