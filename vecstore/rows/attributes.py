"""Attributes of a batch: what a caller gives, validated and typed, a `Column` an attribute.

Types come from the schema, from the caller's declaration, or, where that is unambiguous, from the values:
true and false are bool, integers int (uint where one is beyond 2^63), numbers with a point float, strings
string, lists arrays of these; in Python a ``datetime`` and a ``UUID`` as well. A column of nulls alone
has no type, and is not stored. Imports schema, values, errors, limits and the model of the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from typing import Any, Final, cast
from uuid import UUID

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidAttribute, SchemaConflict
from vecstore.limits import (
    MAX_ARRAY_ELEMENTS,
    MAX_ATTRIBUTES,
    MAX_FILTERABLE_BYTES,
    MAX_ROW_BYTES,
    MAX_VALUE_BYTES,
)
from vecstore.manifest.model import Attribute
from vecstore.rows.schema import Spec, check_name, conflict, element_type, is_array
from vecstore.rows.values import SIGN, WORDS, BadValue, Elements, is_text, keys_of, values_of
from vecstore.types import AttributeType, ScalarType

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

FIELD: Final = "attributes"


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
        u64[sum of counts] keys, or as many objects of bytes (`vecstore.rows.values`).
    """

    spec: Spec
    null: Bools
    counts: I64
    elements: Elements

    def __len__(self) -> int:
        return len(self.null)

    def take(self, rows: I64) -> Column:
        """The column of these rows, in this order."""
        starts = np.cumsum(self.counts) - self.counts
        counts = self.counts[rows]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        elements = self.elements[np.repeat(starts[rows], counts) + within]
        return Column(self.spec, self.null[rows], counts, elements)

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

    def element_bytes(self) -> I64:
        """i64[m]: what each element takes: 8 of a key, its length of a text."""
        if self.elements.dtype == object:
            return np.fromiter(map(len, self.elements), dtype=np.int64, count=len(self.elements))
        return np.full(len(self.elements), 8, dtype=np.int64)


def nulls(spec: Spec, n: int) -> Column:
    """A column of ``n`` rows without a value."""
    text = is_text(element_type(spec.type))
    return Column(
        spec,
        np.ones(n, dtype=np.bool_),
        np.zeros(n, dtype=np.int64),
        np.empty(0, dtype=object if text else np.uint64),
    )


def joined(columns: Sequence[Column]) -> Column:
    """Columns of one type, one after another."""
    return Column(
        columns[0].spec,
        np.concatenate([column.null for column in columns]),
        np.concatenate([column.counts for column in columns]),
        np.concatenate([column.elements for column in columns]),
    )


def parse_attributes(
    given: object, n: int, schema: Mapping[str, Attribute], specs: Mapping[str, Spec]
) -> dict[str, Column]:
    """Columns of ``n`` rows by name, of names in order.

    Parameters
    ----------
    given
        Columns by name (lists, arrays of NumPy, anything with ``to_pylist`` or ``tolist``), a table of
        Arrow, or a list of ``n`` rows, each an object of its attributes; None for none.
    schema, specs
        What is known of them, and what the caller declares.

    Raises
    ------
    InvalidAttribute
        And its kind `SchemaConflict`; naming attribute and row.
    """
    for name, asked in specs.items():
        known = schema.get(name)
        if known is not None and (known.type, known.filterable) != (asked.type, asked.filterable):
            raise conflict(name, known, asked, field="schema")
    columns = _columns(given, n)
    if len(columns) > MAX_ATTRIBUTES:
        raise InvalidAttribute(
            f"{FIELD} has {len(columns)} attributes; at most {MAX_ATTRIBUTES} are kept",
            field=FIELD,
            limit=MAX_ATTRIBUTES,
        )
    found: dict[str, Column] = {}
    sizes = np.zeros(n, dtype=np.int64)
    for name in sorted(check_name(name, field=FIELD) for name in columns):
        values = _listed(columns[name], name)
        if len(values) != n:
            raise InvalidAttribute(
                f"{FIELD}: {name!r} has {len(values)} values for {n} rows",
                field=FIELD,
                attribute=name,
                limit=n,
            )
        known = schema.get(name)
        spec = specs.get(name) or (None if known is None else Spec(known.type, known.filterable))
        column = _column(name, values, spec)
        if column is not None:
            found[name] = column
            _check_sizes(name, column, sizes)
    if len(sizes) and int(sizes.max()) > MAX_ROW_BYTES:
        row = int(np.argmax(sizes))
        raise InvalidAttribute(
            f"{FIELD}: those of row {row} take {int(sizes[row])} bytes; at most {MAX_ROW_BYTES} are kept",
            field=FIELD,
            row=row,
            limit=MAX_ROW_BYTES,
        )
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """New values of one attribute.

    Attributes
    ----------
    column
        A value a row; null takes the value away.
    given
        bool[n]: rows for which there is one. The others keep what they have.
    """

    column: Column
    given: Bools


