"""Expressions and a schema: what to look for, in which column.

Operators come down to four tests of a column's elements; the negated ones are the complement of theirs.
A bound expression is immutable and can be a key. Imports schema, values, patterns, syntax and errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from vecstore.errors import FilterMismatch, InvalidFilter
from vecstore.limits import MAX_ID_BYTES, MAX_PATTERN_INSTRUCTIONS
from vecstore.manifest.model import Attribute
from vecstore.rows.filters.patterns import Pattern, PatternKind, PatternTooLarge, compile_pattern
from vecstore.rows.filters.syntax import And, Condition, Expression, Not, Or, field_of
from vecstore.rows.schema import element_type, is_array
from vecstore.rows.values import WORDS, Key, at_most, key_of, shown
from vecstore.types import IdKind, ScalarType

ID: Final = "id"
NODE_BYTES: Final = 256  # of one expression in memory, with its test, about
KEY_BYTES: Final = 48  # of one key in a list, and of the bytes of a text as many more as it has


class Missing(Struct, frozen=True):
    """Rows without a value."""


class OneOf(Struct, frozen=True):
    """Rows with an element that is one of these keys."""

    keys: tuple[Key, ...]


class Between(Struct, frozen=True):
    """Rows with an element between two keys, each of them included or not; None is no bound."""

    low: Key | None
    low_in: bool
    high: Key | None
    high_in: bool


class Matching(Struct, frozen=True):
    """Rows with a text that a pattern matches."""

    pattern: Pattern


Test = Missing | OneOf | Between | Matching


class Look(Struct, frozen=True):
    """A test of one column: of the attribute of this name and `Attribute.id`, or of the ids (None)."""

    name: str
    attribute: int | None
    test: Test


class All(Struct, frozen=True):
    children: tuple[Bound, ...]


class Any_(Struct, frozen=True):  # noqa: N801  # typing has the name
    children: tuple[Bound, ...]


class Inverse(Struct, frozen=True):
    """The rows of a part that ``child`` leaves out."""

    child: Bound


Bound = Look | All | Any_ | Inverse

_RANGES: Final = {"Lt": (False, False), "Lte": (False, True), "Gt": (True, False), "Gte": (True, True)}
_NEGATED: Final = frozenset({"NotEq", "NotIn", "NotContains", "NotContainsAny", "NotGlob", "NotIGlob"})
_ON_ARRAYS: Final = frozenset(
    {"Contains", "NotContains", "ContainsAny", "NotContainsAny", "AnyLt", "AnyLte", "AnyGt", "AnyGte"}
)
_ON_BOTH: Final = frozenset({"In", "NotIn"})
_PATTERNS: Final[dict[str, PatternKind]] = {"Glob": "glob", "IGlob": "iglob", "Regex": "regex"}


def bind(expression: Expression, schema: Mapping[str, Attribute], id_kind: IdKind | None) -> Bound:
    """What an expression asks of parts under a schema.

    Parameters
    ----------
    id_kind
        Of the namespace; None as long as it has no rows, so that nothing can match.

    Raises
    ------
    FilterMismatch
        No such attribute, one that is not filterable, an operator or a value of another type.
    InvalidFilter
        A pattern that does not compile, or to too many instructions.
    """
    if isinstance(expression, And):
        return _joined(tuple(bind(one, schema, id_kind) for one in expression.children), schema)
    if isinstance(expression, Or):
        return Any_(tuple(bind(one, schema, id_kind) for one in expression.children))
    if isinstance(expression, Not):
        return Inverse(bind(expression.child, schema, id_kind))
    return _condition(expression, schema, id_kind)


def _joined(children: tuple[Bound, ...], schema: Mapping[str, Attribute]) -> Bound:
    """All of them; of two bounds of one column whose rows have one element each, a single range."""
    ranges: dict[str, Look] = {}
    others: list[Bound] = []
    for one in children:
        if isinstance(one, Look) and isinstance(one.test, Between) and not _is_array(one, schema):
            known = ranges.get(one.name)
            ranges[one.name] = one if known is None else _narrower(known, one)
        else:
            others.append(one)
    joined = (*ranges.values(), *others)
    return joined[0] if len(joined) == 1 else All(joined)


def _is_array(look: Look, schema: Mapping[str, Attribute]) -> bool:
    return look.attribute is not None and is_array(schema[look.name].type)


def _narrower(one: Look, other: Look) -> Look:
    tests = [look.test for look in (one, other) if isinstance(look.test, Between)]
    lows = [(test.low, not test.low_in) for test in tests if test.low is not None]
    highs = [(test.high, test.high_in) for test in tests if test.high is not None]
    low, above = max(lows) if lows else (None, True)
    high, included = min(highs) if highs else (None, False)
    return Look(one.name, one.attribute, Between(low, not above, high, included))


def columns_of(bound: Bound) -> dict[str, int]:
    """The attributes that a bound expression asks about, and their ids."""
    return {one.name: one.attribute for one in _looks(bound) if one.attribute is not None}


def ids_of(bound: Bound) -> list[Look]:
    """The tests of ids in a bound expression."""
    return [one for one in _looks(bound) if one.attribute is None]


def patterns_of(bound: Bound) -> list[Look]:
    """The tests by pattern of a bound expression."""
    return [one for one in _looks(bound) if isinstance(one.test, Matching)]


def _looks(bound: Bound) -> Iterator[Look]:
    waiting = [bound]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Look):
            yield one
        elif isinstance(one, Inverse):
            waiting.append(one.child)
        else:
            waiting.extend(one.children)


def bytes_of(bound: Bound) -> int:
    """About how much memory a bound expression takes."""
    if isinstance(bound, Inverse):
        return NODE_BYTES + bytes_of(bound.child)
    if not isinstance(bound, Look):
        return NODE_BYTES + sum(map(bytes_of, bound.children))
    if not isinstance(bound.test, OneOf):
        return 2 * NODE_BYTES
    texts = sum(len(key) for key in bound.test.keys if isinstance(key, bytes))
    return 2 * NODE_BYTES + KEY_BYTES * len(bound.test.keys) + texts


def _condition(asked: Condition, schema: Mapping[str, Attribute], id_kind: IdKind | None) -> Bound:
    if asked.attribute == ID:
        numbers = id_kind == "u64" or (id_kind is None and _asks_numbers(asked.value))
        kind: ScalarType = "uint" if numbers else "string"
        number, arrays = None, False
    else:
        known = schema.get(asked.attribute)
        if known is None:
            raise _mismatch(asked, 0, f"names {asked.attribute!r}, which is no attribute of the namespace")
        if not known.filterable:
            raise _mismatch(asked, 0, f"names {asked.attribute!r}, which is not filterable")
        kind, number, arrays = element_type(known.type), known.id, is_array(known.type)
    operator = asked.operator
    if asked.value is not None and operator not in _ON_BOTH and arrays != (operator in _ON_ARRAYS):
        what = "an array" if arrays else "no array"
        raise _mismatch(asked, 1, f"is {operator}, but {asked.attribute!r} is {what}")
    test = _test(asked, kind, id_kind)
    found: Bound
    if isinstance(test, tuple):
        found = Any_(tuple(Look(asked.attribute, number, one) for one in test))
    else:
        found = Look(asked.attribute, number, test)
    return Inverse(found) if operator in _NEGATED else found


def _asks_numbers(value: Any) -> bool:
    """Whether ids are taken to be numbers where there are none yet."""
    return any(isinstance(one, int) for one in (value if isinstance(value, tuple) else (value,)))


def _test(asked: Condition, kind: ScalarType, id_kind: IdKind | None) -> Test | tuple[Test, ...]:
    operator, value = asked.operator, asked.value
    if value is None:
        return Missing()
    if operator in ("In", "NotIn", "ContainsAny", "NotContainsAny"):
        tests = [_equal(asked, kind, one, f"[2][{i}]") for i, one in enumerate(value) if one is not None]
        keys = [key for test in tests if isinstance(test, OneOf) for key in test.keys]
        others: list[Test] = [test for test in tests if not isinstance(test, OneOf)]
        if len(others) < len(tests) or not tests:
            others.append(OneOf(tuple(sorted(set(keys)))))
        if None in value:
            others.append(Missing())
        return others[0] if len(others) == 1 else tuple(others)
    if operator in ("Eq", "NotEq", "Contains", "NotContains"):
        return _equal(asked, kind, value, "[2]")
    pattern = _PATTERNS.get(operator.removeprefix("Not"))
    if pattern is not None:
        if kind != "string" or (asked.attribute == ID and id_kind == "u64"):
            raise _mismatch(asked, 1, f"is {operator}, which asks for strings; {asked.attribute!r} has none")
        place = f"{asked.at}[2]"
        try:
            return Matching(compile_pattern(pattern, value))
        except PatternTooLarge as error:
            raise InvalidFilter(
                f"{place} is a pattern of more than {MAX_PATTERN_INSTRUCTIONS} instructions when compiled; "
                "shorter repetitions and narrower classes make fewer",
                field=field_of(asked.at),
                at=place,
                limit=MAX_PATTERN_INSTRUCTIONS,
            ) from error
        except ValueError as error:
            raise InvalidFilter(
                f"{place} is no pattern: {error}", field=field_of(asked.at), at=place
            ) from error
    if kind == "bool":
        raise _mismatch(asked, 1, f"is {operator}, but true and false have no order")
    above, included = _RANGES[operator.removeprefix("Any")]
    low, high, between = _ends(asked, kind, value, "[2]")
    included = not above if between else included  # what is below a value between two is at most the lower
    # Of the two zeros of a float, each bound takes the one that makes them equal.
    if above:
        return Between(low if included else high, included, None, False)
    return Between(None, False, high if included else low, included)


def _equal(asked: Condition, kind: ScalarType, value: Any, where: str) -> Test:
    low, high, between = _ends(asked, kind, value, where)
    if between:
        return OneOf(())
    return OneOf((low,)) if low == high else Between(low, True, high, True)


def _ends(asked: Condition, kind: ScalarType, value: Any, where: str) -> tuple[Key, Key, bool]:
    """The least and the greatest key that are equal to a value: the same, but for the zeros of a float.

    Of a value between two that can be kept it is the lower one, and true.
    """
    try:
        key, exact = at_most(value, kind)
        if kind == "float" and value == 0:
            return key_of(-0.0, kind), key_of(0.0, kind), False
        if asked.attribute == ID and isinstance(key, bytes) and len(key) > MAX_ID_BYTES:
            raise ValueError(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise FilterMismatch(
            f"{asked.at}{where} must be {WORDS[kind]}, as {asked.attribute!r} is, not {shown(value)}",
            field=field_of(asked.at),
            at=f"{asked.at}{where}",
            attribute=asked.attribute,
        ) from error
    return key, key, not exact


def _mismatch(asked: Condition, where: int, why: str) -> FilterMismatch:
    place = f"{asked.at}[{where}]"
    return FilterMismatch(f"{place} {why}", field=field_of(asked.at), at=place, attribute=asked.attribute)
