"""The two stages of a search over a view: candidates by codes, then re-ranking.

    query -> tables -> lists of each part -> scan (live mask, shared threshold) -> pool
          -> more lists while the answer is not full -> int8 -> fp32 -> hits

Small parts go beside that through an exact scan. Internal distances are squared L2 (cosine: of
unit vectors; dot: less both squared norms, which leaves -2<q, o>); they become public at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.ext.ivf import MAX_CAPACITY, Pool, scan_int8, scan_lists, scan_vectors
from vecstore.ext.rabitq import QueryTable
from vecstore.ext.rerank import Hits as Ranked
from vecstore.ext.rerank import pool_hits, rerank_fp32, rerank_int8
from vecstore.index.ivf import planned_probes
from vecstore.index.recall import dot_gain, pool_size, probes_for
from vecstore.index.view import OpenPart, View, join_traces
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


@dataclass(slots=True)
class Scratch:
    """What one query at a time needs; reused, never shared by two threads at once."""

    tables: list[QueryTable] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    exact: Pool = field(default_factory=lambda: Pool(1))


@dataclass(frozen=True, slots=True)
class Resolved:
    """Search parameters with the namespace's defaults filled in."""

    top_k: int
    pool: int
    precision: RerankPrecision
    fp32_cap: int
    probes: tuple[int, ...]
    target: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of one query: u64[k] or object[k] ids, f32[k] distances, where the rows lie."""

    ids: npt.NDArray[Any]
    distances: F32
    parts: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    debug: dict[str, Any] | None


def resolve(view: View, params: SearchParams) -> Resolved:
    """Fill in defaults and plan every part; remembered by the view."""
    key = (
        params.top_k,
        params.nprobe,
        params.target_recall,
        params.probe_fraction,
        params.rerank_scale,
        params.rerank_precision,
    )
    found = view.plans.get(key)
    if found is None:
        found = _resolve(view, params)
        if len(view.plans) < MAX_PLANS:
            view.plans[key] = found
    return found


def _resolve(view: View, params: SearchParams) -> Resolved:
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
    probes = tuple(_probes(view, part, params, target, precision) for part in view.parts)
    pool = pool_size(params.top_k, scale)
    if target is not None and precision != "none":
        # Dead rows among the nearest put the answer farther out; see `_Search._look_again`.
        total = sum(part.reader.entry.n for part in view.parts)
        pool = math.ceil(pool * total / max(1, view.alive)) if total < 2 * view.alive else 2 * pool
    return Resolved(params.top_k, pool, precision, settings.fp32_rerank_cap, probes, target)


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
    view: View,
    q: F32,
    params: SearchParams,
    scratch: Scratch,
    trace: ReadTrace,
    executor: Callable[[], Executor],
) -> Answer:
    """Answer one query on one view.

    Parameters
    ----------
    q
        f32[dim], validated, as given.
    trace
        Counts requests, bytes and dependent trips of this search.
    """
    search = _Search(view, q, resolve(view, params), scratch, trace, executor, timed=params.debug)
    return search.run()


class _Search:
    """One query on its way; the methods are its stages, in order."""

    def __init__(
        self,
        view: View,
        q: F32,
        plan: Resolved,
        scratch: Scratch,
        trace: ReadTrace,
        executor: Callable[[], Executor],
        *,
        timed: bool,
    ) -> None:
        self.view = view
        self.plan = plan
        self.scratch = scratch
        self.trace = trace
        self.executor = executor
        self.timed = timed
        self.metric = view.manifest.metric
        self.q = q
        self.gain = 1.0
        if self.metric == "cosine":
            self.q = q * np.float32(1.0 / math.sqrt(float(np.dot(q, q))))
        elif self.metric == "dot":
            self.gain = dot_gain(q, view.dot_length)
            self.q = q * np.float32(self.gain)
        self.scanned = self.reranked = self.exact_reranked = 0
        self.pools: list[Pool] = []
        self.room = 0
        self.most = min(view.alive, MAX_CAPACITY)
        self.probed: dict[int, int] = {}
        self.keep: list[object] = []
        self.times: dict[str, float] = {}
        self.clock = time.perf_counter()

    def run(self) -> Answer:
        self._prepare()
        self._lap("prepare")
        first = {part.number: (0, self.plan.probes[part.number]) for part in self.view.coded}
        self._scan(self.view.small, first)
        self._fill()
        self._lap("scan")
        found = self._candidates()
        for _ in range(MAX_LOOKS):
            if not self._look_again(found):
                break
            found = self._candidates()
        self._lap("look")
        best = self._rerank(found)
        answer = self._answer(best)
        self._lap("rerank")
        if not self.timed:
            return answer
        return Answer(answer.ids, answer.distances, answer.parts, answer.rows, self._debug())

    def _prepare(self) -> None:
        scratch, view = self.scratch, self.view
        shift = float(np.dot(self.q, self.q)) if self.metric == "dot" else 0.0
        while len(scratch.tables) < len(view.means):
            scratch.tables.append(QueryTable(view.rotation.padded_dim))
            scratch.pools.append(Pool(1))
        for table, mean in zip(scratch.tables, view.means, strict=False):
            view.rotation.load(table, self.q, mean, shift)
        self.pools = scratch.pools[: len(view.means)]
        scratch.exact.reset(self.plan.top_k)
        self._empty_pools(self.plan.pool)

    def _empty_pools(self, room: int) -> None:
        """Room for so many candidates in each pool, and for no more than there are rows."""
        self.room = min(room, max(1, self.most))
        for pool in self.pools:
            pool.reset(self.room)

    def _scan(self, small: list[OpenPart], spans: dict[int, tuple[int, int]]) -> None:
        """Score small parts whole and, in coded ones, the lists ranked from … to.

        What is cold comes in one trip.
        """
        self.probed.update((number, last) for number, (_, last) in spans.items())
        if self.view.mapped:
            for part in small:
                self._scan_small(part, *self._read_small(part))
            for number, span in spans.items():
                part = self.view.parts[number]
                table, pool = self._table(part), self.pools[part.group]
                self.scanned += part.reader.probe(table, pool, number, span, part.live.words)
            return
        parts = [*small, *(self.view.parts[number] for number in spans)]
        chosen = {}
        for number, (first, last) in spans.items():
            part = self.view.parts[number]
            chosen[number] = part.reader.rank(self._table(part), last)[first:]
        stored = [part for part in small if part.reader.vector_dtype is not None]
        gathered = self._fetch(
            [partial(p.reader.records, chosen.get(p.number, _ONLY_LIST)) for p in parts]
            + [part.reader.all_vectors for part in stored]
        )
        records = {part.number: found for part, found in zip(parts, gathered, strict=False)}
        vectors = {p.number: v for p, v in zip(stored, gathered[len(parts) :], strict=True)}
        for part in small:
            self._scan_small(part, records[part.number], vectors.get(part.number))
        for number, lists in chosen.items():
            part = self.view.parts[number]
            self.scanned += scan_lists(
                self._table(part),
                self.pools[part.group],
                number,
                records[number].addresses,
                part.reader.first_rows[lists],
                part.reader.first_blocks[lists],
                part.live.words,
                first_place=spans[number][0],
            )

    def _table(self, part: OpenPart) -> QueryTable:
        return self.scratch.tables[part.group]

    def _read_small(self, part: OpenPart) -> tuple[Gathered, Gathered | None]:
        reader = part.reader
        vectors = None if reader.vector_dtype is None else reader.all_vectors(self.trace)
        return reader.records(_ONLY_LIST, self.trace), vectors

    def _scan_small(self, part: OpenPart, record: Gathered, vectors: Gathered | None) -> None:
        """Every live row of a part without codes, by its vector or else by its int8 row."""
        reader, words, address = part.reader, part.live.words, int(record.addresses[0])
        if vectors is None or reader.vector_dtype is None:
            table = self.scratch.tables[part.group]
            self.scanned += scan_int8(table, self.scratch.exact, part.number, address, 0, words)
        else:
            self.scanned += scan_vectors(
                self.q,
                self.scratch.exact,
                part.number,
                int(vectors.addresses[0]),
                reader.vector_dtype,
                reader.entry.n,
                self.metric,
                words,
                address,
            )
        self.probed[part.number] = 1

    def _fill(self) -> None:
        """Probe more lists until the answer is full or every part is exhausted (promise P6)."""
        wanted = min(self.plan.top_k, self.view.alive)
        while len(self.scratch.exact) + sum(map(len, self.pools)) < wanted:
            spans = {}
            for part in self.view.coded:
                done, k = self.probed[part.number], part.reader.entry.k
                if done < k:
                    spans[part.number] = (done, min(k, 2 * done + 8))
            if not spans:
                return
            self._scan([], spans)

    def _candidates(self) -> list[Ranked]:
        """The nearest candidates of each pool, by int8 where that is asked for."""
        if self.plan.precision == "none":
            return [pool_hits(pool, self.plan.top_k) for pool in self.pools if len(pool)]
        found = []
        for table, pool in zip(self.scratch.tables, self.pools, strict=False):
            if len(pool):
                found.append(rerank_int8(table, pool, self.plan.top_k))
                self.reranked += found[-1].reranked
        return found

    def _look_again(self, found: list[Ranked]) -> bool:
        """Scan more where this query turned out harder than the plan took it to be; false if it did not.

        Two signs tell, whatever the data: the pool ends within the error of the estimates of the
        last hit, so that it may have dropped a nearer row; or hits come from lists that were near
        the last to be probed, so that lists further on may hold some too. The second is not worth
        the trip where lists have to be fetched.
        """
        if self.plan.target is None:
            return False
        spans: dict[int, tuple[int, int]] = {}
        for ranked in found if self.view.mapped else ():
            for number, place in zip(ranked.part.tolist(), ranked.place.tolist(), strict=True):
                wanted = math.ceil(PATIENCE * (place + 1))
                done = self.probed[number]
                if wanted > done and wanted > spans.get(number, (0, 0))[1]:
                    spans[number] = (done, min(wanted, self._most(number)))
        spans = {number: span for number, span in spans.items() if span[0] < span[1]}
        if any(ranked.margin < MARGIN for ranked in found) and self.room < self.most:
            self._empty_pools(WIDEN * self.room)
            for part in self.view.coded:
                spans[part.number] = (0, spans.get(part.number, (0, self.probed[part.number]))[1])
        if spans:
            self._scan([], spans)
        return bool(spans)

    def _most(self, number: int) -> int:
        """Lists that a query may probe in a part."""
        return min(self.view.parts[number].reader.entry.k, self.view.manifest.settings.nprobe_cap)

    def _fetch(self, reads: Sequence[Callable[[ReadTrace], Gathered]]) -> list[Gathered]:
        """Run reads that do not depend on each other: one trip, whatever their number."""
        if not reads:
            return []
        if self.view.mapped:
            found = [read(self.trace) for read in reads]
        else:
            traces = [ReadTrace() for _ in reads]
            if len(reads) == 1:
                found = [reads[0](traces[0])]
            else:
                found = list(self.executor().map(_call, reads, traces))
            join_traces(self.trace, traces)
        self.keep += found
        return found

    def _rerank(self, found: list[Ranked]) -> Ranked:
        """The answer: candidates of all pools, scored by their vectors if that is asked for."""
        exact = self.plan.precision == "fp32"
        if exact:
            found = []
            for table, pool in zip(self.scratch.tables, self.pools, strict=False):
                kept = max(self.plan.top_k, min(self.plan.fp32_cap, len(pool)))
                ranked = rerank_int8(table, pool, kept)
                self.reranked += ranked.reranked
                found.append(self._exact(ranked))
        if len(self.scratch.exact):
            found = [*found, pool_hits(self.scratch.exact, self.plan.top_k)]
        return _merge(found, self.plan.top_k, in_order=not exact)

    def _exact(self, ranked: Ranked) -> Ranked:
        """Replace distances by exact ones up to the cap, where the part keeps its vectors."""
        distances = ranked.distance.copy()
        capped = np.arange(len(distances)) < self.plan.fp32_cap
        groups = []
        for number in np.unique(ranked.part[capped]).tolist():
            reader = self.view.parts[number].reader
            if reader.vector_dtype is not None:
                groups.append((reader, np.flatnonzero((ranked.part == number) & capped)))
        gathered = self._fetch([partial(reader.vectors, ranked.row[mine]) for reader, mine in groups])
        for (reader, mine), rows in zip(groups, gathered, strict=True):
            if reader.vector_dtype is not None:
                distances[mine] = rerank_fp32(self.q, rows.addresses, reader.vector_dtype, self.metric)
                self.exact_reranked += len(mine)
        return ranked._replace(distance=distances)

    def _answer(self, best: Ranked) -> Answer:
        scale = np.float32(1.0 if self.metric == "l2" else 0.5 / self.gain)
        distances = best.distance * scale
        if self.metric != "dot":
            np.maximum(distances, 0.0, out=distances)
        parts = self.view.parts
        ids: npt.NDArray[Any]
        if self.view.manifest.id_kind == "string":
            ids = np.empty(len(best.row), dtype=object)
            for number in np.unique(best.part).tolist():
                mine = np.flatnonzero(best.part == number)
                ids[mine] = parts[number].reader.ids_of(best.row[mine], self.trace)
        elif self.view.id_bases is not None:
            ids = best.ids + self.view.id_bases[best.part]
        else:
            ids = best.ids
        return Answer(ids, distances, best.part, best.row, None)

    def _lap(self, stage: str) -> None:
        if self.timed:
            now = time.perf_counter()
            self.times[stage] = now - self.clock
            self.clock = now

    def _debug(self) -> dict[str, Any]:
        return {
            "epoch": self.view.manifest.epoch,
            "parts": [
                {
                    "id": part.reader.entry.id,
                    "rows": part.reader.entry.n,
                    "live": part.live.alive,
                    "lists": part.reader.entry.k,
                    "probed": self.probed.get(part.number, 0),
                    "exact": part.small,
                }
                for part in self.view.parts
            ],
            "rows_scanned": self.scanned,
            "rows_live": self.view.alive,
            "rows_reranked": self.reranked,
            "rows_reranked_fp32": self.exact_reranked,
            "rerank_precision": self.plan.precision,
            "seconds": self.times,
            "storage": self.trace.report(),
        }


def _call(read: Callable[[ReadTrace], Gathered], trace: ReadTrace) -> Gathered:
    return read(trace)


def _merge(found: list[Ranked], top_k: int, *, in_order: bool) -> Ranked:
    """The ``top_k`` nearest of several rankings, ties by part and row."""
    if len(found) == 1 and in_order:
        return found[0]
    if not found:
        none = np.empty(0, dtype=np.int64)
        narrow = none.astype(np.int32)
        return Ranked(none.astype(np.float32), narrow, none, none.astype(np.uint64), 0, narrow, math.inf)
    distance, part, row, ids = (np.concatenate([ranked[column] for ranked in found]) for column in range(4))
    order = np.lexsort((row, part, distance))[:top_k]
    return found[0]._replace(distance=distance[order], part=part[order], row=row[order], ids=ids[order])
