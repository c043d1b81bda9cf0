"""What a query is asked on, and what is asked.

A `Field` is what a view offers to the kernels: each part's lists, where their records lie, which slots
are allowed. A `Plan` is what is asked of it. Both are shared by the searches of all threads.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from vecstore.ext.ivf cimport Lists, is_half, metric_number, vs_block_count, vs_bytes_ahead

from vecstore.ext.ivf import MAX_CAPACITY


PRECISIONS = ("none", "int8", "fp32")


cdef class Field:
    """The parts of a view. Immutable once searched, but for addresses that are filled in as records are read.

    Parameters
    ----------
    dim : int
    metric : "l2", "dot" or "cosine"
    signs : u8[rounds, Dp // 8]
        Of the rotation, as `vecstore.ext.rabitq.rotate` takes them.
    means : sequence of f32[dim] or None
        What parts are centred on; a group is a number in it.
    page : int
        Bytes of a page of vectors.
    resident : bool
        Whether what was read once stays where it is; else every search is given what it reads.
    dot_length, dot_square : float
    dot_group : int
        By which queries are scaled under the dot product (`vecstore.index.dot.dot_gain`), with the mean of that
        group.

    Attributes
    ----------
    ahead : int
        Bytes of a record that are asked for before it is scanned: more of them where codes are too many for a cache.

    Raises
    ------
    ValueError
        If shapes do not agree.
    """

    def __cinit__(self, Py_ssize_t dim, str metric not None, const uint8_t[:, ::1] signs not None, means,
                  Py_ssize_t page, bint resident, double dot_length=0.0, Py_ssize_t dot_group=0,
                  double dot_square=0.0):
        cdef const float[::1] mean
        self.dim = dim
        self.padded_dim = 8 * signs.shape[1]
        if dim < 1 or self.padded_dim != (dim + 63) // 64 * 64 or signs.shape[0] < 1 or page < 1:
            raise ValueError(f"no field of {dim} dimensions, {self.padded_dim} of signs, in pages of {page} bytes")
        self.metric = metric_number(metric)
        self.signs = signs
        means = list(means)
        self.keep = [means]
        self.made_of = (dim, metric, signs, means, page, resident, dot_length, dot_group, dot_square)
        self.mean_of = <const float **>calloc(max(1, len(means)), sizeof(float *))
        if self.mean_of == NULL:
            raise MemoryError
        for given in means:
            if given is not None:
                mean = given
                if mean.shape[0] != dim:
                    raise ValueError(f"a mean has {mean.shape[0]} elements, not {dim}")
                self.mean_of[self.groups] = &mean[0]
            self.groups += 1
        self.page = page
        self.ahead = vs_bytes_ahead(0, self.padded_dim)
        self.resident = resident
        self.dot_length = dot_length
        self.dot_square = dot_square
        if dot_square:
            if not 0 <= dot_group < self.groups or self.mean_of[dot_group] == NULL:
                raise ValueError(f"no mean {dot_group}")
            self.dot_mean = self.mean_of[dot_group]
        self.places = {}

    def __dealloc__(self):
        free(self.parts)
        free(self.mean_of)

    def __len__(self) -> int:
        return self.count

    cdef VsPart *_append(self, int32_t number, int32_t group, uint64_t id_base, const uint32_t[::1] words) except NULL:
        if self.searched:
            raise ValueError("the field has been searched")
        if group < 0 or group >= self.groups:
            raise ValueError(f"no mean {group}")
        if self.count and number <= self.parts[self.count - 1].number:
            raise ValueError(f"numbers must ascend: {number} after {self.parts[self.count - 1].number}")
        cdef VsPart *parts = <VsPart *>realloc(self.parts, (self.count + 1) * sizeof(VsPart))
        if parts == NULL:
            raise MemoryError
        self.parts = parts
        cdef VsPart *part = parts + self.count
        memset(part, 0, sizeof(VsPart))
        part.number = number
        part.group = group
        part.id_base = id_base
        part.words = &words[0] if words.shape[0] else NULL
        part.word_count = words.shape[0]
        part.first_list = self.lists
        self.places[number] = self.count
        self.count += 1
        return part

    cdef void _count_blocks(self, const VsPart *part) noexcept:
        self.blocks += part.word_count
        self.ahead = vs_bytes_ahead(self.blocks, self.padded_dim)

    def add_coded(
        self,
        int32_t number,
        int32_t group,
        const uint32_t[::1] words not None,
        const float[:, ::1] cells not None,
        const uint32_t[::1] cell_lists not None,
        const uint8_t[::1] codes not None,
        const int64_t[::1] first_rows not None,
        const int64_t[::1] first_blocks not None,
        const uint64_t[::1] addresses,
        Py_ssize_t n,
        str dtype,
        uint64_t vectors=0,
        const uint8_t[::1] pages=None,
        uint64_t id_base=0,
    ) -> None:
        """A part with codes.

        Parameters
        ----------
        number, group : int
            Its number in the view, and that of the mean it was encoded with.
        words : u32
            Allowed slots of each block.
        cells, cell_lists, codes
            As `vecstore.ext.ivf.rank_lists` takes them.
        first_rows, first_blocks : i64[K]
        addresses : u64[K] or None
            Of the records, 0 until one was read; shared with the caller, who fills them in. In a field
            that is not resident those that stay where they are all the same; None: there are none.
        n : int
            Rows.
        dtype : "f4", "f2" or None
            Of the vectors as given; None if there are none.
        vectors : int
            Their address; 0 where every search is given those that it needs.
        pages : u8
            Which of their pages may be read; shared with the caller.
        id_base : int
            Added to stored ids.

        Raises
        ------
        ValueError
            If shapes do not agree.
        """
        cdef Lists lists = Lists(self.padded_dim, cells, cell_lists, codes)
        cdef Py_ssize_t k = lists.k
        if k < 1 or first_rows.shape[0] != k or first_blocks.shape[0] != k:
            raise ValueError(f"tables of different lengths for {k} lists")
        if (self.resident and addresses is None) or (addresses is not None and addresses.shape[0] != k):
            raise ValueError(f"no addresses of {k} lists")
        cdef Py_ssize_t i
        for i in range(k):
            if first_blocks[i] < 0 or first_blocks[i] > words.shape[0]:
                raise ValueError(f"words of list {i} are missing")
        self._check_vectors(n, dtype, vectors, pages)
        cdef VsPart *part = self._append(number, group, id_base, words)
        part.lists = &lists.lists
        part.k = part.holding = k
        part.first_rows = &first_rows[0]
        part.first_blocks = &first_blocks[0]
        part.addresses = &addresses[0] if addresses is not None else NULL
        self._set_vectors(part, n, dtype, vectors, pages)
        self.lists += k
        self.most_cells = max(self.most_cells, lists.lists.cell_count)
        self._count_blocks(part)
        self.keep.append((words, lists, first_rows, first_blocks, addresses, pages))

    def add_small(
        self, int32_t number, int32_t group, const uint32_t[::1] words not None, Py_ssize_t n, str dtype,
        uint64_t id_base=0,
    ) -> None:
        """A part of one list that is scanned exactly: by its vectors, or by int8 if `dtype` is None."""
        if vs_block_count(n) > <size_t>words.shape[0]:
            raise ValueError(f"{words.shape[0]} words do not hold {n} rows")
        self._check_vectors(n, dtype, 0, None)
        self._set_vectors(self._append(number, group, id_base, words), n, dtype, 0, None)
        self.keep.append(words)

    def narrowed(self, allowed):
        """A field of some of the parts with fewer slots allowed; it shares all else with this one.

        Parameters
        ----------
        allowed : sequence of (number, words u32, empty u8[K])
            Of each part that is searched, its number, its words, and 1 for each list without an allowed
            slot, which no search looks at. Numbers ascend.

        Raises
        ------
        ValueError
            If shapes do not agree, or there is no such part.
        """
        cdef Field other = Field(*self.made_of)
        cdef const VsPart *known
        cdef VsPart *part
        cdef const uint32_t[::1] words
        cdef const uint8_t[::1] empty
        cdef size_t first, i
        cdef uint64_t record
        for number, words, empty in allowed:
            if number not in self.places:
                raise ValueError(f"no part {number}")
            known = self.parts + <Py_ssize_t>self.places[number]
            if <size_t>words.shape[0] != known.word_count or (known.lists != NULL and <size_t>empty.shape[0] != known.k):
                raise ValueError(f"other words or lists than those of part {number}")
            part = other._append(number, known.group, known.id_base, words)
            first = part.first_list
            record = vs_published(&known.record)  # before the address of its vectors, which was written first
            part[0] = known[0]
            part.record = record
            part.words = &words[0] if words.shape[0] else NULL
            part.first_list = first
            if known.lists != NULL:
                part.empty = &empty[0]
                for i in range(known.k):
                    part.holding -= empty[i] != 0
                other.lists += known.k
                other.most_cells = max(other.most_cells, known.lists.cell_count)
                other._count_blocks(part)
            other.keep.append((words, empty))
        other.keep.append(self)
        return other

    def place_small(self, int32_t number, uint64_t record, uint64_t vectors) -> None:
        """Where the record of a small part lies, and its vectors; for a resident field."""
        cdef VsPart *part
        if number not in self.places or self.parts[<Py_ssize_t>self.places[number]].lists != NULL:
            raise ValueError(f"no small part {number}")
        part = self.parts + <Py_ssize_t>self.places[number]
        part.vectors = vectors
        vs_publish(&part.record, record)  # last: it says that both can be read

    def _check_vectors(self, Py_ssize_t n, str dtype, uint64_t vectors, const uint8_t[::1] pages) -> None:
        if n < 1:
            raise ValueError(f"a part has at least one row, not {n}")
        if dtype is None:
            if vectors:
                raise ValueError("an address of no vectors")
            return
        cdef size_t size = n * self.dim * (2 if is_half(dtype) else 4)
        if vectors and (pages is None or <size_t>pages.shape[0] * self.page < size):
            raise ValueError(f"pages of {self.page} bytes do not hold {size}")

    cdef int _set_vectors(self, VsPart *part, Py_ssize_t n, str dtype, uint64_t vectors, const uint8_t[::1] pages) except -1:
        part.n = n
        part.has_vectors = dtype is not None
        part.half = is_half(dtype) if dtype is not None else 0
        part.vectors = vectors
        part.pages = &pages[0] if vectors else NULL
        return 0


cdef class Plan:
    """What is asked of a field.

    Parameters
    ----------
    top_k, pool : int
        Hits, and candidates that the scan keeps.
    most : int
        Live rows of the view: a pool has no more room.
    alive : int
        Rows that an answer can have.
    precision : "none", "int8" or "fp32"
    fp32_cap : int
        Rows that are scored by their vectors as given, at most.
    probes, limits : i32[len(field)]
        Lists to scan in each part, in the order they were added, and how many a query may scan for a
        second look.
    hollow : f32[len(field)], optional
        The share of live rows in the lists of ``probes`` below which a query is in a hole of dead ones:
        if all of ``limits`` are near it may scan ``cap`` lists. By default none is.
    familiar : f32[len(field)], optional
        The squared distance of the nearest list beyond which a query is from elsewhere, and may scan ``cap`` lists
        likewise; 0, as by default: no query is.
    cap : int, optional
        Lists of a part that no query exceeds.
    distant : u8[len(field)], optional
        Whether a query goes on to near lists only in a hole, and one from elsewhere scans ``widen`` times
        ``probes`` at once. By default no.
    reach : f32[len(field)]
        Lists are scanned that are no farther than this times the last hit (squared distances); 0: see
        the next.
    patience : float
        Lists that are scanned, in places of the farthest list that held a hit; 0: as many as planned.
    spared : float
        Of a part's hits, the share of the farthest that `patience` does not look at.
    margin : float
        Bounds of an estimate that the pool must end beyond the last hit; 0: however it ends.
    widen : int
        By how much a pool that was too small is widened.
    looks : int
        Second looks at most.
    direct : bool
        Whether rows are scored by int8 as they are scanned, rather than from a pool.
    width : float
        Then: bounds of an estimate by which a row may be nearer than it says.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(self, *, top_k, pool, most, alive, precision, fp32_cap, probes, limits, reach, patience, margin, widen, looks, spared=0.0, direct=False, width=1.0, hollow=None, familiar=None, cap=MAX_CAPACITY, distant=None) -> None:
        if (
            not 1 <= top_k <= MAX_CAPACITY or pool < top_k or not 1 <= most <= MAX_CAPACITY or alive < 0
            or fp32_cap < 0 or not 1 <= cap <= MAX_CAPACITY or not 2 <= widen <= MAX_CAPACITY or looks < 0
            or not 0.0 <= spared <= 1.0 or not 0.0 <= width <= 1e3
        ):
            raise ValueError("a plan is out of range")
        self.top_k = top_k
        self.pool = min(pool, most)
        self.most = most
        self.alive = alive
        self.precision = precision
        self.kind = PRECISIONS.index(precision)
        self.fp32_cap = fp32_cap
        self.probes = probes
        self.limits = limits
        none = memoryview(bytes(4 * len(limits))).cast("f")
        self.hollow = none if hollow is None else hollow
        self.familiar = none if familiar is None else familiar
        self.cap = cap
        self.distant = memoryview(bytes(len(limits))) if distant is None else distant
        self.reach = reach
        self.patience = patience
        self.spared = spared
        self.margin = margin
        self.widen = widen
        self.looks = looks
        self.direct = direct and self.kind != 0
        self.width = width
