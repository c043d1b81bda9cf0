/* AVX-512 twin of scan/serial.h, the method of scan/avx2.h: one 64-byte load holds the tables of
 * four groups, one the codes of all four for all 32 rows. */
#ifndef VECSTORE_SCAN_AVX512_H
#define VECSTORE_SCAN_AVX512_H

#include "../dot/avx512.h"

#define VS_WIDE_LOOK_UP(k)                                                                         \
    do {                                                                                           \
        __m512i codes = _mm512_loadu_si512(block + at + 64 * (k));                                 \
        __m512i entries = _mm512_loadu_si512(lut + at + 64 * (k));                                 \
        low = _mm512_add_epi8(low, _mm512_shuffle_epi8(entries, _mm512_and_si512(codes, nibble))); \
        if (whole)                                                                                 \
            high = _mm512_add_epi8(high, _mm512_shuffle_epi8(entries, _mm512_and_si512(            \
                                             _mm512_srli_epi16(codes, 4), nibble)));               \
    } while (0)

/* 16 sums in row order from the whole and the shifted sums; the four quarters hold four groups. */
VS_AVX512 static inline __m256i vs_unmix_avx512(__m512i whole, __m512i odd) {
    __m512i even = _mm512_sub_epi16(whole, _mm512_slli_epi16(odd, 8));
    __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
    __m256i lows = _mm256_add_epi16(_mm512_castsi512_si256(low), _mm512_extracti64x4_epi64(low, 1));
    __m256i highs = _mm256_add_epi16(_mm512_castsi512_si256(high), _mm512_extracti64x4_epi64(high, 1));
    return _mm256_add_epi16(_mm256_permute2x128_si256(lows, highs, 0x20),
                            _mm256_permute2x128_si256(lows, highs, 0x31));
}

VS_AVX512 static inline uint32_t vs_estimate_avx512(__m256i sums, const float *add, __m512 scale, __m512 bias,
                                                    __m512 g_add, __m512 limit, float *estimates) {
    __m512 inner = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(sums));
    inner = _mm512_add_ps(_mm512_mul_ps(scale, inner), bias);
    __m512 base = _mm512_add_ps(_mm512_loadu_ps(add), g_add);
    __m512 value = _mm512_add_ps(base, _mm512_mul_ps(_mm512_loadu_ps(add + VS_BLOCK_ROWS), inner));
    _mm512_storeu_ps(estimates, value);
    return _mm512_cmp_ps_mask(value, limit, _CMP_LE_OQ);
}

VS_AVX512 static inline __attribute__((always_inline)) uint32_t
vs_score_slots_avx512(const VsTable *table, const uint8_t *block, float g_add, float limit, float *estimates,
                      const int whole) {
    const uint8_t *lut = table->lut;
    const size_t code_bytes = 4 * table->padded_dim;
    const float *add = (const float *)(const void *)(block + code_bytes);
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i low_whole = _mm512_setzero_si512(), low_odd = low_whole;
    __m512i high_whole = low_whole, high_odd = low_whole;
    for (size_t at = 0; at < code_bytes; at += 256) {
        __m512i low = _mm512_setzero_si512(), high = low;
        VS_WIDE_LOOK_UP(0);
        VS_WIDE_LOOK_UP(1);
        VS_WIDE_LOOK_UP(2);
        VS_WIDE_LOOK_UP(3);
        low_whole = _mm512_add_epi16(low_whole, low);
        low_odd = _mm512_add_epi16(low_odd, _mm512_srli_epi16(low, 8));
        high_whole = _mm512_add_epi16(high_whole, high);
        high_odd = _mm512_add_epi16(high_odd, _mm512_srli_epi16(high, 8));
    }
    const __m512 scale = _mm512_set1_ps(table->scale), bias = _mm512_set1_ps(table->bias);
    const __m512 g = _mm512_set1_ps(g_add), most = _mm512_set1_ps(limit);
    uint32_t mask = vs_estimate_avx512(vs_unmix_avx512(low_whole, low_odd), add, scale, bias, g, most, estimates);
    if (whole)
        mask |= vs_estimate_avx512(vs_unmix_avx512(high_whole, high_odd), add + 16, scale, bias, g, most,
                                   estimates + 16) << 16;
    return mask;
}

