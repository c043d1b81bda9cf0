"""By when the work of this thread must be answered, and the steps at which it asks.

Work that nobody waits for any more is stopped at its next step: between requests to storage, parts,
blocks of rows, texts that a pattern is held against, queries of a batch, and last before a commit. A
deadline belongs to the call, not to the objects that it goes through, so it is a context variable (decision
0029): `vecstore.storage.threads.Pool` takes it along into threads, `waived` keeps it from what is done for
others too. Without one a step costs 50 ns.

Imports errors and aside.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Final

from vecstore.aside import aside
from vecstore.errors import DeadlineExceeded
from vecstore.progress import Progress

_AT: Final[ContextVar[float | None]] = ContextVar("vecstore.deadline", default=None)


def begin(at: float | None) -> Token[float | None]:
    """From here on work must end by ``at``, in monotonic seconds; None: whenever it likes."""
    return _AT.set(at)


def end(token: Token[float | None]) -> None:
    """What was before `begin`."""
    _AT.reset(token)


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Work that must end within so many seconds."""
    token = begin(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        end(token)


@contextmanager
def waived() -> Iterator[None]:
    """Work that others wait for too, or that must not be left half done."""
    token = begin(None)
    try:
        yield
    finally:
        end(token)


def remaining() -> float | None:
    """Seconds that are left, at least 0; None without a deadline."""
    at = _AT.get()
    return None if at is None else max(0.0, at - time.monotonic())


def passed() -> bool:
    """Whether nobody waits any more."""
    at = _AT.get()
    return at is not None and time.monotonic() >= at


def check() -> None:
    """`DeadlineExceeded` once nobody waits any more."""
    if passed():
        raise _exceeded()


def checked(progress: Progress) -> Progress:
    """Progress whose steps check."""

    def tell(share: float) -> None:
        check()
        progress(share)

    return progress if _AT.get() is None else tell


def wait_for(future: Future[Any]) -> None:
    """Until a future has ended; `DeadlineExceeded` if that takes longer, and it goes on by itself."""
    left = remaining()
    if left is None or future.done():
        return
    with aside():
        ended = wait((future,), left).done
    if not ended:
        raise _exceeded()


def _exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("the request took longer than it may; it was stopped and changed nothing")
