/* The pool of candidates: the `capacity` least by (estimate, part, row), a total order, so that
 * what is kept does not depend on the order of the scan. */
#ifndef VECSTORE_POOL_H
#define VECSTORE_POOL_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "select.h"

typedef struct {
    float estimate;
    float bound;
    float g_add;
    int32_t part;
    int64_t row;
    int32_t slot;
    int32_t exact; /* the estimate is not to be refined by int8 */
    uint64_t record;
    int32_t place; /* lists of its part that were nearer than its own */
} VsEntry;

typedef struct {
    float key;
    uint32_t entry;
} VsNode;

/* A max-heap of small nodes over entries that never move. */
typedef struct {
    VsEntry *entries;
    VsNode *heap;
    VsEntry **order; /* scratch of vs_pool_sorted, with the three below */
    VsRanked *ranked;
    size_t reserved;
    size_t capacity;
    size_t size;
    float threshold; /* +inf until full */
} VsPool;

static inline int vs_entry_less(const VsEntry *a, const VsEntry *b) {
    if (a->estimate != b->estimate)
        return a->estimate < b->estimate;
    if (a->part != b->part)
        return a->part < b->part;
    return a->row < b->row;
}

static inline int vs_keys_tie(VsNode a, VsNode b) { return __builtin_expect(a.key == b.key, 0); }

static inline int vs_node_less(const VsPool *pool, VsNode a, VsNode b) {
    if (vs_keys_tie(a, b))
        return vs_entry_less(pool->entries + a.entry, pool->entries + b.entry);
    return a.key < b.key;
}

/* Moves `node` up from the free place `at`. */
static inline void vs_pool_rise(VsPool *pool, size_t at, VsNode node) {
    VsNode *heap = pool->heap;
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (!vs_node_less(pool, heap[parent], node))
            break;
        heap[at] = heap[parent];
        at = parent;
    }
    heap[at] = node;
}

static inline void vs_pool_clear(VsPool *pool) {
    pool->size = 0;
    pool->threshold = INFINITY;
}

/* The caller has checked that entry->estimate <= pool->threshold (so it is no NaN). */
static inline void vs_pool_push(VsPool *pool, const VsEntry *entry) {
    VsNode *heap = pool->heap;
    if (pool->size < pool->capacity) {
        VsNode node = {entry->estimate, (uint32_t)pool->size};
        pool->entries[pool->size] = *entry;
        vs_pool_rise(pool, pool->size++, node);
    } else {
        VsNode node = {entry->estimate, heap[0].entry};
        if (!vs_entry_less(entry, pool->entries + node.entry))
            return;
        pool->entries[node.entry] = *entry;
        /* Down to a leaf along the greater children, then up again: a newcomer belongs near the
         * leaves, and this way down has no branch that depends on the data but for ties. */
        const size_t size = pool->size;
        size_t at = 0, child = 1;
        while (child + 1 < size) {
            VsNode left = heap[child], right = heap[child + 1];
            size_t second = left.key < right.key;
            if (vs_keys_tie(left, right))
                second = (size_t)vs_node_less(pool, left, right);
            child += second;
            heap[at] = heap[child];
            at = child;
            child = 2 * at + 1;
        }
        if (child < size) {
            heap[at] = heap[child];
            at = child;
        }
        vs_pool_rise(pool, at, node);
    }
    if (pool->size == pool->capacity)
        pool->threshold = heap[0].key;
}

static inline int vs_pool_offer(VsPool *pool, const VsEntry *entry) {
    if (!(entry->estimate <= pool->threshold))
        return 0;
    vs_pool_push(pool, entry);
    return 1;
}

/* Room for `capacity` entries; what was in the pool is lost. Zero if there is no memory. */
static inline int vs_pool_reserve(VsPool *pool, size_t capacity) {
    if (capacity > pool->reserved) {
        free(pool->entries);
        free(pool->heap);
        free(pool->order);
        free(pool->ranked);
        pool->reserved = 0;
        pool->entries = malloc(capacity * sizeof(VsEntry));
        pool->heap = malloc(capacity * sizeof(VsNode));
        pool->order = malloc(capacity * sizeof(VsEntry *));
        pool->ranked = malloc(2 * capacity * sizeof(VsRanked));
        pool->capacity = pool->size = 0;
        if (!pool->entries || !pool->heap || !pool->order || !pool->ranked)
            return 0;
        pool->reserved = capacity;
    }
    pool->capacity = capacity;
    vs_pool_clear(pool);
    return 1;
}

static inline void vs_pool_free(VsPool *pool) {
    free(pool->entries);
    free(pool->heap);
    free(pool->order);
    free(pool->ranked);
}

static inline int vs_compare_entries(const void *a, const void *b) {
    const VsEntry *const *x = a, *const *y = b;
    return vs_entry_less(*x, *y) ? -1 : vs_entry_less(*y, *x);
}

/* The entries by (estimate, part, row). Valid until the pool changes. */
static inline VsEntry **vs_pool_sorted(VsPool *pool) {
    const size_t n = pool->size;
    VsEntry **order = pool->order;
    for (size_t i = 0; i < n; i++) {
        pool->ranked[i].key = vs_ordered(pool->entries[i].estimate);
        pool->ranked[i].value = (uint32_t)i;
    }
    const VsRanked *sorted = vs_sort_ranked(pool->ranked, pool->ranked + n, n);
    for (size_t i = 0; i < n; i++)
        order[i] = pool->entries + sorted[i].value;
    for (size_t start = 0, end = 1; start < n; start = end++) {
        while (end < n && sorted[end].key == sorted[start].key)
            end++;
        if (end - start > 1)
            qsort(order + start, end - start, sizeof *order, vs_compare_entries);
    }
    return order;
}

#endif
