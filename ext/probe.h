/* The ways of a query over a part: ranking its lists, scanning them, scoring rows exactly. */
#ifndef VECSTORE_PROBE_H
#define VECSTORE_PROBE_H

#include "exact.h"
#include "fine.h"
#include "hits.h"
#include "record.h"

/* Lists on their way while one is scanned. From DRAM in random order, one list ahead took 20 ns a row
 * at D = 384, four 8 to 10, more than that no less. */
#define VS_LISTS_AHEAD 4
#define VS_ROWS_AHEAD 8
#define VS_ROWS_WAITING 16

/* How far off an int8 distance can be, in steps of its row times ||z - c||. Each number is off by at most
 * half a step: sqrt(Dp) at the very most. Over many dimensions errors are even and independent, and three
 * standard errors do; a few dimensions spread over 64 keep them in step with each other. */
static inline float vs_int8_slack(size_t dim, size_t padded_dim) {
    return dim < 32 ? sqrtf((float)padded_dim) : 3.0f * 0.57735027f;
}

/* Why a list could not be scanned. */
enum { VS_NO_RECORD = -1, VS_OTHER_RECORD = -2, VS_NO_WORDS = -3, VS_NO_MEMORY = -4 };

/* ||z - c||^2 of a record's centroid. */
static inline float vs_centroid_distance(const VsKernels *kernels, const VsTable *table, const uint8_t *record,
                                         VsHeader header) {
    const float inner = (float)kernels->dot_i8(table->whole, vs_centroid(record), table->padded_dim);
    return (table->squared_norm - (2.0f * header.scale) * (table->step * inner)) + header.squared_norm;
}

/* A list as its candidates refer to it. */
static inline VsProbe vs_probe_of(const VsTable *table, const uint8_t *record, VsHeader header, int64_t first_row,
                                  float distance, int32_t part, int32_t place) {
    const VsLayout at = vs_layout(header.n, table->padded_dim, header.flags);
    VsProbe probe;
    probe.record = record;
    probe.int8 = header.flags & VS_HAS_INT8 ? (const int8_t *)(record + at.int8) : NULL;
    probe.factors = (const VsInt8Factors *)(const void *)(record + at.factors);
    probe.ids = header.flags & VS_HAS_U64_IDS ? record + at.ids : NULL;
    probe.table = table;
    probe.first_row = first_row;
    probe.g_add = distance - table->q_shift;
    probe.g_error = distance > 0.0f ? sqrtf(distance) : 0.0f;
    probe.part = part;
    probe.place = place;
    return probe;
}

/* Notes that candidates of a list follow. Zero if there is no memory. */
static inline int vs_note_probe(VsPool *pool, const VsTable *table, const uint8_t *record, VsHeader header,
                                int64_t first_row, float distance, int32_t part, int32_t place) {
    VsProbe *probe = vs_pool_probe(pool);
    if (!probe)
        return 0;
    *probe = vs_probe_of(table, record, header, first_row, distance, part, place);
    return 1;
}

/* Takes the slots of a block that a mask names into the pool, as candidates of its last probe. */
static inline void vs_take_block(VsPool *pool, const uint8_t *block, size_t padded_dim, uint32_t mask,
                                 const float *estimates, size_t first, int bounded) {
    const float *factors = (const float *)(const void *)(block + 4 * padded_dim);
    vs_pool_add_bounded(pool, mask, estimates, bounded ? factors + 2 * VS_BLOCK_ROWS : NULL,
                        bounded ? pool->probes[pool->probe_count - 1].g_error : INFINITY, pool->probe_count - 1,
                        first);
}

/* Scans a list by its codes into the pool, its estimates within their bounds or, unless `bounded`, any
 * distance off; `words` are its blocks' own. Rows scored, or why not. */
