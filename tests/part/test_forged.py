"""A part that somebody wrote on purpose, with every checksum right, is refused where it lies about itself.

Checksums tell of accidents. What kernels go by, which trust addresses, and what memory is made room by, is
held against the manifest's rows and lists when a part is opened, and each record when it is first read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.fuzz.exercise import FILTERS, RangeStore
from tests.fuzz.hostile import HostilePart, HostileStore
from tests.fuzz.worlds import NS, World, world
from vecstore.api import Database, Namespace
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import StorageCorrupt
from vecstore.part.format import LIST_DTYPE
from vecstore.storage.memory import MemoryStore

Forge = Callable[[HostilePart], None]
Ask = Callable[[Namespace, World], object]

STORES = (MemoryStore, RangeStore)


def search(ns: Namespace, which: World) -> None:
    ns.search(which.queries[0], 400, probe_fraction=1.0)
    ns.search(
        which.queries[0], 400, probe_fraction=1.0, rerank_precision="fp32", filter=["id", "NotEq", None]
    )


def everything(ns: Namespace, which: World) -> None:
    list(ns.scan(exclude=()))
    for some in FILTERS:
        ns.search(which.queries[0], 400, probe_fraction=1.0, filter=some, exclude=())
    for name in ("n", "u", "score", "word", "text", "at", "who"):
        ns.search(order_by=(name, "asc"), top_k=50)


def table(part: HostilePart) -> Any:
    return np.frombuffer(part.sections["lists"], dtype=LIST_DTYPE)


def in_table(field: str, *changes: int) -> Forge:
    def forge(part: HostilePart) -> None:
        for entry, change in enumerate(changes):
            lists = table(part)
            lists[field][entry] = (int(lists[field][entry]) + change) % (1 << 8 * lists.dtype[field].itemsize)

    return forge


def in_record(offset: int, form: str, value: Any) -> Forge:
    """A field of the second record, or of the only one."""

    def forge(part: HostilePart) -> None:
        lists = table(part)
        at = int(lists["offset"][min(1, len(lists) - 1)])
        struct.pack_into(form, part.sections["records"], at + offset, value)

    return forge


def without(*names: str) -> Forge:
    def forge(part: HostilePart) -> None:
        for name in names:
            del part.sections[name]

    return forge


def shorter(name: str) -> Forge:
    def forge(part: HostilePart) -> None:
        del part.sections[name][-64:]

    return forge


def emptied(name: str) -> Forge:
    def forge(part: HostilePart) -> None:
        del part.documents[name]
        part.sections[name] = bytearray()

    return forge


def in_section(name: str, form: str, value: Any, at: int = 0) -> Forge:
    return lambda part: struct.pack_into(form, part.sections[name], at, value)


def in_column(column: str, **changes: Any) -> Forge:
    return lambda part: part.documents["columns"][column].update(changes)


def in_piece(column: str, piece: str, value: Any, at: int) -> Forge:
    def forge(part: HostilePart) -> None:
        part.documents["columns"][column]["pieces"][piece][at] = value

    return forge


def packed(column: str, piece: str, low: int, bits: int, count: int) -> Forge:
    return in_piece(column, piece, [low, bits, count], 2)


def calibrated(**changes: Any) -> Forge:
    return lambda part: part.documents["calibration"].update(changes)


def fill(column: str, piece: str, byte: int, *, first: float = 0.0) -> Forge:
    """What a piece holds from some share of it on."""

    def forge(part: HostilePart) -> None:
        offset, length, _ = part.documents["columns"][column]["pieces"][piece]
        start = int(first * length)
        part.sections["attributes"][offset + start : offset + length] = bytes([byte]) * (length - start)

    return forge


def bomb(part: HostilePart) -> None:
    """A block of texts that grows by far more than a block can hold."""
    data, pieces = part.sections["attributes"], part.documents["columns"]["body"]["pieces"]
    body = zlib.compress(bytes(64 << 20), 9)
    pieces["blocks"] = [len(data), len(body), None]
    pieces["block_firsts"] = [0, 0, [0, 0, 1]]
    pieces["block_ends"] = [0, 0, [len(body), 0, 1]]
    data += body + bytes(-len(body) % 64)


def of_other_lengths(column: str) -> Forge:
    """A block whose texts end beyond it."""

    def forge(part: HostilePart) -> None:
        data, entry = part.sections["attributes"], part.documents["columns"][column]
        lengths = np.full(entry["distinct"], 1_000, dtype="<u4")
        body = zlib.compress(lengths.tobytes() + b"x" * len(lengths))
        entry["pieces"] |= {
            "blocks": [len(data), len(body), None],
            "block_firsts": [0, 0, [0, 0, 1]],
            "block_ends": [0, 0, [len(body), 0, 1]],
        }
        data += body + bytes(-len(body) % 64)

    return forge


OPENED: dict[str, tuple[str, Forge, str]] = {
    "rows of lists that are others'": ("coded", in_table("rows", 1, -1), "lists"),
    "more rows than the part": ("coded", in_table("rows", 1 << 20), "lists"),
    "a first row beyond": ("coded", in_table("first_row", 0, 1 << 40), "lists"),
    "a first row before": ("coded", in_table("first_row", 0, -64), "lists"),
    "a first block beyond": ("coded", in_table("first_block", 0, 9), "lists"),
    "a record that is too short": ("coded", in_table("length", -64, 64), "lists"),
    "records that overlap": ("coded", in_table("offset", 0, -64), "lists"),
    "no records": ("coded", without("records"), "records"),
    "no keys": ("coded", without("id_keys"), "id_keys"),
    "fewer keys": ("coded", shorter("id_keys"), "id_keys"),
    "fewer rows of keys": ("coded", shorter("id_rows"), "id_rows"),
    "no fence": ("coded", without("id_fence"), "id_fence"),
    "no filter of ids": ("coded", without("id_filter"), "id_filter"),
    "fewer vectors": ("coded", shorter("vectors"), "vectors"),
    "no cells": ("coded", without("cells"), "cells"),
    "no lists of cells": ("coded", without("cell_lists"), "cells"),
    "none of all three": ("coded", without("cells", "cell_lists", "centroid_codes"), "cells"),
    "cells of another width": ("coded", shorter("cells"), "cells"),
    "a cell that is no number": ("coded", in_section("cells", "<f", float("nan")), "cell_lists"),
    "lists beyond the cells": ("coded", in_section("cell_lists", "<I", 1 << 20, 4), "cell_lists"),
    "fewer codes": ("coded", shorter("centroid_codes"), "cell_lists"),
    "probes that do not ascend": ("calibrated", calibrated(probes=[3, 2, 1]), "calibration"),
    "no probes": ("calibrated", calibrated(probes=[]), "calibration"),
    "no shares": ("calibrated", calibrated(coverage=[[0.5]]), "calibration"),
    "farther neighbours that do not ascend": (
        "calibrated",
        calibrated(farther={"ks": [100], "coverage": [[0.5]], "errors": [[0.0]], "bought": [[0.5]]}),
        "calibration",
    ),
    "no shares of farther neighbours": ("calibrated", calibrated(farther={"ks": [300]}), "calibration"),
    "no calibration in its section": ("calibrated", emptied("calibration"), "calibration"),
    "no columns in their section": ("coded", emptied("columns"), "columns"),
    "no quality": ("calibrated", calibrated(quality={}), "calibration"),
    "a column of fewer rows": ("coded", in_column("n", elements=3), "columns"),
    "a column of more texts than rows": ("coded", in_column("word", distinct=1 << 40), "columns"),
    "a column that is no text": ("coded", in_column("word", type="int"), "columns"),
    "a column of other words": ("coded", in_column("n", type="uint"), "columns"),
    "a bound of another type": ("coded", in_column("n", least="AAAA"), "columns"),
    "a look-up that is not there": ("coded", in_column("n", lookup="bitmaps"), "columns"),
    "a piece beyond": ("coded", in_piece("n", "keys", 1 << 40, 0), "columns"),
    "a piece before": ("coded", in_piece("n", "keys", -8, 0), "columns"),
    "a piece that is too short": ("coded", in_piece("n", "keys", 8, 1), "columns"),
    "integers of 57 bits": ("coded", packed("n", "keys", 0, 57, 100), "columns"),
    "integers of -8 bits": ("coded", packed("n", "keys", 0, -8, 100), "columns"),
    "a trillion of no bits": ("coded", packed("n", "keys", 0, 0, 1 << 40), "columns"),
    "rows of 64 bits": ("coded", packed("n", "order", 0, 64, 1), "columns"),
    "a least below zero": ("coded", packed("n", "keys", -5, 0, 100), "columns"),
}

READ: dict[str, tuple[str, Forge, str]] = {
    "a record of more rows": ("coded", in_record(0, "<I", 1 << 24), "records"),
    "a record of fewer rows": ("coded", in_record(0, "<I", 1), "records"),
    "a record without int8": ("coded", in_record(4, "<I", 6), "records"),
    "a record without codes": ("coded", in_record(4, "<I", 5), "records"),
    "a record without ids": ("coded", in_record(4, "<I", 3), "records"),
    "a record of another width": ("coded", in_record(16, "<I", 128), "records"),
    "a small record that claims codes": ("small", in_record(4, "<I", 6), "records"),
    "a small record that claims int8": ("small", in_record(4, "<I", 5), "records"),
    "nulls that are no bitmap": ("coded", fill("word", "nulls", 255), "attributes"),
    "nulls of other rows": ("coded", fill("word", "nulls", 0), "attributes"),
    "blocks that are not deflated": ("coded", fill("text", "blocks", 7), "attributes"),
    "a block that is a bomb": ("coded", bomb, "attributes"),
    "texts that end beyond their block": ("coded", of_other_lengths("word"), "attributes"),
    "texts of arrays that do": ("coded", of_other_lengths("tags"), "attributes"),
    "codes beyond the dictionary": ("coded", fill("word", "codes", 255), "attributes"),
    "rows beyond the part": ("coded", fill("n", "order", 255), "attributes"),
    "bitmaps that are none": ("coded", fill("flag", "bitmaps", 1), "attributes"),
    "arrays that begin beyond": ("coded", fill("sizes", "starts", 255, first=0.5), "attributes"),
}


def opened(kind: type[MemoryStore], hostile: HostileStore) -> Database:
    store = kind("forged", clock=lambda: 1_700_000_100.0)
    for key, data in hostile.put_together().items():
        store.put_if_absent(key, data)
    return Database(EmbeddedDatabase(store, threads=1))


def refused(kind: type[MemoryStore], which: World, forge: Forge, ask: Ask) -> StorageCorrupt:
    hostile = HostileStore(which)
    forge(hostile.part(0))
    with opened(kind, hostile) as db, pytest.raises(StorageCorrupt) as caught:
        ask(db.namespace(NS), which)
    return caught.value


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("case", OPENED)
def test_a_part_that_lies_about_its_sections_is_not_opened(kind: type[MemoryStore], case: str) -> None:
    name, forge, section = OPENED[case]
    error = refused(kind, world(name), forge, search)
    assert (error.details["section"], error.details["object"][-5:]) == (section, ".part")


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("case", READ)
def test_what_lies_about_itself_is_named_when_it_is_read(kind: type[MemoryStore], case: str) -> None:
    name, forge, section = READ[case]
    error = refused(kind, world(name), forge, search if section == "records" else everything)
    assert (error.details["section"], error.details["object"][-5:]) == (section, ".part")


def of_all_centroids(value: float) -> Forge:
    """The scale of each list's centroid."""

    def forge(part: HostilePart) -> None:
        for entry in table(part):
            struct.pack_into("<f", part.sections["records"], int(entry["offset"]) + 8, value)

    return forge


