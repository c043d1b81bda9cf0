/* AVX-512 twin of dot/serial.h: two accumulators of sixteen lanes each. For fp16
 * it is no faster than AVX2: the conversion takes the place of what is saved. */
#ifndef VECSTORE_DOT_AVX512_H
#define VECSTORE_DOT_AVX512_H

#include <immintrin.h>

#include "../kernels.h"

#define VS_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi")))

VS_AVX512 static inline float vs_reduce_avx512(__m512 a0, __m512 a1) {
    __m512 sixteen = _mm512_add_ps(a0, a1);
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps(sixteen, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Sixteen elements as floats, all or those that a mask names. */
#define VS_WIDE_F32(p) _mm512_loadu_ps(p)
#define VS_SOME_F32(m, p) _mm512_maskz_loadu_ps(m, p)

#define VS_WIDE_PRODUCT(acc, a, b) acc = _mm512_add_ps(acc, _mm512_mul_ps(a, b))
#define VS_WIDE_SQUARE(acc, a, b)                                                                  \
    do {                                                                                           \
        __m512 difference = _mm512_sub_ps(a, b);                                                   \
        acc = _mm512_add_ps(acc, _mm512_mul_ps(difference, difference));                           \
    } while (0)

#define VS_AVX512_SUM(NAME, TYPE, KIND, ADD)                                                       \
    VS_AVX512 static float NAME(const float *q, const TYPE *o, size_t n) {                         \
        __m512 a0 = _mm512_setzero_ps(), a1 = a0;                                                  \
        size_t i = 0;                                                                              \
        for (; i + VS_LANES <= n; i += VS_LANES) {                                                 \
            ADD(a0, _mm512_loadu_ps(q + i), VS_WIDE_##KIND(o + i));                                \
            ADD(a1, _mm512_loadu_ps(q + i + 16), VS_WIDE_##KIND(o + i + 16));                      \
        }                                                                                          \
        if (i < n) {                                                                               \
            const uint32_t rest = ((uint32_t)1 << (n - i)) - 1;                                    \
            const __mmask16 first = (__mmask16)rest, second = (__mmask16)(rest >> 16);             \
            ADD(a0, VS_SOME_F32(first, q + i), VS_SOME_##KIND(first, o + i));                      \
            ADD(a1, VS_SOME_F32(second, q + i + 16), VS_SOME_##KIND(second, o + i + 16));          \
        }                                                                                          \
        return vs_reduce_avx512(a0, a1);                                                           \
    }

VS_AVX512_SUM(vs_dot_avx512, float, F32, VS_WIDE_PRODUCT)
VS_AVX512_SUM(vs_squared_l2_avx512, float, F32, VS_WIDE_SQUARE)

VS_AVX512 static int32_t vs_dot_i8_avx512(const int16_t *q, const int8_t *o, size_t n) {
    __m512i a0 = _mm512_setzero_si512(), a1 = a0;
    for (size_t i = 0; i < n; i += 64) {
        __m512i first = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(o + i)));
        __m512i second = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(o + i + 32)));
        a0 = _mm512_add_epi32(a0, _mm512_madd_epi16(first, _mm512_loadu_si512(q + i)));
        a1 = _mm512_add_epi32(a1, _mm512_madd_epi16(second, _mm512_loadu_si512(q + i + 32)));
    }
    return _mm512_reduce_add_epi32(_mm512_add_epi32(a0, a1));
}

#endif
