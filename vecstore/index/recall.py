"""Recall as a function of the lists probed: what is known of a part, and how far to go for a target.

`vecstore.index.calibration` measures it when a part is built; `vecstore.index.plan` makes a plan of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, get_args

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from vecstore.index.extents import PRICES, gains_of
from vecstore.limits import MAX_PART_ROWS
from vecstore.types import RerankPrecision

KS: Final = (1, 3, 10, 30, 100)
FARTHEST: Final = KS[-1]
FASTER: Final = 1.15  # than the last two that were measured tell, what is missed grows beyond them
GAINS_FOR: Final = KS.index(10)
MAX_COVERAGE: Final = 0.999
# Without a pool: bounds of an estimate (1.9 of its errors each), and the share of neighbours that they keep.
BOUNDS: Final = ((1.0, 0.985), (1.4, 0.995))
MARGIN_ERRORS: Final = 0.5  # standard errors of the calibration that a plan adds to its target
BASE: Final = 0.7  # of the lists of a plan, that every query scans; the others where its distances ask for it
MOST_REACH: Final = 2  # lists that a query may reach, in those of its plan
NO_REACH: Final = 1e-6  # a reach of no list
MAX_REACH: Final = 1e3  # where the last hit is no distance away


class Farther(Struct, frozen=True):
    """What was measured of more neighbours than ``KS``, of fewer queries (docs/decisions/0047).

    Attributes
    ----------
    ks
        Numbers of neighbours, ascending, all beyond ``KS``.
    coverage, errors, bought
        For each of them as `Calibration` has it for ``KS``.
    """

    ks: tuple[int, ...] = ()
    coverage: tuple[tuple[float, ...], ...] = ()
    errors: tuple[tuple[float, ...], ...] = ()
    bought: tuple[tuple[float, ...], ...] = ()


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
        The squared distance of the nearest list that few of the queries exceed (`calibration.UNUSUAL`); 0
        under the dot product, and in parts that were written before this was measured.
    rows
        Of the part that was measured, where it was another than the one that carries this, which holds
        copies of some of its rows (`among`); 0 where it is the same.
    farther
        The same of more neighbours; empty in parts that were written before this was measured.
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
    farther: Farther = Farther()

    @property
    def ks(self) -> tuple[int, ...]:
        """The numbers of neighbours that were measured."""
        return (*KS, *self.farther.ks)

    def contradiction(self, k: int) -> str | None:
        """What keeps a plan from resting on this, of a part of ``k`` lists; None if it can."""
        points = len(self.probes)
        if not points or self.probes[0] < 1 or self.probes[-1] != k or (np.diff(self.probes) < 1).any():
            return f"its probes do not ascend to {k} lists"
        if self.rows < 0 or self.rows > MAX_PART_ROWS:
            return f"it is of {self.rows} rows"
        if list(self.ks) != sorted(set(self.ks)) or self.ks[-1] > MAX_PART_ROWS:
            return "its numbers of neighbours do not ascend"
        farther = self.farther
        tables = [
            ("coverage", self.coverage, len(KS), points),
            ("errors", self.errors, len(KS), points),
            ("reach", self.reach, len(KS) if self.reach else 0, points),
            ("bought", self.bought, len(KS) if self.bought else 0, len(PRICES)),
            ("farther.coverage", farther.coverage, len(farther.ks), points),
            ("farther.errors", farther.errors, len(farther.ks), points),
            ("farther.bought", farther.bought, len(farther.ks) if self.bought else 0, len(PRICES)),
        ]
        for name, table, rows, columns in tables:
            if len(table) != rows or any(len(row) != columns for row in table):
                return f"{name} has other than {rows} rows of {columns} numbers"
        if self.quality.keys() != set(get_args(RerankPrecision)):
            return "quality is of other precisions"
        if any(len(row) != len(KS) for row in self.quality.values()):
            return f"quality has other than {len(KS)} numbers"
        shares = (*self.coverage, *self.errors, *self.bought, *self.quality.values())
        shares += (*farther.coverage, *farther.errors, *farther.bought)
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
            farther=replace(
                self.farther,
                coverage=kept(self.farther.coverage),
                errors=kept(self.farther.errors),
                bought=(),
            ),
        )


def pool_size(top_k: int, rerank_scale: float) -> int:
    """Candidates that the scan keeps: top_k * rerank_scale, and not so few that chance decides."""
    if rerank_scale <= 0.0:
        return top_k
    return max(math.ceil(top_k * rerank_scale), top_k + 32)


def base_probes(probes: int) -> int:
    """Lists that every query scans whose plan is ``probes``."""
    return max(1, math.ceil(BASE * probes))


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
    bought = (*calibration.bought, *calibration.farther.bought)
    coverage = _coverage(partial(_covered, calibration.ks, bought), max(rank, 1.0), skip)
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
    low, high, share = _between(KS, max(rank, 1.0))
    at = np.log(calibration.probes)
    first, second = (float(np.interp(math.log(probes), at, calibration.reach[i])) for i in (low, high))
    return max(NO_REACH, first + share * (second - first))


def kept_by(
    calibration: Calibration, precision: RerankPrecision, top_k: int, unpooled: float | None = None
) -> float:
    """The share of the covered neighbours that re-ranking keeps, of the usual pool or without one."""
    kept = _at(calibration.quality[precision], max(top_k, 1))
    if unpooled is None:
        return kept
    return unpooled * min(1.0, kept / _at(calibration.quality["fp32"], max(top_k, 1)))


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
    ks, farther = calibration.ks, calibration.farther
    errors = _blend(ks, (*calibration.errors, *farther.errors), k)
    return _covered(ks, (*calibration.coverage, *farther.coverage), k) - MARGIN_ERRORS * np.maximum(
        0.0, errors
    )


def _covered(ks: Sequence[int], rows: Sequence[Sequence[float]], k: float) -> npt.NDArray[np.float64]:
    """The share that is covered of k neighbours, from that of each of ``ks``.

    Beyond those what is missed grows as a power of k: the one that the last two tell, and no faster than k.
    """
    found = _blend(ks, rows, k)
    if k <= ks[-1]:
        return found
    before, last = (np.maximum(1.0 - np.asarray(rows[i]), 0.0) for i in (-2, -1))
    step = ks[-1] / ks[-2]
    growth = np.clip(last / np.maximum(before, last / step + 1e-30), 1.0, step)
    power = FASTER * math.log(k / ks[-1]) / math.log(step)
    return np.asarray(1.0 - np.minimum(1.0, last * growth**power))


def _blend(ks: Sequence[int], rows: Sequence[Sequence[float]], k: float) -> npt.NDArray[np.float64]:
    """What holds for k neighbours, from what was measured for each of ``ks``; beyond, that of the last."""
    low, high, share = _between(ks, k)
    first, second = np.asarray(rows[low]), np.asarray(rows[high])
    return np.asarray(first + share * (second - first), dtype=np.float64)


def _between(ks: Sequence[int], k: float) -> tuple[int, int, float]:
    """The two of ``ks`` around ``k``, and how far it lies between them, by logarithms."""
    points = [math.log(one) for one in ks]
    x = min(max(math.log(k), 0.0), points[-1])
    high = next(i for i, point in enumerate(points) if point >= x - 1e-12)
    low = max(0, high - 1)
    return low, high, 0.0 if low == high else (x - points[low]) / (points[high] - points[low])


def _at(values: Sequence[float], k: float) -> float:
    low, high, share = _between(KS, k)
    return max(1e-3, values[low] + share * (values[high] - values[low]))
