"""A second request when the answer to a read is late, and whichever comes first is taken.

Late is what is later than nine answers of ten and than twice the usual: a second request takes as long
as the first usually does, so joining earlier gains nothing; and what stalls more often than one in ten
is not cured by asking more. The first request is left to end by itself.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Final, Generic, TypeVar

from vecstore import deadline
from vecstore.aside import aside
from vecstore.storage.s3.retry import Budget

_T = TypeVar("_T")

_REMEMBERED: Final = 256  # answers that tell what is late
_LEAST: Final = 20  # answers before anything is late
_SAVED: Final = 16  # second requests that may be saved up

Read = Callable[[Callable[[], None]], _T]


class Hedges:
    """Runs reads, and some of them twice. Thread-safe.

    Parameters
    ----------
    threads
        Run the reads; a pool that is made at first use.
    share
        Second requests at most, a read.
    hedged
        Called for each of them.
    """

    def __init__(
        self, threads: Callable[[], Executor], share: float, hedged: Callable[[], None] = lambda: None
    ) -> None:
        self._threads = threads
        self._hedged = hedged
        self._budget = Budget(share, _SAVED)
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def run(self, reads: Sequence[Read[_T]]) -> list[_T]:
        """The results of ``reads``, which run side by side.

        Each gets a function to call when the answer begins; from then on it is not late. One that no
        thread was free for in time is not sent twice either.
        """
        self._budget.earn(len(reads))
        sent = [self._send(read) for read in reads]
        with aside():
            return self._results(reads, sent)

    def _results(self, reads: Sequence[Read[_T]], sent: Sequence[_Sent[_T]]) -> list[_T]:
        late: dict[int, _Sent[_T]] = {}
        patience = self.patience()
        if patience is not None and wait([one.future for one in sent], timeout=patience).not_done:
            late = {
                i: self._send_again(read)
                for i, (read, one) in enumerate(zip(reads, sent, strict=True))
                if one.unanswered() and self._budget.take()
            }
        return [_sooner(one, late.get(i)) for i, one in enumerate(sent)]

    def patience(self) -> float | None:
        """Seconds after which an answer is late; None while too few are known."""
        with self._lock:
            waits = sorted(self._waits)
        if len(waits) < _LEAST:
            return None
        return max(waits[len(waits) * 9 // 10], 2 * statistics.median(waits))

    def _send_again(self, read: Read[_T]) -> _Sent[_T]:
        self._hedged()
        return self._send(read)

    def _send(self, read: Read[_T]) -> _Sent[_T]:
        sent: _Sent[_T] = _Sent()

        def run() -> _T:
            deadline.check()  # it may have waited for a thread for longer than anybody wants it
            sent.began = time.monotonic()
            return read(heard)

        def heard() -> None:
            if not sent.answered:
                sent.answered = True
                with self._lock:
                    self._waits.append(time.monotonic() - sent.began)

        sent.future = self._threads().submit(run)
        return sent


class _Sent(Generic[_T]):
    """A read on its way."""

    __slots__ = ("answered", "began", "future")

    def __init__(self) -> None:
        self.began = 0.0
        self.answered = False
        self.future: Future[_T]

    def unanswered(self) -> bool:
        return self.began > 0.0 and not self.answered and not self.future.done()


def _sooner(first: _Sent[_T], second: _Sent[_T] | None) -> _T:
    """The result of whichever succeeds first; the failure of the later one if both fail.

    Once nobody waits any more, both are left to end by themselves.
    """
    if second is None:
        return _result(first.future)
    ended, running = wait(
        (first.future, second.future), timeout=deadline.remaining(), return_when=FIRST_COMPLETED
    )
    for future in ended:
        if future.exception() is None:
            return future.result()
    return _result((running or ended).pop())


def _result(future: Future[_T]) -> _T:
    deadline.wait_for(future)
    return future.result()
