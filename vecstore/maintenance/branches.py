"""Which branches that rest on a namespace are over, so that their pins can be released.

Rule R9: only after the branch was deleted and its retention has passed; one that was never created is
fenced first. Imports manifest and storage.
"""

from __future__ import annotations

import logging

from vecstore.errors import SnapshotExpired, StorageCorrupt, StorageMissing
from vecstore.manifest import history
from vecstore.manifest.branch import fence
from vecstore.manifest.model import Manifest, Pin
from vecstore.manifest.pins import ReleasePins
from vecstore.manifest.publish import Publisher

log = logging.getLogger(__name__)


def release_pins(publisher: Publisher, *, replaced_before: float, pinned_before: float) -> int:
    """Drop the pins of branches that are over; how many.

    Parameters
    ----------
    replaced_before
        Store time: an epoch that was replaced by then has left its retention window.
    pinned_before
        Store time: a branch whose pin is older than this, and which is not there, is given up.
    """
    manifest = publisher.snapshots.refresh().manifest
    # A branch may hold several pins here; whether it is over is asked once.
    branches = {
        (pin.name, pin.branch): pin
        for pin in manifest.pins
        if pin.kind == "branch" and pin.created_at < pinned_before
    }
    over = frozenset(
        branch for branch, pin in branches.items() if _is_over(publisher, manifest, pin, replaced_before)
    )
    if not over:
        return 0
    done = publisher.commit(ReleasePins(commit_id=publisher.new_commit_id(), over=over))
    released: int = done.answer["released"]
    log.info("released %d pins of %s: %s", released, publisher.namespace, sorted(name for name, _ in over))
    return released


def _is_over(publisher: Publisher, owner: Manifest, pin: Pin, replaced_before: float) -> bool:
    try:
        return _has_ended(publisher, owner, pin, replaced_before)
    except StorageCorrupt as error:  # of another namespace: what rests on us is unknown, and stays
        log.warning("branch %s of %s cannot be read: %s", pin.name, owner.namespace, error.message)
        return False


def _has_ended(publisher: Publisher, owner: Manifest, pin: Pin, replaced_before: float) -> bool:
    store = publisher.store
    try:
        current = history.read_current(store, pin.name)
    except StorageMissing:
        return fence(publisher.beside(pin.name), pin, owner)
    manifest = current.manifest
    if manifest.epoch < pin.first:
        return fence(publisher.beside(pin.name), pin, owner)
    if manifest.incarnation == pin.branch:
        return manifest.state == "deleted" and current.modified < replaced_before
    # Its name is another's by now. Its epochs, if it had any, run from the first one that it could
    # have: it is over once the oldest epoch that the name keeps is not one of them.
    try:
        oldest = history.read_epoch(store, pin.name, max(manifest.history_floor, pin.first)).manifest
    except SnapshotExpired:  # the floor has just moved: the next collection sees where to
        return False
    return oldest.incarnation != pin.branch or oldest.state == "deleted"
