"""Tombstones: which rows of a part are dead, as roaring bitmaps in one object a commit.

Format: ``docs/formats/tombstones.md``. Rules: R6 (a bitmap is whole, not an increment; a part has at
most one) and R13 (a reference carries length and checksum, and the reader compares both).
Imports keys, model, storage and a kernel.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from crc32c import crc32c
from pyroaring import BitMap

from vecstore.errors import StorageConflict, StorageCorrupt, unsupported_format
from vecstore.ext.masks import check_bitmap
from vecstore.manifest.keys import delete_key
from vecstore.manifest.model import Part, Tombstone
from vecstore.storage.base import ObjectStore

MAGIC = b"VECTOMB\0"
FORMAT = 0

_HEADER = struct.Struct("<8sIII44x")  # magic, format, entries, CRC32C of the directory
_HEADER_FIELDS = 20
_ENTRY = struct.Struct("<32sQQII8x")  # part id, offset, length, CRC32C, dead
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a delete object's directory."""

    part_id: str
    offset: int
    length: int
    crc32c: int
    dead: int

    def reference(self, delete_id: str, owner: str, began: float) -> Tombstone:
        """How a manifest names it, in the delete object of that id."""
        return Tombstone(
            delete_id=delete_id,
            owner=owner,
            offset=self.offset,
            length=self.length,
            crc32c=self.crc32c,
            dead=self.dead,
            began=began,
        )


def encode_tombstones(dead: Mapping[str, BitMap]) -> tuple[bytes, tuple[Entry, ...]]:
    """The bytes of a delete object, and where each part's bitmap lies in them."""
    bitmaps = []
    entries = []
    offset = _HEADER.size + _ENTRY.size * len(dead)
    for part_id, rows in sorted(dead.items()):
        data = _compact(rows).serialize()
        entries.append(Entry(part_id, offset, len(data), crc32c(data), len(rows)))
        bitmaps.append(data + bytes(-len(data) % _ALIGNMENT))
        offset += len(bitmaps[-1])
    directory = b"".join(
        _ENTRY.pack(entry.part_id.encode("ascii"), entry.offset, entry.length, entry.crc32c, entry.dead)
        for entry in entries
    )
    header = _HEADER.pack(MAGIC, FORMAT, len(entries), crc32c(directory))
    return b"".join((header, directory, *bitmaps)), tuple(entries)


def decode_directory(data: bytes, *, key: str) -> tuple[Entry, ...]:
    """What a delete object says of itself, for `verify`; readers go by the manifest instead."""

    def corrupt(why: str) -> StorageCorrupt:
        return StorageCorrupt(f"{key}: {why}", object=key, section="directory")

    if len(data) < _HEADER.size:
        raise corrupt("too short for a delete object")
    magic, version, count, checksum = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise corrupt("not a delete object")
    if version != FORMAT:
        raise unsupported_format("delete object", version, FORMAT, key=key, section="directory")
    if any(data[_HEADER_FIELDS : _HEADER.size]):
        raise corrupt("padding is not zero")
    end = _HEADER.size + count * _ENTRY.size
    if end > len(data):
        raise corrupt("directory is cut short")
    directory = data[_HEADER.size : end]
    if crc32c(directory) != checksum:
        raise corrupt("directory fails its checksum")
    entries = []
    for part_id, offset, length, crc, dead in _ENTRY.iter_unpack(directory):
        if offset < end or offset + length > len(data):
            raise corrupt("an entry points outside the object")
        try:
            name = part_id.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError as error:
            raise corrupt("an entry names no part") from error
        entries.append(Entry(name, offset, length, crc, dead))
    return tuple(entries)


def decode_tombstones(data: bytes, *, key: str) -> Iterator[tuple[Entry, BitMap]]:
    """All of a delete object: each bitmap with its line, in the order of their offsets, for `verify`.

    Raises
    ------
    StorageCorrupt
        At the first byte that is not as it was written; names the bitmap, or the directory.
    """
    entries = sorted(decode_directory(data, key=key), key=lambda entry: entry.offset)
    at = _HEADER.size + len(entries) * _ENTRY.size
    for entry in entries:
        section = f"bitmap at {entry.offset}"
        raw = data[entry.offset : entry.offset + entry.length]
        try:
            if crc32c(raw) != entry.crc32c:
                raise ValueError("fails its checksum")
            if not check_bitmap(raw, 1 << 32):
                raise ValueError("is malformed")
            rows = BitMap.deserialize(raw)
            if len(rows) != entry.dead:
                raise ValueError(f"has {len(rows)} rows instead of {entry.dead}")
            if entry.offset != at:
                raise ValueError(f"begins at {entry.offset}, not at {at}")
            at = entry.offset + entry.length + -entry.length % _ALIGNMENT
            if any(data[entry.offset + entry.length : at]) or at > len(data):
                raise ValueError("is not followed by zeros")
        except ValueError as error:
            raise StorageCorrupt(f"{key}: {section} {error}", object=key, section=section) from error
        yield entry, rows
    if at != len(data):
        raise StorageCorrupt(f"{key}: has {len(data)} bytes, not {at}", object=key, section="directory")


