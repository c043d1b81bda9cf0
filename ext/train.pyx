"""Rows divided into lists: inner loops of k-means, a row's choice of lists, and auctions for room in them.

Kernels of ``index/training.py``; no query calls them. All release the GIL.
"""

import numpy as np

from libc.math cimport INFINITY, nextafterf
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from vecstore.ext.ivf cimport (
    VS_BLOCK_ROWS,
    Pool,
    VsPool,
    vs_block_bytes,
    vs_block_count,
    vs_first_slots,
    vs_pool_add_block,
    vs_pool_clear,
    vs_pool_order,
    vs_prefetch,
)
from vecstore.ext.rabitq cimport QueryTable, VsKernels, VsRanked, VsTable, active_kernels


cdef enum:
    ROWS_AHEAD = 2  # rows in random order are on their way while one is worked on
    BIDDERS_AHEAD = 8


def assign_nearest(
    const float[:, ::1] dots not None,
    const float[::1] half_norms not None,
    int32_t label_base,
    float[::1] best not None,
    int32_t[::1] labels not None,
    const int64_t[::1] rows=None,
) -> None:
    """One chunk of the arg-min of ``half_norm - dot`` (half of the squared distance, but for the
    row's own norm), kept across chunks of centroids and of rows.

    Parameters
    ----------
    dots : f32[n, k]
        Inner products of n rows with k centroids.
    half_norms : f32[k]
        Half of the centroids' squared norms.
    label_base : int
        Label of the chunk's first centroid.
    best, labels : f32, i32
        The least value so far and its label, replaced where this chunk has a lesser one; of equal
        ones the first seen stays, so pass chunks by ascending labels.
    rows : i64[n] or None
        Positions of the rows in `best` and `labels`; None means 0 ... n - 1.

    Raises
    ------
    ValueError
        If shapes do not agree or a position lies outside.
    """
    cdef Py_ssize_t n = dots.shape[0], k = dots.shape[1], i, at
    cdef Py_ssize_t room = labels.shape[0]
    if half_norms.shape[0] != k or best.shape[0] != room:
        raise ValueError(f"{k} centroids, {half_norms.shape[0]} half norms, {best.shape[0]} values, {room} labels")
    if rows is not None:
        if rows.shape[0] != n:
            raise ValueError(f"rows has {rows.shape[0]} elements, not {n}")
        for i in range(n):
            if rows[i] < 0 or rows[i] >= room:
                raise ValueError(f"row {rows[i]} is outside 0 ... {room - 1}")
    elif room != n:
        raise ValueError(f"{room} labels for {n} rows")
    if n == 0 or k == 0:
        return
    cdef const VsKernels *kernels = active_kernels()
    with nogil:
        for i in range(n):
            at = rows[i] if rows is not None else i
            kernels.nearest(&dots[i, 0], &half_norms[0], k, label_base, &best[at], &labels[at])


def accumulate(
    const float[:, ::1] x not None,
    const int32_t[::1] labels not None,
    double[:, ::1] sums not None,
    int64_t[::1] counts not None,
) -> None:
    """Add each row to the sum of its label, and one to its count.

    Parameters
    ----------
    x : f32[n, Dp]
    labels : i32[n]
        A negative label leaves its row out.
    sums : f64[K, Dp]
    counts : i64[K]

    Raises
    ------
    ValueError
        If shapes do not agree or a label is K or more (nothing has been added then).
    """
    cdef Py_ssize_t n = x.shape[0], dim = x.shape[1], k = sums.shape[0], i, j
    if labels.shape[0] != n or sums.shape[1] != dim or counts.shape[0] != k:
        raise ValueError(f"{n} rows of {dim}, {labels.shape[0]} labels, sums of {sums.shape[1]}, {counts.shape[0]} counts")
    for i in range(n):
        if labels[i] >= k:
            raise ValueError(f"label {labels[i]} is not below {k}")
    cdef const float *row
    cdef double *total
    if dim == 0:
        return
    with nogil:
        for i in range(n):
            if labels[i] < 0:
                continue
            row = &x[i, 0]
            total = &sums[labels[i], 0]
            for j in range(dim):
                total[j] += row[j]
            counts[labels[i]] += 1


