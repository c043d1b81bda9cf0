"""RaBitQ: rotation, 1-bit codes, the look-up table of a query, and the estimate of a distance.

Gao & Long, *RaBitQ* (SIGMOD 2024). The layout of a block is docs/formats/part.md. Every function
gives the same bits on every processor: see ``ext/simd/kernels.h`` for the order of float sums.
"""

import os

import numpy as np

cimport numpy as cnp
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset


cdef extern from "simd/dispatch.h" nogil:
    const VsKernels *vs_variants
    int vs_variant_count()
    int vs_supported(const VsKernels *variant)


cdef extern from *:
    """
    #ifdef __clang__
    #define VS_COMPILER __VERSION__ /* begins with its name */
    #else
    #define VS_COMPILER "GCC " __VERSION__
    #endif
    """
    const char *VS_COMPILER


cdef extern from "fine.h" nogil:
    uint32_t vs_score_block(const VsKernels *kernels, const VsTable *table, const uint8_t *block, uint32_t slots,
                            float g_add, float limit, float *estimates)


cdef extern from "record.h" nogil:
    size_t vs_block_count(size_t n)
    size_t vs_block_bytes(size_t padded_dim)
    uint32_t vs_first_slots(size_t n)


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


cdef enum:
    BLOCK_ROWS = 32


cnp.import_array()

MAX_PADDED_DIM = 4096

cdef const VsKernels *_active = NULL


cdef const VsKernels *active_kernels() noexcept nogil:
    return _active


def compiler() -> str:
    """What compiled this module, with its version."""
    return VS_COMPILER.decode().strip()


def simd_compiled() -> tuple:
    """Names of the variants that the build holds, the plainest first."""
    return tuple([vs_variants[i].name.decode() for i in range(vs_variant_count())])


def simd_available() -> tuple:
    """Names of the variants that this processor can run, the plainest first."""
    cdef int i
    names = []
    for i in range(vs_variant_count()):
        if vs_supported(&vs_variants[i]):
            names.append(vs_variants[i].name.decode())
    return tuple(names)


def simd() -> str:
    """Name of the variant in use by all extension modules of this process."""
    return _active.name.decode()


def use_simd(name: str) -> None:
    """Use the variant `name` from now on, in all threads.

    Meant for tests and measurements; set ``VECSTORE_SIMD`` to choose for a whole process.

    Raises
    ------
    ValueError
        If there is no such variant, or this processor cannot run it.
    """
    global _active
    cdef int i
    for i in range(vs_variant_count()):
        if vs_variants[i].name.decode() == name and vs_supported(&vs_variants[i]):
            _active = &vs_variants[i]
            return
    raise ValueError(f"no SIMD variant {name!r} on this processor; available: {', '.join(simd_available())}")


cdef int _require_padded(Py_ssize_t padded_dim) except -1:
    if padded_dim < 64 or padded_dim % 64 or padded_dim > MAX_PADDED_DIM:
        raise ValueError(f"padded_dim must be a multiple of 64 from 64 to {MAX_PADDED_DIM}, not {padded_dim}")
    return 0


def is_sound(x, Py_ssize_t n, double least, double most) -> bool:
    """Whether ``x`` is f32[n], C-contiguous, whose squared norm is finite and from ``least`` to ``most``."""
    cdef const float *row = as_row(x, n)
    return row != NULL and least <= _active.dot(row, row, n) <= most


def are_sound(x, Py_ssize_t n, double least, double most) -> bool:
    """As `is_sound`, of every row of f32[m, n]."""
    if not is_carray(x, 2) or cnp.PyArray_DIM(x, 1) != n:
        return False
    cdef const float *rows = <const float *>cnp.PyArray_DATA(x)
    cdef Py_ssize_t m = cnp.PyArray_DIM(x, 0), i
    cdef bint sound = True
    with nogil:
        for i in range(m):
            if not least <= _active.dot(rows + i * n, rows + i * n, n) <= most:
                sound = False
                break
    return sound


cdef const float *as_row(x, Py_ssize_t n) noexcept:
    """The elements of a C-contiguous f32[n]; NULL if it is none. A memoryview would cost half a microsecond."""
    return <const float *>cnp.PyArray_DATA(x) if is_carray(x, 1) and cnp.PyArray_DIM(x, 0) == n else NULL


