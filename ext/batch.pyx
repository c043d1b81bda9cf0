"""Queries that are answered together: lists that several of them probe are read once for all.

Each query keeps a `vecstore.ext.search.Searcher` of its own. Its nearest lists are scanned first, so that
its threshold is low; the others are scanned list by list, `VS_TOGETHER` queries at a time over one load of
the codes. What a pool keeps does not depend on the order of the scan, so the answers are those of single
queries.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from vecstore.ext.field cimport Field, Plan, VsPart
from vecstore.ext.ivf cimport VS_NO_MEMORY, VsPool, refuse, vs_prefetch_record, vs_scan_together
from vecstore.ext.rabitq cimport VsTable
from vecstore.ext.search cimport DONE, Searcher


cdef enum:
    TOGETHER = 4  # VS_TOGETHER of simd/kernels.h
    HEAD = 8  # one list in so many is scanned first, query by query

GROUP = 128  # queries together: their tables and pools fill the L2 cache


# A list that a query wants, and its place among the query's lists.
cdef struct Want:
    int32_t query
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
    cdef uint8_t *active
    cdef int32_t *starts  # of each list's wants
    cdef Want *wants
    cdef size_t start_room, want_room

    def __cinit__(self, Py_ssize_t padded_dim):
        self.padded_dim = padded_dim
        self.searchers = [Searcher(padded_dim) for _ in range(GROUP)]
        self.searcher_of = <void **>malloc(GROUP * sizeof(void *))
        self.active = <uint8_t *>malloc(GROUP)
        if self.searcher_of == NULL or self.active == NULL:
            raise MemoryError
        for i, searcher in enumerate(self.searchers):
            self.searcher_of[i] = <void *>searcher

    def __dealloc__(self):
        free(self.searcher_of)
        free(self.active)
        free(self.starts)
        free(self.wants)

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
        cdef Py_ssize_t m = queries.shape[0], k = plan.top_k, i, p
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
            for i in range(m):
                found = self._start(i, &queries[i, 0])
                if found < 0:
                    break
            if found >= 0:
                for p in range(field.count):
                    if field.parts[p].lists != NULL:
                        found = self._scan_part(field, p, m)
                        if found < 0:
                            break
            if found >= 0:
                for i in range(m):
                    if not self.active[i]:
                        continue
                    found = (<Searcher>self.searcher_of[i])._advance()
                    if found < 0:
                        break
                    self.active[i] = found == DONE
                    if found == DONE:
                        (<Searcher>self.searcher_of[i])._write(
                            &ids[i, 0], &distances[i, 0], &parts[i, 0], &rows[i, 0]
                        )
                        counts[i] = (<Searcher>self.searcher_of[i]).nearest.size
        for i in range(m):
            searcher = self.searchers[i]
            searcher.release()
        refuse(min(found, 0), 0, self.padded_dim)
        return [i for i in range(m) if not self.active[i]]

    cdef int64_t _start(self, Py_ssize_t i, const float *q) noexcept nogil:
        """Rank a query's lists and scan the nearest of them; what is small as well."""
        cdef int64_t found = (<Searcher>self.searcher_of[i])._begin(q)
        cdef Py_ssize_t p
        cdef int32_t want
        if found < 0:
            return found
        found = (<Searcher>self.searcher_of[i])._rank_lists()
        self.active[i] = found == DONE
        if found != DONE:
            return found
        for p in range((<Searcher>self.searcher_of[i]).count):
            if (<Searcher>self.searcher_of[i]).parts[p].lists == NULL:
                continue
            want = (<Searcher>self.searcher_of[i]).want[p]
            (<Searcher>self.searcher_of[i]).want[p] = (want + HEAD - 1) // HEAD
            found = (<Searcher>self.searcher_of[i])._scan_lists(p)
            (<Searcher>self.searcher_of[i]).want[p] = want
            if found < 0:
                return found
        return (<Searcher>self.searcher_of[i])._scan_small()

    cdef int64_t _scan_part(self, Field field, Py_ssize_t p, Py_ssize_t m) noexcept nogil:
        """Scan what the queries still want of a part, list by list."""
        cdef const VsPart *part = field.parts + p
        cdef const VsTable *tables[TOGETHER]
        cdef VsPool *pools[TOGETHER]
        cdef int32_t places[TOGETHER]
        cdef Py_ssize_t i
        cdef int32_t at, number, end, ahead
        cdef int n, j
        cdef int64_t found
        if not self._collect(part, p, m):
            return VS_NO_MEMORY
        for number in range(<int32_t>part.k):
            at = self.starts[number]
            end = self.starts[number + 1]
            if at == end:
                continue
            ahead = number + 1
            while ahead < <int32_t>part.k and self.starts[ahead] == self.starts[ahead + 1]:
                ahead += 1
            if ahead < <int32_t>part.k:
                vs_prefetch_record(<const uint8_t *>part.addresses[ahead])
            while at < end:
                n = min(<int>TOGETHER, end - at)
                for j in range(n):
                    i = self.wants[at + j].query
                    tables[j] = (<Searcher>self.searcher_of[i]).table_of[part.group]
                    pools[j] = &(<Searcher>self.searcher_of[i]).pool
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
        for i in range(m):
            if self.active[i]:
                (<Searcher>self.searcher_of[i]).done[p] = (<Searcher>self.searcher_of[i]).want[p]
        return DONE

    cdef bint _collect(self, const VsPart *part, Py_ssize_t p, Py_ssize_t m) noexcept nogil:
        """Which queries want each list; false if there is no memory."""
        cdef size_t total = 0
        cdef Py_ssize_t i
        cdef int32_t j, number, here, sum = 0
        cdef void *room
        cdef const int32_t *order
        if part.k + 2 > self.start_room:
            room = realloc(self.starts, (part.k + 2) * sizeof(int32_t))
            if room == NULL:
                return False
            self.starts = <int32_t *>room
            self.start_room = part.k + 2
        memset(self.starts, 0, (part.k + 2) * sizeof(int32_t))
        for i in range(m):
            if self.active[i]:
                order = (<Searcher>self.searcher_of[i]).order + part.first_list
                for j in range((<Searcher>self.searcher_of[i]).done[p], (<Searcher>self.searcher_of[i]).want[p]):
                    self.starts[order[j] + 2] += 1
                    total += 1
        if total > self.want_room:
            room = realloc(self.wants, total * sizeof(Want))
            if room == NULL:
                return False
            self.wants = <Want *>room
            self.want_room = total
        for number in range(<int32_t>part.k + 2):
            sum += self.starts[number]
            self.starts[number] = sum
        for i in range(m):
            if self.active[i]:
                order = (<Searcher>self.searcher_of[i]).order + part.first_list
                for j in range((<Searcher>self.searcher_of[i]).done[p], (<Searcher>self.searcher_of[i]).want[p]):
                    here = self.starts[order[j] + 1]
                    self.starts[order[j] + 1] = here + 1
                    self.wants[here].query = <int32_t>i
                    self.wants[here].place = j
        return True
