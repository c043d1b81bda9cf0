/* AVX-512 twin of sort/serial.h, the method of sort/avx2.h. */
#ifndef VECSTORE_SORT_AVX512_H
#define VECSTORE_SORT_AVX512_H

#include "../dot/avx512.h"
#include "serial.h"

#define VS_MOST_COMPARED_AVX512 256 /* items at most; a multiple of 64 */

VS_AVX512 static VsRanked *vs_sort_avx512(VsRanked *items, VsRanked *spare, size_t n, float low, float high) {
    uint32_t keys[VS_MOST_COMPARED_AVX512], ranks[VS_MOST_COMPARED_AVX512];
    const __m512i one = _mm512_set1_epi32(1);
    if (n > VS_MOST_COMPARED_AVX512)
        return vs_sort_serial(items, spare, n, low, high);
    for (size_t i = 0; i < n; i++)
        keys[i] = items[i].key;
    for (size_t i = n; i < VS_MOST_COMPARED_AVX512 && i % 64; i++)
        keys[i] = 0;
    for (size_t at = 0; at < n; at += 64) {
        __m512i own[4], less[4];
        for (int j = 0; j < 4; j++) {
            own[j] = _mm512_loadu_si512(keys + at + 16 * j);
            less[j] = _mm512_setzero_si512();
        }
        for (size_t i = 0; i < n; i++) {
            const __m512i key = _mm512_set1_epi32((int32_t)keys[i]);
            for (int j = 0; j < 4; j++)
                less[j] = _mm512_mask_add_epi32(less[j], _mm512_cmpgt_epu32_mask(own[j], key), less[j], one);
        }
        for (int j = 0; j < 4; j++)
            _mm512_storeu_si512(ranks + at + 16 * j, less[j]);
    }
    return vs_place(items, ranks, n, spare) ? spare : vs_sort_serial(items, spare, n, low, high);
}

#endif
