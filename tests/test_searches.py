"""Kinds of searches through the public API, embedded and over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import vecstore
from tests.core import CODED, EXACT, clustered, database, distances, generator
from vecstore.api import Database, Namespace
from vecstore.engine import namespace as namespace_module
from vecstore.errors import InvalidArgument, InvalidId, RowNotFound
from vecstore.rows import allowance
from vecstore.types import Aggregates, Hits

DIM = 8
N = 400
ROWS = clustered(generator(5), N, DIM)
METRICS = ["cosine", "l2", "dot"]


def filled(db: Database, metric: str = "l2") -> Namespace:
    """`ROWS` in two parts, one of them coded, with some attributes."""
    ns = db.create_namespace("docs", DIM, metric, **CODED)  # type: ignore[arg-type]
    half = N // 2
    attributes = {"n": list(range(N)), "even": [i % 2 == 0 for i in range(N)]}
    for some in (slice(0, half), slice(half, N)):
        ns.insert(
            ROWS[some],
            ids=np.arange(N)[some],
            attributes={name: values[some] for name, values in attributes.items()},
        )
    return ns


# -- at most so far -------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_hits_beyond_the_greatest_distance_are_left_out(db: Database, metric: str) -> None:
    ns = filled(db, metric)
    for q in ROWS[:5] + 0.1:
        every = ns.search(q, top_k=50, **EXACT)
        limit = float(every.distances[20])
        within = ns.search(q, top_k=50, max_distance=limit, **EXACT)
        expected = [hit.id for hit in every if hit.distance <= limit]
        assert within.ids.tolist() == expected
        assert len(expected) >= 21
        assert ns.search(q, top_k=5, max_distance=limit, **EXACT).ids.tolist() == expected[:5]
        below = float(every.distances[0]) - 1e-3
        assert len(ns.search(q, max_distance=below, include=["vector", "n"], **EXACT)) == 0


@pytest.mark.parametrize("include", [[], ["n"]])
def test_a_batch_keeps_to_the_greatest_distance(db: Database, include: list[str]) -> None:
    ns = filled(db)
    queries = ROWS[:6] + 0.1
    limit = float(np.median(distances(ROWS, queries, "l2")) / 4)
    found = ns.search_batch(queries, top_k=30, max_distance=limit, include=include, **EXACT)
    for i, q in enumerate(queries):
        one = ns.search(q, top_k=30, max_distance=limit, include=include, **EXACT)
        assert found[i].ids.tolist() == one.ids.tolist()
        assert found[i].attributes == one.attributes
        assert (found.distances[i, found.counts[i] :] == np.inf).all()
        assert (found.ids[i, found.counts[i] :] == 0).all()
    assert 0 < found.counts.sum() < 180


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "1", True])
def test_the_greatest_distance_is_a_number(db: Database, wrong: object) -> None:
    ns = filled(db)
    with pytest.raises(InvalidArgument) as refused:
        ns.search(ROWS[0], max_distance=wrong)  # type: ignore[arg-type]
    assert refused.value.details["field"] == "max_distance"


# -- by a stored row ------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_a_stored_row_is_a_query_and_no_hit_of_itself(db: Database, metric: str) -> None:
    ns = filled(db, metric)
    for i in (0, 7, N - 1):
        every = ns.search(ROWS[i], top_k=21, **EXACT)
        others = [hit.id for hit in every if hit.id != i][:20]
        assert ns.search(id=i, top_k=20, **EXACT).ids.tolist() == others
        assert ns.search(id=i, top_k=21, include_self=True, **EXACT).ids.tolist() == every.ids.tolist()
        odd = ns.search(id=i, top_k=5, filter=["even", "Eq", False], include=["n"], **EXACT)
        expected = [one for one in ns.search(ROWS[i], top_k=N, **EXACT).ids.tolist() if one % 2 and one != i]
        assert [hit.attributes["n"] for hit in odd] == expected[:5]


def test_a_copy_of_the_row_is_a_hit(db: Database) -> None:
    ns = filled(db)
    ns.insert(ROWS[3:4], ids=[1_000])
    assert ns.search(id=3, top_k=1).ids.tolist() == [1_000]
    assert ns.search(id=1_000, top_k=1).ids.tolist() == [3]


def test_string_ids_are_queries_too(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:3], ids=["a", "b", "c"])
    assert set(ns.search(id="b").ids.tolist()) == {"a", "c"}
    with pytest.raises(InvalidId):
        ns.search(id=1)


def test_a_row_that_is_not_there_is_no_query(db: Database) -> None:
    ns = filled(db)
    ns.delete([5])
    for absent in (5, 10_000):
        with pytest.raises(RowNotFound):
            ns.search(id=absent)
    with pytest.raises(InvalidArgument, match="one of a vector, an id and order_by"):
        ns.search(ROWS[0], id=1)
    with pytest.raises(InvalidArgument, match="one of a vector, an id and order_by"):
        ns.search()


def test_without_vectors_a_stored_row_is_no_query(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", store_vectors="none")
    ns.insert(ROWS, ids=np.arange(N))
    with pytest.raises(InvalidArgument, match="keeps no vectors") as refused:
        ns.search(id=1)
    assert refused.value.details["field"] == "id"


# -- in the order of an attribute -----------------------------------------------------------


def test_rows_come_in_the_order_of_an_attribute(db: Database) -> None:
    ns = filled(db)
    ns.insert(ROWS[:1], ids=[1_000])  # without any attribute
    hits = ns.search(order_by=["n", "desc"], top_k=3, include=["n", "vector"])
    assert [(hit.id, hit.distance, hit.attributes) for hit in hits] == [
        (i, None, {"n": i}) for i in (N - 1, N - 2, N - 3)
    ]
    assert np.isnan(hits.distances).all()
    assert hits.vectors is not None
    np.testing.assert_array_equal(hits.vectors, ROWS[[N - 1, N - 2, N - 3]])
    odd = ns.search(order_by=["n", "asc"], top_k=N, filter=["even", "NotEq", True], exclude=["even"])
    assert odd.ids.tolist() == [*range(1, N, 2), 1_000]
    assert odd[-1].attributes == {"n": None}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"order_by": ["n", "up"]}, "order_by"),
        ({"order_by": ["n"]}, "order_by"),
        ({"order_by": "n"}, "order_by"),
        ({"order_by": [1, "asc"]}, "order_by"),
        ({"order_by": ["missing", "asc"]}, "order_by"),
        ({"order_by": ["n", "asc"], "max_distance": 1.0}, "max_distance"),
        ({"order_by": ["n", "asc"], "vector": ROWS[0]}, "vector"),
        ({"order_by": ["n", "asc"], "id": 1}, "vector"),
    ],
)
def test_an_order_that_is_none_is_refused(db: Database, options: dict[str, Any], field: str) -> None:
    ns = filled(db)
    with pytest.raises(InvalidArgument) as refused:
        ns.search(**options)
    assert refused.value.details["field"] == field


def test_a_batch_has_no_order(db: Database) -> None:
    ns = filled(db)
    with pytest.raises(InvalidArgument, match="not both"):
        ns.search_batch(ROWS[:2], order_by=["n", "asc"])


# -- aggregates -----------------------------------------------------------------------------


def test_rows_are_counted_and_added_up(db: Database) -> None:
    ns = filled(db)
    ns.insert(ROWS[:1], ids=[1_000])  # without any attribute
    asked = {"rows": ["Count"], "values": ["Count", "n"], "sum": ["Sum", "n"], "mean": ["Avg", "n"]}
    assert ns.aggregate(asked).values == {
        "rows": N + 1,
        "values": N,
        "sum": N * (N - 1) // 2,
        "mean": (N - 1) / 2,
    }
    asked = {"rows": ["Count"], "least": ["Min", "n"], "most": ["Max", "n"], "some": ["CountDistinct", "n"]}
    found = ns.aggregate(asked, group_by=["even"], filter=["n", "NotEq", 0])
    assert found.groups == [
        {"even": False, "rows": N // 2, "least": 1, "most": N - 1, "some": N // 2},
        {"even": True, "rows": N // 2 - 1, "least": 2, "most": N - 2, "some": N // 2 - 1},
        {"even": None, "rows": 1, "least": None, "most": None, "some": 0},
    ]
    before = ns.stats().epoch
    ns.delete([5])
    assert ns.aggregate({"n": ["Count"]}).values == {"n": N}
    past = ns.aggregate({"n": ["Count"]}, epoch=before)
    assert (past.values, past.epoch) == ({"n": N + 1}, before)


@pytest.mark.parametrize(
    ("aggregate_by", "options", "field", "at"),
    [
        ({}, {}, "aggregate_by", None),
        ({"": ["Count"]}, {}, "aggregate_by", None),
        ({f"label {i}": ["Count"] for i in range(33)}, {}, "aggregate_by", None),
        ({"a\x01b": ["Count"]}, {}, "aggregate_by", None),
        ({"\u202e": ["Count"]}, {}, "aggregate_by", None),
        ({"x": []}, {}, "aggregate_by", "aggregate_by.x"),
        ({"x": ["Median", "n"]}, {}, "aggregate_by", "aggregate_by.x"),
        ({"x": ["Sum"]}, {}, "aggregate_by", "aggregate_by.x"),
        ({"x": ["Sum", "n", "n"]}, {}, "aggregate_by", "aggregate_by.x"),
        ({"x": ["Sum", "even"]}, {}, "aggregate_by", "aggregate_by.x"),
        ({"x": ["Min", "missing"]}, {}, "aggregate_by", "aggregate_by.x"),
        ({"x": ["Max", "tags"]}, {}, "aggregate_by", "aggregate_by.x"),
        ({"x": ["Count"]}, {"group_by": ["missing"]}, "group_by", "group_by"),
        ({"x": ["Count"]}, {"group_by": ["tags"]}, "group_by", "group_by"),
        ({"x": ["Count"]}, {"group_by": ["n", "n"]}, "group_by", None),
        ({"n": ["Count"]}, {"group_by": ["n"]}, "group_by", None),
        ({"x": ["Count"]}, {"group_by": [f"n{i}" for i in range(9)]}, "group_by", None),
        ({"x": ["Count"]}, {"filter": ["n", "Eq"]}, "filter", "filter[0]"),
        ({"x": ["Count"]}, {"epoch": 0}, "epoch", None),
        ({"x": ["Count"]}, {"max_staleness": -1}, "max_staleness", None),
        ({"x": ["Count"]}, {"consistency": "weak"}, "consistency", None),
    ],
)
def test_aggregates_that_are_none_are_refused(
    db: Database, aggregate_by: Any, options: Any, field: str, at: str | None
) -> None:
    ns = filled(db)
    ns.insert(ROWS[:1], ids=[1_000], attributes={"tags": [["a"]]})
    with pytest.raises(InvalidArgument) as refused:
        ns.aggregate(aggregate_by, **options)
    assert refused.value.details["field"] == field
    assert refused.value.details.get("at") == at


# -- at most so many of a group -------------------------------------------------------------


def test_at_most_so_many_hits_have_the_same_value(db: Database) -> None:
    ns = filled(db)
    hits = ns.search(ROWS[0], top_k=6, limit_per_group=("even", 2), include=["even"], **EXACT)
    order = np.argsort(distances(ROWS, ROWS[0], "l2")[0], kind="stable").tolist()
    expected = [[i for i in order if i % 2 == odd][:2] for odd in (0, 1)]
    assert sorted(hits.ids.tolist()) == sorted(expected[0] + expected[1])
    assert (np.diff(hits.distances) >= 0).all()
    batch = ns.search_batch(ROWS[:2], top_k=6, limit_per_group=("even", 2), **EXACT)
    assert batch.counts.tolist() == [4, 4]
    assert batch[0].ids.tolist() == hits.ids.tolist()
    with pytest.raises(InvalidArgument) as refused:
        ns.search(order_by=["n", "asc"], limit_per_group=("even", 2))
    assert refused.value.details["field"] == "limit_per_group"
    with pytest.raises(InvalidArgument) as refused:
        ns.search(ROWS[0], limit_per_group=("even", 0))
    assert refused.value.details["field"].startswith("limit_per_group")


# -- several queries ------------------------------------------------------------------------


def test_several_queries_are_answered_from_one_epoch(db: Database) -> None:
    ns = filled(db)
    epoch = ns.stats().epoch
    queries: list[dict[str, Any]] = [
        {"vector": ROWS[1], "top_k": 3, "include": ["n"], **EXACT},
        {"id": 5, "filter": ["even", "Eq", True], "max_distance": 1e9, "include": ["vector"], **EXACT},
        {"order_by": ["n", "desc"], "top_k": 2, "exclude": ["even"]},
        {"aggregate_by": {"n": ["Count"]}, "group_by": ["even"]},
        {"aggregate_by": {"n": ["Sum", "n"]}, "filter": ["n", "Lt", 4]},
        {"vector": ROWS[2], "limit_per_group": ["even", 1], "debug": True},
    ]
    near, like, ordered, groups, total, limited = ns.multi_query(queries)
    assert isinstance(near, Hits)
    assert near.ids.tolist() == ns.search(ROWS[1], top_k=3, **EXACT).ids.tolist()
    assert near[0].attributes == {"n": 1}
    assert isinstance(like, Hits)
    assert like.ids.tolist() == ns.search(id=5, filter=["even", "Eq", True], **EXACT).ids.tolist()
    assert like.vectors is not None
    assert isinstance(ordered, Hits)
    assert [hit.attributes for hit in ordered] == [{"n": N - 1}, {"n": N - 2}]
    assert isinstance(groups, Aggregates)
    assert groups.groups == [{"even": False, "n": N // 2}, {"even": True, "n": N // 2}]
    assert isinstance(total, Aggregates)
    assert total.values == {"n": 6}
    assert isinstance(limited, Hits)
    assert len(limited) == 2
    assert limited.debug is not None
    assert {one.epoch for one in (near, like, ordered, groups, total, limited)} == {epoch}
    ns.delete(range(0, N, 2))
    (now,) = ns.multi_query([{"aggregate_by": {"n": ["Count"]}}])
    (then,) = ns.multi_query([{"aggregate_by": {"n": ["Count"]}}], epoch=epoch)
    assert isinstance(now, Aggregates)
    assert isinstance(then, Aggregates)
    assert (now.values, then.values) == ({"n": N // 2}, {"n": N})


def test_a_write_between_two_queries_of_a_request_is_seen_by_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    with vecstore.connect("memory://", maintenance="off") as db:
        ns = filled(db)
        original = namespace_module.aggregate

        def with_a_delete(*args: Any) -> Any:
            ns.delete([7])
            return original(*args)

        monkeypatch.setattr(namespace_module, "aggregate", with_a_delete)
        counted, hits = ns.multi_query([{"aggregate_by": {"n": ["Count"]}}, {"vector": ROWS[7], "top_k": 1}])
        assert isinstance(counted, Aggregates)
        assert counted.values == {"n": N}
        assert isinstance(hits, Hits)
        assert hits.ids.tolist() == [7]
        assert counted.epoch == hits.epoch < ns.stats().epoch


@pytest.mark.parametrize(
    ("queries", "field", "query"),
    [
        ([], "queries", None),
        ([{"vector": ROWS[0]}] * 65, "queries", None),
        ([{"vector": ROWS[0]}, {"vector": ROWS[0], "epoch": 1}], "epoch", 1),
        ([{"vector": ROWS[0]}, {}], "vector", 1),
        ([{"vector": ROWS[0], "id": 1}], "vector", 0),
        ([{"vector": ROWS[0], "top_k": 0}], "top_k", 0),
        ([{"vector": ROWS[0]}, {"vector": ROWS[0], "include": ["missing"]}], "include", 1),
        ([{"vector": ROWS[0], "filter": ["missing", "Eq", 1]}], "filter", 0),
        ([{"vector": ROWS[0][:3]}], "vector", 0),
        ([{"id": "x"}], "id", 0),
        ([{"aggregate_by": {"n": ["Sum"]}}], "aggregate_by", 0),
        ([{"aggregate_by": {"n": ["Count"]}}, {"aggregate_by": {"n": ["Min", "x"]}}], "aggregate_by", 1),
        ([{"aggregate_by": {"n": ["Count"]}, "top_k": 5}], "top_k", 0),
        ([{"order_by": ["missing", "asc"]}], "order_by", 0),
    ],
)
def test_a_query_of_several_that_is_wrong_is_named(
    db: Database, queries: Any, field: str, query: int | None
) -> None:
    ns = filled(db)
    with pytest.raises(InvalidArgument) as refused:
        ns.multi_query(queries)
    assert refused.value.details["field"] == field
    assert refused.value.details.get("query") == query


def test_a_row_that_is_absent_is_named_among_several(db: Database) -> None:
    ns = filled(db)
    with pytest.raises(RowNotFound) as refused:
        ns.multi_query([{"vector": ROWS[0]}, {"id": 10_000}])
    assert refused.value.details["query"] == 1


def test_vectors_of_an_answer_are_bounded_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``top_k`` of all queries of a request together, whatever their kind."""
    n = 40
    limit = n * DIM * allowance.NUMBER_BYTES
    asked: list[dict[str, Any]] = [
        {"vector": ROWS[0], "top_k": n, "include": ["vector"]},
        {"id": 3, "top_k": n, "include": ["vector"]},
        {"order_by": ["id", "asc"], "top_k": n, "include": ["vector"]},
    ]
    with database() as embedded:
        ns = filled(embedded)
        reads: list[Callable[[], Any]] = [
            *(partial(ns.search, **one) for one in asked),
            lambda: ns.search_batch(ROWS[:4], top_k=n // 4, include=["vector"]),
            lambda: ns.search_batch(ROWS[:4], top_k=n // 4, include=["vector"], debug=True),
            lambda: ns.multi_query([*({**one, "top_k": n // 2} for one in asked[:2]), {"vector": ROWS[1]}]),
        ]
        for read in reads:
            monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", limit)
            read()
            monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", limit - 1)
            with pytest.raises(InvalidArgument, match=str(n - 1)) as refused:
                read()
            assert refused.value.details == {"field": "top_k", "limit": n - 1}


def test_vectors_and_attributes_of_an_answer_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with database() as embedded:
        ns = filled(embedded)
        monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", 20 * DIM * allowance.NUMBER_BYTES)
        for include in (["n"], ["vector"]):
            assert len(ns.search(ROWS[0], top_k=20, include=include)) == 20
        with pytest.raises(InvalidArgument, match="include"):
            ns.search(ROWS[0], top_k=20, include=["vector", "n"])


def test_attributes_of_an_answer_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all hits of a request together, whatever their kind."""
    n, size = 400, 1_000
    with database() as embedded:
        ns = embedded.create_namespace("docs", DIM, "l2")
        body = {"body": {"type": "string", "filterable": False}}
        ns.insert(ROWS[:n], range(n), attributes={"body": ["é" * (size // 2)] * n}, schema=body)
        limit = n * (size + 64)
        asked: list[dict[str, Any]] = [
            {"vector": ROWS[0], "top_k": n, "include": ["body"]},
            {"id": 3, "include_self": True, "top_k": n, "exclude": []},
            {"order_by": ["id", "asc"], "top_k": n, "include": ["body"]},
        ]
        reads: list[Callable[[], Any]] = [
            *(partial(ns.search, **one) for one in asked),
            lambda: ns.search_batch(ROWS[:4], top_k=n // 4, include=["body"]),
            lambda: ns.multi_query([{**one, "top_k": n // 2} for one in asked[:2]]),
        ]
        for read in reads:
            monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", limit)
            read()
            monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", limit - 1)
            with pytest.raises(InvalidArgument) as refused:
                read()
            assert (refused.value.details["field"], refused.value.details["limit"]) == ("include", limit - 1)