def nearest_few(
    const float[:, ::1] dots not None,
    const float[::1] half_norms not None,
    int32_t[:, ::1] out not None,
) -> None:
    """The few least of ``half_norm - dot`` of each row, ascending, ties by number.

    Parameters
    ----------
    dots : f32[n, k]
    half_norms : f32[k]
    out : i32[n, t]
        t <= k.

    Raises
    ------
    ValueError
        If shapes do not agree.
    """
    cdef Py_ssize_t n = dots.shape[0], k = dots.shape[1], t = out.shape[1], i, j, at
    if half_norms.shape[0] != k or out.shape[0] != n or t > k:
        raise ValueError(f"{n} rows of {k} dots, {half_norms.shape[0]} half norms, {out.shape[0]} rows of {t} wanted")
    if n == 0 or t == 0:
        return
    cdef float value
    cdef float *kept = <float *>malloc(t * sizeof(float))
    if kept == NULL:
        raise MemoryError
    with nogil:
        for i in range(n):
            for j in range(k):
                value = half_norms[j] - dots[i, j]
                if j < t:
                    at = j
                elif value < kept[t - 1]:
                    at = t - 1
                else:
                    continue
                while at > 0 and kept[at - 1] > value:
                    kept[at] = kept[at - 1]
                    out[i, at] = out[i, at - 1]
                    at -= 1
                kept[at] = value
                out[i, at] = <int32_t>j
        free(kept)


cdef int check_centroids(
    const float[:, ::1] z, const int8_t[:, ::1] centroids, const float[::1] scales, const float[::1] half_norms,
    const int32_t[:, ::1] choices, float[:, ::1] costs, const int64_t[::1] rows,
) except -1:
    cdef Py_ssize_t n = z.shape[0], k = centroids.shape[0], i
    if centroids.shape[1] != z.shape[1] or z.shape[1] < 64 or z.shape[1] % 64:
        raise ValueError(f"rows have {z.shape[1]} and centroids {centroids.shape[1]} columns")
    if scales.shape[0] != k or half_norms.shape[0] != k:
        raise ValueError(f"{k} centroids, {scales.shape[0]} scales, {half_norms.shape[0]} half norms")
    if choices.shape[0] != n or costs.shape[0] != n or costs.shape[1] != choices.shape[1] or choices.shape[1] == 0:
        raise ValueError(f"{n} rows, {choices.shape[0]} of choices and {costs.shape[0]} of costs")
    for i in range(rows.shape[0]):
        if rows[i] < 0 or rows[i] >= n:
            raise ValueError(f"row {rows[i]} is outside 0 ... {n - 1}")
    return 0


