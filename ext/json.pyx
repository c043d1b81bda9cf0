"""JSON as it stands: how many items an array or an object has, and how large each is, before objects are made of it."""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr


def outline(const uint8_t[::1] data not None, int64_t[::1] ends not None, int64_t[::1] children not None,
            int64_t[::1] inner not None, int64_t[::1] depths not None) -> int:
    """The items of one array or object of valid JSON.

    Parameters
    ----------
    data : u8
    ends, children, inner, depths : i64[n], of one length
        Written of the first ``n`` items: where each ends, how many items it has itself, how many the largest
        has that it holds, and how deep arrays and objects lie in one another, 0 for what is neither.

    Returns
    -------
    int
        How many items there are.

    Raises
    ------
    ValueError
        Brackets or quotes do not close, or shapes do not agree.
    """
    cdef Py_ssize_t size = data.shape[0], n = ends.shape[0], i = 0
    cdef int64_t count = 0, depth = 0, deepest = 0, own = 0, held = 0, most = 0
    cdef bint any_item = False, any_own = False, any_held = False, item_ends
    cdef uint8_t c
    if children.shape[0] != n or inner.shape[0] != n or depths.shape[0] != n:
        raise ValueError("items of different numbers")
    with nogil:
        while i < size:
            c = data[i]
            if c == c' ' or c == c'\n' or c == c'\r' or c == c'\t':
                i += 1
                continue
            item_ends = False
            if c == c']' or c == c'}':
                if depth == 3:
                    most = max(most, held + any_held)
                elif depth == 2:
                    own += any_own
                elif depth == 1:
                    item_ends = any_item
                depth -= 1
                if depth < 0:
                    break
            elif c == c',':
                if depth == 3:
                    held += 1
                elif depth == 2:
                    own += 1
                elif depth == 1:
                    item_ends = True
            else:
                if depth == 1:
                    any_item = True
                elif depth == 2:
                    any_own = True
                elif depth == 3:
                    any_held = True
                if c == c'[' or c == c'{':
                    depth += 1
                    deepest = max(deepest, depth - 1)
                    if depth == 3:
                        held, any_held = 0, False
                elif c == c'"':
                    i = _closes(data, i + 1, size)
                else:  # of numbers are most bytes of most bodies
                    while i + 1 < size and _goes_on(data[i + 1]):
                        i += 1
            if item_ends:
                if count < n:
                    ends[count], children[count], inner[count], depths[count] = i, own, most, deepest
                count += 1
                own, most, deepest, any_own = 0, 0, 0, False
            i += 1
    if depth != 0 or i > size:
        raise ValueError("JSON that does not close")
    return count


cdef inline bint _goes_on(uint8_t c) noexcept nogil:
    """Whether a number goes on; not with a bracket of either kind, whose codes differ in 0x26 alone."""
    return (c >= c'-' or c == c'+') and (c | 0x26) != 0x7f


cdef Py_ssize_t _closes(const uint8_t[::1] data, Py_ssize_t i, Py_ssize_t size) noexcept nogil:
    """Where the string that begins at ``i`` has its other quote; ``size`` if it has none."""
    cdef Py_ssize_t begin = i, back
    cdef const uint8_t* found
    while i < size:
        found = <const uint8_t*> memchr(&data[i], c'"', <size_t> (size - i))
        if found == NULL:
            break
        i += found - &data[i]
        back = i
        while back > begin and data[back - 1] == c'\\':
            back -= 1
        if (i - back) % 2 == 0:
            return i
        i += 1
        begin = i
    return size
