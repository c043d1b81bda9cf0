"""Kernels that divide rows into lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ext.helpers import variant
from vecstore.ext import rabitq, train
from vecstore.ext.rabitq import QueryTable, encode_rabitq, score_with_rabitq
from vecstore.ext.records import quantise_centroids


@pytest.mark.parametrize("name", rabitq.simd_available())
def test_assignment_is_the_first_least_across_chunks(name: str) -> None:
    for k in (1, 5, 8, 9, 64, 100):
        rng = np.random.default_rng(k)
        dots = rng.integers(-4, 4, size=(50, k)).astype(np.float32)
        half = rng.integers(0, 3, size=k).astype(np.float32)
        value = half - dots
        rows = rng.permutation(60)[:50].astype(np.int64)
        for chunks in (1, 3):
            best, labels = np.full(60, np.inf, np.float32), np.full(60, -1, np.int32)
            with variant(name):
                for some in np.array_split(np.arange(k), min(k, chunks)):
                    train.assign_nearest(
                        dots[:, some].copy(), half[some].copy(), int(some[0]), best, labels, rows
                    )
            assert np.array_equal(labels[rows], value.argmin(1))
            assert np.array_equal(best[rows], value.min(1))
            assert (np.delete(labels, rows) == -1).all()


def test_accumulation_counts_and_sums() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 7)).astype(np.float32)
    labels = rng.integers(-1, 4, size=30).astype(np.int32)
    sums, counts = np.zeros((5, 7)), np.zeros(5, np.int64)
    train.accumulate(x, labels, sums, counts)
    for label in range(5):
        assert sums[label] == pytest.approx(x[labels == label].sum(0, dtype=np.float64))
        assert counts[label] == (labels == label).sum()


def test_bad_assignments_are_refused() -> None:
    dots, half = np.zeros((3, 2), np.float32), np.zeros(2, np.float32)
    best, labels = np.zeros(3, np.float32), np.zeros(3, np.int32)
    for arguments in (
        (dots, half[:1], 0, best, labels, None),
        (dots, half, 0, best[:2], labels, None),
        (dots[:2], half, 0, best, labels, None),
        (dots, half, 0, best, labels, np.array([0, 1])),
        (dots, half, 0, best, labels, np.array([0, 1, 3])),
        (dots, half, 0, best, labels, np.array([0, 1, -1])),
    ):
        with pytest.raises(ValueError):
            train.assign_nearest(*arguments)
    x, sums, counts = np.zeros((3, 2), np.float32), np.zeros((4, 2)), np.zeros(4, np.int64)
    for arguments in (
        (x, labels[:2], sums, counts),
        (x, labels, sums[:, :1].copy(), counts),
        (x, labels, sums, counts[:3]),
        (x, np.array([0, 1, 4], np.int32), sums, counts),
    ):
        with pytest.raises(ValueError):
            train.accumulate(*arguments)
    assert not counts.any()


# --- lists of limited capacity -------------------------------------------------------------------


class Choice:
    """Rows, cells with lists, and what `nearest_lists` wants to know of them."""

    def __init__(
        self, seed: int, n: int = 60, dim: int = 128, sizes: tuple[int, ...] = (40, 3, 33, 0, 1)
    ) -> None:
        rng = np.random.default_rng(seed)
        self.z = rng.standard_normal((n, dim)).astype(np.float32)
        self.cells = rng.standard_normal((len(sizes), dim)).astype(np.float32) * np.float32(0.3)
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        own = np.repeat(np.arange(len(sizes)), sizes)
        noise = rng.standard_normal((len(own), dim)).astype(np.float32)
        self.c8, self.scales = quantise_centroids(self.cells[own] + noise)
        self.centroids = self.c8.astype(np.float32) * self.scales[:, None]
        self.half = (self.centroids**2).sum(1) * np.float32(0.5)
        self.codes = np.concatenate(
            [
                encode_rabitq(self.centroids[self.bounds[c] : self.bounds[c + 1]], centre)
                for c, centre in enumerate(self.cells)
            ]
        )
        self.rows = rng.permutation(n).astype(np.int64)

    def run(self, near: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        choices = np.full((len(self.z), t), -7, np.int32)
        costs = np.full((len(self.z), t), np.nan, np.float32)
        train.nearest_lists(
            self.z, self.rows, near, self.cells, self.bounds, self.codes, self.c8, self.scales, self.half,
            choices, costs,
        )  # fmt: skip
        return choices, costs


@pytest.mark.parametrize("name", rabitq.simd_available())
def test_choices_are_the_lists_of_the_near_cells_by_their_codes(name: str) -> None:
    some = Choice(1)
    near = np.tile(np.array([[2, 3, 0]], np.int32), (60, 1))
    with variant(name):
        choices, costs = some.run(near, 8)
        every, _ = some.run(near, 80)
        for i, z in enumerate(some.z):
            table = QueryTable(128)
            table.prepare(z)
            estimates = {}
            for cell in (2, 3, 0):
                lists = range(some.bounds[cell], some.bounds[cell + 1])
                blocks = encode_rabitq(some.centroids[lists.start : lists.stop], some.cells[cell])
                g_add = float(((z - some.cells[cell]) ** 2).sum())
                found, _ = score_with_rabitq(table, blocks, len(lists), g_add, 0.0)
                estimates |= dict(zip(lists, found.tolist(), strict=True))
            wanted = sorted(estimates, key=estimates.__getitem__)
            assert choices[i].tolist() == wanted[:8]
            assert every[i].tolist() == [*wanted, *[-1] * 7]
    exact = some.half[choices] - np.einsum("nd,ntd->nt", some.z, some.centroids[choices])
    np.testing.assert_allclose(costs, exact, rtol=1e-4, atol=1e-3)
    again = np.empty_like(costs)
    train.list_costs(some.z, some.rows, choices, some.c8, some.scales, some.half, again)
    np.testing.assert_array_equal(again, costs)
    train.list_costs(some.z, some.rows, choices - 200, some.c8, some.scales, some.half, again)
    assert np.isinf(again).all()


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40))
def test_the_nearest_few_are_sorted_with_ties_by_number(seed: int, k: int, t: int) -> None:
    rng = np.random.default_rng(seed)
    dots = rng.integers(-4, 4, size=(9, k)).astype(np.float32)
    half = rng.integers(0, 3, size=k).astype(np.float32)
    out = np.empty((9, min(k, t)), np.int32)
    train.nearest_few(dots, half, out)
    np.testing.assert_array_equal(out, np.argsort(half - dots, axis=1, kind="stable")[:, : min(k, t)])


def test_means_and_spreads_are_of_the_rows_of_a_list() -> None:
    rng = np.random.default_rng(2)
    z = rng.standard_normal((50, 64)).astype(np.float32)
    order, starts = rng.permutation(50)[:40].astype(np.int64), np.array([0, 7, 7, 40])
    means = np.full((3, 64), 5, np.float32)
    train.list_means(z, order, starts, means)
    assert (means[1] == 5).all()
    c8, scales = quantise_centroids(means)
    spread = np.empty(3, np.float32)
    train.list_spread(z, order, starts, c8, scales, spread)
    for i in (0, 2):
        rows = z[order[starts[i] : starts[i + 1]]]
        np.testing.assert_allclose(means[i], rows.mean(0), rtol=1e-5, atol=1e-6)
        residual = rows - c8[i].astype(np.float32) * scales[i]
        assert spread[i] == pytest.approx((residual**2).sum(1).mean(), rel=1e-4)
    assert spread[1] == 0


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 60),
    lists=st.integers(1, 12),
    capacity=st.integers(1, 9),
    ties=st.booleans(),
)
def test_an_auction_keeps_the_capacity_and_is_near_the_least_cost(
    seed: int, n: int, lists: int, capacity: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    costs = (
        rng.integers(0, 3, size=(n, lists)).astype(np.float32) if ties else rng.random((n, lists), np.float32)
    )
    choices = np.stack([rng.permutation(lists) for _ in range(n)]).astype(np.int32)
    labels = np.full(n, -9, np.int32)
    rows = rng.permutation(n).astype(np.int64)
    left = train.fill_lists(costs, choices, rows, lists, capacity, 0.01, 1 << 40, labels)
    assert left == (labels < 0).sum()
    assert set(labels) <= set(range(-1, lists))
    sizes = np.bincount(labels[labels >= 0], minlength=lists)
    assert sizes.max() <= capacity
    if left == 0:
        # No two rows gain more than the step by changing places, none by moving to a list with room.
        paid = np.empty((n, lists), np.float32)
        np.put_along_axis(paid, choices, costs, axis=1)
        own = paid[np.arange(n), labels]
        for i in range(n):
            swapped = paid[i, labels] + paid[np.arange(n), labels[i]]
            assert (swapped >= own[i] + own - 0.0201).all()
            assert (paid[i, sizes < capacity] >= own[i] - 0.0101).all()


def test_rows_without_bids_keep_their_labels() -> None:
    labels = np.full(4, 9, np.int32)
    costs, choices = np.zeros((4, 1), np.float32), np.array([[0], [0], [-1], [0]], np.int32)
    assert train.fill_lists(costs, choices, np.array([2, 0]), 1, 5, 0.1, 9, labels) == 1
    assert labels.tolist() == [0, 9, -1, 9]


def test_rows_that_outbid_each_other_for_ever_are_left_after_so_many_bids() -> None:
    """Rows that are alike, two more than the near lists take: the third is a step a bid away."""
    costs = np.tile(np.float32([0.0, 0.0, 1.0]), (74, 1))
    choices = np.tile(np.arange(3, dtype=np.int32), (74, 1))
    labels, rows = np.full(74, -9, np.int32), np.arange(74)
    for most in (0, 1, 36, 5_000):
        left = train.fill_lists(costs, choices, rows, 3, 36, 1e-9, most, labels)
        assert left == (labels < 0).sum() == max(2, 74 - most)
        assert (np.bincount(labels[labels >= 0], minlength=3) <= 36).all()
    assert train.fill_lists(costs, choices, rows, 3, 36, 1e-2, 50_000, labels) == 0


def test_bad_choices_are_refused() -> None:
    some = Choice(3)
    near = np.zeros((60, 2), np.int32)
    some.run(near, 4)
    for wrong in (near[:5], near + 5, near - 1, near[:, :0]):
        with pytest.raises(ValueError):
            some.run(np.ascontiguousarray(wrong), 4)
    for name, value in (
        ("rows", np.array([60])),
        ("bounds", some.bounds[:-1].copy()),
        ("bounds", some.bounds[::-1].copy()),
        ("codes", some.codes[:-1].copy()),
        ("scales", some.scales[:-1].copy()),
        ("half", some.half[:-1].copy()),
        ("cells", some.cells[:, :64].copy()),
        ("c8", some.c8[:, :64].copy()),
    ):
        other = Choice(3)
        setattr(other, name, value)
        with pytest.raises(ValueError):
            other.run(near, 4)
    costs, choices, rows = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.int32), np.arange(3)
    labels, spread = np.zeros(3, np.int32), np.zeros(77, np.float32)
    for arguments in (
        (costs, choices[:2], rows, 2, 1, 0.1, 9, labels),
        (costs, choices, rows, 2, 1, 0.1, 9, labels[:2]),
        (costs, choices, rows, 0, 1, 0.1, 9, labels),
        (costs, choices, rows, 2, 0, 0.1, 9, labels),
        (costs, choices, rows, 2, 1, 0.0, 9, labels),
        (costs, choices, rows, 2, 1, 0.1, -1, labels),
        (costs, choices + np.int32(2), rows, 2, 1, 0.1, 9, labels),
        (costs, choices, rows + 1, 2, 1, 0.1, 9, labels),
        (costs, choices, np.zeros(4, np.int64), 2, 1, 0.1, 9, labels),
    ):
        with pytest.raises(ValueError):
            train.fill_lists(*arguments)
    z, order, starts, means = some.z, np.arange(9), np.array([0, 9]), np.zeros((1, 128), np.float32)
    for order_, starts_, out in (
        (order, np.array([0, 10]), means),
        (order, np.array([4, 3]), means),
        (order, np.array([-1, 3]), means),
        (order + 60, starts, means),
        (order, starts, means[:, :64].copy()),
        (order, np.array([0, 4, 9]), means),
    ):
        with pytest.raises(ValueError):
            train.list_means(z, order_, starts_, out)
    with pytest.raises(ValueError):
        train.list_spread(z, order, starts, some.c8, some.scales, spread)
    with pytest.raises(ValueError):
        train.list_costs(
            z,
            rows,
            np.full((60, 1), 77, np.int32),
            some.c8,
            some.scales,
            some.half,
            np.zeros((60, 1), np.float32),
        )
    with pytest.raises(ValueError):
        train.nearest_few(costs, np.zeros(2, np.float32), np.zeros((3, 3), np.int32))
