"""Threads, and pools whose work belongs to whoever asked for it: context variables go along into the thread.

So a request's id, its span and its deadline are those of what is done for it elsewhere. Where the system
gives no more threads, whoever asked hears of that by name.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Thread
from typing import Any, TypeVar

from vecstore.errors import DatabaseClosed, TooManyRequests

T = TypeVar("T")


def start(thread: Thread) -> None:
    """Start a thread; `TooManyRequests` if the system gives no more."""
    try:
        thread.start()
    except RuntimeError as error:
        raise _none_left() from error


class Workers(ThreadPoolExecutor):
    """A pool that makes do with the threads that it has; `TooManyRequests` where it can start none at all."""

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if self._threads:
                return
            self._work_queue.get_nowait()  # or it would be done later, when nobody waits for it
            raise _none_left() from error


class Pool(Workers):
    """A pool of threads; a piece of work runs in a copy of the context that submitted it.

    Once it is shut down, `DatabaseClosed` to whoever was under way and has more work for it.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        try:
            return super().submit(copy_context().run, fn, *args, **kwargs)
        except RuntimeError as error:
            if not self._shutdown:
                raise
            raise DatabaseClosed("the database was closed meanwhile; connect again") from error


def _none_left() -> TooManyRequests:
    return TooManyRequests("the system gives this process no more threads; try again later")
