"""Texts in one buffer, and elements that name them by number: to move elements moves no text.

Imports NumPy and the room that arrays lie in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstore.ext.columns import rank_texts
from vecstore.room import IN_MEMORY, Room

I64 = npt.NDArray[np.int64]

AT_ONCE: Final = 4_096  # texts whose places are looked up together


@dataclass(frozen=True, slots=True, eq=False)
class TextArray:
    """Elements that are texts.

    Attributes
    ----------
    data, ends
        u8[B] and i64[T]: texts one after another, and where each ends. Some may be no element.
    at
        i64[m]: the text of each element.
    """

    data: npt.NDArray[np.uint8]
    ends: I64
    at: I64

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> TextArray:
        """An element for each text."""
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        return cls(np.frombuffer(b"".join(texts), dtype=np.uint8), np.cumsum(lengths), np.arange(len(texts)))

    def __len__(self) -> int:
        return len(self.at)

    def lengths(self) -> I64:
        """i64[m]: bytes of each element."""
        return np.diff(self.ends, prepend=0)[self.at]

    def tolist(self) -> list[bytes]:
        """The elements as objects."""
        return list(self.texts(self.at))

    def texts(self, numbers: I64) -> Iterator[bytes]:
        """Texts by number, some looked up at a time; a number of -1 is the empty text."""
        view = self.data.data
        held = self.ends if len(self.ends) else np.zeros(1, dtype=np.int64)
        for first in range(0, len(numbers), AT_ONCE):
            some = numbers[first : first + AT_ONCE]
            starts = np.where(some > 0, np.take(held, some - 1, mode="clip"), 0)
            ends = np.where(some >= 0, np.take(held, some, mode="clip"), 0)
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                yield bytes(view[start:end])

    def ranked(self, room: Room = IN_MEMORY) -> tuple[I64, I64]:
        """The place of each element among the distinct ones in order, i64[m]; and a text of each, i64[D]."""
        used = room.empty((len(self.ends),), np.uint8)
        used[:] = 0
        used[self.at] = 1
        count = int(np.count_nonzero(used))
        entries, scratch = (room.empty((count, 2), np.uint64) for _ in range(2))
        ranks, firsts = room.empty((len(self.ends),), np.int64), room.empty((count,), np.int64)
        distinct = rank_texts(self.data, self.ends, used, entries, scratch, ranks, firsts)
        return room.take(ranks, self.at), firsts[:distinct]
