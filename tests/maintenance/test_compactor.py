"""Compaction: that no row is lost, doubled or brought back by it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.core import CODED, EXACT, RangeStore, assert_exact, clustered, engine, generator, nearest, recall
from vecstore.api import Database, Namespace
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import StorageMissing, StorageRetryable
from vecstore.invariants import check_namespace
from vecstore.maintenance.compactor import compact_once, holder
from vecstore.maintenance.policy import Policy, plan
from vecstore.manifest.keys import lease_key
from vecstore.manifest.lease import Lease
from vecstore.manifest.model import Part
from vecstore.storage.cache import ReadTrace
from vecstore.storage.faults import Call, Fault, FaultyStore
from vecstore.storage.memory import MemoryStore

DIM = 8
ROWS = clustered(generator(1), 600, DIM)


def opened(store: Any, **settings: Any) -> tuple[EmbeddedDatabase, Namespace]:
    db = engine(store)
    return db, Database(db).create_namespace("ns", dim=DIM, metric="l2", **{**CODED, **settings})


def ids_of(store: Any) -> Any:
    ns = engine(store, seed=99).namespace("ns")

    def read(part: Part) -> list[Any]:
        every = np.concatenate(list(ns.views.reader(ns.manifest(), part).scan_ids(ReadTrace())))
        return [i if isinstance(i, str) else int(i) for i in every]

    return read


@pytest.mark.parametrize("kind", [MemoryStore, RangeStore])
@pytest.mark.parametrize("strings", [True, False])
def test_live_rows_survive_with_their_ids_and_dead_ones_go(kind: Any, strings: bool) -> None:
    store = kind()
    db, ns = opened(store)
    ids: list[Any] = [f"r{i}" for i in range(600)] if strings else [i * 3 for i in range(600)]
    for i in range(4):
        ns.insert(ROWS[i * 100 : i * 100 + 100], ids[i * 100 : i * 100 + 100])
    ns.insert(ROWS[500:600], ids[50:150])
    ns.delete(ids[:40])
    model = dict(zip(ids[:400], ROWS[:400], strict=True)) | dict(zip(ids[50:150], ROWS[500:], strict=True))
    for i in ids[:40]:
        del model[i]
    answer = ns.compact()
    assert answer.rows == len(model)
    assert len(answer.merged) == 5
    assert answer.part_id == ns.manifest()["parts"][0]["id"]
    assert answer.epoch == ns.stats().epoch
    assert (ns.stats().parts, ns.stats().tombstones, ns.stats().rows) == (1, 0, len(model))
    for q in ROWS[::50]:
        assert_exact(ns.search(q, top_k=30, **EXACT), model, q, "l2", 30)
    for identity in ids[40:400:23]:
        np.testing.assert_array_equal(ns.get(identity).vector, model[identity])
    assert check_namespace(store, "ns", read_ids=ids_of(store)) == []
    assert ns.compact().reason == "nothing due"
    assert db.info("ns").rows == len(model)


def test_an_empty_result_drops_the_parts() -> None:
    _, ns = opened(MemoryStore())
    ns.insert(ROWS[:10], range(10))
    ns.insert(ROWS[10:20], range(10, 20))
    ns.delete(range(20))
    answer = ns.compact()
    assert answer.part_id is None
    assert len(answer.merged) == 2
    assert answer.rows == 0
    assert (ns.stats().parts, ns.stats().rows, ns.stats().tombstones) == (0, 0, 0)
    assert len(ns.search(ROWS[0])) == 0
    ns.insert(ROWS[:10], range(10))
    assert ns.stats().rows == 10


@pytest.mark.parametrize("mapped", [True, False])
def test_tombstones_that_arrive_during_compaction_are_carried_over(mapped: bool) -> None:
    """Between the merged part's upload and its commit: deletes, and an upsert."""
    inner = MemoryStore() if mapped else RangeStore()
    _, other = opened(inner)
    other.insert(ROWS[:200], range(200))
    other.insert(ROWS[200:400], range(200, 400))
    other.delete([7])
    done: list[int] = []

    def interfere(call: Call) -> None:
        if call.method == "put_stream" and not done:
            done.append(other.delete([1, 250, 399]).deleted)
            other.insert(ROWS[500:502], [2, 3])
            other.delete([3])

    db = engine(FaultyStore(inner, after=interfere), seed=4)
    answer = compact_once(db.namespace("ns"), everything=True)
    assert done == [3]
    assert len(answer.merged) == 2
    assert answer.rows == 399
    model = dict(enumerate(ROWS[:400])) | {2: ROWS[500]}
    for i in (1, 3, 7, 250, 399):
        del model[i]
    for ns in (other, Database(db).namespace("ns")):
        assert ns.stats().rows == len(model)
        assert_exact(ns.search(ROWS[5], top_k=500, **EXACT), model, ROWS[5], "l2", 500)
    merged = next(p for p in other.manifest()["parts"] if p["id"] == answer.part_id)
    assert merged["tombstone"]["dead"] == 5  # 1, 250, 399 and the older rows of 2 and 3
    assert check_namespace(inner, "ns", read_ids=ids_of(inner)) == []


