"""Commits: whose turn it is to switch ``manifest/current``, and what is put beside the switch.

One `Publisher` a namespace and process; commits queue behind each other, and whoever finds nobody
publishing publishes for all that wait. Rules R2 (history) and R16; what a group does to a base is
`attempt.py`'s, the switch itself `switch.py`'s. Imports the modules beside it and storage.

Whoever leads first puts the copy of the base that we know, if it is not there yet. An attempt is then:
take that base; apply every change to a draft of it; put the tombstones, and beside them the copy of a
base that has come since; switch. The base may be stale: then the switch fails and the attempt is made
again on the new one. What an attempt *refuses* is final only on a base that was current after the
requests arrived.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from random import Random
from typing import Final

from vecstore import deadline
from vecstore.errors import (
    OutcomeUnknown,
    StorageConflict,
    StorageCorrupt,
    StorageFull,
    StorageMissing,
    TooManyRequests,
    VecstoreError,
)
from vecstore.limits import MAX_MANIFEST_BYTES
from vecstore.manifest import history
from vecstore.manifest.attempt import Attempt, Committed, Request, check_idempotency_key, fail
from vecstore.manifest.draft import Change
from vecstore.manifest.snapshot import Snapshot, SnapshotSource
from vecstore.manifest.switch import Switch, Switcher, longest_pause
from vecstore.manifest.tombstones import TombstoneCache, write_tombstones
from vecstore.manifest.uid import new_uid
from vecstore.observe import Observer
from vecstore.storage.base import ObjectStore
from vecstore.storage.threads import start

MAX_GROUP: Final = 128  # well below MAX_RECENT_COMMITS: `current` names all commits of its epoch
_OWED_A_TURN: Final = 8  # commits lost to other writers; from then on a writer gives way less and less ...
_LEAST_WAY: Final = 0.02  # ... down to this
_COURTESY: Final = 8  # requests that a writer waits at most which has found that others want to commit


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
        self._queue: list[Request] = []
        self._publishing = False
        self._copying = threading.Lock()
        self._arriving: dict[object, float] = {}  # writers on their way here, and since when
        self._copied: tuple[int, str] | None = None  # epoch and etag whose copy is known to be there
        self._trip = 0.0  # seconds of a request
        self._courtesy = 0.0  # requests
        self._switcher = Switcher(
            store, namespace, snapshots, clock=clock, sleep=sleep, rng=self.rng, observer=self._observer
        )

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
            self._attempt(base, [Request(change)])

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
            Nothing was applied. `StorageCorrupt` if what is kept of the base is of another history (R2).
        """
        check_idempotency_key(change)
        deadline.check()
        request = Request(change)
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

    def _await_turn(self, request: Request) -> bool:
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

    def _withdraw(self, request: Request) -> None:
        """A request for which nobody waits any more is not published later, unless it has been taken."""
        with self._mutex:
            if request in self._queue:
                self._queue.remove(request)

    def _take_group(self) -> list[Request]:
        """What is published next."""
        with self._mutex:
            size = 1
            while size < min(MAX_GROUP, len(self._queue)) and not self._queue[size].change.opens_group:
                size += 1
            group = self._queue[:size]
            del self._queue[:size]
        return group

    def _lead(self, request: Request) -> None:
        """Publish the next group, which need not be that of the request whose caller leads."""
        group: list[Request] = []
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
            fail(group or [request], error)
        except BaseException:
            fail(group, OutcomeUnknown("the thread that published the group was interrupted"))
            raise
        finally:
            with self._mutex:
                self._publishing = False
                self._turn.notify_all()

    # -- one group --------------------------------------------------------------------------

    def _publish(self, group: list[Request]) -> None:
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
            self._switcher.confirm(base)
            attempt = self._attempt(base, group)
            switch = attempt.seal(self.new_commit_id)
            too_large = switch is not None and len(switch.data) > MAX_MANIFEST_BYTES
            if not fresh and (attempt.refused or too_large or switch is None):
                # What we know may be old: an answer that rests on it needs a later look.
                latest, fresh = self.snapshots.refresh(), True
                if latest.etag != base.etag:
                    base = latest
                    continue
            if switch is None:
                attempt.answer(base.manifest)
                return
            if too_large:
                self._refuse_growth(group, len(switch.data))
                return
            try:
                self._put_beside(switch)
            except StorageCorrupt:  # of another history, also if what we know is of one that is over
                latest = self.snapshots.refresh()
                if latest.etag == base.etag:
                    raise
                base, fresh = latest, True
                continue
            if self._switcher.send(switch, give_up):
                for reference, rows in switch.bitmaps:
                    self._tombstones.keep(reference, rows)
                attempt.answer(switch.manifest)
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

    def _attempt(self, base: Snapshot, group: Sequence[Request]) -> Attempt:
        return Attempt.on(base, group, now=self.store.now(), tombstones=self._tombstones)

    def _refuse_growth(self, group: list[Request], size: int) -> None:
        """A manifest beyond its bound: each request alone, so that only those that cause it fail."""
        if len(group) > 1:
            for request in group:
                try:
                    self._publish([request])
                except Exception as error:
                    fail([request], error)
            return
        raise TooManyRequests(
            f"the manifest of {self.namespace!r} would take {size} bytes; wait for compaction",
            limit=MAX_MANIFEST_BYTES,
        )

    # -- what is sent -----------------------------------------------------------------------

    def _put_beside(self, switch: Switch) -> None:
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
            start(copier)
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
                try:
                    ours = history.write_copy(self.store, self.namespace, base.epoch, base.raw)
                except StorageMissing:  # collected: the base is below the floor, and a switch upon it loses
                    ours = False
                except StorageFull as error:
                    raise StorageFull(
                        f"{error.message}; a commit, even of a collection, first keeps {len(base.raw)} bytes",
                        **error.details,
                    ) from error
                self._trip = (self.clock() - began) / (1 if ours else 2)  # what was there was read, too
                if not ours and base.etag == self._switcher.made:
                    self._courtesy = _COURTESY
                self._copied = (base.epoch, base.etag)


def longest_way(losses: int) -> float:
    """Seconds for which a writer gives way at most that has lost so many commits to others.

    The more it has lost the longer, so that fewer collide; but whoever has won goes on at once with what it
    knows. So a writer that has lost often stops to give way, or it would never get through.
    """
    if losses <= _OWED_A_TURN:
        return longest_pause(losses)
    return max(_LEAST_WAY, math.ldexp(longest_pause(losses), _OWED_A_TURN - losses))
