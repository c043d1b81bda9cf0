"""Reads a part: from a mapping where the store can give one, else by ranges through the page cache.

Every page is held against its checksum before this process first uses it; the checksums
themselves against the manifest. `StorageCorrupt` names object and section.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from vecstore import deadline
from vecstore.errors import NOT_JSON, StorageCorrupt
from vecstore.ext.ivf import record_layout
from vecstore.index.extents import list_bounds
from vecstore.index.recall import Calibration
from vecstore.index.rotation import Rotation
from vecstore.manifest.keys import part_key
from vecstore.manifest.model import Part
from vecstore.part.format import (
    ALIGN,
    HEAD,
    HEADER_BYTES,
    KEYS_A_PAGE,
    LIST_DTYPE,
    PAGE,
    aligned,
    page_bounds,
)
from vecstore.part.id_index import IdIndex
from vecstore.rows.columns import Keys
from vecstore.rows.directory import ColumnEntry, decode_directory
from vecstore.rows.packing import Texts
from vecstore.rows.soundness import check_entry
from vecstore.storage.base import ObjectStore, Stamp
from vecstore.storage.cache import Checked, Page, PageCache, ReadTrace
from vecstore.types import F32, U64, IdKind

Bytes = npt.NDArray[np.uint8]

RECORDS_AT_ONCE: Final = 32 << 20  # bytes of records that are read together, and held
PAGES_AT_ONCE: Final = 2_048  # of vectors
_RECORD: Final = struct.Struct("<II8xI")  # n, flags, padded_dim
_HAS_INT8, _HAS_BLOCKS, _HAS_U64_IDS = 1, 2, 4
_VECTOR_DTYPES: Final[dict[str, Literal["f4", "f2"] | None]] = {"fp32": "f4", "fp16": "f2", "none": None}


@dataclass(frozen=True, slots=True)
class Gathered:
    """Addresses of things read from a part; valid as long as this object lives.

    Attributes
    ----------
    addresses
        u64[m].
    keep
        What owns the memory.
    """

    addresses: U64
    keep: object


@dataclass(frozen=True, slots=True)
class _Head:
    """The sections that come first, as one page: what verifies it lies in itself and in the manifest."""

    reader: PartReader
    start: int
    length: int
    crc32c: int

    def check(self, key: str, data: Bytes) -> None:  # noqa: ARG002
        self.reader._verify_head(data)

    def section_at(self, offset: int) -> str:
        return self.reader._section_at(offset)


@dataclass(slots=True)  # not frozen, which takes three times as long to make: a cold search makes hundreds
class _Record:
    """A record as a page: what it says of itself is held against the table of lists when it is read."""

    reader: PartReader
    number: int
    start: int
    length: int
    crc32c: int

    def check(self, key: str, data: Bytes) -> None:  # noqa: ARG002
        if crc32c(data.data) != self.crc32c:
            raise self.reader.corrupt("records", "fails its checksum", offset=self.start)
        self.reader._check_record(self.number, data.data)

    def section_at(self, offset: int) -> str:  # noqa: ARG002
        return "records"


class PartReader:
    """One part of one namespace. Safe to share between threads.

    Attributes
    ----------
    lists
        The table of lists, `LIST_DTYPE`[K].
    list_rows
        i64[K].
    columns
        The entries of the columns that it holds, by `Attribute.id`.
    dictionaries
        Of a mapped part, those that filters have decoded.
    stamp
        Of a mapped part: what changes when somebody writes to it, so that what was verified may not hold.
    ready
        u64[K]: the addresses of the records that were verified and stay where they are, 0 for the
        others. None where none do.
    """

    stamp: Stamp | None = None
    ready: U64 | None = None

    def __init__(
        self,
        store: ObjectStore,
        cache: PageCache,
        entry: Part,
        *,
        dim: int,
        padded_dim: int,
        id_kind: IdKind,
        trace: ReadTrace,
    ) -> None:
        self.entry = entry
        self.key = part_key(entry.owner, entry.id)
        self.dim = dim
        self.padded_dim = padded_dim
        self.id_kind = id_kind
        self._store = store
        self._cache = cache
        self._check_sections()
        self._map = self._open_map()
        head = self._verify_head(self._read_head(trace))
        self.list_rows = self.lists["rows"].astype(np.int64)
        self.first_rows = self.lists["first_row"].astype(np.int64)
        self.first_blocks = self.lists["first_block"].astype(np.int64)
        self._check_lists()
        self._fence = head["id_fence"].view("<u8")[: -(-entry.n // KEYS_A_PAGE)].astype(np.uint64)
        self.cells: F32 | None = None
        if "cells" in head:
            if entry.sections["cells"].length % (4 * padded_dim):
                raise self.corrupt("cells", f"does not hold rows of {padded_dim} numbers")
            self.cells = head["cells"].view("<f4").reshape(-1, padded_dim)
            self.cell_lists = head["cell_lists"].view("<u4")[: len(self.cells) + 1]
            self.centroid_codes = head["centroid_codes"]
            self._check_cells()
        self.calibration = self._read_calibration(head.get("calibration"))
        self.columns = self._read_directory(head.get("columns"))
        self.dictionaries: dict[str, Texts | Keys] | None = {} if self._map is not None else None
        if self._map is not None:
            self._verified = {n: np.zeros(len(b) - 1, dtype=np.bool_) for n, b in self._bounds.items()}
            self._whole: Bytes = np.frombuffer(self._map, dtype=np.uint8)
            base = self._whole.ctypes.data
            self._base = base
            records = entry.sections["records"]
            self._record_addresses: U64 = self.lists["offset"].astype(np.uint64) + np.uint64(
                base + records.offset
            )
            self.ready = np.zeros(entry.k, dtype=np.uint64)
        elif cache.on_disk:
            self.ready = np.zeros(entry.k, dtype=np.uint64)
            self._staying: dict[int, Bytes] = {}  # what `ready` points to

    @property
    def mapped(self) -> bool:
        """Whether reads come from memory that needs no request."""
        return self._map is not None

    @property
    def crowd(self) -> int:
        """Rows among which those of the part were found when it was measured (`Calibration.rows`)."""
        return self.entry.n if self.calibration is None else max(self.entry.n, self.calibration.rows)

    @property
    def index(self) -> IdIndex:
        """Where the ids of the part are."""
        return IdIndex(self, self._fence)

    def with_entry(self, entry: Part) -> PartReader:
        """The same part under a manifest line with other tombstones.

        `StorageCorrupt` if the line is of another object.
        """
        if _object_of(entry) != _object_of(self.entry):
            raise StorageCorrupt(
                f"{self.key}: two manifests tell of it in two ways", object=self.key, section="manifest"
            )
        other = copy(self)
        other.entry = entry
        return other

    def aside(self) -> PartReader:
        """The same part read past the caches of this process, for a scan that they should not hold."""
        other = copy(self)
        other._cache = PageCache(0)
        return other

    # -- opening ---------------------------------------------------------------------------

    def _open_map(self) -> memoryview | None:
        self.stamp = self._store.stamp(self.key)
        view = self._store.map(self.key)
        if view is not None and len(view) != self.entry.bytes:
            raise self.corrupt(
                self._section_at(len(view)), f"object has {len(view)} bytes, not {self.entry.bytes}"
            )
        return view

    def _section_at(self, offset: int) -> str:
        """The section that holds a byte; past all of them, the footer."""
        for name, section in self.entry.sections.items():
            if section.offset <= offset < section.offset + section.length:
                return name
        return "footer"

    def _check_sections(self) -> None:
        """Kernels go by addresses: every array must be as long as the part's rows and lists make it."""
        entry, sections = self.entry, self.entry.sections
        for name, section in sections.items():
            if section.offset % ALIGN or section.length % ALIGN or section.offset < HEADER_BYTES:
                raise self.corrupt(name, "does not begin or end where a section may")
            if section.offset + section.length > entry.bytes:
                raise self.corrupt(name, "ends beyond the object")
        sizes = {
            "lists": LIST_DTYPE.itemsize * entry.k,
            "id_keys": 8 * entry.n,
            "id_rows": 4 * entry.n,
            "id_fence": 8 * -(-entry.n // KEYS_A_PAGE),
        }
        if self.vector_dtype is not None:
            sizes["vectors"] = self._vector_bytes * entry.n
        for name, size in sizes.items():
            if name not in sections or sections[name].length != aligned(size):
                raise self.corrupt(name, f"does not hold what {entry.n} rows in {entry.k} lists need")
        for name in ("records", "id_filter", "checksums", *({"columns", "calibration"} & sections.keys())):
            if name not in sections or not sections[name].length:
                raise self.corrupt(name, "is missing, or empty")
        if not {"cells", "cell_lists", "centroid_codes"} & sections.keys():
            if entry.k != 1:
                raise self.corrupt("cells", f"is missing, of a part of {entry.k} lists")
        elif not {"cells", "cell_lists", "centroid_codes"} <= sections.keys():
            raise self.corrupt("cells", "is there without its lists and their codes, or they without it")

    def _head_bounds(self) -> tuple[int, int]:
        """Where the sections lie that are needed first, side by side; checks that they are named."""
        sections = self.entry.sections
        names = [name for name in HEAD if name in sections]
        start = min(sections[name].offset for name in names)
        return start, max(sections[name].offset + sections[name].length for name in names)

    def _read_head(self, trace: ReadTrace) -> Bytes:
        start, stop = self._head_bounds()
        if self._map is not None:
            return np.frombuffer(self._map[start:stop], dtype=np.uint8)
        head = _Head(self, start, stop - start, self.entry.checksums_crc32c)
        return self._cache.read(self._store, self.key, [head], trace)[0]

    def _verify_head(self, data: Bytes) -> dict[str, Bytes]:
        """The sections of the head, held against the manifest; from here on pages can be verified."""
        sections, (start, _) = self.entry.sections, self._head_bounds()
        head: dict[str, Bytes] = {
            n: data[sections[n].offset - start :][: sections[n].length] for n in HEAD if n in sections
        }
        crcs = head["checksums"]
        if crc32c(crcs.data) != self.entry.checksums_crc32c:
            raise self.corrupt("checksums", "fails the checksum that the manifest names")
        self._crcs = crcs.view("<u4")
        self._bounds: dict[str, npt.NDArray[np.int64]] = {}
        self._first_page: dict[str, int] = {}
        self.lists = self._plan_pages(head)
        for name in head:
            if name != "checksums":
                self._verify_bytes(name, head[name])
        return head

    def _plan_pages(self, head: dict[str, Bytes]) -> npt.NDArray[Any]:
        """Page bounds of every section, in the order of their checksums; returns the table of lists."""
        lists = head["lists"].view(LIST_DTYPE)[: self.entry.k]
        number = 0
        in_order = sorted(self.entry.sections.items(), key=lambda item: item[1].offset)
        least = sum(section.length // PAGE for name, section in in_order if name != "records")
        if least > len(self._crcs):  # before there is room made for so many
            raise self.corrupt("checksums", f"holds fewer than {least} checksums")
        for name, section in in_order:
            if name == "checksums":
                continue
            if name == "records":
                # The table of lists is verified below, before anything is read through it.
                bounds = page_bounds(name, section.length, lists)
            else:
                bounds = page_bounds(name, section.length, None)
            self._bounds[name] = bounds
            self._first_page[name] = number
            number += len(bounds) - 1
        if number > len(self._crcs):
            raise self.corrupt("checksums", f"holds fewer than {number} checksums")
        return lists

    def _verify_bytes(self, name: str, data: Bytes) -> None:
        bounds, first = self._bounds[name], self._first_page[name]
        for page in range(len(bounds) - 1):
            if crc32c(data[bounds[page] : bounds[page + 1]].data) != self._crcs[first + page]:
                raise self.corrupt(name, "fails its checksum", offset=int(bounds[page]))

    def _check_lists(self) -> None:
        """The kernels trust the table, so it must describe memory that exists."""
        entry, records = self.entry, self.entry.sections["records"]
        lengths = self.lists["length"].astype(np.int64)
        blocks = -(-self.list_rows // 32)
        coded, ids = "cells" in entry.sections, 4 if self.id_kind == "string" else 8
        shortest = HEADER_BYTES + self.padded_dim + ids * self.list_rows
        if coded:
            shortest += blocks * (4 * self.padded_dim + 384)
        sound = (
            int(self.list_rows.sum()) == entry.n
            and int(lengths.sum()) == records.length
            and np.array_equal(self.lists["offset"].astype(np.int64), np.cumsum(lengths) - lengths)
            and np.array_equal(self.first_rows, np.cumsum(self.list_rows) - self.list_rows)
            and np.array_equal(self.first_blocks, np.cumsum(blocks) - blocks)
            and not (lengths % ALIGN).any()
            and not (lengths < shortest).any()
        )
        if not sound:
            raise self.corrupt("lists", "does not match the manifest's rows and sections")
        # Where ids begin behind int8 rows, which there have to be where there are codes, or no vectors.
        plain = HEADER_BYTES + self.padded_dim + (blocks * (4 * self.padded_dim + 384) if coded else 0)
        with_int8 = -(-(plain + self.list_rows * (self.padded_dim + 8)) // ALIGN) * ALIGN
        fits = lengths - ids * self.list_rows
        may_lack = not coded and self.vector_dtype is not None
        self._room_for_ids = fits >= with_int8, (fits >= plain) & may_lack

    def _check_records(self, numbers: npt.NDArray[np.int64]) -> None:
        """Of a mapped part, once their checksums were right, and before anything else is read of them."""
        if self._map is None:
            raise AssertionError("only a mapped part is verified in place")
        words = np.frombuffer(self._map, dtype="<u4", count=len(self._map) // 4)
        at = (self.lists["offset"][numbers].astype(np.int64) + self.entry.sections["records"].offset) // 4
        good = self._are_records(numbers, words[at], words[at + 1], words[at + 4])
        if not good.all():
            raise self._other_record(int(numbers[np.argmin(good)]))

    def _check_record(self, number: int, record: memoryview) -> None:
        """The same of one record: NumPy takes ten times as long for a single one."""
        n, flags, width = _RECORD.unpack_from(record)
        room = self._room_for_ids[0 if flags & _HAS_INT8 else 1]
        if not (
            n == self.list_rows[number]
            and width == self.padded_dim
            and flags & (_HAS_BLOCKS | _HAS_U64_IDS) == self._kind
            and room[number]
        ):
            raise self._other_record(number)

    @property
    def _kind(self) -> int:
        """What the flags of a record say of its blocks and its ids."""
        return (0 if self.cells is None else _HAS_BLOCKS) | (0 if self.id_kind == "string" else _HAS_U64_IDS)

    def _are_records(self, numbers: Any, n: Any, flags: Any, width: Any) -> Any:
        """Whether records say of themselves what they can be: that decides where kernels read in them."""
        with_int8, without = self._room_for_ids
        return (
            (n == self.list_rows[numbers])
            & (width == self.padded_dim)
            & (flags & (_HAS_BLOCKS | _HAS_U64_IDS) == self._kind)
            & np.where(flags & _HAS_INT8, with_int8[numbers], without[numbers])
        )

    def _other_record(self, number: int) -> StorageCorrupt:
        return self.corrupt("records", f"has another record than the table says of list {number}")

    def _check_cells(self) -> None:
        sizes = np.diff(self.cell_lists.astype(np.int64))
        blocks = int((-(-sizes // 32)).sum())
        if (
            self.cells is None
            or not len(self.cells)
            or not np.isfinite(self.cells).all()
            or len(self.cell_lists) != len(self.cells) + 1
            or int(self.cell_lists[0]) != 0
            or int(self.cell_lists[-1]) != self.entry.k
            or bool((sizes < 1).any())
            or len(self.centroid_codes) != blocks * (4 * self.padded_dim + 384)
        ):
            raise self.corrupt("cell_lists", "does not match the lists and their codes")

    def _read_calibration(self, data: Bytes | None) -> Calibration | None:
        if data is None:
            return None
        size = int(data[:8].view("<u8")[0])
        try:
            found = msgspec.json.decode(data[8 : 8 + size].tobytes(), type=Calibration)
        except NOT_JSON as error:
            raise self.corrupt("calibration", f"malformed: {error}") from error
        problem = found.contradiction(self.entry.k)
        if problem is not None:
            raise self.corrupt("calibration", f"malformed: {problem}")
        return found

    def _read_directory(self, data: Bytes | None) -> dict[int, ColumnEntry]:
        ids = self.entry.columns
        if data is None or not isinstance(ids, tuple):
            return {}
        size = int(data[:8].view("<u8")[0])
        try:
            found = decode_directory(data[8 : 8 + size].tobytes())
        except NOT_JSON as error:
            raise self.corrupt("columns", f"malformed: {error}") from error
        columns = dict(zip(ids, found.values(), strict=False))
        if not len(columns) == len(ids) == len(found):
            raise self.corrupt(
                "columns", f"holds {len(found)} columns, of which the manifest names {len(ids)}"
            )
        section = self.entry.sections.get("attributes")
        most = 0 if section is None else section.length
        for name, entry in found.items():
            try:
                check_entry(entry, self.entry.n, most)
            except ValueError as error:
                raise self.corrupt("columns", f"column {name!r} {error}", attribute=name) from error
        return columns

    def corrupt(self, section: str, why: str, **details: Any) -> StorageCorrupt:
        """The error that says what is wrong with a section; to be raised."""
        return StorageCorrupt(
            f"{self.key}: section {section!r} {why}", object=self.key, section=section, **details
        )

    # -- pages -----------------------------------------------------------------------------

    def _verify_mapped(self, name: str, pages: npt.NDArray[np.int64]) -> None:
        verified = self._verified[name]
        missing = pages[~verified[pages]]
        if not len(missing):
            return
        if self._map is None:
            raise AssertionError("only a mapped part is verified in place")
        bounds, first = self._bounds[name], self._first_page[name]
        start = self.entry.sections[name].offset
        for page in missing.tolist():
            data = self._map[start + int(bounds[page]) : start + int(bounds[page + 1])]
            if crc32c(data) != self._crcs[first + page]:
                raise self.corrupt(name, "fails its checksum", offset=int(bounds[page]))
            if name != "records":
                verified[page] = True
        if name == "records":
            self._check_records(missing)
            verified[missing] = True
        if name == "records" and self.ready is not None:
            self.ready[missing] = self._record_addresses[missing]

    def _pages(self, name: str, numbers: Sequence[int], trace: ReadTrace) -> list[Bytes]:
        """Verified pages of a section; from the mapping without a copy."""
        if self._map is not None:
            bounds, start = self._bounds[name], self.entry.sections[name].offset
            self._verify_mapped(name, np.asarray(numbers, dtype=np.int64))
            return [
                np.frombuffer(self._map[start + int(bounds[p]) : start + int(bounds[p + 1])], dtype=np.uint8)
                for p in numbers
            ]
        return self._cache.read(self._store, self.key, self._wanted(name, numbers), trace)

    def pages_of(self, wanted: Mapping[str, Sequence[int]], trace: ReadTrace) -> dict[str, list[Bytes]]:
        """Verified pages of several sections, fetched side by side."""
        if self._map is not None:
            return {name: self._pages(name, numbers, trace) for name, numbers in wanted.items()}
        pages = [page for name, numbers in wanted.items() for page in self._wanted(name, numbers)]
        found = iter(self._cache.read(self._store, self.key, pages, trace))
        return {name: list(islice(found, len(numbers))) for name, numbers in wanted.items()}

    def _wanted(self, name: str, numbers: Sequence[int]) -> Sequence[Checked]:
        at, bounds = np.asarray(numbers, dtype=np.int64), self._bounds[name]
        starts = (bounds[at] + self.entry.sections[name].offset).tolist()
        lengths = (bounds[at + 1] - bounds[at]).tolist()
        crcs = self._crcs[at + self._first_page[name]].tolist()
        if name == "records":
            return [
                _Record(self, *of_record)
                for of_record in zip(at.tolist(), starts, lengths, crcs, strict=True)
            ]
        return [Page(name, *of_page) for of_page in zip(starts, lengths, crcs, strict=True)]

    def page_numbers(self, name: str) -> range:
        """Numbers of all pages of a section."""
        return range(len(self._bounds[name]) - 1)

    def section(self, name: str, trace: ReadTrace) -> Bytes:
        """A whole section, verified."""
        pages = self._pages(name, self.page_numbers(name), trace)
        return pages[0] if len(pages) == 1 else np.concatenate(pages)

    # -- attributes ------------------------------------------------------------------------

    def attribute_bytes(self, start: int, end: int, trace: ReadTrace) -> Bytes:
        """Verified bytes of the data of columns, from one offset to another."""
        if start >= end:
            return np.empty(0, dtype=np.uint8)
        first, last = start // PAGE, (end - 1) // PAGE
        if self._map is not None:
            if b"\0" in self._verified["attributes"][first : last + 1].tobytes():  # half as long as `all`
                self._verify_mapped("attributes", np.arange(first, last + 1))
            at = self.entry.sections["attributes"].offset
            return self._whole[at + start : at + end]
        pages = self._pages("attributes", range(first, last + 1), trace)
        found = pages[0] if len(pages) == 1 else np.concatenate(pages)
        return found[start - first * PAGE : end - first * PAGE]

    def fetch_attributes(self, spans: Sequence[tuple[int, int]], trace: ReadTrace) -> None:
        """Have these bytes in the cache; what is missing comes in one trip."""
        if self._map is None:
            wanted = {page for s, e in spans if s < e for page in range(s // PAGE, (e - 1) // PAGE + 1)}
            if wanted:
                self._pages("attributes", sorted(wanted), trace)

    # -- what a search needs ---------------------------------------------------------------

    def records(self, lists: npt.NDArray[np.int32], trace: ReadTrace) -> Gathered:
        """The verified records of lists; u64[m] addresses."""
        if self._map is not None:
            if not self._verified["records"][lists].all():
                self._verify_mapped("records", lists.astype(np.int64))
            return Gathered(self._record_addresses[lists], self._map)
        wanted = self._wanted("records", lists.tolist())
        pages = self._cache.read_held(self._store, self.key, wanted, trace)
        addresses = np.array([page.data.ctypes.data for page in pages], dtype=np.uint64)
        if self.ready is not None:
            for number, address, page in zip(lists.tolist(), addresses, pages, strict=True):
                # From its second use on, which the disk cache has noted: see docs/decisions/0013.
                if page.stays:
                    self._staying[number] = page.data
                    self.ready[number] = address
        return Gathered(addresses, pages)

    def lacks(self, lists: npt.NDArray[np.int32]) -> int:
        """How many of these lists are in no cache, of a part that is not mapped."""
        return self.lacks_pages("records", lists.tolist())

    def lacks_pages(self, name: str, numbers: Sequence[int]) -> int:
        """How many of these pages of a section are in no cache, of a part that is not mapped."""
        return self._cache.lacks(self._store, self.key, self._wanted(name, numbers))

    @property
    def list_bounds(self) -> npt.NDArray[np.int64]:
        """i64[K + 1]: where the records of lists begin in their section, and the last one's end."""
        return list_bounds(self.lists)

    @property
    def vector_dtype(self) -> Literal["f4", "f2"] | None:
        """``"f4"`` or ``"f2"``; None if the part keeps no vectors."""
        return _VECTOR_DTYPES[self.entry.vectors]

    def mapped_vectors(self) -> tuple[int, npt.NDArray[np.uint8]]:
        """Address of the vectors of a mapped part, and which of their pages were verified, u8[pages]."""
        return self._base + self.entry.sections["vectors"].offset, self._verified["vectors"].view(np.uint8)

    def vectors(self, rows: npt.NDArray[np.int64], trace: ReadTrace) -> Gathered:
        """The vectors of rows as given, one after another at each address."""
        size = self._vector_bytes
        if self._map is not None:
            first, last = rows * size // PAGE, (rows * size + size - 1) // PAGE
            spans = (
                [first, last] if size <= PAGE else [first + i for i in range(int((last - first).max()) + 1)]
            )
            self._verify_mapped("vectors", np.unique(np.concatenate(spans)))
            start = self._base + self.entry.sections["vectors"].offset
            return Gathered((rows * size + start).astype(np.uint64), self._map)
        data = self._gather_vectors(rows, trace)
        step = np.arange(len(rows), dtype=np.uint64) * np.uint64(size)
        return Gathered(step + np.uint64(data.ctypes.data), data)

    @property
    def _vector_bytes(self) -> int:
        if self.vector_dtype is None:
            raise AssertionError("the part keeps no vectors")
        return self.dim * np.dtype(self.vector_dtype).itemsize

    def _gather_vectors(self, rows: npt.NDArray[np.int64], trace: ReadTrace) -> Bytes:
        size = self._vector_bytes
        out = np.empty((len(rows), size), dtype=np.uint8)
        order, step = np.argsort(rows, kind="stable"), max(1, PAGES_AT_ONCE // (size // PAGE + 2))
        for start in range(0, len(rows), step):
            deadline.check()
            places = order[start : start + step]
            firsts = (rows[places] * size).tolist()
            needed = sorted({p for at in firsts for p in range(at // PAGE, (at + size - 1) // PAGE + 1)})
            pages = dict(zip(needed, self._pages("vectors", needed, trace), strict=True))
            for i, at in zip(places.tolist(), firsts, strict=True):
                filled = 0
                while filled < size:
                    page, inside = divmod(at + filled, PAGE)
                    some = pages[page][inside : inside + size - filled]
                    out[i, filled : filled + len(some)] = some
                    filled += len(some)
        return out

    def all_vectors(self, trace: ReadTrace) -> Gathered:
        """All vectors of a small part, contiguous, at one address: u64[1]."""
        if self._map is not None:
            whole = np.arange(len(self._bounds["vectors"]) - 1, dtype=np.int64)
            if not self._verified["vectors"].all():
                self._verify_mapped("vectors", whole)
            return Gathered(
                np.array([self._base + self.entry.sections["vectors"].offset], dtype=np.uint64), self._map
            )
        data = self.section("vectors", trace)
        return Gathered(np.array([data.ctypes.data], dtype=np.uint64), data)

    # -- rows ------------------------------------------------------------------------------

    def read_vectors(self, rows: npt.NDArray[np.int64], trace: ReadTrace) -> F32 | None:
        """f32[m, dim] as stored, or None if the part keeps none."""
        if self.vector_dtype is None:
            return None
        if self._map is not None:
            self.vectors(rows, trace)  # verifies
            section = self.entry.sections["vectors"]
            whole = np.frombuffer(
                self._map, dtype=self.vector_dtype, count=self.entry.n * self.dim, offset=section.offset
            )
            return whole.reshape(-1, self.dim)[rows].astype(np.float32)
        data = self._gather_vectors(rows, trace)
        return data.view(self.vector_dtype).reshape(len(rows), self.dim).astype(np.float32)

    def scan_vectors(self, step: int, trace: ReadTrace) -> Iterator[F32]:
        """All vectors as stored, f32[m, dim] of at most ``step`` rows at a time; not without any."""
        size, dtype = self._vector_bytes, np.dtype(self.vector_dtype)
        for start in range(0, self.entry.n, step):
            stop = min(self.entry.n, start + step)
            first = start * size // PAGE
            pages = self._pages("vectors", range(first, -(-stop * size // PAGE)), trace)
            data = pages[0] if len(pages) == 1 else np.concatenate(pages)
            rows = data[start * size - first * PAGE : stop * size - first * PAGE]
            yield rows.view(dtype).reshape(-1, self.dim).astype(np.float32, copy=False)

    def approximate_vectors(
        self, rows: npt.NDArray[np.int64], rotation: Rotation, mean: F32 | None, trace: ReadTrace
    ) -> F32:
        """f32[m, dim] of a part that keeps no vectors, from its int8 rows; under cosine unit vectors.

        Parameters
        ----------
        rotation, mean
            What the part was encoded with.
        """
        lists = self.lists_of(rows)
        needed, where = np.unique(lists, return_inverse=True)
        pages = self._pages("records", needed.tolist(), trace)
        z = np.empty((len(rows), self.padded_dim), dtype=np.float32)
        # The rotation is orthogonal: of a matrix whose rows are the images of the axes, the inverse
        # is the transpose.
        turned = rotation.apply(np.eye(self.dim, dtype=np.float32))
        with np.errstate(over="ignore", invalid="ignore"):  # of a part that somebody forged
            for i, page in enumerate(pages):
                mine = np.flatnonzero(where == i)
                centroid, residuals = self._residuals(page, int(needed[i]))
                z[mine] = centroid + residuals[rows[mine] - self.first_rows[needed[i]]]
            vectors: F32 = z @ turned.T
            return vectors if mean is None else vectors + mean

    def _residuals(self, record: Bytes, number: int) -> tuple[F32, F32]:
        """The centroid of a list, f32[Dp], and the residuals of its rows, f32[n, Dp], both from int8."""
        n, width = int(self.list_rows[number]), self.padded_dim
        if not int(record[4:8].view("<u4")[0]) & 1:
            raise self.corrupt("records", "keeps neither vectors nor int8 rows")
        _, at, factors, _ = record_layout(n, width, self.cells is not None, True)
        centroid = record[64 : 64 + width].view(np.int8) * record[8:12].view("<f4")
        scales = record[factors : factors + 8 * n].view("<f4")[::2]
        return centroid, record[at : at + n * width].view(np.int8).reshape(n, width) * scales[:, None]

    def lists_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """i64[m]: the list that holds each row."""
        return np.searchsorted(self.first_rows, rows, side="right") - 1

    def record_pages(self, lists: npt.NDArray[np.int64], trace: ReadTrace) -> Iterator[Bytes]:
        """The verified records of lists, some of which are read at a time."""
        ends = np.cumsum(np.diff(self._bounds["records"])[lists])
        start, done = 0, 0
        while start < len(lists):
            stop = max(start + 1, int(np.searchsorted(ends, done + RECORDS_AT_ONCE, "right")))
            yield from self._pages("records", lists[start:stop].tolist(), trace)
            start, done = stop, int(ends[stop - 1])

    def ids_of(self, rows: npt.NDArray[np.int64], trace: ReadTrace) -> npt.NDArray[Any]:
        """u64[m] (with the part's base added) or object[m] of str."""
        lists = self.lists_of(rows)
        order = np.argsort(lists, kind="stable")
        needed, starts = np.unique(lists[order], return_index=True)
        out: npt.NDArray[Any] = np.empty(len(rows), dtype=object if self.id_kind == "string" else np.uint64)
        spans = np.split(order, starts)[1:]
        for i, (mine, page) in enumerate(zip(spans, self.record_pages(needed, trace), strict=True)):
            found = self.record_ids(page, int(needed[i]))
            out[mine] = found[rows[mine] - self.first_rows[needed[i]]]
        return out

    def record_ids(self, record: Bytes, number: int) -> npt.NDArray[Any]:
        """The ids of one list, in slot order."""
        n = int(self.list_rows[number])
        at = self._id_offset(n, record)
        if self.id_kind == "string":
            ends = record[at : at + 4 * n].view("<u4").astype(np.int64)
            if n and (at + 4 * n + int(ends.max()) > len(record) or (np.diff(ends) < 0).any()):
                raise self.corrupt("records", "ids end beyond their record")
            body = record[at + 4 * n :].tobytes()
            out = np.empty(n, dtype=object)
            start = 0
            try:
                for i, end in enumerate(ends.tolist()):
                    out[i] = body[start:end].decode()
                    start = end
            except UnicodeDecodeError as error:
                raise self.corrupt("records", f"has an id that is no text: {error}") from error
            return out
        return record[at : at + 8 * n].view("<u8").astype(np.uint64) + np.uint64(self.entry.id_base or 0)

    def _id_offset(self, n: int, record: Bytes) -> int:
        int8 = bool(int(record[4:8].view("<u4")[0]) & 1)
        return int(record_layout(n, self.padded_dim, self.cells is not None, int8)[3])

    def scan_ids(self, trace: ReadTrace, batch: int = 256) -> Iterable[npt.NDArray[Any]]:
        """All ids in row order, a batch of lists at a time."""
        for start in range(0, self.entry.k, batch):
            numbers = range(start, min(self.entry.k, start + batch))
            pages = self._pages("records", numbers, trace)
            yield np.concatenate([self.record_ids(p, i) for i, p in zip(numbers, pages, strict=True)])

    # -- the whole part --------------------------------------------------------------------

    def page_ends(self) -> Iterator[tuple[str, list[int], list[int]]]:
        """Every byte between header and footer: section by section, where its pages end, and their checksums.

        Raises
        ------
        StorageCorrupt
            Bytes lie outside of all sections.
        """
        at = HEADER_BYTES
        for name, section in sorted(self.entry.sections.items(), key=lambda item: item[1].offset):
            if section.offset != at:
                raise self.corrupt(name, f"begins at {section.offset}, not at {at}")
            at += section.length
            if name == "checksums":
                yield name, [at], [self.entry.checksums_crc32c]
                continue
            ends = self._bounds[name][1:] + section.offset
            first = self._first_page[name]
            yield name, ends.tolist(), self._crcs[first : first + len(ends)].tolist()

    def section_names(self) -> tuple[str, ...]:
        return tuple(self.entry.sections)

    def verify_section(self, name: str, trace: ReadTrace) -> None:
        """Read a whole section against its checksums."""
        if name == "checksums":
            return
        for page in self.page_numbers(name):
            self._pages(name, [page], trace)


def _object_of(entry: Part) -> tuple[object, ...]:
    """What a manifest says of the object itself, which never changes."""
    return entry.n, entry.k, entry.bytes, entry.vectors, entry.sections, entry.checksums_crc32c
