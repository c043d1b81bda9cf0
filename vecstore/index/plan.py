"""What is asked becomes a plan: how far a query goes into each part, and how its candidates are ordered.

`vecstore.index.recall` tells what a part's calibration asks for; here the parts of a view, their dead rows, a
filter and the settings of the namespace come to it. `vecstore.index.search` carries the plan out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vecstore.ext.field import Plan
from vecstore.ext.ivf import MAX_CAPACITY
from vecstore.index.ivf import planned_probes
from vecstore.index.recall import (
    FARTHEST,
    MAX_COVERAGE,
    MOST_REACH,
    base_probes,
    bounds_for,
    kept_by,
    pool_size,
    probes_for,
    reach_for,
)
from vecstore.index.view import OpenPart, View
from vecstore.types import RerankPrecision, SearchParams

MISSED_SHARE: Final = 0.1  # candidates a hit are at least this over the recall that a target lets go
MARGIN: Final = 0.8  # bounds of an estimate (1.9 of its errors) between the last hit and the pool's end
WIDEN: Final = 4
PATIENCE: Final = 2.0  # lists probed under the dot product, in places of the farthest list that held a hit
EXACT_WORTH: Final = 4  # lists whose scan takes as long as to score one hit by its vector
HOLLOW: Final = 0.75  # of the live rows that lists have elsewhere, that those about a query lack in a hole
MAX_LOOKS: Final = 6
MAX_PLANS: Final = 1_000  # remembered by a view
REACHED: Final = 2.0 * FARTHEST  # neighbours up to which a reach holds that was measured for the farthest
MATCHES_BEYOND: Final = 3.0 * FARTHEST  # as far as a plan looks for matches that no reach tells of
UNCALIBRATED: Final = 4_096  # rows up to which a part without calibration is probed whole for a target


def plan_for(view: View, params: SearchParams) -> Plan:
    """Fill in the namespace's defaults and plan every part; remembered by the view."""
    key: tuple[Any, ...] = (
        params.top_k,
        params.nprobe,
        params.target_recall,
        params.probe_fraction,
        params.rerank_scale,
        params.rerank_precision,
        params.max_distance is not None,
    )
    found: Plan | None = view.plans.get(key)
    if found is None:
        found = (
            _plan(view, params) if view.whole is None else _plan_under_filter(view, view.whole, key, params)
        )
        if len(view.plans) < MAX_PLANS:
            view.plans[key] = found
    return found


def _plan_under_filter(view: View, whole: View, key: tuple[Any, ...], params: SearchParams) -> Plan:
    """What differs from filter to filter goes by powers of two, so that a new one seldom costs a plan."""
    shares = tuple((part.number, *_shares(view, part, params.top_k)) for part in view.searched)
    key = (*key, min(view.alive, params.top_k), shares)
    found: Plan | None = whole.plans.get(key)
    if found is None:
        found = _plan(view, params)
        if len(whole.plans) < MAX_PLANS:
            whole.plans[key] = found
    return found


def _plan(view: View, params: SearchParams) -> Plan:
    settings = view.manifest.settings
    target = target_of(view, params)
    direct = view.whole is not None or _blurred(view, params, target)
    width, kept = bounds_for(target) if direct and target is not None else (1.0, None)
    scale = _scale(view, params, target)
    precision, reaches = _cheapest(view, params, target, scale, kept)
    pool = min(pool_size(params.top_k, scale), MAX_CAPACITY)
    if target is not None and precision != "none":
        # Dead rows among the nearest put the answer farther out; see docs/decisions/0004.
        total = sum(part.reader.entry.n for part in view.parts)
        pool = math.ceil(pool * total / max(1, view.alive)) if total < 2 * view.alive else 2 * pool
    return Plan(
        top_k=params.top_k,
        pool=pool,
        most=max(1, min(view.alive, MAX_CAPACITY)),
        alive=view.alive,
        precision=precision,
        # Of rows that lie at a limit, int8 would take some and leave others.
        fp32_cap=max(settings.fp32_rerank_cap, 0 if params.max_distance is None else pool),
        probes=np.array([r.probes for r in reaches], dtype=np.int32),
        limits=np.array([r.most for r in reaches], dtype=np.int32),
        hollow=np.array([r.hollow for r in reaches], dtype=np.float32),
        familiar=np.array([r.familiar for r in reaches], dtype=np.float32),
        cap=settings.nprobe_cap,
        distant=np.array([r.distant for r in reaches], dtype=np.uint8),
        reach=np.array([r.reach for r in reaches], dtype=np.float32),
        patience=PATIENCE if target is not None and view.mapped else 0.0,
        spared=1.0 - target if target is not None and view.whole is None else 0.0,
        margin=MARGIN if target is not None else 0.0,
        widen=WIDEN,
        looks=MAX_LOOKS if target is not None else 0,
        direct=direct,
        width=width,
    )


