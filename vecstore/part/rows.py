"""The rows of a part as filters ask for them: by the columns of their attributes, and by their ids.

One object serves one search, which its trace belongs to. Imports the reader, what is under `rows`, deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vecstore import deadline
from vecstore.limits import MAX_U64
from vecstore.part.reader import PartReader
from vecstore.rows.bits import RowBits
from vecstore.rows.columns import ColumnReader
from vecstore.rows.filters.binding import Between, Matching
from vecstore.rows.ids import Ids, keys_of
from vecstore.storage.cache import ReadTrace

Bytes = npt.NDArray[np.uint8]


class PartRows:
    """The rows of one part for one search."""

    def __init__(self, reader: PartReader, trace: ReadTrace) -> None:
        self._reader = reader
        self._trace = trace
        self.n = reader.entry.n
        self.key = reader.key
        self.kept = reader.dictionaries

    # -- attributes: `vecstore.rows.columns.Source` ----------------------------------------

    def read(self, start: int, end: int) -> Bytes:
        return self._reader.attribute_bytes(start, end, self._trace)

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        self._reader.fetch_attributes(spans, self._trace)

    def column(self, name: str, attribute: int) -> ColumnReader | None:
        """The column of an attribute; None if the part has none, so that all of its rows are null."""
        entry = self._reader.columns.get(attribute)
        return None if entry is None else ColumnReader(name, entry, self.n, self)

    # -- ids -------------------------------------------------------------------------------

    def ids_equal_to(self, keys: tuple[int | bytes, ...]) -> RowBits:
        """Rows of ids, dead ones included."""
        if not keys:
            return RowBits.none(self.n)
        if self._reader.id_kind == "string":
            values = np.empty(len(keys), dtype=object)
            values[:] = [key.decode() for key in keys if isinstance(key, bytes)]
            ids = Ids("string", values, keys_of(values))
        else:
            numbers = np.array(keys, dtype=np.uint64)
            ids = Ids("u64", numbers, numbers)
        return RowBits.of(self._reader.index.find(ids, self._trace)[1], self.n)

    def ids_between(self, test: Between) -> RowBits:
        """Rows of the ids in a range."""
        if self._reader.id_kind == "string":
            return self._where(lambda one: _inside(one, test))
        low = 0 if test.low is None else int(test.low) + (not test.low_in)
        high = None if test.high is None else int(test.high) + test.high_in
        if low > MAX_U64 or (high is not None and high <= low):
            return RowBits.none(self.n)
        if high is not None and high > MAX_U64:
            high = None
        return RowBits.of(self._reader.index.between(low, high, self._trace)[1], self.n)

    def ids_matching(self, test: Matching) -> RowBits:
        """Rows of the string ids that a pattern matches."""
        return self._where(test.pattern.matches)

    def _where(self, holds: Callable[[bytes], bool]) -> RowBits:
        found = [row for row, one in enumerate(self._ids()) if holds(one)]
        return RowBits.of(np.array(found, dtype=np.uint32), self.n)

    def _ids(self) -> Iterator[bytes]:
        for some in self._reader.scan_ids(self._trace):
            deadline.check()
            for one in some.tolist():
                yield one.encode()


def _inside(one: bytes, test: Between) -> bool:
    low, high = test.low, test.high
    if isinstance(low, bytes) and not (one >= low if test.low_in else one > low):
        return False
    return not isinstance(high, bytes) or (one <= high if test.high_in else one < high)
