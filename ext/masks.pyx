"""Rows of a part as bits: a word of 64 rows, or by slot as the scan kernel reads them, a word a block.

Row r is bit r % 64 of word r // 64; bits beyond the last row are 0.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    /* The lowest bits of eight bytes, each 0 or 1. */
    static inline uint64_t vs_bits_of(const uint8_t *flags) {
        uint64_t eight;
        memcpy(&eight, flags, 8);
        return eight * 0x0102040810204080u >> 56;
    }
    #define VS_BETWEEN(type)                                                                       \\
        static inline void vs_between_##type(const uint8_t *data, size_t n, uint64_t low, uint64_t span, \\
                                             uint8_t *flags) {                                     \\
            type values[64];                                                                       \\
            const type first = (type)low, width = (type)span;                                      \\
            memcpy(values, data, n * sizeof(type));                                                \\
            for (size_t i = 0; i < n; i++)                                                         \\
                flags[i] = (type)(values[i] - first) <= width;                                     \\
        }
    VS_BETWEEN(uint8_t)
    VS_BETWEEN(uint16_t)
    VS_BETWEEN(uint32_t)
    VS_BETWEEN(uint64_t)
    static inline uint64_t vs_packed(const uint8_t *data, size_t place, size_t bits, uint64_t mask) {
        uint64_t window;
        memcpy(&window, data + (place * bits >> 3), 8);
        return window >> (place * bits & 7) & mask;
    }
    static inline void vs_between_packed(const uint8_t *data, size_t place, size_t n, size_t bits, uint64_t mask,
                                         uint64_t low, uint64_t span, uint8_t *flags) {
        for (size_t i = 0; i < n; i++)
            flags[i] = vs_packed(data, place + i, bits, mask) - low <= span;
    }
    """
    uint64_t vs_bits_of(const uint8_t *flags) nogil
    void vs_between_uint8_t(const uint8_t *data, size_t n, uint64_t low, uint64_t span, uint8_t *flags) nogil
    void vs_between_uint16_t(const uint8_t *data, size_t n, uint64_t low, uint64_t span, uint8_t *flags) nogil
    void vs_between_uint32_t(const uint8_t *data, size_t n, uint64_t low, uint64_t span, uint8_t *flags) nogil
    void vs_between_uint64_t(const uint8_t *data, size_t n, uint64_t low, uint64_t span, uint8_t *flags) nogil
    void vs_between_packed(const uint8_t *data, size_t place, size_t n, size_t bits, uint64_t mask, uint64_t low,
                           uint64_t span, uint8_t *flags) nogil
    uint64_t vs_packed(const uint8_t *data, size_t place, size_t bits, uint64_t mask) nogil
    int __builtin_popcountll(unsigned long long) nogil
    int __builtin_popcount(unsigned int) nogil
    int __builtin_ctzll(unsigned long long) nogil


ctypedef fused Number:
    uint8_t
    uint16_t
    uint32_t

cdef enum:
    ROWS = 64  # of a word
    FEW = 8  # of them that are looked at one by one
    WINDOW = 8  # bytes that are read for a packed integer


def allow_rows(const uint64_t[::1] rows not None, const int64_t[::1] first_rows not None,
               const int64_t[::1] first_blocks not None, const uint32_t[::1] live not None,
               uint32_t[::1] words not None, uint8_t[::1] empty not None):
    """The slots of those rows that are alive.

    Parameters
    ----------
    rows : u64[ceil(n / 64)]
        Bits.
    first_rows, first_blocks : i64[K + 1]
        Of each list, and the ends.
    live, words : u32[blocks]
        The slots of live rows; what is written.
    empty : u8[K]
        Written: 1 for each list that holds none of them, else 0.

    Returns
    -------
    int
        How many rows were alive.

    Raises
    ------
    ValueError
        If shapes do not agree.
    """
    cdef Py_ssize_t k = first_rows.shape[0] - 1, i
    cdef int64_t row, end, block, count = 0
    cdef uint64_t window
    cdef uint32_t word, any_
    cdef const uint64_t *bits
    if k < 1 or first_blocks.shape[0] != k + 1 or empty.shape[0] != k:
        raise ValueError("tables of lists of different lengths")
    if live.shape[0] != first_blocks[k] or words.shape[0] != first_blocks[k]:
        raise ValueError(f"words are not those of {first_blocks[k]} blocks")
    if rows.shape[0] != (first_rows[k] + ROWS - 1) // ROWS:
        raise ValueError(f"{rows.shape[0]} words are not those of {first_rows[k]} rows")
    if words.shape[0] == 0:
        empty[:] = 1
        return 0
    bits = &rows[0]
    with nogil:
        for i in range(k):
            row, end, block = first_rows[i], first_rows[i + 1], first_blocks[i]
            any_ = 0
            while row < end:
                window = bits[row >> 6] >> (row & 63)
                if row & 63 > 32 and (row >> 6) + 1 < rows.shape[0]:
                    window |= bits[(row >> 6) + 1] << (64 - (row & 63))
                word = <uint32_t>window & live[block]  # no slot beyond the list's end is alive
                words[block] = word
                any_ |= word
                count += __builtin_popcount(word)
                row += 32
                block += 1
            empty[i] = any_ == 0
    return count


