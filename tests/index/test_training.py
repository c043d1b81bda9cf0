"""Training of lists."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import clustered, generator
from vecstore.index.ivf import Partition, lists_for
from vecstore.index.training import train
from vecstore.manifest.model import Settings


def check(partition: Partition, n: int, k: int, width: int, capacity: int | None = None) -> None:
    """What every partition of n rows into at most k lists satisfies."""
    assert partition.k >= 1
    if capacity is None:
        assert partition.k <= max(1, k)
    if capacity is not None and k > 1:
        assert np.diff(partition.starts).max() <= capacity
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
    capacity=st.none() | st.integers(1, 70),
    clusters=st.integers(1, 30),
    spread=st.sampled_from([0.0, 0.5, 5.0]),
    seed=st.integers(0, 2**32),
)
def test_each_row_is_in_exactly_one_list(
    n: int, k: int, width: int, held: float, capacity: int | None, clusters: int, spread: float, seed: int
) -> None:
    rng = generator(seed)
    z = clustered(rng, n, width, clusters=clusters, spread=spread)
    held_out = rng.random(n) < held
    if held_out.all():
        held_out[0] = False
    check(train(z, k, seed=seed, held_out=held_out, capacity=capacity), n, k, width, capacity)


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


@pytest.mark.parametrize("capacity", [None, 32])
def test_the_number_of_threads_changes_nothing(capacity: int | None) -> None:
    z = clustered(generator(6), 9_000, 64, clusters=50)
    alone = train(z, 300, seed=3, capacity=capacity)
    with ThreadPoolExecutor(3) as pool:
        assert same(alone, train(z, 300, seed=3, capacity=capacity, pool=pool))


def test_lists_fill_their_blocks_and_rows_stay_near() -> None:
    z = clustered(generator(7), 6_000, 64, clusters=40, spread=0.5)
    full, free = train(z, 194, seed=1, capacity=32), train(z, 194, seed=1)
    blocks = [int((-(-np.diff(p.starts) // 32)).sum()) for p in (full, free)]
    assert blocks[0] <= 194 < blocks[1]
    errors = []
    for partition in (full, free):
        centres = partition.centroids.astype(np.float32) * partition.scales[:, None]
        own = np.repeat(np.arange(partition.k), np.diff(partition.starts))
        errors.append(((z[partition.order] - centres[own]) ** 2).sum())
    assert errors[0] < 1.1 * errors[1]


def test_equal_rows_are_divided_all_the_same() -> None:
    z = np.ones((1_000, 64), dtype=np.float32)
    check(train(z, 40, seed=1, capacity=32), 1_000, 40, 64, 32)


@pytest.mark.parametrize("kinds", [2, 3])
def test_crowds_of_equal_rows_far_apart_are_divided_in_a_bounded_number_of_bids(kinds: int) -> None:
    """They outbid each other in steps of a millionth of what lies between them: as good as for ever."""
    rng = generator(1)
    z = rng.standard_normal((kinds, 1_536), dtype=np.float32)[rng.integers(0, kinds, 150)]
    check(train(z, 5, seed=1, capacity=32), 150, 5, 1_536, 32)


def test_rows_for_whom_no_list_has_room_get_lists_of_their_own() -> None:
    z = clustered(generator(8), 1_000, 64)
    partition = train(z, 10, seed=1, capacity=32)
    check(partition, 1_000, 10, 64, 32)
    new = -(-(1_000 - 320) // 32)
    assert 10 + new <= partition.k <= 10 + 3 * new


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rows_that_were_held_out_find_room_near_them(seed: int) -> None:
    n, k = 4_000, lists_for(4_000, 64, Settings())
    z = clustered(generator(seed), n, 64, clusters=6, spread=0.3)
    held_out = np.arange(n) % 15 == 0
    partition = train(z, k, seed=seed, held_out=held_out, capacity=32)
    assert partition.k <= k + 6
    centres = partition.centroids.astype(np.float32) * partition.scales[:, None]
    own = np.repeat(np.arange(partition.k), np.diff(partition.starts))
    rows, lists = z[partition.order][held_out[partition.order]], own[held_out[partition.order]]
    squared = np.stack([((centres - row) ** 2).sum(axis=1) for row in rows])
    assert (squared[np.arange(len(rows)), lists] / squared.min(axis=1)).max() < 1.25


def test_progress_ascends_to_one() -> None:
    z = clustered(generator(9), 1_000, 64)
    seen: list[float] = []
    train(z, 30, seed=1, capacity=32, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
