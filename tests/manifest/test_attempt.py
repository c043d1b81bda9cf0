"""A group applied to a base: barriers, incarnations, tombstones, ids and keys, through a publisher."""

from __future__ import annotations

from typing import Any

import pytest
from pyroaring import BitMap

from tests.manifest.helpers import (
    NS,
    ScriptedStore,
    change,
    grouped,
    holds,
    insert,
    make_namespace,
    make_publisher,
    upload,
)
from vecstore.errors import (
    IdempotencyMismatch,
    InvalidId,
    NamespaceNotFound,
    StorageError,
    StorageRetryable,
    TooManyRequests,
)
from vecstore.limits import MAX_U64
from vecstore.maintenance.gc import Barrier
from vecstore.manifest import attempt, history
from vecstore.manifest.attempt import IDEMPOTENCY_SECONDS
from vecstore.manifest.branch import branch
from vecstore.manifest.draft import Draft
from vecstore.manifest.keys import current_key
from vecstore.manifest.lifecycle import create_namespace, delete_namespace
from vecstore.manifest.model import Mean
from vecstore.manifest.tombstones import TombstoneCache, read_tombstone

CURRENT = current_key(NS)


# -- R3: the barrier ------------------------------------------------------------------------


def test_a_writer_that_slept_through_collection_uploads_again() -> None:
    store = ScriptedStore()
    writer, collector = make_namespace(store), make_publisher(store, 2)
    stale = upload(writer)
    store.time += 10_000
    collector.commit(Barrier(commit_id=collector.new_commit_id(), horizon=store.time - 3600, floor=1))
    again = []

    def reupload() -> Any:
        again.append(upload(writer))
        return again[-1]

    committed = writer.commit(change(writer, part=stale, reupload=reupload))
    assert len(again) == 1
    assert [part.id for part in committed.manifest.parts] == [again[0].id]


def test_an_upload_younger_than_the_barrier_is_kept() -> None:
    store = ScriptedStore()
    writer, collector = make_namespace(store), make_publisher(store, 2)
    store.time += 10_000
    collector.commit(Barrier(commit_id=collector.new_commit_id(), horizon=store.time - 3600, floor=1))
    request = insert(writer)
    committed = writer.commit(request)
    assert [part.id for part in committed.manifest.parts] == [request.part.id]


def test_an_upload_that_cannot_be_repeated_in_time_fails_alone() -> None:
    store = ScriptedStore()
    writer, collector = make_namespace(store), make_publisher(store, 2)
    stale = upload(writer)
    store.time += 10_000
    collector.commit(Barrier(commit_id=collector.new_commit_id(), horizon=store.time - 10, floor=1))
    with pytest.raises(StorageRetryable):
        writer.commit(change(writer, part=stale, reupload=lambda: stale))


def test_a_horizon_that_was_set_while_the_clock_was_ahead_is_told_of_with_the_way_out() -> None:
    store = ScriptedStore()
    writer, collector = make_namespace(store), make_publisher(store, 2)
    collector.commit(Barrier(commit_id=collector.new_commit_id(), horizon=store.time + 86_400, floor=1))
    request = insert(writer, reupload=lambda: upload(writer))
    with pytest.raises(StorageError, match=r"86400 s behind .*branch") as caught:
        writer.commit(request)
    assert not isinstance(caught.value, StorageRetryable)
    assert store.count("put_if_absent", "/parts/") == 1  # it is not put again for nothing
    fork = branch(lambda name: make_publisher(store, namespace=name, seed=len(name)), NS, "fork").manifest
    there = make_publisher(store, 3, namespace=fork.namespace)
    assert there.commit(insert(there)).epoch == 2
    store.time += 86_400
    assert len(writer.commit(insert(writer)).manifest.parts) == 1


def test_horizon_and_floor_never_fall() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    store.time += 100
    for horizon, floor in [(store.time, 2), (store.time - 50, 1)]:
        manifest = publisher.commit(
            Barrier(commit_id=publisher.new_commit_id(), horizon=horizon, floor=floor)
        ).manifest
    assert (manifest.horizon, manifest.history_floor) == (store.time, 2)


# -- R4: deletion and creation anew ---------------------------------------------------------


