"""The directory of a part's columns: what each holds, in which form, and where its pieces lie.

A column has a *value side*, from rows to values, and where it is filterable an *inverted side*, from
values to rows. Statistics of the column choose the form of both:

    dictionary   sorted distinct values, and a code an element; looked up by a bitmap of rows a value, or
                 where values have few rows each, by the rows in the order of their values (*postings*)
    plain        values in the order of rows; numbers are looked up by the rows in the order of their values

Layout: ``docs/formats/columns.md``. Imports packing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from msgspec import Struct

from vecstore.rows.packing import Packing
from vecstore.types import AttributeType

ALIGN: Final = 8


class Piece(Struct, frozen=True, array_like=True):
    """Where a piece of a column lies in its section, and how it is packed if it is made of integers."""

    offset: int
    length: int
    packing: Packing | None = None


class ColumnEntry(Struct, frozen=True, kw_only=True):
    """A column in the directory of a part.

    Attributes
    ----------
    elements, nulls, distinct
        How many; ``distinct`` is 0 where they were not counted.
    least, greatest
        Zone map: no element lies outside. Keys, or texts of at most `ZONE_BYTES`; None bounds nothing.
    form, lookup
        Of the value side, and of the inverted one.
    pieces
        By name: ``nulls``, ``starts``, ``codes``, ``keys``, ``blocks``, ``block_firsts``, ``block_ends``,
        ``bitmaps``, ``bitmap_ends``, ``order``, ``order_starts``.
    """

    type: AttributeType
    filterable: bool
    elements: int
    nulls: int
    distinct: int
    least: int | bytes | None
    greatest: int | bytes | None
    form: Literal["dictionary", "plain"]
    lookup: Literal["none", "bitmaps", "postings", "sorted"]
    pieces: dict[str, Piece]


_directory = msgspec.json.Decoder(dict[str, ColumnEntry])


def encode_directory(entries: Mapping[str, ColumnEntry]) -> bytes:
    return msgspec.json.encode(entries)


def decode_directory(data: bytes) -> dict[str, ColumnEntry]:
    """`msgspec.MsgspecError` if it is none."""
    return _directory.decode(data)
