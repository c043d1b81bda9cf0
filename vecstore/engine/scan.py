"""A page of a scan: rows of one epoch in order, their attributes and vectors, and where the next page begins.

A cursor names the epoch, so that all pages are of one, whatever is written meanwhile; nothing is kept between
them. It can be used for as long as the epoch is kept.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from vecstore import deadline
from vecstore.errors import InvalidArgument
from vecstore.index.filtered import narrowed
from vecstore.index.view import OpenPart, View
from vecstore.index.walk import Walked, as_stored, by_id, read_parts
from vecstore.limits import MAX_CURSOR_BYTES, MAX_SCAN_BYTES, MAX_SCAN_ROWS, MAX_SCAN_WALK, MAX_U64
from vecstore.manifest import history
from vecstore.manifest.model import Manifest
from vecstore.part.rows import PartRows
from vecstore.rows.column import Column, as_buffer, element_bytes, joined, nulls
from vecstore.rows.filters import parse_filter
from vecstore.rows.schema import Spec
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, ScanOrder, ScanPage, ScanParams

I64 = npt.NDArray[np.int64]

ROW_BYTES: Final = 64  # of a page for each row, its id for the most part
SLICE_ROWS: Final = 256  # whose values are read at once, before it is known how large rows are
SLICE_BYTES: Final = 4 << 20  # of values that are read at once, by what their columns hold on average


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a scan goes on.

    Attributes
    ----------
    filter
        A digest of what it filters by.
    place
        The first id, or the first row of all parts.
    """

    incarnation: Annotated[str, msgspec.Meta(max_length=64)]
    epoch: Annotated[int, msgspec.Meta(ge=1)]
    order: ScanOrder
    filter: Annotated[str, msgspec.Meta(max_length=16)]
    place: Annotated[int, msgspec.Meta(ge=0)]


def encode_position(position: Position) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def position_of(asked: ScanParams) -> Position | None:
    """What the cursor says; None without one.

    Raises
    ------
    InvalidArgument
        It is none, or belongs to a scan of another epoch, order or filter.
    """
    if asked.cursor is None:
        return None
    refused = InvalidArgument("cursor is not one that a scan returned", field="cursor")
    if len(asked.cursor) > MAX_CURSOR_BYTES:
        raise refused
    try:
        data = base64.b64decode(asked.cursor + "=" * (-len(asked.cursor) % 4), altchars=b"-_", validate=True)
        position = msgspec.json.decode(data, type=Position)
    except (ValueError, UnicodeError, msgspec.MsgspecError) as error:
        raise refused from error
    if position.place > MAX_U64 or encode_position(position) != asked.cursor:
        raise refused
    for field, same in (
        ("epoch", asked.epoch in (None, position.epoch)),
        ("order", asked.order in (None, position.order)),
        ("filter", _digest(asked.filter) == position.filter),
    ):
        if not same:
            raise InvalidArgument(f"cursor belongs to a scan with another {field}", field=field)
    return position


