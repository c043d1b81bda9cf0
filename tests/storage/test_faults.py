"""The wrappers pass everything on, fail as planned, and do so again from the same seed."""

from __future__ import annotations

import random

import pytest

from tests.storage.contract import Behind, StoreContract
from tests.storage.test_memory import _InDictionary
from vecstore.errors import StorageConflict, StorageRetryable
from vecstore.storage.base import ByteRange, ObjectStore
from vecstore.storage.faults import WRITES, Call, CountingStore, Fault, FaultyStore, at_random, script
from vecstore.storage.memory import MemoryStore


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(inner: MemoryStore) -> ObjectStore:
    return CountingStore(FaultyStore(inner))


@pytest.fixture
def behind(inner: MemoryStore) -> Behind:
    return _InDictionary(inner)


class TestWrappersWithoutAPlan(StoreContract):
    """They change nothing."""


def test_calls_and_bytes_are_counted_by_method_and_prefix(inner: MemoryStore) -> None:
    store = CountingStore(inner)
    etag = store.put_if_absent("a/x", b"12345").etag
    store.put_stream("b/y", [b"12", memoryview(b"345")])
    store.put_if_match("a/x", b"123456", etag)
    store.get("a/x")
    store.get_if_changed("a/x", etag)
    store.get_range("b/y", 1, 2)
    store.get_ranges("b/y", [ByteRange(0, 1), ByteRange(1, 3)])
    store.list("a/")
    assert store.count() == 8
    assert store.count("put_if_absent") == 1
    assert store.count(prefix="b/") == 3
    assert store.count("get_range", "b/") == 1
    assert +store.sent == {"put_if_absent": 5, "put_stream": 5, "put_if_match": 6}
    assert store.received["get"] == store.received["get_if_changed"] == 6
    assert (store.received["get_range"], store.received["get_ranges"]) == (2, 4)
    assert store.calls[0] == Call(1, "put_if_absent", "a/x", 5)
    store.reset()
    assert store.count() == 0
    store.head("a/x")
    assert store.calls == (Call(9, "head", "a/x"),)


def test_failing_before_leaves_nothing_and_after_leaves_it_done(inner: MemoryStore) -> None:
    plan = script([("put_if_absent", Fault.FAIL_BEFORE), ("put_if_absent", Fault.FAIL_AFTER)])
    store = FaultyStore(inner, plan)
    with pytest.raises(StorageRetryable):
        store.put_if_absent("x", b"1")
    assert inner.list("").objects == ()
    with pytest.raises(StorageRetryable):
        store.put_if_absent("x", b"1")
    assert inner.get("x").data == b"1"
    with pytest.raises(StorageConflict):
        store.put_if_absent("x", b"1")


def test_a_script_passes_over_calls(inner: MemoryStore) -> None:
    inner.put_if_absent("x", b"1")
    store = FaultyStore(inner, script([("get", None), ("get", Fault.FAIL_BEFORE)]))
    store.get("x")
    store.head("x")
    with pytest.raises(StorageRetryable):
        store.get("x")
    store.get("x")


def test_another_writer_acts_in_between(inner: MemoryStore) -> None:
    etag = inner.put_if_absent("x", b"1").etag

    def overtake(call: Call) -> None:
        if call.method == "put_if_match":
            inner.put_if_match("x", b"theirs", etag)

    store = FaultyStore(inner, before=overtake)
    with pytest.raises(StorageConflict):
        store.put_if_match("x", b"mine", etag)
    after: list[str] = []
    store = FaultyStore(inner, after=lambda call: after.append(inner.get("x").data.decode()))
    store.put_if_match("x", b"2", inner.head("x").etag)
    assert after == ["2"]


@pytest.mark.parametrize("fault", [Fault.CORRUPT, Fault.TRUNCATE])
def test_returned_bytes_are_damaged_and_stored_ones_are_not(inner: MemoryStore, fault: Fault) -> None:
    data = bytes(range(200))
    inner.put_if_absent("x", data)
    store = FaultyStore(inner, lambda call: fault, rng=random.Random(3))
    ranges = [ByteRange(0, 0), ByteRange(10, 20)]
    results = [
        (store.get("x").data, data),
        (store.get_range("x", 5, 100), data[5:105]),
        (bytes(store.map("x") or b""), data),
        (store.get_ranges("x", ranges)[1], data[10:30]),
    ]
    for got, whole in results:
        if fault is Fault.TRUNCATE:
            assert len(got) < len(whole)
            assert whole.startswith(got)
        else:
            flipped = int.from_bytes(got, "big") ^ int.from_bytes(whole, "big")
            assert len(got) == len(whole)
            assert flipped.bit_count() == 1
    assert inner.get("x").data == data
    assert store.list("").objects[0].key == "x"
    assert store.get_range("x", 0, 0) == b""


def test_random_faults_repeat_from_their_seed() -> None:
    def run(seed: int) -> list[str]:
        store = FaultyStore(
            MemoryStore(),
            at_random(random.Random(seed), {Fault.FAIL_BEFORE: 0.2, Fault.FAIL_AFTER: 0.2}, methods=WRITES),
        )
        out = []
        for number in range(200):
            try:
                store.put_if_absent(f"x{number}", b"")
                out.append("done")
            except StorageRetryable as error:
                out.append("before" if "nothing happened" in error.message else "after")
        store.list("")  # not among the methods
        return out

    assert run(1) == run(1) != run(2)
    assert {what: run(1).count(what) > 15 for what in ("done", "before", "after")} == {
        "done": True,
        "before": True,
        "after": True,
    }
