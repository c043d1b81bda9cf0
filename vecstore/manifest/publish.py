"""Commits: the conditional switch of ``manifest/current``, for groups of changes.

One `Publisher` a namespace and process; commits queue behind each other, and whoever finds nobody
publishing publishes for all that wait. Rules R1 (lost answers), R2, R3 (uploads older than the
barrier), R4, R5 (groups in sequence), R6, R12 and R16. Imports the modules beside it and storage.

Whoever leads first puts the copy of the base that we know, if it is not there yet. An attempt is then:
take that base; apply every change to a draft of it; put the tombstones, and beside them the copy of a
base that has come since; switch. The base may be stale: then the switch fails and the attempt is made
again on the new one. What an attempt *refuses* is final only on a base that was current after the
requests arrived.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from pyroaring import BitMap

from vecstore import deadline
from vecstore.errors import (
    IdempotencyMismatch,
    InvalidArgument,
    NamespaceNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    StorageConflict,
    StorageFull,
    StorageRetryable,
    TooManyRequests,
    Unauthorised,
    VecstoreError,
)
from vecstore.limits import (
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_IDEMPOTENCY_KEYS,
    MAX_MANIFEST_BYTES,
    MAX_RECENT_COMMITS,
)
from vecstore.manifest import history
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.keys import current_key
from vecstore.manifest.model import (
    CommitRef,
    IdempotencyRecord,
    Manifest,
    Mean,
    Part,
    Tombstone,
    encode_manifest,
)
from vecstore.manifest.snapshot import Snapshot, SnapshotSource, repeated
from vecstore.manifest.tombstones import TombstoneCache, encode_tombstones, write_tombstones
from vecstore.manifest.uid import new_uid
from vecstore.observe import Observer
from vecstore.storage.base import ObjectStore

log = logging.getLogger(__name__)

__all__ = ["Change", "Committed", "Draft", "Publisher"]

IDEMPOTENCY_SECONDS: Final = 3600.0
MAX_ANSWER_BYTES: Final = 4_096  # of an answer kept under an idempotency key
MAX_GROUP: Final = 128  # well below MAX_RECENT_COMMITS: `current` names all commits of its epoch
_FIRST_PAUSE = 0.01
_REFUSALS: Final = (Unauthorised, StorageFull)  # which say that a write was not carried out
_LONGEST_PAUSE = 1.0
_OWED_A_TURN: Final = 8  # commits lost to other writers; from then on a writer gives way less and less ...
_LEAST_WAY: Final = 0.02  # ... down to this
_COURTESY: Final = 8  # requests that a writer waits at most which has found that others want to commit


@dataclass(frozen=True, slots=True)
class Committed:
    """An acknowledged change.

    Attributes
    ----------
    epoch
        The first epoch that shows it; of a change that changed nothing, the epoch it was checked on.
    answer
        What `Change.apply` returned at the attempt that was committed.
    manifest
        The namespace at ``epoch``; of a replay, at the epoch that was looked at.
    replayed
        The request had been applied before under its idempotency key (R12).
    """

    epoch: int
    answer: dict[str, Any]
    manifest: Manifest
    replayed: bool = False


@dataclass(slots=True, eq=False)
class _Request:
    change: Change
    committed: Committed | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.committed is not None or self.error is not None


@dataclass(slots=True)
class _Attempt:
    """A group applied to one base; the outcomes hold once the switch has landed."""

    draft: Draft
    applied: list[tuple[_Request, dict[str, Any]]] = field(default_factory=list)
    replayed: list[tuple[_Request, IdempotencyRecord]] = field(default_factory=list)
    refused: list[tuple[_Request, Exception]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Switch:
    """Everything that an attempt puts, ready to be sent as often as it takes (R1: the same bytes)."""

    base: Snapshot
    manifest: Manifest
    data: bytes
    commit_ids: frozenset[str]
    delete_id: str | None
    tombstones: bytes
    bitmaps: tuple[tuple[Tombstone, BitMap], ...]


class Publisher:
    """Commits changes of one namespace. Thread-safe.

    Parameters
    ----------
    snapshots
        The process's snapshots of the same namespace; they learn of each commit.
    clock, sleep
        Monotonic seconds and a pause, for the deadline and for backing off.
    rng
        For ids and jitter; processes that forked from one another must not share its state.
    deadline
        Seconds after which a group that is still losing races fails (`StorageConflict`, nothing was
        applied), or whose switch stays in doubt fails (`OutcomeUnknown`).
    tombstones
        Bitmaps kept in memory; shared with readers if they like.
    observer
        Hears of commits, and of races that were lost.
    """

    def __init__(
        self,
        store: ObjectStore,
        namespace: str,
        snapshots: SnapshotSource,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
        deadline: float = 30.0,
        tombstones: TombstoneCache | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer if observer is not None else Observer()
        self.store = store
        self.namespace = namespace
        self.snapshots = snapshots
        self.rng = rng if rng is not None else random.SystemRandom()
        self.clock = clock
        self.sleep = sleep
        self.deadline = deadline
        self._tombstones = tombstones if tombstones is not None else TombstoneCache(store)
        self._mutex = threading.Lock()
        self._turn = threading.Condition(self._mutex)
        self._queue: list[_Request] = []
        self._publishing = False
        self._copying = threading.Lock()
        self._arriving: dict[object, float] = {}  # writers on their way here, and since when
        self._copied: tuple[int, str] | None = None  # epoch and etag whose copy is known to be there
        self._made = ""  # etag of the last epoch that this process made ...
        self._to_confirm: tuple[int, frozenset[str]] | None = None  # ... which nobody has built upon yet
        self._trip = 0.0  # seconds of a request
        self._courtesy = 0.0  # requests

    def beside(self, namespace: str) -> Publisher:
        """A publisher of another namespace of the store, with this one's clock, patience and chance."""
        return Publisher(
            self.store,
            namespace,
            SnapshotSource(self.store, namespace, clock=self.clock),
            clock=self.clock,
            rng=self.rng,
            sleep=self.sleep,
            deadline=self.deadline,
            observer=self._observer,
        )

    def new_commit_id(self) -> str:
        return new_uid(self.store.now, self.rng)

    def prepare(self) -> None:
        """Keep a copy of the epoch that we know, beside a writer's own upload.

        A commit that follows then has only the switch left to do: two dependent trips in all. A
        failure here is nobody's: the commit does it again.
        """
        try:
            base = self.snapshots.cached() or self.snapshots.refresh()
            self._keep_copy(base)
        except VecstoreError:
            return

    @contextmanager
    def arriving(self) -> Iterator[object]:
        """Within it a writer is on its way to `commit`, which it hands what it is given here.

        Whoever leads meanwhile waits for it a little, instead of letting it wait for the next group.
        """
        arrival = object()
        with self._mutex:
            self._arriving[arrival] = self.clock()
        try:
            yield arrival
        finally:
            with self._mutex:
                if self._arriving.pop(arrival, None) is not None:
                    self._turn.notify_all()

    def rehearse(self, change: Change) -> None:
        """Apply a change to a draft of the epoch that we know, which is then thrown away.

        What it reads and uploads to that end it does not do again while others wait for its turn, unless
        the base has changed. A failure here is nobody's: the commit does it again.
        """
        base = self.snapshots.cached()
        if base is not None:
            self._apply(base, [_Request(change)])

    def commit(self, change: Change, arrival: object = None) -> Committed:
        """Apply a change durably, alone or in a group with others that wait.

        ``arrival`` is what `arriving` gave, if the writer was announced.

        Raises
        ------
        OutcomeUnknown
            It may or may not have been applied, and that cannot be found out in time (R1).
        DeadlineExceeded
            Nobody waited any more before its turn came: nothing was applied. From then on there is none.
        NamespaceNotFound, PreconditionFailed
            The namespace is gone, is another incarnation (R4), or has moved on from ``expected``.
        IdempotencyMismatch, TooManyRequests
            As R12 has it; the latter also when the namespace has grown to its limit.
        StorageError
            Nothing was applied.
        """
        _check_idempotency_key(change)
        deadline.check()
        request = _Request(change)
        with self._mutex:
            self._queue.append(request)
            if self._arriving.pop(arrival, None) is not None:
                self._turn.notify_all()
        try:
            while not request.done:
                if self._await_turn(request):
                    with deadline.waived():  # the group has others in it, and what is begun is seen through
                        self._lead(request)
        except BaseException:
            self._withdraw(request)
            raise
        if request.error is not None:
            raise request.error
        assert request.committed is not None
        return request.committed

    # -- whose turn it is -------------------------------------------------------------------

    def _await_turn(self, request: _Request) -> bool:
        """Whether the caller must publish a group; false once its request has been answered."""
        with self._mutex:
            while not request.done:
                waits = request in self._queue
                if waits:
                    deadline.check()
                if not self._publishing:
                    self._publishing = True
                    return True
                self._turn.wait(deadline.remaining() if waits else None)
            return False

    def _gather(self) -> None:
        """Wait for writers that are about to come, no longer than a request takes.

        One that has been on its way for longer than an upload takes brings much, or stalls: it is not
        waited for.
        """
        with self._mutex:
            now = self.clock()
            until, late = now + self._trip, 2 * self._trip
            while now < until and any(now - since < late for since in self._arriving.values()):
                self._turn.wait(until - now)
                now = self.clock()

    def _withdraw(self, request: _Request) -> None:
        """A request for which nobody waits any more is not published later, unless it has been taken."""
        with self._mutex:
            if request in self._queue:
                self._queue.remove(request)

    def _take_group(self) -> list[_Request]:
        """What is published next."""
        with self._mutex:
            size = 1
            while size < min(MAX_GROUP, len(self._queue)) and not self._queue[size].change.opens_group:
                size += 1
            group = self._queue[:size]
            del self._queue[:size]
        return group

    def _lead(self, request: _Request) -> None:
        """Publish the next group, which need not be that of the request whose caller leads."""
        group: list[_Request] = []
        try:
            # While the base is copied others may come to wait, and go along.
            if self.snapshots.cached() is not None:
                self.prepare()
            self._gather()
            group = self._take_group()
            self._publish(group)
        except Exception as error:
            if not group:
                self._withdraw(request)
            _fail(group or [request], error)
        except BaseException:
            _fail(group, OutcomeUnknown("the thread that published the group was interrupted"))
            raise
        finally:
            with self._mutex:
                self._publishing = False
                self._turn.notify_all()

    # -- one group --------------------------------------------------------------------------

    def _publish(self, group: list[_Request]) -> None:
        """Attempt upon attempt until every request of the group has an outcome."""
        give_up = self.clock() + self.deadline
        known = self.snapshots.cached()
        fresh = known is None
        base = known if known is not None else self.snapshots.refresh()
        if self._courtesy >= 1:
            self.sleep(self._courtesy * self._trip * self.rng.random())
            base, fresh, self._courtesy = self.snapshots.refresh(), True, self._courtesy / 2
        losses = 0
        while True:
            self._confirm(base)
            attempt = self._apply(base, group)
            switch = self._seal(base, attempt) if attempt.draft.changed else None
            too_large = switch is not None and len(switch.data) > MAX_MANIFEST_BYTES
            if not fresh and (attempt.refused or too_large or switch is None):
                # What we know may be old: an answer that rests on it needs a later look.
                latest, fresh = self.snapshots.refresh(), True
                if latest.etag != base.etag:
                    base = latest
                    continue
            if switch is None:
                _answer(attempt, base.manifest)
                return
            if too_large:
                self._refuse_growth(group, len(switch.data))
                return
            self._put_beside(switch)
            if self._switch(switch, give_up):
                for reference, rows in switch.bitmaps:
                    self._tombstones.keep(reference, rows)
                _answer(attempt, switch.manifest)
                self._observer.count("commits")
                self._observer.count("commit_changes", len(attempt.applied))
                if losses:
                    self._courtesy = _COURTESY
                return
            losses += 1
            self._observer.count("commit_conflicts")
            if self.clock() >= give_up:
                raise StorageConflict(
                    f"{self.namespace!r} is too busy: {losses} attempts to commit lost to other writers;"
                    " nothing was applied"
                )
            if losses > 1:  # the first time, the read that told us we lost is fresh enough
                self.sleep(longest_way(losses) * self.rng.random())
            read = self.snapshots.cached() if losses == 1 else None
            base, fresh = read if read is not None else self.snapshots.refresh(), True

    def _confirm(self, base: Snapshot) -> None:
        """Tell if what others have built upon is not what we were told had landed.

        It cannot be on a store whose compare-and-set has one winner, and nobody can undo it on one whose has
        two: but whoever runs it should hear of it.
        """
        if self._to_confirm is None or base.etag == self._made or base.epoch < self._to_confirm[0]:
            return
        epoch, commit_ids = self._to_confirm
        self._to_confirm = None
        if history.lists_commits(base.manifest, epoch, commit_ids) is False:
            self._observer.count("commits_lost")
            log.critical(
                "the store has lost epoch %d of %r, which it had answered: two writers were let win;"
                " see docs/stores.md",
                epoch,
                self.namespace,
            )

    def _apply(self, base: Snapshot, group: Sequence[_Request]) -> _Attempt:
        """Apply a group in sequence to a draft of ``base`` (R5)."""
        attempt = _Attempt(Draft(base.manifest, now=self.store.now(), tombstones=self._tombstones))
        draft = attempt.draft
        for request in group:
            change = request.change
            mark = draft.mark()
            try:
                record = _recorded(draft, change)
                if record is not None:
                    attempt.replayed.append((request, record))
                    continue
                _check_base(draft, change)
                _check_room_for_key(draft, change)
                self._check_uploads(draft.manifest, change)
                answer = change.apply(draft)
                if change.idempotency is not None:
                    _record(draft, change.idempotency, answer)
            except Exception as error:
                draft.go_back(mark)
                attempt.refused.append((request, error))
            else:
                attempt.applied.append((request, answer))
        return attempt

    def _check_uploads(self, base: Manifest, change: Change) -> None:
        """R3: what began to be uploaded before the barrier may be gone, or go at any moment.

        The margin for clocks is the collector's: it deletes only what is older by some seconds.
        """
        oldest = change.oldest_upload()
        if oldest is None or oldest >= base.horizon:
            return
        change.upload_again()
        oldest = change.oldest_upload()
        if oldest is not None and oldest < base.horizon:
            raise StorageRetryable(
                f"uploads to {self.namespace!r} are older than its collection horizon, even repeated"
            )

    def _seal(self, base: Snapshot, attempt: _Attempt) -> _Switch:
        """Turn a draft into the bytes of the next epoch and of its tombstones (R6)."""
        draft = attempt.draft
        epoch = draft.epoch
        parts = draft.manifest.parts
        delete_id, data = None, b""
        bitmaps: list[tuple[Tombstone, BitMap]] = []
        pending = draft.pending
        if pending:
            delete_id = new_uid(self.store.now, self.rng)
            data, entries = encode_tombstones(pending)
            references = {
                entry.part_id: entry.reference(delete_id, self.namespace, draft.now) for entry in entries
            }
            bitmaps = [(references[part_id], rows) for part_id, rows in pending.items()]
            parts = tuple(
                replace(part, tombstone=references[part.id]) if part.id in references else part
                for part in parts
            )
        # A change that changed nothing rides along: its id must be there if its answer rests on us.
        ids = [request.change.commit_id for request, _ in attempt.applied]
        commits = (*base.manifest.commits, *(CommitRef(commit_id, epoch) for commit_id in ids))
        manifest = replace(
            draft.manifest,
            epoch=epoch,
            committed_at=max(draft.now, base.manifest.committed_at),
            parts=parts,
            means=_means_in_use(draft.manifest.means, parts),
            commits=commits[-MAX_RECENT_COMMITS:],
        )
        return _Switch(
            base, manifest, encode_manifest(manifest), frozenset(ids), delete_id, data, tuple(bitmaps)
        )

    def _refuse_growth(self, group: list[_Request], size: int) -> None:
        """A manifest beyond its bound: each request alone, so that only those that cause it fail."""
        if len(group) > 1:
            for request in group:
                try:
                    self._publish([request])
                except Exception as error:
                    _fail([request], error)
            return
        raise TooManyRequests(
            f"the manifest of {self.namespace!r} would take {size} bytes; wait for compaction",
            limit=MAX_MANIFEST_BYTES,
        )

    # -- what is sent -----------------------------------------------------------------------

    def _put_beside(self, switch: _Switch) -> None:
        """The copy of the base and the tombstones, in one trip; a failure means nothing was applied."""
        delete_id = switch.delete_id
        if delete_id is None:
            self._keep_copy(switch.base)
            return
        failures: list[Exception] = []

        def keep_copy() -> None:
            try:
                self._keep_copy(switch.base)
            except Exception as error:
                failures.append(error)

        copier = None
        if not self._has_copy(switch.base):
            context = copy_context()  # whose request it is done for
            copier = threading.Thread(target=context.run, args=(keep_copy,), name="vecstore-history")
            copier.start()
        try:
            write_tombstones(self.store, self.namespace, delete_id, switch.tombstones)
        finally:
            if copier is not None:
                copier.join()
        if failures:
            raise failures[0]

    def _has_copy(self, base: Snapshot) -> bool:
        return self._copied == (base.epoch, base.etag)

    def _keep_copy(self, base: Snapshot) -> None:
        """R2: the bytes as they were read, unless this process knows that they are kept.

        If somebody else kept what we have made, others want to commit. Whoever has just committed knows the
        base and would be ahead of them each time, so it gives way.
        """
        with self._copying:
            if not self._has_copy(base):
                began = self.clock()
                ours = history.write_copy(self.store, self.namespace, base.epoch, base.raw)
                self._trip = self.clock() - began
                if not ours and base.etag == self._made:
                    self._courtesy = _COURTESY
                self._copied = (base.epoch, base.etag)

    def _switch(self, switch: _Switch, give_up: float) -> bool:
        """R1: True if the switch landed, False if it certainly did not and never will.

        While the epoch has not moved, a switch whose answer was anything but success may still be
        under way, so the same bytes are sent again under the same ``If-Match``: whichever arrives
        first, the others fail.
        """
        sends = 0
        while True:
            sent_at = self.clock()
            try:
                meta = self.store.put_if_match(current_key(self.namespace), switch.data, switch.base.etag)
            except Exception as error:
                cause = error
            else:
                self._made = meta.etag
                self._to_confirm = (switch.manifest.epoch, switch.commit_ids)
                self.snapshots.observe(Snapshot(switch.manifest, switch.data, meta.etag, sent_at))
                return True
            landed = self._what_became_of(switch, give_up, cause)
            if landed is not None:
                return landed
            if not sends and isinstance(cause, _REFUSALS):
                raise cause  # not lost: nothing of this switch is under way
            if self.clock() >= give_up or not isinstance(cause, (StorageRetryable, StorageConflict)):
                raise _in_doubt(self.namespace) from cause
            self._pause(sends)
            sends += 1

    def _what_became_of(self, switch: _Switch, give_up: float, cause: Exception) -> bool | None:
        """Whether the switch landed; None while the epoch has not moved.

        `OutcomeUnknown` if nobody can tell.
        """
        reads = 0
        while True:
            try:
                latest = self.snapshots.refresh()
                if latest.etag == switch.base.etag:
                    return None
                if latest.epoch <= switch.base.epoch:
                    raise _in_doubt(self.namespace) from cause
                return history.was_committed(
                    self.store, self.namespace, latest.manifest, switch.manifest.epoch, switch.commit_ids
                )
            except StorageRetryable as error:
                if self.clock() >= give_up:
                    raise _in_doubt(self.namespace) from error
            except OutcomeUnknown:
                raise
            except Exception as error:
                raise _in_doubt(self.namespace) from error
            self._pause(reads)
            reads += 1

    def _pause(self, failures: int) -> None:
        self.sleep(_longest_pause(failures) * self.rng.random())


