"""Stepping aside: who waits for storage, or for another thread, lets somebody else work meanwhile.

A server has more requests under way than its interpreter can work on. Those that work take it from each other
hundreds of times each, so it lets few work at once (`vecstore.server.admission`), and has to know who of them
waits. Where nobody counts, in a library, this does nothing. Imports nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Place(Protocol):
    """One of the places to work that are counted."""

    def leave_for_a_while(self) -> None: ...

    def come_back(self) -> None:
        """Never waits: whoever was aside may hold what those at work wait for."""


class _Here(threading.local):
    place: Place | None = None


_here = _Here()


@contextmanager
def working(place: Place) -> Iterator[None]:
    """Within it this thread works at a place."""
    _here.place = place
    try:
        yield
    finally:
        _here.place = None


@contextmanager
def aside() -> Iterator[None]:
    """Within it this thread waits, and its place is free."""
    place = _here.place
    if place is None:
        yield
        return
    _here.place = None
    place.leave_for_a_while()
    try:
        yield
    finally:
        place.come_back()
        _here.place = place
