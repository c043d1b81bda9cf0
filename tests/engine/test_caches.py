"""Searches through the caches: the same answers, no requests once warm, whatever becomes of the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.core import CODED, EXACT, F32, RangeStore, clustered, database, generator
from vecstore.api import Database, Namespace
from vecstore.engine.database import EmbeddedDatabase
from vecstore.engine.namespace import NamespaceEngine
from vecstore.engine.warm import warm
from vecstore.errors import InvalidArgument, NamespaceNotFound
from vecstore.storage.disk import DiskCache
from vecstore.storage.faults import CountingStore
from vecstore.storage.memory import MemoryStore
from vecstore.types import Hits, WarmResult

DIM = 128
ROWS = 6_000
BOUND = 8 << 20
SEEN: dict[str, Any] = {"consistency": "eventual", "max_staleness": 3600.0}  # no request for the manifest
QUERIES = clustered(generator(8), 12, DIM)


@pytest.fixture(scope="module")
def filled() -> RangeStore:
    """Two parts with codes, one without, dead rows."""
    store = RangeStore()
    rows = clustered(generator(1), ROWS, DIM)
    ns = database(store).create_namespace("docs", DIM, "l2", list_rows=16, **CODED)
    ns.insert(rows[:4_000], range(4_000))
    ns.insert(rows[4_000:5_900], range(4_000, 5_900))
    ns.update(small_part_threshold=1 << 20)
    ns.insert(rows[5_900:], range(5_900, ROWS))
    ns.delete(range(0, ROWS, 5))
    return store


@pytest.fixture(scope="module")
def truth(filled: RangeStore) -> list[tuple[Any, ...]]:
    """What a database without a disk cache answers."""
    return answers(database(filled).namespace("docs"))


def answers(ns: Namespace, queries: F32 = QUERIES, epoch: int | None = None) -> list[tuple[Any, ...]]:
    found = []
    for options in ({}, EXACT, {"nprobe": 3}):
        for query in queries:
            hits = ns.search(query, epoch=epoch, **options)  # type: ignore[arg-type]
            found.append((hits.ids.tolist(), hits.distances.tolist()))
    return found


def opened(store: Any, folder: Path, *, memory: int = 1 << 20, disk: int = BOUND) -> Database:
    """As a process that comes to the folder: nothing in memory."""
    return Database(EmbeddedDatabase(store, cache_bytes=memory, disk=DiskCache(folder, disk), rng=Random(0)))


def bytes_of(hits: Hits) -> int:
    assert hits.debug is not None
    return int(hits.debug["storage"]["bytes"])


def traffic(hits: Hits) -> tuple[int, int]:
    assert hits.debug is not None
    return hits.debug["storage"]["requests"], hits.debug["storage"]["round_trips"]


def test_another_process_answers_from_disk_without_a_request(
    filled: RangeStore, truth: list[Any], tmp_path: Path
) -> None:
    assert answers(opened(filled, tmp_path).namespace("docs")) == truth
    store = CountingStore(filled)
    ns = opened(store, tmp_path).namespace("docs")
    hits = ns.search(QUERIES[0], debug=True)
    assert hits.debug is not None
    assert hits.debug["storage"]["disk_hits"] > 0
    # The bitmap of dead rows is not kept on disk; the parts are.
    assert store.count("get_ranges") == 0
    assert answers(ns) == truth
    assert store.count("get_ranges") == 0


def test_lists_in_use_are_found_without_a_look_up(filled: RangeStore, tmp_path: Path) -> None:
    ns = opened(filled, tmp_path).namespace("docs")
    first, second, third = (ns.search(QUERIES[0], nprobe=5, debug=True, **SEEN) for _ in range(3))
    assert traffic(first)[0] > 0
    assert traffic(second) == (0, 0)
    # By now they stay where they are mapped: only the small part is looked up.
    told = [hits.debug["storage"]["cache_hits"] for hits in (second, third) if hits.debug]
    assert told[1] < told[0]
    assert third.ids.tolist() == first.ids.tolist()


def test_answers_hold_while_the_disk_is_too_small_and_evicts(filled: RangeStore, tmp_path: Path) -> None:
    one, other = (opened(filled, tmp_path, memory=20_000, disk=1 << 20) for _ in range(2))
    expected = answers(database(filled).namespace("docs"), QUERIES[:3])
    for _ in range(2):
        for db in (one, other):
            assert answers(db.namespace("docs"), QUERIES[:3]) == expected
    stats = one.backend.cache_stats().disk  # type: ignore[attr-defined]
    assert stats.evictions > 0
    assert stats.bytes <= 1 << 20
    assert stats.failures == 0


@pytest.mark.parametrize("what", ["segments", "index", "everything"])
def test_answers_hold_when_the_disk_is_damaged_under_a_process(
    what: str, filled: RangeStore, truth: list[Any], tmp_path: Path
) -> None:
    ns = opened(filled, tmp_path).namespace("docs")
    for _ in range(3):
        answers(ns, QUERIES[:2])  # so that lists stay where they are mapped
    if what == "everything":
        shutil.rmtree(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        if (path.name == "index.db") == (what == "index"):
            damaged = bytearray(path.read_bytes())
            damaged[::97] = bytes(byte ^ 1 for byte in damaged[::97])
            with path.open("r+b") as file:
                file.write(damaged)
    assert answers(ns) == truth
    assert answers(opened(filled, tmp_path).namespace("docs")) == truth


# -- warming ---------------------------------------------------------------------------------------


def test_a_past_epoch_is_verified_again_where_the_disk_was_damaged(
    filled: RangeStore, tmp_path: Path
) -> None:
    ns = opened(filled, tmp_path).namespace("docs")
    epoch = ns.stats().epoch - 1
    answers(ns)  # the latest is open, so that this one is kept beside it
    then = answers(ns, epoch=epoch)
    for _ in range(2):
        assert answers(ns, epoch=epoch) == then  # so that lists stay where they are mapped
    for path in (tmp_path / "segments").iterdir():
        damaged = bytearray(path.read_bytes())
        damaged[::97] = bytes(byte ^ 1 for byte in damaged[::97])
        with path.open("r+b") as file:
            file.write(damaged)
    assert answers(ns, epoch=epoch) == then


def test_a_warm_namespace_answers_without_a_request(
    filled: RangeStore, truth: list[Any], tmp_path: Path
) -> None:
    told: list[WarmResult] = []
    done = opened(filled, tmp_path).namespace("docs").warm(progress=told.append)
    assert done == told[-1]
    assert done.next is None
    assert done.warmed == done.total > 0
    assert done.fetched >= done.total
    cold = opened(filled, tmp_path / "another").namespace("docs")
    assert bytes_of(cold.search(QUERIES[3], probe_fraction=1.0, debug=True)) > done.total // 2
    ns = opened(filled, tmp_path).namespace("docs")
    # The bitmaps of dead rows are not kept on disk.
    assert bytes_of(ns.search(QUERIES[3], probe_fraction=1.0, debug=True)) < 8_000
    assert answers(opened(filled, tmp_path).namespace("docs")) == truth
    again = opened(filled, tmp_path).namespace("docs").warm()
    assert again.fetched < 8_000


def test_memory_can_be_warmed_too(filled: RangeStore) -> None:
    ns = Database(EmbeddedDatabase(filled, cache_bytes=8 << 20, rng=Random(0))).namespace("docs")
    ns.warm()
    hits = ns.search(QUERIES[0], probe_fraction=1.0, debug=True, **SEEN)
    assert traffic(hits) == (0, 0)


def test_warming_ends_where_there_is_no_more_room(filled: RangeStore) -> None:
    db = EmbeddedDatabase(filled, cache_bytes=500_000, rng=Random(0))
    done = Database(db).namespace("docs").warm()
    assert 0 <= done.warmed <= 400_000 < done.total
    assert done.next is None
    assert db.cache_stats().bytes <= 500_000


def test_warming_goes_on_where_it_left_off_though_parts_were_merged(
    filled: RangeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RangeStore()
    for meta in filled.list("").objects:
        store.put_if_absent(meta.key, filled.get(meta.key).data)
    monkeypatch.setattr("vecstore.engine.warm._SLICE_BYTES", 1)
    monkeypatch.setattr("vecstore.engine.warm._READ_BYTES", 20_000)
    engine = database(store).backend.namespace("docs")  # type: ignore[attr-defined]
    assert isinstance(engine, NamespaceEngine)
    seen = [warm(engine, None, 1 << 30)]
    while seen[-1].next is not None:
        seen.append(warm(engine, seen[-1].next, 1 << 30))
        if len(seen) == 3:
            Namespace(database(store).backend, "docs").compact()
        assert len(seen) < 1_000
    assert seen[-1].warmed == seen[-1].total
    assert [one.warmed for one in seen[:3]] == sorted({one.warmed for one in seen[:3]})


def test_a_cursor_that_is_none_of_ours_is_refused(filled: RangeStore) -> None:
    db = database(filled)
    with pytest.raises(InvalidArgument, match="cursor"):
        db.backend.warm("docs", "../x")
    with pytest.raises(NamespaceNotFound):
        db.backend.warm("nothing", None)


# -- many namespaces ---------------------------------------------------------------------------------


def test_a_process_holds_few_of_many_namespaces_open(tmp_path: Path) -> None:
    store = MemoryStore()
    writer = database(store)
    rows = clustered(generator(3), 200, 8)
    for i in range(25):
        writer.create_namespace(f"ns{i}", 8, "l2", list_rows=8, **CODED).insert(rows + i, range(200))
    db = EmbeddedDatabase(store, open_namespaces=5, rng=Random(0))
    for i in (*range(25), *range(0, 25, 7)):
        hits = Database(db).namespace(f"ns{i}").search(rows[3] + i, top_k=1, **EXACT)
        assert hits.ids.tolist() == [3]
        assert len(db._namespaces) <= 5


def test_the_namespaces_used_last_stay_open() -> None:
    db = EmbeddedDatabase(MemoryStore(), open_namespaces=3)
    often = db.namespace("often")
    for i in range(20):
        assert db.namespace("often") is often
        db.namespace(f"ns{i}")
    assert db.namespace("often") is often
    kept = db.namespace("ns18")
    assert db.namespace("ns19") is not kept


def test_a_namespace_in_use_stays_the_one_of_its_name() -> None:
    """So that its commits are grouped, and its snapshots only move forward."""
    db = EmbeddedDatabase(MemoryStore(), open_namespaces=2)
    held = db.namespace("held")
    for i in range(10):
        db.namespace(f"ns{i}")
    assert db.namespace("held") is held


def test_memory_and_descriptors_stay_bounded_over_many_namespaces(tmp_path: Path) -> None:
    """Cold first searches of many namespaces, as of a server that is asked for each in turn."""
    store = RangeStore()
    writer = database(store)
    rows = clustered(generator(3), 400, 32)
    count = 40
    for i in range(count):
        writer.create_namespace(f"ns{i}", 32, "l2", list_rows=8, **CODED).insert(rows, range(400))
    db = EmbeddedDatabase(
        store, cache_bytes=200_000, disk=DiskCache(tmp_path, 1 << 20), open_namespaces=8, rng=Random(0)
    )
    high: list[tuple[int, int]] = []
    for i in range(count):
        Database(db).namespace(f"ns{i}").search(rows[3], probe_fraction=1.0)
        maps = Path("/proc/self/maps").read_text().count(str(tmp_path))
        high.append((len(os.listdir("/proc/self/fd")), maps))
        stats = db.cache_stats()
        assert stats.bytes <= 200_000
        assert stats.disk is not None
        assert stats.disk.bytes <= 1 << 20
    descriptors, maps = (max(column) for column in zip(*high[20:], strict=True))
    assert descriptors <= high[19][0] + 2
    # As many as there are segments, and those that open namespaces hold which were evicted since.
    assert maps <= 2 * 32


def test_cache_stats_are_those_of_the_process_that_answers(db: Database) -> None:
    stats = db.cache_stats()
    assert stats.process > 0
    assert stats.max_bytes == 256 << 20
    assert (stats.bytes, stats.pages, stats.disk) == (0, 0, None)
