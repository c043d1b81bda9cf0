"""Re-ranking: candidates of a pool by their int8 rows, and the last few by their vectors as given."""

from collections import namedtuple

import numpy as np

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from vecstore.ext.ivf cimport (
    VS_HAS_INT8,
    VS_HAS_U64_IDS,
    Pool,
    VsEntry,
    VsHeader,
    VsLayout,
    VsPool,
    is_half,
    metric_number,
    vs_exact_distance,
    vs_header,
    vs_layout,
    vs_pool_offer,
    vs_pool_reserve,
    vs_pool_sorted,
    vs_prefetch,
)
from vecstore.ext.rabitq cimport QueryTable, VsInt8Factors, VsKernels, active_kernels


cnp.import_array()

# Candidates whose int8 rows are on their way while one is scored.
cdef enum:
    AHEAD = 4

Hits = namedtuple("Hits", "distance part row ids reranked place margin")


cdef inline bint _find_int8(
    const VsEntry *entry, size_t padded_dim, const int8_t **row, const VsInt8Factors **factors
) noexcept nogil:
    """Where a candidate's int8 row is; false if its estimate is to stay."""
    cdef const uint8_t *record = <const uint8_t *>entry.record
    cdef VsHeader header
    cdef VsLayout at
    if entry.exact or record == NULL:
        return False
    header = vs_header(record)
    if header.padded_dim != padded_dim or not header.flags & VS_HAS_INT8:
        return False
    at = vs_layout(header.n, padded_dim, header.flags)
    row[0] = <const int8_t *>(record + at.int8) + entry.slot * padded_dim
    factors[0] = <const VsInt8Factors *>(record + at.factors) + entry.slot
    return True


cdef object _hits(VsEntry **order, Py_ssize_t m, int64_t reranked, float margin):
    # Straight to the arrays' memory: four memoryviews would take longer than ten hits.
    cdef cnp.npy_intp shape = m
    distances = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_FLOAT32, 0)
    parts = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_INT32, 0)
    rows = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_INT64, 0)
    id_array = cnp.PyArray_ZEROS(1, &shape, cnp.NPY_UINT64, 0)
    places = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_INT32, 0)
    cdef float *distance = <float *>cnp.PyArray_DATA(distances)
    cdef int32_t *part = <int32_t *>cnp.PyArray_DATA(parts)
    cdef int64_t *row = <int64_t *>cnp.PyArray_DATA(rows)
    cdef int32_t *place = <int32_t *>cnp.PyArray_DATA(places)
    cdef uint64_t *ids = <uint64_t *>cnp.PyArray_DATA(id_array)
    cdef const uint8_t *record
    cdef VsHeader header
    cdef VsLayout at
    cdef Py_ssize_t i
    with nogil:
        for i in range(m):
            distance[i] = order[i].estimate
            part[i] = order[i].part
            row[i] = order[i].row
            place[i] = order[i].place
            record = <const uint8_t *>order[i].record
            if record == NULL:
                continue
            header = vs_header(record)
            if header.flags & VS_HAS_U64_IDS:
                at = vs_layout(header.n, header.padded_dim, header.flags)
                memcpy(&ids[i], record + at.ids + 8 * <size_t>order[i].slot, 8)
    return Hits(distances, parts, rows, id_array, reranked, places, margin)


def pool_hits(Pool pool not None, Py_ssize_t top_k):
    """The `top_k` least estimates of a pool as they are.

    Returns
    -------
    Hits
        As ``rerank_int8``, with ``reranked`` 0.

    Raises
    ------
    ValueError
        If `top_k` is negative.
    """
    if top_k < 0:
        raise ValueError(f"top_k must not be negative: {top_k}")
    return _hits(vs_pool_sorted(&pool.pool), min(top_k, <Py_ssize_t>pool.pool.size), 0, INFINITY)


