"""What a second list a row would save: ``python -m bench.second_assignment --set glosses``.

A row that lies between two lists is missed by a query that probes only the other. SOAR (Sun et al., *SOAR:
Improved Indexing for Approximate Nearest Neighbor Search*, NeurIPS 2023) puts each row into a second list as
well: the one that makes the least of ``||r'||^2 + weight * <r, r'>^2 / ||r||^2``, where r and r' are the
row's residuals in both, so that the second is no copy of the first's error.

Lists are those of plain k-means; queries probe them in the order of their centroids' true distances; a
neighbour counts as found when a list that holds it is probed. So these are rows and lists that any scan needs
at the least, and nothing of what codes and pools lose: the gain of an idea before it is built, not a speed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from bench import sets
from bench.rows import SETS

CHOICES = 40  # nearest lists, of which the second is one
ROWS = 2_000  # at a time
MARKS = (0.90, 0.95, 0.99)
WEIGHTS = (0.0, 0.5, 1.0, 1.5)
K = 10
Labels = npt.NDArray[np.int64]


def main() -> None:
    """Train, assign, and tell how many lists and rows each mark takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="glosses", choices=sorted(SETS))
    parser.add_argument("--rows-a-list", type=int, nargs="+", default=[32, 16])
    options = parser.parse_args()
    import faiss  # an extra

    dataset = SETS[options.set]()
    base, queries = sets.normalised(dataset), dataset.queries
    lines = []
    for rows in options.rows_a_list:
        k = len(base) // rows
        trained = faiss.Kmeans(base.shape[1], k, niter=8, seed=1, max_points_per_centroid=40)
        trained.train(base)
        centroids = trained.centroids
        order = np.argsort((centroids**2).sum(1) - 2 * queries @ centroids.T, axis=1)
        first, seconds = assigned(base, centroids)
        lines.append((k, "one", *needed(order, [first], dataset.gt[:, :K])))
        for weight, second in seconds.items():
            lines.append((k, f"two, weight {weight:g}", *needed(order, [first, second], dataset.gt[:, :K])))
    heads = ("lists", "a row in", *(f"{what} for {mark}" for mark in MARKS for what in ("lists", "rows")))
    print(tabulate(lines, heads, tablefmt="github"))


def assigned(
    base: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]
) -> tuple[Labels, dict[float, Labels]]:
    """The nearest list of each row, and for each weight its second."""
    n, norms = len(base), (centroids**2).sum(1)
    first = np.empty(n, dtype=np.int64)
    seconds = {weight: np.empty(n, dtype=np.int64) for weight in WEIGHTS}
    for start in range(0, n, ROWS):
        x = base[start : start + ROWS]
        squared = (x**2).sum(1)[:, None] + norms - 2 * x @ centroids.T
        near = np.argpartition(squared, CHOICES, axis=1)[:, :CHOICES]
        near = np.take_along_axis(near, np.take_along_axis(squared, near, 1).argsort(axis=1), 1)
        distances = np.take_along_axis(squared, near, 1)
        first[start : start + ROWS] = near[:, 0]
        residual = x - centroids[near[:, 0]]
        norm = np.maximum((residual**2).sum(1), 1e-9)
        inner = (residual * x).sum(1)[:, None] - np.einsum("ij,ikj->ik", residual, centroids[near])
        for weight, second in seconds.items():
            cost = distances + weight * inner**2 / norm[:, None]
            cost[:, 0] = np.inf
            second[start : start + ROWS] = near[np.arange(len(x)), cost.argmin(1)]
    return first, seconds


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


if __name__ == "__main__":
    main()
