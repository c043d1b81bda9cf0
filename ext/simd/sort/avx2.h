/* AVX2 twin of sort/serial.h: few items go where they belong at once, by how many keys are less than theirs,
 * which takes more comparisons than buckets and insertion do, but none whose outcome has to be guessed (`pool_hits` of
 * bench/kernels.py). Where two keys are alike, buckets. */
#ifndef VECSTORE_SORT_AVX2_H
#define VECSTORE_SORT_AVX2_H

#include "../dot/avx2.h"
#include "serial.h"

#define VS_MOST_COMPARED_AVX2 128 /* items at most; a multiple of 32 */

VS_AVX2 static VsRanked *vs_sort_avx2(VsRanked *items, VsRanked *spare, size_t n, float low, float high) {
    int32_t keys[VS_MOST_COMPARED_AVX2];
    uint32_t ranks[VS_MOST_COMPARED_AVX2];
    if (n > VS_MOST_COMPARED_AVX2)
        return vs_sort_serial(items, spare, n, low, high);
    for (size_t i = 0; i < n; i++)
        keys[i] = (int32_t)(items[i].key ^ 0x80000000u); /* there is no unsigned comparison */
    for (size_t i = n; i < VS_MOST_COMPARED_AVX2 && i % 32; i++)
        keys[i] = INT32_MIN;
    for (size_t at = 0; at < n; at += 32) {
        __m256i own[4], less[4];
        for (int j = 0; j < 4; j++) {
            own[j] = _mm256_loadu_si256((const __m256i *)(const void *)(keys + at + 8 * j));
            less[j] = _mm256_setzero_si256();
        }
        for (size_t i = 0; i < n; i++) {
            const __m256i key = _mm256_set1_epi32(keys[i]);
            for (int j = 0; j < 4; j++)
                less[j] = _mm256_sub_epi32(less[j], _mm256_cmpgt_epi32(own[j], key));
        }
        for (int j = 0; j < 4; j++)
            _mm256_storeu_si256((__m256i *)(void *)(ranks + at + 8 * j), less[j]);
    }
    return vs_place(items, ranks, n, spare) ? spare : vs_sort_serial(items, spare, n, low, high);
}

#endif
