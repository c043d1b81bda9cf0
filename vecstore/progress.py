"""How far long work has come, told to a callable. Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], object]  # takes the share that is done, 0 to 1, and is called from one thread


def silent(share: float) -> None:
    """For whoever passes no callable."""


def within(progress: Progress | None, start: float, end: float) -> Progress:
    """For work that is ``start`` to ``end`` of the whole."""
    if progress is None:
        return silent
    return lambda share: progress(start + share * (end - start))
