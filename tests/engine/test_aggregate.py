"""Aggregates, held against computing them row by row."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.core import CODED, RangeStore, clustered, database, generator
from tests.index.test_ordered import fill
from tests.rows.filters.oracle import TYPES, matches, random_filter
from vecstore.api import Database
from vecstore.errors import InvalidArgument
from vecstore.rows import aggregates, allowance
from vecstore.storage.memory import MemoryStore
from vecstore.types import Aggregates

DIM = 4
SCALARS = [name for name, kind in TYPES.items() if not kind.startswith("[]")]
NUMBERS = ["i", "u", "f"]


def expected(rows: list[dict[str, Any]], function: str, name: str | None) -> Any:
    if name is None:
        return len(rows)
    values = [row[name] for row in rows if row[name] is not None]
    if function == "Count":
        return len(values)
    if function == "CountDistinct":
        return len(set(values))
    if function == "Sum":
        return sum(values)
    if not values:
        return None
    if function == "Avg":
        return float(sum(map(Fraction, values)) / len(values))
    order = (lambda value: value.encode()) if isinstance(values[0], str) else None
    return (min if function == "Min" else max)(values, key=order)


def grouped(rows: list[dict[str, Any]], names: list[str]) -> list[tuple[tuple[Any, ...], list[Any]]]:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)

    def place(item: tuple[tuple[Any, ...], list[Any]]) -> list[tuple[bool, Any]]:
        return [(v is None, v.encode() if isinstance(v, str) else v) for v in item[0]]

    return sorted(groups.items(), key=place)


@pytest.fixture(params=[MemoryStore, RangeStore])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    with database(request.param()) as db:
        yield db


@pytest.mark.parametrize("filterable", [True, False])
def test_results_equal_those_of_every_row_one_by_one(
    db: Database, filterable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(3)
    ids = list(range(0, 1_200, 2))
    rng.shuffle(ids)
    ns = db.create_namespace("docs", DIM, "l2", **CODED)
    schema = {} if filterable else {n: {"type": TYPES[n], "filterable": False} for n in SCALARS}
    rows = fill(ns, rng, ids, 3, **schema)
    monkeypatch.setattr(aggregates, "STEP", 150)  # as of a part that has more rows than are taken at once
    asked = {
        "rows": ["Count"],
        **{f"{name} {f}": [f, name] for name in SCALARS for f in ("Count", "CountDistinct", "Min", "Max")},
    }
    sums = {f"{name} {f}": [f, name] for name in NUMBERS for f in ("Sum", "Avg")}
    del sums["f Sum"]  # beyond what a float can hold, of these values
    for case in range(40):
        f = random_filter(rng, ids) if filterable and case else None
        wanted = [row for row in rows.values() if f is None or matches(f, row)]
        names = rng.sample(SCALARS, k=case % 4)
        some = dict(rng.sample(sorted({**asked, **sums}.items()), k=12))
        found = ns.aggregate(some, group_by=names, filter=f)
        if not names:
            assert found.groups is None
            assert found.values == {
                label: expected(wanted, one[0], one[1] if len(one) > 1 else None)
                for label, one in some.items()
            }
            continue
        assert found.values is None
        assert found.groups == [
            dict(zip(names, keys, strict=True))
            | {label: expected(mine, one[0], one[1] if len(one) > 1 else None) for label, one in some.items()}
            for keys, mine in grouped(wanted, names)
        ]


def test_sums_of_integers_do_not_overflow(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    n = 3_000
    ns.insert(
        clustered(generator(1), n, DIM),
        attributes={"i": [-(2**63)] * n, "u": [2**64 - 1] * n, "g": [i % 2 for i in range(n)]},
    )
    asked = {"i": ["Sum", "i"], "u": ["Sum", "u"], "mean": ["Avg", "u"]}
    assert ns.aggregate(asked).values == {
        "i": -n * 2**63,
        "u": n * (2**64 - 1),
        "mean": float(2**64 - 1),
    }
    found = ns.aggregate(asked, group_by=["g"]).groups
    assert found is not None
    assert [group["u"] for group in found] == [n // 2 * (2**64 - 1)] * 2


@pytest.mark.parametrize("seed", range(5))
def test_sums_of_floats_are_exact_whatever_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 2_000
    values = rng.standard_normal(n) * 10.0 ** rng.integers(-300, 300, size=n)
    values[:4] = [5e-324, -5e-324, -0.0, 2.2e-308]
    groups = rng.integers(5, size=n)
    asked = {"sum": ["Sum", "v"], "mean": ["Avg", "v"]}
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2", **CODED)
        for some in np.array_split(rng.permutation(n), 3):
            ns.insert(
                clustered(generator(1), len(some), DIM),
                ids=some,
                attributes={"v": values[some], "g": groups[some]},
            )
        for _ in range(2):  # in three parts, and then in one
            found = ns.aggregate(asked).values
            assert found is not None
            assert found["sum"] == math.fsum(values)
            assert found["mean"] == float(sum(map(Fraction, values.tolist())) / n)
            told = ns.aggregate(asked, group_by=["g"]).groups
            assert told is not None
            assert [group["sum"] for group in told] == [math.fsum(values[groups == g]) for g in range(5)]
            ns.compact()


def test_a_sum_beyond_a_float_is_refused_and_its_mean_is_not() -> None:
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2")
        ns.insert(clustered(generator(1), 3, DIM), attributes={"v": [1.5e308, 1.5e308, 1.5e308]})
        assert ns.aggregate({"mean": ["Avg", "v"]}).values == {"mean": 1.5e308}
        with pytest.raises(InvalidArgument) as refused:
            ns.aggregate({"total": ["Sum", "v"]})
        assert refused.value.details["at"] == "aggregate_by.total"


def test_groups_and_distinct_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregates, "MAX_GROUPS", 50)
    monkeypatch.setattr(aggregates, "MAX_DISTINCT", 200)
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2")
        for start in (0, 50):
            values = list(range(start, start + 50))
            names = [f"name {value}" for value in values]
            ns.insert(clustered(generator(1), 50, DIM), ids=values, attributes={"n": values, "s": names})
        first = ns.aggregate({"n": ["Count"]}, group_by=["s"], filter=["n", "Lt", 50]).groups
        assert first is not None
        assert len(first) == 50
        for names in (["n"], ["s", "n"]):
            with pytest.raises(InvalidArgument) as refused:
                ns.aggregate({"c": ["Count"]}, group_by=names)
            assert (refused.value.details["field"], refused.value.details["limit"]) == ("group_by", 50)
        more = list(range(100, 250))
        ns.insert(
            clustered(generator(1), 150, DIM),
            ids=more,
            attributes={"n": more, "s": [f"name {value}" for value in more]},
        )
        for name in ("n", "s"):
            assert ns.aggregate({"d": ["CountDistinct", name]}, filter=["n", "Lt", 200]).values == {"d": 200}
            with pytest.raises(InvalidArgument) as refused:
                ns.aggregate({"d": ["CountDistinct", name]})
            assert refused.value.details["limit"] == 200


PAYLOAD = {"body": {"type": "string", "filterable": False}, "name": "string"}


def long_texts(n: int, size: int) -> list[str]:
    """As many different ones, which no compression makes short."""
    rng = random.Random(5)
    return [f"{rng.getrandbits(4 * size):0{size}x}" for _ in range(n)]


@pytest.mark.parametrize("store", [MemoryStore, RangeStore])
@pytest.mark.parametrize(
    ("given", "share"),  # of all texts; half as much are pages in the cache, where parts cannot be mapped
    [(["Count", "body"], 0.05), (["CountDistinct", "body"], 0.8), (["Min", "body"], 0.8)],
)
def test_the_memory_of_long_texts_does_not_grow_with_their_rows(
    store: Any, given: list[str], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, size = 2_000, 16_384
    monkeypatch.setattr(aggregates, "VALUE_BYTES", n * size // 16)
    with database(store()) as db:
        ns = db.create_namespace("docs", DIM, "l2", schema=PAYLOAD)
        bodies = long_texts(n, size)
        ns.insert(clustered(generator(1), n, DIM), attributes={"body": bodies})
        del bodies
        ns.aggregate({"rows": ["Count"]})
        tracemalloc.start()
        try:
            ns.aggregate({"one": given})
            assert tracemalloc.get_traced_memory()[1] < share * n * size
        finally:
            tracemalloc.stop()


def group_bytes(*names: str) -> int:
    """Bytes of a group that tells a value under each of these names, without its texts."""
    return sum(len(json.dumps(name, ensure_ascii=False).encode()) + aggregates.RESULT_BYTES for name in names)


def test_texts_of_an_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    n, size = 60, 2_000
    bodies = long_texts(n, size)
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2", schema=PAYLOAD)
        ns.insert(
            clustered(generator(1), n, DIM),
            attributes={"body": bodies, "name": bodies, "n": list(range(n))},
        )
        asked: list[tuple[dict[str, list[str]], list[str], str]] = [
            ({"c": ["Count"]}, ["body"], "group_by"),
            ({"c": ["Count"]}, ["name"], "group_by"),
            ({"c": ["Min", "body"]}, ["n"], "aggregate_by"),
            ({"c": ["Max", "name"]}, ["n"], "aggregate_by"),
        ]
        for by, groups, field in asked:
            limit = n * (size + group_bytes(*by, *groups))
            monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", limit)
            found = ns.aggregate(by, group_by=groups).groups
            assert found is not None
            assert len(found) == n
            monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", limit - 1)
            with pytest.raises(InvalidArgument) as refused:
                ns.aggregate(by, group_by=groups)
            assert (refused.value.details["field"], refused.value.details["limit"]) == (field, limit - 1)
        # What is counted is held for as long as it takes, and no longer.
        distinct: dict[str, Any] = {"aggregate_by": {"d": ["CountDistinct", "body"]}}
        monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", n * aggregates.NAMED)
        told = ns.multi_query([distinct, distinct])
        assert [one.values for one in told if isinstance(one, Aggregates)] == [{"d": n}, {"d": n}]
        with pytest.raises(InvalidArgument, match="aggregate_by"):
            ns.aggregate({"d": ["CountDistinct", "body"], "e": ["CountDistinct", "name"]})


@pytest.mark.parametrize("label", ["x", "x" * 128, "ä" * 64, '"' * 128, "\\" * 128])
def test_groups_of_an_answer_are_bounded_with_their_labels(
    label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all queries of a request together, and at least by what they take as JSON."""
    n = 60
    labels = [f"{label[:-2]}{i:02d}"[-128:] for i in range(32)]
    one: dict[str, Any] = {"aggregate_by": {name: ["Count"] for name in labels}, "group_by": ["n"]}
    size = n * group_bytes(*labels, "n")
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2")
        ns.insert(clustered(generator(1), n, DIM), attributes={"n": list(range(n))})
        monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", 3 * size)
        found = ns.multi_query([one] * 3)
        groups = [group.groups for group in found if isinstance(group, Aggregates)]
        assert len(groups) == 3
        assert len(json.dumps(groups, ensure_ascii=False).encode()) < 3 * size
        monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", 3 * size - 1)
        with pytest.raises(InvalidArgument) as refused:
            ns.multi_query([one] * 3)
        assert refused.value.details == {"field": "group_by", "limit": 3 * size - 1, "query": 2}
        monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", size - 1)
        with pytest.raises(InvalidArgument, match="group_by"):
            ns.aggregate(**one)


