"""What must always hold of a namespace, written once.

The last paragraph of the protocol as code: called by the tests, the simulation, ``vecstore verify``
and the metrics. Each function returns what it found wrong and raises nothing of its own; an empty
list is good. Imports manifest and storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from pyroaring import BitMap

from vecstore.errors import StorageCorrupt, StorageMissing
from vecstore.limits import MAX_IDEMPOTENCY_KEYS, MAX_PARTS, MAX_RECENT_COMMITS
from vecstore.manifest import history
from vecstore.manifest.keys import delete_key, part_key
from vecstore.manifest.model import Copied, Manifest, Part, Tombstone
from vecstore.manifest.tombstones import read_tombstone
from vecstore.storage.base import ObjectStore
from vecstore.types import RowId

IdReader = Callable[[Part], Iterable[RowId]]


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that should not be; ``rule`` is the protocol's rule that forbids it."""

    rule: str
    message: str


def check_manifest(manifest: Manifest) -> list[Violation]:
    """What one manifest must satisfy by itself."""
    return [*_parts_hold(manifest), *_counters_hold(manifest), *_bookkeeping_holds(manifest)]


def check_successors(before: Manifest, after: Manifest) -> list[Violation]:
    """What must hold between an epoch and the one that replaced it."""
    return list(_succession(before, after))


def check_ancestors(store: ObjectStore, manifest: Manifest) -> list[Violation]:
    """Everybody whose objects a branch may name has a pin for it (R9)."""
    return list(_ancestors_hold(store, manifest))


def check_objects(store: ObjectStore, manifest: Manifest, *, bitmaps: bool = True) -> list[Violation]:
    """Every object that the epoch names exists and matches; with ``bitmaps``, their content too."""
    return list(_objects(store, manifest, bitmaps))


def check_ids(
    manifest: Manifest, read_ids: IdReader, dead: Callable[[Part], BitMap | None]
) -> list[Violation]:
    """An id is live in at most one row. ``read_ids`` gives a part's ids in row order."""
    seen: dict[RowId, tuple[str, int]] = {}
    found = []
    for part in manifest.parts:
        gone = dead(part) or BitMap()
        for row, identity in enumerate(read_ids(part)):
            if row in gone:
                continue
            other = seen.setdefault(identity, (part.id, row))
            if other != (part.id, row):
                found.append(
                    Violation("R5", f"id {identity!r} lives in {other} and in {(part.id, row)} at once")
                )
    return found


def check_namespace(
    store: ObjectStore, namespace: str, *, read_ids: IdReader | None = None
) -> list[Violation]:
    """Everything, for every epoch from the history floor on, and for every pinned one.

    Of epochs that nobody can read here, because they are of an earlier namespace of the name or of one
    that was deleted, only its own objects have to be there: those that a branch named belong to others,
    and it has let go of them. Reads all of it: for tests and ``verify``. `StorageMissing` if there is no
    such namespace.
    """
    current = history.read_current(store, namespace).manifest
    found: list[Violation] = []
    epochs: list[Manifest] = []
    floor = max(current.history_floor, 1)
    for epoch in range(floor, current.epoch):
        try:
            epochs.append(history.read_copy(store, namespace, epoch).manifest)
        except StorageMissing:
            found.append(Violation("R1", f"epoch {epoch} of {floor} to {current.epoch} has no copy"))
        except StorageCorrupt as error:
            found.append(Violation("R13", error.message))
    epochs.append(current)
    for before, after in pairwise(epochs):
        if after.epoch == before.epoch + 1:
            found.extend(_succession(before, after))
    for pin in current.pins:
        if pin.epoch < floor:
            try:
                epochs.append(history.read_copy(store, namespace, pin.epoch).manifest)
            except (StorageMissing, StorageCorrupt) as error:
                found.append(Violation("R9", f"{pin.kind} {pin.name!r}: {error.message}"))
    found.extend(_ancestors_hold(store, current))
    checked: set[str] = set()
    for manifest in epochs:
        found.extend(check_manifest(manifest))
        readable = current.state == "active" and manifest.incarnation == current.incarnation
        found.extend(_objects(store, manifest, True, checked, own=not readable))
        if not readable and not manifest.owners <= {namespace}:
            continue
        if read_ids is not None:
            found.extend(check_ids(manifest, read_ids, lambda part: _bitmap(store, part)))
    return found


# -- one manifest ---------------------------------------------------------------------------