def parse_patch(
    given: object, n: int, schema: Mapping[str, Attribute], specs: Mapping[str, Spec]
) -> dict[str, Replacement]:
    """New values for ``n`` rows by attribute; rows that name no attribute keep theirs.

    An attribute that nobody knows and that is null alone is left out: no row has a value of it.

    Raises
    ------
    InvalidAttribute
        As `parse_attributes`; or nothing is given.
    """
    named = _columns(given, n)
    if not named:
        raise InvalidAttribute(f"{FIELD} must name at least one attribute", field=FIELD)
    columns = parse_attributes(named, n, schema, specs)
    if hasattr(given, "to_pydict") or isinstance(given, Mapping):
        rows: Sequence[Any] | None = None
    else:
        rows = cast(Sequence[Any], given)
    found = {}
    for name in sorted(named):
        column, known = columns.get(name), specs.get(name) or schema.get(name)
        if column is None:
            if known is None:
                continue
            column = nulls(Spec(known.type, known.filterable), n)
        told = np.ones(n, dtype=np.bool_)
        if rows is not None:
            told = np.fromiter((name in row for row in rows), dtype=np.bool_, count=n)
        found[name] = Replacement(column, told)
    return found


def as_json(given: object, n: int) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Columns as they cross a wire, and a schema of those whose type JSON cannot tell.

    Whether values fit the schema, the server says, which knows it.

    Raises
    ------
    InvalidAttribute
        NaN or infinity, of which JSON would make null; or what are no columns of ``n`` rows.
    """
    columns, types = {}, {}
    for name, values in _columns(given, n).items():
        check_name(name, field=FIELD)
        listed = _listed(values, name)
        kind = _untold(listed)
        if isinstance(listed, np.ndarray):
            if listed.dtype.kind == "M":
                try:
                    listed = values_of(keys_of(listed, "datetime"), "datetime")
                except BadValue as bad:
                    raise _conflict(name, bad.position, bad.value, "datetime") from bad
            else:
                listed = listed.tolist()
        _refuse_unspeakable(name, listed)
        columns[name] = list(listed)
        if kind is not None:
            types[name] = {"type": kind}
    return columns, types


def patch_as_json(given: Any, n: int) -> tuple[Any, dict[str, Any]]:
    """As `as_json`; rows stay rows, because what one does not name it keeps."""
    columns, types = as_json(given, n)
    if hasattr(given, "to_pydict") or isinstance(given, Mapping):
        return columns, types
    return [{name: columns[name][i] for name in row} for i, row in enumerate(given or ())], types


def fitted(types: Mapping[str, Any], schema: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `as_json` tells of types, as a namespace of this schema has to be told.

    Numbers fit what is known if their values do, as everywhere; of strings that were dates or UUIDs the
    type still has to agree, and they are as filterable as they are known to be.
    """
    return {
        name: {"type": told["type"], **({"filterable": schema[name]["filterable"]} if name in schema else {})}
        for name, told in types.items()
        if name not in schema or element_type(told["type"]) in ("datetime", "uuid")
    }


