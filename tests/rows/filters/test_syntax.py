"""Filters of Python values as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
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
]


@pytest.mark.parametrize("value", NO_VALUES, ids=repr)
def test_what_json_would_make_null_of_is_refused(value: Any) -> None:
    """NULL asks for rows that lack a value, which nobody meant who gave a number."""
    for given in (["price", "Eq", value], ["Not", ["price", "In", [1.0, value]]]):
        with pytest.raises(InvalidFilter, match="no value") as refused:
            filter_bytes(given)
        assert refused.value.details["at"] == "filter"
    with pytest.raises(InvalidFilter, match="no value"):
        filter_bytes(["price", "In", np.array([1.0, value], dtype=np.float64)])


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


def test_numbers_of_numpy_are_python_s() -> None:
    given = ["And", [["n", "In", np.arange(3)], ["price", "Lt", np.float32(0.5)]]]
    assert filter_bytes(given) == b'["And",[["n","In",[0,1,2]],["price","Lt",0.5]]]'


def test_a_list_that_holds_itself_has_no_json_form() -> None:
    given: list[Any] = ["Not"]
    given.append(given)
    with pytest.raises(InvalidFilter, match="no JSON form"):
        filter_bytes(given)
