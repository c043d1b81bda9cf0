"""What a search reads: the parts of one epoch, opened, with their live rows.

A view is immutable and shared by all searches of its epoch. The next epoch's view takes over
every part that did not change, so an insert or a delete costs the reader only what is new.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from vecstore import deadline
from vecstore.aside import aside
from vecstore.errors import StorageCorrupt
from vecstore.ext.field import Field
from vecstore.index.dot import dot_length, dot_square
from vecstore.index.rotation import Rotation, padded
from vecstore.live import LiveSet
from vecstore.manifest.keys import current_key
from vecstore.manifest.model import Manifest, Part
from vecstore.manifest.tombstones import TombstoneCache
from vecstore.part.format import PAGE
from vecstore.part.reader import PartReader
from vecstore.storage.base import ObjectStore, Watch
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.types import F32

if TYPE_CHECKING:
    from vecstore.index.expiry import Lasting
    from vecstore.index.filtered import Matches

T = TypeVar("T")


def join_traces(into: ReadTrace, traces: Iterable[ReadTrace]) -> None:
    """Add up reads that ran side by side: together they took as many trips as the longest."""
    longest = 0
    for trace in traces:
        into.requests += trace.requests
        into.bytes += trace.bytes
        into.cache_hits += trace.cache_hits
        into.disk_hits += trace.disk_hits
        into.cache_misses += trace.cache_misses
        longest = max(longest, trace.trips)
    into.trips += longest


def read_side_by_side(
    reads: Sequence[Callable[[ReadTrace], T]], trace: ReadTrace, executor: Callable[[], Executor]
) -> list[T]:
    """Reads that do not depend on each other: one dependent trip, whatever their number."""
    traces = [ReadTrace() for _ in reads]
    if len(reads) < 2:
        found = [_step(read, spent) for read, spent in zip(reads, traces, strict=True)]
    else:
        with aside():
            found = list(executor().map(_step, reads, traces))
    join_traces(trace, traces)
    return found


def _step(read: Callable[[ReadTrace], T], trace: ReadTrace) -> T:
    deadline.check()
    return read(trace)


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part and its live rows; ``number`` orders it within its view."""

    number: int
    reader: PartReader
    live: LiveSet
    group: int
    empty: npt.NDArray[np.uint8] | None = None  # under a filter: 1 for lists without a row

    @property
    def small(self) -> bool:
        """Scanned exactly, without codes."""
        return self.reader.cells is None


@dataclass(frozen=True, slots=True)
class View:
    """One epoch, opened.

    Attributes
    ----------
    searched
        The parts with live rows.
    mapped
        Whether reading the parts needs no request.
    means
        The distinct centres that parts were encoded with; a query has one table for each.
    plans
        What `vecstore.index.plan` made of the parameters of searches seen so far.
    field
        The parts with live rows, as the kernels see them.
    matches, narrowed
        What filters match in parts, shared by all views, and the views that `vecstore.index.filtered`
        made of this one.
    whole
        Of a view under a filter, the one that it was made of.
    ground
        Of a view that was made of another, the field of all live rows of the epoch.
    lasting
        The view that `vecstore.index.expiry` made of this one last.
    """

    manifest: Manifest
    rotation: Rotation
    parts: tuple[OpenPart, ...]
    searched: list[OpenPart]
    mapped: bool
    means: tuple[F32 | None, ...]
    alive: int
    field: Field
    matches: Matches
    plans: dict[Any, Any] = dataclass_field(default_factory=dict)
    narrowed: dict[bytes, View] = dataclass_field(default_factory=dict)
    whole: View | None = None
    ground: Field | None = None
    lasting: list[Lasting] = dataclass_field(default_factory=list)


