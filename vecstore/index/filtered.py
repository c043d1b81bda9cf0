"""A view of the rows that a filter matches, which is searched like any other.

    filter -> bound to the schema -> rows of each part, as bits -> slots that the scan may take, empty lists

Parts without a match are left out before anything of them is read; zone maps tell of most. These are
remembered a part and a filter, for as long as they have room, and views of the latest filters with their
epoch. How far a query goes under a filter, `vecstore.index.plan` tells.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from vecstore import deadline
from vecstore.errors import InvalidFilter
from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.limits import MAX_PATTERN_TESTS
from vecstore.part.reader import PartReader
from vecstore.part.rows import PartRows
from vecstore.rows.bits import RowBits
from vecstore.rows.filters import Bound, bind, matching_rows, may_match, parse_filter
from vecstore.rows.filters.binding import bytes_of, columns_of, ids_of, patterns_of
from vecstore.storage.cache import ReadTrace

MOST_VIEWS: Final = 64  # of one epoch
MOST_BYTES: Final = 64 << 20  # of bitmaps of one namespace, and of the masks of one epoch's views
BESIDE: Final = 1 << 10  # bytes of what holds a bitmap that is remembered, and its filter


class Matches:
    """The rows of parts that filters match, the latest of them. Safe to share between threads.

    A part never changes, and a bound filter names attributes by ids that are never used again, so what
    is remembered stays true.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self.lock = threading.Lock()  # of the views that are remembered, too
        self._kept: OrderedDict[tuple[str, int | None, Bound], tuple[RowBits, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, part: OpenPart, bound: Bound, trace: ReadTrace) -> RowBits:
        """The rows of a part that a filter matches, dead ones included. Shared: not to be changed."""
        entry = part.reader.entry
        key = (entry.id, entry.id_base, bound)
        with self.lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found[0]
        deadline.check()
        rows = matching_rows(bound, PartRows(part.reader, trace))
        size = BESIDE + bytes_of(bound) + rows.words.nbytes
        with self.lock:
            if key not in self._kept:
                self._kept[key] = (rows, size)
                self._bytes += size
            while self._bytes > self._most:
                _, (_, size) = self._kept.popitem(last=False)
                self._bytes -= size
        return rows


def narrowed(view: View, filter_json: bytes, trace: ReadTrace, executor: Callable[[], Executor]) -> View:
    """The view of the live rows that a filter matches.

    Raises
    ------
    InvalidFilter
        And its kind `FilterMismatch`, naming the place.
    """
    found: View | None = view.narrowed.get(filter_json)
    if found is not None:
        return found
    manifest = view.manifest
    bound = bind(parse_filter(filter_json), manifest.attributes, manifest.id_kind)
    bound_patterns([part.reader for part in view.searched], [bound], trace)
    if not view.mapped:
        reads = [partial(_fetch, part, bound) for part in view.searched]
        if manifest.id_kind != "string":  # of those, an index tells only whether they are equal
            reads += [partial(_fetch_ids, part, look) for look in ids_of(bound) for part in view.searched]
        read_side_by_side(reads, trace, executor)
    masked = [_masked(part, view.matches.of(part, bound, trace)) for part in view.searched]
    searched = [part for part in masked if part.live.alive]
    by_number = {part.number: part for part in masked}
    ground = view.field if view.ground is None else view.ground
    found = View(
        manifest=manifest,
        rotation=view.rotation,
        parts=tuple(by_number.get(part.number, part) for part in view.parts),
        searched=searched,
        mapped=view.mapped,
        means=view.means,
        alive=sum(part.live.alive for part in searched),
        field=ground.narrowed([(p.number, p.live.words, p.empty) for p in searched]),
        matches=view.matches,
        whole=view,
        ground=ground,
    )
    size = sum(part.live.words.nbytes + part.live.first_row.nbytes // 8 for part in view.searched)
    most = min(MOST_VIEWS, MOST_BYTES // max(1, size))
    with view.matches.lock:
        while view.narrowed and len(view.narrowed) >= most:
            del view.narrowed[next(iter(view.narrowed))]
        view.narrowed[filter_json] = found
    return found


def bound_patterns(
    readers: Sequence[PartReader], filters: Iterable[Bound], trace: ReadTrace, *, field: str = "filter"
) -> None:
    """Refuse patterns of some filters that would be held against too many texts; one alone never is."""
    looks = [look for bound in filters for look in patterns_of(bound)]
    if len(looks) < 2:
        return
    tests = 0
    for reader in readers:
        rows = PartRows(reader, trace)
        for look in looks:
            column = None if look.attribute is None else rows.column(look.name, look.attribute)
            tests += rows.n if look.attribute is None else 0 if column is None else column.entry.distinct
    if tests > MAX_PATTERN_TESTS:
        raise InvalidFilter(
            f"{field} holds {len(looks)} patterns against {tests} texts in all; more than one pattern may be "
            f"held against at most {MAX_PATTERN_TESTS}: one Regex can have alternatives",
            field=field,
            at=field,
            limit=MAX_PATTERN_TESTS,
        )


def _fetch(part: OpenPart, bound: Bound, trace: ReadTrace) -> None:
    """What a filter needs of a part that can have a match, in one trip where that is little."""
    rows = PartRows(part.reader, trace)
    if not may_match(bound, rows):
        return
    spans = []
    for name, attribute in columns_of(bound).items():
        column = rows.column(name, attribute)
        if column is not None:
            spans += column.spans(inverted=True)
    rows.fetch(spans)


def _fetch_ids(part: OpenPart, look: Bound, trace: ReadTrace) -> None:
    """The pages of ids that a test of them reads."""
    matching_rows(look, PartRows(part.reader, trace))


def _masked(part: OpenPart, matching: RowBits) -> OpenPart:
    """A part of which only these rows are alive."""
    narrow, empty = part.live.only(matching)
    return OpenPart(part.number, part.reader, narrow, part.group, empty)