def test_work_is_thrown_away_when_a_source_is_gone() -> None:
    inner = MemoryStore()
    db, other = opened(inner)
    other.insert(ROWS[:100], range(100))
    other.insert(ROWS[100:200], range(100, 200))
    done: list[Any] = []

    def interfere(call: Call) -> None:
        if call.method == "put_stream" and not done:
            done.append(1)
            # The lease is advisory: somebody compacts all the same.
            inner.delete(lease_key("ns", "compaction"))
            done.append(compact_once(db.namespace("ns"), everything=True))

    late = engine(FaultyStore(inner, after=interfere), seed=4)
    answer = compact_once(late.namespace("ns"), everything=True)
    assert answer.reason == "thrown away"
    assert answer.merged == ()
    assert answer.part_id is None
    assert done[1].part_id == other.manifest()["parts"][0]["id"]
    assert (other.stats().parts, other.stats().rows) == (1, 200)


def test_a_namespace_made_anew_is_not_overwritten_by_a_compaction_of_the_old_one() -> None:
    inner = MemoryStore()
    db, other = opened(inner)
    other.insert(ROWS[:100], range(100))
    other.insert(ROWS[100:200], range(100, 200))
    done: list[int] = []

    def interfere(call: Call) -> None:
        if call.method == "put_stream" and not done:
            done.append(1)
            db.delete("ns")
            db.create("ns", DIM, "l2", {})

    late = engine(FaultyStore(inner, after=interfere), seed=4)
    with pytest.raises(LookupError):
        compact_once(late.namespace("ns"), everything=True)
    assert other.stats().rows == 0
    assert other.stats().parts == 0


def test_nothing_is_done_while_another_node_holds_the_lease() -> None:
    now = [1e6]
    store = MemoryStore(clock=lambda: now[0])
    db, ns = opened(store)
    ns.insert(ROWS[:10], range(10))
    ns.insert(ROWS[10:20], range(10, 20))
    other = Lease(store, "ns", "compaction", holder="other", ttl=60.0, rng=db.namespace("ns").rng)
    assert other.acquire()
    before = ns.manifest()
    answer = ns.compact()
    assert answer.reason == "another node is compacting"
    assert answer.merged == ()
    assert ns.manifest() == before
    now[0] += 61
    assert len(ns.compact().merged) == 2


def test_the_lease_is_free_again_after_compaction() -> None:
    _, ns = opened(MemoryStore())
    for i in range(2):
        ns.insert(ROWS[i * 20 : i * 20 + 20], range(i * 20, i * 20 + 20))
        ns.insert(ROWS[100:110], range(100, 110))
        assert ns.compact().part_id is not None


