/* NEON twin of table/serial.h, the method of table/avx2.h: the entries are made as if all z were
 * positive; the signs then only permute the 16 entries of a group. */
#ifndef VECSTORE_TABLE_NEON_H
#define VECSTORE_TABLE_NEON_H

#include "../dot/neon.h"
#include "serial.h"

/* As the comparison of the serial twin: a NaN is never the greater. */
static inline float32x4_t vs_greater_neon(float32x4_t x, float32x4_t top) {
    return vbslq_f32(vcgtq_f32(x, top), x, top);
}

/* Eight numbers rounded to the nearest integer, ties to even, none beyond 16 bits. */
static inline int16x8_t vs_whole_neon(float32x4_t a, float32x4_t b) {
    return vcombine_s16(vmovn_s32(vcvtnq_s32_f32(a)), vmovn_s32(vcvtnq_s32_f32(b)));
}

static void vs_build_table_neon(VsTable *table) {
    static const uint32_t odd[4] = {0, ~0u, 0, ~0u}, upper[4] = {0, 0, ~0u, ~0u};
    static const int32_t place[4] = {0, 1, 2, 3};
    static const uint8_t index[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const float *z = table->z;
    const size_t n = table->padded_dim;
    float32x4_t run[2], tops = vdupq_n_f32(0.0f), mosts = tops;
    uint32_t total = 0;
    run[0] = run[1] = tops;
    for (size_t i = 0; i < n; i += VS_LANES) {
        if (i % VS_RUN == 0) {
            tops = vs_greater_neon(vaddq_f32(run[0], run[1]), tops);
            run[0] = run[1] = vdupq_n_f32(0.0f);
        }
        for (int j = 0; j < 8; j += 4) {
            float32x4_t x[4];
            for (int k = 0; k < 4; k++) {
                x[k] = vabsq_f32(vld1q_f32(z + i + 4 * (j + k)));
                mosts = vs_greater_neon(x[k], mosts);
            }
            run[j / 4] = vaddq_f32(run[j / 4], vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3])));
        }
    }
    tops = vs_greater_neon(vaddq_f32(run[0], run[1]), tops);
    table->squared_norm = vs_dot_neon(z, z, n);
    const float top = vmaxvq_f32(tops), most = vmaxvq_f32(mosts);
    if (vs_table_is_flat(top)) {
        vs_flat_table(table);
        return;
    }
    table->scale = top * (2.0f / VS_LEVELS);
    table->step = most / vs_steps(n);
    const float steps = vs_steps(n) / most, unit = VS_LEVELS / top;
    for (size_t i = 0; i < n; i += 8)
        vst1q_s16(table->whole + i, vs_whole_neon(vmulq_n_f32(vld1q_f32(z + i), steps),
                                                  vmulq_n_f32(vld1q_f32(z + i + 4), steps)));
    const uint32x4_t bit0 = vld1q_u32(odd), bit1 = vld1q_u32(upper);
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t x = vld1q_f32(z + i), a = vmulq_n_f32(vabsq_f32(x), unit);
        const uint32x4_t a0 = vandq_u32(vreinterpretq_u32_f32(vdupq_laneq_f32(a, 0)), bit0);
        const uint32x4_t a1 = vandq_u32(vreinterpretq_u32_f32(vdupq_laneq_f32(a, 1)), bit1);
        const float32x4_t a2 = vdupq_laneq_f32(a, 2), a3 = vdupq_laneq_f32(a, 3);
        /* Entries 0 ... 3, 4 ... 7, and both with the fourth dimension. */
        const float32x4_t e0 = vaddq_f32(vreinterpretq_f32_u32(a0), vreinterpretq_f32_u32(a1));
        const float32x4_t e4 = vaddq_f32(e0, a2), e8 = vaddq_f32(e0, a3), e12 = vaddq_f32(e4, a3);
        const uint8x16_t entries = vuzp1q_u8(vreinterpretq_u8_s16(vs_whole_neon(e0, e4)),
                                             vreinterpretq_u8_s16(vs_whole_neon(e8, e12)));
        const uint32x4_t signs = vshrq_n_u32(vreinterpretq_u32_f32(x), 31);
        const uint32_t negative = vaddvq_u32(vshlq_u32(signs, vld1q_s32(place)));
        const uint8x16_t agree = veorq_u8(vld1q_u8(index), vdupq_n_u8((uint8_t)negative));
        vst1q_u8(table->lut + 4 * i, vqtbl1q_u8(entries, agree));
        total += vaddlvq_u8(entries);
    }
    table->bias = vs_bias(table->scale, total);
}

#endif
