/* Encoders: float64 inside, rounded once to what is stored. There is one version: the lanes below
 * give the compiler independent sums in a fixed order, which is as fast as the memory of a build. */
#ifndef VECSTORE_ENCODE_H
#define VECSTORE_ENCODE_H

#include <math.h>

#include "record.h"

#define VS_SUMS 16
#define VS_ERROR_DEVIATIONS 1.9 /* epsilon_0 of the paper, section 3.2.2 */

static inline double vs_total(const double *sums) {
    double s[VS_SUMS / 2];
    for (int i = 0; i < 8; i++)
        s[i] = sums[i] + sums[i + 8];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* residual = row - centroid; the sums that its factors need. */
static inline void vs_residual(const float *row, const double *centroid, size_t n, double *residual,
                               double *l1, double *l2, double *signed_centroid) {
    double a[VS_SUMS] = {0}, b[VS_SUMS] = {0}, c[VS_SUMS] = {0};
    for (size_t i = 0; i < n; i += VS_SUMS)
        for (size_t j = 0; j < VS_SUMS; j++) {
            double r = (double)row[i + j] - centroid[i + j];
            residual[i + j] = r;
            a[j] += fabs(r);
            b[j] += r * r;
            c[j] += r >= 0.0 ? centroid[i + j] : -centroid[i + j];
        }
    *l1 = vs_total(a);
    *l2 = vs_total(b);
    *signed_centroid = vs_total(c);
}

/* Sets slot `slot` of a zeroed block. Gao & Long, RaBitQ (SIGMOD 2024), sections 3.1 to 3.3. */
static inline void vs_encode_slot(const double *residual, size_t n, double l1, double l2,
                                  double signed_centroid, double shift, uint8_t *block, size_t slot) {
    float *factors = (float *)(void *)(block + 4 * n);
    const int up = slot < 16 ? 0 : 4;
    uint8_t *codes = block + slot % 16;
    for (size_t g = 0; g < n / 4; g++, codes += 16) {
        const double *r = residual + 4 * g;
        unsigned nibble = (unsigned)(r[0] >= 0.0) | (unsigned)(r[1] >= 0.0) << 1 |
                          (unsigned)(r[2] >= 0.0) << 2 | (unsigned)(r[3] >= 0.0) << 3;
        *codes = (uint8_t)(*codes | nibble << up);
    }
    double rescale = l1 > 0.0 ? -2.0 * l2 / l1 : 0.0;
    double squared_cosine = l2 > 0.0 ? l1 / ((double)n * l2) * l1 : 1.0;
    double rest = (1.0 - squared_cosine) / squared_cosine;
    factors[slot] = (float)(l2 - rescale * signed_centroid - shift);
    factors[VS_ROWS + slot] = (float)rescale;
    factors[2 * VS_ROWS + slot] =
        rest > 0.0 ? (float)(2.0 * sqrt(l2) * sqrt(rest) * VS_ERROR_DEVIATIONS / sqrt((double)n - 1.0)) : 0.0f;
}

static inline void vs_encode_int8(const double *residual, const double *centroid, size_t n, double l2,
                                  double shift, int8_t *out, VsInt8Factors *factors) {
    double most[VS_SUMS] = {0}, sums[VS_SUMS] = {0}, top = 0.0;
    for (size_t i = 0; i < n; i += VS_SUMS)
        for (size_t j = 0; j < VS_SUMS; j++) {
            double m = fabs(residual[i + j]);
            most[j] = m > most[j] ? m : most[j];
        }
    for (size_t j = 0; j < VS_SUMS; j++)
        top = most[j] > top ? most[j] : top;
    factors->scale = (float)(top / 127.0);
    const double scale = factors->scale, inverse = scale > 0.0 ? 1.0 / scale : 0.0;
    for (size_t i = 0; i < n; i += VS_SUMS)
        for (size_t j = 0; j < VS_SUMS; j++) {
            double q = residual[i + j] * inverse;
            q = q > 127.0 ? 127.0 : q < -127.0 ? -127.0 : q;
            /* Adding 1.5 * 2^52 rounds to the nearest integer, ties to even, without a call. */
            q = (q + 0x1.8p52) - 0x1.8p52;
            out[i + j] = (int8_t)(int32_t)q;
            sums[j] += centroid[i + j] * q;
        }
    factors->add = (float)(l2 + 2.0 * scale * vs_total(sums) - shift);
}

/* A centroid as scale * i8. The scale keeps 17 significant bits, so that every product with a
 * 7-bit integer is exact in float32. */
static inline float vs_quantise_centroid(const float *centroid, size_t n, int8_t *out) {
    float top = 0.0f, scale;
    uint32_t bits;
    for (size_t i = 0; i < n; i++)
        top = fabsf(centroid[i]) > top ? fabsf(centroid[i]) : top;
    scale = top / 127.0f;
    memcpy(&bits, &scale, 4);
    bits = (bits + 127u) & ~127u;
    memcpy(&scale, &bits, 4);
    const double inverse = scale > 0.0f ? 1.0 / (double)scale : 0.0;
    for (size_t i = 0; i < n; i++) {
        double q = (double)centroid[i] * inverse;
        q = q > 127.0 ? 127.0 : q < -127.0 ? -127.0 : q;
        out[i] = (int8_t)(int32_t)((q + 0x1.8p52) - 0x1.8p52);
    }
    return scale;
}

#endif
