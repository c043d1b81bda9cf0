"""Rows of a part as bits, by row, or by slot as the scan kernel reads them: a word a block."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


def allow_rows(const uint32_t[::1] rows not None, const int64_t[::1] first_rows not None,
               const int64_t[::1] first_blocks not None, const uint32_t[::1] live not None,
               uint32_t[::1] words not None, uint8_t[::1] empty not None):
    """Set the slots of those rows that are alive.

    Parameters
    ----------
    rows : u32, ascending
    first_rows, first_blocks : i64[K + 1]
        Of each list, and the ends.
    live, words : u32[blocks]
        The slots of live rows; what is written, zero before.
    empty : u8[K]
        What is written of lists that hold none of them is left, of the others set to 0.

    Returns
    -------
    int
        How many rows were alive.

    Raises
    ------
    ValueError
        If shapes do not agree, or a row lies outside the part.
    """
    cdef Py_ssize_t k = first_rows.shape[0] - 1, i, at = 0
    cdef int64_t row, slot, block, count = 0
    cdef uint32_t bit
    if k < 1 or first_blocks.shape[0] != k + 1 or empty.shape[0] != k:
        raise ValueError("tables of lists of different lengths")
    if live.shape[0] != first_blocks[k] or words.shape[0] != first_blocks[k]:
        raise ValueError(f"words are not those of {first_blocks[k]} blocks")
    with nogil:
        for i in range(rows.shape[0]):
            row = rows[i]
            if row < first_rows[at] or row >= first_rows[k]:
                with gil:
                    raise ValueError(f"row {row} lies outside the part, or does not ascend")
            while row >= first_rows[at + 1]:
                at += 1
            slot = row - first_rows[at]
            block = first_blocks[at] + slot // 32
            bit = (<uint32_t>1 << (slot & 31)) & live[block]
            if bit:
                words[block] |= bit
                empty[at] = 0
                count += 1
    return count


def mark_rows(const uint32_t[::1] rows not None, uint8_t[::1] bits not None):
    """Set the bits of rows, in any order; row r is bit r % 8 of byte r // 8. `ValueError` for one beyond them."""
    cdef Py_ssize_t i
    cdef uint32_t row
    cdef uint64_t most = 8 * <uint64_t>bits.shape[0]
    with nogil:
        for i in range(rows.shape[0]):
            row = rows[i]
            if row >= most:
                with gil:
                    raise ValueError(f"row {row} lies beyond {most} bits")
            bits[row >> 3] |= <uint8_t>(1 << (row & 7))
