"""Fields and plans, as searchers read them."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from vecstore.ext.ivf cimport VsLists


cdef extern from *:
    """
    static inline void vs_publish(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
    static inline uint64_t vs_published(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    """
    void vs_publish(uint64_t *at, uint64_t value) noexcept nogil
    uint64_t vs_published(const uint64_t *at) noexcept nogil


# A part as the kernels see it. `addresses` and the two of a small part are 0 where nothing has been read yet.
cdef struct VsPart:
    int32_t number
    int32_t group
    uint64_t id_base
    const uint32_t *words
    size_t word_count
    # Of a coded part; without lists, a part of one list that is scanned exactly.
    const VsLists *lists
    size_t k
    const uint8_t *empty  # of each list, whether it has no slot that is allowed; NULL: none is known to be so
    size_t holding  # the lists that are not
    const int64_t *first_rows
    const int64_t *first_blocks
    const uint64_t *addresses
    size_t first_list  # of its lists among those of all parts
    # Vectors as given, in row order.
    int has_vectors
    int half
    size_t n
    uint64_t vectors
    const uint8_t *pages
    uint64_t record


cdef class Field:
    cdef readonly Py_ssize_t dim, padded_dim, page
    cdef readonly bint resident
    cdef readonly double dot_length, dot_square
    cdef const float *dot_mean  # NULL if dot_square is 0
    cdef int metric
    cdef const uint8_t[:, ::1] signs
    cdef readonly Py_ssize_t groups
    cdef const float **mean_of
    cdef VsPart *parts
    cdef Py_ssize_t count
    cdef size_t lists  # of all parts
    cdef size_t blocks  # of those with codes
    cdef readonly size_t ahead
    cdef size_t most_cells  # of one part
    cdef bint searched
    cdef list keep
    cdef tuple made_of
    cdef dict places  # number -> position

    cdef void _count_blocks(self, const VsPart *part) noexcept
    cdef VsPart *_append(self, int32_t number, int32_t group, uint64_t id_base, const uint32_t[::1] words) except NULL
    cdef int _set_vectors(self, VsPart *part, Py_ssize_t n, str dtype, uint64_t vectors, const uint8_t[::1] pages) except -1


cdef class Plan:
    cdef readonly Py_ssize_t top_k, pool, most, alive, fp32_cap, looks, widen, cap
    cdef readonly bint direct
    cdef readonly double patience, spared, margin, width
    cdef readonly str precision
    cdef int kind
    cdef const int32_t[::1] probes, limits
    cdef const float[::1] reach, hollow, familiar
    cdef const uint8_t[::1] distant
