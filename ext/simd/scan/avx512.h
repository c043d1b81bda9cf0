/* AVX-512 twin of scan/serial.h, the method of scan/avx2.h: one 64-byte load holds the tables of
 * four groups, one the codes of all four for all 32 rows. Bytes add up over two runs. */
#ifndef VECSTORE_SCAN_AVX512_H
#define VECSTORE_SCAN_AVX512_H

#include "../dot/avx512.h"

/* Sums of both nibbles over the groups of four quarters: bytes as u16, and the odd bytes. */
typedef struct {
    __m512i low, low_odd, high, high_odd;
} VsSumsAvx512;

VS_AVX512 static inline void vs_widen_avx512(VsSumsAvx512 *sums, __m512i low, __m512i high) {
    sums->low = _mm512_add_epi16(sums->low, low);
    sums->low_odd = _mm512_add_epi16(sums->low_odd, _mm512_srli_epi16(low, 8));
    sums->high = _mm512_add_epi16(sums->high, high);
    sums->high_odd = _mm512_add_epi16(sums->high_odd, _mm512_srli_epi16(high, 8));
}

/* The look-ups of two runs, or of the half or whole one that is left at the end, for 1 <= n <= VS_TOGETHER
 * queries. */
VS_AVX512 static inline __attribute__((always_inline)) void
vs_look_up_avx512(const uint8_t *const *luts, const size_t n, const uint8_t *codes, size_t bytes, const int whole,
                  VsSumsAvx512 *sums) {
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i low[VS_TOGETHER], high[VS_TOGETHER];
    for (size_t i = 0; i < n; i++)
        low[i] = high[i] = _mm512_setzero_si512();
    for (size_t start = 0; start < bytes; start += 256)
        for (size_t at = start; at < start + 256; at += 64) {
            const __m512i both = _mm512_loadu_si512(codes + at);
            const __m512i lows = _mm512_and_si512(both, nibble);
            const __m512i highs = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
            for (size_t i = 0; i < n; i++) {
                const __m512i entries = _mm512_loadu_si512(luts[i] + at);
                low[i] = _mm512_add_epi8(low[i], _mm512_shuffle_epi8(entries, lows));
                if (whole)
                    high[i] = _mm512_add_epi8(high[i], _mm512_shuffle_epi8(entries, highs));
            }
        }
    for (size_t i = 0; i < n; i++)
        vs_widen_avx512(sums + i, low[i], high[i]);
}

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

/* n queries over one load of the codes, whose nibbles are taken apart once for all. */
VS_AVX512 static inline __attribute__((always_inline)) void
vs_share_block_avx512(const VsTable *const *tables, const size_t n, const uint8_t *block, uint32_t slots,
                      const float *g_add, const float *limits, float (*estimates)[VS_BLOCK_ROWS], uint32_t *masks,
                      const int whole) {
    const size_t runs = 2 * 4 * VS_RUN, code_bytes = 4 * tables[0]->padded_dim;
    const float *add = (const float *)(const void *)(block + code_bytes);
    const uint8_t *luts[VS_TOGETHER];
    VsSumsAvx512 sums[VS_TOGETHER];
    for (size_t i = 0; i < n; i++) {
        luts[i] = tables[i]->lut;
        sums[i].low = sums[i].low_odd = sums[i].high = sums[i].high_odd = _mm512_setzero_si512();
    }
    for (size_t at = 0; at < code_bytes; at += runs) {
        vs_look_up_avx512(luts, n, block + at, at + runs < code_bytes ? runs : code_bytes - at, whole, sums);
        for (size_t i = 0; i < n; i++)
            luts[i] += runs;
    }
    for (size_t i = 0; i < n; i++) {
        const __m512 scale = _mm512_set1_ps(tables[i]->scale), bias = _mm512_set1_ps(tables[i]->bias);
        const __m512 g = _mm512_set1_ps(g_add[i]), most = _mm512_set1_ps(limits[i]);
        masks[i] = slots & vs_estimate_avx512(vs_unmix_avx512(sums[i].low, sums[i].low_odd), add, scale, bias, g,
                                              most, estimates[i]);
        if (whole)
            masks[i] |= slots & vs_estimate_avx512(vs_unmix_avx512(sums[i].high, sums[i].high_odd), add + 16, scale,
                                                   bias, g, most, estimates[i] + 16)
                                    << 16;
    }
}

VS_AVX512 static uint32_t vs_score_block_avx512(const VsTable *table, const uint8_t *block, uint32_t slots,
                                                float g_add, float limit, float *estimates) {
    float(*room)[VS_BLOCK_ROWS] = (float(*)[VS_BLOCK_ROWS])estimates;
    uint32_t mask;
    if (slots < 1u << 16)
        vs_share_block_avx512(&table, 1, block, slots, &g_add, &limit, room, &mask, 0);
    else
        vs_share_block_avx512(&table, 1, block, slots, &g_add, &limit, room, &mask, 1);
    return mask;
}

VS_AVX512 static void vs_score_together_avx512(const VsTable *const *tables, size_t n, const uint8_t *block,
                                              uint32_t slots, const float *g_add, const float *limits,
                                              float (*estimates)[VS_BLOCK_ROWS], uint32_t *masks) {
    if (n == 4)
        vs_share_block_avx512(tables, 4, block, slots, g_add, limits, estimates, masks, 1);
    else if (n == 3)
        vs_share_block_avx512(tables, 3, block, slots, g_add, limits, estimates, masks, 1);
    else if (n == 2)
        vs_share_block_avx512(tables, 2, block, slots, g_add, limits, estimates, masks, 1);
    else
        masks[0] = vs_score_block_avx512(tables[0], block, slots, g_add[0], limits[0], estimates[0]);
}

#endif
