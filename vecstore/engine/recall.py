"""Measured recall: answers of the search held against exact search.

Both read one epoch, and an answer is judged by what its user sees: the rows of the ids that came
back, and their exact distances. A row that is as near as the last true neighbour counts, so that ties
are no loss. Decision 0005 says how the interval is found.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore import deadline
from vecstore.engine.namespace import NamespaceEngine
from vecstore.errors import InvalidArgument, SnapshotExpired, StorageMissing
from vecstore.index.exact import F64, I64, at_once, exact_distances, exact_search, live_rows, read_rows
from vecstore.index.view import View
from vecstore.limits import MAX_BATCH_HITS, MAX_QUERIES, MAX_RECALL_WORK, MAX_TOP_K
from vecstore.manifest.model import Manifest, Settings
from vecstore.rows.ids import parse_ids
from vecstore.rows.vectors import as_vectors
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, BatchHits, RecallReport, RecallSample, SearchParams

DEFAULT_SAMPLE: Final = 500
SEARCH_BATCH: Final = 64  # queries a search, which share one check of the snapshot
BLOCK_ROWS: Final = 1 << 20  # whose liveness is looked up at once
_RESTARTS: Final = 3


def interval(recalls: npt.ArrayLike, confidence: float) -> tuple[float, float, float]:
    """The mean of recalls of single queries, and the bounds of its interval.

    Student's t over the queries, for hits of one query stand or fall together, with one query more
    that found nothing and one that found all: where nearly every query is perfect, the spread of a
    sample says too little, and without those two an interval of a perfect sample would have no width.
    """
    given = np.asarray(recalls, dtype=np.float64)
    mean, n = float(given.mean()), len(given) + 2
    padded = np.append(given, (0.0, 1.0))
    half = _student(confidence, n - 1) * float(padded.std()) / math.sqrt(n)
    centre = float(padded.mean())
    return mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


def _student(confidence: float, freedom: int) -> float:
    """The quantile of Student's t, by its expansion around the normal one (Abramowitz & Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / freedom + second / freedom**2 + third / freedom**3


# -- one measurement -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """What `compare` found, a value a query."""

    recalls: F64
    scanned: F64
    probed: F64
    search_seconds: float
    exact_seconds: float


def measure_recall(
    engine: NamespaceEngine,
    given: object | None,
    asked: RecallSample,
    params: SearchParams,
    *,
    recent: Sequence[F32] = (),
) -> RecallReport:
    """Measure once, on one snapshot; begun again if collection takes its parts away meanwhile.

    Parameters
    ----------
    given
        Queries, if ``asked.source`` says so.
    recent
        Queries that this process has kept.
    """
    seed = engine.rng.getrandbits(32) if asked.seed is None else asked.seed
    for restart in range(_RESTARTS + 1):
        manifest = _manifest(engine, params)
        try:
            return _measure(engine, manifest, given, replace(asked, seed=seed), params, recent)
        except (StorageMissing, SnapshotExpired):
            if params.epoch is not None:
                engine.snapshots.at_epoch(params.epoch)  # says so if it is the epoch that is gone
                raise
            moved = engine.snapshots.strong().epoch != manifest.epoch
            if not moved or restart == _RESTARTS:
                raise
    raise AssertionError("the last restart returns or raises")


def _manifest(engine: NamespaceEngine, params: SearchParams) -> Manifest:
    if params.epoch is not None:
        return engine.snapshots.at_epoch(params.epoch).manifest
    if params.consistency == "eventual":
        return engine.snapshots.eventual(params.max_staleness).manifest
    return engine.snapshots.strong().manifest


