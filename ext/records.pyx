"""Vectors as a part stores them: rows of unit length, centroids as int8, and whole records.

Kernels of ``part/builder.py``; no query calls them. All release the GIL.
"""

import numpy as np

from libc.math cimport sqrt
from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from vecstore.ext.ivf cimport (
    VS_BLOCK_ROWS,
    VS_HAS_BLOCKS,
    VS_HAS_INT8,
    VS_HAS_U64_IDS,
    VS_HEADER_BYTES,
    VsHeader,
    VsLayout,
    vs_block_bytes,
    vs_layout,
)
from vecstore.ext.rabitq cimport VsInt8Factors, VsKernels, VsSource, active_kernels


cdef extern from "encode.h" nogil:
    float vs_quantise_centroid(const float *centroid, size_t n, int8_t *out)


def unit_rows(const float[:, ::1] x not None, float[:, ::1] out not None) -> None:
    """Each row divided by its norm, in float64, rounded once. A row of zeros gives no numbers.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    cdef Py_ssize_t n = x.shape[0], dim = x.shape[1], i, j, lane
    if out.shape[0] != n or out.shape[1] != dim:
        raise ValueError(f"out has the shape ({out.shape[0]}, {out.shape[1]}), not ({n}, {dim})")
    cdef double sums[8]
    cdef double norm
    cdef const float *row
    cdef float *unit
    if dim == 0:
        return
    with nogil:
        for i in range(n):
            row = &x[i, 0]
            unit = &out[i, 0]
            memset(sums, 0, sizeof(sums))
            for j in range(0, dim - 7, 8):
                for lane in range(8):
                    sums[lane] += <double>row[j + lane] * row[j + lane]
            for j in range(dim - dim % 8, dim):
                sums[0] += <double>row[j] * row[j]
            norm = sqrt(((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7])))
            for j in range(dim):
                unit[j] = <float>(row[j] / norm)


def quantise_centroids(const float[:, ::1] centroids not None) -> tuple:
    """Centroids as one scale and int8 each: ``scale * i8`` *is* the list's centroid.

    The scales have 17 significant bits, so that the products are exact in float32.

    Returns
    -------
    i8[L, Dp], f32[L]
    """
    cdef Py_ssize_t i, lists = centroids.shape[0], padded_dim = centroids.shape[1]
    codes_out = np.empty((lists, padded_dim), dtype=np.int8)
    scales_out = np.empty(lists, dtype=np.float32)
    cdef int8_t[:, ::1] codes = codes_out
    cdef float[::1] scales = scales_out
    if padded_dim > 0:
        with nogil:
            for i in range(lists):
                scales[i] = vs_quantise_centroid(&centroids[i, 0], padded_dim, &codes[i, 0])
    return codes_out, scales_out


def encode_lists(
    const float[:, ::1] rows not None,
    const int64_t[::1] starts not None,
    const int8_t[:, ::1] centroids not None,
    const float[::1] scales not None,
    const float[::1] shift,
    const uint64_t[::1] ids,
    bint codes,
    bint int8,
    const int64_t[::1] offsets not None,
    uint8_t[::1] out not None,
) -> None:
    """Write whole records, one a list.

    Parameters
    ----------
    rows : f32[n, Dp]
        Centred and rotated, in list order.
    starts : i64[L + 1]
        First row of each list; the last is at most n.
    centroids, scales : i8[L, Dp], f32[L]
        As ``quantise_centroids`` gives them.
    shift : f32[n] or None
        Squared norms of the vectors as given, for the dot product.
    ids : u64[n] or None
        None leaves the id area zero, for ids that the caller writes or that need no area.
    codes, int8 : bool
        Whether records have blocks, and int8 rows.
    offsets : i64[L + 1]
        Of each record in `out`, multiples of 64; the bytes between belong to the record and are
        zeroed first.
    out : u8

    Raises
    ------
    ValueError
        If shapes do not agree, numbers descend or lie outside, or a record has no room.
    """
    cdef Py_ssize_t lists = centroids.shape[0], padded_dim = centroids.shape[1], n = rows.shape[0], i, j, row
    if padded_dim < 64 or padded_dim % 64 or rows.shape[1] != padded_dim:
        raise ValueError(f"rows have {rows.shape[1]} and centroids {padded_dim} columns")
    if starts.shape[0] != lists + 1 or offsets.shape[0] != lists + 1 or scales.shape[0] != lists:
        raise ValueError(f"{lists} centroids, {starts.shape[0]} starts, {scales.shape[0]} scales, {offsets.shape[0]} offsets")
    if shift is not None and shift.shape[0] != n:
        raise ValueError(f"shift has {shift.shape[0]} elements, not {n}")
    if ids is not None and ids.shape[0] != n:
        raise ValueError(f"ids has {ids.shape[0]} elements, not {n}")
    if starts[0] < 0 or starts[lists] > n or offsets[0] < 0 or offsets[lists] > out.shape[0]:
        raise ValueError("starts or offsets lie outside their arrays")
    cdef uint32_t area = (VS_HAS_BLOCKS if codes else 0) | (VS_HAS_INT8 if int8 else 0)
    cdef VsLayout at
    cdef size_t needed, block_bytes = vs_block_bytes(padded_dim)
    for i in range(lists):
        if starts[i + 1] < starts[i] or starts[i + 1] - starts[i] > 0x7fffffff:
            raise ValueError(f"list {i} has {starts[i + 1] - starts[i]} rows")
        at = vs_layout(starts[i + 1] - starts[i], padded_dim, area)
        needed = at.ids + (8 * (starts[i + 1] - starts[i]) if ids is not None else 0)
        if offsets[i] % 64 or offsets[i + 1] - offsets[i] < <int64_t>needed:
            raise ValueError(f"record {i} needs {needed} bytes at a multiple of 64, not {offsets[i + 1] - offsets[i]} at {offsets[i]}")
    if lists == 0:
        return
    cdef double *centroid = <double *>malloc(2 * padded_dim * sizeof(double))
    if centroid == NULL:
        raise MemoryError
    cdef const VsKernels *kernels = active_kernels()
    cdef VsSource source
    cdef double squared
    cdef VsHeader header
    cdef VsInt8Factors factors
    cdef uint8_t *record
    source.centroid = centroid
    source.residual = centroid + padded_dim
    source.padded_dim = padded_dim
    source.shift = 0
    with nogil:
        for i in range(lists):
            record = &out[0] + offsets[i]
            memset(record, 0, offsets[i + 1] - offsets[i])
            header.n = <uint32_t>(starts[i + 1] - starts[i])
            header.flags = area | (VS_HAS_U64_IDS if ids is not None else 0)
            header.scale = scales[i]
            squared = 0
            for j in range(padded_dim):
                centroid[j] = <double>scales[i] * centroids[i, j]
                squared += centroid[j] * centroid[j]
            header.squared_norm = <float>squared
            header.padded_dim = <uint32_t>padded_dim
            memcpy(record, &header, sizeof(header))
            memcpy(record + VS_HEADER_BYTES, &centroids[i, 0], padded_dim)
            at = vs_layout(header.n, padded_dim, area)
            for j in range(header.n):
                row = starts[i] + j
                source.row = &rows[row, 0]
                if shift is not None:
                    source.shift = shift[row]
                if codes:
                    kernels.encode_slot(&source, record + at.blocks + j // VS_BLOCK_ROWS * block_bytes,
                                        j % VS_BLOCK_ROWS)
                if int8:
                    kernels.encode_int8(&source, <int8_t *>(record + at.int8 + j * padded_dim), &factors)
                    memcpy(record + at.factors + j * sizeof(factors), &factors, sizeof(factors))
            if ids is not None and header.n > 0:
                memcpy(record + at.ids, &ids[starts[i]], 8 * <size_t>header.n)
        free(centroid)
