"""LlamaIndex's metadata filters as filters of vecstore, with the meaning that its own store gives them.

An attribute that no row has, or a value that it cannot hold, is equal to nothing there and is no error; here
the schema tells. Imports LlamaIndex's types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from vecstore.errors import InvalidFilter
from vecstore.integrations.metadata import Schema, fits

Filter = list[Any]
ALL: Final[Filter] = ["id", "NotEq", None]
NONE: Final[Filter] = ["id", "Eq", None]

_ORDERED: Final = {
    FilterOperator.GT: "Gt",
    FilterOperator.GTE: "Gte",
    FilterOperator.LT: "Lt",
    FilterOperator.LTE: "Lte",
}


def to_filter(given: MetadataFilters | None, schema: Schema) -> Filter | None:
    """A filter of vecstore; None for none.

    Raises
    ------
    InvalidFilter
        An operator that means nothing for the attribute's type.
    """
    if given is None or not given.filters:
        return None
    parts = [
        to_filter(one, schema) or ALL if isinstance(one, MetadataFilters) else _condition(one, schema)
        for one in given.filters
    ]
    if given.condition == FilterCondition.NOT:
        return ["Not", ["Or", parts]]
    return ["Or" if given.condition == FilterCondition.OR else "And", parts]


def _condition(one: MetadataFilter, schema: Schema) -> Filter:
    spec, operator = schema.get(one.key), one.operator
    if spec is None:
        absent = (FilterOperator.NE, FilterOperator.NIN, FilterOperator.IS_EMPTY)
        return ALL if operator in absent else NONE
    array = str(spec["type"]).startswith("[]")
    if operator == FilterOperator.IS_EMPTY:
        return _empty(one.key, spec)
    if operator == FilterOperator.EQ:
        return _equal(one, spec)
    if operator == FilterOperator.NE:
        return ["Not", _equal(one, spec)]
    if operator == FilterOperator.IN:
        return _among(one, spec)
    if operator == FilterOperator.NIN:
        return ["Not", _among(one, spec)]
    if operator in _ORDERED and not array:
        return _ordered(one, spec)
    if operator == FilterOperator.CONTAINS and (array or spec["type"] == "string"):
        return _holds(one.key, one.value, spec)
    if operator == FilterOperator.ANY and (array or spec["type"] == "string"):
        return _or([_holds(one.key, value, spec) for value in _values(one)])
    if operator == FilterOperator.ALL and (array or spec["type"] == "string"):
        return ["And", [[one.key, "NotEq", None], *(_holds(one.key, value, spec) for value in _values(one))]]
    if operator == FilterOperator.TEXT_MATCH and spec["type"] == "string":
        return [one.key, "Regex", _literal(one.value, one.key)]
    if operator == FilterOperator.TEXT_MATCH_INSENSITIVE and spec["type"] == "string":
        return [one.key, "Regex", "(?i)" + _literal(one.value, one.key)]
    raise InvalidFilter(
        f"operator {operator.value!r} does not go with {one.key!r}, which is {spec['type']}", field="filters"
    )


def _equal(one: MetadataFilter, spec: Mapping[str, Any]) -> Filter:
    value = _as_type(one.value, spec)
    if isinstance(value, list):
        raise InvalidFilter(
            f"{one.key!r}: arrays are not compared whole; use 'all' or 'any'", field="filters"
        )
    return NONE if value is None else [one.key, "Eq", value]


def _among(one: MetadataFilter, spec: Mapping[str, Any]) -> Filter:
    if str(spec["type"]).startswith("[]"):  # no array is equal to a scalar
        return NONE
    found = [value for value in (_as_type(value, spec) for value in _values(one)) if value is not None]
    return [one.key, "In", found] if found else NONE


def _ordered(one: MetadataFilter, spec: Mapping[str, Any]) -> Filter:
    name, value = _ORDERED[one.operator], one.value
    if spec["type"] in ("int", "uint") and isinstance(value, float) and math.isfinite(value):
        if value != math.floor(value):  # no integer is equal to it
            name, value = ("Gt", math.floor(value)) if name[0] == "G" else ("Lt", math.ceil(value))
        value = int(value)
    return [one.key, name, value]


def _holds(key: str, value: Any, spec: Mapping[str, Any]) -> Filter:
    """That an array has an element, or a text a part."""
    if spec["type"] == "string":
        return [key, "Regex", _literal(value, key)]
    element = _as_type(value, {**spec, "type": str(spec["type"])[2:]})
    return NONE if element is None else [key, "Contains", element]


def _empty(key: str, spec: Mapping[str, Any]) -> Filter:
    kind = str(spec["type"])
    missing: Filter = [key, "Eq", None]
    if kind == "string":
        return ["Or", [missing, [key, "Eq", ""]]]
    if not kind.startswith("[]"):
        return missing
    if kind == "[]bool":
        return ["Not", [key, "ContainsAny", [True, False]]]
    if kind in ("[]int", "[]float"):
        return ["Not", ["Or", [[key, "AnyGte", 0], [key, "AnyLt", 0]]]]
    least = {"[]string": "", "[]uint": 0, "[]datetime": "0001-01-01"}.get(kind)
    if least is None:
        raise InvalidFilter(f"'is_empty' does not go with {key!r}, which is {kind}", field="filters")
    return ["Not", [key, "AnyGte", least]]


def _as_type(value: Any, spec: Mapping[str, Any]) -> Any:
    """A value as one of the attribute's type; None if none is equal to it."""
    if isinstance(value, list) and str(spec["type"]).startswith("[]"):
        return value
    if spec["type"] == "bool" and value in (0, 1):
        return bool(value)
    if spec["type"] in ("int", "uint") and isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if fits(value, spec) else None


def _values(one: MetadataFilter) -> Sequence[Any]:
    if not isinstance(one.value, list):
        raise InvalidFilter(f"operator {one.operator.value!r} of {one.key!r} takes a list", field="filters")
    return one.value


def _or(parts: list[Filter]) -> Filter:
    return ["Or", parts] if parts else NONE


def _literal(value: Any, key: str) -> str:
    """A regular expression that matches a text."""
    if not isinstance(value, str):
        raise InvalidFilter(f"a text is searched for in {key!r}, not {value!r}", field="filters")
    return "".join(f"\\{c}" if c.isascii() and not c.isalnum() and c.isprintable() else c for c in value)
