"""Filters: arrays of JSON as users of turbopuffer know them, over attributes and ``id``.

    syntax.py     JSON -> immutable expressions, bounded, each condition with its place
    binding.py    expressions and a schema -> what to look for in which column
    patterns.py   globs and regular expressions, by a linear-time engine
    conditions.py of writes, which may refer to what is written
    evaluate.py   bound expressions and the columns of a part -> the rows that match

Null is the value of a row that lacks the attribute. ``["a", "Eq", null]`` matches it; no other
condition does but the negated ones, each of which matches exactly the rows that its opposite does not.
"""

from vecstore.rows.filters.binding import Bound, bind
from vecstore.rows.filters.evaluate import evaluate, matching_rows, may_match
from vecstore.rows.filters.syntax import Expression, filter_bytes, parse_condition, parse_filter

__all__ = [
    "Bound",
    "Expression",
    "bind",
    "evaluate",
    "filter_bytes",
    "matching_rows",
    "may_match",
    "parse_condition",
    "parse_filter",
]
