"""A search over a view: what is asked becomes a plan, the kernels carry it out, we fetch what they miss.

    parameters -> lists of each part -> `vecstore.ext.search` (table, lists, scan, re-rank) -> hits

Internal distances are squared L2 (cosine: of unit vectors; dot: less both squared norms, which leaves
-2<q, o>); they become public at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.ext.ivf import MAX_CAPACITY
from vecstore.ext.search import Missing, Plan, Searcher
from vecstore.index.ivf import planned_probes
from vecstore.index.recall import pool_size, probes_for
from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.part.reader import Gathered
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, RerankPrecision, SearchParams

_ONLY_LIST: Final = np.zeros(1, dtype=np.int32)  # of a part without codes
MISSED_SHARE: Final = 0.1  # candidates a hit are at least this over the recall that a target lets go
PATIENCE: Final = 2.5  # lists probed, in places of the farthest list that held a hit
MARGIN: Final = 0.8  # bounds of an estimate (1.9 of its errors) between the last hit and the pool's end
WIDEN: Final = 4
MAX_LOOKS: Final = 6
MAX_PLANS: Final = 1_000  # remembered by a view
UNCALIBRATED: Final = 4_096  # rows up to which a part without calibration is probed whole for a target

Executors = Callable[[], Executor]


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of one query: u64[k] or object[k] ids, f32[k] distances, where the rows lie."""

    ids: npt.NDArray[Any]
    distances: F32
    parts: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    debug: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The hits of M queries, [M, k]; of each query the first ``counts`` are set."""

    ids: npt.NDArray[Any]
    distances: F32
    parts: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def plan_for(view: View, params: SearchParams) -> Plan:
    """Fill in the namespace's defaults and plan every part; remembered by the view."""
    key = (
        params.top_k,
        params.nprobe,
        params.target_recall,
        params.probe_fraction,
        params.rerank_scale,
        params.rerank_precision,
    )
    found: Plan | None = view.plans.get(key)
    if found is None:
        found = _plan(view, params)
        if len(view.plans) < MAX_PLANS:
            view.plans[key] = found
    return found


def _plan(view: View, params: SearchParams) -> Plan:
    settings = view.manifest.settings
    target = params.target_recall
    if target is None and params.nprobe is None and params.probe_fraction is None:
        target = settings.target_recall
    scale = params.rerank_scale
    if scale is None:
        scale = settings.rerank_scale
        if scale > 0.0 and target is not None:
            # Beyond .98 the candidates that a narrow pool drops are most of what is missing.
            scale = max(scale, MISSED_SHARE / (1.0 - target))
    precision: RerankPrecision = (
        "none" if scale <= 0.0 else params.rerank_precision or settings.rerank_precision
    )
    pool = pool_size(params.top_k, scale)
    if target is not None and precision != "none":
        # Dead rows among the nearest put the answer farther out; see docs/decisions/0004.
        total = sum(part.reader.entry.n for part in view.parts)
        pool = math.ceil(pool * total / max(1, view.alive)) if total < 2 * view.alive else 2 * pool
    searched = view.searched
    most = [min(part.reader.entry.k, settings.nprobe_cap) for part in searched]
    return Plan(
        top_k=params.top_k,
        pool=pool,
        most=max(1, min(view.alive, MAX_CAPACITY)),
        alive=view.alive,
        precision=precision,
        fp32_cap=settings.fp32_rerank_cap,
        probes=np.array(
            [_probes(view, part, params, target, precision) for part in searched], dtype=np.int32
        ),
        limits=np.array(most, dtype=np.int32),
        # Where lists have to be fetched, more of them are not worth another trip.
        patience=PATIENCE if target is not None and view.mapped else 0.0,
        margin=MARGIN if target is not None else 0.0,
        widen=WIDEN,
        looks=MAX_LOOKS if target is not None else 0,
    )


def _probes(
    view: View, part: OpenPart, params: SearchParams, target: float | None, precision: RerankPrecision
) -> int:
    """Lists to probe in a part: ``nprobe``, else ``target``, else ``probe_fraction``."""
    settings, k = view.manifest.settings, part.reader.entry.k
    if params.nprobe is not None:
        return min(k, params.nprobe, settings.nprobe_cap)
    if target is None:
        fraction = settings.probe_fraction if params.probe_fraction is None else params.probe_fraction
        return planned_probes(k, fraction, settings.nprobe_cap)
    if part.reader.calibration is None:
        whole = part.reader.entry.n <= UNCALIBRATED
        return k if whole else planned_probes(k, settings.probe_fraction, settings.nprobe_cap)
    # As many dead rows among the nearest as elsewhere; a query that finds more looks again.
    dead = part.reader.entry.n / max(1, part.live.alive) - 1.0
    # Of the top_k rows this part holds its share, binomially many: their mean rank in it is that
    # of the first 1 + share * (top_k - 1).
    rank = 1.0 + (params.top_k - 1) * part.live.alive / max(1, view.alive)
    found = probes_for(
        part.reader.calibration, target, precision, top_k=params.top_k, rank=rank, skip=rank * dead
    )
    return min(k, settings.nprobe_cap, found)


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
    missing = searcher.begin(view.field, plan, q, params.debug)
    while missing is not None:
        _read(view, searcher, missing, trace, executor)
        missing = searcher.run()
    ids, distances, parts, rows = searcher.hits()
    found: npt.NDArray[Any] = ids
    if view.manifest.id_kind == "string":
        found = string_ids(view, parts, rows, trace)
    debug = _debug(view, plan, searcher, trace) if params.debug else None
    return Answer(found, distances, parts, rows, debug)


def search_many(
    view: View, queries: F32, params: SearchParams, searcher: Searcher, executor: Executors
) -> BatchAnswer:
    """Answer f32[M, dim] queries on one view, each as `search_namespace` does."""
    plan = plan_for(view, params)
    shape = (len(queries), params.top_k)
    ids = np.zeros(shape, dtype=np.uint64)
    distances = np.full(shape, np.inf, dtype=np.float32)
    parts, rows = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int64)
    counts = np.zeros(len(queries), dtype=np.int64)
    at, resume = 0, False
    while at < len(queries):
        at = searcher.run_batch(view.field, plan, queries, at, resume, ids, distances, parts, rows, counts)
        if at == len(queries):
            break
        resume = True
        missing = searcher.run()
        if missing is not None:
            _read(view, searcher, missing, ReadTrace(), executor)
    if view.manifest.id_kind != "string":
        return BatchAnswer(ids, distances, parts, rows, counts)
    names = np.full(shape, "", dtype=object)
    set_ = np.arange(params.top_k) < counts[:, None]
    names[set_] = string_ids(view, parts[set_], rows[set_], ReadTrace())
    return BatchAnswer(names, distances, parts, rows, counts)


def string_ids(
    view: View, parts: npt.NDArray[np.int32], rows: npt.NDArray[np.int64], trace: ReadTrace
) -> npt.NDArray[Any]:
    """object[m] of str."""
    ids = np.empty(len(rows), dtype=object)
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