def _longest_pause(failures: int) -> float:
    """Seconds that are waited at most before another try."""
    return min(_LONGEST_PAUSE, math.ldexp(_FIRST_PAUSE, min(failures, 16)))


def longest_way(losses: int) -> float:
    """Seconds for which a writer gives way at most that has lost so many commits to others.

    The more it has lost the longer, so that fewer collide; but whoever has won goes on at once with what it
    knows. So a writer that has lost often stops to give way, or it would never get through.
    """
    if losses <= _OWED_A_TURN:
        return _longest_pause(losses)
    return max(_LEAST_WAY, math.ldexp(_longest_pause(losses), _OWED_A_TURN - losses))


# -- checks that a change must pass at every attempt ----------------------------------------


def _check_idempotency_key(change: Change) -> None:
    if change.idempotency is None:
        return
    key = change.idempotency[0]
    if not 0 < len(key.encode()) <= MAX_IDEMPOTENCY_KEY_BYTES:
        raise InvalidArgument(
            f"an idempotency key has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes",
            field="idempotency_key",
            limit=MAX_IDEMPOTENCY_KEY_BYTES,
        )


def _check_base(draft: Draft, change: Change) -> None:
    """R4, and ``If-Match``: the base, and all that precedes us in the group, is what was meant."""
    base = draft.manifest
    if change.expected is not None and (
        change.expected != (base.incarnation, base.epoch)
        or draft.changed
        or (base.state == "deleted" and not change.on_deleted)
    ):
        raise PreconditionFailed(
            f"{base.namespace!r} has moved on from epoch {change.expected[1]}",
            incarnation=base.incarnation,
            epoch=base.epoch,
        )
    if base.state == "deleted" and not change.on_deleted:
        raise NamespaceNotFound(f"no namespace {base.namespace!r}", namespace=base.namespace)
    if change.incarnation is not None and change.incarnation != base.incarnation:
        raise NamespaceNotFound(
            f"the namespace {base.namespace!r} that was meant is gone; there is another of that name",
            namespace=base.namespace,
        )


