"""Rows as slots and as bits, against the same in NumPy and by pyroaring."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from pyroaring import BitMap

from tests.core import generator
from vecstore.ext.masks import (
    allow_rows,
    check_bitmap,
    keep_between,
    mark_bitmaps,
    mark_codes,
    mark_rows,
    place_of,
)
from vecstore.live import LiveSet
from vecstore.rows.bits import RowBits
from vecstore.rows.packing import pack
from vecstore.types import U64

WIDTHS = (1, 5, 8, 13, 16, 17, 31, 32, 33, 48, 56, 64)


def packed(values: U64, width: int) -> np.ndarray:
    """Integers of which one has every bit of ``width`` and one none, so that this is what they take."""
    packing, data = pack(values)
    assert (packing.low, packing.bits) == (0, width)
    return in_one(data)


def in_one(pieces: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(pieces), dtype=np.uint8)


def numbers(seed: int, n: int, width: int) -> U64:
    values = generator(seed).integers(0, 1 << width, size=n, dtype=np.uint64) if width < 64 else None
    if values is None:
        values = generator(seed).integers(0, 2**64 - 1, size=n, dtype=np.uint64, endpoint=True)
    values[:2] = 0, (1 << width) - 1
    return values


def rows_of(words: U64) -> np.ndarray:
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))


@pytest.mark.parametrize("seed", range(5))
def test_the_slots_of_live_rows_are_allowed_and_lists_without_one_are_told(seed: int) -> None:
    rng = generator(seed)
    sizes = rng.integers(0, 70, size=40)
    n = int(sizes.sum())
    live = LiveSet.from_deletes(rng.choice(n, n // 3, replace=False).tolist(), n, sizes)
    rows = np.sort(rng.choice(n, n // (1 if seed == 4 else 5), replace=False))
    words, empty = np.full_like(live.words, 7), np.full(40, 7, dtype=np.uint8)
    alive = rows[live.is_live(rows)]
    bits = RowBits.of(rows, n).words
    assert allow_rows(bits, live.first_row, live.first_block, live.words, words, empty) == len(alive)
    gone = np.setdiff1d(np.arange(n), alive)
    np.testing.assert_array_equal(words, LiveSet.from_deletes(gone.tolist(), n, sizes).words)
    lists = np.searchsorted(live.first_row, alive, side="right") - 1
    np.testing.assert_array_equal(np.flatnonzero(empty == 0), np.unique(lists))
    assert set(empty.tolist()) <= {0, 1}


def test_tables_of_other_lengths_are_refused() -> None:
    live = LiveSet.from_deletes(None, 100, np.array([4, 96]))
    bits, ones = RowBits.none(100).words, np.ones(2, dtype=np.uint8)
    with pytest.raises(ValueError, match="lengths"):
        allow_rows(bits, live.first_row[:-1], live.first_block, live.words, live.words.copy(), ones)
    with pytest.raises(ValueError, match="words"):
        allow_rows(bits, live.first_row, live.first_block, live.words, live.words[:-1].copy(), ones)
    with pytest.raises(ValueError, match="100 rows"):
        allow_rows(bits[:1], live.first_row, live.first_block, live.words, live.words.copy(), ones)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_rows_in_any_order_become_bits(kind: type) -> None:
    rows = generator(1).permutation(200)[:100].astype(kind)
    bits, width = np.zeros(4, dtype=np.uint64), 8 * rows.itemsize
    mark_rows(rows.view(np.uint8), width, 50, 10, 90, bits)
    np.testing.assert_array_equal(rows_of(bits), np.sort(rows[10:90].astype(np.int64)) + 50)
    beyond = np.array([200, 206], dtype=kind).view(np.uint8)
    mark_rows(beyond, width, 50, 0, 1, bits)
    for first_row, end in ((50, 2), (256, 1)):
        with pytest.raises(ValueError, match="256"):
            mark_rows(beyond, width, first_row, 0, end, bits)
    for start, end in ((0, 3), (-1, 1), (2, 1)):
        with pytest.raises(ValueError, match="no rows"):
            mark_rows(beyond, width, 0, start, end, bits)


def bitmaps() -> list[BitMap]:
    rng = generator(2)
    found = [
        BitMap(),
        BitMap([0]),
        BitMap(rng.choice(200_000, 500, replace=False).tolist()),
        BitMap(rng.choice(200_000, 60_000, replace=False).tolist()),
        BitMap(range(5, 150_000)),
        BitMap([199_999, *range(70_000, 70_130)]),
        BitMap(range(0, 200_000, 2)),
    ]
    return found + [one.copy() for one in found]


def test_rows_of_bitmaps_become_bits() -> None:
    found = bitmaps()
    for one in found[len(found) // 2 :]:
        one.run_optimize()
    data = [one.serialize() for one in found]
    held = np.frombuffer(b"".join(data), dtype=np.uint8)
    ends = np.cumsum([len(one) for one in data])
    starts = ends - [len(one) for one in data]
    for i, one in enumerate(found):
        bits = RowBits.none(200_000).words
        mark_bitmaps(held, starts[i : i + 1], ends[i : i + 1], bits)
        assert rows_of(bits).tolist() == list(one)
    bits = RowBits.none(200_000).words
    mark_bitmaps(held, starts[[1, 2, 9]], ends[[1, 2, 9]], bits)
    assert rows_of(bits).tolist() == list(found[1] | found[2])


def test_bitmaps_that_follow_each_other_are_marked_by_their_packed_ends() -> None:
    found = bitmaps()[1:7]
    data = [one.serialize() for one in found]
    held = np.frombuffer(b"".join(data), dtype=np.uint8)
    where = np.cumsum([len(one) for one in data])
    packing, packed_ends = pack(where)
    ends = in_one(packed_ends)
    for first, last in ((0, 6), (0, 1), (2, 5), (5, 6), (3, 3)):
        base = int(where[first - 1]) if first else 0
        span = held[base : int(where[max(last - 1, 0)])]
        bits = RowBits.none(200_000).words
        mark_codes(span, base, ends, packing.bits, packing.low, first, last, bits)
        assert rows_of(bits).tolist() == sorted(set().union(*found[first:last]))
    for first, last, error in ((4, 2, "no bitmaps"), (-1, 2, "no bitmaps"), (0, 7, "integers")):
        with pytest.raises(ValueError, match=error):
            mark_codes(held, 0, ends, packing.bits, packing.low, first, last, bits)
    for base, short in ((0, held[:-1]), (int(where[1]), held)):
        with pytest.raises(ValueError, match="no roaring bitmap"):
            mark_codes(short, base, ends, packing.bits, packing.low, 0, 6, bits)


def test_what_is_no_bitmap_of_so_many_rows_is_refused() -> None:
    for one in bitmaps()[1:7]:
        for optimised in (False, True):
            if optimised:
                one.run_optimize()
            whole = np.frombuffer(one.serialize(), dtype=np.uint8)
            for data in (whole[:-1], whole[: len(whole) // 2], whole[:3], np.zeros_like(whole)):
                with pytest.raises(ValueError, match="bitmap"):
                    mark_bitmaps(data, np.array([0]), np.array([len(data)]), RowBits.none(200_000).words)
            if one.max() >= 64:
                with pytest.raises(ValueError, match="bitmap"):
                    mark_bitmaps(
                        whole, np.array([0]), np.array([len(whole)]), RowBits.none(one.max() // 64 * 64).words
                    )
    with pytest.raises(ValueError, match="lie"):
        mark_bitmaps(whole, np.array([0]), np.array([len(whole) + 1]), RowBits.none(200_000).words)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n", [2, 64, 1_000])
def test_rows_are_kept_by_their_packed_values(width: int, n: int) -> None:
    values, rng = numbers(3, n, width), generator(4)
    data = packed(values, width)
    for share in (0.02, 0.5, 1.0):
        rows = np.flatnonzero(rng.random(n) < share)
        for _ in range(4):
            low, high = (int(one) for one in np.sort(rng.choice(values, 2)))
            for least, most in ((low, high), (low, 2**64 - 1), (0, high), (high, low)):
                bits = RowBits.of(rows, n).words.copy()
                keep_between(data, width, n, least, most, bits)
                inside = (values >= np.uint64(least)) & (values <= np.uint64(most))
                np.testing.assert_array_equal(rows_of(bits), rows[inside[rows]])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_place_of_a_key_is_that_of_a_binary_search(width: int) -> None:
    values = numbers(5, 300, width)
    data, by_key = packed(values, width), np.argsort(values, kind="stable")
    packing, order = pack(by_key, whole_bytes=True)
    rows = in_one(order)
    for key in [*values[:20].tolist(), 0, (1 << width) // 3, 2**64 - 1]:
        for after in (False, True):
            wanted = np.searchsorted(values[by_key], np.uint64(key), "right" if after else "left")
            assert place_of(rows, packing.bits, packing.low, data, width, 300, key, after) == wanted


def test_packed_integers_that_are_too_few_are_refused() -> None:
    data = packed(numbers(6, 100, 13), 13)
    for width, n in ((0, 100), (57, 10), (13, 101), (64, 100)):
        with pytest.raises(ValueError, match="integers"):
            keep_between(data, width, n, 0, 5, RowBits.none(n).words)
        with pytest.raises(ValueError, match="integers"):
            place_of(data, width, 0, data, 13, n, 5, False)
    with pytest.raises(ValueError, match="words"):
        keep_between(data, 13, 100, 0, 5, RowBits.none(10).words)
    rows = in_one(pack(np.array([0, 255]), whole_bytes=True)[1])
    with pytest.raises(ValueError, match="no key"):
        place_of(rows, 8, 0, data, 13, 2, 5_000, True)


@pytest.mark.parametrize(
    ("first_rows", "first_blocks"),
    [
        ([0, 40, 30], [0, 2, 3]),  # rows descend
        ([0, 40, 70], [0, 1, 3]),  # two blocks' rows in one
        ([0, 40, 70], [0, 2, 2]),  # none
        ([0, 1 << 40, 70], [0, 2, 3]),
        ([-64, 0, 70], [0, 2, 5]),
        ([0, 40, 70], [-1, 2, 3]),
    ],
)
def test_lists_whose_rows_have_no_blocks_of_their_own_are_refused(
    first_rows: list[int], first_blocks: list[int]
) -> None:
    words = np.zeros(first_blocks[-1], dtype=np.uint32)
    tables = np.array(first_rows, dtype=np.int64), np.array(first_blocks, dtype=np.int64)
    with pytest.raises(ValueError, match="list"):
        allow_rows(np.zeros(2, dtype=np.uint64), *tables, words, words.copy(), np.zeros(2, dtype=np.uint8))


@pytest.mark.parametrize("width", WIDTHS)
def test_bits_beyond_the_last_row_are_cleared_and_nothing_is_read_for_them(width: int) -> None:
    n = 70
    data = packed(numbers(3, n, width), width)[: 8 + -(-n * width // 8)].copy()
    bits = np.full(2, 2**64 - 1, dtype=np.uint64)
    keep_between(data, width, n, 0, 2**64 - 1, bits)
    assert bits.tolist() == [2**64 - 1, (1 << n - 64) - 1]


@pytest.mark.parametrize("seed", range(6))
def test_every_bitmap_that_the_library_writes_is_sound_and_none_that_is_cut(seed: int) -> None:
    rng = generator(seed)
    n = 300_000
    found = BitMap(rng.choice(n, [3, 4_000, 4_097, 70_000, 200_000, 1][seed], replace=False).tolist())
    found.add_range(1_000, [1_001, 60_000][seed % 2])
    if seed % 3 == 0:
        found.run_optimize()
    data = found.serialize()
    assert check_bitmap(data, int(found.max()) + 1)
    assert not check_bitmap(data, int(found.max()))
    assert not any(check_bitmap(data[:size], n) for size in range(0, len(data), max(1, len(data) // 50)))
