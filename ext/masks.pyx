"""Rows of a part as bits: a word of 64 rows, or by slot as the scan kernel reads them, a word a block.

Row r is bit r % 64 of word r // 64; bits beyond the last row are 0.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "bits.h" nogil:
    uint64_t vs_low_bits(size_t width)
    uint64_t vs_packed(const uint8_t *data, size_t place, size_t width, uint64_t mask)
    void vs_keep_between(const uint8_t *data, size_t width, size_t n, uint64_t low, uint64_t high, uint64_t *bits)
    void vs_allow(const uint64_t *rows, size_t count, size_t k, const int64_t *first_rows, const int64_t *first_blocks,
                  const uint32_t *live, uint32_t *words, uint8_t *empty)
    size_t vs_bits_set(const uint32_t *words, size_t count)
    int __builtin_popcountll(uint64_t word)
    int __builtin_clzll(uint64_t word)
    bint vs_mark(const uint8_t *data, size_t width, size_t n, uint64_t first, uint64_t most, uint64_t *bits)


cdef enum:
    ROWS = 64  # of a word
    BLOCK = 32  # rows of one
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
        If shapes do not agree, or a list's rows have no blocks of their own.
    """
    cdef Py_ssize_t k = first_rows.shape[0] - 1, i
    cdef size_t alive
    if k < 1 or first_blocks.shape[0] != k + 1 or empty.shape[0] != k:
        raise ValueError("tables of lists of different lengths")
    if first_rows[0] < 0 or first_blocks[0] < 0:
        raise ValueError("lists begin before the first row or block")
    for i in range(k):
        # Differences of what is not negative, which cannot overflow.
        if first_rows[i + 1] < first_rows[i] or first_blocks[i + 1] - first_blocks[i] < (
            (first_rows[i + 1] - first_rows[i]) // BLOCK + ((first_rows[i + 1] - first_rows[i]) % BLOCK != 0)
        ):
            raise ValueError(f"list {i} has {first_rows[i + 1] - first_rows[i]} rows in other blocks")
    if live.shape[0] != first_blocks[k] or words.shape[0] != first_blocks[k]:
        raise ValueError(f"words are not those of {first_blocks[k]} blocks")
    if rows.shape[0] != first_rows[k] // ROWS + (first_rows[k] % ROWS != 0):
        raise ValueError(f"{rows.shape[0]} words are not those of {first_rows[k]} rows")
    if words.shape[0] == 0:
        empty[:] = 1
        return 0
    with nogil:
        vs_allow(&rows[0], rows.shape[0], k, &first_rows[0], &first_blocks[0], &live[0], &words[0], &empty[0])
        alive = vs_bits_set(&words[0], words.shape[0])
    return alive


