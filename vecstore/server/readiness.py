"""Whether this server can do its work, as ``/readyz`` tells it to whoever sends it requests."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from vecstore.errors import TooManyRequests, VecstoreError
from vecstore.storage.threads import start

log = logging.getLogger(__name__)

OK: Final = "ok"
FAILED: Final = "failed"  # what is told of a check to those who may not know why
KEPT_SECONDS: Final = 1.0  # that an answer of the store holds for, so that probes do not become load
PATIENCE: Final = 2.0  # seconds that a probe waits for the store


class Readiness:
    """Checks by name.

    Parameters
    ----------
    ping
        One small read of the store.
    cache_dir
        Of the disk cache; empty without one.
    draining
        Whether the server is about to end.
    """

    def __init__(
        self,
        ping: Callable[[], None],
        *,
        cache_dir: str = "",
        draining: Callable[[], bool] = lambda: False,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ping = ping
        self._cache_dir = cache_dir
        self._draining = draining
        self._patience = patience
        self._clock = clock
        self._changed = threading.Condition()
        self._asking = False
        self._found: tuple[str, float] = ("", float("-inf"))  # what the store answered, and when

    def checks(self) -> dict[str, str]:
        """`OK`, or what is wrong, of each check."""
        found = {"store": self._store()}
        if self._cache_dir:
            usable = os.access(self._cache_dir, os.W_OK | os.X_OK)
            found["cache_dir"] = OK if usable else f"{self._cache_dir} cannot be written to"
        found["draining"] = "the server is about to end" if self._draining() else OK
        return found

    def _store(self) -> str:
        """What the store answered lately, or answers now; one question at a time, whoever asks."""
        began = self._clock()
        with self._changed:
            if began - self._found[1] < KEPT_SECONDS:
                return self._found[0]
            if not self._asking:
                try:
                    start(threading.Thread(target=self._ask, name="vecstore-ready", daemon=True))
                except TooManyRequests as error:
                    return f"{error.code}: {error.message}"
                self._asking = True
            if self._changed.wait_for(lambda: self._found[1] >= began, timeout=self._patience):
                return self._found[0]
        return f"no answer within {self._patience:g} s"

    def _ask(self) -> None:
        try:
            self._ping()
            answer = OK
        except VecstoreError as error:
            answer = f"{error.code}: {error.message}"
        except Exception as error:  # a probe must tell of it, whatever it is
            answer = repr(error)
        if answer not in (OK, self._found[0]):  # once, not for each probe
            log.warning("not ready, the store fails: %s", answer)
        with self._changed:
            self._asking = False
            self._found = answer, self._clock()
            self._changed.notify_all()
