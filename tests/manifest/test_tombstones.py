"""Tombstones: what is written is what is read, and nothing else is ever served."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pyroaring import BitMap

from tests.manifest.helpers import NS, ScriptedStore
from vecstore.errors import StorageCorrupt
from vecstore.manifest.keys import delete_key
from vecstore.manifest.model import Part, Tombstone
from vecstore.manifest.tombstones import (
    TombstoneCache,
    decode_directory,
    encode_tombstones,
    longest_bitmap,
    read_tombstone,
    write_tombstones,
)

DELETE = "d" * 32
KEY = delete_key(NS, DELETE)
ROWS = {"a" * 32: BitMap([1, 5, 9]), "b" * 32: BitMap(range(100, 4000))}


def written(store: ScriptedStore, dead: dict[str, BitMap] | None = None) -> dict[str, Tombstone]:
    data, entries = encode_tombstones(ROWS if dead is None else dead)
    write_tombstones(store, NS, DELETE, data)
    return {
        e.part_id: Tombstone(
            delete_id=DELETE,
            owner=NS,
            offset=e.offset,
            length=e.length,
            crc32c=e.crc32c,
            dead=e.dead,
            began=0.0,
        )
        for e in entries
    }


def part(part_id: str, tombstone: Tombstone | None, n: int = 5000) -> Part:
    return Part(
        id=part_id,
        owner=NS,
        n=n,
        k=1,
        bytes=1,
        began=0.0,
        sections={},
        checksums_crc32c=0,
        tombstone=tombstone,
    )


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text("0123456789abcdef", min_size=32, max_size=32),
        st.sets(st.integers(0, 200_000), min_size=1, max_size=200),
        min_size=1,
        max_size=5,
    )
)
def test_every_bitmap_reads_back_from_its_range(dead: dict[str, set[int]]) -> None:
    store = ScriptedStore()
    references = written(store, {part_id: BitMap(rows) for part_id, rows in dead.items()})
    for part_id, rows in dead.items():
        assert read_tombstone(store, references[part_id], n=200_001) == BitMap(rows)
    directory = decode_directory(store.objects[KEY][0], key=KEY)
    assert {e.part_id: (e.offset, e.length, e.crc32c, e.dead) for e in directory} == {
        part_id: (r.offset, r.length, r.crc32c, r.dead) for part_id, r in references.items()
    }


def test_every_flipped_byte_of_a_bitmap_is_noticed_and_named() -> None:
    store = ScriptedStore()
    reference = written(store)["a" * 32]
    whole = store.objects[KEY][0]
    for i in range(reference.offset, reference.offset + reference.length):
        store._set(KEY, whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(StorageCorrupt) as caught:
            read_tombstone(store, reference, n=5000)
        assert caught.value.details == {"object": KEY, "section": f"bitmap at {reference.offset}"}


def test_a_truncated_object_is_noticed() -> None:
    store = ScriptedStore()
    reference = written(store)["b" * 32]
    store._set(KEY, store.objects[KEY][0][: reference.offset + 3])
    with pytest.raises(StorageCorrupt):
        read_tombstone(store, reference, n=5000)


def test_a_bitmap_swapped_for_another_of_the_object_is_noticed() -> None:
    store = ScriptedStore()
    references = written(store)
    one, other = references["a" * 32], references["b" * 32]
    with pytest.raises(StorageCorrupt):
        read_tombstone(store, replace(one, offset=other.offset, length=other.length), n=5000)


@pytest.mark.parametrize(
    ("fields", "n", "match"),
    [
        ({"dead": 2}, 5000, "instead of 2"),
        ({}, 9, "names a row beyond 9"),
        ({"dead": 6000}, 5000, "dead rows"),
        ({"length": 1 << 40}, 5000, "bytes long"),
        ({"length": 0}, 5000, "bytes long"),
    ],
)
def test_what_the_manifest_says_of_a_bitmap_is_compared(fields: dict[str, Any], n: int, match: str) -> None:
    store = ScriptedStore()
    reference = replace(written(store)["a" * 32], **fields)
    with pytest.raises(StorageCorrupt, match=match):
        read_tombstone(store, reference, n=n)


def test_a_length_beyond_any_bitmap_is_refused_before_it_is_read() -> None:
    store = ScriptedStore()
    reference = replace(written(store)["a" * 32], length=longest_bitmap(5000) + 1)
    store.calls.clear()
    with pytest.raises(StorageCorrupt):
        read_tombstone(store, reference, n=5000)
    assert store.calls == []


@pytest.mark.parametrize("rows", [range(65_536), range(0, 65_536, 2), range(0, 1_000_000, 3), [999_999]])
def test_no_bitmap_is_longer_than_its_bound(rows: Any) -> None:
    _, entries = encode_tombstones({"a" * 32: BitMap(rows)})
    assert entries[0].length <= longest_bitmap(max(rows) + 1)


def bitmap(*containers: tuple[int, int, bytes]) -> bytes:
    """Containers without runs: key, rows that it says it has, what it holds."""
    heads = b"".join(struct.pack("<HH", key, rows - 1) for key, rows, _ in containers)
    return (
        struct.pack("<II", 12_346, len(containers))
        + heads
        + bytes(4 * len(containers))
        + b"".join(body for _, _, body in containers)
    )


def rows(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def runs(*spans: tuple[int, int], card: int) -> bytes:
    """One container of runs."""
    head = struct.pack("<HHBHH", 12_347, 0, 1, 0, card - 1)
    return head + struct.pack("<H", len(spans)) + b"".join(struct.pack("<HH", *span) for span in spans)


@pytest.mark.parametrize(
    ("data", "dead"),
    [
        (b"", 1),
        (b"\xff" * 16, 1),
        (bitmap((0, 2, rows(5, 4))), 2),
        (bitmap((0, 2, rows(5, 5))), 2),
        (bitmap((1, 1, rows(5)), (0, 1, rows(5))), 2),
        (bitmap((0, 1, rows(5)), (0, 1, rows(6))), 2),
        (bitmap((0, 5_000, bytes(8_192))), 5_000),
        (bitmap((0, 5_000, bytes(100))), 5_000),
        (struct.pack("<II", 12_346, 0xFFFF_FFFF), 1),
        (runs((5, 3), (6, 2), card=7), 7),
        (runs((5, 3), card=9), 4),
        (runs((65_000, 1_000), card=1_001), 1_001),
        (runs((5, 3), card=4)[:-2], 4),
    ],
)
def test_what_is_no_roaring_bitmap_does_not_reach_the_library(data: bytes, dead: int) -> None:
    """With right checksums: the library trusts the order and the number of what it has read."""
    store = ScriptedStore()
    store._set(KEY, data)
    reference = Tombstone(
        delete_id=DELETE, owner=NS, offset=0, length=len(data), crc32c=crc32c(data), dead=dead, began=0.0
    )
    with pytest.raises(StorageCorrupt) as caught:
        read_tombstone(store, reference, n=200_000)
    assert caught.value.details["object"] == KEY


def test_a_directory_that_is_damaged_is_refused() -> None:
    data, _ = encode_tombstones(ROWS)
    for i in range(64 + 2 * 64):
        with pytest.raises(StorageCorrupt):
            decode_directory(data[:i] + bytes([data[i] ^ 0x55]) + data[i + 1 :], key=KEY)
    for cut in (0, 10, 63, 64, 100):
        with pytest.raises(StorageCorrupt):
            decode_directory(data[:cut], key=KEY)


def test_writing_again_after_a_lost_answer_is_no_error_but_another_object_is() -> None:
    store = ScriptedStore()
    data, _ = encode_tombstones(ROWS)
    write_tombstones(store, NS, DELETE, data)
    write_tombstones(store, NS, DELETE, data)
    with pytest.raises(StorageCorrupt):
        write_tombstones(store, NS, DELETE, data + b"x")


def test_the_cache_reads_a_bitmap_once_and_stays_within_its_bytes() -> None:
    store = ScriptedStore()
    references = written(store)
    parts = [part(part_id, reference) for part_id, reference in references.items()]
    cache = TombstoneCache(store, max_bytes=sum(r.length for r in references.values()))
    for _ in range(2):
        assert [cache.dead(p) for p in parts] == list(ROWS.values())
    assert store.count("get_range") == 2
    small = TombstoneCache(store, max_bytes=references["a" * 32].length)
    for p in (*parts, *parts):
        assert small.dead(p) == ROWS[p.id]
    assert small._bytes <= small._max_bytes
    assert cache.dead(part("c" * 32, None)) == BitMap()
