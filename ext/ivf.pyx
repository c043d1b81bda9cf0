"""IVF: ranking of lists, scans of lists, and the layout of records.

A list is reached by the address of its *record* (docs/formats/part.md), which may lie in a map, in
a page of the cache or in a range just fetched. Addresses are trusted; arrays are checked.
"""

from collections import namedtuple

import numpy as np

from libc.math cimport INFINITY, sqrtf
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from vecstore.ext.rabitq cimport QueryTable, VsInt8Factors, VsKernels, VsRanked, active_kernels


cdef extern from "select.h" nogil:
    void vs_least(const VsKernels *kernels, const float *scores, size_t count, size_t n, VsRanked *items,
                  VsRanked *spare, int32_t *out)


cdef extern from *:
    """
    #define vs_lowest(mask) __builtin_ctz(mask)
    #define vs_count(mask) __builtin_popcount(mask)
    """
    int vs_lowest(uint32_t mask) nogil
    int vs_count(uint32_t mask) nogil


# Lists whose header and first block are on their way while one is scanned. From DRAM in random
# order, one list ahead took 20 ns a row at D = 384, four 8 to 10, more than that no less.
cdef enum:
    AHEAD = 4

MAX_CAPACITY = 1 << 24

Entries = namedtuple("Entries", "estimate bound g_add part row slot record")


cdef class Pool:
    """The `capacity` candidates of least estimate, kept while lists are scanned.

    Ties go to the lower part, then to the lower row, so that what is kept does not depend on the
    order of the scan. Not to be used by two threads at once.

    Raises
    ------
    ValueError
        If `capacity` is not from 1 to 2^24.
    """

    def __cinit__(self, Py_ssize_t capacity):
        self.reset(capacity)

    def __dealloc__(self):
        vs_pool_free(&self.pool)
        vs_pool_free(&self.nearest)

    def reset(self, Py_ssize_t capacity) -> None:
        """Empty the pool and set its capacity."""
        if capacity < 1 or capacity > MAX_CAPACITY:
            raise ValueError(f"capacity must be from 1 to {MAX_CAPACITY}, not {capacity}")
        if not vs_pool_reserve(&self.pool, capacity):
            raise MemoryError

    def __len__(self) -> int:
        return self.pool.size

    @property
    def capacity(self) -> int:
        """How many candidates it keeps."""
        return self.pool.capacity

    @property
    def threshold(self) -> float:
        """The greatest estimate kept once the pool is full; +inf before."""
        return self.pool.threshold

    def entries(self):
        """The candidates sorted by (estimate, part, row).

        Returns
        -------
        Entries
            estimate, bound, g_add f32[m], part i32[m], row i64[m] (of the part), slot i32[m] (row
            of its record), record u64[m] (address, 0 if none). An exact distance has bound 0 and
            g_add 0.
        """
        cdef Py_ssize_t i, n = self.pool.size
        result = Entries(
            np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.int32),
            np.empty(n, np.int64), np.empty(n, np.int32), np.empty(n, np.uint64),
        )
        cdef float[::1] estimate = result.estimate, bound = result.bound, g_add = result.g_add
        cdef int32_t[::1] part = result.part, slot = result.slot
        cdef int64_t[::1] row = result.row
        cdef uint64_t[::1] record = result.record
        cdef VsEntry **order = vs_pool_sorted(&self.pool)
        for i in range(n):
            estimate[i] = order[i].estimate
            bound[i] = order[i].bound
            g_add[i] = order[i].g_add
            part[i] = order[i].part
            row[i] = order[i].row
            slot[i] = order[i].slot
            record[i] = order[i].record
        return result


def rank_lists(
    QueryTable table not None,
    const float[:, ::1] cells not None,
    const uint32_t[::1] cell_lists not None,
    const uint8_t[::1] codes not None,
    Py_ssize_t n,
):
    """Numbers of the `n` lists whose centroids are nearest by their own 1-bit codes.

    Parameters
    ----------
    table : QueryTable
        Prepared.
    cells : f32[C, Dp]
        Centroids of the cells, the codes' own centroids.
    cell_lists : u32[C + 1]
        First list of each cell; the last is K.
    codes : u8
        Blocks cell by cell, each cell padded to whole blocks.
    n : int

    Returns
    -------
    i32[min(n, K)]
        By ascending estimate, ties by number.

    Raises
    ------
    ValueError
        If the table is not prepared, shapes do not agree, `cell_lists` descends, or the codes are
        fewer than it says.
    """
    table.require()
    if n < 0:
        raise ValueError(f"n must not be negative: {n}")
    check_cells(table, cells, cell_lists, codes)
    cdef size_t lists = cell_lists[cells.shape[0]]
    cdef size_t wanted = min(<size_t>n, lists)
    out = np.empty(wanted, dtype=np.int32)
    if wanted == 0:
        return out
    table.reserve_lists(lists)
    cdef int32_t[::1] result = out
    with nogil:
        rank(table, &cells[0, 0], &cell_lists[0], cells.shape[0], &codes[0], wanted, &result[0])
    return out


