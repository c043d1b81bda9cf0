/* The n least of many floats, in order: the part that needs no instruction set. */
#ifndef VECSTORE_SELECT_H
#define VECSTORE_SELECT_H

#include <math.h>

#include "simd/kernels.h"

/* Stable; `spare` holds as many. Returns where the result is: `items` or `spare`. */
static inline VsRanked *vs_sort_ranked(VsRanked *items, VsRanked *spare, size_t n) {
    if (n <= 48) {
        for (size_t i = 1; i < n; i++) {
            VsRanked item = items[i];
            size_t at = i;
            for (; at > 0 && items[at - 1].key > item.key; at--)
                items[at] = items[at - 1];
            items[at] = item;
        }
        return items;
    }
    uint32_t counts[4][256];
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < n; i++) {
        uint32_t key = items[i].key;
        counts[0][key & 255]++;
        counts[1][key >> 8 & 255]++;
        counts[2][key >> 16 & 255]++;
        counts[3][key >> 24]++;
    }
    for (int byte = 0; byte < 4; byte++) {
        uint32_t *count = counts[byte], sum = 0;
        if (count[items[0].key >> 8 * byte & 255] == n)
            continue;
        for (int i = 0; i < 256; i++) {
            uint32_t here = count[i];
            count[i] = sum;
            sum += here;
        }
        for (size_t i = 0; i < n; i++)
            spare[count[items[i].key >> 8 * byte & 255]++] = items[i];
        VsRanked *sorted = spare;
        spare = items;
        items = sorted;
    }
    return items;
}

/* The indices of the n <= count least of scores[0 ... count), ascending, ties by index. A histogram
 * between the least and the greatest finds the bin that holds the n-th; only what is not beyond it
 * is sorted. `items` and `spare` hold `count` each. */
static inline void vs_least(const VsKernels *kernels, const float *scores, size_t count, size_t n,
                            VsRanked *items, VsRanked *spare, int32_t *out) {
    float low, high, edge = INFINITY;
    if (n == 0)
        return;
    kernels->range(scores, count, &low, &high);
    float per_unit = (float)(VS_BINS - 1) / (high - low);
    if (n < count && per_unit > 0.0f && per_unit < INFINITY) {
        uint32_t bins[VS_BINS];
        size_t sum = 0;
        memset(bins, 0, sizeof bins);
        kernels->histogram(scores, count, low, per_unit, bins);
        for (uint32_t bin = 0; bin < VS_BINS - 1; bin++) {
            sum += bins[bin];
            if (sum >= n) {
                edge = (float)(bin + 1);
                break;
            }
        }
    } else {
        low = per_unit = 0.0f;
    }
    size_t found = kernels->collect(scores, count, low, per_unit, edge, items);
    items = vs_sort_ranked(items, spare, found);
    size_t kept = found < n ? found : n;
    for (size_t i = 0; i < kept; i++)
        out[i] = (int32_t)items[i].value;
    /* Scores that are no numbers are not collected; they come last, so that `out` is always whole. */
    for (size_t i = 0; i < count && kept < n; i++)
        if (isnan(scores[i]))
            out[kept++] = (int32_t)i;
}

#endif
