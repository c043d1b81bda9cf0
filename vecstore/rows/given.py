"""Attributes as a caller gives them, some rows at a time, and bounded before objects are made of them.

Columns by name, rows, a table of Arrow, or the JSON of either: all of them are read again and again in
slices, so that what is held beside the caller's own is a slice. Imports schema, errors and limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, cast

import msgspec
import numpy as np
import numpy.typing as npt

from vecstore.arrow import array_type, column_of, columns_of, is_arrow, values_of
from vecstore.errors import InvalidAttribute, SchemaConflict
from vecstore.ext.json import outline
from vecstore.limits import MAX_ARRAY_ELEMENTS, MAX_ATTRIBUTES, MAX_ROW_JSON_BYTES
from vecstore.rows.schema import check_name
from vecstore.types import AttributeType

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
Values = Sequence[Any] | npt.NDArray[Any]
Slice = tuple[str, int, Values]  # an attribute, a row, and values from that row on

FIELD: Final = "attributes"
SLICE_ROWS: Final = 4_096
SLICE_BYTES: Final = 256 << 10  # of JSON
_NOT_READ: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_list = msgspec.json.Decoder(list[Any])
_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Given(Protocol):
    """Attributes of some rows.

    Attributes
    ----------
    told
        Types of columns that have one whatever their values, of those that `slices` has begun to yield.
    """

    told: dict[str, AttributeType]

    def slices(self) -> Iterator[Slice]:
        """All values, those of an attribute from the first row on; rows that are left out have none.

        Raises
        ------
        InvalidAttribute
            Naming attribute or row, and the limit.
        """

    def named(self) -> dict[str, Bools]:
        """bool[n] an attribute: the rows that name it, be it for null; columns name theirs in all rows.

        To be asked of what `slices` has found no fault with.
        """


def attributes_given(given: Any, n: int) -> Given:
    """Attributes of ``n`` rows.

    Parameters
    ----------
    given
        Columns by name (lists, arrays of NumPy, columns of Arrow, pandas or Polars, anything with
        ``tolist``), a table or data frame, or a list of ``n`` rows, each an object of its attributes; bytes
        of JSON of columns or rows; None for none.
    """
    if given is None:
        return _Columns({}, n)
    if isinstance(given, bytes):
        return _json(memoryview(given), n)
    if is_arrow(given):
        return _Columns(columns_of(given), n)
    if isinstance(given, Mapping):
        return _Columns(given, n)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidAttribute(f"{FIELD} must be columns by name, or a list of rows", field=FIELD)
    _check_rows(len(given), n)
    return _Rows(_sliceable(given))


def held(given: Any) -> Any:
    """Attributes that can be read several times: of a stream, which can be read once, what it holds."""
    if is_arrow(given):
        return columns_of(given)
    if isinstance(given, Mapping):
        return {
            name: column_of(values, check_name(name, field=FIELD)) if is_arrow(values) else values
            for name, values in given.items()
        }
    return given


def too_many(count: int) -> InvalidAttribute:
    """That there are more attributes than a namespace keeps."""
    return InvalidAttribute(
        f"{FIELD} has {count} attributes; at most {MAX_ATTRIBUTES} are kept",
        field=FIELD,
        limit=MAX_ATTRIBUTES,
    )


def _check_rows(count: int, n: int) -> None:
    if count != n:
        raise InvalidAttribute(f"{FIELD} has {count} rows for {n} vectors", field=FIELD, limit=n)


def _check_values(name: str, count: int, n: int) -> None:
    if count != n:
        raise InvalidAttribute(
            f"{FIELD}: {name!r} has {count} values for {n} rows", field=FIELD, attribute=name, limit=n
        )


# -- objects -------------------------------------------------------------------------------


class _Columns:
    """Columns by name."""

    def __init__(self, columns: Mapping[str, Any], n: int) -> None:
        if len(columns) > MAX_ATTRIBUTES:
            raise too_many(len(columns))
        self._columns = {check_name(name, field=FIELD): values for name, values in columns.items()}
        self._n = n
        self.told: dict[str, AttributeType] = {}

    def slices(self) -> Iterator[Slice]:
        for name, values in self._columns.items():
            whole: Any = column_of(values, name) if is_arrow(values) else _listed(values, name)
            _check_values(name, len(whole), self._n)
            if is_arrow(values) and (kind := array_type(whole)) is not None:
                self.told[name] = kind
            for first in range(0, self._n, SLICE_ROWS):
                if is_arrow(values):
                    yield name, first, values_of(whole.slice(first, SLICE_ROWS), name)
                else:
                    yield name, first, whole[first : first + SLICE_ROWS]

    def named(self) -> dict[str, Bools]:
        return {name: np.ones(self._n, dtype=np.bool_) for name in self._columns}


class _Rows:
    """Rows, each an object."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self.told: dict[str, AttributeType] = {}

    def slices(self) -> Iterator[Slice]:
        for first, some in self._some():
            yield from _transposed(some, first)

    def named(self) -> dict[str, Bools]:
        return _named(self._some(), len(self._rows))

    def _some(self) -> Iterator[tuple[int, Sequence[Any]]]:
        for first in range(0, len(self._rows), SLICE_ROWS):
            yield first, self._rows[first : first + SLICE_ROWS]