def _parts_hold(manifest: Manifest) -> Iterator[Violation]:
    seen: set[str] = set()
    means = {mean.id for mean in manifest.means}
    ranges: list[tuple[int, int, str]] = []
    upcoming = _next_attribute(manifest)
    for part in manifest.parts:
        if part.id in seen:
            yield Violation("R6", f"part {part.id} is named twice")
        seen.add(part.id)
        tombstone = part.tombstone
        if tombstone is not None and not 0 < tombstone.dead <= part.n:
            yield Violation("R6", f"part {part.id} has {tombstone.dead} dead rows of {part.n}")
        if part.mean is not None and part.mean not in means:
            yield Violation("R6", f"part {part.id} was encoded with mean {part.mean}, which is gone")
        if any(attribute >= upcoming for attribute in _columns(part)):
            yield Violation("R4", f"part {part.id} holds a column of an attribute that has yet to be added")
        if part.id_base is not None:
            ranges.append((part.id_base, part.id_base + part.n, part.id))
            if part.id_base + part.n > manifest.next_id:
                yield Violation("R11", f"part {part.id} holds ids that the counter has yet to assign")
    ranges.sort()
    for (_, end, one), (start, _, other) in pairwise(ranges):
        if start < end:
            yield Violation("R11", f"parts {one} and {other} were assigned the same ids")
    if len(manifest.parts) > MAX_PARTS:
        yield Violation("R6", f"{len(manifest.parts)} parts; the limit is {MAX_PARTS}")


def _counters_hold(manifest: Manifest) -> Iterator[Violation]:
    if manifest.epoch < 1:
        yield Violation("R4", f"epoch {manifest.epoch}; the first is 1")
    if manifest.history_floor > manifest.epoch:
        yield Violation("R3", f"history floor {manifest.history_floor} is above epoch {manifest.epoch}")
    if manifest.horizon > manifest.committed_at:
        yield Violation("R3", "the horizon lies after the commit that raised it")
    numbers = [known.id for known in manifest.attributes.values()]
    if len(set(numbers)) != len(numbers) or max(numbers, default=-1) >= _next_attribute(manifest):
        yield Violation("R4", "attributes share an id, or have one that has yet to be given")
    if manifest.state == "deleted" and manifest.parts:
        yield Violation("R4", "a deletion marker names parts")


def _bookkeeping_holds(manifest: Manifest) -> Iterator[Violation]:
    commits = manifest.commits
    if not commits or commits[-1].epoch != manifest.epoch:
        yield Violation("R1", f"epoch {manifest.epoch} does not name the commit that made it")
    if len(commits) > MAX_RECENT_COMMITS:
        yield Violation("R1", f"{len(commits)} commits are named; the limit is {MAX_RECENT_COMMITS}")
    if any(one.epoch > other.epoch for one, other in pairwise(commits)):
        yield Violation("R1", "commits are out of order")
    if len({commit.id for commit in commits}) != len(commits):
        yield Violation("R1", "a commit was applied twice")
    keys = {record.key for record in manifest.idempotency}
    if len(keys) != len(manifest.idempotency):
        yield Violation("R12", "an idempotency key is remembered twice")
    if len(keys) > MAX_IDEMPOTENCY_KEYS:
        yield Violation("R12", f"{len(keys)} idempotency keys; the limit is {MAX_IDEMPOTENCY_KEYS}")
    if any(pin.epoch > manifest.epoch for pin in manifest.pins):
        yield Violation("R9", "a pin names an epoch that has yet to come")


# -- two manifests --------------------------------------------------------------------------


def _succession(before: Manifest, after: Manifest) -> Iterator[Violation]:
    at = f"epoch {after.epoch}"
    if after.epoch != before.epoch + 1:
        yield Violation("R4", f"{at} follows epoch {before.epoch}")
    for name in ("horizon", "history_floor", "committed_at"):
        if getattr(after, name) < getattr(before, name):
            yield Violation("R3", f"{at}: {name} fell")
    kept = [commit for commit in after.commits if commit.epoch <= before.epoch]
    if kept and kept != list(before.commits[-len(kept) :]):
        yield Violation("R1", f"{at}: the commits of earlier epochs differ")
    if len(kept) < len(before.commits) and len(after.commits) < MAX_RECENT_COMMITS:
        yield Violation("R1", f"{at}: commits were dropped before the list was full")
    if after.incarnation != before.incarnation:
        if before.state != "deleted":
            yield Violation("R4", f"{at} is another incarnation, and epoch {before.epoch} was not deleted")
        if after.parts and not after.ancestors and not isinstance(after.copied, Copied):
            yield Violation("R4", f"{at} is a new incarnation and has parts")
        return
    if before.state == "deleted" and after.state != "deleted":
        yield Violation("R4", f"{at}: a deleted incarnation came back")
    if after.next_id < before.next_id:
        yield Violation("R11", f"{at}: the counter of ids fell")
    if _next_attribute(after) < _next_attribute(before):
        yield Violation("R4", f"{at}: the counter of attributes fell")
    for name in ("dim", "metric", "rotation_seed", "created_at", "ancestors"):
        if getattr(after, name) != getattr(before, name):
            yield Violation("R4", f"{at}: {name} changed")
    if after.lineage != before.lineage:  # a restore: rows and schema are those of an earlier epoch
        return
    if before.id_kind is not None and after.id_kind != before.id_kind:
        yield Violation("R4", f"{at}: the kind of ids changed")
    for name, known in before.attributes.items():
        other = after.attributes.get(name)
        if other is not None and other.id == known.id and other != known:
            yield Violation("R4", f"{at}: attribute {name!r} changed")
    yield from _parts_succession(before, after)


