"""Maintenance of a whole store: one process beside the workers, or ``vecstore maintain`` alone.

Every namespace in turn: what is due is compacted, and garbage is collected now and then. Any number
of these may run over one store; a lease keeps them from doing the same work, commits keep it right.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

from vecstore.config import Config
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import NamespaceNotFound, StorageConflict, VecstoreError
from vecstore.observe import Observer

log = logging.getLogger(__name__)

PARENT_SECONDS: Final = 1.0
NICE: Final = 10  # requests that want a processor get it ten times as much


class Maintainer:
    """Sweeps over all namespaces of a database.

    Parameters
    ----------
    interval, gc_interval
        Seconds between two looks at what is due, and between two collections.
    clock, now
        Monotonic seconds, and Unix time.
    observer
        Hears of each sweep.
    """

    def __init__(
        self,
        database: EmbeddedDatabase,
        *,
        interval: float,
        gc_interval: float,
        retention: float,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer if observer is not None else Observer()
        self._now = now
        self._most_parts = 0
        self._database = database
        self._interval = interval
        self._gc_interval = gc_interval
        self._retention = retention
        self._grace = grace
        self._clock = clock
        self._collected = clock()

    def run(self, stop: threading.Event) -> None:
        """Sweep until ``stop`` is set."""
        while not stop.is_set():
            try:
                self.sweep(stop)
            except VecstoreError as error:
                log.warning("maintenance could not list the namespaces; it tries again: %s", error)
            stop.wait(self._interval)

    def sweep(self, stop: threading.Event) -> None:
        """Each namespace once; an error of one of them leaves the others alone."""
        collecting = self._clock() - self._collected >= self._gc_interval
        self._most_parts = 0
        for name in self._database.names():
            if stop.is_set():
                return
            self._attempt(name, "compaction", self._compact)
            if collecting:
                self._attempt(name, "collection", self._collect)
        self._observer.hold("most_parts", self._most_parts)
        self._observer.hold("swept_at", self._now())
        if collecting:
            self._collected = self._clock()
            self._observer.hold("collected_at", self._now())

    def _compact(self, name: str) -> None:
        try:
            self._database.compact_due(name)
        finally:
            known = self._database.namespace(name).snapshots.cached()
            if known is not None and known.manifest.state == "active":
                self._most_parts = max(self._most_parts, len(known.manifest.parts))

    def _collect(self, name: str) -> None:
        found = self._database.collect_due(name, retention=self._retention, grace=self._grace)
        if found.deleted:
            log.info("collected %s: %d objects, %d bytes", name, found.deleted, found.bytes)

    def _attempt(self, name: str, what: str, work: Callable[[str], None]) -> None:
        try:
            work(name)
        except NamespaceNotFound:
            pass
        except StorageConflict as error:
            log.info("%s of %s lost a race: %s", what, name, error)
        except VecstoreError as error:
            log.warning("%s of %s failed; it is tried again: %s", what, name, error)
        except Exception:
            log.exception("%s of %s met an unexpected error; it is tried again", what, name)


def maintain(
    database: EmbeddedDatabase, config: Config, *, parent: int | None = None, observer: Observer | None = None
) -> None:
    """Maintain a store in this process until SIGTERM or SIGINT, or until ``parent`` is gone.

    The signal ends a compaction at once: what it uploaded is garbage that no manifest names.
    """
    lower_priority()
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.SIG_IGN)
        stop.set()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), name="vecstore-parent", daemon=True).start()
    log.info("maintaining %s", database.store.url)
    Maintainer(
        database,
        interval=config.maintenance_interval,
        gc_interval=config.gc_interval,
        retention=config.gc_retention,
        grace=config.gc_grace,
        observer=observer,
    ).run(stop)


def lower_priority(nice: int = NICE) -> None:
    """Give way to the processes that answer requests, without coming to a stand beside busy ones."""
    with suppress(OSError):  # where that is not allowed or not known, it is a process like the others
        for thread in os.listdir("/proc/self/task"):  # those of a BLAS are there already
            which = (os.PRIO_PROCESS, int(thread))
            os.setpriority(*which, max(nice, os.getpriority(*which)))


def _watch(parent: int) -> None:
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
