"""Writes, and what later reads see of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.core import CODED, EXACT, RangeStore, clustered, database, engine, generator
from vecstore.api import Namespace
from vecstore.errors import (
    DimensionMismatch,
    IdempotencyMismatch,
    IdExists,
    InvalidArgument,
    InvalidId,
    NamespaceNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    RowNotFound,
    StorageError,
    StorageRetryable,
)
from vecstore.invariants import check_namespace
from vecstore.manifest.keys import part_key
from vecstore.rows.ids import parse_ids
from vecstore.storage.cache import ReadTrace
from vecstore.storage.faults import Call, Fault, FaultyStore, at_random, script
from vecstore.storage.memory import MemoryStore

DIM = 8
ROWS = clustered(generator(1), 400, DIM)


def namespace(store: Any = None, **settings: Any) -> Namespace:
    return database(store).create_namespace("ns", dim=DIM, metric="l2", **settings)


def ids_found(ns: Namespace, q: Any, k: int = 1_000) -> list[Any]:
    return [hit.id for hit in ns.search(q, top_k=k, **EXACT)]


# -- upserts and deletes --------------------------------------------------------------------


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("strings", [True, False])
def test_an_upserted_row_is_found_under_its_new_vector_alone(coded: bool, strings: bool) -> None:
    ns = namespace(**(CODED if coded else {}))
    ids: list[Any] = [f"i{i}" for i in range(100)] if strings else list(range(100))
    ns.insert(ROWS[:100], ids)
    before = ns.stats().epoch
    answer = ns.insert(ROWS[200:210] + 50, ids[:10])
    assert (answer.upserted, answer.n, answer.epoch) == (10, 10, before + 1)
    assert ns.stats().rows == 100
    for phase in range(2):
        for i in range(10):
            assert ids_found(ns, ROWS[200 + i] + 50, 1) == [ids[i]]
            assert ids_found(ns, ROWS[i]).count(ids[i]) == 1
            np.testing.assert_array_equal(ns.get(ids[i]).vector, ROWS[200 + i] + 50)
        assert ns.stats().tombstones == (10 if phase == 0 else 0)
        ns.compact()


def test_an_insert_of_an_id_that_exists_changes_nothing() -> None:
    ns = namespace()
    ns.insert(ROWS[:3], [1, 2, 3])
    before = ns.manifest()
    with pytest.raises(IdExists) as error:
        ns.insert(ROWS[3:6], [9, 3, 2], mode="insert")
    assert error.value.status == 409
    assert ns.manifest() == before
    ns.delete([2, 3])
    assert ns.insert(ROWS[3:6], [9, 3, 2], mode="insert").upserted == 0
    assert ns.stats().rows == 4


def test_deletes_count_the_rows_that_were_there() -> None:
    ns = namespace()
    ns.insert(ROWS[:10], range(10))
    assert ns.delete([3, 4, 99]).deleted == 2
    epoch = ns.stats().epoch
    again = ns.delete([3, 4, 99])
    assert again.deleted == 0
    assert ns.stats().rows == 8
    assert again.epoch <= ns.stats().epoch <= epoch + 1
    for i in (3, 4):
        assert i not in ids_found(ns, ROWS[i])
        with pytest.raises(RowNotFound) as error:
            ns.get(i)
        assert error.value.status == 404
    assert ns.insert(ROWS[3:4], [3]).upserted == 0
    assert ns.get(3).id == 3


def test_a_delete_from_an_empty_namespace_finds_nothing() -> None:
    ns = namespace()
    assert ns.delete([1]).deleted == 0
    assert ns.delete(["a"]).deleted == 0
    ns.insert(ROWS[:1], [1])
    with pytest.raises(InvalidId):
        ns.delete(["a"])


def test_the_kind_of_ids_is_fixed_by_the_first_insert() -> None:
    ns = namespace()
    assert ns.stats().id_kind is None
    with pytest.raises(RowNotFound):
        ns.get("a")
    ns.insert(ROWS[:1], ["a"])
    assert ns.stats().id_kind == "string"
    before = ns.manifest()
    for ids in ([1], None):
        with pytest.raises(InvalidId):
            ns.insert(ROWS[:1], ids)
    with pytest.raises(InvalidId):
        ns.get(1)
    assert ns.manifest() == before


def test_assigned_ids_are_disjoint_from_given_ones() -> None:
    ns = namespace()
    first = ns.insert(ROWS[:5])
    assert first.ids is not None
    assert first.ids.tolist() == [0, 1, 2, 3, 4]
    assert ns.insert(ROWS[5:6], [100]).ids is None
    second = ns.insert(ROWS[6:9])
    assert second.ids is not None
    assert second.ids.tolist() == [101, 102, 103]
    assert ns.insert(ROWS[9:10], [3]).upserted == 1
    assert sorted(ids_found(ns, ROWS[0])) == [0, 1, 2, 3, 4, 100, 101, 102, 103]
    ns.compact()
    assert sorted(ids_found(ns, ROWS[0])) == [0, 1, 2, 3, 4, 100, 101, 102, 103]
    for i, row in ((0, 0), (3, 9), (100, 5), (103, 8)):
        np.testing.assert_array_equal(ns.get(i).vector, ROWS[row])
    after = ns.insert(ROWS[10:11])
    assert after.ids is not None
    assert after.ids.tolist() == [104]


def test_vectors_that_were_changed_afterwards_are_stored_as_they_were() -> None:
    ns = namespace()
    mine = ROWS[:5].copy()
    ns.insert(mine, range(5))
    mine[:] = 0
    np.testing.assert_array_equal(ns.get(2).vector, ROWS[2])


def test_ids_given_as_arrays_of_any_layout_are_the_rows_in_order() -> None:
    ns = namespace()
    ns.insert(ROWS[:10][::-1], np.arange(20)[::2])
    for i in range(10):
        np.testing.assert_array_equal(ns.get(2 * i).vector, ROWS[9 - i])


def test_a_resolver_never_reads_a_part_twice_for_one_request() -> None:
    db = engine(RangeStore())
    db.create("ns", DIM, "l2", {})
    db.insert("ns", ROWS[:5], [1, 2, 3, 4, 5], mode="upsert", expected=None, idempotency_key=None)
    ns = db.namespace("ns")
    part = ns.manifest().parts[0]
    which, rows = ns.views.reader(ns.manifest(), part).index.find(parse_ids([3, 9, 1]), ReadTrace())
    assert sorted(which.tolist()) == [0, 2]
    assert sorted(rows.tolist()) == [0, 2]


# -- conditions -----------------------------------------------------------------------------


def test_if_match_holds_a_write_to_the_epoch_that_was_seen() -> None:
    ns = namespace()
    seen = (ns.stats().incarnation, ns.stats().epoch)
    ns.insert(ROWS[:2], [1, 2], if_match=seen)
    before = ns.manifest()
    for write in (
        lambda: ns.insert(ROWS[2:3], [3], if_match=seen),
        lambda: ns.delete([1], if_match=seen),
        lambda: ns.update(rerank_scale=3.0, if_match=seen),
        lambda: ns.insert(ROWS[2:3], [3], if_match=("other", ns.stats().epoch)),
    ):
        with pytest.raises(PreconditionFailed) as error:
            write()
        assert error.value.status == 412
    assert ns.manifest() == before
    assert ns.delete([1], if_match=(ns.stats().incarnation, ns.stats().epoch)).deleted == 1


def test_an_idempotency_key_applies_a_request_once() -> None:
    store = MemoryStore()
    ns = namespace(store)
    first = ns.insert(ROWS[:3], [1, 2, 3], idempotency_key="k1")
    gone = ns.delete([2], idempotency_key="k2")
    other = database(store, seed=5).namespace("ns")
    assert other.insert(ROWS[:3], [1, 2, 3], idempotency_key="k1") == first
    assert other.delete([2], idempotency_key="k2") == gone
    assert ns.stats().rows == 2
    assigned = database(store, seed=6).create_namespace("as", dim=DIM, metric="l2")
    one = assigned.insert(ROWS[:3], idempotency_key="k")
    two = assigned.insert(ROWS[:3], idempotency_key="k")
    assert one.ids is not None
    assert two.ids is not None
    assert one.ids.tolist() == two.ids.tolist()
    assert assigned.stats().rows == 3


def test_a_key_of_another_request_is_refused() -> None:
    ns = namespace()
    ns.insert(ROWS[:2], ["a", "b"], idempotency_key="k")
    ns.delete(["a\0b"], idempotency_key="d")
    before = ns.manifest()
    for again in (
        lambda: ns.insert(ROWS[1:3], ["a", "b"], idempotency_key="k"),
        lambda: ns.insert(ROWS[:2], ["a", "c"], idempotency_key="k"),
        lambda: ns.insert(ROWS[:2], ["a", "b"], idempotency_key="k", mode="insert"),
        lambda: ns.delete(["a"], idempotency_key="k"),
        lambda: ns.delete(["a", "b"], idempotency_key="d"),
    ):
        with pytest.raises(IdempotencyMismatch) as error:
            again()
        assert error.value.status == 422
    assert ns.manifest() == before


def test_a_repeated_request_may_set_its_json_otherwise() -> None:
    db = database(MemoryStore())
    ns = db.create_namespace("ns", dim=DIM, metric="l2", schema={"n": "int", "s": "string"})
    ns.insert(ROWS[:3], [1, 2, 3], attributes={"n": [1, 2, 3]})
    writes: dict[str, Callable[[bytes, str], object]] = {
        "delete": lambda json, key: db.backend.delete_rows(
            "ns", None, filter=json, expected=None, idempotency_key=key
        ),
        "patch": lambda json, key: db.backend.patch_rows(
            "ns", [2], {"n": [3]}, condition=json, expected=None, idempotency_key=key
        ),
        "upsert": lambda json, key: db.backend.insert(
            "ns", ROWS[:1], [2], mode="upsert", condition=json, expected=None, idempotency_key=key
        ),
    }
    for key, write in writes.items():
        first = write(b'["s","Eq","a b"]', key)
        assert write(b'[ "s",\n"Eq" , "a b" ]', key) == first
        with pytest.raises(IdempotencyMismatch):
            write(b'["s","Eq","ab"]', key)


def test_bad_input_leaves_the_epoch_unchanged() -> None:
    ns = namespace()
    before = ns.manifest()
    for vectors, ids in (
        (ROWS[:2, :3], [1, 2]),
        (ROWS[:2], [1]),
        (ROWS[:2], [1, 1]),
        (ROWS[:2], [1, "a"]),
        (ROWS[:2] * np.nan, [1, 2]),
    ):
        with pytest.raises(InvalidArgument):
            ns.insert(vectors, ids)
    with pytest.raises(DimensionMismatch):
        ns.search([1.0])
    with pytest.raises(InvalidId):
        ns.delete([])
    assert ns.manifest() == before


# -- several writers ------------------------------------------------------------------------


@pytest.mark.parametrize("strings", [True, False])
def test_concurrent_upserts_of_one_id_leave_one_live_row(strings: bool) -> None:
    store = MemoryStore()
    namespace(store)
    handles = [database(store, seed=s).namespace("ns") for s in (1, 2)]
    identity: Any = "one" if strings else 1
    start = threading.Barrier(4)

    def upsert(i: int) -> None:
        start.wait()
        for j in range(4):
            handles[i % 2].insert(ROWS[4 * i + j : 4 * i + j + 1], [identity])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upsert, range(4)))
    fresh = database(store, seed=3).namespace("ns")
    assert fresh.stats().rows == 1
    assert ids_found(fresh, ROWS[0]) == [identity]
    assert check_namespace(store, "ns", read_ids=reader_of_ids(store)) == []


def reader_of_ids(store: Any) -> Any:
    """What `check_namespace` reads ids with."""
    ns = engine(store, seed=99).namespace("ns")

    def read(part: Any) -> Any:
        reader = ns.views.reader(ns.manifest(), part)
        every = np.concatenate(list(reader.scan_ids(ReadTrace())))
        return [i if isinstance(i, str) else int(i) for i in every]

    return read


def test_concurrent_inserts_of_assigned_ids_never_share_one() -> None:
    store = MemoryStore()
    namespace(store)
    handles = [database(store, seed=s).namespace("ns") for s in (1, 2)]

    def insert(i: int) -> list[int]:
        taken: list[int] = []
        for _ in range(4):
            answer = handles[i % 2].insert(ROWS[:5])
            assert answer.ids is not None
            taken += answer.ids.tolist()
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [i for some in pool.map(insert, range(4)) for i in some]
    assert len(taken) == len(set(taken)) == 80
    assert sorted(ids_found(handles[0], ROWS[0])) == sorted(taken)


@pytest.mark.parametrize("method", ["put_if_match", "put_if_absent", "put_stream"])
def test_an_answer_lost_during_insert_never_loses_or_doubles_rows(method: str) -> None:
    inner = MemoryStore()
    namespace(inner)
    for fault in (Fault.FAIL_AFTER, Fault.FAIL_BEFORE):
        store = FaultyStore(inner, script([(method, fault)]))
        ns = database(store, seed=int(fault is Fault.FAIL_AFTER)).namespace("ns")
        ids = [1, 2, 3]
        try:
            ns.insert(ROWS[:3], ids)
        except StorageError:
            ns.insert(ROWS[:3], ids)
        fresh = database(inner, seed=7).namespace("ns")
        assert sorted(ids_found(fresh, ROWS[0])) == ids
        assert check_namespace(inner, "ns", read_ids=reader_of_ids(inner)) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_store_that_fails_at_random_never_loses_or_doubles_rows(seed: int) -> None:
    """Acknowledged batches are there whole, refused ones are absent, of doubtful ones all or nothing."""
    print(f"seed {seed}")
    inner = MemoryStore()
    namespace(inner)
    rates = {Fault.FAIL_BEFORE: 0.1, Fault.FAIL_AFTER: 0.15}
    writes = ("put_if_match", "put_if_absent", "put_stream", "get", "get_if_changed", "head")
    store = FaultyStore(inner, at_random(Random(seed), rates, methods=writes))
    ns = database(store, seed=seed)._backend
    acknowledged: set[int] = set()
    refused: set[int] = set()
    for batch in range(15):
        ids = list(range(batch * 5, batch * 5 + 5))
        try:
            ns.insert(
                "ns", ROWS[ids[0] : ids[-1] + 1], ids, mode="upsert", expected=None, idempotency_key=None
            )
        except OutcomeUnknown:
            continue
        except StorageError:
            refused.update(ids)
        else:
            acknowledged.update(ids)
    found = ids_found(database(inner, seed=50).namespace("ns"), ROWS[0])
    assert len(found) == len(set(found))
    assert acknowledged <= set(found)
    assert not refused & set(found)
    assert len(found) % 5 == 0
    assert acknowledged, "nothing got through: the test says nothing"
    assert check_namespace(inner, "ns", read_ids=reader_of_ids(inner)) == []


def test_a_writer_that_loses_the_race_resolves_again() -> None:
    """Another process upserts the same id between our upload and our switch."""
    inner = MemoryStore()
    namespace(inner).insert(ROWS[:1], [1])
    other = database(inner, seed=4).namespace("ns")
    done: list[Any] = []

    def interfere(call: Call) -> None:
        if call.method == "put_if_match" and call.key.endswith("current") and not done:
            done.append(other.insert(ROWS[1:2], [1]))

    ns = database(FaultyStore(inner, before=interfere), seed=5).namespace("ns")
    answer = ns.insert(ROWS[2:3], [1])
    assert done
    assert answer.upserted == 1
    assert answer.epoch == done[0].epoch + 1
    assert ns.stats().rows == 1
    np.testing.assert_array_equal(ns.get(1).vector, ROWS[2])


def test_a_namespace_that_was_made_anew_takes_no_write_meant_for_the_old_one() -> None:
    inner = MemoryStore()
    db = database(inner, seed=4)
    db.create_namespace("ns", dim=DIM, metric="l2")
    done: list[int] = []

    def interfere(call: Call) -> None:
        if call.method == "put_if_match" and call.key.endswith("current") and not done:
            done.append(1)
            db.delete_namespace("ns")
            db.create_namespace("ns", dim=DIM, metric="l2")

    ns = database(FaultyStore(inner, before=interfere), seed=5).namespace("ns")
    with pytest.raises(NamespaceNotFound):
        ns.insert(ROWS[:1], [1])
    assert db.namespace("ns").stats().rows == 0


# -- how an insert begins -------------------------------------------------------------------


def test_an_insert_that_knows_an_epoch_whose_parts_are_gone_begins_again() -> None:
    store = RangeStore()
    ns = namespace(store)
    ns.insert(ROWS[:2], [1, 2])
    ns.insert(ROWS[2:4], [3, 4])
    late = database(store).namespace(ns.name)
    known = {part["id"] for part in late.manifest()["parts"]}
    database(store, seed=1).namespace(ns.name).compact()
    for part in known - {part["id"] for part in ns.manifest()["parts"]}:
        store.delete(part_key(ns.name, part))  # as collection does, once the epoch is old enough
    assert late.insert(ROWS[4:5], [1]).upserted == 1
    assert ids_found(late, ROWS[4], 1) == [1]
    assert late.stats().rows == 4


def test_an_insert_means_the_namespace_that_there_is_when_it_begins() -> None:
    store = MemoryStore()
    ns = namespace(store)
    ns.insert(ROWS[:2], [1, 2])
    other = database(store, seed=1)
    other.delete_namespace(ns.name)
    other.create_namespace(ns.name, dim=DIM + 1)
    wider = np.ones((1, DIM + 1), dtype=np.float32)
    assert ns.insert(wider, [7]).n == 1  # it knew of another dimension
    other.delete_namespace(ns.name)
    other.create_namespace(ns.name, dim=DIM + 1)
    assert ns.insert(wider, [8]).n == 1
    assert ids_found(other.namespace(ns.name), wider[0]) == [8]


def test_an_insert_whose_look_at_current_failed_means_no_namespace_that_is_gone() -> None:
    """What was known may be of a namespace that had the name before the call (seed 2092)."""
    store = MemoryStore()
    failing = [False]

    def fail_once(call: Call) -> None:
        if call.method == "get_if_changed" and failing[0]:
            failing[0] = False
            raise StorageRetryable("not now")

    ns = namespace(FaultyStore(store, before=fail_once))
    ns.insert(ROWS[:2], [1, 2])
    other = database(store, seed=1)
    other.delete_namespace(ns.name)
    other.create_namespace(ns.name, dim=DIM)
    failing[0] = True
    assert ns.insert(ROWS[:1], [7]).upserted == 0
    assert not failing[0]
    assert ids_found(other.namespace(ns.name), ROWS[0]) == [7]


def test_an_insert_is_laid_out_by_the_schema_that_there_is_when_it_begins() -> None:
    store = MemoryStore()
    ns = namespace(store)
    ns.insert(ROWS[:1], [1])
    database(store, seed=1).namespace(ns.name).insert(ROWS[1:2], [2], attributes={"a": [0.5]})
    ns.insert(ROWS[2:3], [3], attributes={"a": [1]})  # an int, for all that this process knew
    assert ns.search(ROWS[2], top_k=1, include=["a"])[0].attributes == {"a": 1.0}


def test_whatever_follows_a_commit_does_not_bring_it_about_again() -> None:
    store = MemoryStore()
    ns = namespace(store)
    ns.insert(ROWS[:1])
    told: list[float] = []

    def refuse_the_end(share: float) -> None:
        told.append(share)
        if share == 1.0:
            database(store, seed=1).namespace(ns.name).update(probe_fraction=0.2)
            raise InvalidArgument("the caller's own")

    with pytest.raises(InvalidArgument, match="the caller's own"):
        ns.insert(ROWS[1:2], progress=refuse_the_end)
    assert told[-1] == 1.0
    assert ns.stats().rows == 2
