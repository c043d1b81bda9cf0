/* AVX2 twin of scan/serial.h. One 32-byte load holds the tables of two groups, one the codes of
 * both for all 32 rows. Four look-ups add up in u8; their sum is then added twice as u16, whole and
 * shifted by eight: the odd bytes come out of the second, and what they put on top of the even ones
 * in the first is taken off at the end. Where no slot above 15 is wanted (a short list, a sparse
 * filter), the high nibbles are left alone, which takes little more than half the time. */
#ifndef VECSTORE_SCAN_AVX2_H
#define VECSTORE_SCAN_AVX2_H

#include "../dot/avx2.h"

/* Or else the compiler loads the codes twice, once for each nibble: the loads then bound the loop. */
#define VS_KEEP(v) __asm__("" : "+x"(v))

#define VS_LOOK_UP(k)                                                                              \
    do {                                                                                           \
        __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(block + at + 32 * (k)));\
        __m256i entries = _mm256_loadu_si256((const __m256i *)(const void *)(lut + at + 32 * (k)));\
        VS_KEEP(codes);                                                                            \
        low = _mm256_add_epi8(low, _mm256_shuffle_epi8(entries, _mm256_and_si256(codes, nibble))); \
        if (whole)                                                                                 \
            high = _mm256_add_epi8(high, _mm256_shuffle_epi8(entries, _mm256_and_si256(            \
                                             _mm256_srli_epi16(codes, 4), nibble)));               \
    } while (0)

/* 16 sums in row order from the whole and the shifted sums; the two halves hold two groups. */
VS_AVX2 static inline __m256i vs_unmix_avx2(__m256i whole, __m256i odd) {
    __m256i even = _mm256_sub_epi16(whole, _mm256_slli_epi16(odd, 8));
    __m128i evens = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
    __m128i odds = _mm_add_epi16(_mm256_castsi256_si128(odd), _mm256_extracti128_si256(odd, 1));
    return _mm256_set_m128i(_mm_unpackhi_epi16(evens, odds), _mm_unpacklo_epi16(evens, odds));
}

VS_AVX2 static inline uint32_t vs_estimate_avx2(__m128i sums, const float *add, __m256 scale, __m256 bias,
                                                __m256 g_add, __m256 limit, float *estimates) {
    __m256 inner = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sums));
    inner = _mm256_add_ps(_mm256_mul_ps(scale, inner), bias);
    __m256 base = _mm256_add_ps(_mm256_loadu_ps(add), g_add);
    __m256 value = _mm256_add_ps(base, _mm256_mul_ps(_mm256_loadu_ps(add + VS_BLOCK_ROWS), inner));
    _mm256_storeu_ps(estimates, value);
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(value, limit, _CMP_LE_OQ));
}

VS_AVX2 static inline __attribute__((always_inline)) uint32_t
vs_score_slots_avx2(const VsTable *table, const uint8_t *block, float g_add, float limit, float *estimates,
                    const int whole) {
    const uint8_t *lut = table->lut;
    const size_t code_bytes = 4 * table->padded_dim;
    const float *add = (const float *)(const void *)(block + code_bytes);
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i low_whole = _mm256_setzero_si256(), low_odd = low_whole;
    __m256i high_whole = low_whole, high_odd = low_whole;
    for (size_t at = 0; at < code_bytes; at += 128) {
        __m256i low = _mm256_setzero_si256(), high = low;
        VS_LOOK_UP(0);
        VS_LOOK_UP(1);
        VS_LOOK_UP(2);
        VS_LOOK_UP(3);
        low_whole = _mm256_add_epi16(low_whole, low);
        low_odd = _mm256_add_epi16(low_odd, _mm256_srli_epi16(low, 8));
        high_whole = _mm256_add_epi16(high_whole, high);
        high_odd = _mm256_add_epi16(high_odd, _mm256_srli_epi16(high, 8));
    }
    const __m256i low_sums = vs_unmix_avx2(low_whole, low_odd);
    const __m256 scale = _mm256_set1_ps(table->scale), bias = _mm256_set1_ps(table->bias);
    const __m256 g = _mm256_set1_ps(g_add), most = _mm256_set1_ps(limit);
    uint32_t mask = vs_estimate_avx2(_mm256_castsi256_si128(low_sums), add, scale, bias, g, most, estimates);
    mask |= vs_estimate_avx2(_mm256_extracti128_si256(low_sums, 1), add + 8, scale, bias, g, most,
                             estimates + 8) << 8;
    if (!whole)
        return mask;
    const __m256i high_sums = vs_unmix_avx2(high_whole, high_odd);
    mask |= vs_estimate_avx2(_mm256_castsi256_si128(high_sums), add + 16, scale, bias, g, most,
                             estimates + 16) << 16;
    mask |= vs_estimate_avx2(_mm256_extracti128_si256(high_sums, 1), add + 24, scale, bias, g, most,
                             estimates + 24) << 24;
    return mask;
}