def rerank_int8(QueryTable table not None, Pool pool not None, Py_ssize_t top_k):
    """The `top_k` nearest candidates of a pool by their int8 rows.

    Candidates are taken by ascending estimate. One whose estimate less its bound is already beyond
    the running `top_k`-th distance is left out unread (*RaBitQ*, section 4). One without int8 rows
    (an exact distance, a record of 0 or without them) keeps its estimate.

    Parameters
    ----------
    table : QueryTable
        Of the query that filled the pool.
    pool : Pool
        Its records must still be readable.
    top_k : int

    Returns
    -------
    Hits
        distance f32[m], part i32[m], row i64[m], ids u64[m] (from the records; 0 where a record
        holds none), how many int8 rows were read, place i32[m] (lists of the part nearer than the
        hit's own) and margin: how far beyond the last hit the pool ends, in bounds of an estimate;
        +inf if the pool is not full. m = min(top_k, len(pool)). Sorted by (distance, part, row).

    Raises
    ------
    ValueError
        If the table is not prepared or `top_k` is negative.
    """
    table.require()
    if top_k < 0:
        raise ValueError(f"top_k must not be negative: {top_k}")
    cdef Py_ssize_t count = pool.pool.size, i, m = min(top_k, count)
    cdef size_t padded_dim = table.table.padded_dim
    if m == 0:
        return _hits(NULL, 0, 0, INFINITY)
    cdef const VsKernels *kernels = active_kernels()
    cdef VsPool *nearest = &pool.nearest
    if not vs_pool_reserve(nearest, m):
        raise MemoryError
    cdef VsEntry **order
    cdef VsEntry entry
    cdef const int8_t *row = NULL
    cdef const VsInt8Factors *factors = NULL
    cdef int64_t reranked = 0
    cdef float inner, margin = INFINITY
    with nogil:
        order = vs_pool_sorted(&pool.pool)
        for i in range(count + AHEAD):
            if i < count and not order[i].estimate - order[i].bound > nearest.threshold:
                if _find_int8(order[i], padded_dim, &row, &factors):
                    vs_prefetch(<const uint8_t *>row, padded_dim)
                    vs_prefetch(<const uint8_t *>factors, 1)
            if i < AHEAD:
                continue
            entry = order[i - AHEAD][0]
            if entry.estimate - entry.bound > nearest.threshold:
                continue
            if _find_int8(&entry, padded_dim, &row, &factors):
                inner = kernels.dot_i8(table.table.z, row, padded_dim)
                entry.estimate = (entry.g_add + factors.add) - (2 * factors.scale) * inner
                reranked += 1
            vs_pool_offer(nearest, &entry)
        # Whether a candidate that the pool dropped could still be among the nearest.
        if pool.pool.size == pool.pool.capacity and order[count - 1].bound > 0:
            margin = (order[count - 1].estimate - nearest.threshold) / order[count - 1].bound
    return _hits(vs_pool_sorted(nearest), nearest.size, reranked, margin)


def rerank_fp32(
    const float[::1] q not None, const uint64_t[::1] addresses not None, str dtype not None, str metric not None
):
    """Exact internal distances of single vectors as given.

    Parameters
    ----------
    q : f32[D]
        The query as given; of norm 1 for the cosine.
    addresses : u64[m]
        Of rows of D elements.
    dtype : "f4" or "f2"
    metric : "l2", "dot" or "cosine"
        The distance is ||q - o||^2, -2 <q, o> or 2 - 2 <q, o> / ||o|| (2 if o is zero).

    Returns
    -------
    f32[m]

    Raises
    ------
    ValueError
        If a name is unknown, `q` is empty or an address is 0.
    """
    cdef int half = is_half(dtype), kind = metric_number(metric)
    cdef Py_ssize_t m = addresses.shape[0], i
    cdef size_t dim = q.shape[0], row_bytes = dim * (2 if half else 4)
    if dim == 0:
        raise ValueError("q is empty")
    for i in range(m):
        if addresses[i] == 0:
            raise ValueError(f"address {i} is 0")
    out = np.empty(m, dtype=np.float32)
    cdef float[::1] distance = out
    cdef const VsKernels *kernels = active_kernels()
    with nogil:
        for i in range(min(2, m)):
            vs_prefetch(<const uint8_t *>addresses[i], row_bytes)
        for i in range(m):
            if i + 2 < m:
                vs_prefetch(<const uint8_t *>addresses[i + 2], row_bytes)
            distance[i] = vs_exact_distance(kernels, &q[0], <const void *>addresses[i], dim, half, kind)
    return out
