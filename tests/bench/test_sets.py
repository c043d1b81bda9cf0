"""Exact neighbours are exact in blocks of any size, and of what is left when rows are deleted."""

from __future__ import annotations

import numpy as np
import pytest

from bench.rows.targets import Truth
from bench.sets import exact_neighbours
from vecstore.types import Metric


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
@pytest.mark.parametrize("rows", [64, 1_000])
def test_neighbours_are_exact(metric: Metric, rows: int) -> None:
    rng = np.random.default_rng(2)
    base = rng.standard_normal((300, 8)) * rng.lognormal(0, 0.5, (300, 1))
    queries = rng.standard_normal((20, 8))
    found = exact_neighbours(base.astype(np.float32), queries.astype(np.float32), metric, 12, rows=rows)
    if metric == "l2":
        distances = ((queries[:, None, :] - base[None, :, :]) ** 2).sum(axis=2)
    else:
        distances = -queries @ base.T
        if metric == "cosine":
            distances /= np.linalg.norm(base, axis=1)
    np.testing.assert_array_equal(found, np.argsort(distances, axis=1)[:, :12])


def test_neighbours_are_no_more_than_the_rows() -> None:
    base = np.eye(3, dtype=np.float32)
    assert exact_neighbours(base, base, "l2", 10).shape == (3, 3)


def test_neighbours_left_after_a_deletion_are_the_nearest_alive() -> None:
    gt = np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    dead = np.array([True, False, False, True, False])
    np.testing.assert_array_equal(Truth.without(gt, dead, 3).gt, [[1, 2, 4], [4, 2, 1]])


def test_a_list_too_short_for_a_deletion_is_refused() -> None:
    with pytest.raises(AssertionError, match="deep enough"):
        Truth.without(np.array([[0, 1]]), np.array([True, True, False]), 1)
