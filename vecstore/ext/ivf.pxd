"""The pool of candidates and the records behind them, which ``rerank`` reads."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from vecstore.ext.rabitq cimport VsKernels, VsTable


cdef extern from "pool.h" nogil:
    ctypedef struct VsEntry:
        float estimate
        float bound
        float g_add
        int32_t part
        int64_t row
        int32_t slot
        int32_t exact
        uint64_t record
        int32_t place

    ctypedef struct VsPool:
        VsEntry *entries
        size_t capacity
        size_t size
        float threshold

    void vs_pool_clear(VsPool *pool)
    int vs_pool_reserve(VsPool *pool, size_t capacity)
    void vs_pool_push(VsPool *pool, const VsEntry *entry)
    int vs_pool_offer(VsPool *pool, const VsEntry *entry)
    void vs_pool_free(VsPool *pool)
    VsEntry **vs_pool_sorted(VsPool *pool)


cdef extern from "record.h" nogil:
    ctypedef struct VsHeader:
        uint32_t n
        uint32_t flags
        float scale
        float squared_norm
        uint32_t padded_dim

    ctypedef struct VsLayout:
        size_t blocks
        size_t int8
        size_t factors
        size_t ids

    enum: VS_BLOCK_ROWS
    enum: VS_HEADER_BYTES
    enum: VS_HAS_INT8
    enum: VS_HAS_BLOCKS
    enum: VS_HAS_U64_IDS
    size_t vs_block_count(size_t n)
    size_t vs_block_bytes(size_t padded_dim)
    uint32_t vs_first_slots(size_t n)
    VsLayout vs_layout(size_t n, size_t padded_dim, uint32_t flags)
    VsHeader vs_header(const uint8_t *record)
    const int8_t *vs_centroid(const uint8_t *record)
    void vs_prefetch(const uint8_t *p, size_t bytes)


cdef extern from "exact.h" nogil:
    enum: VS_L2
    enum: VS_DOT
    enum: VS_COSINE
    float vs_exact_distance(const VsKernels *kernels, const float *q, const void *row, size_t dim, int half,
                            int metric)


cdef int metric_number(str name) except -1
cdef int is_half(str dtype) except -1


cdef inline float squared_distance(
    const VsTable *table, const VsKernels *kernels, const uint8_t *record, VsHeader header
) noexcept nogil:
    """||z - c||^2 of a record's centroid."""
    cdef float inner = kernels.dot_i8(table.z, vs_centroid(record), table.padded_dim)
    return (table.squared_norm - (2 * header.scale) * inner) + header.squared_norm


cdef class Pool:
    cdef VsPool pool
    # Scratch of re-ranking, kept from query to query.
    cdef VsPool nearest