def nearest_lists(
    const float[:, ::1] z not None,
    const int64_t[::1] rows not None,
    const int32_t[:, ::1] near not None,
    const float[:, ::1] cells not None,
    const int64_t[::1] cell_lists not None,
    const uint8_t[::1] codes not None,
    const int8_t[:, ::1] centroids not None,
    const float[::1] scales not None,
    const float[::1] half_norms not None,
    int32_t[:, ::1] choices not None,
    float[:, ::1] costs not None,
) -> None:
    """The lists of each row's nearest cells that are nearest by the centroids' codes, and what they cost.

    Parameters
    ----------
    z : f32[n, Dp]
    rows : i64[m]
        Which rows of `z`, `near`, `choices` and `costs`; neighbours side by side find their centroids in the cache.
    near : i32[n, c]
        Cells to look into.
    cells, cell_lists, codes : f32[C, Dp], i64[C + 1], u8
        As `rank_lists` takes them.
    centroids, scales, half_norms : i8[K, Dp], f32[K], f32[K]
        The centroids, and half of their squared norms.
    choices, costs : i32[n, t], f32[n, t]
        By ascending estimate; half of the exact squared distance, but for half of the row's own
        squared norm. -1 and +inf where the cells have fewer lists.

    Raises
    ------
    ValueError
        If shapes do not agree or numbers lie outside.
    """
    cdef Py_ssize_t n = z.shape[0], padded_dim = z.shape[1], count = cells.shape[0], c, i, j, m = rows.shape[0]
    cdef Py_ssize_t t = choices.shape[1], cell, row
    check_centroids(z, centroids, scales, half_norms, choices, costs, rows)
    if cells.shape[1] != padded_dim or cell_lists.shape[0] != count + 1 or cell_lists[0] != 0:
        raise ValueError(f"{count} cells of {cells.shape[1]} columns, {cell_lists.shape[0]} bounds")
    if near.shape[0] != n or near.shape[1] == 0 or cell_lists[count] != centroids.shape[0]:
        raise ValueError(f"{n} rows, {near.shape[0]} of near cells, {centroids.shape[0]} centroids")
    cdef size_t block_bytes = vs_block_bytes(padded_dim), blocks = 0, b
    first_out = np.zeros(count + 1, dtype=np.int64)
    cdef int64_t[::1] first = first_out
    for c in range(count):
        if cell_lists[c + 1] < cell_lists[c]:
            raise ValueError(f"cell_lists descends at cell {c}")
        first[c] = <int64_t>blocks
        blocks += vs_block_count(cell_lists[c + 1] - cell_lists[c])
    if <size_t>codes.shape[0] < blocks * block_bytes:
        raise ValueError(f"{codes.shape[0]} bytes of codes do not hold {blocks} blocks")
    for i in range(m):
        for j in range(near.shape[1]):
            if near[rows[i], j] < 0 or near[rows[i], j] >= count:
                raise ValueError(f"cell {near[rows[i], j]} is outside 0 ... {count - 1}")
    cdef const VsKernels *kernels = active_kernels()
    cdef QueryTable table = QueryTable(padded_dim)
    cdef Pool pool = Pool(max(1, t))
    cdef VsPool *nearest = &pool.pool
    cdef const VsRanked *order
    cdef float estimates[VS_BLOCK_ROWS]
    cdef size_t lists, ranked
    cdef uint32_t mask
    cdef int64_t at
    cdef float g_add
    with nogil:
        for i in range(m):
            row = rows[i]
            if i + ROWS_AHEAD < m:
                vs_prefetch(<const uint8_t *>&z[rows[i + ROWS_AHEAD], 0], padded_dim * sizeof(float))
            memcpy(table.table.z, &z[row, 0], padded_dim * sizeof(float))
            kernels.build_table(&table.table)
            vs_pool_clear(nearest)
            for j in range(near.shape[1]):
                cell = near[row, j]
                lists = cell_lists[cell + 1] - cell_lists[cell]
                if lists == 0:
                    continue
                g_add = kernels.squared_l2(table.table.z, &cells[cell, 0], padded_dim)
                for b in range(vs_block_count(lists)):
                    mask = kernels.score_block(&table.table, &codes[0] + (first[cell] + b) * block_bytes,
                                               vs_first_slots(lists - b * VS_BLOCK_ROWS), g_add, nearest.threshold,
                                               estimates)
                    vs_pool_add_block(nearest, mask, estimates, 0, cell_lists[cell] + b * VS_BLOCK_ROWS)
            order = vs_pool_order(nearest, &ranked)
            for j in range(t):
                if <size_t>j < ranked:
                    at = <int64_t>nearest.refs[order[j].value]
                    choices[row, j] = <int32_t>at
                    costs[row, j] = centroid_cost(kernels, &table.table, &centroids[at, 0], scales[at], half_norms[at])
                else:
                    choices[row, j] = -1
                    costs[row, j] = INFINITY


cdef inline float centroid_cost(
    const VsKernels *kernels, const VsTable *table, const int8_t *centroid, float scale, float half_norm
) noexcept nogil:
    cdef float inner = <float>kernels.dot_i8(table.whole, centroid, table.padded_dim)
    return half_norm - scale * (table.step * inner)


def list_costs(
    const float[:, ::1] z not None,
    const int64_t[::1] rows not None,
    const int32_t[:, ::1] choices not None,
    const int8_t[:, ::1] centroids not None,
    const float[::1] scales not None,
    const float[::1] half_norms not None,
    float[:, ::1] costs not None,
) -> None:
    """What each row's choices cost now, as `nearest_lists` counts; a choice below 0 costs +inf.

    Raises
    ------
    ValueError
        If shapes do not agree or numbers lie outside.
    """
    cdef Py_ssize_t padded_dim = z.shape[1], t = choices.shape[1], i, j, row
    cdef int32_t at
    check_centroids(z, centroids, scales, half_norms, choices, costs, rows)
    for i in range(rows.shape[0]):
        for j in range(t):
            if choices[rows[i], j] >= centroids.shape[0]:
                raise ValueError(f"list {choices[rows[i], j]} is not below {centroids.shape[0]}")
    cdef const VsKernels *kernels = active_kernels()
    cdef QueryTable table = QueryTable(padded_dim)
    with nogil:
        for i in range(rows.shape[0]):
            row = rows[i]
            if i + ROWS_AHEAD < rows.shape[0]:
                vs_prefetch(<const uint8_t *>&z[rows[i + ROWS_AHEAD], 0], padded_dim * sizeof(float))
            memcpy(table.table.z, &z[row, 0], padded_dim * sizeof(float))
            kernels.build_table(&table.table)
            for j in range(t):
                at = choices[row, j]
                if at < 0:
                    costs[row, j] = INFINITY
                else:
                    costs[row, j] = centroid_cost(kernels, &table.table, &centroids[at, 0], scales[at], half_norms[at])


