"""Filters as JSON, to the rows that they match, on sound stores: an answer, or an error of the caller's."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tests.fuzz import json_edits
from tests.fuzz.dice import Dice
from tests.fuzz.exercise import FILTERS, Unthreaded
from tests.fuzz.worlds import NS, world
from vecstore.api import Database, Namespace
from vecstore.errors import InvalidArgument
from vecstore.storage.memory import MemoryStore

WORLDS = ("coded", "strings", "small", "one")
OPERATORS = (
    "Eq", "NotEq", "In", "NotIn", "Lt", "Lte", "Gt", "Gte", "Contains", "NotContains", "ContainsAny",
    "NotContainsAny", "AnyLt", "AnyLte", "AnyGt", "AnyGte", "Glob", "NotGlob", "IGlob", "NotIGlob", "Regex",
)  # fmt: skip
NAMES = (
    "n",
    "u",
    "year",
    "score",
    "flag",
    "word",
    "text",
    "body",
    "at",
    "who",
    "tags",
    "sizes",
    "id",
    "none",
)
VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2**63, -(2**63), 2**64 - 1, 2**64, 0.5, -0.0, 1e308, "", "word 3", "t1", "\u0000",
    "2300-01-02", "2300-01-01T00:00:00.000Z", "00000000-0000-0000-0000-000000000001", [], [1, None],
    ["t1", "t2"], [[1]], {}, {"$ref_new": "n"},
)  # fmt: skip


@cache
def _namespace(name: str) -> Namespace:
    store = MemoryStore("fuzz", clock=lambda: 1_700_000_100.0)
    for key, data in world(name).objects.items():
        store.put_if_absent(key, data)
    return Namespace(Database(Unthreaded(store, threads=1)).backend, NS)


def filters(data: bytes) -> None:
    dice = Dice(data)
    name = dice.of(WORLDS)
    asked = _made(dice, 0) if dice.below(2) else json.loads(json.dumps(dice.of(FILTERS)))
    for _ in range(dice.below(3)):
        if isinstance(asked, list | dict):
            json_edits.edit(asked, dice)
    ns, q = _namespace(name), world(name).queries[0]
    try:
        if dice.below(2):
            ns.search(q, 400, filter=asked, include=["n"] if name != "one" else [])
        else:
            ns.aggregate({"n": ["Count"]}, filter=asked)
    except InvalidArgument:
        return


def _made(dice: Dice, depth: int) -> Any:
    kind = dice.below(8)
    if depth < 6 and kind == 0:
        return ["Not", _made(dice, depth + 1)]
    if depth < 6 and kind < 3:
        return [dice.of(("And", "Or")), [_made(dice, depth + 1) for _ in range(dice.below(4))]]
    operator = dice.of(OPERATORS)
    value: Any
    if operator in ("Glob", "NotGlob", "IGlob", "NotIGlob", "Regex") or kind == 7:
        value = dice.take(dice.below(16)).decode("utf-8", "replace")
    elif operator.endswith(("In", "Any")):
        value = [dice.of(VALUES) for _ in range(dice.below(4))]
    else:
        value = dice.of(VALUES)
    return [dice.of(NAMES), operator, value]
