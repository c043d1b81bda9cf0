"""Parts that hold some rows of another, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.core import RangeStore, clustered, generator
from tests.part.helpers import Stored, build, open_part, put, spec
from vecstore.part.reader import PartReader
from vecstore.part.subset import copy_rows, take_slots
from vecstore.rows.attributes import parse_attributes
from vecstore.rows.ids import parse_ids
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.storage.memory import MemoryStore

DIM = 24
N = 700
ROWS = clustered(generator(5), N, DIM)
STORES = ("fp32", "fp16", "none")


def stored(store: MemoryStore, *, strings: bool, **settings: Any) -> PartReader:
    ids = [f"row {i}" for i in range(N)] if strings else list(range(5, N + 5))
    made = build(ROWS, parse_ids(ids), spec(DIM, **settings))
    put(store, made)
    return open_part(store, made)


def open_anew(store: MemoryStore, reader: PartReader) -> PartReader:
    """With nothing in its cache."""
    return PartReader(
        store,
        PageCache(64 << 20),
        reader.entry,
        dim=DIM,
        padded_dim=reader.padded_dim,
        id_kind=reader.id_kind,
        trace=ReadTrace(),
    )


def copied(reader: PartReader, rows: Any, *, store: MemoryStore, attributes: Any = None) -> PartReader:
    rows = np.asarray(rows, dtype=np.int64)
    columns = parse_attributes(attributes, len(rows), {}, {})
    ids = parse_ids(reader.ids_of(rows, ReadTrace()).tolist())
    how = spec(DIM)
    image = copy_rows(reader, rows, ids, columns, how, ReadTrace())
    data = b"".join(bytes(chunk) for chunk in image.chunks())
    name = f"copy-{len(rows)}-{int(rows.sum())}"
    entry = image.entry(part_id=name, owner="docs", began=0.0, mean=None)
    made = Stored(entry, how, data, np.arange(len(rows)))
    put(store, made)
    return open_part(store, made)


def section(reader: PartReader, name: str) -> bytes:
    return reader.section(name, ReadTrace()).tobytes()


@pytest.mark.parametrize("vectors", STORES)
@pytest.mark.parametrize("strings", [True, False])
def test_a_copy_of_all_rows_is_the_same_part(vectors: str, strings: bool) -> None:
    store = MemoryStore()
    reader = stored(store, strings=strings, store_vectors=vectors)
    copy = copied(reader, np.arange(N), store=store)
    assert copy.entry.k == reader.entry.k > 1
    names = set(reader.section_names()) - {"checksums", "calibration"}
    assert set(copy.section_names()) - {"checksums", "calibration"} == names
    assert {name: section(copy, name) == section(reader, name) for name in names} == dict.fromkeys(
        names, True
    )


@pytest.mark.parametrize("vectors", STORES)
@pytest.mark.parametrize("threshold", [0, 10**9])
@pytest.mark.parametrize("rows", [[3], list(range(0, N, 7)), list(range(40, 73))])
def test_copied_rows_keep_their_numbers_and_ids(vectors: Any, threshold: int, rows: list[int]) -> None:
    store = MemoryStore()
    reader = stored(store, strings=True, store_vectors=vectors, small_part_threshold=threshold)
    copy = copied(reader, rows, store=store, attributes={"a": [f"v{i}" for i in rows]})
    here, there, trace = np.arange(len(rows)), np.asarray(rows), ReadTrace()
    assert copy.ids_of(here, trace).tolist() == reader.ids_of(there, trace).tolist()
    assert copy.entry.vectors == vectors
    if vectors != "none":
        np.testing.assert_array_equal(copy.read_vectors(here, trace), reader.read_vectors(there, trace))
    if vectors == "none" or threshold == 0:
        rotation = spec(DIM).rotation
        np.testing.assert_array_equal(
            copy.approximate_vectors(here, rotation, None, trace),
            reader.approximate_vectors(there, rotation, None, trace),
        )
    found, at = copy.index.find(parse_ids(reader.ids_of(there, trace).tolist()), trace)
    assert at[np.argsort(found)].tolist() == here.tolist()
    for name in copy.section_names():
        copy.verify_section(name, trace)


def test_a_copy_of_a_copy_is_a_copy_of_the_first() -> None:
    store = MemoryStore()
    reader = stored(store, strings=False)
    once = copied(reader, np.arange(0, N, 3), store=store)
    twice = copied(once, np.arange(0, once.entry.n, 2), store=store)
    straight = copied(reader, np.arange(0, N, 6), store=store)
    names = set(straight.section_names()) - {"checksums", "calibration"}
    assert [name for name in names if section(twice, name) != section(straight, name)] == []
    assert straight.calibration is not None
    assert twice.calibration is not None
    assert twice.calibration.rows == straight.calibration.rows == N
    assert twice.calibration.probes[-1] == twice.entry.k


@pytest.mark.parametrize("strings", [True, False])
def test_a_copy_from_afar_holds_few_records_at_a_time(monkeypatch: pytest.MonkeyPatch, strings: bool) -> None:
    monkeypatch.setattr("vecstore.part.reader.RECORDS_AT_ONCE", 1)
    store, rows = RangeStore(), np.arange(0, N, 9)
    reader = stored(store, strings=strings, store_vectors="none")
    assert reader.entry.k > 1
    ids, trace = parse_ids(reader.ids_of(rows, ReadTrace()).tolist()), ReadTrace()
    image = copy_rows(open_anew(store, reader), rows, ids, {}, spec(DIM), trace)
    assert trace.trips == reader.entry.k
    monkeypatch.undo()
    trace = ReadTrace()
    at_once = copy_rows(open_anew(store, reader), rows, ids, {}, spec(DIM), trace)
    assert trace.trips == 1
    assert b"".join(map(bytes, image.chunks())) == b"".join(map(bytes, at_once.chunks()))


def slot_of(blocks: npt.NDArray[np.uint8], slot: int) -> tuple[list[int], bytes]:
    """The groups and factors of a slot, read as docs/formats/part.md says."""
    block, j = blocks[slot // 32], slot % 32
    width = (len(block) - 384) // 4
    groups = []
    for p in range(width // 8):
        for half in (0, 1):
            byte = int(block[32 * p + 16 * half + j % 16])
            groups.append(byte & 15 if j < 16 else byte >> 4)
    factors = block[4 * width :].reshape(3, 32, 4)[:, j]
    return groups, factors.tobytes()


def test_slots_are_taken_in_the_order_that_is_asked_for() -> None:
    rng = generator(3)
    blocks = rng.integers(0, 256, size=(3, 4 * 64 + 384), dtype=np.uint8)
    slots = rng.permutation(96)[:41].astype(np.int64)
    taken = take_slots(blocks, slots)
    assert taken.shape == (2, blocks.shape[1])
    assert [slot_of(taken, i) for i in range(41)] == [slot_of(blocks, int(slot)) for slot in slots]
    assert all(slot_of(taken, i) == ([0] * 16, bytes(12)) for i in range(41, 64))
    np.testing.assert_array_equal(take_slots(blocks, np.arange(96)), blocks)
