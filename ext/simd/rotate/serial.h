/* The Fast-Hadamard-Kac walk of RaBitQ-Library's FhtKacRotator. Every step is element-wise, so the
 * result does not depend on how many elements are taken at once. */
#ifndef VECSTORE_ROTATE_SERIAL_H
#define VECSTORE_ROTATE_SERIAL_H

#include "../kernels.h"

static inline void vs_butterflies_serial(float *restrict a, float *restrict b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
    }
}

static inline void vs_scale_serial(float *v, size_t n, float scale) {
    for (size_t i = 0; i < n; i++)
        v[i] *= scale;
}

static void vs_rotate_serial(float *v, size_t padded_dim, const uint8_t *signs, size_t rounds) {
    const size_t power = vs_floor_power(padded_dim);
    const float unit = (float)(1.0 / sqrt((double)power));
    for (size_t round = 0; round < rounds; round++, signs += padded_dim / 8) {
        float *part = round % 2 ? v + (padded_dim - power) : v;
        for (size_t i = 0; i < padded_dim; i++)
            if (signs[i / 8] >> (i % 8) & 1)
                v[i] = -v[i];
        for (size_t half = 1; half < power; half *= 2)
            for (size_t i = 0; i < power; i += 2 * half)
                vs_butterflies_serial(part + i, part + i + half, half);
        vs_scale_serial(part, power, unit);
        if (power != padded_dim)
            vs_butterflies_serial(v, v + padded_dim / 2, padded_dim / 2);
    }
    if (power != padded_dim)
        vs_scale_serial(v, padded_dim, vs_kac_scale(rounds));
}

#endif
