"""Past epochs, restore, tags and branches through the embedded engine, on a store whose clock we turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core import database
from vecstore.api import Database, Namespace
from vecstore.errors import SnapshotExpired, StorageMissing
from vecstore.manifest.keys import part_key
from vecstore.storage.faults import Call, FaultyStore
from vecstore.storage.memory import MemoryStore

ROWS = np.random.default_rng(3).standard_normal((100, 4)).astype(np.float32)
HOUR = 3600.0


class Turned:
    """A clock of the store that a test turns on."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Turned:
    return Turned()


@pytest.fixture
def store(clock: Turned) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def db(store: MemoryStore) -> Database:
    return database(store)


@pytest.fixture
def docs(db: Database) -> Namespace:
    ns = db.create_namespace("docs", 4, "l2")
    ns.insert(ROWS[:10], ids=range(10))
    ns.insert(ROWS[10:20], ids=range(10, 20))
    return ns


def ids(ns: Namespace, **more: Any) -> set[int]:
    return set(ns.search(ROWS[0], top_k=100, **more).ids.tolist())


def test_collection_during_a_read_of_a_named_epoch_ends_in_snapshot_expired(
    docs: Namespace, store: MemoryStore, clock: Turned
) -> None:
    """The reader has its snapshot, and then the parts go before it opens them."""
    docs.compact()
    collected: list[int] = []

    def before(call: Call) -> None:
        if "/parts/" in call.key and not collected:
            clock.now += 3 * HOUR
            collected.append(docs.gc().deleted)

    reader = database(FaultyStore(store, before=before)).namespace("docs")
    with pytest.raises(SnapshotExpired):
        reader.get(3, epoch=3)
    assert collected[0] > 0


def test_a_part_that_is_lost_within_the_window_is_told_as_what_it_is(
    docs: Namespace, store: MemoryStore
) -> None:
    docs.compact()
    lost = docs.manifest(3)["parts"][0]["id"]
    store.delete(part_key("docs", lost))
    reader = database(store).namespace("docs")
    for read in (lambda: reader.search(ROWS[0], epoch=3), lambda: reader.get(3, epoch=3)):
        with pytest.raises(StorageMissing):
            read()
