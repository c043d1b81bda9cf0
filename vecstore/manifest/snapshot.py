"""What a process knows of a namespace: one cached snapshot, refreshed on demand.

Promise P1 rests on `SnapshotSource.strong`: callers that wait share one conditional GET, but a
refresh counts only for a caller that arrived before it was sent. Rules R14 (only forward) and R15
(one epoch). Imports history, model and storage.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from vecstore import deadline
from vecstore.aside import aside
from vecstore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NamespaceNotFound,
    StorageMissing,
    StorageRetryable,
    VecstoreError,
)
from vecstore.manifest import history
from vecstore.manifest.keys import current_key
from vecstore.manifest.model import Manifest, decode_manifest
from vecstore.storage.base import ObjectStore
from vecstore.storage.cache import ReadTrace

_PAST_EPOCHS_KEPT = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A namespace at one epoch, as it was read.

    Attributes
    ----------
    raw, etag
        The bytes and the etag of the object, for the commit that extends it.
    read_at
        This process's clock when the request was sent that brought it.
    """

    manifest: Manifest
    raw: bytes
    etag: str
    read_at: float

    @property
    def epoch(self) -> int:
        return self.manifest.epoch

    @property
    def token(self) -> tuple[str, int]:
        """Incarnation and epoch: what an ``If-Match`` of a caller names."""
        return self.manifest.incarnation, self.manifest.epoch


