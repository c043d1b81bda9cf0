/* AVX2 twin of scan/serial.h. One 32-byte load holds the tables of two groups, one the codes of
 * both for all 32 rows. The look-ups of a run add up in u8 (see `VsTable`); their sum is then added twice
 * as u16, whole and shifted by eight: the odd bytes come out of the second, and what they put on top of the
 * even ones in the first is taken off at the end. Where no slot above 15 is wanted (a short list, a sparse
 * filter), the high nibbles are left alone, which takes little more than half the time. */
#ifndef VECSTORE_SCAN_AVX2_H
#define VECSTORE_SCAN_AVX2_H

#include "../dot/avx2.h"

/* Or else the compiler loads the codes twice, once for each nibble, or adds up in another order and runs out
 * of registers. */
#define VS_KEEP(v) __asm__("" : "+x"(v))

/* Sums of both nibbles over the groups of two halves: bytes as u16, and the odd bytes. */
typedef struct {
    __m256i low, low_odd, high, high_odd;
} VsSumsAvx2;

VS_AVX2 static inline void vs_widen_avx2(VsSumsAvx2 *sums, __m256i low, __m256i high) {
    sums->low = _mm256_add_epi16(sums->low, low);
    sums->low_odd = _mm256_add_epi16(sums->low_odd, _mm256_srli_epi16(low, 8));
    sums->high = _mm256_add_epi16(sums->high, high);
    sums->high_odd = _mm256_add_epi16(sums->high_odd, _mm256_srli_epi16(high, 8));
}

/* The look-ups of a run, or of the half that is left at the end, for 1 <= n <= VS_TOGETHER queries. */
VS_AVX2 static inline __attribute__((always_inline)) void vs_look_up_avx2(const uint8_t *const *luts, const size_t n,
                                                                          const uint8_t *codes, const size_t bytes,
                                                                          const int whole, VsSumsAvx2 *sums) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i low[VS_TOGETHER], high[VS_TOGETHER];
    for (size_t i = 0; i < n; i++)
        low[i] = high[i] = _mm256_setzero_si256();
    for (size_t at = 0; at < bytes; at += 32) {
        __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)(codes + at));
        VS_KEEP(both);
        const __m256i lows = _mm256_and_si256(both, nibble);
        const __m256i highs = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
        for (size_t i = 0; i < n; i++) {
            const __m256i entries = _mm256_loadu_si256((const __m256i *)(const void *)(luts[i] + at));
            low[i] = _mm256_add_epi8(low[i], _mm256_shuffle_epi8(entries, lows));
            VS_KEEP(low[i]);
            if (whole) {
                high[i] = _mm256_add_epi8(high[i], _mm256_shuffle_epi8(entries, highs));
                VS_KEEP(high[i]);
            }
        }
    }
    for (size_t i = 0; i < n; i++)
        vs_widen_avx2(sums + i, low[i], high[i]);
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

