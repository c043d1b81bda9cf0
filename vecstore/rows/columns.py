"""Columns in a part, read: values of rows, rows in the order of their values, and look-ups of values.

Imports directory, packing, values, bits and errors.
"""

from __future__ import annotations

import functools
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from vecstore.errors import StorageCorrupt, VecstoreError
from vecstore.ext.masks import keep_between, mark_bitmaps, mark_codes, mark_rows, place_of
from vecstore.limits import MAX_U64
from vecstore.room import Room
from vecstore.rows.bits import RowBits
from vecstore.rows.column import Column, ColumnBuilder
from vecstore.rows.directory import ColumnEntry
from vecstore.rows.packing import (
    BLOCK_BYTES,
    CHUNK,
    KEPT_BLOCKS,
    Packing,
    Texts,
    unpack,
    unpack_one,
    unpack_whole,
)
from vecstore.rows.schema import Spec, element_type, is_array
from vecstore.rows.values import SIGN, Elements, Key, Objects, is_text, value_of
from vecstore.types import U64, AttributeType

Bytes = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

SCAN_WORTH: Final = 12  # values that are compared in the time that one row takes to be marked
SCAN_WORTH_PACKED: Final = 2  # the same of values that do not begin with a byte
TEXTS_AT_ONCE: Final = 256  # that are opened for a pattern, wherever they lie
POURED: Final = 16_384  # rows that are copied at a time
POURED_ARRAYS: Final = 64  # the same of arrays, which may have thousands of elements each
OPEN_BLOCKS: Final = 8  # of texts that are no dictionary: one for each who reads them just now
WHOLE_BYTES: Final = 4 << 20  # of what a filter needs of a column that is read at once rather than by and by


