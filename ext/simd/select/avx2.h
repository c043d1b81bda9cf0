/* AVX2 twin of select/serial.h. */
#ifndef VECSTORE_SELECT_AVX2_H
#define VECSTORE_SELECT_AVX2_H

#include "../dot/avx2.h"
#include "serial.h"

VS_AVX2 static void vs_range_avx2(const float *scores, size_t count, float *low, float *high) {
    __m256 least = _mm256_set1_ps(INFINITY), most = _mm256_set1_ps(-INFINITY);
    _Alignas(32) float ends[16];
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 x = _mm256_loadu_ps(scores + i);
        least = _mm256_min_ps(x, least);
        most = _mm256_max_ps(x, most);
    }
    vs_range_serial(scores + i, count - i, low, high);
    _mm256_store_ps(ends, least);
    _mm256_store_ps(ends + 8, most);
    for (i = 0; i < 8; i++) {
        *low = ends[i] < *low ? ends[i] : *low;
        *high = ends[i + 8] > *high ? ends[i + 8] : *high;
    }
}

VS_AVX2 static void vs_histogram_avx2(const float *scores, size_t count, float low, float per_unit,
                                      uint32_t *bins) {
    const __m256 base = _mm256_set1_ps(low), factor = _mm256_set1_ps(per_unit);
    const __m256i last = _mm256_set1_epi32(VS_BINS - 1);
    _Alignas(32) uint32_t bin[8];
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 at = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(scores + i), base), factor);
        /* What does not convert becomes 2^31, which is beyond the last bin too. */
        _mm256_store_si256((__m256i *)(void *)bin, _mm256_min_epu32(_mm256_cvttps_epi32(at), last));
        for (int j = 0; j < 8; j++)
            bins[bin[j]]++;
    }
    vs_histogram_serial(scores + i, count - i, low, per_unit, bins);
}

VS_AVX2 static size_t vs_collect_avx2(const float *scores, size_t count, float low, float per_unit,
                                      float edge, VsRanked *items) {
    const __m256 base = _mm256_set1_ps(low), factor = _mm256_set1_ps(per_unit), most = _mm256_set1_ps(edge);
    size_t found = 0, i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 at = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(scores + i), base), factor);
        unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(at, most, _CMP_NGE_UQ));
        for (; mask; mask &= mask - 1) {
            size_t j = i + (size_t)__builtin_ctz(mask);
            items[found].key = vs_ordered(scores[j]);
            items[found++].value = (uint32_t)j;
        }
    }
    size_t rest = vs_collect_serial(scores + i, count - i, low, per_unit, edge, items + found);
    for (size_t j = found; j < found + rest; j++)
        items[j].value += (uint32_t)i;
    return found + rest;
}

#endif
