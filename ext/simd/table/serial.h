/* The look-up table of a query: for each group of four dimensions the 16 sums +-z0 +-z1 +-z2 +-z3,
 * less the group's least (-|z0| - |z1| - |z2| - |z3|), in units of one step for all groups. Entry m
 * is then the sum of 2 |z_i| over the dimensions where bit i of m agrees with the sign of z_i. The step is as
 * small as the sums of a run allow (see `VsTable`). The minima of all groups add up to -||z||_1, the bias; it is
 * worked out from the rounded entries, so that estimates are right in the mean over all codes. */
#ifndef VECSTORE_TABLE_SERIAL_H
#define VECSTORE_TABLE_SERIAL_H

#include <float.h>

#include "../dot/serial.h"

/* Below this `steps` (at most INT16_MAX over a 32nd of eight groups) would overflow; such a query is zero for
 * every purpose. */
#define VS_LEAST_TOP 1e-32f

static inline int vs_table_is_flat(float top) { return !(top >= VS_LEAST_TOP && top <= FLT_MAX); }

static inline void vs_flat_table(VsTable *table) {
    memset(table->lut, 0, table->padded_dim * 4);
    memset(table->whole, 0, table->padded_dim * sizeof *table->whole);
    table->scale = 0.0f;
    table->bias = 0.0f;
    table->step = 0.0f;
}

static void vs_build_table_serial(VsTable *table) {
    const float *z = table->z;
    uint8_t *lut = table->lut;
    size_t groups = table->padded_dim / 4;
    float top = 0.0f, most = 0.0f;
    uint32_t total = 0;
    table->squared_norm = vs_dot_serial(z, z, table->padded_dim);
    for (size_t i = 0; i < table->padded_dim; i++)
        most = fabsf(z[i]) > most ? fabsf(z[i]) : most;
    for (size_t start = 0; start < table->padded_dim; start += VS_RUN) {
        float run[8] = {0};
        for (size_t i = start; i < table->padded_dim && i < start + VS_RUN; i += 4)
            run[i / 4 % 8] += (fabsf(z[i]) + fabsf(z[i + 1])) + (fabsf(z[i + 2]) + fabsf(z[i + 3]));
        for (size_t g = 0; g < 4; g++)
            top = run[g] + run[g + 4] > top ? run[g] + run[g + 4] : top;
    }
    if (vs_table_is_flat(top)) {
        vs_flat_table(table);
        return;
    }
    table->scale = top * (2.0f / VS_LEVELS);
    table->step = most / vs_steps(table->padded_dim);
    const float unit = VS_LEVELS / top, steps = vs_steps(table->padded_dim) / most;
    for (size_t i = 0; i < table->padded_dim; i++)
        table->whole[i] = (int16_t)lrintf(z[i] * steps);
    for (size_t g = 0; g < groups; g++) {
        float a[4];
        unsigned negative = 0;
        for (unsigned i = 0; i < 4; i++) {
            a[i] = fabsf(z[4 * g + i]) * unit;
            negative |= (unsigned)(signbit(z[4 * g + i]) != 0) << i;
        }
        for (unsigned m = 0; m < 16; m++) {
            unsigned agree = m ^ negative;
            float sum = ((agree & 1 ? a[0] : 0.0f) + (agree & 2 ? a[1] : 0.0f)) + (agree & 4 ? a[2] : 0.0f);
            sum += agree & 8 ? a[3] : 0.0f;
            const uint8_t entry = (uint8_t)lrintf(sum);
            lut[16 * g + m] = entry;
            total += entry;
        }
    }
    table->bias = vs_bias(table->scale, total);
}

#endif
