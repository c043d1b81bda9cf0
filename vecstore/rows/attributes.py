"""Attributes of a batch: what a caller gives, validated and typed, a `Column` an attribute.

Types come from the schema, from the caller's declaration, or, where that is unambiguous, from the values:
true and false are bool, integers int (uint where one is beyond 2^63), numbers with a point float, strings
string, lists arrays of these; in Python a ``datetime`` and a ``UUID`` as well. Lists in a column of Arrow
are of the type that it has for them. A column of nulls alone has no type, and is not stored. Imports what
reads values (given, inference), schema, values and columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidAttribute
from vecstore.limits import (
    MAX_ARRAY_ELEMENTS,
    MAX_ATTRIBUTES,
    MAX_FILTERABLE_BYTES,
    MAX_ROW_BYTES,
    MAX_VALUE_BYTES,
)
from vecstore.manifest.model import Attribute
from vecstore.rows.column import Column, ColumnBuilder, as_buffer, element_bytes
from vecstore.rows.given import FIELD, Values, attributes_given, too_many
from vecstore.rows.inference import Guess, is_list, misfit
from vecstore.rows.schema import Spec, conflict, element_type, is_array
from vecstore.rows.texts import TextArray
from vecstore.rows.values import BadValue, keys_of, listed, shown, spoken, values_of
from vecstore.types import U64, ScalarType

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

_AS_THEY_ARE: Final = frozenset({str, int, bool})


def parse_attributes(
    given: object, n: int, schema: Mapping[str, Attribute], specs: Mapping[str, Spec]
) -> dict[str, Column]:
    """Columns of ``n`` rows by name, of names in order.

    Parameters
    ----------
    given
        As `vecstore.rows.given.attributes_given` takes them.
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
    source = attributes_given(given, n)
    sizes = np.zeros(n, dtype=np.int64)
    columns: dict[str, _Values] = {}
    guesses: dict[str, Guess] = {}
    for name, first, values in source.slices():
        if name not in columns and name not in guesses:
            known, told = schema.get(name), source.told.get(name)
            spec = specs.get(name) or (None if known is None else Spec(known.type, known.filterable))
            spec = spec or (None if told is None else Spec(told))
            if spec is None:
                guesses[name] = Guess(name)
            else:
                columns[name] = _Values(name, spec, sizes)
            if len(columns) + len(guesses) > MAX_ATTRIBUTES:
                raise too_many(len(columns) + len(guesses))
        if name in columns:
            columns[name].add(first, values)
        else:
            guesses[name].add(first, values)
    specs_found = {name: guess.spec() for name, guess in guesses.items()}
    found = {name: _Values(name, spec, sizes) for name, spec in specs_found.items() if spec is not None}
    if found:
        for name, first, values in source.slices():
            if name in found:
                found[name].add(first, values)
    _check_rows(sizes)
    built = {name: values.column() for name, values in sorted((columns | found).items())}
    return {name: column for name, column in built.items() if not column.null.all()}


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """New values of one attribute.

    Attributes
    ----------
    column
        A value a row; null takes the value away. None where all of them are null: they fit any type.
    given
        bool[n]: rows for which there is one. The others keep what they have.
    """

    column: Column | None
    given: Bools


def parse_patch(
    given: object, n: int, schema: Mapping[str, Attribute], specs: Mapping[str, Spec]
) -> dict[str, Replacement]:
    """New values for ``n`` rows by attribute; rows that name no attribute keep theirs.

    Raises
    ------
    InvalidAttribute
        As `parse_attributes`; or nothing is given.
    """
    columns = parse_attributes(given, n, schema, specs)
    named = attributes_given(given, n).named()
    if not named:
        raise InvalidAttribute(f"{FIELD} must name at least one attribute", field=FIELD)
    return {name: Replacement(columns.get(name), named[name]) for name in sorted(named)}


def digest_named(given: object, n: int) -> bytes:
    """Of which rows of a patch name which attributes, for an ``Idempotency-Key``."""
    h = blake2b(digest_size=16)
    for name, rows in sorted(attributes_given(given, n).named().items()):
        h.update(repr((name, np.packbits(rows).tobytes())).encode())
    return h.digest()


