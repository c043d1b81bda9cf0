"""Work whose time is up stops at its next step and changes nothing; a begun commit is seen through."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pytest

from tests.core import clustered, database, generator
from tests.server.support import eventually
from vecstore import deadline
from vecstore.api import Namespace
from vecstore.errors import DeadlineExceeded, StorageRetryable
from vecstore.index.rotation import Rotation
from vecstore.index.training import in_parts
from vecstore.manifest.model import Settings
from vecstore.part.builder import PartSpec, build_part
from vecstore.rows.filters.patterns import Pattern
from vecstore.rows.packing import BLOCK_BYTES, Texts
from vecstore.storage.cache import Page, PageCache
from vecstore.storage.faults import Call, FaultyStore
from vecstore.storage.memory import MemoryStore
from vecstore.storage.s3.hedge import Hedges
from vecstore.storage.s3.retry import Retries
from vecstore.storage.threads import Pool

T = TypeVar("T")
DIM = 8
ROWS = clustered(generator(1), 400, DIM)
SECONDS = 20.0


class Held(FaultyStore):
    """A store whose calls of some methods end when the test says so."""

    def __init__(self, *methods: str) -> None:
        super().__init__(MemoryStore(), lambda call: None)
        self.methods = methods
        self.reached = threading.Semaphore(0)
        self.go = threading.Event()

    def _around(self, call: Call, run: Callable[[], T]) -> T:
        if call.method in self.methods:
            self.reached.release()
            assert self.go.wait(SECONDS)
        return super()._around(call, run)


def filled(store: Any = None) -> Namespace:
    """Two parts with attributes."""
    ns = database(store).create_namespace("ns", dim=DIM, metric="l2")
    for start in (0, 200):
        ids = np.arange(start, start + 200)
        ns.insert(ROWS[start : start + 200], ids, attributes={"n": ids, "t": [f"t{i}" for i in ids]})
    return ns


WORK: dict[str, Callable[[Namespace], object]] = {
    "a batch": lambda ns: ns.search_batch(ROWS[:40]),
    "a batch with attributes": lambda ns: ns.search_batch(ROWS[:2], include=["n"]),
    "a batch one by one": lambda ns: ns.search_batch(ROWS[:2], debug=True),
    "a filter": lambda ns: ns.search(ROWS[0], filter=["n", "Gte", 3]),
    "an order": lambda ns: ns.search(order_by=("n", "asc")),
    "attributes of hits": lambda ns: ns.search(ROWS[0], include=["t"]),
    "an aggregate": lambda ns: ns.aggregate({"n": ["Sum", "n"]}),
    "a scan": lambda ns: list(ns.scan()),
    "recall": lambda ns: ns.measure_recall(sample=5),
    "an insert": lambda ns: ns.insert(ROWS[:1], [9_000]),
    "a patch": lambda ns: ns.patch(ids=[1], attributes={"n": [2]}),
    "a delete": lambda ns: ns.delete(ids=[1]),
    "a delete by filter": lambda ns: ns.delete(filter=["n", "Lt", 5]),
    "a change of defaults": lambda ns: ns.update(probe_fraction=0.5),
    "a compaction": lambda ns: ns.compact(),
}


@pytest.mark.parametrize("work", WORK)
def test_work_whose_time_is_up_is_stopped_and_changes_nothing(work: str) -> None:
    ns = filled()
    ns.search(ROWS[0])
    before = ns.stats()
    with deadline.within(0.0), pytest.raises(DeadlineExceeded):
        WORK[work](ns)
    assert ns.stats() == before
    with deadline.within(SECONDS):
        WORK[work](ns)


BY_PATTERN: dict[str, Callable[[Namespace, Any], object]] = {
    "a search": lambda ns, f: ns.search(ROWS[0], filter=f),
    "an order": lambda ns, f: ns.search(order_by=("n", "asc"), filter=f),
    "an aggregate": lambda ns, f: ns.aggregate({"n": ["Count"]}, filter=f),
    "a scan": lambda ns, f: list(ns.scan(filter=f)),
    "a delete": lambda ns, f: ns.delete(filter=f),
    "a patch": lambda ns, f: ns.patch(filter=f, attributes={"n": 1}),
    "a condition": lambda ns, f: ns.delete(ids=["a1", "a2"], condition=f),
}


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("attribute", ["t", "id"])
@pytest.mark.parametrize("work", BY_PATTERN)
def test_work_whose_time_is_up_between_two_texts_that_a_pattern_is_held_against_is_stopped_there(
    work: str, attribute: str, cold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    ns = database(store).create_namespace("ns", dim=DIM, metric="l2")
    names = [f"a{i}" for i in range(200)]
    ns.insert(ROWS[:200], names, attributes={"n": range(200), "t": names})
    before = ns.stats()
    if cold:
        ns = database(store).namespace("ns")
    tried: list[bytes] = []
    matches, stop_at = Pattern.matches, 3

    def late(pattern: Pattern, text: bytes) -> bool:
        found = matches(pattern, text)
        tried.append(text)
        if len(tried) == stop_at:
            deadline.begin(time.monotonic())
        return found

    monkeypatch.setattr(Pattern, "matches", late)
    pattern = ["Or", [[attribute, "Regex", "^a[1-9]$"], [attribute, "Regex", "^a0$"]]]
    with deadline.within(SECONDS), pytest.raises(DeadlineExceeded):
        BY_PATTERN[work](ns, pattern)
    assert len(tried) == stop_at
    assert ns.stats() == before
    stop_at = 0
    with deadline.within(SECONDS):
        assert ns.aggregate({"n": ["Count"]}, filter=pattern).values == {"n": 10}
        BY_PATTERN[work](ns, pattern)
    assert len(set(tried)) == 200


class Steps:
    """Counts how often work asks whether its time is up, and lets it be up the n-th time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._asked, self._stop_at = 0, 0
        check = deadline.check

        def counted() -> None:
            self._asked += 1
            if self._asked == self._stop_at:
                deadline.begin(time.monotonic())
            check()

        monkeypatch.setattr(deadline, "check", counted)

    def of(self, work: Callable[[], object], stop_at: int = 0) -> int:
        self._asked, self._stop_at = 0, stop_at
        with deadline.within(SECONDS):
            work()
        return self._asked

    def stopped(self, work: Callable[[], object], stop_at: int) -> None:
        with pytest.raises(DeadlineExceeded):
            self.of(work, stop_at)
        assert self._asked == stop_at


