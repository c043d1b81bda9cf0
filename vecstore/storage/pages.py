"""Listings as a whole, page after page."""

from __future__ import annotations

from collections.abc import Iterator

from vecstore.storage.base import ObjectMeta, ObjectStore


def all_objects(store: ObjectStore, prefix: str) -> Iterator[ObjectMeta]:
    """Every object below a prefix, in the store's order."""
    after: str | None = None
    while True:
        page = store.list(prefix, after=after)
        yield from page.objects
        if page.next is None:
            return
        after = page.next


def all_children(store: ObjectStore, prefix: str) -> Iterator[str]:
    """The names of all folders directly below a prefix."""
    after: str | None = None
    while page := store.list_children(prefix, after=after):
        yield from page
        after = page[-1]
