"""Training of a part's lists, and the plan of how many to probe.

Lists are many and small (about one block of the scan kernel each): DESIGN section 12 shows that
the rows which must be scanned for a recall depend above all on the size of a list. They are
trained in two levels, because one level of K ~ N/32 would cost N*K*D: cells by k-means over a
sample, lists by k-means within each cell; then passes in which every row may move to any list of
its nearest cells repair most of what the cell borders cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.ext.train import accumulate, assign_nearest, quantise_centroids
from vecstore.manifest.model import Settings
from vecstore.types import F32

SAMPLE_A_CENTROID: Final = 256  # rows a centroid that k-means of the cells sees
CELL_ITERATIONS: Final = 10
LIST_ITERATIONS: Final = 8
REASSIGN_PASSES: Final = 3
NEAR_CELLS: Final = 12  # cells whose lists a row may move to
CHUNK_BYTES: Final = 2 << 20  # of one block of the matrix of distances: what the L2 cache holds


@dataclass(frozen=True, slots=True)
class Partition:
    """Rows of a part divided into lists, lists into cells.

    Attributes
    ----------
    cells
        f32[C, Dp] centroids of the cells.
    cell_lists
        u32[C + 1] first list of each cell.
    centroids, scales
        i8[K, Dp] and f32[K]: the centroid of list l is ``scales[l] * centroids[l]``.
    order
        i64[N]: input rows in list order.
    starts
        i64[K + 1]: first position in ``order`` of each list.
    """

    cells: F32
    cell_lists: npt.NDArray[np.uint32]
    centroids: npt.NDArray[np.int8]
    scales: F32
    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @property
    def k(self) -> int:
        return len(self.scales)


def lists_for(n: int, dim: int, settings: Settings) -> int:
    """K of a part of ``n`` rows (DESIGN section 5)."""
    if n * dim <= settings.small_part_threshold or n < 2:
        return 1
    wanted = n / settings.list_rows if settings.list_rows else settings.cluster_factor * math.sqrt(n)
    return max(1, min(n, max(settings.k_min, min(settings.k_max, round(wanted)))))


def single_list(z: F32) -> Partition:
    """The partition of a small part: one list around its mean."""
    centre = z.mean(axis=0, dtype=np.float64).astype(np.float32)[None, :]
    centroids, scales = quantise_centroids(centre)
    return Partition(
        cells=centre,
        cell_lists=np.array([0, 1], dtype=np.uint32),
        centroids=centroids,
        scales=scales,
        order=np.arange(len(z), dtype=np.int64),
        starts=np.array([0, len(z)], dtype=np.int64),
    )


def train(z: F32, k: int, *, seed: int, held_out: npt.NDArray[np.bool_] | None = None) -> Partition:
    """Divide rows into at most ``k`` lists by two-level k-means.

    Parameters
    ----------
    z
        f32[N, Dp], centred and rotated.
    k
        Lists wanted; empty ones are dropped.
    seed
        Same rows, ``k`` and seed give the same partition.
    held_out
        bool[N]: rows that are assigned but never move a centroid, so that calibration may ask
        for their neighbours as if they were new.
    """
    if k <= 1:
        return single_list(z)
    rng = np.random.Generator(np.random.Philox(seed))
    teachers = np.arange(len(z)) if held_out is None else np.flatnonzero(~held_out)
    k = min(k, len(teachers))

    c = max(1, round(math.sqrt(k)))
    sample = _sample(rng, teachers, c * SAMPLE_A_CENTROID)
    cells = _kmeans(z[sample], c, CELL_ITERATIONS, rng)
    near = _nearest_cells(z, cells, min(NEAR_CELLS, len(cells)))

    centroids, owner = _train_lists(z, teachers, near[:, 0], cells, k, rng)
    teaching = np.ones(len(z), dtype=np.bool_) if held_out is None else ~held_out
    for _ in range(REASSIGN_PASSES):
        labels = _reassign(z, centroids, owner, near)
        centroids = _update(z, labels, teaching, centroids)
    return _finish(z, centroids, owner, near)


def _sample(rng: np.random.Generator, rows: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    if len(rows) <= size:
        return rows
    return np.sort(rng.choice(rows, size=size, replace=False))


def _kmeans(x: F32, k: int, iterations: int, rng: np.random.Generator) -> F32:
    """Lloyd's iterations from random rows; an empty cluster is reseeded beside the largest one."""
    k = min(k, len(x))
    centroids: F32 = x[np.sort(rng.choice(len(x), size=k, replace=False))].copy()
    for _ in range(iterations):
        labels = _assign(x, centroids)
        sums = np.zeros((k, x.shape[1]), dtype=np.float64)
        counts = np.zeros(k, dtype=np.int64)
        accumulate(x, labels, sums, counts)
        filled = counts > 0
        centroids[filled] = (sums[filled] / counts[filled, None]).astype(np.float32)
        for empty in np.flatnonzero(~filled):
            largest = int(counts.argmax())
            members = np.flatnonzero(labels == largest)
            taken = members[rng.integers(len(members))]
            centroids[empty] = x[taken]
            labels[taken] = empty
            counts[largest] -= 1
            counts[empty] = 1
    return centroids


def _half_norms(centroids: F32) -> F32:
    norms: F32 = np.einsum("ij,ij->i", centroids, centroids) * np.float32(0.5)
    return norms


