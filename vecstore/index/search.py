"""A search over a view: what is asked becomes a plan, the kernels carry it out, we fetch what they miss.

    parameters -> lists of each part -> `vecstore.ext.search` (table, lists, scan, re-rank) -> hits

Internal distances are squared L2 (cosine: of unit vectors; dot: less both squared norms, which leaves
-2<q, o>); they become public at the end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore import deadline
from vecstore.ext.batch import GROUP, Batch
from vecstore.ext.field import Plan
from vecstore.ext.ivf import MAX_CAPACITY
from vecstore.ext.search import Missing, Searcher
from vecstore.index.extents import RANKED, SCATTERED, lists_within, worth_fetching
from vecstore.index.ivf import planned_probes
from vecstore.index.recall import (
    FARTHEST,
    MAX_COVERAGE,
    MAX_LOOKS,
    MOST_REACH,
    base_probes,
    gains_for,
    kept_by,
    pool_size,
    price_for,
    probes_for,
    reach_for,
)
from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.index.watched import Watched
from vecstore.part.reader import Gathered
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, RerankPrecision, SearchParams

_ONLY_LIST: Final = np.zeros(1, dtype=np.int32)  # of a part without codes
MISSED_SHARE: Final = 0.1  # candidates a hit are at least this over the recall that a target lets go
MARGIN: Final = 0.8  # bounds of an estimate (1.9 of its errors) between the last hit and the pool's end
WIDEN: Final = 4
PATIENCE: Final = 2.0  # lists probed under the dot product, in places of the farthest list that held a hit
LEAST_SHARED: Final = 32  # queries from which on threads share a batch
LEAST_GROUP: Final = 16  # of queries that are answered together, where threads are to end together
EXACT_WORTH: Final = 4  # lists whose scan takes as long as to score one hit by its vector
HOLLOW: Final = 0.75  # of the live rows that lists have elsewhere, that those about a query lack in a hole
MAX_PLANS: Final = 1_000  # remembered by a view
REACHED: Final = 2.0 * FARTHEST  # neighbours up to which a reach holds that was measured for the farthest
MATCHES_BEYOND: Final = 3.0 * FARTHEST  # as far as a plan looks for matches that no reach tells of
UNCALIBRATED: Final = 4_096  # rows up to which a part without calibration is probed whole for a target

Executors = Callable[[], Executor]


@dataclass(slots=True)  # not frozen, as one is made for every query
class Answer:
    """The hits of one query: u64[k] or object[k] ids, f32[k] distances, where the rows lie."""

    ids: npt.NDArray[Any]
    distances: F32
    parts: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    debug: dict[str, Any] | None = None

    def take(self, places: npt.NDArray[Any] | slice) -> Answer:
        """Some of the hits."""
        return Answer(
            self.ids[places], self.distances[places], self.parts[places], self.rows[places], self.debug
        )

    def within(self, most: float) -> Answer:
        """The hits that are no farther than a public distance."""
        return self.take(slice(0, int(np.searchsorted(self.distances, np.float64(most), side="right"))))


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The hits of M queries, [M, k]; of each query the first ``counts`` are set."""

    ids: npt.NDArray[Any]
    distances: F32
    parts: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def within(self, most: float) -> BatchAnswer:
        """The hits that are no farther than a public distance."""
        near = (self.distances <= np.float64(most)) & (np.arange(self.ids.shape[1]) < self.counts[:, None])
        return BatchAnswer(
            np.where(near, self.ids, "" if self.ids.dtype == object else np.uint64(0)),
            np.where(near, self.distances, np.float32(np.inf)),
            self.parts,
            self.rows,
            near.sum(axis=1),
        )


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
    target = _target(view, params)
    scale = _scale(view, params, target)
    precision, reaches = _cheapest(view, params, target, scale)
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
        direct=view.whole is not None,
    )


