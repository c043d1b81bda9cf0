/* AVX-512 twin of nearest/serial.h: the least of each of sixteen lanes with its label, then the
 * lowest label among the least of these. */
#ifndef VECSTORE_NEAREST_AVX512_H
#define VECSTORE_NEAREST_AVX512_H

#include "../dot/avx512.h"
#include "serial.h"

VS_AVX512 static void vs_nearest_avx512(const float *dots, const float *half_norms, size_t k,
                                        int32_t label_base, float *best, int32_t *label) {
    size_t j = 0;
    __m512 least = _mm512_set1_ps(*best);
    __m512i where = _mm512_set1_epi32(-1);
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; j + 16 <= k; j += 16) {
        __m512 value = _mm512_sub_ps(_mm512_loadu_ps(half_norms + j), _mm512_loadu_ps(dots + j));
        __mmask16 less = _mm512_cmp_ps_mask(value, least, _CMP_LT_OQ);
        least = _mm512_mask_mov_ps(least, less, value);
        where = _mm512_mask_mov_epi32(where, less, at);
        at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
    }
    /* A lane that found something is below *best, the others are not. */
    if (_mm512_movepi32_mask(where) != 0xFFFF) {
        __mmask16 ties = _mm512_cmp_ps_mask(least, _mm512_set1_ps(_mm512_reduce_min_ps(least)), _CMP_EQ_OQ);
        int32_t found = _mm512_mask_reduce_min_epi32(ties, where);
        *best = half_norms[found] - dots[found];
        *label = label_base + found;
    }
    vs_nearest_serial(dots + j, half_norms + j, k - j, label_base + (int32_t)j, best, label);
}

#endif