def mark_rows(const Number[::1] rows not None, uint64_t[::1] bits not None):
    """Set the bits of rows, in any order. `ValueError` for one beyond them."""
    cdef Py_ssize_t i
    cdef uint64_t row, most = ROWS * <uint64_t>bits.shape[0]
    with nogil:
        for i in range(rows.shape[0]):
            row = rows[i]
            if row >= most:
                with gil:
                    raise ValueError(f"row {row} lies beyond {most} bits")
            bits[row >> 6] |= <uint64_t>1 << (row & 63)


def mark_bitmaps(const uint8_t[::1] data not None, const int64_t[::1] starts not None,
                 const int64_t[::1] ends not None, uint64_t[::1] bits not None):
    """Set the bits of the rows of roaring bitmaps, in the portable format.

    Parameters
    ----------
    starts, ends : i64[m]
        Where each lies in `data`.

    Raises
    ------
    ValueError
        If one is none, or holds a row beyond the bits.
    """
    cdef Py_ssize_t i
    cdef bint good = True
    if starts.shape[0] != ends.shape[0]:
        raise ValueError(f"{starts.shape[0]} starts and {ends.shape[0]} ends")
    if starts.shape[0] == 0 or bits.shape[0] == 0:
        return
    for i in range(starts.shape[0]):
        if not 0 <= starts[i] <= ends[i] <= data.shape[0]:
            raise ValueError(f"bitmap {i} does not lie in {data.shape[0]} bytes")
    with nogil:
        for i in range(starts.shape[0]):
            good = good and _mark_bitmap(&data[0] + starts[i], ends[i] - starts[i], &bits[0], bits.shape[0])
    if not good:
        raise ValueError(f"no roaring bitmap of {ROWS * bits.shape[0]} rows")


cdef enum:
    RUNS = 12347  # what the format begins with where containers may have runs, and where none has
    NO_RUNS = 12346
    MOST_IN_ARRAY = 4096
    CONTAINER_WORDS = 1024


cdef inline uint32_t _u16(const uint8_t *data) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, data, 2)
    return value


cdef inline uint32_t _u32(const uint8_t *data) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, data, 4)
    return value


cdef bint _mark_bitmap(const uint8_t *data, size_t length, uint64_t *bits, size_t words) noexcept nogil:
    """False if it is none, or has a row beyond the words."""
    cdef const uint8_t *heads
    cdef const uint8_t *runs = NULL
    cdef size_t count, at, c, i, size, first
    cdef uint32_t card, row, last
    cdef uint64_t word
    if length < 4:
        return False
    if _u16(data) == RUNS:
        count = _u16(data + 2) + 1
        runs = data + 4
        at = 4 + (count + 7) // 8
    elif _u32(data) == NO_RUNS and length >= 8:
        count = _u32(data + 4)
        at = 8
    else:
        return False
    if count > 1 << 16:
        return False
    heads = data + at
    at += 4 * count
    if runs == NULL or count >= 4:
        at += 4 * count
    for c in range(count):
        if at > length:
            return False
        first = <size_t>_u16(heads + 4 * c) * CONTAINER_WORDS
        card = _u16(heads + 4 * c + 2) + 1
        if first >= words:
            return False
        if runs != NULL and runs[c >> 3] >> (c & 7) & 1:
            if at + 2 > length:
                return False
            size = 2 + 4 * <size_t>_u16(data + at)
            if at + size > length:
                return False
            for i in range(2, size, 4):
                row = _u16(data + at + i)
                last = row + _u16(data + at + i + 2)
                if last > 0xFFFF or first + (last >> 6) >= words:
                    return False
                _fill(bits + first, row, last)
        elif card <= MOST_IN_ARRAY:
            size = 2 * card
            if at + size > length:
                return False
            for i in range(0, size, 2):
                row = _u16(data + at + i)
                if first + (row >> 6) >= words:
                    return False
                bits[first + (row >> 6)] |= <uint64_t>1 << (row & 63)
        else:
            size = 8 * CONTAINER_WORDS
            if at + size > length:
                return False
            for i in range(CONTAINER_WORDS):
                memcpy(&word, data + at + 8 * i, 8)
                if first + i < words:
                    bits[first + i] |= word
                elif word:
                    return False
        at += size
    return True