def _scale(view: View, params: SearchParams, target: float | None) -> float:
    """Candidates a hit."""
    if params.rerank_scale is not None:
        return params.rerank_scale
    usual = view.manifest.settings.rerank_scale
    if usual <= 0.0 or target is None:
        return usual
    # Beyond .98 the candidates that a narrow pool drops are most of what is missing.
    scale = max(usual, MISSED_SHARE / (1.0 - target))
    missed = 1.0 - _kept(view, "fp32", params.top_k) if view.whole is None else 0.0
    if missed > 1.0 - target:
        # The codes tell too little apart. Of what a pool drops, one that is widened drops a fourth.
        scale = max(scale, usual * WIDEN ** math.ceil(math.log(missed / (1.0 - target), WIDEN)))
    return scale


def _target(view: View, params: SearchParams) -> float | None:
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
    view: View, params: SearchParams, target: float | None, scale: float
) -> tuple[RerankPrecision, list[Reach]]:
    """How to re-rank, and how far to go into each part.

    What int8 loses of a high target has to be made up by more lists, if it can be. Where vectors are at
    hand, it costs less to score the hits by them, so a target is met that way unless the caller says how.
    """

    def reaches(precision: RerankPrecision) -> list[Reach]:
        return [_reach(view, part, params, target, precision) for part in view.searched]

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
        if saved > EXACT_WORTH * params.top_k or _kept(view, asked, params.top_k) * MAX_COVERAGE < target:
            return "fp32", exact
    return asked, by_codes


def _kept(view: View, precision: RerankPrecision, top_k: int) -> float:
    """The share of the covered neighbours that a precision keeps, in the part where that is least."""
    calibrations = [part.reader.calibration for part in view.searched]
    return min((kept_by(one, precision, top_k) for one in calibrations if one is not None), default=1.0)


