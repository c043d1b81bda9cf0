"""A search that is answered before Flask cannot be told from one that Flask answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from tests.server.conftest import MAX_BODY
from vecstore.errors import StorageRetryable
from vecstore.server import wire

DOCS = "/v1/namespaces/docs"
SEARCH = f"{DOCS}/search"
THROUGH_FLASK = "application/json; charset=utf-8"  # a media type that the shortcut leaves to Flask
ENGINE = "vecstore.engine.database.EmbeddedDatabase.search"


@pytest.fixture
def docs(client: FlaskClient) -> FlaskClient:
    client.post("/v1/namespaces", json={"name": "docs", "dim": 2, "metric": "l2"})
    client.post(f"{DOCS}/parts", json={"vectors": [[0, 0], [3, 4]], "ids": [1, 2**64 - 1]})
    return client


def post(client: FlaskClient, body: Any, content_type: str = "application/json", **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"X-Request-Id": "one", **headers}  # else each answer has an id of its own
    return client.post(SEARCH, data=data, content_type=content_type, headers=headers)


@pytest.mark.parametrize(
    "body",
    [
        {"vector": [3, 4]},
        {"vector": [3.25, -4e-3], "top_k": 1},
        {"vector": "AABAQAAAgEA=", "include": ["vector"]},
        {"vector": [0, 0], "top_k": 2, "epoch": 2, "nprobe": 1, "rerank_precision": "fp32"},
        {"vector": [1e-320, 1e-50], "consistency": "eventual", "max_staleness": 0},
        b'{"top_k": 1, "vector": "AABAQAAAgEA\\u003d"}',
        b' {"vector": [9, 9], "vector": [3, 4]} ',
    ],
    ids=str,
)
def test_the_answer_is_that_of_flask_to_the_letter(
    docs: FlaskClient, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = post(docs, body, THROUGH_FLASK)
    monkeypatch.setattr(Flask, "request_context", None)  # nothing gets through Flask any more
    here = post(docs, body)
    assert (here.status, here.get_data()) == (there.status, there.get_data())
    assert sorted(here.headers) == sorted(there.headers)
    assert here.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"vector": [1, 2, 3]},
        {"vector": []},
        {"vector": [1e39, 0]},
        {"vector": [0, None]},
        {"vector": "AAAA"},
        {"vector": "AACAPwAA*IA="},
        {"vector": [0, 0], "top_k": 0},
        {"vector": [0, 0], "top_k": 10_001},
        {"vector": [0, 0], "epoch": 99},
        {"vector": [0, 0], "colour": "red"},
        {"vector": [0, 0], "vectors": [[0, 0]]},
        b"",
        b'{"vector": [0, 0]',
        b'{"vector": [0, 1e999]}',
        b'{"vector": [0, NaN]}',
        b'{"vector": "\xff"}',
        b"[" * 100_000,
        b" " * (MAX_BODY + 1),
    ],
    ids=lambda body: str(body)[:40],
)
def test_a_refusal_is_that_of_flask_to_the_letter(docs: FlaskClient, body: Any) -> None:
    here, there = post(docs, body), post(docs, body, THROUGH_FLASK)
    assert (here.status, here.get_data()) == (there.status, there.get_data())
    assert sorted(here.headers) == sorted(there.headers)
    assert 400 <= here.status_code < 500


@pytest.mark.parametrize("name", ["nothing", "n" * 129, "-x", "a b", "docs%0a", "docs/x"])
def test_a_name_that_is_none_is_refused_as_flask_does(docs: FlaskClient, name: str) -> None:
    answers = [
        docs.post(f"/v1/namespaces/{name}/search", data=b'{"vector": [0, 0]}', content_type=kind)
        for kind in ("application/json", THROUGH_FLASK)
    ]
    assert len({(answer.status, answer.get_data()) for answer in answers}) == 1
    assert answers[0].status_code in (400, 404)


def test_a_search_that_fails_is_tried_once_and_answered_by_the_handlers_of_errors(
    docs: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def down(*arguments: object) -> None:
        tries.append(arguments)
        raise StorageRetryable("the store does not answer")

    monkeypatch.setattr(ENGINE, down)
    answer = post(docs, {"vector": [0, 0]}, **{"X-Request-Id": "abc"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.get_json()["details"]["request_id"] == "abc"
    assert len(tries) == 1


def test_an_unexpected_failure_is_a_500_and_in_the_log(
    docs: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("the engine's secret")

    monkeypatch.setattr(ENGINE, broken)
    answer = post(docs, {"vector": [0, 0]}, **{"X-Request-Id": "abc"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "abc")
    assert b"secret" not in answer.get_data()
    assert "ZeroDivisionError: the engine's secret" in caplog.text


def test_bodies_beyond_the_shortcut_are_searched_too(docs: FlaskClient) -> None:
    body = b'{"vector": [0, 0]}'
    for size in (256 << 10, (256 << 10) + 1):
        answer = post(docs, body + b" " * (size - len(body)))
        assert answer.get_json()["hits"][0]["id"] == 1


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70), min_size=1))
def test_numbers_become_float32_as_numpy_rounds_them(values: list[float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(values, dtype=np.float64).astype(np.float32)
    raw = wire.vector(json.dumps(values).encode())
    assert raw.dtype == np.float32
    assert raw.tobytes() == expected.tobytes()
    plain = wire.plain_search(json.dumps({"vector": values}).encode())
    assert plain is not None
    assert plain[0].tobytes() == expected.tobytes()
