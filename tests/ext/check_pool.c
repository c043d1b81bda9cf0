/* Holds a pool that is widened as it fills, and lists that are sorted, against sorted arrays; ends with 1 at the
 * first difference. Estimates are even, tied, all alike, or from tiny to infinite. By each variant of the kernels. */
#include <stdio.h>
#include <stdlib.h>

#include "rank.h"
#include "simd/dispatch.h"

#define KINDS 4
#define MOST 8192

static uint64_t random_state;
static const VsKernels *kernels;

static uint64_t random_bits(void) { /* Vigna's splitmix64 */
    uint64_t x = random_state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static size_t below(size_t n) {
    return (size_t)(random_bits() % n);
}

static float estimate(int kind) {
    const float x = (float)below(1 << 24);
    switch (kind) {
    case 0:
        return x;
    case 1:
        return (float)below(7);
    case 2:
        return 1.0f;
    default:
        return below(50) ? x * 1e-30f : below(2) ? x * 1e30f : INFINITY;
    }
}

static int compare(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void fail(const char *what, uint64_t seed, const char *why, size_t at) {
    printf("%s, seed %llu, %s: %s %zu\n", what, (unsigned long long)seed, kernels->name, why, at);
    exit(1);
}

/* All that was ever offered and is nearer than `complete` is kept, as far as there is room. */
static void check_pool(uint64_t seed) {
    static float offered[MOST], sorted[MOST];
    VsPool pool;
    const int kind = (int)(seed % KINDS);
    random_state = seed;
    size_t capacity = 1 + below(60), n = 0, count;
    memset(&pool, 0, sizeof pool);
    if (!vs_pool_reserve(&pool, kernels, capacity) || !vs_pool_probe(&pool))
        exit(2);
    memset(pool.probes, 0, sizeof *pool.probes);
    for (size_t turn = 0, turns = 1 + below(4); turn < turns; turn++) {
        if (turn && !vs_pool_widen(&pool, capacity = (1 + below(4)) * capacity + 1))
            exit(2);
        for (size_t block = below(40); block > 0; block--, n += VS_BLOCK_ROWS) {
            uint32_t mask = 0;
            for (size_t i = 0; i < VS_BLOCK_ROWS; i++) {
                offered[n + i] = estimate(kind);
                mask |= (uint32_t)(offered[n + i] <= pool.threshold) << i;
            }
            vs_pool_add_block(&pool, mask, offered + n, 0, n);
        }
    }
    const VsRanked *order = vs_pool_order(&pool, &count);
    memcpy(sorted, offered, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare);
    if (count > capacity)
        fail("pool", seed, "too many:", count);
    for (size_t i = 0; i < count; i++) {
        const uint32_t at = order[i].value;
        if (pool.estimates[at] != offered[(uint32_t)pool.refs[at]])
            fail("pool", seed, "another's estimate at", i);
        if (i && pool.estimates[at] < pool.estimates[order[i - 1].value])
            fail("pool", seed, "out of order at", i);
    }
    for (size_t i = 0; i < n && i < capacity && sorted[i] < pool.complete; i++)
        if (i >= count || pool.estimates[order[i].value] != sorted[i])
            fail("pool", seed, "one is missing at", i);
    vs_pool_free(&pool);
}

static void check_lists(uint64_t seed) {
    static float estimates[MOST], estimate_of[MOST];
    static int32_t lists[MOST];
    static VsRanked ranked[2 * MOST];
    const int kind = (int)(seed % KINDS);
    random_state = seed;
    const size_t n = below(seed % 10 ? 300 : MOST);
    for (size_t i = 0; i < n; i++) {
        const size_t other = below(i + 1);
        estimate_of[i] = estimate(kind);
        lists[i] = lists[other];
        lists[other] = (int32_t)i;
    }
    for (size_t i = 0; i < n; i++)
        estimates[i] = estimate_of[lists[i]];
    vs_sort_lists(kernels, lists, estimates, n, ranked);
    for (size_t i = 0; i < n; i++) {
        if (estimates[i] != estimate_of[lists[i]])
            fail("lists", seed, "another's estimate at", i);
        if (i && (estimates[i] < estimates[i - 1] || (estimates[i] == estimates[i - 1] && lists[i] < lists[i - 1])))
            fail("lists", seed, "out of order at", i);
    }
}

int main(void) {
    for (int i = 0; i < vs_variant_count(); i++) {
        kernels = vs_variants + i;
        for (uint64_t seed = 1; seed <= 2000 && vs_supported(kernels); seed++) {
            check_pool(seed);
            check_lists(seed);
        }
    }
    return 0;
}
