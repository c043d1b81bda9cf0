"""Every bad filter, schema and value is a 4xx that names the place, and changes nothing (issue row 11)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from flask.testing import FlaskClient

from vecstore.limits import (
    MAX_ARRAY_ELEMENTS,
    MAX_ATTRIBUTES,
    MAX_FILTER_DEPTH,
    MAX_FILTER_NODES,
    MAX_FILTER_VALUES,
    MAX_FILTERABLE_BYTES,
    MAX_PATTERN_BYTES,
    MAX_PATTERN_INSTRUCTIONS,
)

DOCS = "/v1/namespaces/docs"
ROW = [1.0, 0.0, 0.0]
SCHEMA = {
    "lang": "string",
    "year": "int",
    "size": "uint",
    "score": "float",
    "good": "bool",
    "at": "datetime",
    "key": "uuid",
    "tags": "[]string",
    "body": {"type": "string", "filterable": False},
}


@dataclass(frozen=True)
class Bad:
    """What is sent where, and what must be said: ``place`` of a filter, attribute and row of a value."""

    name: str
    path: str
    body: dict[str, Any]
    status: int
    code: str
    told: dict[str, Any]
    method: str = "POST"

    def __str__(self) -> str:
        return self.name


def asked(name: str, f: Any, at: str, *, status: int = 400, **told: Any) -> Bad:
    code = "invalid_filter" if status == 400 else "filter_mismatch"
    body = {"vector": ROW, "filter": f}
    return Bad(name, "search", body, status, code, {"field": "filter", "at": at} | told)


def unfit(name: str, f: Any, at: str) -> Bad:
    return asked(name, f, at, status=422)


def written(
    name: str, attributes: Any, code: str = "schema_conflict", schema: Any = None, **told: Any
) -> Bad:
    body: dict[str, Any] = {"vectors": [ROW, ROW], "ids": [1, 2], "attributes": attributes}
    if schema is not None:
        body["schema"] = schema
    status = 422 if code == "schema_conflict" else 400
    return Bad(name, "parts", body, status, code, told)


def declared(name: str, schema: Any, code: str = "invalid_attribute", **told: Any) -> Bad:
    status = 422 if code == "schema_conflict" else 400
    return Bad(name, "", {"schema": schema}, status, code, told, "PATCH")


def deep(levels: int) -> Any:
    found: Any = ["year", "Eq", 1]
    for _ in range(levels):
        found = ["Not", found]
    return found


def patched(name: str, body: dict[str, Any], code: str = "invalid_attribute", **told: Any) -> Bad:
    status = 422 if code in ("schema_conflict", "filter_mismatch") else 400
    return Bad(name, "patches", {"ids": [0], "attributes": {"year": [2]}} | body, status, code, told)


def conditional(name: str, condition: Any, at: str, code: str = "invalid_filter") -> Bad:
    return patched(name, {"condition": condition}, code, field="condition", at=at)


EN = ["lang", "Eq", "en"]
NEWER = ["year", "Lt", {"$ref_new": "year"}]
BAD_VALUES = "invalid_attribute"

CASES = [
    # filters that are none
    asked("a filter that is an object", {"lang": "en"}, "filter"),
    asked("a filter that is text", "lang", "filter"),
    asked("an empty filter", [], "filter"),
    asked("a filter of four", [*EN, 1], "filter"),
    asked("an unknown connective", ["Xor", [EN]], "filter[0]"),
    asked("And of nothing", ["And", []], "filter[1]"),
    asked("And of no list", ["And", "lang"], "filter[1]"),
    asked("Or with something that is no filter", ["Or", [EN, 5]], "filter[1][1]"),
    asked("Not of a list of filters", ["Not", [EN]], "filter[1]"),
    asked("an attribute that is a number", [5, "Eq", 1], "filter[0]"),
    asked("an attribute without a name", ["", "Eq", 1], "filter[0]"),
    asked("an attribute with a long name", ["x" * 129, "Eq", 1], "filter[0]"),
    asked("an unknown operator", ["And", [EN, ["year", "Equals", 1]]], "filter[1][1][1]"),
    asked("an operator that is a list", ["year", ["Eq"], 1], "filter[1]"),
    asked("a value that is an object", ["Or", [["Not", ["year", "Eq", {}]]]], "filter[1][0][1][2]"),
    asked("In without a list", ["year", "In", 5], "filter[2]"),
    asked("In with a list in its list", ["year", "In", [1, [2]]], "filter[2][1]"),
    asked("a range of null", ["year", "Lt", None], "filter[2]"),
    asked("Contains of null", ["tags", "Contains", None], "filter[2]"),
    asked("a glob that is a number", ["lang", "Glob", 5], "filter[2]"),
    asked("a glob that does not end its set", ["And", [EN, ["lang", "Glob", "[a"]]], "filter[1][1][2]"),
    asked("an expression that does not close", ["Not", ["lang", "Regex", "(a"]], "filter[1][2]"),
    asked("an expression with a look behind", ["lang", "Regex", "(?<=a)b"], "filter[2]"),
    asked("a back reference", ["lang", "Regex", r"(a)\1"], "filter[2]"),
    asked("a pattern too long", ["lang", "Glob", "a" * (MAX_PATTERN_BYTES + 1)], "filter[2]"),
    asked("a pattern that takes too much memory", ["lang", "Regex", "((a{100}){100}){100}"], "filter[2]"),
    asked("a pattern that RE2 has no room for", ["lang", "Regex", r"\pL{100}"], "filter[2]",
          limit=MAX_PATTERN_INSTRUCTIONS),
    asked("a pattern of too many instructions", ["Or", [EN, ["lang", "Regex", "((.a|.b){1,500}){2}z"]]],
          "filter[1][1][2]", limit=MAX_PATTERN_INSTRUCTIONS),
    asked("a glob of too many instructions", ["lang", "NotGlob", "?" * 1_000], "filter[2]",
          limit=MAX_PATTERN_INSTRUCTIONS),
    asked("nested too deeply", deep(MAX_FILTER_DEPTH), "filter" + "[1]" * MAX_FILTER_DEPTH),
    asked("too many conditions", ["And", [EN] * MAX_FILTER_NODES], f"filter[1][{MAX_FILTER_NODES - 1}]"),
    asked("too many values", ["year", "In", [1] * (MAX_FILTER_VALUES + 1)],
          f"filter[2][{MAX_FILTER_VALUES}]"),
    # filters that do not fit the schema
    unfit("an attribute that is not there", ["And", [EN, ["colour", "Eq", "red"]]], "filter[1][1][0]"),
    unfit("an attribute that is not filterable", ["body", "Eq", "x"], "filter[0]"),
    unfit("text for an int", ["year", "Eq", "2020"], "filter[2]"),
    unfit("half a year", ["year", "Gte", 2020.5], "filter[2]"),
    unfit("an int too large", ["year", "Lt", 2**63], "filter[2]"),
    unfit("a negative uint", ["size", "Eq", -1], "filter[2]"),
    unfit("a bool for an int", ["year", "In", [1, True]], "filter[2][1]"),
    unfit("a number for a string", ["lang", "NotEq", 1], "filter[2]"),
    unfit("a number for a datetime", ["at", "Lt", 5], "filter[2]"),
    unfit("no date", ["at", "Lt", "soon"], "filter[2]"),
    unfit("no UUID", ["key", "Eq", "x"], "filter[2]"),
    unfit("an order of bools", ["good", "Lt", True], "filter[1]"),
    unfit("Eq of an array", ["tags", "Eq", "a"], "filter[1]"),
    unfit("Contains of what is no array", ["lang", "Contains", "e"], "filter[1]"),
    unfit("a glob of an int", ["year", "Glob", "20*"], "filter[1]"),
    unfit("an id of the other kind", ["id", "Eq", "a"], "filter[2]"),
    unfit("a glob of numbers", ["id", "Glob", "1*"], "filter[1]"),
    Bad("a delete by a filter that is none", "deletes", {"filter": ["lang"]}, 400, "invalid_filter",
        {"field": "filter", "at": "filter"}),
    Bad("a delete by a filter that does not fit", "deletes", {"filter": ["colour", "Eq", 1]}, 422,
        "filter_mismatch", {"at": "filter[0]"}),
    Bad("a delete by ids and by a filter", "deletes", {"ids": [0], "filter": EN}, 400, "invalid_argument",
        {"field": "ids"}),
    Bad("a delete of nothing", "deletes", {}, 400, "invalid_argument", {"field": "ids"}),
    # patches and conditions
    patched("a patch of no rows", {"ids": None}, "invalid_argument", field="ids"),
    patched("a patch of ids and by a filter", {"filter": EN}, "invalid_argument", field="ids"),
    patched("a patch of an id twice", {"ids": [0, 0]}, "invalid_id", field="ids"),
    patched("a patch of an empty list", {"ids": []}, "invalid_id", field="ids", limit=1_000_000),
    patched("a patch of ids of the other kind", {"ids": ["a"]}, "invalid_id", field="ids"),
    patched("a patch of no attributes", {"attributes": {}}, field="attributes"),
    patched("a patch of other many values", {"attributes": {"year": [1, 2]}}, attribute="year", limit=1),
    patched("a patch of other many rows", {"attributes": [{}, {"year": 2}]}, field="attributes", limit=1),
    patched("a patch of a value without a list", {"attributes": {"year": 2}}, attribute="year"),
    patched("a patch of a vector", {"attributes": {"vector": [ROW]}}, attribute="vector"),
    patched("a patch to another type", {"attributes": {"year": ["x"]}}, "schema_conflict",
            attribute="year", row=0),
    patched("a patch that declares another type", {"schema": {"year": "string"}}, "schema_conflict",
            attribute="year", type="int"),
    patched("a patch by filter with columns", {"ids": None, "filter": EN, "attributes": {"year": [2]}},
            "schema_conflict", attribute="year"),
    patched("a patch by filter with rows", {"ids": None, "filter": EN, "attributes": [{"year": 2}]},
            field="attributes"),
    patched("a patch by a filter that is none", {"ids": None, "filter": ["lang"], "attributes": {"year": 2}},
            "invalid_filter", field="filter", at="filter"),
    patched("a patch by filter and on a condition", {"ids": None, "filter": EN, "attributes": {"year": 2},
            "condition": EN}, "invalid_argument", field="condition"),
    conditional("a condition that is none", ["year"], "condition"),
    conditional("a reference of another name", ["year", "Eq", {"$ref": "year"}], "condition[2]"),
    conditional("a reference with more beside it", ["year", "Eq", {"$ref_new": "year", "or": 1}],
                "condition[2]"),
    conditional("a reference in a list", ["year", "In", [{"$ref_new": "year"}]], "condition[2][0]"),
    conditional("In with a reference", ["year", "In", {"$ref_new": "year"}], "condition[2]"),
    conditional("a glob with a reference", ["lang", "Glob", {"$ref_new": "year"}], "condition[2]"),
    conditional("a reference to what is not written", ["And", [EN, ["lang", "Eq", {"$ref_new": "lang"}]]],
                "condition[1][1][2]"),
    conditional("a reference of another type", ["lang", "Eq", {"$ref_new": "year"}], "condition[2]",
                "filter_mismatch"),
    conditional("a reference from an array", ["tags", "Eq", {"$ref_new": "year"}], "condition[0]",
                "filter_mismatch"),
    conditional("a condition on what is not there", ["colour", "Eq", 1], "condition[0]", "filter_mismatch"),
    asked("a search with a reference", NEWER, "filter[2]"),
    Bad("a delete with a reference", "deletes", {"ids": [0], "condition": NEWER}, 400, "invalid_filter",
        {"field": "condition", "at": "condition[2]"}),
    Bad("a delete by filter and on a condition", "deletes", {"filter": EN, "condition": EN}, 400,
        "invalid_argument", {"field": "condition"}),
    Bad("a condition without ids", "parts", {"vectors": [ROW], "condition": EN}, 400, "invalid_argument",
        {"field": "ids"}),
    Bad("a condition on an insert", "parts",
        {"vectors": [ROW], "ids": [1], "mode": "insert", "condition": EN},
        400, "invalid_argument", {"field": "condition"}),
    Bad("insert if absent without ids", "parts", {"vectors": [ROW], "mode": "insert_if_absent"}, 400,
        "invalid_argument", {"field": "ids"}),
    # values
    written("another number of values", {"lang": ["en"]}, BAD_VALUES, attribute="lang"),
    written("another number of rows", [{"lang": "en"}], BAD_VALUES, field="attributes"),
    written("text for an int that is declared", {"year": [1, "2"]}, attribute="year", row=1),
    written("a float for an int", {"year": [1.5, 2]}, attribute="year", row=0),
    written("an int beyond 64 bits", {"year": [1, 2**63]}, attribute="year", row=1),
    written("a negative uint in a row", {"size": [1, -1]}, attribute="size", row=1),
    written("a date that is none", {"at": ["2024-02-30", None]}, attribute="at", row=0),
    written("a UUID that is none", {"key": [None, "x"]}, attribute="key", row=1),
    written("a scalar for an array", {"tags": [["a"], "b"]}, attribute="tags", row=1),
    written("an array for a scalar", {"lang": ["en", ["de"]]}, attribute="lang", row=1),
    written("a number among strings of an array", {"tags": [["a"], ["b", 1]]}, attribute="tags", row=1),
    written("two types in a new attribute", {"new": ["a", 1]}, attribute="new", row=1),
    written("an object as a value", {"new": [{"a": 1}, {}]}, attribute="new", row=0),
    written("arrays in arrays", {"new": [[[1]], [[2]]]}, attribute="new", row=0),
    written("empty arrays of no type", {"new": [[], []]}, BAD_VALUES, attribute="new"),
    written("a type that is declared otherwise", {"year": ["a", "b"]}, schema={"year": "string"},
            attribute="year", type="int"),
    written("filterable that is declared otherwise", {"lang": ["a", "b"]}, attribute="lang",
            schema={"lang": {"type": "string", "filterable": False}}),
    written("a string too long", {"lang": ["a", "b" * (MAX_FILTERABLE_BYTES + 1)]}, BAD_VALUES,
            attribute="lang", row=1, limit=MAX_FILTERABLE_BYTES),
    written("an array too long", {"tags": [["a"] * (MAX_ARRAY_ELEMENTS + 1), []]}, BAD_VALUES,
            attribute="tags", row=0, limit=MAX_ARRAY_ELEMENTS),
    written("too many attributes", {f"a{i}": [1, 2] for i in range(MAX_ATTRIBUTES)}, BAD_VALUES,
            limit=MAX_ATTRIBUTES),
    written("a reserved name", {"id": [1, 2]}, BAD_VALUES, attribute="id"),
    written("a name that begins with a dollar", {"$x": [1, 2]}, BAD_VALUES, attribute="$x"),
    written("an empty name", {"": [1, 2]}, BAD_VALUES, attribute=""),
    written("a name with a line break", {"a\nb": [1, 2]}, BAD_VALUES, attribute="a\nb"),
    written("attributes that are text", "lang", BAD_VALUES, field="attributes"),
    written("a column that is no list", {"lang": {"0": "en"}}, BAD_VALUES, attribute="lang"),
    written("a row that is no object", [{"lang": "en"}, 5], BAD_VALUES, row=1),
    written("too many attributes in a row", [{}, {f"a{i}": 1 for i in range(MAX_ATTRIBUTES + 1)}],
            BAD_VALUES, row=1, limit=MAX_ATTRIBUTES),
    written("too many attributes in all rows", [{f"{row}-{i}": 1 for i in range(150)} for row in range(2)],
            BAD_VALUES, limit=MAX_ATTRIBUTES),
    written("an array too long in a row", [{}, {"tags": ["a"] * (MAX_ARRAY_ELEMENTS + 1)}], BAD_VALUES,
            row=1, limit=MAX_ARRAY_ELEMENTS),
    written("arrays in arrays of a row", [{}, {"new": [[1]]}], row=1),
    # schemas
    declared("an unknown type", {"new": "text"}, attribute="new"),
    declared("an array of arrays", {"new": "[][]int"}, attribute="new"),
    declared("another type", {"year": "string"}, "schema_conflict", attribute="year", type="int"),
    declared("no longer filterable", {"year": {"type": "int", "filterable": False}}, "schema_conflict",
             attribute="year"),
    declared("to drop what is not there", {"colour": None}, attribute="colour"),
    declared("a reserved name in a schema", {"vector": "int"}, attribute="vector"),
    declared("too many in a schema", {f"a{i}": "int" for i in range(MAX_ATTRIBUTES)}, limit=MAX_ATTRIBUTES),
    Bad("a change of nothing", "", {}, 400, "invalid_argument", {"field": "defaults"}, "PATCH"),
    Bad("an attribute to include that is not there", "search", {"vector": ROW, "include": ["colour"]}, 400,
        "invalid_argument", {"field": "include"}),
    Bad("an attribute to leave out that is not there", "search", {"vector": ROW, "exclude": ["colour"]}, 400,
        "invalid_argument", {"field": "exclude"}),
    Bad("include and exclude at once", "search", {"vector": ROW, "include": ["lang"], "exclude": []}, 400,
        "invalid_argument", {"field": "exclude"}),
]  # fmt: skip


@pytest.fixture
def filled(client: FlaskClient) -> FlaskClient:
    made = client.post("/v1/namespaces", json={"name": "docs", "dim": 3, "schema": SCHEMA})
    assert made.status_code == 201, made.get_data()
    row = {"vectors": [ROW], "ids": [0], "attributes": [{"lang": "en", "year": 1, "tags": ["a"]}]}
    assert client.post(f"{DOCS}/parts", json=row).status_code == 201
    return client


def state(client: FlaskClient) -> Any:
    shown = client.get(DOCS)
    return shown.get_json(), shown.headers["ETag"], client.get(f"{DOCS}/rows/0").get_json()


def test_there_are_enough_cases_and_each_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_wrong_is_refused_by_its_place_and_changes_nothing(filled: FlaskClient, case: Bad) -> None:
    before = state(filled)
    path = f"{DOCS}/{case.path}".rstrip("/")
    answer = filled.open(path, method=case.method, json=case.body)
    body = answer.get_json()
    assert (answer.status_code, body["code"]) == (case.status, case.code), body
    assert {name: body["details"].get(name) for name in case.told} == case.told, body
    if "at" in case.told:
        assert case.told["at"] in body["message"]
    assert state(filled) == before


def test_json_that_a_get_carries_is_held_to_the_same(filled: FlaskClient) -> None:
    path = f"{DOCS}/search"
    query = {"vector": json.dumps(ROW), "filter": '["lang", "Eq"'}
    assert filled.get(path, query_string=query).get_json()["code"] == "invalid_filter"
    query["filter"] = '["lang", "Eq", "en"]'
    assert [hit["id"] for hit in filled.get(path, query_string=query).get_json()["hits"]] == [0]
