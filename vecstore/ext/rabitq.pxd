"""What the other extension modules share: the table of kernels, and the query's look-up table."""

from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t, uint32_t


cdef extern from "simd/kernels.h" nogil:
    ctypedef struct VsTable:
        const float *z
        const uint8_t *lut
        size_t padded_dim
        float scale
        float bias
        float squared_norm
        float q_shift

    ctypedef struct VsRanked:
        uint32_t key
        uint32_t value

    ctypedef struct VsInt8Factors:
        float scale
        float add

    ctypedef struct VsSource:
        const float *row
        const double *centroid
        double *residual
        size_t padded_dim
        double shift

    ctypedef struct VsKernels:
        const char *name
        float (*dot)(const float *, const float *, size_t) noexcept nogil
        float (*squared_l2)(const float *, const float *, size_t) noexcept nogil
        float (*dot_i8)(const float *, const int8_t *, size_t) noexcept nogil
        float (*dot_f16)(const float *, const uint16_t *, size_t) noexcept nogil
        float (*squared_l2_f16)(const float *, const uint16_t *, size_t) noexcept nogil
        float (*squared_norm_f16)(const uint16_t *, size_t) noexcept nogil
        void (*build_table)(VsTable *, uint8_t *) noexcept nogil
        uint32_t (*score_block)(const VsTable *, const uint8_t *, uint32_t, float, float, float *) noexcept nogil
        void (*rotate)(float *, size_t, const uint8_t *, size_t) noexcept nogil
        void (*nearest)(const float *, const float *, size_t, int32_t, float *, int32_t *) noexcept nogil
        void (*encode_slot)(const VsSource *, uint8_t *, size_t) noexcept nogil
        void (*encode_int8)(const VsSource *, int8_t *, VsInt8Factors *) noexcept nogil


# The one variant in use: each extension module has its own statics, so the others ask this one.
cdef const VsKernels *active_kernels() noexcept nogil

cdef class QueryTable:
    cdef VsTable table
    cdef float *z
    cdef uint8_t *lut
    cdef bint prepared
    # Scratch of ranking, kept from query to query.
    cdef float *scores
    cdef VsRanked *ranked
    cdef int32_t *order
    cdef size_t scratch_lists

    cdef int require(self) except -1
    cdef int reserve_lists(self, size_t lists) except -1