cdef bint is_carray(x, int dims) noexcept:
    """Whether ``x`` is a C-contiguous array of f32 of so many dimensions."""
    if not cnp.PyArray_CheckExact(x):
        return False
    cdef cnp.ndarray array = x
    return (
        cnp.PyArray_NDIM(array) == dims
        and cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT32
        and cnp.PyArray_ISCARRAY_RO(array)
    )


def rotate(
    const float[:, ::1] x not None,
    const float[::1] mean,
    const uint8_t[:, ::1] signs not None,
    float[:, ::1] out not None,
) -> None:
    """Centre, zero-pad and rotate vectors by the Fast-Hadamard-Kac walk.

    Each round flips signs, applies a normalised fast Hadamard transform to the largest power of two
    of dimensions (the first of them in even rounds, the last in odd ones) and, unless that is all
    of them, takes every pair (x_i, x_{i + Dp/2}) to ((a + b) / sqrt 2, (a - b) / sqrt 2). As in
    RaBitQ-Library's ``FhtKacRotator``.

    Parameters
    ----------
    x : f32[n, D]
    mean : f32[D] or None
        Subtracted first.
    signs : u8[rounds, Dp // 8]
        Bit ``i % 8`` of byte ``i // 8`` flips dimension ``i``.
    out : f32[n, Dp]
        Dp is D rounded up to a multiple of 64. Must not overlap `x`.

    Raises
    ------
    ValueError
        If shapes do not agree, or an array is not contiguous or of another dtype.
    """
    cdef Py_ssize_t n = x.shape[0], dim = x.shape[1], padded_dim = out.shape[1], i, j
    cdef size_t rounds = <size_t>signs.shape[0]
    _require_padded(padded_dim)
    if dim < 1 or padded_dim != (dim + 63) // 64 * 64:
        raise ValueError(f"out has {padded_dim} columns, not {dim} rounded up to a multiple of 64")
    if out.shape[0] != n:
        raise ValueError(f"out has {out.shape[0]} rows, not {n}")
    if mean is not None and mean.shape[0] != dim:
        raise ValueError(f"mean has {mean.shape[0]} elements, not {dim}")
    if signs.shape[0] < 1 or signs.shape[1] != padded_dim // 8:
        raise ValueError(f"signs has the shape ({signs.shape[0]}, {signs.shape[1]}), not (rounds, {padded_dim // 8})")
    cdef const float *centre = &mean[0] if mean is not None else NULL
    cdef const float *row
    cdef float *v
    cdef const VsKernels *kernels = _active
    if n == 0:
        return
    with nogil:
        for i in range(n):
            row = &x[i, 0]
            v = &out[i, 0]
            if centre != NULL:
                for j in range(dim):
                    v[j] = row[j] - centre[j]
            else:
                memcpy(v, row, dim * sizeof(float))
            memset(v + dim, 0, (padded_dim - dim) * sizeof(float))
            kernels.rotate(v, padded_dim, &signs[0, 0], rounds)