cdef int check_cells(
    QueryTable table, const float[:, ::1] cells, const uint32_t[::1] cell_lists, const uint8_t[::1] codes
) except -1:
    cdef Py_ssize_t count = cells.shape[0], c
    cdef size_t blocks = 0
    if <size_t>cells.shape[1] != table.table.padded_dim:
        raise ValueError(f"cells have {cells.shape[1]} columns, not {table.table.padded_dim}")
    if cell_lists.shape[0] != count + 1 or cell_lists[0] != 0:
        raise ValueError(f"cell_lists must be {count + 1} numbers from 0")
    for c in range(count):
        if cell_lists[c + 1] < cell_lists[c]:
            raise ValueError(f"cell_lists descends at cell {c}")
        blocks += vs_block_count(cell_lists[c + 1] - cell_lists[c])
    if <size_t>codes.shape[0] < blocks * vs_block_bytes(table.table.padded_dim):
        raise ValueError(f"{codes.shape[0]} bytes of codes do not hold {blocks} blocks")
    return 0


cdef void rank(
    QueryTable table,
    const float *cells,
    const uint32_t *cell_lists,
    size_t count,
    const uint8_t *block,
    size_t wanted,
    int32_t *out,
) noexcept nogil:
    """The `wanted` nearest lists; needs ``table.reserve_lists``.

    All cells are scored: leaving out the farthest half of them cost .007 of recall@10 on the glosses
    (60,000 x 384, 100 of 1,875 lists), which takes more time to win back than it saves.
    """
    cdef const VsKernels *kernels = active_kernels()
    cdef size_t padded_dim = table.table.padded_dim, block_bytes = vs_block_bytes(padded_dim)
    cdef size_t lists = cell_lists[count], c, i, end
    cdef float g_add
    for c in range(count):
        i = cell_lists[c]
        end = cell_lists[c + 1]
        if i == end:
            continue
        g_add = kernels.squared_l2(table.table.z, cells + c * padded_dim, padded_dim) - table.table.q_shift
        while i < end:
            # The slots beyond the cell's last are overwritten by the next cell's.
            kernels.score_block(&table.table, block, vs_first_slots(end - i), g_add, 0.0, table.scores + i)
            block += block_bytes
            i += VS_BLOCK_ROWS
    vs_least(kernels, table.scores, lists, wanted, table.ranked, table.ranked + lists, out)


def scan_lists(
    QueryTable table not None,
    Pool pool not None,
    int32_t part,
    const uint64_t[::1] addresses not None,
    const int64_t[::1] first_rows not None,
    const int64_t[::1] first_blocks not None,
    const uint32_t[::1] words not None,
    bint skip_bound=False,
    int32_t first_place=0,
) -> int:
    """Scan lists by their codes into the pool.

    Parameters
    ----------
    table : QueryTable
        Prepared.
    pool : Pool
    part : int
        Number of the part, noted with each candidate.
    addresses : u64[m]
        Of the lists' records.
    first_rows, first_blocks : i64[m]
        First row of each list in the part, and its first word.
    words : u32
        Allowed slots (live and matching the filter) of each block of the part.
    skip_bound : bool
        Do not compute bounds: they are +inf, and re-ranking prunes nothing.
    first_place : int
        Lists of the part that were scanned before these, in order of distance.

    Returns
    -------
    int
        Allowed rows scored. A block whose word is 0 is not touched.

    Raises
    ------
    ValueError
        If the table is not prepared, lengths differ, an address is 0, a record has no blocks of the
        table's dimensions, or a list's words are not all in `words` (the lists before it have been scanned then).
    """
    table.require()
    cdef Py_ssize_t m = addresses.shape[0], i = 0
    if first_rows.shape[0] != m or first_blocks.shape[0] != m:
        raise ValueError(f"{m} addresses, {first_rows.shape[0]} first rows and {first_blocks.shape[0]} first blocks")
    if m == 0:
        return 0
    cdef size_t ahead = VS_HEADER_BYTES + table.table.padded_dim + vs_block_bytes(table.table.padded_dim)
    cdef const uint32_t *first_word = &words[0] if words.shape[0] else NULL
    cdef int64_t scanned = 0, found = 0
    with nogil:
        for i in range(1, min(AHEAD, m)):
            vs_prefetch(<const uint8_t *>addresses[i], ahead)
        for i in range(m):
            if i + AHEAD < m:
                vs_prefetch(<const uint8_t *>addresses[i + AHEAD], ahead)
            found = scan_record(
                table, pool, part, first_place + <int32_t>i, addresses[i], first_rows[i], first_blocks[i], first_word, words.shape[0], skip_bound
            )
            if found < 0:
                break
            scanned += found
    if found < 0:
        refuse_record(found, i, table.table.padded_dim)
    return scanned


