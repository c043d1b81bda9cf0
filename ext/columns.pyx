"""Columns of attributes: texts in a buffer put in order, elements moved with their rows, values turned to rows.

Kernels of ``rows/encoding.py``, ``rows/columns.py`` and ``rows/attributes.py``. What they write to may lie in a
mapped file. All release the GIL.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset


cdef struct Entry:
    uint64_t prefix  # the first eight bytes, so that most comparisons need no text
    int64_t text


cdef inline int64_t begin_of(const int64_t *ends, int64_t text) noexcept nogil:
    return ends[text - 1] if text else 0


cdef inline int compared(const uint8_t *data, const int64_t *ends, int64_t one, int64_t other) noexcept nogil:
    cdef int64_t a = begin_of(ends, one), b = begin_of(ends, other)
    cdef int64_t size = ends[one] - a, size_b = ends[other] - b
    cdef int found = memcmp(data + a, data + b, <size_t>(size if size < size_b else size_b))
    if found:
        return found
    return -1 if size < size_b else size > size_b


cdef inline bint not_after(const uint8_t *data, const int64_t *ends, const Entry *one, const Entry *other) noexcept nogil:
    if one.prefix != other.prefix:
        return one.prefix < other.prefix
    return compared(data, ends, one.text, other.text) <= 0


cdef void merge_runs(const uint8_t *data, const int64_t *ends, const Entry *source, Entry *target,
                     int64_t first, int64_t middle, int64_t last) noexcept nogil:
    cdef int64_t i = first, j = middle, at
    for at in range(first, last):
        if j >= last or (i < middle and not_after(data, ends, &source[i], &source[j])):
            target[at] = source[i]
            i += 1
        else:
            target[at] = source[j]
            j += 1


def rank_texts(const uint8_t[::1] data not None, const int64_t[::1] ends not None, const uint8_t[::1] used not None,
               uint64_t[:, ::1] entries not None, uint64_t[:, ::1] scratch not None,
               int64_t[::1] ranks not None, int64_t[::1] firsts not None) -> int:
    """Put texts in the order of their bytes; equal ones have one rank.

    Parameters
    ----------
    data : u8
    ends : i64[T]
        Where each text ends in it; it begins where the one before ends.
    used : u8[T]
        Texts of which it is 0 are left out.
    entries, scratch : u64[m, 2]
        For m texts that are used, overwritten.
    ranks : i64[T]
        Written: of those that are used, from 0.
    firsts : i64[m]
        Written: a text of each rank.

    Returns
    -------
    int
        How many ranks there are.

    Raises
    ------
    ValueError
        If shapes do not agree, or a text ends where it cannot.
    """
    cdef int64_t count = ends.shape[0], room = entries.shape[0], m = 0, i, j, width, begin, size, distinct = 0
    cdef uint64_t prefix
    cdef Entry *source
    cdef Entry *target
    cdef uint8_t nothing = 0
    cdef const uint8_t *bytes_ = &data[0] if data.shape[0] else &nothing  # where all texts are empty
    cdef const int64_t *limits
    if used.shape[0] != count or ranks.shape[0] != count:
        raise ValueError("texts, uses and ranks of different lengths")
    if entries.shape[1] != 2 or scratch.shape[1] != 2 or scratch.shape[0] != room or firsts.shape[0] != room:
        raise ValueError("room for entries of different sizes")
    if count == 0 or room == 0:
        return 0
    limits = &ends[0]
    source, target = <Entry *>&entries[0, 0], <Entry *>&scratch[0, 0]
    with nogil:
        begin = 0
        for i in range(count):
            if ends[i] < begin or ends[i] > data.shape[0]:
                with gil:
                    raise ValueError(f"text {i} ends at {ends[i]}")
            if used[i]:
                if m == room:
                    with gil:
                        raise ValueError(f"more than {room} texts are used")
                size = ends[i] - begin
                prefix = 0
                for j in range(8):
                    prefix = prefix << 8 | (bytes_[begin + j] if j < size else 0)
                source[m].prefix = prefix
                source[m].text = i
                m += 1
            begin = ends[i]
        width = 1
        while width < m:
            i = 0
            while i < m:
                merge_runs(bytes_, limits, source, target, i, min(i + width, m), min(i + 2 * width, m))
                i += 2 * width
            source, target = target, source
            width *= 2
        for i in range(m):
            if i == 0 or source[i].prefix != source[i - 1].prefix or compared(
                bytes_, limits, source[i - 1].text, source[i].text
            ):
                firsts[distinct] = source[i].text
                distinct += 1
            ranks[source[i].text] = distinct - 1
    return distinct


def take_elements(const uint64_t[::1] elements not None, const int64_t[::1] starts not None,
                  const int64_t[::1] counts not None, uint64_t[::1] out not None) -> None:
    """Runs of elements one after another: ``counts[i]`` of them from ``starts[i]`` on. `ValueError` beyond either end."""
    cdef int64_t at = 0, i
    if starts.shape[0] != counts.shape[0]:
        raise ValueError("starts and counts of different lengths")
    with nogil:
        for i in range(starts.shape[0]):
            if counts[i] == 0:
                continue
            if (counts[i] < 0 or starts[i] < 0 or counts[i] > elements.shape[0] - starts[i]
                    or counts[i] > out.shape[0] - at):
                with gil:
                    raise ValueError(f"run {i} lies beyond the elements")
            memcpy(&out[at], &elements[starts[i]], counts[i] * sizeof(uint64_t))
            at += counts[i]
    if at != out.shape[0]:
        raise ValueError(f"{at} elements, not {out.shape[0]}")


def rows_by_code(const int64_t[::1] codes not None, const int64_t[::1] counts not None,
                 int64_t[::1] starts not None, uint32_t[::1] rows not None) -> None:
    """The row of each element, by code, then as they come.

    Parameters
    ----------
    codes : i64[m], less than D
    counts : i64[n]
        Elements of each row.
    starts : i64[D + 1]
        Written: where each code begins.
    rows : u32[m]
        Written.

    Raises
    ------
    ValueError
        If shapes do not agree, or a code is none.
    """
    cdef int64_t m = codes.shape[0], distinct = starts.shape[0] - 1, i, j, at = 0, code
    if rows.shape[0] != m or distinct < 0:
        raise ValueError("codes, rows and starts do not agree")
    with nogil:
        memset(&starts[0], 0, starts.shape[0] * sizeof(int64_t))
        for i in range(m):
            if codes[i] < 0 or codes[i] >= distinct:
                with gil:
                    raise ValueError(f"code {codes[i]} of {distinct}")
            starts[codes[i] + 1] += 1
        for i in range(distinct):
            starts[i + 1] += starts[i]
        for i in range(counts.shape[0]):
            if counts[i] < 0 or counts[i] > m - at:
                with gil:
                    raise ValueError("rows have more elements than there are codes")
            for j in range(at, at + counts[i]):
                code = codes[j]
                rows[starts[code]] = <uint32_t>i
                starts[code] += 1
            at += counts[i]
        if at != m:
            with gil:
                raise ValueError("rows have fewer elements than there are codes")
        for i in range(distinct, 0, -1):
            starts[i] = starts[i - 1]
        starts[0] = 0
