"""A search over a view: the kernels carry a plan out, we fetch what they miss.

    parameters -> `plan` -> `vecstore.ext.search` (table, lists, scan, re-rank) -> hits

Internal distances are squared L2 (cosine: of unit vectors; dot: less both squared norms, which leaves
-2<q, o>); they become public at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
STEP_BYTES: Final = 64 << 20  # that are fetched for queries in step: a quarter of the usual cache

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

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """bool[M, k]: places that hold a hit."""
        return np.arange(self.ids.shape[1]) < self.counts[:, None]

    def flat(self) -> Answer:
        """The hits of all queries, one query after another."""
        filled = self.filled
        return Answer(self.ids[filled], self.distances[filled], self.parts[filled], self.rows[filled])

    def within(self, most: float) -> BatchAnswer:
        """The hits that are no farther than a public distance."""
        near = (self.distances <= np.float64(most)) & self.filled
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
    if missing is not None and _choose_extents(view, plan, params, searcher, missing):
        missing = kernels.run()
    while missing is not None:
        deadline.check()
        _read(view, [(searcher, missing)], trace, executor)
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
    if view.mapped or target is None or view.whole is not None:
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
    waiting = deque(left)
    while waiting:
        _in_step(view, plan, params, queries, waiting, answer, scratch, executor)
    if view.manifest.id_kind != "string":
        return answer
    names = np.full(shape, "", dtype=object)
    hits = answer.flat()
    names[answer.filled] = ids_at(view, hits.parts, hits.rows, ReadTrace())
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


def _in_step(
    view: View,
    plan: Plan,
    params: SearchParams,
    queries: F32,
    waiting: deque[int],
    answer: BatchAnswer,
    scratch: Scratch,
    executor: Executors,
) -> None:
    """Answer the next of the waiting queries, a group at most, until `STEP_BYTES` have to be fetched.

    What one waits for the others wait for too, so that they all take the trips of one.
    """
    searchers: dict[int, Searcher] = {}
    misses: list[tuple[Searcher, Missing]] = []
    size = 0
    try:
        while waiting and size < STEP_BYTES and len(searchers) < GROUP:
            deadline.check()
            i = waiting.popleft()
            searcher = searchers[i] = scratch.take(view.field.padded_dim)
            missing = searcher.begin(view.field, plan, queries[i], False)
            if missing is not None and _choose_extents(view, plan, params, searcher, missing):
                missing = searcher.run()
            if missing is not None:
                misses.append((searcher, missing))
                size += _bytes_of(view, missing)
                if plan.precision == "fp32" and not view.mapped:
                    size += 4 * view.manifest.dim * params.top_k
        while misses:
            deadline.check()
            _read(view, misses, ReadTrace(), executor)
            ran = [(searcher, searcher.run()) for searcher, _ in misses]
            misses = [(searcher, missing) for searcher, missing in ran if missing is not None]
        for i, searcher in searchers.items():
            ids, distances, parts, rows = searcher.hits()
            n = answer.counts[i] = len(rows)
            answer.ids[i, :n], answer.distances[i, :n] = ids, distances
            answer.parts[i, :n], answer.rows[i, :n] = parts, rows
    finally:
        for searcher in searchers.values():
            scratch.give(searcher)


def _bytes_of(view: View, missing: Missing) -> int:
    """Of the records that have to be fetched for a search."""
    if view.mapped:
        return 0
    wanted = [*missing.lists.items(), *((number, _ONLY_LIST) for number in missing.small)]
    size = 0.0
    for number, lists in wanted:
        reader = view.parts[number].reader
        size += reader.lists["length"][lists].mean(dtype=np.float64) * reader.lacks(lists)
    return int(size)


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


def _read(
    view: View, searches: Sequence[tuple[Searcher, Missing]], trace: ReadTrace, executor: Executors
) -> None:
    """Read what searches miss, side by side and everything once, and tell each where its own lies."""
    lists = _union(missing.lists for _, missing in searches)
    rows = _union({number: rows for number, (_, rows) in missing.vectors.items()} for _, missing in searches)
    reads: dict[tuple[str, int], Callable[[ReadTrace], Gathered]] = {}
    for number, wanted in lists.items():
        reads["lists", number] = partial(view.parts[number].reader.records, wanted)
    for number in sorted({number for _, missing in searches for number in missing.small}):
        reader = view.parts[number].reader
        reads["small", number] = partial(reader.records, _ONLY_LIST)
        if reader.vector_dtype is not None:
            reads["stored", number] = reader.all_vectors
    for number, wanted in rows.items():
        reads["vectors", number] = partial(view.parts[number].reader.vectors, wanted)
    if view.mapped:
        gathered = [read(trace) for read in reads.values()]
    else:
        gathered = read_side_by_side(list(reads.values()), trace, executor)
    found = dict(zip(reads, gathered, strict=True))
    for searcher, missing in searches:
        for number, chosen in missing.lists.items():
            if not view.mapped:
                records = found["lists", number]
                addresses = records.addresses[np.searchsorted(lists[number], chosen)]
                searcher.give_lists(number, chosen, addresses, records.keep)
        for number in missing.small:
            head, own = found["small", number], found.get(("stored", number))
            address = 0 if own is None else int(own.addresses[0])
            if view.mapped:
                view.field.place_small(number, int(head.addresses[0]), address)
            else:
                searcher.give_small(number, int(head.addresses[0]), address, (head.keep, own))
        for number, (places, asked) in missing.vectors.items():
            vectors = found["vectors", number]
            addresses = vectors.addresses[np.searchsorted(rows[number], asked)]
            searcher.give_vectors(places, addresses, vectors.keep)


def _union(wanted: Iterable[Mapping[int, npt.NDArray[Any]]]) -> dict[int, npt.NDArray[Any]]:
    """What several searches want of each part: once, ascending."""
    of_part: dict[int, list[npt.NDArray[Any]]] = {}
    for one in wanted:
        for number, some in one.items():
            of_part.setdefault(number, []).append(some)
    return {number: np.unique(np.concatenate(some)) for number, some in of_part.items()}


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
