from __future__ import annotations

import random

import numpy as np
import pytest

from vecstore.rows.columns import bitmap_of
from vecstore.rows.packing import BLOCK_BYTES, Texts, pack, pack_texts, unpack, unpack_whole

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bits", [0, 1, 3, 7, 8, 9, 16, 17, 31, 33, 48, 56, 57, 63, 64])
@pytest.mark.parametrize("low", [0, 5, 2**40])
@pytest.mark.parametrize("n", [0, 1, 2, 1_000, 70_000])
@pytest.mark.parametrize("whole", [False, True])
def test_integers_come_back_from_any_place(bits: int, low: int, n: int, whole: bool) -> None:
    low = min(low, 2**64 - 2**bits)
    values = RNG.integers(0, 2**bits - 1, size=n, dtype=np.uint64, endpoint=True) + np.uint64(low)
    packing, pieces = pack(values, whole_bytes=whole)
    data = b"".join(pieces)
    held = np.frombuffer(data, dtype=np.uint8)
    assert len(data) == packing.length
    np.testing.assert_array_equal(unpack(packing, held), values)
    if not n:
        return
    at = RNG.integers(0, n, size=50)
    np.testing.assert_array_equal(unpack(packing, held, at), values[at])
    first, last = sorted(RNG.integers(0, n + 1, size=2).tolist())
    np.testing.assert_array_equal(unpack(packing, held, slice(first, last)), values[first:last])
    if whole:
        np.testing.assert_array_equal(unpack_whole(packing, held, first, last), values[first:last])


def test_texts_come_back_from_any_place() -> None:
    rng = random.Random(1)
    values = [rng.randbytes(rng.choice([0, 1, 10, 300, 3 * BLOCK_BYTES])) for _ in range(400)]
    data = bytearray()
    firsts, ends = pack_texts(values, data.extend)
    held = np.frombuffer(data, dtype=np.uint8)
    texts = Texts(len(values), firsts, ends, lambda start, end: held[start:end])
    assert [texts[i] for i in range(len(texts))] == values
    assert [text for block in range(texts.blocks) for text in texts.block(block)] == values


@pytest.mark.parametrize("n", [1, 70_000, 200_000])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.9, 1.0])
def test_a_bitmap_of_many_rows_is_that_of_few(n: int, share: float) -> None:
    rows = RNG.permutation(n)[: int(share * n)]
    if n == 200_000:
        rows = rows[(rows < 65_536) | (rows >= 131_072) | (rows % 64 == 0)]  # containers of either kind
    assert bitmap_of(rows, n) == bitmap_of(rows)
    assert list(bitmap_of(rows, n)) == sorted(rows.tolist())
