"""A store full of namespaces, in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.core import engine
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import DatabaseClosed, InvalidArgument, NamespaceExists, NamespaceNotFound
from vecstore.observe import Observer
from vecstore.storage.faults import Call, Fault, FaultyStore
from vecstore.storage.memory import MemoryStore
from vecstore.storage.pages import all_objects
from vecstore.types import NamespaceInfo, SearchParams


def names(db: EmbeddedDatabase, prefix: str = "", **page: Any) -> list[str]:
    found: list[NamespaceInfo] = list(db.list(prefix, **{"after": None, "limit": 100, **page}))
    return [info.name for info in found]


def insert(db: EmbeddedDatabase, name: str, ids: list[int]) -> None:
    rows = np.arange(2 * len(ids), dtype=np.float32).reshape(-1, 2)
    db.insert(name, rows, ids, mode="upsert", expected=None, idempotency_key=None)


def test_a_namespace_has_one_engine_a_process() -> None:
    db = engine()
    with ThreadPoolExecutor(8) as pool:
        engines = set(pool.map(lambda _: id(db.namespace("ns")), range(64)))
    assert len(engines) == 1
    with pytest.raises(InvalidArgument):
        db.namespace("../x")


def test_of_many_creators_of_a_name_one_succeeds() -> None:
    store = MemoryStore()
    start = threading.Barrier(6)

    def create(i: int) -> bool:
        start.wait()
        try:
            engine(store, seed=i).create("ns", 2, "l2", {})
        except NamespaceExists:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(create, range(6))) == 1


def test_pages_of_a_listing_leave_nothing_out() -> None:
    db = engine()
    every = sorted(f"n{i}" for i in range(25))
    for name in every:
        db.create(name, 2, "l2", {})
    seen: list[str] = []
    while page := names(db, after=seen[-1] if seen else None, limit=7):
        seen += page
    assert seen == every
    assert names(db, "n1", limit=3) == ["n1", "n10", "n11"]
    for limit in (0, 1_001):
        with pytest.raises(InvalidArgument):
            names(db, limit=limit)


def test_deleted_and_foreign_folders_are_not_listed() -> None:
    store = MemoryStore()
    db = engine(store)
    for name in ("a", "b"):
        db.create(name, 2, "l2", {})
    db.delete("a")
    store.put_if_absent("namespaces/_control/x", b"")
    store.put_if_absent("namespaces/empty/parts/x", b"")
    assert names(db) == ["b"]


def test_a_deletion_that_is_retried_spares_the_namespace_made_since() -> None:
    db = engine()
    first = db.create("ns", 2, "l2", {}).incarnation
    db.delete("ns", incarnation=first)
    db.create("ns", 2, "l2", {})
    with pytest.raises(NamespaceNotFound):
        db.delete("ns", incarnation=first)
    assert db.info("ns").rows == 0


def test_collection_of_a_deleted_namespace_leaves_its_marker_alone() -> None:
    now = [1e6]
    store = MemoryStore(clock=lambda: now[0])
    db = engine(store)
    db.create("ns", 2, "l2", {})
    insert(db, "ns", [1, 2])
    db.delete("ns")
    for _ in range(3):
        now[0] += 10_000
        db.collect("ns", retention=1, grace=1, dry_run=False)
    keys = [meta.key for meta in store.list("namespaces/ns/").objects]
    assert not any("/parts/" in key for key in keys)
    assert any(key.endswith("current") for key in keys)
    db.create("ns", 3, "cosine", {})
    assert db.info("ns").dim == 3


def test_a_dry_run_of_collection_deletes_nothing() -> None:
    now = [1e6]
    store = MemoryStore(clock=lambda: now[0])
    db = engine(store)
    db.create("ns", 2, "l2", {})
    insert(db, "ns", [1, 2])
    insert(db, "ns", [1, 2])
    db.compact("ns", everything=True)
    for _ in range(2):
        now[0] += 10_000
        insert(db, "ns", [3])
    before = store.list("").objects
    told = db.collect("ns", retention=1, grace=1, dry_run=True)
    assert told.dry_run
    assert told.deleted == len(told.keys) > 0
    assert store.list("").objects == before
    assert db.collect("ns", retention=1, grace=1, dry_run=False).deleted >= told.deleted
    assert db.search("ns", [0, 0], SearchParams()).ids.tolist() == [1, 2, 3] or db.info("ns").rows == 3


def test_a_compaction_that_is_committed_needs_no_answer_of_the_store_to_be_counted() -> None:
    counted: dict[str, float] = {}

    class Counting(Observer):
        def count(self, what: str, by: float = 1) -> None:
            counted[what] = counted.get(what, 0.0) + by

    class Unsure(FaultyStore):
        """Reads of what is current fail once there is a part in place of two."""

        def is_current(self, key: str, etag: str) -> bool:
            return False

    def failing(call: Call) -> Fault | None:
        committed = counted.get("commits") == 3 and call.key.endswith("current")
        return Fault.FAIL_BEFORE if committed and call.method.startswith("get") else None

    db = EmbeddedDatabase(Unsure(MemoryStore(), failing), observer=Counting(), rng=Random(1))
    db.create("ns", 2, "l2", {})
    for ids in ([1, 2], [3, 4]):
        insert(db, "ns", ids)
    done = db.compact("ns", everything=True)
    assert counted["compaction_parts"] == len(done.merged) == 2
    assert counted["compaction_bytes"] > 0
    assert "compaction_failures" not in counted


def test_a_missing_namespace_is_missing_in_every_way() -> None:
    db = engine()
    for use in (
        lambda: db.info("ns"),
        lambda: db.delete("ns"),
        lambda: db.update("ns", {}),
        lambda: insert(db, "ns", [1]),
        lambda: db.delete_rows("ns", [1], expected=None, idempotency_key=None),
        lambda: db.search("ns", [1, 2], SearchParams()),
        lambda: db.search_batch("ns", [[1, 2]], SearchParams()),
        lambda: db.row("ns", 1, include_vector=True, epoch=None),
        lambda: db.manifest("ns", None),
        lambda: db.compact("ns", everything=True),
    ):
        with pytest.raises(NamespaceNotFound) as error:
            use()
        assert "ns" in error.value.message


def test_closing_twice_is_no_error() -> None:
    db = engine()
    db.create("ns", 2, "l2", {})
    insert(db, "ns", [1])
    db.close()
    db.close()


def test_a_database_that_was_closed_says_so_to_every_call() -> None:
    store = MemoryStore()
    db = engine(store)
    db.create("ns", 2, "l2", {})
    insert(db, "ns", [1])
    kept = db.namespace("ns")
    db.close()
    before = {meta.key for meta in all_objects(store, "")}
    row = np.ones(2, dtype=np.float32)
    calls: list[Callable[[], object]] = [
        lambda: insert(db, "ns", [2]),
        lambda: kept.writes.insert(row[None], [2]),
        lambda: db.create("other", 2, "l2", {}),
        lambda: db.delete("ns"),
        lambda: db.info("ns"),
        lambda: db.search("ns", row, SearchParams()),
        lambda: db.row("ns", 1, include_vector=True, epoch=None),
        lambda: db.compact("ns", everything=True),
        lambda: db.collect("ns", retention=0.0, grace=0.0, dry_run=False),
        lambda: names(db),
        db.ping,
        db.cache_stats,
    ]
    for call in calls:
        with pytest.raises(DatabaseClosed) as error:
            call()
        assert "closed" in error.value.message
    assert {meta.key for meta in all_objects(store, "")} == before
    with pytest.raises(InvalidArgument):
        db.namespace("../x")