cdef enum:
    NO_RECORD = -1
    OTHER_RECORD = -2
    NO_WORDS = -3


cdef int refuse_record(int64_t why, Py_ssize_t i, size_t padded_dim) except -1:
    if why == NO_RECORD:
        raise ValueError(f"address {i} is 0")
    if why == OTHER_RECORD:
        raise ValueError(f"record {i} has no blocks of {padded_dim} dimensions")
    raise ValueError(f"words of list {i} are missing")


cdef int64_t scan_record(
    QueryTable table,
    Pool pool,
    int32_t part,
    int32_t place,
    uint64_t address,
    int64_t first_row,
    int64_t first_block,
    const uint32_t *words,
    int64_t word_count,
    bint skip_bound,
) noexcept nogil:
    """Allowed rows scored, or why the record is refused."""
    cdef const VsKernels *kernels = active_kernels()
    cdef VsPool *p = &pool.pool
    cdef size_t padded_dim = table.table.padded_dim, block_bytes = vs_block_bytes(padded_dim)
    cdef size_t lead = VS_HEADER_BYTES + padded_dim
    cdef const uint8_t *record = <const uint8_t *>address
    cdef const uint8_t *block
    cdef const float *errors
    cdef VsHeader header
    cdef VsEntry entry
    cdef float scores[32]
    cdef float distance, g_add, g_error
    cdef uint32_t allowed, mask
    cdef size_t b, blocks
    cdef int64_t scanned = 0
    cdef int slot
    if record == NULL:
        return NO_RECORD
    header = vs_header(record)
    if header.padded_dim != padded_dim or not header.flags & VS_HAS_BLOCKS:
        return OTHER_RECORD
    blocks = vs_block_count(header.n)
    if first_block < 0 or first_block + <int64_t>blocks > word_count:
        return NO_WORDS
    distance = squared_distance(&table.table, kernels, record, header)
    g_add = distance - table.table.q_shift
    g_error = sqrtf(distance) if distance > 0 else 0
    entry.part = part
    entry.place = place
    entry.exact = 0
    entry.bound = INFINITY
    entry.g_add = g_add
    entry.record = address
    for b in range(blocks):
        allowed = words[first_block + <int64_t>b] & vs_first_slots(header.n - b * VS_BLOCK_ROWS)
        if allowed == 0:
            continue
        scanned += vs_count(allowed)
        block = record + lead + b * block_bytes
        mask = kernels.score_block(&table.table, block, allowed, g_add, p.threshold, scores)
        errors = <const float *>(block + 4 * padded_dim) + 2 * VS_BLOCK_ROWS
        while mask:
            slot = vs_lowest(mask)
            mask &= mask - 1
            entry.estimate = scores[slot]
            entry.slot = <int32_t>(b * VS_BLOCK_ROWS) + slot
            entry.row = first_row + entry.slot
            if not skip_bound:
                entry.bound = errors[slot] * g_error
            vs_pool_offer(p, &entry)
    return scanned