static inline int64_t vs_scan_list(const VsKernels *kernels, const VsTable *table, VsPool *pool,
                                   const uint8_t *record, int64_t first_row, const uint32_t *words,
                                   size_t word_count, int32_t part, int32_t place, int bounded) {
    const size_t padded_dim = table->padded_dim, block_bytes = vs_block_bytes(padded_dim);
    if (record == NULL)
        return VS_NO_RECORD;
    const VsHeader header = vs_header(record);
    if (header.padded_dim != padded_dim || !(header.flags & VS_HAS_BLOCKS))
        return VS_OTHER_RECORD;
    const size_t blocks = vs_block_count(header.n);
    if (blocks > word_count)
        return VS_NO_WORDS;
    const float distance = vs_centroid_distance(kernels, table, record, header);
    const float g_add = distance - table->q_shift;
    const uint8_t *block = record + VS_HEADER_BYTES + padded_dim;
    int64_t scanned = 0;
    int noted = 0;
    for (size_t b = 0; b < blocks; b++, block += block_bytes) {
        float estimates[VS_BLOCK_ROWS];
        const uint32_t allowed = words[b] & vs_first_slots(header.n - b * VS_BLOCK_ROWS);
        if (allowed == 0)
            continue;
        scanned += vs_count(allowed);
        uint32_t mask = vs_score_block(kernels, table, block, allowed, g_add, pool->threshold, estimates);
        if (mask == 0)
            continue;
        if (!noted && !vs_note_probe(pool, table, record, header, first_row, distance, part, place))
            return VS_NO_MEMORY;
        noted = 1;
        vs_take_block(pool, block, padded_dim, mask, estimates, b * VS_BLOCK_ROWS, bounded);
    }
    return scanned;
}

/* Scans one list for n <= VS_TOGETHER queries, each into its own pool: `vs_scan_list` for each of them,
 * but the list is read once. */
static inline int64_t vs_scan_together(const VsKernels *kernels, const VsTable *const *tables, VsPool *const *pools,
                                       size_t n, const uint8_t *record, int64_t first_row, const uint32_t *words,
                                       size_t word_count, int32_t part, const int32_t *places) {
    const size_t padded_dim = tables[0]->padded_dim, block_bytes = vs_block_bytes(padded_dim);
    const VsHeader header = vs_header(record);
    if (header.padded_dim != padded_dim || !(header.flags & VS_HAS_BLOCKS))
        return VS_OTHER_RECORD;
    const size_t blocks = vs_block_count(header.n);
    if (blocks > word_count)
        return VS_NO_WORDS;
    float distances[VS_TOGETHER], g_add[VS_TOGETHER], limits[VS_TOGETHER];
    int noted[VS_TOGETHER] = {0}, fine = 0;
    for (size_t i = 0; i < n; i++) {
        fine |= tables[i]->fine;
        distances[i] = vs_centroid_distance(kernels, tables[i], record, header);
        g_add[i] = distances[i] - tables[i]->q_shift;
    }
    const uint8_t *block = record + VS_HEADER_BYTES + padded_dim;
    int64_t scanned = 0;
    for (size_t b = 0; b < blocks; b++, block += block_bytes) {
        float estimates[VS_TOGETHER][VS_BLOCK_ROWS];
        uint32_t masks[VS_TOGETHER];
        const uint32_t allowed = words[b] & vs_first_slots(header.n - b * VS_BLOCK_ROWS);
        if (allowed == 0)
            continue;
        scanned += vs_count(allowed);
        for (size_t i = 0; i < n; i++)
            limits[i] = pools[i]->threshold;
        if (fine)
            for (size_t i = 0; i < n; i++)
                masks[i] = vs_score_block(kernels, tables[i], block, allowed, g_add[i], limits[i], estimates[i]);
        else
            kernels->score_together(tables, n, block, allowed, g_add, limits, estimates, masks);
        for (size_t i = 0; i < n; i++) {
            if (masks[i] == 0)
                continue;
            if (!noted[i] &&
                !vs_note_probe(pools[i], tables[i], record, header, first_row, distances[i], part, places[i]))
                return VS_NO_MEMORY;
            noted[i] = 1;
            vs_take_block(pools[i], block, padded_dim, masks[i], estimates[i], b * VS_BLOCK_ROWS, 1);
        }
    }
    return scanned;
}

static inline float vs_int8_distance(const VsKernels *kernels, const VsTable *table, float g_add,
                                     const int8_t *row, VsInt8Factors factors) {
    const float inner = (float)kernels->dot_i8(table->whole, row, table->padded_dim);
    return (g_add + factors.add) - (2.0f * factors.scale) * (table->step * inner);
}