def test_long_texts_are_distinct_by_all_of_their_bytes() -> None:
    same = "x" * 40_000
    texts = [same, f"{same}1", f"{same}2", same, "x" * 32, "x" * 33]
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2", schema=PAYLOAD)
        ns.insert(clustered(generator(1), len(texts), DIM), attributes={"body": texts})
        assert ns.aggregate({"d": ["CountDistinct", "body"]}).values == {"d": 5}


def test_an_empty_namespace_has_aggregates() -> None:
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2", schema={"i": "int", "f": "float", "s": "string"})
        asked = {
            "rows": ["Count"],
            "sum": ["Sum", "i"],
            "total": ["Sum", "f"],
            "mean": ["Avg", "i"],
            "least": ["Min", "s"],
            "distinct": ["CountDistinct", "s"],
        }
        empty = {"rows": 0, "sum": 0, "total": 0.0, "mean": None, "least": None, "distinct": 0}
        assert ns.aggregate(asked).values == empty
        assert ns.aggregate(asked, group_by=["s"]).groups == []
        ns.insert(clustered(generator(1), 2, DIM), ids=[1, 2])
        assert ns.aggregate(asked).values == {**empty, "rows": 2}
        assert ns.aggregate({"rows": ["Count"]}, group_by=["s", "i"]).groups == [
            {"s": None, "i": None, "rows": 2}
        ]
