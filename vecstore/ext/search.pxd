"""What a batch needs to know of searchers."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from vecstore.ext.field cimport Field, Plan, VsPart
from vecstore.ext.ivf cimport VsAsked, VsDirect, VsHit, VsNearest, VsPool, VsScoredList, VsShortlist
from vecstore.ext.rabitq cimport VsKernels, VsRanked, VsTable


cdef enum:
    PREPARE
    RANK
    SCAN
    RERANK
    EXACT
    STAGE_COUNT
    ANSWERED = STAGE_COUNT

cdef enum:
    DONE = 0
    NEEDS_LISTS = 1
    NEEDS_VECTORS = 2


cdef class Searcher:
    cdef readonly Py_ssize_t padded_dim
    cdef list tables
    cdef VsTable **table_of  # of each group
    cdef const VsKernels *kernels
    cdef VsPool pool
    cdef VsPool exact
    cdef VsNearest nearest
    cdef VsNearest chosen
    cdef VsScoredList scored
    cdef VsDirect direct
    cdef const VsRanked *candidates  # of the pool, in order
    cdef size_t candidate_count
    cdef const float *known  # their distances by int8 where a batch has them, else NULL
    cdef float margin  # of the pool beyond the last hit, in bounds
    cdef float *q
    cdef float *given_q  # as given, where the scaled one is rounded
    cdef Field field
    cdef Plan plan
    cdef const VsPart *parts
    cdef Py_ssize_t count
    # One element a part: lists scanned, to be scanned, ranked, that follow in no order, and that may be scanned.
    cdef int32_t *done
    cdef int32_t *want
    cdef int32_t *ranked
    cdef int32_t *rest
    cdef int32_t *limit
    cdef float *closest
    cdef uint64_t *records  # of small parts, and their vectors, where every search is given them
    cdef uint64_t *vectors
    cdef Py_ssize_t part_room
    # One element a list of any part: number and estimate by rank, whether it has a rank, its record's address.
    cdef int32_t *order
    cdef float *scores
    cdef uint8_t *seen
    cdef uint64_t *given
    cdef size_t list_room
    cdef VsShortlist shortlist  # scratch of ranking, like the next
    cdef VsRanked *cells
    cdef size_t cell_room
    cdef uint64_t *where  # of the vectors of `chosen`
    cdef size_t where_room
    cdef list held
    cdef double gain
    cdef int stage
    cdef bint small_done, timed
    cdef size_t room
    cdef Py_ssize_t looked
    cdef int64_t scanned, reranked, rescored
    cdef double seconds[STAGE_COUNT]
    cdef double clock

    cdef int _require(self) except -1
    cdef object _told(self, int64_t found)
    cdef int _require(self) except -1
    cdef int _take(self, Field field, Plan plan) except -1
    cdef int _begin(self, const float *q) noexcept nogil
    cdef void _forget_given(self) noexcept nogil
    cdef int64_t _advance(self) noexcept nogil
    cdef int64_t _settle(self) noexcept nogil
    cdef const uint64_t *_addresses(self, Py_ssize_t p) noexcept nogil
    cdef int64_t _scan(self) noexcept nogil
    cdef int64_t _rank_lists(self) noexcept nogil
    cdef int64_t _scan_wanted(self) noexcept nogil
    cdef bint _rank(self, Py_ssize_t p) noexcept nogil
    cdef bint _take_all(self, Py_ssize_t p) noexcept nogil
    cdef size_t _rank_rest(self, Py_ssize_t p) noexcept nogil
    cdef int32_t _at_most(self, Py_ssize_t p, int32_t lists) noexcept nogil
    cdef void _pass_over_empty(self, Py_ssize_t p, bint over) noexcept nogil
    cdef bint _readable(self, Py_ssize_t p) noexcept nogil
    cdef uint64_t _small_record(self, Py_ssize_t p) noexcept nogil
    cdef int64_t _scan_nearest(self, int32_t share) noexcept nogil
    cdef int64_t _scan_lists(self, Py_ssize_t p, int32_t end) noexcept nogil
    cdef int64_t _scan_directly(self, Py_ssize_t p, int32_t end) noexcept nogil
    cdef int64_t _scan_small(self) noexcept nogil
    cdef void _count(self, int64_t rows) noexcept nogil
    cdef bint _fill(self) noexcept nogil
    cdef int64_t _rerank(self) noexcept nogil
    cdef size_t _order(self) noexcept nogil
    cdef size_t _foresee(self, float *known, VsAsked *asked) noexcept nogil
    cdef bint _look_again(self) noexcept nogil
    cdef int32_t _near_lists(self, Py_ssize_t p) noexcept nogil
    cdef bint _from_elsewhere(self, Py_ssize_t p) noexcept nogil
    cdef bint _strays(self, Py_ssize_t p) noexcept nogil
    cdef bint _in_hole(self, Py_ssize_t p) noexcept nogil
    cdef int32_t _within(self, Py_ssize_t p, float edge) noexcept nogil
    cdef int32_t _take_within(self, Py_ssize_t p, float edge) noexcept nogil
    cdef int32_t _place_of_hits(self, Py_ssize_t p) noexcept nogil
    cdef size_t _hits_beyond(self, Py_ssize_t p, int32_t lists) noexcept nogil
    cdef int64_t _choose(self) noexcept nogil
    cdef bint _has_vector(self, const VsHit *hit) noexcept nogil
    cdef uint64_t _vector(self, const VsHit *hit) noexcept nogil
    cdef int64_t _rescore(self) noexcept nogil
    cdef void _unscale(self) noexcept nogil
    cdef uint64_t _scored_by(self, const VsHit *hit) noexcept nogil
    cdef Py_ssize_t _place(self, int32_t number) noexcept nogil
    cdef void _write(self, uint64_t *ids, float *distances, int32_t *parts, int64_t *rows) noexcept nogil
    cdef const VsPart *_part(self, int32_t number) except NULL
    cdef object _missing_lists(self)
    cdef object _missing_vectors(self)
    cdef void _start_clock(self) noexcept nogil
    cdef void _lap(self, int stage) noexcept nogil
