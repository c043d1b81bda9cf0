/* How fast the scan kernel looks up, and how fast this processor could: compiled and called by kernel.py.
 *
 * `vs_shuffles_*` are the look-up instruction on registers and nothing else. `vs_look_ups_*` do, on registers
 * too, what a look-up of packed codes cannot do without: half of the codes are shifted down, all are masked
 * to four bits, what is found is added. Each takes `n` rounds of 16 instructions.
 *
 * `vs_read` reads the first `bytes` of records, a multiple of 64, in the order of their addresses, with those that
 * are `ahead` of it on their way: what memory gives anybody who reads them in that order. */
#include "record.h"
#include "simd/dispatch.h"

uint64_t vs_read(const uint64_t *addresses, size_t count, size_t bytes, size_t ahead) {
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < count; i++) {
        if (i + ahead < count)
            vs_prefetch((const uint8_t *)addresses[i + ahead], bytes);
        const uint64_t *words = (const uint64_t *)addresses[i];
        for (size_t w = 0; w < bytes / 8; w += 8)
            for (int lane = 0; lane < 8; lane++)
                sums[lane] += words[w + lane];
    }
    for (int lane = 1; lane < 8; lane++)
        sums[0] += sums[lane];
    return sums[0];
}

/* The kernel of `isa` over `count` blocks, `rounds` times; no row is under the limit. */
uint32_t vs_scan(const char *isa, const uint8_t *lut, size_t padded_dim, const uint8_t *blocks, size_t count,
                 size_t rounds) {
    const VsTable table = {.lut = (uint8_t *)lut, .padded_dim = padded_dim, .scale = 1.0f};
    const size_t bytes = 4 * padded_dim + 3 * 4 * VS_BLOCK_ROWS;
    float estimates[VS_BLOCK_ROWS];
    uint32_t under = 0;
    for (int i = 0; i < vs_variant_count(); i++)
        if (strcmp(vs_variants[i].name, isa) == 0)
            for (; rounds; rounds--)
                for (size_t b = 0; b < count; b++)
                    under |= vs_variants[i].score_block(&table, blocks + b * bytes, UINT32_MAX, 0.0f, -1e30f,
                                                        estimates);
    return under;
}

#ifdef VS_HAVE_X86
/* So that the compiler cannot know what is in a register. */
#define OPAQUE(v) __asm__ volatile("" : "+x"(v))

#define ROUNDS(NAME, TARGET, V, SET, SHUFFLE, AND, SHIFT, ADD, FOLD)                                   \
    __attribute__((target(TARGET))) uint64_t vs_shuffles_##NAME(size_t n) {                            \
        V entries = SET(7), codes[8];                                                                  \
        for (int i = 0; i < 8; i++) codes[i] = SET(i);                                                 \
        for (; n; n--) {                                                                               \
            OPAQUE(entries);                                                                           \
            for (int i = 0; i < 8; i++) codes[i] = SHUFFLE(entries, codes[i]);                         \
            OPAQUE(entries);                                                                           \
            for (int i = 0; i < 8; i++) codes[i] = SHUFFLE(entries, codes[i]);                         \
        }                                                                                              \
        for (int i = 1; i < 8; i++) codes[0] = ADD(codes[0], codes[i]);                                \
        return FOLD(codes[0]);                                                                         \
    }                                                                                                  \
    __attribute__((target(TARGET))) uint64_t vs_look_ups_##NAME(size_t n) {                            \
        V entries = SET(7), codes = SET(0x5a), nibble = SET(15), low[2], high[2];                      \
        for (int i = 0; i < 2; i++) low[i] = high[i] = SET(i);                                         \
        for (; n; n--)                                                                                 \
            for (int i = 0; i < 8; i++) {                                                              \
                OPAQUE(codes);                                                                         \
                low[i % 2] = ADD(low[i % 2], SHUFFLE(entries, AND(codes, nibble)));                    \
                high[i % 2] = ADD(high[i % 2], SHUFFLE(entries, AND(SHIFT(codes, 4), nibble)));        \
            }                                                                                          \
        for (int i = 0; i < 2; i++) codes = ADD(codes, ADD(low[i], high[i]));                          \
        return FOLD(codes);                                                                            \
    }

#define FOLD256(v) (uint64_t) _mm_cvtsi128_si64(_mm256_castsi256_si128(v))
#define FOLD512(v) (uint64_t) _mm_cvtsi128_si64(_mm512_castsi512_si128(v))
ROUNDS(avx2, "avx2", __m256i, _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_and_si256, _mm256_srli_epi16,
       _mm256_add_epi8, FOLD256)
ROUNDS(avx512, "avx512bw", __m512i, _mm512_set1_epi8, _mm512_shuffle_epi8, _mm512_and_si512, _mm512_srli_epi16,
       _mm512_add_epi8, FOLD512)
#endif