/* Estimates from the sums of a block; the mask of those <= limit. */
VS_AVX2 static inline __attribute__((always_inline)) uint32_t
vs_estimates_avx2(const VsTable *table, const uint8_t *block, const VsSumsAvx2 *sums, float g_add, float limit,
                  float *estimates, const int whole) {
    const float *add = (const float *)(const void *)(block + 4 * table->padded_dim);
    const __m256i low = _mm256_sub_epi16(sums->low, _mm256_slli_epi16(sums->low_odd, 8));
    const __m256i high = _mm256_sub_epi16(sums->high, _mm256_slli_epi16(sums->high_odd, 8));
    /* The halves hold two groups; put together, the low nibbles' rows 0 ... 15 and the high ones' 16 ... 31. */
    const __m256i evens = _mm256_add_epi16(_mm256_permute2x128_si256(low, high, 0x20),
                                           _mm256_permute2x128_si256(low, high, 0x31));
    const __m256i odds = _mm256_add_epi16(_mm256_permute2x128_si256(sums->low_odd, sums->high_odd, 0x20),
                                          _mm256_permute2x128_si256(sums->low_odd, sums->high_odd, 0x31));
    const __m256i first = _mm256_unpacklo_epi16(evens, odds), second = _mm256_unpackhi_epi16(evens, odds);
    const __m256 scale = _mm256_set1_ps(table->scale), bias = _mm256_set1_ps(table->bias);
    const __m256 g = _mm256_set1_ps(g_add), most = _mm256_set1_ps(limit);
    uint32_t mask = vs_estimate_avx2(_mm256_castsi256_si128(first), add, scale, bias, g, most, estimates);
    mask |= vs_estimate_avx2(_mm256_castsi256_si128(second), add + 8, scale, bias, g, most, estimates + 8) << 8;
    if (!whole)
        return mask;
    mask |= vs_estimate_avx2(_mm256_extracti128_si256(first, 1), add + 16, scale, bias, g, most, estimates + 16)
            << 16;
    mask |= vs_estimate_avx2(_mm256_extracti128_si256(second, 1), add + 24, scale, bias, g, most, estimates + 24)
            << 24;
    return mask;
}

/* n queries over one load of the codes, whose nibbles are taken apart once for all. */
VS_AVX2 static inline __attribute__((always_inline)) void
vs_share_block_avx2(const VsTable *const *tables, const size_t n, const uint8_t *block, uint32_t slots,
                    const float *g_add, const float *limits, float (*estimates)[VS_BLOCK_ROWS], uint32_t *masks,
                    const int whole) {
    const size_t run = 4 * VS_RUN, code_bytes = 4 * tables[0]->padded_dim;
    const uint8_t *luts[VS_TOGETHER];
    VsSumsAvx2 sums[VS_TOGETHER];
    for (size_t i = 0; i < n; i++) {
        luts[i] = tables[i]->lut;
        sums[i].low = sums[i].low_odd = sums[i].high = sums[i].high_odd = _mm256_setzero_si256();
    }
    size_t at = 0;
    for (; at + run <= code_bytes; at += run) {
        vs_look_up_avx2(luts, n, block + at, run, whole, sums);
        for (size_t i = 0; i < n; i++)
            luts[i] += run;
    }
    if (at < code_bytes)
        vs_look_up_avx2(luts, n, block + at, run / 2, whole, sums);
    for (size_t i = 0; i < n; i++)
        masks[i] = slots & vs_estimates_avx2(tables[i], block, sums + i, g_add[i], limits[i], estimates[i], whole);
}

VS_AVX2 static uint32_t vs_score_block_avx2(const VsTable *table, const uint8_t *block, uint32_t slots,
                                            float g_add, float limit, float *estimates) {
    float(*room)[VS_BLOCK_ROWS] = (float(*)[VS_BLOCK_ROWS])estimates;
    uint32_t mask;
    if (slots < 1u << 16)
        vs_share_block_avx2(&table, 1, block, slots, &g_add, &limit, room, &mask, 0);
    else
        vs_share_block_avx2(&table, 1, block, slots, &g_add, &limit, room, &mask, 1);
    return mask;
}

VS_AVX2 static void vs_score_together_avx2(const VsTable *const *tables, size_t n, const uint8_t *block,
                                           uint32_t slots, const float *g_add, const float *limits,
                                           float (*estimates)[VS_BLOCK_ROWS], uint32_t *masks) {
    if (n == 4)
        vs_share_block_avx2(tables, 4, block, slots, g_add, limits, estimates, masks, 1);
    else if (n == 3)
        vs_share_block_avx2(tables, 3, block, slots, g_add, limits, estimates, masks, 1);
    else if (n == 2)
        vs_share_block_avx2(tables, 2, block, slots, g_add, limits, estimates, masks, 1);
    else
        masks[0] = vs_score_block_avx2(tables[0], block, slots, g_add[0], limits[0], estimates[0]);
}

#endif
