"""What a part's recall depends on, measured when it is built: `vecstore.index.recall` plans by it.

Some rows are held out of training and asked for as if they were new queries. Two things are
measured apart, because they are lost apart: *coverage*, the share of a query's true neighbours
that lie in the p nearest lists, and *quality*, the share of those found there that the candidate
pool and the re-ranking keep.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.ext.ivf import LOOKED_AT_A_LIST, LOOKED_AT_LEAST, LOOKED_AT_SHARE, Pool, rank_lists
from vecstore.ext.rabitq import QueryTable
from vecstore.ext.rerank import pool_hits, rerank_int8
from vecstore.index.dot import dot_gain, dot_length, dot_square
from vecstore.index.extents import PRICES, RANKED, found_at, gains_of, list_bounds
from vecstore.index.ivf import Partition
from vecstore.index.neighbours import Encoded, nearest_rows
from vecstore.index.recall import (
    FARTHEST,
    GAINS_FOR,
    KS,
    MARGIN_ERRORS,
    MAX_REACH,
    MOST_REACH,
    Calibration,
    Farther,
    base_probes,
    pool_size,
)
from vecstore.index.training import in_parts
from vecstore.manifest.model import Settings
from vecstore.types import F32, Metric

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Rows = tuple[tuple[float, ...], ...]

MAX_QUERIES: Final = 1_000
MIN_QUERIES: Final = 64
DRAWS: Final = 16  # of as many rows as are to be held out, until so many are distinct
MORE_QUERIES: Final = 256  # at most, that tell of quality and of what is bought
QUALITY_COVERAGE: Final = 0.99
SCAN_BUDGET: Final = 2e11  # numbers, one bit each, that the scans of calibration read
GRID: Final = 48
FARTHER: Final = (300, 1_000, 3_000)  # neighbours, of which fewer queries tell
FARTHER_QUERIES: Final = 128  # at most
UNUSUAL: Final = 0.003  # of queries like the rows, that are farther from every list


def held_out_rows(z: F32, seed: int) -> npt.NDArray[np.bool_] | None:
    """bool[n]: rows of f32[n, width] for calibration; None if the part is too small to spare any.

    Of equal ones a single row, where others can be found: a query for a row of which there are thousands
    finds it whatever is scanned, and says nothing of the others.
    """
    n, width = z.shape
    wanted = min(MAX_QUERIES, n // 10, int(SCAN_BUDGET / (n * width)) + MIN_QUERIES)
    if wanted < MIN_QUERIES:
        return None
    rng = np.random.Generator(np.random.Philox(seed + 1))
    drawn = rng.choice(n, size=wanted, replace=False)
    kept: dict[bytes, int] = {}
    for _ in range(DRAWS):
        for row in drawn.tolist():
            kept.setdefault(hashlib.blake2b(z[row].tobytes(), digest_size=16).digest(), row)
        if len(kept) >= wanted:
            break
        drawn = rng.integers(n, size=wanted)
    mask = np.zeros(n, dtype=np.bool_)
    mask[list(kept.values())[:wanted]] = True
    if len(kept) < MIN_QUERIES:
        mask[rng.choice(np.flatnonzero(~mask), size=MIN_QUERIES - len(kept), replace=False)] = True
    return mask


@dataclass(frozen=True, slots=True)
class _Told:
    """What one held-out row tells.

    Attributes
    ----------
    query
        f32[Dp]: as the codes are asked for it.
    rows, distances
        i64[FARTHEST], f32[FARTHEST]: its nearest rows of the part.
    needed, lists
        i32[k], of some queries more than of others: a plan finds each of the nearest if it is of more lists
        than this, and the list of each.
    estimates
        f32[FARTHEST]: how far the lists of the nearest were taken to be.
    near
        i32[n]: its nearest lists, as a search that fetches ranks them.
    order
        i32[K]: all lists from the nearest on; None if it does not tell of quality and what is bought.
    nearest
        The squared distance of the first of them.
    """

    query: F32
    rows: I64
    distances: F32
    needed: I32
    lists: I32
    estimates: F32
    near: I32
    order: I32 | None
    nearest: float


def calibrate(
    z: F32,
    held_out: npt.NDArray[np.bool_] | None,
    partition: Partition,
    records: npt.NDArray[np.uint8],
    lists: npt.NDArray[Any],
    centroid_codes: npt.NDArray[np.uint8],
    *,
    metric: Metric,
    rotated_mean: F32 | None,
    settings: Settings,
    pool: Executor | None = None,
) -> Calibration | None:
    """Ask the held-out rows, on the finished records and with the kernels that will answer queries."""
    if held_out is None or partition.k < 2:
        return None
    asked = np.flatnonzero(held_out)
    list_of_row = np.repeat(np.arange(partition.k, dtype=np.int32), np.diff(partition.starts))
    cell_of_list = np.repeat(np.arange(len(partition.cells)), np.diff(partition.cell_lists))
    encoded = Encoded.of(records, lists)
    queries, towards = z[asked], None
    if metric == "dot":
        # A query's squared norm is a constant of the query; any value ranks alike.
        towards = queries if rotated_mean is None else queries + rotated_mean
        queries = _lengthened(queries, rotated_mean, partition.cells)

    def ready(table: QueryTable) -> None:
        rank_lists(table, partition.cells, partition.cell_lists, centroid_codes, 1)

    def neighbours(these: I64, k: int) -> Iterable[tuple[int, I64, F32]]:
        """Of each of these queries its number, and the nearest k rows."""
        found = nearest_rows(
            z,
            partition.order,
            encoded,
            asked[these],
            queries[these],
            k,
            towards=None if towards is None else towards[these],
            ready=ready,
            pool=pool,
        )
        return zip(these.tolist(), *found, strict=True)

    def rank(of: tuple[int, I64, F32]) -> _Told:
        i, rows, distances = of
        table = QueryTable(z.shape[1])
        table.prepare(queries[i], 0.0)
        ranked = np.empty(partition.k, dtype=np.float32)
        order = rank_lists(table, partition.cells, partition.cell_lists, centroid_codes, partition.k, ranked)
        place = np.empty(partition.k, dtype=np.int32)
        place[order] = np.arange(partition.k, dtype=np.int32)
        theirs = list_of_row[rows]
        looked_at = looked_at_from(queries[i], partition.cells, partition.cell_lists)
        return _Told(
            query=queries[i],
            rows=rows[:FARTHEST].copy(),  # and not what it is a part of
            distances=distances[:FARTHEST].copy(),
            needed=np.maximum(place[theirs], looked_at[cell_of_list[theirs]]).astype(np.int32),
            lists=theirs,
            estimates=ranked[place[theirs[:FARTHEST]]],
            near=rank_lists(
                table, partition.cells, partition.cell_lists, centroid_codes, min(RANKED, partition.k)
            ),
            order=order if i % of_more == 0 else None,
            nearest=float(ranked[0]),
        )

    of_more = -(-len(asked) // MORE_QUERIES)
    farther = tuple(k for k in FARTHER if k < len(z))
    every = np.arange(len(asked))
    some = every[:: -(-len(asked) // FARTHER_QUERIES)]
    of_many = in_parts(pool, rank, neighbours(some, max((FARTHEST, *farther))))
    told = of_many + in_parts(pool, rank, neighbours(np.setdiff1d(every, some), FARTHEST))
    tell_more = [one for one in told if one.order is not None]

    grid = np.unique(np.geomspace(1, partition.k, GRID).round().astype(np.int64))
    coverage, errors = _coverage(told, KS, grid)
    gains, bounds = gains_of(grid, np.asarray(coverage[GAINS_FOR]), len(told[0].near)), list_bounds(lists)
    reached = [np.flatnonzero(np.asarray(shares) >= QUALITY_COVERAGE) for shares in coverage]
    nprobes = [int(grid[found[0]] if len(found) else grid[-1]) for found in reached]
    nearest = np.array([one.nearest for one in told])
    return Calibration(
        queries=len(asked),
        probes=tuple(grid.tolist()),
        coverage=coverage,
        errors=errors,
        quality=_quality(encoded, tell_more, nprobes, settings, ready, pool),
        reach=() if metric == "dot" else _reach(told, grid, coverage),
        bought=_bought(tell_more, KS, gains, bounds, pool),
        nearest=0.0 if metric == "dot" else max(0.0, float(np.quantile(nearest, 1.0 - UNUSUAL))),
        farther=Farther(
            farther,
            *_coverage(of_many, farther, grid),
            _bought(of_many, farther, gains, bounds, pool),
        ),
    )


def looked_at_from(query: F32, cells: F32, cell_lists: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """i64[C]: a query looks at the lists of a cell if its plan is more lists than this (`rank_lists`)."""
    order = np.argsort(((cells - query) ** 2).sum(axis=1), kind="stable")
    sizes = np.diff(cell_lists.astype(np.int64))
    before = np.empty(len(cells), dtype=np.int64)
    before[order] = np.cumsum(sizes[order]) - sizes[order]
    # It does once this many times its plan, and these, are more than the lists of nearer cells.
    least = max(LOOKED_AT_LEAST, int(cell_lists[-1]) // LOOKED_AT_SHARE)
    return np.maximum(0, (before - least) // (LOOKED_AT_A_LIST * MOST_REACH))


def _coverage(told: Sequence[_Told], ks: Sequence[int], grid: I64) -> tuple[Rows, Rows]:
    """The `Calibration.coverage` and its ``errors`` of each of ``ks``."""
    coverage, errors = [], []
    for k in ks:
        needed = np.stack([one.needed[:k] for one in told])
        found = np.array([(needed < p).mean(axis=1) for p in grid])
        coverage.append(tuple(found.mean(axis=1).tolist()))
        errors.append(tuple((found.std(axis=1) / math.sqrt(len(told))).tolist()))
    return tuple(coverage), tuple(errors)


def _reach(told: Sequence[_Told], grid: I64, coverage: Rows) -> Rows:
    """The `Calibration.reach` of each of ``KS``."""
    reach = []
    for k, shares in zip(KS, coverage, strict=True):
        needed = np.stack([one.needed[:k] for one in told])
        last = np.array([[max(float(one.distances[k - 1]), 1e-30)] for one in told])
        # How far each neighbour's list was taken to be, beside the last of them.
        beside = np.clip(np.stack([one.estimates[:k] for one in told]) / last, 0.0, MAX_REACH)
        out = []
        for p, covered in zip(grid.tolist(), shares, strict=True):
            missed = np.sort(beside[needed >= base_probes(p)])
            wanted = math.ceil(covered * needed.size) - (needed.size - len(missed))
            out.append(float(missed[min(wanted, len(missed)) - 1]) if wanted > 0 else 0.0)
        reach.append(tuple(np.maximum.accumulate(out).tolist()))
    return tuple(reach)


def _bought(
    told: Sequence[_Told],
    ks: Sequence[int],
    gains: npt.NDArray[np.float64],
    bounds: I64,
    pool: Executor | None,
) -> Rows:
    """The `Calibration.bought` of each of ``ks``.

    Parameters
    ----------
    gains, bounds
        f64[n], i64[K + 1]: what a list at each rank gains, and where the record of each begins.
    """

    def ask(one: _Told) -> list[npt.NDArray[np.float64]]:
        found = found_at(PRICES, one.near, gains, bounds, one.lists)
        return [found[:, :k].mean(axis=1) for k in ks]

    shares = np.array(in_parts(pool, ask, told))
    bought = shares.mean(axis=0) - MARGIN_ERRORS * shares.std(axis=0) / math.sqrt(len(told))
    return tuple(tuple(one.tolist()) for one in bought)


def _lengthened(z: F32, offset: F32 | None, cells: F32) -> F32:
    """Rows as queries under the dot product, each of the length that a search gives it."""
    centre = np.zeros(z.shape[1], dtype=np.float32) if offset is None else offset
    length, square = dot_length(cells, centre), dot_square(cells, centre)
    gains = np.array([dot_gain(row + centre, length, centre, square) for row in z], dtype=np.float32)
    return (z + centre) * gains[:, None] - centre


def _quality(
    encoded: Encoded,
    told: Sequence[_Told],
    nprobes: Sequence[int],
    settings: Settings,
    ready: Callable[[QueryTable], None],
    pool: Executor | None,
) -> dict[str, tuple[float, ...]]:
    """Share of the covered neighbours that each precision returns, for each of ``KS`` from its probes."""
    precisions = ("none", "int8", "fp32")

    def ask(one: _Told) -> tuple[list[int], list[list[int]]]:
        table = QueryTable(len(one.query))
        table.prepare(one.query, 0.0)
        ready(table)
        covered, kept = [], []
        for k, nprobe in zip(KS, nprobes, strict=True):
            wanted = set(one.rows[:k][one.needed[:k] < nprobe].tolist())
            covered.append(len(wanted))
            # The asked row itself is a stored row and always comes out first: one more place for it.
            found = Pool(pool_size(k, settings.rerank_scale) + 1)
            assert one.order is not None
            encoded.scan(table, found, one.order[:nprobe])
            answers = (
                pool_hits(found, k + 1),
                rerank_int8(table, found, k + 1),
                pool_hits(found, pool_size(k, 1e3)),
            )
            kept.append([len(wanted.intersection(hits.row.tolist())) for hits in answers])
        return covered, kept

    found = in_parts(pool, ask, told)
    covered = np.array([one for one, _ in found]).sum(axis=0)
    shares = np.array([one for _, one in found]).sum(axis=0) / np.maximum(1, covered)[:, None]
    return {precision: tuple(shares[:, i].tolist()) for i, precision in enumerate(precisions)}
