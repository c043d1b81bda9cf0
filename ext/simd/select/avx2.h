/* AVX2 twin of select/serial.h, as far as it has one: eight numbers cannot be moved together. */
#ifndef VECSTORE_SELECT_AVX2_H
#define VECSTORE_SELECT_AVX2_H

#include "../dot/avx2.h"
#include "serial.h"

VS_AVX2 static size_t vs_count_within_avx2(const float *values, size_t n, float limit) {
    const __m256 most = _mm256_set1_ps(limit);
    __m256i counts = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        counts = _mm256_sub_epi32(
            counts, _mm256_castps_si256(_mm256_cmp_ps(_mm256_loadu_ps(values + i), most, _CMP_LE_OQ)));
    uint32_t lanes[8], count = 0;
    _mm256_storeu_si256((__m256i *)(void *)lanes, counts);
    for (int j = 0; j < 8; j++)
        count += lanes[j];
    return count + vs_count_within_serial(values + i, n - i, limit);
}

#endif
