"""Rows as slots and as bits, against the same in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core import generator
from vecstore.ext.masks import allow_rows, mark_rows
from vecstore.live import LiveSet


@pytest.mark.parametrize("seed", range(5))
def test_the_slots_of_live_rows_are_allowed_and_lists_without_one_are_told(seed: int) -> None:
    rng = generator(seed)
    sizes = rng.integers(0, 70, size=40)
    n = int(sizes.sum())
    live = LiveSet.from_deletes(rng.choice(n, n // 3, replace=False).tolist(), n, sizes)
    rows = np.sort(rng.choice(n, n // 5, replace=False)).astype(np.uint32)
    words, empty = np.zeros_like(live.words), np.ones(40, dtype=np.uint8)
    alive = rows[live.is_live(rows)]
    assert allow_rows(rows, live.first_row, live.first_block, live.words, words, empty) == len(alive)
    gone = np.setdiff1d(np.arange(n), alive)
    np.testing.assert_array_equal(words, LiveSet.from_deletes(gone.tolist(), n, sizes).words)
    lists = np.searchsorted(live.first_row, alive, side="right") - 1
    np.testing.assert_array_equal(np.flatnonzero(empty == 0), np.unique(lists))


@pytest.mark.parametrize("rows", [[100], [5, 3], [99, 100]])
def test_rows_that_do_not_ascend_or_lie_outside_are_refused(rows: list[int]) -> None:
    live = LiveSet.from_deletes(None, 100, np.array([4, 96]))
    with pytest.raises(ValueError, match="row"):
        allow_rows(
            np.array(rows, dtype=np.uint32),
            live.first_row,
            live.first_block,
            live.words,
            np.zeros_like(live.words),
            np.ones(2, dtype=np.uint8),
        )


def test_tables_of_other_lengths_are_refused() -> None:
    live = LiveSet.from_deletes(None, 100, np.array([4, 96]))
    none, ones = np.empty(0, dtype=np.uint32), np.ones(2, dtype=np.uint8)
    with pytest.raises(ValueError, match="lengths"):
        allow_rows(none, live.first_row[:-1], live.first_block, live.words, live.words.copy(), ones)
    with pytest.raises(ValueError, match="words"):
        allow_rows(none, live.first_row, live.first_block, live.words, live.words[:-1].copy(), ones)


def test_rows_in_any_order_become_bits() -> None:
    rows = generator(1).permutation(1_000)[:300].astype(np.uint32)
    bits = np.zeros(125, dtype=np.uint8)
    mark_rows(rows, bits)
    np.testing.assert_array_equal(np.flatnonzero(np.unpackbits(bits, bitorder="little")), np.sort(rows))
    with pytest.raises(ValueError, match="1000"):
        mark_rows(np.array([1_000], dtype=np.uint32), bits)
