"""R8: a restore takes an epoch's rows and schema, keeps all else, and nothing is lost beside it."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap

from tests.manifest.helpers import (
    NS,
    Call,
    Gate,
    ScriptedStore,
    change,
    in_thread,
    insert,
    make_namespace,
    make_publisher,
    scripted,
    timed_out,
    until_queued,
    upload,
)
from vecstore.errors import InvalidArgument, PreconditionFailed, SnapshotExpired
from vecstore.invariants import check_namespace
from vecstore.maintenance.compactor import SourceGone, SwapParts
from vecstore.maintenance.gc import Barrier, collect
from vecstore.manifest import history
from vecstore.manifest.draft import Draft
from vecstore.manifest.keys import history_key
from vecstore.manifest.lifecycle import UpdateSettings, create_namespace, delete_namespace
from vecstore.manifest.model import Manifest, Pin
from vecstore.manifest.publish import Publisher
from vecstore.manifest.restore import restore
from vecstore.manifest.tombstones import read_tombstone

HOUR = 3600.0


def current(store: Any) -> Manifest:
    return history.read_current(store, NS).manifest


def seen(publisher: Publisher) -> tuple[str, int]:
    return publisher.snapshots.strong().token


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def publisher(store: ScriptedStore) -> Publisher:
    """Epoch 1 is empty, 2 has a part, 3 a tombstone on it, 4 replaces it by another."""
    made = make_namespace(store)
    store.tick = 1.0
    old = made.commit(insert(made)).manifest.parts[0]
    made.commit(change(made, kills={old.id: [1]}))
    made.commit(insert(made, removes=[old.id]))
    return made


def test_a_restore_takes_rows_and_schema_of_the_epoch_and_keeps_everything_else(
    store: Any, publisher: Any
) -> None:
    incarnation = seen(publisher)[0]
    pin = Pin(name="t", kind="tag", incarnation=incarnation, epoch=2, created_at=0.0)

    def book(draft: Draft) -> None:
        draft.replace(pins=(pin,))
        draft.take_ids(100)
        draft.set_id_kind("u64")

    publisher.commit(change(publisher, before=book, idempotency=("key", "request")))
    publisher.commit(UpdateSettings(commit_id=publisher.new_commit_id(), changes={"list_rows": 64}))
    publisher.commit(Barrier(commit_id=publisher.new_commit_id(), horizon=7.0, floor=3))
    before = current(store)
    done = restore(publisher, 3, expected=seen(publisher))
    old, after = history.read_copy(store, NS, 3).manifest, current(store)
    assert done.epoch == after.epoch == before.epoch + 1
    assert after.parts == old.parts
    assert after.parts[0].tombstone is not None
    assert (after.settings, after.id_kind, after.means) == (old.settings, None, old.means)
    assert after.settings.list_rows == 32
    kept = ("next_id", "idempotency", "pins", "horizon", "history_floor", "incarnation", "created_at")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert after.commits[:-1] == before.commits
    assert after.lineage not in (before.lineage, old.lineage)
    assert check_namespace(store, NS) == []


def test_no_object_is_written_but_the_copy_of_what_was_seen_and_current(store: Any, publisher: Any) -> None:
    token = seen(publisher)
    publisher.snapshots.at_epoch(3)
    before = set(store.objects)
    store.calls.clear()
    restore(publisher, 3, expected=token)
    assert [key.rpartition("/")[2] for op, key in store.calls if op.startswith("put")] == [
        f"{token[1]:020d}.json",
        "current",
    ]
    assert len(set(store.objects) - before) == 1


def test_a_restore_is_refused_if_anything_was_written_since_it_was_decided(
    store: Any, publisher: Any
) -> None:
    token = seen(publisher)
    other = make_publisher(store, 2)
    other.commit(insert(other))
    with pytest.raises(PreconditionFailed):
        restore(publisher, 2, expected=token)
    assert len(current(store).parts) == 2


def test_a_restore_that_follows_a_write_in_one_group_is_refused(store: Any, publisher: Any) -> None:
    outcome: list[Any] = []
    token = seen(publisher)
    before = change(publisher, part=upload(publisher))
    with Gate(store) as gate:
        threads = [in_thread(lambda: publisher.commit(insert(publisher)))]
        assert gate.reached.wait(30)
        threads.append(in_thread(lambda: publisher.commit(before)))
        until_queued(publisher, 1)
        threads.append(
            in_thread(lambda: restore(publisher, 2, expected=(token[0], token[1] + 1)), into=outcome)
        )
        until_queued(publisher, 2)
    for thread in threads:
        thread.join(30)
    assert isinstance(outcome[0], PreconditionFailed)
    assert len(current(store).parts) == 3


def test_an_epoch_below_the_floor_is_restored_only_if_it_is_pinned(store: Any, publisher: Any) -> None:
    pin = Pin(name="t", kind="tag", incarnation=seen(publisher)[0], epoch=2, created_at=0.0)
    publisher.commit(change(publisher, before=lambda draft: draft.replace(pins=(pin,))))
    store.time += 2 * HOUR
    collect(store, NS, publisher=publisher)
    with pytest.raises(SnapshotExpired):
        restore(publisher, 3, expected=seen(publisher))
    assert restore(publisher, 2, expected=seen(publisher)).manifest.parts[0].live == 10
    assert check_namespace(store, NS) == []


def test_a_restore_upon_an_epoch_that_was_guessed_does_not_bring_back_what_collection_took(
    store: Any, publisher: Any
) -> None:
    """The barrier is the epoch that the caller claims to have seen, so ``If-Match`` holds."""
    incarnation, epoch = seen(publisher)
    collected: list[int] = []

    def script(call: Call) -> Any:
        result = call.carry_out()
        if call.key == history_key(NS, 2) and not collected:
            store.script = None
            store.time += 2 * HOUR
            collected.append(collect(store, NS, publisher=make_publisher(store, 2)).deleted)
        return result

    with scripted(store, script), pytest.raises(SnapshotExpired):
        restore(publisher, 2, expected=(incarnation, epoch + 1))
    assert collected[0] > 0
    assert current(store).epoch == epoch + 1
    assert check_namespace(store, NS) == []


def test_an_epoch_of_another_incarnation_or_of_the_future_is_not_restored(store: Any, publisher: Any) -> None:
    with pytest.raises(InvalidArgument):
        restore(publisher, 9, expected=seen(publisher))
    token = seen(publisher)
    delete_namespace(store, NS, publisher=publisher)
    create_namespace(store, NS, dim=4, metric="l2", publisher=publisher, rng=publisher.rng)
    with pytest.raises(SnapshotExpired):
        restore(publisher, 2, expected=seen(publisher))
    with pytest.raises(PreconditionFailed):
        restore(publisher, current(store).epoch, expected=token)


def test_a_restore_whose_answer_is_lost_is_applied_once(store: Any, publisher: Any) -> None:
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            call.carry_out()
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script):
        done = restore(publisher, 3, expected=seen(publisher))
    assert (done.epoch, current(store).epoch) == (5, 5)


def test_a_compaction_from_before_the_restore_is_thrown_away(store: Any, publisher: Any) -> None:
    """Its source is there again after the restore, with a row alive that it had dropped."""
    restore(publisher, 3, expected=seen(publisher))
    manifest = current(store)
    source = manifest.parts[0]
    dead = read_tombstone(store, source.tombstone, n=source.n)
    merged = upload(publisher, n=9)
    restore(publisher, 2, expected=seen(publisher))
    swap = SwapParts(
        commit_id=publisher.new_commit_id(),
        incarnation=manifest.incarnation,
        lineage=manifest.lineage,
        sources=((source, dead, np.arange(10)),),
        part=merged,
        mean=None,
        upload=lambda: merged,
    )
    with pytest.raises(SourceGone):
        publisher.commit(swap)
    assert current(store).parts[0].live == 10


def test_a_write_that_meets_a_restore_kills_what_came_back(store: Any, publisher: Any) -> None:
    """It was prepared when the old part was gone; R8: it looks into the restored parts all the same."""
    writer = make_publisher(store, 2)
    request = insert(writer)
    old = history.read_copy(store, NS, 2).manifest.parts[0]

    def kill_row_4(draft: Draft) -> None:
        for part in draft.manifest.parts:
            draft.kill(part.id, BitMap([4]))

    request.before = kill_row_4
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            restore(publisher, 2, expected=seen(publisher))
        return call.carry_out()

    with scripted(store, script):
        writer.commit(request)
    parts = {part.id: part for part in current(store).parts}
    assert set(parts) == {old.id, request.part.id if request.part else ""}
    assert read_tombstone(store, parts[old.id].tombstone, n=10) == BitMap([4])
    assert check_namespace(store, NS) == []


def at_every_call(store: ScriptedStore, job: Any, other: Any) -> int:
    """Run ``job`` on copies of the store, with ``other`` at each of its calls; how many there were."""
    start = (dict(store.objects), store.time)
    at = 0
    while True:
        at += 1
        count = [0]

        def script(call: Call, at: int = at, count: list[int] = count) -> Any:
            count[0] += 1
            if count[0] == at:
                other()
            return call.carry_out()

        store.objects, store.time = dict(start[0]), start[1]
        with scripted(store, script):
            job(at)
        assert check_namespace(store, NS) == [], at
        if count[0] < at:
            return at - 1


def test_collection_between_any_two_calls_of_a_restore_takes_nothing_that_it_restores(
    store: Any, publisher: Any
) -> None:
    outcomes = set()

    def collection() -> None:
        store.script = None
        store.time += 2 * HOUR
        collect(store, NS, publisher=make_publisher(store, 7))

    def job(at: int) -> None:
        mine = make_publisher(store, 100 + at)
        try:
            restore(mine, 2, expected=seen(mine))
        except (SnapshotExpired, PreconditionFailed) as error:
            outcomes.add(type(error))
        else:
            outcomes.add(type(None))

    assert at_every_call(store, job, collection) >= 4
    assert outcomes == {type(None), SnapshotExpired, PreconditionFailed}


def test_a_restore_between_any_two_calls_of_a_collection_keeps_what_it_restores(
    store: Any, publisher: Any
) -> None:
    outcomes = set()
    for _ in range(3):
        upload(publisher)  # something to collect
    store.time += HOUR - 5  # epochs 2 and 3 are readable still, the uploads are about to go

    def restoration() -> None:
        store.script = None
        mine = make_publisher(store, 7)
        try:
            restore(mine, 2, expected=seen(mine))
        except SnapshotExpired:
            outcomes.add(False)
        else:
            outcomes.add(True)

    def job(at: int) -> None:
        store.time += 20
        collect(store, NS, publisher=make_publisher(store, 100 + at))

    assert at_every_call(store, job, restoration) > 10
    assert outcomes == {True, False}


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_crash_at_any_call_leaves_a_restore_whole_or_absent(store: Any, publisher: Any, lost: str) -> None:
    class Crash(BaseException):
        pass

    token, start = seen(publisher), dict(store.objects)
    wanted = history.read_copy(store, NS, 2).manifest.parts
    restored: list[bool] = []
    for at in count(1):
        store.objects = dict(start)
        calls = iter(range(1, 1_000))

        def script(call: Call, at: int = at, calls: Any = calls) -> Any:
            crash = next(calls) == at
            if crash and lost == "request":
                raise Crash
            result = call.carry_out()
            if crash:
                raise Crash
            return result

        with scripted(store, script), suppress(Crash):
            restore(make_publisher(store, 100 + at), 2, expected=token)
        restored.append(current(store).parts == wanted)
        assert check_namespace(store, NS) == []
        another = make_publisher(store, 2)
        another.commit(insert(another))  # nobody is in anybody's way
        assert check_namespace(store, NS) == []
        if next(calls) <= at:  # it needed no more calls
            break
    assert restored == sorted(restored)
    assert set(restored) == {False, True}