def test_an_aggregate_is_stopped_between_its_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    ns, steps = filled(), Steps(monkeypatch)
    parts, functions = 2, 32

    def asked(count: int) -> Callable[[], object]:
        return lambda: ns.aggregate({f"l{i}": ["CountDistinct", "n"] for i in range(count)}, group_by=["t"])

    asked(1)()  # which opens what both read
    one, many = (steps.of(asked(count)) for count in (1, functions))
    assert many - one >= parts * (functions - 1)
    for stop_at in (1, one, many // 2, many):
        steps.stopped(asked(functions), stop_at)


def test_an_aggregate_is_stopped_between_some_texts_of_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    ns, steps = filled(), Steps(monkeypatch)
    asked = lambda: ns.aggregate({"n": ["CountDistinct", "t"]})  # noqa: E731
    asked()  # which opens what it reads
    before = steps.of(asked)
    monkeypatch.setattr("vecstore.rows.aggregates.NAMED_AT_ONCE", 10)
    assert steps.of(asked) >= before + 2 * (200 // 10 - 1)


def test_the_reading_of_texts_is_stopped_between_their_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, at_once = 5, BLOCK_BYTES // 64
    lengths = np.full(at_once, 64, dtype="<u4").tobytes()
    data = zlib.compress(lengths + bytes(64 * at_once))
    texts = Texts(
        blocks * at_once,
        np.arange(blocks) * at_once,
        np.full(blocks, len(data)).cumsum(),
        lambda start, end: np.frombuffer(data, dtype=np.uint8),
        keep=blocks,
    )
    steps = Steps(monkeypatch)
    read = lambda: [texts[i] for i in range(0, len(texts), 16)]  # noqa: E731
    steps.stopped(read, 3)
    assert steps.of(read) == blocks - 2
    assert steps.of(read) == 0


@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
def test_a_compaction_whose_time_is_up_midway_goes_no_further(stop_at: int) -> None:
    store = MemoryStore()
    ns = filled(store)
    told: list[float] = []

    def late(share: float) -> None:
        told.append(share)
        if len(told) == stop_at:
            deadline.begin(time.monotonic())

    before = ns.stats(), store.list("namespaces/ns/parts/").objects
    with deadline.within(SECONDS), pytest.raises(DeadlineExceeded):
        ns.compact(progress=late)
    assert len(told) == stop_at
    assert (ns.stats(), store.list("namespaces/ns/parts/").objects) == before
    assert len(ns.compact().merged) == 2


def test_the_build_of_a_part_stops_between_its_steps() -> None:
    spec = PartSpec(DIM, "l2", Rotation(DIM, 1), Settings(small_part_threshold=0))
    told: list[float] = []

    def late(share: float) -> None:
        told.append(share)
        deadline.begin(time.monotonic())

    with deadline.within(SECONDS), pytest.raises(DeadlineExceeded):
        build_part(ROWS, None, spec, progress=late)
    assert len(told) == 1


@pytest.mark.parametrize("threads", [0, 2])
def test_of_work_in_parts_no_more_is_begun_when_nobody_waits(threads: int) -> None:
    go, done = threading.Event(), []

    def part(number: int) -> None:
        if number and threads:
            go.wait(SECONDS)
        done.append(number)
        if not threads:
            deadline.begin(time.monotonic())

    with ThreadPoolExecutor(2) as pool, deadline.within(SECONDS if not threads else 0.0):
        with pytest.raises(DeadlineExceeded):
            in_parts(pool if threads else None, part, range(1_000))
        go.set()
    assert len(done) <= 3


def test_a_commit_that_has_begun_is_seen_through_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Held()
    ns = filled(store)
    store.methods = ("put_if_match",)
    with ThreadPoolExecutor(1) as threads:

        def insert() -> int:
            with deadline.within(0.5):
                done = ns.insert(ROWS[:1], [9_000])
                assert deadline.passed()
                return done.epoch

        late = threads.submit(insert)
        assert store.reached.acquire(timeout=SECONDS)
        with deadline.within(0.5):
            eventually("its time is up", deadline.passed)
        store.go.set()
        assert late.result(SECONDS) == ns.stats().epoch
    assert ns.get(9_000).id == 9_000


def test_a_creation_whose_answer_is_lost_is_found_out_though_its_time_is_up() -> None:
    class Late(FaultyStore):
        """Loses the answer to a creation once its time is up. Reads end with the deadline, as of S3."""

        def _around(self, call: Call, run: Callable[[], T]) -> T:
            if call.method == "get":
                deadline.check()
            done = super()._around(call, run)
            if call.method == "put_if_absent":
                eventually("its time is up", lambda: time.monotonic() > until)
                raise StorageRetryable("the answer was lost")
            return done

    store = Late(MemoryStore(), lambda call: None)
    until = time.monotonic() + 0.1
    with deadline.within(0.1):
        made = database(store).create_namespace("ns", dim=DIM)
    assert made.stats().epoch == 1


def test_who_waits_behind_another_commit_gives_up_in_time_and_is_not_applied_later() -> None:
    store = Held()
    ns = filled(store)
    store.methods = ("put_if_match",)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ns.insert, ROWS[:1], [9_000])
        assert store.reached.acquire(timeout=SECONDS)
        with deadline.within(0.3), pytest.raises(DeadlineExceeded):
            ns.delete(ids=[1])
        store.go.set()
        first.result(SECONDS)
    ns.insert(ROWS[:1], [9_001])
    assert ns.get(1).id == 1
    assert ns.stats().rows == 402


def test_a_reader_does_not_wait_for_a_store_that_hangs_for_others() -> None:
    store = Held()
    ns = filled(store)
    store.methods = ("get_if_changed",)
    with ThreadPoolExecutor(1) as threads:
        patient = threads.submit(ns.search, ROWS[0])
        assert store.reached.acquire(timeout=SECONDS)
        with deadline.within(0.05), pytest.raises(DeadlineExceeded):
            ns.search(ROWS[0])
        store.go.set()
        assert len(patient.result(SECONDS)) == 10


def test_a_read_from_s3_that_waits_for_a_thread_is_not_sent_once_nobody_wants_it() -> None:
    go, busy = threading.Event(), threading.Event()
    sent: list[str] = []

    def first(heard: Callable[[], None]) -> None:
        busy.set()
        assert go.wait(SECONDS)

    with Pool(1) as threads:
        hedges = Hedges(lambda: threads, 0.0)
        hung = threads.submit(first, lambda: None)
        assert busy.wait(SECONDS)
        with deadline.within(0.05), pytest.raises(DeadlineExceeded):
            hedges.run([lambda heard: sent.append("late")])
        go.set()
        hung.result(SECONDS)
        hedges.run([lambda heard: sent.append("wanted")])
    assert sent == ["wanted"]


def test_an_answer_from_s3_is_waited_for_until_the_deadline() -> None:
    go = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        hedges = Hedges(lambda: threads, 0.0)
        with deadline.within(0.05), pytest.raises(DeadlineExceeded):
            hedges.run([lambda heard: go.wait(SECONDS)])
        go.set()
        with deadline.within(SECONDS):
            assert hedges.run([lambda heard: "heard"]) == ["heard"]


def test_what_fails_in_passing_is_not_tried_again_when_nobody_waits() -> None:
    tried = []

    def fail() -> None:
        tried.append(1)
        raise StorageRetryable("in passing")

    retries = Retries(5, sleep=lambda seconds: None)
    with deadline.within(0.0), pytest.raises(DeadlineExceeded):  # which says nothing to others that wait
        retries.run(fail)
    assert len(tried) == 1


def test_who_waits_for_a_page_that_another_gives_up_on_fetches_it() -> None:
    class Hurried(MemoryStore):
        """Whose first reader runs out of time once another waits."""

        calls = 0

        def get_ranges(self, key: str, ranges: Any) -> Any:
            self.calls += 1
            if self.calls == 1:
                reached.set()
                assert go.wait(SECONDS)
                raise DeadlineExceeded("the first reader's")
            return super().get_ranges(key, ranges)

    reached, go = threading.Event(), threading.Event()
    store, cache = Hurried(), PageCache(1 << 20)
    store.put_if_absent("page", b"")
    page = Page("all", 0, 0, 0)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.read, store, "page", [page])
        assert reached.wait(SECONDS)
        second = threads.submit(cache.read, store, "page", [page])
        eventually("another waits", lambda: cache.stats().misses == 2)
        go.set()
        assert isinstance(first.exception(SECONDS), DeadlineExceeded)
        assert [bytes(data) for data in second.result(SECONDS)] == [b""]
