"""Rows whose time has passed: those of which the attribute that the namespace expires by is not after now.

What is expired is a boundary in the order of that attribute. A view without such rows holds until the next
one expires; filters are remembered by the rows that they match, expired ones included.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.index.hidden import without
from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.manifest.model import Manifest
from vecstore.part.rows import PartRows
from vecstore.rows.bits import RowBits
from vecstore.rows.columns import ColumnReader
from vecstore.rows.values import SIGN
from vecstore.storage.cache import ReadTrace

I64 = npt.NDArray[np.int64]

MS: Final = 1_000  # a second


@dataclass(frozen=True, slots=True)
class Lasting:
    """A view without what is expired, and the keys of the times from which and until which it holds.

    Attributes
    ----------
    view
        None: nothing is expired, so it is the view that this belongs to.
    until
        The first time at which more rows expire; None: never.
    """

    since: int
    until: int | None
    view: View | None


def unexpired(view: View, now: float, trace: ReadTrace, executor: Callable[[], Executor]) -> View:
    """The view of the rows whose time has not passed.

    Parameters
    ----------
    now
        Seconds of Unix time by the store's clock; a request has one.
    """
    if view.manifest.settings.expire_by is None:
        return view
    key = key_of_time(now)
    for known in view.lasting:
        if known.since <= key and (known.until is None or key < known.until):
            return view if known.view is None else known.view
    reads = [partial(_look, view.manifest, part, key) for part in view.searched]
    found = read_side_by_side(reads, trace, executor)
    hidden = {
        part.number: RowBits.of(rows, part.live.n)
        for part, (rows, _) in zip(view.searched, found, strict=True)
        if len(rows)
    }
    made = without(view, hidden, whole=None) if hidden else None
    view.lasting[:] = [Lasting(key, min((n for _, n in found if n is not None), default=None), made)]
    return view if made is None else made


def key_of_time(now: float) -> int:
    """The key of a time, as columns of ``datetime`` have it."""
    return int(now * MS) + SIGN


def expired_rows(manifest: Manifest, part: OpenPart, now: float, trace: ReadTrace) -> I64:
    """Rows of a part whose time has passed, dead ones included, ascending."""
    return _look(manifest, part, key_of_time(now), trace)[0]


def _look(manifest: Manifest, part: OpenPart, key: int, trace: ReadTrace) -> tuple[I64, int | None]:
    """The rows of a part that are expired, and the first key that is not; None if there is none."""
    column = _column(manifest, part, trace)
    if column is None or not column.entry.elements:
        return np.empty(0, dtype=np.int64), None
    least: Any = column.entry.least
    if least is not None and least > key:
        return np.empty(0, dtype=np.int64), int(least)
    column.source.fetch(column.spans(inverted=True))
    return column.up_to(key)


def _column(manifest: Manifest, part: OpenPart, trace: ReadTrace) -> ColumnReader | None:
    name = manifest.settings.expire_by
    known = None if name is None else manifest.attributes.get(name)
    return None if name is None or known is None else PartRows(part.reader, trace).column(name, known.id)