def list_means(
    const float[:, ::1] z not None,
    const int64_t[::1] order not None,
    const int64_t[::1] starts not None,
    float[:, ::1] out not None,
) -> None:
    """Means of lists, each added in order in float64; one without rows stays as it is.

    Parameters
    ----------
    z : f32[n, Dp]
    order, starts : i64[m], i64[L + 1]
        The rows of list l are ``order[starts[l]:starts[l + 1]]``.
    out : f32[L, Dp]

    Raises
    ------
    ValueError
        If shapes do not agree or numbers lie outside.
    """
    cdef Py_ssize_t n = z.shape[0], dim = z.shape[1], lists = out.shape[0], i, j, d
    if out.shape[1] != dim or starts.shape[0] != lists + 1:
        raise ValueError(f"rows of {dim}, means of {out.shape[1]}; {lists} lists, {starts.shape[0]} starts")
    check_order(n, order, starts)
    if dim == 0:
        return
    cdef double *total = <double *>malloc(dim * sizeof(double))
    if total == NULL:
        raise MemoryError
    cdef const float *row
    cdef double share
    with nogil:
        for i in range(lists):
            if starts[i] == starts[i + 1]:
                continue
            memset(total, 0, dim * sizeof(double))
            for j in range(starts[i], starts[i + 1]):
                if j + ROWS_AHEAD < starts[lists]:
                    vs_prefetch(<const uint8_t *>&z[order[j + ROWS_AHEAD], 0], dim * sizeof(float))
                row = &z[order[j], 0]
                for d in range(dim):
                    total[d] += row[d]
            share = <double>(starts[i + 1] - starts[i])
            for d in range(dim):
                out[i, d] = <float>(total[d] / share)
        free(total)


cdef int check_order(Py_ssize_t n, const int64_t[::1] order, const int64_t[::1] starts) except -1:
    cdef Py_ssize_t i
    if starts[0] < 0 or starts[starts.shape[0] - 1] > order.shape[0]:
        raise ValueError("starts lie outside the order")
    for i in range(starts.shape[0] - 1):
        if starts[i + 1] < starts[i]:
            raise ValueError(f"starts descend at list {i}")
    for i in range(starts[0], starts[starts.shape[0] - 1]):
        if order[i] < 0 or order[i] >= n:
            raise ValueError(f"row {order[i]} is outside 0 ... {n - 1}")
    return 0


def list_spread(
    const float[:, ::1] z not None,
    const int64_t[::1] order not None,
    const int64_t[::1] starts not None,
    const int8_t[:, ::1] centroids not None,
    const float[::1] scales not None,
    float[::1] out not None,
) -> None:
    """Mean squared distance of a list's rows from its centroid; 0 for a list without rows.

    Raises
    ------
    ValueError
        If shapes do not agree or numbers lie outside.
    """
    cdef Py_ssize_t n = z.shape[0], dim = z.shape[1], lists = centroids.shape[0], i, j, d
    if centroids.shape[1] != dim or starts.shape[0] != lists + 1 or scales.shape[0] != lists or out.shape[0] != lists:
        raise ValueError(f"{lists} centroids of {centroids.shape[1]} columns, {starts.shape[0]} starts, rows of {dim}")
    check_order(n, order, starts)
    if dim == 0:
        return
    cdef float *centroid = <float *>malloc(dim * sizeof(float))
    if centroid == NULL:
        raise MemoryError
    cdef const VsKernels *kernels = active_kernels()
    cdef double total
    with nogil:
        for i in range(lists):
            for d in range(dim):
                centroid[d] = scales[i] * centroids[i, d]
            total = 0
            for j in range(starts[i], starts[i + 1]):
                if j + ROWS_AHEAD < starts[lists]:
                    vs_prefetch(<const uint8_t *>&z[order[j + ROWS_AHEAD], 0], dim * sizeof(float))
                total += kernels.squared_l2(&z[order[j], 0], centroid, dim)
            out[i] = <float>(total / max(1, starts[i + 1] - starts[i]))
        free(centroid)


