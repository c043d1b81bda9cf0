"""Keys of a namespace's objects (DESIGN section 4), relative to the store's prefix."""

from __future__ import annotations


def namespaces_prefix() -> str:
    return "namespaces/"


def namespace_prefix(namespace: str) -> str:
    return f"namespaces/{namespace}/"


def current_key(namespace: str) -> str:
    """The whole current manifest: the only mutable object and the only commit point."""
    return f"namespaces/{namespace}/manifest/current"


def history_prefix(namespace: str) -> str:
    """Of the copies of all epochs, and of nothing else: their numbers have twenty digits and begin with 0."""
    return f"namespaces/{namespace}/manifest/0"


def history_key(namespace: str, epoch: int) -> str:
    return f"namespaces/{namespace}/manifest/{epoch:020d}.json"


def part_key(namespace: str, part_id: str) -> str:
    return f"namespaces/{namespace}/parts/{part_id}.part"


def delete_key(namespace: str, delete_id: str) -> str:
    return f"namespaces/{namespace}/deletes/{delete_id}.tomb"


def lease_key(namespace: str, name: str) -> str:
    return f"namespaces/{namespace}/_control/{name}.lease"
