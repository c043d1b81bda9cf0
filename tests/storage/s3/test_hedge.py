"""A read whose answer is late is sent a second time, and no more of them than agreed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from tests.storage.contract import Behind
from tests.storage.toxic_proxy import Proxy, Toxic
from vecstore.storage.base import ByteRange
from vecstore.storage.s3 import S3Store
from vecstore.storage.s3.hedge import Hedges


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def quick(heard: Callable[[], None]) -> str:
    heard()
    return "quick"


def steady(heard: Callable[[], None]) -> str:
    """What patience is learnt from: so much of it that the threads of the reads after have begun by then."""
    time.sleep(0.05)
    return quick(heard)


class Stuck:
    """A read that gets no answer the first ``times`` until it is let go."""

    def __init__(self, times: int = 1, failure: Exception | None = None) -> None:
        self.times = times
        self.failure = failure
        self.calls = 0
        self.go = threading.Event()

    def __call__(self, heard: Callable[[], None]) -> str:
        self.calls += 1
        number = self.calls
        if number <= self.times:
            assert self.go.wait(20)
        if number == self.times + 1 and self.failure is not None:
            self.go.set()
            raise self.failure
        heard()
        return f"call {number}"


@pytest.fixture
def hedges(pool: Executor) -> Hedges:
    """One that knows how quick answers are."""
    hedges = Hedges(lambda: pool, 1.0)
    assert hedges.patience() is None
    hedges.run([steady] * 40)
    patience = hedges.patience()
    assert patience is not None
    assert 0 < patience < 1
    return hedges


def test_whichever_answers_first_is_taken(hedges: Hedges) -> None:
    stuck = Stuck()
    try:
        assert hedges.run([quick, stuck, quick]) == ["quick", "call 2", "quick"]
    finally:
        stuck.go.set()
    assert stuck.calls == 2


def test_a_second_request_that_fails_leaves_it_to_the_first(hedges: Hedges) -> None:
    stuck = Stuck(failure=OSError("the second"))
    assert hedges.run([stuck]) == ["call 1"]


def test_the_failure_of_a_read_is_raised(hedges: Hedges) -> None:
    def failing(heard: Callable[[], None]) -> str:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        hedges.run([quick, failing])


def test_second_requests_are_a_bounded_share() -> None:
    """Forty reads are stuck; what was saved up is enough for sixteen second requests."""
    with ThreadPoolExecutor(80) as pool:
        hedges = Hedges(lambda: pool, 0.001)
        hedges.run([steady] * 40)
        reads = [Stuck() for _ in range(40)]
        done = pool.submit(hedges.run, reads)
        deadline = time.monotonic() + 20
        while sum(read.calls for read in reads) < 40 + 16:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for read in reads:
            read.go.set()
        assert len(done.result()) == 40
    assert sum(read.calls for read in reads) == 40 + 16


def test_without_a_share_nothing_is_sent_twice(pool: Executor) -> None:
    hedges = Hedges(lambda: pool, 0.0)
    hedges.run([quick] * 40)
    stuck = Stuck()
    timer = threading.Timer(0.1, stuck.go.set)
    timer.start()
    assert hedges.run([stuck]) == ["call 1"]


def test_a_server_that_hangs_once_delays_nobody(
    make: Callable[..., S3Store], proxy: Proxy, behind: Behind
) -> None:
    """The time-out is 20 seconds; the answer comes by the second request."""
    store = make(endpoint_url=proxy.url, read_timeout=20.0)
    behind.write("x", bytes(range(250)))
    store.get_ranges("x", [ByteRange(i, 2) for i in range(40)])
    proxy.plan(("GET", Toxic.HANG))
    wanted = [ByteRange(i, 3) for i in range(8)]
    assert store.get_ranges("x", wanted) == [bytes(range(i, i + 3)) for i in range(8)]
    assert not proxy.released.is_set()
    assert proxy.count("GET") >= 9
    proxy.released.set()