cdef class ResidentLists:
    """The lists of a part whose records all lie in memory, ready to be probed in one call.

    Parameters
    ----------
    cells, cell_lists, codes
        As `rank_lists` takes them.
    addresses : u64[K]
        Of the records.
    first_rows, first_blocks : i64[K]
        First row and first word of each list.
    verified : bool[K]
        Whether a record was held against its checksum. Shared with the caller, who sets them.

    Raises
    ------
    ValueError
        If shapes do not agree.
    """

    cdef const float[:, ::1] cells
    cdef const uint32_t[::1] cell_lists
    cdef const uint8_t[::1] codes
    cdef const uint64_t[::1] addresses
    cdef const int64_t[::1] first_rows
    cdef const int64_t[::1] first_blocks
    cdef const uint8_t[::1] verified

    def __init__(self, cells, cell_lists, codes, addresses, first_rows, first_blocks, verified) -> None:
        self.cells = cells
        self.cell_lists = cell_lists
        self.codes = codes
        self.addresses = addresses
        self.first_rows = first_rows
        self.first_blocks = first_blocks
        self.verified = verified.view(np.uint8)
        cdef Py_ssize_t k = self.addresses.shape[0]
        check_cells(QueryTable(self.cells.shape[1]), self.cells, self.cell_lists, self.codes)
        if (
            self.cell_lists[self.cells.shape[0]] != k
            or k == 0
            or self.first_rows.shape[0] != k
            or self.first_blocks.shape[0] != k
            or self.verified.shape[0] != k
        ):
            raise ValueError(f"tables of different lengths for {k} lists")

    def probe(
        self,
        QueryTable table not None,
        Pool pool not None,
        int32_t part,
        Py_ssize_t first,
        Py_ssize_t last,
        const uint32_t[::1] words not None,
    ):
        """Rank the lists and scan those ranked from `first` to `last` - 1 into the pool.

        Returns
        -------
        int or i32[m]
            Allowed rows scored; or the lists among them that are not verified yet, and nothing has
            been scanned.

        Raises
        ------
        ValueError
            If the table is not prepared or has other dimensions, or as `scan_lists`.
        """
        table.require()
        if <size_t>self.cells.shape[1] != table.table.padded_dim:
            raise ValueError(f"the lists have {self.cells.shape[1]} dimensions, not {table.table.padded_dim}")
        cdef Py_ssize_t k = self.addresses.shape[0], i, missing = 0
        last = min(last, k)
        if first < 0 or first >= last or words.shape[0] == 0:
            return 0
        table.reserve_lists(k)
        cdef int32_t *order = table.order
        cdef size_t ahead = VS_HEADER_BYTES + table.table.padded_dim + vs_block_bytes(table.table.padded_dim)
        cdef int64_t scanned = 0, found = 0
        cdef int32_t number
        with nogil:
            rank(table, &self.cells[0, 0], &self.cell_lists[0], self.cells.shape[0], &self.codes[0], last, order)
            for i in range(first, last):
                missing += not self.verified[order[i]]
            if not missing:
                for i in range(first, min(first + AHEAD, last)):
                    vs_prefetch(<const uint8_t *>self.addresses[order[i]], ahead)
                for i in range(first, last):
                    if i + AHEAD < last:
                        vs_prefetch(<const uint8_t *>self.addresses[order[i + AHEAD]], ahead)
                    number = order[i]
                    found = scan_record(
                        table, pool, part, <int32_t>i, self.addresses[number], self.first_rows[number],
                        self.first_blocks[number], &words[0], words.shape[0], False,
                    )
                    if found < 0:
                        break
                    scanned += found
        if missing:
            return np.array([order[i] for i in range(first, last) if not self.verified[order[i]]], dtype=np.int32)
        if found < 0:
            refuse_record(found, order[i], table.table.padded_dim)
        return scanned


cdef int metric_number(str name) except -1:
    if name == "l2":
        return VS_L2
    if name == "dot":
        return VS_DOT
    if name == "cosine":
        return VS_COSINE
    raise ValueError(f"metric must be 'l2', 'dot' or 'cosine', not {name!r}")


cdef int is_half(str dtype) except -1:
    if dtype == "f4":
        return 0
    if dtype == "f2":
        return 1
    raise ValueError(f"dtype must be 'f4' or 'f2', not {dtype!r}")