static inline float vs_int8_of(const VsKernels *kernels, const VsProbe *probe, size_t slot) {
    return vs_int8_distance(kernels, probe->table, probe->g_add, probe->int8 + slot * probe->table->padded_dim,
                            probe->factors[slot]);
}

static inline void vs_prefetch_int8(const VsProbe *probe, size_t slot) {
    if (!probe->int8)
        return;
    vs_prefetch((const uint8_t *)(probe->int8 + slot * probe->table->padded_dim), probe->table->padded_dim);
    vs_prefetch((const uint8_t *)(probe->factors + slot), 1);
}

/* A scan without a pool of candidates: a row is scored by int8 as soon as its estimate, less its bound, lies within
 * the last of the nearest so far, or where its block has few. Rows that their estimates leave wait while they are
 * fetched, so that memory and processor work side by side; those of a block with few were fetched ahead, which the
 * mask tells. `pool` has the probes that waiting rows refer to, and no candidates. With `scored`, rows go there whose
 * distances, less twice their bounds (`slack`, see above), lie within the last of the nearest too. */
typedef struct {
    VsPool *pool;
    VsNearest *nearest;
    VsScoredList *scored; /* NULL where int8 decides */
    float slack;
    float width; /* of the bounds, in those of an estimate */
    int whole; /* whether every allowed row is scored by int8, whatever its codes say */
    size_t added; /* of all rows that ever waited, as is the next */
    size_t taken;
    int64_t read;
    struct {
        uint64_t ref;
        float least; /* its estimate less its bound */
    } waiting[VS_ROWS_WAITING];
} VsDirect;

static inline void vs_direct_begin(VsDirect *direct, VsPool *pool, VsNearest *nearest, VsScoredList *scored,
                                   float slack, float width, int whole) {
    direct->pool = pool;
    direct->nearest = nearest;
    direct->scored = scored;
    direct->slack = slack;
    direct->width = width;
    direct->whole = whole;
    direct->added = direct->taken = 0;
    direct->read = 0;
}

/* Scores a row. Zero if there is no memory. */
static inline int vs_direct_score(const VsKernels *kernels, VsDirect *direct, const VsProbe *probe, size_t slot) {
    const float distance = vs_int8_of(kernels, probe, slot);
    const float bound = direct->slack * probe->factors[slot].scale * probe->g_error;
    direct->read++;
    if (distance - 2.0f * bound > direct->nearest->threshold)
        return 1;
    const VsHit hit = vs_hit_at(probe, slot, distance);
    vs_nearest_offer(direct->nearest, &hit);
    return !direct->scored || vs_scored_add(direct->scored, &hit, bound);
}

/* Scores the row that has waited longest, if it is still near enough. Zero if there is no memory. */
static inline int vs_direct_take(const VsKernels *kernels, VsDirect *direct) {
    const size_t at = direct->taken++ % VS_ROWS_WAITING;
    const uint64_t ref = direct->waiting[at].ref;
    return direct->waiting[at].least > direct->nearest->threshold ||
           vs_direct_score(kernels, direct, vs_pool_probe_of(direct->pool, ref), (uint32_t)ref);
}

/* Has a row of the last probe wait. Zero if there is no memory. */
static inline int vs_direct_add(const VsKernels *kernels, VsDirect *direct, size_t slot, float least) {
    const size_t probe = direct->pool->probe_count - 1, at = direct->added % VS_ROWS_WAITING;
    if (direct->added - direct->taken == VS_ROWS_WAITING && !vs_direct_take(kernels, direct))
        return 0;
    vs_prefetch_int8(direct->pool->probes + probe, slot);
    direct->waiting[at].ref = (uint64_t)probe << 32 | slot;
    direct->waiting[at].least = least;
    direct->added++;
    return 1;
}

/* Scores all that wait, and forgets the probes. Zero if there is no memory. */
static inline int vs_direct_finish(const VsKernels *kernels, VsDirect *direct) {
    while (direct->taken < direct->added)
        if (!vs_direct_take(kernels, direct))
            return 0;
    vs_pool_clear(direct->pool);
    return 1;
}

/* Rows of a block that are scored by int8 without a look at its codes, which hold 32. */
#define VS_FEW_IN_BLOCK 4

static inline int vs_few(uint32_t allowed) {
    for (int i = 0; i < VS_FEW_IN_BLOCK && allowed; i++)
        allowed &= allowed - 1;
    return allowed == 0;
}