def fill_lists(
    const float[:, ::1] costs not None,
    const int32_t[:, ::1] choices not None,
    const int64_t[::1] rows not None,
    Py_ssize_t lists,
    Py_ssize_t capacity,
    float step,
    int64_t most,
    int32_t[::1] labels not None,
) -> int:
    """Put rows into lists of at most `capacity` rows, at the least total cost but for `step` a row.

    An auction (Bertsekas & Castanon, "The auction algorithm for the transportation problem", 1989).
    A row bids for its cheapest list, price included, all that keeps it cheaper than its second
    choice. A full list keeps its highest bids, those who would lose most elsewhere; its price is
    the least of them, and whoever is outbid bids again.

    Parameters
    ----------
    costs, choices : f32[n, t], i32[n, t]
        The lists that a row may be in, each another, and what each costs; a choice below 0 is none.
    rows : i64[m]
        Who bids, in this order, each once.
    lists, capacity : int
    step : float
        More than 0: what a bid adds to the worth, so that rows do not outbid each other for ever.
    most : int
        Bids in all. Crowds of rows that are alike outbid each other in steps until the next lists are
        worth it, however far these are.
    labels : i32[n]
        Of `rows` are set: -1 where every list has become dearer than the dearest was at first, by
        the difference to its cheapest, and of those that are still outbid after so many bids.

    Returns
    -------
    int
        How many rows are in no list.

    Raises
    ------
    ValueError
        If shapes do not agree or a number lies outside.
    """
    cdef Py_ssize_t n = costs.shape[0], t = costs.shape[1], i, j, waiting = rows.shape[0], left = 0
    if choices.shape[0] != n or choices.shape[1] != t or labels.shape[0] != n or n > 0x7fffffff:
        raise ValueError(f"{n} rows of {t} costs, {choices.shape[0]} of {choices.shape[1]} choices, {labels.shape[0]} labels")
    if lists < 1 or capacity < 1 or not step > 0 or most < 0:
        raise ValueError(f"{lists} lists of {capacity} rows, step {step}, {most} bids")
    if waiting > n:
        raise ValueError(f"{waiting} of {n} rows")
    for i in range(waiting):
        if rows[i] < 0 or rows[i] >= n:
            raise ValueError(f"row {rows[i]} is outside 0 ... {n - 1}")
        for j in range(t):
            if choices[rows[i], j] >= lists:
                raise ValueError(f"list {choices[rows[i], j]} is not below {lists}")
    cdef float[::1] prices = np.zeros(lists, dtype=np.float32)
    cdef int32_t[::1] sizes = np.zeros(lists, dtype=np.int32)
    cdef float[:, ::1] bids = np.empty((lists, capacity), dtype=np.float32)
    cdef int32_t[:, ::1] members = np.empty((lists, capacity), dtype=np.int32)
    cdef int32_t[::1] lowest = np.zeros(lists, dtype=np.int32)  # place of a full list's least bid
    cdef int32_t[::1] stack = np.asarray(rows)[::-1].astype(np.int32)
    cdef float best, second, value, bid, least, low, high
    cdef int32_t row, chosen, ahead
    cdef Py_ssize_t place
    with nogil:
        while waiting:
            waiting -= 1
            row = stack[waiting]
            if waiting >= BIDDERS_AHEAD:
                ahead = stack[waiting - BIDDERS_AHEAD]
                vs_prefetch(<const uint8_t *>&costs[ahead, 0], t * sizeof(float))
                vs_prefetch(<const uint8_t *>&choices[ahead, 0], t * sizeof(int32_t))
            best = second = low = INFINITY
            high = -INFINITY
            least = 0
            chosen = -1
            for j in range(t):
                if choices[row, j] < 0:
                    continue
                value = costs[row, j]
                low = min(low, value)
                high = max(high, value)
                value = value + prices[choices[row, j]]
                if value < best:
                    second = best
                    best = value
                    chosen = choices[row, j]
                    least = costs[row, j]
                elif value < second:
                    second = value
            second = min(second, high + (high - low) + step)
            if chosen < 0 or best > second or most == 0:
                labels[row] = -1
                left += 1
                continue
            most -= 1
            bid = max((second - least) + step, nextafterf(prices[chosen], INFINITY))
            labels[row] = chosen
            place = sizes[chosen]
            if place < capacity:
                sizes[chosen] += 1
            else:
                place = lowest[chosen]
                stack[waiting] = members[chosen, place]
                waiting += 1
            bids[chosen, place] = bid
            members[chosen, place] = row
            if sizes[chosen] == capacity:
                place = 0
                for j in range(1, capacity):
                    if bids[chosen, j] < bids[chosen, place]:
                        place = j
                lowest[chosen] = <int32_t>place
                prices[chosen] = bids[chosen, place]
    return left
