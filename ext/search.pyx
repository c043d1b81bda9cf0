"""A query over all parts of a view, from its numbers to its hits, without the interpreter on the way.

A `Searcher` holds the scratch of one query at a time, on a `vecstore.ext.field.Field` under a `Plan`. It
runs until the query is answered or needs something that is not in memory, which it then names:

    begin -> (what is missing is fetched and given) -> run -> ... -> hits

The stages, which are the two of DESIGN.md section 7 and the second looks of docs/decisions/0004:

    table -> rank lists -> scan (shared threshold) -> more lists until the answer is full -> int8
          -> another look where the query is harder than planned -> vectors as given -> hits

Under a filter the scan is *direct*: no pool, int8 as soon as an estimate may lie within the last hit. Matches may
lie so far out that thousands are within the error of every estimate, and no pool is the right size for all of them.
"""

from collections import namedtuple

import numpy as np

cimport numpy as cnp
from libc.math cimport INFINITY, ceil, ldexp, log2, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from vecstore.ext.ivf cimport (
    VS_COSINE,
    VS_DOT,
    VS_L2,
    VS_BEGINNING,
    VS_LISTS_AHEAD,
    VS_NO_MEMORY,
    VsAsked,
    VsHit,
    VsNearest,
    VsPool,
    VsScored,
    VsScoredList,
    refuse,
    vs_add_lists,
    vs_exact_distance,
    vs_foresee,
    vs_hit_less,
    vs_int8_slack,
    vs_id_of,
    vs_lists_looked_at,
    vs_nearest_clear,
    vs_nearest_free,
    vs_nearest_offer,
    vs_nearest_reserve,
    vs_nearest_sort,
    vs_pool_free,
    vs_pool_order,
    vs_pool_reserve,
    vs_pool_widen,
    vs_prefetch,
    vs_prefetch_ahead,
    vs_prefetch_directly,
    vs_rank_lists,
    vs_rerank,
    vs_scan_directly,
    vs_direct_begin,
    vs_direct_finish,
    VsDirect,
    vs_scan_int8,
    vs_scan_list,
    vs_scan_vectors,
    vs_scored_free,
    vs_scored_reserve,
    vs_shortlist_free,
    vs_shortlist_reserve,
    vs_sort_lists,
    vs_take_estimates,
)
from vecstore.ext.field cimport Field, Plan, VsPart, vs_published
from vecstore.ext.rabitq cimport QueryTable, VsKernels, VsRanked, VsTable, active_kernels, as_row, vs_load_query

cdef extern from "bits.h" nogil:
    size_t vs_bits_set(const uint32_t *words, size_t count)

cdef extern from "<time.h>" nogil:
    ctypedef int clockid_t
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(clockid_t clock, timespec *now)
    clockid_t CLOCK_MONOTONIC


cnp.import_array()

Missing = namedtuple("Missing", "lists small vectors")
Counts = namedtuple("Counts", "scanned reranked exact looks")
STAGES = ("prepare", "rank", "scan", "rerank", "exact")

cdef size_t VECTORS_AHEAD = 8  # on their way while one is scored
cdef int64_t FEW_ROWS = 256  # no more than these a filter may leave to be all scored, which takes as long as to rank
cdef double MAX_NORM = 1e18  # of a query; see `vecstore.rows.vectors`


