/* Choosing among numbers: how many are within a limit, and those that are, with the items they belong to. */
#ifndef VECSTORE_SELECT_SERIAL_H
#define VECSTORE_SELECT_SERIAL_H

#include "../kernels.h"

static size_t vs_count_within_serial(const float *values, size_t n, float limit) {
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += values[i] <= limit;
    return count;
}

/* Each is written where the next one goes and then kept or not: no branch to mistake. */
static size_t vs_keep_serial(const float *values, const int32_t *items, size_t n, float limit, int beyond,
                             float *kept_values, int32_t *kept_items) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const float value = values[i];
        kept_items[kept] = items[i];
        kept_values[kept] = value;
        kept += (value <= limit) != beyond;
    }
    return kept;
}

static size_t vs_take_slots_serial(uint32_t mask, const float *estimates, int32_t first, float *values,
                                   int32_t *items) {
    size_t taken = 0;
    for (; mask; mask &= mask - 1) {
        const int slot = __builtin_ctz(mask);
        values[taken] = estimates[slot];
        items[taken++] = first + slot;
    }
    return taken;
}

#endif
