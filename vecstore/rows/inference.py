"""The type of an attribute that nobody declared, by its values, and what is said of a value of another type.

Imports schema, values, given and errors.
"""

from __future__ import annotations

from datetime import date
from typing import Any, cast
from uuid import UUID

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidAttribute, SchemaConflict
from vecstore.rows.given import FIELD, Values
from vecstore.rows.schema import Spec
from vecstore.rows.values import SIGN, WORDS
from vecstore.types import AttributeType, ScalarType


class Guess:
    """What the values of an attribute say of its type, of slices as they come."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._arrays: bool | None = None
        self._kinds: dict[str, tuple[int, Any]] = {}  # with the first value of each, and its row
        self._greatest = 0

    def add(self, first: int, values: Values) -> None:
        """Values from row ``first`` on."""
        if isinstance(values, np.ndarray) and values.dtype != object:
            self._kinds.setdefault(_kind_of_dtype(self._name, values), (first, None))
            self._arrays = False
            return
        present = [value for value in values if value is not None]
        if not present:
            return
        if self._arrays is None:
            self._arrays = is_list(present[0])
        if not self._arrays and len(set(map(type, present))) == 1:
            row = next(i for i, value in enumerate(values, first) if value is not None)
            self._note(row, max(present) if type(present[0]) is int else present[0])
            return
        for row, value in enumerate(values, first):
            if value is None:
                continue
            if not self._arrays:
                self._note(row, value)
                continue
            if not is_list(value):
                raise misfit(self._name, row, value, "an array")
            for one in value.tolist() if isinstance(value, np.ndarray) else value:
                self._note(row, one)

    def _note(self, row: int, value: Any) -> None:
        kind = kind_of(value)
        self._kinds.setdefault(kind, (row, value))
        if kind == "int":
            self._greatest = max(self._greatest, int(value))

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
        if not self._kinds:
            raise InvalidAttribute(
                f"{FIELD}: {self._name!r} holds empty arrays alone, which have no type; "
                "declare it in the schema",
                field=FIELD,
                attribute=self._name,
            )
        kinds = list(self._kinds)
        if set(kinds) == {"int", "float"}:
            kinds = ["float"]
        if len(kinds) > 1 or "" in kinds:
            what = "of no type that is kept" if "" in kinds else f"of type {kinds[0]} and of type {kinds[-1]}"
            row, value = self._kinds["" if "" in kinds else kinds[-1]]
            raise SchemaConflict(
                f"{FIELD}: {self._name!r} has values {what}, such as {_shown(value)} in row {row}",
                field=FIELD,
                attribute=self._name,
                row=row,
            )
        kind = "uint" if kinds == ["int"] and self._greatest >= SIGN else kinds[0]
        return Spec(cast(AttributeType, f"[]{kind}" if self._arrays else kind))


def is_list(value: Any) -> bool:
    """Whether a value is an array."""
    return isinstance(value, (list, tuple, np.ndarray))


def kind_of(value: Any) -> str:
    """The type of a value; empty for one of no type that is kept."""
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


def _kind_of_dtype(name: str, values: npt.NDArray[Any]) -> str:
    kind = {"b": "bool", "i": "int", "u": "uint", "f": "float", "U": "string", "M": "datetime"}.get(
        values.dtype.kind
    )
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
        f"{FIELD}: {name!r} of row {row} must be {words} ({kind}), not {_shown(value)}",
        field=FIELD,
        attribute=name,
        row=row,
        type=kind,
    )


def _shown(value: object) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 64 else text[:60] + " …"
