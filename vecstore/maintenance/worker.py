"""Maintenance beside the work: a thread of an embedded writer, and the loop of a process of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from vecstore.errors import NamespaceNotFound, TooManyRequests, VecstoreError
from vecstore.storage.threads import start

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 1.0  # writes that come within it share one look at what is due


class MaintenanceThread:
    """Runs ``maintain(name)`` for each namespace that was written to or compacted, one at a time.

    The thread starts with the first of these. It is a daemon: a process that ends in the midst of a
    compaction leaves an upload that no manifest names, which collection removes.

    Parameters
    ----------
    again
        Seconds after the last write to a namespace, or compaction of it, when it is looked at once more:
        what was replaced then could not go yet.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        maintain: Callable[[str], None],
        *,
        again: float,
        quiet: float = QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._maintain = maintain
        self._again = again
        self._quiet = quiet
        self._clock = clock
        self._due: set[str] = set()
        self._later: dict[str, float] = {}
        self._condition = threading.Condition()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self, name: str) -> None:
        """Something was written to a namespace, or it was compacted, also by ``maintain`` itself."""
        with self._condition:
            self._due.add(name)
            self._later[name] = self._clock() + self._again
            if self._thread is None and not self._stopped.is_set():
                thread = threading.Thread(target=self._run, name="vecstore-maintenance", daemon=True)
                try:
                    start(thread)
                    self._thread = thread
                except TooManyRequests as error:  # what was written is written
                    log.warning("maintenance waits for the next write: %s", error)
            self._condition.notify()

    def stop(self) -> None:
        """End the thread after what it is doing. Idempotent."""
        self._stopped.set()
        with self._condition:
            self._condition.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            for name in self._next():
                if self._stopped.is_set():
                    return
                try:
                    self._maintain(name)
                except NamespaceNotFound:
                    continue
                except VecstoreError as error:
                    log.warning("maintenance of %s failed; the next write tries again: %s", name, error)
                except Exception:  # the thread outlives whatever befalls one namespace
                    log.exception("maintenance of %s failed; the next write tries again", name)
            self._stopped.wait(self._quiet)

    def _next(self) -> list[str]:
        """Names whose turn it is, once there are any; none when the thread is to end."""
        with self._condition:
            while not self._stopped.is_set():
                now = self._clock()
                ripe = {name for name, at in self._later.items() if at <= now}
                for name in ripe:
                    del self._later[name]
                due, self._due = sorted(self._due | ripe), set()
                if due:
                    return due
                next_at = min(self._later.values(), default=None)
                self._condition.wait(None if next_at is None else next_at - now)
        return []
