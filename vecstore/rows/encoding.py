"""Columns to bytes, in the forms that `vecstore.rows.directory` tells of.

Imports directory, packing, column and texts.
"""

from __future__ import annotations

import array
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vecstore.ext.columns import rows_by_code
from vecstore.room import IN_MEMORY, Room
from vecstore.rows.bits import bitmap_of
from vecstore.rows.column import Column, as_buffer
from vecstore.rows.directory import ALIGN, ColumnEntry, Piece
from vecstore.rows.packing import CHUNK, Packing, pack, pack_texts
from vecstore.rows.schema import is_array
from vecstore.rows.texts import TextArray
from vecstore.types import U64

Bytes = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

BITMAP_ROWS: Final = 16  # rows a value, on average, from which on bitmaps are kept rather than postings
REPEATED: Final = 2  # elements a value, likewise, from which on a dictionary is worth it where none must be
NUMBERS_REPEATED: Final = 16  # the same of numbers, which are short themselves
ZONE_BYTES: Final = 64  # of a text in a zone map; a longer one bounds nothing


def encode_columns(
    columns: Mapping[str, Column] | Iterable[tuple[str, Column]], room: Room = IN_MEMORY
) -> tuple[memoryview, dict[str, ColumnEntry]]:
    """The data of columns, one after another, and their directory; one is held at a time if they come so."""
    writer = _Writer(room)
    pairs = columns.items() if isinstance(columns, Mapping) else columns
    entries = {name: _encode(column, writer, room) for name, column in pairs}
    return writer.data.array().data, entries


class _Writer:
    """Lays pieces one after another."""

    def __init__(self, room: Room) -> None:
        self.data = room.spool()
        self._room = room
        self._pieces: dict[str, Piece] = {}

    def put(self, name: str, data: Iterable[bytes | Bytes], packing: Packing | None = None) -> None:
        begin = self.data.size
        for some in data:
            self.data.write(some)
        self._pieces[name] = Piece(begin, self.data.size - begin, packing)
        self.data.write(bytes(-self.data.size % ALIGN))

    def integers(self, name: str, values: npt.NDArray[np.integer], *, whole_bytes: bool = False) -> None:
        packing, data = pack(values, whole_bytes=whole_bytes)
        self.put(name, data, packing)

    def texts(self, values: Iterable[bytes]) -> None:
        blocks = self._room.spool()
        firsts, ends = pack_texts(values, blocks.write)
        self.integers("block_firsts", firsts)
        self.integers("block_ends", ends)
        self.put("blocks", [blocks.array()])

    def bitmaps(self, rows: npt.NDArray[np.uint32], starts: I64) -> None:
        """A bitmap for each value, whose rows lie from one start to the next."""
        found, ends = self._room.spool(), array.array("q")
        for code in range(len(starts) - 1):
            bitmap = bitmap_of(rows[starts[code] : starts[code + 1]])
            bitmap.run_optimize()
            found.write(bitmap.serialize())
            ends.append(found.size)
        self.integers("bitmap_ends", np.frombuffer(ends, dtype=np.int64))
        self.put("bitmaps", [found.array()])

    def take(self) -> dict[str, Piece]:
        found, self._pieces = self._pieces, {}
        return found


def _encode(column: Column, to: _Writer, room: Room) -> ColumnEntry:
    arrays, filterable = is_array(column.spec.type), column.spec.filterable
    elements = as_buffer(column.elements)
    if column.null.any():
        to.put("nulls", [bitmap_of(np.flatnonzero(column.null)).serialize()])
    if arrays:
        starts = room.empty((len(column) + 1,), np.int64)
        starts[0] = 0
        np.cumsum(column.counts, out=starts[1:])
        to.integers("starts", starts)
    if isinstance(elements, TextArray):
        codes, firsts = elements.ranked(room)
        distinct = len(firsts)
        dictionary = filterable or len(codes) >= REPEATED * max(1, distinct)
        if dictionary:
            to.integers("codes", _spread(column, codes, 0, room))
            to.texts(elements.texts(firsts))
        else:
            to.texts(elements.texts(_spread(column, elements.at, -1, room)))
        ends = list(elements.texts(firsts[[0, -1]])) if distinct else [None, None]
    else:
        keys = _distinct(elements, room)
        distinct = len(keys)
        dictionary = (filterable and arrays) or len(elements) >= NUMBERS_REPEATED * max(1, distinct)
        codes = _places(elements, keys, room) if dictionary or filterable else np.empty(0, dtype=np.int64)
        if dictionary:
            to.integers("codes", _spread(column, codes, 0, room))
            to.integers("keys", keys)
        else:
            to.integers("keys", _spread(column, elements, keys[0] if distinct else 0, room))
        ends = keys[[0, -1]].tolist() if distinct else [None, None]
    lookup: Literal["none", "bitmaps", "postings", "sorted"] = "none"
    if filterable:
        lookup = _invert(column, codes, distinct, dictionary, to, room)
    return ColumnEntry(
        type=column.spec.type,
        filterable=filterable,
        elements=len(elements),
        nulls=int(np.count_nonzero(column.null)),
        distinct=distinct,
        least=_zone(ends[0]),
        greatest=_zone(ends[1]),
        form="dictionary" if dictionary else "plain",
        lookup=lookup,
        pieces=to.take(),
    )


def _invert(
    column: Column, codes: I64, distinct: int, dictionary: bool, to: _Writer, room: Room
) -> Literal["bitmaps", "postings", "sorted"]:
    """Lay the rows of each value."""
    starts, rows = room.empty((distinct + 1,), np.int64), room.empty((len(codes),), np.uint32)
    rows_by_code(codes, column.counts, starts, rows)
    if dictionary and len(codes) >= BITMAP_ROWS * max(1, distinct):
        to.bitmaps(rows, starts)
        return "bitmaps"
    to.integers("order", rows, whole_bytes=True)
    if not dictionary:
        return "sorted"
    to.integers("order_starts", starts)
    return "postings"


def _distinct(elements: U64, room: Room) -> U64:
    """Distinct keys in order."""
    found: U64 = room.empty((len(elements),), np.uint64)
    found[:] = elements
    found.sort()
    kept = 0
    for start in range(0, len(found), CHUNK):
        some = found[start : start + CHUNK]
        new = np.ones(len(some), dtype=np.bool_)
        np.not_equal(some[1:], some[:-1], out=new[1:])
        new[0] = not kept or some[0] != found[kept - 1]
        values = some[new]
        found[kept : kept + len(values)] = values
        kept += len(values)
    return found[:kept]


def _places(elements: U64, keys: U64, room: Room) -> I64:
    """The place of each element among the distinct ones."""
    found: I64 = room.empty((len(elements),), np.int64)
    for start in range(0, len(elements), CHUNK):
        found[start : start + CHUNK] = np.searchsorted(keys, elements[start : start + CHUNK])
    return found


def _spread(column: Column, elements: npt.NDArray[Any], empty: int, room: Room) -> npt.NDArray[Any]:
    """Elements as they are stored: of a scalar one a row, also where it is null."""
    if is_array(column.spec.type) or not column.null.any():
        return elements
    out = room.empty((len(column),), elements.dtype)
    out[:] = empty
    out[~column.null] = elements
    return out


def _zone(value: int | bytes | None) -> int | bytes | None:
    return None if isinstance(value, bytes) and len(value) > ZONE_BYTES else value
