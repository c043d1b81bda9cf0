/* AVX-512 twin of rotate/serial.h: signs and the first four Hadamard stages within a register, the
 * next two between four of them before they are written, the others two at a time; the scale goes
 * with the last pass. */
#ifndef VECSTORE_ROTATE_AVX512_H
#define VECSTORE_ROTATE_AVX512_H

#include "../dot/avx512.h"

VS_AVX512 static inline __m512 vs_flipped_avx512(const float *v, const uint8_t *signs) {
    uint16_t set;
    memcpy(&set, signs, sizeof set);
    __m512i bits = _mm512_castps_si512(_mm512_loadu_ps(v));
    return _mm512_castsi512_ps(_mm512_mask_xor_epi32(bits, set, bits, _mm512_set1_epi32(INT32_MIN)));
}

/* Of each pair of neighbours 1, 2, 4, 8 apart the sum goes first, the difference second. */
VS_AVX512 static inline __m512 vs_hadamard16_avx512(__m512 x) {
    __m512 other = _mm512_permute_ps(x, 0xB1);
    x = _mm512_mask_sub_ps(_mm512_add_ps(other, x), 0xAAAA, other, x);
    other = _mm512_permute_ps(x, 0x4E);
    x = _mm512_mask_sub_ps(_mm512_add_ps(other, x), 0xCCCC, other, x);
    other = _mm512_shuffle_f32x4(x, x, 0xB1);
    x = _mm512_mask_sub_ps(_mm512_add_ps(other, x), 0xF0F0, other, x);
    other = _mm512_shuffle_f32x4(x, x, 0x4E);
    return _mm512_mask_sub_ps(_mm512_add_ps(other, x), 0xFF00, other, x);
}

/* Two stages over four registers, `gap` elements apart. */
VS_AVX512 static inline void vs_two_stages_avx512(float *v, size_t gap, __m512 a, __m512 b, __m512 c, __m512 d,
                                                  __m512 factor) {
    __m512 ab = _mm512_add_ps(a, b), a_b = _mm512_sub_ps(a, b);
    __m512 cd = _mm512_add_ps(c, d), c_d = _mm512_sub_ps(c, d);
    _mm512_storeu_ps(v, _mm512_mul_ps(_mm512_add_ps(ab, cd), factor));
    _mm512_storeu_ps(v + gap, _mm512_mul_ps(_mm512_add_ps(a_b, c_d), factor));
    _mm512_storeu_ps(v + 2 * gap, _mm512_mul_ps(_mm512_sub_ps(ab, cd), factor));
    _mm512_storeu_ps(v + 3 * gap, _mm512_mul_ps(_mm512_sub_ps(a_b, c_d), factor));
}

VS_AVX512 static inline void vs_flip_avx512(float *v, size_t begin, size_t end, const uint8_t *signs) {
    for (size_t i = begin; i < end; i += 16)
        _mm512_storeu_ps(v + i, vs_flipped_avx512(v + i, signs + i / 8));
}

/* The normalised transform of n = 2^k >= 64 elements whose signs are still to be flipped. */
VS_AVX512 static inline void vs_hadamard_avx512(float *v, size_t n, const uint8_t *signs, float unit) {
    const __m512 one = _mm512_set1_ps(1.0f), factor = _mm512_set1_ps(unit);
    size_t half = 64;
    for (size_t i = 0; i < n; i += 64)
        vs_two_stages_avx512(v + i, 16, vs_hadamard16_avx512(vs_flipped_avx512(v + i, signs + i / 8)),
                             vs_hadamard16_avx512(vs_flipped_avx512(v + i + 16, signs + i / 8 + 2)),
                             vs_hadamard16_avx512(vs_flipped_avx512(v + i + 32, signs + i / 8 + 4)),
                             vs_hadamard16_avx512(vs_flipped_avx512(v + i + 48, signs + i / 8 + 6)),
                             n == 64 ? factor : one);
    for (; 2 * half < n; half *= 4)
        for (size_t start = 0; start < n; start += 4 * half)
            for (size_t i = start; i < start + half; i += 16)
                vs_two_stages_avx512(v + i, half, _mm512_loadu_ps(v + i), _mm512_loadu_ps(v + i + half),
                                     _mm512_loadu_ps(v + i + 2 * half), _mm512_loadu_ps(v + i + 3 * half),
                                     4 * half == n ? factor : one);
    if (half < n)
        for (size_t i = 0; i < half; i += 16) {
            __m512 x = _mm512_loadu_ps(v + i), y = _mm512_loadu_ps(v + i + half);
            _mm512_storeu_ps(v + i, _mm512_mul_ps(_mm512_add_ps(x, y), factor));
            _mm512_storeu_ps(v + i + half, _mm512_mul_ps(_mm512_sub_ps(x, y), factor));
        }
}

VS_AVX512 static void vs_rotate_avx512(float *v, size_t padded_dim, const uint8_t *signs, size_t rounds) {
    const size_t power = vs_floor_power(padded_dim), half = padded_dim / 2;
    const float unit = (float)(1.0 / sqrt((double)power));
    for (size_t round = 0; round < rounds; round++, signs += padded_dim / 8) {
        const size_t begin = round % 2 ? padded_dim - power : 0;
        vs_flip_avx512(v, 0, begin, signs);
        vs_hadamard_avx512(v + begin, power, signs + begin / 8, unit);
        vs_flip_avx512(v, begin + power, padded_dim, signs);
        if (power == padded_dim)
            continue;
        const __m512 factor = _mm512_set1_ps(round + 1 < rounds ? 1.0f : vs_kac_scale(rounds));
        for (size_t i = 0; i < half; i += 16) {
            __m512 x = _mm512_loadu_ps(v + i), y = _mm512_loadu_ps(v + i + half);
            _mm512_storeu_ps(v + i, _mm512_mul_ps(_mm512_add_ps(x, y), factor));
            _mm512_storeu_ps(v + i + half, _mm512_mul_ps(_mm512_sub_ps(x, y), factor));
        }
    }
}

#endif
