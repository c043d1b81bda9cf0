"""Copies of namespaces from one store to another: backup, restore, moving house.

Decision 0032. The source is only read, and asked for nothing but what its retention promises: an epoch is
copied, and if collection takes an object of it meanwhile, the epoch that is current by then is, of which most
is there already. At the target all objects come first and one commit last, upon the very epoch that the copy
was planned on; so what it rests on there is named by that epoch, or is younger than its horizon (R3).

Parts keep their bytes and, unless something old lies under it at the target, their id. Tombstones are
written anew. Imports manifest, part and storage.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from random import Random
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace
from pyroaring import BitMap

from vecstore.errors import (
    Diverged,
    InvalidArgument,
    NamespaceNotFound,
    PreconditionFailed,
    StorageConflict,
    StorageCorrupt,
    StorageMissing,
    StorageRetryable,
    TagExists,
    VecstoreError,
)
from vecstore.index.rotation import padded
from vecstore.manifest import history
from vecstore.manifest.adopt import Adopt, Reserve, check_adoptable, counts_as_far, is_still, rows_state
from vecstore.manifest.keys import history_key, namespace_prefix, namespaces_prefix, part_key
from vecstore.manifest.lifecycle import create_marker
from vecstore.manifest.model import CommitRef, Copied, Manifest, Part, Pin, Tombstone, encode_manifest
from vecstore.manifest.pins import tags_of
from vecstore.manifest.publish import Publisher, longest_way
from vecstore.manifest.snapshot import SnapshotSource
from vecstore.manifest.tombstones import encode_tombstones, read_tombstone, write_tombstones
from vecstore.manifest.uid import new_uid
from vecstore.part.reader import PartReader
from vecstore.part.whole import WholePart
from vecstore.storage.base import ObjectMeta, ObjectStore
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.storage.pages import all_children, all_objects
from vecstore.storage.threads import Workers
from vecstore.types import CopiedNamespace, CopyResult

ROUNDS: Final = 100  # epochs of a source that are begun before a copy is given up
_THREADS: Final = 8  # parts at once
_NAMESPACES: Final = 4  # at once
_CHUNK: Final = 8 << 20
_ATTEMPTS: Final = 5  # of a part

Told = Callable[[int], object]


def copy_store(
    source: ObjectStore,
    target: ObjectStore,
    namespaces: Iterable[str] | None = None,
    *,
    dry_run: bool = False,
    expect: Told = lambda _: None,
    progress: Told = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    rng: Random | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> CopyResult:
    """Copy namespaces, or all that a store has, with their tags; what the target has is not sent again.

    One namespace that fails does not keep the others from being copied: the result names it.

    Parameters
    ----------
    dry_run
        Tell what would be copied; the target is not changed.
    expect, progress
        Told how many bytes will be copied, as that becomes known, and how many were. From any thread, one
        at a time.

    Raises
    ------
    NamespaceNotFound
        All were asked for, and there never was one: it is rather another store that is meant.
    """
    if source.url == target.url:
        raise InvalidArgument(f"source and target are both {source.url}", field="target")
    _refuse_nested(source.url, target.url)
    lock, interrupted = threading.Lock(), threading.Event()

    def one_at_a_time(told: Told) -> Told:
        def tell(count: int) -> None:
            if interrupted.is_set():
                raise _Interrupted
            with lock:
                told(count)

        return tell

    chance = rng if rng is not None else random.SystemRandom()
    expect, progress = one_at_a_time(expect), one_at_a_time(progress)
    with (
        Workers(_THREADS, thread_name_prefix="vecstore-copy") as parts,
        Workers(_NAMESPACES, thread_name_prefix="vecstore-copy-namespace") as pool,
    ):

        def copied(name: str) -> CopiedNamespace | None:
            publisher = Publisher(
                target, name, SnapshotSource(target, name, clock=clock), clock=clock, rng=chance, sleep=sleep
            )
            work = _Copy(source, publisher, parts, dry_run, expect, progress)
            try:
                return work.run()
            except NamespaceNotFound as error:
                return None if namespaces is None else work.failed(error)
            except VecstoreError as error:
                return work.failed(error)

        names = all_children(source, namespaces_prefix()) if namespaces is None else dict.fromkeys(namespaces)
        try:
            found = list(pool.map(copied, names))
        except BaseException:  # the pools wait for what runs: it ends with its next chunk
            interrupted.set()
            raise
    if not found and namespaces is None:
        raise NamespaceNotFound(f"{source.url} has no namespace", url=source.url)
    return CopyResult(tuple(one for one in found if one is not None), dry_run)


def _refuse_nested(source: str, target: str) -> None:
    """`InvalidArgument` for a folder within the other one: to delete or to move one would take both."""
    if not (source.startswith("file://") and target.startswith("file://")):
        return
    one, other = (os.path.realpath(url.removeprefix("file://")) for url in (source, target))
    if os.path.commonpath((one, other)) in (one, other):
        raise InvalidArgument(f"of {source} and {target} one lies within the other", field="target")


class _Interrupted(Exception):
    """The thread that wanted a copy has been interrupted."""


class _Moved(Exception):
    """What the work was planned on is no more: at the source, an object; at the target, the epoch."""

    def __init__(self, source: bool, cause: VecstoreError) -> None:
        super().__init__(cause.message)
        self.source = source
        self.cause = cause


@dataclass(slots=True)
class _Plan:
    """What is to be done to bring one epoch of the source upon one epoch of the target.

    Attributes
    ----------
    base
        None if the name was never used at the target.
    tags
        Of the source, with the epoch that each holds.
    kept
        By name, of each of them that the target has already: its pin there.
    here
        Parts of the target by their id at the source.
    missing
        Parts, by id, that have to be uploaded.
    """

    source: Manifest
    base: Manifest | None
    tags: dict[str, Manifest]
    kept: dict[str, Pin] = field(default_factory=dict)
    here: dict[str, Part] = field(default_factory=dict)
    missing: dict[str, tuple[Manifest, Part]] = field(default_factory=dict)
    up_to_date: bool = False

    @property
    def active(self) -> Manifest | None:
        """What is readable at the target."""
        return None if self.base is None or self.base.state == "deleted" else self.base

    @property
    def copied(self) -> Copied | None:
        """Of what the target's rows are a copy, if that is the source."""
        found = UNSET if self.active is None else self.active.copied
        return found if isinstance(found, Copied) and found.incarnation == self.source.incarnation else None


