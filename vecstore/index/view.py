"""What a search reads: the parts of one epoch, opened, with their live rows.

A view is immutable and shared by all searches of its epoch. The next epoch's view takes over
every part that did not change, so an insert or a delete costs the reader only what is new.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from vecstore.index.rotation import Rotation
from vecstore.live import LiveSet
from vecstore.manifest.model import Manifest, Part
from vecstore.manifest.tombstones import read_tombstone
from vecstore.part.reader import PartReader
from vecstore.storage.base import ObjectStore
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.types import F32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part and its live rows; ``number`` orders it within its view."""

    number: int
    reader: PartReader
    live: LiveSet
    group: int

    @property
    def small(self) -> bool:
        """Scanned exactly, without codes."""
        return self.reader.cells is None


@dataclass(frozen=True, slots=True)
class View:
    """One epoch, opened.

    Attributes
    ----------
    means
        The distinct centres that parts were encoded with; a query has one table for each.
    plans
        Probes a part for the settings of searches seen so far.
    """

    manifest: Manifest
    rotation: Rotation
    parts: tuple[OpenPart, ...]
    means: tuple[F32 | None, ...]
    alive: int
    trace: ReadTrace
    plans: dict[Any, tuple[int, ...]] = field(default_factory=dict)


class Views:
    """Opens and keeps the latest view of one namespace. Safe to share between threads."""

    def __init__(self, store: ObjectStore, cache: PageCache, executor: Callable[[], Executor]) -> None:
        self._store = store
        self._cache = cache
        self._executor = executor
        self._lock = threading.Lock()
        self._latest: View | None = None

    def open(self, manifest: Manifest) -> View:
        """The view of a manifest; cold parts and tombstones come in one dependent trip."""
        latest = self._latest
        if latest is not None and latest.manifest is manifest:
            return latest
        view = self._build(manifest, latest)
        with self._lock:
            kept = self._latest
            if kept is None or (kept.manifest.incarnation, kept.manifest.epoch) <= (
                manifest.incarnation,
                manifest.epoch,
            ):
                self._latest = view
        return view

    def drop(self) -> None:
        """Forget the latest view, for instance after a fork."""
        self._latest = None

    def _build(self, manifest: Manifest, before: View | None) -> View:
        known = {} if before is None else {p.reader.entry.id: p for p in before.parts}
        rotation = (
            before.rotation
            if before is not None and before.rotation.seed == manifest.rotation_seed
            else Rotation(manifest.dim, manifest.rotation_seed)
        )
        names: list[str | None] = []
        for entry in manifest.parts:
            if entry.mean not in names:
                names.append(entry.mean)
        trace = ReadTrace()
        opened = self._each(lambda pair: self._open_part(pair, manifest, names, known, rotation), manifest.parts)
        for _, spent in opened:
            trace.requests += spent.requests
            trace.bytes += spent.bytes
        trace.trips = 1 if trace.requests else 0
        parts = tuple(part for part, _ in opened)
        by_name = {mean.id: np.frombuffer(mean.f32, dtype="<f4") for mean in manifest.means}
        means = tuple(None if name is None else by_name[name] for name in names)
        return View(manifest, rotation, parts, means, sum(p.live.alive for p in parts), trace)

    def _each(
        self, work: Callable[[tuple[int, Part]], R], entries: Sequence[Part]
    ) -> list[R]:
        pairs: Iterable[tuple[int, Part]] = list(enumerate(entries))
        if len(entries) < 2:
            return [work(pair) for pair in pairs]
        return list(self._executor().map(work, pairs))

    def _open_part(
        self,
        pair: tuple[int, Part],
        manifest: Manifest,
        names: list[str | None],
        known: dict[str, OpenPart],
        rotation: Rotation,
    ) -> tuple[OpenPart, ReadTrace]:
        number, entry = pair
        trace = ReadTrace()
        group = names.index(entry.mean)
        before = known.get(entry.id)
        reader: PartReader
        if before is not None and before.reader.entry.owner == entry.owner:
            reader = before.reader
            if reader.entry.tombstone == entry.tombstone:
                return OpenPart(number, reader, before.live, group), trace
        else:
            reader = PartReader(
                self._store,
                self._cache,
                entry,
                dim=manifest.dim,
                padded_dim=rotation.padded_dim,
                id_kind=manifest.id_kind or "u64",
                trace=trace,
            )
        deletes = None
        if entry.tombstone is not None:
            deletes = read_tombstone(self._store, entry.tombstone, n=entry.n)
            trace.requests += 1
            trace.bytes += entry.tombstone.length
        live = LiveSet.from_deletes(deletes, entry.n, reader.list_rows)
        return OpenPart(number, reader.with_entry(entry), live, group), trace