class SnapshotSource:
    """The snapshots of one namespace in one process. Thread-safe; keep one a namespace.

    Parameters
    ----------
    clock
        Monotonic seconds, for staleness.
    """

    def __init__(
        self, store: ObjectStore, namespace: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.namespace = namespace
        self._store = store
        self._key = current_key(namespace)
        self._clock = clock
        self._mutex = threading.Lock()
        self._answer = threading.Condition(self._mutex)
        # One attribute, so that a reader without the lock sees both halves of one state.
        self._state: tuple[Snapshot | None, float] = (None, float("-inf"))
        self._adoptions = 0
        self._sent = 0  # refreshes sent so far; a caller's ticket is the number it found here
        self._answered = 0  # number of the refresh whose outcome is kept
        self._failure: Exception | None = None
        self._in_flight = False
        self._waiting = 0
        self._past: OrderedDict[int, Snapshot] = OrderedDict()

    def strong(self, trace: ReadTrace | None = None) -> Snapshot:
        """The current epoch, no older than this call (P1). `NamespaceNotFound` if none or deleted.

        ``trace`` counts the request and the trip, if it takes one.
        """
        snapshot = self._state[0]
        if snapshot is not None and self._store.is_current(self._key, snapshot.etag):
            return self._active(snapshot)
        return self._active(self.refresh(trace))

    def eventual(self, max_staleness: float, trace: ReadTrace | None = None) -> Snapshot:
        """An epoch that was current at most ``max_staleness`` seconds ago."""
        snapshot, confirmed_at = self._state
        if snapshot is not None and self._clock() - confirmed_at <= max_staleness:
            return self._active(snapshot)
        return self.strong(trace)

    def cached(self) -> Snapshot | None:
        """What is known, however old, a deletion marker too; no request."""
        return self._state[0]

    def refresh(self, trace: ReadTrace | None = None) -> Snapshot:
        """As `strong`, but a deletion marker is returned too; `NamespaceNotFound` if there is nothing.

        A failed refresh fails everybody who waited for it; the next caller tries anew.
        """
        if trace is not None:
            trace.trips += 1
        with self._mutex:
            ticket = self._sent
            while self._in_flight:
                self._waiting += 1
                try:
                    with aside():
                        self._answer.wait(deadline.remaining())
                finally:
                    self._waiting -= 1
                deadline.check()
                # Sent after we arrived; that its sender was late says nothing to us.
                if self._answered > ticket and not isinstance(self._failure, DeadlineExceeded):
                    return self._outcome()
            self._in_flight = True
            self._sent += 1
            number = self._sent
            adoptions = self._adoptions
            known = self._state[0]
        sent_at = self._clock()
        found: Snapshot | None = None
        failure: BaseException | None = None
        try:
            found = self._fetch(known, sent_at)
            if trace is not None:
                trace.requests += 1
                trace.bytes += 0 if found is None else len(found.raw)
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._mutex:
                self._in_flight = False
                self._answered = number
                self._failure = _for_waiters(failure)
                if isinstance(failure, NamespaceNotFound):
                    if self._adoptions == adoptions:
                        self._state = (None, float("-inf"))
                elif failure is None:
                    self._settle(found, sent_at, nothing_since=self._adoptions == adoptions)
                snapshot = self._state[0]
                if self._waiting:
                    self._answer.notify_all()
        assert snapshot is not None  # set above, and only ever replaced
        return snapshot

    def observe(self, snapshot: Snapshot) -> None:
        """Learn of a snapshot that a commit of this process has just written (R14: only forward)."""
        with self._mutex:
            known = self._state[0]
            if known is None or snapshot.epoch > known.epoch:
                self._adopt(snapshot, snapshot.read_at)

    def at_epoch(self, epoch: int) -> Snapshot:
        """One past epoch of this incarnation.

        Raises
        ------
        SnapshotExpired
            It is below the history floor and no tag or branch pins it, it is gone, or it belongs to
            an earlier namespace of this name (R4: that history is not ours).
        InvalidArgument
            The namespace has not reached it.
        """
        current = self.strong()
        manifest = current.manifest
        if epoch == manifest.epoch:
            return current
        if epoch > manifest.epoch:
            raise InvalidArgument(
                f"epoch {epoch} of {self.namespace!r} does not exist yet; current is {manifest.epoch}",
                field="epoch",
            )
        if not manifest.keeps(epoch):
            raise history.expired(self.namespace, epoch)
        with self._mutex:
            past = self._past.get(epoch)
            if past is not None and past.manifest.incarnation != manifest.incarnation:
                past = None  # a store that was restored may have that epoch, too
            if past is not None:
                self._past.move_to_end(epoch)
        if past is None:
            read_at = self._clock()
            copy = history.read_epoch(self._store, self.namespace, epoch)
            past = Snapshot(copy.manifest, copy.raw, copy.etag, read_at)
            with self._mutex:
                self._past[epoch] = past
                while len(self._past) > _PAST_EPOCHS_KEPT:
                    self._past.popitem(last=False)
        if past.manifest.incarnation != manifest.incarnation:
            raise history.expired(self.namespace, epoch)
        return past

    # -- below: all but _fetch with the mutex held ------------------------------------------

    def _fetch(self, known: Snapshot | None, sent_at: float) -> Snapshot | None:
        """None if ``current`` is still what we know."""
        try:
            if known is None:
                found = self._store.get(self._key)
            else:
                changed = self._store.get_if_changed(self._key, known.etag)
                if changed is None:
                    return None
                found = changed
        except StorageMissing as error:
            if "bucket" in error.details:
                raise  # that is another matter, and no answer about this namespace
            raise self._not_found() from error
        manifest = decode_manifest(found.data, key=self._key, namespace=self.namespace)
        return Snapshot(manifest, found.data, found.meta.etag, sent_at)

    def _settle(self, found: Snapshot | None, sent_at: float, *, nothing_since: bool) -> None:
        known, confirmed_at = self._state
        if found is None or known is None:
            if found is not None:
                self._adopt(found, sent_at)
            else:
                self._state = (known, max(confirmed_at, sent_at))
        elif found.epoch > known.epoch:
            # Epochs go on counting over deletion, creation anew and restore (R4, R8): higher is later.
            self._adopt(found, sent_at)
        elif found.epoch == known.epoch and found.etag == known.etag:
            self._state = (known, max(confirmed_at, sent_at))
        elif nothing_since and (
            found.epoch == known.epoch or found.manifest.incarnation != known.manifest.incarnation
        ):
            # Only somebody who emptied the store can bring this about, or a store that let two writers
            # make one epoch. The request was sent after all that we know had been adopted, so its answer
            # is the later one.
            self._past.clear()
            self._adopt(found, sent_at)

    def _adopt(self, snapshot: Snapshot, confirmed_at: float) -> None:
        self._adoptions += 1
        self._state = (snapshot, max(confirmed_at, self._state[1]))

    def _outcome(self) -> Snapshot:
        if self._failure is not None:
            raise repeated(self._failure)
        snapshot = self._state[0]
        if snapshot is None:
            raise self._not_found()
        return snapshot

    def _active(self, snapshot: Snapshot) -> Snapshot:
        if snapshot.manifest.state == "deleted":
            raise self._not_found()
        return snapshot

    def _not_found(self) -> NamespaceNotFound:
        return NamespaceNotFound(f"no namespace {self.namespace!r}", namespace=self.namespace)


def repeated(error: Exception) -> Exception:
    """The same error for another thread: one exception object must not be raised in two at once."""
    if isinstance(error, VecstoreError):
        again = type(error)(error.message, **error.details)
        again.__cause__ = error
        return again
    return error


def _for_waiters(failure: BaseException | None) -> Exception | None:
    """Waiters are not interrupted because the thread that asked for them was."""
    if failure is None or isinstance(failure, Exception):
        return failure
    return StorageRetryable("the refresh was interrupted")
