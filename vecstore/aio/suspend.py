"""Lets a plain function wait for an event loop: `run` it from a coroutine, `wait_for` within it.

The function runs in a greenlet, a second stack of the same thread. Where it waits, the stack is put aside
and the coroutine awaits in its place; the loop serves others meanwhile. SQLAlchemy's asyncio does the same.
An exception that the await meets, a cancellation among them, is raised within the function. Needs the extra
``async``.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")


class _Call(greenlet):
    """A function that a coroutine runs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        driver = getcurrent()
        super().__init__(function, driver)
        self.gr_context = driver.gr_context  # its context variables are those of the task


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that may `wait_for`."""
    call = _Call(function)
    given: Any = call.switch(*args, **kwargs)
    while not call.dead:
        try:
            value = await given
        except BaseException:
            given = call.throw(*sys.exc_info())
        else:
            given = call.switch(value)
    found: T = given
    return found


def wait_for(awaitable: Awaitable[T]) -> T:
    """Wait within a function that `run` has called."""
    current = getcurrent()
    if not isinstance(current, _Call) or current.parent is None:
        raise AssertionError("wait_for outside of run")
    found: T = current.parent.switch(awaitable)
    return found