def _measure(
    engine: NamespaceEngine,
    manifest: Manifest,
    given: object | None,
    asked: RecallSample,
    params: SearchParams,
    recent: Sequence[F32],
) -> RecallReport:
    trace = ReadTrace()
    view = engine.searched_view(manifest, params, trace)
    rng = np.random.Generator(np.random.Philox(asked.seed))
    skip: tuple[I64, I64] | None = None
    if asked.source == "rows":
        if params.top_k >= MAX_TOP_K:
            raise InvalidArgument(
                f"top_k must be below {MAX_TOP_K} where stored rows are the queries",
                field="top_k",
                limit=MAX_TOP_K - 1,
            )
        if view.alive < 2:
            raise InvalidArgument(
                f"namespace {engine.name!r} has {view.alive} rows; recall over stored rows needs two",
                field="source",
            )
        wanted = min(view.alive, _allowed(view, params, asked.sample))
        skip = _random_rows(view, wanted, rng)
        queries = _vectors_at(view, *skip, trace)
    else:
        if not view.alive:
            raise InvalidArgument(f"namespace {engine.name!r} has no rows", field="source")
        if asked.source == "recent":
            known = [q for q in recent if len(q) == manifest.dim]
            if not known:
                raise InvalidArgument(
                    f"no recent queries of {engine.name!r} are kept here; a process keeps some of those "
                    "that it answers if recall_sample_rate is above 0",
                    field="source",
                )
            queries = np.stack(known)
        else:
            queries = as_vectors(given, manifest.dim, manifest.metric)
            if len(queries) > MAX_QUERIES:
                raise InvalidArgument(
                    f"vectors must be at most {MAX_QUERIES}", field="vectors", limit=MAX_QUERIES
                )
        sample = len(queries) if asked.sample is None and asked.source == "queries" else asked.sample
        wanted = min(len(queries), _allowed(view, params, sample))
        if wanted < len(queries):
            queries = queries[rng.choice(len(queries), size=wanted, replace=False)]
    found = compare(engine, view, queries, [params] * len(queries), trace, skip=skip, pace=deadline.check)
    mean, low, high = interval(found.recalls, asked.confidence)
    return RecallReport(
        recall=mean,
        low=low,
        high=high,
        confidence=asked.confidence,
        queries=len(queries),
        source=asked.source,
        seed=asked.seed or 0,
        top_k=params.top_k,
        epoch=manifest.epoch,
        rows=view.alive,
        rows_scanned=float(found.scanned.mean()),
        lists_probed=float(found.probed.mean()),
        lists=sum(part.reader.entry.k for part in view.parts),
        search_seconds=found.search_seconds / len(queries),
        exact_seconds=found.exact_seconds / len(queries),
        options=_effort(params, manifest.settings),
        incarnation=manifest.incarnation,
    )


def _allowed(view: View, params: SearchParams, wanted: int | None) -> int:
    """Queries that may be asked at once: as many as wanted, or by default as many as the work allows."""
    a_query = view.alive * view.manifest.dim
    by_work, by_hits = MAX_RECALL_WORK // a_query, MAX_BATCH_HITS // params.top_k
    limit = min(by_work, by_hits, MAX_QUERIES)
    if limit < 1:
        raise InvalidArgument(
            f"{view.alive} rows of {view.manifest.dim} numbers are too many for exact search", field="sample"
        )
    if wanted is None:
        return min(DEFAULT_SAMPLE, limit)
    if wanted > limit:
        raise InvalidArgument(
            f"sample must be at most {limit} for top_k {params.top_k} and {view.alive} rows of "
            f"{view.manifest.dim} numbers, not {wanted}",
            field="sample",
            limit=limit,
        )
    return wanted


def _random_rows(view: View, count: int, rng: np.random.Generator) -> tuple[I64, I64]:
    """Part and row of ``count`` different live rows, each as likely as any other."""
    drawn = np.sort(rng.choice(view.alive, size=count, replace=False))
    parts, rows, before = [], [], 0
    for part in view.parts:
        # A place among all live rows is a place among those of one block.
        for block in live_rows(part, BLOCK_ROWS):
            first, last = np.searchsorted(drawn, (before, before + len(block)))
            rows.append(block[drawn[first:last] - before])
            parts.append(np.full(last - first, part.number, dtype=np.int64))
            before += len(block)
    return np.concatenate(parts), np.concatenate(rows)


def _vectors_at(view: View, parts: I64, rows: I64, trace: ReadTrace) -> F32:
    out = np.empty((len(rows), view.manifest.dim), dtype=np.float32)
    for number in np.unique(parts).tolist():
        mine = np.flatnonzero(parts == number)
        out[mine] = read_rows(view, view.parts[number], rows[mine], trace)
    return out


def _effort(params: SearchParams, settings: Settings) -> dict[str, Any]:
    """The options of a search with the namespace's defaults filled in."""
    chosen = (params.nprobe, params.target_recall, params.probe_fraction)
    target, fraction = params.target_recall, params.probe_fraction
    if chosen == (None, None, None):
        target, fraction = settings.target_recall, settings.probe_fraction
    scale, precision = params.rerank_scale, params.rerank_precision
    return {
        "nprobe": params.nprobe,
        "target_recall": target,
        "probe_fraction": fraction,
        "rerank_scale": settings.rerank_scale if scale is None else scale,
        "rerank_precision": settings.rerank_precision if precision is None else precision,
    }


