"""Branches: a new namespace from an epoch of another one, by copying its manifest alone.

Rule R9. Every namespace that owns an object which the branch will name first gets a pin in its own
``current``; then the branch's ``current`` is created. A pin without a branch must not stay for ever,
nor may its branch appear after it was released. So a branch is bound, before the first pin, to the one
epoch of its name at which it can begin: the first ever, or the next upon the deletion marker that is
there. `fence` takes that epoch, and whoever stalled on the way fails. Imports the modules beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from msgspec import UNSET
from msgspec.structs import replace

from vecstore.errors import (
    LimitReached,
    NamespaceExists,
    NamespaceNotFound,
    PreconditionFailed,
    SnapshotExpired,
    StorageConflict,
)
from vecstore.manifest import history
from vecstore.manifest.attempt import Committed
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.lifecycle import FIRST_EPOCH, CreateUpon, create_first, create_marker
from vecstore.manifest.model import Ancestor, CommitRef, Manifest, Pin
from vecstore.manifest.pins import PinForBranch
from vecstore.manifest.publish import Publisher
from vecstore.manifest.snapshot import Snapshot
from vecstore.manifest.uid import new_uid


def branch(
    publisher_of: Callable[[str], Publisher], source: str, name: str, *, epoch: int | None = None
) -> Committed:
    """Create namespace ``name`` with the rows that ``source`` has, or had at ``epoch``.

    No part and no tombstone is copied. Epochs, ids of commits, idempotency keys and tags are the
    branch's own from the beginning.

    Parameters
    ----------
    publisher_of
        The process's publisher of any namespace: the source, those that it rests on, and the branch.

    Raises
    ------
    NamespaceNotFound, NamespaceExists
        There is no ``source``, or there is a ``name``.
    SnapshotExpired, InvalidArgument
        The epoch is not kept any more, or has yet to come.
    LimitReached
        Too many branches rest on an owner of the parts.
    StorageConflict
        Somebody used the name meanwhile, or this took so long that collection gave it up. Nothing was
        created; collection releases the pins.
    OutcomeUnknown
        It may or may not have been created, and that cannot be found out in time (R1).
    StorageCorrupt
        There was a ``name``, and its ``current`` is lost. Nothing was pinned or created.
    """
    snapshots = publisher_of(source).snapshots
    origin = (snapshots.strong() if epoch is None else snapshots.at_epoch(epoch)).manifest
    target = publisher_of(name)
    marker = _vacancy(target)
    first = _first_manifest(target, origin)
    begins = FIRST_EPOCH if marker is None else marker.epoch + 1
    try:
        for ancestor in first.ancestors:
            owner = publisher_of(ancestor.namespace)
            owner.commit(
                PinForBranch(
                    commit_id=owner.new_commit_id(),
                    pin=Pin(
                        name=name,
                        kind="branch",
                        incarnation=ancestor.incarnation,
                        epoch=ancestor.epoch,
                        created_at=0.0,
                        branch=first.incarnation,
                        first=begins,
                    ),
                )
            )
    # Whoever may branch the source need not know what that rests on.
    except SnapshotExpired as error:
        raise history.expired(source, origin.epoch) from error
    except LimitReached as error:
        raise LimitReached(
            f"too many branches rest on what {source!r} is made of; delete one first", **error.details
        ) from error
    if marker is None:
        done = create_first(target, first)
        if done is None:
            raise _overtaken(name)
        return done
    try:
        return target.commit(
            CreateBranch(
                commit_id=first.commits[0].id,
                expected=marker.token,
                first=first,
                own=tuple(a.epoch for a in origin.ancestors if a.namespace == name),
            )
        )
    except PreconditionFailed as error:
        raise _overtaken(name) from error


def fence(target: Publisher, pin: Pin, like: Manifest) -> bool:
    """Take the epoch at which the branch of a pin would begin, so that it never does.

    Parameters
    ----------
    like
        Whence a marker takes what every manifest must have, where the name was never used.

    Returns
    -------
    False if somebody else has just taken it, perhaps the branch itself.
    """
    try:
        found = target.snapshots.refresh()
    except NamespaceNotFound:
        return create_marker(target, like)
    if found.epoch >= pin.first:
        return False
    try:
        target.commit(Fence(commit_id=target.new_commit_id(), expected=found.token))
    except PreconditionFailed:
        return False
    return True


@dataclass(kw_only=True, eq=False)
class CreateBranch(CreateUpon):
    """Creation upon the very marker that was there before anything was pinned.

    Attributes
    ----------
    own
        Epochs of an earlier namespace of this name whose parts the branch gets back: nobody else
        could hold a pin on them for it, so the marker must keep them still.
    """

    own: tuple[int, ...]

    def apply(self, draft: Draft) -> dict[str, Any]:
        for epoch in self.own:
            if not draft.manifest.keeps(epoch):
                raise history.expired(draft.base.namespace, epoch)
        return super().apply(draft)


@dataclass(kw_only=True, eq=False)
class Fence(Change):
    """An epoch of a deletion marker that changes nothing else."""

    on_deleted: ClassVar[bool] = True

    def apply(self, draft: Draft) -> dict[str, Any]:
        if draft.manifest.state != "deleted":
            raise NamespaceExists(
                f"namespace {draft.base.namespace!r} exists", namespace=draft.base.namespace
            )
        draft.replace(state="deleted")
        return {}


def _vacancy(target: Publisher) -> Snapshot | None:
    """The deletion marker under a name that is free; None if it was never used."""
    try:
        found = target.snapshots.refresh()
    except NamespaceNotFound:
        history.check_not_lost(target.store, target.namespace)  # before anything is pinned
        return None
    if found.manifest.state == "active":
        raise NamespaceExists(f"namespace {target.namespace!r} exists", namespace=target.namespace)
    return found


def _first_manifest(target: Publisher, origin: Manifest) -> Manifest:
    """What the branch is at its first epoch, if that is the first under its name."""
    store = target.store
    now = store.now()
    owners = origin.owners
    above = (a for a in origin.ancestors if a.namespace in owners and a.namespace != target.namespace)
    return replace(
        origin,
        namespace=target.namespace,
        incarnation=new_uid(store.now, target.rng),
        lineage=new_uid(store.now, target.rng),
        epoch=FIRST_EPOCH,
        ancestors=(Ancestor(origin.namespace, origin.incarnation, origin.epoch), *above),
        created_at=now,
        committed_at=now,
        commits=(CommitRef(target.new_commit_id(), FIRST_EPOCH),),
        idempotency=(),
        pins=(),
        horizon=0.0,
        history_floor=0,
        copied=UNSET,
    )


def _overtaken(name: str) -> StorageConflict:
    return StorageConflict(
        f"the name {name!r} was used while the branch was made; nothing was created", namespace=name
    )
