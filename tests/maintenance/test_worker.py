"""The maintenance thread of an embedded writer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import numpy as np
import pytest

from tests.core import clustered, engine, generator
from vecstore.api import Database
from vecstore.engine.database import AGAIN_SECONDS, EmbeddedDatabase
from vecstore.errors import NamespaceNotFound, StorageRetryable
from vecstore.maintenance.policy import Policy
from vecstore.maintenance.worker import MaintenanceThread
from vecstore.manifest.keys import namespace_prefix
from vecstore.storage.memory import MemoryStore
from vecstore.storage.pages import all_objects

DEADLINE = 30.0


def thread(maintain: Callable[[str], None]) -> MaintenanceThread:
    return MaintenanceThread(maintain, again=3_600.0, quiet=0.0)


def test_a_namespace_that_was_written_to_is_maintained() -> None:
    seen: Queue[str] = Queue()
    worker = thread(seen.put)
    worker.wake("a")
    assert seen.get(timeout=DEADLINE) == "a"
    worker.wake("b")
    assert seen.get(timeout=DEADLINE) == "b"
    worker.stop()


def test_writes_during_maintenance_share_the_next_round() -> None:
    seen: Queue[str] = Queue()
    held = threading.Event()

    def maintain(name: str) -> None:
        seen.put(name)
        held.wait(DEADLINE)

    worker = thread(maintain)
    worker.wake("a")
    assert seen.get(timeout=DEADLINE) == "a"
    for _ in range(5):
        worker.wake("a")
        worker.wake("b")
    held.set()
    assert [seen.get(timeout=DEADLINE) for _ in range(2)] == ["a", "b"]
    worker.stop()
    assert seen.empty()


@pytest.mark.parametrize(
    "failure", [NamespaceNotFound("gone"), StorageRetryable("slow"), ValueError("a bug")]
)
def test_a_failure_ends_neither_the_thread_nor_the_round(failure: Exception) -> None:
    seen: Queue[str] = Queue()

    def maintain(name: str) -> None:
        seen.put(name)
        if name == "bad":
            raise failure

    worker = thread(maintain)
    worker.wake("bad")
    assert seen.get(timeout=DEADLINE) == "bad"
    worker.wake("good")
    assert seen.get(timeout=DEADLINE) == "good"
    worker.stop()


def test_a_namespace_that_is_left_alone_is_looked_at_once_more() -> None:
    """What its last write replaced could not go then."""
    seen: Queue[str] = Queue()
    worker = MaintenanceThread(seen.put, again=0.01, quiet=0.0)
    worker.wake("a")
    assert [seen.get(timeout=DEADLINE) for _ in range(2)] == ["a", "a"]
    worker.wake("b")
    assert [seen.get(timeout=DEADLINE) for _ in range(2)] == ["b", "b"]
    worker.stop()
    assert seen.empty()


class Time:
    """Seconds of a store and of a process, which pass when a test says so."""

    seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


class Watched(EmbeddedDatabase):
    """Tells when its thread has looked at a namespace; ``lasting`` are seconds that its next look takes."""

    def __init__(self, store: MemoryStore, time: Time) -> None:
        super().__init__(store, clock=time, maintenance=True, policy=Policy(fan_in=4, tiny_parts=4))
        self._time = time
        self._looks: Queue[str] = Queue()
        self.lasting: dict[str, float] = {}

    def maintain(self, name: str) -> None:
        self._time.seconds += self.lasting.pop(name, 0.0)
        super().maintain(name)
        self._looks.put(name)

    def next_look(self) -> str:
        return self._looks.get(timeout=DEADLINE)

    def looks_at(self, seconds: float) -> list[str]:
        """What is looked at by then; a write to the last of all namespaces ends the round."""
        self._time.seconds = seconds
        write(self, "zz", int(seconds))
        return list(iter(self.next_look, "zz"))


def write(db: EmbeddedDatabase, name: str, identity: int) -> None:
    db.insert(name, np.ones((1, 4)), [identity], mode="upsert", expected=None, idempotency_key=None)


def parts(store: MemoryStore, name: str) -> int:
    return sum(1 for _ in all_objects(store, f"{namespace_prefix(name)}parts/"))


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(time: Time) -> MemoryStore:
    """With namespaces of other writers: ``ns`` has three parts, ``zz`` none."""
    store = MemoryStore(clock=time)
    others = engine(store)
    others.create("ns", 4, "l2", {})
    others.create("zz", 4, "l2", {})
    for identity in range(3):
        write(others, "ns", identity)
    return store


def test_the_disk_of_a_deleted_namespace_is_freed(store: MemoryStore, time: Time) -> None:
    db, began = Watched(store, time), time.seconds
    db.delete("ns")
    assert db.next_look() == "ns"
    assert parts(store, "ns") == 3
    assert db.looks_at(began + AGAIN_SECONDS) == ["ns"]
    assert parts(store, "ns") == 0
    db.close()


def test_the_disk_of_what_a_compaction_replaced_is_freed(store: MemoryStore, time: Time) -> None:
    """It ends so long after the last write that a look which counts from that comes too early."""
    db, began = Watched(store, time), time.seconds
    db.lasting["ns"] = 600.0
    write(db, "ns", 3)
    assert [db.next_look() for _ in range(2)] == ["ns", "ns"]
    assert db.info("ns").parts == 1
    assert db.looks_at(began + AGAIN_SECONDS) == []  # what it replaced could not go, and nothing is due
    assert parts(store, "ns") == 5
    assert db.looks_at(began + 600.0 + AGAIN_SECONDS) == ["ns"]
    assert parts(store, "ns") == 1
    db.close()


def test_stop_ends_a_thread_that_waits_and_may_come_twice() -> None:
    worker = thread(lambda name: None)
    worker.stop()
    worker.wake("a")
    worker.stop()
    before = set(threading.enumerate())
    other = thread(lambda name: None)
    other.wake("a")
    other.stop()
    other.stop()
    assert set(threading.enumerate()) <= before  # threads of other tests may end meanwhile


def test_an_embedded_writer_tidies_up_after_itself() -> None:
    """Twelve small inserts; the thread merges them while nobody asks for it."""
    tidied = threading.Event()

    class Tidied(EmbeddedDatabase):
        def maintain(self, name: str) -> None:
            super().maintain(name)
            if self.info(name).parts < 4:
                tidied.set()

    db = Tidied(MemoryStore(), maintenance=True, policy=Policy(fan_in=4, tiny_parts=4))
    ns: Any = Database(db).create_namespace("ns", dim=4, metric="l2")
    rows = clustered(generator(1), 120, 4)
    for i in range(12):
        ns.insert(rows[i * 10 : i * 10 + 10], range(i * 10, i * 10 + 10))
    assert tidied.wait(DEADLINE)
    assert ns.stats().rows == 120
    assert ns.search(rows[77], top_k=1).ids.tolist() == [77]
    db.close()
