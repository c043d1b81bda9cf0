/* Encoders: float64 inside, rounded once to what is stored. Sixteen sums side by side, in a fixed
 * order, give the compiler vectors of whatever width; the other variants are this code compiled for
 * their instruction set. */
#ifndef VECSTORE_ENCODE_SERIAL_H
#define VECSTORE_ENCODE_SERIAL_H

#include "../kernels.h"

#define VS_ALWAYS_INLINE static inline __attribute__((always_inline))
#define VS_SUMS 16
#define VS_ERROR_DEVIATIONS 1.9 /* epsilon_0 of the paper, section 3.2.2 */

VS_ALWAYS_INLINE double vs_total(const double *sums) {
    double s[VS_SUMS / 2];
    for (int i = 0; i < 8; i++)
        s[i] = sums[i] + sums[i + 8];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* Gao & Long, RaBitQ (SIGMOD 2024), sections 3.1 to 3.3. Leaves the residual for vs_pack. */
VS_ALWAYS_INLINE void vs_factors(const VsSource *source, float *factors) {
    const size_t n = source->padded_dim;
    const float *restrict row = source->row;
    const double *restrict centroid = source->centroid;
    double *restrict residual = source->residual;
    double a[VS_SUMS] = {0}, b[VS_SUMS] = {0}, c[VS_SUMS] = {0};
    for (size_t i = 0; i < n; i += VS_SUMS)
        for (size_t j = 0; j < VS_SUMS; j++) {
            double r = (double)row[i + j] - centroid[i + j];
            residual[i + j] = r;
            a[j] += fabs(r);
            b[j] += r * r;
            c[j] += r >= 0.0 ? centroid[i + j] : -centroid[i + j];
        }
    const double l1 = vs_total(a), l2 = vs_total(b), signed_centroid = vs_total(c);
    const double rescale = l1 > 0.0 ? -2.0 * l2 / l1 : 0.0;
    const double squared_cosine = l2 > 0.0 ? l1 / ((double)n * l2) * l1 : 1.0;
    const double rest = (1.0 - squared_cosine) / squared_cosine;
    factors[0] = (float)(l2 - rescale * signed_centroid - source->shift);
    factors[VS_BLOCK_ROWS] = (float)rescale;
    factors[2 * VS_BLOCK_ROWS] =
        rest > 0.0 ? (float)(2.0 * sqrt(l2) * sqrt(rest) * VS_ERROR_DEVIATIONS / sqrt((double)n - 1.0)) : 0.0f;
}

VS_ALWAYS_INLINE void vs_int8_body(const VsSource *source, int8_t *restrict out, VsInt8Factors *factors) {
    const size_t n = source->padded_dim;
    const float *restrict row = source->row;
    const double *restrict centroid = source->centroid;
    double *restrict residual = source->residual;
    double most[VS_SUMS] = {0}, squares[VS_SUMS] = {0}, sums[VS_SUMS] = {0}, top = 0.0;
    for (size_t i = 0; i < n; i += VS_SUMS)
        for (size_t j = 0; j < VS_SUMS; j++) {
            double r = (double)row[i + j] - centroid[i + j], m = fabs(r);
            residual[i + j] = r;
            squares[j] += r * r;
            most[j] = m > most[j] ? m : most[j];
        }
    for (size_t j = 0; j < VS_SUMS; j++)
        top = most[j] > top ? most[j] : top;
    factors->scale = (float)(top / 127.0);
    const double scale = factors->scale, inverse = scale > 0.0 ? 1.0 / scale : 0.0;
    for (size_t i = 0; i < n; i += VS_SUMS)
        for (size_t j = 0; j < VS_SUMS; j++) {
            double q = residual[i + j] * inverse;
            q = q > 127.0 ? 127.0 : q;
            q = q < -127.0 ? -127.0 : q;
            /* Adding 1.5 * 2^52 rounds to the nearest integer, ties to even, without a call. */
            q = (q + 0x1.8p52) - 0x1.8p52;
            out[i + j] = (int8_t)(int32_t)q;
            sums[j] += centroid[i + j] * q;
        }
    factors->add = (float)(vs_total(squares) + 2.0 * scale * vs_total(sums) - source->shift);
}

static void vs_encode_slot_serial(const VsSource *source, uint8_t *block, size_t slot) {
    const size_t n = source->padded_dim;
    const int up = slot < 16 ? 0 : 4;
    uint8_t *codes = block + slot % 16;
    vs_factors(source, (float *)(void *)(block + 4 * n) + slot);
    for (size_t g = 0; g < n / 4; g++, codes += 16) {
        const double *r = source->residual + 4 * g;
        unsigned nibble = (unsigned)(r[0] >= 0.0) | (unsigned)(r[1] >= 0.0) << 1 |
                          (unsigned)(r[2] >= 0.0) << 2 | (unsigned)(r[3] >= 0.0) << 3;
        *codes = (uint8_t)(*codes | nibble << up);
    }
}

static void vs_encode_int8_serial(const VsSource *source, int8_t *out, VsInt8Factors *factors) {
    vs_int8_body(source, out, factors);
}

#endif
