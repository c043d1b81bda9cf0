/* Ranking of a part's lists by their centroids' own codes, cell by cell from the nearest. */
#ifndef VECSTORE_RANK_H
#define VECSTORE_RANK_H

#include "encode.h"
#include "fine.h"
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

/* How many lists are looked at where up to `most` will be scanned, whole cells from the nearest on: most cells are
 * far, and to look at all their lists is much of a query (docs/decisions/0019). */
#define VS_LOOKED_AT_A_LIST 3
#define VS_LOOKED_AT_LEAST 256
#define VS_LOOKED_AT_SHARE 8 /* one in so many, in a part of more than 2,048 lists */

static inline size_t vs_lists_looked_at(size_t most, size_t k) {
    const size_t share = k / VS_LOOKED_AT_SHARE;
    return VS_LOOKED_AT_A_LIST * most + (share > VS_LOOKED_AT_LEAST ? share : VS_LOOKED_AT_LEAST);
}

/* Whether no list of a cell can be nearer than the threshold. */
static inline int vs_cell_is_beyond(float squared_distance, float radius, float threshold) {
    const float gap = squared_distance > 0.0f ? sqrtf(squared_distance) - radius : 0.0f;
    return gap > 0.0f && gap * gap > threshold;
}

/* Scratch of ranking: lists that were looked at and lay within the threshold then. */
typedef struct {
    float *estimates;
    int32_t *lists;
    float *near_estimates;
    int32_t *near_lists;
    VsRanked *ranked; /* twice as long: the order, and scratch of sorting */
    size_t room;
    size_t size;
    float low; /* the least estimate at the last look */
    float threshold;
} VsShortlist;

static inline void vs_shortlist_free(VsShortlist *list) {
    free(list->estimates);
    free(list->lists);
    free(list->near_estimates);
    free(list->near_lists);
    free(list->ranked);
}

/* An empty one with room for so many lists. Zero if there is no memory. */
static inline int vs_shortlist_reserve(VsShortlist *list, size_t lists) {
    if (lists > list->room) {
        vs_shortlist_free(list);
        const size_t room = lists + VS_BESIDE;
        list->estimates = malloc(room * sizeof *list->estimates);
        list->lists = malloc(room * sizeof *list->lists);
        list->near_estimates = malloc(room * sizeof *list->near_estimates);
        list->near_lists = malloc(room * sizeof *list->near_lists);
        list->ranked = malloc(2 * lists * sizeof *list->ranked);
        list->room = list->estimates && list->lists && list->near_estimates && list->near_lists && list->ranked
                         ? lists
                         : 0;
    }
    list->size = 0;
    list->threshold = INFINITY;
    return list->room >= lists;
}

#define VS_ABREAST 16 /* so that the compiler takes several numbers at a time */

/* The least and the greatest of n numbers. */
static inline void vs_range_of(const float *values, size_t n, float *low, float *high) {
    float least[VS_ABREAST], most[VS_ABREAST];
    size_t i = 0;
    for (size_t j = 0; j < VS_ABREAST; j++) {
        least[j] = INFINITY;
        most[j] = -INFINITY;
    }
    for (; i + VS_ABREAST <= n; i += VS_ABREAST)
        for (size_t j = 0; j < VS_ABREAST; j++) {
            least[j] = values[i + j] < least[j] ? values[i + j] : least[j];
            most[j] = values[i + j] > most[j] ? values[i + j] : most[j];
        }
    for (size_t j = 0; i < n; i++, j++) {
        least[j] = values[i] < least[j] ? values[i] : least[j];
        most[j] = values[i] > most[j] ? values[i] : most[j];
    }
    *low = least[0];
    *high = most[0];
    for (size_t j = 1; j < VS_ABREAST; j++) {
        *low = least[j] < *low ? least[j] : *low;
        *high = most[j] > *high ? most[j] : *high;
    }
}

/* An estimate that `wanted` lists reach and few more do, +inf if there are not so many. By halves of the range:
 * a pass over some hundred numbers costs less than to move them. */
static inline float vs_shortlist_edge(const VsKernels *kernels, VsShortlist *list, size_t wanted) {
    const size_t most = wanted + wanted / 16;
    if (list->size <= most)
        return INFINITY;
    float high = list->threshold;
    if (high == INFINITY)
        vs_range_of(list->estimates, list->size, &list->low, &high);
    float low = list->low;
    if (!(high - low < INFINITY))
        return high;
    for (int halvings = 0; halvings < 24; halvings++) {
        const float middle = low + 0.5f * (high - low);
        const size_t within = kernels->count_within(list->estimates, list->size, middle);
        if (within < wanted) {
            low = middle;
            continue;
        }
        high = middle;
        if (within <= most)
            break;
    }
    return high;
}

/* Leaves out what is not among the nearest `wanted` or little beyond. */
static inline void vs_shortlist_shrink(const VsKernels *kernels, VsShortlist *list, size_t wanted) {
    const float edge = vs_shortlist_edge(kernels, list, wanted);
    if (edge == INFINITY)
        return;
    list->size = kernels->keep(list->estimates, list->lists, list->size, edge, 0, list->estimates, list->lists);
    list->threshold = edge;
}