def _transposed(rows: Sequence[Any], first: int) -> Iterator[Slice]:
    columns: dict[str, list[Any]] = {}
    for i, attributes in enumerate(rows):
        if not isinstance(attributes, Mapping):
            raise InvalidAttribute(
                f"{FIELD}[{first + i}] must be an object of attributes", field=FIELD, row=first + i
            )
        for name, value in attributes.items():
            column = columns.get(name)
            if column is None:
                if len(columns) >= MAX_ATTRIBUTES:
                    raise InvalidAttribute(
                        f"{FIELD}[{first + i}] has an attribute more than the {MAX_ATTRIBUTES} that are kept",
                        field=FIELD,
                        row=first + i,
                        limit=MAX_ATTRIBUTES,
                    )
                column = columns[check_name(name, field=FIELD)] = [None] * len(rows)
            column[i] = value
    for name, values in columns.items():
        yield name, first, values


def _named(slices: Iterator[tuple[int, Sequence[Any]]], n: int) -> dict[str, Bools]:
    found: dict[str, Bools] = {}
    for first, some in slices:
        for i, attributes in enumerate(some, first):
            for name in map(str.__str__, attributes):
                if name not in found:
                    found[name] = np.zeros(n, dtype=np.bool_)
                found[name][i] = True
    return found


def _listed(values: Any, name: str) -> Values:
    if isinstance(values, np.ma.MaskedArray):
        values = _unmasked(values)
    if isinstance(values, np.ndarray):
        return values if values.ndim == 1 else cast(list[Any], values.tolist() if values.ndim else [])
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, (str, bytes, bytearray, Mapping)) or not isinstance(values, Sequence):
        raise _no_list(name)
    return _sliceable(values)


def _sliceable(values: Sequence[Any]) -> Sequence[Any]:
    """A sequence of which slices can be taken, which a deque has none of."""
    return values if isinstance(values, (list, tuple, range)) else list(values)


def _unmasked(values: np.ma.MaskedArray[Any, Any]) -> Values:
    """The values, null where one is masked."""
    if not values.mask.any():
        return np.ma.getdata(values)
    if values.ndim != 1:
        return cast(list[Any], values.tolist())
    # Scalars of NumPy: a list would have integers for nanoseconds.
    return [
        None if hidden else one for one, hidden in zip(values.data, np.ma.getmaskarray(values), strict=True)
    ]


# -- JSON ----------------------------------------------------------------------------------


def _json(data: memoryview, n: int) -> Given:
    begin = next((i for i, byte in enumerate(data) if byte not in b" \t\r\n"), 0)
    data = data[begin:]
    if _begins(data, "["):
        return _JsonRows(data, n)
    if _begins(data, "{"):
        return _JsonColumns(data, n)
    raise InvalidAttribute(f"{FIELD} must be columns by name, or a list of rows", field=FIELD)


class _JsonRows:
    """A list of objects."""

    def __init__(self, data: memoryview, n: int) -> None:
        self._data = data
        self._n = n
        self.told: dict[str, AttributeType] = {}

    def slices(self) -> Iterator[Slice]:
        for first, some in self._some():
            yield from _transposed(some, first)

    def named(self) -> dict[str, Bools]:
        return _named(self._some(), self._n)

    def _some(self) -> Iterator[tuple[int, list[Any]]]:
        items = _Items(self._data, self._n, None)
        _check_rows(items.count, self._n)
        items.refuse(items.children, MAX_ATTRIBUTES, "attributes")
        items.refuse(items.inner, MAX_ARRAY_ELEMENTS, "elements in an array")
        items.refuse(items.sizes, MAX_ROW_JSON_BYTES, "bytes of JSON")
        items.refuse_deep(2)
        return items.decoded()


