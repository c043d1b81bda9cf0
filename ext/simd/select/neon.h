/* NEON twin of select/serial.h, as far as it has one. */
#ifndef VECSTORE_SELECT_NEON_H
#define VECSTORE_SELECT_NEON_H

#include "../dot/neon.h"
#include "serial.h"

static size_t vs_count_within_neon(const float *values, size_t n, float limit) {
    const float32x4_t most = vdupq_n_f32(limit);
    uint32x4_t counts = vdupq_n_u32(0);
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        counts = vsubq_u32(counts, vcleq_f32(vld1q_f32(values + i), most));
    return vaddvq_u32(counts) + vs_count_within_serial(values + i, n - i, limit);
}

#endif
