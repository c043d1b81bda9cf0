"""Rows of a part as bits, which filters combine: a word of 64 rows, whatever their number.

Row r is bit r % 64 of word r // 64. Imports NumPy, pyroaring and the kernels.
"""

from __future__ import annotations

import array
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from vecstore.ext.masks import mark_rows
from vecstore.types import U64

WORD: Final = 64
CONTAINER: Final = 1 << 16  # rows of a container of a roaring bitmap; it has an array up to so many
MOST_IN_ARRAY: Final = 4_096
NO_RUNS: Final = 12_346  # what the portable format begins with where no container has runs
EVERY: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, slots=True, eq=False)
class RowBits:
    """A set of rows of a part of ``n``; bits beyond them are 0. Shared: not to be changed."""

    words: U64
    n: int

    @classmethod
    def none(cls, n: int) -> RowBits:
        return cls(np.zeros(-(-n // WORD), dtype=np.uint64), n)

    @classmethod
    def every(cls, n: int) -> RowBits:
        return _every(n)

    @classmethod
    def of(cls, rows: npt.NDArray[np.integer], n: int) -> RowBits:
        """Of rows in any order. `ValueError` for one beyond ``n``."""
        found = cls.none(n)
        held = np.ascontiguousarray(rows, dtype=np.uint32)
        mark_rows(held.view(np.uint8), 32, 0, 0, len(held), found.words)
        return found

    @property
    def beyond(self) -> bool:
        """Whether a bit is set that is of no row, as what was read from storage may have it."""
        return bool(self.n % WORD) and int(self.words[-1]) >> self.n % WORD != 0

    def __len__(self) -> int:
        return int(np.bitwise_count(self.words).sum(dtype=np.int64))

    def __bool__(self) -> bool:
        return bool(self.words.any())

    def __and__(self, other: RowBits) -> RowBits:
        return RowBits(self.words & other.words, self.n)

    def __or__(self, other: RowBits) -> RowBits:
        return RowBits(self.words | other.words, self.n)

    def __sub__(self, other: RowBits) -> RowBits:
        return RowBits(self.words & ~other.words, self.n)

    def __invert__(self) -> RowBits:
        return RowBits.every(self.n) - self

    def holds(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of some rows is one of them."""
        bits: U64 = self.words[rows >> 6] >> (rows & 63).astype(np.uint64) & np.uint64(1)
        return bits.astype(np.bool_)

    def rows(self) -> npt.NDArray[np.int64]:
        """Them, ascending: i64[len]."""
        some = np.flatnonzero(self.words)
        bits = np.unpackbits(self.words[some].view(np.uint8), bitorder="little").reshape(-1, WORD)
        word, bit = np.nonzero(bits)
        return some[word] * WORD + bit

    def flags(self) -> npt.NDArray[np.bool_]:
        """bool[n]."""
        return np.unpackbits(self.words.view(np.uint8), count=self.n, bitorder="little").view(np.bool_)

    def bitmap(self) -> BitMap:
        """As a roaring bitmap, by its portable format: containers of bits, or of u16 where few are set."""
        bits = np.zeros((-(-self.n // CONTAINER), CONTAINER // WORD), dtype="<u8")
        bits.reshape(-1)[: len(self.words)] = self.words
        counts = np.bitwise_count(bits).sum(axis=1, dtype=np.int64).tolist()
        keys, bodies = [], []
        for key, count in enumerate(counts):
            if count > MOST_IN_ARRAY:
                bodies.append(bits[key].tobytes())
            elif count:
                some = np.unpackbits(bits[key].view(np.uint8), bitorder="little")
                bodies.append(np.flatnonzero(some).astype("<u2").tobytes())
            if count:
                keys.append((key, count - 1))
        if not keys:
            return BitMap()
        head = np.array([NO_RUNS, len(keys)], dtype="<u4").tobytes() + np.array(keys, dtype="<u2").tobytes()
        lengths = np.array([len(head) + 4 * len(keys), *map(len, bodies)], dtype="<u4")
        return BitMap.deserialize(head + np.cumsum(lengths[:-1], dtype="<u4").tobytes() + b"".join(bodies))


@lru_cache(maxsize=4)  # parts that are asked in turn
def _every(n: int) -> RowBits:
    words = np.full(-(-n // WORD), EVERY, dtype=np.uint64)
    if n % WORD:
        words[-1] = (1 << n % WORD) - 1
    words.setflags(write=False)
    return RowBits(words, n)


def bitmap_of(rows: npt.NDArray[np.integer]) -> BitMap:
    """A bitmap of rows, in any order."""
    if len(rows) > 1:
        rows = np.sort(rows)
    return BitMap(array.array("I", np.ascontiguousarray(rows, dtype=np.uint32).tobytes()))
