"""How often a key may ask: so many requests a second, and so many at once.

The generic cell rate algorithm, which is a token bucket that keeps one number a key: when the bucket
would be full again. A process counts for itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Rates:
    """Thread-safe. Keys that nobody asks about cost nothing; `keep` forgets those that are gone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, key: str, rate: float, burst: int) -> float:
        """0 if a request may go on now, which is then counted; else seconds until one may."""
        now, step = self._clock(), 1.0 / rate
        with self._lock:
            full_at = max(self._full_at.get(key, now), now)
            wait = full_at - now - (burst - 1) * step
            if wait > 1e-9:  # what rounding leaves is no wait
                return wait
            self._full_at[key] = full_at + step
        return 0.0

    def keep(self, keys: set[str]) -> None:
        """Forget all keys but these."""
        with self._lock:
            self._full_at = {key: at for key, at in self._full_at.items() if key in keys}
