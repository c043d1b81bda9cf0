"""Ids of parts, deletes, commits, incarnations and lineages: unique, never reused, time-sortable.

The layout is that of UUID version 7, as 32 hex digits: 48 bits of milliseconds, then 74 random
bits. An id of an object is made once, so an object is created under it and never changed
(DESIGN section 4). Imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62


def new_uid(clock: Callable[[], float], rng: Random) -> str:
    """A new id.

    Parameters
    ----------
    clock
        Seconds since the Unix epoch, best the store's (`ObjectStore.now`).
    rng
        Processes that forked from one another must not share its state: outside of tests
        use `random.SystemRandom`.
    """
    milliseconds = int(clock() * 1000) & ((1 << 48) - 1)
    noise = rng.getrandbits(74)
    high, low = noise >> 62, noise & ((1 << 62) - 1)
    return f"{milliseconds << 80 | _VERSION | high << 64 | _VARIANT | low:032x}"
