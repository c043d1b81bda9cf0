"""The container: sections, pages and checksums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core import clustered, generator
from tests.part.helpers import build, spec
from vecstore.errors import StorageCorrupt
from vecstore.part.format import (
    ALIGN,
    FORMAT,
    LIST_DTYPE,
    MAGIC,
    PAGE,
    ContainerWriter,
    aligned,
    padded,
    page_bounds,
    read_footer,
)
from vecstore.rows.ids import parse_ids


def container(sections: dict[str, bytes]) -> bytes:
    writer = ContainerWriter()
    chunks = [bytes(chunk) for chunk in writer.begin()]
    for name, data in sections.items():
        chunks += [bytes(chunk) for chunk in writer.section(name, data=data)]
    chunks += [bytes(chunk) for chunk in writer.finish({"note": "ü"})]
    return b"".join(chunks)


@given(st.dictionaries(st.text("abc/", min_size=1), st.binary(max_size=300), max_size=5))
def test_sections_come_back_as_they_went_in(sections: dict[str, bytes]) -> None:
    data = container(sections)
    footer = read_footer(data, key="k")
    assert footer.format == FORMAT
    assert footer.meta == {"note": "ü"}
    assert set(footer.sections) == {*sections, "checksums"}
    for name, body in sections.items():
        entry = footer.sections[name]
        assert entry.offset % ALIGN == 0
        assert data[entry.offset : entry.offset + entry.length] == padded(body)


@given(st.integers(0, 10_000))
def test_alignment_is_the_next_multiple_of_64(n: int) -> None:
    assert n <= aligned(n) < n + ALIGN
    assert aligned(n) % ALIGN == 0
    assert len(padded(bytes(n))) == aligned(n)


@given(st.integers(0, 40).map(lambda n: n * 16_384))
def test_pages_cover_a_section_without_gap(length: int) -> None:
    bounds = page_bounds("vectors", length, None)
    assert bounds[-1] == length
    assert bounds[0] == 0
    sizes = np.diff(bounds)
    assert (sizes > 0).all() if length else (sizes >= 0).all()
    assert (sizes[:-1] == PAGE).all()


def test_a_page_of_records_is_a_record() -> None:
    lists = np.zeros(3, dtype=LIST_DTYPE)
    lists["offset"] = [0, 128, 512]
    assert page_bounds("records", 640, lists).tolist() == [0, 128, 512, 640]


def test_a_page_that_is_not_aligned_is_refused() -> None:
    writer = ContainerWriter()
    list(writer.begin())
    with pytest.raises(AssertionError):
        list(writer.section("records", [b"x"]))


def test_every_byte_of_header_tail_and_footer_is_checked() -> None:
    data = container({"a": b"1" * 100})
    footer_at = int.from_bytes(data[-64:-56], "little")
    for at in [*range(64), *range(footer_at, len(data))]:
        broken = bytearray(data)
        broken[at] ^= 0x10
        with pytest.raises(StorageCorrupt) as error:
            read_footer(bytes(broken), key="parts/x.part")
        assert error.value.details["object"] == "parts/x.part"
        assert error.value.details["section"] in ("header", "tail", "footer")


def test_a_part_cut_off_anywhere_has_no_footer() -> None:
    data = container({"a": b"1" * 100})
    for length in range(len(data)):
        with pytest.raises(StorageCorrupt):
            read_footer(data[:length], key="k")


def test_another_format_is_refused_by_its_number() -> None:
    data = bytearray(container({}))
    at = len(data) - 64 + 24
    data[at : at + 4] = (FORMAT + 1).to_bytes(4, "little")
    with pytest.raises(StorageCorrupt, match=f"format {FORMAT + 1}"):
        read_footer(bytes(data), key="k")
    assert bytes(data[-8:]) == MAGIC


def test_the_footer_of_a_part_says_what_the_manifest_says() -> None:
    stored = build(clustered(generator(1), 200, 40), parse_ids(np.arange(200)), spec(40))
    footer = read_footer(stored.data, key="k")
    assert len(stored.data) == stored.entry.bytes
    assert {n: (e.offset, e.length) for n, e in footer.sections.items()} == {
        n: (s.offset, s.length) for n, s in stored.entry.sections.items()
    }
    assert footer.meta["n"] == 200
    assert footer.meta["k"] == stored.entry.k
    covered = sum(s.length for s in footer.sections.values())
    assert covered + 64 + 64 + int.from_bytes(stored.data[-56:-48], "little") == len(stored.data)