def _reach(
    view: View, part: OpenPart, params: SearchParams, target: float | None, precision: RerankPrecision
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
    rank, dead = _share_of(view, part, params.top_k)
    probes = probes_for(calibration, target, precision, top_k=params.top_k, rank=rank, skip=rank * dead)
    probes = min(most, probes)
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


def _share_of(view: View, part: OpenPart, top_k: int) -> tuple[float, float]:
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


def search_namespace(
    view: View, q: F32, params: SearchParams, searcher: Searcher, trace: ReadTrace, executor: Executors
) -> Answer:
    """Answer one query on one view.

    Parameters
    ----------
    q
        f32[dim], validated, as given.
    trace
        Counts requests, bytes and dependent trips of this search.
    """
    plan = plan_for(view, params)
    kernels = searcher if trace.watch is None else Watched(searcher, trace.watch)
    missing = kernels.begin(view.field, plan, q, params.debug)
    if missing is not None and not view.mapped and _choose_extents(view, plan, params, searcher, missing):
        missing = kernels.run()
    while missing is not None:
        deadline.check()
        _read(view, searcher, missing, trace, executor)
        missing = kernels.run()
    ids, distances, parts, rows = searcher.hits()
    found: npt.NDArray[Any] = ids
    if view.manifest.id_kind == "string":
        found = ids_at(view, parts, rows, trace)
    debug = _debug(view, plan, searcher, trace) if params.debug else None
    return Answer(found, distances, parts, rows, debug)


def _choose_extents(
    view: View, plan: Plan, params: SearchParams, searcher: Searcher, missing: Missing
) -> bool:
    """Have the parts whose nearest lists are scattered over a distant object searched by its best extents."""
    target = _target(view, params)
    if target is None or view.whole is not None:
        return False
    chosen = False
    for number, lists in missing.lists.items():
        part = view.parts[number]
        calibration = part.reader.calibration
        if calibration is None or len(lists) <= SCATTERED or part.reader.lacks(lists) <= SCATTERED:
            continue
        rank, dead = _share_of(view, part, params.top_k)
        price = price_for(
            calibration, target, plan.precision, top_k=params.top_k, rank=rank, skip=rank * dead
        )
        if price is None:
            continue
        ranked = searcher.rank(number, RANKED)
        spread = plan.widen if searcher.strays(number) else 1
        gains = gains_for(calibration, len(ranked), spread)
        extents = worth_fetching(ranked, gains, part.reader.list_bounds, price / spread)
        if 0 < int((extents[1] - extents[0]).sum()) <= view.manifest.settings.nprobe_cap:
            searcher.choose(number, lists_within(*extents))
            chosen = True
    return chosen


def search_beside(
    view: View,
    q: F32,
    params: SearchParams,
    skip: tuple[int, int],
    searcher: Searcher,
    trace: ReadTrace,
    executor: Executors,
) -> Answer:
    """As `search_namespace`, of all rows but one: its part's number and its row."""
    more = replace(params, top_k=params.top_k + 1)
    answer = search_namespace(view, q, more, searcher, trace, executor)
    others = np.flatnonzero((answer.parts != skip[0]) | (answer.rows != skip[1]))
    return answer.take(others[: params.top_k])


class Scratch:
    """Searchers and batches of one namespace, kept from search to search."""

    def __init__(self) -> None:
        self._searchers: deque[Searcher] = deque(maxlen=64)
        self._batches: deque[Batch] = deque(maxlen=16)

    def take(self, width: int) -> Searcher:
        """A searcher for ``width`` padded dimensions, to be given back."""
        try:
            searcher = self._searchers.pop()
        except IndexError:
            return Searcher(width)
        return searcher if searcher.padded_dim == width else Searcher(width)

    def give(self, searcher: Searcher) -> None:
        searcher.release()
        self._searchers.append(searcher)

    def take_batch(self, width: int) -> Batch:
        """As `take`."""
        try:
            batch = self._batches.pop()
        except IndexError:
            return Batch(width)
        return batch if batch.padded_dim == width else Batch(width)

    def give_batch(self, batch: Batch) -> None:
        self._batches.append(batch)


def search_many(
    view: View, queries: F32, params: SearchParams, scratch: Scratch, executor: Executors, threads: int
) -> BatchAnswer:
    """Answer f32[M, dim] queries on one view, each as `search_namespace` does.

    Parameters
    ----------
    threads
        That share the queries, where no query has to wait for a request.
    """
    plan = plan_for(view, params)
    shape = (len(queries), params.top_k)
    answer = BatchAnswer(
        np.zeros(shape, dtype=np.uint64),
        np.full(shape, np.inf, dtype=np.float32),
        np.zeros(shape, dtype=np.int32),
        np.zeros(shape, dtype=np.int64),
        np.zeros(len(queries), dtype=np.int64),
    )
    left: Sequence[int] = range(len(queries))
    if view.mapped:
        left = _together(view, plan, queries, answer, scratch, executor, threads)
    searcher = scratch.take(view.field.padded_dim)
    try:
        for i in left:
            deadline.check()
            found = search_namespace(view, queries[i], params, searcher, ReadTrace(), executor)
            n = answer.counts[i] = len(found.rows)
            answer.distances[i, :n], answer.parts[i, :n], answer.rows[i, :n] = (
                found.distances,
                found.parts,
                found.rows,
            )
            if view.manifest.id_kind != "string":
                answer.ids[i, :n] = found.ids
    finally:
        scratch.give(searcher)
    if view.manifest.id_kind != "string":
        return answer
    names = np.full(shape, "", dtype=object)
    filled = np.arange(params.top_k) < answer.counts[:, None]
    names[filled] = ids_at(view, answer.parts[filled], answer.rows[filled], ReadTrace())
    return replace(answer, ids=names)


def groups_of(queries: int, threads: int) -> Iterator[tuple[int, int]]:
    """Where groups of queries begin and end: smaller towards the end, so that threads end together."""
    start = 0
    while start < queries:
        left, size = queries - start, GROUP
        if threads > 1 and queries >= LEAST_SHARED:
            size = min(GROUP, max(LEAST_GROUP, -(-left // (2 * threads))))
        end = min(queries, start + size)
        yield start, end
        start = end


def _together(
    view: View,
    plan: Plan,
    queries: F32,
    answer: BatchAnswer,
    scratch: Scratch,
    executor: Executors,
    threads: int,
) -> list[int]:
    """Answer queries in groups that share their loads; the numbers of those that miss something yet."""

    def answer_groups() -> list[int]:
        left: list[int] = []
        if not spans:
            return left
        batch = scratch.take_batch(view.field.padded_dim)
        try:
            while spans:
                deadline.check()
                try:
                    start, end = spans.popleft()
                except IndexError:  # another thread was sooner
                    break
                span = slice(start, end)
                missing = batch.run(
                    view.field,
                    plan,
                    queries[span],
                    answer.ids[span],
                    answer.distances[span],
                    answer.parts[span],
                    answer.rows[span],
                    answer.counts[span],
                )
                left += [start + i for i in missing]
        except BaseException:
            spans.clear()  # what the others would answer nobody gets
            raise
        finally:
            scratch.give_batch(batch)
        return left

    spans = deque(groups_of(len(queries), threads))
    # The caller is one of the threads: one that waited would be woken, and would stop another, once a group.
    others: list[Future[list[int]]] = []
    try:
        others.extend(executor().submit(answer_groups) for _ in range(min(threads, len(spans)) - 1))
        left = answer_groups()
    finally:
        spans.clear()
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    return sorted(left + [i for other in begun for i in other.result()])


def ids_at(
    view: View, parts: npt.NDArray[np.int32], rows: npt.NDArray[np.int64], trace: ReadTrace
) -> npt.NDArray[Any]:
    """u64[m], or object[m] of str."""
    ids: npt.NDArray[Any] = np.empty(
        len(rows), dtype=object if view.manifest.id_kind == "string" else np.uint64
    )
    for number in np.unique(parts).tolist():
        mine = np.flatnonzero(parts == number)
        ids[mine] = view.parts[number].reader.ids_of(rows[mine], trace)
    return ids


def _read(view: View, searcher: Searcher, missing: Missing, trace: ReadTrace, executor: Executors) -> None:
    """Read what a search misses, side by side, and tell it where that lies."""
    lists = [(view.parts[number], chosen) for number, chosen in missing.lists.items()]
    small = [view.parts[number] for number in missing.small]
    stored = [part for part in small if part.reader.vector_dtype is not None]
    exact = [(view.parts[number], places, rows) for number, (places, rows) in missing.vectors.items()]
    reads: Sequence[Callable[[ReadTrace], Gathered]] = [
        *(partial(part.reader.records, chosen) for part, chosen in lists),
        *(partial(part.reader.records, _ONLY_LIST) for part in small),
        *(part.reader.all_vectors for part in stored),
        *(partial(part.reader.vectors, rows) for part, _, rows in exact),
    ]
    if view.mapped:
        found = iter([read(trace) for read in reads])
    else:
        found = iter(read_side_by_side(reads, trace, executor))
    for part, chosen in lists:
        records = next(found)
        if not view.mapped:
            searcher.give_lists(part.number, chosen, records.addresses, records.keep)
    heads = {part.number: next(found) for part in small}
    vectors = {part.number: next(found) for part in stored}
    for number, head in heads.items():
        own = vectors.get(number)
        address = 0 if own is None else int(own.addresses[0])
        if view.mapped:
            view.field.place_small(number, int(head.addresses[0]), address)
        else:
            searcher.give_small(number, int(head.addresses[0]), address, (head.keep, own))
    for (_, places, _), rows in zip(exact, found, strict=True):
        searcher.give_vectors(places, rows.addresses, rows.keep)


def _debug(view: View, plan: Plan, searcher: Searcher, trace: ReadTrace) -> dict[str, Any]:
    probed, counts = searcher.probed(), searcher.counts()
    return {
        "epoch": view.manifest.epoch,
        "parts": [
            {
                "id": part.reader.entry.id,
                "rows": part.reader.entry.n,
                "live": part.live.alive,
                "lists": part.reader.entry.k,
                "probed": probed.get(part.number, 0),
                "exact": part.small,
            }
            for part in view.parts
        ],
        "rows_scanned": counts.scanned,
        "rows_live": view.alive,
        "rows_reranked": counts.reranked,
        "rows_reranked_fp32": counts.exact,
        "second_looks": counts.looks,
        "rerank_precision": plan.precision,
        "seconds": searcher.times(),
        "storage": trace.report(),
    }
