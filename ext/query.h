/* A query on its way into its table. */
#ifndef VECSTORE_QUERY_H
#define VECSTORE_QUERY_H

#include "simd/kernels.h"

/* Centres (unless `mean` is NULL), pads and rotates a query of `dim` numbers, and builds its table. */
static inline void vs_load_query(const VsKernels *kernels, VsTable *table, const float *q, size_t dim,
                                 const float *mean, const uint8_t *signs, size_t rounds, float q_shift) {
    float *z = table->z;
    for (size_t i = 0; i < dim; i++)
        z[i] = mean ? q[i] - mean[i] : q[i];
    memset(z + dim, 0, (table->padded_dim - dim) * sizeof *z);
    kernels->rotate(z, table->padded_dim, signs, rounds);
    table->q_shift = q_shift;
    kernels->build_table(table);
    table->fine = 0;
}

#endif