def as_json(given: object, n: int) -> tuple[dict[str, list[Any]], dict[str, Guess]]:
    """Columns as they cross a wire, and of those whose type JSON cannot tell what their values say of it.

    Whether values fit the schema, the server says, which knows it.

    Raises
    ------
    InvalidAttribute
        What is of no type that is kept, or no value, as NaN and NaT; or what are no columns of ``n`` rows.
    """
    columns: dict[str, list[Any]] = {}
    guesses: dict[str, Guess] = {}
    source = attributes_given(given, n)
    for name, first, values in source.slices():
        guess = guesses.setdefault(name, Guess(name, source.told.get(name)))
        guess.add(first, values)
        columns.setdefault(name, [None] * n)[first : first + len(values)] = _spoken(guess, first, values)
    return columns, {name: guess for name, guess in guesses.items() if guess.untold}


def one_row(attributes: object) -> list[object]:
    """One object of values as a list of rows. `InvalidAttribute` if it is none."""
    if isinstance(attributes, Mapping):
        return [attributes]
    raise InvalidAttribute(
        "attributes must be one object of values where a filter chooses the rows", field="attributes"
    )


def patch_as_json(given: object, n: int) -> tuple[Any, dict[str, Guess]]:
    """As `as_json`; rows stay rows where they differ in what they name, because they keep the rest."""
    columns, guesses = as_json(given, n)
    named = attributes_given(given, n).named()
    if all(rows.all() for rows in named.values()):
        return columns, guesses
    return [{name: columns[name][i] for name, rows in named.items() if rows[i]} for i in range(n)], guesses


