"""Creation, deletion and settings of a namespace, as commits.

Rule R4: deletion is a commit that leaves a marker, creation anew is a commit upon the marker with a
new incarnation, and neither ever removes ``current`` or lets epochs restart. R1 holds for the very
first switch too, which is a create-if-absent. Imports the modules beside it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

import msgspec

from vecstore import deadline
from vecstore.errors import (
    InvalidArgument,
    NamespaceExists,
    NamespaceNotFound,
    OutcomeUnknown,
    StorageConflict,
    StorageRetryable,
)
from vecstore.limits import MAX_DIM
from vecstore.manifest import history
from vecstore.manifest.attempt import Committed
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.keys import current_key
from vecstore.manifest.model import Attribute, CommitRef, Manifest, Settings, encode_manifest
from vecstore.manifest.publish import Publisher
from vecstore.manifest.settings import check_metric, updated_settings
from vecstore.manifest.snapshot import Snapshot, SnapshotSource
from vecstore.manifest.uid import new_uid
from vecstore.storage.base import ObjectStore
from vecstore.types import Metric

FIRST_EPOCH = 1


def create_namespace(
    store: ObjectStore,
    name: str,
    *,
    dim: int,
    metric: Metric,
    settings: Settings | None = None,
    schema: Mapping[str, Attribute] | None = None,
    rotation_seed: int | None = None,
    publisher: Publisher | None = None,
    clock: Callable[[], float] = time.monotonic,
    rng: Random | None = None,
    sleep: Callable[[float], None] = time.sleep,
    deadline: float = 30.0,
) -> Committed:
    """Create a namespace: the first of its name, or anew upon the marker of one that was deleted.

    Parameters
    ----------
    schema
        Attributes by name, their ids counted from 0.
    publisher
        The process's publisher for ``name``, which then learns of the first epoch; one is made from
        the other arguments if it is not given.

    Raises
    ------
    NamespaceExists
        There is one of that name.
    OutcomeUnknown
        It may or may not have been created, and that cannot be found out in time (R1).
    StorageCorrupt
        There was one, and its ``current`` is lost: epochs of it are kept. Nothing was created.
    """
    if not 1 <= dim <= MAX_DIM:
        raise InvalidArgument(f"dim must be 1 to {MAX_DIM}", field="dim", limit=MAX_DIM)
    check_metric(metric)
    settings = updated_settings(settings if settings is not None else Settings(), {})
    check_expiry(settings, schema or {})
    source = rng if rng is not None else random.SystemRandom()
    if publisher is None:
        snapshots = SnapshotSource(store, name, clock=clock)
        publisher = Publisher(store, name, snapshots, clock=clock, rng=source, sleep=sleep, deadline=deadline)
    now = store.now()
    first = Manifest(
        namespace=name,
        incarnation=new_uid(store.now, source),
        lineage=new_uid(store.now, source),
        epoch=FIRST_EPOCH,
        created_at=now,
        committed_at=now,
        dim=dim,
        metric=metric,
        rotation_seed=source.getrandbits(63) if rotation_seed is None else rotation_seed,
        settings=settings,
        schema=dict(schema) if schema else msgspec.UNSET,
        next_attribute=len(schema) if schema else msgspec.UNSET,
        commits=(CommitRef(publisher.new_commit_id(), FIRST_EPOCH),),
    )
    done = create_first(publisher, first)
    return (
        done if done is not None else publisher.commit(CreateUpon(commit_id=first.commits[0].id, first=first))
    )


def delete_namespace(
    store: ObjectStore,
    name: str,
    *,
    incarnation: str | None = None,
    expected: tuple[str, int] | None = None,
    publisher: Publisher | None = None,
    clock: Callable[[], float] = time.monotonic,
    rng: Random | None = None,
    sleep: Callable[[float], None] = time.sleep,
    deadline: float = 30.0,
) -> Committed:
    """Delete a namespace: a marker takes its place, its objects go when collection may take them.

    A caller that retries names the ``incarnation`` it means, so that a late retry does not remove a
    namespace that was made anew since (R4); without it, the one that is current now is meant.

    Raises
    ------
    NamespaceNotFound
        It is gone, or there is another of that name.
    """
    if publisher is None:
        snapshots = SnapshotSource(store, name, clock=clock)
        publisher = Publisher(store, name, snapshots, clock=clock, rng=rng, sleep=sleep, deadline=deadline)
    if incarnation is None:
        incarnation = publisher.snapshots.strong().manifest.incarnation
    return publisher.commit(
        DeleteNamespace(commit_id=publisher.new_commit_id(), incarnation=incarnation, expected=expected)
    )


@dataclass(kw_only=True, eq=False)
class DeleteNamespace(Change):
    """Replace the namespace by a marker; branches rest on their pins, which stay (R9), tags go with it."""

    def apply(self, draft: Draft) -> dict[str, Any]:
        if self.incarnation is None:
            raise InvalidArgument("a deletion names the incarnation that it means", field="incarnation")
        draft.remove_parts([part.id for part in draft.manifest.parts])
        draft.forget_records()
        pins = tuple(pin for pin in draft.manifest.pins if pin.kind == "branch")
        draft.replace(state="deleted", means=(), pins=pins)
        return {}


@dataclass(kw_only=True, eq=False)
class UpdateSettings(Change):
    """Change some settings and leave the others as they are at the base that is extended."""

    changes: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, draft: Draft) -> dict[str, Any]:
        change_settings(draft, self.changes)
        check_expiry(draft.manifest.settings, draft.manifest.attributes)
        return {}


def change_settings(draft: Draft, changes: Mapping[str, Any]) -> None:
    """Let a draft have these settings, and the others as they are.

    `InvalidArgument` names the field that is wrong, or ``store_vectors`` where vectors are to be kept of rows
    that have none: compaction could only store approximations in their place.
    """
    before = draft.manifest.settings.store_vectors
    settings = updated_settings(draft.manifest.settings, changes)
    if before == "none" != settings.store_vectors and any(
        part.vectors == "none" for part in draft.manifest.parts
    ):
        raise InvalidArgument(
            f"store_vectors cannot become {settings.store_vectors!r}: there are parts that keep no vectors,"
            " which nothing can give back; insert the rows into another namespace",
            field="store_vectors",
        )
    draft.set_settings(settings)


def check_expiry(settings: Settings, schema: Mapping[str, Attribute]) -> None:
    """`InvalidArgument` if rows are to expire by what is no filterable ``datetime``."""
    name = settings.expire_by
    if name is None:
        return
    known = schema.get(name)
    if known is None or known.type != "datetime" or not known.filterable:
        what = (
            "no attribute"
            if known is None
            else f"{known.type}{'' if known.filterable else ', not filterable'}"
        )
        raise InvalidArgument(
            f"expire_by names {name!r}, which has to be a filterable datetime of the schema, and is {what}",
            field="expire_by",
        )


@dataclass(kw_only=True, eq=False)
class CreateUpon(Change):
    """Creation upon a deletion marker (R4): epochs, commits, pins, horizon and floor go on.

    The marker is an epoch of its own, also when a deletion has just been applied before us.

    Attributes
    ----------
    first
        What the manifest would be if the name had never been used.
    """

    on_deleted: ClassVar[bool] = True
    opens_group: ClassVar[bool] = True

    first: Manifest

    def apply(self, draft: Draft) -> dict[str, Any]:
        if draft.manifest.state != "deleted":
            raise NamespaceExists(
                f"namespace {draft.base.namespace!r} exists", namespace=draft.base.namespace
            )
        draft.replace(**{name: getattr(self.first, name) for name in _OF_AN_INCARNATION})
        draft.replace(created_at=draft.now)
        draft.set_parts(self.first.parts)
        return {}


_OF_AN_INCARNATION = (
    "incarnation",
    "lineage",
    "state",
    "ancestors",
    "dim",
    "metric",
    "id_kind",
    "rotation_seed",
    "settings",
    "means",
    "next_id",
    "schema",
    "next_attribute",
    "copied",
)


def create_first(publisher: Publisher, first: Manifest) -> Committed | None:
    """Create-if-absent, resolved as R1 has it; None if the name has been used before.

    As with a commit there is no deadline any more once it has begun: what it found would be in doubt.
    `StorageCorrupt` if the name has been used and its ``current`` is lost (R4).
    """
    deadline.check()
    history.check_not_lost(publisher.store, publisher.namespace)
    with deadline.waived():
        return _create_first(publisher, first)


def _create_first(publisher: Publisher, first: Manifest) -> Committed | None:
    store, name, snapshots = publisher.store, publisher.namespace, publisher.snapshots
    clock, data = publisher.clock, encode_manifest(first)
    give_up = clock() + publisher.deadline
    cause: Exception | None = None
    while True:
        sent_at = clock()
        try:
            meta = store.put_if_absent(current_key(name), data)
        except (StorageConflict, StorageRetryable) as error:
            cause = error
        else:
            snapshots.observe(Snapshot(first, data, meta.etag, sent_at))
            return Committed(FIRST_EPOCH, {}, first)
        try:
            found = snapshots.refresh().manifest
        except NamespaceNotFound:
            pass  # ours may still be under way: send the same again
        except StorageRetryable as error:
            cause = error
        else:
            # A list that was cut names a thousand later commits: ours was not among the first.
            if any(commit.id == first.commits[0].id for commit in found.commits):
                return Committed(FIRST_EPOCH, {}, first)
            return None
        if clock() >= give_up:
            raise OutcomeUnknown(
                f"namespace {name!r} may or may not have been created", namespace=name
            ) from cause
        publisher.sleep(0.1 * publisher.rng.random())


def create_marker(target: Publisher, like: Manifest | None = None) -> bool:
    """Begin a name that was never used with a deletion marker; False if it has been used.

    ``like`` is whence it takes what every manifest must have, if anything is known of what was to be there.
    """
    now = target.store.now()
    marker = Manifest(
        namespace=target.namespace,
        incarnation=new_uid(target.store.now, target.rng),
        lineage=new_uid(target.store.now, target.rng),
        epoch=FIRST_EPOCH,
        state="deleted",
        created_at=now,
        committed_at=now,
        dim=like.dim if like is not None else 1,
        metric=like.metric if like is not None else "cosine",
        rotation_seed=like.rotation_seed if like is not None else 0,
        commits=(CommitRef(target.new_commit_id(), FIRST_EPOCH),),
    )
    return create_first(target, marker) is not None