def _untold(values: Sequence[Any] | npt.NDArray[Any]) -> str | None:
    """The type of values which JSON has as strings, or as numbers of another type."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return {"M": "datetime", "u": "uint", "f": "float"}.get(values.dtype.kind)
    for value in values:
        if value is None:
            continue
        if isinstance(value, (list, tuple, np.ndarray)):
            inner = _untold(value)
            if inner is None and not len(value):
                continue
            return None if inner is None else f"[]{inner}"
        kind = _kind(value)
        return kind if kind in ("datetime", "uuid") else None
    return None


def _refuse_unspeakable(name: str, values: Sequence[Any]) -> None:
    for row, value in enumerate(values):
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(one, (float, np.floating)) and not math.isfinite(one):
                raise _conflict(name, row, one, "float")


def digest(columns: Mapping[str, Column], specs: Mapping[str, Spec]) -> bytes:
    """Of all that is in columns, and of what is declared, for an ``Idempotency-Key``."""
    h = blake2b(digest_size=16)
    for name in sorted(specs):
        h.update(repr((name, specs[name])).encode())
    for name, column in columns.items():
        h.update(repr((name, column.spec.type, column.spec.filterable)).encode())
        h.update(column.null.tobytes())
        h.update(column.counts.tobytes())
        h.update(column.element_bytes().tobytes())
        h.update(b"".join(column.elements) if column.elements.dtype == object else column.elements.tobytes())
    return h.digest()


# -- what a caller gives -------------------------------------------------------------------


def _columns(given: Any, n: int) -> dict[str, Any]:
    if given is None:
        return {}
    if hasattr(given, "to_pydict"):  # a table or a batch of Arrow
        given = given.to_pydict()
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidAttribute(f"{FIELD} must be columns by name, or a list of rows", field=FIELD)
    if len(given) != n:
        raise InvalidAttribute(f"{FIELD} has {len(given)} rows, not {n}", field=FIELD, limit=n)
    columns: dict[str, list[Any]] = {}
    for row, attributes in enumerate(given):
        if not isinstance(attributes, Mapping):
            raise InvalidAttribute(f"{FIELD}[{row}] must be an object of attributes", field=FIELD, row=row)
        for name, value in attributes.items():
            column = columns.get(name)
            if column is None:
                if len(columns) >= MAX_ATTRIBUTES:
                    raise InvalidAttribute(
                        f"{FIELD}[{row}] has an attribute more than the {MAX_ATTRIBUTES} that are kept",
                        field=FIELD,
                        row=row,
                        limit=MAX_ATTRIBUTES,
                    )
                column = columns[check_name(name, field=FIELD)] = [None] * n
            column[row] = value
    return columns


def _listed(values: Any, name: str) -> Sequence[Any] | npt.NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values if values.ndim == 1 else cast(list[Any], values.tolist() if values.ndim else [])
    for method in ("to_pylist", "tolist", "to_list"):
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Sequence):
        raise InvalidAttribute(f"{FIELD}: {name!r} must be a list of values", field=FIELD, attribute=name)
    return values


# -- types ---------------------------------------------------------------------------------


def _column(name: str, values: Sequence[Any] | npt.NDArray[Any], spec: Spec | None) -> Column | None:
    if isinstance(values, np.ndarray) and values.dtype == object:
        values = values.tolist()
    if isinstance(values, np.ndarray):
        return _scalars(name, values, np.zeros(len(values), dtype=np.bool_), spec or _of_dtype(name, values))
    null = np.fromiter((value is None for value in values), dtype=np.bool_, count=len(values))
    if null.all():
        return None
    present = values if not null.any() else [value for value in values if value is not None]
    arrays = isinstance(present[0], (list, tuple, np.ndarray))
    if spec is not None and is_array(spec.type) != arrays:
        row = int(np.flatnonzero(~null)[0])
        raise _conflict(name, row, present[0], spec.type)
    if not arrays:
        return _scalars(name, present, null, spec or Spec(_infer(name, present, np.flatnonzero(~null))))
    return _arrays(name, present, null, spec)


def _scalars(name: str, present: Sequence[Any] | npt.NDArray[Any], null: Bools, spec: Spec) -> Column:
    try:
        elements = keys_of(present, element_type(spec.type))
    except BadValue as bad:
        row = int(np.flatnonzero(~null)[bad.position])
        raise _conflict(name, row, bad.value, spec.type) from bad
    return Column(spec, null, (~null).astype(np.int64), elements)


def _arrays(name: str, present: Sequence[Any], null: Bools, spec: Spec | None) -> Column | None:
    rows = np.flatnonzero(~null)
    lists: list[list[Any]] = []
    for position, value in enumerate(present):
        if not isinstance(value, (list, tuple, np.ndarray)):
            kind = "an array" if spec is None else spec.type
            raise _conflict(name, int(rows[position]), value, kind)
        lists.append(value.tolist() if isinstance(value, np.ndarray) else list(value))
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    if int(lengths.max()) > MAX_ARRAY_ELEMENTS:
        raise InvalidAttribute(
            f"{FIELD}: {name!r} of row {int(rows[np.argmax(lengths)])} has {int(lengths.max())} elements; "
            f"at most {MAX_ARRAY_ELEMENTS} are kept",
            field=FIELD,
            attribute=name,
            row=int(rows[np.argmax(lengths)]),
            limit=MAX_ARRAY_ELEMENTS,
        )
    flat = [value for values in lists for value in values]
    row_of = np.repeat(rows, lengths)
    if spec is None:
        if not flat:
            raise InvalidAttribute(
                f"{FIELD}: {name!r} holds empty arrays alone, which have no type; declare it in the schema",
                field=FIELD,
                attribute=name,
            )
        spec = Spec(cast(AttributeType, "[]" + _infer(name, flat, row_of)))
    try:
        elements = keys_of(flat, element_type(spec.type))
    except BadValue as bad:
        raise _conflict(name, int(row_of[bad.position]), bad.value, spec.type) from bad
    counts = np.zeros(len(null), dtype=np.int64)
    counts[rows] = lengths
    return Column(spec, null, counts, elements)


def _infer(name: str, values: Sequence[Any], rows: I64) -> ScalarType:
    """The type of values, none of them null."""
    kinds: dict[str, int] = {}
    for position, kind in enumerate(map(_kind, values)):
        kinds.setdefault(kind, position)
    if set(kinds) == {"int", "float"}:
        return "float"
    if len(kinds) > 1 or "" in kinds:
        first, (other, position) = next(iter(kinds)), list(kinds.items())[-1]
        if "" in kinds:
            position = kinds[""]
        what = f"of type {first} and of type {other}" if "" not in kinds else "of no type that is kept"
        shown, row = _shown(values[position]), int(rows[position])
        raise SchemaConflict(
            f"{FIELD}: {name!r} has values {what}, such as {shown} in row {row}",
            field=FIELD,
            attribute=name,
            row=row,
        )
    (kind,) = kinds
    if kind == "int" and max(values) >= SIGN:
        return "uint"
    return cast(ScalarType, kind)


def _kind(value: Any) -> str:
    if isinstance(value, np.generic):
        if isinstance(value, np.datetime64):
            return "datetime"
        value = value.item()
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    if isinstance(value, date):
        return "datetime"
    return "uuid" if isinstance(value, UUID) else ""


def _of_dtype(name: str, values: npt.NDArray[Any]) -> Spec:
    kind = {"b": "bool", "i": "int", "u": "uint", "f": "float", "U": "string", "M": "datetime"}.get(
        values.dtype.kind
    )
    if kind is None:
        raise SchemaConflict(
            f"{FIELD}: {name!r} is an array of {values.dtype}, which is of no type that is kept",
            field=FIELD,
            attribute=name,
        )
    return Spec(cast(AttributeType, kind))


# -- what is wrong -------------------------------------------------------------------------


def _conflict(name: str, row: int, value: object, kind: str) -> SchemaConflict:
    words = WORDS.get(cast(ScalarType, kind.removeprefix("[]")), kind)
    if kind.startswith("[]"):
        words = f"a list, each element {words}"
    return SchemaConflict(
        f"{FIELD}: {name!r} of row {row} must be {words} ({kind}), not {_shown(value)}",
        field=FIELD,
        attribute=name,
        row=row,
        type=kind,
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 64 else text[:60] + " …"


def _check_sizes(name: str, column: Column, sizes: I64) -> None:
    """Refuse a value that is too long, and add up what each row takes."""
    each = column.element_bytes()
    row_of = np.repeat(np.arange(len(column)), column.counts)
    limit = MAX_FILTERABLE_BYTES if column.spec.filterable else MAX_VALUE_BYTES
    if len(each) and int(each.max()) > limit:
        row = int(row_of[np.argmax(each)])
        advice = "; declare it filterable: false to keep more" if column.spec.filterable else ""
        raise InvalidAttribute(
            f"{FIELD}: {name!r} of row {row} has {int(each.max())} bytes; at most {limit} are kept{advice}",
            field=FIELD,
            attribute=name,
            row=row,
            limit=limit,
        )
    np.add.at(sizes, row_of, each)
