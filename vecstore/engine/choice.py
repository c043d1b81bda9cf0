"""Which stored rows a write is about, found anew in each draft.

A part never changes, so where an id lies in it, and which of its rows a filter matches, is found once;
which of those rows are alive is asked of each draft (protocol R5, R6, R7). Where ids are assigned, the
same rows have other ids at an attempt that gives the part another base (R11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from vecstore import deadline
from vecstore.errors import InvalidId
from vecstore.index.filtered import bound_patterns
from vecstore.manifest.draft import Draft
from vecstore.manifest.model import Manifest, Part
from vecstore.part.reader import PartReader
from vecstore.part.rows import PartRows
from vecstore.rows.column import Column, nulls
from vecstore.rows.filters import Bound, Expression, bind, evaluate, may_match
from vecstore.rows.filters.binding import columns_of
from vecstore.rows.filters.conditions import bind_condition, filters_of, holds
from vecstore.rows.ids import Ids
from vecstore.rows.schema import Spec
from vecstore.storage.cache import ReadTrace

I64 = npt.NDArray[np.int64]
Readers = Callable[[Manifest, Part], PartReader]
Content = tuple[str, int | None, tuple[int, ...]]


def content_of(part: Part) -> Content:
    """What rows of a part are known by: one that is not committed yet may get other ids and attributes."""
    return part.id, part.id_base, part.columns if isinstance(part.columns, tuple) else ()


def check_id_kind(manifest: Manifest, ids: Ids, *, field: str = "ids") -> None:
    """`InvalidId` if a namespace that has ids has them of the other kind."""
    if manifest.id_kind is not None and manifest.id_kind != ids.kind:
        raise InvalidId(
            f"{field} of namespace {manifest.namespace!r} are {manifest.id_kind}, not {ids.kind}",
            field=field,
            kind=manifest.id_kind,
        )


class Resolver:
    """Where given ids lie in parts; remembers each part it has looked into."""

    def __init__(self, ids: Ids, readers: Readers) -> None:
        self.ids = ids
        self._readers = readers
        self._found: dict[tuple[str, int | None], tuple[I64, I64]] = {}

    def look_ahead(self, manifest: Manifest, executor: Executor) -> None:
        """Look into all parts of a manifest side by side.

        A commit looks into what is new to it, part by part, while others wait for their turn; this
        is for the caller to do before it joins them.
        """
        if len(manifest.parts) == 1:
            self._find(manifest, manifest.parts[0])
        else:
            list(executor.map(lambda part: self._find(manifest, part), manifest.parts))

    def _find(self, manifest: Manifest, part: Part) -> tuple[I64, I64]:
        name = part.id, part.id_base
        found = self._found.get(name)
        if found is None:
            deadline.check()
            found = self._found[name] = self._readers(manifest, part).index.find(self.ids, ReadTrace())
        return found

    def live(self, draft: Draft, part: Part) -> tuple[I64, I64]:
        """Positions in ``ids``, and the rows of the part that they have, alive in the draft."""
        which, rows = self._find(draft.manifest, part)  # the base may not know the kind of ids yet
        if not len(rows):
            return which, rows
        dead = draft.dead(part.id)
        alive = np.fromiter((row not in dead for row in rows.tolist()), dtype=np.bool_, count=len(rows))
        return which[alive], rows[alive]


class Matching:
    """The rows of parts that filters match; remembers each part it has looked into."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._found: dict[tuple[Content, Bound], BitMap] = {}

    def rows(self, manifest: Manifest, part: Part, bound: Bound) -> BitMap:
        """Rows of a part, dead ones included. Shared: not to be changed."""
        key = content_of(part), bound
        found = self._found.get(key)
        if found is None:
            deadline.check()
            rows = PartRows(self._readers(manifest, part), ReadTrace())
            found = self._found[key] = _matching(bound, rows) if may_match(bound, rows) else BitMap()
        return found


def _matching(bound: Bound, rows: PartRows) -> BitMap:
    """The rows of a part that a filter matches; what that needs comes in one trip, where it is little."""
    there = (rows.column(name, number) for name, number in columns_of(bound).items())
    columns = [column for column in there if column is not None]
    rows.fetch([span for column in columns for span in column.spans(inverted=True)])
    return evaluate(bound, rows)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Rows of one part that a write is about.

    Attributes
    ----------
    rows
        i64[m], ascending.
    which
        i64[m]: the position of each among the ids that were given; zeros where a filter chose.
    """

    part: Part
    rows: I64
    which: I64

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, some: npt.NDArray[np.bool_] | slice) -> Chosen:
        """Some of them."""
        return Chosen(self.part, self.rows[some], self.which[some])


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a write is about, as a draft stands.

    Attributes
    ----------
    passed_over
        i64: positions of the ids whose rows do not meet the condition.
    """

    chosen: list[Chosen]
    passed_over: I64

    @property
    def count(self) -> int:
        return sum(map(len, self.chosen))


