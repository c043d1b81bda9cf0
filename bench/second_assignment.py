"""What a second list a row would save: ``python -m bench.second_assignment --set glosses``.

A row that lies between two lists is missed by a query that probes only the other. SOAR (Sun et al., *SOAR:
Improved Indexing for Approximate Nearest Neighbor Search*, NeurIPS 2023) puts each row into a second list as
well: the one that makes the least of ``||r'||^2 + weight * <r, r'>^2 / ||r||^2``, where r and r' are the
row's residuals in both, so that the second is no copy of the first's error.

Without ``--engine`` lists are those of plain k-means; queries probe them in the order of their centroids'
true distances; a neighbour counts as found when a list that holds it is probed. So these are rows and
lists that any scan needs at the least, and nothing of what codes and pools lose: the gain of an idea before
it is built, not a speed.

With ``--engine`` the engine itself searches a namespace in which each row is stored twice, in both of its
lists, and asks for twice as many hits, of which the doubles are dropped; beside it one as it is, each at its
fastest setting that reaches the mark, in turns. What two lists a row would cost in the end is less than that.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

import vecstore
from bench import sets
from bench.measure import Setting
from bench.rows import SETS
from vecstore.index.ivf import Partition
from vecstore.index.training import train
from vecstore.part import builder
from vecstore.types import F32

CHOICES = 40  # nearest lists, of which the second is one
ROWS = 2_000  # at a time
MARKS = (0.90, 0.95, 0.99)
WEIGHTS = (0.0, 0.5, 1.0, 1.5)
K = 10
SCALES = (2.0, 3.0, 5.0, 8.0)
MOST_PROBES = 1_200
ROUNDS = 5
Labels = npt.NDArray[np.int64]


def main() -> None:
    """Train, assign, and tell how many lists and rows each mark takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="glosses", choices=sorted(SETS))
    parser.add_argument("--rows-a-list", type=int, nargs="+", default=[32, 16])
    parser.add_argument("--engine", action="store_true")
    options = parser.parse_args()
    dataset = SETS[options.set]()
    if options.engine:
        in_engine(dataset)
        return
    import faiss  # an extra

    base, queries = sets.normalised(dataset), dataset.queries
    lines = []
    for rows in options.rows_a_list:
        k = len(base) // rows
        trained = faiss.Kmeans(base.shape[1], k, niter=8, seed=1, max_points_per_centroid=40)
        trained.train(base)
        centroids = trained.centroids
        order = np.argsort((centroids**2).sum(1) - 2 * queries @ centroids.T, axis=1)
        first = nearest_lists(base, centroids)
        lines.append((k, "one", *needed(order, [first], dataset.gt[:, :K])))
        for weight in WEIGHTS:
            second = second_choices(base, centroids, first, weight)[0][:, 0]
            lines.append((k, f"two, weight {weight:g}", *needed(order, [first, second], dataset.gt[:, :K])))
    heads = ("lists", "a row in", *(f"{what} for {mark}" for mark in MARKS for what in ("lists", "rows")))
    print(tabulate(lines, heads, tablefmt="github"))


def nearest_lists(base: F32, centroids: F32) -> Labels:
    """The nearest list of each row."""
    half = (centroids**2).sum(1) / 2
    parts = [(half - base[at : at + ROWS] @ centroids.T).argmin(1) for at in range(0, len(base), ROWS)]
    return np.concatenate(parts)


def second_choices(base: F32, centroids: F32, first: Labels, weight: float) -> tuple[Labels, F32]:
    """[N, CHOICES] lists other than each row's own, the best first, and their costs."""
    norms, lists, costs = (centroids**2).sum(1), [], []
    for at in range(0, len(base), ROWS):
        x, own = base[at : at + ROWS], first[at : at + ROWS, None]
        squared = (x**2).sum(1)[:, None] + norms - 2 * x @ centroids.T
        near = np.argpartition(squared, CHOICES, axis=1)[:, :CHOICES]
        residual = x - centroids[own[:, 0]]
        inner = (residual * x).sum(1)[:, None] - np.einsum("ij,ikj->ik", residual, centroids[near])
        square = np.maximum((residual**2).sum(1), 1e-9)[:, None]
        cost = np.take_along_axis(squared, near, 1) + weight * inner**2 / square
        cost[near == own] = np.inf
        order = cost.argsort(axis=1)
        lists.append(np.take_along_axis(near, order, 1))
        costs.append(np.take_along_axis(cost, order, 1))
    return np.concatenate(lists), np.concatenate(costs)


def needed(order: Labels, members: Sequence[Labels], gt: npt.NDArray[np.int32]) -> list[int]:
    """Lists, and rows in them, that must be probed for each mark: the same number by every query."""
    k = order.shape[1]
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(k)[None, :], 1)
    found_at = np.min([np.take_along_axis(place, labels[gt], 1) for labels in members], axis=0)
    sizes = np.sum([np.bincount(labels, minlength=k) for labels in members], axis=0)
    rows = sizes[order].cumsum(axis=1).mean(axis=0)
    recall = np.bincount(found_at.ravel(), minlength=k).cumsum() / found_at.size
    out: list[int] = []
    for mark in MARKS:
        lists = int(np.searchsorted(recall, mark)) + 1
        out += [lists, round(float(rows[lists - 1]))]
    return out


