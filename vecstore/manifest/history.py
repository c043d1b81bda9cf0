"""Past epochs of a namespace: reading one by name, keeping one, and asking what became of one.

Carries out protocol R1 (what became of an epoch), R2 (only bytes known to have been committed
become history), R4 (``current`` is never removed) and R15 (how one epoch is read). History is walked by
name, never by listing. Imports keys, model and storage.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from vecstore.errors import InvalidArgument, SnapshotExpired, StorageConflict, StorageCorrupt, StorageMissing
from vecstore.limits import MAX_RECENT_COMMITS
from vecstore.manifest.keys import current_key, history_key, history_prefix
from vecstore.manifest.model import Manifest, decode_manifest
from vecstore.storage.base import ObjectStore
from vecstore.storage.pages import all_objects


@dataclass(frozen=True, slots=True)
class Epoch:
    """A manifest as it was read: the bytes are kept because only they may become history (R2)."""

    manifest: Manifest
    raw: bytes
    etag: str
    modified: float


def read_current(store: ObjectStore, namespace: str) -> Epoch:
    """The manifest that is current, a deletion marker too. `StorageMissing` if there never was one."""
    key = current_key(namespace)
    found = store.get(key)
    return Epoch(
        decode_manifest(found.data, key=key, namespace=namespace),
        found.data,
        found.meta.etag,
        found.meta.modified,
    )


def read_copy(store: ObjectStore, namespace: str, epoch: int) -> Epoch:
    """The copy kept of a past epoch (R13: it must say that it is that epoch). `StorageMissing` if none."""
    key = history_key(namespace, epoch)
    found = store.get(key)
    manifest = decode_manifest(found.data, key=key, namespace=namespace)
    if manifest.epoch != epoch:
        raise StorageCorrupt(
            f"{key}: manifest of epoch {manifest.epoch} found under epoch {epoch}",
            object=key,
            section="manifest",
        )
    return Epoch(manifest, found.data, found.meta.etag, found.meta.modified)


def read_epoch(store: ObjectStore, namespace: str, epoch: int) -> Epoch:
    """One epoch as R15 has it: the copy, then ``current`` if it is that epoch, then the copy again.

    Raises
    ------
    SnapshotExpired
        The epoch is below the history floor, or its copy is gone.
    InvalidArgument
        The namespace has not reached the epoch.
    StorageMissing
        There is no such namespace.
    """
    try:
        return read_copy(store, namespace, epoch)
    except StorageMissing:
        current = read_current(store, namespace)
    if current.manifest.epoch == epoch:
        return current
    if current.manifest.epoch < epoch:
        raise InvalidArgument(
            f"epoch {epoch} of {namespace!r} does not exist yet; current is {current.manifest.epoch}",
            field="epoch",
        )
    if epoch < current.manifest.history_floor:
        raise expired(namespace, epoch)
    try:
        # It was being replaced at that moment: whoever did so kept a copy first.
        return read_copy(store, namespace, epoch)
    except StorageMissing as error:
        raise expired(namespace, epoch) from error


def write_copy(store: ObjectStore, namespace: str, epoch: int, raw: bytes) -> bool:
    """Keep the bytes of an epoch that was current, as they were read (R2); False if they were there already.

    Whoever writes it writes the same bytes. If others are there, two histories have met: a store was put back
    over a later state of itself, and whatever were committed would pass for what is kept under its number.

    Raises
    ------
    StorageCorrupt
        Other bytes are kept of that epoch.
    StorageMissing
        The copy that was there has been collected since.
    """
    key = history_key(namespace, epoch)
    try:
        store.put_if_absent(key, raw)
    except StorageConflict:
        if store.get(key).data != raw:
            raise StorageCorrupt(
                f"{key} is of another history than epoch {epoch} that is current, as if an older state had "
                "been laid over the store; nothing was changed (docs/incidents.md says what to do)",
                object=key,
                section="manifest",
            ) from None
        return False
    return True


def check_not_lost(store: ObjectStore, namespace: str) -> None:
    """`StorageCorrupt` if epochs are kept of a namespace that has no ``current``, which R4 never removes.

    Epochs that began anew beside them would pass for those that are kept. One listing, as a rule.
    """
    if next(all_objects(store, history_prefix(namespace)), None) is None:
        return
    try:
        store.get(current_key(namespace))
    except StorageMissing as error:
        if "bucket" in error.details:
            raise
        raise lost(namespace) from error


def lost(namespace: str) -> StorageCorrupt:
    """The error of a namespace that has history and no ``current``."""
    key = current_key(namespace)
    return StorageCorrupt(
        f"{key} is lost, and epochs of {namespace!r} are kept: bring it back, or take away all that is left "
        "of the namespace and restore a backup (docs/incidents.md says how)",
        object=key,
        section="manifest",
    )


def was_committed(
    store: ObjectStore, namespace: str, current: Manifest, epoch: int, commit_ids: Collection[str]
) -> bool:
    """Whether ``epoch``, which is not after ``current``, was made by these commits (R1).

    The list in ``current`` tells of the last `MAX_RECENT_COMMITS`; the copy of ``epoch`` tells of
    it for as long as it is kept. `StorageMissing` if neither can tell.
    """
    told = lists_commits(current, epoch, commit_ids)
    if told is None:
        told = lists_commits(read_copy(store, namespace, epoch).manifest, epoch, commit_ids)
    return bool(told)


def lists_commits(current: Manifest, epoch: int, commit_ids: Collection[str]) -> bool | None:
    """Whether ``current`` says that these commits made ``epoch``; None if it tells no more of that epoch."""
    listed = current.commits
    wanted = set(commit_ids)
    if any(commit.epoch == epoch and commit.id in wanted for commit in listed):
        return True
    # The oldest epoch in a list that was cut may have lost some of its commits.
    complete = len(listed) < MAX_RECENT_COMMITS or listed[0].epoch < epoch or current.epoch == epoch
    return False if complete else None


def expired(namespace: str, epoch: int) -> SnapshotExpired:
    """The error of an epoch that has left the retention window (R10)."""
    return SnapshotExpired(
        f"epoch {epoch} of {namespace!r} has left the retention window", namespace=namespace, epoch=epoch
    )
