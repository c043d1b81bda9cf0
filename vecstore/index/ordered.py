"""Rows in the order of an attribute, or of their ids, instead of their distance.

Rows without a value come last, whichever the direction, and rows that are equal in the order of their ids.
Parts that can bring nothing more, by the least and greatest values of their columns, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidArgument
from vecstore.index.search import Answer, ids_at
from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.manifest.model import Attribute, Manifest
from vecstore.part.rows import PartRows
from vecstore.rows.order import first_rows
from vecstore.rows.schema import is_array
from vecstore.rows.values import Elements, Key
from vecstore.storage.cache import ReadTrace
from vecstore.types import U64, Order

I64 = npt.NDArray[np.int64]
Executors = Callable[[], Executor]

ID: Final = "id"
FEW: Final = 1_024  # rows whose ids are read one by one rather than from the index of ids


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows and what they are ordered by: keys or texts, or the rows' ids where they have no value."""

    keys: npt.NDArray[Any]
    parts: npt.NDArray[np.int32]
    rows: I64

    @classmethod
    def of(cls, number: int, keys: npt.NDArray[Any], rows: I64) -> _Found:
        return cls(keys, np.full(len(rows), number, dtype=np.int32), rows)

    @classmethod
    def joined(cls, some: Iterable[_Found]) -> _Found:
        listed = list(some)
        return cls(
            np.concatenate([one.keys for one in listed]),
            np.concatenate([one.parts for one in listed]),
            np.concatenate([one.rows for one in listed]),
        )

    def take(self, places: npt.NDArray[Any]) -> _Found:
        return _Found(self.keys[places], self.parts[places], self.rows[places])


def attribute_of(manifest: Manifest, name: str, *, field: str, at: str | None = None) -> Attribute:
    """An attribute with one value a row.

    `InvalidArgument` names the field, and the place in it, if there is none of that name.
    """
    place = field if at is None else at
    known = manifest.attributes.get(name)
    if known is None:
        raise InvalidArgument(
            f"{place} names {name!r}, which is no attribute of {manifest.namespace!r}",
            field=field,
            at=place,
            limit=list(manifest.attributes),
        )
    if is_array(known.type):
        raise InvalidArgument(
            f"{place} names {name!r}, which is an array: a row has no one value of it", field=field, at=place
        )
    return known


def search_ordered(
    view: View, order: Order, top_k: int, trace: ReadTrace, executor: Executors, *, debug: bool = False
) -> Answer:
    """The first ``top_k`` live rows of a view; distances are NaN.

    Raises
    ------
    InvalidArgument
        No such attribute, or an array.
    """
    name, descending = order[0], order[1] == "desc"
    known = None if name == ID else attribute_of(view.manifest, name, field="order_by")
    asked = _Ordered(view, name, known, descending, top_k, executor)
    found = asked.valued(trace)
    if len(found.rows) < top_k and known is not None:
        found = _Found.joined([found, asked.without_value(top_k - len(found.rows), trace)])
    ids = ids_at(view, found.parts, found.rows, trace)
    told = asked.debug(trace) if debug else None
    return Answer(ids, np.full(len(ids), np.nan, dtype=np.float32), found.parts, found.rows, told)


