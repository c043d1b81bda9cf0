"""What is sent again after a passing failure, and how much of that there may be.

- reads, lists, deletes and parts of an upload: always;
- a create: yes, and what a refusal after a lost answer means is found out (``uploads.py``);
- a compare-and-set: never. The commit protocol (R1) finds out what became of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import tenacity

from vecstore import deadline
from vecstore.errors import StorageRetryable

_T = TypeVar("_T")

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0  # seconds, each a bound of what is drawn
_SECONDS: Final = 60.0  # that an operation may have taken when it is tried again
_SHARE, _SAVED = 0.2, 100  # retries an operation, and what may be saved up of them


class Budget:
    """Requests that may be sent beside those that were asked for: a share of them. Thread-safe.

    It is what keeps many clients from burying a server that is in trouble already.

    Parameters
    ----------
    share
        Earned by each request that was asked for; with 0 nothing is ever granted.
    saved
        Most that can be saved up; that much is there to begin with.
    """

    def __init__(self, share: float, saved: int) -> None:
        self._share = share
        self._most = float(saved) if share else 0.0
        self._left = self._most
        self._lock = threading.Lock()

    def earn(self, requests: int = 1) -> None:
        with self._lock:
            self._left = min(self._most, self._left + self._share * requests)

    def take(self) -> bool:
        """Whether one more may be sent."""
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


class Retries:
    """One policy for all operations of a store: bounded, with full jitter, within a budget.

    ``retried`` is called before each attempt but the first.
    """

    def __init__(
        self,
        attempts: int,
        sleep: Callable[[float], None] = time.sleep,
        retried: Callable[[], None] = lambda: None,
    ) -> None:
        self._budget = Budget(_SHARE, _SAVED)
        self._sleep = sleep
        self._retried = retried
        self._stop = tenacity.stop_after_attempt(attempts) | tenacity.stop_after_delay(_SECONDS)

    def run(self, attempt: Callable[[], _T]) -> _T:
        """Run until it does not fail in passing; `StorageRetryable` when there are no more attempts.

        `DeadlineExceeded` where it is for the caller's deadline that there are none: those who wait for the
        same may have longer, and would take any other failure for theirs.
        """
        self._budget.earn()
        try:
            return self._retry(attempt)
        except StorageRetryable:
            deadline.check()
            raise

    def _retry(self, attempt: Callable[[], _T]) -> _T:
        return tenacity.Retrying(
            sleep=self._sleep,
            stop=lambda state: self._stop(state) or not self._budget.take() or deadline.passed(),
            wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
            retry=tenacity.retry_if_exception_type(StorageRetryable),
            before_sleep=lambda _: self._retried(),
            reraise=True,
        )(attempt)
