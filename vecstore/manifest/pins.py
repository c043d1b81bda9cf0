"""Pins: epochs that collection keeps beyond their retention, for a tag or for a branch.

Rules R3 (only what collection still keeps can be pinned, asked of the base that is extended) and R9.
A tag is its namespace's own and ends with it; a pin for a branch stays in the deletion marker, because
the branch rests on it. Imports the modules beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from msgspec.structs import replace

from vecstore.errors import LimitReached, TagExists, TagNotFound
from vecstore.limits import MAX_BRANCH_PINS, MAX_TAGS
from vecstore.manifest import history
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.model import Manifest, Pin
from vecstore.manifest.publish import Publisher


def tags_of(manifest: Manifest) -> tuple[Pin, ...]:
    """The tags of a namespace, by name."""
    return tuple(sorted((pin for pin in manifest.pins if pin.kind == "tag"), key=lambda pin: pin.name))


def add_tag(publisher: Publisher, name: str, epoch: int | None = None) -> Pin:
    """Hold an epoch, the current one if none is named, against collection.

    A tag that is there already with that epoch is left as it is. So is, where none is named, one of an epoch
    since which nothing has changed but tags: the commit of a tag is an epoch of its own.

    Raises
    ------
    TagExists
        The name is taken by another epoch.
    LimitReached
        The namespace has `MAX_TAGS`.
    SnapshotExpired
        Collection may have taken what the epoch names.
    InvalidArgument
        The namespace has not reached the epoch.
    """
    snapshots = publisher.snapshots
    at = (snapshots.strong() if epoch is None else snapshots.at_epoch(epoch)).manifest
    held = next((pin for pin in tags_of(at) if pin.name == name), None)
    if (
        epoch is None
        and held is not None
        and _content(snapshots.at_epoch(held.epoch).manifest) == _content(at)
    ):
        return held
    change = AddTag(
        commit_id=publisher.new_commit_id(), incarnation=at.incarnation, name=name, epoch=at.epoch
    )
    publisher.commit(change)
    assert change.pin is not None  # made at the attempt that was committed
    return change.pin


def _content(manifest: Manifest) -> Manifest:
    """A manifest without what commits of tags and of collection change."""
    return replace(
        manifest,
        epoch=0,
        committed_at=0.0,
        commits=(),
        idempotency=(),
        pins=(),
        horizon=0.0,
        history_floor=0,
    )


def remove_tag(publisher: Publisher, name: str) -> None:
    """Let go of the epoch that a tag holds. `TagNotFound` if there is no such tag."""
    incarnation = publisher.snapshots.strong().manifest.incarnation
    publisher.commit(RemoveTag(commit_id=publisher.new_commit_id(), incarnation=incarnation, name=name))


@dataclass(kw_only=True, eq=False)
class AddTag(Change):
    """Pin an epoch of the incarnation under a name; ``pin`` is what came of it."""

    name: str
    epoch: int
    pin: Pin | None = None

    def apply(self, draft: Draft) -> dict[str, Any]:
        manifest = draft.manifest
        known = tags_of(manifest)
        self.pin = next((pin for pin in known if pin.name == self.name), None)
        if self.pin is not None:
            if self.pin.epoch != self.epoch:
                raise TagExists(
                    f"tag {self.name!r} of {manifest.namespace!r} holds epoch {self.pin.epoch}",
                    name=self.name,
                    epoch=self.pin.epoch,
                )
            return {}
        if len(known) >= MAX_TAGS:
            raise LimitReached(
                f"{manifest.namespace!r} has {len(known)} tags; delete one first", limit=MAX_TAGS
            )
        self.pin = Pin(
            name=self.name,
            kind="tag",
            incarnation=manifest.incarnation,
            epoch=self.epoch,
            created_at=draft.now,
        )
        add_pin(draft, self.pin)
        return {}


@dataclass(kw_only=True, eq=False)
class PinForBranch(Change):
    """Pin what a branch that is about to be created will rest on; on a deletion marker too (R9)."""

    on_deleted: ClassVar[bool] = True

    pin: Pin

    def apply(self, draft: Draft) -> dict[str, Any]:
        pins = [pin for pin in draft.manifest.pins if pin.kind == "branch"]
        if len(pins) >= MAX_BRANCH_PINS:
            raise LimitReached(
                f"{len(pins)} branches rest on {draft.manifest.namespace!r}; delete one first",
                limit=MAX_BRANCH_PINS,
            )
        add_pin(draft, replace(self.pin, created_at=draft.now))
        return {}


@dataclass(kw_only=True, eq=False)
class ReleasePins(Change):
    """Drop the pins of branches, each a name and an incarnation, that are over."""

    on_deleted: ClassVar[bool] = True

    over: frozenset[tuple[str, str | None]]

    def apply(self, draft: Draft) -> dict[str, Any]:
        pins = draft.manifest.pins
        kept = tuple(pin for pin in pins if pin.kind == "tag" or (pin.name, pin.branch) not in self.over)
        if len(kept) < len(pins):
            draft.replace(pins=kept)
        return {"released": len(pins) - len(kept)}


@dataclass(kw_only=True, eq=False)
class RemoveTag(Change):
    """Drop the tag of a name."""

    name: str

    def apply(self, draft: Draft) -> dict[str, Any]:
        manifest = draft.manifest
        kept = tuple(pin for pin in manifest.pins if (pin.kind, pin.name) != ("tag", self.name))
        if len(kept) == len(manifest.pins):
            raise TagNotFound(f"{manifest.namespace!r} has no tag {self.name!r}", name=self.name)
        draft.replace(pins=kept)
        return {}


def add_pin(draft: Draft, pin: Pin) -> None:
    """R3: `SnapshotExpired` if what the pin shall keep may be gone already, as the base has it."""
    manifest = draft.manifest
    if not manifest.keeps(pin.epoch):
        raise history.expired(manifest.namespace, pin.epoch)
    draft.replace(pins=(*manifest.pins, pin))
