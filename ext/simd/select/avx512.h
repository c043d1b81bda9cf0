/* AVX-512 twin of select/serial.h. What is kept is put together in a register: a store under a mask that
 * does so itself takes a hundred cycles and more on some processors (Zen 4). */
#ifndef VECSTORE_SELECT_AVX512_H
#define VECSTORE_SELECT_AVX512_H

#include "../dot/avx512.h"
#include "serial.h"

VS_AVX512 static size_t vs_count_within_avx512(const float *values, size_t n, float limit) {
    const __m512 most = _mm512_set1_ps(limit);
    size_t count = 0;
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)0xFFFF;
        const __m512 here = _mm512_maskz_loadu_ps(some, values + i);
        count += vs_count(_mm512_mask_cmp_ps_mask(some, here, most, _CMP_LE_OQ));
    }
    return count;
}

VS_AVX512 static size_t vs_keep_avx512(const float *values, const int32_t *items, size_t n, float limit, int beyond,
                                       float *kept_values, int32_t *kept_items) {
    const __m512 most = _mm512_set1_ps(limit);
    const __mmask16 turned = beyond ? 0xFFFF : 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)0xFFFF;
        const __m512 here = _mm512_maskz_loadu_ps(some, values + i);
        const __m512i theirs = _mm512_maskz_loadu_epi32(some, items + i);
        const __mmask16 mask = (_mm512_cmp_ps_mask(here, most, _CMP_LE_OQ) ^ turned) & some;
        _mm512_storeu_ps(kept_values + kept, _mm512_maskz_compress_ps(mask, here));
        _mm512_storeu_si512(kept_items + kept, _mm512_maskz_compress_epi32(mask, theirs));
        kept += vs_count(mask);
    }
    return kept;
}

VS_AVX512 static size_t vs_take_slots_avx512(uint32_t mask, const float *estimates, int32_t first, float *values,
                                             int32_t *items) {
    const __m512i steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i slots = _mm512_add_epi32(_mm512_set1_epi32(first), steps);
    const __mmask16 low = (__mmask16)mask, high = (__mmask16)(mask >> 16);
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps(low, _mm512_loadu_ps(estimates)));
    _mm512_storeu_si512(items, _mm512_maskz_compress_epi32(low, slots));
    const size_t taken = vs_count(low);
    if (high) {
        _mm512_storeu_ps(values + taken, _mm512_maskz_compress_ps(high, _mm512_loadu_ps(estimates + 16)));
        _mm512_storeu_si512(items + taken,
                            _mm512_maskz_compress_epi32(high, _mm512_add_epi32(slots, _mm512_set1_epi32(16))));
    }
    return taken + vs_count(high);
}

#endif
