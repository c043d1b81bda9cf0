"""The first rows of a column in the order of their values.

An index that has its rows in the order of their values is read from one end until there are enough rows;
where few rows are asked about, their own values are compared. Imports columns and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstore.rows.columns import ColumnReader
from vecstore.rows.schema import element_type
from vecstore.rows.values import Elements, is_text
from vecstore.types import U64

I64 = npt.NDArray[np.int64]

STEP: Final = 256  # rows of an index that are looked at first, at least; then twice as many
VALUE_BYTES: Final = 32 << 20  # of texts in no order that are looked at together, on average
WORTH: Final = 4  # times fewer rows of an index than rows that are asked about make it worth reading


@dataclass(frozen=True, slots=True, eq=False)
class First:
    """Rows with a value.

    Attributes
    ----------
    ranks
        u64[m], in the order of the values, the same for equal ones.
    rows
        i64[m].
    keys
        From ranks to keys, or to texts.
    """

    ranks: U64
    rows: I64
    keys: Callable[[U64], Elements]


def first_rows(column: ColumnReader, rows: I64, count: int, *, descending: bool) -> First:
    """The ``count`` of ``rows`` with the least values, or the greatest, and all that equal the last of them.

    Parameters
    ----------
    column
        Of one value a row.
    rows
        Ascending; those without a value are left out.
    """
    text = is_text(element_type(column.entry.type))
    if text and column.entry.form == "plain":
        return _first_texts(column, rows[~column.nulls_among(rows)], count, descending)
    if _worth_walking(column, len(rows), count):
        ranks, found = _walk(column, rows, count, descending)
    else:
        found = rows[~column.nulls_among(rows)]
        ranks = column.ranks(found)
        chosen = _first(ranks, count, descending)
        ranks, found = ranks[chosen], found[chosen]
    return First(ranks, found, column.texts_of if text else _same)


def _first_texts(column: ColumnReader, rows: I64, count: int, descending: bool) -> First:
    """As `first_rows`, of rows with a value, by texts that are in no order: those of some rows at a time."""
    texts, found = np.empty(0, dtype=object), rows[:0]
    step = column.rows_in(VALUE_BYTES) or max(1, len(rows))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        texts = np.concatenate([texts, column.elements_of(some)])
        chosen = _first(_ranks(texts)[1], count, descending)
        texts, found = texts[chosen], np.concatenate([found, some])[chosen]
    distinct, ranks = _ranks(texts)
    return First(ranks, found, distinct.__getitem__)


def _ranks(texts: Elements) -> tuple[Elements, U64]:
    """The distinct ones, ascending, and the place of each among them."""
    distinct, places = np.unique(texts, return_inverse=True)
    return distinct.astype(object), places.astype(np.uint64)


def _same(ranks: U64) -> U64:
    """Of numbers the ranks are the keys."""
    return ranks


def _first(ranks: U64, count: int, descending: bool) -> I64:
    """Places of the least ranks, or the greatest, with all that equal the last of them."""
    if len(ranks) <= count:
        return np.arange(len(ranks))
    if descending:
        last = np.partition(ranks, len(ranks) - count)[len(ranks) - count]
        return np.flatnonzero(ranks >= last)
    return np.flatnonzero(ranks <= np.partition(ranks, count - 1)[count - 1])


def _worth_walking(column: ColumnReader, asked: int, count: int) -> bool:
    if column.entry.lookup == "none" or not asked:
        return False
    walked = min(column.n, count * column.n // asked)  # if values and what is asked have naught to do
    return WORTH * max(walked, STEP) < asked


def _walk(column: ColumnReader, rows: I64, count: int, descending: bool) -> tuple[U64, I64]:
    """From the end of an index, until there are enough rows and none further equals the last."""
    every = len(rows) == column.n
    asked = np.zeros(column.n, dtype=np.bool_)
    asked[rows] = True
    found: list[I64] = []
    ranks: list[U64] = []
    have = 0
    for some in _chunks(column, max(STEP, 2 * count * column.n // len(rows)), descending):
        mine = some if every else some[asked[some]]
        if not len(mine):
            continue
        found.append(mine)
        ranks.append(column.ranks(mine))
        have += len(mine)
        if have > count and ranks[-1][-1] != _at(ranks, count - 1):
            break
    if not found:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    all_ranks, all_rows = np.concatenate(ranks), np.concatenate(found)
    if len(all_rows) > count:
        last = all_ranks[count - 1]
        keep = all_ranks >= last if descending else all_ranks <= last
        return all_ranks[keep], all_rows[keep]
    return all_ranks, all_rows


def _at(ranks: list[U64], place: int) -> int:
    for some in ranks:
        if place < len(some):
            return int(some[place])
        place -= len(some)
    raise IndexError(place)


def _chunks(column: ColumnReader, step: int, descending: bool) -> Iterator[I64]:
    """All rows with a value in the order of their values, some at a time."""
    entry = column.entry
    if entry.lookup == "bitmaps":
        codes = range(entry.distinct)
        for code in reversed(codes) if descending else codes:
            yield column.rows_of_code(code)
        return
    done = 0
    while done < entry.elements:
        stop = min(entry.elements, done + step)
        if descending:
            yield column.in_order(entry.elements - stop, entry.elements - done)[::-1]
        else:
            yield column.in_order(done, stop)
        done, step = stop, 2 * step
