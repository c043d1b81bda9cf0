"""Kernels of columns beside the same in Python."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vecstore.ext.columns import rank_texts, rows_by_code, take_elements
from vecstore.room import Room
from vecstore.rows.texts import TextArray


def some_texts(rng: random.Random, n: int) -> list[bytes]:
    """Of all bytes, many of which begin alike, are the same, or are empty."""
    begin = rng.choice([b"", b"\0\0", b"https://example.org/"])
    return [begin + bytes(rng.choices([0, 1, 97, 255], k=rng.randrange(14))) for _ in range(n)]


@pytest.mark.parametrize("seed", range(30))
def test_texts_are_ranked_by_their_bytes(seed: int) -> None:
    rng = random.Random(seed)
    texts = some_texts(rng, rng.choice([1, 2, 3, 100, 1_000]))
    held = TextArray.of(texts)
    at = np.array(rng.choices(range(len(texts)), k=rng.choice([1, 50, 2_000])))
    array = TextArray(held.data, held.ends, at)
    codes, firsts = array.ranked(Room(0))
    elements = [texts[i] for i in at.tolist()]
    ordered = sorted(set(elements))
    assert list(array.texts(firsts)) == ordered
    assert [ordered[code] for code in codes.tolist()] == elements == array.tolist()
    assert array.lengths().tolist() == list(map(len, elements))


def test_no_text_has_no_rank() -> None:
    codes, firsts = TextArray.of([]).ranked()
    assert (len(codes), len(firsts)) == (0, 0)
    empty = TextArray.of([b"", b""])
    assert empty.ranked()[0].tolist() == [0, 0]
    assert list(empty.texts(np.array([-1, 0, 1]))) == [b"", b"", b""]


@pytest.mark.parametrize("ends", [[3, 2], [9], [-1]])
def test_a_text_that_ends_where_it_cannot_is_refused(ends: list[int]) -> None:
    n = len(ends)
    pairs = np.empty((2, n, 2), dtype=np.uint64)
    with pytest.raises(ValueError, match="ends at"):
        rank_texts(
            np.zeros(4, dtype=np.uint8),
            np.array(ends),
            np.ones(n, dtype=np.uint8),
            pairs[0],
            pairs[1],
            np.empty(n, dtype=np.int64),
            np.empty(n, dtype=np.int64),
        )


def test_runs_of_elements_are_moved() -> None:
    elements, out = np.arange(10, dtype=np.uint64), np.empty(6, dtype=np.uint64)
    take_elements(elements, np.array([7, 0, 2]), np.array([3, 0, 3]), out)
    assert out.tolist() == [7, 8, 9, 2, 3, 4]
    for starts, counts in (([8], [6]), ([0], [7]), ([-1], [6]), ([0], [5]), ([0, 0], [7, -1])):
        with pytest.raises(ValueError, match="elements"):
            take_elements(elements, np.array(starts), np.array(counts), out)


def test_rows_come_by_code_and_then_as_they_are() -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 4, size=500)
    codes = rng.integers(0, 40, size=int(counts.sum()))
    starts, rows = np.empty(41, dtype=np.int64), np.empty(len(codes), dtype=np.uint32)
    rows_by_code(codes, counts, starts, rows)
    row_of = np.repeat(np.arange(500), counts)
    assert rows.tolist() == row_of[np.argsort(codes, kind="stable")].tolist()
    assert np.diff(starts).tolist() == np.bincount(codes, minlength=40).tolist()
    for wrong in (codes + 1, codes - 1):
        with pytest.raises(ValueError, match="code"):
            rows_by_code(wrong, counts, starts, rows)
    for other in (counts[:-100], np.append(counts, 1)):
        with pytest.raises(ValueError, match="rows have"):
            rows_by_code(codes, other, starts, rows)
