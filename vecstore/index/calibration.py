"""What a part's recall depends on, measured when it is built: `vecstore.index.recall` plans by it.

Some rows are held out of training and asked for as if they were new queries. Two things are
measured apart, because they are lost apart: *coverage*, the share of a query's true neighbours
that lie in the p nearest lists, and *quality*, the share of those found there that the candidate
pool and the re-ranking keep.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
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
    GAINS_FOR,
    KS,
    MARGIN_ERRORS,
    MAX_REACH,
    MOST_REACH,
    Calibration,
    base_probes,
    pool_size,
)
from vecstore.index.training import in_parts
from vecstore.manifest.model import Settings
from vecstore.types import F32, Metric

MAX_QUERIES: Final = 1_000
MIN_QUERIES: Final = 64
DRAWS: Final = 16  # of as many rows as are to be held out, until so many are distinct
QUALITY_QUERIES: Final = 256
QUALITY_COVERAGE: Final = 0.99
SCAN_BUDGET: Final = 2e11  # numbers, one bit each, that the scans of calibration read
GRID: Final = 48
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
    list_of_row = np.repeat(np.arange(partition.k), np.diff(partition.starts))
    cell_of_list = np.repeat(np.arange(len(partition.cells)), np.diff(partition.cell_lists))
    encoded = Encoded.of(records, lists)
    queries, towards = z[asked], None
    if metric == "dot":
        # A query's squared norm is a constant of the query; any value ranks alike.
        towards = queries if rotated_mean is None else queries + rotated_mean
        queries = _lengthened(queries, rotated_mean, partition.cells)

    def ready(table: QueryTable) -> None:
        rank_lists(table, partition.cells, partition.cell_lists, centroid_codes, 1)

    neighbours, distances = nearest_rows(
        z,
        partition.order,
        encoded,
        asked,
        queries,
        max(k for k in KS if k < len(z)),
        towards=towards,
        ready=ready,
        pool=pool,
    )
    needed: npt.NDArray[np.int32] = np.empty(neighbours.shape, dtype=np.int32)
    estimates = np.empty(neighbours.shape, dtype=np.float64)
    step = max(1, len(asked) // QUALITY_QUERIES)  # every so many queries tell of quality
    order = np.empty((-(-len(asked) // step), partition.k), dtype=np.int32)
    near = np.empty((len(asked), min(RANKED, partition.k)), dtype=np.int32)
    nearest = np.zeros(len(asked), dtype=np.float32)

    def rank(i: int) -> None:
        table = QueryTable(z.shape[1])
        table.prepare(queries[i], 0.0)
        ranked = np.empty(partition.k, dtype=np.float32)
        ranking = rank_lists(
            table, partition.cells, partition.cell_lists, centroid_codes, partition.k, ranked
        )
        place = np.empty(partition.k, dtype=np.int32)
        place[ranking] = np.arange(partition.k, dtype=np.int32)
        theirs = list_of_row[neighbours[i]]
        estimates[i] = ranked[place[theirs]]
        nearest[i] = ranked[0]
        needed[i] = np.maximum(
            place[theirs],
            looked_at_from(queries[i], partition.cells, partition.cell_lists)[cell_of_list[theirs]],
        )
        if i % step == 0:
            order[i // step] = ranking
        near[i] = rank_lists(table, partition.cells, partition.cell_lists, centroid_codes, near.shape[1])

    in_parts(pool, rank, range(len(asked)))

    grid = np.unique(np.geomspace(1, partition.k, GRID).round().astype(np.int64))
    coverage, errors, reach = [], [], []
    for k in KS:
        some = needed[:, : min(k, needed.shape[1])]
        found = np.array([(some < p).mean(axis=1) for p in grid])
        coverage.append(tuple(found.mean(axis=1).tolist()))
        errors.append(tuple((found.std(axis=1) / math.sqrt(len(asked))).tolist()))
        if metric != "dot":
            last = np.maximum(distances[:, some.shape[1] - 1].astype(np.float64), 1e-30)
            beside = np.clip(estimates[:, : some.shape[1]] / last[:, None], 0.0, MAX_REACH)
            reach.append(_reach(some, beside, grid, found.mean(axis=1)))
    reached = [np.flatnonzero(np.asarray(shares) >= QUALITY_COVERAGE) for shares in coverage]
    nprobes = [int(grid[found[0]] if len(found) else grid[-1]) for found in reached]
    quality = _quality(
        encoded, queries[::step], neighbours[::step], order, needed[::step], nprobes, settings, ready, pool
    )
    return Calibration(
        queries=len(asked),
        probes=tuple(grid.tolist()),
        coverage=tuple(coverage),
        errors=tuple(errors),
        quality=quality,
        reach=tuple(reach),
        bought=_bought(
            near, list_of_row[neighbours].astype(np.int32), grid, coverage, list_bounds(lists), pool
        ),
        nearest=0.0 if metric == "dot" else max(0.0, float(np.quantile(nearest, 1.0 - UNUSUAL))),
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


def _reach(
    needed: npt.NDArray[np.int32],
    beside: npt.NDArray[np.float64],
    probes: npt.NDArray[np.int64],
    coverage: npt.NDArray[np.float64],
) -> tuple[float, ...]:
    """The `Calibration.reach` of each grid point.

    Parameters
    ----------
    needed, beside
        i32[Q, k], f64[Q, k]: rank of each neighbour's list, and its estimate beside the last neighbour's
        squared distance.
    probes, coverage
        The grid, and what it covers.
    """
    out = []
    for p, covered in zip(probes.tolist(), coverage.tolist(), strict=True):
        missed = np.sort(beside[needed >= base_probes(p)])
        wanted = math.ceil(covered * needed.size) - (needed.size - len(missed))
        out.append(float(missed[min(wanted, len(missed)) - 1]) if wanted > 0 else 0.0)
    return tuple(np.maximum.accumulate(out).tolist())


def _bought(
    near: npt.NDArray[np.int32],
    theirs: npt.NDArray[np.int32],
    probes: npt.NDArray[np.int64],
    coverage: Sequence[Sequence[float]],
    bounds: npt.NDArray[np.int64],
    pool: Executor | None,
) -> tuple[tuple[float, ...], ...]:
    """The `Calibration.bought` of each of ``KS``.

    Parameters
    ----------
    near, theirs
        i32[Q, n], i32[Q, k]: the nearest lists of each query, and the lists of its neighbours.
    """
    gains = gains_of(probes, np.asarray(coverage[GAINS_FOR]), near.shape[1])
    found = np.empty((len(PRICES), *theirs.shape), dtype=np.bool_)

    def ask(i: int) -> None:
        for at, price in enumerate(PRICES):
            found[at, i] = found_at(price, near[i], gains, bounds, theirs[i])

    in_parts(pool, ask, range(len(near)))
    out = []
    for k in KS:
        shares = found[:, :, :k].mean(axis=2)
        errors = shares.std(axis=1) / math.sqrt(len(near))
        out.append(tuple((shares.mean(axis=1) - MARGIN_ERRORS * errors).tolist()))
    return tuple(out)


def _lengthened(z: F32, offset: F32 | None, cells: F32) -> F32:
    """Rows as queries under the dot product, each of the length that a search gives it."""
    centre = np.zeros(z.shape[1], dtype=np.float32) if offset is None else offset
    length, square = dot_length(cells, centre), dot_square(cells, centre)
    gains = np.array([dot_gain(row + centre, length, centre, square) for row in z], dtype=np.float32)
    return (z + centre) * gains[:, None] - centre


def _quality(
    encoded: Encoded,
    queries: F32,
    neighbours: npt.NDArray[np.int64],
    order: npt.NDArray[np.int32],
    needed: npt.NDArray[np.int32],
    nprobes: Sequence[int],
    settings: Settings,
    ready: Callable[[QueryTable], None],
    pool: Executor | None,
) -> dict[str, tuple[float, ...]]:
    """Share of the covered neighbours that each precision returns, for each of ``KS`` from its probes."""
    precisions = ("none", "int8", "fp32")
    kept = np.zeros((len(queries), len(KS), len(precisions)), dtype=np.int64)
    covered = np.zeros((len(queries), len(KS)), dtype=np.int64)

    def ask(q: int) -> None:
        table = QueryTable(queries.shape[1])
        table.prepare(queries[q], 0.0)
        ready(table)
        for i, (k, nprobe) in enumerate(zip(KS, nprobes, strict=True)):
            width = min(k, neighbours.shape[1])
            wanted = set(neighbours[q, :width][needed[q, :width] < nprobe].tolist())
            covered[q, i] = len(wanted)
            # The asked row itself is a stored row and always comes out first: one more place for it.
            found = Pool(pool_size(width, settings.rerank_scale) + 1)
            encoded.scan(table, found, order[q, :nprobe])
            for at, hits in enumerate(
                (
                    pool_hits(found, width + 1),
                    rerank_int8(table, found, width + 1),
                    pool_hits(found, pool_size(width, 1e3)),
                )
            ):
                kept[q, i, at] = len(wanted.intersection(hits.row.tolist()))

    in_parts(pool, ask, range(len(queries)))
    shares = kept.sum(axis=0) / np.maximum(1, covered.sum(axis=0))[:, None]
    return {precision: tuple(shares[:, i].tolist()) for i, precision in enumerate(precisions)}