def encode_rabitq(
    const float[:, ::1] rows not None,
    const float[::1] centroid not None,
    const float[::1] shift=None,
):
    """Encode the rows of one list into blocks of 32.

    Parameters
    ----------
    rows : f32[n, Dp]
        Centred and rotated.
    centroid : f32[Dp]
        Of the list, in the same space.
    shift : f32[n] or None
        Squared norms of the vectors as given, for the dot product; None means zeros.

    Returns
    -------
    u8[ceil(n / 32) * (4 Dp + 384)]
        Blocks as in docs/formats/part.md; factors are computed in float64 and rounded once
        (*RaBitQ*, sections 3.1 to 3.3).

    Raises
    ------
    ValueError
        If shapes do not agree, or Dp is not a multiple of 64.
    """
    cdef Py_ssize_t n = rows.shape[0], padded_dim = rows.shape[1], i
    cdef VsSource source
    _require_padded(padded_dim)
    if centroid.shape[0] != padded_dim:
        raise ValueError(f"centroid has {centroid.shape[0]} elements, not {padded_dim}")
    if shift is not None and shift.shape[0] != n:
        raise ValueError(f"shift has {shift.shape[0]} elements, not {n}")
    cdef size_t block_bytes = vs_block_bytes(padded_dim)
    out = np.zeros(vs_block_count(n) * block_bytes, dtype=np.uint8)
    cdef uint8_t[::1] blocks = out
    if n == 0:
        return out
    cdef double *scratch = <double *>malloc(2 * padded_dim * sizeof(double))
    if scratch == NULL:
        raise MemoryError
    source.centroid = scratch
    source.residual = scratch + padded_dim
    source.padded_dim = padded_dim
    with nogil:
        for i in range(padded_dim):
            scratch[i] = centroid[i]
        for i in range(n):
            source.row = &rows[i, 0]
            source.shift = shift[i] if shift is not None else 0.0
            _active.encode_slot(&source, &blocks[i // BLOCK_ROWS * block_bytes], i % BLOCK_ROWS)
        free(scratch)
    return out


cdef class QueryTable:
    """A query's look-up table and the scratch of one thread, reused from query to query.

    One table serves every list of every part of a namespace, because centroids are folded into the
    codes' factors. Not to be used by two threads at once.

    Parameters
    ----------
    padded_dim : int
        A multiple of 64, at most 4,096 (sums of 1,024 entries of a byte fit in 16 bits).
    """

    def __cinit__(self, Py_ssize_t padded_dim):
        _require_padded(padded_dim)
        self.table.z = <float *>aligned_alloc(64, padded_dim * sizeof(float))
        self.table.whole = <int16_t *>aligned_alloc(64, padded_dim * sizeof(int16_t))
        self.table.lut = <uint8_t *>aligned_alloc(64, 8 * padded_dim)
        if self.table.z == NULL or self.table.whole == NULL or self.table.lut == NULL:
            raise MemoryError
        self.table.rest = self.table.lut + 4 * padded_dim
        self.table.padded_dim = padded_dim

    def __dealloc__(self):
        free(self.table.z)
        free(self.table.whole)
        free(self.table.lut)

    cdef int require(self) except -1:
        if not self.prepared:
            raise ValueError("the query table is not prepared")
        return 0

    def prepare(self, const float[::1] z not None, float q_shift=0.0) -> None:
        """Take a query: copy it and build its look-up table.

        Groups of four dimensions, 16 entries each, in steps of one width for all groups, each
        group's minimum folded into the bias: ``sum_i s_i z_i ~ scale * sum of entries + bias``,
        off by at most a step a group. The step is as small as can be while of any 32 groups, from
        a multiple of 32 on, the eight that lie four apart add up to 127 at most.

        Parameters
        ----------
        z : f32[Dp]
            Centred and rotated.
        q_shift : float
            Squared norm of the query as given, for the dot product; 0 otherwise.

        Raises
        ------
        ValueError
            If `z` has another length than ``padded_dim``.
        """
        if <size_t>z.shape[0] != self.table.padded_dim:
            raise ValueError(f"z has {z.shape[0]} elements, not {self.table.padded_dim}")
        with nogil:
            memcpy(self.table.z, &z[0], self.table.padded_dim * sizeof(float))
            self.table.q_shift = q_shift
            _active.build_table(&self.table)
            self.table.fine = 0
        self.prepared = True

    def take(
        self,
        const float[::1] q not None,
        const float[::1] mean,
        const uint8_t[:, ::1] signs not None,
        float q_shift=0.0,
    ) -> None:
        """`rotate` one query and `prepare` it, in one call.

        Parameters
        ----------
        q : f32[D]
        mean : f32[D] or None
        signs : u8[rounds, Dp // 8]
        q_shift : float

        Raises
        ------
        ValueError
            If shapes do not agree.
        """
        cdef size_t padded_dim = self.table.padded_dim, dim = <size_t>q.shape[0]
        if dim < 1 or padded_dim != (dim + 63) // 64 * 64:
            raise ValueError(f"{dim} dimensions are not {padded_dim} when rounded up to a multiple of 64")
        if mean is not None and <size_t>mean.shape[0] != dim:
            raise ValueError(f"mean has {mean.shape[0]} elements, not {dim}")
        if signs.shape[0] < 1 or <size_t>signs.shape[1] != padded_dim // 8:
            raise ValueError(f"signs has the shape ({signs.shape[0]}, {signs.shape[1]}), not (rounds, {padded_dim // 8})")
        cdef const float *centre = &mean[0] if mean is not None else NULL
        with nogil:
            vs_load_query(_active, &self.table, &q[0], dim, centre, &signs[0, 0], signs.shape[0], q_shift)
        self.prepared = True

    @property
    def fine(self) -> bool:
        """Whether a ranking found the query so far out that blocks are looked up by a finer table too."""
        return self.table.fine != 0

    @property
    def padded_dim(self) -> int:
        """Dimensions of the rotated space."""
        return self.table.padded_dim

    @property
    def scale(self) -> float:
        """Width of one step of the table."""
        self.require()
        return self.table.scale

    @property
    def bias(self) -> float:
        """Sum of the groups' minima, so that the mean of estimates over all codes is right."""
        self.require()
        return self.table.bias

    @property
    def squared_norm(self) -> float:
        """Squared norm of the centred, rotated query."""
        self.require()
        return self.table.squared_norm

    @property
    def q_shift(self) -> float:
        """What ``prepare`` was given."""
        self.require()
        return self.table.q_shift

    def entries(self):
        """A copy of the table's entries: u8[Dp // 4, 16], each 0 to 127."""
        self.require()
        out = np.empty((self.table.padded_dim // 4, 16), dtype=np.uint8)
        cdef uint8_t[:, ::1] view = out
        memcpy(&view[0, 0], self.table.lut, 4 * self.table.padded_dim)
        return out


def score_with_rabitq(
    QueryTable table not None,
    const uint8_t[::1] blocks not None,
    Py_ssize_t n,
    float g_add,
    float g_error,
) -> tuple:
    """Estimate the distances of the first `n` rows of one list's blocks.

    Parameters
    ----------
    table : QueryTable
        Prepared.
    blocks : u8[>= ceil(n / 32) * (4 Dp + 384)]
        As ``encode_rabitq`` gives them.
    n : int
    g_add : float
        ``||z - c||^2 - q_shift`` of the list's centroid c.
    g_error : float
        ``||z - c||``.

    Returns
    -------
    estimate, bound : f32[n], f32[n]
        The distance is within `bound` of `estimate` for almost all rows (epsilon_0 = 1.9;
        *RaBitQ*, sections 3.2.2 and 3.3), but for the rounding of the table.

    Raises
    ------
    ValueError
        If the table is not prepared, or the blocks are fewer than `n` rows need.
    """
    table.require()
    cdef size_t block_bytes = vs_block_bytes(table.table.padded_dim)
    if n < 0 or <size_t>blocks.shape[0] < vs_block_count(n) * block_bytes:
        raise ValueError(f"{blocks.shape[0]} bytes of blocks do not hold {n} rows")
    estimate_out = np.empty(n, dtype=np.float32)
    bound_out = np.empty(n, dtype=np.float32)
    cdef float[::1] estimate = estimate_out, bound = bound_out
    cdef float scores[BLOCK_ROWS]
    cdef const float *errors
    cdef Py_ssize_t start, i
    cdef const uint8_t *block
    with nogil:
        start = 0
        while start < n:
            block = &blocks[start // BLOCK_ROWS * block_bytes]
            errors = <const float *>(block + 4 * table.table.padded_dim) + 2 * BLOCK_ROWS
            vs_score_block(_active, &table.table, block, vs_first_slots(n - start), g_add, 0.0, scores)
            for i in range(min(n - start, BLOCK_ROWS)):
                estimate[start + i] = scores[i]
                bound[start + i] = errors[i] * g_error
            start += BLOCK_ROWS
    return estimate_out, bound_out


def _choose() -> None:
    wanted = os.environ.get("VECSTORE_SIMD", "")
    available = simd_available()
    if wanted and wanted not in available:
        raise ImportError(
            f"VECSTORE_SIMD={wanted!r} is not available on this processor; choose from: {', '.join(available)}"
        )
    use_simd(wanted or list(available).pop())


_choose()