class _Copy:
    """One namespace."""

    def __init__(
        self,
        source: ObjectStore,
        publisher: Publisher,
        pool: ThreadPoolExecutor,
        dry_run: bool,
        expect: Told,
        progress: Told,
    ) -> None:
        self._source = source
        self._target = publisher.store
        self._name = publisher.namespace
        self._publisher = publisher
        self._pool = pool
        self._dry_run = dry_run
        self._expect = expect
        self._progress = progress
        self._uploaded: dict[str, Part] = {}  # by their id at the source; named by nothing yet
        self._expected: set[str] = set()
        self._lost_at: str | None = None  # etag of the epoch that an object was missing of
        self._objects = self._bytes = 0

    def failed(self, error: VecstoreError) -> CopiedNamespace:
        return CopiedNamespace(
            self._name, copied=self._objects, copied_bytes=self._bytes, code=error.code, message=error.message
        )

    def run(self) -> CopiedNamespace:
        last: VecstoreError | None = None
        for losses in range(ROUNDS):
            if losses:
                self._publisher.sleep(longest_way(losses) * self._publisher.rng.random())
            try:
                return self._attempt()
            except _Moved as moved:
                last = moved.cause
        raise StorageConflict(
            f"{self._name!r} could not be copied in {ROUNDS} attempts: what was read is collected, or the "
            "target is committed to, faster than it is copied; a longer retention at the source helps"
        ) from last

    def _attempt(self) -> CopiedNamespace:
        try:
            base: Manifest | None = self._publisher.snapshots.refresh().manifest
        except NamespaceNotFound:
            history.check_not_lost(self._target, self._name)
            base = None
        epoch = self._read_current()  # after the target: so it is not older than what others copied to it
        try:
            plan = self._plan(epoch.manifest, base)
            if not plan.up_to_date and not self._dry_run:
                new = plan.missing.keys() - self._expected
                self._expect(sum(plan.missing[i][1].bytes for i in new))
                self._expected |= new
                self._upload(plan)
                self._commit(plan)
        except _Moved as moved:
            if moved.source:
                if self._lost_at == epoch.etag:  # twice in one epoch: no collection took it, it is lost
                    raise moved.cause from moved
                self._lost_at = epoch.etag
            raise
        return self._told(plan)

    def _told(self, plan: _Plan) -> CopiedNamespace:
        sizes = {part.id: part.bytes for manifest in _states(plan) for part in manifest.parts}
        sent = sum(part.bytes for _, part in plan.missing.values())
        return CopiedNamespace(
            self._name,
            epoch=plan.source.epoch,
            # What an epoch needed that was given up for a later one was sent, too.
            copied=len(plan.missing) if self._dry_run else self._objects,
            copied_bytes=sent if self._dry_run else self._bytes,
            skipped=len(sizes) - len(plan.missing),
            skipped_bytes=sum(sizes.values()) - sent,
            changed=not plan.up_to_date,
        )

    # -- what there is ----------------------------------------------------------------------

    def _read_current(self) -> history.Epoch:
        try:
            epoch = history.read_current(self._source, self._name)
        except StorageMissing as error:
            if "bucket" in error.details:
                raise
            history.check_not_lost(self._source, self._name)
            raise NamespaceNotFound(f"no namespace {self._name!r}", namespace=self._name) from error
        if epoch.manifest.state == "deleted":
            raise NamespaceNotFound(f"no namespace {self._name!r}", namespace=self._name)
        return epoch

    def _plan(self, source: Manifest, base: Manifest | None) -> _Plan:
        if base is not None:
            check_adoptable(base, source, self._target.url)
        plan = _Plan(source, base, {pin.name: self._tagged(source, pin) for pin in tags_of(source)})
        active, copied = plan.active, plan.copied
        if active is not None:
            self._find_kept(plan, active)
            theirs = {ours: theirs for theirs, ours in (copied.parts if copied else {}).items()}
            pinned = (self._own_copy(pin) for pin in plan.kept.values())
            for part in chain.from_iterable(manifest.parts for manifest in (active, *pinned)):
                plan.here.setdefault(theirs.get(part.id, part.id), part)
        if copied is not None and active is not None:
            same = is_still(source, copied, copied.lineage, copied.state)
            same = same and counts_as_far(active, source)
            plan.up_to_date = same and plan.kept.keys() == plan.tags.keys() == copied.tags.keys()
        for manifest in _states(plan):
            for part in manifest.parts:
                known = plan.here.get(part.id)
                if known is None:
                    plan.missing.setdefault(part.id, (manifest, part))
                elif (known.bytes, known.checksums_crc32c) != (part.bytes, part.checksums_crc32c):
                    raise Diverged(
                        f"part {part.id} of {self._name!r} is another at {self._target.url}",
                        namespace=self._name,
                    )
        return plan

    def _tagged(self, source: Manifest, pin: Pin) -> Manifest:
        if pin.epoch == source.epoch:
            return source
        try:
            return history.read_copy(self._source, self._name, pin.epoch).manifest
        except StorageMissing as error:
            raise _Moved(True, error) from error

    def _find_kept(self, plan: _Plan, active: Manifest) -> None:
        """Tags that the target has of a copy, or that the source has of a copy of the target."""
        pins = {(pin.name, pin.epoch): pin for pin in tags_of(active)}
        own = {pin.name for pin in _tags_of_its_own(active, plan.copied)}
        known: set[tuple[str, int, int]] = set()  # name, epoch at the source, epoch here
        if plan.copied is not None:
            known |= {(name, theirs, here) for name, (theirs, here) in plan.copied.tags.items()}
        of = plan.source.copied
        if isinstance(of, Copied) and of.incarnation == active.incarnation:
            known |= {(name, theirs, here) for name, (here, theirs) in of.tags.items()}
        same = {(name, theirs): here for name, theirs, here in known if (name, here) in pins}
        for name, epoch in ((pin.name, pin.epoch) for pin in tags_of(plan.source)):
            if (name, epoch) in same:
                plan.kept[name] = pins[name, same[name, epoch]]
            elif name in own:
                raise TagExists(
                    f"{self._name!r} of {self._target.url} has a tag {name!r} of its own", name=name
                )

    def _own_copy(self, pin: Pin) -> Manifest:
        return history.read_copy(self._target, self._name, pin.epoch).manifest

    # -- parts ------------------------------------------------------------------------------

    def _upload(self, plan: _Plan) -> None:
        """Put every missing part, unless it is there and young enough to be named."""
        horizon = 0.0 if plan.base is None else plan.base.horizon
        below = f"{namespace_prefix(self._name)}parts/"
        present = {meta.key: meta for meta in all_objects(self._target, below)}
        todo = [
            (manifest, part)
            for manifest, part in plan.missing.values()
            if part.id not in self._uploaded or self._uploaded[part.id].began < horizon
        ]
        stop = threading.Event()

        def put(one: tuple[Manifest, Part]) -> None:
            if not stop.is_set():
                try:
                    self._put(one[0], one[1], present, horizon)
                except BaseException:
                    stop.set()
                    raise

        failures: list[BaseException] = []
        for done in [self._pool.submit(put, one) for one in todo]:
            error = done.exception()
            if error is not None:
                failures.append(error)
        if failures:
            raise failures[0]

    def _put(self, manifest: Manifest, part: Part, present: dict[str, ObjectMeta], horizon: float) -> None:
        """Bring one part to the target, and read it there before anything names it."""
        uid, found = part.id, present.get(part_key(self._name, part.id))
        if part.id in self._uploaded:  # ours has grown too old: it is put again under a new id (R3)
            uid, found = new_uid(self._target.now, self._publisher.rng), None
        failures, taken = 0, False
        while True:
            ours = replace(part, id=uid, owner=self._name, began=self._target.now(), tombstone=None)
            key = part_key(self._name, uid)
            try:
                if taken:
                    found, taken = self._target.head(key), False
                if found is not None:
                    left = self._left_behind(manifest, ours, found, horizon)
                    if left is not None:
                        ours = left
                        break
                    uid, found = new_uid(self._target.now, self._publisher.rng), None
                    continue
                self._target.put_stream(key, self._read_source(manifest, part))
                self._verify(manifest, ours)
                break
            except StorageConflict:  # another copy puts it, or the answer to ours was lost
                taken = True
            except StorageRetryable:
                failures += 1
                if failures == _ATTEMPTS:
                    raise
                self._publisher.sleep(failures * self._publisher.rng.random())
        self._note(part, ours)

    def _note(self, part: Part, ours: Part) -> None:
        self._uploaded[part.id] = ours
        self._objects += 1
        self._bytes += part.bytes

    def _left_behind(self, manifest: Manifest, ours: Part, found: ObjectMeta, horizon: float) -> Part | None:
        """What a copy put that was not finished, if it is whole, and too young to be collected (R3)."""
        if found.size != ours.bytes or found.modified < horizon:
            return None
        try:
            self._verify(manifest, ours)
        except (StorageCorrupt, StorageMissing):
            return None
        return replace(ours, began=found.modified)

    def _read_source(self, manifest: Manifest, part: Part) -> Iterator[bytes]:
        """The part as the source has it; what fails its checksum ends the upload before it is whole."""
        try:
            for chunk in _checked(self._source, manifest, part):
                self._progress(len(chunk))
                yield chunk
        except StorageMissing as error:
            if "bucket" in error.details:
                raise
            raise _Moved(True, error) from error

    def _verify(self, manifest: Manifest, ours: Part) -> None:
        for _ in _checked(self._target, manifest, ours):
            pass

    # -- the commit -------------------------------------------------------------------------

    def _commit(self, plan: _Plan) -> None:
        publisher = self._publisher
        base = plan.base
        if base is None:
            create_marker(publisher, plan.source)
            base = publisher.snapshots.refresh().manifest
            if base.state != "deleted":
                raise _Moved(False, StorageConflict(f"somebody else has just made {self._name!r}"))
        anew = base.incarnation
        if base.state == "deleted":
            anew = new_uid(self._target.now, publisher.rng)
        parts = {**plan.here, **self._uploaded}
        pins = dict(plan.kept)
        fresh = sorted(plan.tags.keys() - plan.kept.keys(), key=lambda name: plan.tags[name].epoch)
        try:
            if fresh:
                first = base.epoch + 2  # every other number: neighbours are held to be successors
                reserve = Reserve(
                    commit_id=publisher.new_commit_id(),
                    expected=(base.incarnation, base.epoch),
                    count=2 * len(fresh) + 1,
                )
                base = publisher.commit(reserve).manifest
                for number, name in enumerate(fresh):
                    pins[name] = self._write_tagged(plan, name, first + 2 * number, anew, base, parts)
            self._adopt(plan, base, anew, parts, pins)
        except PreconditionFailed as error:
            raise _Moved(False, error) from error

    def _write_tagged(
        self, plan: _Plan, name: str, epoch: int, anew: str, base: Manifest, parts: dict[str, Part]
    ) -> Pin:
        """The epoch that a tag holds, under a number that nobody else has."""
        manifest = plan.tags[name]
        dead = self._dead({parts[part.id].id: part for part in manifest.parts if part.tombstone is not None})
        references = self._write_dead(dead) if dead else {}
        copy = replace(
            manifest,
            incarnation=anew,
            epoch=epoch,
            ancestors=() if base.state == "deleted" else base.ancestors,
            parts=tuple(
                _as_here(part, parts[part.id], references.get(parts[part.id].id)) for part in manifest.parts
            ),
            commits=(CommitRef(self._publisher.new_commit_id(), epoch),),
            idempotency=(),
            pins=(),
            horizon=0.0,
            history_floor=0,
            copied=UNSET,
        )
        try:
            history.write_copy(self._target, self._name, epoch, encode_manifest(copy))
        except StorageCorrupt as error:
            key = history_key(self._name, epoch)
            raise StorageCorrupt(
                f"{key} was reserved and is taken", object=key, section="manifest"
            ) from error
        created = next(pin.created_at for pin in tags_of(plan.source) if pin.name == name)
        return Pin(name=name, kind="tag", incarnation=anew, epoch=epoch, created_at=created)

    def _write_dead(self, dead: dict[str, BitMap]) -> dict[str, Tombstone]:
        began = self._target.now()
        delete_id = new_uid(self._target.now, self._publisher.rng)
        data, entries = encode_tombstones(dead)
        write_tombstones(self._target, self._name, delete_id, data)
        return {entry.part_id: entry.reference(delete_id, self._name, began) for entry in entries}

    def _adopt(
        self, plan: _Plan, base: Manifest, anew: str, parts: dict[str, Part], pins: dict[str, Pin]
    ) -> None:
        publisher, source = self._publisher, plan.source
        if any(ours.began < base.horizon for i, ours in self._uploaded.items() if i in plan.missing):
            raise _Moved(False, StorageConflict(f"collection of {self._name!r} passed what was uploaded"))
        here: list[Part] = []
        worn: dict[str, Part] = {}
        for part in source.parts:
            ours = parts[part.id]
            keeps = _same_rows(ours.tombstone, part.tombstone)
            here.append(_as_here(part, ours, ours.tombstone if keeps else None))
            if not keeps and part.tombstone is not None:
                worn[ours.id] = part
        held = tuple(pin for pin in base.pins if pin.kind == "branch")
        own = tuple(pin for pin in _tags_of_its_own(base, plan.copied) if pin not in pins.values())
        lineage = new_uid(self._target.now, publisher.rng)
        dead_rows = [part.n - part.live for part in source.parts]
        used = {part.id for manifest in (source, *plan.tags.values()) for part in manifest.parts}
        publisher.commit(
            Adopt(
                commit_id=publisher.new_commit_id(),
                expected=(base.incarnation, base.epoch),
                source=source,
                parts=tuple(here),
                dead=self._dead(worn),
                pins=(*held, *own, *pins.values()),
                anew=anew,
                lineage=lineage,
                copied=Copied(
                    incarnation=source.incarnation,
                    lineage=source.lineage,
                    epoch=source.epoch,
                    state=rows_state(zip((part.id for part in source.parts), dead_rows, strict=True)),
                    own_lineage=lineage,
                    own_state=rows_state(zip((part.id for part in here), dead_rows, strict=True)),
                    settings=source.settings,
                    schema=source.attributes,
                    parts={i: ours.id for i, ours in parts.items() if i in used and i != ours.id},
                    tags={name: (plan.tags[name].epoch, pin.epoch) for name, pin in pins.items()},
                ),
            )
        )

    def _dead(self, parts: dict[str, Part]) -> dict[str, BitMap]:
        """The dead rows of parts of the source, under the same keys."""

        def read(part: Part) -> BitMap:
            assert part.tombstone is not None
            return read_tombstone(self._source, part.tombstone, n=part.n)

        try:
            return dict(zip(parts, self._pool.map(read, parts.values()), strict=True))
        except StorageMissing as error:
            raise _Moved(True, error) from error


