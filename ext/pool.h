/* The pool of candidates: the `capacity` least by (estimate, part, row), a total order, so that
 * what is kept does not depend on the order of the scan.
 *
 * A candidate is an estimate and the place it was found at; all that its list's rows share is kept
 * once, in a probe. Candidates are appended, never moved: a histogram of those seen so far lowers
 * the threshold, and what has fallen behind it is left out when the pool is put in order. */
#ifndef VECSTORE_POOL_H
#define VECSTORE_POOL_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "simd/sort/plain.h"

#define VS_POOL_BINS 128
#define VS_POOL_SLACK 512 /* candidates beyond twice the capacity before the pool is shrunk */

/* A list that was scanned, with all that re-ranking needs of it: its record may have left the cache by then. */
typedef struct {
    const uint8_t *record; /* NULL if there is none */
    const int8_t *int8;    /* of its first row; NULL where estimates are to stay */
    const VsInt8Factors *factors;
    const uint8_t *ids; /* NULL if it holds none */
    const VsTable *table;
    int64_t first_row;
    float g_add;
    float g_error; /* ||z - c|| */
    int32_t part;
    int32_t place; /* lists of its part that were nearer */
} VsProbe;

typedef struct {
    const VsKernels *kernels;
    VsProbe *probes;
    size_t probe_count;
    size_t probe_room;
    float *estimates;
    float *bounds;  /* how far off they can be: 0 of a distance */
    uint64_t *refs; /* number of the probe << 32 | slot of the record */
    float *spare_estimates; /* as long, like the next two: scratch of shrinking */
    float *spare_bounds;
    uint64_t *spare_refs;
    VsRanked *ranked; /* twice as long: the order, and scratch of sorting */
    size_t size;
    size_t room;
    size_t reserved;
    size_t capacity;
    float threshold; /* of what is still wanted; +inf until there are `capacity` candidates */
    float complete;  /* what is nearer than this was never dropped for want of room, see `vs_pool_widen` */
    float low;
    float per_unit; /* 0 while nothing is counted */
    int32_t top;    /* the last bin below the threshold */
    size_t within;  /* candidates in the bins up to it */
    uint32_t bins[VS_POOL_BINS];
} VsPool;

static inline void vs_pool_clear(VsPool *pool) {
    pool->size = pool->probe_count = 0;
    pool->threshold = pool->complete = INFINITY;
    pool->per_unit = 0.0f;
}

static inline void vs_pool_release(VsPool *pool) {
    free(pool->estimates);
    free(pool->bounds);
    free(pool->refs);
    free(pool->spare_estimates);
    free(pool->spare_bounds);
    free(pool->spare_refs);
    free(pool->ranked);
    pool->estimates = pool->bounds = pool->spare_estimates = pool->spare_bounds = NULL;
    pool->refs = pool->spare_refs = NULL;
    pool->ranked = NULL;
    pool->reserved = pool->capacity = pool->size = 0;
}

static inline void vs_pool_free(VsPool *pool) {
    free(pool->probes);
    vs_pool_release(pool);
}

/* Room for `capacity` candidates; what was in the pool is lost. Zero if there is no memory. */
static inline int vs_pool_reserve(VsPool *pool, const VsKernels *kernels, size_t capacity) {
    const size_t room = 2 * capacity + VS_POOL_SLACK;
    if (room > pool->reserved) {
        vs_pool_release(pool);
        pool->estimates = malloc(room * sizeof *pool->estimates);
        pool->bounds = malloc(room * sizeof *pool->bounds);
        pool->refs = malloc(room * sizeof *pool->refs);
        pool->spare_estimates = malloc(room * sizeof *pool->estimates);
        pool->spare_bounds = malloc(room * sizeof *pool->bounds);
        pool->spare_refs = malloc(room * sizeof *pool->refs);
        pool->ranked = malloc(2 * room * sizeof *pool->ranked);
        if (!pool->estimates || !pool->bounds || !pool->refs || !pool->spare_estimates || !pool->spare_bounds ||
            !pool->spare_refs || !pool->ranked) {
            vs_pool_release(pool);
            return 0;
        }
        pool->reserved = room;
    }
    pool->kernels = kernels;
    pool->capacity = capacity;
    pool->room = room;
    vs_pool_clear(pool);
    return 1;
}

/* A new probe, to be filled in. NULL if there is no memory. */
static inline VsProbe *vs_pool_probe(VsPool *pool) {
    if (pool->probe_count == pool->probe_room) {
        const size_t room = pool->probe_room ? 2 * pool->probe_room : 256;
        VsProbe *probes = realloc(pool->probes, room * sizeof *probes);
        if (!probes)
            return NULL;
        pool->probes = probes;
        pool->probe_room = room;
    }
    return pool->probes + pool->probe_count++;
}

