/* Rows as bits: set by number, and cleared by a comparison of packed integers (docs/formats/columns.md). */
#ifndef VECSTORE_BITS_H
#define VECSTORE_BITS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "simd/processor.h"

#define VS_WITHIN static inline __attribute__((always_inline))

/* The compiler makes more of these loops where the processor has wider registers: what `run` says is compiled for each,
 * and `name` is the widest that there is, chosen when the module is loaded. */
#ifdef VS_HAVE_X86
#define VS_FOR(isa) static __attribute__((noinline, target(isa)))
#define VS_WIDEST(type, name, parameters, run)                                                              \
    static __attribute__((noinline)) type name##_baseline parameters { run; }                               \
    VS_FOR("avx2,fma,bmi,popcnt") type name##_avx2 parameters { run; }                                      \
    VS_FOR("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,bmi,popcnt") type name##_avx512 parameters { run; } \
    static type (*name) parameters = name##_baseline;                                                       \
    __attribute__((constructor)) static void name##_choose(void) {                                          \
        const int level = vs_x86_level();                                                                   \
        name = level == VS_X86_AVX512 ? name##_avx512 : level == VS_X86_AVX2 ? name##_avx2 : name;          \
    }
#else
#define VS_WIDEST(type, name, parameters, run) \
    static type name parameters { run; }
#endif

#define VS_WORD 64      /* rows of a word */
#define VS_FEW_ROWS 8   /* of a word, that are compared one by one */

static inline uint64_t vs_low_bits(size_t width) { return width ? ~(uint64_t)0 >> (64 - width) : 0; }

VS_WITHIN uint64_t vs_packed(const uint8_t *data, size_t place, size_t width, uint64_t mask) {
    uint64_t window;
    memcpy(&window, data + (place * width >> 3), 8);
    return window >> (place * width & 7) & mask;
}

/* The lowest bits of 64 bytes, each 0 or 1. */
VS_WITHIN uint64_t vs_gather_flags(const uint8_t *flags) {
    uint64_t found = 0;
    for (size_t i = 0; i < VS_WORD / 8; i++) {
        uint64_t eight;
        memcpy(&eight, flags + 8 * i, 8);
        found |= (eight * 0x0102040810204080u >> 56) << (8 * i);
    }
    return found;
}

/* Which of 64 integers lie less than `span` + 1 above `low`; of whole bytes. */
#define VS_INSIDE(type)                                                                         \
    VS_WITHIN uint64_t vs_inside_##type(const uint8_t *data, uint64_t low, uint64_t span) {     \
        type values[VS_WORD];                                                                   \
        uint8_t flags[VS_WORD];                                                                 \
        const type first = (type)low, width = (type)span;                                       \
        memcpy(values, data, sizeof values);                                                    \
        for (size_t i = 0; i < VS_WORD; i++)                                                    \
            flags[i] = (type)(values[i] - first) <= width;                                      \
        return vs_gather_flags(flags);                                                          \
    }
VS_INSIDE(uint8_t)
VS_INSIDE(uint16_t)
VS_INSIDE(uint32_t)
VS_INSIDE(uint64_t)

/* The same of any width: eight of them take `width` bytes. */
VS_WITHIN uint64_t vs_inside_packed(const uint8_t *data, size_t width, uint64_t mask, uint64_t low,
                                        uint64_t span) {
    uint64_t values[VS_WORD];
    uint8_t flags[VS_WORD];
    for (size_t j = 0; j < 8; j++) {
        const uint8_t *at = data + (j * width >> 3);
        const size_t shift = j * width & 7;
        for (size_t i = 0; i < VS_WORD; i += 8, at += width) {
            uint64_t window;
            memcpy(&window, at, sizeof window);
            __asm__("" : "+r"(window)); /* as gathers and scatters it takes six times as long */
            values[i + j] = window >> shift;
        }
    }
    for (size_t i = 0; i < VS_WORD; i++)
        flags[i] = (values[i] & mask) - low <= span;
    return vs_gather_flags(flags);
}

