"""Searches of other kinds, aggregates and several queries as they cross HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from vecstore.api import Database
from vecstore.rows import allowance

DOCS = "/v1/namespaces/docs"
ROWS = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


@pytest.fixture
def docs(client: FlaskClient, database: Database) -> FlaskClient:
    ns = database.create_namespace("docs", 2, "l2")
    ns.insert(
        ROWS, ids=[1, 2, 3], attributes={"n": [3, 1, None], "big": [2**63 - 1] * 3, "tags": [["a"]] * 3}
    )
    return client


def post(client: FlaskClient, path: str, body: Any) -> tuple[int, Any]:
    answer = client.post(f"{DOCS}/{path}", json=body)
    return answer.status_code, answer.get_json()


def test_a_hit_in_an_order_has_no_distance(docs: FlaskClient) -> None:
    status, body = post(docs, "search", {"order_by": ["n", "asc"], "include": ["n"]})
    assert status == 200
    assert body["hits"] == [
        {"id": 2, "attributes": {"n": 1}},
        {"id": 1, "attributes": {"n": 3}},
        {"id": 3, "attributes": {"n": None}},
    ]


def test_a_stored_row_is_asked_for_by_its_id(docs: FlaskClient) -> None:
    assert post(docs, "search", {"id": 1, "top_k": 1})[1]["hits"] == [{"id": 3, "distance": 1.0}]
    status, body = post(docs, "search", {"id": 9})
    assert (status, body["code"], body["details"]["id"]) == (404, "row_not_found", 9)


def test_the_greatest_distance_is_a_parameter_of_get_too(docs: FlaskClient) -> None:
    answer = docs.get(f"{DOCS}/search", query_string={"vector": "[1, 0]", "max_distance": "1.5"})
    assert [hit["id"] for hit in answer.get_json()["hits"]] == [1, 3]
    answer = docs.get(f"{DOCS}/search", query_string={"vector": "[1, 0]", "max_distance": "nan"})
    assert (answer.status_code, answer.get_json()["details"]["field"]) == (400, "max_distance")


def test_a_filter_of_get_may_be_null(docs: FlaskClient) -> None:
    answer = docs.get(f"{DOCS}/search", query_string={"vector": "[1, 0]", "filter": "null"})
    assert len(answer.get_json()["hits"]) == 3


def test_aggregates_have_the_shape_that_is_documented(docs: FlaskClient) -> None:
    asked = {"n": ["Count"], "sum": ["Sum", "big"]}
    status, body = post(docs, "aggregate", {"aggregate_by": asked})
    assert (status, body["aggregations"]) == (200, {"n": 3, "sum": 3 * (2**63 - 1)})
    asked = {"rows": ["Count"], "sum": ["Sum", "big"]}
    status, body = post(
        docs, "aggregate", {"aggregate_by": asked, "group_by": ["n"], "filter": ["n", "NotEq", 3]}
    )
    assert status == 200
    assert body["aggregation_groups"] == [
        {"n": 1, "rows": 1, "sum": 2**63 - 1},
        {"n": None, "rows": 1, "sum": 2**63 - 1},
    ]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("search", {}, "vector"),
        ("search", {"vector": [1, 0], "id": 1}, "vector"),
        ("search", {"vectors": ROWS, "id": 1}, "vector"),
        ("search", {"vectors": ROWS, "order_by": ["n", "asc"]}, "vector"),
        ("search", {"vector": [1, 0], "order_by": ["n", "asc"]}, "vector"),
        ("search", {"order_by": ["n", "up"]}, "order_by[1]"),
        ("search", {"order_by": ["n"]}, "order_by"),
        ("search", {"order_by": ["tags", "asc"]}, "order_by"),
        ("search", {"order_by": ["n", "asc"], "max_distance": 1}, "max_distance"),
        ("search", {"order_by": ["n", "asc"], "limit_per_group": ["n", 1]}, "limit_per_group"),
        ("search", {"vector": [1, 0], "max_distance": "1"}, "max_distance"),
        ("search", {"vector": [1, 0], "limit_per_group": ["n", 0]}, "limit_per_group[1]"),
        ("search", {"vector": [1, 0], "limit_per_group": ["tags", 1]}, "limit_per_group"),
        ("search", {"vector": [1, 0], "include_self": 1}, "include_self"),
        ("search", {"id": -1}, "id"),
        ("search", {"id": "a"}, "id"),
        ("search", {"id": 1.5}, "id"),
        ("aggregate", {}, "aggregate_by"),
        ("aggregate", {"aggregate_by": {}}, "aggregate_by"),
        ("aggregate", {"aggregate_by": {"x": ["Count"]}, "top_k": 1}, "top_k"),
        ("aggregate", {"aggregate_by": {"x": ["Sum", "tags"]}}, "aggregate_by"),
        ("aggregate", {"aggregate_by": {"x": ["Count"]}, "group_by": ["tags"]}, "group_by"),
        ("aggregate", {"aggregate_by": {"n": ["Count"]}, "group_by": ["n"]}, "group_by"),
        ("aggregate", {"aggregate_by": {"x": ["Count"]}, "group_by": "n"}, "group_by"),
        ("queries", {}, "queries"),
        ("queries", {"queries": []}, "queries"),
        ("queries", {"queries": [{"id": 1}] * 65}, "queries"),
        ("queries", {"queries": [{"vectors": ROWS}]}, "queries[0].vectors"),
        ("queries", {"queries": [{"id": 1, "epoch": 1}]}, "epoch"),
        ("queries", {"queries": [{"id": 1, "group_by": ["n"]}]}, "group_by"),
        ("queries", {"queries": [{"aggregate_by": {"x": ["Count"]}, "id": 1}]}, "id"),
        ("queries", {"queries": [{"aggregate_by": {"x": ["Count"]}, "vector": [1, 0]}]}, "vector"),
        ("queries", {"queries": [{"id": 1, "top_k": 0}]}, "queries[0].top_k"),
    ],
)
def test_what_is_wrong_is_named(docs: FlaskClient, path: str, body: Any, field: str) -> None:
    status, told = post(docs, path, body)
    assert (status, told["details"]["field"]) == (400, field)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("search", {"vector": [1, 1], "include": ["n"]}, {"field": "include"}),
        ("aggregate", {"aggregate_by": {"d": ["CountDistinct", "s"]}}, {"field": "aggregate_by"}),
        (
            "queries",
            {"queries": [{"vector": [1, 1]}, {"order_by": ["n", "asc"], "include": ["n"]}]},
            {"field": "include", "query": 1},
        ),
    ],
)
def test_an_answer_with_too_many_bytes_of_attributes_is_refused(
    docs: FlaskClient, database: Database, path: str, body: Any, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.namespace("docs").insert(ROWS, ids=[4, 5, 6], attributes={"s": ["a", "b", "c"]})
    monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", 100)
    status, refused = post(docs, path, body)
    assert (status, refused["code"]) == (400, "invalid_argument")
    assert refused["details"] == {**told, "limit": 100}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("search", {"vector": [1, 1], "top_k": 4}),
        ("search", {"id": 1, "top_k": 4}),
        ("search", {"vectors": [[1, 1], [0, 1]], "top_k": 2}),
        ("queries", {"queries": [{"vector": [1, 1], "top_k": 2}, {"order_by": ["n", "asc"], "top_k": 2}]}),
    ],
    ids=["a vector", "an id", "vectors", "queries"],
)
def test_an_answer_with_too_many_vectors_is_refused(
    docs: FlaskClient, path: str, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in body.get("queries", [body]):
        one["include"] = ["vector"]
    limit = 4 * 2 * allowance.NUMBER_BYTES
    monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", limit)
    assert post(docs, path, body)[0] == 200
    monkeypatch.setattr(allowance, "MAX_ANSWER_BYTES", limit - 1)
    status, refused = post(docs, path, body)
    assert (status, refused["code"]) == (400, "invalid_argument")
    assert refused["details"] == {"field": "top_k", "limit": 3}
