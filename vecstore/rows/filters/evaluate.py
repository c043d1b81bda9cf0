"""Bound filters and the columns of a part: a bitmap of the rows that match, dead ones included.

Imports binding and pyroaring.
"""

from __future__ import annotations

from typing import Protocol

from pyroaring import BitMap

from vecstore.rows.columns import ColumnReader
from vecstore.rows.filters.binding import All, Any_, Between, Bound, Inverse, Look, Matching, Missing, OneOf


class Rows(Protocol):
    """A part, as far as filters ask."""

    @property
    def n(self) -> int: ...

    def column(self, name: str, attribute: int) -> ColumnReader | None:
        """The column of an attribute; None if the part has none, so that all of its rows are null."""

    def ids_equal_to(self, keys: tuple[int | bytes, ...]) -> BitMap: ...

    def ids_between(self, test: Between) -> BitMap: ...

    def ids_matching(self, test: Matching) -> BitMap: ...


def evaluate(bound: Bound, rows: Rows) -> BitMap:
    """Rows of a part that a filter matches. Shared: not to be changed."""
    if isinstance(bound, Look):
        return _look(bound, rows)
    if isinstance(bound, Inverse):
        return evaluate(bound.child, rows).flip(0, rows.n)
    if isinstance(bound, Any_):
        found = [evaluate(child, rows) for child in bound.children]
        return found[0] if len(found) == 1 else BitMap.union(*found)
    matching = evaluate(bound.children[0], rows)
    for child in bound.children[1:]:
        if not matching:
            break
        matching = matching & evaluate(child, rows)
    return matching


def may_match(bound: Bound, rows: Rows) -> bool:
    """Whether a part can have a row that a filter matches, by what its directory says alone."""
    if isinstance(bound, Inverse):
        return True
    if isinstance(bound, Any_):
        return any(may_match(child, rows) for child in bound.children)
    if isinstance(bound, All):
        return all(may_match(child, rows) for child in bound.children)
    if bound.attribute is None:
        return True
    column, test = rows.column(bound.name, bound.attribute), bound.test
    if column is None or isinstance(test, Missing):
        return isinstance(test, Missing) and (column is None or column.entry.nulls > 0)
    if isinstance(test, OneOf):
        return any(column.may_hold(key, key) for key in test.keys)
    if isinstance(test, Between):
        return column.may_hold(test.low, test.high)
    return column.entry.elements > 0


def _look(look: Look, rows: Rows) -> BitMap:
    test = look.test
    if look.attribute is None:
        if isinstance(test, Missing):
            return BitMap()
        if isinstance(test, OneOf):
            return rows.ids_equal_to(test.keys)
        return rows.ids_between(test) if isinstance(test, Between) else rows.ids_matching(test)
    column = rows.column(look.name, look.attribute)
    if column is None:
        return BitMap(range(rows.n)) if isinstance(test, Missing) else BitMap()
    if isinstance(test, Missing):
        return column.nulls()
    if isinstance(test, OneOf):
        return column.equal_to(test.keys)
    if isinstance(test, Between):
        return column.between(test.low, test.low_in, test.high, test.high_in)
    return column.matching(test.pattern)