class Views:
    """Opens views of one namespace; keeps the latest, and the last one asked for of a past epoch.

    Safe to share between threads.
    """

    def __init__(
        self,
        store: ObjectStore,
        cache: PageCache,
        executor: Callable[[], Executor],
        tombstones: TombstoneCache,
        matches: Matches,
    ) -> None:
        self._store = store
        self._cache = cache
        self._executor = executor
        self._tombstones = tombstones
        self._matches = matches
        self._lock = threading.Lock()
        self._latest: View | None = None
        self._past: View | None = None
        self._readers: dict[str, PartReader] = {}
        self._watched: tuple[Watch, list[str]] | None = None
        self._forgotten = 0  # times that readers were dropped because their files were touched
        self._generation = 0  # of the cache, which the readers hold pages of

    def open(self, manifest: Manifest, trace: ReadTrace) -> View:
        """The view of a manifest; cold parts and tombstones come in one dependent trip.

        A part whose file was written to since it was verified is opened and verified again: that
        costs an ``fstat`` a part, and keeps damage done behind our back from being served (P5).
        """
        self._forget_touched()
        latest, past, forgotten = self._latest, self._past, self._forgotten
        if latest is not None and latest.manifest is manifest:
            return latest
        if past is not None and past.manifest is manifest:
            return past
        view = self._build(manifest, latest, trace)
        with self._lock:
            if self._forgotten != forgotten:
                return view  # not kept: it may hold a part that nobody watches any more
            kept = self._latest
            newer = kept is None or kept.manifest.incarnation != manifest.incarnation
            if newer or (kept is not None and kept.manifest.epoch <= manifest.epoch):
                self._latest = view
                if self._past is not None and not manifest.keeps(self._past.manifest.epoch):
                    self._past = None  # its files may go
            else:
                self._past = view
            views = (self._latest, self._past)
            named = {part.id for held in views if held is not None for part in held.manifest.parts}
            self._keep({i: r for i, r in self._readers.items() if i in named})
        return view

    def _forget_touched(self) -> None:
        generation = self._cache.refresh()
        if generation != self._generation:
            with self._lock:
                self._generation = generation
                self._latest = self._past = None
                self._forgotten += 1
                self._keep({})
        watched = self._watched
        if watched is not None and (changed := watched[0].changed()):
            touched = {watched[1][i] for i in changed}
            with self._lock:
                self._latest = self._past = None
                self._forgotten += 1
                self._keep({i: r for i, r in self._readers.items() if i not in touched})

    def _keep(self, readers: dict[str, PartReader]) -> None:
        """Keep these readers and watch the files that they map; with the lock held."""
        self._readers = readers
        stamped = [(i, r.key, r.stamp) for i, r in readers.items() if r.stamp is not None]
        watch = self._store.watch([(key, stamp) for _, key, stamp in stamped]) if stamped else None
        self._watched = None if watch is None else (watch, [i for i, _, _ in stamped])

    def reader(self, manifest: Manifest, entry: Part, trace: ReadTrace | None = None) -> PartReader:
        """The reader of a part, opened once."""
        reader = self._readers.get(entry.id)
        if reader is None:
            reader = PartReader(
                self._store,
                self._cache,
                entry,
                dim=manifest.dim,
                padded_dim=padded(manifest.dim),
                id_kind=manifest.id_kind or "u64",
                trace=trace if trace is not None else ReadTrace(),
            )
            _check_types(manifest, reader)
            with self._lock:
                if entry.id not in self._readers:
                    self._keep({**self._readers, entry.id: reader})
                reader = self._readers[entry.id]
        return reader if reader.entry == entry else reader.with_entry(entry)

    def _build(self, manifest: Manifest, before: View | None, trace: ReadTrace) -> View:
        known = {} if before is None else {p.reader.entry.id: p for p in before.parts}
        asked = (manifest.dim, manifest.rotation_seed)
        if before is not None and (before.rotation.dim, before.rotation.seed) == asked:
            rotation = before.rotation
        else:
            rotation = Rotation(*asked)
        names: list[str | None] = []
        for entry in manifest.parts:
            if entry.mean not in names:
                names.append(entry.mean)

        self._fetch_missing(manifest, trace)
        parts = tuple(
            self._open_part(manifest, number, entry, names.index(entry.mean), known.get(entry.id))
            for number, entry in enumerate(manifest.parts)
        )
        by_name = {mean.id: np.frombuffer(mean.f32, dtype="<f4") for mean in manifest.means}
        means = tuple(None if name is None else by_name[name] for name in names)
        if not all(mean is None or np.isfinite(mean).all() for mean in means):
            key = current_key(manifest.namespace)
            raise StorageCorrupt(f"{key}: a mean is not finite", object=key, section="manifest")
        searched = [part for part in parts if part.live.alive]
        mapped = all(part.reader.mapped for part in parts)
        return View(
            manifest=manifest,
            rotation=rotation,
            parts=parts,
            searched=searched,
            mapped=mapped,
            means=means,
            alive=sum(part.live.alive for part in parts),
            field=_field(manifest, rotation, means, searched, mapped),
            matches=self._matches,
        )

    def _fetch_missing(self, manifest: Manifest, trace: ReadTrace) -> None:
        """Open new parts and read new tombstones side by side, so that cold ones cost one trip."""
        reads: list[Callable[[ReadTrace], object]] = []
        for entry in manifest.parts:
            if entry.id not in self._readers:
                reads.append(partial(self.reader, manifest, entry))
            if entry.tombstone is not None and not self._tombstones.holds(entry.tombstone):
                reads.append(partial(self._read_tombstone, entry))
        read_side_by_side(reads, trace, self._executor)

    def _read_tombstone(self, entry: Part, trace: ReadTrace) -> None:
        self._tombstones.dead(entry)
        trace.requests += 1
        trace.trips += 1
        trace.bytes += entry.tombstone.length if entry.tombstone is not None else 0

    def _open_part(
        self, manifest: Manifest, number: int, entry: Part, group: int, before: OpenPart | None
    ) -> OpenPart:
        reader = self.reader(manifest, entry)
        if before is not None and before.reader.entry.tombstone == entry.tombstone:
            return OpenPart(number, reader, before.live, group)
        deletes = None if entry.tombstone is None else self._tombstones.dead(entry)
        return OpenPart(number, reader, LiveSet.from_deletes(deletes, entry.n, reader.list_rows), group)


