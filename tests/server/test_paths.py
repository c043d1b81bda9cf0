"""What paths name, and errors of layers in front of Flask."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient

from vecstore.errors import TooManyRequests
from vecstore.server.paths import FAILED, namespace_of


@pytest.mark.parametrize(
    ("path", "namespace"),
    [
        ("/v1/namespaces/docs", "docs"),
        ("/v1/namespaces/docs/search", "docs"),
        ("/v1/namespaces/a.b-c_d/rows/x/y", "a.b-c_d"),
        ("/v1/namespaces/docs/rows/a\nb", "docs"),
        ("/v1/namespaces/", None),
        ("/v1/namespaces", None),
        ("/v1/namespaces/-docs", None),
        ("/v1/namespaces/a b/search", None),
        ("/v1/namespaces/" + "a" * 200, None),
        ("/healthz", None),
    ],
)
def test_a_path_names_a_namespace_or_none(path: str, namespace: str | None) -> None:
    assert namespace_of(path) == namespace


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/healthz"), ("POST", "/v1/namespaces/docs/search"), ("GET", "/nowhere"), ("PUT", "/healthz")],
)
def test_an_error_from_in_front_of_flask_is_worded_like_all_others(
    client: FlaskClient, method: str, path: str
) -> None:
    error = TooManyRequests("too much", limit=3)
    answer = client.open(path, method=method, environ_overrides={FAILED: error})
    assert answer.status_code == 429
    assert json.loads(answer.data) == {"code": error.code, "message": "too much", "details": {"limit": 3}}
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", ["//healthz", "//v1/namespaces", "///v1/namespaces/docs"])
def test_a_path_that_begins_with_slashes_is_no_other_path(client: FlaskClient, path: str) -> None:
    """werkzeug strips them, while layers in front of it, and proxies, judge the path as it came."""
    assert client.post("/v1/namespaces", json={"name": "docs", "dim": 2}).status_code == 201
    assert client.get("/" + path.lstrip("/")).status_code == 200
    answer = client.get("/", environ_overrides={"PATH_INFO": path})
    assert (answer.status_code, answer.json["code"]) == (404, "route_not_found")  # type: ignore[index]


@pytest.mark.parametrize("path", ["rows/\xff", "rows/a\xe2\x82", "tags/\xff", "\xff"])
def test_a_path_that_is_not_utf8_is_no_other_path(client: FlaskClient, path: str) -> None:
    """werkzeug reads other bytes as U+FFFD, which an id may be."""
    assert client.post("/v1/namespaces", json={"name": "docs", "dim": 2}).status_code == 201
    body = {"vectors": [[1, 2], [2, 1]], "ids": ["\ufffd", "a\ufffd"]}
    assert client.post("/v1/namespaces/docs/parts", json=body).status_code == 201
    assert client.get("/v1/namespaces/docs/rows/%EF%BF%BD").status_code == 200
    answer = client.get("/", environ_overrides={"PATH_INFO": f"/v1/namespaces/docs/{path}"})
    assert (answer.status_code, answer.json["details"]) == (400, {"field": "path"})  # type: ignore[index]
