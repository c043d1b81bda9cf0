"""Warming: reading ahead of time what a search at the default target needs, a slice at a time.

That is the tables, the codes and the int8 rows of every list; vectors as given only where a part is so
small that it is scanned by them. A slice is a bounded request, so that progress can be told and a
client that goes away leaves nothing running.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecstore.errors import InvalidArgument
from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.storage.cache import ReadTrace
from vecstore.types import WarmResult

if TYPE_CHECKING:
    from vecstore.engine.namespace import NamespaceEngine

_SLICE_BYTES: Final = 64 << 20
_READ_BYTES: Final = 8 << 20
_CURSOR: Final = re.compile(r"([0-9a-f]{32})\.([0-9]{1,10})")

_Place = tuple[str, int]  # a part and a list of it; parts in the order of their ids, which is that of time


def warm(engine: NamespaceEngine, cursor: str | None, room: int) -> WarmResult:
    """Read the next slice.

    Parameters
    ----------
    cursor
        What the slice before said; None begins.
    room
        Bytes that the caches may hold; warming ends there. Parts that are mapped need none.
    """
    after = _parse(cursor)
    trace = ReadTrace()
    manifest = engine.snapshots.strong().manifest
    view = engine.views.open(manifest, trace)
    reads: list[Callable[[ReadTrace], object]] = []
    done = total = slice_bytes = 0
    following: _Place | None = None
    full = False
    for place, size, read in _reads(view):
        total += size
        if following is not None or full:
            continue
        if not view.mapped and done + size > room:
            full = True
        elif place < after:
            done += size
        elif slice_bytes >= _SLICE_BYTES:
            following = place
        else:
            done += size
            slice_bytes += size
            reads.append(read)
    read_side_by_side(reads, trace, engine.executor)
    return WarmResult(
        epoch=manifest.epoch,
        warmed=done,
        total=total,
        fetched=trace.bytes,
        next=None if following is None else f"{following[0]}.{following[1]}",
        incarnation=manifest.incarnation,
    )


def _reads(view: View) -> Iterator[tuple[_Place, int, Callable[[ReadTrace], object]]]:
    """Everything there is to read, in order."""
    for part in sorted(view.searched, key=lambda part: part.reader.entry.id):
        entry, lengths = part.reader.entry, part.reader.lists["length"].astype(np.int64)
        if part.small:
            size = int(lengths.sum())
            if part.reader.vector_dtype is not None:
                size += entry.sections["vectors"].length
            yield (entry.id, 0), size, partial(_read_small, part)
            continue
        ends = np.cumsum(lengths)
        start = 0
        while start < entry.k:
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _READ_BYTES, side="right")))
            size = int(ends[stop - 1]) - before
            yield (entry.id, start), size, partial(_read_lists, part, np.arange(start, stop, dtype=np.int32))
            start = stop


def _read_lists(part: OpenPart, lists: np.ndarray[Any, np.dtype[np.int32]], trace: ReadTrace) -> None:
    part.reader.records(lists, trace)
    if not part.reader.mapped:
        # Asked for again, so that the caches keep it as they keep what is in use.
        part.reader.records(lists, ReadTrace())


def _read_small(part: OpenPart, trace: ReadTrace) -> None:
    for once in (trace, ReadTrace()):
        part.reader.records(np.zeros(1, dtype=np.int32), once)
        if part.reader.vector_dtype is not None:
            part.reader.all_vectors(once)


def _parse(cursor: str | None) -> _Place:
    if cursor is None:
        return "", 0
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidArgument("cursor is not one that warming returned", field="cursor")
    return found[1], int(found[2])