def compare(
    engine: NamespaceEngine,
    view: View,
    queries: F32,
    params: Sequence[SearchParams],
    trace: ReadTrace,
    *,
    skip: tuple[I64, I64] | None = None,
    pace: Callable[[], None] = at_once,
) -> Measured:
    """Answer each query both ways on the view's epoch, and judge.

    Parameters
    ----------
    params
        How to search, for each query.
    skip
        The stored row that each query is, which counts in neither answer.
    """
    searched = _Searched.by(engine, view, queries, params, more=0 if skip is None else 1, pace=pace)
    began = time.perf_counter()
    wanted = np.array([one.top_k for one in params], dtype=np.int64)
    truth = exact_search(view, queries, int(wanted.max()), trace, skip=skip, pace=pace)
    exact_seconds = time.perf_counter() - began
    wanted = np.minimum(wanted, truth.counts)
    hits = _hits(view, searched.ids, wanted, skip, trace)
    distances, _ = exact_distances(view, queries, *hits, trace, pace=pace)
    last = np.arange(len(queries)), wanted - 1
    beyond = truth.distances[last] + truth.rounding[last]
    good = np.bincount(hits[0][distances <= beyond[hits[0]]], minlength=len(queries))
    return Measured(
        np.minimum(good, wanted) / wanted, searched.scanned, searched.probed, searched.seconds, exact_seconds
    )


@dataclass(slots=True)
class _Searched:
    """Answers of the search: the ids of each query's hits, nearest first."""

    ids: list[npt.NDArray[Any]]
    scanned: F64
    probed: F64
    seconds: float = 0.0

    @classmethod
    def by(
        cls,
        engine: NamespaceEngine,
        view: View,
        queries: F32,
        params: Sequence[SearchParams],
        *,
        more: int,
        pace: Callable[[], None],
    ) -> _Searched:
        """Search with each query's own parameters, those of a kind together, for ``more`` hits each."""
        none = np.empty(0, dtype=np.uint64)
        found = cls([none] * len(queries), np.zeros(len(queries)), np.zeros(len(queries)))
        kinds: dict[SearchParams, list[int]] = {}
        for i, one in enumerate(params):
            kinds.setdefault(one, []).append(i)
        for one, mine in kinds.items():
            asked = replace(
                one,
                top_k=one.top_k + more,
                epoch=view.manifest.epoch,
                consistency="strong",
                include=(),
                debug=True,
            )
            for start in range(0, len(mine), SEARCH_BATCH):
                some = mine[start : start + SEARCH_BATCH]
                began = time.perf_counter()
                batch = engine.search_batch(queries[some], asked)
                found.seconds += time.perf_counter() - began
                found._take(some, batch)
                pace()
        return found

    def _take(self, which: list[int], batch: BatchHits) -> None:
        for at, query in enumerate(which):
            hits = batch[at]
            self.ids[query] = hits.ids
            told = hits.debug or {}
            self.scanned[query] = told.get("rows_scanned", 0)
            self.probed[query] = sum(part.get("probed", 0) for part in told.get("parts", ()))


def _hits(
    view: View,
    ids: Sequence[npt.NDArray[Any]],
    wanted: I64,
    skip: tuple[I64, I64] | None,
    trace: ReadTrace,
) -> tuple[I64, I64, I64]:
    """Query, part and row of the hits that are asked for: live rows, each once, and not the query itself."""
    values, which = np.unique(np.concatenate(ids), return_inverse=True)
    places = np.full((len(values), 2), -1, dtype=np.int64)
    if len(values):
        known = parse_ids(values)
        for opened in view.parts:
            found, rows = opened.reader.index.find(known, trace)
            alive = opened.live.is_live(rows)
            places[found[alive], 0], places[found[alive], 1] = opened.number, rows[alive]
    pairs = []
    ends = np.cumsum([len(some) for some in ids])
    for query, mine in enumerate(np.split(places[which], ends[:-1])):
        if skip is not None:
            itself = (mine[:, 0] == skip[0][query]) & (mine[:, 1] == skip[1][query])
            mine = mine[~itself]
        mine = np.unique(mine[: wanted[query]], axis=0)
        mine = mine[mine[:, 0] >= 0]
        pairs.append(np.column_stack((np.full(len(mine), query, dtype=np.int64), mine)))
    hits = np.concatenate(pairs)
    return hits[:, 0], hits[:, 1], hits[:, 2]
