"""Training of lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import clustered, generator
from vecstore.index.ivf import Partition, lists_for, planned_probes, single_list, train
from vecstore.manifest.model import Settings


def check(partition: Partition, n: int, k: int, width: int) -> None:
    """What every partition of n rows into at most k lists satisfies."""
    assert 1 <= partition.k <= max(1, k)
    assert sorted(partition.order.tolist()) == list(range(n))
    assert partition.starts[0] == 0
    assert partition.starts[-1] == n
    assert (np.diff(partition.starts) >= 1).all()
    assert partition.centroids.shape == (partition.k, width)
    assert partition.scales.shape == (partition.k,)
    assert partition.cell_lists[0] == 0
    assert partition.cell_lists[-1] == partition.k
    assert (np.diff(partition.cell_lists.astype(np.int64)) >= 1).all()
    assert partition.cells.shape == (len(partition.cell_lists) - 1, width)
    assert np.isfinite(partition.cells).all()
    assert np.isfinite(partition.scales).all()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 400),
    k=st.integers(1, 80),
    width=st.sampled_from([64, 128]),
    held=st.floats(0, 0.5),
    clusters=st.integers(1, 30),
    spread=st.sampled_from([0.0, 0.5, 5.0]),
    seed=st.integers(0, 2**32),
)
def test_each_row_is_in_exactly_one_list(
    n: int, k: int, width: int, held: float, clusters: int, spread: float, seed: int
) -> None:
    rng = generator(seed)
    z = clustered(rng, n, width, clusters=clusters, spread=spread)
    held_out = rng.random(n) < held
    if held_out.all():
        held_out[0] = False
    check(train(z, k, seed=seed, held_out=held_out), n, k, width)


def same(one: Partition, other: Partition) -> bool:
    fields = ("cells", "cell_lists", "centroids", "scales", "order", "starts")
    return all(np.array_equal(getattr(one, f), getattr(other, f)) for f in fields)


def test_training_is_deterministic_for_a_seed() -> None:
    z = clustered(generator(1), 1_500, 64)
    assert same(train(z, 40, seed=9), train(z, 40, seed=9))
    assert not same(train(z, 40, seed=9), train(z, 40, seed=10))


def test_a_held_out_row_never_moves_a_centroid() -> None:
    rng = generator(2)
    z = clustered(rng, 1_000, 64)
    held_out = np.zeros(1_000, dtype=np.bool_)
    held_out[::7] = True
    first = train(z, 30, seed=1, held_out=held_out)
    moved = z.copy()
    # Rows at the places of others: every list that is kept stays filled whatever they do.
    moved[held_out] = z[~held_out][: held_out.sum()]
    second = train(moved, 30, seed=1, held_out=held_out)
    np.testing.assert_array_equal(first.centroids, second.centroids)
    np.testing.assert_array_equal(first.scales, second.scales)


def test_rows_lie_near_their_lists() -> None:
    z = clustered(generator(3), 3_000, 64, clusters=60, spread=0.1)
    partition = train(z, 90, seed=1)
    centres = partition.centroids.astype(np.float32) * partition.scales[:, None]
    own = np.repeat(np.arange(partition.k), np.diff(partition.starts))
    rows = z[partition.order]
    nearest = np.stack([((centres - row) ** 2).sum(axis=1).argmin() for row in rows])
    assert (nearest == own).mean() > 0.97


def test_lists_of_a_cell_lie_together_and_near_it() -> None:
    z = clustered(generator(4), 3_000, 64, clusters=12, spread=0.2)
    partition = train(z, 100, seed=1)
    centres = partition.centroids.astype(np.float32) * partition.scales[:, None]
    for cell, centre in enumerate(partition.cells):
        lists = slice(int(partition.cell_lists[cell]), int(partition.cell_lists[cell + 1]))
        np.testing.assert_allclose(centres[lists].mean(axis=0), centre, rtol=1e-4, atol=1e-4)


def test_a_single_list_is_centred_on_the_mean() -> None:
    z = clustered(generator(5), 50, 64)
    partition = single_list(z)
    check(partition, 50, 1, 64)
    np.testing.assert_allclose(partition.cells[0], z.mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "dim", "changes", "expected"),
    [
        (1, 4096, {"small_part_threshold": 0}, 1),
        (200, 1000, {}, 1),
        (201, 1000, {}, 6),
        (10_000, 384, {}, 312),
        (10_000, 384, {"list_rows": 0}, 400),
        (10_000, 384, {"list_rows": 0, "cluster_factor": 1.0}, 100),
        (10_000, 384, {"k_max": 100}, 100),
        (10_000, 384, {"k_min": 500}, 500),
        (10, 1_000_000, {"k_min": 500}, 10),
        (10_000_000, 384, {"list_rows": 2}, 65_536),
    ],
)
def test_the_number_of_lists_follows_rows_and_settings(
    n: int, dim: int, changes: dict[str, Any], expected: int
) -> None:
    assert lists_for(n, dim, Settings(**changes)) == expected


@given(st.integers(1, 100_000), st.floats(1e-6, 1.0), st.integers(1, 65_536))
def test_planned_probes_stay_within_bounds(k: int, fraction: float, cap: int) -> None:
    probes = planned_probes(k, fraction, cap)
    assert 1 <= probes <= min(k, cap)
    assert planned_probes(k, 1.0, 65_536) == min(k, 65_536)
