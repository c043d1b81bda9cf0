"""Recall as a function of the lists probed: measured when a part is built, used to plan a query.

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
from functools import partial
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from vecstore.ext.ivf import LOOKED_AT_A_LIST, LOOKED_AT_LEAST, LOOKED_AT_SHARE, Pool, rank_lists
from vecstore.ext.rabitq import QueryTable
from vecstore.ext.rerank import pool_hits, rerank_int8
from vecstore.index.extents import PRICES, RANKED, found_at, gains_of, list_bounds
from vecstore.index.ivf import Partition
from vecstore.index.neighbours import Encoded, nearest_rows
from vecstore.index.training import in_parts
from vecstore.limits import MAX_PART_ROWS
from vecstore.manifest.model import Settings
from vecstore.rows.vectors import MAX_NORM
from vecstore.types import F32, Metric, RerankPrecision

KS: Final = (1, 3, 10, 30, 100)
FARTHEST: Final = KS[-1]
FASTER: Final = 1.15  # than the last two of ``KS`` tell, what is missed grows beyond them
GAINS_FOR: Final = KS.index(10)
MAX_QUERIES: Final = 1_000
MIN_QUERIES: Final = 64
DRAWS: Final = 16  # of as many rows as are to be held out, until so many are distinct
QUALITY_QUERIES: Final = 256
QUALITY_COVERAGE: Final = 0.99
SCAN_BUDGET: Final = 2e11  # numbers, one bit each, that the scans of calibration read
GRID: Final = 48
MAX_COVERAGE: Final = 0.999
# Without a pool: bounds of an estimate (1.9 of its errors each), and the share of neighbours that they keep.
BOUNDS: Final = ((1.0, 0.985), (1.4, 0.995))
DOT_LENGTH: Final = 32.0  # of a query under the dot product, in lengths of the farthest cell
OFFSET: Final = 4.0  # a mean so many times as far out as the farthest cell is from it outweighs the cells
MARGIN_ERRORS: Final = 0.5  # standard errors of the calibration that a plan adds to its target
BASE: Final = (
    0.7  # of the lists of a plan, that every query scans; the others where its own distances ask for it
)
MOST_REACH: Final = 2  # lists that a query may reach, in those of its plan
NO_REACH: Final = 1e-6  # a reach of no list
MAX_REACH: Final = 1e3  # where the last hit is no distance away
MAX_LOOKS: Final = 6
UNUSUAL: Final = 0.003  # of queries like the rows, that are farther from every list


class Calibration(Struct, frozen=True):
    """What was measured for one part.

    Attributes
    ----------
    queries
        How many held-out rows were asked.
    probes
        Grid of lists probed, ascending, the last is K.
    coverage
        For each of ``KS``: mean share of the true k nearest that lie in the lists, a value a grid point.
    errors
        For each of ``KS``: standard error of the coverage, a value a grid point.
    reach
        For each of ``KS`` and each grid point: a query that scans `BASE` of these lists, and then the
        lists no farther than this times its last hit, finds as much as one that scans all of them
        (docs/decisions/0004). Empty under the dot product, whose estimates are no distances.
    bought
        For each of ``KS``: mean share of the true k nearest in the extents that are worth fetching, less
        `MARGIN_ERRORS` standard errors, for each of `vecstore.index.extents.PRICES`. Empty in parts that
        were written before this was measured.
    quality
        For each re-rank precision and each of ``KS``: share of the covered that is kept.
    nearest
        The squared distance of the nearest list that few of the queries exceed (`UNUSUAL`); 0 under the dot
        product, and in parts that were written before this was measured.
    rows
        Of the part that was measured, where it was another than the one that carries this, which holds
        copies of some of its rows (`among`); 0 where it is the same.
    """

    queries: int
    probes: tuple[int, ...]
    coverage: tuple[tuple[float, ...], ...]
    errors: tuple[tuple[float, ...], ...]
    quality: dict[str, tuple[float, ...]]
    reach: tuple[tuple[float, ...], ...] = ()
    bought: tuple[tuple[float, ...], ...] = ()
    rows: int = 0
    nearest: float = 0.0

    def contradiction(self, k: int) -> str | None:
        """What keeps a plan from resting on this, of a part of ``k`` lists; None if it can."""
        points = len(self.probes)
        if not points or self.probes[0] < 1 or self.probes[-1] != k or (np.diff(self.probes) < 1).any():
            return f"its probes do not ascend to {k} lists"
        if self.rows < 0 or self.rows > MAX_PART_ROWS:
            return f"it is of {self.rows} rows"
        tables = {"coverage": self.coverage, "errors": self.errors}
        if self.reach:
            tables["reach"] = self.reach
        for name, table in tables.items():
            if len(table) != len(KS) or any(len(row) != points for row in table):
                return f"{name} has other than {len(KS)} rows of {points} numbers"
        if self.bought and [len(row) for row in self.bought] != [len(PRICES)] * len(KS):
            return f"bought has other than {len(KS)} rows of {len(PRICES)} numbers"
        if self.quality.keys() != set(get_args(RerankPrecision)):
            return "quality is of other precisions"
        if any(len(row) != len(KS) for row in self.quality.values()):
            return f"quality has other than {len(KS)} numbers"
        shares = (*self.coverage, *self.errors, *self.bought, *self.quality.values())
        if any(abs(share) > 2.0 for row in shares for share in row):  # one less its errors may be below 0
            return "a share is none"
        if not 0.0 <= self.nearest < math.inf:
            return "the distance of the nearest list is none"
        if any(not 0.0 <= one <= MAX_REACH for row in self.reach for one in row):
            return "a reach is none"
        return None

    def among(self, rows: int, k: int) -> Calibration:
        """What is known of a part of ``k`` of these lists, with some of the ``rows`` rows of this part.

        It is planned for as this part would be if the others were dead, so lists count by their share.
        """
        scaled = np.ceil(np.asarray(self.probes) * (k / self.probes[-1])).astype(np.int64)
        last = np.flatnonzero(np.diff(scaled, append=k + 1))  # the best of those that come to the same

        def kept(values: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple(one[i] for i in last) for one in values)

        return replace(
            self,
            probes=tuple(scaled[last].tolist()),
            coverage=kept(self.coverage),
            errors=kept(self.errors),
            reach=kept(self.reach),
            bought=(),  # other extents than of these lists
            nearest=0.0,  # these are fewer, and may all be far from what the others were near to
            rows=max(rows, self.rows),
        )


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


def pool_size(top_k: int, rerank_scale: float) -> int:
    """Candidates that the scan keeps: top_k * rerank_scale, and not so few that chance decides."""
    if rerank_scale <= 0.0:
        return top_k
    return max(math.ceil(top_k * rerank_scale), top_k + 32)


def dot_length(cells: F32 | None, mean: F32 | None) -> float:
    """How long a query must be under the dot product, beside the rows of a part; 0: as it is.

    A single cell lies at the mean on which the part is centred, and tells nothing of its rows.
    """
    offset = 0.0 if mean is None else _square(mean)
    return DOT_LENGTH * math.sqrt(_farthest(cells) + offset)


def dot_square(cells: F32 | None, mean: F32 | None) -> float:
    """What `dot_gain` needs of a part whose mean lies much farther out than its cells from it; else 0."""
    offset = 0.0 if mean is None else _square(mean)
    return offset if offset > OFFSET * OFFSET * _farthest(cells) else 0.0


def dot_gain(q: F32, length: float, mean: F32 | None = None, square: float = 0.0) -> float:
    """What to multiply a query by so that it is at least of this length; a power of two, so exact.

    Neighbours by the dot product do not depend on the query's length, but the error of a code does:
    it grows with the distance from the query to the row's centroid, hence relative to the query
    with 1 / its length. Beyond the norm that a query may have, squares would leave float32. Where all
    rows lie about a mean far out, of that squared norm, the query is brought to where it is nearest to the
    mean: nowhere is the distance less beside the query's length. That rounds it, so that the distances
    of hits are worked out anew by those that were given.
    """
    length = min(length, MAX_NORM)
    own = float(np.linalg.norm(q.astype(np.float64)))
    if own == 0.0 or length == 0.0:
        return 1.0
    gain = math.ldexp(1.0, max(-120, min(120, math.ceil(math.log2(length / own)))))
    along = 0.0 if mean is None or square == 0.0 else float(q.astype(np.float64) @ mean)
    return min(gain, square / along) if along > 0.0 else gain


def _square(mean: F32) -> float:
    return float(np.square(mean, dtype=np.float64).sum())


def _farthest(cells: F32 | None) -> float:
    """The greatest squared distance of a cell from the mean."""
    if cells is None or len(cells) < 2:
        return 0.0
    return float(np.einsum("ij,ij->i", cells, cells, dtype=np.float64).max())


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


def base_probes(probes: int) -> int:
    """Lists that every query scans whose plan is ``probes``."""
    return max(1, math.ceil(BASE * probes))


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


def probes_for(
    calibration: Calibration,
    target: float,
    precision: RerankPrecision,
    *,
    top_k: int,
    rank: float,
    skip: float = 0.0,
    most: float = math.inf,
    unpooled: float | None = None,
) -> int:
    """Lists to probe for a mean recall of ``target``.

    Parameters
    ----------
    top_k
        Hits asked for, which share one pool of candidates over all parts.
    rank
        Neighbours wanted of *this part*; a fraction where the namespace has many parts, each of
        which holds only some of the answer.
    skip
        Rows of this part that are nearer than those but not wanted, because they are dead.
    most
        The neighbour beyond which a plan does not look.
    unpooled
        What is kept where rows are scored as they are scanned, without a pool (`bounds_for`).
    """
    skip = min(skip, most - 1.0)
    rank = min(max(rank, 1.0), most - skip)
    coverage = _coverage(partial(_mean_coverage, calibration), rank, skip)
    wanted = min(_wanted(calibration, target, precision, top_k, unpooled), float(coverage[-1]))
    reached = int(np.argmax(coverage >= wanted))
    if reached == 0:
        return calibration.probes[0]
    below, above = float(coverage[reached - 1]), float(coverage[reached])
    step = (wanted - below) / (above - below) if above > below else 1.0
    first, last = calibration.probes[reached - 1], calibration.probes[reached]
    return math.ceil(first * math.pow(last / first, step))


def price_for(
    calibration: Calibration,
    target: float,
    precision: RerankPrecision,
    *,
    top_k: int,
    rank: float,
    skip: float = 0.0,
    unpooled: float | None = None,
) -> float | None:
    """The price of a byte at which extents are bought for a mean recall of ``target``; None if unknown.

    Parameters as those of `probes_for`, whose plan finds as much.
    """
    if not calibration.bought:
        return None
    coverage = _coverage(partial(_covered, calibration.bought), max(rank, 1.0), skip)
    wanted = _wanted(calibration, target, precision, top_k, unpooled)
    reached = int(np.argmax(coverage >= wanted))
    if coverage[reached] < wanted:
        return None
    if reached == 0:
        return PRICES[0]
    below, above = float(coverage[reached - 1]), float(coverage[reached])
    step = (wanted - below) / (above - below)
    first, last = PRICES[reached - 1], PRICES[reached]
    return first * math.pow(last / first, step)


def gains_for(calibration: Calibration, ranked: int, spread: int = 1) -> npt.NDArray[np.float64]:
    """f64[ranked]: what `vecstore.index.extents` takes a list at each rank to gain.

    Of a query whose neighbours lie ``spread`` times as far down the ranking as others'.
    """
    probes = spread * np.asarray(calibration.probes)
    return gains_of(probes, np.asarray(calibration.coverage[GAINS_FOR]), ranked)


def reach_for(calibration: Calibration, probes: int, rank: float) -> float:
    """The `Calibration.reach` of a plan of ``probes`` lists for neighbours up to ``rank``; 0 if unknown."""
    if not calibration.reach:
        return 0.0
    low, high, share = _between(math.log(max(rank, 1.0)))
    at = np.log(calibration.probes)
    first, second = (float(np.interp(math.log(probes), at, calibration.reach[i])) for i in (low, high))
    return max(NO_REACH, first + share * (second - first))


def kept_by(
    calibration: Calibration, precision: RerankPrecision, top_k: int, unpooled: float | None = None
) -> float:
    """The share of the covered neighbours that re-ranking keeps, of the usual pool or without one."""
    kept = _at(calibration.quality[precision], math.log(max(top_k, 1)))
    if unpooled is None:
        return kept
    return unpooled * min(1.0, kept / _at(calibration.quality["fp32"], math.log(max(top_k, 1))))


def bounds_for(target: float) -> tuple[float, float]:
    """Bounds of an estimate by which a row may be nearer than it says, for a target, and what they keep."""
    return BOUNDS[target > BOUNDS[0][1] * MAX_COVERAGE]


def _wanted(
    calibration: Calibration,
    target: float,
    precision: RerankPrecision,
    top_k: int,
    unpooled: float | None,
) -> float:
    """The coverage at which re-ranking leaves the recall that is asked for."""
    kept = kept_by(calibration, precision, top_k, unpooled)
    # A precision that cannot reach the target is no reason to read everything.
    return target / kept if target / kept <= MAX_COVERAGE else max(target, MAX_COVERAGE * kept)


def _coverage(
    covered: Callable[[float], npt.NDArray[np.float64]], rank: float, skip: float
) -> npt.NDArray[np.float64]:
    """Coverage of the neighbours ``skip + 1 … skip + rank`` from that of the k nearest; never descending."""
    coverage = covered(skip + rank)
    if skip > 0.0:
        nearer = covered(max(skip, 1.0))
        coverage = coverage + (coverage - nearer) * (skip / rank)
    return np.maximum.accumulate(coverage)


def _mean_coverage(calibration: Calibration, k: float) -> npt.NDArray[np.float64]:
    """Less a margin, a value a grid point."""
    return _covered(calibration.coverage, k) - MARGIN_ERRORS * np.maximum(0.0, _blend(calibration.errors, k))


def _covered(rows: Sequence[Sequence[float]], k: float) -> npt.NDArray[np.float64]:
    """The share that is covered of k neighbours.

    Beyond those that were measured what is missed grows as a power of k: the one that the last two of ``KS``
    tell, and no faster than k.
    """
    found = _blend(rows, k)
    if k <= FARTHEST:
        return found
    before, last = (np.maximum(1.0 - np.asarray(rows[i]), 0.0) for i in (-2, -1))
    step = FARTHEST / KS[-2]
    growth = np.clip(last / np.maximum(before, last / step + 1e-30), 1.0, step)
    power = FASTER * math.log(k / FARTHEST) / math.log(step)
    return np.asarray(1.0 - np.minimum(1.0, last * growth**power))


def _blend(rows: Sequence[Sequence[float]], k: float) -> npt.NDArray[np.float64]:
    """What holds for k neighbours, from what was measured for each of ``KS``; beyond, that of the last."""
    low, high, share = _between(math.log(k))
    first, second = np.asarray(rows[low]), np.asarray(rows[high])
    return np.asarray(first + share * (second - first), dtype=np.float64)


def _between(x: float) -> tuple[int, int, float]:
    """The two of ``KS`` around log k = ``x``, and how far it lies between them."""
    points = [math.log(k) for k in KS]
    x = min(max(x, 0.0), points[-1])
    high = next(i for i, point in enumerate(points) if point >= x - 1e-12)
    low = max(0, high - 1)
    return low, high, 0.0 if low == high else (x - points[low]) / (points[high] - points[low])


def _at(values: Sequence[float], x: float) -> float:
    low, high, share = _between(x)
    return max(1e-3, values[low] + share * (values[high] - values[low]))
