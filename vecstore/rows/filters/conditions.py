"""Conditions of writes: filters over a stored row that may refer to what the write gives to the same row.

What refers to nothing is an ordinary filter, a bitmap of the part; the rest compares two columns row by
row. Imports the modules beside it, schema and values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from vecstore.errors import FilterMismatch
from vecstore.manifest.model import Attribute
from vecstore.rows.column import Column
from vecstore.rows.filters.binding import Bound, bind
from vecstore.rows.filters.syntax import And, Condition, Expression, Not, Reference, field_of
from vecstore.rows.schema import element_type, is_array
from vecstore.rows.texts import TextArray
from vecstore.rows.values import key_of
from vecstore.types import IdKind

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "Eq": operator.eq,
    "NotEq": operator.eq,
    "Lt": operator.lt,
    "Lte": operator.le,
    "Gt": operator.gt,
    "Gte": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Compared:
    """A stored value held against the one that the write gives to ``new``.

    Attributes
    ----------
    attribute
        `Attribute.id` of ``name``.
    """

    name: str
    attribute: int
    operator: str
    new: str


@dataclass(frozen=True, slots=True)
class Joined:
    """All or any of some conditions, or that the only one does not hold."""

    how: Literal["all", "any", "not"]
    children: tuple[BoundCondition, ...]


BoundCondition = Bound | Compared | Joined


class Candidates(Protocol):
    """Stored rows of a part, m of them, and the rows of the write that are meant for them."""

    def matching(self, bound: Bound) -> BitMap:
        """The rows of the part that a filter matches."""

    def among(self, rows: BitMap) -> Bools:
        """bool[m]: which of the candidates are in ``rows``."""

    def stored(self, name: str, attribute: int) -> Column:
        """The stored values of an attribute, m of them."""

    def given(self, name: str) -> Column | None:
        """What the write gives to an attribute, m values; None if it gives nothing."""


def bind_condition(
    expression: Expression, schema: Mapping[str, Attribute], id_kind: IdKind | None
) -> BoundCondition:
    """What a condition asks under a schema.

    Raises
    ------
    FilterMismatch
        As `bind`; or a reference to no attribute, to one of another type, or to or from an array.
    """
    if not references(expression):
        return bind(expression, schema, id_kind)
    if isinstance(expression, Condition):
        return _compared(expression, schema)
    if isinstance(expression, Not):
        return Joined("not", (bind_condition(expression.child, schema, id_kind),))
    children = tuple(bind_condition(one, schema, id_kind) for one in expression.children)
    return Joined("all" if isinstance(expression, And) else "any", children)


def filters_of(bound: BoundCondition) -> list[Bound]:
    """What of a condition is an ordinary filter."""
    if isinstance(bound, Compared):
        return []
    if not isinstance(bound, Joined):
        return [bound]
    return [one for child in bound.children for one in filters_of(child)]


def holds(bound: BoundCondition, rows: Candidates) -> Bools:
    """bool[m]: for which of the candidates a condition holds."""
    if isinstance(bound, Compared):
        return _compare(bound, rows.stored(bound.name, bound.attribute), rows.given(bound.new))
    if not isinstance(bound, Joined):
        return rows.among(rows.matching(bound))
    found = [holds(child, rows) for child in bound.children]
    if bound.how == "not":
        return ~found[0]
    together: Bools = np.logical_and.reduce(found) if bound.how == "all" else np.logical_or.reduce(found)
    return together


def references(expression: Expression) -> list[Condition]:
    """The conditions that refer to new values."""
    if isinstance(expression, Condition):
        return [expression] if isinstance(expression.value, Reference) else []
    children = (expression.child,) if isinstance(expression, Not) else expression.children
    return [one for child in children for one in references(child)]


def _compared(asked: Condition, schema: Mapping[str, Attribute]) -> Compared:
    assert isinstance(asked.value, Reference)
    new = asked.value.attribute
    for place, name in ((0, asked.attribute), (2, new)):
        if name not in schema:
            raise _mismatch(asked, place, name, f"names {name!r}, which is no attribute of the namespace")
        if is_array(schema[name].type):
            raise _mismatch(asked, place, name, f"names {name!r}, which is an array")
    known = schema[asked.attribute]
    if schema[new].type != known.type:
        raise _mismatch(
            asked, 2, new, f"names {new!r}, which is {schema[new].type}; {asked.attribute!r} is {known.type}"
        )
    if known.type == "bool" and asked.operator not in ("Eq", "NotEq"):
        raise _mismatch(asked, 1, asked.attribute, f"is {asked.operator}, but true and false have no order")
    return Compared(asked.attribute, known.id, asked.operator, new)


def _mismatch(asked: Condition, where: int, attribute: str, why: str) -> FilterMismatch:
    place = f"{asked.at}[{where}]"
    return FilterMismatch(f"{place} {why}", field=field_of(asked.at), at=place, attribute=attribute)


def _compare(asked: Compared, stored: Column, given: Column | None) -> Bools:
    """Nulls are equal to nulls, and neither less nor greater than anything."""
    lacking = np.ones(len(stored), dtype=np.bool_) if given is None else given.null
    found = np.zeros(len(stored), dtype=np.bool_)
    both = np.flatnonzero(~(stored.null | lacking))
    if given is not None and len(both):
        old, new = _plain_zeros(stored.take(both)), _plain_zeros(given.take(both))
        found[both] = _COMPARE[asked.operator](old, new)
    if asked.operator in ("Eq", "NotEq"):
        found |= stored.null & lacking
    return ~found if asked.operator == "NotEq" else found


def _plain_zeros(column: Column) -> npt.NDArray[Any]:
    """Keys of scalars, of which the two zeros of a float are one."""
    if isinstance(column.elements, TextArray):
        texts = np.empty(len(column.elements), dtype=object)
        texts[:] = column.elements.tolist()
        return texts
    if element_type(column.spec.type) != "float":
        return column.elements
    return np.where(
        column.elements == np.uint64(int(key_of(-0.0, "float"))),
        np.uint64(int(key_of(0.0, "float"))),
        column.elements,
    )