cdef class Searcher:
    """The scratch of one query at a time, reused from query to query. Not to be used by two threads at once.

    Parameters
    ----------
    padded_dim : int
    """

    def __cinit__(self, Py_ssize_t padded_dim):
        self.padded_dim = padded_dim
        self.tables = []
        self.held = []
        self.q = <float *>malloc(padded_dim * sizeof(float))
        self.given_q = <float *>malloc(padded_dim * sizeof(float))
        if self.q == NULL or self.given_q == NULL:
            raise MemoryError

    def __dealloc__(self):
        vs_pool_free(&self.pool)
        vs_pool_free(&self.exact)
        vs_nearest_free(&self.nearest)
        vs_nearest_free(&self.chosen)
        vs_scored_free(&self.scored)
        free(self.table_of)
        free(self.q)
        free(self.given_q)
        free(self.done)
        free(self.want)
        free(self.ranked)
        free(self.rest)
        free(self.limit)
        free(self.closest)
        free(self.records)
        free(self.vectors)
        vs_shortlist_free(&self.shortlist)
        free(self.order)
        free(self.scores)
        free(self.seen)
        free(self.given)
        free(self.cells)
        free(self.where)

    # -- what Python calls -----------------------------------------------------------------

    def begin(self, Field field not None, Plan plan not None, q not None, bint timed=False):
        """Take a query as given, f32[dim], of a norm that the metric allows, and `run`.

        Raises
        ------
        ValueError
            If the plan or the query does not fit the field.
        """
        cdef const float *query = as_row(q, field.dim)
        if query == NULL:
            raise ValueError(f"the query is no contiguous float32 array of {field.dim} dimensions")
        self._take(field, plan)
        self.held = []
        self.timed = timed
        if timed:
            memset(self.seconds, 0, sizeof(self.seconds))
        cdef int64_t found
        with nogil:
            found = self._begin(query)
            if found == DONE:
                found = self._advance()
        return self._told(found)

    def run(self):
        """Go on until the query is answered, or something is missing.

        Returns
        -------
        Missing or None
            ``lists``: {number: i32[m]} records of lists that are to be read, to be told by `give_lists`
            (in a resident field: written into the part's addresses); ``small``: numbers of small parts,
            to be told by `give_small` (`Field.place_small`); ``vectors``: {number: (places, rows)} rows
            whose vectors are to be told by `give_vectors`. All of it can be read side by side.
        """
        cdef int64_t found
        self._require()
        with nogil:
            self._start_clock()  # what was waited for meanwhile is no stage of the kernels
            found = self._advance()
        return self._told(found)

    cdef int _require(self) except -1:
        if self.field is None:
            raise ValueError("no query has begun")
        return 0

    cdef object _told(self, int64_t found):
        if found == DONE:
            return None
        refuse(found, 0, self.padded_dim)
        if found == NEEDS_VECTORS:
            return Missing({}, [], self._missing_vectors())
        return self._missing_lists()

    def rank(self, int32_t number, int32_t most):
        """The lists of a part of which none was scanned yet, nearest first: i32[m], `most` of them at most."""
        cdef Py_ssize_t p = self._part(number) - self.parts
        if self.parts[p].lists == NULL or self.done[p]:
            raise ValueError(f"part {number} has no lists to be ranked, or some were scanned")
        cdef int32_t planned = self.want[p]
        self.want[p] = max(planned, self._at_most(p, most))
        cdef bint ranked = self.ranked[p] >= self.want[p] or self._rank(p)
        cdef cnp.npy_intp shape = self.want[p]
        self.want[p] = planned
        if not ranked:
            raise MemoryError
        found = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_INT32, 0)
        memcpy(cnp.PyArray_DATA(found), self.order + self.parts[p].first_list, shape * sizeof(int32_t))
        return found

    def strays(self, int32_t number):
        """Whether the query is from elsewhere, so that its plan was made longer: by ``widen`` of the plan."""
        return self._strays(self._part(number) - self.parts)

    def choose(self, int32_t number, const int32_t[::1] lists not None) -> None:
        """Scan these lists of a part in place of those that its plan asks for; none was scanned yet."""
        cdef Py_ssize_t p = self._part(number) - self.parts, i, first = self.parts[p].first_list
        if self.parts[p].lists == NULL or self.done[p]:
            raise ValueError(f"part {number} has no lists to be chosen, or some were scanned")
        for i in range(lists.shape[0]):
            if not (lists[i - 1] if i else -1) < lists[i] < <int64_t>self.parts[p].k:
                raise ValueError(f"lists are not ascending numbers below {self.parts[p].k}")
        for i in range(lists.shape[0]):
            self.order[first + i] = lists[i]
            self.scores[first + i] = 0
        self.want[p] = self.ranked[p] = <int32_t>lists.shape[0]
        self.rest[p] = 0
        self.closest[p] = 0  # these are all that it asks for

    def give_lists(self, int32_t number, const int32_t[::1] lists not None, const uint64_t[::1] addresses not None,
                   keep) -> None:
        """Where the records of lists lie, for this search; `keep` owns the memory."""
        cdef const VsPart *part = self._part(number)
        cdef Py_ssize_t i
        if addresses.shape[0] != lists.shape[0]:
            raise ValueError(f"{addresses.shape[0]} addresses of {lists.shape[0]} lists")
        for i in range(lists.shape[0]):
            if lists[i] < 0 or <size_t>lists[i] >= part.k:
                raise ValueError(f"no list {lists[i]}")
            self.given[part.first_list + lists[i]] = addresses[i]
        self.held.append(keep)

    def give_small(self, int32_t number, uint64_t record, uint64_t vectors, keep) -> None:
        """Where a small part's record and vectors lie, for this search."""
        cdef Py_ssize_t at = self._part(number) - self.parts
        self.records[at] = record
        self.vectors[at] = vectors
        self.held.append(keep)

    def give_vectors(self, const int64_t[::1] places not None, const uint64_t[::1] addresses not None, keep) -> None:
        """Where the vectors of hits lie; places as `run` told them."""
        cdef Py_ssize_t i
        if addresses.shape[0] != places.shape[0]:
            raise ValueError(f"{addresses.shape[0]} addresses of {places.shape[0]} rows")
        for i in range(places.shape[0]):
            if places[i] < 0 or <size_t>places[i] >= self.chosen.size:
                raise ValueError(f"no place {places[i]}")
            self.where[places[i]] = addresses[i]
        self.held.append(keep)

    def hits(self):
        """The answer, nearest first.

        Returns
        -------
        ids u64[m], distances f32[m], parts i32[m], rows i64[m]
            Ids are 0 where records hold none; distances are the metric's own (``1 - cos``, squared L2, ``-dot``).
        """
        self._require()
        cdef cnp.npy_intp shape = self.nearest.size
        ids = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_UINT64, 0)
        distances = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_FLOAT32, 0)
        parts = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_INT32, 0)
        rows = cnp.PyArray_EMPTY(1, &shape, cnp.NPY_INT64, 0)
        self._write(
            <uint64_t *>cnp.PyArray_DATA(ids), <float *>cnp.PyArray_DATA(distances),
            <int32_t *>cnp.PyArray_DATA(parts), <int64_t *>cnp.PyArray_DATA(rows),
        )
        return ids, distances, parts, rows

    def release(self) -> None:
        """Let go of the field that was searched, so that maps of parts which are gone can go too."""
        self.field = None
        self.plan = None
        self.parts = NULL
        self.count = 0
        self.held = []

    def counts(self):
        """What the query took: rows scanned, read as int8, scored by their vectors, and second looks."""
        return Counts(self.scanned, self.reranked, self.rescored, self.looked)

    def probed(self):
        """{number: lists scanned} of each part."""
        return {self.parts[i].number: max(self.done[i], 1) for i in range(self.count)}

    def times(self):
        """{stage: seconds} of a query that was begun with ``timed``."""
        return {name: self.seconds[i] for i, name in enumerate(STAGES)}

    # -- below: the way of a query ---------------------------------------------------------

    cdef int _take(self, Field field, Plan plan) except -1:
        """Make room for a field and a plan."""
        cdef Py_ssize_t groups = field.groups, have = len(self.tables), count = field.count
        if field.padded_dim != self.padded_dim:
            raise ValueError(f"the field has {field.padded_dim} dimensions when padded, not {self.padded_dim}")
        if not (
            plan.probes.shape[0] == plan.limits.shape[0] == plan.reach.shape[0] == plan.hollow.shape[0]
            == plan.familiar.shape[0] == plan.distant.shape[0] == count
        ):
            raise ValueError(f"the plan is for {plan.probes.shape[0]} parts, not {count}")
        self.kernels = active_kernels()
        field.searched = True
        self.field = field
        self.plan = plan
        self.parts = field.parts
        self.count = count
        if have < groups:
            free(self.table_of)
            self.table_of = <VsTable **>malloc(groups * sizeof(VsTable *))
            if self.table_of == NULL:
                self.tables = []
                raise MemoryError
            while len(self.tables) < groups:
                self.tables.append(QueryTable(self.padded_dim))
            for i in range(groups):
                self.table_of[i] = &(<QueryTable>self.tables[i]).table
        if count > self.part_room or self.done == NULL:
            self.part_room = 0
            self.done = <int32_t *>_room(self.done, count * sizeof(int32_t))
            self.want = <int32_t *>_room(self.want, count * sizeof(int32_t))
            self.ranked = <int32_t *>_room(self.ranked, count * sizeof(int32_t))
            self.rest = <int32_t *>_room(self.rest, count * sizeof(int32_t))
            self.limit = <int32_t *>_room(self.limit, count * sizeof(int32_t))
            self.closest = <float *>_room(self.closest, count * sizeof(float))
            self.records = <uint64_t *>_room(self.records, count * sizeof(uint64_t))
            self.vectors = <uint64_t *>_room(self.vectors, count * sizeof(uint64_t))
            self.part_room = count
        if field.lists > self.list_room or self.given == NULL:
            self.list_room = 0
            self.seen = <uint8_t *>_room(self.seen, field.lists)
            memset(self.seen, 0, field.lists)
            self.scores = <float *>_room(self.scores, field.lists * sizeof(float))
            self.order = <int32_t *>_room(self.order, field.lists * sizeof(int32_t))
            self.given = <uint64_t *>_room(self.given, field.lists * sizeof(uint64_t))
            self.list_room = field.lists
        if field.most_cells > self.cell_room:
            self.cell_room = 0
            self.cells = <VsRanked *>_room(self.cells, 2 * field.most_cells * sizeof(VsRanked))
            self.cell_room = field.most_cells
        return 0

    cdef int _begin(self, const float *q) noexcept nogil:
        """Make the tables of a query and forget the one before; needs `_take`."""
        cdef size_t dim = self.field.dim, i
        cdef Py_ssize_t g
        cdef double square = 0, shift = 0, scale = 1
        self._start_clock()
        self.gain = 1
        if self.field.metric != VS_L2:
            square = self.kernels.dot(q, q, dim)
            if self.field.metric == VS_COSINE:
                scale = 1 / sqrt(square)
            else:
                self.gain = scale = _gain(
                    sqrt(square), self.field.dot_length, self.field.dot_square,
                    self.kernels.dot(q, self.field.dot_mean, dim) if self.field.dot_mean != NULL else 0,
                )
                shift = square * scale * scale
        for i in range(dim):
            self.q[i] = <float>(q[i] * scale)
        if self.field.dot_mean != NULL:
            memcpy(self.given_q, q, dim * sizeof(float))
        for g in range(self.field.groups):
            vs_load_query(self.kernels, self.table_of[g], self.q, dim, self.field.mean_of[g],
                          &self.field.signs[0, 0], self.field.signs.shape[0], <float>shift)
        for i in range(<size_t>self.count):
            self.done[i] = 0
            self.ranked[i] = 0
            self.rest[i] = 0
            self.closest[i] = 0
            self.limit[i] = self._at_most(i, self.plan.limits[i])
            self.want[i] = self._at_most(i, self.plan.probes[i])
        if not self.field.resident:
            self._forget_given()
            memset(self.records, 0, self.count * sizeof(uint64_t))
            memset(self.vectors, 0, self.count * sizeof(uint64_t))
        self.small_done = False
        self.looked = 0
        self.scanned = self.reranked = self.rescored = 0
        self.room = self.plan.pool
        self.known = NULL
        self.stage = SCAN
        if (
            not vs_pool_reserve(&self.pool, self.kernels, self.room)
            or not vs_pool_reserve(&self.exact, self.kernels, self.plan.top_k)
        ):
            return VS_NO_MEMORY
        if not vs_nearest_reserve(&self.nearest, self.plan.top_k) or not vs_scored_reserve(&self.scored, 0):
            return VS_NO_MEMORY
        vs_direct_begin(&self.direct, &self.pool, &self.nearest, &self.scored if self.plan.kind == 2 else NULL,
                        vs_int8_slack(self.field.dim, self.padded_dim), <float>self.plan.width,
                        self.plan.alive <= FEW_ROWS)
        self._lap(PREPARE)
        return 0

    cdef void _forget_given(self) noexcept nogil:
        """Of what lists were given, only the records are known that stay where they are."""
        cdef Py_ssize_t p
        cdef const VsPart *part
        for p in range(self.count):
            part = self.parts + p
            if part.addresses != NULL:
                memcpy(self.given + part.first_list, part.addresses, part.k * sizeof(uint64_t))
            else:
                memset(self.given + part.first_list, 0, part.k * sizeof(uint64_t))

    cdef int64_t _advance(self) noexcept nogil:
        """Go on from the stage that was reached; DONE, what is needed, or why it cannot be."""
        cdef int64_t found
        while self.stage != ANSWERED:
            if self.stage == SCAN:
                found = self._scan()
                if found != DONE:
                    return found
                self.stage = RERANK
            found = self._settle()
            if found != DONE:
                return found
        return DONE

    cdef int64_t _settle(self) noexcept nogil:
        """From what was scanned to the hits, or back to `SCAN`; DONE, what is needed, or why it cannot be."""
        cdef int64_t found
        if self.stage == RERANK:
            if self._fill():
                self.stage = SCAN
                return DONE
            found = self._rerank()
            if found != DONE:
                return found
            if self._look_again():
                self.stage = SCAN
                return DONE
            if self.plan.kind == 2:
                found = self._choose()
                if found != DONE:
                    return found
            self.stage = EXACT
        if self.plan.kind == 2:
            found = self._rescore()
            if found != DONE:
                return found
        if self.field.dot_mean != NULL:
            self._unscale()
        vs_nearest_sort(&self.nearest)
        self.stage = ANSWERED
        return DONE

    cdef const uint64_t *_addresses(self, Py_ssize_t p) noexcept nogil:
        return self.parts[p].addresses if self.field.resident else self.given + self.parts[p].first_list

    cdef int64_t _scan(self) noexcept nogil:
        """Scan what is wanted and has not been scanned, if all of it can be read."""
        cdef int64_t found = self._rank_lists()
        if found != DONE:
            return found
        found = self._scan_wanted()
        self._lap(SCAN)
        return found

    cdef int64_t _scan_wanted(self) noexcept nogil:
        """Scan what is wanted and can be read; DONE, or why not."""
        cdef int64_t found
        if self.plan.direct:  # those that are exact first: what they leave out need not be scored
            found = self._scan_small()
            return found if found != DONE else self._scan_nearest(1)
        found = self._scan_nearest(1)
        return found if found != DONE else self._scan_small()

    cdef int64_t _rank_lists(self) noexcept nogil:
        """Rank the lists that are wanted, and see whether all that is to be scanned can be read."""
        cdef Py_ssize_t p
        for p in range(self.count):
            if self.parts[p].lists != NULL and self.ranked[p] < self.want[p] and not self._rank(p):
                return VS_NO_MEMORY
        for p in range(self.count):
            if self.parts[p].lists != NULL and self.done[p] == 0 and self._strays(p):
                self.want[p] = max(self.want[p], self._at_most(p, <int32_t>min(
                    <int64_t>self.plan.widen * self.plan.probes[p], <int64_t>self.plan.cap)))
                if self.ranked[p] < self.want[p] and not self._rank(p):
                    return VS_NO_MEMORY
        self._lap(RANK)
        for p in range(self.count):
            if not self._readable(p):
                return NEEDS_LISTS
        return DONE

    cdef bint _rank(self, Py_ssize_t p) noexcept nogil:
        """Rank the lists of a part that are wanted; a rank is kept. Those that may be wanted later follow."""
        cdef const VsPart *part = self.parts + p
        cdef size_t ranked, wanted = self.want[p], most = wanted, among, found, rest = 0, i
        cdef int32_t *order = self.order + part.first_list
        cdef float *scores = self.scores + part.first_list
        cdef uint8_t *seen = self.seen + part.first_list
        if self._rank_rest(p) >= wanted:
            return True
        if (
            self.plan.direct and self.plan.alive <= FEW_ROWS
            and wanted == <size_t>part.holding and self.ranked[p] == 0
        ):
            return self._take_all(p)
        ranked = self.ranked[p]
        among = max(wanted, <size_t>self.limit[p])
        if self.plan.looks > 0 and self.plan.reach[p] > 0:
            most = among
        if not vs_shortlist_reserve(&self.shortlist, part.k):
            return False
        # Where many lists are empty, as many more have to be looked at.
        among = among * part.k // max(<size_t>1, part.holding)
        self._pass_over_empty(p, True)
        for i in range(ranked):
            seen[order[i]] = 1
        found = vs_rank_lists(self.kernels, self.table_of[part.group], part.lists, &self.shortlist, self.cells,
                              seen if ranked or part.empty != NULL else NULL, wanted - ranked, most - ranked,
                              vs_lists_looked_at(among, part.k), order + ranked, scores + ranked, &rest)
        for i in range(ranked):
            seen[order[i]] = 0
        if ranked + found < wanted:
            found = vs_add_lists(part.k, seen, ranked, wanted - ranked, found, order, scores)
        self._pass_over_empty(p, False)
        if ranked == 0 and found:
            self.closest[p] = scores[0]
        self.ranked[p] += <int32_t>found
        self.rest[p] = <int32_t>rest
        return True

    cdef bint _take_all(self, Py_ssize_t p) noexcept nogil:
        """Rank the lists of a part that hold something as they lie; none was scanned yet, and all will be."""
        cdef const VsPart *part = self.parts + p
        cdef int32_t *order = self.order + part.first_list
        cdef int32_t number, taken = 0
        for number in range(<int32_t>part.k):
            if part.empty == NULL or not part.empty[number]:
                self.scores[part.first_list + taken] = 0
                order[taken] = number
                taken += 1
        self.ranked[p] = taken
        return True

    cdef size_t _rank_rest(self, Py_ssize_t p) noexcept nogil:
        """Rank those lists of a part that follow the ranked ones in no order; how many are ranked then."""
        cdef size_t at = self.parts[p].first_list + self.ranked[p]
        if self.rest[p]:
            vs_sort_lists(self.kernels, self.order + at, self.scores + at, self.rest[p], self.shortlist.ranked)
            self.ranked[p] += self.rest[p]
            self.rest[p] = 0
        return self.ranked[p]

    cdef int32_t _at_most(self, Py_ssize_t p, int32_t lists) noexcept nogil:
        """So many lists of a part, as far as it has them that can hold a hit."""
        return min(lists, <int32_t>self.parts[p].holding)

    cdef void _pass_over_empty(self, Py_ssize_t p, bint over) noexcept nogil:
        """Have the lists of a part without an allowed slot taken for seen, or no longer."""
        cdef const VsPart *part = self.parts + p
        if part.empty == NULL:
            return
        if over:
            memcpy(self.seen + part.first_list, part.empty, part.k)
        else:
            memset(self.seen + part.first_list, 0, part.k)

    cdef bint _readable(self, Py_ssize_t p) noexcept nogil:
        cdef const VsPart *part = self.parts + p
        cdef const uint64_t *addresses
        cdef const int32_t *order
        cdef int32_t i
        if part.lists == NULL:
            return self.small_done or self._small_record(p) != 0
        addresses = self._addresses(p)
        order = self.order + part.first_list
        for i in range(self.done[p], self.want[p]):
            if addresses[order[i]] == 0:
                return False
        return True

    cdef uint64_t _small_record(self, Py_ssize_t p) noexcept nogil:
        return vs_published(&self.parts[p].record) if self.field.resident else self.records[p]

    cdef int64_t _scan_lists(self, Py_ssize_t p, int32_t end) noexcept nogil:
        """Scan the lists of a part up to a place that have not been scanned; DONE, or why not."""
        cdef const VsPart *part = self.parts + p
        cdef const uint64_t *addresses = self._addresses(p)
        cdef const int32_t *order = self.order + part.first_list
        cdef int32_t i
        cdef int64_t found
        if self.plan.direct:
            return self._scan_directly(p, end)
        for i in range(self.done[p], min(self.done[p] + VS_LISTS_AHEAD, end)):
            vs_prefetch_ahead(<const uint8_t *>addresses[order[i]], self.field.ahead)
        for i in range(self.done[p], end):
            if i + <int32_t>VS_LISTS_AHEAD < end:
                vs_prefetch_ahead(<const uint8_t *>addresses[order[i + <int32_t>VS_LISTS_AHEAD]], self.field.ahead)
            found = vs_scan_list(
                self.kernels, self.table_of[part.group], &self.pool, <const uint8_t *>addresses[order[i]],
                part.first_rows[order[i]], part.words + part.first_blocks[order[i]],
                part.word_count - part.first_blocks[order[i]], part.number, i, True,
            )
            if found < 0:
                return found
            self.scanned += found
        self.done[p] = max(self.done[p], end)
        return DONE

    cdef int64_t _scan_directly(self, Py_ssize_t p, int32_t end) noexcept nogil:
        """As `_scan_lists`, without a pool."""
        cdef const VsPart *part = self.parts + p
        cdef const uint64_t *addresses = self._addresses(p)
        cdef const int32_t *order = self.order + part.first_list
        cdef int32_t i, start = self.done[p], ahead = VS_LISTS_AHEAD
        cdef int64_t found, block
        for i in range(start - 2 * ahead, end):  # headers, then what they tell of, then the rows
            if start <= i + 2 * ahead < end:
                vs_prefetch(<const uint8_t *>addresses[order[i + 2 * ahead]], VS_BEGINNING)
            if start <= i + ahead < end:
                block = part.first_blocks[order[i + ahead]]
                vs_prefetch_directly(<const uint8_t *>addresses[order[i + ahead]], self.padded_dim,
                                     part.words + block, part.word_count - block)
            if i < start:
                continue
            block = part.first_blocks[order[i]]
            found = vs_scan_directly(
                self.kernels, self.table_of[part.group], &self.direct, <const uint8_t *>addresses[order[i]],
                part.first_rows[order[i]], part.words + block, part.word_count - block, part.number, i,
            )
            if found < 0:
                return found
            self.scanned += found
        self.done[p] = max(self.done[p], end)
        return DONE if vs_direct_finish(self.kernels, &self.direct) else VS_NO_MEMORY

    cdef int64_t _scan_nearest(self, int32_t share) noexcept nogil:
        """Scan one in `share` of the lists that are wanted, the nearest of each part; DONE, or why not."""
        cdef Py_ssize_t p
        cdef int64_t found
        for p in range(self.count):
            if self.parts[p].lists != NULL:
                found = self._scan_lists(p, self.done[p] + (self.want[p] - self.done[p] + share - 1) // share)
                if found != DONE:
                    return found
        return DONE

    cdef int64_t _scan_small(self) noexcept nogil:
        """Scan the small parts, once."""
        cdef Py_ssize_t p
        cdef const VsPart *part
        cdef const uint8_t *record
        cdef int64_t found
        if self.small_done:
            return DONE
        for p in range(self.count):
            part = self.parts + p
            if part.lists != NULL:
                continue
            record = <const uint8_t *>self._small_record(p)
            if part.has_vectors:
                found = vs_scan_vectors(
                    self.kernels, self.q, &self.exact, part.number,
                    <const uint8_t *>(part.vectors if self.field.resident else self.vectors[p]), part.n,
                    self.field.dim, part.half, self.field.metric, part.words, record,
                )
            else:
                found = vs_scan_int8(self.kernels, self.table_of[part.group], &self.exact, part.number, record, 0,
                                     part.words)
            if found < 0:
                return found
            self.scanned += found
        self.small_done = True
        if self.plan.direct:
            vs_take_estimates(&self.exact, &self.nearest)
        return DONE

    cdef void _count(self, int64_t rows) noexcept nogil:
        """Count rows that were scanned for this query elsewhere."""
        self.scanned += rows

    cdef bint _fill(self) noexcept nogil:
        """Whether more lists must be scanned for the answer to be full (promise P6)."""
        cdef Py_ssize_t p
        cdef bint more = False
        cdef size_t found = self.nearest.size if self.plan.direct else self.pool.size + self.exact.size
        if <Py_ssize_t>found >= min(self.plan.top_k, self.plan.alive):
            return False
        for p in range(self.count):
            if self.parts[p].lists != NULL and self.done[p] < <int32_t>self.parts[p].holding:
                self.want[p] = self._at_most(p, 2 * self.done[p] + 8)
                more = True
        return more

    cdef int64_t _rerank(self) noexcept nogil:
        """The nearest candidates by int8, where that is asked for, beside those that are exact."""
        cdef bint exact = self.plan.kind == 2
        self.margin = INFINITY
        if self.plan.direct:  # the scan did
            self.reranked = self.direct.read
            return DONE
        vs_nearest_clear(&self.nearest)
        vs_take_estimates(&self.exact, &self.nearest)
        if self.plan.kind == 0:
            vs_take_estimates(&self.pool, &self.nearest)
        else:
            if exact and not vs_scored_reserve(&self.scored, self.room):
                return VS_NO_MEMORY
            if self.known == NULL:
                self._order()
            self.reranked += vs_rerank(
                self.kernels, &self.pool, self.candidates, self.candidate_count, self.known, &self.nearest,
                &self.scored if exact else NULL, vs_int8_slack(self.field.dim, self.padded_dim), &self.margin,
            )
        self._lap(RERANK)
        return DONE

    cdef size_t _order(self) noexcept nogil:
        """Put the pool in order; how many candidates there are."""
        self.candidates = vs_pool_order(&self.pool, &self.candidate_count)
        return self.candidate_count

    cdef size_t _foresee(self, float *known, VsAsked *asked) noexcept nogil:
        """The rows that re-ranking will ask for, whose distances will be in `known` by then; how many."""
        self.known = known
        return vs_foresee(&self.pool, self.candidates, self.candidate_count,
                          self.plan.top_k if self.plan.kind == 1 else 0, known, asked)

    cdef bint _look_again(self) noexcept nogil:
        """Whether this query turned out harder than it was planned for; says then what is wanted.

        Two signs tell, whatever the data: the pool ends within the error of the estimates of the last
        hit, so that it may have dropped a nearer row; or lists that were not scanned are near, beside
        the last hit or the lists that held hits, so that they may hold some too.
        """
        cdef Py_ssize_t p
        cdef bint more = False
        cdef int32_t wanted
        cdef int64_t done = 0, added = 0
        cdef size_t wider = min(<size_t>self.plan.widen * self.room, <size_t>self.plan.most)
        if self.looked >= self.plan.looks:
            return False
        for p in range(self.count):
            if self.parts[p].lists == NULL:
                continue
            wanted = self._near_lists(p) if self.plan.reach[p] > 0 else self._place_of_hits(p)
            done += self.done[p]
            if wanted > self.done[p]:
                added += wanted - self.done[p]
                self.want[p] = wanted
                more = True
        if self.margin < self.plan.margin and self.room < wider:
            if not vs_pool_reserve(&self.pool, self.kernels, wider):
                return False
            self.room = wider
            memset(self.done, 0, self.count * sizeof(int32_t))
            more = True
        elif added > done and self.room < wider and not self.plan.direct:
            # So many rows more would soon ask for a larger pool, and for all of these lists once more.
            if not vs_pool_widen(&self.pool, wider):
                return False
            self.room = wider
        self.looked += more
        return more

    cdef int32_t _near_lists(self, Py_ssize_t p) noexcept nogil:
        """How many lists of a part are no farther than its reach times the last hit.

        Where a query is lost, and no edge is seen within the limit, the plan's cap takes its place.
        """
        cdef float edge = self.plan.reach[p] * self.nearest.threshold
        cdef int32_t near, wanted = self.want[p], most = self._at_most(p, <int32_t>self.plan.cap)
        cdef bint lost
        if not edge < INFINITY:
            return 0
        near = self._within(p, edge)
        lost = near >= self.limit[p] and (
            self._from_elsewhere(p) and not self.plan.distant[p] or self._in_hole(p)
        )
        while lost and near >= self.limit[p] < most:
            self.limit[p] = <int32_t>min(<int64_t>self.plan.widen * self.limit[p] + 1, <int64_t>most)
            self.want[p] = self._at_most(p, self.ranked[p] + self.rest[p] + 1)
            if not self._rank(p):
                break
            near = self._within(p, edge)
        self.want[p] = wanted
        return near if lost or not self.plan.distant[p] else 0

    cdef bint _from_elsewhere(self, Py_ssize_t p) noexcept nogil:
        """Whether the query is farther from all lists of a part than hardly any that its plan was measured with."""
        return 0 < self.plan.familiar[p] < self.closest[p]

    cdef bint _strays(self, Py_ssize_t p) noexcept nogil:
        """Whether it is from elsewhere for every part, and has to say so before its lists are fetched.

        What is near to one part finds its hits there, and in the others no more than are planned.
        """
        cdef Py_ssize_t other
        if not self.plan.distant[p] or not self._from_elsewhere(p):
            return False
        for other in range(self.count):
            if 0 < self.closest[other] <= self.plan.familiar[other]:
                return False
        return True

    cdef bint _in_hole(self, Py_ssize_t p) noexcept nogil:
        """Whether so few rows of the lists of its plan are alive that the query must be in a hole."""
        cdef const VsPart *part = self.parts + p
        cdef const int32_t *order = self.order + part.first_list
        cdef int64_t rows = 0, alive = 0, held
        cdef const uint32_t *words
        cdef uint32_t last
        cdef int32_t i, number
        if self.plan.hollow[p] == 0:
            return False
        for i in range(min(self.done[p], max(1, self.plan.probes[p]))):
            number = order[i]
            if <size_t>number + 1 < part.k:  # what the last holds is not told here, and one list decides nothing
                held = part.first_rows[number + 1] - part.first_rows[number]
                words = part.words + part.first_blocks[number]
                rows += held
                alive += vs_bits_set(words, held // 32)
                if held % 32:  # slots beyond the last row say nothing
                    last = words[held // 32] & ((<uint32_t>1 << held % 32) - 1)
                    alive += vs_bits_set(&last, 1)
        return alive < self.plan.hollow[p] * rows

    cdef int32_t _within(self, Py_ssize_t p, float edge) noexcept nogil:
        """How many lists of a part, of those that it may scan, have estimates within an edge."""
        cdef const float *scores = self.scores + self.parts[p].first_list
        cdef int32_t near = self.done[p], ranked = self.ranked[p]
        cdef int32_t within = <int32_t>self.kernels.count_within(scores + ranked, self.rest[p], edge)
        if within and self.plan.direct and ranked + within <= self.limit[p]:  # all that are ranked lie within, too
            return self._take_within(p, edge)
        if within:
            ranked = <int32_t>self._rank_rest(p)
        while near < min(self.limit[p], ranked) and scores[near] <= edge:
            near += 1
        return near

    cdef int32_t _take_within(self, Py_ssize_t p, float edge) noexcept nogil:
        """Put those first of the lists in no order whose estimates are within an edge; how many are ranked then.

        Among them they stay in none: once there is a last hit, a direct scan spares nothing by their order.
        """
        cdef size_t first = self.parts[p].first_list + self.ranked[p], i
        cdef int32_t *order = self.order + first
        cdef float *scores = self.scores + first
        cdef int32_t taken = 0
        for i in range(<size_t>self.rest[p]):
            if scores[i] <= edge:
                order[i], order[taken] = order[taken], order[i]
                scores[i], scores[taken] = scores[taken], scores[i]
                taken += 1
        self.ranked[p] += taken
        self.rest[p] -= taken
        return self.ranked[p]

    cdef int32_t _place_of_hits(self, Py_ssize_t p) noexcept nogil:
        """So many places as a patient query goes, beside the farthest list of a part that held a hit it minds."""
        cdef int32_t low = 0, high = self.ranked[p], middle
        cdef size_t spared = <size_t>(self.plan.spared * self._hits_beyond(p, 0) + 1e-6)
        while low < high:
            middle = low + (high - low) // 2
            if self._hits_beyond(p, middle) <= spared:
                high = middle
            else:
                low = middle + 1
        return <int32_t>min(ceil(self.plan.patience * low), self.limit[p])

    cdef size_t _hits_beyond(self, Py_ssize_t p, int32_t lists) noexcept nogil:
        """How many hits of a part lie beyond so many of its lists."""
        cdef size_t beyond = 0, i
        for i in range(self.nearest.size):
            beyond += self.nearest.hits[i].part == self.parts[p].number and self.nearest.hits[i].place >= lists
        return beyond

    cdef int64_t _choose(self) noexcept nogil:
        """The hits by int8 that their vectors can bring among the nearest; `nearest` takes the others."""
        cdef float last = self.nearest.threshold
        cdef size_t i, near = 0, stored = 0, most
        cdef VsScored *items = self.scored.items
        cdef VsHit *hit
        cdef uint64_t *where
        for i in range(self.scored.size):  # of the others none is a hit, whatever its vector says
            if not items[i].hit.distance - 2 * items[i].bound > last:
                items[near] = items[i]
                stored += self._has_vector(&items[i].hit)
                near += 1
        self.scored.size = near
        most = min(stored, <size_t>self.plan.fp32_cap)
        if not vs_nearest_reserve(&self.chosen, most):
            return VS_NO_MEMORY
        for i in range(near):
            if self._has_vector(&items[i].hit):
                vs_nearest_offer(&self.chosen, &items[i].hit)
        vs_nearest_clear(&self.nearest)
        vs_take_estimates(&self.exact, &self.nearest)
        for i in range(near):
            hit = &items[i].hit
            if not self._has_vector(hit) or most == 0 or vs_hit_less(self.chosen.hits, hit):
                vs_nearest_offer(&self.nearest, hit)
        if self.chosen.size > self.where_room:
            where = <uint64_t *>realloc(self.where, self.chosen.size * sizeof(uint64_t))
            if where == NULL:
                return VS_NO_MEMORY
            self.where = where
            self.where_room = self.chosen.size
        for i in range(self.chosen.size):
            self.where[i] = self._vector(self.chosen.hits + i)
        return DONE

    cdef bint _has_vector(self, const VsHit *hit) noexcept nogil:
        return self.parts[self._place(hit.part)].has_vectors

    cdef uint64_t _vector(self, const VsHit *hit) noexcept nogil:
        """Where the vector of a hit can be read; 0 if it cannot yet."""
        cdef const VsPart *part = self.parts + self._place(hit.part)
        cdef size_t size = self.field.dim * (2 if part.half else 4), page = self.field.page, at = hit.row * size, i
        if part.vectors == 0 or not self.field.resident:
            return 0
        for i in range(at // page, (at + size - 1) // page + 1):
            if not part.pages[i]:
                return 0
        return part.vectors + at

    cdef int64_t _rescore(self) noexcept nogil:
        """The chosen hits by their vectors as given."""
        cdef size_t i
        cdef VsHit hit
        for i in range(self.chosen.size):
            if self.where[i] == 0:
                return NEEDS_VECTORS
        for i in range(min(VECTORS_AHEAD, self.chosen.size)):
            vs_prefetch(<const uint8_t *>self.where[i], 2 * self.field.dim)
        for i in range(self.chosen.size):
            hit = self.chosen.hits[i]
            if i + VECTORS_AHEAD < self.chosen.size:
                vs_prefetch(<const uint8_t *>self.where[i + VECTORS_AHEAD], 2 * self.field.dim)
            hit.distance = vs_exact_distance(
                self.kernels, self.q, <const void *>self.where[i], self.field.dim,
                self.parts[self._place(hit.part)].half, self.field.metric,
            )
            vs_nearest_offer(&self.nearest, &hit)
        self.rescored = self.chosen.size
        self._lap(EXACT)
        return DONE

    cdef void _unscale(self) noexcept nogil:
        """Bring the hits to distances of the query as given: a gain that is no power of two has rounded it."""
        cdef size_t i
        cdef uint64_t where
        cdef VsHit *hit
        for i in range(self.nearest.size):
            hit = self.nearest.hits + i
            where = self._scored_by(hit)
            if where:
                hit.distance = vs_exact_distance(
                    self.kernels, self.given_q, <const void *>where, self.field.dim,
                    self.parts[self._place(hit.part)].half, self.field.metric,
                )
            else:
                hit.distance = <float>(hit.distance / self.gain)
        self.gain = 1

    cdef uint64_t _scored_by(self, const VsHit *hit) noexcept nogil:
        """Where the vector lies by which a hit was scored; 0 if it was scored by int8 or its codes."""
        cdef Py_ssize_t p = self._place(hit.part)
        cdef const VsPart *part = self.parts + p
        cdef size_t i
        if part.lists == NULL and part.has_vectors:
            return (part.vectors if self.field.resident else self.vectors[p]) + hit.row * self.field.dim * (
                2 if part.half else 4)
        if self.plan.kind == 2:
            for i in range(self.chosen.size):
                if self.chosen.hits[i].row == hit.row and self.chosen.hits[i].part == hit.part:
                    return self.where[i]
        return 0

    cdef Py_ssize_t _place(self, int32_t number) noexcept nogil:
        """The position of a part in the field, whose numbers ascend."""
        cdef Py_ssize_t low = 0, high = self.count, middle
        while high - low > 1:
            middle = (low + high) // 2
            if self.parts[middle].number <= number:
                low = middle
            else:
                high = middle
        return low

    cdef void _write(self, uint64_t *ids, float *distances, int32_t *parts, int64_t *rows) noexcept nogil:
        cdef float scale = <float>(1 if self.field.metric == VS_L2 else 0.5 / self.gain), distance
        cdef const VsHit *hit
        cdef size_t i
        for i in range(self.nearest.size):
            hit = self.nearest.hits + i
            vs_id_of(hit, ids + i)
            ids[i] += self.parts[self._place(hit.part)].id_base
            distance = hit.distance * scale
            distances[i] = distance if self.field.metric == VS_DOT or distance > 0 else 0
            parts[i] = hit.part
            rows[i] = hit.row

    # -- below: what is missing --------------------------------------------------------------

    cdef const VsPart *_part(self, int32_t number) except NULL:
        if self.field is None or number not in self.field.places:
            raise ValueError(f"no part {number} is searched")
        return self.parts + <Py_ssize_t>self.field.places[number]

    cdef object _missing_lists(self):
        lists, small = {}, []
        cdef Py_ssize_t p
        cdef const uint64_t *addresses
        cdef const int32_t *order
        cdef int32_t i
        for p in range(self.count):
            if self._readable(p):
                continue
            if self.parts[p].lists == NULL:
                small.append(self.parts[p].number)
                continue
            addresses = self._addresses(p)
            order = self.order + self.parts[p].first_list
            lists[self.parts[p].number] = np.array(
                [order[i] for i in range(self.done[p], self.want[p]) if addresses[order[i]] == 0], dtype=np.int32
            )
        return Missing(lists, small, {})

    cdef object _missing_vectors(self):
        found = {}
        cdef size_t i
        for i in range(self.chosen.size):
            if self.where[i] == 0:
                places, rows = found.setdefault(self.chosen.hits[i].part, ([], []))
                places.append(i)
                rows.append(self.chosen.hits[i].row)
        return {number: (np.array(p, np.int64), np.array(r, np.int64)) for number, (p, r) in found.items()}

    # -- below: time -------------------------------------------------------------------------

    cdef void _start_clock(self) noexcept nogil:
        if self.timed:
            self.clock = _now()

    cdef void _lap(self, int stage) noexcept nogil:
        cdef double now
        if self.timed:
            now = _now()
            self.seconds[stage] += now - self.clock
            self.clock = now


cdef double _now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + 1e-9 * now.tv_nsec


cdef void *_room(void *old, size_t size) except NULL:
    """Scratch of a larger size; `old` is still good if there is no memory."""
    cdef void *new = realloc(old, max(<size_t>1, size))
    if new == NULL:
        raise MemoryError
    return new


cdef double _gain(double own, double length, double square, double along) noexcept nogil:
    """As `vecstore.index.dot.dot_gain`; `along` is the product of query and mean."""
    cdef double gain
    length = min(length, MAX_NORM)
    if own == 0 or length == 0:
        return 1
    gain = ldexp(1, <int>max(-120.0, min(120.0, ceil(log2(length / own)))))
    return min(gain, square / along) if along > 0 else gain