def _scale(view: View, params: SearchParams, target: float | None) -> float:
    """Candidates a hit."""
    if params.rerank_scale is not None:
        return params.rerank_scale
    usual = view.manifest.settings.rerank_scale
    if usual <= 0.0 or target is None:
        return usual
    # Beyond .98 the candidates that a narrow pool drops are most of what is missing.
    return max(usual, MISSED_SHARE / (1.0 - target))


def _blurred(view: View, params: SearchParams, target: float | None) -> bool:
    """Whether the codes tell so little apart that a pool drops more than a target lets go.

    Rows are then scored by int8 as soon as an estimate may lie within the last hit, whatever its rank.
    """
    settings = view.manifest.settings
    if target is None or params.rerank_scale is not None or settings.rerank_scale <= 0.0:
        return False
    if (params.rerank_precision or settings.rerank_precision) == "none":
        return False
    return _kept(view, "fp32", params.top_k) < target


def target_of(view: View, params: SearchParams) -> float | None:
    """The recall that is asked for, if it is one that decides how many lists are probed."""
    if params.target_recall is None and params.nprobe is None and params.probe_fraction is None:
        return view.manifest.settings.target_recall
    return params.target_recall


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a query goes into a part.

    Attributes
    ----------
    probes
        Lists that it scans in any case.
    reach
        It goes on to the lists that are no farther than this times its last hit; 0: see `PATIENCE`.
    most
        Lists that it scans at most. The more these are, the more cells are looked at to rank them.
    hollow
        If all of those are within its reach, and less than this share of rows is alive in the first, it may
        scan as many as a query may at all.
    familiar
        So it may if its nearest list is farther than this; 0: never.
    distant
        Its reach counts for nothing else, and who is not familiar is given a longer plan instead.
    """

    probes: int
    reach: float
    most: int
    hollow: float = 0.0
    familiar: float = 0.0
    distant: bool = False


def _cheapest(
    view: View, params: SearchParams, target: float | None, scale: float, unpooled: float | None
) -> tuple[RerankPrecision, list[Reach]]:
    """How to re-rank, and how far to go into each part.

    What int8 loses of a high target has to be made up by more lists, if it can be. Where vectors are at
    hand, it costs less to score the hits by them, so a target is met that way unless the caller says how.
    """

    def reaches(precision: RerankPrecision) -> list[Reach]:
        return [_reach(view, part, params, target, precision, unpooled) for part in view.searched]

    if scale <= 0.0:
        return "none", reaches("none")
    asked: RerankPrecision = params.rerank_precision or view.manifest.settings.rerank_precision
    undecided = params.rerank_precision is None and asked == "int8"
    kept = [part.reader.vector_dtype is not None for part in view.searched]
    if undecided and params.max_distance is not None and any(kept):
        # By int8 even an equal row is some way off, and who looks for equals would find none.
        return "fp32", reaches("fp32")
    free = undecided and all(kept) and target is not None and view.mapped
    if free and view.whole is not None:
        # Hits under a filter may lie so far out that int8 cannot tell them from the rows beyond.
        return "fp32", reaches("fp32")
    by_codes = reaches(asked)
    if free and target is not None:
        exact = reaches("fp32")
        saved = sum(one.probes for one in by_codes) - sum(other.probes for other in exact)
        most = _kept(view, asked, params.top_k, unpooled) * MAX_COVERAGE
        if saved > EXACT_WORTH * params.top_k or most < target:
            return "fp32", exact
    return asked, by_codes


def _kept(view: View, precision: RerankPrecision, top_k: int, unpooled: float | None = None) -> float:
    """The share of the covered neighbours that a precision keeps, in the part where that is least."""
    calibrations = [part.reader.calibration for part in view.searched]
    kept = (kept_by(one, precision, top_k, unpooled) for one in calibrations if one is not None)
    return min(kept, default=1.0)


def _reach(
    view: View,
    part: OpenPart,
    params: SearchParams,
    target: float | None,
    precision: RerankPrecision,
    unpooled: float | None,
) -> Reach:
    """By ``nprobe``, else by ``target``, else by ``probe_fraction``."""
    if view.whole is not None and target is not None and params.nprobe is None:
        return reach_under_filter(view, part, params.top_k, target, precision)
    settings, entry = view.manifest.settings, part.reader.entry
    k = entry.k
    most = min(k, settings.nprobe_cap)
    if params.nprobe is not None:
        return Reach(min(most, params.nprobe), 0.0, min(most, MOST_REACH * params.nprobe))
    if target is None:
        fraction = settings.probe_fraction if params.probe_fraction is None else params.probe_fraction
        return Reach(planned_probes(k, fraction, settings.nprobe_cap), 0.0, most)
    calibration = part.reader.calibration
    if calibration is None:
        whole = entry.n <= UNCALIBRATED
        return Reach(k if whole else planned_probes(k, settings.probe_fraction, most), 0.0, most)
    rank, dead = share_of(view, part, params.top_k)
    probes = min(
        most,
        probes_for(
            calibration,
            target,
            precision,
            top_k=params.top_k,
            rank=rank,
            skip=rank * dead,
            unpooled=unpooled,
        ),
    )
    reach = reach_for(calibration, probes, rank * (1.0 + dead))
    within = min(most, MOST_REACH * probes)
    # Who asks for what was deleted asks into a hole that may be wider than the plan.
    hollow = HOLLOW / (1.0 + dead) if dead > 0.0 else 0.0
    familiar = calibration.nearest
    if not view.mapped or (reach > 0.0 and rank * (1.0 + dead) > REACHED):
        # Lists are fetched, and more are worth another trip only from a hole; or the reach is unmeasured.
        if hollow == familiar == 0.0:
            return Reach(probes, 0.0, probes if view.mapped else within)
        return Reach(probes, reach, within, hollow, familiar, True)
    if reach == 0.0:
        return Reach(probes, 0.0, most)
    return Reach(base_probes(probes), reach, within, hollow, familiar)


def share_of(view: View, part: OpenPart, top_k: int) -> tuple[float, float]:
    """Mean rank in a part of what it holds of the answer, and dead rows that are nearer, for each of them."""
    # As many dead rows among the nearest as elsewhere; a query that finds more looks again.
    dead = part.reader.crowd / max(1, part.live.alive) - 1.0
    # Of the top_k rows this part holds its share, binomially many: their mean rank in it is that
    # of the first 1 + share * (top_k - 1).
    return 1.0 + (top_k - 1) * part.live.alive / max(1, view.alive), dead


def reach_under_filter(
    view: View, part: OpenPart, top_k: int, target: float, precision: RerankPrecision
) -> Reach:
    """How far a query goes into a part of which a filter has left some rows.

    It starts as if the other rows were dead, so many of them nearer than the hits as chance would have it.
    Where the filter has to do with the query, its own distances tell: it goes on to all lists that are
    near beside its last hit, however many they are.
    """
    entry, calibration = part.reader.entry, part.reader.calibration
    most = min(entry.k, view.manifest.settings.nprobe_cap)
    if calibration is None:
        return Reach(most, 0.0, most)
    share, rank = _shares(view, part, top_k)
    others, wanted = 2.0**share - 1.0, 2.0**rank
    probes = min(
        most,
        probes_for(
            calibration,
            target,
            precision,
            top_k=top_k,
            rank=wanted,
            skip=wanted * others,
            most=FARTHEST if calibration.reach else MATCHES_BEYOND,
        ),
    )
    reach = reach_for(calibration, probes, wanted * (1.0 + others))
    if reach == 0.0 or not view.mapped:
        return Reach(probes, 0.0, most if view.mapped else probes)
    return Reach(base_probes(probes), reach, most)


def _shares(view: View, part: OpenPart, top_k: int) -> tuple[int, int]:
    """Of the rows of a part, those that a filter leaves; of the hits, those of the part: as powers of two."""
    return (
        round(math.log2(part.reader.crowd / max(1, part.live.alive))),
        round(math.log2(1.0 + (top_k - 1) * part.live.alive / max(1, view.alive))),
    )
