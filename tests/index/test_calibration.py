"""What is measured of a part when it is built."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.core import clustered, database, distances, generator
from tests.part.helpers import build, calibration_of, open_part, put, spec
from vecstore.ext.ivf import rank_lists
from vecstore.ext.rabitq import QueryTable, encode_rabitq
from vecstore.index.calibration import held_out_rows, looked_at_from
from vecstore.index.extents import PRICES
from vecstore.index.recall import KS, MOST_REACH, Calibration, price_for
from vecstore.storage.memory import MemoryStore
from vecstore.types import F32


def test_coverage_grows_with_the_lists_probed_and_ends_whole(calibration: Calibration) -> None:
    assert list(calibration.probes) == sorted(set(calibration.probes))
    assert calibration.probes[0] == 1
    assert len(calibration.coverage) == len(calibration.errors) == len(KS)
    for shares in calibration.coverage:
        assert len(shares) == len(calibration.probes)
        assert all(a <= b + 1e-12 for a, b in pairwise(shares))
        assert shares[-1] == 1.0
    for values in calibration.quality.values():
        assert all(0.0 <= value <= 1.0 for value in values)
    assert set(calibration.quality) == {"none", "int8", "fp32"}


def test_what_is_bought_grows_as_the_price_falls(calibration: Calibration) -> None:
    assert len(calibration.bought) == len(KS)
    for shares in calibration.bought:
        assert len(shares) == len(PRICES)
        assert all(a <= b + 0.01 for a, b in pairwise(shares))
        assert shares[-1] > 0.9
    prices = [price_for(calibration, t, "int8", top_k=10, rank=10.0) for t in (0.5, 0.8, 0.9, 0.95)]
    assert None not in prices
    assert prices == sorted(prices, key=lambda price: -(price or 0.0))
    dear = price_for(calibration, 0.9, "int8", top_k=10, rank=10.0, skip=20.0)
    assert dear is not None
    assert prices[2] is not None
    assert dear <= prices[2]


def test_int8_keeps_nearly_all_that_the_lists_cover(calibration: Calibration) -> None:
    assert min(calibration.quality["int8"]) > 0.95
    assert min(calibration.quality["fp32"]) > 0.95


def test_a_part_too_small_to_spare_rows_is_not_calibrated() -> None:
    rows = generator(1).standard_normal((640, 64)).astype(np.float32)
    assert held_out_rows(rows[1:], 1) is None
    assert held_out_rows(rows, 1) is not None
    assert calibration_of(build(clustered(generator(1), 600, 8), None, spec(8))) is None
    assert calibration_of(build(clustered(generator(1), 700, 8), None, spec(8))) is not None
    assert calibration_of(build(clustered(generator(1), 700, 8), None, spec(8, k_max=1))) is None


def test_rows_held_out_are_the_same_for_a_seed_and_bounded() -> None:
    rows = generator(1).standard_normal((20_000, 64)).astype(np.float32)
    first, second = held_out_rows(rows, 5), held_out_rows(rows, 5)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, second)
    assert 64 <= first.sum() <= 1_000


@pytest.mark.parametrize(("distinct", "least"), [(20, 10), (400, 300), (5_000, 950)])
def test_of_equal_rows_one_is_held_out(distinct: int, least: int) -> None:
    rows = np.zeros((10_000, 64), dtype=np.float32)
    rows[:distinct] = generator(1).standard_normal((distinct, 64))
    held = held_out_rows(rows, 5)
    assert held is not None
    others = int(held[:distinct].sum())
    assert others >= least  # what some thousand draws find of them
    assert held.sum() - others <= max(1, 64 - others)
    assert held.sum() >= 64


def test_a_target_is_met_beside_thousands_of_equal_rows() -> None:
    """Queries for these, which cannot fail, had stood for all: of the others .75 to .82 were found."""
    rng = generator(3)
    rows = np.full((10_000, 64), 0.5, dtype=np.float32)
    rows[:1_000], queries = np.split(rng.standard_normal((1_200, 64)).astype(np.float32), [1_000])
    ns = database(seed=3).create_namespace("texts", dim=64, metric="l2")
    ns.insert(rows)
    farthest = np.sort(distances(rows, queries, "l2"), axis=1)[:, 9]
    found = ns.search_batch(queries, 10)
    assert np.mean(found.distances <= farthest[:, None] * (1 + 1e-3)) >= 0.95


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_few_queries_are_farther_from_their_nearest_list_than_is_kept(metric: Any) -> None:
    rng = generator(5)
    rows, others = np.split(clustered(rng, 3_500, 64), [3_000])
    strangers = rng.standard_normal((100, 64)).astype(np.float32) - 3.0
    store, stored = MemoryStore(), build(rows, None, spec(64, metric))
    put(store, stored)
    part = open_part(store, stored)
    assert part.calibration is not None
    table, rotation = QueryTable(64), stored.spec.rotation

    def farther(queries: F32) -> float:
        if metric == "cosine":
            queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        found = []
        for q in rotation.apply(queries):
            table.prepare(q, 0.0)
            scores = np.empty(len(part.lists), dtype=np.float32)
            rank_lists(table, part.cells, part.cell_lists, part.centroid_codes, len(scores), scores)
            found.append(scores[0])
        return float(np.mean(np.array(found) > part.calibration.nearest))

    assert farther(others) <= 0.03
    assert farther(strangers) == 1.0


def test_coverage_counts_a_list_only_once_its_cell_is_looked_at() -> None:
    """As `rank_lists` does: in a large part a query looks at the nearest cells alone."""
    rng = generator(4)
    cells = rng.standard_normal((60, 64)).astype(np.float32)
    centroids = np.repeat(cells, 50, axis=0) + rng.standard_normal((3_000, 64)).astype(np.float32)
    bounds = np.arange(0, 3_001, 50).astype(np.uint32)
    codes = np.concatenate(
        [encode_rabitq(centroids[a:b], cells[c], None) for c, (a, b) in enumerate(pairwise(bounds))]
    )
    query = rng.standard_normal(64).astype(np.float32)
    from_probes = looked_at_from(query, cells, bounds)
    table = QueryTable(64)
    table.prepare(query, 0.0)
    whole = rank_lists(table, cells, bounds, codes, 3_000)
    for n in (1, 5, 20, 33, 60):
        most = MOST_REACH * n  # what a plan of n lists may come to, and is ranked for
        wanted = whole[from_probes[whole // 50] < n][:most]
        assert rank_lists(table, cells, bounds, codes, most).tolist() == wanted.tolist()


def test_more_neighbours_are_measured_where_there_are_so_many(calibration: Calibration) -> None:
    farther = calibration.farther
    assert farther.ks == (300, 1_000)  # of 3,000 rows
    assert len(farther.coverage) == len(farther.errors) == len(farther.bought) == 2
    hundred = np.array(calibration.coverage[-1])
    for shares in farther.coverage:
        assert all(a <= b + 1e-12 for a, b in pairwise(shares))
        assert shares[-1] == 1.0
        assert np.mean(np.array(shares) - hundred) < 0.0
        hundred = np.array(shares)
