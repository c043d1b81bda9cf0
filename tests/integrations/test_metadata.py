"""Metadata as attributes: what comes back is what was given, and filters see what they can."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecstore
from vecstore.errors import InvalidAttribute
from vecstore.integrations.metadata import REST, to_columns, to_metadata

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "$date", "$object", "ä"]), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(["a", "b", "id", "text", REST, "$x", "", "a b", "x" * 200, "\n"])
MOMENTS = st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-5))]))
METADATA = st.dictionaries(KEYS, JSON | MOMENTS | st.dates() | st.uuids(), max_size=4)


def stored(metadatas: list[dict[str, Any]]) -> tuple[vecstore.Namespace, list[dict[str, Any]]]:
    """A namespace with these metadata, and what it gives back; batches of two, so that types are known."""
    ns = vecstore.connect("memory://", maintenance="off").create_namespace("docs", 2)
    for at in range(0, len(metadatas), 2):
        some = metadatas[at : at + 2]
        columns = to_columns(some, ns.stats().schema, ["text"])
        ns.insert(
            np.ones((len(some), 2), np.float32),
            [f"{at + i}" for i in range(len(some))],
            attributes={"text": ["…"] * len(some), **columns.attributes},
            schema={"text": {"type": "string", "filterable": False}, **columns.schema},
        )
    rows = {row.id: row.attributes for row in ns.scan()}
    return ns, [to_metadata(rows[str(at)], ["text"]) for at in range(len(metadatas))]


def same(one: Any, other: Any) -> bool:
    """Equal in types as well, which 1 and 1.0 and True are not."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, datetime):
        return (one == other and one.tzinfo is other.tzinfo) or one.isoformat() == other.isoformat()
    return bool(one == other)


@settings(max_examples=30)
@given(st.lists(METADATA, max_size=5))
def test_metadata_comes_back_identical(metadatas: list[dict[str, Any]]) -> None:
    _, found = stored(metadatas)
    assert len(found) == len(metadatas)
    for one, other in zip(metadatas, found, strict=True):
        assert same(one, other), (one, other)


def test_what_an_attribute_can_hold_is_seen_by_filters() -> None:
    ns, _ = stored(
        [
            {"lang": "en", "year": 2020, "score": 1, "tags": ["a", "b"], "ok": True},
            {"lang": "de", "year": 2021, "score": 0.5, "tags": [], "at": datetime(2024, 5, 6, tzinfo=UTC)},
            {"lang": 7, "year": 2.5, "score": 2, "tags": "a", "ok": None, "nested": {"x": 1}},
        ]
    )

    def matching(filter: list[Any]) -> list[str]:
        return sorted(row.id for row in ns.scan(filter=filter))

    assert {name: spec["type"] for name, spec in ns.stats().schema.items()} == {
        "text": "string",
        "lang": "string",
        "year": "int",
        "score": "float",
        "tags": "[]string",
        "ok": "bool",
        "at": "datetime",
        REST: "string",
    }
    assert matching(["lang", "In", ["en", "de"]]) == ["0", "1"]
    assert matching(["year", "Gt", 2020]) == ["1"]
    assert matching(["score", "Gte", 1]) == ["0", "2"]
    assert matching(["tags", "Contains", "b"]) == ["0"]
    assert matching(["at", "Lt", "2025-01-01"]) == ["1"]


def test_declared_dates_and_uuids_are_filterable_and_stay_the_text_they_were() -> None:
    schema = {
        "at": {"type": "datetime", "filterable": True},
        "key": {"type": "uuid", "filterable": True},
    }
    given = [
        {"at": "2024-05-06", "key": "12345678-9ABC-DEF0-1234-56789abcdef0"},
        {"at": "soon", "key": "none"},
    ]
    columns = to_columns(given, schema, [])
    assert columns.attributes["at"] == ["2024-05-06", None]
    assert columns.attributes["key"] == ["12345678-9ABC-DEF0-1234-56789abcdef0", None]
    rows = [{name: values[i] for name, values in columns.attributes.items()} for i in range(2)]
    assert [to_metadata(row, []) for row in rows] == given


def test_a_full_schema_takes_the_rest_as_json() -> None:
    wide = {f"key{i}": i for i in range(300)}
    ns, found = stored([wide])
    assert found == [wide]
    assert len(ns.stats().schema) == 256


def test_long_texts_are_kept_and_not_filterable() -> None:
    _, found = stored([{"abstract": "x" * 5_000, "title": "y"}])
    assert found == [{"abstract": "x" * 5_000, "title": "y"}]


def test_numbers_of_numpy_come_back_as_numbers() -> None:
    _, found = stored([{"n": np.int64(3), "x": np.float32(0.5), "v": np.arange(2)}])
    assert found == [{"n": 3, "x": 0.5, "v": [0, 1]}]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {"a": {1: 2}}])
def test_what_is_no_json_is_refused_by_its_key(value: Any) -> None:
    with pytest.raises(InvalidAttribute, match="'bad'"):
        to_columns([{"bad": value}], {}, [])


def test_a_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(InvalidAttribute, match="keys are strings"):
        to_columns([{7: "x"}], {}, [])  # type: ignore[dict-item]


def test_dates_and_uuids_of_python_come_back_as_themselves() -> None:
    given = {"d": date(2024, 5, 6), "u": UUID(int=7), "in": {"at": datetime(2024, 5, 6, 7, 8, 9, 123456)}}
    ns, found = stored([given])
    assert found == [given]
    assert [row.id for row in ns.scan(filter=["u", "Eq", str(UUID(int=7))])] == ["0"]


@pytest.mark.parametrize(
    "value",
    [
        UUID(int=5).hex,
        f"{{{UUID(int=5)}}}",
        UUID(int=5).urn,
        "2024-01-01T00:00:00." + "0" * 60,
        "0001-01-01T00:00:00+14:00",
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        2**70,
        10**400,
        math.inf,
    ],
    ids=repr,
)
@pytest.mark.parametrize("first", [UUID(int=5), datetime(2024, 5, 6, tzinfo=UTC), 0.5, 7], ids=repr)
def test_what_the_type_of_an_attribute_does_not_take_comes_back_all_the_same(first: Any, value: Any) -> None:
    """Python reads more forms of a UUID and of a date than an attribute does."""
    given = [{"x": first}, {"y": 1}, {"x": value}]
    _, found = stored(given)
    assert all(map(same, given, found))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (np.float32(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (np.datetime64("2024-01-01", "ns"), datetime(2024, 1, 1)),  # as NumPy has it
    ],
    ids=repr,
)
def test_values_of_numpy_come_back_as_python_s(value: Any, read: Any) -> None:
    assert stored([{"x": value}, {"x": None}])[1] == [{"x": read}, {"x": None}]