cdef inline void _fill(uint64_t *bits, uint32_t row, uint32_t last) noexcept nogil:
    """Set the bits from one to another, it included."""
    cdef uint32_t word = row >> 6, end = last >> 6
    cdef uint64_t head = ~<uint64_t>0 << (row & 63), tail = ~<uint64_t>0 >> (63 - (last & 63))
    if word == end:
        bits[word] |= head & tail
        return
    bits[word] |= head
    for word in range(word + 1, end):
        bits[word] = ~<uint64_t>0
    bits[end] |= tail


def keep_between(const uint8_t[::1] data not None, Py_ssize_t width, Py_ssize_t n, uint64_t low, uint64_t high,
                 uint64_t[::1] bits not None):
    """Clear the bits of rows whose packed integers do not lie from `low` to `high`.

    Parameters
    ----------
    data : u8
        `n` integers of `width` bits, 1 to 56 or 64, and eight bytes more (docs/formats/columns.md).
    bits : u64[ceil(n / 64)]

    Raises
    ------
    ValueError
        If there is too little data, or the bits are of another number of rows.
    """
    cdef Py_ssize_t w, i
    cdef size_t left
    cdef uint8_t flags[ROWS]
    cdef uint64_t word, found, mask, span = high - low
    cdef const uint8_t *at
    _check_packed(data, width, n)
    if bits.shape[0] != (n + ROWS - 1) // ROWS:
        raise ValueError(f"{bits.shape[0]} words are not those of {n} rows")
    if low > high:
        bits[:] = 0
        return
    mask = _mask(width)
    if low > mask:
        bits[:] = 0
        return
    span = min(span, mask - low)
    with nogil:
        for i in range(ROWS):
            flags[i] = 0
        for w in range(bits.shape[0]):
            word = bits[w]
            if word == 0:
                continue
            if __builtin_popcountll(word) < FEW:
                found = 0
                while word:
                    i = __builtin_ctzll(word)
                    if _value(&data[0], ROWS * w + i, width, mask) - low <= span:
                        found |= <uint64_t>1 << i
                    word &= word - 1
                bits[w] = found
                continue
            left = min(<size_t>ROWS, <size_t>(n - ROWS * w))
            at = &data[0] + ROWS * w * width // 8
            if width == 8:
                vs_between_uint8_t(at, left, low, span, flags)
            elif width == 16:
                vs_between_uint16_t(at, left, low, span, flags)
            elif width == 32:
                vs_between_uint32_t(at, left, low, span, flags)
            elif width == 64:
                vs_between_uint64_t(at, left, low, span, flags)
            else:
                vs_between_packed(&data[0], ROWS * w, left, width, mask, low, span, flags)
            found = 0
            for i in range(ROWS // 8):
                found |= vs_bits_of(flags + 8 * i) << (8 * i)
            bits[w] = word & found


def place_of(const uint8_t[::1] order not None, Py_ssize_t order_width, uint64_t first_row,
             const uint8_t[::1] keys not None, Py_ssize_t width, Py_ssize_t n, uint64_t key, bint after):
    """Before which place of rows in the order of their keys one belongs, after those that are equal or before.

    Parameters
    ----------
    order, keys : u8
        Packed: `n` rows, each from `first_row` on, none beyond the keys that are there; the key of each row.

    Raises
    ------
    ValueError
        If there is too little data, or a row has no key.
    """
    cdef Py_ssize_t low = 0, high = n, middle
    cdef uint64_t row, found, order_mask, mask
    cdef uint64_t rows = (keys.shape[0] - WINDOW) * 8 // max(1, width)
    _check_packed(order, order_width, n)
    _check_packed(keys, width, 0)
    order_mask, mask = _mask(order_width), _mask(width)
    while low < high:
        middle = (low + high) // 2
        row = first_row + _value(&order[0], middle, order_width, order_mask)
        if row >= rows:
            raise ValueError(f"row {row} has no key")
        found = _value(&keys[0], row, width, mask)
        if found < key or (after and found == key):
            low = middle + 1
        else:
            high = middle
    return low


cdef int _check_packed(const uint8_t[::1] data, Py_ssize_t width, Py_ssize_t n) except -1:
    if not (1 <= width <= 56 or width == 64) or n < 0:
        raise ValueError(f"no {n} integers of {width} bits")
    if data.shape[0] < WINDOW + (n * width + 7) // 8:
        raise ValueError(f"{data.shape[0]} bytes do not hold {n} integers of {width} bits")
    return 0


cdef inline uint64_t _mask(Py_ssize_t width) noexcept nogil:
    return ~<uint64_t>0 >> (64 - width)


cdef inline uint64_t _value(const uint8_t *data, size_t place, size_t width, uint64_t mask) noexcept nogil:
    return vs_packed(data, place, width, mask)
