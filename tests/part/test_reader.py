"""Reading a part, and that no damaged byte is ever used."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.core import RangeStore, clustered, generator
from tests.part.helpers import STORES, N, Stored, build, open_part, opened, put, read_everything, spec
from vecstore.errors import StorageCorrupt, StorageMissing
from vecstore.manifest.model import Section
from vecstore.part.format import read_footer
from vecstore.rows.ids import parse_ids
from vecstore.storage.base import ObjectStore
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.storage.memory import MemoryStore

# -- scans ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("stored_as", ["fp32", "fp16"])
@pytest.mark.parametrize("step", [1, 411, 10_000])  # a row of 40 dimensions does not divide a page
def test_a_scan_gives_all_vectors_in_order(kind: type[MemoryStore], stored_as: Any, step: int) -> None:
    rows = clustered(generator(1), N, 40)
    reader = opened(kind, build(rows, None, spec(40, store_vectors=stored_as)))
    blocks = list(reader.scan_vectors(step, ReadTrace()))
    assert [len(block) for block in blocks[:-1]] == [step] * (len(blocks) - 1)
    found = np.concatenate(blocks)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, reader.read_vectors(np.arange(N), ReadTrace()))


def test_what_is_read_aside_does_not_enter_the_cache(coded: Stored) -> None:
    store, cache = RangeStore(), PageCache(64 << 20)
    put(store, coded)
    reader = open_part(store, coded, cache=cache)
    before = cache.stats()
    aside = reader.aside()
    everything = np.concatenate(list(aside.scan_vectors(100, ReadTrace())))
    keys, rows = aside.index.between(0, None, ReadTrace())
    assert cache.stats() == before
    np.testing.assert_array_equal(everything, reader.read_vectors(np.arange(N), ReadTrace()))
    assert keys.tolist() == [i * 5 + 3 for i in range(N)]
    assert sorted(rows.tolist()) == list(range(N))
    assert cache.stats().pages > before.pages


# -- damage ---------------------------------------------------------------------------------


def use(store: ObjectStore, stored: Stored) -> None:
    read_everything(open_part(store, stored))


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("which", ["coded", "small"])
def test_a_flipped_byte_of_any_section_is_named(
    kind: type[MemoryStore], which: str, request: pytest.FixtureRequest
) -> None:
    stored: Stored = request.getfixturevalue(which)
    store = kind()
    put(store, stored)
    use(store, stored)
    for name, section in stored.entry.sections.items():
        places = {0, section.length // 2, section.length - 1}
        for at in places:
            broken = bytearray(stored.data)
            broken[section.offset + at] ^= 0x40
            put(store, stored, bytes(broken))
            with pytest.raises(StorageCorrupt) as error:
                use(store, stored)
            assert error.value.details["object"] == stored.key
            assert error.value.details["section"] == name
            assert name in error.value.message


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("which", ["coded", "small"])
def test_a_part_cut_off_anywhere_is_named(
    kind: type[MemoryStore], which: str, request: pytest.FixtureRequest
) -> None:
    stored: Stored = request.getfixturevalue(which)
    sections_end = max(s.offset + s.length for s in stored.entry.sections.values())
    store = kind()
    lengths = {0, 1, 63, 64, sections_end - 1}
    for section in stored.entry.sections.values():
        lengths |= {section.offset, section.offset + section.length // 2}
    for length in sorted(lengths):
        put(store, stored, stored.data[:length])
        with pytest.raises(StorageCorrupt) as error:
            use(store, stored)
        assert error.value.details["object"] == stored.key
        assert error.value.details["section"] in {*stored.entry.sections, "header", "footer"}


@pytest.mark.parametrize("kind", STORES)
def test_a_part_in_the_place_of_another_is_refused(
    kind: type[MemoryStore], coded: Stored, small: Stored
) -> None:
    twin = build(clustered(generator(8), N, 40), parse_ids(np.arange(N) * 5 + 3), spec(40))
    for other in (small, twin):
        store = kind()
        put(store, coded, other.data)
        with pytest.raises(StorageCorrupt) as error:
            use(store, coded)
        assert error.value.details["object"] == coded.key
        assert error.value.details["section"]


@pytest.mark.parametrize("kind", STORES)
def test_a_part_that_is_gone_is_missing(kind: type[MemoryStore], coded: Stored) -> None:
    with pytest.raises(StorageMissing) as error:
        open_part(kind(), coded)
    assert error.value.details["object"] == coded.key


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 2**40), bit=st.integers(0, 7), mapped=st.booleans())
def test_no_flipped_bit_goes_unnoticed_where_it_is_read(
    at: int, bit: int, mapped: bool, coded: Stored
) -> None:
    sections_end = max(s.offset + s.length for s in coded.entry.sections.values())
    at = 64 + at % (sections_end - 64)
    broken = bytearray(coded.data)
    broken[at] ^= 1 << bit
    store = MemoryStore() if mapped else RangeStore()
    put(store, coded, bytes(broken))
    with pytest.raises(StorageCorrupt):
        use(store, coded)


def test_a_line_of_another_object_is_no_line_of_an_open_part(coded: Stored) -> None:
    store = MemoryStore()
    put(store, coded)
    reader = open_part(store, coded)
    assert reader.with_entry(replace(coded.entry, id_max=None)).entry.id_max is None
    for changed in ({"n": coded.entry.n + 1}, {"sections": {}}, {"vectors": "none"}):
        with pytest.raises(StorageCorrupt, match="two ways"):
            reader.with_entry(replace(coded.entry, **changed))


def test_a_manifest_that_contradicts_the_part_is_refused(coded: Stored) -> None:
    store = MemoryStore()
    put(store, coded)
    entry = coded.entry
    sections = dict(entry.sections)
    beyond = {**sections, "lists": Section(sections["lists"].offset, entry.bytes)}
    without = {name: section for name, section in sections.items() if name != "lists"}
    wrong = [
        replace(entry, n=entry.n + 1),
        replace(entry, k=entry.k - 1),
        replace(entry, checksums_crc32c=entry.checksums_crc32c ^ 1),
        replace(entry, bytes=entry.bytes - 64),
        replace(entry, sections=beyond),
        replace(entry, sections=without),
    ]
    for line in wrong:
        with pytest.raises(StorageCorrupt) as error:
            open_part(store, coded, entry=line)
        assert error.value.details["object"] == coded.key
        assert error.value.details["section"]


# -- pages ---------------------------------------------------------------------------------


def test_a_page_is_fetched_once_however_often_it_is_read(coded: Stored) -> None:
    store = RangeStore()
    put(store, coded)
    cache = PageCache(64 << 20)
    reader = open_part(store, coded, cache=cache)
    first, second = ReadTrace(), ReadTrace()
    lists = np.arange(reader.entry.k, dtype=np.int32)
    reader.records(lists, first)
    reader.records(lists, second)
    assert first.requests >= 1
    assert first.trips == 1
    assert second.requests == second.trips == 0


# -- the golden part ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["u64", "string"])
@pytest.mark.parametrize("kind", STORES)
def test_a_golden_part_reads_as_it_was_written(name: str, kind: type[MemoryStore]) -> None:
    from tests.part.golden.make import load, place

    golden = load(name)
    assert read_footer(golden.data, key="golden").format == 0
    ns = place(golden, kind())
    for position, identity in enumerate(golden.ids):
        np.testing.assert_array_equal(ns.get(identity).vector, golden.vectors[position])
    for q, answer in zip(golden.queries, golden.answers, strict=True):
        exact = ns.search(q, top_k=5, probe_fraction=1.0, rerank_precision="fp32", rerank_scale=100)
        assert [h.id for h in exact] == answer["ids"]
        np.testing.assert_allclose(exact.distances, answer["distances"], rtol=1e-5, atol=1e-6)
        by_int8 = ns.search(q, top_k=5, probe_fraction=1.0)
        np.testing.assert_allclose(by_int8.distances, answer["int8"], rtol=1e-4, atol=1e-4)
    assert ns.stats().rows == len(golden.ids)


def test_the_golden_bytes_are_the_ones_that_were_released() -> None:
    from tests.part.golden.make import load

    for name in ("u64", "string"):
        golden = load(name)
        assert hashlib.sha256(golden.data).hexdigest() == golden.sha256
