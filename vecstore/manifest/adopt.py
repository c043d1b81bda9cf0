"""A copy of a namespace of another store becomes the current epoch here, by one commit.

Decision 0032. What was uploaded is named by nothing until then. The epochs that tags hold are written
as history of numbers that nobody has or will have: `Reserve` leaves a gap for them, because under the
number of an epoch that somebody may yet commit they would pass for that one. Imports the modules beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from pyroaring import BitMap

from vecstore.errors import Diverged, LimitReached
from vecstore.limits import MAX_TAGS
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.model import Copied, Manifest, Part, Pin


def rows_state(parts: Iterable[tuple[str, int]]) -> str:
    """A digest of parts, each an id and its number of dead rows.

    Within one lineage rows only die, so that their number tells which they are. It is of nothing that a later
    version may write otherwise.
    """
    return hashlib.blake2b(msgspec.json.encode(list(parts)), digest_size=16).hexdigest()


def is_still(manifest: Manifest, copied: Copied, lineage: str, state: str) -> bool:
    """Whether rows, settings and schema are those that were copied then."""
    found = rows_state((part.id, part.n - part.live) for part in manifest.parts)
    return (manifest.lineage, found, manifest.settings, manifest.attributes) == (
        lineage,
        state,
        copied.settings,
        copied.schema,
    )


def counts_as_far(manifest: Manifest, source: Manifest) -> bool:
    """Whether ids of rows and of attributes that ``source`` has given are not given again by ``manifest``."""
    return manifest.next_id >= source.next_id and _next_attribute(manifest) >= _next_attribute(source)


def _next_attribute(manifest: Manifest) -> int:
    return manifest.next_attribute if isinstance(manifest.next_attribute, int) else 0


def check_adoptable(base: Manifest, source: Manifest, target: str) -> None:
    """`Diverged` if ``base``, current in the store ``target``, holds what ``source`` does not know of.

    A namespace may be replaced that is an earlier state of the source, and has stayed so: a copy of it, or
    what the source itself is a copy of.
    """
    if base.state == "deleted":
        return
    theirs, ours = base.copied, source.copied
    if isinstance(ours, Copied) and (
        ours.incarnation == base.incarnation and is_still(base, ours, ours.lineage, ours.state)
    ):
        return
    if not isinstance(theirs, Copied) or theirs.incarnation != source.incarnation:
        why = "is no copy of the source"
    elif not is_still(base, theirs, theirs.own_lineage, theirs.own_state):
        why = f"was written to or compacted since epoch {theirs.epoch} was copied to it"
    elif theirs.epoch > source.epoch:
        why = f"is a copy of epoch {theirs.epoch}, and the source is at {source.epoch}"
    else:
        return
    raise Diverged(
        f"namespace {base.namespace!r} of {target} {why}; nothing was changed there",
        namespace=base.namespace,
        incarnation=base.incarnation,
        epoch=base.epoch,
    )


@dataclass(kw_only=True, eq=False)
class Reserve(Change):
    """Skip epochs, which stay free for ever."""

    on_deleted: ClassVar[bool] = True
    opens_group: ClassVar[bool] = True

    count: int

    def apply(self, draft: Draft) -> dict[str, Any]:
        draft.skip_epochs(self.count)
        return {}


@dataclass(kw_only=True, eq=False)
class Adopt(Change):
    """Take rows, schema and settings of a copied epoch; ``expected`` names the base that it was planned on.

    Attributes
    ----------
    source
        The manifest that was copied.
    parts
        Its parts as they are here. One that has a tombstone keeps it.
    dead
        Whole, the dead rows of the others.
    pins
        All that there are to be.
    anew
        The incarnation that begins, upon a deletion marker.
    lineage
        New: rows that have died here may live there again (as R8).
    """

    on_deleted: ClassVar[bool] = True
    opens_group: ClassVar[bool] = True

    source: Manifest
    parts: tuple[Part, ...]
    dead: Mapping[str, BitMap]
    pins: tuple[Pin, ...]
    anew: str
    lineage: str
    copied: Copied

    def apply(self, draft: Draft) -> dict[str, Any]:
        base, source = draft.manifest, self.source
        tags = sum(pin.kind == "tag" for pin in self.pins)
        if tags > MAX_TAGS:
            raise LimitReached(f"{base.namespace!r} would have {tags} tags", limit=MAX_TAGS)
        next_id, next_attribute = source.next_id, source.next_attribute
        if base.state == "deleted":
            draft.replace(
                incarnation=self.anew,
                state="active",
                ancestors=(),
                created_at=draft.now,
                dim=source.dim,
                metric=source.metric,
                rotation_seed=source.rotation_seed,
            )
        else:
            next_id = max(next_id, base.next_id)
            if isinstance(base.next_attribute, int):
                next_attribute = max(
                    base.next_attribute, next_attribute if isinstance(next_attribute, int) else 0
                )
        draft.replace(
            lineage=self.lineage,
            id_kind=source.id_kind,
            settings=source.settings,
            means=source.means,
            schema=source.schema,
            next_id=next_id,
            next_attribute=next_attribute,
            pins=self.pins,
            copied=self.copied,
        )
        draft.set_parts(self.parts)
        for part_id, rows in self.dead.items():
            draft.kill(part_id, rows)
        return {}
