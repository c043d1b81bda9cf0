/* The n least of many floats, in order. */
#ifndef VECSTORE_SELECT_H
#define VECSTORE_SELECT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VS_BINS 512

typedef struct {
    uint32_t key;
    uint32_t value;
} VsRanked;

/* Ascending as an unsigned integer; -0 and +0 alike, NaN after everything. */
static inline uint32_t vs_ordered(float x) {
    uint32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, 4);
    return x != x ? UINT32_MAX : bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
}

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
 * between the least and the greatest finds a bin that holds the n-th; only what is not beyond it is
 * sorted. `items` and `spare` hold `count` each. */
static inline void vs_least(const float *scores, size_t count, size_t n, VsRanked *items, VsRanked *spare,
                            int32_t *out) {
    float low = INFINITY, high = -INFINITY;
    size_t found = 0;
    if (n == 0)
        return;
    for (size_t i = 0; i < count; i++) {
        low = scores[i] < low ? scores[i] : low;
        high = scores[i] > high ? scores[i] : high;
    }
    const float per_unit = (float)(VS_BINS - 1) / (high - low);
    if (n < count && per_unit > 0.0f && per_unit < INFINITY) {
        uint32_t bins[VS_BINS];
        size_t sum = 0;
        uint32_t last = 0;
        memset(bins, 0, sizeof bins);
        for (size_t i = 0; i < count; i++) {
            float at = (scores[i] - low) * per_unit;
            bins[at < (float)VS_BINS ? (uint32_t)at : VS_BINS - 1]++;
        }
        for (;; last++) {
            sum += bins[last];
            if (sum >= n || last == VS_BINS - 1)
                break;
        }
        for (size_t i = 0; i < count; i++) {
            float at = (scores[i] - low) * per_unit;
            uint32_t bin = at < (float)VS_BINS ? (uint32_t)at : VS_BINS - 1;
            items[found].key = vs_ordered(scores[i]);
            items[found].value = (uint32_t)i;
            found += bin <= last;
        }
    } else {
        for (; found < count; found++) {
            items[found].key = vs_ordered(scores[found]);
            items[found].value = (uint32_t)found;
        }
    }
    items = vs_sort_ranked(items, spare, found);
    for (size_t i = 0; i < n; i++)
        out[i] = (int32_t)items[i].value;
}

#endif
