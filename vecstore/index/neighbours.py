"""The nearest rows of a part that was just encoded, found through its own codes.

An exact search compares every query with every row, in float32: of a million rows that was a third of
their build. Here the codes of all lists are scanned instead, and float32 decides among the few rows that
they and int8 leave. No list is preferred, so that what calibration learns of lists is not biased by
them (docs/decisions/0016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.ext.ivf import Pool, scan_lists
from vecstore.ext.rabitq import QueryTable
from vecstore.ext.rerank import rerank_int8
from vecstore.index.training import in_parts
from vecstore.live import LiveSet
from vecstore.types import F32

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

CANDIDATES: Final = 16  # by the codes, a neighbour wanted, of up to `FEW`
FINALISTS: Final = 2  # by int8, a neighbour wanted, of up to `FEW`
FEW: Final = 512
CANDIDATES_OF_MANY: Final = 2  # where many neighbours are wanted, whose last few matter little
FINALISTS_OF_MANY: Final = 1.125
FAR_OUT: Final = 4  # times as many of a query so far out that codes and int8 tell less apart
QUERIES_A_TASK: Final = 32  # that read a list while it is in the cache
LISTS_A_TURN: Final = 128  # whose codes fit there
LONGEST: Final = 2_048  # rows that are candidates of every query under the inner product
ROWS_A_BLOCK: Final = 8_192
ROWS_AT_ONCE: Final = 512  # of float32, which a processor's cache holds


@dataclass(frozen=True, slots=True)
class Encoded:
    """The records of a part in memory, as scans want them.

    Attributes
    ----------
    records
        u8: what the addresses lie in.
    addresses, first_rows, first_blocks
        u64[K], i64[K], i64[K].
    words
        u32[blocks]: all rows.
    """

    records: npt.NDArray[np.uint8]
    addresses: npt.NDArray[np.uint64]
    first_rows: I64
    first_blocks: I64
    words: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, records: npt.NDArray[np.uint8], lists: npt.NDArray[Any]) -> Encoded:
        """Records, and the table of lists that says where each begins."""
        live = LiveSet.from_deletes(None, int(lists["rows"].sum()), lists["rows"].astype(np.int64))
        addresses = lists["offset"].astype(np.uint64) + np.uint64(records.ctypes.data)
        return cls(records, addresses, live.first_row[:-1], live.first_block[:-1], live.words)

    def scan(self, table: QueryTable, pool: Pool, lists: I32 | slice) -> None:
        """Scan some lists by their codes into the pool."""
        scan_lists(
            table,
            pool,
            0,
            self.addresses[lists],
            self.first_rows[lists],
            self.first_blocks[lists],
            self.words,
        )


def nearest_rows(
    z: F32,
    order: I64,
    encoded: Encoded,
    asked: I64,
    queries: F32,
    k: int,
    *,
    towards: F32 | None = None,
    ready: Callable[[QueryTable], object] = lambda _: None,
    pool: Executor | None = None,
) -> tuple[I64, F32]:
    """The nearest other rows of some rows of a part.

    Parameters
    ----------
    z
        f32[N, Dp], rotated; row r of the part is ``z[order[r]]``.
    asked, queries
        i64[Q], f32[Q, Dp]: rows of ``z``, and each as the codes are asked for it.
    k
        Less than N.
    towards
        f32[Q, Dp] by whose inner product rows are near; None for squared L2 to ``z[asked]``.
    ready
        Called with each prepared table before it scans: a ranking refines that of a query far out.
    pool
        Threads to work with; None for the caller's alone. The answer does not depend on it.

    Returns
    -------
    i64[Q, k], f32[Q, k]
        Rows of the part, the nearest first, ties by number; squared distances, or inner products negated.
    """
    rows = np.empty((len(asked), k), dtype=np.int64)
    distances = np.empty((len(asked), k), dtype=np.float32)

    longest = np.empty(0, dtype=np.int64) if towards is None else _longest(z, order)
    long_rows = z[order[longest]]

    def some(these: slice) -> None:
        candidates = _candidates(encoded, queries[these], k, ready)
        if towards is not None:
            # A long row whose code is unlucky has an estimate at the end of all, and may be the nearest.
            first = np.argsort(-(long_rows @ towards[these].T), axis=0)[: k + 1].T
            candidates = [np.union1d(*both) for both in zip(candidates, longest[first], strict=True)]
        for i, found in zip(range(these.start, these.stop), candidates, strict=True):
            found = np.sort(found[order[found] != asked[i]])
            far = np.empty(len(found), dtype=np.float32)
            for start in range(0, len(found), ROWS_AT_ONCE):
                block = slice(start, start + ROWS_AT_ONCE)
                there = z[order[found[block]]]
                if towards is None:
                    there -= z[asked[i]]
                    far[block] = np.einsum("ij,ij->i", there, there)
                else:
                    far[block] = -(there @ towards[i])
            first = np.argsort(far, kind="stable")[:k]
            rows[i], distances[i] = found[first], far[first]

    tasks = [
        slice(start, min(start + QUERIES_A_TASK, len(asked)))
        for start in range(0, len(asked), QUERIES_A_TASK)
    ]
    in_parts(pool, some, tasks)
    return rows, distances


def _longest(z: F32, order: I64) -> I64:
    """i64[m]: the rows of the part that are farthest from its mean."""
    squares = np.empty(len(z), dtype=np.float32)
    for start in range(0, len(z), ROWS_A_BLOCK):
        block = z[start : start + ROWS_A_BLOCK]
        squares[start : start + ROWS_A_BLOCK] = np.einsum("ij,ij->i", block, block)
    return np.argsort(-squares[order], kind="stable")[:LONGEST]


def _candidates(
    encoded: Encoded, queries: F32, k: int, ready: Callable[[QueryTable], object]
) -> Sequence[I64]:
    """Rows of the part for each query, itself among them."""
    tables = [QueryTable(queries.shape[1]) for _ in queries]
    for table, query in zip(tables, queries, strict=True):
        table.prepare(query, 0.0)
        ready(table)
    wanted = [(k + 1) * (FAR_OUT if table.fine else 1) for table in tables]
    pools = [Pool(max(CANDIDATES * min(some, FEW), CANDIDATES_OF_MANY * some)) for some in wanted]
    for start in range(0, len(encoded.addresses), LISTS_A_TURN):
        for table, pool in zip(tables, pools, strict=True):
            encoded.scan(table, pool, slice(start, start + LISTS_A_TURN))
    return [
        rerank_int8(table, pool, max(FINALISTS * min(some, FEW), int(FINALISTS_OF_MANY * some))).row
        for table, pool, some in zip(tables, pools, wanted, strict=True)
    ]
