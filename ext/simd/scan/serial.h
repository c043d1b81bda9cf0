/* FastScan of one block: table look-ups for 32 rows, then their factors and the threshold.
 * Andre, Kermarrec & Le Scouarnec, "Cache locality is not enough" (VLDB 2015), section 4;
 * the estimate is Gao & Long, "RaBitQ" (SIGMOD 2024), section 3.3. */
#ifndef VECSTORE_SCAN_SERIAL_H
#define VECSTORE_SCAN_SERIAL_H

#include "../kernels.h"

static uint32_t vs_score_block_serial(const VsTable *table, const uint8_t *block, uint32_t slots,
                                      float g_add, float limit, float *estimates) {
    const float *add = (const float *)(const void *)(block + 4 * table->padded_dim);
    const float *rescale = add + VS_BLOCK_ROWS;
    uint32_t sums[VS_BLOCK_ROWS] = {0};
    uint32_t mask = 0;
    for (size_t at = 0; at < 4 * table->padded_dim; at += 32) {
        const uint8_t *lut = table->lut + at;
        for (size_t j = 0; j < 16; j++) {
            uint8_t first = block[at + j], second = block[at + 16 + j];
            sums[j] += (uint32_t)lut[first & 15] + lut[16 + (second & 15)];
            sums[j + 16] += (uint32_t)lut[first >> 4] + lut[16 + (second >> 4)];
        }
    }
    for (size_t j = 0; j < VS_BLOCK_ROWS; j++) {
        float inner = table->scale * (float)sums[j] + table->bias;
        estimates[j] = (add[j] + g_add) + rescale[j] * inner;
        mask |= (uint32_t)(estimates[j] <= limit) << j;
    }
    return mask & slots;
}

static void vs_score_together_serial(const VsTable *const *tables, size_t n, const uint8_t *block,
                                     uint32_t slots, const float *g_add, const float *limits,
                                     float (*estimates)[VS_BLOCK_ROWS], uint32_t *masks) {
    for (size_t i = 0; i < n; i++)
        masks[i] = vs_score_block_serial(tables[i], block, slots, g_add[i], limits[i], estimates[i]);
}

#endif
