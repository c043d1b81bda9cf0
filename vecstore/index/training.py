"""Divides the rows of a part into lists that fill their blocks (docs/decisions/0005).

1. Cells by k-means over a sample, and lists by a few iterations of k-means within each cell: one
   level of K ~ N/31 would cost N * K * D.
2. Each row's choice of lists: those of its nearest cells that are nearest by the centroids' own
   1-bit codes, with their exact distances. It is made once and once again, after the lists have
   moved most.
3. Rounds of an auction that puts rows into lists of limited capacity, and of moving each centroid
   to the mean of its rows. Rows that are held out enter the last auction alone, so that until then
   lists keep room for them (docs/decisions/0014).

Every row is worked on by itself and every list is summed in the order of its rows, so that the
number of threads changes nothing. Beside the rows, N * (8 * CHOICES + 4 * NEAR_CELLS + 64) bytes are held
and as much as the centroids twice. What is large of it may lie in files (`vecstore.room`): rows whose
nearest cell is the same are read together, one cell after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from vecstore import deadline
from vecstore.ext.rabitq import encode_rabitq
from vecstore.ext.records import quantise_centroids
from vecstore.ext.train import (
    accumulate,
    assign_nearest,
    fill_lists,
    list_costs,
    list_means,
    nearest_few,
    nearest_lists,
)
from vecstore.index.ivf import CHUNK_BYTES, Partition, single_list
from vecstore.progress import Progress, within
from vecstore.room import IN_MEMORY, Room
from vecstore.types import F32

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
T = TypeVar("T")
R = TypeVar("R")

SAMPLE_A_CENTROID: Final = 256  # rows a centroid that k-means of the cells sees
CELL_ITERATIONS: Final = 10
LIST_ITERATIONS: Final = 1
NEAR_CELLS: Final = 6  # cells whose lists a row may move to
CHOICES: Final = 12  # lists that a row may move to
FREE_ROUNDS: Final = 1  # without a capacity, first
ROUNDS: Final = 4  # of auctions that move the centroids
TAUGHT_FILL: Final = 0.997  # of the room for teaching rows that they may fill
STEP: Final = 0.01  # of an auction, in mean costs
BIDS_A_ROW: Final = 100  # of an auction, at most; the glosses and Fashion-MNIST take 12
ROWS_A_TASK: Final = 4_096
LISTS_A_TASK: Final = 512


def train(
    z: F32,
    k: int,
    *,
    seed: int,
    held_out: npt.NDArray[np.bool_] | None = None,
    capacity: int | None = None,
    cells: F32 | None = None,
    room: Room = IN_MEMORY,
    pool: Executor | None = None,
    progress: Progress | None = None,
) -> Partition:
    """Divide rows into lists.

    Parameters
    ----------
    z
        f32[N, Dp], centred and rotated.
    k
        Lists wanted. Empty ones are dropped; with a capacity there are a few more where rows crowd so that
        the lists near them are full.
    seed
        Same rows, ``k``, capacity and seed give the same partition.
    held_out
        bool[N]: rows that are assigned but never move a centroid, so that calibration may ask
        for their neighbours as if they were new.
    capacity
        Rows a list holds at most; None for no limit.
    cells
        f32[C, Dp] of `train_cells`; None to find them here.
    room
        Where what is large lies. The partition does not depend on it.
    pool
        Threads to work with; None for the caller's alone. The partition does not depend on it.
    progress
        Called with the share that is done, 0 to 1.
    """
    if k <= 1:
        return single_list(z)
    report = within(progress, 0.0, 1.0)
    rng = np.random.Generator(np.random.Philox(seed))
    teachers = np.arange(len(z)) if held_out is None else np.flatnonzero(~held_out)
    k = min(k, len(teachers))

    if cells is None:
        sample = _sample(rng, teachers, sample_for_cells(k))
        cells = train_cells(room.take(z, sample), k, rng)
    near = nearest_cells(z, cells, min(NEAR_CELLS, len(cells)), room)
    report(0.1)
    centroids, owner = _train_lists(z, teachers, near[:, 0], cells, k, rng, room)
    report(0.4)
    work = _Rows.of(z, near, room, pool)
    steps = FREE_ROUNDS + ROUNDS + 2
    lists = _Lists.of(centroids, owner, cells)
    work.choose(lists)
    for turn in range(FREE_ROUNDS + ROUNDS):
        report(0.4 + 0.6 * (turn + 1) / steps)
        if capacity is None or turn < FREE_ROUNDS:
            labels = work.cheapest()
        else:
            taught = _taught_capacity(capacity, len(teachers), len(z), len(centroids))
            labels = work.auction(lists, taught, teachers)
            # They draw lists that have room towards where rows crowd.
            _place_rest(z, teachers[labels[teachers] < 0], labels, centroids, taught)
        work.means(labels, teachers, centroids)
        lists = _Lists.of(centroids, owner, cells)
        if turn == FREE_ROUNDS:
            work.choose(lists)
        else:
            work.price(lists)
    if capacity is None:
        labels = work.cheapest()
    else:
        labels = work.auction(lists, capacity, np.arange(len(z)))
        homeless = np.flatnonzero(labels < 0)
        if len(homeless):
            centroids, owner = _new_lists(
                z, homeless, labels, centroids, owner, near[:, 0], capacity, rng, room
            )
    report(1.0)
    return _partition(centroids, owner, labels, room)


def sample_for_cells(k: int) -> int:
    """Rows that `train_cells` wants to see."""
    return _cells_for(k) * SAMPLE_A_CENTROID


def train_cells(sample: F32, k: int, rng: np.random.Generator) -> F32:
    """f32[C, Dp]: cells for ``k`` lists, by k-means over sampled rows."""
    return _kmeans(sample, _cells_for(k), CELL_ITERATIONS, rng)


def _cells_for(k: int) -> int:
    return max(1, round(math.sqrt(k)))


def _sample(rng: np.random.Generator, rows: I64, size: int) -> I64:
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


def _assign(x: F32, centroids: F32) -> I32:
    labels = np.zeros(len(x), dtype=np.int32)
    best = np.full(len(x), np.inf, dtype=np.float32)
    half = _half_norms(centroids)
    step = _chunk_rows(len(centroids))
    for start in range(0, len(x), step):
        deadline.check()
        part = slice(start, start + step)
        assign_nearest(x[part] @ centroids.T, half, 0, best[part], labels[part], None)
    return labels


def nearest_cells(z: F32, cells: F32, t: int, room: Room = IN_MEMORY) -> I32:
    """i32[N, t]: the nearest cells of each row, the nearest first."""
    near = room.empty((len(z), t), np.int32)
    half = _half_norms(cells)
    step = _chunk_rows(len(cells))
    for start in range(0, len(z), step):
        deadline.check()
        part = slice(start, start + step)
        nearest_few(z[part] @ cells.T, half, near[part])
    return near


def _train_lists(
    z: F32, teachers: I64, cell_of: I32, cells: F32, k: int, rng: np.random.Generator, room: Room
) -> tuple[F32, I32]:
    """Lists within each cell, as many as its share of the rows; returns centroids and their cells."""
    order = teachers[np.argsort(cell_of[teachers], kind="stable")]
    bounds = np.searchsorted(cell_of[order], np.arange(len(cells) + 1))
    wanted = _shares(np.diff(bounds), k)
    centroids = room.empty((int(wanted.sum()), z.shape[1]), np.float32)
    owner = np.empty(len(centroids), dtype=np.int32)
    found = 0
    for cell in range(len(cells)):
        rows = order[bounds[cell] : bounds[cell + 1]]
        if not len(rows):
            continue
        some = _kmeans(room.take(z, rows), int(wanted[cell]), LIST_ITERATIONS, rng)
        centroids[found : found + len(some)] = some
        owner[found : found + len(some)] = cell
        found += len(some)
    return centroids[:found], owner[:found]


def _shares(rows: I64, k: int) -> I64:
    """Lists a cell in proportion to its rows: one at least, ``k`` together."""
    exact = k * rows / rows.sum()
    shares: I64 = np.maximum(np.rint(exact), rows > 0).astype(np.int64)
    while shares.sum() > k:
        shares[np.argmax(shares)] -= 1
    while shares.sum() < k:
        shares[np.argmax(exact - shares)] += 1
    return shares


@dataclass(frozen=True, slots=True)
class _Lists:
    """Centroids as they are stored, with their codes, cell by cell. ``owner`` of them is sorted."""

    cells: F32
    bounds: I64
    codes: npt.NDArray[np.uint8]
    centroids: npt.NDArray[np.int8]
    scales: F32
    half: F32

    @classmethod
    def of(cls, centroids: F32, owner: I32, cells: F32) -> _Lists:
        bounds = np.searchsorted(owner, np.arange(len(cells) + 1)).astype(np.int64)
        quantised, scales = quantise_centroids(centroids)
        half = np.empty(len(centroids), dtype=np.float32)
        codes = []
        for c, centre in enumerate(cells):
            mine = slice(int(bounds[c]), int(bounds[c + 1]))
            exact = quantised[mine].astype(np.float32) * scales[mine, None]
            codes.append(encode_rabitq(exact, centre, None))
            half[mine] = _half_norms(exact)
        return cls(cells, bounds, np.concatenate(codes), quantised, scales, half)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows with the lists that each may be in, and what these cost: half of the squared distance
    less half of the row's squared norm."""

    z: F32
    near: I32
    by_cell: I64  # rows whose nearest cell is the same lie together
    half: npt.NDArray[np.float64]
    choices: I32
    costs: F32
    pool: Executor | None

    @classmethod
    def of(cls, z: F32, near: I32, room: Room, pool: Executor | None) -> _Rows:
        by_cell = np.argsort(near[:, 0], kind="stable").astype(np.int64)
        half = 0.5 * np.einsum("ij,ij->i", z, z).astype(np.float64)
        shape = (len(z), CHOICES)
        return cls(z, near, by_cell, half, room.empty(shape, np.int32), room.empty(shape, np.float32), pool)

    def choose(self, lists: _Lists) -> None:
        def some(rows: I64) -> None:
            nearest_lists(
                self.z,
                rows,
                self.near,
                lists.cells,
                lists.bounds,
                lists.codes,
                lists.centroids,
                lists.scales,
                lists.half,
                self.choices,
                self.costs,
            )

        in_parts(self.pool, some, _cut(self.by_cell, ROWS_A_TASK))

    def price(self, lists: _Lists) -> None:
        def some(rows: I64) -> None:
            list_costs(self.z, rows, self.choices, lists.centroids, lists.scales, lists.half, self.costs)

        in_parts(self.pool, some, _cut(self.by_cell, ROWS_A_TASK))

    def cheapest(self) -> I32:
        best = self.costs.argmin(axis=1)[:, None]
        return np.take_along_axis(self.choices, best, axis=1)[:, 0]

    def auction(self, lists: _Lists, capacity: int, rows: I64) -> I32:
        """i32[N]: the list of each of ``rows``; -1 of others, and where all choices are too dear."""
        labels = np.full(len(self.z), -1, dtype=np.int32)
        mean = float((self.half[rows] + self.costs.min(axis=1)[rows]).mean())
        step = max(STEP * mean, 1e-6 * float(self.half.mean()), 1e-30)
        most = BIDS_A_ROW * len(rows)
        fill_lists(self.costs, self.choices, rows, len(lists.scales), capacity, step, most, labels)
        return labels

    def means(self, labels: I32, teachers: I64, centroids: F32) -> None:
        """Move each centroid to the mean of its teaching rows; a list without any stays where it was."""
        taught = labels[teachers]
        found = np.flatnonzero(taught >= 0)
        order = teachers[found[np.argsort(taught[found], kind="stable")]]
        starts = np.searchsorted(labels[order], np.arange(len(centroids) + 1)).astype(np.int64)

        def some(lists: I64) -> None:
            part = slice(int(lists[0]), int(lists[-1]) + 1)
            list_means(self.z, order, starts[part.start : part.stop + 1], centroids[part])

        in_parts(self.pool, some, _cut(np.arange(len(centroids)), LISTS_A_TASK))


