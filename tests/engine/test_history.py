"""Past epochs, restore, tags and branches through the embedded engine, on a store whose clock we turn."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tests.core import database
from vecstore.api import Database, Namespace
from vecstore.errors import InvalidArgument, SnapshotExpired, StorageMissing
from vecstore.invariants import check_namespace
from vecstore.manifest.keys import part_key
from vecstore.storage.faults import Call, CountingStore, FaultyStore
from vecstore.storage.memory import MemoryStore

ROWS = np.random.default_rng(3).standard_normal((100, 4)).astype(np.float32)
HOUR = 3600.0


class Turned:
    """A clock of the store that a test turns on."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Turned:
    return Turned()


@pytest.fixture
def store(clock: Turned) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def db(store: MemoryStore) -> Database:
    return database(store)


@pytest.fixture
def docs(db: Database) -> Namespace:
    ns = db.create_namespace("docs", 4, "l2")
    ns.insert(ROWS[:10], ids=range(10))
    ns.insert(ROWS[10:20], ids=range(10, 20))
    return ns


def ids(ns: Namespace, **more: Any) -> set[int]:
    return set(ns.search(ROWS[0], top_k=100, **more).ids.tolist())


def test_collection_during_a_read_of_a_named_epoch_ends_in_snapshot_expired(
    docs: Namespace, store: MemoryStore, clock: Turned
) -> None:
    """The reader has its snapshot, and then the parts go before it opens them."""
    docs.compact()
    collected: list[int] = []
    one_at_a_time = threading.Lock()  # parts are opened side by side

    def before(call: Call) -> None:
        with one_at_a_time:
            if "/parts/" in call.key and not collected:
                clock.now += 3 * HOUR
                collected.append(docs.gc().deleted)

    reader = database(FaultyStore(store, before=before)).namespace("docs")
    with pytest.raises(SnapshotExpired):
        reader.get(3, epoch=3)
    assert collected[0] > 0


def test_a_part_that_is_lost_within_the_window_is_told_as_what_it_is(
    docs: Namespace, store: MemoryStore
) -> None:
    docs.compact()
    lost = docs.manifest(3)["parts"][0]["id"]
    store.delete(part_key("docs", lost))
    reader = database(store).namespace("docs")
    for read in (lambda: reader.search(ROWS[0], epoch=3), lambda: reader.get(3, epoch=3)):
        with pytest.raises(StorageMissing):
            read()


# -- restore --------------------------------------------------------------------------------


def token(ns: Namespace) -> tuple[str, int]:
    info = ns.stats()
    return info.incarnation, info.epoch


def test_a_restore_brings_back_rows_vectors_and_defaults_and_leaves_the_way_back(docs: Namespace) -> None:
    docs.delete([3, 15])
    docs.insert(-ROWS[4:5], ids=[4])
    docs.update(target_recall=0.5)
    undone = docs.stats().epoch
    restored = docs.restore(3, if_match=token(docs))
    assert (restored.rows, restored.epoch) == (20, undone + 1)
    assert restored.defaults["target_recall"] == 0.955
    assert ids(docs) == set(range(20))
    np.testing.assert_array_equal(docs.get(4).vector, ROWS[4])
    docs.restore(undone, if_match=token(docs))  # a restore can be undone likewise
    assert ids(docs) == set(range(20)) - {3, 15}
    np.testing.assert_array_equal(docs.get(4).vector, -ROWS[4])


def test_ids_that_are_assigned_after_a_restore_are_new(db: Database) -> None:
    ns = db.create_namespace("docs", 4, "l2")
    ns.insert(ROWS[:5])
    seen = ns.stats().epoch
    ns.insert(ROWS[5:10])
    ns.restore(seen, if_match=token(ns))
    done = ns.insert(ROWS[20:25])
    assert done.ids is not None
    assert done.ids.tolist() == [10, 11, 12, 13, 14]


def test_a_restore_to_before_the_first_row_lets_the_kind_of_ids_be_chosen_anew(docs: Namespace) -> None:
    docs.restore(1, if_match=token(docs))
    docs.insert(ROWS[:2], ids=["a", "b"])
    assert set(docs.search(ROWS[0]).ids) == {"a", "b"}
    assert docs.get(3, epoch=3).id == 3


def test_a_compaction_that_a_restore_overtakes_is_thrown_away(docs: Namespace, store: MemoryStore) -> None:
    overtaken: list[int] = []

    def before(call: Call) -> None:
        if call.method == "put_stream" and not overtaken:
            overtaken.append(docs.restore(2, if_match=token(docs)).epoch)

    compactor = database(FaultyStore(store, before=before)).namespace("docs")
    done = compactor.compact()
    assert (done.part_id, done.reason) == (None, "thrown away")
    assert (docs.stats().epoch, ids(docs)) == (overtaken[0], set(range(10)))


