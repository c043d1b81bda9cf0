/* AVX2 twin of dot/serial.h: four accumulators of eight lanes each. */
#ifndef VECSTORE_DOT_AVX2_H
#define VECSTORE_DOT_AVX2_H

#include <immintrin.h>

#include "../kernels.h"

#define VS_AVX2 __attribute__((target("avx2,fma,f16c,bmi")))

VS_AVX2 static inline float vs_reduce_avx2(__m256 a0, __m256 a1, __m256 a2, __m256 a3) {
    __m256 eight = _mm256_add_ps(_mm256_add_ps(a0, a2), _mm256_add_ps(a1, a3));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#define VS_LOAD_F32(p) _mm256_loadu_ps(p)
#define VS_LOAD_F16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))

#define VS_ADD_PRODUCT(acc, a, b) acc = _mm256_add_ps(acc, _mm256_mul_ps(a, b))
#define VS_ADD_SQUARE(acc, a, b)                                                                   \
    do {                                                                                           \
        __m256 difference = _mm256_sub_ps(a, b);                                                   \
        acc = _mm256_add_ps(acc, _mm256_mul_ps(difference, difference));                           \
    } while (0)

#define VS_AVX2_STEP(LOAD, ADD, q, o)                                                              \
    ADD(a0, _mm256_loadu_ps((q)), LOAD((o)));                                                      \
    ADD(a1, _mm256_loadu_ps((q) + 8), LOAD((o) + 8));                                              \
    ADD(a2, _mm256_loadu_ps((q) + 16), LOAD((o) + 16));                                            \
    ADD(a3, _mm256_loadu_ps((q) + 24), LOAD((o) + 24))

#define VS_AVX2_SUM(NAME, TYPE, LOAD, ADD)                                                         \
    VS_AVX2 static float NAME(const float *q, const TYPE *o, size_t n) {                           \
        __m256 a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;                                \
        size_t i = 0;                                                                              \
        for (; i + VS_LANES <= n; i += VS_LANES) {                                                 \
            VS_AVX2_STEP(LOAD, ADD, q + i, o + i);                                                 \
        }                                                                                          \
        if (i < n) {                                                                               \
            float q_tail[VS_LANES] = {0};                                                          \
            TYPE o_tail[VS_LANES] = {0};                                                           \
            memcpy(q_tail, q + i, (n - i) * sizeof(float));                                        \
            memcpy(o_tail, o + i, (n - i) * sizeof(TYPE));                                         \
            VS_AVX2_STEP(LOAD, ADD, q_tail, o_tail);                                               \
        }                                                                                          \
        return vs_reduce_avx2(a0, a1, a2, a3);                                                     \
    }

VS_AVX2_SUM(vs_dot_avx2, float, VS_LOAD_F32, VS_ADD_PRODUCT)
VS_AVX2_SUM(vs_squared_l2_avx2, float, VS_LOAD_F32, VS_ADD_SQUARE)
VS_AVX2_SUM(vs_dot_f16_avx2, uint16_t, VS_LOAD_F16, VS_ADD_PRODUCT)
VS_AVX2_SUM(vs_squared_l2_f16_avx2, uint16_t, VS_LOAD_F16, VS_ADD_SQUARE)

/* Sixteen products, added in pairs. */
VS_AVX2 static inline __m256i vs_pairs_avx2(const int16_t *q, const int8_t *o) {
    __m256i row = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)o));
    return _mm256_madd_epi16(row, _mm256_loadu_si256((const __m256i *)(const void *)q));
}

VS_AVX2 static int32_t vs_dot_i8_avx2(const int16_t *q, const int8_t *o, size_t n) {
    __m256i a0 = _mm256_setzero_si256(), a1 = a0;
    for (size_t i = 0; i < n; i += 32) {
        a0 = _mm256_add_epi32(a0, vs_pairs_avx2(q + i, o + i));
        a1 = _mm256_add_epi32(a1, vs_pairs_avx2(q + i + 16, o + i + 16));
    }
    __m256i eight = _mm256_add_epi32(a0, a1);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

VS_AVX2 static float vs_squared_norm_f16_avx2(const uint16_t *o, size_t n) {
    __m256 a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;
    for (size_t i = 0; i < n; i += VS_LANES) {
        uint16_t tail[VS_LANES] = {0};
        const uint16_t *p = o + i;
        if (n - i < VS_LANES) {
            memcpy(tail, p, (n - i) * sizeof(uint16_t));
            p = tail;
        }
        __m256 x0 = VS_LOAD_F16(p), x1 = VS_LOAD_F16(p + 8);
        __m256 x2 = VS_LOAD_F16(p + 16), x3 = VS_LOAD_F16(p + 24);
        VS_ADD_PRODUCT(a0, x0, x0);
        VS_ADD_PRODUCT(a1, x1, x1);
        VS_ADD_PRODUCT(a2, x2, x2);
        VS_ADD_PRODUCT(a3, x3, x3);
    }
    return vs_reduce_avx2(a0, a1, a2, a3);
}

#endif
