"""What a filter means, said a second time: row by row, on plain values. And random filters and rows."""

from __future__ import annotations

import fnmatch
import random
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

Attributes = dict[str, Any]

TYPES = {
    "s": "string",
    "i": "int",
    "u": "uint",
    "f": "float",
    "b": "bool",
    "t": "datetime",
    "x": "uuid",
    "w": "string",
    "ss": "[]string",
    "ii": "[]int",
    "uu": "[]uint",
    "ff": "[]float",
    "bb": "[]bool",
    "tt": "[]datetime",
    "xx": "[]uuid",
}

_UUIDS = [str(uuid.UUID(int=i * 0x0123456789ABCDEF0123456789AB)) for i in range(12)]
_TIMES = [f"20{year:02}-0{1 + year % 9}-11T0{year % 10}:00:00.{year:03}Z" for year in range(0, 60, 3)]
_POOLS: dict[str, list[Any]] = {
    "string": ["", "a", "ab", "abc", "b", "Straße", "STRASSE", "é", "zz*", "[x]", "a\nb", "\U0001f600"],
    "int": [-(2**63), -5, -1, 0, 1, 2, 3, 2**63 - 1],
    "uint": [0, 1, 2, 3, 2**63, 2**64 - 1],
    "float": [-1.5e308, -(2.0**60), -1.0, -0.0, 0.0, 5e-324, 0.5, 1.0, 2.0**53, 2.0**53 + 2, 1e308],
    "bool": [False, True],
    "datetime": _TIMES,
    "uuid": _UUIDS,
}
# What no value can be, but a constant can: between two values, or beyond all that are there.
_BETWEEN: dict[str, list[Any]] = {
    "float": [2**53 + 1, 2**53 + 3, -(2**60) - 1, -(2**60) + 1, 10**300 + 1, 7],
    "datetime": [
        *(t.replace("Z", "001Z") for t in _TIMES[:6]),
        _TIMES[7].replace("Z", "000500Z"),
        _TIMES[8].replace("Z", "+00:00"),
        _TIMES[9].replace("Z", "999999+00:00"),
        "1969-12-31T23:59:59.999999Z",
    ],
}


def random_rows(rng: random.Random, n: int) -> list[Attributes]:
    """Rows with nulls and arrays; ``w`` has many values, so that it is looked up otherwise."""
    rows = []
    for _ in range(n):
        row: Attributes = {}
        for name, kind in TYPES.items():
            pool = _POOLS[kind.removeprefix("[]")]
            if rng.random() < 0.2:
                row[name] = None
            elif name == "w":
                row[name] = f"word {rng.randrange(3 * n)}"
            elif kind.startswith("[]"):
                row[name] = rng.choices(pool, k=rng.randrange(4))
            else:
                row[name] = rng.choice(pool)
        rows.append(row)
    return rows


def random_filter(rng: random.Random, ids: list[Any], depth: int = 3) -> list[Any]:
    if depth and rng.random() < 0.5:
        name = rng.choice(["And", "Or", "Not"])
        if name == "Not":
            return ["Not", random_filter(rng, ids, depth - 1)]
        return [name, [random_filter(rng, ids, depth - 1) for _ in range(rng.randint(1, 3))]]
    return _random_condition(rng, ids)


