/* The exact internal distance of a vector as given. */
#ifndef VECSTORE_EXACT_H
#define VECSTORE_EXACT_H

#include "simd/kernels.h"

enum { VS_L2, VS_DOT, VS_COSINE };

static inline float vs_exact_distance(const VsKernels *kernels, const float *q, const void *row, size_t dim,
                                      int half, int metric) {
    if (metric == VS_L2)
        return half ? kernels->squared_l2_f16(q, row, dim) : kernels->squared_l2(q, row, dim);
    float inner = half ? kernels->dot_f16(q, row, dim) : kernels->dot(q, row, dim);
    if (metric == VS_DOT)
        return -2.0f * inner;
    float squared = half ? kernels->squared_norm_f16(row, dim) : kernels->dot(row, row, dim);
    return squared > 0.0f ? 2.0f - (2.0f * inner) / sqrtf(squared) : 2.0f;
}

#endif
