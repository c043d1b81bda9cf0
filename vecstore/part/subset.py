"""A part of some rows of another, as they are: the same lists, codes, int8 rows and vectors, bit for bit.

Nothing is trained, encoded or rounded, so that rows may be copied as often as one likes. What copies
them gives them other attributes (decision 0022). Imports what `vecstore.part.builder` imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import numpy.typing as npt

from vecstore.ext.ivf import record_layout
from vecstore.index.ivf import BLOCK, Partition
from vecstore.part.builder import PartImage, PartSpec, list_table, write_strings
from vecstore.part.reader import PartReader
from vecstore.rows.column import Column
from vecstore.rows.encoding import encode_columns
from vecstore.rows.ids import Ids
from vecstore.storage.cache import ReadTrace

Bytes = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

HEADER = 64  # bytes of a record before its centroid
HAS_INT8 = 1


def copy_rows(
    reader: PartReader,
    rows: I64,
    ids: Ids,
    attributes: Mapping[str, Column],
    spec: PartSpec,
    trace: ReadTrace,
) -> PartImage:
    """The part of ``rows`` of another, in the same order.

    Parameters
    ----------
    rows
        i64[m], ascending, at least one.
    ids, attributes
        Of these rows, in their order; the ids as they are given out, so that none are assigned.
    spec
        How the namespace encodes its parts; the mean must be the one that the other part names.
    """
    coded, width = reader.cells is not None, reader.padded_dim
    numbers, starts = np.unique(reader.lists_of(rows), return_index=True)
    starts = np.append(starts, len(rows)).astype(np.int64)
    pages = reader.record_pages(numbers, trace)
    first = next(pages)
    int8 = bool(_flags(first) & HAS_INT8)
    strings = ids.values if ids.kind == "string" else None
    lists = list_table(np.diff(starts), width, strings, starts, codes=coded, int8=int8)
    records = np.zeros(int(lists["offset"][-1]) + int(lists["length"][-1]), dtype=np.uint8)
    for i, (number, page) in enumerate(zip(numbers.tolist(), chain([first], pages), strict=True)):
        span = slice(int(starts[i]), int(starts[i + 1]))
        some = rows[span] - reader.first_rows[number]
        record = records[int(lists["offset"][i]) :][: int(lists["length"][i])]
        _copy_record(page, int(reader.list_rows[number]), some, record, width, coded=coded, int8=int8)
        if strings is None:
            at = record_layout(len(some), width, coded, int8)[3]
            record[at : at + 8 * len(some)] = ids.values[span].astype("<u8").view(np.uint8)
    if strings is not None:
        write_strings(records, lists, strings, width, codes=coded, int8=int8)
    partition, codes, calibration = None, None, None
    if coded:
        heads = np.stack([records[at : at + HEADER + width] for at in lists["offset"].tolist()])
        partition, codes = _partition(reader, numbers, starts, heads)
        if reader.calibration is not None and len(numbers) > 1:
            calibration = reader.calibration.among(reader.entry.n, len(numbers))
    vectors = reader.read_vectors(rows, trace)
    return PartImage(
        spec,
        reader.entry.vectors,
        np.empty((len(rows), 0), dtype=np.float32) if vectors is None else vectors,
        ids,
        partition,
        records,
        lists,
        codes,
        calibration,
        encode_columns(attributes),
    )


def _flags(record: Bytes) -> int:
    return int(record[4:8].view("<u4")[0])


def _copy_record(
    page: Bytes, n: int, rows: I64, record: Bytes, width: int, *, coded: bool, int8: bool
) -> None:
    """Rows of one list into a record of their own, but for their ids."""
    m = len(rows)
    blocks, values, factors, _ = record_layout(n, width, coded, int8)
    to_blocks, to_values, to_factors, _ = record_layout(m, width, coded, int8)
    record[: HEADER + width] = page[: HEADER + width]
    record[:4] = np.array([m], dtype="<u4").view(np.uint8)
    if coded:
        size = 4 * width + 12 * BLOCK
        taken = take_slots(page[blocks:values].reshape(-1, size), rows)
        record[to_blocks:to_values] = taken.reshape(-1)
    if int8:
        every = page[values : values + n * width].reshape(n, width)
        record[to_values : to_values + m * width] = every[rows].reshape(-1)
        pairs = page[factors : factors + 8 * n].reshape(n, 8)
        record[to_factors : to_factors + 8 * m] = pairs[rows].reshape(-1)


def take_slots(blocks: Bytes, slots: I64) -> Bytes:
    """Some slots of blocks of codes, in this order, as blocks; what is left of the last one is zero.

    Parameters
    ----------
    blocks
        u8[nb, 4 * Dp + 384], as ``docs/formats/part.md`` has them.
    """
    n, codes = len(blocks), blocks.shape[1] - 12 * BLOCK
    pairs = codes // BLOCK
    wanted = -(-len(slots) // BLOCK)
    packed = blocks[:, :codes].reshape(n, pairs, 2, BLOCK // 2)
    groups = np.concatenate([packed & 15, packed >> 4], axis=3)  # of slots 0 to 15, and of 16 to 31
    by_slot = groups.transpose(0, 3, 1, 2).reshape(n * BLOCK, 2 * pairs)
    chosen = np.zeros((wanted * BLOCK, 2 * pairs), dtype=np.uint8)
    chosen[: len(slots)] = by_slot[slots]
    back = chosen.reshape(wanted, BLOCK, pairs, 2).transpose(0, 2, 3, 1)
    factors = blocks[:, codes:].reshape(n, 3, BLOCK, 4).transpose(0, 2, 1, 3).reshape(n * BLOCK, 12)
    taken = np.zeros((wanted * BLOCK, 12), dtype=np.uint8)
    taken[: len(slots)] = factors[slots]
    out = np.empty((wanted, blocks.shape[1]), dtype=np.uint8)
    out[:, :codes] = (back[..., : BLOCK // 2] | (back[..., BLOCK // 2 :] << 4)).reshape(wanted, codes)
    out[:, codes:] = taken.reshape(wanted, BLOCK, 3, 4).transpose(0, 2, 1, 3).reshape(wanted, 12 * BLOCK)
    return out


def _partition(reader: PartReader, numbers: I64, starts: I64, heads: Bytes) -> tuple[Partition, Bytes]:
    """The lists that have rows left, in their cells, and the codes of their centroids.

    Parameters
    ----------
    heads
        u8[lists, 64 + Dp]: their records up to the end of the centroid.
    """
    assert reader.cells is not None  # of a part that has codes
    width, firsts = reader.padded_dim, reader.cell_lists.astype(np.int64)
    blocks = reader.centroid_codes.reshape(-1, 4 * width + 12 * BLOCK)
    ends = np.cumsum(-(-np.diff(firsts) // BLOCK))
    kept, sizes, codes = [], [], []
    for cell in range(len(reader.cells)):
        low, high = np.searchsorted(numbers, firsts[cell : cell + 2])
        if low == high:
            continue
        first = 0 if cell == 0 else int(ends[cell - 1])
        kept.append(cell)
        sizes.append(int(high - low))
        codes.append(take_slots(blocks[first : int(ends[cell])], numbers[low:high] - firsts[cell]))
    partition = Partition(
        cells=np.ascontiguousarray(reader.cells[kept]),
        cell_lists=np.append(0, np.cumsum(sizes)).astype(np.uint32),
        centroids=heads[:, HEADER:].view(np.int8),
        scales=np.ascontiguousarray(heads[:, 8:12]).view("<f4")[:, 0],
        order=np.arange(int(starts[-1]), dtype=np.int64),
        starts=starts,
    )
    return partition, np.concatenate(codes)