def scan_vectors(
    const float[::1] q not None,
    Pool pool not None,
    int32_t part,
    uint64_t address,
    str dtype not None,
    Py_ssize_t n,
    str metric not None,
    const uint32_t[::1] words not None,
    uint64_t record=0,
) -> int:
    """Scan vectors as given, exactly, into the pool: a part of one list.

    Parameters
    ----------
    q : f32[D]
        The query as given; of norm 1 for the cosine.
    address : int
        Of `n` contiguous rows of D elements.
    dtype : "f4" or "f2"
    metric : "l2", "dot" or "cosine"
        The distance is ||q - o||^2, -2 <q, o> or 2 - 2 <q, o> / ||o|| (2 if o is zero).
    words : u32[>= ceil(n / 32)]
        Allowed rows.
    record : int
        Address of the record that holds the ids, 0 if there is none.

    Returns
    -------
    int
        Allowed rows scored.

    Raises
    ------
    ValueError
        If `words` is too short, the address is 0, or a name is unknown.
    """
    cdef int half = is_half(dtype)
    cdef int kind = metric_number(metric)
    cdef size_t dim = q.shape[0], row_bytes = dim * (2 if half else 4)
    if n < 0 or dim == 0 or vs_block_count(n) > <size_t>words.shape[0]:
        raise ValueError(f"{words.shape[0]} words do not hold {n} rows of {dim} dimensions")
    if n == 0:
        return 0
    if address == 0:
        raise ValueError("address is 0")
    cdef const VsKernels *kernels = active_kernels()
    cdef VsEntry entry
    cdef uint32_t allowed
    cdef Py_ssize_t start = 0, row
    cdef int64_t scanned = 0
    entry.bound = entry.g_add = 0
    entry.part = part
    entry.place = 0
    entry.exact = 1
    entry.record = record
    with nogil:
        while start < n:
            allowed = words[start // VS_BLOCK_ROWS] & vs_first_slots(n - start)
            scanned += vs_count(allowed)
            while allowed:
                row = start + vs_lowest(allowed)
                allowed &= allowed - 1
                entry.estimate = vs_exact_distance(kernels, &q[0], <const uint8_t *>address + row * row_bytes,
                                                dim, half, kind)
                entry.slot = <int32_t>row
                entry.row = row
                vs_pool_offer(&pool.pool, &entry)
            start += VS_BLOCK_ROWS
    return scanned


def scan_int8(
    QueryTable table not None,
    Pool pool not None,
    int32_t part,
    uint64_t record,
    int64_t first_row,
    const uint32_t[::1] words not None,
) -> int:
    """Score every allowed row of one record by its int8 row, into the pool.

    Parameters
    ----------
    record : int
        Address of a record that has int8 rows.
    first_row : int
        Of the record in its part.
    words : u32[>= ceil(n / 32)]
        Allowed rows of the record.

    Returns
    -------
    int
        Allowed rows scored. Re-ranking keeps their distances as they are.

    Raises
    ------
    ValueError
        If the table is not prepared, the address is 0, the record has no int8 rows of the table's
        dimensions, or `words` is too short.
    """
    table.require()
    if record == 0:
        raise ValueError("record is 0")
    cdef const uint8_t *base = <const uint8_t *>record
    cdef VsHeader header = vs_header(base)
    if header.padded_dim != table.table.padded_dim or not header.flags & VS_HAS_INT8:
        raise ValueError(f"the record has no int8 rows of {table.table.padded_dim} dimensions")
    if vs_block_count(header.n) > <size_t>words.shape[0]:
        raise ValueError(f"{words.shape[0]} words do not hold {header.n} rows")
    cdef const VsKernels *kernels = active_kernels()
    cdef size_t padded_dim = table.table.padded_dim
    cdef VsLayout at = vs_layout(header.n, padded_dim, header.flags)
    cdef VsEntry entry
    cdef uint32_t allowed
    cdef size_t start = 0, row
    cdef int64_t scanned = 0
    cdef const VsInt8Factors *factors = <const VsInt8Factors *>(base + at.factors)
    cdef float inner
    entry.bound = 0
    entry.part = part
    entry.place = 0
    entry.exact = 1
    entry.record = record
    with nogil:
        entry.g_add = squared_distance(&table.table, kernels, base, header) - table.table.q_shift
        while start < header.n:
            allowed = words[start // VS_BLOCK_ROWS] & vs_first_slots(header.n - start)
            scanned += vs_count(allowed)
            while allowed:
                row = start + vs_lowest(allowed)
                allowed &= allowed - 1
                inner = kernels.dot_i8(table.table.z, <const int8_t *>(base + at.int8) + row * padded_dim, padded_dim)
                entry.estimate = (entry.g_add + factors[row].add) - (2 * factors[row].scale) * inner
                entry.slot = <int32_t>row
                entry.row = first_row + <int64_t>row
                vs_pool_offer(&pool.pool, &entry)
            start += VS_BLOCK_ROWS
    return scanned


def record_layout(Py_ssize_t n, Py_ssize_t padded_dim, bint codes, bint int8) -> tuple:
    """Offsets within the record of a list of `n` rows.

    Returns
    -------
    blocks_offset, int8_offset, factors_offset, ids_offset : int
        An area that is absent has the offset of the next. The ids end the record, which is padded
        to a multiple of 64.

    Raises
    ------
    ValueError
        If `n` is negative or `padded_dim` no positive multiple of 64.
    """
    if n < 0 or padded_dim < 64 or padded_dim % 64:
        raise ValueError(f"no record of {n} rows and {padded_dim} dimensions")
    cdef VsLayout at = vs_layout(n, padded_dim, (VS_HAS_BLOCKS if codes else 0) | (VS_HAS_INT8 if int8 else 0))
    return at.blocks, at.int8, at.factors, at.ids
