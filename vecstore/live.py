"""Which rows of a part are alive, in the shape that the scan kernel reads.

The kernel scans a list block by block, 32 slots each, and takes one word a block: bit j allows slot
j. Padding slots at the end of a list are never live. Imports NumPy, pyroaring, bits
and the kernel that turns them into slots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from vecstore.ext.masks import allow_rows
from vecstore.rows.bits import RowBits

BLOCK = 32

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class LiveSet:
    """The live rows of a part of ``n`` rows in lists.

    Row r of list l is slot r - first_row[l] of the list; each list starts a new block.

    Attributes
    ----------
    words
        u32[blocks], one a block: bit j is set if slot j holds a live row. Shared: not to be changed.
    dead, alive
        Rows; they add up to ``n``.
    first_row, first_block
        i64[K + 1] of each list, and the ends.
    """

    words: U32
    n: int
    dead: int
    first_row: I64
    first_block: I64

    @property
    def alive(self) -> int:
        return self.n - self.dead

    @classmethod
    def from_deletes(cls, deletes: BitMap | Iterable[int] | None, n: int, list_rows: I64) -> LiveSet:
        """The rows that are left after ``deletes``, in O(deletes · log K + blocks).

        Parameters
        ----------
        deletes
            Dead rows, or None.
        list_rows
            i64[K]: rows of each list, 0 allowed; they add up to ``n``.

        Raises
        ------
        ValueError
            A row is outside the part, or the lists do not hold ``n`` rows.
        """
        sizes = np.asarray(list_rows, dtype=np.int64)
        if sizes.ndim != 1 or (sizes.size and int(sizes.min()) < 0) or int(sizes.sum()) != n:
            raise ValueError(f"lists of a part hold its {n} rows, not {int(sizes.sum())}")
        first_row = _starts(sizes)
        first_block = _starts((sizes + (BLOCK - 1)) // BLOCK)
        words = np.full(int(first_block[-1]), 0xFFFF_FFFF, dtype=np.uint32)
        partial = np.flatnonzero(sizes % BLOCK)
        tails = (sizes[partial] % BLOCK).astype(np.uint32)
        words[first_block[partial + 1] - 1] = (np.uint32(1) << tails) - np.uint32(1)
        rows = _sorted_rows(deletes)
        live = cls(words, n, len(rows), first_row, first_block)
        if rows.size:
            block, bit = live._slots(rows)
            # Rows are sorted, so those of a block lie together.
            starts = np.flatnonzero(np.diff(block, prepend=-1))
            words[block[starts]] &= ~np.bitwise_or.reduceat(bit, starts)
        return live

    def is_live(self, rows: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """bool a row, in the order given. ValueError for a row outside the part."""
        wanted = np.asarray(rows, dtype=np.int64)
        block, bit = self._slots(wanted.ravel())
        live: npt.NDArray[np.bool_] = (self.words[block] & bit) != 0
        return live.reshape(wanted.shape)

    def only(self, rows: RowBits) -> tuple[LiveSet, npt.NDArray[np.uint8]]:
        """As if all rows but these were dead as well; and u8[K]: 1 for each list without a live row."""
        words, empty = np.empty_like(self.words), np.empty(len(self.first_row) - 1, dtype=np.uint8)
        alive = allow_rows(rows.words, self.first_row, self.first_block, self.words, words, empty)
        return LiveSet(words, self.n, self.n - alive, self.first_row, self.first_block), empty

    def empty_lists(self) -> npt.NDArray[np.uint8]:
        """u8[K]: 1 for each list without a live row."""
        before = np.zeros(len(self.words) + 1, dtype=np.int64)
        np.cumsum(self.words != 0, out=before[1:])
        empty: npt.NDArray[np.bool_] = before[self.first_block[1:]] == before[self.first_block[:-1]]
        return empty.view(np.uint8)

    def rows(self) -> I64:
        """The live rows, ascending."""
        if not self.dead:
            return np.arange(self.n, dtype=np.int64)
        slots = np.flatnonzero(np.unpackbits(self.words.view(np.uint8), bitorder="little"))
        shifts = np.repeat(self.first_row[:-1] - BLOCK * self.first_block[:-1], np.diff(self.first_block))
        return slots + shifts[slots // BLOCK]

    def _slots(self, rows: I64) -> tuple[I64, U32]:
        """The block of each row, and its bit there."""
        if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= self.n):
            raise ValueError(f"a row is outside of the part's {self.n} rows")
        lists = np.searchsorted(self.first_row, rows, side="right") - 1
        slot = rows - self.first_row[lists]
        return self.first_block[lists] + slot // BLOCK, np.uint32(1) << (slot % BLOCK).astype(np.uint32)


def _starts(sizes: I64) -> I64:
    starts = np.zeros(sizes.size + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    return starts


def _sorted_rows(deletes: BitMap | Iterable[int] | None) -> I64:
    if deletes is None:
        return np.empty(0, dtype=np.int64)
    try:
        bitmap = deletes if isinstance(deletes, BitMap) else BitMap(deletes)
    except OverflowError as error:
        raise ValueError("a row is outside of the part") from error
    return np.frombuffer(bitmap.to_array(), dtype=np.uint32).astype(np.int64)
