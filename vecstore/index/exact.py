"""Exact search: every live row of a view, by brute force. What answers are measured against.

Nothing of the approximate path is used: no codes, lists or calibration. Rows are taken as they are
stored (float32 or float16; int8 where a part keeps no vectors), a block at a time, and each block is
multiplied with all queries. That product, in float32, only chooses candidates, with some to spare;
their distances, and those of any other rows, are computed again in float64 by the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstore.index.view import OpenPart, View
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, Metric

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

BLOCK_BYTES: Final = 16 << 20  # of rows in float32, and of their products with queries
BLOCK_ROWS: Final = 16_384
SPARE: Final = 32  # candidates beyond top_k, for what float32 puts in the wrong order
ROUNDING: Final = 4.0 * float(np.finfo(np.float32).eps)  # of a distance computed in float32
CLOSE: Final = 0.005  # a cosine distance that is computed from a difference (VS_CLOSE of ext/exact.h)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The exact neighbours of M queries, nearest first.

    Attributes
    ----------
    parts, rows
        i64[M, k], where they lie; -1 where a query has fewer.
    distances
        f64[M, k], public distances; +inf where a query has fewer.
    rounding
        f64[M, k]: how far float32 may be off such a distance.
    counts
        i64[M]: neighbours of each query.
    """

    parts: I64
    rows: I64
    distances: F64
    rounding: F64
    counts: I64


def at_once() -> None:
    """The pace of work that need not spare others."""


