/* Ranking of a part's lists by their centroids' own codes, cell by cell from the nearest. */
#ifndef VECSTORE_RANK_H
#define VECSTORE_RANK_H

#include "encode.h"
#include "pool.h"
#include "record.h"

typedef struct {
    float scale; /* of its centroid's int8 form */
    float squared_norm;
    float radius;   /* no list's centroid is farther from the cell's */
    uint32_t block; /* the first of its lists' codes */
} VsCell;

typedef struct {
    const VsCell *cells;
    const int8_t *centroids;    /* of the cells: a fraction of a code's error off, a quarter of the bytes */
    const uint32_t *cell_lists; /* first list of each cell, and K */
    const uint8_t *codes;       /* relative to the cells' centroids as stored */
    size_t cell_count;
} VsLists;

/* Fills in `cells` and their int8 centroids. With u = -f_rescale sqrt(Dp) / 2 of its code
 * (docs/formats/part.md), a list's centroid lies sqrt(u^2 - (f_error sqrt(Dp - 1) / 3.8)^2) from its
 * cell's; a thousandth is added for the rounding of the factors. */
static inline void vs_measure_cells(size_t padded_dim, const float *centroids, const uint32_t *cell_lists,
                                    size_t cell_count, const uint8_t *codes, VsCell *cells, int8_t *quantised) {
    const size_t block_bytes = vs_block_bytes(padded_dim);
    uint32_t block = 0;
    for (size_t c = 0; c < cell_count; c++, centroids += padded_dim, quantised += padded_dim) {
        const size_t lists = cell_lists[c + 1] - cell_lists[c];
        double most = 0.0, norm = 0.0;
        cells[c].scale = vs_quantise_centroid(centroids, padded_dim, quantised);
        for (size_t i = 0; i < padded_dim; i++)
            norm += (double)quantised[i] * quantised[i];
        for (size_t i = 0; i < lists; i++) {
            const float *factors = (const float *)(const void *)(codes + (block + i / VS_BLOCK_ROWS) * block_bytes +
                                                                 4 * padded_dim) + i % VS_BLOCK_ROWS;
            const double u = 0.5 * factors[VS_BLOCK_ROWS] * sqrt((double)padded_dim);
            const double rest = factors[2 * VS_BLOCK_ROWS] * sqrt((double)padded_dim - 1.0) / 3.8;
            const double squared = u * u - rest * rest;
            most = squared > most ? squared : most;
        }
        cells[c].squared_norm = (float)(norm * cells[c].scale * cells[c].scale);
        cells[c].radius = (float)(1.001 * sqrt(most));
        cells[c].block = block;
        block += (uint32_t)vs_block_count(lists);
    }
}

/* How many lists are looked at to find the `wanted` nearest, whole cells from the nearest on: in a large part
 * most cells are far, and looking at all their lists is most of a query (docs/decisions/0017). */
#define VS_LOOKED_AT_A_LIST 32
#define VS_LOOKED_AT_LEAST 1024

static inline size_t vs_lists_looked_at(size_t wanted) {
    return VS_LOOKED_AT_A_LIST * wanted + VS_LOOKED_AT_LEAST;
}

/* Whether no list of a cell can be nearer than the threshold. */
static inline int vs_cell_is_beyond(float squared_distance, float radius, float threshold) {
    const float gap = squared_distance > 0.0f ? sqrtf(squared_distance) - radius : 0.0f;
    return gap > 0.0f && gap * gap > threshold;
}

/* The `wanted` nearest lists of the nearest cells that hold `among` lists, but for those that are `seen` (NULL:
 * none), the nearest first, ties by number, into `out`, and their estimates; how many there are. A cell is
 * left out once no list of it can be near enough, which on clustered data are most cells. `order` has room for
 * twice the cells, and `pool` is scratch, with room for `wanted`; lists beyond its threshold are left out. */
static inline size_t vs_rank_lists(const VsKernels *kernels, const VsTable *table, const VsLists *lists,
                                   VsPool *pool, VsRanked *order, const uint8_t *seen, size_t wanted,
                                   size_t among, int32_t *out, float *scores) {
    const size_t padded_dim = table->padded_dim, block_bytes = vs_block_bytes(padded_dim);
    /* Under the dot product estimates are less the rows' norms, and say nothing of distances. */
    const int prune = table->q_shift == 0.0f;
    for (size_t c = 0; c < lists->cell_count; c++) {
        const VsCell *cell = lists->cells + c;
        const float inner = (float)kernels->dot_i8(table->whole, lists->centroids + c * padded_dim, padded_dim);
        const float distance =
            (table->squared_norm - (2.0f * cell->scale) * (table->step * inner)) + cell->squared_norm;
        order[c].key = vs_ordered(distance);
        order[c].value = (uint32_t)c;
    }
    const VsRanked *sorted = vs_sort_bytes(order, order + lists->cell_count, lists->cell_count);
    size_t looked_at = 0;
    for (size_t at = 0; at < lists->cell_count && looked_at < among; at++) {
        const size_t c = sorted[at].value, end = lists->cell_lists[c + 1];
        const float distance = vs_unordered(sorted[at].key);
        looked_at += end - lists->cell_lists[c];
        if (prune && vs_cell_is_beyond(distance, lists->cells[c].radius, pool->threshold))
            continue;
        const uint8_t *block = lists->codes + lists->cells[c].block * block_bytes;
        for (size_t first = lists->cell_lists[c]; first < end; first += VS_BLOCK_ROWS, block += block_bytes) {
            float estimates[VS_BLOCK_ROWS];
            uint32_t mask = kernels->score_block(table, block, vs_first_slots(end - first),
                                                 distance - table->q_shift, pool->threshold, estimates);
            if (mask == 0)
                continue;
            vs_pool_make_room(pool, VS_BLOCK_ROWS);
            for (; mask; mask &= mask - 1) {
                const size_t slot = (size_t)__builtin_ctz(mask);
                if (!seen || !seen[first + slot])
                    vs_pool_add(pool, estimates[slot], 0.0f, 0, first + slot);
            }
            vs_pool_update(pool);
        }
    }
    size_t count;
    const VsRanked *ranked = vs_pool_order(pool, &count);
    for (size_t i = 0; i < count; i++) {
        out[i] = (int32_t)pool->refs[ranked[i].value];
        scores[i] = pool->estimates[ranked[i].value];
    }
    return count < wanted ? count : wanted;
}

/* Lists without a rank, by number, behind the `ranked` and the `found` of `order`, until there are `wanted`
 * behind the ranked: infinitely far. `seen` is scratch, all zero. */
static inline void vs_add_lists(size_t k, uint8_t *seen, size_t ranked, size_t wanted, size_t found,
                                int32_t *order, float *scores) {
    if (found == wanted)
        return;
    for (size_t i = 0; i < ranked + found; i++)
        seen[order[i]] = 1;
    for (size_t list = 0; list < k && found < wanted; list++)
        if (!seen[list]) {
            scores[ranked + found] = INFINITY;
            order[ranked + found++] = (int32_t)list;
        }
    for (size_t i = 0; i < ranked + found; i++)
        seen[order[i]] = 0;
}

#endif
