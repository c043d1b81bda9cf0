"""Recall of live searches: a share of them is sampled, and measured beside the work."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

import numpy as np

from vecstore.engine.namespace import NamespaceEngine
from vecstore.engine.recall import compare, interval
from vecstore.errors import NamespaceNotFound, SnapshotExpired, StorageMissing, TooManyRequests
from vecstore.limits import MAX_RECALL_WORK
from vecstore.observe import Observer
from vecstore.storage.cache import ReadTrace
from vecstore.storage.threads import start
from vecstore.types import F32, RecallEstimate, SearchParams, StoredRow

log = logging.getLogger(__name__)

RECENT_QUERIES: Final = 1_000  # kept of a namespace, and no more than
RECENT_BYTES: Final = 4 << 20
MAX_NAMESPACES: Final = 1_000  # that a process samples queries of
WINDOW: Final = 1_000  # measured queries that an estimate is made of
ROUND_QUERIES: Final = 256  # measured at once, sharing one pass over the rows
ROUND_HITS: Final = 200_000  # of all of them
ROUND_WORK: Final = MAX_RECALL_WORK // 10
CPU_SHARE: Final = 0.05  # of its time that the thread works
PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """A search that was answered: its query, its parameters, and when in Unix time."""

    query: F32
    params: SearchParams
    at: float


@dataclass(slots=True)
class _Log:
    """The sampled searches of a namespace, and what was measured of them."""

    recent: deque[Sampled]
    waiting: deque[Sampled]
    measured: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))  # recall, at
    incarnation: str = ""
    epoch: int | None = None
    last: float = 0.0


class RecallMonitor:
    """Samples a share of live searches and measures them beside the work.

    A search that is not sampled costs one draw; one that is, a copy of its query and two appends, and no
    lock. The thread starts with the first one. It has the lowest priority and works at most ``share`` of
    the time, so that a round over a large namespace takes long rather than much.

    Attributes
    ----------
    changed
        Notified after each round; for whoever waits for one.

    Parameters
    ----------
    rate
        Share of searches, above 0 and at most 1.
    engine
        The engine of a namespace.
    pause
        Seconds between two looks at what was sampled.
    now
        Unix time.
    observer
        Hears of each round.
    """

    def __init__(
        self,
        rate: float,
        engine: Callable[[str], NamespaceEngine],
        *,
        rng: Random,
        share: float = CPU_SHARE,
        pause: float = PAUSE_SECONDS,
        now: Callable[[], float] = time.time,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer if observer is not None else Observer()
        self.rate = rate
        self.changed = threading.Condition()
        self._engine = engine
        self._draw = Random(rng.getrandbits(64))  # noqa: S311  (no secret)  # nosec B311
        self._share = share
        self._pause = pause
        self._now = now
        self._logs: dict[str, _Log] = {}
        self._full = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def saw(self, name: str, vector: object, params: SearchParams) -> None:
        """A search was answered; that of a past epoch, under a filter or by a stored row is not measured."""
        if self._draw.random() < self.rate and _measurable(params) and not isinstance(vector, StoredRow):
            self._keep(name, np.array(vector, dtype=np.float32), params)

    def saw_batch(self, name: str, vectors: object, params: SearchParams) -> None:
        """A batch was answered: each of its queries is a search."""
        if not _measurable(params):
            return
        rows = np.asarray(vectors)
        for row in rows[[self._draw.random() < self.rate for _ in range(len(rows))]][:RECENT_QUERIES]:
            self._keep(name, np.array(row, dtype=np.float32), params)

    def recent(self, name: str) -> list[F32]:
        """Queries that were sampled last, of the namespace's dimension or of one that it had before."""
        kept = self._logs.get(name)
        return [] if kept is None else [one.query for one in _listed(kept.recent)]

    def estimate(self, name: str, confidence: float = 0.95) -> RecallEstimate:
        """What has been measured of a namespace."""
        kept = self._logs.get(name)
        if kept is None:
            return RecallEstimate(self.rate, confidence=confidence)
        with self.changed:
            measured, epoch = list(kept.measured), kept.epoch
        if not measured:
            return RecallEstimate(self.rate, confidence=confidence)
        mean, low, high = interval([recall for recall, _ in measured], confidence)
        times = [at for _, at in measured]
        return RecallEstimate(
            self.rate, len(measured), mean, low, high, confidence, min(times), max(times), epoch
        )

    def estimates(self) -> dict[str, RecallEstimate]:
        """Of every namespace that was sampled; reads nothing from the store."""
        return {name: self.estimate(name) for name in list(self._logs)}

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # -- below: the way of a query -----------------------------------------------------------

    def _keep(self, name: str, query: F32, params: SearchParams) -> None:
        kept = self._logs.get(name)
        if kept is None:
            if len(self._logs) >= MAX_NAMESPACES:
                self._full = True
                return
            most = max(1, min(RECENT_QUERIES, RECENT_BYTES // query.nbytes))
            kept = self._logs.setdefault(name, _Log(deque(maxlen=most), deque(maxlen=most)))
        plain = replace(params, include=(), debug=False, consistency="strong", max_distance=None)
        one = Sampled(query, plain, self._now())
        kept.recent.append(one)
        kept.waiting.append(one)
        kept.last = one.at
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self.changed:
            if self._thread is None and not self._stopped.is_set():
                thread = threading.Thread(target=self._run, name="vecstore-recall", daemon=True)
                with suppress(TooManyRequests):  # the next search that is sampled tries again
                    start(thread)
                    self._thread = thread

    # -- below: the thread -------------------------------------------------------------------

    def _run(self) -> None:
        with suppress(AttributeError, OSError):  # of this thread alone, where the system has that
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        pace = _Pace(self._share, self._stopped)
        while not self._stopped.wait(self._pause):
            for name, kept in list(self._logs.items()):
                try:
                    self._round(name, kept, pace)
                except _Stopped:
                    return
                except NamespaceNotFound:
                    self._logs.pop(name, None)
                except (StorageMissing, SnapshotExpired):
                    log.debug("recall of %s: collection took the parts away; the next round has others", name)
                except Exception:  # the thread outlives whatever befalls one namespace
                    log.exception("recall of %s could not be measured", name)
                with self.changed:
                    self.changed.notify_all()
            self._make_room()

    def _make_room(self) -> None:
        """Forget the namespace whose last sampled search is the oldest, so that others can be sampled."""
        if self._full:
            self._full = False
            known = [(kept.last, name) for name, kept in list(self._logs.items())]
            if known:
                self._logs.pop(min(known)[1], None)

    def _round(self, name: str, kept: _Log, pace: _Pace) -> None:
        """Measure the searches of a namespace that wait, as many as a round may."""
        if not kept.waiting:
            return
        pace.begin(mapped=False)
        engine = self._engine(name)
        manifest = engine.snapshots.strong().manifest
        trace = ReadTrace()
        view = engine.live_view(manifest, trace)
        pace()
        pace.begin(mapped=view.mapped)
        most = max(1, min(ROUND_QUERIES, ROUND_WORK // max(1, view.alive * manifest.dim)))
        some: list[Sampled] = []
        widest = 1
        while kept.waiting and len(some) < most:
            widest = max(widest, kept.waiting[0].params.top_k)
            if some and widest * (len(some) + 1) > ROUND_HITS:
                break
            some.append(kept.waiting.popleft())
        some = [one for one in some if len(one.query) == manifest.dim]
        if not some or not view.alive:
            return
        queries = np.stack([one.query for one in some])
        found = compare(engine, view, queries, [one.params for one in some], trace, pace=pace)
        with self.changed:
            if kept.incarnation != manifest.incarnation:
                kept.measured.clear()
            kept.incarnation, kept.epoch = manifest.incarnation, manifest.epoch
            kept.measured.extend(zip(found.recalls.tolist(), [one.at for one in some], strict=True))
        self._observer.count("recall_queries", len(some))
        self._observer.count("recall_found", float(found.recalls.sum()))
        bounds = [one.high for one in self.estimates().values() if one.high is not None]
        self._observer.hold("recall_bound", min(bounds))


def _measurable(params: SearchParams) -> bool:
    bare = params.filter is None and params.order_by is None and params.limit_per_group is None
    return bare and params.epoch is None


class _Stopped(Exception):
    """The monitor ends."""


class _Pace:
    """Waits so long after each piece of work that work takes its share of the time.

    Work is the processor's time, for at the lowest priority a piece of work can take long on a busy
    machine; but all of the time where rows have to be fetched, for then it is traffic.
    """

    def __init__(self, share: float, stopped: threading.Event) -> None:
        self._ratio = 1.0 / share - 1.0
        self._stopped = stopped
        self._clock = time.thread_time
        self._resumed = 0.0

    def begin(self, *, mapped: bool) -> None:
        self._clock = time.thread_time if mapped else time.perf_counter
        self._resumed = self._clock()

    def __call__(self) -> None:
        if self._stopped.wait(self._ratio * (self._clock() - self._resumed)):
            raise _Stopped
        self._resumed = self._clock()


def _listed(ring: deque[Sampled]) -> list[Sampled]:
    """A copy of a ring that others append to meanwhile."""
    while True:
        try:
            return list(ring)
        except RuntimeError:  # it changed under the copy
            continue
