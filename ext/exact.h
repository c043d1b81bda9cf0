/* The exact internal distance of a vector as given. */
#ifndef VECSTORE_EXACT_H
#define VECSTORE_EXACT_H

#include "simd/kernels.h"

enum { VS_L2, VS_DOT, VS_COSINE };

#define VS_CLOSE 0.01f /* of unit vectors: below this 2 - 2 cos has lost half of its digits */
#define VS_CLOSE_CHUNK 256

/* The squared distance of a unit query from a row that points nearly the same way, by their difference. */
static inline float vs_close_distance(const VsKernels *kernels, const float *q, const void *row, size_t dim,
                                      int half, float norm) {
    float unit[VS_CLOSE_CHUNK], found = 0.0f;
    for (size_t start = 0; start < dim; start += VS_CLOSE_CHUNK) {
        const size_t n = dim - start < VS_CLOSE_CHUNK ? dim - start : VS_CLOSE_CHUNK;
        for (size_t i = 0; i < n; i++)
            unit[i] = (half ? vs_half_to_float(((const uint16_t *)row)[start + i]) : ((const float *)row)[start + i]) /
                      norm;
        found += kernels->squared_l2(q + start, unit, n);
    }
    return found;
}

static inline float vs_exact_distance(const VsKernels *kernels, const float *q, const void *row, size_t dim,
                                      int half, int metric) {
    if (metric == VS_L2)
        return half ? kernels->squared_l2_f16(q, row, dim) : kernels->squared_l2(q, row, dim);
    float inner = half ? kernels->dot_f16(q, row, dim) : kernels->dot(q, row, dim);
    if (metric == VS_DOT)
        return -2.0f * inner;
    float squared = half ? kernels->squared_norm_f16(row, dim) : kernels->dot(row, row, dim);
    if (!(squared > 0.0f))
        return 2.0f;
    const float norm = sqrtf(squared), found = 2.0f - (2.0f * inner) / norm;
    return found < VS_CLOSE ? vs_close_distance(kernels, q, row, dim, half, norm) : found;
}

#endif
