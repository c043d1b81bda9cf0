/* NEON twin of scan/serial.h: a 16-byte load holds the table of one group, one its codes for all 32
 * rows. The look-ups of a run add up in u8, those of even groups and of odd ones (see `VsTable`), before they
 * are widened. Where no slot above 15 is wanted, the high nibbles are left alone, as in scan/avx2.h. */
#ifndef VECSTORE_SCAN_NEON_H
#define VECSTORE_SCAN_NEON_H

#include <arm_neon.h>

#include "../kernels.h"

/* Estimates of four slots, and all bits of a lane where one is <= limit. */
static inline void vs_estimate_neon(uint32x4_t sums, const VsTable *table, const float *add, float g_add,
                                    float limit, float *estimates, uint32x4_t *within) {
    float32x4_t inner = vmulq_n_f32(vcvtq_f32_u32(sums), table->scale);
    inner = vaddq_f32(inner, vdupq_n_f32(table->bias));
    const float32x4_t base = vaddq_f32(vld1q_f32(add), vdupq_n_f32(g_add));
    const float32x4_t value = vaddq_f32(base, vmulq_f32(vld1q_f32(add + VS_BLOCK_ROWS), inner));
    vst1q_f32(estimates, value);
    *within = vcleq_f32(value, vdupq_n_f32(limit));
}

/* The same for sixteen slots; the mask of them. */
static inline uint32_t vs_estimates_neon(uint16x8_t first, uint16x8_t second, const VsTable *table,
                                         const float *add, float g_add, float limit, float *estimates) {
    static const uint16_t bits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint16x8_t bit = vld1q_u16(bits);
    uint32x4_t in[4];
    vs_estimate_neon(vmovl_u16(vget_low_u16(first)), table, add, g_add, limit, estimates, in);
    vs_estimate_neon(vmovl_high_u16(first), table, add + 4, g_add, limit, estimates + 4, in + 1);
    vs_estimate_neon(vmovl_u16(vget_low_u16(second)), table, add + 8, g_add, limit, estimates + 8, in + 2);
    vs_estimate_neon(vmovl_high_u16(second), table, add + 12, g_add, limit, estimates + 12, in + 3);
    const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(in[0]), vreinterpretq_u16_u32(in[1]));
    const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(in[2]), vreinterpretq_u16_u32(in[3]));
    return vaddvq_u16(vandq_u16(low, bit)) | (uint32_t)vaddvq_u16(vandq_u16(high, bit)) << 8;
}

static inline __attribute__((always_inline)) uint32_t vs_score_slots_neon(const VsTable *table, const uint8_t *block,
                                                                          float g_add, float limit,
                                                                          float *estimates, const int whole) {
    const uint8_t *lut = table->lut;
    const size_t code_bytes = 4 * table->padded_dim;
    const float *add = (const float *)(const void *)(block + code_bytes);
    const uint8x16_t nibble = vdupq_n_u8(15);
    uint16x8_t low0 = vdupq_n_u16(0), low1 = low0, high0 = low0, high1 = low0;
    for (size_t at = 0; at < code_bytes;) {
        const size_t end = at + 4 * VS_RUN < code_bytes ? at + 4 * VS_RUN : code_bytes;
        uint8x16_t low[2], high[2];
        low[0] = low[1] = high[0] = high[1] = vdupq_n_u8(0);
        for (; at < end; at += 32)
            for (int k = 0; k < 2; k++) {
                const uint8x16_t entries = vld1q_u8(lut + at + 16 * k), codes = vld1q_u8(block + at + 16 * k);
                low[k] = vaddq_u8(low[k], vqtbl1q_u8(entries, vandq_u8(codes, nibble)));
                if (whole)
                    high[k] = vaddq_u8(high[k], vqtbl1q_u8(entries, vshrq_n_u8(codes, 4)));
            }
        for (int k = 0; k < 2; k++) {
            low0 = vaddw_u8(low0, vget_low_u8(low[k]));
            low1 = vaddw_high_u8(low1, low[k]);
            high0 = vaddw_u8(high0, vget_low_u8(high[k]));
            high1 = vaddw_high_u8(high1, high[k]);
        }
    }
    uint32_t mask = vs_estimates_neon(low0, low1, table, add, g_add, limit, estimates);
    if (whole)
        mask |= vs_estimates_neon(high0, high1, table, add + 16, g_add, limit, estimates + 16) << 16;
    return mask;
}

static uint32_t vs_score_block_neon(const VsTable *table, const uint8_t *block, uint32_t slots, float g_add,
                                    float limit, float *estimates) {
    if (slots < 1u << 16)
        return slots & vs_score_slots_neon(table, block, g_add, limit, estimates, 0);
    return slots & vs_score_slots_neon(table, block, g_add, limit, estimates, 1);
}

static void vs_score_together_neon(const VsTable *const *tables, size_t n, const uint8_t *block,
                                   uint32_t slots, const float *g_add, const float *limits,
                                   float (*estimates)[VS_BLOCK_ROWS], uint32_t *masks) {
    for (size_t i = 0; i < n; i++)
        masks[i] = vs_score_block_neon(tables[i], block, slots, g_add[i], limits[i], estimates[i]);
}

#endif
