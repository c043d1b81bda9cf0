"""Ids and names at the door, and the filter that keeps lookups short."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core import generator
from vecstore.errors import InvalidArgument, InvalidId
from vecstore.rows.ids import build_filter, keys_of, may_contain, parse_ids, validate_name


@given(st.lists(st.integers(0, 2**64 - 1), unique=True))
def test_integers_of_64_bits_are_their_own_keys(values: list[int]) -> None:
    for given_ids in (values, tuple(values), np.array(values, dtype=np.uint64)):
        ids = parse_ids(given_ids)
        if values:
            assert ids.kind == "u64"
            assert ids.values.tolist() == ids.keys.tolist() == values
            assert ids.bounds == (min(values), max(values))


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=16), min_size=1, unique=True))
def test_strings_have_the_key_of_their_digest(values: list[str]) -> None:
    ids = parse_ids(values)
    assert ids.kind == "string"
    assert ids.values.tolist() == values
    assert ids.keys.tolist() == [int(keys_of([v])[0]) for v in values]
    assert ids.bounds == (min(values), max(values))


def test_the_key_of_a_string_never_changes() -> None:
    assert keys_of(["vecstore", "ä"]).tolist() == [14491319333872306190, 4152366542966443504]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint32, np.uint64])
def test_integer_arrays_of_any_width_are_taken(dtype: Any) -> None:
    assert parse_ids(np.array([3, 1, 2], dtype=dtype)).values.tolist() == [3, 1, 2]
    assert parse_ids([dtype(3), dtype(1)]).values.tolist() == [3, 1]
    assert parse_ids(np.arange(10, dtype=dtype)[::2]).values.tolist() == [0, 2, 4, 6, 8]


def test_string_arrays_are_taken() -> None:
    assert parse_ids(np.array(["a", "bc"])).values.tolist() == ["a", "bc"]
    assert parse_ids(np.array(["a", "bc"], dtype=object)).values.tolist() == ["a", "bc"]
    assert parse_ids(np.ma.array(["a", "bc"])).values.tolist() == ["a", "bc"]
    assert parse_ids(np.ma.array([7, 5], mask=False)).values.tolist() == [7, 5]


class Colour(str, Enum):  # noqa: UP042  # of a StrEnum str() is the value
    RED = "red"
    BLUE = "blue"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("kind", [Colour, Text, np.str_])
def test_ids_and_names_of_a_kind_of_string_are_plain_strings(kind: Any) -> None:
    for values in ([kind("red"), "blue"], np.array([kind("red"), "blue"], dtype=object)):
        ids = parse_ids(values)
        assert [(type(value), value) for value in ids.values] == [(str, "red"), (str, "blue")]
        assert ids.keys.tolist() == keys_of(["red", "blue"]).tolist()
    name = validate_name(kind("red"))
    assert (type(name), name) == (str, "red")


def test_a_member_of_an_enum_is_the_id_that_its_value_is() -> None:
    with pytest.raises(InvalidId) as error:
        parse_ids(["red", Colour.RED])
    assert error.value.details["position"] == 1


COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "series of pandas": pd.Series,
    "index of pandas": pd.Index,
    "strings or integers of pandas": lambda ids: pd.array(ids),
    "series of Polars": pl.Series,
    "array of Arrow": pa.array,
    "chunks of Arrow": lambda ids: pa.chunked_array([ids[:1], ids[1:]]),
    "dictionary of Arrow": lambda ids: pa.array(ids).dictionary_encode(),
    "array of Python": lambda ids: array("Q", ids) if isinstance(ids[0], int) else tuple(ids),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_ids_are_taken(kind: str) -> None:
    for values in ([3, 1, 2**63 - 1], ["c", "a", "ö"]):
        ids = parse_ids(COLUMNS[kind](values))
        assert ids.values.tolist() == values
    with pytest.raises(InvalidId) as error:
        parse_ids(COLUMNS[kind](["a", "b", "b"]))
    assert error.value.details["position"] == 2


@pytest.mark.parametrize(
    "values",
    [
        pd.array([1, None], dtype="Int64"),
        pd.Series([1, None], dtype="Int64"),
        pd.Series(["a", None]),
        pl.Series([1, None]),
        pl.Series(["a", None]),
        pa.array([1, None]),
        pa.array(["a", None]),
    ],
)
def test_a_column_of_ids_has_no_gaps(values: Any) -> None:
    with pytest.raises(InvalidId) as error:
        parse_ids(values)
    assert error.value.details["field"] == "ids"
    assert error.value.details["position"] in (0, 1)


@pytest.mark.parametrize(
    ("values", "position"),
    [
        ([1, "a"], 1),
        (["a", 1], 0),
        ([1, 2.0], 1),
        ([1, True], 1),
        ([None], 0),
        ([b"a"], 0),
        ([1, -1], 1),
        (np.array([1, -1]), 1),
        ([2**64], 0),
        (["a", ""], 1),
        (["a", "x" * 65], 1),
        (["ä" * 33], 0),
        (["a", "\ud800"], 1),
        ([1, 2, 1], 2),
        (np.array([5, 5]), 1),
        (["a", "b", "a"], 2),
        ([[1], [2]], 0),
        (np.array([1.0, 2.0]), 0),
        (np.array([True, False]), 0),
        (np.ma.array([1, 2, 3], mask=[0, 1, 0]), 1),
        (np.ma.array(["a", "b", "c"], mask=[0, 0, 1]), 2),
        (np.ma.array([1, 2], mask=True, dtype=object), 0),
    ],
)
def test_a_bad_id_is_refused_with_its_position(values: Any, position: int) -> None:
    with pytest.raises(InvalidId) as error:
        parse_ids(values, field="ids")
    assert error.value.details["field"] == "ids"
    assert error.value.details["position"] == position
    assert f"ids[{position}]" in error.value.message


@pytest.mark.parametrize(
    "values",
    [
        "abc",
        b"abc",
        7,
        None,
        {1, 2},
        {1: 2},
        iter([1]),
        np.array([[1, 2]]),
        np.array(7),
        np.array("abc"),
        np.array("a"),
        np.array(1.5),
        np.array(None),
        np.int64(7),
        pd.DataFrame({"a": [1]}),
        pl.DataFrame({"a": [1]}),
    ],
)
def test_what_is_no_list_of_ids_is_refused(values: Any) -> None:
    with pytest.raises(InvalidId) as error:
        parse_ids(values, field="ids")
    assert error.value.details["field"] == "ids"


def test_the_longest_id_has_64_bytes_of_utf8() -> None:
    assert parse_ids(["x" * 64, "ä" * 32]).values.tolist() == ["x" * 64, "ä" * 32]
    with pytest.raises(InvalidId) as error:
        parse_ids(["x" * 65])
    assert error.value.details["limit"] == 64


def test_an_id_may_come_twice_where_it_is_allowed() -> None:
    assert len(parse_ids([1, 1], unique=False)) == 2


@pytest.mark.parametrize("name", ["a", "A9", "0.x_y-z", "x" * 128])
def test_a_name_of_allowed_characters_is_taken(name: str) -> None:
    assert validate_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "_a", "-a", "x" * 129, "a b", "ä", "a\n", "a\0", None, 7, b"a"]
)
def test_any_other_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument) as error:
        validate_name(name)
    assert error.value.details == {"field": "name", "limit": 128}


@given(st.lists(st.integers(0, 2**64 - 1), max_size=300), st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_the_filter_never_denies_a_key_that_is_there(keys: list[int], others: list[int]) -> None:
    table = build_filter(np.array(keys, dtype=np.uint64))
    assert may_contain(table, np.array(keys, dtype=np.uint64)).all()
    found = may_contain(table, np.array(others, dtype=np.uint64))
    assert len(found) == len(others)


def test_the_filter_admits_few_strangers() -> None:
    keys = np.arange(20_000, dtype=np.uint64)
    table = build_filter(keys)
    strangers = generator(1).integers(2**63, 2**64, size=20_000, dtype=np.uint64)
    assert may_contain(table, strangers).mean() < 0.02
    assert may_contain(table, np.arange(20_000, 40_000, dtype=np.uint64)).mean() < 0.02
    assert len(table) * 8 <= 11 * len(keys)
