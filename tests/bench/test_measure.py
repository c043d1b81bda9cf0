"""The harness measures what it says: recall, the best at a recall, who is measured again, a slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.measure import (
    Index,
    Point,
    Searcher,
    Setting,
    best_at,
    contenders,
    frontier,
    recall_at,
    slope,
    sweep,
)


def point(recall: float, single: float, batch: float = 0.0, engine: str = "a") -> Point:
    return Point(engine, "index", {"ef": 1}, recall, single, batch)


class Exact:
    """Answers with the rows that it was told, and counts its calls by setting."""

    engine, label, build_seconds, bytes = "exact", "exact", 0.0, 0

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.used: list[Setting] = []

    def settings(self) -> Sequence[Setting]:
        return [{"wrong": 0}, {"wrong": 5}]

    def use(self, setting: Setting) -> Searcher:
        self.used.append(setting)
        wrong = setting["wrong"]

        def answer(number: Any) -> np.ndarray:
            found = self.rows[number].copy()
            found[:wrong] = -1
            return found

        return Searcher(answer, lambda queries: queries)

    def prepare(self, queries: np.ndarray) -> Sequence[int]:
        return range(len(queries))


def test_recall_is_the_share_of_exact_rows_found_whatever_their_order() -> None:
    gt = np.array([[1, 2, 3], [4, 5, 6]])
    assert recall_at([[3, 2, 1], [6, 5, 4]], gt[:, :3], 3) == 1.0
    assert recall_at([[3, 2, 9], [-1, -1, 4]], gt, 3) == pytest.approx(0.5)


def test_recall_counts_no_row_twice_and_none_beyond_k() -> None:
    gt = np.array([[1, 2, 3]])
    assert recall_at([[1, 1, 1]], gt, 3) == pytest.approx(1 / 3)
    assert recall_at([[9, 1, 2]], gt, 2) == pytest.approx(0.5)
    assert recall_at([[1]], gt, 3) == pytest.approx(1 / 3)


def test_the_best_at_a_recall_reaches_it() -> None:
    points = [point(0.94, 900.0, 100.0), point(0.95, 500.0, 600.0), point(0.99, 400.0, 700.0)]
    assert best_at(points, 0.95) is points[1]
    assert best_at(points, 0.95, batch=True) is points[2]
    assert best_at(points, 0.995) is None


def test_the_frontier_has_no_point_that_another_beats() -> None:
    points = [point(0.9, 500.0), point(0.95, 600.0), point(0.99, 300.0), point(0.985, 250.0)]
    assert frontier(points) == [points[1], points[2]]


def test_the_defaults_are_measured_in_every_round_however_slow_the_first() -> None:
    points = [point(0.96, 1000.0), Point("a", "index", {}, 0.96, 100.0, 0.0)]
    assert contenders(points) == [0, 1]


def test_every_engine_is_measured_again_where_it_may_be_best() -> None:
    points = [
        point(0.96, 1000.0, engine="fast"),
        point(0.99, 400.0, engine="fast"),
        point(0.96, 100.0, engine="slow"),
        point(0.97, 50.0, engine="slow"),
        point(0.50, 9000.0, engine="slow"),
    ]
    assert contenders(points) == [0, 1, 2]


def test_a_slope_is_the_exponent() -> None:
    sizes = [1e4, 1e5, 1e6]
    assert slope(sizes, [3 * size**0.37 for size in sizes]) == pytest.approx(0.37)


def test_a_sweep_measures_every_setting_and_its_recall() -> None:
    rows = np.arange(400).reshape(40, 10)
    index = Exact(rows)
    checked: Index = index
    points = sweep([checked], np.zeros((40, 4), dtype=np.float32), rows, rounds=2)
    assert [p.recall for p in points] == [1.0, 0.5]
    assert all(p.single_qps > 0 and p.batch_qps > 0 for p in points)
    assert index.used.count({"wrong": 0}) == 2
    assert index.used.count({"wrong": 5}) == 1  # reaches no mark, so it is not measured again