class _Ordered:
    """One search in an order."""

    def __init__(
        self,
        view: View,
        name: str,
        known: Attribute | None,
        descending: bool,
        top_k: int,
        executor: Executors,
    ) -> None:
        self._view = view
        self._name = name
        self._known = known
        self._descending = descending
        self._top_k = top_k
        self._executor = executor
        self._read: set[int] = set()  # numbers of the parts whose values were looked at

    def valued(self, trace: ReadTrace) -> _Found:
        """Rows with a value, at most ``top_k``, in order."""
        waiting = self._by_zone(trace)
        found: list[_Found] = []
        while waiting:
            # As many parts at once as may hold what is wanted; the others only if they can still bring some.
            some, rows = [], 0
            while waiting and (rows < self._top_k or found):
                part, _ = waiting.pop(0)
                some.append(part)
                rows += part.live.alive
            self._read |= {part.number for part in some}
            reads = [partial(self._first, part) for part in some]
            found += read_side_by_side(reads, trace, self._executor)
            joined = _Found.joined(found)
            ranks = self._ranks(joined.keys)
            if len(ranks) >= self._top_k:
                last = joined.keys[np.argpartition(ranks, self._top_k - 1)[self._top_k - 1]]
                waiting = [one for one in waiting if self._reaches(one[1], last)]
        if not found:
            return _Found.of(0, np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))
        return self._settle(_Found.joined(found), trace)

    def without_value(self, count: int, trace: ReadTrace) -> _Found:
        """Rows without one, by their ids."""
        reads = [partial(self._nulls, part, count) for part in self._view.searched]
        found = read_side_by_side(reads, trace, self._executor)
        if not found:
            return _Found.of(0, np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))
        joined = _Found.joined(found)
        ids = ids_at(self._view, joined.parts, joined.rows, trace)
        return joined.take(np.argsort(_places(ids), kind="stable")[:count])

    def debug(self, trace: ReadTrace) -> dict[str, Any]:
        return {
            "epoch": self._view.manifest.epoch,
            "parts": [
                {
                    "id": part.reader.entry.id,
                    "rows": part.reader.entry.n,
                    "live": part.live.alive,
                    "read": part.number in self._read,
                }
                for part in self._view.parts
            ],
            "rows_live": self._view.alive,
            "storage": trace.report(),
        }

    def _by_zone(self, trace: ReadTrace) -> list[tuple[OpenPart, Key | None]]:
        """The parts that hold values, and the first that each can have; None if that is not known."""
        listed: list[tuple[OpenPart, Key | None]] = []
        for part in self._view.searched:
            if self._known is None:
                listed.append((part, self._first_id(part)))
                continue
            column = PartRows(part.reader, trace).column(self._name, self._known.id)
            if column is not None and column.entry.elements:
                entry = column.entry
                listed.append((part, entry.greatest if self._descending else entry.least))
        unknown = [one for one in listed if one[1] is None]
        others = [one for one in listed if one[1] is not None]
        others.sort(key=lambda one: one[1], reverse=self._descending)  # type: ignore[arg-type,return-value]
        return unknown + others

    def _first_id(self, part: OpenPart) -> Key | None:
        entry = part.reader.entry
        bound = entry.id_max if self._descending else entry.id_min
        if isinstance(bound, int):
            return bound + (entry.id_base or 0)
        return None if bound is None else bound.encode()

    def _reaches(self, bound: Key | None, last: Key) -> bool:
        """Whether a part of this bound can have rows among the first, or such as equal the last of them."""
        if bound is None:
            return True
        if isinstance(last, bytes):
            assert isinstance(bound, bytes)
            return bound >= last if self._descending else bound <= last
        # One key beyond, for of the two zeros of a float the bound may be the other one.
        return int(bound) + 1 >= int(last) if self._descending else int(bound) - 1 <= int(last)

    def _first(self, part: OpenPart, trace: ReadTrace) -> _Found:
        """The first rows of a part, with all that equal the last of them where too many do not."""
        alive = part.live.rows()
        if self._known is None:
            keys, rows = _ordered_ids(part, alive, self._top_k, self._descending, trace)
            return _Found.of(part.number, keys, rows)
        source = PartRows(part.reader, trace)
        column = source.column(self._name, self._known.id)
        assert column is not None  # see `_by_zone`
        source.fetch(column.spans(inverted=False))
        found = first_rows(column, alive, self._top_k, descending=self._descending)
        ranks, rows = found.ranks, found.rows
        if len(rows) > self._top_k:  # of those that equal the last, the ones that come first by their ids
            last = ranks.min() if self._descending else ranks.max()
            before = ranks != last
            equal = _least_ids(part, np.sort(rows[~before]), self._top_k - int(before.sum()), trace)
            ranks = np.append(ranks[before], np.full(len(equal), last, dtype=np.uint64))
            rows = np.append(rows[before], equal)
        return _Found.of(part.number, found.keys(ranks), rows)

    def _settle(self, found: _Found, trace: ReadTrace) -> _Found:
        """The first of all, in order."""
        ranks = self._ranks(found.keys)
        if len(ranks) > self._top_k:
            near = np.flatnonzero(ranks <= np.partition(ranks, self._top_k - 1)[self._top_k - 1])
            found, ranks = found.take(near), ranks[near]
        ids = ids_at(self._view, found.parts, found.rows, trace)
        return found.take(np.lexsort((_places(ids), ranks))[: self._top_k])

    def _ranks(self, keys: Elements) -> I64:
        """Places of keys among each other, the first one 0."""
        ranks = _places(keys)
        return ranks.max(initial=0) - ranks if self._descending else ranks

    def _nulls(self, part: OpenPart, count: int, trace: ReadTrace) -> _Found:
        assert self._known is not None  # every row has an id
        rows = part.live.rows()
        column = PartRows(part.reader, trace).column(self._name, self._known.id)
        if column is not None:
            rows = rows[column.nulls_among(rows)]
        rows = _least_ids(part, rows, count, trace)
        return _Found.of(part.number, np.zeros(len(rows), dtype=np.uint64), rows)


