/* AVX-512 twin of encode/serial.h: the same code in wider vectors; int8 rows, whose compiled
 * code is slower so, are left to AVX2. */
#ifndef VECSTORE_ENCODE_AVX512_H
#define VECSTORE_ENCODE_AVX512_H

#include "../dot/avx512.h"
#include "serial.h"

VS_AVX512 static void vs_encode_slot_avx512(const VsSource *source, uint8_t *block, size_t slot) {
    const size_t n = source->padded_dim;
    const int up = slot < 16 ? 0 : 4;
    uint8_t *codes = block + slot % 16;
    vs_factors(source, (float *)(void *)(block + 4 * n) + slot);
    for (size_t i = 0; i < n; i += 8, codes += 32) {
        unsigned set = _mm512_cmp_pd_mask(_mm512_loadu_pd(source->residual + i), _mm512_setzero_pd(), _CMP_GE_OQ);
        codes[0] = (uint8_t)(codes[0] | (set & 15) << up);
        codes[16] = (uint8_t)(codes[16] | (set >> 4) << up);
    }
}

#endif
