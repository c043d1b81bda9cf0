"""One conditional write of ``manifest/current``: sending it, and what became of it when no answer came.

Rule R1 (lost answers). A switch is the same bytes however often it is sent, under the same ``If-Match``, so
of all that are under way one lands at most. Imports history, snapshot and storage.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from pyroaring import BitMap

from vecstore.errors import OutcomeUnknown, StorageConflict, StorageFull, StorageRetryable, Unauthorised
from vecstore.manifest import history
from vecstore.manifest.keys import current_key
from vecstore.manifest.model import Manifest, Tombstone
from vecstore.manifest.snapshot import Snapshot, SnapshotSource
from vecstore.observe import Observer
from vecstore.storage.base import ObjectStore

log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0
_REFUSALS: Final = (Unauthorised, StorageFull)  # which say that a write was not carried out


@dataclass(frozen=True, slots=True)
class Switch:
    """Everything that an attempt puts, ready to be sent as often as it takes.

    Attributes
    ----------
    base
        What it replaces.
    manifest, data
        The next epoch, and its bytes.
    commit_ids
        Of the changes that it carries; by them a reader tells whether it landed.
    delete_id, tombstones
        The object of its tombstones, and its bytes; None if it kills no row.
    bitmaps
        The dead rows of each part that it names tombstones for.
    """

    base: Snapshot
    manifest: Manifest
    data: bytes
    commit_ids: frozenset[str]
    delete_id: str | None
    tombstones: bytes
    bitmaps: tuple[tuple[Tombstone, BitMap], ...]


class Switcher:
    """Sends the switches of one namespace, for one thread at a time.

    Attributes
    ----------
    made
        Etag of the last epoch that this process was told it had made.

    Parameters
    ----------
    snapshots
        They learn of each switch that landed, and of what was read meanwhile.
    clock, sleep, rng
        As of `Publisher`.
    """

    def __init__(
        self,
        store: ObjectStore,
        namespace: str,
        snapshots: SnapshotSource,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        rng: Random,
        observer: Observer,
    ) -> None:
        self.made = ""
        self._store = store
        self._namespace = namespace
        self._snapshots = snapshots
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._observer = observer
        self._to_confirm: tuple[int, frozenset[str]] | None = None  # epoch and commits that were made

    def send(self, switch: Switch, give_up: float) -> bool:
        """R1: True if the switch landed, False if it certainly did not and never will.

        While the epoch has not moved, a switch whose answer was anything but success may still be
        under way, so the same bytes are sent again under the same ``If-Match``: whichever arrives
        first, the others fail.
        """
        sends = 0
        while True:
            sent_at = self._clock()
            try:
                meta = self._store.put_if_match(current_key(self._namespace), switch.data, switch.base.etag)
            except Exception as error:
                cause = error
            else:
                self.made = meta.etag
                self._to_confirm = (switch.manifest.epoch, switch.commit_ids)
                self._snapshots.observe(Snapshot(switch.manifest, switch.data, meta.etag, sent_at))
                return True
            landed = self._what_became_of(switch, give_up, cause)
            if landed is not None:
                return landed
            if not sends and isinstance(cause, _REFUSALS):
                raise cause  # not lost: nothing of this switch is under way
            if self._clock() >= give_up or not isinstance(cause, (StorageRetryable, StorageConflict)):
                raise self._in_doubt() from cause
            self._pause(sends)
            sends += 1

    def confirm(self, base: Snapshot) -> None:
        """Tell if what others have built upon is not what we were told had landed.

        It cannot be on a store whose compare-and-set has one winner, and nobody can undo it on one whose has
        two: but whoever runs it should hear of it.
        """
        if self._to_confirm is None or base.etag == self.made or base.epoch < self._to_confirm[0]:
            return
        epoch, commit_ids = self._to_confirm
        self._to_confirm = None
        if history.lists_commits(base.manifest, epoch, commit_ids) is False:
            self._observer.count("commits_lost")
            log.critical(
                "the store has lost epoch %d of %r, which it had answered: two writers were let win;"
                " see docs/stores.md",
                epoch,
                self._namespace,
            )

    def _what_became_of(self, switch: Switch, give_up: float, cause: Exception) -> bool | None:
        """Whether the switch landed; None while the epoch has not moved.

        `OutcomeUnknown` if nobody can tell.
        """
        reads = 0
        while True:
            try:
                latest = self._snapshots.refresh()
                if latest.etag == switch.base.etag:
                    return None
                if latest.epoch <= switch.base.epoch:
                    raise self._in_doubt() from cause
                return history.was_committed(
                    self._store, self._namespace, latest.manifest, switch.manifest.epoch, switch.commit_ids
                )
            except StorageRetryable as error:
                if self._clock() >= give_up:
                    raise self._in_doubt() from error
            except OutcomeUnknown:
                raise
            except Exception as error:
                raise self._in_doubt() from error
            self._pause(reads)
            reads += 1

    def _in_doubt(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"a commit to {self._namespace!r} may or may not have been applied", namespace=self._namespace
        )

    def _pause(self, failures: int) -> None:
        self._sleep(longest_pause(failures) * self._rng.random())


def longest_pause(failures: int) -> float:
    """Seconds that are waited at most before another try."""
    return min(_LONGEST_PAUSE, math.ldexp(_FIRST_PAUSE, min(failures, 16)))
