/* NEON (Advanced SIMD of AArch64) twin of dot/serial.h: eight accumulators of four lanes each. The
 * build says -ffp-contract=off, so that a multiplication and an addition stay two. */
#ifndef VECSTORE_DOT_NEON_H
#define VECSTORE_DOT_NEON_H

#include <arm_neon.h>

#include "../kernels.h"

static inline float vs_reduce_neon(const float32x4_t *a) {
    const float32x4_t a04 = vaddq_f32(a[0], a[4]), a15 = vaddq_f32(a[1], a[5]);
    const float32x4_t a26 = vaddq_f32(a[2], a[6]), a37 = vaddq_f32(a[3], a[7]);
    const float32x4_t four = vaddq_f32(vaddq_f32(a04, a26), vaddq_f32(a15, a37));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* Four elements as floats. */
static inline float32x4_t vs_four_f32(const float *p) { return vld1q_f32(p); }
static inline float32x4_t vs_four_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline float32x4_t vs_add_product_neon(float32x4_t sum, float32x4_t a, float32x4_t b) {
    return vaddq_f32(sum, vmulq_f32(a, b));
}
static inline float32x4_t vs_add_square_neon(float32x4_t sum, float32x4_t a, float32x4_t b) {
    const float32x4_t difference = vsubq_f32(a, b);
    return vaddq_f32(sum, vmulq_f32(difference, difference));
}

#define VS_NEON_SUM(NAME, TYPE, LOAD, ADD)                                                         \
    static float NAME(const float *q, const TYPE *o, size_t n) {                                   \
        float32x4_t a[8];                                                                          \
        size_t i = 0;                                                                              \
        for (int j = 0; j < 8; j++)                                                                \
            a[j] = vdupq_n_f32(0.0f);                                                              \
        for (; i + VS_LANES <= n; i += VS_LANES)                                                   \
            for (int j = 0; j < 8; j++)                                                            \
                a[j] = ADD(a[j], vld1q_f32(q + i + 4 * j), LOAD(o + i + 4 * j));                   \
        if (i < n) {                                                                               \
            float q_tail[VS_LANES] = {0};                                                          \
            TYPE o_tail[VS_LANES] = {0};                                                           \
            memcpy(q_tail, q + i, (n - i) * sizeof(float));                                        \
            memcpy(o_tail, o + i, (n - i) * sizeof(TYPE));                                         \
            for (int j = 0; j < 8; j++)                                                            \
                a[j] = ADD(a[j], vld1q_f32(q_tail + 4 * j), LOAD(o_tail + 4 * j));                 \
        }                                                                                          \
        return vs_reduce_neon(a);                                                                  \
    }

VS_NEON_SUM(vs_dot_neon, float, vs_four_f32, vs_add_product_neon)
VS_NEON_SUM(vs_squared_l2_neon, float, vs_four_f32, vs_add_square_neon)
VS_NEON_SUM(vs_dot_f16_neon, uint16_t, vs_four_f16, vs_add_product_neon)
VS_NEON_SUM(vs_squared_l2_f16_neon, uint16_t, vs_four_f16, vs_add_square_neon)

static float vs_squared_norm_f16_neon(const uint16_t *o, size_t n) {
    float32x4_t a[8];
    for (int j = 0; j < 8; j++)
        a[j] = vdupq_n_f32(0.0f);
    for (size_t i = 0; i < n; i += VS_LANES) {
        uint16_t tail[VS_LANES] = {0};
        const uint16_t *p = o + i;
        if (n - i < VS_LANES) {
            memcpy(tail, p, (n - i) * sizeof(uint16_t));
            p = tail;
        }
        for (int j = 0; j < 8; j++) {
            const float32x4_t x = vs_four_f16(p + 4 * j);
            a[j] = vs_add_product_neon(a[j], x, x);
        }
    }
    return vs_reduce_neon(a);
}

static int32_t vs_dot_i8_neon(const int16_t *q, const int8_t *o, size_t n) {
    int32x4_t a0 = vdupq_n_s32(0), a1 = a0, a2 = a0, a3 = a0;
    for (size_t i = 0; i < n; i += 16) {
        const int8x16_t row = vld1q_s8(o + i);
        const int16x8_t low = vmovl_s8(vget_low_s8(row)), high = vmovl_high_s8(row);
        const int16x8_t q_low = vld1q_s16(q + i), q_high = vld1q_s16(q + i + 8);
        a0 = vmlal_s16(a0, vget_low_s16(low), vget_low_s16(q_low));
        a1 = vmlal_high_s16(a1, low, q_low);
        a2 = vmlal_s16(a2, vget_low_s16(high), vget_low_s16(q_high));
        a3 = vmlal_high_s16(a3, high, q_high);
    }
    return vaddvq_s32(vaddq_s32(vaddq_s32(a0, a1), vaddq_s32(a2, a3)));
}

#endif
