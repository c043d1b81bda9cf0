/* AVX2 twin of rotate/serial.h: the first three Hadamard stages within a register, the others two
 * at a time, so that each element is read and written half as often. */
#ifndef VECSTORE_ROTATE_AVX2_H
#define VECSTORE_ROTATE_AVX2_H

#include "../dot/avx2.h"

VS_AVX2 static inline void vs_butterflies_avx2(float *a, float *b, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        __m256 x = _mm256_loadu_ps(a + i), y = _mm256_loadu_ps(b + i);
        _mm256_storeu_ps(a + i, _mm256_add_ps(x, y));
        _mm256_storeu_ps(b + i, _mm256_sub_ps(x, y));
    }
}

VS_AVX2 static inline void vs_scale_avx2(float *v, size_t n, float scale) {
    const __m256 factor = _mm256_set1_ps(scale);
    for (size_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(v + i, _mm256_mul_ps(_mm256_loadu_ps(v + i), factor));
}

VS_AVX2 static inline void vs_flip_avx2(float *v, size_t n, const uint8_t *signs) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (size_t i = 0; i < n; i += 8) {
        __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(signs[i / 8]), bits), bits);
        __m256 flip = _mm256_and_ps(_mm256_castsi256_ps(set), sign);
        _mm256_storeu_ps(v + i, _mm256_xor_ps(_mm256_loadu_ps(v + i), flip));
    }
}

VS_AVX2 static inline void vs_hadamard_avx2(float *v, size_t n) {
    const __m256 odd1 = _mm256_setr_ps(0.f, -0.f, 0.f, -0.f, 0.f, -0.f, 0.f, -0.f);
    const __m256 odd2 = _mm256_setr_ps(0.f, 0.f, -0.f, -0.f, 0.f, 0.f, -0.f, -0.f);
    const __m256 odd4 = _mm256_setr_ps(0.f, 0.f, 0.f, 0.f, -0.f, -0.f, -0.f, -0.f);
    size_t half = 8;
    for (size_t i = 0; i < n; i += 8) {
        __m256 x = _mm256_loadu_ps(v + i);
        x = _mm256_add_ps(_mm256_permute_ps(x, 0xB1), _mm256_xor_ps(x, odd1));
        x = _mm256_add_ps(_mm256_permute_ps(x, 0x4E), _mm256_xor_ps(x, odd2));
        x = _mm256_add_ps(_mm256_permute2f128_ps(x, x, 1), _mm256_xor_ps(x, odd4));
        _mm256_storeu_ps(v + i, x);
    }
    for (; 2 * half < n; half *= 4)
        for (size_t start = 0; start < n; start += 4 * half)
            for (size_t i = start; i < start + half; i += 8) {
                __m256 a = _mm256_loadu_ps(v + i), b = _mm256_loadu_ps(v + i + half);
                __m256 c = _mm256_loadu_ps(v + i + 2 * half), d = _mm256_loadu_ps(v + i + 3 * half);
                __m256 ab = _mm256_add_ps(a, b), a_b = _mm256_sub_ps(a, b);
                __m256 cd = _mm256_add_ps(c, d), c_d = _mm256_sub_ps(c, d);
                _mm256_storeu_ps(v + i, _mm256_add_ps(ab, cd));
                _mm256_storeu_ps(v + i + half, _mm256_add_ps(a_b, c_d));
                _mm256_storeu_ps(v + i + 2 * half, _mm256_sub_ps(ab, cd));
                _mm256_storeu_ps(v + i + 3 * half, _mm256_sub_ps(a_b, c_d));
            }
    for (; half < n; half *= 2)
        for (size_t i = 0; i < n; i += 2 * half)
            vs_butterflies_avx2(v + i, v + i + half, half);
}

VS_AVX2 static void vs_rotate_avx2(float *v, size_t padded_dim, const uint8_t *signs, size_t rounds) {
    const size_t power = vs_floor_power(padded_dim);
    const float unit = (float)(1.0 / sqrt((double)power));
    for (size_t round = 0; round < rounds; round++, signs += padded_dim / 8) {
        float *part = round % 2 ? v + (padded_dim - power) : v;
        vs_flip_avx2(v, padded_dim, signs);
        vs_hadamard_avx2(part, power);
        vs_scale_avx2(part, power, unit);
        if (power != padded_dim)
            vs_butterflies_avx2(v, v + padded_dim / 2, padded_dim / 2);
    }
    if (power != padded_dim)
        vs_scale_avx2(v, padded_dim, vs_kac_scale(rounds));
}

#endif
