"""Walks the live rows of a view, page by page: by ascending id, or in the order in which they are stored.

By id, the index of each part is a sorted run, and a page merges what it needs of them: the first keys of the
pages of the runs, which are in memory, tell which parts can hold the next ids, and how far. What is read
is in proportion to the page and to the parts that share its range, not to the rows of the namespace.

An id is alive in one part at most, so nothing is seen twice. Imports view and reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.limits import MAX_U64
from vecstore.storage.cache import ReadTrace
from vecstore.types import U64

I64 = npt.NDArray[np.int64]
T = TypeVar("T")

SLACK: Final = 1.25  # times as many keys as a part should need: the others' last keys lie behind its own
MORE: Final = 16  # keys beside


@dataclass(frozen=True, slots=True)
class Walked:
    """Some of the live rows, in order.

    Attributes
    ----------
    parts, rows
        i64[m]: the number of each row's part, and its row there.
    places
        u64[m]: of each row in the order.
    next
        The place at which the next page begins; None where nothing is left.
    """

    parts: I64
    rows: I64
    places: U64
    next: int | None

    def first(self, count: int) -> Walked:
        """The same cut off after ``count`` rows."""
        if count >= len(self.rows):
            return self
        return Walked(self.parts[:count], self.rows[:count], self.places[:count], int(self.places[count]))


def by_id(
    view: View, start: int, need: int, most: int, trace: ReadTrace, executor: Callable[[], Executor]
) -> Walked:
    """The first ``need`` live rows of ids from ``start`` on, ascending; of integers only.

    Fewer, though more are left, once ``most`` ids were looked at.
    """
    runs = [run for run in map(partial(_Run, start=start), view.searched) if run.bound <= MAX_U64]
    keys, rows, parts = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    looked = 0
    while True:
        horizon = min((run.bound for run in runs), default=MAX_U64 + 1)
        known = np.concatenate(keys)
        below = np.arange(len(known)) if horizon > MAX_U64 else np.flatnonzero(known < np.uint64(horizon))
        if len(below) >= need or not runs or looked >= most:
            break
        reach = min(runs, key=lambda run: run.bound).reach
        active = [run for run in runs if run.bound <= reach]
        alive = sum(run.part.live.alive for run in active)
        wanted = [math.ceil(SLACK * need * run.part.live.alive / alive) + MORE for run in active]
        reads = [partial(run.take, count) for run, count in zip(active, wanted, strict=True)]
        found = read_parts(view, reads, trace, executor)
        for run, (some_keys, some_rows, seen) in zip(active, found, strict=True):
            keys.append(some_keys)
            rows.append(some_rows)
            parts.append(np.full(len(some_rows), run.part.number))
            looked += seen
        runs = [run for run in runs if run.bound <= MAX_U64]
    chosen = below[np.argsort(known[below])]
    walked = Walked(
        np.concatenate(parts)[chosen],
        np.concatenate(rows)[chosen],
        known[chosen],
        None if horizon > MAX_U64 else horizon,
    )
    return walked.first(need)


def read_parts(
    view: View, reads: Sequence[Callable[[ReadTrace], T]], trace: ReadTrace, executor: Callable[[], Executor]
) -> list[T]:
    """Reads of parts: side by side, but for what is mapped, where a thread costs more than what it does."""
    if view.mapped:
        return [read(trace) for read in reads]
    return read_side_by_side(reads, trace, executor)


class _Run:
    """The ids of one part from ``start`` on.

    Attributes
    ----------
    bound
        No id that is not taken yet lies below; beyond the greatest id there can be where none is left.
    """

    def __init__(self, part: OpenPart, start: int) -> None:
        self.part = part
        self._reader = part.reader
        self._base = part.reader.entry.id_base or 0
        self._fence = part.reader.index.fence
        wanted = max(0, start - self._base)
        self._page = max(int(np.searchsorted(self._fence, np.uint64(wanted), side="right")) - 1, 0)
        self._at: int | None = None  # in the page; None as long as it was not read
        self._start = wanted
        self.bound = max(start, self._first(self._page))
        greatest = part.reader.entry.id_max
        if isinstance(greatest, int) and start > greatest + self._base:
            self.bound = MAX_U64 + 1

    def _first(self, page: int) -> int:
        return int(self._fence[page]) + self._base if page < len(self._fence) else MAX_U64 + 1

    @property
    def reach(self) -> int:
        """An id that none of those lies beyond which the next `take` may give."""
        return self._first(self._page + 1) - 1

    def take(self, count: int, trace: ReadTrace) -> tuple[U64, I64, int]:
        """About the next ``count`` live rows, of one page of the index: ids, rows, and ids looked at."""
        keys, of_keys = self._reader.index.page(self._page, trace)
        at = self._at
        if at is None:
            at = int(np.searchsorted(keys, np.uint64(self._start), side="left"))
        live = self.part.live
        stop = min(len(keys), at + math.ceil(count * live.n / live.alive))
        rows = of_keys[at:stop].astype(np.int64)
        alive = live.is_live(rows)
        found = keys[at:stop][alive] + np.uint64(self._base)
        if stop < len(keys):
            self._at, self.bound = stop, int(keys[stop]) + self._base
        else:
            self._page, self._at = self._page + 1, 0
            self.bound = self._first(self._page)
        return found, rows[alive], stop - at


def as_stored(view: View, start: int, need: int, most: int) -> Walked:
    """The first ``need`` live rows from place ``start`` on; a place counts all rows, part after part.

    Fewer, though more are left, once ``most`` rows were looked at.
    """
    first = np.cumsum([0, *(part.reader.entry.n for part in view.parts)]).tolist()
    parts, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    places = [np.empty(0, np.uint64)]
    found = looked = 0
    for part in view.parts:
        at, live = max(0, start - first[part.number]), part.live
        if not live.alive:
            continue
        while at < live.n:
            if found >= need or looked >= most:
                return Walked(
                    np.concatenate(parts),
                    np.concatenate(rows),
                    np.concatenate(places),
                    first[part.number] + at,
                ).first(need)
            likely = math.ceil((need - found) * live.n / live.alive) + MORE
            stop = min(live.n, at + min(likely, most - looked))
            some = np.arange(at, stop)
            some = some[live.is_live(some)]
            rows.append(some)
            parts.append(np.full(len(some), part.number))
            places.append((some + first[part.number]).astype(np.uint64))
            found += len(some)
            looked += stop - at
            at = stop
    return Walked(np.concatenate(parts), np.concatenate(rows), np.concatenate(places), None).first(need)
