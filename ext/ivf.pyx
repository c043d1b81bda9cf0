"""IVF: ranking of lists, scans of lists, and the layout of records.

A list is reached by the address of its *record* (docs/formats/part.md), which may lie in a map, in
a page of the cache or in a range just fetched. Addresses are trusted; arrays are checked.
"""

from collections import namedtuple

import numpy as np

from libc.math cimport INFINITY
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from vecstore.ext.rabitq cimport QueryTable, VsKernels, VsRanked, VsTable, active_kernels


MAX_CAPACITY = 1 << 24
LOOKED_AT_A_LIST = VS_LOOKED_AT_A_LIST
LOOKED_AT_LEAST = VS_LOOKED_AT_LEAST
LOOKED_AT_SHARE = VS_LOOKED_AT_SHARE

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
        vs_nearest_free(&self.nearest)

    def reset(self, Py_ssize_t capacity) -> None:
        """Empty the pool and set its capacity."""
        if capacity < 1 or capacity > MAX_CAPACITY:
            raise ValueError(f"capacity must be from 1 to {MAX_CAPACITY}, not {capacity}")
        self.tables = []
        if not vs_pool_reserve(&self.pool, active_kernels(), capacity):
            raise MemoryError

    def __len__(self) -> int:
        return min(self.pool.size, self.pool.capacity)

    @property
    def capacity(self) -> int:
        """How many candidates it keeps."""
        return self.pool.capacity

    @property
    def threshold(self) -> float:
        """What is beyond is not kept; at least the greatest estimate kept, +inf until the pool is full."""
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
        cdef size_t n = 0, i
        cdef const VsRanked *order = vs_pool_order(&self.pool, &n)
        result = Entries(
            np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.int32),
            np.empty(n, np.int64), np.empty(n, np.int32), np.empty(n, np.uint64),
        )
        cdef float[::1] estimate = result.estimate, bound = result.bound, g_add = result.g_add
        cdef int32_t[::1] part = result.part, slot = result.slot
        cdef int64_t[::1] row = result.row
        cdef uint64_t[::1] record = result.record
        cdef uint64_t ref
        cdef const VsProbe *probe
        for i in range(n):
            ref = self.pool.refs[order[i].value]
            probe = vs_pool_probe_of(&self.pool, ref)
            estimate[i] = self.pool.estimates[order[i].value]
            bound[i] = self.pool.bounds[order[i].value]
            g_add[i] = probe.g_add
            part[i] = probe.part
            row[i] = vs_pool_row_of(&self.pool, ref)
            slot[i] = <int32_t><uint32_t>ref
            record[i] = <uint64_t>probe.record
        return result