def _random_condition(rng: random.Random, ids: list[Any]) -> list[Any]:
    if rng.random() < 0.1:
        strings = isinstance(ids[0], str)
        some = [*ids, "nobody"] if strings else [*ids, 0, 2**64 - 1]
        operator = rng.choice(["Eq", "NotEq", "In", "NotIn", "Lt", "Lte", "Gt", "Gte", *(["Glob"] * strings)])
        if operator == "Glob":
            return ["id", "Glob", rng.choice(["*1*", "row 1?", "*", "nobody"])]
        value = rng.sample(some, k=min(5, len(some))) if operator.endswith("In") else rng.choice(some)
        return ["id", operator, value]
    name = rng.choice(list(TYPES))
    kind = TYPES[name]
    pool: list[Any] = _POOLS[kind.removeprefix("[]")] + _BETWEEN.get(kind.removeprefix("[]"), [])
    if name == "w":
        pool = [f"word {rng.randrange(200)}" for _ in range(8)]
    if rng.random() < 0.1:
        return [name, rng.choice(["Eq", "NotEq"]), None]
    ordered = kind.removeprefix("[]") != "bool"
    if kind.startswith("[]"):
        operators = ["Contains", "NotContains", "ContainsAny", "NotContainsAny", "In", "NotIn"]
        operators += ["AnyLt", "AnyLte", "AnyGt", "AnyGte"] * ordered
    else:
        operators = ["Eq", "NotEq", "In", "NotIn"] + ["Lt", "Lte", "Gt", "Gte"] * ordered
        if kind == "string":
            operators += ["Glob", "NotGlob", "IGlob", "NotIGlob", "Regex"]
    operator = rng.choice(operators)
    if operator.endswith("Glob"):
        return [
            name,
            operator,
            rng.choice(["a*", "*b", "?", "A*", "[ab]*", "[!a]*", "word 1*", "zz[*]", "", "*e*"]),
        ]
    if operator == "Regex":
        return [name, operator, rng.choice(["^a", "b$", "a.b", "[0-9]{2}", "", "(?i)straße", "word (1|2)"])]
    if operator in ("In", "NotIn", "ContainsAny", "NotContainsAny"):
        values = rng.choices(pool, k=rng.randrange(4))
        return [name, operator, [*values, *([None] * (operator.endswith("In") and rng.random() < 0.2))]]
    return [name, operator, rng.choice(pool)]


def matches(f: list[Any], row: Attributes) -> bool:
    """Whether a row, with its ``id`` among its attributes, is one that a filter asks for."""
    if f[0] == "And" and len(f) == 2:
        return all(matches(one, row) for one in f[1])
    if f[0] == "Or" and len(f) == 2:
        return any(matches(one, row) for one in f[1])
    if f[0] == "Not" and len(f) == 2:
        return not matches(f[1], row)
    name, operator, value = f
    found = row.get(name)
    opposite = {
        "NotEq": "Eq",
        "NotIn": "In",
        "NotContains": "Contains",
        "NotContainsAny": "ContainsAny",
        "NotGlob": "Glob",
        "NotIGlob": "IGlob",
    }
    if operator in opposite:
        return not matches([name, opposite[operator], value], row)
    if found is None:
        return value is None or (operator == "In" and None in value)
    if TYPES.get(name, "").endswith("datetime"):
        found, value = _instants(found), _instants(value)
    if operator == "Eq":
        return value is not None and found == value
    elements = found if isinstance(found, list) else [found]
    if operator in ("In", "ContainsAny"):
        return any(e == v for e in elements for v in value)
    if operator == "Contains":
        return any(e == value for e in elements)
    if operator in ("Glob", "IGlob"):
        flags = re.DOTALL | (re.IGNORECASE if operator == "IGlob" else 0)
        return re.fullmatch(fnmatch.translate(value).removesuffix(r"\Z"), found, flags) is not None
    if operator == "Regex":
        return re.search(value.replace("$", r"\Z"), found) is not None
    compare: dict[str, Callable[[Any], bool]] = {
        "Lt": lambda e: e < value,
        "Lte": lambda e: e <= value,
        "Gt": lambda e: e > value,
        "Gte": lambda e: e >= value,
    }
    return any(map(compare[operator.removeprefix("Any")], elements))


def _instants(value: Any) -> Any:
    """Nanoseconds since 2000, of which Python's own dates hold too few digits; of a list a list."""
    if isinstance(value, list):
        return [_instants(one) for one in value]
    if value is None:
        return None
    text = value.removesuffix("Z").removesuffix("+00:00")
    seconds, _, fraction = text.partition(".")
    since = datetime.fromisoformat(seconds) - datetime(2000, 1, 1)  # all are UTC
    return (since.days * 86_400 + since.seconds) * 10**9 + int(fraction.ljust(9, "0"))
