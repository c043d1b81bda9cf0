"""Attributes in JSON: bounded before objects are made of them, the same as objects would be."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import pytest

import vecstore
from tests.rows.filters.oracle import TYPES, random_rows
from vecstore.config import Config
from vecstore.errors import InvalidAttribute
from vecstore.rows.attributes import parse_attributes, parse_patch
from vecstore.rows.given import SLICE_ROWS
from vecstore.rows.schema import Spec
from vecstore.server.app import create_app


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that were allocated at once, at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def repeated(text: str, times: int) -> str:
    return ",".join([text] * times)


def members(value: str) -> str:
    return ",".join(f'"{i}":{value}' for i in range(800_000))


HOSTILE = {
    "a column of too many lists": f'{{"a": [{repeated("[]", 3_000_000)}]}}',
    "lists in a list": f'{{"a": [1, [{repeated("[]", 3_000_000)}]]}}',
    "a list too long": f'{{"a": [1, [{repeated("1", 4_500_000)}]]}}',
    "a list too long in a row": f'[{{}}, {{"a": [{repeated("1", 4_500_000)}]}}]',
    "lists in a list of a row": f'[{{}}, {{"a": [{repeated("[]", 3_000_000)}]}}]',
    "too many rows": f"[{repeated('{}', 3_000_000)}]",
    "too many columns": f"{{{members('[]')}}}",
    "too many attributes in a row": f"[{{}}, {{{members('[]')}}}]",
    "an object": f'{{"a": [1, {{{members("1")}}}]}}',
    "a text too long": f'{{"a": ["", "{"x" * 9_000_000}"]}}',
    "a text too long in a row": f'[{{}}, {{"a": "{"x" * 9_000_000}"}}]',
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    ("path", "rows"),
    [
        ("/v1/namespaces/docs/parts", '"vectors": [[1], [2]]'),
        ("/v1/namespaces/docs/patches", '"ids": [1, 2]'),
        ("/v1/namespaces/docs/patches", '"filter": ["a", "Eq", 1]'),
    ],
    ids=["insert", "patch", "patch by filter"],
)
def test_a_request_is_refused_before_it_is_a_tree_of_objects(path: str, rows: str, name: str) -> None:
    """9 MB, of which objects would take up to 211 MB."""
    body = f'{{{rows}, "attributes": {HOSTILE[name]}}}'.encode()
    answers: list[Any] = []
    with vecstore.connect("memory://", maintenance="off") as database:
        client = create_app(database, Config()).test_client()
        assert client.post("/v1/namespaces", json={"name": "docs", "dim": 1}).status_code == 201
        peak = peak_of(lambda: answers.append(client.post(path, data=body, content_type="application/json")))
    assert answers[0].status_code == 400
    told = answers[0].get_json()["details"]
    assert told["field"] == "attributes"
    no_object = rows.startswith('"filter"') and HOSTILE[name].startswith("[")
    assert no_object or "limit" in told
    assert peak <= 3 * len(body), f"{peak} of {len(body)}"


@pytest.mark.parametrize("one", ['"ab"', "300", '""', "[]"])
@pytest.mark.parametrize(
    ("path", "rest"),
    [("parts", '"vectors": [[1], [2]]'), ("patches", '"attributes": {"a": [1]}'), ("deletes", None)],
)
def test_ids_are_counted_before_they_are_objects(path: str, rest: str | None, one: str) -> None:
    body = f'{{"ids": [{repeated(one, 9_000_000 // (len(one) + 1))}]{", " + rest if rest else ""}}}'.encode()
    answers: list[Any] = []
    with vecstore.connect("memory://", maintenance="off") as database:
        client = create_app(database, Config()).test_client()
        assert client.post("/v1/namespaces", json={"name": "docs", "dim": 1}).status_code == 201
        path = f"/v1/namespaces/docs/{path}"
        peak = peak_of(lambda: answers.append(client.post(path, data=body, content_type="application/json")))
    assert answers[0].status_code == 400
    told = answers[0].get_json()
    assert (told["code"], told["details"]["field"], told["details"]["limit"]) == (
        "invalid_id",
        "ids",
        1_000_000,
    )
    assert peak <= 3 * len(body), f"{peak} of {len(body)}"


@pytest.mark.parametrize("form", ["columns", "rows"])
def test_what_is_accepted_is_never_a_tree_of_objects(form: str) -> None:
    n = 1_000
    value = ["ab", "cd"] * 500
    given: Any = {"tags": [value] * n} if form == "columns" else [{"tags": value}] * n
    data = json.dumps(given, separators=(",", ":")).encode()
    found: dict[str, Any] = {}
    peak = peak_of(lambda: found.update(parse_attributes(data, n, {}, {"tags": Spec("[]string")})))
    assert found["tags"].values()[17] == value
    assert peak <= 7 * len(data), f"{peak} of {len(data)}"  # of each text: its number, its end, and itself


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("form", ["columns", "rows"])
@pytest.mark.parametrize("n", [1, 300, SLICE_ROWS + 7])
def test_json_is_what_its_objects_are(declared: bool, form: str, n: int) -> None:
    rng = random.Random(n)
    some = random_rows(rng, min(n, 300))
    rows = [some[i % len(some)] for i in range(n)]
    specs = {name: Spec(kind) for name, kind in TYPES.items()} if declared else {}  # type: ignore[arg-type]
    given: Any = rows if form == "rows" else {name: [row[name] for row in rows] for name in TYPES}
    try:
        expected = parse_attributes(rows, n, {}, specs)
    except InvalidAttribute as error:
        with pytest.raises(type(error)):
            parse_attributes(json.dumps(given).encode(), n, {}, specs)
        return
    found = parse_attributes(json.dumps(given, indent=1).encode(), n, {}, specs)
    assert list(found) == list(expected)
    for name, column in expected.items():
        assert found[name].spec == column.spec
        assert repr(found[name].values()) == repr(column.values())


@pytest.mark.parametrize("data", [b"[", b'{"a": [1', b'["', b'["\\', b"[1]]", b'{"a": ["\xff"]}', b"5", b""])
def test_what_is_not_json_is_an_error(data: bytes) -> None:
    with pytest.raises(InvalidAttribute):
        parse_attributes(data, 1, {}, {})


class Name(str, Enum):  # noqa: UP042  # of a StrEnum str() is the value
    YEAR = "year"


def test_rows_may_name_an_attribute_by_other_kinds_of_string() -> None:
    found = parse_attributes([{"year": 1}, {Name.YEAR: 2}, {"year": 3}], 3, {}, {})
    assert [(type(name), column.values()) for name, column in found.items()] == [(str, [1, 2, 3])]
    patch = parse_patch([{Name.YEAR: 1}, {}, {"year": 3}], 3, {}, {})
    assert [(type(name), one.given.tolist()) for name, one in patch.items()] == [(str, [True, False, True])]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2, 3], "int", [1, None, 3]),
        ([1.5, 2.5, 3.5], "float", [1.5, None, 3.5]),
        ([True, False, True], "bool", [True, None, True]),
        (["a", "b", "c"], "string", ["a", None, "c"]),
        (
            np.array(["2024-05-06", "2024-05-07", "1969-12-31"], dtype="datetime64[ns]"),
            "datetime",
            ["2024-05-06T00:00:00.000Z", None, "1969-12-31T00:00:00.000Z"],
        ),
    ],
)
@pytest.mark.parametrize("objects", [False, True])
def test_what_is_masked_is_null(values: Any, kind: str, expected: list[Any], objects: bool) -> None:
    array = np.asarray(values)
    given = np.ma.array(np.array([*array], dtype=object) if objects else array, mask=[0, 1, 0])
    found = parse_attributes({"a": given}, 3, {}, {})["a"]
    assert (found.spec.type, found.values()) == (kind, expected)
    whole = parse_attributes({"a": np.ma.array(array)}, 3, {}, {})["a"]
    assert whole.values()[::2] == expected[::2]
    assert whole.values()[1] is not None


def test_masked_elements_of_arrays_are_refused() -> None:
    given = np.ma.array([[1, 2], [3, 4]], mask=[[0, 0], [0, 1]])
    for values in (given, list(given)):
        with pytest.raises(InvalidAttribute) as error:
            parse_attributes({"a": values}, 2, {}, {})
        assert (error.value.details["attribute"], error.value.details["row"]) == ("a", 1)


@pytest.mark.parametrize("value", ["1e400", '"\udcff"', '["a", -1e999]'])
@pytest.mark.parametrize(
    "form", ['{"b": [1, 2], "a": [null, %s]}', '[{"b": 1}, {"b": 2, "a": %s}]'], ids=["columns", "rows"]
)
def test_a_value_that_cannot_be_read_is_named_by_attribute_and_row(form: str, value: str) -> None:
    data = (form % value).encode(errors="surrogateescape")
    with pytest.raises(InvalidAttribute, match="attributes: 'a' of row 1 cannot be read") as refused:
        parse_attributes(data, 2, {}, {})
    assert refused.value.details == {"field": "attributes", "attribute": "a", "row": 1}
