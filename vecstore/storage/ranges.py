"""Which requests to make for many ranges of one object: those that lie close come as one.

Imports the store protocol alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from vecstore.storage.base import ByteRange

MAX_GAP: Final = 256 << 10  # bytes that arrive while a client makes another request (decision 0012)
MAX_JOINED: Final = 8 << 20  # bytes that a joined range may grow to: longer ones come faster in pieces
LEAST_SPARE: Final = 4 << 20  # bytes that may be fetched unasked for, whatever was asked for
MANY: Final = 26  # requests; while there are more, bytes cost less than they do ...
MANY_GAP: Final = 1 << 20  # ... so that gaps up to this are closed
MANY_SPARE: Final = 40 << 20  # ... for so many bytes in all

LEAST_PIECE: Final = 1 << 20  # bytes of each of the two pieces of a range that would be the only request


def join_close(
    wanted: Iterable[ByteRange], *, max_gap: int = MAX_GAP, max_joined: int = MAX_JOINED
) -> list[ByteRange]:
    """Ranges that cover those wanted, in order of their starts; each wanted one lies within one of them.

    The smallest gaps are closed first: those up to ``max_gap``, and no more of them than as many bytes
    again as are wanted, or `LEAST_SPARE`; then larger ones while there are more than `MANY` ranges.
    """
    runs: list[ByteRange] = []
    start, stop = 0, -1
    for low, less in sorted((one.start, -one.length) for one in wanted):  # integers: there may be hundreds
        high = low - less
        if low <= stop and max(stop, high) - start <= max(max_joined, stop - start):
            stop = max(stop, high)
            continue
        if stop >= 0:
            runs.append(ByteRange(start, stop - start))
        start, stop = low, high
    if stop >= 0:
        runs.append(ByteRange(start, stop - start))
    closed = _closed(runs, max_gap)
    joined: list[ByteRange] = []
    for number, run in enumerate(runs):
        if number - 1 in closed and run.stop - joined[-1].start <= max_joined:
            joined[-1] = ByteRange(joined[-1].start, run.stop - joined[-1].start)
        else:
            joined.append(run)
    return joined


def _closed(runs: list[ByteRange], max_gap: int) -> set[int]:
    """The gaps to close, each by the number of the run before it."""
    few = max(LEAST_SPARE, sum(run.length for run in runs))
    spent = 0
    closed: set[int] = set()
    for gap, number in sorted((max(0, runs[i + 1].start - runs[i].stop), i) for i in range(len(runs) - 1)):
        spent += gap
        cheap = gap <= max_gap and spent <= few
        if not cheap and (len(runs) - len(closed) <= MANY or gap > MANY_GAP or spent > MANY_SPARE):
            break
        closed.add(number)
    return closed


def lone_in_two(ranges: Sequence[ByteRange]) -> Sequence[ByteRange]:
    """A long range that would be the only request, as two that are sent side by side; others as they are.

    The first byte of an answer takes long, and then a connection has its own rate: two of them bring the
    bytes sooner than the slower of two first bytes comes later. Three gain no more (decision 0024).
    """
    if len(ranges) != 1 or ranges[0].length < 2 * LEAST_PIECE:
        return ranges
    (one,) = ranges
    half = one.length // 2
    return [ByteRange(one.start, half), ByteRange(one.start + half, one.length - half)]
