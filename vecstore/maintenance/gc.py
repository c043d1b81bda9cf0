"""Garbage collection: objects that no readable epoch names, and history that nobody may read.

Carries out protocol R3 (the barrier comes first), R9 (what a pin names stays) and R10 (an epoch's age
counts from when it was replaced). History is walked by name; listings only find candidates. Imports
manifest and storage.

A run first releases the pins of branches that are over (`vecstore.maintenance.branches`). Then it lists
what the current epoch does not name and is old enough; takes away what a readable or pinned epoch
names; commits the barrier; takes away what was committed up to the barrier; deletes the rest. Whoever
commits after the barrier finds by it that an upload from before must be repeated.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from random import Random
from typing import Any, ClassVar, Final

from vecstore.errors import InvalidArgument, NamespaceNotFound, StorageCorrupt, StorageMissing
from vecstore.maintenance.branches import release_pins
from vecstore.manifest import history
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.keys import current_key, delete_key, history_key, namespace_prefix, part_key
from vecstore.manifest.lifecycle import create_marker
from vecstore.manifest.model import Manifest
from vecstore.manifest.publish import Publisher
from vecstore.manifest.snapshot import Snapshot, SnapshotSource
from vecstore.storage.base import CLOCK_MARGIN, ObjectMeta, ObjectStore
from vecstore.storage.pages import all_objects
from vecstore.storage.threads import Workers
from vecstore.types import GcResult

RETENTION: Final = 3600.0  # seconds of history that stay readable
GRACE: Final = 3600.0  # seconds that no upload exceeds
MAX_REPORTED_KEYS: Final = 1_000
_BATCH = 20_000  # candidates held in memory at a time
_THREADS = 8


@dataclass(kw_only=True, eq=False)
class Barrier(Change):
    """Raise horizon and history floor (R3); neither ever falls. A deletion marker takes it too."""

    on_deleted: ClassVar[bool] = True

    horizon: float
    floor: int

    def apply(self, draft: Draft) -> dict[str, Any]:
        base = draft.manifest
        draft.replace(
            horizon=max(base.horizon, self.horizon),
            history_floor=max(base.history_floor, min(self.floor, draft.base.epoch)),
        )
        return {}


def collect(
    store: ObjectStore,
    namespace: str,
    *,
    retention: float = RETENTION,
    grace: float = GRACE,
    dry_run: bool = False,
    unused: bool = True,
    publisher: Publisher | None = None,
    clock: Callable[[], float] = time.monotonic,
    rng: Random | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> GcResult:
    """Delete what one namespace, or the marker that is left of it, no longer needs.

    Where the name was never used, but a first copy to it was killed or given up, what that has left goes once
    all of it is older than the grace: a younger object shows that a copy is under way. A marker is put first,
    so that nobody commits upon it what is being deleted. Files that are put back with their old times cannot
    be told from such a rest: nobody may collect meanwhile.

    Parameters
    ----------
    retention
        Seconds for which an epoch stays readable after it was replaced; infinity keeps all of them.
    grace
        Seconds that an object is left alone after it was written, named or not. A writer whose upload
        takes longer than this repeats it.
    dry_run
        Tell what would go; nothing is committed or deleted, so what the pin of a branch holds that is
        over by now is not told.
    unused
        False leaves alone what lies under a name that was never used, as if it were not there.
    publisher
        The process's publisher of the namespace, so that the barrier queues behind its commits.

    Raises
    ------
    NamespaceNotFound
        The name was never used, and nothing is left of a copy to it, or that is left alone.
    InvalidArgument
        What are no seconds; NaN would compare as if all history were old.
    StorageCorrupt
        A readable epoch cannot be read, or ``current`` is lost, so that what is named is unknown. Nothing
        was deleted.
    """
    retention, grace = _seconds("retention", retention), _seconds("grace", grace)
    if publisher is None:
        publisher = Publisher(
            store,
            namespace,
            SnapshotSource(store, namespace, clock=clock),
            clock=clock,
            rng=rng if rng is not None else random.SystemRandom(),
            sleep=sleep,
        )
    try:
        return _collect(publisher, retention, grace, dry_run)
    except NamespaceNotFound:
        left = _never_committed(publisher, grace, dry_run) if unused else None
        if left is None:
            raise
        if dry_run or left.waiting:
            return left
        create_marker(publisher)
    return _collect(publisher, retention, grace, dry_run)


def _collect(publisher: Publisher, retention: float, grace: float, dry_run: bool) -> GcResult:
    if not dry_run:
        now = publisher.store.now() - CLOCK_MARGIN
        release_pins(publisher, replaced_before=now - retention, pinned_before=now - grace)
    return _Collection(publisher, retention, grace, dry_run).run()


def _never_committed(publisher: Publisher, grace: float, dry_run: bool) -> GcResult | None:
    """What could go of uploads under a name that was never used, or None if there are none at all.

    All of them or nothing: a copy commits when its last part is there, however long the first has been.
    """
    store, prefix = publisher.store, namespace_prefix(publisher.namespace)
    history.check_not_lost(store, publisher.namespace)
    before = store.now() - grace - CLOCK_MARGIN
    count = size = 0
    under_way = False
    keys: list[str] = []
    for meta in all_objects(store, prefix + "parts/"):
        count += 1
        size += meta.size
        under_way = under_way or meta.modified >= before
        if len(keys) < MAX_REPORTED_KEYS:
            keys.append(meta.key)
    if not count:
        return None
    return GcResult(0, 0, count, dry_run) if under_way else GcResult(count, size, 0, dry_run, tuple(keys))


def _seconds(field: str, given: object) -> float:
    try:
        seconds = (
            float(given) if isinstance(given, (int, float)) and not isinstance(given, bool) else math.nan
        )
    except OverflowError:
        seconds = math.nan
    if not seconds >= 0.0:
        raise InvalidArgument(f"{field} must be a number of seconds, at least 0", field=field, limit=0)
    return seconds


def named_objects(manifest: Manifest) -> Iterator[str]:
    """Keys of the objects in the namespace's own folder that an epoch of it needs."""
    for part in manifest.parts:
        if part.owner == manifest.namespace:
            yield part_key(part.owner, part.id)
        tombstone = part.tombstone
        if tombstone is not None and tombstone.owner == manifest.namespace:
            yield delete_key(tombstone.owner, tombstone.delete_id)