def _next_attribute(manifest: Manifest) -> int:
    return manifest.next_attribute if isinstance(manifest.next_attribute, int) else 0


def _columns(part: Part) -> tuple[int, ...]:
    return part.columns if isinstance(part.columns, tuple) else ()


def _parts_succession(before: Manifest, after: Manifest) -> Iterator[Violation]:
    """A part never changes but for its tombstone, and no row comes back to life."""
    earlier = {part.id: part for part in before.parts}
    for part in after.parts:
        known = earlier.get(part.id)
        if known is None or known == part:
            continue
        if (known.owner, known.n, known.bytes, known.checksums_crc32c, known.id_base, known.columns) != (
            part.owner,
            part.n,
            part.bytes,
            part.checksums_crc32c,
            part.id_base,
            part.columns,
        ):
            yield Violation("R6", f"epoch {after.epoch}: part {part.id} is described otherwise")
        if part.live > known.live:
            yield Violation("R6", f"epoch {after.epoch}: rows of part {part.id} came back to life")


# -- objects --------------------------------------------------------------------------------


def _ancestors_hold(store: ObjectStore, manifest: Manifest) -> Iterator[Violation]:
    """Everybody whose objects a branch may name has a pin for it (R9)."""
    if manifest.state == "deleted":
        return
    for ancestor in manifest.ancestors:
        pins = history.read_current(store, ancestor.namespace).manifest.pins
        if not any(
            (pin.kind, pin.branch, pin.epoch) == ("branch", manifest.incarnation, ancestor.epoch)
            for pin in pins
        ):
            yield Violation("R9", f"{ancestor.namespace} has no pin at {ancestor.epoch} for its branch")
    strangers = manifest.owners - {manifest.namespace, *(a.namespace for a in manifest.ancestors)}
    if strangers:
        yield Violation("R9", f"objects of {sorted(strangers)} are named, which are no ancestors")


def _objects(
    store: ObjectStore,
    manifest: Manifest,
    bitmaps: bool,
    checked: set[str] | None = None,
    *,
    own: bool = False,
) -> Iterator[Violation]:
    """``checked`` remembers what was looked at, because successive epochs name nearly the same.

    With ``own``, objects of other namespaces are left out.
    """
    done = checked if checked is not None else set()
    for part in manifest.parts:
        key = part_key(part.owner, part.id)
        if key not in done and (part.owner == manifest.namespace or not own):
            done.add(key)
            yield from _object(store, key, part.bytes, manifest.epoch, exactly=True)
        tombstone = part.tombstone
        if tombstone is None or (own and tombstone.owner != manifest.namespace):
            continue
        key = delete_key(tombstone.owner, tombstone.delete_id)
        entry = f"{key}@{tombstone.offset}"
        if entry not in done:
            done.add(entry)
            end = tombstone.offset + tombstone.length
            missing = list(_object(store, key, end, manifest.epoch, exactly=False))
            yield from missing
            if bitmaps and not missing:
                yield from _content(store, tombstone, part)


def _object(store: ObjectStore, key: str, size: int, epoch: int, *, exactly: bool) -> Iterator[Violation]:
    try:
        found = store.head(key).size
    except StorageMissing:
        yield Violation("R3", f"{key}, which epoch {epoch} names, is gone")
        return
    if found < size or (exactly and found != size):
        yield Violation("R13", f"{key} has {found} bytes; epoch {epoch} says {size}")


def _content(store: ObjectStore, tombstone: Tombstone, part: Part) -> Iterator[Violation]:
    try:
        read_tombstone(store, tombstone, n=part.n)
    except StorageCorrupt as error:
        yield Violation("R13", error.message)


def _bitmap(store: ObjectStore, part: Part) -> BitMap | None:
    """None where it cannot be read: that is reported once, as what it is."""
    if part.tombstone is None:
        return None
    try:
        return read_tombstone(store, part.tombstone, n=part.n)
    except (StorageCorrupt, StorageMissing):
        return None
