"""Views: one epoch, opened; the next takes over what did not change."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core import CODED, EXACT, RangeStore, assert_exact, clustered, database, engine, generator
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import StorageMissing
from vecstore.ext.search import Searcher
from vecstore.index import view as views
from vecstore.index.search import search_namespace
from vecstore.index.view import View, join_traces
from vecstore.storage.cache import ReadTrace
from vecstore.storage.faults import CountingStore
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore
from vecstore.types import SearchParams

DIM = 8


def filled(store: Any, *, parts: int = 3, **settings: Any) -> EmbeddedDatabase:
    db = engine(store)
    db.create("ns", DIM, "l2", {**CODED, **settings})
    rows = clustered(generator(1), 100 * parts, DIM)
    for i in range(parts):
        insert(db, rows[i * 100 : (i + 1) * 100], range(i * 100, (i + 1) * 100))
    return db


def insert(db: EmbeddedDatabase, rows: Any, ids: Any) -> int:
    return db.insert("ns", rows, list(ids), mode="upsert", expected=None, idempotency_key=None).epoch


def view_of(db: EmbeddedDatabase) -> View:
    ns = db.namespace("ns")
    return ns.views.open(ns.manifest(), ReadTrace())


def exact(db: EmbeddedDatabase, view: View, q: Any, k: int) -> list[int]:
    params = SearchParams(top_k=k, **EXACT)
    found = search_namespace(
        view, q, params, Searcher(view.field.padded_dim), ReadTrace(), db.namespace("ns")._executor
    )
    return [int(i) for i in found.ids]


def test_the_same_epoch_is_the_same_view() -> None:
    db = filled(MemoryStore())
    assert view_of(db) is view_of(db)


def test_a_part_that_is_touched_while_a_view_is_built_of_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread forgets the part; the view that still has it must not be kept, for nobody watches it."""
    db = filled(LocalStore(tmp_path), parts=2)
    ns = db.namespace("ns")
    before = view_of(db)
    db.update("ns", {"rerank_scale": 3.0})
    path = next(path for path in tmp_path.rglob("*.part") if path.stem == before.parts[0].reader.entry.id)
    finish = views._field

    def interrupted(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(views, "_field", finish)
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
            ns.views.open(before.manifest, ReadTrace())
        return finish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(views, "_field", interrupted)
        stale = view_of(db)
    fresh = view_of(db)
    assert fresh.parts[0].reader.stamp != stale.parts[0].reader.stamp
    assert fresh.parts[0].reader.stamp == ns.views._store.stamp(fresh.parts[0].reader.key)
    assert view_of(db) is fresh


def test_the_next_view_keeps_what_did_not_change() -> None:
    db = filled(MemoryStore())
    before = view_of(db)
    db.delete_rows("ns", [5], expected=None, idempotency_key=None)
    after = view_of(db)
    assert after.parts[0].live.alive == before.parts[0].live.alive - 1
    for old, new in zip(before.parts[1:], after.parts[1:], strict=True):
        assert new.live is old.live
        assert new.reader is old.reader
    assert before.alive == 300, "a view never changes"
    assert after.alive == 299


def test_a_new_epoch_reads_only_what_is_new() -> None:
    store = CountingStore(RangeStore())
    db = filled(store)
    q = np.zeros(DIM, dtype=np.float32)
    db.search("ns", q, SearchParams(**EXACT))
    store.reset()
    db.search("ns", q, SearchParams(**EXACT))
    assert [call.method for call in store.calls] == ["get_if_changed"]
    insert(db, clustered(generator(2), 50, DIM), range(1_000, 1_050))
    new = db.namespace("ns").manifest().parts[-1].id
    store.reset()
    db.search("ns", q, SearchParams(**EXACT))
    reads = [c for c in store.calls if c.method in ("get_range", "get_ranges")]
    assert reads
    assert all(new in call.key for call in reads)


def test_a_view_knows_its_parts_apart() -> None:
    db = filled(MemoryStore(), small_part_threshold=100 * DIM)
    insert(db, clustered(generator(3), 101, DIM), range(500, 601))
    view = view_of(db)
    assert [part.small for part in view.parts] == [True, True, True, False]
    assert len(view.searched) == len(view.field) == 4
    db.delete_rows("ns", list(range(100)), expected=None, idempotency_key=None)
    view = view_of(db)
    assert len(view.parts) == 4
    assert len(view.searched) == len(view.field) == 3, "a part without live rows is not searched"


@pytest.mark.parametrize("make", [MemoryStore, RangeStore, None])
def test_a_reader_that_began_before_compaction_finishes_its_epoch(make: Any, tmp_path: Any) -> None:
    now = [1e6]
    store = LocalStore(tmp_path) if make is None else make(clock=lambda: now[0])
    db = filled(store)
    q = np.zeros(DIM, dtype=np.float32)
    held = view_of(db)
    before = exact(db, held, q, 300)
    db.delete_rows("ns", list(range(0, 300, 3)), expected=None, idempotency_key=None)
    assert db.compact("ns", everything=True).part_id is not None
    insert(db, clustered(generator(4), 10, DIM), range(10))
    assert len(view_of(db).parts) == 2
    assert exact(db, held, q, 300) == before
    if make is not None:
        for _ in range(2):
            now[0] += 10_000
            insert(db, clustered(generator(5), 1, DIM), [7])
        assert db.collect("ns", retention=1, grace=1, dry_run=False).deleted >= 3
        # What was read before is kept, by the mapping or by the cache.
        assert exact(db, held, q, 300) == before


def test_a_search_whose_parts_are_collected_starts_again_on_a_newer_epoch() -> None:
    """An eventual search holds an old snapshot, cold, while another process compacts and collects."""
    now = [1e6]
    store = RangeStore(clock=lambda: now[0])
    writer, reader = filled(store), engine(store, seed=7)
    assert reader.info("ns").rows == 300  # the snapshot is known, no part is open
    writer.compact("ns", everything=True)
    for _ in range(2):  # an epoch counts as replaced when the copy of its successor was written
        now[0] += 10_000
        insert(writer, clustered(generator(5), 1, DIM), [900])
    assert writer.collect("ns", retention=1, grace=1, dry_run=False).deleted >= 3
    q = np.zeros(DIM, dtype=np.float32)
    stale = SearchParams(top_k=400, consistency="eventual", max_staleness=1e9, **EXACT)
    hits = reader.search("ns", q, stale)
    assert len(hits) == 301
    assert hits.epoch == writer.info("ns").epoch


def test_a_part_that_is_gone_without_a_newer_epoch_is_missing() -> None:
    store = RangeStore()
    db = filled(store)
    part = db.namespace("ns").manifest().parts[1]
    key = f"namespaces/ns/parts/{part.id}.part"
    store.delete(key)
    with pytest.raises(StorageMissing) as error:
        engine(store, seed=8).search("ns", np.zeros(DIM), SearchParams())
    assert error.value.details["object"] == key


def test_opening_an_old_epoch_leaves_the_newest_in_place() -> None:
    db = filled(MemoryStore())
    ns = db.namespace("ns")
    newest = view_of(db)
    old = ns.views.open(ns.manifest(2), ReadTrace())
    assert old.manifest.epoch == 2
    assert old.alive == 100
    assert view_of(db) is newest


def test_a_namespace_made_anew_is_another_view() -> None:
    db = filled(MemoryStore())
    q = np.zeros(DIM, dtype=np.float32)
    db.search("ns", q, SearchParams())
    db.delete("ns")
    db.create("ns", DIM + 1, "l2", {})
    assert len(db.search("ns", np.zeros(DIM + 1), SearchParams())) == 0
    insert(db, np.ones((1, DIM + 1)), [3])
    assert db.search("ns", np.zeros(DIM + 1), SearchParams()).ids.tolist() == [3]


def test_traces_side_by_side_take_the_trips_of_the_longest() -> None:
    total = ReadTrace(requests=1, bytes=10, trips=1)
    join_traces(total, [ReadTrace(2, 5, 2, 1, 4, 1), ReadTrace(1, 1, 1, 0, 3, 1)])
    assert total == ReadTrace(requests=4, bytes=16, trips=3, cache_hits=1, disk_hits=7, cache_misses=2)


def test_handles_over_one_store_see_each_other(tmp_path: Any) -> None:
    one, two = database(LocalStore(tmp_path), seed=1), database(LocalStore(tmp_path), seed=2)
    ours = one.create_namespace("ns", dim=DIM, metric="l2")
    theirs = two.namespace("ns")
    model: dict[Any, Any] = {}
    rows = clustered(generator(1), 60, DIM)
    for i, ns in enumerate([ours, theirs, ours, theirs]):
        ns.insert(rows[i * 15 : (i + 1) * 15], range(i * 10, i * 10 + 15))
        model |= dict(zip(range(i * 10, i * 10 + 15), rows[i * 15 : (i + 1) * 15], strict=True))
        for reader in (ours, theirs):
            assert_exact(reader.search(rows[0], top_k=60, **EXACT), model, rows[0], "l2", 60)


def test_a_past_epoch_is_opened_once_beside_the_latest_and_let_go_when_it_has_expired() -> None:
    time = [1_000_000.0]
    db = filled(MemoryStore(clock=lambda: time[0]))
    ns = db.namespace("ns")
    past = ns.manifest(2)
    latest = view_of(db)
    view = ns.views.open(past, ReadTrace())
    assert [part.reader.entry.id for part in view.parts] == [past.parts[0].id]
    assert ns.views.open(past, ReadTrace()) is view
    assert view_of(db) is latest
    db.compact("ns", everything=True)
    view_of(db)
    assert ns.views.open(past, ReadTrace()) is view  # it may still be read
    held = weakref.ref(view.parts[0].reader)
    del view, latest
    time[0] += 10_000.0
    db.collect("ns", retention=3600.0, grace=3600.0, dry_run=False)
    view_of(db)
    assert held() is None, "the view of an epoch that is gone keeps its parts"