def rank_lists(
    QueryTable table not None,
    const float[:, ::1] cells not None,
    const uint32_t[::1] cell_lists not None,
    const uint8_t[::1] codes not None,
    Py_ssize_t n,
    float[::1] estimates=None,
):
    """Numbers of the `n` lists whose centroids are nearest by their own 1-bit codes.

    Among those of the nearest cells that hold `LOOKED_AT_A_LIST` times `n` lists and one in `LOOKED_AT_SHARE`
    of all, `LOOKED_AT_LEAST` at least.

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
    estimates : f32[>= min(n, K)] or None
        Filled with their estimates; +inf for one that is no number.

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
    cdef Lists lists = Lists(table.table.padded_dim, cells, cell_lists, codes)
    cdef size_t wanted = min(<size_t>n, lists.k), count, rest = 0
    if estimates is not None and <size_t>estimates.shape[0] < wanted:
        raise ValueError(f"{estimates.shape[0]} estimates of {wanted} lists")
    if wanted == 0:
        return np.empty(0, dtype=np.int32)
    cdef Shortlist found = Shortlist(lists.k)
    cdef uint64_t[::1] order = np.empty(2 * cells.shape[0], dtype=np.uint64)
    out, scores = np.empty(lists.k, dtype=np.int32), np.empty(lists.k, dtype=np.float32)
    cdef int32_t[::1] result = out
    cdef float[::1] of_result = scores
    cdef uint8_t[::1] seen = np.zeros(lists.k, dtype=np.uint8)
    cdef const VsKernels *kernels = active_kernels()
    with nogil:
        count = vs_rank_lists(kernels, &table.table, &lists.lists, &found.found, <VsRanked *>&order[0], NULL, wanted,
                              wanted, vs_lists_looked_at(wanted, lists.k), &result[0], &of_result[0], &rest)
        if count < wanted:
            vs_add_lists(lists.k, &seen[0], 0, wanted, count, &result[0], &of_result[0])
    if estimates is not None:
        np.asarray(estimates)[:wanted] = scores[:wanted]
    return out[:wanted].copy()


cdef class Shortlist:
    """Scratch of ranking `lists` lists."""

    cdef VsShortlist found

    def __cinit__(self, size_t lists):
        if not vs_shortlist_reserve(&self.found, lists):
            raise MemoryError

    def __dealloc__(self):
        vs_shortlist_free(&self.found)


cdef class Lists:
    """A part's lists as ranking needs them; arguments and errors as those of `rank_lists`."""

    def __init__(self, Py_ssize_t padded_dim, const float[:, ::1] cells not None,
                 const uint32_t[::1] cell_lists not None, const uint8_t[::1] codes not None) -> None:
        check_cells(padded_dim, cells, cell_lists, codes)
        cdef Py_ssize_t count = cells.shape[0]
        cdef uint8_t[::1] measured = np.zeros(max(1, count * sizeof(VsCell)), dtype=np.uint8)
        cdef int8_t[::1] centroids = np.zeros(max(1, count * padded_dim), dtype=np.int8)
        self.keep = (cell_lists, codes, measured, centroids)
        if count == 0 or cell_lists[count] == 0:
            return
        self.k = cell_lists[count]
        self.lists.cells = <const VsCell *>&measured[0]
        self.lists.centroids = &centroids[0]
        self.lists.cell_lists = &cell_lists[0]
        self.lists.codes = &codes[0]
        self.lists.cell_count = count
        vs_measure_cells(padded_dim, &cells[0, 0], &cell_lists[0], count, &codes[0], <VsCell *>&measured[0], &centroids[0])


cdef int check_cells(
    size_t padded_dim, const float[:, ::1] cells, const uint32_t[::1] cell_lists, const uint8_t[::1] codes
) except -1:
    cdef Py_ssize_t count = cells.shape[0], c
    cdef size_t blocks = 0
    if <size_t>cells.shape[1] != padded_dim:
        raise ValueError(f"cells have {cells.shape[1]} columns, not {padded_dim}")
    if cell_lists.shape[0] != count + 1 or cell_lists[0] != 0:
        raise ValueError(f"cell_lists must be {count + 1} numbers from 0")
    for c in range(count):
        if cell_lists[c + 1] < cell_lists[c]:
            raise ValueError(f"cell_lists descends at cell {c}")
        blocks += vs_block_count(cell_lists[c + 1] - cell_lists[c])
    if <size_t>codes.shape[0] < blocks * vs_block_bytes(padded_dim):
        raise ValueError(f"{codes.shape[0]} bytes of codes do not hold {blocks} blocks")
    return 0


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
        Prepared; what it holds must not change while the pool is in use.
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
        Bounds are +inf, and re-ranking prunes nothing.
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
    cdef size_t count = words.shape[0]
    cdef const uint32_t *first_word = &words[0] if count else NULL
    cdef const VsKernels *kernels = active_kernels()
    cdef size_t ahead = vs_bytes_ahead(count, table.table.padded_dim)
    pool.tables.append(table)
    cdef int64_t scanned = 0, found = 0
    with nogil:
        for i in range(1, min(VS_LISTS_AHEAD, m)):
            vs_prefetch_ahead(<const uint8_t *>addresses[i], ahead)
        for i in range(m):
            if i + VS_LISTS_AHEAD < m:
                vs_prefetch_ahead(<const uint8_t *>addresses[i + VS_LISTS_AHEAD], ahead)
            if first_blocks[i] < 0 or first_blocks[i] > <int64_t>count:
                found = VS_NO_WORDS
                break
            found = vs_scan_list(
                kernels, &table.table, &pool.pool, <const uint8_t *>addresses[i], first_rows[i],
                first_word + first_blocks[i], count - first_blocks[i], part, first_place + <int32_t>i, not skip_bound,
            )
            if found < 0:
                break
            scanned += found
    refuse(found, i, table.table.padded_dim)
    return scanned