static inline void vs_prefetch_slots(const int8_t *rows, size_t padded_dim, uint32_t mask) {
    for (; mask; mask &= mask - 1)
        vs_prefetch((const uint8_t *)(rows + (size_t)__builtin_ctz(mask) * padded_dim), padded_dim);
}

/* What `vs_scan_directly` reads first of a list whose header is at hand: codes, or the rows of a block with few. */
static inline void vs_prefetch_directly(const uint8_t *record, size_t padded_dim, const uint32_t *words,
                                        size_t word_count) {
    const VsHeader header = vs_header(record);
    const int8_t *rows = (const int8_t *)(record + vs_layout(header.n, padded_dim, header.flags).int8);
    const size_t blocks = header.padded_dim == padded_dim ? vs_block_count(header.n) : 0;
    const uint8_t *block = record + VS_HEADER_BYTES + padded_dim;
    for (size_t b = 0; b < blocks && b < word_count; b++) {
        if (vs_few(words[b]))
            vs_prefetch_slots(rows + b * VS_BLOCK_ROWS * padded_dim, padded_dim, words[b]);
        else
            vs_prefetch(block + b * vs_block_bytes(padded_dim), VS_BEGINNING);
    }
}

/* Scans a list as `VsDirect` says. Rows scored by their codes, or why not. */
static inline int64_t vs_scan_directly(const VsKernels *kernels, const VsTable *table, VsDirect *direct,
                                       const uint8_t *record, int64_t first_row, const uint32_t *words,
                                       size_t word_count, int32_t part, int32_t place) {
    const size_t padded_dim = table->padded_dim, block_bytes = vs_block_bytes(padded_dim);
    if (record == NULL)
        return VS_NO_RECORD;
    const VsHeader header = vs_header(record);
    if (header.padded_dim != padded_dim || !(header.flags & VS_HAS_BLOCKS) || !(header.flags & VS_HAS_INT8))
        return VS_OTHER_RECORD;
    const size_t blocks = vs_block_count(header.n);
    if (blocks > word_count)
        return VS_NO_WORDS;
    const float distance = vs_centroid_distance(kernels, table, record, header);
    const VsProbe probe = vs_probe_of(table, record, header, first_row, distance, part, place);
    const uint8_t *block = record + VS_HEADER_BYTES + padded_dim;
    int64_t scanned = 0;
    int noted = 0;
    for (size_t b = 0; b < blocks; b++, block += block_bytes) {
        const size_t first = b * VS_BLOCK_ROWS;
        uint32_t allowed = words[b] & vs_first_slots(header.n - first);
        scanned += vs_count(allowed);
        if (direct->whole || vs_few(allowed)) {
            for (; allowed; allowed &= allowed - 1)
                if (!vs_direct_score(kernels, direct, &probe, first + (size_t)__builtin_ctz(allowed)))
                    return VS_NO_MEMORY;
            continue;
        }
        if (!noted && !vs_note_probe(direct->pool, table, record, header, first_row, distance, part, place))
            return VS_NO_MEMORY;
        noted = 1;
        const float *errors = (const float *)(const void *)(block + 4 * padded_dim) + 2 * VS_BLOCK_ROWS;
        float least[VS_BLOCK_ROWS];
        vs_score_block(kernels, table, block, allowed, probe.g_add, INFINITY, least);
        for (size_t j = 0; j < VS_BLOCK_ROWS; j++)
            least[j] -= direct->width * probe.g_error * errors[j];
        for (; allowed; allowed &= allowed - 1) {
            const size_t slot = (size_t)__builtin_ctz(allowed);
            if (!(least[slot] > direct->nearest->threshold) &&
                !vs_direct_add(kernels, direct, first + slot, least[slot]))
                return VS_NO_MEMORY;
        }
    }
    return scanned;
}

/* A row that re-ranking will ask for, and where its distance goes. */
typedef struct {
    const VsProbe *probe;
    float *distance;
    size_t slot;
} VsAsked;

/* The rows that `vs_rerank` will read, as far as can be told before: those whose bounds reach the estimate
 * of the last hit (all, if that is 0). `distances`, one a candidate, become NaN. How many there are in `asked`. */