def test_a_lease_that_cannot_be_released_does_not_hide_what_was_done() -> None:
    inner = MemoryStore()
    opened(inner)[1].insert(ROWS[:10], range(10))
    Database(engine(inner, seed=2)).namespace("ns").insert(ROWS[10:20], range(10, 20))

    def plan_faults(call: Call) -> Fault | None:
        lost = call.method == "put_if_match" and call.key == lease_key("ns", "compaction")
        return Fault.FAIL_BEFORE if lost else None

    late = engine(FaultyStore(inner, plan_faults), seed=4)
    assert len(compact_once(late.namespace("ns"), everything=True).merged) == 2


def interrupted(inner: MemoryStore, at: set[int], side: str) -> tuple[EmbeddedDatabase, list[str]]:
    """A database whose calls of these numbers for the lease are interrupted, and what the calls were."""
    asked: list[str] = []

    def interrupt(call: Call) -> None:
        if call.key == lease_key("ns", "compaction"):
            asked.append(call.method)
            if len(asked) - 1 in at:
                raise KeyboardInterrupt

    return engine(FaultyStore(inner, **{side: interrupt}), seed=5), asked


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(("number", "method"), [(0, "get"), (1, "put_if_match"), (2, "put_if_match")])
def test_a_compaction_that_is_interrupted_leaves_no_lease(side: str, number: int, method: str) -> None:
    inner = MemoryStore()
    _, ns = opened(inner)
    for _ in range(2):  # so that there is a lease to be replaced
        ns.insert(ROWS[:10], range(10))
        ns.insert(ROWS[10:20], range(10, 20))
        ns.compact()
    ns.insert(ROWS[10:20], range(10, 20))
    db, asked = interrupted(inner, {number}, side)
    with pytest.raises(KeyboardInterrupt):
        compact_once(db.namespace("ns"), everything=True)
    assert asked[number] == method
    assert Lease(inner, "ns", "compaction", holder="other", ttl=60.0, rng=Random(1)).acquire()


def test_a_lease_that_interruptions_left_is_taken_back_by_its_own_handle_alone() -> None:
    inner = MemoryStore()
    _, ns = opened(inner)
    ns.insert(ROWS[:10], range(10))
    ns.insert(ROWS[10:20], range(10, 20))
    db, asked = interrupted(inner, {2, 3}, "before")
    with pytest.raises(KeyboardInterrupt):
        compact_once(db.namespace("ns"), everything=True)
    assert asked == ["get", "put_if_absent", "put_if_match", "put_if_match"]
    assert ns.stats().parts == 1, "it was interrupted when all was done"
    ns.insert(ROWS[20:30], range(20, 30))
    assert ns.compact().reason == "another node is compacting"
    with ThreadPoolExecutor(1) as beside:  # where another thread may be at it, nobody takes it away
        told = beside.submit(compact_once, db.namespace("ns"), everything=True).result()
    assert told.reason == "another node is compacting"
    assert len(compact_once(db.namespace("ns"), everything=True).merged) == 2


def test_an_interruption_is_told_though_the_store_does_not_answer_the_release() -> None:
    inner = MemoryStore()
    _, ns = opened(inner)
    ns.insert(ROWS[:10], range(10))
    ns.insert(ROWS[10:20], range(10, 20))
    asked: list[str] = []

    def interrupt(call: Call) -> None:
        if call.key == lease_key("ns", "compaction"):
            asked.append(call.method)
            if len(asked) == 3:
                raise KeyboardInterrupt
            if len(asked) > 3:
                raise StorageRetryable("no answer")

    db = engine(FaultyStore(inner, before=interrupt), seed=5)
    with pytest.raises(KeyboardInterrupt):
        compact_once(db.namespace("ns"), everything=True)
    assert asked == ["get", "put_if_absent", "put_if_match", "put_if_match"]


def test_a_compaction_within_one_of_the_same_thread_takes_nothing_from_it() -> None:
    inner = MemoryStore()
    _, ns = opened(inner)
    ns.insert(ROWS[:10], range(10))
    ns.insert(ROWS[10:20], range(10, 20))
    handle = engine(inner, seed=5).namespace("ns")
    within: list[str] = []

    def tell(_: float) -> None:
        if ns.stats().parts == 2:
            within.append(compact_once(handle, everything=True).reason)

    assert len(compact_once(handle, everything=True, progress=tell).merged) == 2
    assert set(within) == {"another node is compacting"}


