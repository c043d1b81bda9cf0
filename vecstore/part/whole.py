"""Every byte of a part against its checksums, as it streams by: for verification and copies."""

from __future__ import annotations

from crc32c import crc32c

from vecstore.errors import StorageCorrupt
from vecstore.part.format import HEADER_BYTES, read_ends
from vecstore.part.reader import PartReader


class WholePart:
    """Takes a part chunk by chunk, in order; holds no more of it than its footer.

    Attributes
    ----------
    failed
        Sections that failed so far, with the offset of the first page of each that did.
    """

    def __init__(self, reader: PartReader) -> None:
        self.failed: dict[str, int] = {}
        self._reader = reader
        self._names: list[str] = []
        self._ends: list[int] = []
        self._crcs: list[int] = []
        for name, ends, crcs in reader.page_ends():
            self._names += [name] * len(ends)
            self._ends += ends
            self._crcs += crcs
        self._header, self._rest = b"", bytearray()
        self._page, self._crc, self._at = 0, 0, HEADER_BYTES

    def feed(self, start: int, chunk: bytes) -> None:
        """The bytes from ``start`` on; the first chunk holds the header."""
        self._header = self._header or chunk[:HEADER_BYTES]
        view, stop = memoryview(chunk), start + len(chunk)
        while self._page < len(self._ends) and self._ends[self._page] <= stop:
            end = self._ends[self._page]
            if crc32c(view[self._at - start : end - start], self._crc) != self._crcs[self._page]:
                self.failed.setdefault(self._names[self._page], self._at)
            self._page, self._crc, self._at = self._page + 1, 0, end
        if self._page < len(self._ends):
            self._crc, self._at = crc32c(view[self._at - start :], self._crc), stop
        else:
            self._rest += view[max(0, self._at - start) :]

    def close(self) -> None:
        """After the last chunk. `StorageCorrupt` if header or footer are not those of the part."""
        key = self._reader.key
        footer = read_ends(self._header, bytes(self._rest), start=self._ends[-1], key=key)
        told = {name: (entry.offset, entry.length) for name, entry in footer.sections.items()}
        if told != {
            name: (entry.offset, entry.length) for name, entry in self._reader.entry.sections.items()
        }:
            raise StorageCorrupt(
                f"{key}: its sections are not those of the manifest", object=key, section="footer"
            )
