"""Verification: read every object, hold every byte against its checksum and every invariant against it.

Reads only, and goes straight to the store: no cache vouches for anything. Memory is bounded by a few
chunks, the manifests of two epochs, and the keys of one namespace. Imports manifest, part and storage.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from vecstore.errors import NOT_JSON, NamespaceNotFound, StorageCorrupt, StorageMissing
from vecstore.index.rotation import padded
from vecstore.invariants import Violation, check_ancestors, check_manifest, check_successors
from vecstore.manifest import history
from vecstore.manifest.keys import (
    current_key,
    delete_key,
    history_key,
    history_prefix,
    namespace_prefix,
    namespaces_prefix,
    part_key,
)
from vecstore.manifest.model import Manifest, Part, Tombstone
from vecstore.manifest.tombstones import Entry, decode_tombstones, read_tombstone
from vecstore.part.format import KEYS_A_PAGE
from vecstore.part.reader import PartReader
from vecstore.part.whole import WholePart
from vecstore.storage.base import CLOCK_MARGIN, ObjectStore
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.storage.pages import all_children, all_objects
from vecstore.storage.threads import Workers
from vecstore.types import Problem, VerifyReport

MAX_REPORTED: Final = 1_000  # problems, and orphans, that are told one by one
_CHUNK: Final = 8 << 20
_CHUNK_AT_HAND: Final = 1 << 20  # of a file: it is still in the processor's cache when it is verified
_AHEAD: Final = 3  # chunks of a distant object that are read while one is verified
_KEYS_AT_ONCE: Final = 4 << 20  # ids that are compared in memory at a time
_CHECKSUM: Final = "P5"

Told = Callable[[int], object]


def verify(
    store: ObjectStore,
    namespaces: Iterable[str] | None = None,
    *,
    expect: Told = lambda _: None,
    progress: Told = lambda _: None,
) -> VerifyReport:
    """Verify namespaces, or all of a store.

    Every epoch that can be read is: its manifest, each against the next, and all objects that it names.
    That an id is live in one row at most is checked of the current epoch.

    Parameters
    ----------
    expect, progress
        Told how many bytes will be read, as that becomes known, and how many were.

    Raises
    ------
    NamespaceNotFound
        A namespace was given that has no object at all; or none was, and the store has no namespace.
    StorageError
        The store does not answer, so that nothing can be said.
    """
    with Workers(_AHEAD, thread_name_prefix="vecstore-verify") as pool:
        run = _Verification(store, pool, expect, progress)
        if namespaces is not None:
            for name in namespaces:
                run.namespace(name)
            return run.report()
        run.strangers()
        for name in all_children(store, namespaces_prefix()):
            with contextlib.suppress(NamespaceNotFound):  # collection took the last of it just now
                run.namespace(name)
        report = run.report()
        if not report.namespaces:
            raise NamespaceNotFound(f"{store.url} has no namespace", url=store.url)
        return report


class _Verification:
    """One run over a store."""

    def __init__(self, store: ObjectStore, pool: ThreadPoolExecutor, expect: Told, progress: Told) -> None:
        self._store = store
        self._pool = pool
        self._expect = expect
        self._progress = progress
        self._problems: list[Problem] = []
        self._found = 0
        self._namespaces = self._objects = self._bytes = 0
        self._orphans: list[str] = []
        self._orphaned = self._orphaned_bytes = 0
        self._sizes: dict[str, int] = {}
        self._done: set[str] = set()  # objects of the namespace at hand, and of others that it names
        self._bad: set[str] = set()  # those of them that something is wrong with
        self._directories: dict[str, dict[int, tuple[Entry, int]]] = {}
        self._readers: dict[str, PartReader] = {}  # of parts of the current epoch that are sound

    def report(self) -> VerifyReport:
        return VerifyReport(
            namespaces=self._namespaces,
            objects=self._objects,
            bytes=self._bytes,
            found=self._found,
            problems=tuple(self._problems),
            orphans=self._orphaned,
            orphan_bytes=self._orphaned_bytes,
            orphan_keys=tuple(self._orphans),
        )

    def namespace(self, name: str) -> None:
        """All objects of one namespace, and those of others that it names."""
        self._sizes = {meta.key: meta.size for meta in all_objects(self._store, namespace_prefix(name))}
        self._done, self._bad, self._directories, self._readers = set(), set(), {}, {}
        if not self._sizes:
            raise NamespaceNotFound(f"no namespace {name!r}", namespace=name)
        self._namespaces += 1
        self._expect(sum(self._sizes.values()))
        current = self._current(name)
        if current is None:
            return
        self._horizon(current)
        for violation in self._ancestry(current):
            self._violated(violation, current_key(name))
        kept = {part_key(part.owner, part.id) for part in current.parts}
        for manifest in self._epochs(name, current):
            for violation in check_manifest(manifest):
                self._violated(violation, self._key_of(manifest, current))
            # Of epochs that nobody can read here a branch may have let go of what belongs to others.
            readable = current.state == "active" and manifest.incarnation == current.incarnation
            for part in manifest.parts:
                if readable or part.owner == name:
                    self._part(manifest, part, kept)
                tombstone = part.tombstone
                if tombstone is not None and (readable or tombstone.owner == name):
                    self._tombstone(manifest, part, tombstone)
        if kept <= self._readers.keys() and not self._bad & set(_named(current)):
            try:
                self._ids(current)
            except StorageCorrupt as error:
                self._corrupt(error)
        self._leases(name)
        for key, size in self._sizes.items():
            if key not in self._done:
                self._orphan(key, size)

    def strangers(self) -> None:
        """Objects that belong to no namespace."""
        for folder in self._store.list_children(""):
            if f"{folder}/" != namespaces_prefix():
                for meta in all_objects(self._store, f"{folder}/"):
                    self._orphan(meta.key, meta.size)

    # -- manifests -------------------------------------------------------------------------

    def _current(self, name: str) -> Manifest | None:
        key = current_key(name)
        try:
            found = history.read_current(self._store, name)
        except StorageMissing:
            if any(stray.startswith(history_prefix(name)) for stray in self._sizes):
                self._problem(key, "manifest", "R4", history.lost(name).message)
                return None
            # Uploads for a namespace that nobody committed.
            for stray, size in self._sizes.items():
                self._orphan(stray, size)
            return None
        except StorageCorrupt as error:
            self._read(key, self._sizes.get(key, 0))
            self._corrupt(error)
            return None
        self._read(key, len(found.raw))
        return found.manifest

    def _epochs(self, name: str, current: Manifest) -> Iterator[Manifest]:
        """Every epoch that can be read, the oldest first; what is wrong between two of them is told."""
        floor = max(current.history_floor, 1)
        pinned = sorted({pin.epoch for pin in current.pins if pin.epoch < floor})
        before: Manifest | None = None
        for epoch in (*pinned, *range(floor, current.epoch + 1)):
            manifest = current if epoch == current.epoch else self._copy(name, epoch, floor)
            if manifest is not None:
                if before is not None and before.epoch + 1 == epoch:
                    for violation in check_successors(before, manifest):
                        self._violated(violation, self._key_of(manifest, current))
                yield manifest
            before = manifest

    def _horizon(self, current: Manifest) -> None:
        ahead = current.horizon - self._store.now()
        if ahead > CLOCK_MARGIN:
            key = current_key(current.namespace)
            self._problem(
                key,
                "manifest",
                "R3",
                f"{key}: the collection horizon is {math.ceil(ahead)} s in the future: it was set while the"
                " store's clock was ahead, and nothing can be uploaded until then (docs/incidents.md)",
            )

    def _ancestry(self, current: Manifest) -> Sequence[Violation]:
        try:
            return check_ancestors(self._store, current)
        except StorageMissing as error:
            return [Violation("R9", f"an ancestor is gone: {error.message}")]
        except StorageCorrupt as error:
            self._corrupt(error)
            return []

    def _copy(self, name: str, epoch: int, floor: int) -> Manifest | None:
        key = history_key(name, epoch)
        try:
            found = history.read_copy(self._store, name, epoch)
        except StorageMissing:
            if not self._expired(name, epoch):
                rule, why = ("R1", "can be read") if epoch >= floor else ("R9", "is pinned")
                self._problem(key, "manifest", rule, f"{key}, an epoch that {why}, is gone")
            return None
        except StorageCorrupt as error:
            self._read(key, self._sizes.get(key, 0))
            self._corrupt(error)
            return None
        self._read(key, len(found.raw))
        return found.manifest

    def _expired(self, name: str, epoch: int) -> bool:
        """Whether collection has taken an epoch since we began."""
        try:
            latest = history.read_current(self._store, name).manifest
        except (StorageMissing, StorageCorrupt):
            return False
        return epoch < latest.history_floor and all(pin.epoch != epoch for pin in latest.pins)

    @staticmethod
    def _key_of(manifest: Manifest, current: Manifest) -> str:
        if manifest.epoch == current.epoch:
            return current_key(manifest.namespace)
        return history_key(manifest.namespace, manifest.epoch)

    # -- parts -----------------------------------------------------------------------------

    def _part(self, manifest: Manifest, part: Part, kept: set[str]) -> None:
        key = part_key(part.owner, part.id)
        if key in self._done:
            return
        self._done.add(key)
        try:
            size = self._size(key)
            if size != part.bytes:
                section = "footer" if size > part.bytes else _section_at(part, size)
                why = f"has {size} bytes; epoch {manifest.epoch} says {part.bytes}"
                self._problem(key, section, "R13", f"{key} {why}")
                self._read(key, 0)
                return
            reader = self._reader(manifest, part)
            self._whole_part(key, part, reader)
            if key in kept:
                self._readers[key] = reader
        except StorageMissing:
            if not self._expired(manifest.namespace, manifest.epoch):
                self._problem(key, "object", "R3", f"{key}, which epoch {manifest.epoch} names, is gone")
        except StorageCorrupt as error:
            self._read(key, 0)
            self._corrupt(error)

    def _reader(self, manifest: Manifest, part: Part) -> PartReader:
        return PartReader(
            self._store,
            PageCache(0),
            part,
            dim=manifest.dim,
            padded_dim=padded(manifest.dim),
            id_kind=manifest.id_kind or "u64",
            trace=ReadTrace(),
        )

    def _whole_part(self, key: str, part: Part, reader: PartReader) -> None:
        """Each page once, in the order of the object; a section that fails is told once."""
        whole = WholePart(reader)
        for start, chunk in self._chunks(key, part.bytes, at_hand=reader.mapped):
            whole.feed(start, chunk)
        for name, offset in whole.failed.items():
            why = f"section {name!r} fails its checksum"
            self._problem(key, name, _CHECKSUM, f"{key}: {why}", offset=offset)
        self._objects += 1
        whole.close()

    def _chunks(self, key: str, size: int, *, at_hand: bool) -> Iterator[tuple[int, bytes]]:
        """The object in order, with the place of each chunk; what is not at hand is read ahead."""
        step, ahead = (_CHUNK_AT_HAND, 0) if at_hand else (_CHUNK, _AHEAD)

        def ask(start: int) -> bytes:
            return self._store.get_range(key, start, min(step, size - start))

        starts = range(0, size, step)
        for start, chunk in zip(starts, _read_ahead(self._pool, ask, starts, ahead), strict=True):
            self._bytes += len(chunk)
            self._progress(len(chunk))
            yield start, chunk

    # -- tombstones ------------------------------------------------------------------------

    def _tombstone(self, manifest: Manifest, part: Part, reference: Tombstone) -> None:
        """The reference is what the object says of itself, and fits the part."""
        key = delete_key(reference.owner, reference.delete_id)
        section = f"bitmap at {reference.offset}"
        if key not in self._done:
            self._done.add(key)
            try:
                self._directories[key] = self._deletes(key)
            except StorageMissing:
                self._directories[key] = {}
                if not self._expired(manifest.namespace, manifest.epoch):
                    self._problem(key, "object", "R3", f"{key}, which epoch {manifest.epoch} names, is gone")
        found = self._directories[key].get(reference.offset)
        if found is None:
            return self._unless_told(key, section, f"{key}: no sound bitmap at {reference.offset}")
        entry, last = found
        named = (entry.part_id, entry.length, entry.crc32c, entry.dead)
        if named != (part.id, reference.length, reference.crc32c, reference.dead):
            self._unless_told(key, section, f"{key}: {section} is not the one that the manifest names")
        elif last >= part.n:
            self._unless_told(key, section, f"{key}: {section} names row {last} of {part.n}")
        return None

    def _unless_told(self, key: str, section: str, message: str) -> None:
        if key not in self._bad:
            self._problem(key, section, "R13", message)

    def _deletes(self, key: str) -> dict[int, tuple[Entry, int]]:
        """By its offset, what the directory says of each sound bitmap, and its last row."""
        data = self._store.get(key).data
        self._read(key, len(data))
        sound = {}
        try:
            for entry, rows in decode_tombstones(data, key=key):
                sound[entry.offset] = entry, rows.max() if rows else -1
        except StorageCorrupt as error:
            self._corrupt(error)
        return sound

    # -- ids -------------------------------------------------------------------------------

    def _ids(self, manifest: Manifest) -> None:
        """An id is live in at most one row of the current epoch (R5), a range of keys at a time."""
        readers = [self._readers[part_key(part.owner, part.id)] for part in manifest.parts]
        alive = [self._alive(part) for part in manifest.parts]
        starts = {
            key + (reader.entry.id_base or 0) for reader in readers for key in reader.index.fence.tolist()
        }
        a_slice = max(1, _KEYS_AT_ONCE // KEYS_A_PAGE)
        bounds = [0, *sorted(starts)[a_slice::a_slice]]
        for low, high in zip(bounds, [*bounds[1:], None], strict=True):
            found = []
            for number, (reader, mask) in enumerate(zip(readers, alive, strict=True)):
                keys, rows = reader.index.between(low, high, ReadTrace())
                if mask is not None:
                    keys, rows = keys[mask[rows]], rows[mask[rows]]
                found.append((keys, np.full(len(keys), number, dtype=np.int32), rows))
            if found:
                self._one_row_each(manifest, readers, found)

    def _one_row_each(
        self,
        manifest: Manifest,
        readers: list[PartReader],
        found: Sequence[tuple[npt.NDArray[Any], ...]],
    ) -> None:
        keys, numbers, rows = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(keys, kind="stable")
        for at in np.flatnonzero(keys[order][1:] == keys[order][:-1]).tolist():
            one, other = order[at], order[at + 1]
            pair = [readers[numbers[i]].ids_of(rows[i : i + 1], ReadTrace()) for i in (one, other)]
            ids = [found.tolist()[0] for found in pair]
            if ids[0] == ids[1]:
                where = [(readers[numbers[i]].entry.id, int(rows[i])) for i in (one, other)]
                message = f"id {ids[0]!r} lives in {where[0]} and in {where[1]} at once"
                self._violated(Violation("R5", message), current_key(manifest.namespace))

    def _alive(self, part: Part) -> npt.NDArray[np.bool_] | None:
        """bool[n], or None if all rows are."""
        if part.tombstone is None:
            return None
        mask = np.ones(part.n, dtype=np.bool_)
        mask[read_tombstone(self._store, part.tombstone, n=part.n).to_array()] = False
        return mask

    # -- the rest --------------------------------------------------------------------------

    def _leases(self, name: str) -> None:
        """Advisory, without a checksum: they are whole if they can be read."""
        for key in [key for key in self._sizes if key.startswith(f"{namespace_prefix(name)}_control/")]:
            try:
                data = self._store.get(key).data
            except StorageMissing:
                continue
            self._read(key, len(data))
            try:
                msgspec.json.decode(data)
            except NOT_JSON as error:
                self._problem(key, "lease", _CHECKSUM, f"{key}: not a lease: {error}")

    def _size(self, key: str) -> int:
        """`StorageMissing` if there is no such object."""
        if key not in self._sizes:
            page = self._store.list(key, limit=1).objects
            if not page or page[0].key != key:
                raise StorageMissing(f"there is no object {key!r}", object=key)
            return page[0].size
        return self._sizes[key]

    def _read(self, key: str, size: int) -> None:
        """Note that an object was read whole."""
        self._done.add(key)
        self._objects += 1
        self._bytes += size
        self._progress(size)

    def _orphan(self, key: str, size: int) -> None:
        self._orphaned += 1
        self._orphaned_bytes += size
        if len(self._orphans) < MAX_REPORTED:
            self._orphans.append(key)

    def _corrupt(self, error: StorageCorrupt) -> None:
        details = error.details
        self._problem(
            str(details.get("object", "")), str(details.get("section", "object")), _CHECKSUM, error.message
        )

    def _violated(self, violation: Violation, key: str) -> None:
        self._problem(key, "manifest", violation.rule, f"{key}: {violation.message}")

    def _problem(self, key: str, section: str, rule: str, message: str, *, offset: int | None = None) -> None:
        self._found += 1
        self._bad.add(key)
        if len(self._problems) < MAX_REPORTED:
            self._problems.append(Problem(key, section, rule, message, offset))


def _read_ahead(
    pool: ThreadPoolExecutor, ask: Callable[[int], bytes], starts: Sequence[int], ahead: int
) -> Iterator[bytes]:
    """What ``ask`` says of each start, in order, while the pool asks for as many more as ``ahead``."""
    if not ahead:
        yield from map(ask, starts)
        return
    left = iter(starts)
    pending = deque(pool.submit(ask, start) for start in islice(left, ahead))
    while pending:
        chunk = pending.popleft().result()
        pending.extend(pool.submit(ask, start) for start in islice(left, 1))
        yield chunk


def _named(manifest: Manifest) -> Iterator[str]:
    for part in manifest.parts:
        yield part_key(part.owner, part.id)
        if part.tombstone is not None:
            yield delete_key(part.tombstone.owner, part.tombstone.delete_id)


def _section_at(part: Part, offset: int) -> str:
    for name, section in part.sections.items():
        if section.offset <= offset < section.offset + section.length:
            return name
    return "footer"
