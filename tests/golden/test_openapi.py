"""The HTTP API of a version keeps what those before it promised."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.golden.openapi import FOLDER, broken
from vecstore.server.openapi import document

VERSIONS = sorted(path.name for path in FOLDER.glob("openapi-*.json"))
ONE = "/v1/namespaces/{ns}"


@pytest.mark.parametrize("name", VERSIONS)
def test_the_api_has_lost_nothing_since_a_version(name: str) -> None:
    assert broken(json.loads((FOLDER / name).read_text()), document()) == []


def test_there_is_a_golden_document() -> None:
    assert "openapi-0.1.0.json" in VERSIONS


def _schemas(d: Any) -> Any:
    return d["components"]["schemas"]


def _operation(d: Any, path: str, method: str) -> Any:
    return d["paths"][f"{ONE}{path}"][method]


BREAKS: dict[str, Callable[[Any], object]] = {
    "is gone": lambda d: d["paths"].pop(f"{ONE}/restore"),
    "POST /v1/namespaces/{ns}/search is gone": lambda d: d["paths"][f"{ONE}/search"].pop("post"),
    "operationId changed": lambda d: _operation(d, "/search", "post").update(operationId="x"),
    "parameter query cursor is gone": lambda d: d["paths"]["/v1/namespaces"]["get"]["parameters"].pop(),
    "parameter query more is new and required": lambda d: d["paths"]["/v1/namespaces"]["get"][
        "parameters"
    ].append({"name": "more", "in": "query", "required": True, "schema": {}}),
    "answer 201 is gone": lambda d: _operation(d, "/parts", "post")["responses"].pop("201"),
    "header ETag of 201 is gone": lambda d: d["paths"]["/v1/namespaces"]["post"]["responses"]["201"].pop(
        "headers"
    ),
    "field dim is gone": lambda d: _schemas(d)["CreateNamespace"]["properties"].pop("dim"),
    "field schema is required now": lambda d: _schemas(d)["CreateNamespace"]["required"].append("schema"),
    "field incarnation is gone": lambda d: _schemas(d)["NamespaceInfo"]["properties"].pop("incarnation"),
    "field rows is not always there": lambda d: _schemas(d)["NamespaceInfo"]["required"].remove("rows"),
    "became ['string']": lambda d: _schemas(d)["NamespaceInfo"]["properties"]["rows"].update(type="string"),
    "values of": lambda d: _schemas(d)["NamespaceInfo"]["properties"]["metric"].update(enum=["l2"]),
    "maximum is 10 now": lambda d: d["paths"]["/v1/namespaces"]["get"]["parameters"][1]["schema"].update(
        maximum=10
    ),
    "pattern changed": lambda d: d["paths"][ONE]["parameters"][0]["schema"].update(pattern="^x$"),
}


@pytest.mark.parametrize("told", BREAKS)
def test_what_would_break_a_caller_is_told(told: str) -> None:
    changed = copy.deepcopy(document())
    BREAKS[told](changed)
    found = broken(document(), changed)
    assert found
    assert any(told in one for one in found), found


def test_additions_break_nobody() -> None:
    changed = copy.deepcopy(document())
    changed["paths"][f"{ONE}/new"] = {"get": {"operationId": "new", "responses": {}}}
    changed["paths"]["/v1/namespaces"]["get"]["parameters"].append(
        {"name": "more", "in": "query", "schema": {"type": "string"}}
    )
    _schemas(changed)["CreateNamespace"]["properties"]["more"] = {"type": "integer"}
    _schemas(changed)["NamespaceInfo"]["properties"]["more"] = {"type": "integer"}
    _schemas(changed)["NamespaceInfo"]["required"].append("more")
    _operation(changed, "/search", "post")["responses"]["202"] = {"description": "later"}
    assert broken(document(), changed) == []
