/* NEON twin of rotate/serial.h: signs and the first four Hadamard stages within four registers, two
 * of them on every fourth element, the others two at a time; the scale goes with the last pass. */
#ifndef VECSTORE_ROTATE_NEON_H
#define VECSTORE_ROTATE_NEON_H

#include <arm_neon.h>

#include "../kernels.h"

/* Two stages between four registers: of each pair the sum goes first, the difference second. */
static inline void vs_two_stages_neon(float32x4_t *a, float32x4_t *b, float32x4_t *c, float32x4_t *d) {
    const float32x4_t ab = vaddq_f32(*a, *b), a_b = vsubq_f32(*a, *b);
    const float32x4_t cd = vaddq_f32(*c, *d), c_d = vsubq_f32(*c, *d);
    *a = vaddq_f32(ab, cd);
    *b = vaddq_f32(a_b, c_d);
    *c = vsubq_f32(ab, cd);
    *d = vsubq_f32(a_b, c_d);
}

/* Lane j of `x` is element 4 j + k of sixteen; its sign is that bit of `signs`. */
static inline float32x4_t vs_flipped_neon(float32x4_t x, uint32x4_t signs, int k) {
    static const int32_t up[4] = {31, 27, 23, 19};
    const uint32x4_t to_top = vshlq_u32(signs, vsubq_s32(vld1q_s32(up), vdupq_n_s32(k)));
    const uint32x4_t flip = vandq_u32(to_top, vdupq_n_u32(0x80000000u));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), flip));
}

static inline float32x4x4_t vs_flipped16_neon(const float *v, const uint8_t *signs) {
    const uint32x4_t bits = vdupq_n_u32(signs[0] | (uint32_t)signs[1] << 8);
    float32x4x4_t x = vld4q_f32(v);
    for (int k = 0; k < 4; k++)
        x.val[k] = vs_flipped_neon(x.val[k], bits, k);
    return x;
}

static inline void vs_flip_neon(float *v, size_t begin, size_t end, const uint8_t *signs) {
    for (size_t i = begin; i < end; i += 16)
        vst4q_f32(v + i, vs_flipped16_neon(v + i, signs + i / 8));
}

/* The sums and differences of the elements of a and b, times `factor`. */
static inline void vs_butterflies_neon(float *a, float *b, size_t n, float factor) {
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t x = vld1q_f32(a + i), y = vld1q_f32(b + i);
        vst1q_f32(a + i, vmulq_n_f32(vaddq_f32(x, y), factor));
        vst1q_f32(b + i, vmulq_n_f32(vsubq_f32(x, y), factor));
    }
}

/* The normalised transform of n = 2^k >= 64 elements whose signs are still to be flipped. */
static inline void vs_hadamard_neon(float *v, size_t n, const uint8_t *signs, float unit) {
    size_t half = 16;
    for (size_t i = 0; i < n; i += 16) {
        float32x4x4_t x = vs_flipped16_neon(v + i, signs + i / 8);
        vs_two_stages_neon(&x.val[0], &x.val[1], &x.val[2], &x.val[3]);
        const float32x4_t low02 = vzip1q_f32(x.val[0], x.val[2]), high02 = vzip2q_f32(x.val[0], x.val[2]);
        const float32x4_t low13 = vzip1q_f32(x.val[1], x.val[3]), high13 = vzip2q_f32(x.val[1], x.val[3]);
        float32x4_t a = vzip1q_f32(low02, low13), b = vzip2q_f32(low02, low13);
        float32x4_t c = vzip1q_f32(high02, high13), d = vzip2q_f32(high02, high13);
        vs_two_stages_neon(&a, &b, &c, &d);
        vst1q_f32(v + i, a);
        vst1q_f32(v + i + 4, b);
        vst1q_f32(v + i + 8, c);
        vst1q_f32(v + i + 12, d);
    }
    for (; 2 * half < n; half *= 4) {
        const float factor = 4 * half == n ? unit : 1.0f;
        for (size_t start = 0; start < n; start += 4 * half)
            for (size_t i = start; i < start + half; i += 4) {
                float *p = v + i;
                float32x4_t a = vld1q_f32(p), b = vld1q_f32(p + half);
                float32x4_t c = vld1q_f32(p + 2 * half), d = vld1q_f32(p + 3 * half);
                vs_two_stages_neon(&a, &b, &c, &d);
                vst1q_f32(p, vmulq_n_f32(a, factor));
                vst1q_f32(p + half, vmulq_n_f32(b, factor));
                vst1q_f32(p + 2 * half, vmulq_n_f32(c, factor));
                vst1q_f32(p + 3 * half, vmulq_n_f32(d, factor));
            }
    }
    if (half < n)
        vs_butterflies_neon(v, v + half, half, unit);
}

static void vs_rotate_neon(float *v, size_t padded_dim, const uint8_t *signs, size_t rounds) {
    const size_t power = vs_floor_power(padded_dim), half = padded_dim / 2;
    const float unit = (float)(1.0 / sqrt((double)power));
    for (size_t round = 0; round < rounds; round++, signs += padded_dim / 8) {
        const size_t begin = round % 2 ? padded_dim - power : 0;
        vs_flip_neon(v, 0, begin, signs);
        vs_hadamard_neon(v + begin, power, signs + begin / 8, unit);
        vs_flip_neon(v, begin + power, padded_dim, signs);
        if (power != padded_dim)
            vs_butterflies_neon(v, v + half, half, round + 1 < rounds ? 1.0f : vs_kac_scale(rounds));
    }
}

#endif
