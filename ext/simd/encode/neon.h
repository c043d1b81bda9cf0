/* NEON twin of encode/serial.h: the same factors; the signs of four groups at a time. */
#ifndef VECSTORE_ENCODE_NEON_H
#define VECSTORE_ENCODE_NEON_H

#include <arm_neon.h>

#include "serial.h"

/* All bits of a lane are set where r >= 0, for four numbers. */
static inline uint32x4_t vs_not_negative_neon(const double *r) {
    return vuzp1q_u32(vreinterpretq_u32_u64(vcgezq_f64(vld1q_f64(r))),
                      vreinterpretq_u32_u64(vcgezq_f64(vld1q_f64(r + 2))));
}

static inline uint16x8_t vs_not_negative8_neon(const double *r) {
    return vuzp1q_u16(vreinterpretq_u16_u32(vs_not_negative_neon(r)),
                      vreinterpretq_u16_u32(vs_not_negative_neon(r + 4)));
}

static void vs_encode_slot_neon(const VsSource *source, uint8_t *block, size_t slot) {
    const size_t n = source->padded_dim;
    const int up = slot < 16 ? 0 : 4;
    const uint8x16_t bits = vreinterpretq_u8_u32(vdupq_n_u32(0x08040201u));
    uint8_t *codes = block + slot % 16;
    vs_factors(source, (float *)(void *)(block + 4 * n) + slot);
    for (size_t i = 0; i < n; i += 16, codes += 64) {
        const double *r = source->residual + i;
        uint8x16_t set = vuzp1q_u8(vreinterpretq_u8_u16(vs_not_negative8_neon(r)),
                                   vreinterpretq_u8_u16(vs_not_negative8_neon(r + 8)));
        set = vandq_u8(set, bits);
        set = vpaddq_u8(set, set);
        const uint32_t nibbles = vgetq_lane_u32(vreinterpretq_u32_u8(vpaddq_u8(set, set)), 0) << up;
        for (int g = 0; g < 4; g++)
            codes[16 * g] = (uint8_t)(codes[16 * g] | nibbles >> 8 * g);
    }
}

#endif
