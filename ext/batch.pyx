"""Queries that are answered together: lists that several of them probe are read once for all.

Each query keeps a `vecstore.ext.search.Searcher` of its own, and all go through the stages side by side:

    begin -> rank -> nearest lists, query by query, so that thresholds are low
          -> the other lists, list by list, `VS_TOGETHER` queries at a time over one load of the codes
          -> int8 rows, as they lie in memory -> hits, or once more for those that look again

What a pool keeps does not depend on the order of the scan, and a row's distance not on when it is worked
out, so the answers are those of single queries (docs/decisions/0009, 0015).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from vecstore.ext.field cimport Field, Plan, VsPart
from vecstore.ext.ivf cimport VS_NO_MEMORY, VsAsked, VsPool, refuse, vs_prefetch_ahead, vs_scan_together, vs_score_asked
from vecstore.ext.rabitq cimport VsRanked, VsTable
from vecstore.ext.search cimport ANSWERED, DONE, RERANK, SCAN, Searcher


cdef enum:
    TOGETHER = 4  # VS_TOGETHER of simd/kernels.h
    MOST_FORESEEN = 1 << 16  # candidates of all queries
    HEAD = 8  # one list in so many is scanned first, query by query

GROUP = 32


# A list that a query wants, and its place among the query's lists.
cdef struct Want:
    int32_t query
    int32_t list
    int32_t place


cdef class Batch:
    """The scratch of up to `GROUP` queries at a time. Not to be used by two threads at once.

    Parameters
    ----------
    padded_dim : int
    """

    cdef readonly Py_ssize_t padded_dim
    cdef list searchers
    cdef void **searcher_of
    cdef int32_t *left  # the queries that go on
    cdef Py_ssize_t left_count
    cdef size_t *ends  # of each list's wants
    cdef Want *wants
    cdef VsAsked *asked  # rows of all queries, the distances of their candidates, and scratch of sorting
    cdef float *known
    cdef VsRanked *order
    cdef size_t asked_room
    cdef size_t end_room, want_room, want_count

    def __cinit__(self, Py_ssize_t padded_dim):
        self.padded_dim = padded_dim
        self.searchers = [Searcher(padded_dim) for _ in range(GROUP)]
        self.searcher_of = <void **>malloc(GROUP * sizeof(void *))
        self.left = <int32_t *>malloc(GROUP * sizeof(int32_t))
        if self.searcher_of == NULL or self.left == NULL:
            raise MemoryError
        for i, searcher in enumerate(self.searchers):
            self.searcher_of[i] = <void *>searcher

    def __dealloc__(self):
        free(self.searcher_of)
        free(self.left)
        free(self.ends)
        free(self.wants)
        free(self.asked)
        free(self.known)
        free(self.order)

    def run(
        self,
        Field field not None,
        Plan plan not None,
        const float[:, ::1] queries not None,
        uint64_t[:, ::1] ids not None,
        float[:, ::1] distances not None,
        int32_t[:, ::1] parts not None,
        int64_t[:, ::1] rows not None,
        int64_t[::1] counts not None,
    ):
        """Answer up to `GROUP` queries on a resident field.

        Parameters
        ----------
        queries : f32[M, dim]
            As given, of norms that the metric allows.
        ids, distances, parts, rows : [M, top_k]
            Written as `Searcher.hits` gives them; what is beyond a query's hits is left.
        counts : i64[M]

        Returns
        -------
        list of int
            Queries that are not answered, because they need something that was not read yet.

        Raises
        ------
        ValueError
            If shapes do not agree, or the field is not resident.
        """
        cdef Py_ssize_t m = queries.shape[0], k = plan.top_k, i
        cdef int64_t found = DONE
        cdef Searcher searcher
        if not field.resident or m > GROUP or queries.shape[1] != field.dim:
            raise ValueError(f"no batch of {m} queries of {queries.shape[1]} dimensions on this field")
        if (
            ids.shape[0] != m or distances.shape[0] != m or parts.shape[0] != m or rows.shape[0] != m
            or ids.shape[1] != k or distances.shape[1] != k or parts.shape[1] != k or rows.shape[1] != k
            or counts.shape[0] != m
        ):
            raise ValueError(f"the answer has no room for {k} hits of {m} queries")
        for i in range(m):
            searcher = self.searchers[i]
            searcher._take(field, plan)
            searcher.timed = False
        with nogil:
            found = self._begin(queries)
            while found == DONE and self.left_count:
                found = self._scan(field, plan)
                if found == DONE:
                    found = self._settle(plan)
        left = []
        for i in range(m):
            searcher = self.searchers[i]
            if found == DONE and searcher.stage == ANSWERED:
                searcher._write(&ids[i, 0], &distances[i, 0], &parts[i, 0], &rows[i, 0])
                counts[i] = searcher.nearest.size
            else:
                left.append(i)
            searcher.release()
        refuse(min(found, 0), 0, self.padded_dim)
        return left

    cdef int64_t _begin(self, const float[:, ::1] queries) noexcept nogil:
        """Take all queries."""
        cdef Py_ssize_t i
        cdef int64_t found
        self.left_count = queries.shape[0]
        for i in range(self.left_count):
            self.left[i] = <int32_t>i
            found = (<Searcher>self.searcher_of[i])._begin(&queries[i, 0])
            if found != DONE:
                return found
        return DONE

    cdef int64_t _scan(self, Field field, Plan plan) noexcept nogil:
        """Scan what the queries want; those that miss something do not go on."""
        cdef Py_ssize_t i, p, kept = 0
        cdef int64_t found
        for i in range(self.left_count):
            found = (<Searcher>self.searcher_of[self.left[i]])._rank_lists()
            if found < 0:
                return found
            if found == DONE:
                self.left[kept] = self.left[i]
                kept += 1
        self.left_count = kept
        if plan.direct:  # each by thresholds of its own, so that there is little to share
            for i in range(self.left_count):
                found = (<Searcher>self.searcher_of[self.left[i]])._scan_wanted()
                if found != DONE:
                    return found
            return DONE
        for i in range(self.left_count):
            found = (<Searcher>self.searcher_of[self.left[i]])._scan_nearest(HEAD)
            if found != DONE:
                return found
        for p in range(field.count):
            if field.parts[p].lists != NULL:
                found = self._scan_part(field.parts + p, p, field.ahead)
                if found != DONE:
                    return found
        for i in range(self.left_count):
            found = (<Searcher>self.searcher_of[self.left[i]])._scan_small()
            if found != DONE:
                return found
        return DONE

    cdef int64_t _settle(self, Plan plan) noexcept nogil:
        """Bring the queries to their hits; those that are to scan more go on."""
        cdef Py_ssize_t i, kept = 0
        cdef int64_t found
        if plan.kind != 0 and not plan.direct and not self._foresee():
            return VS_NO_MEMORY
        for i in range(self.left_count):
            (<Searcher>self.searcher_of[self.left[i]]).stage = RERANK
            found = (<Searcher>self.searcher_of[self.left[i]])._settle()
            (<Searcher>self.searcher_of[self.left[i]]).known = NULL
            if found < 0:
                return found
            if (<Searcher>self.searcher_of[self.left[i]]).stage == SCAN:
                self.left[kept] = self.left[i]
                kept += 1
        self.left_count = kept
        return DONE

    cdef bint _foresee(self) noexcept nogil:
        """Score the rows that re-ranking will ask for, as they lie in memory; false without memory."""
        cdef size_t total = 0, asked = 0
        cdef Py_ssize_t i
        for i in range(self.left_count):
            total += (<Searcher>self.searcher_of[self.left[i]])._order()
        if total == 0 or total > MOST_FORESEEN:
            return True
        if total > self.asked_room:
            free(self.asked)
            free(self.known)
            free(self.order)
            self.asked_room = 0
            self.asked = <VsAsked *>malloc(total * sizeof(VsAsked))
            self.known = <float *>malloc(total * sizeof(float))
            self.order = <VsRanked *>malloc(2 * total * sizeof(VsRanked))
            if self.asked == NULL or self.known == NULL or self.order == NULL:
                return False
            self.asked_room = total
        total = 0
        for i in range(self.left_count):
            asked += (<Searcher>self.searcher_of[self.left[i]])._foresee(self.known + total, self.asked + asked)
            total += (<Searcher>self.searcher_of[self.left[i]]).candidate_count
        vs_score_asked((<Searcher>self.searcher_of[0]).kernels, self.asked, asked, self.order)
        return True

    cdef int64_t _scan_part(self, const VsPart *part, Py_ssize_t p, size_t ahead) noexcept nogil:
        """Scan what the queries still want of a part, list by list."""
        cdef const VsTable *tables[TOGETHER]
        cdef VsPool *pools[TOGETHER]
        cdef int32_t places[TOGETHER]
        cdef size_t at, end
        cdef int32_t number
        cdef int n, j
        cdef int64_t found
        if not self._collect(part, p):
            return VS_NO_MEMORY
        at = 0
        while at < self.want_count:
            number = self.wants[at].list
            end = self.ends[number]
            if end < self.want_count:
                vs_prefetch_ahead(<const uint8_t *>part.addresses[self.wants[end].list], ahead)
            while at < end:
                n = <int>min(<size_t>TOGETHER, end - at)
                for j in range(n):
                    tables[j] = (<Searcher>self.searcher_of[self.wants[at + j].query]).table_of[part.group]
                    pools[j] = &(<Searcher>self.searcher_of[self.wants[at + j].query]).pool
                    places[j] = self.wants[at + j].place
                found = vs_scan_together(
                    (<Searcher>self.searcher_of[0]).kernels, tables, pools, n,
                    <const uint8_t *>part.addresses[number], part.first_rows[number],
                    part.words + part.first_blocks[number], part.word_count - part.first_blocks[number],
                    part.number, places,
                )
                if found < 0:
                    return found
                for j in range(n):
                    (<Searcher>self.searcher_of[self.wants[at + j].query])._count(found)
                at += n
        return DONE

    cdef bint _collect(self, const VsPart *part, Py_ssize_t p) noexcept nogil:
        """The lists that queries want, by list; they count as done. False without memory."""
        cdef size_t sum = 0, here, i
        cdef Py_ssize_t at
        cdef int32_t j, done, want
        cdef void *room
        cdef const int32_t *order
        if part.k > self.end_room:
            room = realloc(self.ends, part.k * sizeof(size_t))
            if room == NULL:
                return False
            self.ends = <size_t *>room
            self.end_room = part.k
        memset(self.ends, 0, part.k * sizeof(size_t))
        for at in range(self.left_count):
            order = (<Searcher>self.searcher_of[self.left[at]]).order + part.first_list
            done = (<Searcher>self.searcher_of[self.left[at]]).done[p]
            want = (<Searcher>self.searcher_of[self.left[at]]).want[p]
            for j in range(done, want):
                self.ends[order[j]] += 1
        for i in range(part.k):
            here = self.ends[i]
            self.ends[i] = sum
            sum += here
        self.want_count = sum
        if sum > self.want_room:
            room = realloc(self.wants, sum * sizeof(Want))
            if room == NULL:
                return False
            self.wants = <Want *>room
            self.want_room = sum
        for at in range(self.left_count):
            order = (<Searcher>self.searcher_of[self.left[at]]).order + part.first_list
            done = (<Searcher>self.searcher_of[self.left[at]]).done[p]
            want = (<Searcher>self.searcher_of[self.left[at]]).want[p]
            for j in range(done, want):
                here = self.ends[order[j]]
                self.ends[order[j]] = here + 1
                self.wants[here].query = self.left[at]
                self.wants[here].list = order[j]
                self.wants[here].place = j
            (<Searcher>self.searcher_of[self.left[at]]).done[p] = max(done, want)
        return True
