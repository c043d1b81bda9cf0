/* AVX2 twin of nearest/serial.h: the least of each of eight lanes with its label, then the least of
 * these; a lane keeps its first, so a tie ends at the lower label as in the serial loop. */
#ifndef VECSTORE_NEAREST_AVX2_H
#define VECSTORE_NEAREST_AVX2_H

#include "../dot/avx2.h"
#include "serial.h"

VS_AVX2 static void vs_nearest_avx2(const float *dots, const float *half_norms, size_t k, int32_t label_base,
                                    float *best, int32_t *label) {
    size_t j = 0;
    if (k >= 8) {
        _Alignas(32) float values[8];
        _Alignas(32) int32_t labels[8];
        __m256 least = _mm256_set1_ps(*best);
        __m256i where = _mm256_set1_epi32(-1);
        __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        for (; j + 8 <= k; j += 8) {
            __m256 value = _mm256_sub_ps(_mm256_loadu_ps(half_norms + j), _mm256_loadu_ps(dots + j));
            __m256 less = _mm256_cmp_ps(value, least, _CMP_LT_OQ);
            least = _mm256_blendv_ps(least, value, less);
            where = _mm256_blendv_epi8(where, at, _mm256_castps_si256(less));
            at = _mm256_add_epi32(at, _mm256_set1_epi32(8));
        }
        _mm256_store_ps(values, least);
        _mm256_store_si256((__m256i *)(void *)labels, where);
        int32_t found = -1;
        for (int i = 0; i < 8; i++)
            if (labels[i] >= 0 && (values[i] < *best || (found >= 0 && values[i] == *best && labels[i] < found))) {
                *best = values[i];
                found = labels[i];
            }
        if (found >= 0)
            *label = label_base + found;
    }
    vs_nearest_serial(dots + j, half_norms + j, k - j, label_base + (int32_t)j, best, label);
}

#endif