static inline const VsProbe *vs_pool_probe_of(const VsPool *pool, uint64_t ref) {
    return pool->probes + (ref >> 32);
}

static inline int64_t vs_pool_row_of(const VsPool *pool, uint64_t ref) {
    return vs_pool_probe_of(pool, ref)->first_row + (int64_t)(uint32_t)ref;
}

static inline int vs_pool_less(const VsPool *pool, uint32_t a, uint32_t b) {
    const uint64_t x = pool->refs[a], y = pool->refs[b];
    if (pool->probe_count == 0)
        return x < y;
    const int32_t first = vs_pool_probe_of(pool, x)->part, second = vs_pool_probe_of(pool, y)->part;
    if (first != second)
        return first < second;
    return vs_pool_row_of(pool, x) < vs_pool_row_of(pool, y);
}

/* Bottom-up heap sort of items whose keys are equal: ties may be many, and quadratic time must not be. */
static inline void vs_pool_sort_ties(const VsPool *pool, VsRanked *items, size_t n) {
    for (size_t start = n / 2, end = n; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            VsRanked last = items[--end];
            items[end] = items[0];
            items[0] = last;
        }
        size_t at = start, child;
        const VsRanked item = items[at];
        while ((child = 2 * at + 1) < end) {
            if (child + 1 < end && vs_pool_less(pool, items[child].value, items[child + 1].value))
                child++;
            if (!vs_pool_less(pool, item.value, items[child].value))
                break;
            items[at] = items[child];
            at = child;
        }
        items[at] = item;
    }
}

static inline int32_t vs_pool_bin(const VsPool *pool, float estimate) {
    const float at = (estimate - pool->low) * pool->per_unit;
    return at >= (float)VS_POOL_BINS ? VS_POOL_BINS : at > 0.0f ? (int32_t)at : 0;
}

/* The candidates that are kept, by (estimate, part, row); their number in `count`. Values are
 * positions in `estimates` and `refs`. Valid until the pool changes. Without probes, by ref. */
static inline const VsRanked *vs_pool_order(VsPool *pool, size_t *count) {
    VsRanked *items = pool->ranked;
    size_t n = 0;
    for (size_t i = 0; i < pool->size; i++) {
        items[n].key = vs_ordered(pool->estimates[i]);
        items[n].value = (uint32_t)i;
        n += pool->estimates[i] <= pool->threshold;
    }
    VsRanked *sorted = pool->per_unit == 0.0f
                           ? vs_sort_bytes(items, items + pool->room, n)
                           : pool->kernels->sort(items, items + pool->room, n, pool->low, pool->threshold);
    for (size_t start = 0, end = 1; start < n && start < pool->capacity; start = end++) {
        while (end < n && sorted[end].key == sorted[start].key)
            end++;
        if (end - start > 1)
            vs_pool_sort_ties(pool, sorted + start, end - start);
    }
    *count = n < pool->capacity ? n : pool->capacity;
    return sorted;
}

/* Lowers the threshold to the end of the bin that holds the capacity-th candidate. The end is taken
 * a thousandth of a bin late, far more than the bin of an estimate can be off. */
static inline void vs_pool_settle(VsPool *pool) {
    if (pool->per_unit == 0.0f)
        return;
    const int32_t before = pool->top;
    while (pool->top > 0 && pool->within - pool->bins[pool->top] >= pool->capacity)
        pool->within -= pool->bins[pool->top--];
    if (pool->top < before) {
        const float end = nextafterf(pool->low + ((float)pool->top + 1.001f) / pool->per_unit, INFINITY);
        pool->threshold = end < pool->threshold ? end : pool->threshold;
    }
}

/* Begins to count, over the range of what is there. */
static inline void vs_pool_count(VsPool *pool) {
    float low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < pool->size; i++) {
        low = pool->estimates[i] < low ? pool->estimates[i] : low;
        high = pool->estimates[i] > high ? pool->estimates[i] : high;
    }
    const float per_unit = ((float)VS_POOL_BINS - 0.5f) / (high - low);
    pool->threshold = high < pool->threshold ? high : pool->threshold;
    pool->per_unit = 0.0f;
    if (!(per_unit > 0.0f && per_unit < INFINITY && high - low < INFINITY))
        return; /* all alike: the threshold says it */
    pool->low = low;
    pool->per_unit = per_unit;
    pool->top = VS_POOL_BINS - 1;
    pool->within = pool->size;
    memset(pool->bins, 0, sizeof pool->bins);
    for (size_t i = 0; i < pool->size; i++)
        pool->bins[vs_pool_bin(pool, pool->estimates[i])]++;
    vs_pool_settle(pool);
}