class _Collection:
    """One run over one namespace."""

    def __init__(self, publisher: Publisher, retention: float, grace: float, dry_run: bool) -> None:
        self._publisher = publisher
        self._store = publisher.store
        self._namespace = publisher.namespace
        self._dry_run = dry_run
        self._base = publisher.snapshots.refresh()
        now = self._store.now()
        self._horizon = now - grace
        # So that an upload that began after the barrier is surely younger.
        self._deletable_before = self._horizon - CLOCK_MARGIN
        self._floor = self._first_epoch_replaced_after(now - retention - CLOCK_MARGIN)
        self._barrier: Snapshot | None = None
        self._waiting = 0

    def run(self) -> GcResult:
        deleted, size = 0, 0
        keys: list[str] = []
        candidates = self._candidates()
        while batch := {meta.key: meta for meta in islice(candidates, _BATCH)}:
            self._spare(batch, self._readable_before_base())
            if not self._worth_a_commit(batch):
                continue
            if not self._dry_run:
                self._spare(batch, self._readable_since_base())
                self._delete(batch)
            deleted += len(batch)
            size += sum(meta.size for meta in batch.values())
            keys.extend(islice(batch, MAX_REPORTED_KEYS - len(keys)))
        return GcResult(deleted, size, self._waiting, self._dry_run, tuple(keys))

    # -- what may go ------------------------------------------------------------------------

    def _first_epoch_replaced_after(self, limit: float) -> int:
        """The history floor (R10): epochs from here on are current, or were replaced after ``limit``.

        An epoch was replaced no later than the copy of its successor was written, or ``current`` where
        that is the successor. Copies are written in the order of their epochs, so halving finds it.
        """
        low = max(self._base.manifest.history_floor, 1)
        high = self._base.epoch
        while low < high:
            middle = (low + high) // 2
            if self._replaced_at(middle) >= limit:
                high = middle
            else:
                low = middle + 1
        return low

    def _replaced_at(self, epoch: int) -> float:
        successor = epoch + 1
        if successor == self._base.epoch:
            return self._store.head(current_key(self._namespace)).modified
        try:
            return self._store.head(history_key(self._namespace, successor)).modified
        except StorageMissing as error:
            self._check_collected_by_others(successor, error)
            return float("-inf")

    def _candidates(self) -> Iterator[ObjectMeta]:
        """Objects that the base does not name and that are older than the barrier will be."""
        prefix = namespace_prefix(self._namespace)
        named = set(named_objects(self._base.manifest))
        parts, deletes = (all_objects(self._store, prefix + folder) for folder in ("parts/", "deletes/"))
        for meta in chain(parts, deletes, self._copies_below_floor()):
            if meta.key in named:
                continue
            if meta.modified < self._deletable_before:
                yield meta
            else:
                self._waiting += 1

    def _copies_below_floor(self) -> Iterator[ObjectMeta]:
        first_kept = history_key(self._namespace, self._floor)
        for meta in all_objects(self._store, namespace_prefix(self._namespace) + "manifest/"):
            if meta.key >= first_kept:  # "current" sorts behind every number
                return
            yield meta

    def _worth_a_commit(self, batch: dict[str, ObjectMeta]) -> bool:
        """A barrier leaves a copy behind: for a single copy, an idle namespace would never rest."""
        if self._barrier is not None or len(batch) > 1:
            return bool(batch)
        return any("/manifest/" not in key for key in batch)

    # -- what must stay ---------------------------------------------------------------------

    def _readable_before_base(self) -> Iterator[Manifest]:
        """Epochs from the floor up to the base, and pinned ones below (R3, R9)."""
        yield from self._read(range(self._floor, self._base.epoch))
        yield from self._pinned(self._base.manifest)

    def _readable_since_base(self) -> Iterator[Manifest]:
        """Epochs committed while we listed, up to the barrier, which is committed here if it is not yet."""
        if self._barrier is None:
            publisher = self._publisher
            publisher.commit(
                Barrier(commit_id=publisher.new_commit_id(), horizon=self._horizon, floor=self._floor)
            )
            # Not older than the barrier; whatever was committed after it heeds it.
            self._barrier = publisher.snapshots.refresh()
        yield from self._read(range(self._base.epoch + 1, self._barrier.epoch))
        yield self._barrier.manifest
        yield from self._pinned(self._barrier.manifest)

    def _pinned(self, manifest: Manifest) -> Iterator[Manifest]:
        yield from self._read(sorted({pin.epoch for pin in manifest.pins if pin.epoch < self._floor}))

    def _read(self, epochs: Iterable[int]) -> Iterator[Manifest]:
        """Copies of past epochs, several at a time, few in memory."""
        wanted = iter(epochs)
        with Workers(_THREADS) as pool:
            while chunk := list(islice(wanted, 2 * _THREADS)):
                yield from (manifest for manifest in pool.map(self._read_copy, chunk) if manifest is not None)

    def _read_copy(self, epoch: int) -> Manifest | None:
        try:
            return history.read_copy(self._store, self._namespace, epoch).manifest
        except StorageMissing as error:
            self._check_collected_by_others(epoch, error)
            return None

    def _check_collected_by_others(self, epoch: int, error: StorageMissing) -> None:
        """A copy may be gone only because another collection has raised the floor above it."""
        latest = self._publisher.snapshots.refresh().manifest
        if epoch >= latest.history_floor or any(pin.epoch == epoch for pin in latest.pins):
            key = history_key(self._namespace, epoch)
            raise StorageCorrupt(
                f"{key} is missing, so that nothing can be collected", object=key, section="manifest"
            ) from error

    def _spare(self, batch: dict[str, ObjectMeta], manifests: Iterator[Manifest]) -> None:
        """Take out of ``batch`` what these epochs name, and the copies of pinned ones."""
        for manifest in manifests:
            for key in named_objects(manifest):
                batch.pop(key, None)
            if manifest.epoch < self._floor:
                batch.pop(history_key(self._namespace, manifest.epoch), None)
            if not batch:
                return

    def _delete(self, batch: dict[str, ObjectMeta]) -> None:
        with Workers(_THREADS) as pool:
            keys = iter(batch)
            while chunk := list(islice(keys, 16 * _THREADS)):
                list(pool.map(self._store.delete, chunk))