@pytest.mark.parametrize("method", ["put_if_absent", "put_if_match"])
def test_a_lease_that_the_store_cannot_put_is_an_error(method: str) -> None:
    inner = MemoryStore()
    _, ns = opened(inner)
    ns.insert(ROWS[:10], range(10))
    ns.insert(ROWS[10:20], range(10, 20))
    if method == "put_if_match":
        ns.compact()
        ns.insert(ROWS[20:30], range(20, 30))

    def refuse(call: Call) -> None:
        if call.key == lease_key("ns", "compaction") and call.method == method:
            raise StorageMissing("no such bucket")

    db = engine(FaultyStore(inner, before=refuse), seed=5)
    with pytest.raises(StorageMissing):
        compact_once(db.namespace("ns"), everything=True)


class Slow:
    """A compaction that tells of its progress every ``step`` seconds, by every clock."""

    def __init__(self, step: float) -> None:
        self.now = 1e6
        self.store = MemoryStore(clock=lambda: self.now)
        self.ns = opened(self.store)[1]
        for i in range(2):
            self.ns.insert(ROWS[i * 300 : i * 300 + 300], range(i * 300, i * 300 + 300))
        self._step = step
        self.rivals: list[Lease | None] = []
        self.between: Callable[[], object] = lambda: None

    def rival(self) -> Lease | None:
        lease = Lease(self.store, "ns", "compaction", holder="rival", ttl=300.0, rng=Random(0))
        return lease if lease.acquire() else None

    def compact(self, through: Any = None) -> Any:
        db = EmbeddedDatabase(through or self.store, rng=Random(9), clock=lambda: self.now)

        def tell(share: float) -> None:
            self.now += self._step
            self.rivals.append(self.rival())
            self.between()

        return compact_once(db.namespace("ns"), everything=True, progress=tell)


def test_the_lease_is_renewed_for_as_long_as_a_compaction_takes() -> None:
    slow = Slow(step=60.0)
    assert len(slow.compact().merged) == 2
    assert len(slow.rivals) * 60 > 600
    assert not any(slow.rivals)
    assert slow.rival() is not None, "it was released"


def test_the_manifest_tells_how_far_a_compaction_is() -> None:
    slow = Slow(step=60.0)
    assert slow.ns.manifest()["compaction"] is None
    seen = []
    slow.between = lambda: seen.append(slow.ns.manifest()["compaction"])
    slow.compact()
    assert slow.ns.manifest()["compaction"] is None
    first, last = seen[0], seen[-1]
    assert (first["parts"], first["rows"], first["reason"], first["done"]) == (2, 600, "asked for", 0.0)
    assert first["holder"] == holder()
    assert first["began"] == last["began"] == 1e6
    shares = [one["done"] for one in seen]
    assert shares == sorted(shares)
    assert shares[-1] > 0.8
    assert "compaction" not in slow.ns.manifest(1)


def test_a_renewal_that_fails_is_tried_again() -> None:
    slow = Slow(step=60.0)
    failed: list[Call] = []

    def plan_faults(call: Call) -> Fault | None:
        renewal = call.method == "put_if_match" and call.key == lease_key("ns", "compaction")
        if renewal:
            failed.append(call)
        return Fault.FAIL_BEFORE if renewal and len(failed) % 2 else None

    assert len(slow.compact(FaultyStore(slow.store, plan_faults)).merged) == 2
    assert len(failed) > 4
    assert not any(slow.rivals)


def test_who_stalls_until_another_has_the_lease_goes_on_without_it() -> None:
    """The lease fences double work alone: whoever commits first has won (R16)."""
    slow = Slow(step=301.0)
    assert len(slow.compact().merged) == 2
    held = [lease for lease in slow.rivals if lease is not None]
    assert held
    assert held[-1].renew(), "it was neither taken back nor released for the rival"