def test_work_for_a_namespace_that_was_made_anew_does_not_reach_it() -> None:
    store = ScriptedStore()
    writer, admin = make_namespace(store), make_publisher(store, 2)
    old = writer.snapshots.strong().manifest.incarnation
    late = insert(writer, incarnation=old)
    delete_namespace(store, NS, incarnation=old, publisher=admin)
    create_namespace(store, NS, dim=8, metric="dot", publisher=admin, rng=admin.rng)
    with pytest.raises(NamespaceNotFound):
        writer.commit(late)
    assert history.read_current(store, NS).manifest.parts == ()
    holds(store)


def test_a_commit_upon_a_deleted_namespace_finds_nothing() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    delete_namespace(store, NS, publisher=publisher)
    with pytest.raises(NamespaceNotFound):
        publisher.commit(insert(publisher))


def test_a_commit_upon_a_namespace_made_anew_elsewhere_is_not_refused_for_what_we_knew() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    delete_namespace(store, NS, publisher=one)
    create_namespace(store, NS, dim=8, metric="dot", publisher=other, rng=other.rng)
    assert one.commit(insert(one)).epoch == 4


# -- R6: tombstones -------------------------------------------------------------------------


def test_tombstones_are_cumulative_and_one_object_a_commit() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    a = publisher.commit(insert(publisher)).manifest.parts[0]
    b = publisher.commit(insert(publisher)).manifest.parts[1]
    publisher.commit(change(publisher, kills={a.id: [1, 2]}))
    manifest = publisher.commit(change(publisher, kills={a.id: [2, 3], b.id: [0]})).manifest
    assert store.count("put_if_absent", "/deletes/") == 2
    for part, rows in zip(manifest.parts, [[1, 2, 3], [0]], strict=True):
        assert part.tombstone is not None
        assert read_tombstone(store, part.tombstone, n=part.n) == BitMap(rows)
    assert manifest.rows == 16
    holds(store)


def test_kills_are_resolved_anew_upon_the_winner_of_a_race() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    part = one.commit(insert(one)).manifest.parts[0]
    other.snapshots.strong()
    one.commit(change(one, kills={part.id: [1, 2]}))
    committed = other.commit(change(other, kills={part.id: [2, 3]}))
    assert committed.answer == {"killed": 1}
    tombstone = committed.manifest.parts[0].tombstone
    assert tombstone is not None
    assert read_tombstone(store, tombstone, n=10) == BitMap([1, 2, 3])
    holds(store)


def test_no_tombstone_names_a_part_that_the_same_commit_removes() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    a = publisher.commit(insert(publisher)).manifest.parts[0]

    def kill_then_remove(draft: Draft) -> None:
        draft.kill(a.id, BitMap([1]))
        draft.remove_parts([a.id])

    manifest = publisher.commit(insert(publisher, before=kill_then_remove)).manifest
    assert [part.tombstone for part in manifest.parts] == [None]
    assert store.count("put_if_absent", "/deletes/") == 0
    with pytest.raises(KeyError):
        publisher.commit(change(publisher, kills={a.id: [1]}))


def test_a_writer_that_made_a_tombstone_need_not_read_it_back() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    a = publisher.commit(insert(publisher)).manifest.parts[0]
    publisher.commit(change(publisher, kills={a.id: [1]}))
    publisher.commit(change(publisher, kills={a.id: [2]}))
    assert store.count("get_range") == 0


# -- R11 and the draft ----------------------------------------------------------------------


def draft_of(publisher: Any) -> Draft:
    return Draft(
        publisher.snapshots.strong().manifest,
        now=publisher.store.now(),
        tombstones=TombstoneCache(publisher.store),
    )


def test_assigned_ids_never_overlap_and_stay_above_given_ones() -> None:
    draft = draft_of(make_namespace(ScriptedStore()))
    assert draft.take_ids(10) == 0
    draft.raise_next_id(99)
    draft.raise_next_id(5)
    assert draft.take_ids(3) == 100
    assert draft.manifest.next_id == 103


def test_the_counter_of_ids_ends_in_an_error() -> None:
    draft = draft_of(make_namespace(ScriptedStore()))
    draft.raise_next_id(MAX_U64)
    with pytest.raises(InvalidId):
        draft.take_ids(1)
    assert draft.manifest.next_id == MAX_U64


def test_a_namespace_has_one_kind_of_ids() -> None:
    draft = draft_of(make_namespace(ScriptedStore()))
    draft.set_id_kind("u64")
    draft.set_id_kind("u64")
    with pytest.raises(InvalidId):
        draft.set_id_kind("string")


