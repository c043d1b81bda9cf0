/* A list's centroid as int8; the rest of encoding is in simd/encode. */
#ifndef VECSTORE_ENCODE_H
#define VECSTORE_ENCODE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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
        q = q < 127.0 ? (q > -127.0 ? q : -127.0) : 127.0; /* a NaN, too */
        out[i] = (int8_t)(int32_t)((q + 0x1.8p52) - 0x1.8p52);
    }
    return scale;
}

#endif
