/* Finer look-ups, for a query that lies far out beside what separates it from the rows it looks for.
 *
 * The step of a table goes by the length of the query, the error of a code by the distance from the query to
 * the row's centroid. Where rows lie in tight clusters, the rounding of the table outweighs the codes. What it left of
 * each entry is a table of its own then, in fifteenths of a step, and a block is looked up twice. */
#ifndef VECSTORE_FINE_H
#define VECSTORE_FINE_H

#include "simd/kernels.h"

/* Squared length of a query, in squared distances to the nearest cell, and to the nearest list by an estimate, which
 * goes far astray where clusters share a cell: also below 0. */
#define VS_FAR_OUT 16.0f
#define VS_FAR_OUT_OF_LISTS 64.0f
#define VS_FINER 15 /* of the eight entries that a half byte holds, each has so much room */

/* Makes the finer table of a query whose table was built. */
static inline void vs_refine(VsTable *table) {
    if (table->fine || table->scale == 0.0f)
        return;
    const float unit = 2.0f / table->scale;
    uint32_t total = 0;
    for (size_t g = 0; g < table->padded_dim / 4; g++) {
        float a[4];
        unsigned negative = 0;
        for (unsigned i = 0; i < 4; i++) {
            a[i] = fabsf(table->z[4 * g + i]) * unit;
            negative |= (unsigned)(signbit(table->z[4 * g + i]) != 0) << i;
        }
        for (unsigned m = 0; m < 16; m++) {
            const unsigned agree = m ^ negative;
            float left = 0.5f - (float)table->lut[16 * g + m];
            for (unsigned i = 0; i < 4; i++)
                left += agree >> i & 1 ? a[i] : 0.0f;
            left = left < 0.0f ? 0.0f : left > 1.0f ? 1.0f : left;
            const uint8_t entry = (uint8_t)lrintf(left * VS_FINER);
            table->rest[16 * g + m] = entry;
            total += entry;
        }
    }
    table->rest_scale = table->scale / VS_FINER;
    table->rest_bias = vs_bias(table->rest_scale, total);
    table->fine = 1;
}

/* `score_block` of the kernels, by the finer table too if there is one. */
static inline uint32_t vs_score_block(const VsKernels *kernels, const VsTable *table, const uint8_t *block,
                                      uint32_t slots, float g_add, float limit, float *estimates) {
    if (!table->fine)
        return kernels->score_block(table, block, slots, g_add, limit, estimates);
    const float *add = (const float *)(const void *)(block + 4 * table->padded_dim);
    float rest[VS_BLOCK_ROWS];
    VsTable finer = *table;
    finer.lut = table->rest;
    finer.scale = table->rest_scale;
    finer.bias = table->rest_bias;
    kernels->score_block(table, block, slots, g_add, INFINITY, estimates);
    kernels->score_block(&finer, block, slots, 0.0f, INFINITY, rest);
    uint32_t mask = 0;
    for (size_t j = 0; j < VS_BLOCK_ROWS; j++) {
        if (!(slots >> j & 1))
            continue;
        estimates[j] += rest[j] - add[j];
        mask |= (uint32_t)(estimates[j] <= limit) << j;
    }
    return mask;
}

#endif