def exact_search(
    view: View,
    queries: F32,
    top_k: int,
    trace: ReadTrace,
    *,
    skip: tuple[I64, I64] | None = None,
    pace: Callable[[], None] = at_once,
) -> Neighbours:
    """The ``top_k`` nearest live rows of every query.

    Parameters
    ----------
    queries
        f32[M, dim], validated, as given.
    skip
        i64[M] part and i64[M] row that is no neighbour of each query; -1 for none.
    pace
        Called between two blocks; may wait, or raise to end the search.
    """
    metric = view.manifest.metric
    asked = _unit(queries) if metric == "cosine" else queries
    keep = top_k + SPARE
    step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * view.manifest.dim)))
    width = max(1, BLOCK_BYTES // (4 * step))
    groups = [_Nearest(first, min(width, len(asked) - first), keep) for first in range(0, len(asked), width)]
    centre: F32 | None = None
    for part in view.parts:
        for rows in live_rows(part, step):
            block = read_rows(view, part, rows, trace)
            if metric == "cosine":
                block = _unit(block)
            if centre is None:
                # Distances do not change with the origin, and float32 tells rows apart best near it.
                centre = block.mean(axis=0)
                asked = asked if metric == "dot" else asked - centre
            block -= centre
            # Half the squared distance less what is the same for all rows; for the dot product, -<q, x - c>.
            offset = np.float32(0.0)
            if metric != "dot":
                offset = np.einsum("ij,ij->i", block, block) * np.float32(0.5)
            for group in groups:
                scores = asked[group.queries] @ block.T
                np.subtract(offset, scores, out=scores)
                if skip is not None:
                    _hide(scores, skip[0][group.queries], skip[1][group.queries], part.number, rows)
                group.offer(scores, part.number, rows)
                pace()
    return _in_order(view, queries, [group.settle() for group in groups], top_k, trace, pace)


def exact_distances(
    view: View,
    queries: F32,
    query: I64,
    part: I64,
    row: I64,
    trace: ReadTrace,
    *,
    pace: Callable[[], None] = at_once,
) -> tuple[F64, F64]:
    """Public distances of pairs of a query and a row, by the definition, in float64.

    Parameters
    ----------
    query, part, row
        i64[m]: which of ``queries``, and where the row lies.

    Returns
    -------
    tuple
        f64[m] distances, and f64[m] how far float32 may be off each of them.
    """
    distances = np.empty(len(query), dtype=np.float64)
    rounding = np.empty(len(query), dtype=np.float64)
    order = np.lexsort((row, part))
    step = max(1, BLOCK_BYTES // (16 * view.manifest.dim))  # two arrays of float64
    for number in np.unique(part).tolist():
        mine = order[part[order] == number]
        for start in range(0, len(mine), step):
            some = mine[start : start + step]
            rows = read_rows(view, view.parts[number], row[some], trace)
            distances[some], rounding[some] = _distances(rows, queries[query[some]], view.manifest.metric)
            pace()
    return distances, rounding


def live_rows(part: OpenPart, step: int) -> Iterator[I64]:
    """The live rows of a part in order, of at most ``step`` rows at a time."""
    for start in range(0, part.reader.entry.n, step):
        rows = np.arange(start, min(start + step, part.reader.entry.n), dtype=np.int64)
        if part.live.dead:
            rows = rows[part.live.is_live(rows)]
        if len(rows):
            yield rows


def read_rows(view: View, part: OpenPart, rows: I64, trace: ReadTrace) -> F32:
    """f32[m, dim], the caller's own: as stored, or from int8 where the part keeps no vectors."""
    found = part.reader.read_vectors(rows, trace)
    if found is not None:
        return found
    return part.reader.approximate_vectors(rows, view.rotation, view.means[part.group], trace)


class _Nearest:
    """The best candidates so far of some queries that lie together."""

    def __init__(self, first: int, count: int, keep: int) -> None:
        self.queries = slice(first, first + count)
        self._first = first
        self._count = count
        self._keep = keep
        self._limit = np.full((count, 1), np.inf, dtype=np.float32)  # what a candidate must stay below
        none = np.empty(0, dtype=np.int64)
        self._held: list[tuple[I64, F32, I64, I64]] = [(none, none.astype(np.float32), none, none)]
        self._new = 0

    def offer(self, scores: F32, part: int, rows: I64) -> None:
        """Rows of a part, f32[count, len(rows)] scores; lower is nearer, and +inf is none."""
        open_ended = bool(np.isinf(self._limit).any())
        if open_ended and len(rows) > self._keep:
            columns = np.argpartition(scores, self._keep - 1, axis=1)[:, : self._keep]
            below = np.take_along_axis(scores, columns, axis=1) < self._limit
            query, place = np.nonzero(below)
            column = columns[query, place]
        else:
            query, column = np.nonzero(scores < self._limit)
        if not len(query):
            return
        self._held.append((query, scores[query, column], np.full(len(query), part), rows[column]))
        self._new += len(query)
        if open_ended or self._new > self._count * self._keep:
            self.settle()

    def settle(self) -> tuple[I64, I64, I64]:
        """Drop all but the best; i64[m] query, part and row of those."""
        query, score, part, row = (np.concatenate(column) for column in zip(*self._held, strict=True))
        order = np.lexsort((score, query))
        starts = np.searchsorted(query[order], np.arange(self._count + 1))
        place = np.arange(len(order)) - starts[query[order]]
        kept = order[place < self._keep]
        full = np.flatnonzero(np.diff(starts) >= self._keep)
        self._limit[full, 0] = score[order[starts[full] + self._keep - 1]]
        self._held = [(query[kept], score[kept], part[kept], row[kept])]
        self._new = 0
        return query[kept] + self._first, part[kept], row[kept]


def _in_order(
    view: View,
    queries: F32,
    found: list[tuple[I64, I64, I64]],
    top_k: int,
    trace: ReadTrace,
    pace: Callable[[], None],
) -> Neighbours:
    """Candidates by their distances in float64, ties by part and row."""
    query, part, row = (np.concatenate(column) for column in zip(*found, strict=True))
    distance, rounding = exact_distances(view, queries, query, part, row, trace, pace=pace)
    order = np.lexsort((row, part, distance, query))
    starts = np.searchsorted(query[order], np.arange(len(queries) + 1))
    place = np.arange(len(order)) - starts[query[order]]
    order, place = order[place < top_k], place[place < top_k]
    shape = (len(queries), top_k)
    out = Neighbours(
        np.full(shape, -1, dtype=np.int64),
        np.full(shape, -1, dtype=np.int64),
        np.full(shape, np.inf, dtype=np.float64),
        np.zeros(shape, dtype=np.float64),
        np.minimum(np.diff(starts), top_k),
    )
    at = (query[order], place)
    out.parts[at], out.rows[at] = part[order], row[order]
    out.distances[at], out.rounding[at] = distance[order], rounding[order]
    return out


def _hide(scores: F32, parts: I64, skipped: I64, number: int, rows: I64) -> None:
    """Put the row that each query skips beyond all others, where it is among ``rows``."""
    mine = np.flatnonzero(parts == number)
    at = np.minimum(np.searchsorted(rows, skipped[mine]), len(rows) - 1)
    here = rows[at] == skipped[mine]
    scores[mine[here], at[here]] = np.inf


def _unit(rows: F32) -> F32:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    unit: F32 = (rows / norms[:, None]).astype(np.float32)
    return unit


def _distances(rows: F32, queries: F32, metric: Metric) -> tuple[F64, F64]:
    """Of each row to the query beside it, with the rounding of float32."""
    x, q = rows.astype(np.float64), queries.astype(np.float64)
    if metric == "dot":
        norms = np.linalg.norm(x, axis=1) * np.linalg.norm(q, axis=1)
        return -np.einsum("ij,ij->i", x, q), ROUNDING * norms
    if metric == "l2":
        x -= q
        found = np.einsum("ij,ij->i", x, x)
        return found, ROUNDING * found
    x /= np.linalg.norm(x, axis=1)[:, None]
    q /= np.linalg.norm(q, axis=1)[:, None]
    x -= q
    found = 0.5 * np.einsum("ij,ij->i", x, x)
    # By a difference of unit vectors, each rounded; beyond that by one less a product.
    return found, np.where(found < CLOSE, ROUNDING * (np.sqrt(2.0 * found) + ROUNDING), ROUNDING)