def _places(values: npt.NDArray[Any]) -> I64:
    """Of each value its place among the distinct ones."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _least_ids(part: OpenPart, rows: I64, count: int, trace: ReadTrace) -> I64:
    """Of rows of a part, ascending, those with the least ids."""
    if len(rows) <= count:
        return rows
    if len(rows) > FEW and part.reader.id_kind != "string":
        return _ordered_ids(part, rows, count, False, trace)[1]
    return rows[np.argsort(_places(part.reader.ids_of(rows, trace)), kind="stable")[:count]]


def _ordered_ids(
    part: OpenPart, rows: I64, count: int, descending: bool, trace: ReadTrace
) -> tuple[npt.NDArray[Any], I64]:
    """The first of some rows by their ids, and these ids: u64, or bytes."""
    if part.reader.id_kind == "string":
        names = part.reader.ids_of(rows, trace)
        keys: npt.NDArray[Any] = np.empty(len(names), dtype=object)
        keys[:] = [name.encode() for name in names.tolist()]
        order = np.argsort(_places(keys), kind="stable")
        chosen = order[::-1][:count] if descending else order[:count]
        return keys[chosen], rows[chosen]
    asked = np.zeros(part.reader.entry.n, dtype=np.bool_)
    asked[rows] = True
    found: list[tuple[U64, I64]] = []
    have = 0
    for low, high in _ranges(part, descending):
        ids, of = part.reader.index.between(low, high, trace)
        mine = np.flatnonzero(asked[of])
        mine = mine[::-1] if descending else mine
        found.append((ids[mine], of[mine]))
        have += len(mine)
        if have >= count:
            break
    return np.concatenate([one for one, _ in found])[:count], np.concatenate([of for _, of in found])[:count]


def _ranges(part: OpenPart, descending: bool) -> Iterator[tuple[int, int | None]]:
    """Ranges of ids that follow one another, each of twice as many pages of their index as the one before."""
    base, pages = part.reader.entry.id_base or 0, len(part.reader.index.fence)
    starts = [0, *(int(key) + base for key in part.reader.index.fence[1:].tolist())]
    done, step = 0, 1
    while done < pages:
        stop = min(pages, done + step)
        first, last = (pages - stop, pages - done) if descending else (done, stop)
        yield starts[first], starts[last] if last < pages else None
        done, step = stop, 2 * step
