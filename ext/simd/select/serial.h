/* Passes over scores that find the n least of them; see ext/select.h. */
#ifndef VECSTORE_SELECT_SERIAL_H
#define VECSTORE_SELECT_SERIAL_H

#include "../kernels.h"

static void vs_range_serial(const float *scores, size_t count, float *low, float *high) {
    float least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        least = scores[i] < least ? scores[i] : least;
        most = scores[i] > most ? scores[i] : most;
    }
    *low = least;
    *high = most;
}

static void vs_histogram_serial(const float *scores, size_t count, float low, float per_unit, uint32_t *bins) {
    for (size_t i = 0; i < count; i++) {
        float at = (scores[i] - low) * per_unit;
        bins[at < (float)VS_BINS ? (int32_t)at : VS_BINS - 1]++;
    }
}

static size_t vs_collect_serial(const float *scores, size_t count, float low, float per_unit, float edge,
                                VsRanked *items) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        float at = (scores[i] - low) * per_unit;
        items[found].key = vs_ordered(scores[i]);
        items[found].value = (uint32_t)i;
        found += !(at >= edge);
    }
    return found;
}

#endif
