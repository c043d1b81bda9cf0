"""The nearest rows, but at most some of them with the same value of an attribute.

A search for more rows than are wanted mostly finds enough. Where it does not, the groups that are full are
hidden and the search goes on among the others, until there are enough or no rows are left. Rows that were
found before are found again, so each search goes at least as far as the one before it, and what was kept of
full groups lies within.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidArgument
from vecstore.ext.search import Searcher
from vecstore.index.hidden import without
from vecstore.index.ordered import attribute_of
from vecstore.index.search import Answer, Executors, search_beside, search_namespace
from vecstore.index.view import OpenPart, View
from vecstore.limits import MAX_TOP_K
from vecstore.manifest.model import Attribute
from vecstore.part.rows import PartRows
from vecstore.rows.aggregates import values_in
from vecstore.rows.bits import RowBits
from vecstore.rows.schema import element_type
from vecstore.rows.values import Key, both_zeros
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, SearchParams

I64 = npt.NDArray[np.int64]

MORE: Final = 4  # rows a hit that are searched for at first; each further search asks for so many times more


def search_per_group(
    view: View,
    q: F32,
    params: SearchParams,
    skip: tuple[int, int] | None,
    searcher: Searcher,
    trace: ReadTrace,
    executor: Executors,
) -> Answer:
    """As `search_namespace`, or as `search_beside` if there is a row to skip, under ``limit_per_group``.

    Rows without a value are one group.

    Raises
    ------
    InvalidArgument
        No such attribute, an array, or one that is not filterable.
    """
    assert params.limit_per_group is not None
    name, most = params.limit_per_group
    known = attribute_of(view.manifest, name, field="limit_per_group")
    if not known.filterable:
        raise InvalidArgument(
            f"limit_per_group names {name!r}, which is not filterable", field="limit_per_group"
        )
    rest, full, asked, searches = view, None, MORE * params.top_k, 0
    while True:
        one = replace(params, top_k=asked)
        if skip is None:
            answer = search_namespace(rest, q, one, searcher, trace, executor)
        else:
            answer = search_beside(rest, q, one, skip, searcher, trace, executor)
        searches += 1
        groups = _groups(view, name, known, answer, trace)
        places, counts = _first_of_each(groups, most)
        found = answer.take(places)
        hits = found if full is None else _joined(full, found)
        done = len(answer.rows) < asked or len(hits.rows) >= params.top_k
        beyond = params.max_distance is not None and not done and answer.distances[-1] > params.max_distance
        if done or beyond:
            break
        filled = {group for group, count in counts.items() if count >= most}
        kept = found.take(np.array([groups[place] in filled for place in places.tolist()]))
        full = kept if full is None else _joined(full, kept)
        hidden = {part.number: _rows_of(part, name, known, filled, trace) for part in rest.searched}
        rest = without(rest, hidden, whole=view if view.whole is None else view.whole)
        asked = min(MORE * asked, MORE * MAX_TOP_K)
    if hits.debug is not None:
        hits.debug["searches"] = searches
    return hits.take(np.argsort(hits.distances, kind="stable")[: params.top_k])


def _groups(view: View, name: str, known: Attribute, answer: Answer, trace: ReadTrace) -> list[Key | None]:
    """The value of each hit; None where it has none."""
    found: list[Key | None] = [None] * len(answer.rows)
    for number in np.unique(answer.parts).tolist():
        mine = np.flatnonzero(answer.parts == number)
        source = PartRows(view.parts[number].reader, trace)
        rows, where = np.unique(answer.rows[mine], return_inverse=True)
        values = values_in(source.column(name, known.id), rows, known.type)
        for place, key in zip(mine.tolist(), values.keys(where), strict=True):
            found[place] = key
    return found


def _first_of_each(groups: list[Key | None], most: int) -> tuple[I64, Counter[Key | None]]:
    """Places of the first ``most`` of each group, and how many there are of each."""
    counts: Counter[Key | None] = Counter()
    places = []
    for place, group in enumerate(groups):
        if counts[group] < most:
            places.append(place)
            counts[group] += 1
    return np.array(places, dtype=np.int64), counts


def _joined(one: Answer, other: Answer) -> Answer:
    return Answer(
        np.concatenate([one.ids, other.ids]),
        np.concatenate([one.distances, other.distances]),
        np.concatenate([one.parts, other.parts]),
        np.concatenate([one.rows, other.rows]),
        other.debug,
    )


def _rows_of(part: OpenPart, name: str, known: Attribute, groups: set[Any], trace: ReadTrace) -> RowBits:
    """The rows of groups."""
    column = PartRows(part.reader, trace).column(name, known.id)
    if column is None:
        return RowBits.every(part.live.n) if None in groups else RowBits.none(part.live.n)
    keys = [key for key in groups if key is not None]
    if element_type(known.type) == "float":
        keys = [each for key in keys for each in both_zeros(key)]
    found = column.equal_to(sorted(keys))
    if None in groups:
        found = found | column.nulls()
    return found
