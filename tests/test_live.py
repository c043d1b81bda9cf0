"""Which rows of a part are alive, against one bit at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from vecstore.live import LiveSet
from vecstore.rows.bits import RowBits


def bits(live: LiveSet, sizes: list[int]) -> list[bool]:
    """Every row's bit, found the slow way; asserts that no other bit is set."""
    rows = []
    block = 0
    for size in sizes:
        for first in range(0, size, 32):
            word = int(live.words[block])
            inside = min(32, size - first)
            assert word >> inside == 0, "a padding slot is live"
            rows += [bool(word >> slot & 1) for slot in range(inside)]
            block += 1
    assert block == len(live.words)
    return rows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 100), max_size=20), st.data())
def test_every_row_is_live_unless_it_is_dead(sizes: list[int], data: st.DataObject) -> None:
    n = sum(sizes)
    dead = data.draw(st.sets(st.integers(0, n - 1))) if n else set()
    live = LiveSet.from_deletes(BitMap(dead), n, np.array(sizes, dtype=np.int64))
    expected = [row not in dead for row in range(n)]
    assert bits(live, sizes) == expected
    assert live.words.dtype == np.uint32
    assert (live.alive, live.dead) == (n - len(dead), len(dead))
    assert live.is_live(np.arange(n)).tolist() == expected


def test_without_deletes_every_row_is_live() -> None:
    live = LiveSet.from_deletes(None, 40, np.array([40]))
    assert live.words.tolist() == [0xFFFFFFFF, 0xFF]
    assert live.alive == 40


def test_deletes_may_come_in_any_order_and_twice() -> None:
    live = LiveSet.from_deletes([5, 1, 5], 10, np.array([4, 6]))
    assert (live.words.tolist(), live.dead) == ([0b1101, 0b111101], 2)


def test_lists_may_be_empty() -> None:
    live = LiveSet.from_deletes([3], 5, np.array([0, 3, 0, 0, 2, 0]))
    assert live.words.tolist() == [0b111, 0b10]
    assert live.is_live([[4, 3], [2, 0]]).tolist() == [[True, False], [True, True]]


def test_a_part_of_no_rows_has_no_words() -> None:
    live = LiveSet.from_deletes(None, 0, np.array([], dtype=np.int64))
    assert len(live.words) == live.alive == 0


@pytest.mark.parametrize("deletes", [[10], [-1], BitMap([4_000_000_000])])
def test_a_row_that_the_part_does_not_have_is_an_error(deletes: object) -> None:
    with pytest.raises(ValueError, match="row"):
        LiveSet.from_deletes(deletes, 10, np.array([10]))  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [[9], [11], [12, -2], []])
def test_lists_that_do_not_hold_the_rows_are_an_error(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="lists"):
        LiveSet.from_deletes(None, 10, np.array(sizes, dtype=np.int64))


def test_asking_for_a_row_outside_the_part_is_an_error() -> None:
    live = LiveSet.from_deletes(None, 10, np.array([10]))
    with pytest.raises(ValueError, match="row"):
        live.is_live([10])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.data())
def test_rows_are_listed_and_hidden(sizes: list[int], data: st.DataObject) -> None:
    n = sum(sizes)
    dead = data.draw(st.sets(st.integers(0, n - 1))) if n else set()
    hidden = data.draw(st.sets(st.integers(0, n - 1))) if n else set()
    live = LiveSet.from_deletes(BitMap(dead), n, np.array(sizes, dtype=np.int64))
    assert live.rows().tolist() == [row for row in range(n) if row not in dead]
    fewer, empty = live.only(~RowBits.of(np.array(sorted(hidden), dtype=np.int64), n))
    left = [row for row in range(n) if row not in dead | hidden]
    assert fewer.rows().tolist() == left
    assert (fewer.alive, fewer.dead) == (len(left), n - len(left))
    ends = np.cumsum(sizes).tolist()
    firsts = [0, *ends[:-1]]
    assert (
        fewer.empty_lists().tolist()
        == empty.tolist()
        == [int(not any(first <= row < end for row in left)) for first, end in zip(firsts, ends, strict=True)]
    )