def _recorded(draft: Draft, change: Change) -> IdempotencyRecord | None:
    """R12: what was answered under the change's key, if it has been applied and not expired."""
    if change.idempotency is None:
        return None
    base = draft.manifest
    if change.incarnation is not None and change.incarnation != base.incarnation:
        return None
    key, request = change.idempotency
    for record in base.idempotency:
        if record.key == key and not _has_expired(record, draft.now):
            if record.request != request:
                raise IdempotencyMismatch(f"idempotency key {key!r} was used for another request", key=key)
            return record
    return None


def _check_room_for_key(draft: Draft, change: Change) -> None:
    """R12: a full table is the caller's to wait for; no unexpired key is dropped for a new one."""
    if change.idempotency is None:
        return
    unexpired = sum(not _has_expired(record, draft.now) for record in draft.manifest.idempotency)
    if unexpired >= MAX_IDEMPOTENCY_KEYS:
        raise TooManyRequests(
            f"{draft.base.namespace!r} remembers {unexpired} idempotency keys and takes no more for now",
            limit=MAX_IDEMPOTENCY_KEYS,
        )


def _record(draft: Draft, idempotency: tuple[str, str], answer: dict[str, Any]) -> None:
    size = len(msgspec.json.encode(answer))
    if size > MAX_ANSWER_BYTES:
        raise InvalidArgument(
            f"an answer of {size} bytes cannot be kept under an idempotency key", limit=MAX_ANSWER_BYTES
        )
    keep = tuple(r for r in draft.manifest.idempotency if not _has_expired(r, draft.now))
    key, request = idempotency
    draft.record(IdempotencyRecord(key, request, answer, draft.epoch, draft.now), keep)


def _has_expired(record: IdempotencyRecord, now: float) -> bool:
    return record.at + IDEMPOTENCY_SECONDS <= now


# -- outcomes -------------------------------------------------------------------------------


def _answer(attempt: _Attempt, manifest: Manifest) -> None:
    for request, answer in attempt.applied:
        request.committed = Committed(manifest.epoch, answer, manifest)
    for request, record in attempt.replayed:
        request.committed = Committed(record.epoch, record.answer, manifest, replayed=True)
    for request, error in attempt.refused:
        request.error = error


def _fail(group: Sequence[_Request], error: Exception) -> None:
    for request in group:
        if not request.done:
            request.error = repeated(error)


def _in_doubt(namespace: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"a commit to {namespace!r} may or may not have been applied", namespace=namespace)


def _means_in_use(means: tuple[Mean, ...], parts: tuple[Part, ...]) -> tuple[Mean, ...]:
    """The means that parts name, and the newest: the next part will be encoded with it."""
    used = {part.mean for part in parts}
    return tuple(mean for mean in means if mean.id in used or mean is means[-1])
