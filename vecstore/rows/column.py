"""The values of one attribute, in the order of rows, and how they come together.

Imports schema, texts, values and the room that arrays lie in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vecstore.ext.columns import take_elements
from vecstore.room import IN_MEMORY, Room
from vecstore.rows.schema import Spec, element_type, is_array
from vecstore.rows.texts import TextArray
from vecstore.rows.values import Elements, is_text, values_of
from vecstore.types import U64

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The values of one attribute, in the order of rows.

    Attributes
    ----------
    null
        bool[n]: rows without a value.
    counts
        i64[n]: elements of each row; of a scalar 1, or 0 where it is null. An empty array is no null.
    elements
        u64[sum of counts] keys, or as many objects of bytes (`vecstore.rows.values`), or texts in a buffer.
    """

    spec: Spec
    null: Bools
    counts: I64
    elements: Elements | TextArray

    def __len__(self) -> int:
        return len(self.null)

    def take(self, rows: I64, room: Room = IN_MEMORY) -> Column:
        """The column of these rows, in this order."""
        starts = room.empty((len(self.counts),), np.int64)
        np.cumsum(self.counts, out=starts)
        starts -= self.counts
        counts = room.take(self.counts, rows)
        held = as_buffer(self.elements)
        moved = room.empty((int(counts.sum()),), np.uint64)
        numbers = held.at.view(np.uint64) if isinstance(held, TextArray) else held
        take_elements(numbers, room.take(starts, rows), counts, moved)
        elements: U64 | TextArray = moved
        if isinstance(held, TextArray):
            elements = TextArray(held.data, held.ends, moved.view(np.int64))
        return Column(self.spec, room.take(self.null, rows), counts, elements)

    def size(self) -> int:
        """Bytes of its elements, as `element_bytes` has them."""
        if isinstance(self.elements, TextArray):
            return int(self.elements.lengths().sum())
        if self.elements.dtype == object:
            return sum(map(len, self.elements.tolist()))
        return 8 * len(self.elements)

    def values(self) -> list[Any]:
        """A value a row, as JSON has it."""
        found = values_of(self.elements, element_type(self.spec.type))
        if is_array(self.spec.type):
            ends = np.cumsum(self.counts).tolist()
            starts = (np.cumsum(self.counts) - self.counts).tolist()
            return [
                None if none else found[start:end]
                for none, start, end in zip(self.null.tolist(), starts, ends, strict=True)
            ]
        following = iter(found)
        return [None if none else next(following) for none in self.null.tolist()]


def as_buffer(elements: Elements | TextArray) -> U64 | TextArray:
    """Elements of which none is an object."""
    if isinstance(elements, TextArray) or elements.dtype != object:
        return cast(U64 | TextArray, elements)
    return TextArray.of(elements.tolist())


def nulls(spec: Spec, n: int) -> Column:
    """A column of ``n`` rows without a value."""
    return ColumnBuilder(spec, n).column()


def joined(columns: Sequence[Column]) -> Column:
    """Columns of one type, one after another."""
    found = ColumnBuilder(columns[0].spec, sum(map(len, columns)))
    at = 0
    for column in columns:
        some = slice(at, at + len(column))
        found.null[some], found.counts[some] = column.null, column.counts
        found.add(column.elements)
        at += len(column)
    return found.column()


def element_bytes(elements: U64 | TextArray) -> I64:
    """i64[m]: what each element takes: 8 of a key, its length of a text."""
    if isinstance(elements, TextArray):
        return elements.lengths()
    return np.full(len(elements), 8, dtype=np.int64)


class ColumnBuilder:
    """A column of ``n`` rows that comes little by little, its elements in order.

    Attributes
    ----------
    null, counts
        As those of `Column`: all rows are null, until it is said how many elements they have.
    """

    def __init__(self, spec: Spec, n: int, room: Room = IN_MEMORY) -> None:
        self.spec = spec
        self.null: Bools = room.empty((n,), np.bool_)
        self.null[:] = True
        self.counts: I64 = room.zeros((n,), np.int64)
        self._numbers = room.spool()
        self._data, self._ends = room.spool(), room.spool()
        self._texts = 0

    def add_texts(self, data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.integer]) -> int:
        """Hold texts, which are elements once `add` names them; the number of the first."""
        first = self._texts
        ends = np.cumsum(lengths, dtype=np.int64)
        ends += self._data.size
        self._data.write(data)
        self._ends.write(ends)
        self._texts += len(ends)
        return first

    def add(self, elements: Elements | TextArray) -> None:
        """More elements."""
        some = as_buffer(elements)
        if isinstance(some, TextArray):
            self.add_numbers(some.at + self.add_texts(some.data, np.diff(some.ends, prepend=0)))
        else:
            self.add_numbers(some)

    def add_numbers(self, elements: U64 | I64) -> None:
        """More elements: keys, or the numbers of texts that are held."""
        self._numbers.write(np.ascontiguousarray(elements))

    def column(self) -> Column:
        """What has come."""
        if not is_text(element_type(self.spec.type)):
            return Column(self.spec, self.null, self.counts, self._numbers.array(np.uint64))
        texts = TextArray(self._data.array(), self._ends.array(np.int64), self._numbers.array(np.int64))
        return Column(self.spec, self.null, self.counts, texts)