/* n lists and their estimates by (estimate, number), in place. `ranked` is scratch for twice as many. */
static inline void vs_sort_lists(const VsKernels *kernels, int32_t *lists, float *estimates, size_t n,
                                 VsRanked *ranked) {
    float low, high;
    vs_range_of(estimates, n, &low, &high);
    for (size_t i = 0; i < n; i++) {
        ranked[i].key = vs_ordered(estimates[i]);
        ranked[i].value = (uint32_t)lists[i];
    }
    VsRanked *sorted = kernels->sort(ranked, ranked + n, n, low, high);
    VsRanked *spare = sorted == ranked ? ranked + n : ranked;
    for (size_t start = 0, end = 1; start < n; start = end++) {
        const uint32_t key = sorted[start].key;
        while (end < n && sorted[end].key == key)
            end++;
        if (end - start > 1) {
            for (size_t i = start; i < end; i++)
                sorted[i].key = sorted[i].value;
            const VsRanked *ties = vs_sort_bytes(sorted + start, spare, end - start);
            for (size_t i = 0; i < end - start; i++)
                lists[start + i] = (int32_t)ties[i].value;
        } else {
            lists[start] = (int32_t)sorted[start].value;
        }
        for (size_t i = start; i < end; i++)
            estimates[i] = vs_unordered(key);
    }
}

/* The nearest lists of the nearest cells that hold `among` lists, but for those that are `seen` (NULL: none),
 * into `out` with their estimates: `wanted` by (estimate, number), if there are so many, and behind them in no
 * order what else may be among the nearest `most`. How many are in order, and how many follow in `rest`. A cell
 * is left out once no list of it can be near enough, which on clustered data are most cells. `order` has room
 * for twice the cells; `found` is empty and has room for all lists, as have `out` and `scores`. */
static inline size_t vs_rank_lists(const VsKernels *kernels, VsTable *table, const VsLists *lists,
                                   VsShortlist *found, VsRanked *order, const uint8_t *seen, size_t wanted,
                                   size_t most, size_t among, int32_t *out, float *scores, size_t *rest) {
    const size_t padded_dim = table->padded_dim, block_bytes = vs_block_bytes(padded_dim);
    /* Under the dot product estimates are less the rows' norms, and say nothing of distances. */
    const int prune = table->q_shift == 0.0f;
    float low = INFINITY, high = -INFINITY;
    for (size_t c = 0; c < lists->cell_count; c++) {
        const VsCell *cell = lists->cells + c;
        const float inner = (float)kernels->dot_i8(table->whole, lists->centroids + c * padded_dim, padded_dim);
        const float distance =
            (table->squared_norm - (2.0f * cell->scale) * (table->step * inner)) + cell->squared_norm;
        low = distance < low ? distance : low;
        high = distance > high ? distance : high;
        order[c].key = vs_ordered(distance);
        order[c].value = (uint32_t)c;
    }
    if (table->squared_norm > VS_FAR_OUT * low)
        vs_refine(table);
    const VsRanked *sorted = kernels->sort(order, order + lists->cell_count, lists->cell_count, low, high);
    size_t looked_at = 0, enough = 2 * most;
    for (size_t at = 0; at < lists->cell_count && looked_at < among; at++) {
        const size_t c = sorted[at].value, end = lists->cell_lists[c + 1];
        const float distance = vs_unordered(sorted[at].key);
        looked_at += end - lists->cell_lists[c];
        if (prune && vs_cell_is_beyond(distance, lists->cells[c].radius, found->threshold))
            continue;
        const uint8_t *block = lists->codes + lists->cells[c].block * block_bytes;
        for (size_t first = lists->cell_lists[c]; first < end; first += VS_BLOCK_ROWS, block += block_bytes) {
            float estimates[VS_BLOCK_ROWS];
            uint32_t mask = vs_score_block(kernels, table, block, vs_first_slots(end - first),
                                           distance - table->q_shift, found->threshold, estimates);
            for (uint32_t left = seen ? mask : 0; left; left &= left - 1)
                if (seen[first + (size_t)__builtin_ctz(left)])
                    mask &= ~(left & -left);
            found->size += kernels->take_slots(mask, estimates, (int32_t)first, found->estimates + found->size,
                                               found->lists + found->size);
        }
        if (found->size >= enough) {
            vs_shortlist_shrink(kernels, found, most);
            enough = found->size + most;
        }
    }
    const float edge = vs_shortlist_edge(kernels, found, wanted);
    const size_t count = kernels->keep(found->estimates, found->lists, found->size, edge, 0, found->near_estimates,
                                       found->near_lists);
    *rest = kernels->keep(found->estimates, found->lists, found->size, edge, 1, found->estimates, found->lists);
    memcpy(out, found->near_lists, count * sizeof *out);
    memcpy(scores, found->near_estimates, count * sizeof *scores);
    memcpy(out + count, found->lists, *rest * sizeof *out);
    memcpy(scores + count, found->estimates, *rest * sizeof *scores);
    vs_sort_lists(kernels, out, scores, count, found->ranked);
    if (prune && count && table->squared_norm > VS_FAR_OUT_OF_LISTS * scores[0])
        vs_refine(table);
    return count;
}

/* Lists without a rank, by number, behind the `ranked` and the `found` of `order`, until there are `wanted`
 * behind the ranked, or no more: infinitely far. How many there are. `seen` is scratch, all zero. */
static inline size_t vs_add_lists(size_t k, uint8_t *seen, size_t ranked, size_t wanted, size_t found,
                                int32_t *order, float *scores) {
    if (found == wanted)
        return found;
    for (size_t i = 0; i < ranked + found; i++)
        seen[order[i]] = 1;
    for (size_t list = 0; list < k && found < wanted; list++)
        if (!seen[list]) {
            scores[ranked + found] = INFINITY;
            order[ranked + found++] = (int32_t)list;
        }
    for (size_t i = 0; i < ranked + found; i++)
        seen[order[i]] = 0;
    return found;
}

#endif