def test_a_change_cannot_set_what_is_the_publishers() -> None:
    with pytest.raises(ValueError, match="epoch"):
        draft_of(make_namespace(ScriptedStore())).replace(epoch=7)


def test_a_row_that_a_part_does_not_have_cannot_be_killed() -> None:
    publisher = make_namespace(ScriptedStore())
    part = publisher.commit(insert(publisher)).manifest.parts[0]
    with pytest.raises(ValueError, match="row 10"):
        publisher.commit(change(publisher, kills={part.id: [10]}))


def test_means_that_no_part_uses_are_dropped_but_for_the_newest() -> None:
    publisher = make_namespace(ScriptedStore())
    for name in ("a", "b", "c"):
        manifest = publisher.commit(
            insert(publisher, before=lambda draft, name=name: draft.add_mean(Mean(name, b"\0")))
        ).manifest
    assert [mean.id for mean in manifest.means] == ["c"]


def test_parts_have_a_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr("vecstore.manifest.draft.MAX_PARTS", 2)
    publisher = make_namespace(ScriptedStore())
    parts = [publisher.commit(insert(publisher)).manifest.parts[-1] for _ in range(2)]
    with pytest.raises(TooManyRequests):
        publisher.commit(insert(publisher))
    # A compaction makes room first.
    publisher.commit(insert(publisher, removes=[part.id for part in parts]))


# -- R12: idempotency keys ------------------------------------------------------------------


def test_a_retried_request_is_applied_once_whichever_node_it_reaches() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    first = one.commit(insert(one, idempotency=("key", "digest")))
    again = insert(other, idempotency=("key", "digest"))
    replay = other.commit(again)
    assert replay.replayed
    assert (replay.epoch, replay.answer) == (first.epoch, first.answer)
    assert again.attempts == 0
    assert len(history.read_current(store, NS).manifest.parts) == 1


def test_two_nodes_with_one_key_at_once_apply_it_once() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    other.snapshots.strong()  # knows nothing of what one is about to do
    one.commit(insert(one, idempotency=("key", "digest")))
    late = insert(other, idempotency=("key", "digest"))
    assert other.commit(late).replayed
    assert late.attempts == 1
    assert len(history.read_current(store, NS).manifest.parts) == 1


def test_the_same_key_twice_in_one_group_is_applied_once() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    results = grouped(publisher, store, *(insert(publisher, idempotency=("key", "digest")) for _ in range(2)))
    assert [result.replayed for result in results] == [False, True]
    assert [result.epoch for result in results] == [3, 3]
    assert len(history.read_current(store, NS).manifest.parts) == 2


def test_another_request_under_the_same_key_is_refused() -> None:
    publisher = make_namespace(ScriptedStore())
    publisher.commit(insert(publisher, idempotency=("key", "digest")))
    with pytest.raises(IdempotencyMismatch):
        publisher.commit(insert(publisher, idempotency=("key", "other")))


def test_a_key_is_forgotten_after_its_time() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher, idempotency=("key", "digest")))
    store.time += IDEMPOTENCY_SECONDS
    assert not publisher.commit(insert(publisher, idempotency=("key", "other"))).replayed
    assert len(history.read_current(store, NS).manifest.idempotency) == 1


def test_a_full_table_of_keys_is_for_the_caller_to_wait_for(monkeypatch: Any) -> None:
    monkeypatch.setattr(attempt, "MAX_IDEMPOTENCY_KEYS", 2)
    store = ScriptedStore()
    publisher = make_namespace(store)
    for key in ("a", "b"):
        publisher.commit(insert(publisher, idempotency=(key, "digest")))
        store.time += 60
    with pytest.raises(TooManyRequests) as error:
        publisher.commit(insert(publisher, idempotency=("c", "digest")))
    assert error.value.details == {"limit": 2, "retry_after": IDEMPOTENCY_SECONDS - 120}
    assert publisher.commit(insert(publisher, idempotency=("a", "digest"))).replayed
    publisher.commit(insert(publisher))
    store.time += error.value.details["retry_after"]
    publisher.commit(insert(publisher, idempotency=("c", "digest")))


def test_a_refused_request_does_not_use_up_its_key() -> None:
    publisher = make_namespace(ScriptedStore())

    def fail(draft: Draft) -> None:
        raise InvalidId("no")

    with pytest.raises(InvalidId):
        publisher.commit(insert(publisher, before=fail, idempotency=("key", "digest")))
    assert not publisher.commit(insert(publisher, idempotency=("key", "digest"))).replayed
