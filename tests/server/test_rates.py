"""Limits of a key, on a clock that stands still between requests."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from vecstore.server.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert [rates.take("a", 2.0, 3) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.now += 0.5
    assert [rates.take("a", 2.0, 3) for _ in range(2)] == [0.0, 0.5]
    clock.now += 3_600.0  # a bucket holds no more than a burst
    assert [rates.take("a", 2.0, 3) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_keys_are_counted_apart_and_forgotten_when_they_are_gone() -> None:
    rates = Rates(Clock())
    assert rates.take("a", 1.0, 1) == 0.0
    assert rates.take("b", 1.0, 1) == 0.0
    rates.keep({"b"})
    assert rates.take("a", 1.0, 1) == 0.0
    assert rates.take("b", 1.0, 1) > 0.0


@given(
    st.floats(0.01, 1e6),
    st.integers(1, 100),
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=200),
)
def test_no_more_get_through_than_rate_and_burst_allow_and_a_wait_is_right(
    rate: float, burst: int, gaps: list[float]
) -> None:
    clock = Clock()
    rates, taken, start = Rates(clock), 0, clock.now
    for gap in gaps:
        clock.now += gap / rate
        wait = rates.take("a", rate, burst)
        taken += not wait
        assert taken <= burst + (clock.now - start) * rate + 1e-3
        if wait:
            clock.now += math.ceil(wait)  # what Retry-After says
            assert rates.take("a", rate, burst) == 0.0
            taken += 1
