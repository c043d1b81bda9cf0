"""The type of an attribute that nobody declared, by its values, and what is said of a value of another type.

Imports schema, values, given and errors.
"""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidAttribute, SchemaConflict
from vecstore.rows.given import FIELD, Values
from vecstore.rows.schema import Spec
from vecstore.rows.values import SIGN, WORDS, kind_of, shown, spoken
from vecstore.types import AttributeType, ScalarType

_TOLD: Final = frozenset({"string", "int", "float", "bool"})  # the types that JSON tells
# Numbers that fit another type, side by side with values of it.
_WIDER: Final = (("uint", {"int"}), ("float", {"int", "uint"}))


class Guess:
    """What the values of an attribute say of its type, of slices as they come.

    Parameters
    ----------
    told
        The type that their column has, whatever they are.
    """

    def __init__(self, name: str, told: AttributeType | None = None) -> None:
        self._name = name
        self._told = told
        self._arrays: bool | None = None
        self._kinds: dict[ScalarType | None, tuple[int, Any]] = {}  # the first value of each, and its row
        self._greatest = 0

    def add(self, first: int, values: Values) -> None:
        """Values from row ``first`` on."""
        if isinstance(values, np.ndarray) and values.dtype != object:
            self._kinds.setdefault(
                _kind_of_dtype(self._name, values), (first, values[0] if len(values) else None)
            )
            self._arrays = False
            return
        present = [value for value in values if value is not None]
        if not present:
            return
        if self._arrays is None:
            self._arrays = is_list(present[0])
        if not self._arrays and len(set(map(type, present))) == 1:
            row = next(i for i, value in enumerate(values, first) if value is not None)
            self._note(row, max(present) if kind_of(present[0]) == "int" else present[0])
            return
        for row, value in enumerate(values, first):
            if value is None:
                continue
            if not self._arrays:
                self._note(row, value)
                continue
            if not is_list(value):
                raise misfit(self._name, row, value, "an array")
            if isinstance(value, np.ndarray) and value.dtype != object and value.size:
                self._kinds.setdefault(_kind_of_dtype(self._name, value), (row, value[0]))
                continue
            for one in value:
                self._note(row, one)

    def _note(self, row: int, value: Any) -> None:
        kind = kind_of(value)
        self._kinds.setdefault(kind, (row, value))
        if kind == "int":
            self._greatest = max(self._greatest, int(value))

    @property
    def untold(self) -> bool:
        """Whether JSON cannot tell the type: it has dates and UUIDs as strings, and one kind of integer."""
        told = self._told is None and _TOLD.issuperset(self._kinds)
        return self._arrays is not None and not told

    @property
    def dated(self) -> str | None:
        """The type of dates or UUIDs, if there were any, be it beside strings."""
        kind = next((kind for kind in self._kinds if kind in ("datetime", "uuid")), None)
        return kind and f"[]{kind}" if self._arrays else kind

    def refuse_as(self, kind: AttributeType) -> None:
        """Refuse dates and UUIDs as values of a type of strings: as JSON they would be some."""
        if self.dated is None or kind not in ("string", "[]string") or kind.startswith("[]") != self._arrays:
            return
        row, value = next(first for one, first in self._kinds.items() if one in ("datetime", "uuid"))
        error = misfit(self._name, row, value, kind)
        error.details["type"] = kind
        raise error

    def refusal(self, row: int, value: Any) -> SchemaConflict:
        """Why a value, or an element of it, is none."""
        for one in value if is_list(value) else (value,):
            kind = kind_of(one)
            if kind is None:
                return self._homeless(row, one)
            try:
                spoken(one)
            except ValueError:
                return misfit(self._name, row, one, kind)
        raise AssertionError(f"nothing is wrong with {shown(value)}")

    def _homeless(self, row: int, value: Any, what: str = "of no type that is kept") -> SchemaConflict:
        which = "elements" if self._arrays else "values"
        return SchemaConflict(
            f"{FIELD}: {self._name!r} has {which} {what}, such as {shown(value)} in row {row}",
            field=FIELD,
            attribute=self._name,
            row=row,
        )

    def spec(self) -> Spec | None:
        """None if there was no value.

        Raises
        ------
        SchemaConflict
            Values of several types, or of none that is kept.
        InvalidAttribute
            Empty arrays alone.
        """
        if self._arrays is None:
            return None
        if self._told is not None:
            return Spec(self._told)
        if not self._kinds:
            raise InvalidAttribute(
                f"{FIELD}: {self._name!r} holds empty arrays alone, which have no type; "
                "declare it in the schema",
                field=FIELD,
                attribute=self._name,
            )
        kinds = list(self._kinds)
        for wider, narrower in _WIDER:
            if wider in kinds and set(kinds) <= {wider, *narrower}:
                kinds = [wider]
        if None in kinds:
            raise self._homeless(*self._kinds[None])
        if len(kinds) > 1:
            raise self._homeless(*self._kinds[kinds[-1]], f"of type {kinds[0]} and of type {kinds[-1]}")
        kind = "uint" if kinds == ["int"] and self._greatest >= SIGN else kinds[0]
        return Spec(cast(AttributeType, f"[]{kind}" if self._arrays else kind))


def is_list(value: Any) -> bool:
    """Whether a value is an array."""
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


_DTYPES: Final[dict[str, ScalarType]] = {
    "b": "bool",
    "i": "int",
    "u": "uint",
    "f": "float",
    "U": "string",
    "M": "datetime",
}


def _kind_of_dtype(name: str, values: npt.NDArray[Any]) -> ScalarType:
    kind = _DTYPES.get(values.dtype.kind)
    if kind is None:
        raise SchemaConflict(
            f"{FIELD}: {name!r} is an array of {values.dtype}, which is of no type that is kept",
            field=FIELD,
            attribute=name,
        )
    return kind


def misfit(name: str, row: int, value: object, kind: str) -> SchemaConflict:
    """That a value is not of a type."""
    words = WORDS.get(cast(ScalarType, kind.removeprefix("[]")), kind)
    if kind.startswith("[]"):
        words = f"a list, each element {words}"
    return SchemaConflict(
        f"{FIELD}: {name!r} of row {row} must be {words} ({kind}), not {shown(value)}",
        field=FIELD,
        attribute=name,
        row=row,
        type=kind,
    )