def _tags_of_its_own(manifest: Manifest, copied: Copied | None) -> tuple[Pin, ...]:
    """Tags of the target that no copy of the source has made."""
    made = {} if copied is None else {name: here for name, (_, here) in copied.tags.items()}
    return tuple(pin for pin in tags_of(manifest) if made.get(pin.name) != pin.epoch)


def _as_here(part: Part, ours: Part, tombstone: Tombstone | None) -> Part:
    return replace(part, id=ours.id, owner=ours.owner, began=ours.began, tombstone=tombstone)


def _same_rows(one: Tombstone | None, other: Tombstone | None) -> bool:
    """Whether two tombstones of one part say the same: equal rows are equal bytes."""
    if one is None or other is None:
        return one is other
    return (one.dead, one.length, one.crc32c) == (other.dead, other.length, other.crc32c)


def _states(plan: _Plan) -> Sequence[Manifest]:
    """The epochs whose objects the target has to have: tags that it has already are whole."""
    return [plan.source, *(manifest for name, manifest in plan.tags.items() if name not in plan.kept)]


def _checked(store: ObjectStore, manifest: Manifest, part: Part) -> Iterator[bytes]:
    """A whole part, chunk by chunk; `StorageCorrupt` at the first that fails, or at its end."""
    reader = PartReader(
        store,
        PageCache(0),
        part,
        dim=manifest.dim,
        padded_dim=padded(manifest.dim),
        id_kind=manifest.id_kind or "u64",
        trace=ReadTrace(),
    )
    whole = WholePart(reader)
    size = store.head(reader.key).size
    if size != part.bytes:
        raise StorageCorrupt(
            f"{reader.key} has {size} bytes, not {part.bytes}", object=reader.key, section="footer"
        )
    for start in range(0, size, _CHUNK):
        chunk = store.get_range(reader.key, start, min(_CHUNK, size - start))
        whole.feed(start, chunk)
        if whole.failed:
            section, offset = next(iter(whole.failed.items()))
            raise StorageCorrupt(
                f"{reader.key}: section {section!r} fails its checksum",
                object=reader.key,
                section=section,
                offset=offset,
            )
        if start + len(chunk) == size:
            whole.close()
        yield chunk