def _chunk_rows(columns: int) -> int:
    return max(256, CHUNK_BYTES // (4 * columns))


def _assign(x: F32, centroids: F32) -> npt.NDArray[np.int32]:
    labels = np.zeros(len(x), dtype=np.int32)
    best = np.full(len(x), np.inf, dtype=np.float32)
    half = _half_norms(centroids)
    step = _chunk_rows(len(centroids))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        assign_nearest(x[part] @ centroids.T, half, 0, best[part], labels[part], None)
    return labels


def _nearest_cells(z: F32, cells: F32, t: int) -> npt.NDArray[np.int32]:
    """i32[N, t]: the nearest cells of each row, the nearest first."""
    near = np.empty((len(z), t), dtype=np.int32)
    half = _half_norms(cells)
    step = _chunk_rows(len(cells))
    for start in range(0, len(z), step):
        scores = half - z[start : start + step] @ cells.T
        if t < len(cells):
            found = np.argpartition(scores, t - 1, axis=1)[:, :t]
        else:
            found = np.broadcast_to(np.arange(t), scores.shape)
        by_distance = np.argsort(np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
        near[start : start + step] = np.take_along_axis(found, by_distance, axis=1)
    return near


def _train_lists(
    z: F32,
    teachers: npt.NDArray[np.int64],
    cell_of: npt.NDArray[np.int32],
    cells: F32,
    k: int,
    rng: np.random.Generator,
) -> tuple[F32, npt.NDArray[np.int32]]:
    """Lists within each cell, as many as its share of the rows; returns centroids and their cells."""
    order = teachers[np.argsort(cell_of[teachers], kind="stable")]
    bounds = np.searchsorted(cell_of[order], np.arange(len(cells) + 1))
    wanted = _shares(np.diff(bounds), k)
    centroids: list[F32] = []
    owner: list[npt.NDArray[np.int32]] = []
    for cell in range(len(cells)):
        rows = order[bounds[cell] : bounds[cell + 1]]
        if not len(rows):
            continue
        found = _kmeans(z[rows], int(wanted[cell]), LIST_ITERATIONS, rng)
        centroids.append(found)
        owner.append(np.full(len(found), cell, dtype=np.int32))
    return np.concatenate(centroids), np.concatenate(owner)


def _shares(rows: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    """Lists a cell in proportion to its rows: one at least, ``k`` together at most."""
    shares: npt.NDArray[np.int64] = np.maximum(np.rint(k * rows / rows.sum()), rows > 0).astype(np.int64)
    while shares.sum() > k:
        shares[np.argmax(shares)] -= 1
    return shares


def _reassign(
    z: F32, centroids: F32, owner: npt.NDArray[np.int32], near: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """i32[N]: the nearest list among those of each row's nearest cells. ``owner`` is sorted."""
    labels = np.zeros(len(z), dtype=np.int32)
    best = np.full(len(z), np.inf, dtype=np.float32)
    half = _half_norms(centroids)
    flat = near.ravel()
    by_cell = np.argsort(flat, kind="stable")
    rows_by_cell = by_cell // near.shape[1]
    cells = int(owner[-1]) + 1
    row_bounds = np.searchsorted(flat[by_cell], np.arange(cells + 1))
    list_bounds = np.searchsorted(owner, np.arange(cells + 1))
    for cell in range(cells):
        first, last = int(list_bounds[cell]), int(list_bounds[cell + 1])
        rows = rows_by_cell[row_bounds[cell] : row_bounds[cell + 1]]
        if first == last:
            continue
        step = max(256, min(_chunk_rows(last - first), CHUNK_BYTES // (4 * z.shape[1])))
        for start in range(0, len(rows), step):
            some = np.ascontiguousarray(rows[start : start + step])
            dots = z[some] @ centroids[first:last].T
            assign_nearest(dots, half[first:last], first, best, labels, some)
    return labels


def _update(z: F32, labels: npt.NDArray[np.int32], teaching: npt.NDArray[np.bool_], centroids: F32) -> F32:
    """Centroids of the teaching rows; a list that lost all of them stays where it was."""
    if not teaching.all():
        labels = np.where(teaching, labels, -1).astype(np.int32)
    sums = np.zeros(centroids.shape, dtype=np.float64)
    counts = np.zeros(len(centroids), dtype=np.int64)
    accumulate(z, labels, sums, counts)
    moved = centroids.copy()
    filled = counts > 0
    moved[filled] = (sums[filled] / counts[filled, None]).astype(np.float32)
    return moved


def _finish(
    z: F32,
    centroids: F32,
    owner: npt.NDArray[np.int32],
    near: npt.NDArray[np.int32],
) -> Partition:
    labels = _reassign(z, centroids, owner, near)
    counts = np.bincount(labels, minlength=len(centroids))
    kept = np.flatnonzero(counts)
    renumber = np.full(len(centroids), -1, dtype=np.int64)
    renumber[kept] = np.arange(len(kept))
    labels64 = renumber[labels]
    owner = owner[kept]
    used = np.unique(owner)
    cell_lists = np.append(np.searchsorted(owner, used), len(owner)).astype(np.uint32)
    codes, scales = quantise_centroids(np.ascontiguousarray(centroids[kept]))
    exact: Any = codes.astype(np.float32) * scales[:, None]
    means = np.add.reduceat(exact, cell_lists[:-1].astype(np.int64), axis=0)
    sizes = np.diff(cell_lists.astype(np.int64))
    return Partition(
        cells=np.ascontiguousarray(means / sizes[:, None], dtype=np.float32),
        cell_lists=cell_lists,
        centroids=codes,
        scales=scales,
        order=np.argsort(labels64, kind="stable").astype(np.int64),
        starts=np.append(0, np.cumsum(counts[kept])).astype(np.int64),
    )


def planned_probes(k: int, probe_fraction: float, nprobe_cap: int) -> int:
    """nprobe = clamp(round(probe_fraction * K), 1, min(K, nprobe_cap)) (DESIGN section 5)."""
    return max(1, min(k, nprobe_cap, round(probe_fraction * k)))
