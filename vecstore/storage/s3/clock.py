"""The server's clock, as the dates of its answers tell it."""

from __future__ import annotations

import email.utils
import threading
import time
from dataclasses import dataclass
from typing import Final

_FRESH_SECONDS: Final = 60.0
_STEP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the server's clock showed at least, seconds since the Unix epoch, and ours at that moment."""

    date: float
    monotonic: float


class ServerClock:
    """Learns the time from headers ``Date``. Thread-safe.

    They tell whole seconds, so the latest is not the best: each is a lower bound. The highest is kept,
    or the clock would jump back whenever an answer came late within a second; only one that says much
    less means that the server's was set back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading: _Reading | None = None

    def hear(self, header: str | None) -> None:
        """Take in the date of an answer that has just come."""
        date = seconds_of(header)
        if date is None:
            return
        with self._lock:
            heard, held = time.monotonic(), self._reading
            if held is not None:
                expected = held.date + (heard - held.monotonic)
                if date <= expected < date + _STEP_SECONDS:
                    date = expected
            self._reading = _Reading(date, heard)

    def now(self) -> float | None:
        """At most about a second behind; None if nothing was heard for a minute."""
        reading = self._reading
        if reading is None:
            return None
        since = time.monotonic() - reading.monotonic
        return reading.date + since if since <= _FRESH_SECONDS else None


def seconds_of(header: str | None) -> float | None:
    """A header ``Date`` or ``Last-Modified`` in seconds since the Unix epoch; None if it tells none."""
    try:
        return email.utils.parsedate_to_datetime(header).timestamp() if header else None
    except ValueError:
        return None
