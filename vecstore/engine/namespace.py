"""One namespace over a store: searches and reads, each on a snapshot. What changes it is `writes.py`.

Nothing here outlives the process but what the store holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from itertools import islice
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from vecstore import deadline
from vecstore.engine.aggregate import aggregate
from vecstore.engine.brought import attributes_of, types_of, values_of, vectors_of
from vecstore.engine.choice import check_id_kind
from vecstore.engine.scan import Scanner, position_of
from vecstore.engine.writes import Writes, tag_of
from vecstore.errors import (
    InvalidArgument,
    RowNotFound,
    StorageMissing,
)
from vecstore.ext.search import Searcher
from vecstore.index.expiry import unexpired
from vecstore.index.filtered import Matches, narrowed
from vecstore.index.ordered import search_ordered
from vecstore.index.per_group import search_per_group
from vecstore.index.search import Answer, Scratch, search_beside, search_many, search_namespace
from vecstore.index.view import OpenPart, View, Views
from vecstore.limits import MAX_BATCH_HITS, MAX_QUERIES
from vecstore.manifest.lease import Left
from vecstore.manifest.model import Manifest, Settings
from vecstore.manifest.pins import tags_of
from vecstore.manifest.publish import Publisher
from vecstore.manifest.snapshot import Snapshot, SnapshotSource
from vecstore.manifest.tombstones import TombstoneCache
from vecstore.observe import Observer
from vecstore.params import told_of
from vecstore.rows.allowance import Allowance
from vecstore.rows.ids import Ids, parse_ids
from vecstore.rows.vectors import as_vector, as_vectors
from vecstore.storage.base import ObjectStore
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.storage.forks import OwnProcess
from vecstore.types import (
    F32,
    AggregateParams,
    Aggregates,
    BatchHits,
    Hits,
    Moment,
    NamespaceInfo,
    Query,
    Row,
    RowId,
    ScanPage,
    ScanParams,
    SearchParams,
    StoredRow,
    Tag,
)

P = ParamSpec("P")
T = TypeVar("T")


# A search or a look-up that loses its parts to collection starts again on a newer snapshot, so often.
_RESTARTS = 3


class NamespaceEngine:
    """One namespace in one process. Thread-safe; keep one a name, so that commits are grouped.

    Attributes
    ----------
    writes
        What changes it.
    compactions
        The lease that a thread's last compaction could not release.

    Parameters
    ----------
    threads
        That a batch of queries is spread over.
    observer
        Hears of searches and commits.
    clock, sleep
        Monotonic seconds, and a pause.
    """

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        cache: PageCache,
        tombstones: TombstoneCache,
        executor: Callable[[], Executor],
        rng: Random,
        *,
        threads: int = 1,
        wrote: Callable[[str], None] = lambda _: None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.name = name
        self.snapshots = SnapshotSource(store, name, clock=clock)
        self.tombstones = tombstones
        self._observer = observer if observer is not None else Observer()
        self.publisher = Publisher(
            store,
            name,
            self.snapshots,
            clock=clock,
            rng=rng,
            sleep=sleep,
            tombstones=self.tombstones,
            observer=self._observer,
        )
        self.views = Views(store, cache, executor, self.tombstones, Matches())
        self._executor = executor
        self.rng = rng
        self.clock = clock
        self._scratch = Scratch()
        self._threads = threads
        self._process = OwnProcess(f"namespace {name!r}")
        self.writes = Writes(self.publisher, self.views, executor, self._process, wrote)
        self.compactions = Left()
        self.last_use = 0  # kept by `vecstore.engine.open`

    def executor(self) -> Executor:
        """Where reads run side by side."""
        return self._executor()

    # -- searches --------------------------------------------------------------------------

    def search(self, q: object, params: SearchParams) -> Hits:
        """The neighbours of one query, dim numbers."""
        self._process.check()
        trace = ReadTrace()
        watch = self._observer.search(self.name, params)
        if watch is None:
            return self._read(self._snapshot(params, trace), params.epoch, self._search, q, params, trace)
        trace.watch = watch
        try:
            watch.stage("snapshot")
            snapshot = self._snapshot(params, trace)
            found = self._read(snapshot, params.epoch, self._search, q, params, trace)
        except BaseException as error:
            watch.end(trace, error)
            raise
        watch.end(trace)
        return found

    def search_batch(self, queries: object, params: SearchParams) -> BatchHits:
        """The neighbours of M queries of dim numbers, all of one epoch."""
        self._process.check()
        trace = ReadTrace()
        found = self._read(
            self._snapshot(params, trace), params.epoch, self._search_batch, queries, params, trace
        )
        self._observer.count("batch_queries", len(found))
        return found

    def aggregate(self, params: AggregateParams) -> Aggregates:
        """What is asked of all live rows that a filter matches."""
        self._process.check()
        trace = ReadTrace()
        return self._read(self._snapshot(params, trace), params.epoch, self._aggregate, params, trace)

    def multi_query(
        self, queries: Sequence[Query | AggregateParams], moment: Moment
    ) -> list[Hits | Aggregates]:
        """Answers to several queries, all of one epoch."""
        self._process.check()
        found = self._read(self._snapshot(moment, ReadTrace()), moment.epoch, self._multi_query, queries)
        self._observer.count("batch_queries", sum(isinstance(one, Query) for one in queries))
        return found

    def _multi_query(
        self, manifest: Manifest, queries: Sequence[Query | AggregateParams]
    ) -> list[Hits | Aggregates]:
        allowance = _allowance(
            manifest, sum(_vectors_asked(one.params) for one in queries if isinstance(one, Query))
        )
        live = self.live_view(manifest, ReadTrace())
        found: list[Hits | Aggregates] = []
        for i, one in enumerate(queries):
            deadline.check()
            trace = ReadTrace()
            with told_of(i):
                if isinstance(one, Query):
                    found.append(self._hits(live, one.asked, one.params, allowance, trace))
                else:
                    view = self._matching(live, one, trace)
                    found.append(aggregate(view, one, allowance, trace, self._executor))
        return found

    def _aggregate(self, manifest: Manifest, params: AggregateParams, trace: ReadTrace) -> Aggregates:
        view = self.searched_view(manifest, params, trace)
        return aggregate(view, params, Allowance(), trace, self._executor)

    def _read(
        self,
        snapshot: Snapshot,
        epoch: int | None,
        ask: Callable[Concatenate[Manifest, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """One read of a snapshot, on a newer one if collection took its parts away meanwhile.

        Where an ``epoch`` was named there is no newer one: `SnapshotExpired` if it has left the window.
        """
        for _ in range(_RESTARTS):
            try:
                return ask(snapshot.manifest, *args, **kwargs)
            except StorageMissing:
                newer = self._at(epoch)
                if newer.epoch == snapshot.epoch:
                    raise
                snapshot = newer
        return ask(snapshot.manifest, *args, **kwargs)

    def _search(self, manifest: Manifest, asked: object, params: SearchParams, trace: ReadTrace) -> Hits:
        allowance = _allowance(manifest, _vectors_asked(params))
        if trace.watch is not None:
            trace.watch.stage("plan")
        return self._hits(self.live_view(manifest, trace), asked, params, allowance, trace)

    def _hits(
        self, live: View, asked: object, params: SearchParams, allowance: Allowance, trace: ReadTrace
    ) -> Hits:
        """One search of the rows that can be read: of a vector, of a `StoredRow`, or in an order."""
        manifest = live.manifest
        if params.order_by is not None:
            view = self._matching(live, params, trace)
            answer = search_ordered(
                view, params.order_by, params.top_k, trace, self._executor, debug=params.debug
            )
        else:
            view, answer = self._nearest(live, asked, params, trace)
        if trace.watch is not None and (params.include or params.exclude is not None):
            trace.watch.stage("fetch")
        vectors = attributes = None
        if "vector" in params.include:
            vectors = vectors_of(view, answer, trace, self._executor)
        if params.include or params.exclude is not None:
            attributes = attributes_of(view, answer, params, allowance, trace, self._executor)
        return Hits(
            answer.ids,
            answer.distances,
            manifest.epoch,
            vectors,
            answer.debug,
            manifest.incarnation,
            attributes,
            types_of(manifest, params),
        )

    def _nearest(
        self, live: View, asked: object, params: SearchParams, trace: ReadTrace
    ) -> tuple[View, Answer]:
        """The view that is searched, and the neighbours of a vector or of a stored row."""
        skip = None
        if isinstance(asked, StoredRow):
            q, skip = self._stored(live, asked, trace)
        else:
            q = as_vector(asked, live.manifest.dim, live.manifest.metric)
        view = self._matching(live, params, trace)
        searcher = self._scratch.take(view.field.padded_dim)
        try:
            return view, self._answer(view, q, params, skip, searcher, trace)
        finally:
            self._scratch.give(searcher)

    def _answer(
        self,
        view: View,
        q: F32,
        params: SearchParams,
        skip: tuple[int, int] | None,
        searcher: Searcher,
        trace: ReadTrace,
    ) -> Answer:
        """The neighbours of one query, all but the row to skip."""
        if params.limit_per_group is not None:
            answer = search_per_group(view, q, params, skip, searcher, trace, self._executor)
        elif skip is not None:
            answer = search_beside(view, q, params, skip, searcher, trace, self._executor)
        else:
            answer = search_namespace(view, q, params, searcher, trace, self._executor)
        return answer if params.max_distance is None else answer.within(params.max_distance)

    def _stored(self, live: View, asked: StoredRow, trace: ReadTrace) -> tuple[F32, tuple[int, int] | None]:
        """The vector of a stored row, and where the row lies if it is to be no hit."""
        part, row = self._locate(live, parse_ids([asked.id], field="id"), trace)
        found = part.reader.read_vectors(np.array([row]), trace)
        if found is None:
            raise InvalidArgument(
                f"row {asked.id!r} cannot be a query: its part keeps no vectors (store_vectors)", field="id"
            )
        skip = None if asked.itself else (part.number, row)
        return as_vector(found[0], live.manifest.dim, live.manifest.metric), skip

    def searched_view(
        self, manifest: Manifest, params: SearchParams | AggregateParams, trace: ReadTrace
    ) -> View:
        """The rows that a search may find."""
        return self._matching(self.live_view(manifest, trace), params, trace)

    def live_view(self, manifest: Manifest, trace: ReadTrace) -> View:
        """The rows that can be read: alive, and not expired by now. A request asks once."""
        view = self.views.open(manifest, trace)
        if manifest.settings.expire_by is None:
            return view
        return unexpired(view, self.store.now(), trace, self._executor)

    def _matching(self, live: View, params: SearchParams | AggregateParams, trace: ReadTrace) -> View:
        return live if params.filter is None else narrowed(live, params.filter, trace, self._executor)

    def _search_batch(
        self, manifest: Manifest, values: object, params: SearchParams, trace: ReadTrace
    ) -> BatchHits:
        queries = as_vectors(values, manifest.dim, manifest.metric)
        if len(queries) > MAX_QUERIES:
            raise InvalidArgument(
                f"vectors must be at most {MAX_QUERIES}", field="vectors", limit=MAX_QUERIES
            )
        _check_answer(len(queries), params)
        allowance = _allowance(manifest, len(queries) * _vectors_asked(params))
        view = self.searched_view(manifest, params, trace)
        if params.debug or params.limit_per_group:
            return self._one_by_one(view, queries, params, allowance)
        types = types_of(manifest, params)
        found = search_many(view, queries, params, self._scratch, self._executor, self._threads)
        if params.max_distance is not None:
            found = found.within(params.max_distance)
        vectors = attributes = None
        if "vector" in params.include:
            vectors = np.zeros((*found.ids.shape, manifest.dim), dtype=np.float32)
            vectors[found.filled] = vectors_of(view, found.flat(), trace, self._executor)
        if params.include or params.exclude is not None:
            brought = attributes_of(view, found.flat(), params, allowance, trace, self._executor)
            if brought is not None:
                following = iter(brought)
                attributes = [list(islice(following, n)) for n in found.counts.tolist()]
        deadline.check()
        return BatchHits(
            found.ids,
            found.distances,
            found.counts,
            manifest.epoch,
            vectors,
            None,
            manifest.incarnation,
            attributes,
            types,
        )

    def _one_by_one(self, view: View, queries: F32, params: SearchParams, allowance: Allowance) -> BatchHits:
        """A batch whose queries are told of, or are limited a group: one by one."""
        manifest, shape = view.manifest, (len(queries), params.top_k)
        strings = manifest.id_kind == "string"
        ids: npt.NDArray[Any] = np.full(shape, "", dtype=object) if strings else np.zeros(shape, np.uint64)
        distances = np.full(shape, np.inf, dtype=np.float32)
        counts = np.zeros(len(queries), dtype=np.int64)
        vectors = np.zeros((*shape, manifest.dim), dtype=np.float32) if "vector" in params.include else None
        attributes: list[list[dict[str, Any]]] = []
        debug: list[dict[str, Any]] | None = [] if params.debug else None
        searcher = self._scratch.take(view.field.padded_dim)
        try:
            for i, q in enumerate(queries):
                deadline.check()
                trace = ReadTrace()
                answer = self._answer(view, q, params, None, searcher, trace)
                counts[i] = len(answer.rows)
                ids[i, : counts[i]] = answer.ids
                distances[i, : counts[i]] = answer.distances
                if vectors is not None:
                    vectors[i, : counts[i]] = vectors_of(view, answer, trace, self._executor)
                found = attributes_of(view, answer, params, allowance, trace, self._executor)
                attributes += [] if found is None else [found]
                if debug is not None:
                    debug.append(answer.debug or {})
        finally:
            self._scratch.give(searcher)
        return BatchHits(
            ids,
            distances,
            counts,
            manifest.epoch,
            vectors,
            debug,
            manifest.incarnation,
            attributes or None,
            types_of(manifest, params),
        )

    def _snapshot(self, params: SearchParams | AggregateParams | Moment, trace: ReadTrace) -> Snapshot:
        if params.epoch is not None:
            return self.snapshots.at_epoch(params.epoch)
        if params.consistency == "eventual":
            return self.snapshots.eventual(params.max_staleness, trace)
        return self.snapshots.strong(trace)

    def _at(self, epoch: int | None) -> Snapshot:
        return self.snapshots.strong() if epoch is None else self.snapshots.at_epoch(epoch)

    # -- reads -----------------------------------------------------------------------------

    def row(self, identity: RowId, *, include_vector: bool = True, epoch: int | None = None) -> Row:
        """The row of one id that is live now, or was at a past epoch. `RowNotFound` if there is none."""
        self._process.check()
        ids = parse_ids([identity], field="id")
        return self._read(self._at(epoch), epoch, self._row, ids, include_vector)

    def _row(self, manifest: Manifest, ids: Ids, include_vector: bool) -> Row:
        trace = ReadTrace()
        part, row = self._locate(self.live_view(manifest, trace), ids, trace)
        rows = np.array([row])
        vectors = part.reader.read_vectors(rows, trace) if include_vector else None
        return Row(
            _id_of(ids),
            None if vectors is None else vectors[0],
            manifest.epoch,
            values_of(manifest, part, rows, list(manifest.attributes), Allowance(), trace)[0],
            incarnation=manifest.incarnation,
        )

    def _locate(self, view: View, ids: Ids, trace: ReadTrace) -> tuple[OpenPart, int]:
        """Where the live row of one id lies. `RowNotFound` if there is none."""
        if view.manifest.id_kind is not None:
            check_id_kind(view.manifest, ids, field="id")
        for part in reversed(view.parts):
            _, rows = part.reader.index.find(ids, trace)
            alive = rows[part.live.is_live(rows)]
            if len(alive):
                return part, int(alive[0])
        wanted, epoch = _id_of(ids), view.manifest.epoch
        raise RowNotFound(f"no live row {wanted!r} in {self.name!r} at epoch {epoch}", id=wanted, epoch=epoch)

    def scan(self, asked: ScanParams) -> ScanPage:
        """One page of the live rows of an epoch."""
        self._process.check()
        position = position_of(asked)
        epoch = asked.epoch if position is None else position.epoch
        scanner = Scanner(self.name, self.live_view, self._executor)
        return self._read(self._at(epoch), epoch, scanner.page, asked, position)

    def manifest(self, epoch: int | None = None) -> Manifest:
        """The current manifest, or that of a past epoch."""
        self._process.check()
        return self._at(epoch).manifest

    def info(self) -> NamespaceInfo:
        return describe(self.manifest())

    def tags(self) -> list[Tag]:
        """The tags, by name."""
        return [tag_of(pin) for pin in tags_of(self.manifest())]


def _vectors_asked(params: SearchParams) -> int:
    return params.top_k if "vector" in params.include else 0


def _allowance(manifest: Manifest, vectors: int) -> Allowance:
    """What is left to attributes and groups once the vectors of all hits are counted."""
    allowance = Allowance()
    if vectors:
        allowance.take_vectors(vectors, manifest.dim)
    return allowance


def _check_answer(queries: int, params: SearchParams) -> None:
    """The arrays of a batch's answer are made for ``top_k`` hits a query, so they are bounded first."""
    if queries * params.top_k > MAX_BATCH_HITS:
        raise InvalidArgument(
            f"{queries} vectors with top_k {params.top_k} are more than {MAX_BATCH_HITS} hits; "
            "send fewer vectors",
            field="top_k",
            limit=MAX_BATCH_HITS,
        )


def describe(manifest: Manifest) -> NamespaceInfo:
    """A manifest as its users see it."""
    return NamespaceInfo(
        name=manifest.namespace,
        dim=manifest.dim,
        metric=manifest.metric,
        id_kind=manifest.id_kind,
        incarnation=manifest.incarnation,
        epoch=manifest.epoch,
        rows=manifest.rows,
        parts=len(manifest.parts),
        bytes=sum(part.bytes for part in manifest.parts),
        tombstones=sum(part.n - part.live for part in manifest.parts),
        created_at=manifest.created_at,
        updated_at=manifest.committed_at,
        defaults=settings_dict(manifest.settings),
        schema={
            name: {"type": known.type, "filterable": known.filterable}
            for name, known in manifest.attributes.items()
        },
    )


def _id_of(ids: Ids) -> RowId:
    """The one id that there is."""
    return str(ids.values[0]) if ids.kind == "string" else int(ids.values[0])


def settings_dict(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}
