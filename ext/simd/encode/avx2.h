/* AVX2 twin of encode/serial.h: the same code in wider vectors. */
#ifndef VECSTORE_ENCODE_AVX2_H
#define VECSTORE_ENCODE_AVX2_H

#include "../dot/avx2.h"
#include "serial.h"

VS_AVX2 static void vs_encode_slot_avx2(const VsSource *source, uint8_t *block, size_t slot) {
    const size_t n = source->padded_dim;
    const int up = slot < 16 ? 0 : 4;
    uint8_t *codes = block + slot % 16;
    vs_factors(source, (float *)(void *)(block + 4 * n) + slot);
    for (size_t i = 0; i < n; i += 4, codes += 16) {
        __m256d r = _mm256_loadu_pd(source->residual + i);
        int nibble = _mm256_movemask_pd(_mm256_cmp_pd(r, _mm256_setzero_pd(), _CMP_GE_OQ));
        *codes = (uint8_t)(*codes | nibble << up);
    }
}

VS_AVX2 static void vs_encode_int8_avx2(const VsSource *source, int8_t *out, VsInt8Factors *factors) {
    vs_int8_body(source, out, factors);
}

#endif
