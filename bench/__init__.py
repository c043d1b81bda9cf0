"""Measurements that are repeated by a command: quality (``eval``), speed (``speed``), peers."""
