"""Pools whose work belongs to whoever asked for it: context variables go along into the thread.

So a request's id, its span and its deadline are those of what is done for it elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from vecstore.errors import DatabaseClosed

T = TypeVar("T")


class Pool(ThreadPoolExecutor):
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