class Source(Protocol):
    """Where the data of columns is read; what is returned was held against its checksums.

    Attributes
    ----------
    key
        What errors name.
    kept
        Where dictionaries are remembered once they were decoded, by column; None where they are not to be,
        because the data itself is not kept either.
    """

    @property
    def key(self) -> str: ...

    @property
    def kept(self) -> dict[str, Texts | Keys] | None: ...

    def read(self, start: int, end: int) -> Bytes: ...

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        """See that these spans can be read without a request each."""


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _sound(read: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A reader's method, whose errors are those of what it read: it passed its checksum, but is no column.

    What is asked was validated before. To hold every integer of a column against what it may be, before its
    first use, would cost what reading all of it costs.
    """

    @functools.wraps(read)
    def told(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            found = read(*args, **kwargs)
            if isinstance(found, RowBits) and found.beyond:
                raise ValueError(f"it has a row beyond {found.n}")
        except VecstoreError:
            raise
        except (ValueError, LookupError, OverflowError, zlib.error) as error:
            column = cast(ColumnReader, args[0])
            raise StorageCorrupt(
                f"{column.source.key}: column {column.name!r} is malformed: {error}",
                object=column.source.key,
                section="attributes",
                attribute=column.name,
            ) from error
        return found

    return told


@dataclass(slots=True, eq=False)  # not frozen, as one is made for every look
class ColumnReader:
    """One column of a part of ``n`` rows."""

    name: str
    entry: ColumnEntry
    n: int
    source: Source

    # -- pieces ----------------------------------------------------------------------------

    def _piece(self, name: str) -> Bytes:
        piece = self.entry.pieces[name]
        return self.source.read(piece.offset, piece.offset + piece.length)

    def _packing(self, name: str) -> Packing:
        packing = self.entry.pieces[name].packing
        if packing is None:
            raise AssertionError(f"piece {name} holds no integers")
        return packing

    def _integers(self, name: str, at: npt.NDArray[np.int64] | slice | None = None) -> U64:
        return unpack(self._packing(name), self._piece(name), at)

    def _run(self, name: str, start: int, stop: int) -> U64:
        """Packed integers from one place to another; no more is read than they need."""
        piece = self.entry.pieces[name]
        if piece.packing is None:
            raise AssertionError(f"piece {name} holds no integers")
        low, bits = piece.packing.low, piece.packing.bits
        before = start % 8  # eight of them begin with a byte
        first = (start - before) * bits // 8
        packing = Packing(low, bits, stop - start + before)
        data = self.source.read(piece.offset + first, piece.offset + first + packing.length)
        return unpack(packing, data, slice(before, packing.count))

    def _texts(self) -> Texts:
        piece, dictionary = self.entry.pieces["blocks"], self.entry.form == "dictionary"
        count = self.entry.distinct if dictionary else self._stored
        return Texts(
            count,
            self._integers("block_firsts").astype(np.int64),
            self._integers("block_ends").astype(np.int64),
            lambda start, end: self.source.read(piece.offset + start, piece.offset + end),
            keep=KEPT_BLOCKS if dictionary else OPEN_BLOCKS,
        )

    @property
    def _stored(self) -> int:
        """Elements as they are stored."""
        return self.entry.elements if is_array(self.entry.type) else self.n

    @property
    def scalar(self) -> bool:
        """Whether a row has one value at most."""
        return not is_array(self.entry.type)

    @property
    def bytes_held(self) -> int:
        """About how many bytes the values of all rows take, as they are."""
        size = 8.0
        if is_text(element_type(self.entry.type)):
            full = self._packing("block_firsts").count - 1
            texts = max(full * BLOCK_BYTES, self.entry.pieces["blocks"].length)
            count = self.entry.distinct if self.entry.form == "dictionary" else self._stored
            size += texts / max(1, count)
        return int(self.entry.elements * size)

    def spans(self, *, inverted: bool) -> list[tuple[int, int]]:
        """What a filter, or else a reading of values, needs, if it is little enough to be read at once."""
        values = {"codes"} if inverted and self.entry.form == "dictionary" else set()
        others = set() if inverted else {"bitmaps", "bitmap_ends", "order", "order_starts"}
        pieces = [piece for name, piece in self.entry.pieces.items() if name not in values | others]
        if sum(piece.length for piece in pieces) > WHOLE_BYTES:
            return []
        return [(piece.offset, piece.offset + piece.length) for piece in pieces if piece.length]

    def _counts(self, starts: I64, ends: npt.NDArray[np.integer]) -> I64:
        """How many elements lie from each place to another; none beyond those that there are."""
        counts: I64 = ends.astype(np.int64) - starts
        least = min(int(starts.min(initial=0)), int(counts.min(initial=0)))
        if least < 0 or int((starts + counts).max(initial=0)) > self.entry.elements:
            raise ValueError(f"it has elements beyond {self.entry.elements}")
        return counts

    # -- values ----------------------------------------------------------------------------

    @_sound
    def nulls(self) -> RowBits:
        """Rows without a value."""
        found = RowBits.none(self.n)
        if self.entry.nulls:
            data = self._piece("nulls")
            mark_bitmaps(data, np.zeros(1, dtype=np.int64), np.array([len(data)]), found.words)
            if len(found) != self.entry.nulls:
                raise ValueError(f"{len(found)} rows are null, not {self.entry.nulls}")
        return found

    def nulls_among(self, rows: I64) -> npt.NDArray[np.bool_]:
        """Which of some rows have no value."""
        if not self.entry.nulls:
            return np.zeros(len(rows), dtype=np.bool_)
        return self.nulls().holds(rows)

    @_sound
    def column(self, rows: I64) -> Column:
        """The values of rows, in their order."""
        spec = Spec(self.entry.type, self.entry.filterable)
        null = self.nulls_among(rows)
        if is_array(self.entry.type):
            starts = self._integers("starts", rows).astype(np.int64)
            counts = self._counts(starts, self._integers("starts", rows + 1))
            first = np.cumsum(counts) - counts
            places = np.repeat(starts - first, counts) + np.arange(int(counts.sum()))
        else:
            counts = (~null).astype(np.int64)
            places = rows[~null]
        return Column(spec, null, counts, self._elements(places))

    def _elements(self, places: I64) -> Elements:
        kind = element_type(self.entry.type)
        if self.entry.form == "dictionary" and len(places):
            places = self._integers("codes", places).astype(np.int64)
        if not is_text(kind):
            return self._keys_at(places)
        return self._texts_at(places) if len(places) else np.empty(0, dtype=object)

    def _keys_at(self, places: I64 | slice) -> U64:
        """The keys of places, each of which can be a value."""
        keys, kind = self._integers("keys", places), element_type(self.entry.type)
        if kind == "datetime" and self.entry.elements and len(keys):  # of numbers only these can be none
            value_of(int(keys.min()), kind)
            value_of(int(keys.max()), kind)
        return keys

    def _texts_at(self, places: npt.NDArray[np.integer]) -> Objects:
        """The texts of places, each of which can be a value."""
        texts, kind = self._dictionary(), element_type(self.entry.type)
        wanted, where = np.unique(places, return_inverse=True)
        found = np.empty(len(wanted), dtype=object)
        for i, place in enumerate(wanted.tolist()):
            found[i] = texts[place]
            value_of(found[i], kind)
        return found[where]

    def values(self, rows: I64) -> list[Any]:
        """A value a row, as JSON has it."""
        return self.column(rows).values()

    @_sound
    def pour(self, rows: I64, to: ColumnBuilder, first: int, room: Room) -> None:
        """Add the values of rows, ascending, as those from row ``first`` on; little is read at a time."""
        text, arrays = is_text(element_type(self.entry.type)), is_array(self.entry.type)
        missing = self.nulls().flags()
        base, keys = 0, None
        if text:
            base = self._pour_texts(to)
        elif self.entry.form == "dictionary":
            keys = room.empty((self.entry.distinct,), np.uint64)
            for start in range(0, len(keys), CHUNK):
                keys[start : start + CHUNK] = self._run("keys", start, min(start + CHUNK, len(keys)))
        stored = "codes" if self.entry.form == "dictionary" else "keys"
        step = POURED_ARRAYS if arrays else POURED
        for start in range(0, self.n, step):
            low, high = np.searchsorted(rows, (start, start + step))
            some = rows[low:high]
            if not len(some):
                continue
            null = missing[some]
            if arrays:
                bounds = self._run("starts", start, min(start + step, self.n) + 1).astype(np.int64)
                starts = bounds[some - start]
                counts = self._counts(starts, bounds[some - start + 1])
                within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
                places, begin, end = np.repeat(starts, counts) + within, int(bounds[0]), int(bounds[-1])
            else:
                counts = (~null).astype(np.int64)
                places, begin, end = some[~null], start, min(start + step, self.n)
            to.null[first + low : first + high] = null
            to.counts[first + low : first + high] = counts
            if text and self.entry.form == "plain":
                to.add_numbers(places + base)
                continue
            found = self._run(stored, begin, end)[places - begin]
            if text:
                to.add_numbers(found.astype(np.int64) + base)
            else:
                to.add_numbers(found if keys is None else keys[found.astype(np.int64)])

    def _pour_texts(self, to: ColumnBuilder) -> int:
        texts, base = self._texts(), None
        for block in range(texts.blocks):
            lengths, data = texts.opened(block)
            number = to.add_texts(np.frombuffer(data, dtype=np.uint8), lengths)
            base = number if base is None else base
        return base or 0

    def rows_in(self, room: int) -> int | None:
        """How many rows have values of so many bytes, on average; None if all of them have no more."""
        held = self.bytes_held
        return None if held <= room else max(1, room * self.n // held)

    # -- order -----------------------------------------------------------------------------

    @_sound
    def ranks(self, rows: I64 | slice) -> U64:
        """Of rows with a value, of no array: numbers in the order of their values, the same for equal ones.

        Of numbers their keys, in which both zeros of a float are one; of a dictionary of texts their codes.
        """
        if self.entry.form == "dictionary":
            codes = self._integers("codes", rows)
            if is_text(element_type(self.entry.type)):
                return codes
            return one_zero(self._keys_at(codes.astype(np.int64)), self.entry.type)
        return one_zero(self._keys_at(rows), self.entry.type)

    @_sound
    def elements_of(self, rows: I64) -> Elements:
        """The keys or texts of rows with a value, of no array."""
        return self._elements(rows)

    @_sound
    def texts_of(self, codes: U64) -> Elements:
        """The texts of codes, which `ranks` gave."""
        return self._texts_at(codes)

    @_sound
    def in_order(self, start: int, stop: int) -> I64:
        """Rows from one place to another in the order of their values; of an index that has them so."""
        piece = self.entry.pieces["order"]
        if piece.packing is None:
            raise AssertionError("an index has its rows in order")
        rows = unpack_whole(piece.packing, self._piece("order"), start, stop).astype(np.int64)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.n:
            raise ValueError(f"it has a row beyond {self.n}")
        return rows

    @_sound
    def up_to(self, key: int) -> tuple[I64, int | None]:
        """Rows of the elements up to a key, ascending, and the least element above it; None if there is none.

        Of numbers with an inverted side, one a row.
        """
        rows = self.between(None, False, key, True).rows()
        if len(rows) == self.entry.elements:
            return rows, None
        if self.entry.lookup == "bitmaps":
            dictionary = self._dictionary()
            return rows, cast(int, dictionary[bisect_right(dictionary, key)])
        return rows, int(self.ranks(self.in_order(len(rows), len(rows) + 1))[0])

    @_sound
    def rows_of_code(self, code: int) -> I64:
        """The rows of one value of a dictionary, ascending."""
        return self._rows_between(code, code + 1).rows()

    # -- look-ups --------------------------------------------------------------------------

    @_sound
    def equal_to(self, keys: Sequence[Key]) -> RowBits:
        """Rows with an element that is one of ``keys``."""
        inside = [key for key in keys if self.may_hold(key, key)]
        if not inside:
            return RowBits.none(self.n)
        if self.entry.lookup == "sorted":
            return self._sorted_equal([int(key) for key in inside])
        dictionary = self._dictionary()
        if isinstance(dictionary, Keys) and len(inside) == 1:
            code = int(dictionary.values.searchsorted(np.uint64(inside[0])))
            same = code < len(dictionary) and dictionary[code] == inside[0]
            return self._rows_between(code, code + same)
        if isinstance(dictionary, Keys):
            wanted = np.array(inside, dtype=np.uint64)
            places = np.searchsorted(dictionary.values, wanted)
            places = places[dictionary.values[np.minimum(places, len(dictionary) - 1)] == wanted]
            return self._rows_of(places.tolist())
        codes = []
        for key in inside:
            code = bisect_left(dictionary, key)
            if code < len(dictionary) and dictionary[code] == key:
                codes.append(code)
        return self._rows_of(codes)

    @_sound
    def between(self, low: Key | None, low_in: bool, high: Key | None, high_in: bool) -> RowBits:
        """Rows with an element between two keys, each of them included or not; None: no bound."""
        if not self.may_hold(low, high):
            return RowBits.none(self.n)
        if self.entry.lookup == "sorted":
            return self._sorted_between(low, low_in, high, high_in)
        first, last = self._codes_between(low, low_in, high, high_in)
        return self._rows_between(first, last)

    @_sound
    def matching(self, pattern: Pattern) -> RowBits:
        """Rows with a text that a pattern matches."""
        texts = cast(Texts, self._dictionary())
        first, last = 0, len(texts)
        if pattern.prefix:
            if not self.may_hold(pattern.prefix, None):
                return RowBits.none(self.n)
            first = bisect_left(texts, pattern.prefix)
            beyond = _after(pattern.prefix)
            last = len(texts) if beyond is None else bisect_left(texts, beyond)
        codes = []
        if first < last:
            for block in range(texts.block_of(first), texts.block_of(last - 1) + 1):
                start = texts.first_of(block)
                some = texts.block(block)
                codes += [
                    start + i
                    for i, text in enumerate(some)
                    if first <= start + i < last and pattern.matches(text)
                ]
        return self._rows_of(codes)

    @_sound
    def matching_among(self, rows: RowBits, pattern: Pattern) -> RowBits:
        """As `matching`, of rows that have a value, by their values; not of arrays."""
        places = rows.rows()
        codes, where = np.unique(self.ranks(places), return_inverse=True)
        held = np.zeros(len(codes), dtype=np.bool_)
        for start in range(0, len(codes), TEXTS_AT_ONCE):
            for i, text in enumerate(self.texts_of(codes[start : start + TEXTS_AT_ONCE]), start):
                held[i] = pattern.matches(text)
        return RowBits.of(places[held[where]], self.n)

    def may_hold(self, low: Key | None, high: Key | None) -> bool:
        """Whether there can be an element between two keys, by the zone map."""
        if not self.entry.elements:
            return False
        least, greatest = self.entry.least, self.entry.greatest
        return not (
            (low is not None and greatest is not None and greatest < low)  # type: ignore[operator]
            or (high is not None and least is not None and least > high)  # type: ignore[operator]
        )

    def _dictionary(self) -> Texts | Keys:
        kept = self.source.kept
        found = None if kept is None else kept.get(self.name)
        if found is None:
            found = self._texts() if "blocks" in self.entry.pieces else Keys(self._integers("keys"))
            if kept is not None:
                kept[self.name] = found
        return found

    def _rows_of(self, codes: Sequence[int]) -> RowBits:
        if not codes:
            return RowBits.none(self.n)
        if codes[-1] - codes[0] + 1 == len(codes):
            return self._rows_between(codes[0], codes[-1] + 1)
        ordered = np.unique(np.array(codes, dtype=np.int64))
        if self.entry.lookup == "bitmaps":
            return self._union(ordered)
        starts = self._integers("order_starts", ordered).astype(np.int64)
        counts = self._counts(starts, self._integers("order_starts", ordered + 1))
        places = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
        return RowBits.of(self._integers("order", places), self.n)

    def _rows_between(self, first: int, last: int) -> RowBits:
        """Rows of the codes from ``first`` to before ``last``."""
        if first >= last:
            return RowBits.none(self.n)
        if first == 0 and last == self.entry.distinct and self.scalar:
            return self.present()
        if self.entry.lookup == "bitmaps":
            found = RowBits.none(self.n)
            self._mark_codes(first, last, found)
            return found
        starts = self._packing("order_starts")
        data = self._piece("order_starts")
        return self._in_order(unpack_one(starts, data, first), unpack_one(starts, data, last))

    def _in_order(self, start: int, end: int) -> RowBits:
        """Rows that lie between two places in the order of values, of which there are some."""
        packing, found = self._packing("order"), RowBits.none(self.n)
        if not packing.bits:  # all of one row
            return RowBits.of(np.array([packing.low]), self.n)
        mark_rows(self._piece("order"), packing.bits, packing.low, start, end, found.words)
        return found

    def _bitmaps(self, start: int, end: int) -> Bytes:
        piece = self.entry.pieces["bitmaps"]
        return self.source.read(piece.offset + start, piece.offset + end)

    def _union(self, codes: I64) -> RowBits:
        """Of bitmaps here and there, by code."""
        found = RowBits.none(self.n)
        if self.source.kept is None:  # what lies between them would have to be fetched too
            for code in codes.tolist():
                self._mark_codes(code, code + 1, found)
            return found
        ends = self._integers("bitmap_ends", codes).astype(np.int64)
        starts = self._integers("bitmap_ends", np.maximum(codes - 1, 0)).astype(np.int64)
        starts[codes == 0] = 0
        base = int(starts[0])
        mark_bitmaps(self._bitmaps(base, int(ends[-1])), starts - base, ends - base, found.words)
        return found

    def _mark_codes(self, first: int, last: int, found: RowBits) -> None:
        """Add the bitmaps from one code to before another to a set that is still one's own."""
        packing, ends = self._packing("bitmap_ends"), self._piece("bitmap_ends")
        base = unpack_one(packing, ends, first - 1) if first else 0
        data = self._bitmaps(base, unpack_one(packing, ends, last - 1))
        if packing.bits:
            mark_codes(data, base, ends, packing.bits, packing.low, first, last, found.words)
        else:  # there is one
            mark_bitmaps(data, np.zeros(1, dtype=np.int64), np.array([len(data)]), found.words)

    def present(self) -> RowBits:
        """Rows with a value."""
        everything = RowBits.every(self.n)
        return everything - self.nulls() if self.entry.nulls else everything

    @_sound
    def among(self, rows: RowBits, low: Key | None, low_in: bool, high: Key | None, high_in: bool) -> RowBits:
        """As `between`, of rows that have a value, by their values; not of arrays."""
        name = "keys"
        if self.entry.lookup != "sorted":  # codes are in the order of the values
            name = "codes"
            low, high = self._codes_between(low, low_in, high, high_in)
            low_in, high_in = True, False
        packing = self._packing(name)
        first = 0 if low is None else int(low) + (not low_in) - packing.low
        last = MAX_U64 - packing.low if high is None else int(high) - (not high_in) - packing.low
        if first > last or last < 0:
            return RowBits.none(self.n)
        if not packing.bits:
            return rows if first <= 0 else RowBits.none(self.n)
        found = RowBits(rows.words.copy(), self.n)
        keep_between(self._piece(name), packing.bits, self.n, max(0, first), last, found.words)
        return found

    def _codes_between(
        self, low: Key | None, low_in: bool, high: Key | None, high_in: bool
    ) -> tuple[int, int]:
        """The first code between two keys, and the first one beyond."""
        dictionary = self._dictionary()
        first = 0 if low is None else (bisect_left if low_in else bisect_right)(dictionary, low)
        if high is None:
            return first, len(dictionary)
        return first, (bisect_right if high_in else bisect_left)(dictionary, high)

    def _sorted_between(self, low: Key | None, low_in: bool, high: Key | None, high_in: bool) -> RowBits:
        order, keys = self._packing("order"), self._packing("keys")
        if not keys.bits or not order.bits:  # one value, or one row that has one
            return self.among(self.present(), low, low_in, high, high_in)
        place = self._places(order, keys)
        first = 0 if low is None else place(int(low), not low_in)
        last = self.entry.elements if high is None else place(int(high), high_in)
        if first >= last:
            return RowBits.none(self.n)
        whole = keys.bits in (8, 16, 32, 64)
        if (last - first) * (SCAN_WORTH if whole else SCAN_WORTH_PACKED) > self.n:
            return self.among(self.present(), low, low_in, high, high_in)
        return self._in_order(first, last)

    def _sorted_equal(self, wanted: Sequence[int]) -> RowBits:
        order, keys = self._packing("order"), self._packing("keys")
        if not keys.bits or not order.bits:  # one value, which those within the zone map are equal to
            return self.present()
        found, place, rows = RowBits.none(self.n), self._places(order, keys), self._piece("order")
        for key in wanted:
            mark_rows(rows, order.bits, order.low, place(key, False), place(key, True), found.words)
        return found

    def _places(self, order: Packing, keys: Packing) -> Callable[[int, bool], int]:
        """Before which place in the order of keys one belongs: after those that are equal, or before them."""
        rows, values, elements = self._piece("order"), self._piece("keys"), self.entry.elements

        def place(key: int, after: bool) -> int:
            if key < keys.low:
                return 0
            return place_of(rows, order.bits, order.low, values, keys.bits, elements, key - keys.low, after)

        return place


class Pattern(Protocol):
    """What texts are held against."""

    @property
    def prefix(self) -> bytes:
        """What every text begins with that it matches."""

    def matches(self, text: bytes) -> bool: ...


class Keys:
    """Keys as a sequence of Python's integers, one at a time."""

    def __init__(self, values: U64) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> Any:
        return int(self.values[i])


def one_zero(keys: U64, kind: AttributeType) -> U64:
    """Keys of which equal values have the same: of a float both zeros."""
    if element_type(kind) != "float":
        return keys
    return np.where(keys == np.uint64(SIGN - 1), np.uint64(SIGN), keys)


def _after(prefix: bytes) -> bytes | None:
    """The least bytes that are more than all which begin with ``prefix``; None if there are none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
