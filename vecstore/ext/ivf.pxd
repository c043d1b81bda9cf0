"""The pool of candidates, the records behind them, and the ways of a query over them."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from vecstore.ext.rabitq cimport VsInt8Factors, VsKernels, VsRanked, VsTable


cdef extern from "pool.h" nogil:
    ctypedef struct VsProbe:
        const uint8_t *record
        float g_add
        int32_t part

    ctypedef struct VsPool:
        size_t probe_count
        float *estimates
        float *bounds
        uint64_t *refs
        size_t capacity
        size_t size
        float threshold

    void vs_pool_clear(VsPool *pool)
    int vs_pool_reserve(VsPool *pool, const VsKernels *kernels, size_t capacity)
    int vs_pool_widen(VsPool *pool, size_t capacity)
    void vs_pool_free(VsPool *pool)
    void vs_pool_add_block(VsPool *pool, uint32_t mask, const float *estimates, size_t probe, size_t first)
    const VsRanked *vs_pool_order(VsPool *pool, size_t *count)
    const VsProbe *vs_pool_probe_of(const VsPool *pool, uint64_t ref)
    int64_t vs_pool_row_of(const VsPool *pool, uint64_t ref)


cdef extern from "hits.h" nogil:
    ctypedef struct VsHit:
        float distance
        int32_t part
        int64_t row
        int32_t place

    ctypedef struct VsNearest:
        VsHit *hits
        size_t capacity
        size_t size
        float threshold

    ctypedef struct VsScored:
        VsHit hit
        float bound

    ctypedef struct VsScoredList:
        VsScored *items
        size_t size

    int vs_scored_reserve(VsScoredList *items, size_t room)
    void vs_scored_free(VsScoredList *items)
    bint vs_hit_less(const VsHit *a, const VsHit *b)
    int vs_nearest_reserve(VsNearest *nearest, size_t capacity)
    void vs_nearest_clear(VsNearest *nearest)
    void vs_nearest_free(VsNearest *nearest)
    void vs_nearest_offer(VsNearest *nearest, const VsHit *hit)
    void vs_nearest_sort(VsNearest *nearest)


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
    enum: VS_BEGINNING
    enum: VS_HAS_INT8
    enum: VS_HAS_BLOCKS
    enum: VS_HAS_U64_IDS
    size_t vs_block_count(size_t n)
    size_t vs_block_bytes(size_t padded_dim)
    uint32_t vs_first_slots(size_t n)
    VsLayout vs_layout(size_t n, size_t padded_dim, uint32_t flags)
    VsHeader vs_header(const uint8_t *record)
    void vs_prefetch(const uint8_t *p, size_t bytes)
    size_t vs_bytes_ahead(size_t blocks, size_t padded_dim)
    void vs_prefetch_ahead(const uint8_t *p, size_t bytes)


cdef extern from "rank.h" nogil:
    ctypedef struct VsCell:
        float scale

    ctypedef struct VsLists:
        const VsCell *cells
        const int8_t *centroids
        const uint32_t *cell_lists
        const uint8_t *codes
        size_t cell_count

    void vs_measure_cells(size_t padded_dim, const float *centroids, const uint32_t *cell_lists, size_t cell_count,
                          const uint8_t *codes, VsCell *cells, int8_t *quantised)
    ctypedef struct VsShortlist:
        VsRanked *ranked
    int vs_shortlist_reserve(VsShortlist *list, size_t lists)
    void vs_shortlist_free(VsShortlist *list)
    size_t vs_rank_lists(const VsKernels *kernels, VsTable *table, const VsLists *lists, VsShortlist *found,
                         VsRanked *order, const uint8_t *seen, size_t wanted, size_t most,
                         size_t among, int32_t *out, float *scores, size_t *rest)
    void vs_sort_lists(const VsKernels *kernels, int32_t *lists, float *estimates, size_t n, VsRanked *ranked)
    size_t vs_lists_looked_at(size_t most, size_t k)
    enum: VS_LOOKED_AT_A_LIST
    enum: VS_LOOKED_AT_LEAST
    enum: VS_LOOKED_AT_SHARE
    size_t vs_add_lists(size_t k, uint8_t *seen, size_t ranked, size_t wanted, size_t found, int32_t *order,
                      float *scores)


cdef extern from "probe.h" nogil:
    enum: VS_L2
    enum: VS_DOT
    enum: VS_COSINE
    enum: VS_LISTS_AHEAD
    enum: VS_NO_RECORD
    enum: VS_OTHER_RECORD
    enum: VS_NO_WORDS
    enum: VS_NO_MEMORY
    float vs_exact_distance(const VsKernels *kernels, const float *q, const void *row, size_t dim, int half,
                            int metric)
    int64_t vs_scan_list(const VsKernels *kernels, const VsTable *table, VsPool *pool, const uint8_t *record,
                         int64_t first_row, const uint32_t *words, size_t word_count, int32_t part,
                         int32_t place, bint bounded)
    ctypedef struct VsDirect:
        int64_t read
    void vs_direct_begin(VsDirect *direct, VsPool *pool, VsNearest *nearest, VsScoredList *scored, float slack,
                         float width, bint whole)
    bint vs_direct_finish(const VsKernels *kernels, VsDirect *direct)
    void vs_prefetch_directly(const uint8_t *record, size_t padded_dim, const uint32_t *words, size_t word_count)
    int64_t vs_scan_directly(const VsKernels *kernels, const VsTable *table, VsDirect *direct, const uint8_t *record,
                             int64_t first_row, const uint32_t *words, size_t word_count, int32_t part, int32_t place)
    int64_t vs_scan_together(const VsKernels *kernels, const VsTable *const *tables, VsPool *const *pools, size_t n,
                             const uint8_t *record, int64_t first_row, const uint32_t *words, size_t word_count,
                             int32_t part, const int32_t *places)
    int64_t vs_scan_vectors(const VsKernels *kernels, const float *q, VsPool *pool, int32_t part,
                            const uint8_t *vectors, size_t n, size_t dim, int half, int metric,
                            const uint32_t *words, const uint8_t *record)
    int64_t vs_scan_int8(const VsKernels *kernels, const VsTable *table, VsPool *pool, int32_t part,
                         const uint8_t *record, int64_t first_row, const uint32_t *words)
    ctypedef struct VsAsked:
        pass

    size_t vs_foresee(const VsPool *pool, const VsRanked *order, size_t count, size_t hits, float *distances,
                      VsAsked *asked)
    void vs_score_asked(const VsKernels *kernels, const VsAsked *asked, size_t count, VsRanked *order)
    int64_t vs_rerank(const VsKernels *kernels, const VsPool *pool, const VsRanked *order, size_t count,
                      const float *known, VsNearest *nearest, VsScoredList *scored, float slack, float *margin)
    float vs_int8_slack(size_t dim, size_t padded_dim)
    void vs_id_of(const VsHit *hit, uint64_t *out)
    void vs_take_estimates(VsPool *pool, VsNearest *nearest)


cdef int refuse(int64_t found, Py_ssize_t i, size_t padded_dim) except -1
cdef int metric_number(str name) except -1
cdef int is_half(str dtype) except -1


cdef class Lists:
    cdef VsLists lists
    cdef size_t k
    cdef tuple keep


cdef class Pool:
    cdef VsPool pool
    # Scratch of re-ranking, kept from query to query.
    cdef VsNearest nearest
    cdef list tables  # of the scans, which candidates refer to