def test_assigned_ids_keep_their_values() -> None:
    _, ns = opened(MemoryStore())
    ns.insert(ROWS[:50])
    ns.insert(ROWS[50:60], range(1_000, 1_010))
    ns.insert(ROWS[60:100])
    before = {hit.id: hit.distance for hit in ns.search(ROWS[0], top_k=200, **EXACT)}
    ns.compact()
    assert {hit.id: hit.distance for hit in ns.search(ROWS[0], top_k=200, **EXACT)} == before
    assert ns.manifest()["parts"][0]["id_base"] is None
    more = ns.insert(ROWS[100:101])
    assert more.ids is not None
    assert more.ids.tolist() == [1_050]


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
@pytest.mark.parametrize("threshold", [0, 1 << 20])
def test_a_namespace_that_keeps_no_vectors_is_compacted(metric: Any, threshold: int) -> None:
    rows, queries = clustered(generator(2), 900, 32), clustered(generator(2), 30, 32)
    ns = Database(engine()).create_namespace(
        "ns", dim=32, metric=metric, store_vectors="none", small_part_threshold=threshold
    )
    for i in range(3):
        ns.insert(rows[i * 300 : i * 300 + 300], range(i * 300, i * 300 + 300))
    ns.delete(range(0, 900, 10))
    alive = np.flatnonzero(np.arange(900) % 10)
    truth = alive[nearest(rows[alive], queries, metric, 10)]
    for _ in range(2):
        assert recall(ns.search_batch(queries, probe_fraction=1.0).ids, truth) >= 0.95
        ns.compact()
    assert ns.stats().parts == 1
    assert ns.stats().rows == len(alive)


def test_a_write_that_raced_with_a_change_of_settings_gets_no_vectors_that_it_never_kept() -> None:
    inner = MemoryStore()
    _, other = opened(inner, store_vectors="none")
    done: list[Any] = []

    def interfere(call: Call) -> None:
        if call.method == "put_stream" and not done:
            done.append(other.update(store_vectors="fp32"))

    db = engine(FaultyStore(inner, after=interfere), seed=4)
    ns = Database(db).namespace("ns")
    ns.insert(ROWS[:100], range(100))
    ns.insert(ROWS[100:200], range(100, 200))
    assert [part["vectors"] for part in ns.manifest()["parts"]] == ["none", "fp32"]
    assert ns.compact().reason == "nothing due"
    ns.insert(ROWS[200:300], range(200, 300))
    assert len(ns.compact().merged) == 2
    assert sorted(part["vectors"] for part in ns.manifest()["parts"]) == ["fp32", "none"]
    assert ns.get(5).vector is None
    np.testing.assert_array_equal(ns.get(105).vector, ROWS[105])
    assert ns.compact().reason == "nothing due"


def test_the_tidying_of_a_busy_namespace_ends() -> None:
    """`maintain` repeats until nothing is due."""
    db = engine(policy=Policy(fan_in=2, tiny_parts=2))
    ns = Database(db).create_namespace("ns", dim=DIM, metric="l2")
    for i in range(9):
        ns.insert(ROWS[i * 30 : i * 30 + 30], range(i * 20, i * 20 + 30))
    db.maintain("ns")
    assert plan(db.namespace("ns").manifest(), Policy(fan_in=2, tiny_parts=2)) is None
    assert ns.stats().parts == 1
    assert ns.stats().rows == 190


def test_a_source_whose_object_is_gone_is_no_crash() -> None:
    store = MemoryStore()
    _, ns = opened(store)
    ns.insert(ROWS[:10], range(10))
    ns.insert(ROWS[10:20], range(10, 20))
    store.delete(f"namespaces/ns/parts/{ns.manifest()['parts'][0]['id']}.part")
    assert compact_once(engine(store, seed=4).namespace("ns"), everything=True).reason == "thrown away"
