"""Filters as they are written: JSON to immutable expressions, within bounds.

    ["And", [f, …]]  ["Or", [f, …]]  ["Not", f]  [attribute, operator, value]

What the values mean, the schema decides (`vecstore.rows.filters.binding`). Imports errors, limits and values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np

from vecstore.errors import InvalidFilter
from vecstore.limits import (
    MAX_ATTRIBUTE_NAME_BYTES,
    MAX_FILTER_BYTES,
    MAX_FILTER_DEPTH,
    MAX_FILTER_NODES,
    MAX_FILTER_VALUES,
    MAX_PATTERN_BYTES,
)
from vecstore.rows.values import constant, shown, spoken

Operator = Literal[
    "Eq",
    "NotEq",
    "In",
    "NotIn",
    "Lt",
    "Lte",
    "Gt",
    "Gte",
    "Contains",
    "NotContains",
    "ContainsAny",
    "NotContainsAny",
    "AnyLt",
    "AnyLte",
    "AnyGt",
    "AnyGte",
    "Glob",
    "NotGlob",
    "IGlob",
    "NotIGlob",
    "Regex",
]

OPERATORS: Final = frozenset(get_args(Operator))
SHORT_BYTES: Final = 4 << 10  # of a filter's JSON, of many of which the expressions are remembered
WITH_LIST: Final = frozenset({"In", "NotIn", "ContainsAny", "NotContainsAny"})
WITH_PATTERN: Final = frozenset({"Glob", "NotGlob", "IGlob", "NotIGlob", "Regex"})
WITH_NULL: Final = frozenset({"Eq", "NotEq", "In", "NotIn"})
WITH_REFERENCE: Final = frozenset({"Eq", "NotEq", "Lt", "Lte", "Gt", "Gte"})
REFERENCE: Final = "$ref_new"


@dataclass(frozen=True, slots=True)
class And:
    """Rows that all of ``children`` match; at least one."""

    children: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Rows that any of ``children`` matches; at least one."""

    children: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Rows that ``child`` does not match."""

    child: Expression


@dataclass(frozen=True, slots=True)
class Reference:
    """The value that a write gives to an attribute of the same row: ``{"$ref_new": attribute}``."""

    attribute: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One attribute held against a value.

    Attributes
    ----------
    value
        A string, number, bool or None; a tuple of them for the operators that take a list; in a condition
        of a write a `Reference`.
    at
        The place in the filter, as ``filter[1][0]``.
    """

    attribute: str
    operator: Operator
    value: Any
    at: str = field(compare=False)


Expression = And | Or | Not | Condition


def filter_bytes(given: object, field: str = "filter") -> bytes:
    """A filter of Python values as JSON: how it crosses a wire, and the key under which it is remembered.

    Dates and UUIDs become strings, NumPy's numbers Python's. `InvalidFilter` if it cannot be JSON.
    """
    try:
        found = _encoder.encode(given)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidFilter(f"{field} has no JSON form: {error}", field=field, at=field) from error
    _refuse_unspeakable(given, field)
    if len(found) > MAX_FILTER_BYTES:
        raise _too_long(field)
    return found


def _refuse_unspeakable(given: object, field: str) -> None:
    """`InvalidFilter` for what has a JSON form, but that of another value: NaN, bytes, a decimal number."""
    waiting = [given]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind is dict:
            waiting.extend(one.values())  # type: ignore[attr-defined]
        elif kind in _LISTS or (isinstance(one, np.ndarray) and one.ndim):
            waiting.extend(one)  # type: ignore[arg-type]
        elif kind not in _AS_THEY_ARE:
            try:
                spoken(one)
            except ValueError:
                raise InvalidFilter(
                    f"{field} holds {shown(one)}, which is no value", field=field, at=field
                ) from None


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray) and value.ndim:
        return list(value)
    try:
        return constant(value)
    except ValueError:
        raise TypeError(f"{shown(value)} is no value") from None


_LISTS: Final = frozenset({list, tuple, set, frozenset})
_AS_THEY_ARE: Final = frozenset({str, int, bool, type(None)})
_encoder = msgspec.json.Encoder(enc_hook=_plain, order="deterministic")  # a set has an order of its own


def parse_filter(data: bytes) -> Expression:
    """The expression of a filter's JSON.

    Raises
    ------
    InvalidFilter
        Naming the place, as ``filter[1][0][2]``.
    """
    if len(data) > MAX_FILTER_BYTES:
        raise _too_long("filter")
    return (_short if len(data) <= SHORT_BYTES else _long)(data)


def parse_condition(data: bytes) -> Expression:
    """The expression of a write's ``condition``: a filter that may hold a `Reference` where a value stands.

    Raises
    ------
    InvalidFilter
        Naming the place, as ``condition[1][0][2]``.
    """
    if len(data) > MAX_FILTER_BYTES:
        raise _too_long("condition")
    return _parsed(data, "condition")


def _too_long(field: str) -> InvalidFilter:
    return _Parser.refuse(f"must have at most {MAX_FILTER_BYTES} bytes of JSON", field, MAX_FILTER_BYTES)


def field_of(at: str) -> str:
    """The field of a request that a place lies in."""
    return at.partition("[")[0]


