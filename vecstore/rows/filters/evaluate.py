"""Bound filters and the columns of a part: the rows that match, dead ones included.

Imports binding, columns, bits and deadline.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Final, Protocol

from pyroaring import BitMap

from vecstore import deadline
from vecstore.rows.bits import RowBits
from vecstore.rows.columns import ColumnReader
from vecstore.rows.filters.binding import (
    All,
    Any_,
    Between,
    Bound,
    Inverse,
    Look,
    Matching,
    Missing,
    OneOf,
    patterns_of,
)

AMONG: Final = 8  # times as many rows are taken from an index as are looked at one by one
FEW_TEXTS: Final = 4  # times as many texts are read in their order as are looked up one by one


class Rows(Protocol):
    """A part, as far as filters ask."""

    @property
    def n(self) -> int: ...

    def column(self, name: str, attribute: int) -> ColumnReader | None:
        """The column of an attribute; None if the part has none, so that all of its rows are null."""

    def ids_equal_to(self, keys: tuple[int | bytes, ...]) -> RowBits: ...

    def ids_between(self, test: Between) -> RowBits: ...

    def ids_matching(self, test: Matching) -> RowBits: ...


def evaluate(bound: Bound, rows: Rows) -> BitMap:
    """Rows of a part that a filter matches, as a bitmap of their own."""
    return matching_rows(bound, rows).bitmap()


def matching_rows(bound: Bound, rows: Rows) -> RowBits:
    """Rows of a part that a filter matches. Shared: not to be changed.

    `DeadlineExceeded` once nobody waits for them.
    """
    deadline.check()
    if isinstance(bound, Look):
        return _look(bound, rows)
    if isinstance(bound, Inverse):
        return ~matching_rows(bound.child, rows)
    if isinstance(bound, Any_):
        return reduce(or_, [matching_rows(child, rows) for child in bound.children])
    # The fewest rows first: nothing else is looked at once there are none, and little where there are few.
    # What takes text after text comes last, however few it may match.
    expected = sorted((_slow(child), expect(child, rows), i) for i, child in enumerate(bound.children))
    matching = matching_rows(bound.children[expected[0][2]], rows)
    for _, count, i in expected[1:]:
        if not matching:
            break
        matching = _narrowed(matching, bound.children[i], count, rows)
    return matching


def _slow(bound: Bound) -> bool:
    """Whether a pattern is held against all texts, for lack of a prefix by which they are found."""
    tests = (look.test for look in patterns_of(bound))
    return any(isinstance(test, Matching) and not test.pattern.prefix for test in tests)


def _narrowed(matching: RowBits, child: Bound, expected: float, rows: Rows) -> RowBits:
    """The rows of ``matching`` that another filter matches too."""
    if isinstance(child, Inverse):
        return matching - _narrowed(matching, child.child, rows.n - expected, rows)
    if isinstance(child, Look) and child.attribute is not None:
        column, test = rows.column(child.name, child.attribute), child.test
        if column is not None and column.scalar:
            if isinstance(test, Between) and AMONG * len(matching) < expected:
                present = matching & column.present()
                return column.among(present, test.low, test.low_in, test.high, test.high_in)
            few = FEW_TEXTS * len(matching) < column.entry.distinct
            if isinstance(test, Matching) and few and _slow(child):
                return column.matching_among(matching & column.present(), test.pattern)
    return matching & matching_rows(child, rows)


def expect(bound: Bound, rows: Rows) -> float:
    """How many rows a filter may match, by the statistics of columns."""
    if isinstance(bound, Inverse):
        return rows.n - expect(bound.child, rows)
    if isinstance(bound, All):
        return min(expect(child, rows) for child in bound.children)
    if isinstance(bound, Any_):
        return min(float(rows.n), sum(expect(child, rows) for child in bound.children))
    column = None if bound.attribute is None else rows.column(bound.name, bound.attribute)
    test = bound.test
    if column is None:
        return len(test.keys) if isinstance(test, OneOf) else float(rows.n)
    entry = column.entry
    if isinstance(test, Missing):
        return entry.nulls
    if isinstance(test, OneOf):
        return min(1.0, len(test.keys) / max(1, entry.distinct)) * entry.elements
    least, greatest = entry.least, entry.greatest
    if isinstance(test, Between) and isinstance(least, int) and isinstance(greatest, int):
        low = least if test.low is None else max(least, int(test.low))
        high = greatest if test.high is None else min(greatest, int(test.high))
        return max(0.0, (high - low + 1) / (greatest - least + 1)) * entry.elements
    return entry.elements / 2


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


def _look(look: Look, rows: Rows) -> RowBits:
    test = look.test
    if look.attribute is None:
        if isinstance(test, Missing):
            return RowBits.none(rows.n)
        if isinstance(test, OneOf):
            return rows.ids_equal_to(test.keys)
        return rows.ids_between(test) if isinstance(test, Between) else rows.ids_matching(test)
    column = rows.column(look.name, look.attribute)
    if column is None:
        return RowBits.every(rows.n) if isinstance(test, Missing) else RowBits.none(rows.n)
    if isinstance(test, Missing):
        return column.nulls()
    if isinstance(test, OneOf):
        return column.equal_to(test.keys)
    if isinstance(test, Between):
        return column.between(test.low, test.low_in, test.high, test.high_in)
    return column.matching(test.pattern)