def in_parts(pool: Executor | None, do: Callable[[T], R], parts: Iterable[T]) -> list[R]:
    """Do each part, in the threads of the pool if there is one; raises what a part raises.

    Begun no more once the caller's deadline has passed.
    """
    found = []
    for one in map(do, parts) if pool is None else pool.map(do, parts):
        deadline.check()
        found.append(one)
    return found


def _cut(numbers: I64, size: int) -> list[I64]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _taught_capacity(capacity: int, teachers: int, rows: int, lists: int) -> int:
    """Teaching rows a list may hold: the others find their share of its room free, if all teachers fit so."""
    fitting = math.ceil(teachers / (TAUGHT_FILL * lists))
    return min(capacity, max(fitting, capacity * teachers // rows))


def _place_rest(z: F32, rest: I64, labels: I32, centroids: F32, capacity: int) -> None:
    """Give each row of ``rest`` the nearest list that has room, if one has."""
    sizes = np.bincount(labels[labels >= 0], minlength=len(centroids))
    roomy = np.flatnonzero(sizes < capacity)
    if not len(roomy):
        return
    room = capacity - sizes[roomy]
    there = centroids[roomy]
    half = _half_norms(there)
    step = _chunk_rows(len(roomy))
    for start in range(0, len(rest), step):
        some = rest[start : start + step]
        for row, dots in zip(some, z[some] @ there.T, strict=True):
            best = int((half - dots).argmin())
            if room[best] == 0:
                return
            labels[row] = roomy[best]
            room[best] -= 1
            if room[best] == 0:
                half[best] = np.inf


def _new_lists(
    z: F32,
    homeless: I64,
    labels: I32,
    centroids: F32,
    owner: I32,
    cell_of: I32,
    capacity: int,
    rng: np.random.Generator,
    room: Room,
) -> tuple[F32, I32]:
    """Rows that no list near them takes get lists of their own, near rows together."""
    means, cells = [], []
    number = len(centroids)
    for cell in np.unique(cell_of[homeless]):
        here = homeless[cell_of[homeless] == cell]
        theirs = room.take(z, here)
        groups = _assign(theirs, _kmeans(theirs, math.ceil(2 * len(here) / capacity), LIST_ITERATIONS, rng))
        for group in np.unique(groups):
            for rows in _cut(here[groups == group], capacity):
                labels[rows] = number
                number += 1
                means.append(z[rows].mean(axis=0, dtype=np.float64).astype(np.float32))
                cells.append(cell)
    more = room.empty((number, z.shape[1]), np.float32)
    more[: len(centroids)] = centroids
    more[len(centroids) :] = means
    return more, np.concatenate([owner, np.array(cells, dtype=np.int32)])


def _partition(centroids: F32, owner: I32, labels: I32, room: Room) -> Partition:
    """Empty lists dropped, the others cell by cell."""
    counts = np.bincount(labels, minlength=len(centroids))
    kept = np.flatnonzero(counts)
    kept = kept[np.argsort(owner[kept], kind="stable")]
    renumber = np.full(len(centroids), -1, dtype=np.int64)
    renumber[kept] = np.arange(len(kept))
    labels64 = renumber[labels]
    owner = owner[kept]
    used = np.unique(owner)
    cell_lists = np.append(np.searchsorted(owner, used), len(owner)).astype(np.uint32)
    codes, scales = quantise_centroids(room.take(centroids, kept))
    sizes: Any = np.diff(cell_lists.astype(np.int64))
    means = np.empty((len(sizes), centroids.shape[1]), dtype=np.float32)
    for c in range(len(sizes)):
        mine = slice(int(cell_lists[c]), int(cell_lists[c + 1]))
        exact = codes[mine].astype(np.float32) * scales[mine, None]
        means[c] = np.add.reduceat(exact, [0], axis=0)[0]
    return Partition(
        cells=np.ascontiguousarray(means / sizes[:, None], dtype=np.float32),
        cell_lists=cell_lists,
        centroids=codes,
        scales=scales,
        order=np.argsort(labels64, kind="stable").astype(np.int64),
        starts=np.append(0, np.cumsum(counts[kept])).astype(np.int64),
    )