def choose_extents(
    const int32_t[::1] lists not None,
    const double[::1] gains not None,
    const int64_t[::1] bounds not None,
    double price,
    Py_ssize_t request,
):
    """The extents of a file whose lists gain most beyond what their bytes and their requests cost.

    An extent is consecutive lists: those in between that gain nothing are paid for like the others. Found by going
    along the lists once, with the best choice so far that ends in an open extent, and the best that does not.

    Parameters
    ----------
    lists : i32[n]
        Numbers of the lists that gain something, ascending.
    gains : f64[n]
    bounds : i64[K + 1]
        Where each list's bytes begin, and the last one's end.
    price : float
        Of a byte, in gains.
    request : int
        The bytes that a request costs beside its own.

    Returns
    -------
    firsts, ends : i32[m]
        Lists `firsts[i]` to `ends[i] - 1` are extent i; ascending.

    Raises
    ------
    ValueError
        If shapes do not agree, the numbers do not ascend, or one has no bounds.
    """
    cdef Py_ssize_t n = lists.shape[0], i
    cdef int32_t last = -1
    if gains.shape[0] != n:
        raise ValueError(f"{gains.shape[0]} gains of {n} lists")
    for i in range(n):
        if lists[i] <= last or lists[i] + 1 >= bounds.shape[0]:
            raise ValueError(f"list {lists[i]} follows list {last}, of {bounds.shape[0] - 1}")
        last = lists[i]
    cdef uint8_t[::1] goes_on = np.zeros(max(1, n), dtype=np.uint8), ends_here = np.zeros(max(1, n), dtype=np.uint8)
    cdef double within = -INFINITY, closed = 0, opened, further, own
    with nogil:
        for i in range(n):
            own = gains[i] - price * (bounds[lists[i] + 1] - bounds[lists[i]])
            opened = closed - price * request
            further = within - price * (bounds[lists[i]] - bounds[lists[i - 1] + 1]) if i else within
            goes_on[i] = further > opened
            within = (further if goes_on[i] else opened) + own
            if within > closed:
                ends_here[i] = True
                closed = within
    firsts, ends = [], []
    i = n - 1
    while i >= 0:
        if ends_here[i]:
            ends.append(lists[i] + 1)
            while goes_on[i]:
                i -= 1
            firsts.append(lists[i])
        i -= 1
    return np.array(firsts[::-1], dtype=np.int32), np.array(ends[::-1], dtype=np.int32)


cdef int refuse(int64_t found, Py_ssize_t i, size_t padded_dim) except -1:
    if found == VS_NO_RECORD:
        raise ValueError(f"address {i} is 0")
    if found == VS_OTHER_RECORD:
        raise ValueError(f"record {i} has no blocks of {padded_dim} dimensions, or no int8 rows")
    if found == VS_NO_WORDS:
        raise ValueError(f"words of list {i} are missing")
    if found == VS_NO_MEMORY:
        raise MemoryError
    return 0


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
    cdef int64_t scanned
    with nogil:
        scanned = vs_scan_vectors(kernels, &q[0], &pool.pool, part, <const uint8_t *>address, n, dim, half, kind,
                                  &words[0], <const uint8_t *>record)
    refuse(scanned, 0, 0)
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
    cdef const uint32_t *allowed = &words[0] if words.shape[0] else NULL
    cdef int64_t scanned
    pool.tables.append(table)
    with nogil:
        scanned = vs_scan_int8(kernels, &table.table, &pool.pool, part, base, first_row, allowed)
    refuse(scanned, 0, table.table.padded_dim)
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