static inline size_t vs_foresee(const VsPool *pool, const VsRanked *order, size_t count, size_t hits,
                                float *distances, VsAsked *asked) {
    const float edge = 0 < hits && hits <= count ? pool->estimates[order[hits - 1].value] : INFINITY;
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t at = order[i].value;
        const VsProbe *probe = vs_pool_probe_of(pool, pool->refs[at]);
        distances[i] = NAN;
        if (!probe->int8 || pool->estimates[at] - pool->bounds[at] > edge)
            continue;
        asked[found].probe = probe;
        asked[found].distance = distances + i;
        asked[found++].slot = (uint32_t)pool->refs[at];
    }
    return found;
}

/* Scores what was asked for by all queries of a batch, in the order in which it lies in memory. `order` has
 * room for twice as many. */
static inline void vs_score_asked(const VsKernels *kernels, const VsAsked *asked, size_t count, VsRanked *order) {
    for (size_t i = 0; i < count; i++) {
        const size_t row = (size_t)asked[i].probe->int8 + asked[i].slot * asked[i].probe->table->padded_dim;
        order[i].key = (uint32_t)(row >> 6);
        order[i].value = (uint32_t)i;
    }
    const VsRanked *sorted = vs_sort_bytes(order, order + count, count);
    for (size_t i = 0; i < count + VS_ROWS_AHEAD; i++) {
        if (i < count)
            vs_prefetch_int8(asked[sorted[i].value].probe, asked[sorted[i].value].slot);
        if (i < VS_ROWS_AHEAD)
            continue;
        const VsAsked *one = asked + sorted[i - VS_ROWS_AHEAD].value;
        *one->distance = vs_int8_of(kernels, one->probe, one->slot);
    }
}

/* The candidates of a pool, in their order, into `nearest`, by their int8 rows. One whose
 * estimate less its bound is beyond the farthest wanted is left out unread (Gao & Long, RaBitQ,
 * SIGMOD 2024, section 4). With `scored`, none is left out, and all go there too, `slack` (see
 * above) as their bound. `known` has the distances that were worked out before, else NaN, in the same order;
 * NULL if none were. Sets how far beyond the last hit rows may have been dropped, in bounds of an estimate
 * (+inf if none were). The rows that were read. */
static inline int64_t vs_rerank(const VsKernels *kernels, const VsPool *pool, const VsRanked *order, size_t count,
                                const float *known, VsNearest *nearest, VsScoredList *scored, float slack,
                                float *margin) {
    int64_t read = 0;
    *margin = INFINITY;
    if (nearest->capacity == 0)
        return 0;
    for (size_t i = 0; i < count + VS_ROWS_AHEAD; i++) {
        if (i < count) {
            const uint32_t at = order[i].value;
            if (!known && (scored || !(pool->estimates[at] - pool->bounds[at] > nearest->threshold)))
                vs_prefetch_int8(vs_pool_probe_of(pool, pool->refs[at]), (uint32_t)pool->refs[at]);
        }
        if (i < VS_ROWS_AHEAD)
            continue;
        const uint32_t at = order[i - VS_ROWS_AHEAD].value;
        const uint64_t ref = pool->refs[at];
        const VsProbe *probe = vs_pool_probe_of(pool, ref);
        float distance = pool->estimates[at], bound = pool->bounds[at];
        if (!scored && distance - bound > nearest->threshold)
            continue;
        if (probe->int8) {
            const float before = known ? known[i - VS_ROWS_AHEAD] : NAN;
            distance = before == before ? before : vs_int8_of(kernels, probe, (uint32_t)ref);
            if (scored)
                bound = slack * probe->factors[(uint32_t)ref].scale * probe->g_error;
            read++;
        }
        const VsHit hit = vs_hit_of(pool, ref, distance);
        vs_nearest_offer(nearest, &hit);
        if (scored) {
            scored->items[scored->size].hit = hit;
            scored->items[scored->size++].bound = bound;
        }
    }
    if (count) {
        const uint32_t last = order[count - 1].value;
        const float bound = pool->bounds[last];
        float end = pool->complete;
        if (count == pool->capacity && pool->estimates[last] < end)
            end = pool->estimates[last];
        if (bound > 0.0f && end < INFINITY)
            *margin = (end - nearest->threshold) / bound;
    }
    return read;
}