def _digest(data: bytes | None) -> str:
    if data is None:
        return ""
    return blake2b(repr(parse_filter(data)).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Scanner:
    """What scans of one namespace read with.

    Attributes
    ----------
    live_view
        The rows of an epoch that can be read now.
    """

    name: str
    live_view: Callable[[Manifest, ReadTrace], View]
    executor: Callable[[], Executor]

    def page(self, manifest: Manifest, asked: ScanParams, position: Position | None) -> ScanPage:
        """The page of an epoch that begins at a position, or the first one.

        Raises
        ------
        SnapshotExpired
            The position is of an earlier namespace of this name.
        """
        if position is not None and position.incarnation != manifest.incarnation:
            raise history.expired(self.name, position.epoch)
        names, with_vectors = _projection(manifest, asked)
        order = asked.order if position is None else position.order
        strings = manifest.id_kind == "string"
        if order == "id" and strings:
            raise InvalidArgument(
                f"ids of {self.name!r} are strings, which are kept in no order",
                field="order",
                limit=["stored"],
            )
        if order is None:
            order = "stored" if strings else "id"
        trace = ReadTrace()
        view = self.live_view(manifest, trace)
        if asked.filter is not None:
            view = narrowed(view, asked.filter, trace, self.executor)
        start = 0 if position is None else position.place
        a_row = ROW_BYTES + (4 * manifest.dim if with_vectors else 0)
        need = min(asked.limit, max(1, MAX_SCAN_BYTES // a_row))
        if order == "id":
            walked = by_id(view, start, need, MAX_SCAN_WALK, trace, self.executor)
        else:
            walked = as_stored(view, start, need, MAX_SCAN_WALK)
        columns, count = self._columns(view, walked, names, a_row, trace)
        walked = walked.first(count)
        following = None
        if walked.next is not None:
            following = encode_position(
                Position(manifest.incarnation, manifest.epoch, order, _digest(asked.filter), walked.next)
            )
        return ScanPage(
            walked.places if order == "id" else self._ids(view, walked, strings, trace),
            columns,
            {name: manifest.attributes[name].type for name in names},
            self._vectors(view, walked, trace) if with_vectors else None,
            manifest.epoch,
            following,
            manifest.incarnation,
        )

    def _columns(
        self, view: View, walked: Walked, names: Sequence[str], a_row: int, trace: ReadTrace
    ) -> tuple[dict[str, list[Any]], int]:
        """Values of rows, of as many as a page may hold, and how many those are."""
        out: dict[str, list[Any]] = {name: [] for name in names}
        total = len(walked.rows)
        if not names:
            return out, total
        most = _rows_at_once(view, walked.parts, names)
        count, room, step = 0, MAX_SCAN_BYTES, min(SLICE_ROWS, most)
        while count < total:
            deadline.check()
            some = slice(count, min(total, count + step))
            found = self._slice(view, walked.parts[some], walked.rows[some], names, trace)
            sizes = np.full(some.stop - count, a_row, dtype=np.int64)
            for column in found:
                row_of = np.repeat(np.arange(len(sizes)), column.counts)
                sizes += np.bincount(row_of, element_bytes(as_buffer(column.elements)), len(sizes)).astype(
                    np.int64
                )
            fit = int(np.searchsorted(np.cumsum(sizes), room, side="right"))
            if not count:
                fit = max(1, fit)
            for name, column in zip(names, found, strict=True):
                out[name] += (column if fit == len(sizes) else column.take(np.arange(fit))).values()
            count += fit
            room -= int(sizes[:fit].sum())
            if fit < len(sizes):
                break
            step = min(most, 4 * step, max(1, room * count // (MAX_SCAN_BYTES - room)))
        return out, count

    def _slice(
        self, view: View, parts: I64, rows: I64, names: Sequence[str], trace: ReadTrace
    ) -> list[Column]:
        """The column of each name, in the order of the rows."""
        groups = _by_part(view, parts)
        reads = [partial(_columns_of, view.manifest, part, rows[mine], names) for part, mine in groups]
        found = read_parts(view, reads, trace, self.executor)
        if len(found) == 1:
            return found[0]
        place = np.argsort(np.concatenate([mine for _, mine in groups]))
        return [joined(columns).take(place) for columns in zip(*found, strict=True)]

    def _ids(self, view: View, walked: Walked, strings: bool, trace: ReadTrace) -> npt.NDArray[Any]:
        out: npt.NDArray[Any] = np.empty(len(walked.rows), dtype=object if strings else np.uint64)
        groups = _by_part(view, walked.parts)
        reads = [partial(part.reader.ids_of, walked.rows[mine]) for part, mine in groups]
        for (_, mine), ids in zip(groups, read_parts(view, reads, trace, self.executor), strict=True):
            out[mine] = ids
        return out

    def _vectors(self, view: View, walked: Walked, trace: ReadTrace) -> F32:
        """f32[n, dim]; NaN where a part keeps none."""
        out = np.full((len(walked.rows), view.manifest.dim), np.nan, dtype=np.float32)
        groups = _by_part(view, walked.parts)
        reads = [partial(part.reader.read_vectors, walked.rows[mine]) for part, mine in groups]
        for (_, mine), found in zip(groups, read_parts(view, reads, trace, self.executor), strict=True):
            if found is not None:
                out[mine] = found
        return out


def _by_part(view: View, parts: I64) -> list[tuple[OpenPart, I64]]:
    """The parts that rows are of, each with the places of its rows."""
    if not len(parts):
        return []
    order = np.argsort(parts, kind="stable")
    numbers, starts = np.unique(parts[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    return [
        (view.parts[number], order[start:end])
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True)
    ]


def _rows_at_once(view: View, parts: I64, names: Sequence[str]) -> int:
    """The values of how many rows are read at once: of few where they are large."""
    known = view.manifest.attributes
    most = MAX_SCAN_ROWS
    for number in np.unique(parts).tolist():
        source = PartRows(view.parts[number].reader, ReadTrace())
        readers = [source.column(name, known[name].id) for name in names]
        fit = [rows for one in readers if one is not None and (rows := one.rows_in(SLICE_BYTES)) is not None]
        most = min(most, int(1 / sum(1 / rows for rows in fit))) if fit else most
    return max(1, most)


def _columns_of(
    manifest: Manifest, part: OpenPart, rows: I64, names: Sequence[str], trace: ReadTrace
) -> list[Column]:
    source = PartRows(part.reader, trace)
    known = [manifest.attributes[name] for name in names]
    readers = [source.column(name, one.id) for name, one in zip(names, known, strict=True)]
    source.fetch([span for one in readers if one is not None for span in one.spans(inverted=False)])
    return [
        nulls(Spec(one.type, one.filterable), len(rows)) if reader is None else reader.column(rows)
        for reader, one in zip(readers, known, strict=True)
    ]


def check_names(manifest: Manifest, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The attributes that are to be included. `InvalidArgument` if there is none of a name."""
    known = manifest.attributes
    included = [name for name in include if name != "vector"]
    for field, names in (("include", included), ("exclude", exclude)):
        for name in names:
            if name not in known:
                raise InvalidArgument(
                    f"{field} names {name!r}, which is no attribute of {manifest.namespace!r}",
                    field=field,
                    limit=["vector", *known],
                )
    return included


def _projection(manifest: Manifest, asked: ScanParams) -> tuple[list[str], bool]:
    """The attributes that rows are to bring, and whether they bring their vectors."""
    known = manifest.attributes
    included = check_names(manifest, asked.include or (), asked.exclude or ())
    with_vectors = "vector" in (asked.include or ())
    if asked.exclude is not None or asked.include is None:
        return [name for name in known if name not in (asked.exclude or ())], with_vectors
    return list(dict.fromkeys(included)), with_vectors
