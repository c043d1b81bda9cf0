/* Sorting of what is ranked, as far as it needs no instruction set. */
#ifndef VECSTORE_SORT_PLAIN_H
#define VECSTORE_SORT_PLAIN_H

#include "../kernels.h"

/* Stable, byte by byte; `spare` holds as many. Returns where the result is: `items` or `spare`. */
static inline VsRanked *vs_sort_bytes(VsRanked *items, VsRanked *spare, size_t n) {
    for (int shift = 0; shift < 32; shift += 8) {
        uint32_t counts[256] = {0}, sum = 0;
        for (size_t i = 0; i < n; i++)
            counts[items[i].key >> shift & 255]++;
        if (n && counts[items[0].key >> shift & 255] == n)
            continue;
        for (int i = 0; i < 256; i++) {
            uint32_t here = counts[i];
            counts[i] = sum;
            sum += here;
        }
        for (size_t i = 0; i < n; i++)
            spare[counts[items[i].key >> shift & 255]++] = items[i];
        VsRanked *sorted = spare;
        spare = items;
        items = sorted;
    }
    return items;
}

/* Stable, for items that are nearly in order. */
static inline void vs_insertion_sort(VsRanked *items, size_t n) {
    for (size_t i = 1; i < n; i++) {
        const VsRanked item = items[i];
        size_t at = i;
        for (; at > 0 && items[at - 1].key > item.key; at--)
            items[at] = items[at - 1];
        items[at] = item;
    }
}

#endif
