/* Layout of blocks and records: docs/formats/part.md, the one place in C that knows it. */
#ifndef VECSTORE_RECORD_H
#define VECSTORE_RECORD_H

#include "simd/kernels.h"

#define VS_HEADER_BYTES 64
#define VS_HAS_INT8 1u
#define VS_HAS_BLOCKS 2u
#define VS_HAS_U64_IDS 4u

typedef struct {
    uint32_t n;
    uint32_t flags;
    float scale;
    float squared_norm;
    uint32_t padded_dim;
} VsHeader;

typedef struct {
    size_t blocks;
    size_t int8;
    size_t factors;
    size_t ids;
} VsLayout;

static inline size_t vs_align64(size_t n) { return (n + 63) & ~(size_t)63; }
static inline size_t vs_block_count(size_t n) { return (n + VS_BLOCK_ROWS - 1) / VS_BLOCK_ROWS; }
static inline size_t vs_block_bytes(size_t padded_dim) { return 4 * padded_dim + 384; }

/* Where the areas of a record begin; an absent one where the next does. */
static inline VsLayout vs_layout(size_t n, size_t padded_dim, uint32_t flags) {
    VsLayout at;
    at.blocks = VS_HEADER_BYTES + padded_dim;
    at.int8 = at.blocks + (flags & VS_HAS_BLOCKS ? vs_block_count(n) * vs_block_bytes(padded_dim) : 0);
    at.factors = at.int8 + (flags & VS_HAS_INT8 ? n * padded_dim : 0);
    at.ids = vs_align64(at.factors + (flags & VS_HAS_INT8 ? n * sizeof(VsInt8Factors) : 0));
    return at;
}

/* The mask of the first n slots of a block, all if n >= 32. */
static inline uint32_t vs_first_slots(size_t n) {
    return n < VS_BLOCK_ROWS ? ((uint32_t)1 << n) - 1 : UINT32_MAX;
}

static inline VsHeader vs_header(const uint8_t *record) {
    VsHeader header;
    memcpy(&header, record, sizeof header);
    return header;
}

static inline const int8_t *vs_centroid(const uint8_t *record) {
    return (const int8_t *)(record + VS_HEADER_BYTES);
}

/* Into L2: what waits for DRAM there does not hold up the misses of L1, of which there are few. A
 * scan from DRAM takes half to two thirds of the time that it took when lines were fetched into L1. */
static inline void vs_prefetch(const uint8_t *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

/* Bytes of codes from which on they lie in memory rather than in a cache (docs/decisions/0040). */
#define VS_FAR_BYTES (12u << 20)
#define VS_BEGINNING 512

/* So many bytes of a record are asked for before it is scanned, where the lists to choose from hold so many blocks.
 * What a cache holds is asked for at its beginning: the processor sees by it where the scan goes and fetches the rest
 * by itself, which takes less than to ask for every line. From memory that is too late. */
static inline size_t vs_bytes_ahead(size_t blocks, size_t padded_dim) {
    const size_t whole = VS_HEADER_BYTES + padded_dim + vs_block_bytes(padded_dim);
    return blocks * vs_block_bytes(padded_dim) > VS_FAR_BYTES ? whole : VS_BEGINNING;
}

/* Asks for so many bytes, VS_BEGINNING of them or more. */
static inline void vs_prefetch_ahead(const uint8_t *p, size_t bytes) {
    vs_prefetch(p, VS_BEGINNING); /* a number that the compiler knows: a loop of eight costs a tenth of a query */
    const uint8_t *end = p + bytes;
    for (p += VS_BEGINNING; p < end; p += 64)
        __builtin_prefetch(p, 0, 2);
}

#endif
