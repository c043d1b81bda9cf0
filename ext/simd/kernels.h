/* Types that every variant of the kernels shares, and helpers that need no instruction set.
 *
 * One canonical order for float sums: 32 lanes, lane j adds the products of dimensions j, j + 32,
 * j + 64, ... (a multiplication, then an addition; never fused), then lanes i and i + 16 are
 * added, then + 8, + 4, + 2, + 1. Every variant keeps it, so an answer never depends on the
 * processor. The dimensions beyond the last multiple of 32 go to lanes 0, 1, ...; a lane starts at
 * +0 and can never become -0, so that a variant may add zeros to the others.
 */
#ifndef VECSTORE_KERNELS_H
#define VECSTORE_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VS_LANES 32
#define VS_BLOCK_ROWS 32
#define VS_TOGETHER 4 /* queries that can share the loads of a block */
#define VS_BESIDE 16 /* numbers that a variant may write beyond what it keeps */
#define VS_RUN 128 /* dimensions whose look-ups a variant may add up in bytes */
#define VS_LEVELS 123 /* of what may be added up in half a byte; eight entries' roundings add 4 at most */

/* The look-up table of one query. `lut` holds 32 bytes a pair of groups (2p, 2p + 1): 16 entries
 * of each; sum_i s_i z_i ~ scale * (sum of entries) + bias. Of a run of dimensions the groups that lie a
 * multiple of four apart, eight at most, add up to 127 or less whatever the codes are: a byte holds the sum
 * of two such sets. `whole` is the query in whole numbers,
 * z ~ step * whole, for products with int8 rows, which are then exact and the same in any order. */
typedef struct {
    float *z;
    int16_t *whole;
    uint8_t *lut;
    float step;
    size_t padded_dim;
    float scale;
    float bias;
    float squared_norm;
    float q_shift;
    uint8_t *rest; /* as `lut`, see fine.h; so are the next two */
    float rest_scale;
    float rest_bias;
    int fine; /* whether it was made */
} VsTable;

typedef struct {
    uint32_t key;
    uint32_t value;
} VsRanked;

typedef struct {
    float scale;
    float add;
} VsInt8Factors;

/* What one row is encoded from: its shift, and its list's centroid. */
typedef struct {
    const float *row;
    const double *centroid;
    double *residual; /* scratch, as long as the row */
    size_t padded_dim;
    double shift;
} VsSource;

typedef struct {
    const char *name;
    float (*dot)(const float *q, const float *o, size_t n);
    float (*squared_l2)(const float *q, const float *o, size_t n);
    /* n is a multiple of 64. */
    int32_t (*dot_i8)(const int16_t *q, const int8_t *o, size_t n);
    float (*dot_f16)(const float *q, const uint16_t *o, size_t n);
    float (*squared_l2_f16)(const float *q, const uint16_t *o, size_t n);
    float (*squared_norm_f16)(const uint16_t *o, size_t n);
    /* Fills in all that follows from z, and the places of `lut` and `whole`. */
    void (*build_table)(VsTable *table);
    /* Estimates of the slots of a block that are set in `slots` into `estimates`, room for 32; the
     * mask of those <= limit. What is left in the places of other slots is not said. */
    uint32_t (*score_block)(const VsTable *table, const uint8_t *block, uint32_t slots, float g_add,
                            float limit, float *estimates);
    /* The Fast-Hadamard-Kac walk in place; padded_dim is a multiple of 64. */
    void (*rotate)(float *v, size_t padded_dim, const uint8_t *signs, size_t rounds);
    /* Lowers (*best, *label) to min_j half_norms[j] - dots[j], strictly, with the least such j. */
    void (*nearest)(const float *dots, const float *half_norms, size_t k, int32_t label_base,
                    float *best, int32_t *label);
    /* How many of n numbers are <= limit. */
    size_t (*count_within)(const float *values, size_t n, float limit);
    /* Those that are, or those that are not, in order and with their items; how many. They may go where they
     * come from, and have room for VS_BESIDE more. */
    size_t (*keep)(const float *values, const int32_t *items, size_t n, float limit, int beyond, float *kept_values,
                   int32_t *kept_items);
    /* The estimates of a block's slots in `mask`, and their numbers from `first` on; how many. Room for
     * VS_BESIDE more is needed. */
    size_t (*take_slots)(uint32_t mask, const float *estimates, int32_t first, float *values, int32_t *items);
    /* By key, stable; `spare` has room for as many, and `low` and `high` are the numbers whose keys (`vs_ordered`)
     * none should leave. Where the result is: `items` or `spare`. */
    VsRanked *(*sort)(VsRanked *items, VsRanked *spare, size_t n, float low, float high);
    /* Sets one slot of a zeroed block. */
    void (*encode_slot)(const VsSource *source, uint8_t *block, size_t slot);
    void (*encode_int8)(const VsSource *source, int8_t *out, VsInt8Factors *factors);
    /* `score_block` for 1 <= n <= VS_TOGETHER queries, each with its table, g_add, limit, room and mask. */
    void (*score_together)(const VsTable *const *tables, size_t n, const uint8_t *block, uint32_t slots,
                           const float *g_add, const float *limits, float (*estimates)[VS_BLOCK_ROWS],
                           uint32_t *masks);
} VsKernels;

/* Bits that are set; the baseline of x86-64 has no instruction for it, and a call costs more. */
static inline uint32_t vs_count(uint32_t x) {
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    return ((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
}

/* The greatest of a query's whole numbers: the sum of n products with int8 fits in 32 bits. */
static inline float vs_steps(size_t n) {
    const size_t most = INT32_MAX / (127 * n);
    return (float)(most < INT16_MAX ? most : INT16_MAX);
}

/* The bias of a table of this scale whose entries come to `total`: the mean over all codes is 0 then. */
static inline float vs_bias(float scale, uint32_t total) { return -scale * ((float)total / 16.0f); }

/* Ascending as an unsigned integer; -0 and +0 alike, NaN after everything. */
static inline uint32_t vs_ordered(float x) {
    uint32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, 4);
    return x != x ? UINT32_MAX : bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
}

/* What `vs_ordered` was made from; NaN for the key of one. */
static inline float vs_unordered(uint32_t key) {
    const uint32_t bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline float vs_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u;
    uint32_t fraction = h & 1023u;
    uint32_t bits;
    float value;
    if (exponent == 0) {
        value = (float)fraction * 0x1p-24f;
        memcpy(&bits, &value, 4);
        bits |= sign;
    } else if (exponent == 31) {
        bits = sign | 0x7f800000u | (fraction << 13) | (fraction ? 0x400000u : 0u);
    } else {
        bits = sign | ((exponent + 112u) << 23) | (fraction << 13);
    }
    memcpy(&value, &bits, 4);
    return value;
}

/* The largest power of two that is <= n. */
static inline size_t vs_floor_power(size_t n) {
    size_t p = 1;
    while (p * 2 <= n)
        p *= 2;
    return p;
}

/* The Kac steps are applied without their 1/sqrt(2); this makes up for all rounds at once, which
 * is exact for an even number of them. */
static inline float vs_kac_scale(size_t rounds) { return (float)pow(0.5, 0.5 * (double)rounds); }

#endif