/* Clears the bits of those of n rows whose packed integers do not lie from low to high; low <= high <= the mask. */
VS_WITHIN void vs_keep_between_here(const uint8_t *data, size_t width, size_t n, uint64_t low, uint64_t high,
                                    uint64_t *bits) {
    const uint64_t mask = vs_low_bits(width), span = high - low;
    for (size_t w = 0; w * VS_WORD < n; w++) {
        const size_t rows = n - w * VS_WORD;
        const uint64_t word = rows < VS_WORD ? bits[w] & vs_low_bits(rows) : bits[w];
        const uint8_t *at = data + w * 8 * width;
        uint64_t found = 0, left = word;
        if (word == 0) {
            bits[w] = 0;
            continue;
        }
        for (size_t i = 0; i < VS_FEW_ROWS && left; i++)
            left &= left - 1;
        if (!left || rows < VS_WORD) {
            for (left = word; left; left &= left - 1)
                if (vs_packed(at, (size_t)__builtin_ctzll(left), width, mask) - low <= span)
                    found |= left & -left;
        } else if (width == 8) {
            found = vs_inside_uint8_t(at, low, span);
        } else if (width == 16) {
            found = vs_inside_uint16_t(at, low, span);
        } else if (width == 32) {
            found = vs_inside_uint32_t(at, low, span);
        } else if (width == 64) {
            found = vs_inside_uint64_t(at, low, span);
        } else {
            found = vs_inside_packed(at, width, mask, low, span);
        }
        bits[w] = word & found;
    }
}
VS_WIDEST(void, vs_keep_between,
          (const uint8_t *data, size_t width, size_t n, uint64_t low, uint64_t high, uint64_t *bits),
          vs_keep_between_here(data, width, n, low, high, bits))

/* Slots of a part's lists from its rows: those that are alive. `empty` tells which lists hold none. */
VS_WITHIN void vs_allow_here(const uint64_t *rows, size_t count, size_t k, const int64_t *first_rows,
                             const int64_t *first_blocks, const uint32_t *live, uint32_t *words, uint8_t *empty) {
    for (size_t i = 0; i < k; i++) {
        const size_t end = (size_t)first_rows[i + 1];
        size_t block = (size_t)first_blocks[i];
        uint32_t any = 0;
        for (size_t row = (size_t)first_rows[i]; row < end; row += 32, block++) {
            uint64_t window;
            if ((row >> 3) + sizeof window <= sizeof window * count) /* else the last word holds what is left */
                window = vs_packed((const uint8_t *)rows, row, 1, ~(uint64_t)0);
            else
                window = rows[row >> 6] >> (row & 63);
            words[block] = (uint32_t)window & live[block]; /* no slot beyond the list's end is alive */
            any |= words[block];
        }
        empty[i] = any == 0;
    }
}
VS_WIDEST(void, vs_allow,
          (const uint64_t *rows, size_t count, size_t k, const int64_t *first_rows, const int64_t *first_blocks,
           const uint32_t *live, uint32_t *words, uint8_t *empty),
          vs_allow_here(rows, count, k, first_rows, first_blocks, live, words, empty))

VS_WITHIN size_t vs_bits_set_here(const uint32_t *words, size_t count) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += (size_t)__builtin_popcount(words[i]);
    return found;
}
VS_WIDEST(size_t, vs_bits_set, (const uint32_t *words, size_t count), return vs_bits_set_here(words, count))

/* Sets the bits of rows, each as far above `first` as its integer says. Zero if one is not below `most`. */
#define VS_MARK(type)                                                                           \
    static inline int vs_mark_##type(const uint8_t *data, size_t n, uint64_t first, uint64_t most, uint64_t *bits) { \
        for (size_t i = 0; i < n; i++) {                                                        \
            type above;                                                                         \
            memcpy(&above, data + i * sizeof above, sizeof above);                              \
            if (above >= most - first)                                                          \
                return 0;                                                                       \
            bits[(first + above) >> 6] |= (uint64_t)1 << ((first + above) & 63);                \
        }                                                                                       \
        return 1;                                                                               \
    }
VS_MARK(uint8_t)
VS_MARK(uint16_t)
VS_MARK(uint32_t)
VS_MARK(uint64_t)

static inline int vs_mark(const uint8_t *data, size_t width, size_t n, uint64_t first, uint64_t most, uint64_t *bits) {
    switch (width) {
    case 8: return vs_mark_uint8_t(data, n, first, most, bits);
    case 16: return vs_mark_uint16_t(data, n, first, most, bits);
    case 32: return vs_mark_uint32_t(data, n, first, most, bits);
    default: return vs_mark_uint64_t(data, n, first, most, bits);
    }
}

#endif