VS_AVX512 static uint32_t vs_score_block_avx512(const VsTable *table, const uint8_t *block, uint32_t slots,
                                                float g_add, float limit, float *estimates) {
    if (slots < 1u << 16)
        return slots & vs_score_slots_avx512(table, block, g_add, limit, estimates, 0);
    return slots & vs_score_slots_avx512(table, block, g_add, limit, estimates, 1);
}

/* n queries over one load of the codes, whose nibbles are taken apart once for all. */
VS_AVX512 static inline __attribute__((always_inline)) void
vs_share_block_avx512(const VsTable *const *tables, const size_t n, const uint8_t *block, uint32_t slots,
                     const float *g_add, const float *limits, float (*estimates)[VS_BLOCK_ROWS],
                     uint32_t *masks) {
    const size_t code_bytes = 4 * tables[0]->padded_dim;
    const float *add = (const float *)(const void *)(block + code_bytes);
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i low_whole[VS_TOGETHER], low_odd[VS_TOGETHER], high_whole[VS_TOGETHER], high_odd[VS_TOGETHER];
    for (size_t i = 0; i < n; i++)
        low_whole[i] = low_odd[i] = high_whole[i] = high_odd[i] = _mm512_setzero_si512();
    for (size_t at = 0; at < code_bytes; at += 256) {
        __m512i low[VS_TOGETHER], high[VS_TOGETHER];
        for (size_t i = 0; i < n; i++)
            low[i] = high[i] = _mm512_setzero_si512();
        for (size_t k = 0; k < 256; k += 64) {
            const __m512i codes = _mm512_loadu_si512(block + at + k);
            const __m512i lows = _mm512_and_si512(codes, nibble);
            const __m512i highs = _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble);
            for (size_t i = 0; i < n; i++) {
                const __m512i entries = _mm512_loadu_si512(tables[i]->lut + at + k);
                low[i] = _mm512_add_epi8(low[i], _mm512_shuffle_epi8(entries, lows));
                high[i] = _mm512_add_epi8(high[i], _mm512_shuffle_epi8(entries, highs));
            }
        }
        for (size_t i = 0; i < n; i++) {
            low_whole[i] = _mm512_add_epi16(low_whole[i], low[i]);
            low_odd[i] = _mm512_add_epi16(low_odd[i], _mm512_srli_epi16(low[i], 8));
            high_whole[i] = _mm512_add_epi16(high_whole[i], high[i]);
            high_odd[i] = _mm512_add_epi16(high_odd[i], _mm512_srli_epi16(high[i], 8));
        }
    }
    for (size_t i = 0; i < n; i++) {
        const __m512 scale = _mm512_set1_ps(tables[i]->scale), bias = _mm512_set1_ps(tables[i]->bias);
        const __m512 g = _mm512_set1_ps(g_add[i]), most = _mm512_set1_ps(limits[i]);
        uint32_t mask = vs_estimate_avx512(vs_unmix_avx512(low_whole[i], low_odd[i]), add, scale, bias, g, most,
                                           estimates[i]);
        mask |= vs_estimate_avx512(vs_unmix_avx512(high_whole[i], high_odd[i]), add + 16, scale, bias, g, most,
                                   estimates[i] + 16) << 16;
        masks[i] = mask & slots;
    }
}

VS_AVX512 static void vs_score_together_avx512(const VsTable *const *tables, size_t n, const uint8_t *block,
                                              uint32_t slots, const float *g_add, const float *limits,
                                              float (*estimates)[VS_BLOCK_ROWS], uint32_t *masks) {
    if (n == 4)
        vs_share_block_avx512(tables, 4, block, slots, g_add, limits, estimates, masks);
    else if (n == 3)
        vs_share_block_avx512(tables, 3, block, slots, g_add, limits, estimates, masks);
    else if (n == 2)
        vs_share_block_avx512(tables, 2, block, slots, g_add, limits, estimates, masks);
    else
        masks[0] = vs_score_block_avx512(tables[0], block, slots, g_add[0], limits[0], estimates[0]);
}

#endif
