"""One namespace over a store: searches and reads, each on a snapshot. What changes it is `writes.py`.

Nothing here outlives the process but what the store holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from vecstore.engine.changes import check_id_kind
from vecstore.engine.scan import Scanner, position_of
from vecstore.engine.writes import Writes, tag_of
from vecstore.errors import (
    InvalidArgument,
    RowNotFound,
    StorageMissing,
)
from vecstore.index.filtered import Matches, narrowed
from vecstore.index.search import Answer, Scratch, search_many, search_namespace
from vecstore.index.view import OpenPart, View, Views, read_side_by_side
from vecstore.limits import MAX_BATCH_BYTES, MAX_BATCH_HITS, MAX_QUERIES
from vecstore.manifest.model import Manifest, Settings
from vecstore.manifest.pins import tags_of
from vecstore.manifest.publish import Publisher
from vecstore.manifest.snapshot import Snapshot, SnapshotSource
from vecstore.manifest.tombstones import TombstoneCache
from vecstore.part.rows import PartRows
from vecstore.rows.ids import Ids, parse_ids
from vecstore.rows.vectors import as_vector, as_vectors
from vecstore.storage.base import ObjectStore
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.storage.forks import OwnProcess
from vecstore.types import (
    F32,
    AttributeType,
    BatchHits,
    Hits,
    NamespaceInfo,
    Row,
    RowId,
    ScanPage,
    ScanParams,
    SearchParams,
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

    Parameters
    ----------
    threads
        That a batch of queries is spread over.
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
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.name = name
        self.snapshots = SnapshotSource(store, name, clock=clock)
        self.tombstones = tombstones
        self.publisher = Publisher(
            store, name, self.snapshots, clock=clock, rng=rng, sleep=sleep, tombstones=self.tombstones
        )
        self.views = Views(store, cache, executor, self.tombstones, Matches())
        self._executor = executor
        self.rng = rng
        self.clock = clock
        self._scratch = Scratch()
        self._threads = threads
        self._process = OwnProcess(f"namespace {name!r}")
        self.writes = Writes(self.publisher, self.views, executor, self._process, wrote)
        self.last_use = 0  # kept by `vecstore.engine.open`

    def executor(self) -> Executor:
        """Where reads run side by side."""
        return self._executor()

    # -- searches --------------------------------------------------------------------------

    def search(self, q: object, params: SearchParams) -> Hits:
        """The neighbours of one query, dim numbers."""
        self._process.check()
        trace = ReadTrace()
        return self._read(self._snapshot(params, trace), params.epoch, self._search, q, params, trace)

    def search_batch(self, queries: object, params: SearchParams) -> BatchHits:
        """The neighbours of M queries of dim numbers, all of one epoch."""
        self._process.check()
        trace = ReadTrace()
        return self._read(
            self._snapshot(params, trace), params.epoch, self._search_batch, queries, params, trace
        )

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

    def _search(self, manifest: Manifest, values: object, params: SearchParams, trace: ReadTrace) -> Hits:
        q = as_vector(values, manifest.dim, manifest.metric)
        view = self.searched_view(manifest, params, trace)
        searcher = self._scratch.take(view.field.padded_dim)
        try:
            answer = search_namespace(view, q, params, searcher, trace, self._executor)
        finally:
            self._scratch.give(searcher)
        vectors = attributes = None
        if "vector" in params.include:
            vectors = _vectors_of(view, answer, trace, self._executor)
        if params.include or params.exclude is not None:
            attributes = _attributes_of(view, answer, params, trace, self._executor)
        return Hits(
            answer.ids,
            answer.distances,
            manifest.epoch,
            vectors,
            answer.debug,
            manifest.incarnation,
            attributes,
            _types(manifest, params),
        )

    def searched_view(self, manifest: Manifest, params: SearchParams, trace: ReadTrace) -> View:
        """The rows that a search may find."""
        view = self.views.open(manifest, trace)
        return view if params.filter is None else narrowed(view, params.filter, trace, self._executor)

    def _search_batch(
        self, manifest: Manifest, values: object, params: SearchParams, trace: ReadTrace
    ) -> BatchHits:
        queries = as_vectors(values, manifest.dim, manifest.metric)
        if len(queries) > MAX_QUERIES:
            raise InvalidArgument(
                f"vectors must be at most {MAX_QUERIES}", field="vectors", limit=MAX_QUERIES
            )
        _check_answer(len(queries), manifest.dim, params)
        view = self.searched_view(manifest, params, trace)
        if params.include or params.exclude is not None or params.debug:
            return self._one_by_one(view, queries, params)
        found = search_many(view, queries, params, self._scratch, self._executor, self._threads)
        return BatchHits(
            found.ids, found.distances, found.counts, manifest.epoch, None, None, manifest.incarnation
        )

    def _one_by_one(self, view: View, queries: F32, params: SearchParams) -> BatchHits:
        """A batch whose queries are told of, or bring vectors, one by one."""
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
                trace = ReadTrace()
                answer = search_namespace(view, q, params, searcher, trace, self._executor)
                counts[i] = len(answer.rows)
                ids[i, : counts[i]] = answer.ids
                distances[i, : counts[i]] = answer.distances
                if vectors is not None:
                    vectors[i, : counts[i]] = _vectors_of(view, answer, trace, self._executor)
                found = _attributes_of(view, answer, params, trace, self._executor)
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
            _types(manifest, params),
        )

    def _snapshot(self, params: SearchParams, trace: ReadTrace) -> Snapshot:
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
        wanted: RowId = ids.values[0] if ids.kind == "string" else int(ids.values[0])
        if manifest.id_kind is not None:
            check_id_kind(manifest, ids, field="id")
        trace = ReadTrace()
        view = self.views.open(manifest, trace)
        for part in reversed(view.parts):
            _, rows = part.reader.find(ids, trace)
            alive = rows[part.live.is_live(rows)]
            if len(alive):
                vectors = part.reader.read_vectors(alive[:1], trace) if include_vector else None
                return Row(
                    wanted,
                    None if vectors is None else vectors[0],
                    manifest.epoch,
                    _values(manifest, part, alive[:1], list(manifest.attributes), trace)[0],
                    incarnation=manifest.incarnation,
                )
        raise RowNotFound(
            f"no live row {wanted!r} in {self.name!r} at epoch {manifest.epoch}",
            id=wanted,
            epoch=manifest.epoch,
        )

    def scan(self, asked: ScanParams) -> ScanPage:
        """One page of the live rows of an epoch."""
        self._process.check()
        position = position_of(asked)
        epoch = asked.epoch if position is None else position.epoch
        scanner = Scanner(self.name, self.views, self._executor)
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


def _check_answer(queries: int, dim: int, params: SearchParams) -> None:
    """The arrays of a batch's answer are made for ``top_k`` hits a query, so they are bounded first."""
    limit = MAX_BATCH_HITS
    if "vector" in params.include:
        limit = min(limit, MAX_BATCH_BYTES // (4 * dim))
    if queries * params.top_k > limit:
        raise InvalidArgument(
            f"{queries} vectors with top_k {params.top_k} are more than {limit} hits; send fewer vectors",
            field="top_k",
            limit=limit,
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


def settings_dict(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def _vectors_of(view: View, answer: Answer, trace: ReadTrace, executor: Callable[[], Executor]) -> F32:
    """f32[k, dim]; NaN where a part keeps no vectors. One trip more, which ``debug`` tells of."""
    out = np.full((len(answer.rows), view.manifest.dim), np.nan, dtype=np.float32)
    numbers = np.unique(answer.parts).tolist()
    places = [np.flatnonzero(answer.parts == number) for number in numbers]
    reads = [
        partial(view.parts[number].reader.read_vectors, answer.rows[mine])
        for number, mine in zip(numbers, places, strict=True)
    ]
    for mine, found in zip(places, read_side_by_side(reads, trace, executor), strict=True):
        if found is not None:
            out[mine] = found
    if answer.debug is not None:
        answer.debug["storage"] = trace.report()
    return out


def _attributes_of(
    view: View, answer: Answer, params: SearchParams, trace: ReadTrace, executor: Callable[[], Executor]
) -> list[dict[str, Any]] | None:
    """What hits bring of their attributes; None if nothing was asked for. One trip more, or two."""
    names = _wanted(view.manifest, params)
    if names is None:
        return None
    out: list[dict[str, Any]] = [{} for _ in answer.rows]
    numbers = np.unique(answer.parts).tolist()
    places = [np.flatnonzero(answer.parts == number) for number in numbers]
    reads = [
        partial(_values, view.manifest, view.parts[number], answer.rows[mine], names)
        for number, mine in zip(numbers, places, strict=True)
    ]
    for mine, found in zip(places, read_side_by_side(reads, trace, executor), strict=True):
        for place, attributes in zip(mine.tolist(), found, strict=True):
            out[place] = attributes
    if answer.debug is not None:
        answer.debug["storage"] = trace.report()
    return out


def _types(manifest: Manifest, params: SearchParams) -> dict[str, AttributeType] | None:
    """The types of the attributes that hits bring."""
    if not params.include and params.exclude is None:
        return None
    names = _wanted(manifest, params)
    return None if names is None else {name: manifest.attributes[name].type for name in names}


def _wanted(manifest: Manifest, params: SearchParams) -> list[str] | None:
    """The attributes that hits are to bring; None if none were asked for."""
    known = manifest.attributes
    included = [name for name in params.include if name != "vector"]
    for field, names in (("include", included), ("exclude", params.exclude or ())):
        for name in names:
            if name not in known:
                raise InvalidArgument(
                    f"{field} names {name!r}, which is no attribute of {manifest.namespace!r}",
                    field=field,
                    limit=["vector", *known],
                )
    if params.exclude is not None:
        return [name for name in known if name not in params.exclude]
    return included or None


def _values(
    manifest: Manifest, part: OpenPart, rows: npt.NDArray[np.int64], names: list[str], trace: ReadTrace
) -> list[dict[str, Any]]:
    """The attributes of rows of a part; None where one has none."""
    out: list[dict[str, Any]] = [{} for _ in rows]
    source = PartRows(part.reader, trace)
    columns = [(name, source.column(name, manifest.attributes[name].id)) for name in names]
    source.fetch(
        [span for _, column in columns if column is not None for span in column.spans(inverted=False)]
    )
    for name, column in columns:
        values = [None] * len(rows) if column is None else column.values(rows)
        for attributes, value in zip(out, values, strict=True):
            attributes[name] = value
    return out
