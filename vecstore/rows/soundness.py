"""Whether a column can be what the directory of a part says of it, before anything is read through that.

Checksums tell of accidents; what somebody wrote on purpose has the right ones. So whatever decides where is
read, and how much memory that takes, is held against the rows of the part. Imports columns, packing, limits.
"""

from __future__ import annotations

from vecstore.limits import MAX_ARRAY_ELEMENTS, MAX_U64
from vecstore.rows.directory import ALIGN, ColumnEntry, Piece
from vecstore.rows.packing import WIDEST
from vecstore.rows.schema import element_type, is_array
from vecstore.rows.values import is_text


def check_entry(entry: ColumnEntry, n: int, size: int) -> None:
    """`ValueError` unless it can be a column of ``n`` rows whose pieces lie within ``size`` bytes."""
    _check_numbers(entry, n)
    _check_form(entry)
    counts = _integers(entry, n)
    if missing := counts.keys() - entry.pieces.keys():
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    for name, piece in entry.pieces.items():
        end = piece.offset + piece.length
        if not 0 <= piece.offset <= end <= size or piece.length < 0 or piece.offset % ALIGN:
            raise ValueError("does not lie in section 'attributes'")
        _check_piece(name, piece, counts.get(name))


def _check_numbers(entry: ColumnEntry, n: int) -> None:
    arrays = is_array(entry.type)
    most = n * MAX_ARRAY_ELEMENTS if arrays else n
    if not (0 <= entry.nulls <= n and 0 <= entry.distinct <= entry.elements <= most):
        told = f"{entry.elements} elements, {entry.distinct} distinct ones and {entry.nulls} nulls"
        raise ValueError(f"has {told} of {n} rows")
    if not arrays and entry.elements != n - entry.nulls:
        raise ValueError(f"has {entry.elements} values and {entry.nulls} nulls of {n} rows")
    if entry.elements and entry.form == "dictionary" and not entry.distinct:
        raise ValueError("has a dictionary of nothing")


def _check_form(entry: ColumnEntry) -> None:
    text, plain = is_text(element_type(entry.type)), entry.form == "plain"
    if any(bound is not None and isinstance(bound, bytes) != text for bound in (entry.least, entry.greatest)):
        raise ValueError("has a zone map of another type")
    if (entry.lookup != "none") != entry.filterable:
        raise ValueError(f"is looked up by {entry.lookup}")
    if entry.filterable and (entry.lookup == "sorted") != plain:
        raise ValueError(f"is {entry.form}, and looked up by {entry.lookup}")
    if entry.lookup == "sorted" and (text or is_array(entry.type)):
        raise ValueError("is sorted, and not one number a row")


def _integers(entry: ColumnEntry, n: int) -> dict[str, int | None]:
    """The pieces that there have to be, and how many packed integers each holds; None: it holds none."""
    arrays = is_array(entry.type)
    stored = entry.elements if arrays else n
    values = entry.distinct if entry.form == "dictionary" else stored
    counts: dict[str, int | None] = {}
    if entry.nulls:
        counts["nulls"] = None
    if arrays:
        counts["starts"] = n + 1
    if entry.form == "dictionary":
        counts["codes"] = stored
    if is_text(element_type(entry.type)):
        ends = entry.pieces["block_ends"].packing if "block_ends" in entry.pieces else None
        blocks = 0 if ends is None else ends.count
        if not min(1, values) <= blocks <= values:
            raise ValueError(f"has {blocks} blocks of {values} texts")
        counts |= {"blocks": None, "block_firsts": blocks, "block_ends": blocks}
    else:
        counts["keys"] = values
    if entry.lookup == "bitmaps":
        counts |= {"bitmaps": None, "bitmap_ends": entry.distinct}
    elif entry.lookup != "none":
        counts["order"] = entry.elements
    if entry.lookup == "postings":
        counts["order_starts"] = entry.distinct + 1
    return counts


def _check_piece(name: str, piece: Piece, count: int | None) -> None:
    packing = piece.packing
    if packing is None:
        if count is not None:
            raise ValueError(f"has no integers in {name}")
        return
    if not (0 <= packing.bits <= WIDEST or packing.bits == 64) or not 0 <= packing.low <= MAX_U64:
        raise ValueError(f"has integers of {packing.bits} bits above {packing.low} in {name}")
    if packing.count < 0 or (count is not None and packing.count != count):
        raise ValueError(f"has {packing.count} integers in {name}, not {count}")
    if name == "order" and packing.bits not in (0, 8, 16, 32):
        raise ValueError(f"has rows of {packing.bits} bits")
    if piece.length < packing.length:
        raise ValueError(f"has less in {name} than {packing.count} integers")
