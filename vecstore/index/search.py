"""A search over a view: the kernels carry a plan out, we fetch what they miss.

    parameters -> `plan` -> `vecstore.ext.search` (table, lists, scan, re-rank) -> hits

Internal distances are squared L2 (cosine: of unit vectors; dot: less both squared norms, which leaves
-2<q, o>); they become public at the end.
"""

from __future__ import annotations

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
from vecstore.ext.search import Missing, Searcher
from vecstore.index.extents import RANKED, SCATTERED, lists_within, worth_fetching
from vecstore.index.plan import plan_for, share_of, target_of
from vecstore.index.recall import bounds_for, gains_for, price_for
from vecstore.index.view import View, read_side_by_side
from vecstore.index.watched import Watched
from vecstore.part.reader import Gathered
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, SearchParams

_ONLY_LIST: Final = np.zeros(1, dtype=np.int32)  # of a part without codes
LEAST_SHARED: Final = 32  # queries from which on threads share a batch
LEAST_GROUP: Final = 16  # of queries that are answered together, where threads are to end together

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
    target = target_of(view, params)
    if target is None or view.whole is not None:
        return False
    chosen = False
    for number, lists in missing.lists.items():
        part = view.parts[number]
        calibration = part.reader.calibration
        if calibration is None or len(lists) <= SCATTERED or part.reader.lacks(lists) <= SCATTERED:
            continue
        rank, dead = share_of(view, part, params.top_k)
        price = price_for(
            calibration,
            target,
            plan.precision,
            top_k=params.top_k,
            rank=rank,
            skip=rank * dead,
            unpooled=bounds_for(target)[1] if plan.direct else None,
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