class Choice:
    """The rows of given ids, those of them that meet a condition, or all that a filter matches.

    Parameters
    ----------
    resolver
        Of the given ids; None where ``expression`` alone chooses.
    expression
        The condition, or the filter.
    given
        What the write gives to attributes, a value an id: what conditions refer to.
    """

    def __init__(
        self,
        readers: Readers,
        *,
        resolver: Resolver | None = None,
        expression: Expression | None = None,
        given: Mapping[str, Column] | None = None,
    ) -> None:
        self.resolver = resolver
        self._readers = readers
        self._expression = expression
        self._given = given or {}
        self._matching = Matching(readers)

    @property
    def ids(self) -> Ids:
        """Those that were given; not where a filter chooses."""
        assert self.resolver is not None
        return self.resolver.ids

    def look_ahead(self, manifest: Manifest, executor: Executor) -> None:
        """Look into all parts of a manifest side by side, for the same reason as `Resolver.look_ahead`."""
        if self.resolver is not None:
            check_id_kind(manifest, self.resolver.ids)
            self.resolver.look_ahead(manifest, executor)
        else:
            bound = self._bound_filter(manifest)
            list(executor.map(lambda part: self._matching.rows(manifest, part, bound), manifest.parts))

    def find(self, draft: Draft) -> Found:
        """What is chosen as the draft stands.

        Raises
        ------
        InvalidId
            The namespace has ids of the other kind.
        InvalidFilter
            And its kind `FilterMismatch`: the condition, or the filter, does not fit the schema.
        """
        return self._by_filter(draft) if self.resolver is None else self._by_ids(draft, self.resolver)

    def _by_filter(self, draft: Draft) -> Found:
        manifest, chosen = draft.manifest, []
        bound = self._bound_filter(manifest)
        for part in manifest.parts:
            alive = self._matching.rows(manifest, part, bound) - draft.dead(part.id)
            if alive:
                rows = np.array(alive.to_array(), dtype=np.int64)
                chosen.append(Chosen(part, rows, np.zeros(len(rows), dtype=np.int64)))
        return Found(chosen, np.empty(0, dtype=np.int64))

    def _bound_filter(self, manifest: Manifest) -> Bound:
        assert self._expression is not None  # or there would be ids
        bound = bind(self._expression, manifest.attributes, manifest.id_kind)
        bound_patterns([self._readers(manifest, part) for part in manifest.parts], [bound], ReadTrace())
        return bound

    def _by_ids(self, draft: Draft, resolver: Resolver) -> Found:
        manifest = draft.manifest
        check_id_kind(manifest, resolver.ids)
        there = []
        for part in manifest.parts:
            which, rows = resolver.live(draft, part)
            if len(rows):
                order = np.argsort(rows)
                there.append(Chosen(part, rows[order], which[order]))
        if self._expression is None:
            return Found(there, np.empty(0, dtype=np.int64))
        bound = bind_condition(self._expression, manifest.attributes, manifest.id_kind)
        readers = [self._readers(manifest, one.part) for one in there]
        bound_patterns(readers, filters_of(bound), ReadTrace(), field="condition")
        chosen, passed_over = [], [np.empty(0, dtype=np.int64)]
        for one in there:
            met = holds(bound, _Stored(one, manifest, self._readers, self._matching, self._given))
            passed_over.append(one.which[~met])
            if met.any():
                chosen.append(one.where(met))
        return Found(chosen, np.concatenate(passed_over))

    def ids_of(self, found: Found, manifest: Manifest, most: int) -> list[int | str]:
        """The ids of rows that were chosen, at most so many."""
        ids: list[int | str] = []
        for one in found.chosen:
            room = most - len(ids)
            if room <= 0:
                break
            if self.resolver is not None:
                ids += self.resolver.ids.values[one.which[:room]].tolist()
            else:
                reader = self._readers(manifest, one.part)
                ids += reader.ids_of(one.rows[:room], ReadTrace()).tolist()
        return ids


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """The stored rows of given ids in one part: `vecstore.rows.filters.conditions.Candidates`."""

    chosen: Chosen
    manifest: Manifest
    readers: Readers
    cache: Matching
    new: Mapping[str, Column]

    def matching(self, bound: Bound) -> BitMap:
        return self.cache.rows(self.manifest, self.chosen.part, bound)

    def among(self, rows: BitMap) -> npt.NDArray[np.bool_]:
        wanted = self.chosen.rows.tolist()
        return np.fromiter((row in rows for row in wanted), dtype=np.bool_, count=len(wanted))

    def stored(self, name: str, attribute: int) -> Column:
        reader = self.readers(self.manifest, self.chosen.part)
        column = PartRows(reader, ReadTrace()).column(name, attribute)
        if column is None:
            known = self.manifest.attributes[name]
            return nulls(Spec(known.type, known.filterable), len(self.chosen))
        return column.column(self.chosen.rows)

    def given(self, name: str) -> Column | None:
        column = self.new.get(name)
        return None if column is None else column.take(self.chosen.which)
