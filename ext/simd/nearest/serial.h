/* The nearest of k centroids from inner products: arg-min of half_norm - dot. */
#ifndef VECSTORE_NEAREST_SERIAL_H
#define VECSTORE_NEAREST_SERIAL_H

#include "../kernels.h"

static void vs_nearest_serial(const float *dots, const float *half_norms, size_t k, int32_t label_base,
                              float *best, int32_t *label) {
    for (size_t j = 0; j < k; j++) {
        float value = half_norms[j] - dots[j];
        if (value < *best) {
            *best = value;
            *label = label_base + (int32_t)j;
        }
    }
}

#endif
