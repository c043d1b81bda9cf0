"""Vectors at the door."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecstore.errors import DimensionMismatch, InvalidArgument, InvalidVector
from vecstore.limits import MAX_BATCH_ROWS, MAX_DIM
from vecstore.rows.vectors import MAX_NORM, as_vector, as_vectors, validate_dim

GOOD = np.arange(1, 7, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "values",
    [
        GOOD,
        GOOD.tolist(),
        [GOOD[0], GOOD[1]],
        GOOD.astype(np.float16),
        GOOD.astype(np.float64),
        GOOD.astype(np.int64),
        GOOD.astype(">f4"),
        np.asfortranarray(GOOD),
        np.repeat(GOOD, 2, axis=1)[:, ::2],
        GOOD[::-1][::-1],
        np.frombuffer(b"-" + GOOD.tobytes(), dtype="<f4", offset=1).reshape(2, 3),
    ],
)
def test_whatever_numpy_makes_numbers_of_is_taken(values: Any) -> None:
    found = as_vectors(values, 3, "cosine")
    np.testing.assert_array_equal(found, GOOD)
    assert found.dtype == np.float32
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    assert found.flags.aligned


MASKED = np.ma.array(GOOD, mask=[[0, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("values", "row"), [(MASKED, 1), ([*MASKED], 1), (np.ma.array(GOOD, mask=True), 0), (tuple(MASKED), 1)]
)
def test_masked_vectors_are_refused(values: Any, row: int) -> None:
    with pytest.raises(InvalidVector) as error:
        as_vectors(values, 3, "l2")
    assert error.value.details == {"field": "vectors", "row": row}


def test_a_masked_query_is_refused() -> None:
    with pytest.raises(InvalidVector) as error:
        as_vector(MASKED[1], 3, "l2")
    assert error.value.details["field"] == "vector"
    np.testing.assert_array_equal(as_vector(np.ma.array(GOOD[0]), 3, "l2"), GOOD[0])
    np.testing.assert_array_equal(as_vectors(np.ma.array(GOOD), 3, "l2"), GOOD)


def test_a_sound_batch_is_not_copied() -> None:
    assert as_vectors(GOOD, 3, "l2") is GOOD
    assert np.shares_memory(as_vector(GOOD[0], 3, "l2"), GOOD)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (GOOD[:, :2], DimensionMismatch),
        (GOOD[0], DimensionMismatch),
        (GOOD[None], DimensionMismatch),
        ([[1, 2, 3], [1, 2]], DimensionMismatch),
        (7, DimensionMismatch),
        (np.empty((0, 3), dtype=np.float32), InvalidArgument),
        ([], DimensionMismatch),
        (None, InvalidArgument),
        ("abc", InvalidArgument),
        ([["1", "2", "3"]], InvalidArgument),
        ([[True, False, True]], InvalidArgument),
        ([[1j, 0, 0]], InvalidArgument),
        ([[None, 1, 2]], InvalidArgument),
        ({"a": 1}, InvalidArgument),
    ],
)
def test_what_is_no_batch_is_refused(values: Any, kind: type[InvalidArgument]) -> None:
    with pytest.raises(kind) as error:
        as_vectors(values, 3, "l2", field="vectors")
    assert error.value.details["field"] == "vectors"


@given(
    row=st.integers(0, 40_000),
    bad=st.sampled_from([np.nan, np.inf, -np.inf, 1e19, 2e18]),
    metric=st.sampled_from(["l2", "cosine", "dot"]),
)
def test_a_row_that_cannot_be_searched_is_named(row: int, bad: float, metric: Any) -> None:
    batch = np.ones((40_001, 2), dtype=np.float32)
    batch[row, 1] = bad
    with pytest.raises(InvalidVector) as error:
        as_vectors(batch, 2, metric)
    assert error.value.details["row"] == row
    assert f"vectors[{row}]" in error.value.message
    with pytest.raises(InvalidVector):
        as_vector(batch[row], 2, metric)


def test_float64_beyond_float32_is_refused() -> None:
    with pytest.raises(InvalidVector):
        as_vectors([[1e300, 0.0]], 2, "l2")


def test_zero_has_no_direction_under_cosine_only() -> None:
    zero = np.zeros((1, 3))
    with pytest.raises(InvalidVector, match="no direction"):
        as_vectors(zero, 3, "cosine")
    with pytest.raises(InvalidVector):
        as_vector(zero[0], 3, "cosine")
    for metric in ("l2", "dot"):
        assert as_vectors(zero, 3, metric).shape == (1, 3)
        assert as_vector(zero[0], 3, metric).shape == (3,)


@pytest.mark.parametrize("scale", [1e-17, 1e-3, 1.0, 1e17])
def test_lengths_far_from_one_are_taken(scale: float) -> None:
    for metric in ("l2", "cosine", "dot"):
        as_vectors(GOOD * np.float32(scale / 10), 3, metric)
        as_vector(GOOD[0] * np.float32(scale / 10), 3, metric)
    assert MAX_NORM == 1e18


@pytest.mark.parametrize("values", [GOOD, [1.0], [[1, 2, 3]], 3.0, [1, "a", 2], None, [1, 2, 3, 4]])
def test_what_is_no_vector_is_refused(values: Any) -> None:
    with pytest.raises(InvalidArgument) as error:
        as_vector(values, 3, "l2")
    assert error.value.details["field"] == "vector"


def test_a_namespace_of_unknown_dimension_takes_any_but_none() -> None:
    assert as_vectors(GOOD.tolist(), None, "l2").shape == (2, 3)
    assert as_vector(GOOD[0], None, "l2").shape == (3,)
    for batch in (GOOD[:, :0], GOOD[0], 5, [[1], [1, 2]]):
        with pytest.raises(DimensionMismatch, match="vectors"):
            as_vectors(batch, None, "l2")
    for vector in (GOOD, [], [[1], [1, 2]]):
        with pytest.raises(DimensionMismatch, match="vector"):
            as_vector(vector, None, "l2")
    for values in ("abc", None, {"a": 1}):
        with pytest.raises(InvalidArgument) as error:
            as_vector(values, None, "l2")
        assert type(error.value) is InvalidArgument
    with pytest.raises(InvalidVector):
        as_vector([np.nan], None, "l2")


def test_more_rows_than_a_batch_may_have_are_refused() -> None:
    many = np.broadcast_to(np.float32(1.0), (MAX_BATCH_ROWS + 1, 1))
    with pytest.raises(InvalidArgument) as error:
        as_vectors(many, 1, "l2")
    assert error.value.details["limit"] == MAX_BATCH_ROWS


@pytest.mark.parametrize("dim", [1, MAX_DIM, np.int64(5)])
def test_a_dimension_within_bounds_is_taken(dim: Any) -> None:
    assert validate_dim(dim) == int(dim)


@pytest.mark.parametrize("dim", [0, -1, MAX_DIM + 1, 1.0, True, "3", None])
def test_any_other_dimension_is_refused(dim: Any) -> None:
    with pytest.raises(InvalidArgument) as error:
        validate_dim(dim)
    assert error.value.details == {"field": "dim", "limit": MAX_DIM}
