"""The maintenance thread of an embedded writer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from tests.core import clustered, generator
from vecstore.api import Database
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import NamespaceNotFound, StorageRetryable
from vecstore.maintenance.policy import Policy
from vecstore.maintenance.worker import MaintenanceThread
from vecstore.storage.memory import MemoryStore
from vecstore.types import GcResult

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


def test_the_disk_of_a_deleted_namespace_is_freed() -> None:
    collected: Queue[str] = Queue()

    class Watched(EmbeddedDatabase):
        def collect(self, name: str, **options: Any) -> GcResult:
            done = super().collect(name, **options)
            collected.put(name)
            return done

    db = Watched(MemoryStore(), maintenance=True)
    db.create("ns", 4, "l2", {})
    db.delete("ns")
    assert collected.get(timeout=DEADLINE) == "ns"
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

    class Watched(EmbeddedDatabase):
        def maintain(self, name: str) -> None:
            super().maintain(name)
            if self.info(name).parts < 4:
                tidied.set()

    db = Watched(MemoryStore(), maintenance=True, policy=Policy(fan_in=4, tiny_parts=4))
    ns: Any = Database(db).create_namespace("ns", dim=4, metric="l2")
    rows = clustered(generator(1), 120, 4)
    for i in range(12):
        ns.insert(rows[i * 10 : i * 10 + 10], range(i * 10, i * 10 + 10))
    assert tidied.wait(DEADLINE)
    assert ns.stats().rows == 120
    assert ns.search(rows[77], top_k=1).ids.tolist() == [77]
    db.close()