@pytest.mark.parametrize("write", ["upsert", "delete"])
def test_a_write_that_a_restore_overtakes_finds_the_rows_that_came_back(
    docs: Namespace, store: MemoryStore, write: str
) -> None:
    """Ids 3 and 15 were gone, and their part too, when the writer looked for them."""
    docs.delete([3, 15])
    docs.compact()
    overtaken: list[int] = []

    def before(call: Call) -> None:
        if call.method == "put_if_match" and not overtaken:
            overtaken.append(docs.restore(3, if_match=token(docs)).epoch)

    writer = database(FaultyStore(store, before=before)).namespace("docs")
    if write == "upsert":
        assert writer.insert(-ROWS[:2], ids=[3, 15]).upserted == 2
        np.testing.assert_array_equal(docs.get(15).vector, -ROWS[1])
    else:
        assert writer.delete([3, 7, 15]).deleted == 3
    hits = docs.search(ROWS[0], top_k=100).ids.tolist()
    assert sorted(hits) == sorted(set(range(20)) - (set() if write == "upsert" else {3, 7, 15}))
    assert overtaken


# -- branches -------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["docs", "copy"])
def test_a_branch_shares_parts_until_both_have_diverged_and_either_may_go(
    db: Database, docs: Namespace, clock: Turned, gone: str
) -> None:
    docs.delete([3])
    copy = docs.branch("copy")
    assert ids(copy) == ids(docs) == set(range(20)) - {3}
    docs.insert(-ROWS[4:5], ids=[4])
    docs.delete([5])
    copy.insert(ROWS[50:52], ids=[50, 51])
    copy.delete([6, 7])
    assert ids(docs) == set(range(20)) - {3, 5}
    assert ids(copy) == {*range(20), 50, 51} - {3, 6, 7}
    np.testing.assert_array_equal(copy.get(4).vector, ROWS[4])
    docs.compact()
    left = {"docs": docs, "copy": copy}[{"docs": "copy", "copy": "docs"}[gone]]
    expected = ids(left)
    db.delete_namespace(gone)
    for _ in range(3):
        clock.now += 2 * HOUR
        for name in db.backend.names():
            db.backend.collect(name, retention=HOUR, grace=HOUR, dry_run=False)
    reader = database(db.backend.store).namespace(left.name)  # nothing in memory
    assert ids(reader) == expected
    assert len(reader.compact().merged) > 0 or left is docs
    assert ids(reader) == expected
    for name in ("docs", "copy"):
        assert check_namespace(db.backend.store, name) == []


def test_a_branch_of_a_million_rows_writes_a_manifest_and_a_pin(store: MemoryStore) -> None:
    """Row 12: three objects and less than 1 MiB, whatever the rows and however many commits were made."""
    counted = CountingStore(store)
    db = database(counted)
    ns = db.create_namespace("large", 1, "l2", small_part_threshold=1 << 32, store_vectors="none")
    rows = np.arange(1_000_000, dtype=np.float32).reshape(-1, 1)
    for start in range(0, len(rows), 250_000):
        ns.insert(rows[start : start + 250_000])
    ns.delete(np.arange(0, 1_000_000, 10_000))
    writes = ("put_if_absent", "put_if_match", "put_stream")
    counted.reset()
    copy = ns.branch("copy")
    written = [call.key for call in counted.calls if call.method in writes]
    assert sorted(written) == [
        "namespaces/copy/manifest/current",
        "namespaces/large/manifest/00000000000000000006.json",
        "namespaces/large/manifest/current",
    ]
    size = sum(counted.sent[method] for method in writes)
    assert size < 1 << 20
    assert copy.stats().rows == ns.stats().rows == 999_900


def test_ids_that_are_assigned_in_a_branch_go_on_from_the_source(db: Database) -> None:
    ns = db.create_namespace("docs", 4, "l2")
    ns.insert(ROWS[:5])
    copy = ns.branch("copy")
    for one in (ns, copy):
        done = one.insert(ROWS[5:7])
        assert done.ids is not None
        assert done.ids.tolist() == [5, 6]


def test_an_idempotency_key_of_the_source_means_nothing_to_the_branch(docs: Namespace) -> None:
    docs.insert(ROWS[30:31], ids=[30], idempotency_key="k")
    copy = docs.branch("copy", epoch=3)
    copy.insert(ROWS[31:32], ids=[31], idempotency_key="k")
    assert ids(copy) == {*range(20), 31}


def test_a_branch_needs_a_name(docs: Namespace) -> None:
    for name in ("", "../x", "a/b", 7):
        with pytest.raises(InvalidArgument):
            docs.branch(name)  # type: ignore[arg-type]
