"""What the other extension modules share: the table of kernels, and the query's look-up table."""

from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint16_t, uint32_t


cdef extern from "simd/kernels.h" nogil:
    ctypedef struct VsTable:
        float *z
        int16_t *whole
        uint8_t *lut
        float step
        size_t padded_dim
        float scale
        float bias
        float squared_norm
        float q_shift
        uint8_t *rest
        int fine

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
        int32_t (*dot_i8)(const int16_t *, const int8_t *, size_t) noexcept nogil
        float (*dot_f16)(const float *, const uint16_t *, size_t) noexcept nogil
        float (*squared_l2_f16)(const float *, const uint16_t *, size_t) noexcept nogil
        float (*squared_norm_f16)(const uint16_t *, size_t) noexcept nogil
        void (*build_table)(VsTable *) noexcept nogil
        uint32_t (*score_block)(const VsTable *, const uint8_t *, uint32_t, float, float, float *) noexcept nogil
        void (*rotate)(float *, size_t, const uint8_t *, size_t) noexcept nogil
        void (*nearest)(const float *, const float *, size_t, int32_t, float *, int32_t *) noexcept nogil
        size_t (*count_within)(const float *, size_t, float) noexcept nogil
        void (*encode_slot)(const VsSource *, uint8_t *, size_t) noexcept nogil
        void (*encode_int8)(const VsSource *, int8_t *, VsInt8Factors *) noexcept nogil


# The one variant in use: each extension module has its own statics, so the others ask this one.
cdef const VsKernels *active_kernels() noexcept nogil

cdef const float *as_row(x, Py_ssize_t n) noexcept

cdef extern from "query.h" nogil:
    void vs_load_query(const VsKernels *kernels, VsTable *table, const float *q, size_t dim, const float *mean,
                       const uint8_t *signs, size_t rounds, float q_shift)


cdef class QueryTable:
    cdef VsTable table
    cdef bint prepared

    cdef int require(self) except -1