def mark_rows(const uint8_t[::1] order not None, Py_ssize_t width, uint64_t first_row, Py_ssize_t start, Py_ssize_t end,
              uint64_t[::1] bits not None):
    """Set the bits of rows, in any order.

    Parameters
    ----------
    order : u8
        Rows above `first_row`, of `width` bits: 8, 16, 32 or 64.
    start, end : int
        Which of them.

    Raises
    ------
    ValueError
        If a row lies beyond the bits, or there are not so many.
    """
    cdef uint64_t most = ROWS * <uint64_t>bits.shape[0]
    cdef bint good = True
    if width not in (8, 16, 32, 64) or not 0 <= start <= end <= order.shape[0] * 8 // width:
        raise ValueError(f"no rows from {start} to {end} of {width} bits in {order.shape[0]} bytes")
    if start == end:
        return
    if first_row >= most:
        raise ValueError(f"a row lies beyond {most} bits")
    with nogil:
        good = vs_mark(&order[0] + start * width // 8, width, end - start, first_row, most, &bits[0])
    if not good:
        raise ValueError(f"a row lies beyond {most} bits")


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


def mark_codes(const uint8_t[::1] data not None, int64_t base, const uint8_t[::1] ends not None, Py_ssize_t width,
               uint64_t least, Py_ssize_t first, Py_ssize_t last, uint64_t[::1] bits not None):
    """As `mark_bitmaps`, of those that follow each other from `first` to before `last`.

    Parameters
    ----------
    data, base
        A span of what holds the bitmaps, and where it begins there.
    ends, width, least
        Packed: where each ends, above `least`.
    """
    cdef Py_ssize_t code
    cdef uint64_t start, end, mask
    cdef bint good = True
    _check_packed(ends, width, last)
    if not 0 <= first <= last:
        raise ValueError(f"no bitmaps from {first} to {last}")
    if first == last or bits.shape[0] == 0:
        return
    mask = vs_low_bits(width)
    with nogil:
        start = least + vs_packed(&ends[0], first - 1, width, mask) if first else 0
        for code in range(first, last):
            end = least + vs_packed(&ends[0], code, width, mask)
            good = <uint64_t>base <= start <= end <= <uint64_t>(base + data.shape[0]) and _mark_bitmap(
                &data[0] + start - base, end - start, &bits[0], bits.shape[0]
            )
            if not good:
                break
            start = end
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


cdef struct _Containers:
    const uint8_t *heads  # key and cardinality less one of each
    const uint8_t *runs  # a bit each, whether it is one of runs; NULL if none is
    size_t count
    size_t at  # of the first


cdef bint _containers(const uint8_t *data, size_t length, _Containers *of) noexcept nogil:
    """How a roaring bitmap begins; False if it does otherwise. That `at` lies within is the caller's to check."""
    of.runs = NULL
    if length < 4:
        return False
    if _u16(data) == RUNS:
        of.count = _u16(data + 2) + 1
        of.runs = data + 4
        of.at = 4 + (of.count + 7) // 8
    elif _u32(data) == NO_RUNS and length >= 8:
        of.count = _u32(data + 4)
        of.at = 8
    else:
        return False
    if of.count > 1 << 16:
        return False
    of.heads = data + of.at
    of.at += 4 * of.count
    if of.runs == NULL or of.count >= 4:
        of.at += 4 * of.count
    return True


cdef bint _mark_bitmap(const uint8_t *data, size_t length, uint64_t *bits, size_t words) noexcept nogil:
    """False if it is none, or has a row beyond the words."""
    cdef _Containers of
    cdef const uint8_t *heads
    cdef const uint8_t *runs
    cdef size_t at, c, i, size, first
    cdef uint32_t card, row, last
    cdef uint64_t word
    if not _containers(data, length, &of):
        return False
    heads, runs, at = of.heads, of.runs, of.at
    for c in range(of.count):
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
            if first + CONTAINER_WORDS > words:  # a row may lie beyond them
                for i in range(0, size, 2):
                    if first + (_u16(data + at + i) >> 6) >= words:
                        return False
            for i in range(0, size, 2):
                row = _u16(data + at + i)
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


def check_bitmap(const uint8_t[::1] data not None, int64_t n) -> bool:
    """Whether bytes are a roaring bitmap of rows below `n` as the portable format wants it, to the letter.

    Containers, values and runs ascend, and containers hold as many rows as they say: what CRoaring relies on
    without a look once it has read a bitmap.
    """
    cdef const uint8_t *start = &data[0] if data.shape[0] else NULL
    cdef bint good
    with nogil:
        good = _is_bitmap(start, data.shape[0], n)
    return good


cdef bint _is_bitmap(const uint8_t *data, size_t length, int64_t n) noexcept nogil:
    cdef _Containers of
    cdef const uint8_t *heads
    cdef const uint8_t *runs
    cdef size_t at, c, i, size
    cdef uint32_t card
    cdef int64_t key, before = -1, last, value, most, held
    cdef uint64_t word
    if not _containers(data, length, &of):
        return False
    heads, runs, at = of.heads, of.runs, of.at
    for c in range(of.count):
        if at > length:
            return False
        key, card = _u16(heads + 4 * c), _u16(heads + 4 * c + 2) + 1
        if key <= before:
            return False
        before, last, most = key, -1, n - (key << 16)
        if runs != NULL and runs[c >> 3] >> (c & 7) & 1:
            if at + 2 > length:
                return False
            size, held = 2 + 4 * <size_t>_u16(data + at), 0
            if at + size > length:
                return False
            for i in range(2, size, 4):
                value = _u16(data + at + i)
                if value <= last:
                    return False
                last = value + _u16(data + at + i + 2)
                held += last - value + 1
            if last > 0xFFFF or held != card:
                return False
        elif card <= MOST_IN_ARRAY:
            size = 2 * card
            if at + size > length:
                return False
            for i in range(0, size, 2):
                value = _u16(data + at + i)
                if value <= last:
                    return False
                last = value
        else:
            size, held = 8 * CONTAINER_WORDS, 0
            if at + size > length:
                return False
            for i in range(CONTAINER_WORDS):
                memcpy(&word, data + at + 8 * i, 8)
                if word:
                    held += __builtin_popcountll(word)
                    last = 64 * <int64_t>i + 63 - __builtin_clzll(word)
            if held != card:
                return False
        if last >= most:
            return False
        at += size
    return at <= length


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
    _check_packed(data, width, n)
    if bits.shape[0] != (n + ROWS - 1) // ROWS:
        raise ValueError(f"{bits.shape[0]} words are not those of {n} rows")
    high = min(high, vs_low_bits(width))
    if low > high:
        bits[:] = 0
    elif n:
        with nogil:
            vs_keep_between(&data[0], width, n, low, high, &bits[0])


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
    order_mask, mask = vs_low_bits(order_width), vs_low_bits(width)
    while low < high:
        middle = (low + high) // 2
        row = first_row + vs_packed(&order[0], middle, order_width, order_mask)
        if row >= rows:
            raise ValueError(f"row {row} has no key")
        found = vs_packed(&keys[0], row, width, mask)
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