VS_AVX2 static uint32_t vs_score_block_avx2(const VsTable *table, const uint8_t *block, uint32_t slots,
                                            float g_add, float limit, float *estimates) {
    if (slots < 1u << 16)
        return slots & vs_score_slots_avx2(table, block, g_add, limit, estimates, 0);
    return slots & vs_score_slots_avx2(table, block, g_add, limit, estimates, 1);
}

/* n queries over one load of the codes, whose nibbles are taken apart once for all. */
VS_AVX2 static inline __attribute__((always_inline)) void
vs_share_block_avx2(const VsTable *const *tables, const size_t n, const uint8_t *block, uint32_t slots,
                     const float *g_add, const float *limits, float (*estimates)[VS_BLOCK_ROWS],
                     uint32_t *masks) {
    const size_t code_bytes = 4 * tables[0]->padded_dim;
    const float *add = (const float *)(const void *)(block + code_bytes);
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i low_whole[VS_TOGETHER], low_odd[VS_TOGETHER], high_whole[VS_TOGETHER], high_odd[VS_TOGETHER];
    for (size_t i = 0; i < n; i++)
        low_whole[i] = low_odd[i] = high_whole[i] = high_odd[i] = _mm256_setzero_si256();
    for (size_t at = 0; at < code_bytes; at += 128) {
        __m256i low[VS_TOGETHER], high[VS_TOGETHER];
        for (size_t i = 0; i < n; i++)
            low[i] = high[i] = _mm256_setzero_si256();
        for (size_t k = 0; k < 128; k += 32) {
            const __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(block + at + k));
            const __m256i lows = _mm256_and_si256(codes, nibble);
            const __m256i highs = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
            for (size_t i = 0; i < n; i++) {
                const __m256i entries = _mm256_loadu_si256((const __m256i *)(const void *)(tables[i]->lut + at + k));
                low[i] = _mm256_add_epi8(low[i], _mm256_shuffle_epi8(entries, lows));
                high[i] = _mm256_add_epi8(high[i], _mm256_shuffle_epi8(entries, highs));
            }
        }
        for (size_t i = 0; i < n; i++) {
            low_whole[i] = _mm256_add_epi16(low_whole[i], low[i]);
            low_odd[i] = _mm256_add_epi16(low_odd[i], _mm256_srli_epi16(low[i], 8));
            high_whole[i] = _mm256_add_epi16(high_whole[i], high[i]);
            high_odd[i] = _mm256_add_epi16(high_odd[i], _mm256_srli_epi16(high[i], 8));
        }
    }
    for (size_t i = 0; i < n; i++) {
        const __m256i low = vs_unmix_avx2(low_whole[i], low_odd[i]);
        const __m256i high = vs_unmix_avx2(high_whole[i], high_odd[i]);
        const __m256 scale = _mm256_set1_ps(tables[i]->scale), bias = _mm256_set1_ps(tables[i]->bias);
        const __m256 g = _mm256_set1_ps(g_add[i]), most = _mm256_set1_ps(limits[i]);
        uint32_t mask = vs_estimate_avx2(_mm256_castsi256_si128(low), add, scale, bias, g, most, estimates[i]);
        mask |= vs_estimate_avx2(_mm256_extracti128_si256(low, 1), add + 8, scale, bias, g, most,
                                 estimates[i] + 8) << 8;
        mask |= vs_estimate_avx2(_mm256_castsi256_si128(high), add + 16, scale, bias, g, most,
                                 estimates[i] + 16) << 16;
        mask |= vs_estimate_avx2(_mm256_extracti128_si256(high, 1), add + 24, scale, bias, g, most,
                                 estimates[i] + 24) << 24;
        masks[i] = mask & slots;
    }
}

VS_AVX2 static void vs_score_together_avx2(const VsTable *const *tables, size_t n, const uint8_t *block,
                                              uint32_t slots, const float *g_add, const float *limits,
                                              float (*estimates)[VS_BLOCK_ROWS], uint32_t *masks) {
    /* Two fill the sixteen registers. */
    for (; n >= 2; n -= 2, tables += 2, g_add += 2, limits += 2, estimates += 2, masks += 2)
        vs_share_block_avx2(tables, 2, block, slots, g_add, limits, estimates, masks);
    if (n)
        masks[0] = vs_score_block_avx2(tables[0], block, slots, g_add[0], limits[0], estimates[0]);
}

#endif