class _JsonColumns:
    """An object of lists."""

    def __init__(self, data: memoryview, n: int) -> None:
        self._data = data
        self._n = n
        self.told: dict[str, AttributeType] = {}

    def slices(self) -> Iterator[Slice]:
        for name, raw in self._members().items():
            check_name(name, field=FIELD)
            data = memoryview(raw)
            if not _begins(data, "["):
                raise _no_list(name)
            items = _Items(data, self._n, name)
            _check_values(name, items.count, self._n)
            items.refuse(items.children, MAX_ARRAY_ELEMENTS, "elements")
            items.refuse(items.sizes, MAX_ROW_JSON_BYTES, "bytes of JSON")
            items.refuse_deep(1)
            for first, some in items.decoded():
                yield name, first, some

    def named(self) -> dict[str, Bools]:
        return {name: np.ones(self._n, dtype=np.bool_) for name in self._members()}

    def _members(self) -> dict[str, msgspec.Raw]:
        count = _Items(self._data, 0, None).count
        if count > MAX_ATTRIBUTES:
            raise too_many(count)
        try:
            return _members.decode(self._data)
        except _NOT_READ as error:
            raise InvalidAttribute(f"{FIELD} cannot be read: {error}", field=FIELD) from error


class _Items:
    """The items of an array or an object of JSON, ``n`` of them if all is well: an item a row.

    Attributes
    ----------
    count
        How many there are.
    sizes, children, inner, depths
        i64[n]: bytes of each; what it has itself; what the largest has that it holds; how deep it is nested.
    """

    def __init__(self, data: memoryview, n: int, name: str | None) -> None:
        self._data = data
        self._name = name
        self._ends, self.children, self.inner, self.depths = np.zeros((4, n), dtype=np.int64)
        try:
            self.count = outline(data, self._ends, self.children, self.inner, self.depths)
        except ValueError as error:
            raise InvalidAttribute(f"{FIELD} is not JSON: {error}", field=FIELD) from error
        self._starts = np.append(0, self._ends[:-1]) + 1 if n else self._ends
        self.sizes = self._ends - self._starts

    def refuse(self, sizes: I64, limit: int, what: str) -> None:
        """Refuse a row with more of something than is kept."""
        if len(sizes) and int(sizes.max()) > limit:
            row = int(np.argmax(sizes > limit))
            raise InvalidAttribute(
                f"{self._at(row, self._name)} has {int(sizes[row])} {what}; at most {limit} are kept",
                **self._details(row, self._name),
                limit=limit,
            )

    def refuse_deep(self, limit: int) -> None:
        """Refuse a row with arrays in arrays."""
        if len(self.depths) and int(self.depths.max()) > limit:
            row = int(np.argmax(self.depths > limit))
            raise SchemaConflict(
                f"{self._at(row, self._name)} has arrays or objects in one another, which are of no type "
                "that is kept",
                **self._details(row, self._name),
            )

    def decoded(self) -> Iterator[tuple[int, list[Any]]]:
        """Some items at a time, with the number of the first."""
        first, n = 0, len(self._ends)
        while first < n:
            stop = int(np.searchsorted(self._ends, self._starts[first] + SLICE_BYTES))
            stop = min(n, first + SLICE_ROWS, max(first + 1, stop))
            yield first, self._decode(first, stop)
            first = stop

    def _decode(self, first: int, stop: int) -> list[Any]:
        data = b"".join((b"[", self._data[self._starts[first] : self._ends[stop - 1]], b"]"))
        try:
            return _list.decode(data)
        except _NOT_READ as error:
            if stop > first + 1:
                return [self._decode(row, row + 1)[0] for row in range(first, stop)]
            name = _unread(data) if self._name is None else self._name
            raise InvalidAttribute(
                f"{self._at(first, name)} cannot be read: {error}", **self._details(first, name)
            ) from error

    def _at(self, row: int, name: str | None) -> str:
        return f"{FIELD}[{row}]" if name is None else f"{FIELD}: {name!r} of row {row}"

    def _details(self, row: int, name: str | None) -> dict[str, Any]:
        named = {} if name is None else {"attribute": name}
        return {"field": FIELD, "row": row, **named}


def _unread(data: bytes) -> str | None:
    """The first attribute that cannot be read of the one row in a list; None if no value is to blame."""
    try:
        for name, value in _rows.decode(data)[0].items():
            try:
                msgspec.json.decode(value)
            except _NOT_READ:
                return check_name(name, field=FIELD)
    except _NOT_READ:
        pass
    return None


def _begins(data: memoryview, mark: str) -> bool:
    return len(data) > 0 and data[0] == ord(mark)


def _no_list(name: str) -> InvalidAttribute:
    return InvalidAttribute(f"{FIELD}: {name!r} must be a list of values", field=FIELD, attribute=name)
