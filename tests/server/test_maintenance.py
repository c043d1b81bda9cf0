"""Sweeps over the namespaces of a store."""

from __future__ import annotations

import threading
from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest

from vecstore import deadline
from vecstore.api import Database
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import DeadlineExceeded, NamespaceNotFound, StorageRetryable, Unauthorised
from vecstore.observe import Observer
from vecstore.server.maintenance import Maintainer
from vecstore.storage.faults import Call, Fault, FaultyStore
from vecstore.storage.memory import MemoryStore


class Counting(Observer):
    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()

    def count(self, what: str, by: float = 1) -> None:
        self.counted[what] += int(by)


def swept(db: EmbeddedDatabase, **options: Any) -> None:
    """One sweep that collects too."""
    clock = iter((0.0, 1.0, 1.0))
    asked: dict[str, Any] = {"retention": 0.0, "grace": 0.0, **options}
    Maintainer(db, interval=1.0, gc_interval=1.0, clock=lambda: next(clock), **asked).sweep(threading.Event())


def test_a_deleted_namespace_is_no_failure_and_its_objects_go() -> None:
    now, observer = [1e6], Counting()
    store = MemoryStore(clock=lambda: now[0])
    db = EmbeddedDatabase(store, observer=observer, rng=Random(1))
    Database(db).create_namespace("ns", dim=2, metric="l2").insert([[1, 2]], [1])
    db.delete("ns")
    for _ in range(3):
        now[0] += 1_000.0
        swept(db)
    assert not [meta.key for meta in store.list("namespaces/ns/parts/").objects]
    assert not {what for what in observer.counted if "failures" in what}


def test_files_that_are_put_back_with_their_old_times_are_left_alone_until_collection_is_asked_for() -> None:
    now, observer = [1e6], Counting()
    store = MemoryStore(clock=lambda: now[0])
    db = EmbeddedDatabase(store, observer=observer, rng=Random(1))
    store.put_if_absent("namespaces/ns/parts/01.part", b"put back before its manifest")
    now[0] += 36_000.0
    swept(db)
    with pytest.raises(NamespaceNotFound):
        db.maintain("ns")
    assert [meta.key for meta in store.list("").objects] == ["namespaces/ns/parts/01.part"]
    assert not {what for what in observer.counted if "failures" in what}
    assert db.collect("ns", retention=0.0, grace=0.0, dry_run=False).deleted == 1


def test_history_is_kept_for_as_long_as_the_settings_say() -> None:
    now = [1e6]
    db = EmbeddedDatabase(MemoryStore(clock=lambda: now[0]), rng=Random(1))
    ns = Database(db).create_namespace("ns", dim=2, metric="l2")
    for i in range(4):
        ns.insert([[i, 2]], [1])
    now[0] += 36_000.0
    ns.insert([[9, 2]], [1])
    swept(db, retention=86_400.0)
    np.testing.assert_array_equal(ns.get(1, epoch=3).vector, [1, 2])


def test_a_store_that_refuses_writes_is_told_of_in_one_line_for_each_piece_of_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read_only = False

    def refuse(call: Call) -> None:
        if read_only and call.method.startswith("put"):
            raise Unauthorised(f"{call.key}: read-only file system")

    now = [1e6]
    db = EmbeddedDatabase(FaultyStore(MemoryStore(clock=lambda: now[0]), before=refuse), rng=Random(1))
    ns = Database(db).create_namespace("ns", dim=2, metric="l2")
    for i in range(40):
        ns.insert([[i, 2]], [1])
    now[0] += 1_000.0
    read_only = True
    swept(db)
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.message.split(";")[0] for record in told] == [
        "compaction of ns failed",
        "collection of ns failed",
    ]
    assert all("read-only file system" in record.message and record.exc_info is None for record in told)


def test_only_a_compaction_that_failed_counts_as_a_failure() -> None:
    observer, broken = Counting(), False

    def failing(call: Call) -> Fault | None:
        return Fault.FAIL_BEFORE if broken and "/parts/" in call.key else None

    db = EmbeddedDatabase(FaultyStore(MemoryStore(), failing), observer=observer, rng=Random(1))
    ns = Database(db).create_namespace("ns", dim=2, metric="l2")
    for i in range(2):
        ns.insert([[i, 2]], [i])
    with pytest.raises(NamespaceNotFound):
        db.compact("nope", everything=True)
    with pytest.raises(DeadlineExceeded), deadline.within(0.0):
        db.compact("ns", everything=True)
    assert observer.counted["compaction_failures"] == 0
    broken = True
    with pytest.raises(StorageRetryable):
        db.compact("ns", everything=True)
    assert observer.counted["compaction_failures"] == 1
