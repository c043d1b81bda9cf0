"""Rows in the order of an attribute, held against sorting them one by one."""

from __future__ import annotations

import functools
import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.core import CODED, RangeStore, clustered, database, generator
from tests.rows.filters.oracle import TYPES, matches, random_filter, random_rows
from vecstore.api import Database, Namespace
from vecstore.errors import InvalidArgument
from vecstore.rows import order
from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore
from vecstore.types import Hits

DIM = 4
SCALARS = [name for name, kind in TYPES.items() if not kind.startswith("[]")]
Rows = dict[Any, dict[str, Any]]


def first(rows: Rows, name: str, direction: str, k: int, f: list[Any] | None = None) -> list[Any]:
    """Ids in an order, by Python's own comparisons."""

    def before(one: Any, other: Any) -> int:
        a, b = rows[one][name], rows[other][name]
        if (a is None) != (b is None):
            return 1 if a is None else -1
        if isinstance(a, str):
            a, b = a.encode(), b.encode()
        if a is not None and a != b:
            return (1 if a > b else -1) * (1 if direction == "asc" else -1)
        return (one > other) - (one < other)

    wanted = [i for i in rows if f is None or matches(f, rows[i])]
    return sorted(wanted, key=functools.cmp_to_key(before))[:k]


def fill(ns: Namespace, rng: random.Random, ids: list[Any], parts: int, **schema: Any) -> Rows:
    """Random rows in some parts, a few of them deleted and some written anew."""
    rows: Rows = {}
    for some in np.array_split(np.array(ids, dtype=object), parts):
        mine = random_rows(rng, len(some))
        vectors = clustered(generator(rng.randrange(1_000)), len(some), DIM)
        ns.insert(vectors, ids=some.tolist(), attributes=mine, schema={**TYPES, **schema})
        rows |= {i: {**row, "id": i} for i, row in zip(some.tolist(), mine, strict=True)}
    gone = rng.sample(ids, len(ids) // 10)
    ns.delete(gone)
    return {i: row for i, row in rows.items() if i not in gone}


@pytest.fixture(params=[MemoryStore, RangeStore])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    with database(request.param()) as db:
        yield db


@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize("filterable", [True, False])
def test_rows_come_as_if_they_were_sorted_one_by_one(db: Database, strings: bool, filterable: bool) -> None:
    rng = random.Random(7 + strings)
    ids = [f"row {i}" for i in range(700)] if strings else list(range(0, 2_100, 3))
    rng.shuffle(ids)
    ns = db.create_namespace("docs", DIM, "l2", **CODED)
    schema = {} if filterable else {n: {"type": TYPES[n], "filterable": False} for n in SCALARS}
    rows = fill(ns, rng, ids, 3, **schema)
    for name in [*SCALARS, "id"]:
        for direction in ("asc", "desc"):
            for k in (1, 20, 1_000):
                found = ns.search(order_by=[name, direction], top_k=k)
                assert found.ids.tolist() == first(rows, name, direction, k), (name, direction, k)
    if not filterable:
        return
    for _ in range(60):
        f = random_filter(rng, ids)
        name, direction, k = rng.choice([*SCALARS, "id"]), rng.choice(["asc", "desc"]), rng.choice([1, 5, 50])
        found = ns.search(order_by=[name, direction], top_k=k, filter=f)
        assert found.ids.tolist() == first(rows, name, direction, k, f), (name, direction, k, f)


@pytest.mark.parametrize("values", ["many", "some", "few", "zeros"])
def test_an_index_is_read_from_its_ends(db: Database, values: str) -> None:
    """Of enough rows that it is worth it, in each form that an index has, dead rows among them."""
    n, rng = 20_000, generator(2)
    found = {
        "many": rng.permutation(n),
        "some": rng.integers(n // 5, size=n),
        "few": rng.integers(20, size=n),
        "zeros": rng.choice([-0.0, 0.0, 1.0, -1.0], size=n),
    }[values]
    ns = db.create_namespace("docs", DIM, "l2", **CODED)
    ids = rng.permutation(n)
    ns.insert(clustered(rng, n, DIM), ids=ids, attributes={"v": found, "half": ids % 2})
    ns.delete(ids[np.argsort(found, kind="stable")[:50]].tolist())
    alive = np.isin(ids, ids[np.argsort(found, kind="stable")[50:]])
    for direction, sign in (("asc", 1), ("desc", -1)):
        for f, mask in ((None, alive), (["half", "Eq", 1], alive & (ids % 2 == 1))):
            expected = ids[mask][np.lexsort((ids[mask], sign * found[mask]))][:40]
            hits = ns.search(order_by=["v", direction], top_k=40, filter=f)
            assert hits.ids.tolist() == expected.tolist()


def test_parts_that_can_bring_nothing_are_left_out() -> None:
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2", **CODED)
        for start in (200, 0, 100):
            values = list(range(start, start + 100))
            ns.insert(clustered(generator(1), 100, DIM), ids=values, attributes={"n": values})
        for direction, read in (("asc", [False, True, False]), ("desc", [True, False, False])):
            hits = ns.search(order_by=["n", direction], top_k=10, debug=True)
            assert [part["read"] for part in told(hits)["parts"]] == read
        hits = ns.search(order_by=["id", "asc"], top_k=150, debug=True)
        assert hits.ids.tolist() == list(range(150))
        assert [part["read"] for part in told(hits)["parts"]] == [False, True, True]


def told(hits: Hits) -> dict[str, Any]:
    assert hits.debug is not None
    return hits.debug


@pytest.mark.parametrize("store", [MemoryStore, RangeStore])
def test_equal_values_at_the_end_of_one_part_do_not_hide_those_of_another(store: type[ObjectStore]) -> None:
    with database(store()) as db:
        ns = db.create_namespace("docs", DIM, "l2", **CODED)
        ns.insert(clustered(generator(1), 40, DIM), ids=range(100, 140), attributes={"n": [1] * 40})
        ns.insert(clustered(generator(1), 40, DIM), ids=range(40), attributes={"n": [1, 2] * 20})
        hits = ns.search(order_by=["n", "asc"], top_k=25)
        assert hits.ids.tolist() == [*range(0, 40, 2), *range(100, 105)]


def test_an_empty_namespace_has_no_first_row() -> None:
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2", schema={"n": "int", "a": "[]int"})
        assert len(ns.search(order_by=["n", "asc"])) == 0
        assert len(ns.search(order_by=["id", "asc"])) == 0
        ns.insert(clustered(generator(1), 3, DIM), ids=[3, 1, 2])
        assert ns.search(order_by=["n", "asc"]).ids.tolist() == [1, 2, 3]
        for name in ("nothing", "a"):
            with pytest.raises(InvalidArgument) as refused:
                ns.search(order_by=[name, "asc"])
            assert refused.value.details["field"] == "order_by"


def test_the_memory_of_long_texts_does_not_grow_with_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    n, size = 1_000, 16_384
    monkeypatch.setattr(order, "VALUE_BYTES", n * size // 20)
    rng = random.Random(6)
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2", schema={"body": {"type": "string", "filterable": False}})
        texts = [f"{rng.getrandbits(4 * size):0{size}x}" for _ in range(n)]
        for i in range(0, n, 50):  # equal but for their ends, and equal
            texts[i : i + 3] = [f"{'0' * size}b", f"{'0' * size}a", f"{'0' * size}a"]
        ns.insert(clustered(generator(2), n, DIM), range(n), attributes={"body": texts})
        assert ns.get(0).attributes["body"] == texts[0]  # which opens the part
        for way in ("asc", "desc"):
            wanted = sorted(range(n), key=lambda i: texts[i], reverse=way == "desc")[:50]
            tracemalloc.start()
            try:
                hits = ns.search(order_by=["body", way], top_k=50)
                assert tracemalloc.get_traced_memory()[1] < n * size / 3
            finally:
                tracemalloc.stop()
            assert hits.ids.tolist() == wanted