/* Leaves only the candidates that are kept, and counts anew. */
static inline void vs_pool_shrink(VsPool *pool) {
    size_t count;
    const VsRanked *order = vs_pool_order(pool, &count);
    float *estimates = pool->spare_estimates, *bounds = pool->spare_bounds;
    uint64_t *refs = pool->spare_refs;
    for (size_t i = 0; i < count; i++) {
        estimates[i] = pool->estimates[order[i].value];
        bounds[i] = pool->bounds[order[i].value];
        refs[i] = pool->refs[order[i].value];
    }
    pool->spare_estimates = pool->estimates;
    pool->spare_bounds = pool->bounds;
    pool->spare_refs = pool->refs;
    pool->estimates = estimates;
    pool->bounds = bounds;
    pool->refs = refs;
    pool->size = count;
    if (count == pool->capacity)
        vs_pool_count(pool);
}

/* Makes the array that a pointer at `place` names longer; zero if there is no memory, and it is as it was. */
static inline int vs_pool_lengthen(void *place, size_t bytes) {
    void *array;
    memcpy(&array, place, sizeof array); /* whatever it points to */
    array = realloc(array, bytes);
    if (array)
        memcpy(place, &array, sizeof array);
    return array != NULL;
}

/* Room for `capacity` candidates, more than before, beside those that are kept; what was dropped stays so, and
 * `complete` tells from where on. Zero if there is no memory. */
static inline int vs_pool_widen(VsPool *pool, size_t capacity) {
    const size_t room = 2 * capacity + VS_POOL_SLACK;
    vs_pool_shrink(pool);
    if (room > pool->reserved) {
        if (!vs_pool_lengthen(&pool->estimates, room * sizeof *pool->estimates) ||
            !vs_pool_lengthen(&pool->bounds, room * sizeof *pool->bounds) ||
            !vs_pool_lengthen(&pool->refs, room * sizeof *pool->refs) ||
            !vs_pool_lengthen(&pool->spare_estimates, room * sizeof *pool->estimates) ||
            !vs_pool_lengthen(&pool->spare_bounds, room * sizeof *pool->bounds) ||
            !vs_pool_lengthen(&pool->spare_refs, room * sizeof *pool->refs) ||
            !vs_pool_lengthen(&pool->ranked, 2 * room * sizeof *pool->ranked))
            return 0;
        pool->reserved = room;
    }
    if (pool->size == pool->capacity && pool->estimates[pool->size - 1] < pool->complete)
        pool->complete = pool->estimates[pool->size - 1];
    pool->capacity = capacity;
    pool->room = room;
    pool->threshold = INFINITY;
    pool->per_unit = 0.0f;
    return 1;
}

/* Makes room for n <= VS_POOL_SLACK candidates more. */
static inline void vs_pool_make_room(VsPool *pool, size_t n) {
    if (__builtin_expect(pool->size + n > pool->room, 0))
        vs_pool_shrink(pool);
}

/* Adds a candidate for which there is room and whose estimate is <= the threshold (so it is no NaN). */
static inline void vs_pool_add(VsPool *pool, float estimate, float bound, size_t probe, size_t slot) {
    pool->estimates[pool->size] = estimate;
    pool->bounds[pool->size] = bound;
    pool->refs[pool->size++] = (uint64_t)probe << 32 | slot;
    if (pool->per_unit != 0.0f) {
        const int32_t bin = vs_pool_bin(pool, estimate);
        if (bin <= pool->top) {
            pool->bins[bin]++;
            pool->within++;
        }
    }
}

/* To be called after each list: makes the threshold as low as is known by now. */
static inline void vs_pool_update(VsPool *pool) {
    if (pool->threshold == INFINITY) {
        if (pool->size >= pool->capacity)
            vs_pool_count(pool);
    } else {
        vs_pool_settle(pool);
    }
}

/* Adds the slots of a block that a mask names; their bounds are `error` times those of `errors` (NULL: once). */
static inline void vs_pool_add_bounded(VsPool *pool, uint32_t mask, const float *estimates, const float *errors,
                                       float error, size_t probe, size_t first) {
    if (mask == 0)
        return;
    vs_pool_make_room(pool, VS_BLOCK_ROWS);
    for (; mask; mask &= mask - 1) {
        const size_t slot = (size_t)__builtin_ctz(mask);
        vs_pool_add(pool, estimates[slot], errors ? errors[slot] * error : error, probe, first + slot);
    }
    vs_pool_update(pool);
}

/* The same, of estimates that nobody asks for a bound. */
static inline void vs_pool_add_block(VsPool *pool, uint32_t mask, const float *estimates, size_t probe,
                                     size_t first) {
    vs_pool_add_bounded(pool, mask, estimates, NULL, 0.0f, probe, first);
}

#endif
