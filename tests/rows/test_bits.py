"""Sets of rows as bits, against Python's own sets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core import generator
from vecstore.rows.bits import RowBits


def rows_of(found: RowBits) -> list[int]:
    return np.flatnonzero(np.unpackbits(found.words.view(np.uint8), bitorder="little")).tolist()


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1_000])
def test_they_combine_as_sets_do(n: int) -> None:
    rng = generator(n)
    some, others = (rng.permutation(n)[: rng.integers(0, n + 1)] for _ in range(2))
    one, other = RowBits.of(some, n), RowBits.of(others, n)
    first, second = set(some.tolist()), set(others.tolist())
    assert rows_of(one) == sorted(first)
    assert one.rows().tolist() == sorted(first)
    assert len(one) == len(first)
    assert bool(one) == bool(first)
    assert rows_of(one & other) == sorted(first & second)
    assert rows_of(one | other) == sorted(first | second)
    assert rows_of(one - other) == sorted(first - second)
    assert rows_of(~one) == sorted(set(range(n)) - first)
    assert rows_of(RowBits.every(n)) == list(range(n))
    assert not RowBits.none(n)
    np.testing.assert_array_equal(one.holds(np.arange(n)), np.isin(np.arange(n), some))
    np.testing.assert_array_equal(one.flags(), np.isin(np.arange(n), some))


@pytest.mark.parametrize("n", [1, 70_000, 200_000])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.9, 1.0])
def test_the_bitmap_of_a_set_holds_its_rows(n: int, share: float) -> None:
    rows = generator(1).permutation(n)[: int(share * n)]
    if n == 200_000:
        rows = rows[(rows < 65_536) | (rows >= 131_072) | (rows % 64 == 0)]  # containers of either kind
    assert list(RowBits.of(rows, n).bitmap()) == sorted(rows.tolist())


def test_a_row_beyond_them_is_refused() -> None:
    with pytest.raises(ValueError, match="128"):
        RowBits.of(np.array([128]), 100)


def test_the_set_of_every_row_is_shared_and_cannot_be_changed() -> None:
    every = RowBits.every(100)
    with pytest.raises(ValueError, match="read-only"):
        every.words[0] = 0
    assert rows_of(~RowBits.none(100) - RowBits.of(np.array([3]), 100)) == [i for i in range(100) if i != 3]
    assert rows_of(RowBits.every(100)) == list(range(100))
