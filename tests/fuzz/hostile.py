"""A store taken apart, changed, and put together again with every checksum right."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from crc32c import crc32c

from tests.fuzz import json_edits
from tests.fuzz.dice import Dice
from tests.fuzz.worlds import NS, World
from vecstore.manifest.keys import current_key
from vecstore.part.format import (
    ALIGN,
    FORMAT,
    HEADER_BYTES,
    LIST_DTYPE,
    MAGIC,
    PAGE,
    Footer,
    SectionEntry,
    padded,
    page_bounds,
    read_footer,
)
from vecstore.rows.packing import Packing, pack, unpack

_TAIL = struct.Struct("<QQIII28x8s")
_HEADER_FIELDS = 5  # of a record: n, flags, scale, squared norm, padded_dim
_JSON_SECTIONS = ("columns", "calibration")


@dataclass
class HostilePart:
    """A part as its sections, to be changed."""

    key: str
    line: dict[str, Any]  # of the manifest
    meta: dict[str, Any]
    sections: dict[str, bytearray]  # in the order of their offsets
    documents: dict[str, Any]  # of sections that are JSON
    required: dict[str, bool]

    @classmethod
    def open(cls, key: str, data: bytes, line: dict[str, Any]) -> HostilePart:
        footer = read_footer(data, key=key)
        names = sorted(footer.sections, key=lambda name: footer.sections[name].offset)
        sections = {
            n: bytearray(data[footer.sections[n].offset :][: footer.sections[n].length]) for n in names
        }
        documents = {}
        for name in _JSON_SECTIONS:
            if name in sections:
                size = struct.unpack_from("<Q", sections[name])[0]
                documents[name] = msgspec.json.decode(sections[name][8 : 8 + size])
        required = {n: footer.sections[n].required for n in names}
        return cls(key, line, footer.meta, sections, documents, required)

    def lay(self) -> None:
        """Sections one after another; the line of the manifest says where."""
        for name, document in self.documents.items():
            if name in self.sections:
                body = _encoded(document)
                self.sections[name] = bytearray(padded(struct.pack("<Q", len(body)) + body))
        at, table = HEADER_BYTES, {}
        for name, data in self.sections.items():
            data += bytes(-len(data) % ALIGN)
            table[name] = [at, len(data)]
            at += len(data)
        self.line["sections"] = table
        self.line["bytes"] = at  # the footer comes yet

    def sealed(self) -> bytes:
        """The object with the checksums that a reader wants who goes by the line of the manifest."""
        line: Any = self.line
        header = struct.pack("<8sI52x", MAGIC, FORMAT)
        body = bytearray(header)
        table: dict[str, SectionEntry] = {}
        for name, data in self.sections.items():
            table[name] = SectionEntry(len(body), len(data), self.required[name], -(-len(data) // PAGE))
            body += data
        crcs = np.array(_checksums(bytes(body), line), dtype="<u4").tobytes()
        where = _section(line, "checksums")
        if where is not None and 0 <= where[0] <= len(body):
            room = max(0, min(where[1], len(body) - where[0]))
            body[where[0] : where[0] + room] = crcs[:room].ljust(room, b"\0")
            line["checksums_crc32c"] = crc32c(bytes(body[where[0] : where[0] + room]))
        footer = msgspec.json.encode(Footer(FORMAT, table, self.meta))
        tail = _TAIL.pack(len(body), len(footer), crc32c(footer), crc32c(header), FORMAT, MAGIC)
        whole = bytes(body) + footer + tail
        if isinstance(line, dict) and line.get("bytes") == len(body):
            line["bytes"] = len(whole)
        return whole

    # -- changes ---------------------------------------------------------------------------

    def edit(self, dice: Dice) -> None:
        """Change one thing."""
        kind = dice.below(8)
        if kind == 0:
            self._resize(dice)
            return
        name = dice.of(list(self.sections))
        if kind == 1 and self.documents:
            json_edits.edit(self.documents[dice.of(list(self.documents))], dice)
        elif name in self.documents:
            json_edits.edit(self.documents[name], dice)
        elif kind == 2 and "attributes" in self.sections:
            self._edit_piece(dice)
        elif kind == 3 and "attributes" in self.sections:
            self._edit_texts(dice)
        elif kind in (4, 5) or name == "lists":
            self._edit_lists(dice)
        elif name == "records":
            self._edit_record(dice)
        else:
            poke(self.sections[name], 0, len(self.sections[name]), dice)

    def _resize(self, dice: Dice) -> None:
        name = dice.of(list(self.sections))
        data, kind = self.sections[name], dice.below(5)
        if kind == 0:
            del data[len(data) - min(len(data), ALIGN * (1 + dice.byte())) :]
        elif kind == 1:
            data += bytes(ALIGN * (1 + dice.byte()))
        elif kind == 2:
            del self.sections[name]
        elif kind == 3:
            self.sections[dice.of(("vectors", "attributes", "cells", "calibration", "columns", "extra"))] = (
                bytearray(data)
            )
            self.required.setdefault("extra", False)
            for known in self.sections:
                self.required.setdefault(known, True)
        else:
            self.sections[name] = bytearray(self.sections[dice.of(list(self.sections))])

    def _edit_lists(self, dice: Dice) -> None:
        lists = self.sections.get("lists", bytearray())
        count = len(lists) // LIST_DTYPE.itemsize
        if not count:
            return
        table = np.frombuffer(lists, dtype=LIST_DTYPE)
        entry, field = dice.below(count), dice.of(list(LIST_DTYPE.names or ()))
        bits = 8 * LIST_DTYPE[field].itemsize
        changed = dice.integer(int(table[entry][field])) % (1 << bits)
        table[field][entry] = changed
        if dice.below(2) and entry + 1 < count:  # what the next one has too much this one has too little
            table[field][entry + 1] = (int(table[field][entry + 1]) + dice.byte()) % (1 << bits)

    def _edit_record(self, dice: Dice) -> None:
        """Change the header of a record, or anything in it."""
        records, lists = self.sections["records"], self.sections.get("lists", bytearray())
        count = len(lists) // LIST_DTYPE.itemsize
        if not count:
            return
        entry = np.frombuffer(bytes(lists), dtype=LIST_DTYPE)[dice.below(count)]
        start, length = int(entry["offset"]), int(entry["length"])
        if start + 64 > len(records):
            return
        if dice.below(2):
            at = start + 4 * dice.below(_HEADER_FIELDS)
            old = struct.unpack_from("<I", records, at)[0]
            struct.pack_into("<I", records, at, dice.integer(old) % (1 << 32))
        else:
            poke(records, start, min(length, len(records) - start), dice)

    def _pieces(self, dice: Dice) -> tuple[dict[str, Any], str] | None:
        """The pieces of a column, and the name of one of them."""
        columns = self.documents.get("columns")
        if not isinstance(columns, dict) or not columns:
            return None
        column = columns[dice.of(list(columns))]
        pieces = column.get("pieces") if isinstance(column, dict) else None
        if not isinstance(pieces, dict) or not pieces:
            return None
        return pieces, dice.of(list(pieces))

    def _edit_piece(self, dice: Dice) -> None:
        found = self._pieces(dice)
        if found is None:
            return
        span = found[0][found[1]]
        try:
            poke(self.sections["attributes"], int(span[0]), int(span[1]), dice)
        except (TypeError, IndexError, ValueError):
            return

    def _edit_texts(self, dice: Dice) -> None:
        """Change what a block of texts holds once it is decompressed, or which blocks there are."""
        found = self._pieces(dice)
        if found is None or "blocks" not in found[0]:
            return
        pieces, data = found[0], self.sections["attributes"]
        try:
            spans = {name: pieces[name] for name in ("blocks", "block_ends")}
            packing = Packing(*spans["block_ends"][2])
            where = spans["block_ends"]
            packed = np.frombuffer(bytes(data[where[0] : where[0] + where[1]]), dtype=np.uint8)
            ends = unpack(packing, packed).tolist()
            start = spans["blocks"][0]
            blocks = [bytes(data[start + a : start + b]) for a, b in zip([0, *ends], ends, strict=False)]
            number = dice.below(len(blocks))
            raw = bytearray(zlib.decompress(blocks[number]))
        except (TypeError, IndexError, KeyError, ValueError, AttributeError, zlib.error):
            return
        if dice.below(4) == 0:
            raw += bytes(1 << 10) * dice.of((1, 64, 4096))
        else:
            poke(raw, 0, len(raw), dice)
        blocks[number] = zlib.compress(bytes(raw))
        packing, chunks = pack(np.cumsum([len(block) for block in blocks]))
        for name, body, how in (
            ("blocks", b"".join(blocks), None),
            ("block_ends", b"".join(chunks), list(msgspec.to_builtins(packing))),
        ):
            data += bytes(-len(data) % 8)
            pieces[name] = [len(data), len(body), how]
            data += body
        data += bytes(-len(data) % ALIGN)


class HostileStore:
    """A world, of which what is changed is taken apart."""

    def __init__(self, world: World) -> None:
        self.objects = dict(world.objects)
        self.manifest: Any = _manifest(world)
        self._before: list[Any] = _manifest(world)["parts"]
        self._lines: list[Any] = list(self.manifest["parts"])
        self._open: dict[int, HostilePart] = {}
        self._later: list[Callable[[], None]] = []  # changes of the manifest, once it says where sections lie

    def part(self, number: int) -> HostilePart:
        """A part, to be changed."""
        if number not in self._open:
            line = self._before[number]
            key = f"namespaces/{line['owner']}/parts/{line['id']}.part"
            self._open[number] = HostilePart.open(key, self.objects[key], self._lines[number])
        return self._open[number]

    def edit_part(self, dice: Dice) -> None:
        self.part(dice.below(len(self._lines))).edit(dice)

    def edit_line(self, dice: Dice) -> None:
        """Change what the manifest says of a part."""
        line, choice = dice.of(self._lines), Dice(dice.take(24))
        self._later.append(lambda: json_edits.edit(line, choice))

    def edit_manifest(self, dice: Dice) -> None:
        choice = Dice(dice.take(24))
        self._later.append(lambda: json_edits.edit(self.manifest, choice))

    def edit_tombstone(self, dice: Dice) -> None:
        """Change a bitmap, or put another in its place; its line says what it holds then."""
        lines = [line for line in self._lines if isinstance(line.get("tombstone"), dict)]
        if not lines:
            return
        tombstone = dice.of(lines)["tombstone"]
        key = f"namespaces/{tombstone['owner']}/deletes/{tombstone['delete_id']}.tomb"
        data = bytearray(self.objects[key])
        start, length = tombstone["offset"], tombstone["length"]
        kind = dice.below(4)
        if kind == 0:
            made = dice.take(1 + dice.below(64))
            data[start : start + length] = made
            length = len(made)
        elif kind == 1:
            length += dice.byte() - 128
        else:
            for _ in range(1 + dice.below(4)):
                poke(data, start, length, dice)
        tombstone["length"] = length
        tombstone["crc32c"] = crc32c(bytes(data[start : start + max(0, length)]))
        if dice.below(2):
            tombstone["dead"] = max(0, tombstone["dead"] + dice.byte() - 128)
        _sign_directory(data, start, tombstone)
        self.objects[key] = bytes(data)

    def put_together(self) -> dict[str, bytes]:
        """All objects, signed."""
        for part in self._open.values():
            part.lay()
            # How long the object is, its line has to say before it is changed itself.
            self.objects[part.key] = part.sealed()
        for change in self._later:
            change()
        for number, line in enumerate(self._lines):
            if number in self._open or line != self._before[number]:
                part = self.part(number)
                self.objects[part.key] = part.sealed()
        body = _encoded(self.manifest)
        self.objects[current_key(NS)] = b'{"crc32c":"%08x","manifest":%s}' % (crc32c(body), body)
        return self.objects


@cache
def _manifest_bytes(world_manifest: bytes) -> bytes:
    return bytes(msgspec.json.decode(world_manifest, type=dict[str, msgspec.Raw])["manifest"])


def _manifest(world: World) -> Any:
    return msgspec.json.decode(_manifest_bytes(world.manifest))


def _encoded(document: Any) -> bytes:
    """JSON of integers of any length, too."""
    try:
        return msgspec.json.encode(document)
    except (OverflowError, msgspec.MsgspecError):
        return json.dumps(document).encode()


def _sign_directory(data: bytearray, start: int, tombstone: dict[str, Any]) -> None:
    count = struct.unpack_from("<I", data, 12)[0]
    for at in range(64, 64 + 64 * count, 64):
        if struct.unpack_from("<Q", data, at + 32)[0] == start:
            length, dead = max(0, tombstone["length"]), tombstone["dead"] % (1 << 32)
            struct.pack_into("<QII", data, at + 40, length, tombstone["crc32c"], dead)
    struct.pack_into("<I", data, 16, crc32c(bytes(data[64 : 64 + 64 * count])))


def poke(data: bytearray, start: int, length: int, dice: Dice) -> None:
    """Change some bytes of a span."""
    if length <= 0 or start < 0 or start + length > len(data):
        return
    at, kind = start + dice.below(length), dice.below(6)
    room = start + length - at
    if kind == 0:
        data[at] ^= 1 << dice.below(8)
    elif kind == 1:
        size = min(room, 1 + dice.byte())
        data[at : at + size] = bytes([dice.byte()]) * size
    elif kind == 2:
        size = min(room, 1 + dice.below(16))
        data[at : at + size] = dice.take(size)
    elif kind == 3:
        size, source = min(room, 1 + dice.below(64)), start + dice.below(length)
        size = min(size, start + length - source)
        data[at : at + size] = data[source : source + size]
    else:
        width = dice.of((2, 4, 8))
        at -= (at - start) % width
        if at + width <= start + length:
            old = int.from_bytes(data[at : at + width], "little")
            data[at : at + width] = (dice.integer(old) % (1 << 8 * width)).to_bytes(width, "little")


def _section(line: Any, name: str) -> tuple[int, int] | None:
    try:
        offset, length = line["sections"][name][:2]
    except (TypeError, KeyError, ValueError):
        return None
    return (offset, length) if type(offset) is int and type(length) is int else None


def _checksums(body: bytes, line: Any) -> list[int]:
    """Of every page, as a reader who goes by the line of the manifest numbers them."""
    sections = line.get("sections") if isinstance(line, dict) else None
    if not isinstance(sections, dict):
        return []
    found = {name: span for name in sections if (span := _section(line, name)) is not None}
    where = found.get("lists")
    lists = None
    if where is not None and type(line.get("k")) is int:
        raw = body[max(0, where[0]) :][: max(0, where[1])]
        lists = np.frombuffer(raw[: len(raw) // 32 * 32], dtype=LIST_DTYPE)[: max(0, line["k"])]
    crcs: list[int] = []
    for name, (offset, length) in sorted(found.items(), key=lambda item: item[1][0]):
        if name == "checksums" or not 0 <= length <= 1 << 24 or offset < 0:
            continue
        bounds = page_bounds(name, length, lists if name == "records" else None).tolist()
        spans = ((max(0, offset + start), max(0, offset + stop)) for start, stop in pairwise(bounds))
        crcs += [crc32c(body[start:stop]) for start, stop in spans]
    return crcs