/* The candidates of a pool into `nearest` as they are. */
static inline void vs_take_estimates(VsPool *pool, VsNearest *nearest) {
    size_t count;
    const VsRanked *order = vs_pool_order(pool, &count);
    for (size_t i = 0; i < count; i++) {
        const VsHit hit = vs_hit_of(pool, pool->refs[order[i].value], pool->estimates[order[i].value]);
        vs_nearest_offer(nearest, &hit);
    }
}

/* The stored u64 id of a hit; 0 where its record holds none. */
static inline void vs_id_of(const VsHit *hit, uint64_t *out) {
    *out = 0;
    if (hit->id)
        memcpy(out, hit->id, 8);
}

/* A probe for exact distances, whose number is what `vs_offer_exact` takes. Zero if there is no memory. */
static inline int vs_exact_probe(VsPool *pool, const uint8_t *record, int64_t first_row, int32_t part) {
    VsProbe *probe = vs_pool_probe(pool);
    if (!probe)
        return 0;
    memset(probe, 0, sizeof *probe);
    if (record) {
        const VsHeader header = vs_header(record);
        if (header.flags & VS_HAS_U64_IDS)
            probe->ids = record + vs_layout(header.n, header.padded_dim, header.flags).ids;
    }
    probe->record = record;
    probe->first_row = first_row;
    probe->part = part;
    return 1;
}

static inline void vs_offer_exact(VsPool *pool, float distance, size_t slot) {
    if (!(distance <= pool->threshold))
        return;
    vs_pool_make_room(pool, 1);
    vs_pool_add(pool, distance, 0.0f, pool->probe_count - 1, slot);
    vs_pool_update(pool);
}

/* Allowed rows of n vectors as given into the pool, exactly. Rows scored, or why not. */
static inline int64_t vs_scan_vectors(const VsKernels *kernels, const float *q, VsPool *pool, int32_t part,
                                      const uint8_t *vectors, size_t n, size_t dim, int half, int metric,
                                      const uint32_t *words, const uint8_t *record) {
    const size_t row_bytes = dim * (half ? 2 : 4);
    int64_t scanned = 0;
    if (!vs_exact_probe(pool, record, 0, part))
        return VS_NO_MEMORY;
    for (size_t start = 0; start < n; start += VS_BLOCK_ROWS) {
        uint32_t allowed = words[start / VS_BLOCK_ROWS] & vs_first_slots(n - start);
        scanned += vs_count(allowed);
        for (; allowed; allowed &= allowed - 1) {
            const size_t row = start + (size_t)__builtin_ctz(allowed);
            vs_offer_exact(pool, vs_exact_distance(kernels, q, vectors + row * row_bytes, dim, half, metric), row);
        }
    }
    return scanned;
}

/* Allowed rows of one record into the pool, by int8, as if that were exact. Rows scored, or why not. */
static inline int64_t vs_scan_int8(const VsKernels *kernels, const VsTable *table, VsPool *pool, int32_t part,
                                   const uint8_t *record, int64_t first_row, const uint32_t *words) {
    const size_t padded_dim = table->padded_dim;
    const VsHeader header = vs_header(record);
    if (header.padded_dim != padded_dim || !(header.flags & VS_HAS_INT8))
        return VS_OTHER_RECORD;
    const VsLayout at = vs_layout(header.n, padded_dim, header.flags);
    const int8_t *rows = (const int8_t *)(record + at.int8);
    const VsInt8Factors *factors = (const VsInt8Factors *)(const void *)(record + at.factors);
    const float g_add = vs_centroid_distance(kernels, table, record, header) - table->q_shift;
    int64_t scanned = 0;
    if (!vs_exact_probe(pool, record, first_row, part))
        return VS_NO_MEMORY;
    for (size_t start = 0; start < header.n; start += VS_BLOCK_ROWS) {
        uint32_t allowed = words[start / VS_BLOCK_ROWS] & vs_first_slots(header.n - start);
        scanned += vs_count(allowed);
        for (; allowed; allowed &= allowed - 1) {
            const size_t row = start + (size_t)__builtin_ctz(allowed);
            vs_offer_exact(pool, vs_int8_distance(kernels, table, g_add, rows + row * padded_dim, factors[row]), row);
        }
    }
    return scanned;
}

#endif