def of_all_vectors(form: str, *values: float, dim: int) -> Forge:
    """The first numbers of each, so that the rows that are alive have them too."""

    def forge(part: HostilePart) -> None:
        vectors = part.sections["vectors"]
        row = dim * struct.calcsize(form[:1] + form[-1])
        for at in range(0, len(vectors) - row + 1, row):
            struct.pack_into(form, vectors, at, *values)

    return forge


MERGED: dict[str, tuple[str, Forge, str]] = {
    "vectors that are no numbers": ("coded", of_all_vectors("<f", float("nan"), dim=12), "vectors"),
    "infinite ones": ("coded", of_all_vectors("<f", float("-inf"), dim=12), "vectors"),
    "ones whose squares are infinite": ("coded", of_all_vectors("<f", 1e30, dim=12), "vectors"),
    "halves that are no numbers": ("strings", of_all_vectors("<e", float("nan"), dim=7), "vectors"),
    "ones without a direction": ("strings", of_all_vectors("<7e", *[0.0] * 7, dim=7), "vectors"),
    "centroids that are no number": ("codes alone", of_all_centroids(float("nan")), "records"),
    "centroids far beyond": ("codes alone", of_all_centroids(1e37), "records"),
    "texts that end beyond their block": ("coded", of_other_lengths("tags"), "attributes"),
}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("case", MERGED)
def test_what_no_insert_takes_is_not_merged(kind: type[MemoryStore], case: str) -> None:
    name, forge, section = MERGED[case]
    error = refused(kind, world(name), forge, lambda ns, _: ns.compact(everything=True))
    assert (error.details["section"], error.details["object"][-5:]) == (section, ".part")


@pytest.mark.parametrize("kind", STORES)
def test_ids_that_are_no_text_are_named(kind: type[MemoryStore]) -> None:
    def forge(part: HostilePart) -> None:
        records, entry = part.sections["records"], table(part)[0]
        at = records.index(b"row ", int(entry["offset"]))
        records[at : at + 2] = b"\xff\xff"

    which = world("strings")
    error = refused(kind, which, forge, lambda ns, w: ns.search(w.queries[0], 400, probe_fraction=1.0))
    assert error.details["section"] == "records"


def test_a_store_that_is_put_together_unchanged_answers_as_before() -> None:
    """Or else all that is refused above were refused for another reason."""
    for name in ("coded", "strings", "calibrated", "small"):
        which, answers = world(name), []
        plain = MemoryStore("plain", clock=lambda: 1_700_000_100.0)
        for key, data in which.objects.items():
            plain.put_if_absent(key, data)
        hostile = HostileStore(which)
        hostile.part(0)
        for db in (Database(EmbeddedDatabase(plain, threads=1)), opened(MemoryStore, hostile)):
            with db:
                answers.append(db.namespace(NS).search(which.queries[0], 50).ids.tolist())
        assert answers[0] == answers[1]
