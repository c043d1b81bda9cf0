"""Lets handles put themselves right in a child process.

A lock that another thread held while the process forked stays locked in the child for ever, so
whoever owns a lock replaces it there. `os.register_at_fork` cannot be undone; registering once and
keeping weak references lets handles be collected.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from vecstore.errors import ForkedHandle


class Forkable(Protocol):
    """A handle with state that does not survive ``fork``."""

    def reset_after_fork(self) -> None:
        """Make the handle usable again; runs in the child, before any other thread exists there."""
        ...


class OwnProcess:
    """Refuses the use of a handle in a child of the process that opened it.

    The child has that process's locks, but not the threads that hold them: it has to open its own.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._forked = False
        reset_in_children(self)

    def check(self) -> None:
        if self._forked:
            raise ForkedHandle(f"{self._what} was opened before fork; connect again in the child process")

    def reset_after_fork(self) -> None:
        self._forked = True


_handles: weakref.WeakSet[Forkable] = weakref.WeakSet()


def reset_in_children(handle: Forkable) -> None:
    """Call ``handle.reset_after_fork`` in every process forked from this one while ``handle`` lives."""
    _handles.add(handle)


def _reset_all() -> None:
    for handle in list(_handles):
        handle.reset_after_fork()


os.register_at_fork(after_in_child=_reset_all)