def fitted(guesses: Mapping[str, Guess], schema: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `as_json` tells of types, as a namespace of this schema has to be told.

    Numbers fit what is known if their values do, as everywhere; of strings that were dates or UUIDs the
    type still has to agree, and they are as filterable as they are known to be.

    Raises
    ------
    SchemaConflict
        Values of several types, of an attribute that is not known.
    """
    found: dict[str, Any] = {}
    for name, guess in guesses.items():
        if name in schema:
            if guess.dated is not None:
                found[name] = {"type": guess.dated, "filterable": schema[name]["filterable"]}
            continue
        spec = guess.spec()
        if spec is not None:
            found[name] = {"type": spec.type}
    return found


def _spoken(guess: Guess, first: int, values: Values) -> list[Any]:
    """Values from row ``first`` on as JSON has them."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuU":
        return values.tolist()  # type: ignore[no-any-return]
    if isinstance(values, np.ndarray) and values.dtype.kind in "fM":
        kind: ScalarType = "float" if values.dtype.kind == "f" else "datetime"
        try:
            return values_of(keys_of(values, kind), kind)
        except BadValue as bad:
            raise guess.refusal(first + bad.position, bad.value) from bad
    found: list[Any] = []
    for row, value in enumerate(values, first):
        if value is None or type(value) in _AS_THEY_ARE or (type(value) is float and math.isfinite(value)):
            if type(value) is not str or value.isascii() or _has_bytes(value):
                found.append(value)
                continue
            raise guess.refusal(row, value)
        try:
            found.append(spoken(value))
        except ValueError:
            raise guess.refusal(row, value) from None
    return found


def _has_bytes(text: str) -> bool:
    """Whether a string has a form in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def digest(given: object, n: int, specs: Mapping[str, Spec]) -> bytes:
    """Of all that is given, whatever the schema, for an ``Idempotency-Key``.

    What is declared counts for attributes that are given nothing: types of values are declared by clients
    too, and only as long as the namespace does not know them (`fitted`).
    """
    h = blake2b(digest_size=16)
    columns: dict[str, Any] = {}
    for name, first, values in attributes_given(given, n).slices():
        column = columns.setdefault(name, blake2b(digest_size=16))
        if len(columns) > MAX_ATTRIBUTES:
            raise too_many(len(columns))
        for row, value in enumerate(listed(values) if isinstance(values, np.ndarray) else values, first):
            if value is not None:
                try:
                    form = repr(_alike(value))
                except (
                    ValueError,
                    RecursionError,
                ):  # more digits or deeper than Python writes: refused elsewhere
                    form = shown(value)
                column.update(f"{row} {form};".encode(errors="surrogatepass"))
    for name in sorted(columns):
        h.update(repr((name, columns[name].digest())).encode())
    for name in sorted(specs.keys() - columns.keys()):
        h.update(repr((name, specs[name])).encode())
    return h.digest()


def _alike(value: Any) -> Any:
    """A value as it is stored, in whatever form it was given; what is none is refused elsewhere."""
    if type(value) in _AS_THEY_ARE or type(value) is float:
        return value
    try:
        return spoken(value)
    except ValueError:
        return value


class _Values:
    """The values of one attribute of a known type, on their way into a column.

    Parameters
    ----------
    sizes
        i64[n]: what each row takes is added.
    """

    def __init__(self, name: str, spec: Spec, sizes: I64) -> None:
        self._name = name
        self._spec = spec
        self._sizes = sizes
        self._to = ColumnBuilder(spec, len(sizes))

    def add(self, first: int, values: Values) -> None:
        """Values from row ``first`` on."""
        null, counts, flat = self._flat(first, values)
        row_of = first + np.repeat(np.arange(len(counts)), counts)
        try:
            elements = as_buffer(keys_of(flat, element_type(self._spec.type)))
        except BadValue as bad:
            raise misfit(self._name, int(row_of[bad.position]), bad.value, self._spec.type) from bad
        self._check_sizes(elements, row_of)
        some = slice(first, first + len(null))
        self._to.null[some], self._to.counts[some] = null, counts
        self._to.add(elements)

    def column(self) -> Column:
        return self._to.column()

    def _flat(self, first: int, values: Values) -> tuple[Bools, I64, Values]:
        """Which rows have no value, how many elements each has, and all elements."""
        n = len(values)
        if isinstance(values, np.ndarray) and values.dtype != object:
            if is_array(self._spec.type) and n:
                raise misfit(self._name, first, values[0], self._spec.type)
            return np.zeros(n, dtype=np.bool_), np.ones(n, dtype=np.int64), values
        null = np.fromiter((value is None for value in values), dtype=np.bool_, count=n)
        if not is_array(self._spec.type):
            return null, (~null).astype(np.int64), [value for value in values if value is not None]
        counts = np.zeros(n, dtype=np.int64)
        flat: list[Any] = []
        for i, value in enumerate(values):
            if value is None:
                continue
            if not is_list(value):
                raise misfit(self._name, first + i, value, self._spec.type)
            counts[i] = len(value)
            if len(value) > MAX_ARRAY_ELEMENTS:
                raise InvalidAttribute(
                    f"{FIELD}: {self._name!r} of row {first + i} has {len(value)} elements; "
                    f"at most {MAX_ARRAY_ELEMENTS} are kept",
                    field=FIELD,
                    attribute=self._name,
                    row=first + i,
                    limit=MAX_ARRAY_ELEMENTS,
                )
            flat += listed(value) if isinstance(value, np.ndarray) else value
        return null, counts, flat

    def _check_sizes(self, elements: U64 | TextArray, row_of: I64) -> None:
        """Refuse a value that is too long, and add up what each row takes."""
        each = element_bytes(elements)
        filterable = self._spec.filterable
        limit = MAX_FILTERABLE_BYTES if filterable else MAX_VALUE_BYTES
        if len(each) and int(each.max()) > limit:
            row = int(row_of[np.argmax(each)])
            advice = "; declare it filterable: false to keep more" if filterable else ""
            raise InvalidAttribute(
                f"{FIELD}: {self._name!r} of row {row} has {int(each.max())} bytes; "
                f"at most {limit} are kept{advice}",
                field=FIELD,
                attribute=self._name,
                row=row,
                limit=limit,
            )
        np.add.at(self._sizes, row_of, each)


def _check_rows(sizes: I64) -> None:
    if len(sizes) and int(sizes.max()) > MAX_ROW_BYTES:
        row = int(np.argmax(sizes))
        raise InvalidAttribute(
            f"{FIELD}: those of row {row} take {int(sizes[row])} bytes; at most {MAX_ROW_BYTES} are kept",
            field=FIELD,
            row=row,
            limit=MAX_ROW_BYTES,
        )
