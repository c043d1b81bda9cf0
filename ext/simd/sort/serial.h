/* Sorting by key, stable. */
#ifndef VECSTORE_SORT_SERIAL_H
#define VECSTORE_SORT_SERIAL_H

#include "plain.h"

#define VS_BUCKETS 512 /* at most */
#define VS_SORTED 4096  /* the most that are sorted by buckets */
#define VS_FEW 32       /* the most that insertion sorts in one of them */

/* By key, stable: into buckets from `low` to `high`, which no key should leave, and what is still out of order by
 * insertion. Where many share a bucket, byte by byte. */
static VsRanked *vs_sort_serial(VsRanked *items, VsRanked *spare, size_t n, float low, float high) {
    const size_t buckets = n < 64 ? 64 : n < 256 ? 256 : VS_BUCKETS;
    uint16_t bucket_of[VS_SORTED], counts[VS_BUCKETS] = {0};
    const float scale = (float)(buckets - 1) / (high - low);
    if (n <= 8) {
        vs_insertion_sort(items, n);
        return items;
    }
    if (n > VS_SORTED || !(scale > 0.0f && scale < INFINITY))
        return vs_sort_bytes(items, spare, n);
    for (size_t i = 0; i < n; i++) {
        const float at = (vs_unordered(items[i].key) - low) * scale;
        bucket_of[i] = at > 0.0f ? (at < (float)buckets ? (uint16_t)at : (uint16_t)(buckets - 1)) : 0;
        counts[bucket_of[i]]++;
    }
    uint32_t sum = 0, most = 0;
    for (size_t i = 0; i < buckets; i++) {
        const uint32_t here = counts[i];
        most = here > most ? here : most;
        counts[i] = (uint16_t)sum;
        sum += here;
    }
    if (most > VS_FEW)
        return vs_sort_bytes(items, spare, n);
    for (size_t i = 0; i < n; i++)
        spare[counts[bucket_of[i]]++] = items[i];
    vs_insertion_sort(spare, n);
    return spare;
}

/* Puts each item where its rank says, the number of keys that are less; zero if two keys are alike, and so share one. */
static inline int vs_place(const VsRanked *items, const uint32_t *ranks, size_t n, VsRanked *spare) {
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ranks[i];
    if (n && sum != n * (n - 1) / 2)
        return 0;
    for (size_t i = 0; i < n; i++)
        spare[ranks[i]] = items[i];
    return 1;
}

#endif
