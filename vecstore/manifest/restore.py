"""Restore: an old epoch becomes the current one, by one commit.

Rule R8: rows, tombstones, schema and settings come from the old epoch; counters, idempotency keys,
pins, horizon and floor stay. A new lineage tells whoever prepared a compaction before that the rows
which it saw are gone; writers look up their ids in every part of a draft, so they find what came back.
R3: only an epoch that collection keeps can be restored. Imports the modules beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vecstore.manifest import history
from vecstore.manifest.attempt import Committed
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.model import Manifest
from vecstore.manifest.publish import Publisher
from vecstore.manifest.uid import new_uid
from vecstore.types import Expected


def restore(publisher: Publisher, epoch: int, *, expected: Expected) -> Committed:
    """Make ``epoch`` current in place of the one that the caller has seen.

    Parameters
    ----------
    expected
        Incarnation and epoch that the caller saw: what was written since would be lost unseen.

    Raises
    ------
    PreconditionFailed
        The namespace has moved on from ``expected``.
    SnapshotExpired
        Collection may have taken what the epoch names.
    InvalidArgument
        The namespace has not reached the epoch.
    OutcomeUnknown
        Repeat it: if it was applied, the repetition fails by ``expected``.
    """
    old = publisher.snapshots.at_epoch(epoch).manifest
    return publisher.commit(
        Restore(
            commit_id=publisher.new_commit_id(),
            incarnation=old.incarnation,
            expected=expected,
            old=old,
            lineage=new_uid(publisher.store.now, publisher.rng),
        )
    )


@dataclass(kw_only=True, eq=False)
class Restore(Change):
    """Take the rows and the schema of ``old``, an epoch of the same incarnation."""

    old: Manifest
    lineage: str

    def apply(self, draft: Draft) -> dict[str, Any]:
        # Asked of the base that is extended: what it keeps, no collection that it does not know of takes.
        if not draft.manifest.keeps(self.old.epoch):
            raise history.expired(draft.base.namespace, self.old.epoch)
        draft.replace(
            lineage=self.lineage,
            settings=self.old.settings,
            id_kind=self.old.id_kind,
            means=self.old.means,
            schema=self.old.schema,
        )
        draft.set_parts(self.old.parts)
        return {}
