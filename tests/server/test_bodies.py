"""JSON of requests: what is too long is refused before objects are made of it."""

from __future__ import annotations

import gzip
import json
import random
import re
import tracemalloc
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from vecstore.api import Database
from vecstore.config import Config
from vecstore.errors import InvalidArgument, PayloadTooLarge
from vecstore.limits import MAX_AGGREGATES, MAX_BATCH_ROWS, MAX_DIM, MAX_GROUP_BY, MAX_NAMES, MAX_TOGETHER
from vecstore.server.app import create_app
from vecstore.server.requests import gunzip

NS = "/v1/namespaces/docs"
MANY = 1_200_000
ONES = b"1," * MANY + b"1"
EMPTY = b"[]," * MANY + b"[]"
TEXTS = b'"",' * MANY + b'""'
NAMES = b",".join(b'"%d":"int"' % i for i in range(MANY // 4))
PEAK = 24 << 20  # bytes; a list of so many objects takes more, whatever they are

LONG: list[tuple[str, str, bytes, str, int]] = [
    ("POST", "queries", b'{"queries":[' + b"{}," * MANY + b"{}]}", "queries", MAX_TOGETHER),
    ("POST", "queries", b'{"queries":[{"vector":[' + ONES + b"]}]}", "queries[0].vector", MAX_DIM),
    (
        "POST",
        "queries",
        b'{"queries":[{"aggregate_by":{"n":["Count"]},"group_by":[' + TEXTS + b"]}]}",
        "queries[0].group_by",
        MAX_GROUP_BY,
    ),
    ("POST", "search", b'{"vector":[' + ONES + b"]}", "vector", MAX_DIM),
    ("POST", "search", b'{"v\\u0065ctor":[' + ONES + b"]}", "vector", MAX_DIM),
    ("POST", "search", b'{"vectors":[' + EMPTY + b"]}", "vectors", MAX_BATCH_ROWS),
    ("POST", "search", b'{"vectors":[[1,2],[' + ONES + b"]]}", "vectors", MAX_DIM),
    ("POST", "search", b'{"vector":[1,2],"include":[' + TEXTS + b"]}", "include", MAX_NAMES),
    ("POST", "search", b'{"vector":[1,2],"exclude":[' + TEXTS + b"]}", "exclude", MAX_NAMES),
    ("POST", "search", b'{"include":[' + TEXTS + b"]}}", "body", 0),
    ("POST", "search", b"{" + b'"top_k":1,' * (MANY // 4) + b'"include":[]}', "body", 64),
    ("POST", "rows/scan", b'{"include":[' + TEXTS + b"]}", "include", MAX_NAMES),
    ("POST", "aggregate", b'{"aggregate_by":{' + NAMES + b"}}", "aggregate_by", MAX_AGGREGATES),
    ("POST", "aggregate", b'{"aggregate_by":{"n":[' + TEXTS + b"]}}", "aggregate_by", MAX_NAMES),
    (
        "POST",
        "aggregate",
        b'{"aggregate_by":{"n":["Count"]},"group_by":[' + TEXTS + b"]}",
        "group_by",
        MAX_GROUP_BY,
    ),
    ("POST", "parts", b'{"vectors":[' + EMPTY + b"]}", "vectors", MAX_BATCH_ROWS),
    ("POST", "parts", b'{"vectors":[[1,2]],"schema":{' + NAMES + b"}}", "schema", MAX_NAMES),
    ("PATCH", "", b'{"schema":{' + NAMES + b"}}", "schema", MAX_NAMES),
    ("POST", "recall", b'{"vectors":[' + EMPTY + b"]}", "vectors", MAX_BATCH_ROWS),
]


@pytest.fixture
def docs(database: Database) -> FlaskClient:
    database.create_namespace("docs", 2, "l2").insert([[1.0, 0.0]], ids=[1], attributes={"n": [1]})
    return create_app(database, Config()).test_client()


def refused(docs: FlaskClient, method: str, path: str, body: bytes) -> tuple[int, Any]:
    answer = docs.open(f"{NS}/{path}".rstrip("/"), method=method, data=body, content_type="application/json")
    return answer.status_code, answer.get_json()["details"]


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "limit"),
    LONG,
    ids=[f"{path} {field}" for _, path, _, field, _ in LONG],
)
def test_a_long_list_is_refused_before_objects_are_made_of_it(
    docs: FlaskClient, method: str, path: str, body: bytes, field: str, limit: int
) -> None:
    tracemalloc.start()
    try:
        status, details = refused(docs, method, path, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (status, details["field"], details.get("limit", 0)) == (400, field, limit)
    assert peak < PEAK


def test_a_long_body_of_a_type_is_decoded(docs: FlaskClient) -> None:
    blank = b" " * (1 << 19)
    body = b'{"vectors":[[1,2],[3,4]],%s"ids":[2,3],"attributes":{"n":[7,8]},"schema":{"n":"int"}}' % blank
    answer = docs.post(f"{NS}/parts", data=body, content_type="application/json")
    assert (answer.status_code, answer.get_json()["n"]) == (201, 2)
    body = b'{"queries":[%s{"vector":[1,2],"include":["n"]},{"aggregate_by":{"n":["Count"]}}]}' % blank
    answer = docs.post(f"{NS}/queries", data=body, content_type="application/json")
    results = answer.get_json()["results"]
    assert (results[0]["hits"][0]["id"], results[1]["aggregations"]) == (2, {"n": 3})
    body = b'{"vector":[1,2],%s"include":["n"]}' % blank
    answer = docs.post(f"{NS}/search", data=body, content_type="application/json")
    assert answer.get_json()["hits"][0]["attributes"] == {"n": 7}


def test_one_of_several_queries_is_named_where_it_is_wrong(docs: FlaskClient) -> None:
    body = json.dumps({"queries": [{"vector": [1, 2]}, {"vector": [1, 2], "top_k": 0}]}).encode()
    assert refused(docs, "POST", "queries", body) == (
        400,
        {"field": "queries[1].top_k", "limit": 1, "query": 1},
    )


@pytest.mark.parametrize(
    ("body", "position", "says"),
    [
        (b'{"ids":["\\ud800"]}', 9, "surrogate"),
        (b'{"filter":["a","Eq","\\\\\\uD800x"]}', 23, "surrogate"),
        (b'{"ids":["\\ud83d\\ude00","\\ud800"]}', 24, "surrogate"),
        (b'{"return_ids":true,"\xc3":1}', 20, "UTF-8"),
        (b'{"ids":[1,', 10, "truncated"),
        (b'{"ids":"\\ud8', 12, "truncated"),
        (b'{"ids":[1,}', 10, "malformed"),
    ],
)
def test_where_a_body_is_no_json_is_told(docs: FlaskClient, body: bytes, position: int, says: str) -> None:
    answer = docs.post(f"{NS}/deletes", data=body, content_type="application/json")
    told = answer.get_json()
    assert (answer.status_code, told["code"], told["details"]["position"]) == (400, "invalid_json", position)
    assert says in told["message"]


REFERENCE = re.compile(rb"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})(?!\\u[dD][c-fC-F])")
ENDS = [b"\\", b"\\\\", b"\\" * 601, b"\\ud800", b"\\uDBff", b"\\udc00", b"\\ud83d\\ude00"]
ENDS += [b'"', b"]", b"}", b"x", b"ud8"]


@pytest.mark.parametrize("seed", range(20))
def test_half_a_surrogate_pair_is_told_from_a_body_that_ends(docs: FlaskClient, seed: int) -> None:
    """As a look at all of it would tell, wherever msgspec names no byte."""
    rng = random.Random(seed)
    halves = 0
    for _ in range(100):
        pieces = rng.choices(ENDS, k=rng.randrange(1, 7))
        body = b'{"ids":["' + b"x" * rng.choice([0, 5_000]) + b"".join(pieces)
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
            continue
        except msgspec.DecodeError as error:
            if "byte" in str(error):
                continue
        told = docs.post(f"{NS}/deletes", data=body, content_type="application/json").get_json()
        half = REFERENCE.search(body)
        assert told["details"]["position"] == (len(body) if half is None else half.start(1)), body
        assert ("surrogate" in told["message"]) == (half is not None), body
        halves += half is not None
    assert halves


@pytest.mark.parametrize("character", ["ä", "€", "😀"])
@pytest.mark.parametrize("before", [0, 1, (1 << 20) - 2, (1 << 20) - 1, 1 << 20, (2 << 20) - 3])
def test_where_a_long_body_is_not_utf8_is_told(docs: FlaskClient, character: str, before: int) -> None:
    for bad, at in ((b"\xff", 0), (b"\xe2\x82x", 0), (b"\xf0\x9f", 0)):
        body = b'"' + b"x" * before + character.encode() * 3 + bad
        told = docs.post(f"{NS}/deletes", data=body, content_type="application/json").get_json()
        assert told["details"]["position"] == len(body) - len(bad) + at
        assert "UTF-8" in told["message"]


@pytest.mark.parametrize(
    "body",
    ["€" * 4_000_000, '"' + "x" * 12_000_000 + "😀", " " * 12_000_000],
    ids=["wide", "one wide", "blank"],
)
def test_a_body_that_is_no_json_is_looked_at_without_a_copy_of_it(docs: FlaskClient, body: str) -> None:
    data = body.encode()
    tracemalloc.start()
    try:
        status, _ = refused(docs, "POST", "search", data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert status == 400
    assert peak < len(data) + PEAK // 2


def test_a_body_is_inflated_once() -> None:
    data = b"[1]," * 4_000_000
    packed = gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])
    tracemalloc.start()
    try:
        assert gunzip(packed, len(data)) == data
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * len(data)
    with pytest.raises(PayloadTooLarge):
        gunzip(packed, len(data) - 1)


def test_members_of_gzip_are_one_body_wherever_they_end() -> None:
    rng = random.Random(1)
    texts = [rng.randbytes(rng.choice([0, 1, 100, 4_050, 4_096, 10_000])) for _ in range(200)]
    packed = b"".join(map(gzip.compress, texts))
    assert gunzip(packed, 1 << 20) == b"".join(texts)
    for cut in (1, 8, 9, 30):
        with pytest.raises(InvalidArgument, match="truncated"):
            gunzip(packed[:-cut], 1 << 20)
    with pytest.raises(InvalidArgument, match="gzip"):
        gunzip(packed + b"more", 1 << 20)


LONG = "n" * 300_000


@pytest.mark.parametrize(
    "body",
    [
        {LONG: 1},
        {"vector": [1, 1], LONG: 1},
        {"vector": [1, 1], "include": [LONG]},
        {"vector": [1, 1], "exclude": [LONG]},
        {"vector": [1, 1], "filter": [LONG, "Eq", 1]},
        {"order_by": [LONG, "asc"]},
        {"vector": [1, 1], "consistency": LONG},
        {"id": LONG},
    ],
    ids=["alone", "beside others", "include", "exclude", "a filter", "an order", "a choice", "an id"],
)
def test_names_are_echoed_in_part_where_they_are_long(docs: FlaskClient, body: Any) -> None:
    response = docs.post("/v1/namespaces/docs/search", json=body)
    assert response.status_code == 400
    assert len(response.data) < 20_000
    assert set(response.json or {}) == {"code", "message", "details"}