def write_tombstones(store: ObjectStore, owner: str, delete_id: str, data: bytes) -> None:
    """Put a delete object. Its id is new, so an object under it can only be ours, put by a lost answer."""
    key = delete_key(owner, delete_id)
    try:
        store.put_if_absent(key, data)
    except StorageConflict as error:
        if store.get(key).data != data:
            raise StorageCorrupt(
                f"{key}: another object has this new id", object=key, section="object"
            ) from error


def read_tombstone(store: ObjectStore, reference: Tombstone, *, n: int) -> BitMap:
    """The dead rows of a part of ``n`` rows, from the tombstone that its manifest entry names (R13).

    Everything that the manifest says of the bitmap is compared; `StorageCorrupt` names the object and
    the bitmap in it. The length is bounded before anything is read.
    """
    key = delete_key(reference.owner, reference.delete_id)
    section = f"bitmap at {reference.offset}"

    def corrupt(why: str) -> StorageCorrupt:
        return StorageCorrupt(f"{key}: {section} {why}", object=key, section=section)

    if reference.dead > n:
        raise corrupt(f"is said to have {reference.dead} dead rows of {n}")
    if not 0 < reference.length <= longest_bitmap(n):
        raise corrupt(f"cannot be {reference.length} bytes long for {n} rows")
    try:
        data = store.get_range(key, reference.offset, reference.length)
    except StorageCorrupt as error:
        raise corrupt("is cut short") from error
    if len(data) != reference.length:
        raise corrupt("is cut short")
    if crc32c(data) != reference.crc32c:
        raise corrupt("fails its checksum")
    if not check_bitmap(data, n):  # before the C library sees it, which would trust it
        raise corrupt(f"is malformed, or names a row beyond {n}")
    rows = BitMap.deserialize(data)
    if len(rows) != reference.dead:
        raise corrupt(f"has {len(rows)} rows instead of {reference.dead}")
    return rows


def longest_bitmap(n: int) -> int:
    """Bytes that a serialised bitmap of rows below ``n`` can take at most.

    A container of 65,536 rows takes up to 8 KiB, or 2 + 4 bytes a run where that is less, and 8 bytes
    of directory; the cookie and a flag a container come on top.
    """
    containers = -(-max(n, 1) // 65_536)
    return 16 + containers * (8 + 8_194 + 1)


class TombstoneCache:
    """Bitmaps that were read or written lately, bounded in bytes. Thread-safe.

    What it returns is shared: combine it (``a | b``), never change it.
    """

    def __init__(self, store: ObjectStore, *, max_bytes: int = 64 << 20) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._bytes = 0
        self._mutex = threading.Lock()
        self._kept: OrderedDict[Tombstone, BitMap] = OrderedDict()

    def dead(self, part: Part) -> BitMap:
        """The dead rows of ``part``, read and verified at most once while they are kept."""
        reference = part.tombstone
        if reference is None:
            return BitMap()
        with self._mutex:
            rows = self._kept.get(reference)
            if rows is not None:
                self._kept.move_to_end(reference)
                return rows
        rows = read_tombstone(self._store, reference, n=part.n)
        self.keep(reference, rows)
        return rows

    def holds(self, reference: Tombstone) -> bool:
        """Whether `dead` answers without a request."""
        with self._mutex:
            return reference in self._kept

    def keep(self, reference: Tombstone, rows: BitMap) -> None:
        """Remember what was just written, so that the next delete need not read it back."""
        with self._mutex:
            if reference in self._kept or reference.length > self._max_bytes:
                return
            self._kept[reference] = rows
            self._bytes += reference.length
            while self._bytes > self._max_bytes:
                dropped, _ = self._kept.popitem(last=False)
                self._bytes -= dropped.length


def _compact(rows: BitMap) -> BitMap:
    """A copy with runs where they are smaller: deletes of ranges are common."""
    copy = rows.copy()
    copy.run_optimize()
    return copy
