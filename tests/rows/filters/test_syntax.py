"""Filters of Python values as JSON."""

from __future__ import annotations

import json
from datetime import time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from vecstore.errors import InvalidFilter
from vecstore.rows.filters import filter_bytes

NO_VALUES = [
    float("nan"),
    float("-inf"),
    np.float64("inf"),
    np.float32("nan"),
    np.float16("inf"),
    np.array(np.nan),
    np.datetime64("NaT"),
    b"text",
    Decimal("9.99"),
    timedelta(hours=1),
    time(12),
    complex(1, 2),
    ...,
]


@pytest.mark.parametrize("value", NO_VALUES, ids=repr)
def test_what_json_would_make_null_of_is_refused(value: Any) -> None:
    """NULL asks for rows that lack a value, which nobody meant who gave a number."""
    for given in (["price", "Eq", value], ["Not", ["price", "In", [1.0, value]]]):
        with pytest.raises(InvalidFilter, match="no value") as refused:
            filter_bytes(given)
        assert refused.value.details["at"] == "filter"


@pytest.mark.parametrize("values", [np.array([1.0, np.nan]), np.array(["2024-01-01", "NaT"], "M8[s]")])
def test_neither_may_an_array_hold_it(values: np.ndarray) -> None:
    with pytest.raises(InvalidFilter, match="no value"):
        filter_bytes(["price", "In", values])


@pytest.mark.parametrize(
    "given",
    [
        ["price", "Eq", None],
        ["name", "Eq", "null"],
        ["And", [["price", "In", (1.5, None)], ["name", "NotEq", None]]],
    ],
)
def test_null_is_given_as_none(given: Any) -> None:
    assert json.loads(filter_bytes(given)) == json.loads(json.dumps(given))


class Colour(str, Enum):  # noqa: UP042  # `str` says otherwise of it than of a StrEnum
    RED = "red"


class Level(IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("value", "as_json"),
    [
        (np.arange(3), [0, 1, 2]),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.array(7), 7),
        (np.array(["a", None], dtype=object), ["a", None]),
        ({"a"}, ["a"]),
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (np.datetime64("2024-01-01T00:00:00.123456789"), "2024-01-01T00:00:00.123456789Z"),
        (pd.Timestamp("2024-01-01T00:00:00.000000001"), "2024-01-01T00:00:00.000000001"),
        (np.array(["2024-01-01"], "M8[ns]"), ["2024-01-01T00:00:00.000Z"]),
        (pd.Timestamp("2024-01-01", tz="UTC"), "2024-01-01T00:00:00.000Z"),
        (UUID(int=5), str(UUID(int=5))),
    ],
    ids=repr,
)
def test_values_of_other_libraries_are_those_of_json(value: Any, as_json: Any) -> None:
    assert json.loads(filter_bytes(["x", "Eq", value])) == ["x", "Eq", as_json]


def test_a_set_has_one_order_in_every_process() -> None:
    """What a filter is remembered by, and told apart by under an idempotency key."""
    assert filter_bytes(["a", "In", {"x", "y", "w", "z"}]) == b'["a","In",["w","x","y","z"]]'


def test_what_an_object_holds_is_looked_at_too() -> None:
    with pytest.raises(InvalidFilter, match="no value"):
        filter_bytes(["a", "Eq", {"$ref_new": float("nan")}])


def test_a_list_that_holds_itself_has_no_json_form() -> None:
    given: list[Any] = ["Not"]
    given.append(given)
    with pytest.raises(InvalidFilter, match="no JSON form"):
        filter_bytes(given)
