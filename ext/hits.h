/* The hits of a search: the `capacity` nearest by (distance, part, row). */
#ifndef VECSTORE_HITS_H
#define VECSTORE_HITS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "pool.h"

typedef struct {
    float distance;
    int32_t part;
    int64_t row;
    int32_t place;
    const uint8_t *id; /* where it is stored, a u64; NULL if it is not */
} VsHit;

/* A max-heap until it is sorted. */
typedef struct {
    VsHit *hits;
    size_t reserved;
    size_t capacity;
    size_t size;
    float threshold; /* what is beyond is not taken: +inf until full */
} VsNearest;

static inline int vs_hit_less(const VsHit *a, const VsHit *b) {
    if (a->distance != b->distance)
        return a->distance < b->distance;
    if (a->part != b->part)
        return a->part < b->part;
    return a->row < b->row;
}

static inline void vs_nearest_clear(VsNearest *nearest) {
    nearest->size = 0;
    nearest->threshold = nearest->capacity ? INFINITY : -INFINITY;
}

/* Zero if there is no memory. */
static inline int vs_nearest_reserve(VsNearest *nearest, size_t capacity) {
    if (capacity > nearest->reserved) {
        free(nearest->hits);
        nearest->reserved = nearest->capacity = nearest->size = 0;
        nearest->hits = malloc(capacity * sizeof *nearest->hits);
        if (!nearest->hits)
            return 0;
        nearest->reserved = capacity;
    }
    nearest->capacity = capacity;
    vs_nearest_clear(nearest);
    return 1;
}

static inline void vs_nearest_free(VsNearest *nearest) { free(nearest->hits); }

/* Puts `hit` at `at` or below, in a heap of n. */
static inline void vs_nearest_sink(VsHit *hits, size_t n, size_t at, VsHit hit) {
    size_t child;
    while ((child = 2 * at + 1) < n) {
        if (child + 1 < n && vs_hit_less(hits + child, hits + child + 1))
            child++;
        if (!vs_hit_less(&hit, hits + child))
            break;
        hits[at] = hits[child];
        at = child;
    }
    hits[at] = hit;
}

static inline void vs_nearest_offer(VsNearest *nearest, const VsHit *hit) {
    VsHit *hits = nearest->hits;
    if (!(hit->distance <= nearest->threshold))
        return;
    if (nearest->size < nearest->capacity) {
        size_t at = nearest->size++;
        while (at > 0 && vs_hit_less(hits + (at - 1) / 2, hit)) {
            hits[at] = hits[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        hits[at] = *hit;
    } else if (vs_hit_less(hit, hits)) {
        vs_nearest_sink(hits, nearest->size, 0, *hit);
    }
    if (nearest->size == nearest->capacity)
        nearest->threshold = hits[0].distance;
}

/* Sorts; nothing may be offered any more. */
static inline void vs_nearest_sort(VsNearest *nearest) {
    VsHit *hits = nearest->hits;
    for (size_t n = nearest->size; n > 1; n--) {
        VsHit last = hits[n - 1];
        hits[n - 1] = hits[0];
        vs_nearest_sink(hits, n - 1, 0, last);
    }
}

/* Hits by int8 whose distances by their vectors are wanted, and how far off the int8 ones can be. */
typedef struct {
    VsHit hit;
    float bound;
} VsScored;

typedef struct {
    VsScored *items;
    size_t size;
    size_t reserved;
} VsScoredList;

/* Zero if there is no memory. */
static inline int vs_scored_reserve(VsScoredList *list, size_t room) {
    list->size = 0;
    if (room > list->reserved) {
        free(list->items);
        list->items = malloc(room * sizeof *list->items);
        list->reserved = list->items ? room : 0;
    }
    return list->reserved >= room;
}

/* Zero if there is no memory. */
static inline int vs_scored_add(VsScoredList *list, const VsHit *hit, float bound) {
    if (list->size == list->reserved) {
        const size_t room = list->reserved ? 2 * list->reserved : 256;
        VsScored *items = realloc(list->items, room * sizeof *items);
        if (!items)
            return 0;
        list->items = items;
        list->reserved = room;
    }
    list->items[list->size].hit = *hit;
    list->items[list->size++].bound = bound;
    return 1;
}

static inline void vs_scored_free(VsScoredList *list) { free(list->items); }

/* A row of a list that was scanned as a hit at some distance. */
static inline VsHit vs_hit_at(const VsProbe *probe, size_t slot, float distance) {
    VsHit hit;
    hit.distance = distance;
    hit.part = probe->part;
    hit.row = probe->first_row + (int64_t)slot;
    hit.place = probe->place;
    hit.id = probe->ids ? probe->ids + 8 * slot : NULL;
    return hit;
}

/* A candidate of a pool as one. */
static inline VsHit vs_hit_of(const VsPool *pool, uint64_t ref, float distance) {
    return vs_hit_at(vs_pool_probe_of(pool, ref), (uint32_t)ref, distance);
}

#endif
