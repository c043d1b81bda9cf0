/* AVX-512 twin of select/serial.h; the histogram, whose counting is scalar, is left to AVX2. */
#ifndef VECSTORE_SELECT_AVX512_H
#define VECSTORE_SELECT_AVX512_H

#include "../dot/avx512.h"
#include "serial.h"

VS_AVX512 static void vs_range_avx512(const float *scores, size_t count, float *low, float *high) {
    __m512 least = _mm512_set1_ps(INFINITY), most = _mm512_set1_ps(-INFINITY);
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 these = count - i < 16 ? (__mmask16)((1u << (count - i)) - 1) : 0xFFFF;
        __m512 x = _mm512_maskz_loadu_ps(these, scores + i);
        least = _mm512_mask_min_ps(least, these, x, least);
        most = _mm512_mask_max_ps(most, these, x, most);
    }
    *low = _mm512_reduce_min_ps(least);
    *high = _mm512_reduce_max_ps(most);
}

/* vs_ordered of sixteen. */
VS_AVX512 static inline __m512i vs_ordered_avx512(__m512 x) {
    __m512i bits = _mm512_castps_si512(_mm512_add_ps(x, _mm512_setzero_ps()));
    __m512i flip = _mm512_or_si512(_mm512_srai_epi32(bits, 31), _mm512_set1_epi32(INT32_MIN));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(_mm512_xor_si512(bits, flip), nan, _mm512_set1_epi32(-1));
}

VS_AVX512 static size_t vs_collect_avx512(const float *scores, size_t count, float low, float per_unit,
                                          float edge, VsRanked *items) {
    const __m512 base = _mm512_set1_ps(low), factor = _mm512_set1_ps(per_unit), most = _mm512_set1_ps(edge);
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    size_t found = 0, i = 0;
    for (; i + 16 <= count; i += 16) {
        __m512 x = _mm512_loadu_ps(scores + i);
        __m512 at = _mm512_mul_ps(_mm512_sub_ps(x, base), factor);
        __mmask16 mask = _mm512_cmp_ps_mask(at, most, _CMP_NGE_UQ);
        if (mask) {
            /* Sixteen are written, of which the first are wanted: found <= i, so there is room. */
            __m512i keys = _mm512_maskz_compress_epi32(mask, vs_ordered_avx512(x));
            __m512i values = _mm512_maskz_compress_epi32(mask, numbers);
            _mm512_storeu_si512(items + found, _mm512_permutex2var_epi32(keys, first, values));
            _mm512_storeu_si512(items + found + 8, _mm512_permutex2var_epi32(keys, second, values));
            found += (size_t)__builtin_popcount(mask);
        }
        numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32(16));
    }
    size_t rest = vs_collect_serial(scores + i, count - i, low, per_unit, edge, items + found);
    for (size_t j = found; j < found + rest; j++)
        items[j].value += (uint32_t)i;
    return found + rest;
}

#endif
