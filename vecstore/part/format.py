"""The container of a part: sections, pages, checksums. Layout: ``docs/formats/part.md``.

Bytes only: what the sections mean is the business of `vecstore.part.builder` and
`vecstore.part.reader`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from crc32c import crc32c
from msgspec import Struct

from vecstore.errors import NOT_JSON, StorageCorrupt, unsupported_format

MAGIC: Final = b"VECPART\0"
FORMAT: Final = 0
ALIGN: Final = 64
PAGE: Final = 64 * 1024
KEYS_A_PAGE: Final = PAGE // 8  # of section `id_keys`
ROWS_A_PAGE: Final = PAGE // 4  # of section `id_rows`

# Sections that a search needs before it knows which lists to probe; they lie side by side at
# the end of the part, so that a cold reader fetches them as one range.
HEAD: Final = (
    "cells",
    "cell_lists",
    "centroid_codes",
    "lists",
    "id_fence",
    "columns",
    "calibration",
    "checksums",
)

_HEADER = struct.Struct("<8sI52x")
_TAIL = struct.Struct("<QQIII28x8s")

HEADER_BYTES: Final = _HEADER.size

Buffer = bytes | memoryview

LIST_DTYPE: Final = np.dtype(
    [
        ("offset", "<u8"),  # of the record, from the start of section `records`
        ("length", "<u4"),
        ("rows", "<u4"),
        ("first_row", "<u8"),
        ("first_block", "<u4"),
        ("reserved", "<u4"),
    ]
)


def aligned(n: int) -> int:
    """``n`` rounded up to the alignment of sections."""
    return -(-n // ALIGN) * ALIGN


def padded(data: Buffer) -> bytes:
    """``data`` with zeros to the alignment."""
    return bytes(data) + bytes(aligned(len(data)) - len(data))


class SectionEntry(Struct, frozen=True):
    """A section in the footer; ``pages`` is the number of its checksums."""

    offset: int
    length: int
    required: bool
    pages: int


class Footer(Struct, frozen=True):
    format: int
    sections: dict[str, SectionEntry]
    meta: dict[str, Any]


class ContainerWriter:
    """Streams a part: call `begin`, `section` for each section, then `finish`, in that order.

    Each returns the chunks to write, which must be consumed before the next call.

    Attributes
    ----------
    sections
        The section table so far.
    size
        Bytes produced so far.
    checksums_crc32c
        Of section ``checksums``; set by `finish`.
    """

    def __init__(self) -> None:
        self.sections: dict[str, SectionEntry] = {}
        self.size = 0
        self.checksums_crc32c = 0
        self._crcs: list[int] = []
        self._header = _HEADER.pack(MAGIC, FORMAT)

    def begin(self) -> Iterator[Buffer]:
        yield from self._emit(self._header)

    def section(
        self, name: str, pages: Iterable[Buffer] | None = None, *, data: Buffer = b"", required: bool = True
    ) -> Iterator[Buffer]:
        """A section of explicit pages, each a multiple of 64 bytes; or of ``data``, cut into 64 KiB pages."""
        offset = self.size
        first = len(self._crcs)
        if pages is None:
            pages = _cut(data)
        for page in pages:
            if len(page) % ALIGN:
                raise AssertionError("a page is a multiple of the alignment")
            self._crcs.append(crc32c(page))
            yield from self._emit(page)
        self.sections[name] = SectionEntry(offset, self.size - offset, required, len(self._crcs) - first)

    def finish(self, meta: dict[str, Any]) -> Iterator[Buffer]:
        body = padded(np.asarray(self._crcs, dtype="<u4").tobytes())
        self.checksums_crc32c = crc32c(body)
        self.sections["checksums"] = SectionEntry(self.size, len(body), True, 0)
        yield from self._emit(body)
        footer = msgspec.json.encode(Footer(FORMAT, self.sections, meta))
        offset = self.size
        yield from self._emit(footer)
        yield from self._emit(
            _TAIL.pack(offset, len(footer), crc32c(footer), crc32c(self._header), FORMAT, MAGIC)
        )

    def _emit(self, data: Buffer) -> Iterator[Buffer]:
        self.size += len(data)
        yield data


def _cut(data: Buffer) -> Iterator[Buffer]:
    view = memoryview(data)
    for start in range(0, len(view), PAGE):
        page = view[start : start + PAGE]
        yield padded(page) if len(page) % ALIGN else page


def read_footer(data: Buffer, *, key: str) -> Footer:
    """Parse and verify header, tail and footer of a whole part; `StorageCorrupt` names what is wrong."""
    return read_ends(memoryview(data)[:HEADER_BYTES], data, start=0, key=key)


def read_ends(header: Buffer, rest: Buffer, *, start: int, key: str) -> Footer:
    """As `read_footer`, from the first `HEADER_BYTES` and from ``start``, not behind the footer, on."""
    view = memoryview(rest)

    def corrupt(section: str, why: str) -> StorageCorrupt:
        return StorageCorrupt(f"{key}: {section}: {why}", object=key, section=section)

    if len(header) < HEADER_BYTES or len(view) < _TAIL.size:
        raise corrupt("tail", "the object is too short to be a part")
    offset, length, footer_crc, header_crc, form, magic = _TAIL.unpack(view[-_TAIL.size :])
    if magic != MAGIC:
        raise corrupt("tail", "no part magic at the end")
    if form != FORMAT:
        raise unsupported_format("part", form, FORMAT, key=key, section="tail")
    if offset + length + _TAIL.size != start + len(view) or bytes(view[-36:-8]) != bytes(28):
        raise corrupt("tail", "footer does not end where the tail begins")
    if offset < start:
        raise corrupt("tail", "the footer begins before the sections end")
    if crc32c(header) != header_crc or bytes(header[:8]) != MAGIC:
        raise corrupt("header", "fails its checksum")
    raw = view[offset - start : offset - start + length]
    if crc32c(raw) != footer_crc:
        raise corrupt("footer", "fails its checksum")
    try:
        footer = msgspec.json.decode(raw, type=Footer)
    except NOT_JSON as error:
        raise corrupt("footer", f"malformed: {error}") from error
    for name, entry in footer.sections.items():
        if entry.offset % ALIGN or entry.length % ALIGN or entry.offset + entry.length > offset:
            raise corrupt("footer", f"section {name!r} does not lie inside the part")
    return footer


def page_bounds(name: str, length: int, lists: npt.NDArray[Any] | None) -> npt.NDArray[np.int64]:
    """Offsets of the pages of a section, relative to it, with the end: i64[pages + 1]."""
    if name == "records" and lists is not None:
        return np.append(lists["offset"].astype(np.int64), length)
    return np.append(np.arange(0, length, PAGE), length).astype(np.int64)
