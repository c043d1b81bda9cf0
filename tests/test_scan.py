"""Scans through the public API, embedded and over HTTP: every row of one epoch, once, whatever is written."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

from tests.core import RangeStore, clustered, database, engine, generator
from vecstore.api import Database
from vecstore.engine import scan
from vecstore.errors import FilterMismatch, InvalidArgument, SnapshotExpired
from vecstore.limits import MAX_SCAN_BYTES
from vecstore.storage.memory import MemoryStore

DIM = 8
ROWS = clustered(generator(3), 500, DIM)


@pytest.mark.parametrize("order", [None, "stored"])
@pytest.mark.parametrize("strings", [False, True])
def test_rows_come_once_with_what_was_asked_for(db: Database, strings: bool, order: Any) -> None:
    ns = db.create_namespace("docs", DIM, "l2", small_part_threshold=0)
    ids: list[Any] = [f"ö{i}" for i in range(500)] if strings else list(range(1_000, 1_500))
    attributes = [
        {"n": i, "tags": [f"t{i % 3}"] * (i % 4), "half": None if i % 5 else i / 2} for i in range(500)
    ]
    for start in range(0, 500, 100):
        some = slice(start, start + 100)
        ns.insert(ROWS[some], ids[some], attributes=attributes[some])
    ns.insert(ROWS[:50], ids[:50], attributes=attributes[:50])  # again
    ns.delete(ids[490:])
    rows = list(ns.scan(limit=33, order=order, include=["vector"], exclude=[]))
    place = {identity: i for i, identity in enumerate(ids)}
    assert sorted(place[row.id] for row in rows) == list(range(490))
    if not strings and order is None:
        assert [row.id for row in rows] == ids[:490]
    for row in rows:
        assert row.attributes == attributes[place[row.id]]
        assert np.array_equal(row.vector, ROWS[place[row.id]])
    bare = next(ns.scan(include=[]).pages())
    assert (bare.columns, bare.vectors, len(bare)) == ({}, None, 490)
    named = next(ns.scan(include=["n"], limit=7).pages())
    assert (list(named.columns), named.types, named.vectors) == (["n"], {"n": "int"}, None)
    assert named[2].attributes == {"n": place[named[2].id]}


def test_parts_that_cannot_be_mapped_are_read_alike() -> None:
    pages = []
    for store in (MemoryStore(), RangeStore()):
        ns = Database(engine(store)).create_namespace("docs", DIM, "l2", small_part_threshold=0)
        for start in range(0, 500, 125):
            attributes = [{"n": i, "tags": [f"t{i}"] * (i % 3)} for i in range(start, start + 125)]
            ns.insert(ROWS[start : start + 125], range(start, 1_000, 4)[:125], attributes=attributes)
        found = [
            (page.ids.tolist(), page.columns, page.vectors)
            for order in ("id", "stored")
            for page in ns.scan(limit=70, order=order, include=["vector"], exclude=[]).pages()
        ]
        pages.append(found)
    for mapped, fetched in zip(*pages, strict=True):
        assert mapped[:2] == fetched[:2]
        assert np.array_equal(mapped[2], fetched[2])


def test_a_filter_chooses_and_a_cursor_belongs_to_it(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS, range(500), attributes={"n": np.arange(500) % 10})
    ns.insert(ROWS[:100], range(500, 600), attributes={"n": np.arange(100) % 10})
    f = ["And", [["n", "In", [3, 4]], ["id", "Gte", 40]]]
    assert [row.id for row in ns.scan(filter=f, limit=9)] == [i for i in range(40, 600) if i % 10 in (3, 4)]
    page = next(ns.scan(filter=f, limit=9).pages())
    following = next(ns.scan(filter=f, limit=2, cursor=page.cursor).pages())
    assert following.ids.tolist() == [84, 93]
    for other in (None, ["n", "Eq", 3]):
        with pytest.raises(InvalidArgument, match="another filter"):
            list(ns.scan(filter=other, cursor=page.cursor))
    with pytest.raises(FilterMismatch):
        list(ns.scan(filter=["m", "Eq", 3]))


def test_all_pages_are_of_one_epoch_whatever_is_written(db: Database) -> None:
    """While one thread replaces, deletes, adds and merges rows, each scan has exactly those of its epoch."""
    ns = db.create_namespace("docs", DIM, "l2", small_part_threshold=0)
    ns.insert(ROWS, range(500), attributes={"n": [0] * 500})
    stop = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        rng = generator(5)
        try:
            for version in range(1, 60):
                if stop.is_set():
                    return
                some = rng.choice(500, 40, replace=False)
                ns.insert(ROWS[some], some, attributes={"n": [version] * 40})
                ns.delete(rng.choice(500, 5, replace=False))
                if version % 7 == 0:
                    ns.compact()
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        epochs = set()
        for order in ("id", "stored") * 5:
            found = [(row.id, row.attributes["n"], row.epoch) for row in ns.scan(limit=41, order=order)]
            (epoch,) = {at for _, _, at in found}
            epochs.add(epoch)
            again = [(row.id, row.attributes["n"], row.epoch) for row in ns.scan(limit=500, epoch=epoch)]
            assert sorted(found) == again
            assert len({identity for identity, _, _ in found}) == len(found)
    finally:
        stop.set()
        writer.join()
    assert not failed
    assert len(epochs) > 1


def test_a_cursor_whose_epoch_left_the_window_says_so() -> None:
    now = [1_000_000.0]
    db = database(MemoryStore(clock=lambda: now[0]))
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:100], range(100))
    ns.insert(ROWS[100:], range(100, 500))
    pages = ns.scan(limit=200).pages()
    first = next(pages)
    ns.compact()
    assert next(pages).ids.tolist() == list(range(200, 400))
    now[0] += 3 * 3_600
    ns.gc()
    with pytest.raises(SnapshotExpired):
        next(pages)
    db.delete_namespace("docs")
    other = db.create_namespace("docs", DIM, "l2")
    for _ in range(3):
        other.insert(ROWS[:10], range(10))
    with pytest.raises(SnapshotExpired):
        list(other.scan(cursor=first.cursor))


def test_pages_of_large_rows_are_short(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"body": {"type": "string", "filterable": False}})
    bodies = [f"{i:04}" * 16_000 for i in range(400)]  # 64 KB each
    for start in range(0, 400, 100):
        some = range(start, start + 100)
        ns.insert(ROWS[some], some, attributes={"body": bodies[start : start + 100]})
    pages = list(ns.scan(limit=400).pages())
    assert [identity for page in pages for identity in page.ids.tolist()] == list(range(400))
    assert [body for page in pages for body in page.columns["body"]] == bodies
    assert all(sum(map(len, page.columns["body"])) <= MAX_SCAN_BYTES for page in pages)
    assert len(pages) == 2


@pytest.mark.parametrize("arrays", [False, True])
def test_large_rows_are_read_a_few_at_a_time(arrays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_SCAN_BYTES", 1 << 20)
    monkeypatch.setattr(scan, "SLICE_BYTES", 1 << 18)
    n, rng = 300, generator(2)
    values: list[Any] = [rng.bytes(16_000).hex() for _ in range(n)]
    if arrays:
        values = [rng.standard_normal(4_000).tolist() for _ in range(n)]
    with database() as embedded:
        kind = {"type": "[]float" if arrays else "string", "filterable": False}
        ns = embedded.create_namespace("docs", DIM, "l2", schema={"body": kind})
        ns.insert(ROWS[:n], range(n), attributes={"body": values})
        assert ns.get(0).attributes["body"] == values[0]
        tracemalloc.start()
        try:
            page = next(iter(ns.scan(limit=n).pages()))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert page.columns["body"] == values[: len(page)]
        assert 30 <= len(page) <= 33
        assert peak < 6 << 20  # `SLICE_ROWS` at a time took 18 MB of texts and 33 MB of arrays


def test_what_keeps_no_vectors_brings_none(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", store_vectors="none")
    ns.insert(ROWS[:10], range(10))
    page = next(ns.scan(include=["vector"]).pages())
    assert len(page) == 10
    assert page.vectors is not None
    assert np.isnan(page.vectors).all()


def test_an_empty_namespace_has_one_empty_page(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    (page,) = ns.scan(include=["vector"], exclude=[]).pages()
    assert (len(page), page.cursor, list(page)) == (0, None, [])


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("limit", {"limit": 0}),
        ("limit", {"limit": 10_001}),
        ("limit", {"limit": True}),
        ("order", {"order": "name"}),
        ("include", {"include": "vector"}),
        ("include", {"include": ["colour"]}),
        ("exclude", {"exclude": ["colour"]}),
        ("exclude", {"exclude": [], "include": ["n"]}),
        ("epoch", {"epoch": 0}),
        ("epoch", {"epoch": 1 << 40}),
        ("cursor", {"cursor": "x"}),
        ("cursor", {"cursor": 5}),
        ("filter", {"filter": ["n"]}),
    ],
)
def test_what_is_wrong_is_named(db: Database, field: str, options: dict[str, Any]) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:10], range(10), attributes={"n": [1] * 10})
    with pytest.raises(InvalidArgument) as caught:
        list(ns.scan(**options))
    assert caught.value.details["field"] == field


def test_string_ids_have_no_order(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:10], [str(i) for i in range(10)])
    with pytest.raises(InvalidArgument, match="no order"):
        list(ns.scan(order="id"))