def _check_types(manifest: Manifest, reader: PartReader) -> None:
    """Filters are bound to the schema, so columns have to be of its types."""
    for name, known in manifest.attributes.items():
        column = reader.columns.get(known.id)
        if column is not None and (column.type, column.filterable) != (known.type, known.filterable):
            raise StorageCorrupt(
                f"{reader.key}: column {name!r} is of type {column.type}, the schema says {known.type}",
                object=reader.key,
                section="columns",
                attribute=name,
            )


def _field(
    manifest: Manifest,
    rotation: Rotation,
    means: Sequence[F32 | None],
    parts: Sequence[OpenPart],
    mapped: bool,
) -> Field:
    """The parts as the kernels see them, in the order of their numbers."""
    scale = _dot_scale(parts, means) if manifest.metric == "dot" else ()
    field = Field(manifest.dim, manifest.metric, rotation.signs, means, PAGE, mapped, *scale)
    for part in parts:
        reader, base = part.reader, part.reader.entry.id_base or 0
        dtype = reader.vector_dtype
        if reader.cells is None:
            field.add_small(part.number, part.group, part.live.words, reader.entry.n, dtype, base)
            continue
        address, pages = reader.mapped_vectors() if mapped and dtype is not None else (0, None)
        field.add_coded(
            part.number,
            part.group,
            part.live.words,
            reader.cells,
            reader.cell_lists,
            reader.centroid_codes,
            reader.first_rows,
            reader.first_blocks,
            reader.ready,
            reader.entry.n,
            dtype,
            address,
            pages,
            base,
        )
    return field


def _dot_scale(parts: Sequence[OpenPart], means: Sequence[F32 | None]) -> tuple[float, int, float]:
    """How long a query must be for all parts; of the largest its group, and what `dot_gain` asks of it."""
    length = max((dot_length(part.reader.cells, means[part.group]) for part in parts), default=0.0)
    if not parts:
        return length, 0, 0.0
    largest = max(parts, key=lambda part: part.reader.entry.n)
    return length, largest.group, dot_square(largest.reader.cells, means[largest.group])