def _parsed(data: bytes, field: Literal["filter", "condition"] = "filter") -> Expression:
    try:
        given = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Parser.refuse(f"is not JSON: {error}", field) from error
    return _Parser(references=field == "condition").expression(given, field, 1)


# An expression may take megabytes, so only few of the long ones are remembered.
_short = lru_cache(maxsize=1_024)(_parsed)
_long = lru_cache(maxsize=16)(_parsed)


class _Parser:
    """Counts what one filter holds."""

    def __init__(self, *, references: bool = False) -> None:
        self._references = references
        self._nodes = 0
        self._values = 0

    @staticmethod
    def refuse(why: str, at: str, limit: object = None) -> InvalidFilter:
        details = {} if limit is None else {"limit": limit}
        return InvalidFilter(f"{at} {why}", field=field_of(at), at=at, **details)

    def expression(self, given: Any, at: str, depth: int) -> Expression:
        self._nodes += 1
        if self._nodes > MAX_FILTER_NODES:
            raise self.refuse(
                f"is one of more than {MAX_FILTER_NODES} conditions, And, Or and Not", at, MAX_FILTER_NODES
            )
        if depth > MAX_FILTER_DEPTH:
            raise self.refuse(f"is nested deeper than {MAX_FILTER_DEPTH}", at, MAX_FILTER_DEPTH)
        if not isinstance(given, list) or len(given) not in (2, 3):
            raise self.refuse(
                'must be ["And" | "Or", [filter, …]], ["Not", filter] or [attribute, operator, value]', at
            )
        if len(given) == 3:
            return self._condition(given, at)
        name, inner = given
        if name == "Not":
            return Not(self.expression(inner, f"{at}[1]", depth + 1))
        if name not in ("And", "Or"):
            raise self.refuse('must be "And", "Or" or "Not" where two elements are given', f"{at}[0]")
        if not isinstance(inner, list) or not inner:
            raise self.refuse("must be a list of at least one filter", f"{at}[1]")
        children = tuple(self.expression(one, f"{at}[1][{i}]", depth + 1) for i, one in enumerate(inner))
        return And(children) if name == "And" else Or(children)

    def _condition(self, given: list[Any], at: str) -> Condition:
        attribute, operator, value = given
        if not isinstance(attribute, str) or not attribute:
            raise self.refuse("must be the name of an attribute", f"{at}[0]")
        if len(attribute.encode()) > MAX_ATTRIBUTE_NAME_BYTES:
            raise self.refuse(
                f"must have at most {MAX_ATTRIBUTE_NAME_BYTES} bytes", f"{at}[0]", MAX_ATTRIBUTE_NAME_BYTES
            )
        if not isinstance(operator, str) or operator not in OPERATORS:
            raise self.refuse("must be an operator", f"{at}[1]", sorted(OPERATORS))
        place = f"{at}[2]"
        if self._references and isinstance(value, dict):
            return Condition(attribute, operator, self._reference(value, operator, place), at)  # type: ignore[arg-type]
        if operator in WITH_LIST:
            value = self._list(value, place, null=operator in WITH_NULL)
        else:
            self._value(value, place, null=operator in WITH_NULL)
        if operator in WITH_PATTERN:
            if not isinstance(value, str):
                raise self.refuse("must be a string, the pattern", place)
            if len(value.encode()) > MAX_PATTERN_BYTES:
                raise self.refuse(f"must have at most {MAX_PATTERN_BYTES} bytes", place, MAX_PATTERN_BYTES)
        return Condition(attribute, operator, value, at)  # type: ignore[arg-type]  # an operator, see above

    def _reference(self, given: dict[str, Any], operator: str, at: str) -> Reference:
        name = given.get(REFERENCE)
        if len(given) != 1 or not isinstance(name, str) or not name:
            raise self.refuse(f'must be a value, or {{"{REFERENCE}": attribute}}', at)
        if operator not in WITH_REFERENCE:
            raise self.refuse(f"refers to a new value, which {operator} does not", at, sorted(WITH_REFERENCE))
        return Reference(name)

    def _list(self, given: Any, at: str, *, null: bool) -> tuple[Any, ...]:
        if not isinstance(given, list):
            raise self.refuse("must be a list", at)
        for i, value in enumerate(given):
            self._value(value, f"{at}[{i}]", null=null)
        return tuple(given)

    def _value(self, given: Any, at: str, *, null: bool) -> None:
        self._values += 1
        if self._values > MAX_FILTER_VALUES:
            raise self.refuse(f"is one of more than {MAX_FILTER_VALUES} values", at, MAX_FILTER_VALUES)
        if given is None and not null:
            raise self.refuse("must not be null here", at)
        if isinstance(given, (list, dict)):
            raise self.refuse("must be a string, a number, true, false or null", at)


def attributes_of(expression: Expression) -> frozenset[str]:
    """The attributes that a filter asks about."""
    found: set[str] = set()
    waiting: list[Expression] = [expression]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Condition):
            found.add(one.attribute)
        elif isinstance(one, Not):
            waiting.append(one.child)
        else:
            waiting.extend(one.children)
    return frozenset(found)
