"""Scans over HTTP: the shape of an answer, and cursors that are none."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
import pytest
from flask.testing import FlaskClient

from vecstore.limits import MAX_U64

SCAN = "/v1/namespaces/docs/rows/scan"


@pytest.fixture
def filled(client: FlaskClient) -> FlaskClient:
    assert client.post("/v1/namespaces", json={"name": "docs", "dim": 2, "metric": "l2"}).status_code == 201
    body = {"vectors": [[0.5, 1], [2, 3], [4, 5]], "ids": [1, 2, 3], "attributes": {"n": [7, None, 9]}}
    assert client.post("/v1/namespaces/docs/parts", json=body).status_code == 201
    return client


def test_a_page_has_rows_types_epoch_and_a_cursor(filled: FlaskClient) -> None:
    page = filled.post(SCAN, json={"limit": 2, "include": ["vector", "n"]})
    assert page.status_code == 200
    body = page.get_json()
    cursor = body.pop("next_cursor")
    assert body == {
        "rows": [
            {"id": 1, "attributes": {"n": 7}, "vector": [0.5, 1.0]},
            {"id": 2, "attributes": {"n": None}, "vector": [2.0, 3.0]},
        ],
        "types": {"n": "int"},
        "epoch": 2,
    }
    rest = filled.post(SCAN, json={"cursor": cursor, "include": ["vector"], "vector_encoding": "base64"})
    packed = base64.b64encode(np.array([4, 5], dtype="<f4").tobytes()).decode()
    assert rest.get_json() == {
        "rows": [{"id": 3, "vector": packed}],
        "types": {},
        "epoch": 2,
        "next_cursor": None,
    }
    assert page.headers["ETag"] == rest.headers["ETag"]


def test_no_body_asks_for_everything_and_a_row_may_be_called_scan(filled: FlaskClient) -> None:
    assert [row["id"] for row in filled.post(SCAN).get_json()["rows"]] == [1, 2, 3]
    assert filled.get(SCAN).get_json()["code"] in ("row_not_found", "invalid_id")
    client = filled
    client.post("/v1/namespaces", json={"name": "named", "dim": 1, "metric": "l2"})
    client.post("/v1/namespaces/named/parts", json={"vectors": [[1]], "ids": ["scan"]})
    assert client.get("/v1/namespaces/named/rows/scan").get_json()["id"] == "scan"
    assert client.post("/v1/namespaces/named/rows/scan").get_json()["rows"] == [{"id": "scan"}]


def encoded(*values: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def test_a_cursor_is_held_to_what_it_can_be(filled: FlaskClient) -> None:
    page = filled.post(SCAN, json={"limit": 1}).get_json()
    good = page["next_cursor"]
    name, epoch, order, digest, place = msgspec.json.decode(base64.urlsafe_b64decode(good + "==="))
    assert (epoch, order, digest, place) == (2, "id", "", 2)
    bad = {
        "": "cursor",
        "%%%": "cursor",
        good + "A": "cursor",
        good[:-3]: "cursor",
        good + "=": "cursor",
        "A" * 257: "cursor",
        encoded(): "cursor",
        encoded(name, epoch, order, digest): "cursor",
        encoded(name, epoch, order, digest, -1): "cursor",
        encoded(name, epoch, order, digest, MAX_U64 + 1): "cursor",
        encoded(name, epoch, order, digest, "2"): "cursor",
        encoded(name, epoch, "name", digest, place): "cursor",
        encoded(name, 0, order, digest, place): "cursor",
        encoded(name, 99, order, digest, place): "epoch",
        encoded(name, epoch, order, "0123456789abcdef", place): "filter",
    }
    for cursor, field in bad.items():
        answer = filled.post(SCAN, json={"cursor": cursor})
        assert answer.status_code == 400, cursor
        assert answer.get_json()["details"]["field"] == field, cursor
    gone = filled.post(SCAN, json={"cursor": encoded("another", epoch, order, digest, place)})
    assert (gone.status_code, gone.get_json()["code"]) == (410, "snapshot_expired")
    for more, field in (({"epoch": 1}, "epoch"), ({"order": "stored"}, "order")):
        answer = filled.post(SCAN, json={"cursor": good, **more})
        assert (answer.status_code, answer.get_json()["details"]["field"]) == (400, field)
    for place in (0, 3, MAX_U64):  # whatever it says, it is only a place
        rows = filled.post(SCAN, json={"cursor": encoded(name, epoch, order, digest, place)}).get_json()[
            "rows"
        ]
        assert [row["id"] for row in rows] == [i for i in (1, 2, 3) if i >= place]
    far = encoded(name, epoch, "stored", digest, MAX_U64)
    assert filled.post(SCAN, json={"cursor": far}).get_json()["rows"] == []
