"""Re-ranking: candidates of a pool by their int8 rows, and the last few by their vectors as given."""

from collections import namedtuple

import numpy as np

cimport numpy as cnp
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from vecstore.ext.ivf cimport (
    Pool,
    VsHit,
    VsNearest,
    is_half,
    metric_number,
    vs_exact_distance,
    vs_id_of,
    vs_nearest_reserve,
    vs_nearest_sort,
    vs_prefetch,
    vs_pool_order,
    vs_rerank,
    vs_take_estimates,
)
from vecstore.ext.rabitq cimport QueryTable, VsKernels, VsRanked, active_kernels


cnp.import_array()

Hits = namedtuple("Hits", "distance part row ids reranked place margin")


cdef object hits_of(VsNearest *nearest, int64_t reranked, float margin):
    # Straight to the arrays' memory: four memoryviews would take longer than ten hits.
    cdef cnp.npy_intp shape = nearest.size
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
    cdef const VsHit *hit
    cdef size_t i
    with nogil:
        vs_nearest_sort(nearest)
        for i in range(nearest.size):
            hit = nearest.hits + i
            distance[i] = hit.distance
            part[i] = hit.part
            row[i] = hit.row
            place[i] = hit.place
            vs_id_of(hit, ids + i)
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
    if not vs_nearest_reserve(&pool.nearest, min(<size_t>top_k, <size_t>len(pool))):
        raise MemoryError
    with nogil:
        vs_take_estimates(&pool.pool, &pool.nearest)
    return hits_of(&pool.nearest, 0, INFINITY)


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
    cdef const VsKernels *kernels = active_kernels()
    cdef int64_t reranked
    cdef size_t count = 0
    cdef const VsRanked *order
    cdef float margin = INFINITY
    if not vs_nearest_reserve(&pool.nearest, min(<size_t>top_k, <size_t>len(pool))):
        raise MemoryError
    with nogil:
        order = vs_pool_order(&pool.pool, &count)
        reranked = vs_rerank(kernels, &pool.pool, order, count, NULL, &pool.nearest, NULL, 0, &margin)
    return hits_of(&pool.nearest, reranked, margin)


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
