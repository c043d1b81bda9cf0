"""Listings that take more than one page."""

from __future__ import annotations

import pytest

from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore
from vecstore.storage.pages import all_children, all_objects


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Three folders of five objects each, told two at a time."""
    store = MemoryStore()
    for folder in ("a", "b", "c"):
        for number in range(5):
            store.put_if_absent(f"x/{folder}/{number}", b"")
    few, folders = store.list, store.list_children
    monkeypatch.setattr(store, "list", lambda prefix, *, after=None: few(prefix, after=after, limit=2))
    monkeypatch.setattr(
        store, "list_children", lambda prefix, *, after=None: folders(prefix, after=after, limit=2)
    )
    return store


def test_every_object_comes_once(store: ObjectStore) -> None:
    wanted = [f"x/{folder}/{number}" for folder in ("a", "b", "c") for number in range(5)]
    assert [meta.key for meta in all_objects(store, "x/")] == wanted
    assert list(all_objects(store, "y/")) == []


def test_every_folder_comes_once(store: ObjectStore) -> None:
    assert list(all_children(store, "x/")) == ["a", "b", "c"]
    assert list(all_children(store, "y/")) == []