class Twice:
    """A namespace that holds each row twice; its answers without the doubles."""

    def __init__(self, dataset: sets.Dataset, folder: str) -> None:
        doubled = np.concatenate([dataset.base, dataset.base])
        self._n = len(dataset.base)
        self.db = vecstore.connect(folder, maintenance="off")
        self.ns = self.db.create_namespace("twice", dim=doubled.shape[1], metric=dataset.metric)
        with mock.patch.object(builder, "train", in_two_lists):
            self.ns.insert(doubled, ids=np.arange(2 * self._n, dtype=np.uint64))

    def ids(self, queries: F32, setting: Setting) -> list[list[int]]:
        """The nearest K rows of each query."""
        found = self.ns.search_batch(queries, 2 * K, **setting).ids % np.uint64(self._n)
        return [list(dict.fromkeys(row))[:K] for row in found.tolist()]

    def search(self, query: F32, setting: Setting) -> None:
        """One query."""
        self.ns.search(query, 2 * K, **setting)


class Once:
    """The namespace as it is."""

    def __init__(self, dataset: sets.Dataset, folder: str) -> None:
        self.db = vecstore.connect(folder, maintenance="off")
        self.ns = self.db.create_namespace("once", dim=dataset.base.shape[1], metric=dataset.metric)
        self.ns.insert(dataset.base, ids=np.arange(len(dataset.base), dtype=np.uint64))

    def ids(self, queries: F32, setting: Setting) -> list[list[int]]:
        """The nearest K rows of each query."""
        found: list[list[int]] = self.ns.search_batch(queries, K, **setting).ids.tolist()
        return found

    def search(self, query: F32, setting: Setting) -> None:
        """One query."""
        self.ns.search(query, K, **setting)


def in_two_lists(z: F32, k: int, *, seed: int, capacity: int, **_: Any) -> Partition:
    """In place of `train`, for rows given twice: lists of half the size, each filled twice."""
    n = len(z) // 2
    found = train(np.ascontiguousarray(z[:n]), k, seed=seed, capacity=capacity // 2)
    centroids = found.centroids.astype(np.float32) * found.scales[:, None]
    first = np.empty(n, dtype=np.int64)
    first[found.order] = np.repeat(np.arange(found.k), np.diff(found.starts))
    choices, costs = second_choices(z[:n], centroids, first, WEIGHTS[-1])
    second, room = choices[:, 0].copy(), capacity - np.bincount(first, minlength=found.k)
    waiting = np.ones(n, dtype=bool)
    for place in np.argsort(
        costs, axis=None, kind="stable"
    ).tolist():  # a row without room overfills its best
        row, which = divmod(place, CHOICES)
        one = choices[row, which]
        if waiting[row] and room[one] > 0:
            second[row], waiting[row] = one, False
            room[one] -= 1
    both = np.concatenate([first, second])
    starts = np.concatenate([[0], np.cumsum(np.bincount(both, minlength=found.k))])
    return replace(found, order=np.argsort(both, kind="stable"), starts=starts)


def in_engine(dataset: sets.Dataset) -> None:
    """Tell both fastest settings of each mark, and how much faster two lists are, in turns."""
    queries, gt = dataset.queries, dataset.gt[:, :K].tolist()

    def recall(index: Once | Twice, setting: Setting) -> float:
        found = index.ids(queries, setting)
        return float(np.mean([len({*a} & {*b}) / K for a, b in zip(found, gt, strict=True)]))

    def seconds(index: Once | Twice, setting: Setting, best: npt.NDArray[np.float64]) -> None:
        for i, query in enumerate(queries):
            start = time.perf_counter()
            index.search(query, setting)
            best[i] = min(best[i], time.perf_counter() - start)

    def fastest(index: Once | Twice, mark: float) -> Setting:
        grid: list[tuple[float, Setting]] = []
        for scale in SCALES:
            for precision in ("int8", "fp32"):
                how = {"rerank_scale": scale, "rerank_precision": precision}
                low, high = 1, MOST_PROBES
                if recall(index, {**how, "nprobe": high}) < mark:
                    continue
                while high - low > max(1, low // 30):
                    middle = (low + high) // 2
                    reached = recall(index, {**how, "nprobe": middle}) >= mark
                    low, high = (low, middle) if reached else (middle, high)
                best = np.full(len(queries), np.inf)
                seconds(index, {**how, "nprobe": high}, best)
                grid.append((float(best.mean()), {**how, "nprobe": high}))
        return min(grid, key=itemgetter(0))[1]

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        once, twice = Once(dataset, one), Twice(dataset, other)
        for mark in MARKS[1:]:
            settings = [(index, fastest(index, mark)) for index in (once, twice)]
            bests = [np.full(len(queries), np.inf) for _ in settings]
            for _ in range(ROUNDS):
                for (index, setting), best in zip(settings, bests, strict=True):
                    seconds(index, setting, best)
            first, second = (1e6 * float(best.mean()) for best in bests)
            told = "; ".join(str(setting) for _, setting in settings)
            print(f"{mark}: {first:.1f} µs in one list, {second:.1f} in two, {first / second:.2f} × ({told})")


if __name__ == "__main__":
    main()
