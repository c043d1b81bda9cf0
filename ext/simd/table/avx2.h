/* AVX2 twin of table/serial.h: a pair of groups at a time. The entries are made as if all z were
 * positive; the signs then only permute the 16 entries of a group (m -> m ^ negative). */
#ifndef VECSTORE_TABLE_AVX2_H
#define VECSTORE_TABLE_AVX2_H

#include "../dot/avx2.h"
#include "serial.h"

/* Entries 0 ... 7 of a group without its fourth dimension. */
#define VS_LOW_ENTRIES(a)                                                                          \
    _mm256_add_ps(_mm256_add_ps(_mm256_and_ps(_mm256_broadcast_ss(a), bit0),                       \
                                _mm256_and_ps(_mm256_broadcast_ss((a) + 1), bit1)),                \
                  _mm256_and_ps(_mm256_broadcast_ss((a) + 2), bit2))

VS_AVX2 static inline float vs_greatest_avx2(__m256 x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* Sums of the groups four apart, of eight in the order 0, 2, 4, 6, 1, 3, 5, 7. */
VS_AVX2 static inline __m256 vs_four_apart_avx2(__m256 run) {
    return _mm256_add_ps(run, _mm256_permute_ps(run, 0x4E));
}

VS_AVX2 static void vs_build_table_avx2(VsTable *table) {
    const float *z = table->z;
    uint8_t *lut = table->lut;
    size_t n = table->padded_dim;
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 n0 = _mm256_setzero_ps(), n1 = n0, n2 = n0, n3 = n0;
    __m256 run = n0, tops = n0, mosts = n0;
    for (size_t i = 0; i < n; i += VS_LANES) {
        if (i % VS_RUN == 0) {
            tops = _mm256_max_ps(vs_four_apart_avx2(run), tops);
            run = _mm256_setzero_ps();
        }
        __m256 x0 = _mm256_and_ps(_mm256_loadu_ps(z + i), magnitude);
        __m256 x1 = _mm256_and_ps(_mm256_loadu_ps(z + i + 8), magnitude);
        __m256 x2 = _mm256_and_ps(_mm256_loadu_ps(z + i + 16), magnitude);
        __m256 x3 = _mm256_and_ps(_mm256_loadu_ps(z + i + 24), magnitude);
        VS_ADD_PRODUCT(n0, x0, x0);
        VS_ADD_PRODUCT(n1, x1, x1);
        VS_ADD_PRODUCT(n2, x2, x2);
        VS_ADD_PRODUCT(n3, x3, x3);
        mosts = _mm256_max_ps(_mm256_max_ps(_mm256_max_ps(x0, x1), _mm256_max_ps(x2, x3)), mosts);
        run = _mm256_add_ps(_mm256_hadd_ps(_mm256_hadd_ps(x0, x1), _mm256_hadd_ps(x2, x3)), run);
    }
    tops = _mm256_max_ps(vs_four_apart_avx2(run), tops);
    table->squared_norm = vs_reduce_avx2(n0, n1, n2, n3);
    const float top = vs_greatest_avx2(tops), most = vs_greatest_avx2(mosts);
    if (vs_table_is_flat(top)) {
        vs_flat_table(table);
        return;
    }
    table->scale = top * (2.0f / VS_LEVELS);
    table->step = most / vs_steps(table->padded_dim);
    const __m256 steps = _mm256_set1_ps(vs_steps(table->padded_dim) / most);
    for (size_t i = 0; i < n; i += 16) {
        __m256i first = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(z + i), steps));
        __m256i second = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(z + i + 8), steps));
        __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xD8);
        _mm256_storeu_si256((__m256i *)(void *)(table->whole + i), packed);
    }
    const __m256 unit = _mm256_set1_ps(VS_LEVELS / top);
    const __m256 bit0 = _mm256_castsi256_ps(_mm256_setr_epi32(0, -1, 0, -1, 0, -1, 0, -1));
    const __m256 bit1 = _mm256_castsi256_ps(_mm256_setr_epi32(0, 0, -1, -1, 0, 0, -1, -1));
    const __m256 bit2 = _mm256_castsi256_ps(_mm256_setr_epi32(0, 0, 0, 0, -1, -1, -1, -1));
    const __m256i unpack = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i iota = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __m256i total = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 8) {
        _Alignas(32) float a[8];
        __m256 x = _mm256_loadu_ps(z + i);
        int negative = _mm256_movemask_ps(x);
        _mm256_store_ps(a, _mm256_mul_ps(_mm256_and_ps(x, magnitude), unit));
        __m256 low0 = VS_LOW_ENTRIES(a);
        __m256 low1 = VS_LOW_ENTRIES(a + 4);
        __m256 high0 = _mm256_add_ps(low0, _mm256_broadcast_ss(a + 3));
        __m256 high1 = _mm256_add_ps(low1, _mm256_broadcast_ss(a + 7));
        __m256i words0 = _mm256_packs_epi32(_mm256_cvtps_epi32(low0), _mm256_cvtps_epi32(high0));
        __m256i words1 = _mm256_packs_epi32(_mm256_cvtps_epi32(low1), _mm256_cvtps_epi32(high1));
        /* Both packs work within 128-bit halves: undo that, four bytes at a time. */
        __m256i mixed = _mm256_packus_epi16(words0, words1);
        __m256i bytes = _mm256_permutevar8x32_epi32(mixed, unpack);
        __m256i swap = _mm256_set_m128i(_mm_set1_epi8((char)(negative >> 4)),
                                        _mm_set1_epi8((char)(negative & 15)));
        _mm256_storeu_si256((__m256i *)(void *)(lut + 4 * i),
                            _mm256_shuffle_epi8(bytes, _mm256_xor_si256(iota, swap)));
        total = _mm256_add_epi64(total, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
    }
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    table->bias = vs_bias(table->scale, (uint32_t)_mm_cvtsi128_si32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))));
}

#endif
