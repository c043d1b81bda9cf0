"""Maintenance beside the work: a thread of an embedded writer, and the loop of a process of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from vecstore.errors import NamespaceNotFound

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 1.0  # writes that come within it share one look at what is due


class MaintenanceThread:
    """Runs ``maintain(name)`` for each namespace that was written to, one at a time.

    The thread starts with the first write. It is a daemon: a process that ends in the midst of a
    compaction leaves an upload that no manifest names, which collection removes.
    """

    def __init__(self, maintain: Callable[[str], None], *, quiet: float = QUIET_SECONDS) -> None:
        self._maintain = maintain
        self._quiet = quiet
        self._due: set[str] = set()
        self._condition = threading.Condition()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self, name: str) -> None:
        """Something was written to a namespace."""
        with self._condition:
            self._due.add(name)
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="vecstore-maintenance", daemon=True)
                self._thread.start()
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
            with self._condition:
                self._condition.wait_for(lambda: self._due or self._stopped.is_set())
                due, self._due = sorted(self._due), set()
            for name in due:
                if self._stopped.is_set():
                    return
                try:
                    self._maintain(name)
                except NamespaceNotFound:
                    continue
                except Exception:  # the thread outlives whatever befalls one namespace
                    log.exception("maintenance of %s failed; the next write tries again", name)
            self._stopped.wait(self._quiet)
