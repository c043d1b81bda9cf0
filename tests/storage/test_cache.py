"""The page cache serves what the object holds or names what is damaged, and never fetches twice."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from vecstore.errors import StorageCorrupt, StorageMissing, StorageRetryable
from vecstore.observe import Observer
from vecstore.storage.base import ByteRange, ObjectStore
from vecstore.storage.cache import Page, PageCache, ReadTrace
from vecstore.storage.disk import DiskCache
from vecstore.storage.faults import Call, CountingStore, Fault, FaultyStore, script
from vecstore.storage.memory import MemoryStore
from vecstore.storage.ranges import LEAST_PIECE

KEY = "namespaces/n/parts/p.part"
DATA = random.Random(7).randbytes(1 << 20)
SIZE = 4096


def page(number: int, *, size: int = SIZE, section: str = "records") -> Page:
    start = number * size
    return Page(section, start, size, crc32c(DATA[start : start + size]))


def content(wanted: Page) -> bytes:
    return DATA[wanted.start : wanted.stop]


@pytest.fixture
def store() -> CountingStore:
    inner = MemoryStore()
    inner.put_if_absent(KEY, DATA)
    return CountingStore(inner)


def test_pages_come_in_the_order_asked_aligned_and_read_only(store: CountingStore) -> None:
    wanted = [page(5), page(1), page(200), page(5), Page("ids", 100, 77, crc32c(DATA[100:177]))]
    got = PageCache(1 << 20).read(store, KEY, wanted)
    assert [data.tobytes() for data in got] == [content(p) for p in wanted]
    assert all(data.ctypes.data % 64 == 0 and data.dtype == np.uint8 for data in got)
    assert not any(data.flags.writeable for data in got)


def test_a_page_is_fetched_once_and_counted(store: CountingStore) -> None:
    cache, trace = PageCache(1 << 20), ReadTrace()
    cache.read(store, KEY, [page(0), page(100)], trace)
    assert trace == ReadTrace(requests=2, bytes=2 * SIZE, trips=1, cache_hits=0, cache_misses=2)
    cache.read(store, KEY, [page(100), page(0)], trace)
    assert trace == ReadTrace(requests=2, bytes=2 * SIZE, trips=1, cache_hits=2, cache_misses=2)
    assert store.count("get_ranges") == 1
    assert (cache.stats().hits, cache.stats().misses, cache.stats().pages) == (2, 2, 2)


def test_what_a_cache_lacks_is_told_without_a_request(store: CountingStore, tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 1 << 24)
    for cache in (PageCache(1 << 20), PageCache(1 << 20, disk=disk)):
        wanted = [page(0), page(3), page(3), page(7)]
        assert cache.lacks(store, KEY, wanted) == 3
        cache.read(store, KEY, wanted[:2])
        before = store.count("get_ranges")
        assert cache.lacks(store, KEY, wanted) == 1
        assert store.count("get_ranges") == before
    cache.clear()
    assert cache.lacks(store, KEY, wanted) == 1, "the disk has the others"
    cache.close()


def test_misses_that_lie_close_are_one_request(store: CountingStore) -> None:
    cache, trace = PageCache(1 << 20, max_gap=SIZE), ReadTrace()
    # 0, 2 and 4 are a page apart; 6 is two from 9; 9, 10 touch.
    cache.read(store, KEY, [page(n) for n in (10, 0, 4, 2, 9, 6)], trace)
    assert trace.requests == 2
    assert trace.bytes == (7 + 2) * SIZE
    assert trace.trips == 1
    assert store.count("get_ranges") == 1


def test_a_request_stays_below_its_bound_unless_one_page_exceeds_it(store: CountingStore) -> None:
    cache, trace = PageCache(1 << 20, max_request=3 * SIZE), ReadTrace()
    cache.read(store, KEY, [page(n) for n in range(7)], trace)
    assert trace.requests == 3
    trace = ReadTrace()
    got = cache.read(store, KEY, [page(3, size=16 * SIZE)], trace)
    assert trace.requests == 1
    assert got[0].tobytes() == content(page(3, size=16 * SIZE))


def test_a_long_page_comes_in_two_pieces_and_is_held_against_its_checksum_as_a_whole() -> None:
    data = random.Random(8).randbytes(3 * LEAST_PIECE + 5)
    store, trace = MemoryStore(), ReadTrace()
    store.put_if_absent(KEY, data)
    good, bad = (Page("head", 1, len(data) - 1, crc32c(data[1:]) ^ damage) for damage in (0, 1))
    (got,) = PageCache(1 << 24).read(store, KEY, [good], trace)
    assert got.tobytes() == data[1:]
    assert trace == ReadTrace(requests=2, bytes=len(data) - 1, trips=1, cache_misses=1)
    with pytest.raises(StorageCorrupt):
        PageCache(1 << 24).read(store, KEY, [bad])


def test_nothing_asked_costs_nothing(store: CountingStore) -> None:
    trace = ReadTrace()
    cache = PageCache(1 << 20)
    assert cache.read(store, KEY, [], trace) == []
    assert trace == ReadTrace()
    assert cache.read(store, KEY, [Page("empty", 5, 0, 0)], trace)[0].tobytes() == b""
    assert trace.requests == 0


# -- bounds ------------------------------------------------------------------------------------


def test_memory_is_bounded_and_pages_in_hand_stay_valid(store: CountingStore) -> None:
    cache = PageCache(10 * SIZE)
    held = cache.read(store, KEY, [page(n) for n in range(100)])
    assert cache.stats().bytes <= 10 * SIZE
    assert cache.stats().evictions >= 90
    assert [data.tobytes() for data in held] == [content(page(n)) for n in range(100)]


def test_a_page_beyond_the_bound_is_served_and_not_kept(store: CountingStore) -> None:
    cache = PageCache(SIZE)
    for _ in range(2):
        assert cache.read(store, KEY, [page(3)])[0].tobytes() == content(page(3))
    assert cache.stats().bytes == cache.stats().pages == 0
    assert store.count("get_ranges") == 2


def test_a_scan_does_not_drive_out_what_is_used_again(store: CountingStore) -> None:
    cache = PageCache(16 * SIZE)
    hot = [page(n) for n in range(8)]
    cache.read(store, KEY, hot)
    cache.read(store, KEY, hot)
    for n in range(20, 70):
        cache.read(store, KEY, [page(n)])
    trace = ReadTrace()
    cache.read(store, KEY, hot, trace)
    assert trace.cache_misses == 0


def test_another_working_set_finds_room_though_it_is_read_in_turn(store: CountingStore) -> None:
    cache = PageCache(16 * SIZE)
    for first in (0, 50, 100):
        for _ in range(10):  # one after another: none is used again before the others have been
            for n in range(first, first + 10):
                cache.read(store, KEY, [page(n)])
    trace = ReadTrace()
    cache.read(store, KEY, [page(n) for n in range(102, 110)], trace)
    assert trace.cache_misses == 0
    assert trace.cache_hits == 8
    assert cache.stats().bytes <= 16 * SIZE


def test_clear_forgets(store: CountingStore) -> None:
    cache = PageCache(1 << 20)
    cache.read(store, KEY, [page(0)])
    cache.read(store, KEY, [page(0)])
    cache.clear()
    assert cache.stats().bytes == cache.stats().pages == 0
    cache.read(store, KEY, [page(0)])
    assert store.count("get_ranges") == 2


@settings(max_examples=60, deadline=None)
@given(
    max_bytes=st.integers(0, 40_000),
    max_gap=st.integers(0, 3000),
    max_request=st.integers(1, 20_000),
    reads=st.lists(
        st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 3000)), max_size=12), max_size=12
    ),
)
def test_whatever_is_asked_is_what_the_object_holds(
    max_bytes: int, max_gap: int, max_request: int, reads: list[list[tuple[int, int]]]
) -> None:
    inner = MemoryStore()
    inner.put_if_absent(KEY, DATA[:40_000])
    store = CountingStore(inner)
    cache = PageCache(max_bytes, max_gap=max_gap, max_request=max_request)
    for read in reads:
        wanted = [Page("s", start, n, crc32c(DATA[start : start + n])) for start, n in read]
        trace = ReadTrace()
        before = store.count("get_ranges")
        assert [d.tobytes() for d in cache.read(store, KEY, wanted, trace)] == [content(p) for p in wanted]
        assert trace.cache_hits + trace.cache_misses == len(set(wanted))
        assert store.count("get_ranges") - before == trace.trips == (1 if trace.cache_misses else 0)
        stats = cache.stats()
        assert stats.bytes <= max_bytes
        kept = cache._kept
        again = [held for held, _ in kept._again.values()]
        held = [*kept._once.values(), *again]
        assert stats.pages == len(held)
        assert stats.bytes == sum(one.data.nbytes + 512 for one in held)
        assert kept._again_bytes == sum(one.data.nbytes + 512 for one in again)
        assert not cache._in_flight


# -- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.CORRUPT, Fault.TRUNCATE])
def test_a_fault_of_the_transfer_is_fetched_again(store: CountingStore, fault: Fault) -> None:
    faulty = FaultyStore(store, script([("get_ranges", fault)]))
    cache, trace = PageCache(1 << 20), ReadTrace()
    wanted = [page(3), page(100)]
    assert [d.tobytes() for d in cache.read(faulty, KEY, wanted, trace)] == [content(p) for p in wanted]
    assert trace.trips == 2
    assert trace.requests == 3  # only the bad one again


def test_damage_is_named_and_never_kept(store: CountingStore) -> None:
    inner = MemoryStore()
    damaged = bytearray(DATA)
    damaged[7 * SIZE + 5] ^= 1
    inner.put_if_absent(KEY, bytes(damaged))
    cache = PageCache(1 << 20)
    for _ in range(2):
        with pytest.raises(StorageCorrupt, match="'codes' fails its checksum") as caught:
            cache.read(inner, KEY, [page(6), page(7, section="codes"), page(8)])
        assert caught.value.details == {"object": KEY, "section": "codes", "offset": 7 * SIZE}
    # The sound neighbours were kept, the damaged one was not.
    assert cache.stats().pages == 2
    assert cache.read(inner, KEY, [page(8)])[0].tobytes() == content(page(8))


def test_an_object_that_is_cut_off_names_the_first_section_that_is_gone() -> None:
    inner = MemoryStore()
    inner.put_if_absent(KEY, DATA[: 5 * SIZE + 1])
    with pytest.raises(StorageCorrupt, match="'b' is cut off") as caught:
        PageCache(1 << 20).read(
            inner, KEY, [page(9, section="c"), page(5, section="b"), page(1, section="a")]
        )
    assert caught.value.details == {"object": KEY, "section": "b", "offset": 5 * SIZE}


def test_two_objects_that_were_swapped_do_not_pass(store: CountingStore) -> None:
    store.put_if_absent("other", DATA[::-1])
    cache = PageCache(1 << 20)
    cache.read(store, KEY, [page(0)])
    with pytest.raises(StorageCorrupt):
        cache.read(store, "other", [page(0)])


@pytest.mark.parametrize("kind", [StorageRetryable, StorageMissing])
def test_a_failure_is_the_callers_and_the_next_read_is_free_of_it(store: CountingStore, kind: Any) -> None:
    cache = PageCache(1 << 20)

    def fail(call: Call) -> None:
        raise kind("planned")

    with pytest.raises(kind):
        cache.read(FaultyStore(store, before=fail), KEY, [page(0), page(1)])
    assert cache.read(store, KEY, [page(1)])[0].tobytes() == content(page(1))


# -- many at once --------------------------------------------------------------------------------


class Gate:
    """A store whose first fetch waits until it is let through; then it goes on or fails."""

    def __init__(self, inner: ObjectStore, failure: BaseException | None = None) -> None:
        self.url = inner.url
        self.entered = threading.Event()
        self.open = threading.Event()
        self.fetches = 0
        self._inner = inner
        self._failure = failure

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        self.fetches += 1
        if self.fetches == 1:
            self.entered.set()
            assert self.open.wait(30)
            if self._failure is not None:
                raise self._failure
        return self._inner.get_ranges(key, ranges)


def _reads_while_one_is_under_way(gate: Gate, cache: PageCache, readers: int) -> list[Any]:
    """Outcomes of one read that is held up and of ``readers`` that find it under way."""
    arrived = threading.Semaphore(0)

    class Trace(ReadTrace):
        """Tells when the reader has found out that it must wait: then its trip is counted."""

        def __setattr__(self, name: str, value: int) -> None:
            super().__setattr__(name, value)
            if name == "trips" and value == 1:
                arrived.release()

    def read(trace: ReadTrace) -> Any:
        try:
            return cache.read(gate, KEY, [page(0)], trace)[0].tobytes()  # type: ignore[arg-type]
        except BaseException as error:
            return error

    with ThreadPoolExecutor(readers + 1) as pool:
        first = pool.submit(read, ReadTrace())
        assert gate.entered.wait(30)
        others = [pool.submit(read, Trace()) for _ in range(readers)]
        for _ in range(readers):
            assert arrived.acquire(timeout=30)
        gate.open.set()
        return [future.result(30) for future in (first, *others)]


def test_many_that_want_a_page_cause_one_fetch(store: CountingStore) -> None:
    gate, cache = Gate(store), PageCache(1 << 20)
    assert _reads_while_one_is_under_way(gate, cache, 8) == [content(page(0))] * 9
    assert gate.fetches == 1


def test_all_that_wait_share_a_failure_but_no_exception_object(store: CountingStore) -> None:
    gate, cache = Gate(store, StorageRetryable("down", object=KEY)), PageCache(1 << 20)
    outcomes = _reads_while_one_is_under_way(gate, cache, 4)
    assert all(type(e) is StorageRetryable and e.details == {"object": KEY} for e in outcomes)
    assert len({id(e) for e in outcomes}) == 5
    assert gate.fetches == 1
    assert cache.read(store, KEY, [page(0)])[0].tobytes() == content(page(0))


def test_those_who_wait_are_not_interrupted_with_the_one_who_fetches(store: CountingStore) -> None:
    gate, cache = Gate(store, KeyboardInterrupt()), PageCache(1 << 20)
    first, *others = _reads_while_one_is_under_way(gate, cache, 4)
    assert isinstance(first, KeyboardInterrupt)
    assert others == [content(page(0))] * 4
    assert gate.fetches == 2


def test_an_observer_that_fails_leaves_nobody_waiting(store: CountingStore) -> None:
    class Failing(Observer):
        broken = True

        def count(self, what: str, by: float = 1) -> None:
            if self.broken and what == "cache_misses":
                raise RuntimeError("no room")

    observer = Failing()
    cache = PageCache(1 << 20, observer=observer)
    with pytest.raises(RuntimeError, match="no room"):
        cache.read(store, KEY, [page(0)])
    observer.broken = False
    found: list[bytes] = []

    def later() -> None:
        found.append(cache.read(store, KEY, [page(0)])[0].tobytes())

    thread = threading.Thread(target=later, daemon=True)
    thread.start()
    thread.join(20)
    assert found == [content(page(0))]


def test_two_that_need_each_others_pages_both_go_on(store: CountingStore) -> None:
    barrier = threading.Barrier(2)

    class Meeting:
        """Both fetches are under way at once, so each reader waits for the other's page."""

        url = store.url

        def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
            barrier.wait(30)
            return store.get_ranges(key, ranges)

    cache, meeting = PageCache(1 << 20), Meeting()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            cache.clear()
            # Apart, so that each of the two owns one; then both ask for both.
            one = pool.submit(cache.read, meeting, KEY, [page(0)])  # type: ignore[arg-type]
            two = pool.submit(cache.read, meeting, KEY, [page(100)])  # type: ignore[arg-type]
            one.result(30)
            two.result(30)
    orders = [[page(n) for n in (1, 2, 3)], [page(n) for n in (3, 2, 1)]]
    cache = PageCache(0)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(cache.read, store, KEY, orders[n % 2]) for n in range(200)]
        for n, future in enumerate(futures):
            assert [d.tobytes() for d in future.result(30)] == [content(p) for p in orders[n % 2]]


def test_threads_at_random_get_what_they_asked_for(store: CountingStore) -> None:
    cache = PageCache(20 * SIZE)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            wanted = [page(rng.randrange(60)) for _ in range(rng.randrange(1, 12))]
            assert [d.tobytes() for d in cache.read(store, KEY, wanted)] == [content(p) for p in wanted]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert cache.stats().bytes <= 20 * SIZE
    assert not cache._in_flight


def test_a_forked_child_starts_anew_though_the_lock_was_held_and_a_fetch_under_way(
    store: CountingStore,
) -> None:
    gate, cache = Gate(store), PageCache(1 << 20)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.read, gate, KEY, [page(0)])  # type: ignore[arg-type]
        assert gate.entered.wait(30)
        with cache._lock:
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                plain = MemoryStore("in the child")
                plain.put_if_absent(KEY, DATA)
                good = cache.read(plain, KEY, [page(0)])[0].tobytes() == content(page(0))
                os._exit(0 if good else 1)
        status = os.waitpid(child, 0)[1]
        gate.open.set()
        assert first.result(30)[0].tobytes() == content(page(0))
    assert status == 0
