"""Collection: nothing that anybody may still read or commit is lost, and the rest goes."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from tests.manifest.helpers import (
    NS,
    Call,
    Gate,
    ScriptedStore,
    Time,
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
from vecstore.errors import InvalidArgument, NamespaceNotFound, SnapshotExpired, StorageCorrupt
from vecstore.invariants import check_namespace
from vecstore.maintenance import gc
from vecstore.maintenance.gc import collect
from vecstore.manifest import history
from vecstore.manifest.draft import Draft
from vecstore.manifest.keys import current_key, delete_key, history_key, part_key
from vecstore.manifest.lifecycle import create_namespace, delete_namespace
from vecstore.manifest.model import Part, Pin
from vecstore.manifest.publish import Publisher
from vecstore.types import GcResult

HOUR = 3600.0


def run(publisher: Publisher, **more: Any) -> GcResult:
    return collect(publisher.store, NS, **{"publisher": publisher, **more})


def current(store: ScriptedStore) -> Any:
    return history.read_current(store, NS).manifest


def key_of(part: Part) -> str:
    return part_key(part.owner, part.id)


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def publisher(store: ScriptedStore) -> Publisher:
    return make_namespace(store)


def replaced(publisher: Publisher) -> tuple[Part, Part]:
    """A part with a tombstone that another part has replaced."""
    old = publisher.commit(insert(publisher)).manifest.parts[0]
    publisher.commit(change(publisher, kills={old.id: [1]}))
    with_tombstone = publisher.snapshots.strong().manifest.parts[0]
    new = publisher.commit(insert(publisher, removes=[old.id])).manifest.parts[0]
    return with_tombstone, new


def test_what_was_replaced_goes_after_retention_and_grace(store: Any, publisher: Any) -> None:
    old, new = replaced(publisher)
    store.time += HOUR + 10
    result = run(publisher)
    assert old.tombstone is not None
    assert set(result.keys) == {
        key_of(old),
        delete_key(NS, old.tombstone.delete_id),
        *(history_key(NS, epoch) for epoch in (1, 2, 3)),
    }
    assert result.deleted == len(result.keys)
    assert not set(result.keys) & set(store.objects)
    assert key_of(new) in store.objects
    assert check_namespace(store, NS) == []
    with pytest.raises(SnapshotExpired):
        publisher.snapshots.at_epoch(3)


def test_an_epoch_stays_readable_for_its_retention_counted_from_when_it_was_replaced(
    store: Any, publisher: Any
) -> None:
    old = publisher.commit(insert(publisher)).manifest.parts[0]
    publisher.prepare()  # so that its copy looks as old as it is
    store.time += 10 * 24 * HOUR  # current for ten days
    publisher.commit(insert(publisher, removes=[old.id]))
    store.time += HOUR - 100
    assert run(publisher).deleted == 0
    assert publisher.snapshots.at_epoch(2).manifest.parts == (old,)
    assert check_namespace(store, NS) == []
    store.time += 200
    assert key_of(old) in run(publisher).keys


def test_an_upload_under_way_is_left_alone_for_the_grace_period(store: Any, publisher: Any) -> None:
    orphan = upload(publisher)
    store.time += HOUR - 10
    result = run(publisher)
    assert (result.deleted, result.waiting) == (0, 1)
    assert key_of(orphan) in store.objects
    store.time += 20
    assert run(publisher).keys == (key_of(orphan),)


def test_nothing_to_delete_commits_nothing(store: Any, publisher: Any) -> None:
    publisher.commit(insert(publisher))
    epoch = current(store).epoch
    assert run(publisher).deleted == 0
    assert current(store).epoch == epoch


def test_an_idle_namespace_comes_to_rest(store: Any, publisher: Any) -> None:
    replaced(publisher)
    epochs = []
    for _ in range(8):
        store.time += 2 * HOUR
        run(publisher)
        epochs.append(current(store).epoch)
    assert len(set(epochs[2:])) == 1


def test_the_barrier_is_committed_before_the_first_delete(store: Any, publisher: Any) -> None:
    replaced(publisher)
    store.time += 2 * HOUR
    store.calls.clear()
    run(publisher)
    operations = [op for op, _ in store.calls]
    assert operations.index("put_if_match") < operations.index("delete")
    manifest = current(store)
    assert manifest.horizon == store.time - HOUR
    assert manifest.history_floor == 4


def test_without_the_barrier_committed_nothing_is_deleted(store: Any, publisher: Any) -> None:
    replaced(publisher)
    store.time += 2 * HOUR

    def script(call: Call) -> Any:
        if call.op == "put_if_match":
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script), pytest.raises(Exception, match="may or may not"):
        run(publisher)
    assert store.count("delete") == 0


def test_a_writer_that_slept_through_collection_does_not_commit_a_part_that_is_gone(
    store: Any, publisher: Any
) -> None:
    """R3, whole: it passed every check, slept, and its ``If-Match`` would still hold but for the barrier."""
    collector = make_publisher(store, 2)
    orphan = upload(collector)  # something to collect, so that there is a barrier
    stale = upload(publisher)
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            store.time += 3 * HOUR
            assert {key_of(orphan), key_of(stale)} <= set(run(collector).keys)
        return call.carry_out()

    with scripted(store, script):
        committed = publisher.commit(change(publisher, part=stale, reupload=lambda: upload(publisher)))
    assert committed.manifest.parts[0].id != stale.id
    assert check_namespace(store, NS) == []


def test_a_part_that_is_committed_while_collection_lists_is_spared(store: Any, publisher: Any) -> None:
    collector = make_publisher(store, 2)
    upload(collector)
    slow = upload(publisher)
    store.time += 2 * HOUR
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            publisher.commit(change(publisher, part=slow))  # just before the barrier
        return call.carry_out()

    with scripted(store, script):
        run(collector)
    assert current(store).parts == (slow,)
    assert check_namespace(store, NS) == []


def test_a_part_that_came_and_went_while_collection_listed_is_spared(store: Any, publisher: Any) -> None:
    """Named only by an epoch between the one that collection began with and its barrier."""
    collector = make_publisher(store, 2)
    upload(collector)
    slow = upload(publisher)
    store.time += 2 * HOUR
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            publisher.commit(change(publisher, part=slow))
            publisher.commit(insert(publisher, removes=[slow.id]))
        return call.carry_out()

    with scripted(store, script):
        run(collector)
    assert key_of(slow) in store.objects
    assert check_namespace(store, NS) == []


def test_a_part_that_is_committed_in_one_group_with_the_barrier_is_spared(store: Any, publisher: Any) -> None:
    upload(publisher)
    slow = change(publisher, part=upload(publisher))
    store.time += 2 * HOUR
    with Gate(store) as gate:
        threads = [in_thread(lambda: publisher.commit(insert(publisher)))]
        assert gate.reached.wait(30)
        for i, job in enumerate([lambda: publisher.commit(slow), lambda: run(publisher)]):
            threads.append(in_thread(job))
            until_queued(publisher, i + 1)
    for thread in threads:
        thread.join(30)
    assert slow.part in current(store).parts
    assert current(store).epoch == 3
    assert store.count("delete") > 0
    assert check_namespace(store, NS) == []


def test_a_dry_run_tells_and_touches_nothing(store: Any, publisher: Any) -> None:
    replaced(publisher)
    store.time += 2 * HOUR
    before = dict(store.objects)
    told = run(publisher, dry_run=True)
    assert store.objects == before
    assert told.dry_run
    done = run(publisher)
    assert (told.keys, told.deleted, told.bytes) == (done.keys, done.deleted, done.bytes)


def pin_current(publisher: Publisher) -> Pin:
    incarnation, epoch = publisher.snapshots.strong().token
    pin = Pin(name="v1", kind="tag", incarnation=incarnation, epoch=epoch, created_at=0.0)

    def tag(draft: Draft) -> None:
        draft.replace(pins=(*draft.manifest.pins, pin))

    publisher.commit(change(publisher, before=tag))
    return pin


def test_what_a_pin_names_stays_and_goes_after_it(store: Any, publisher: Any) -> None:
    old = publisher.commit(insert(publisher)).manifest.parts[0]
    pin = pin_current(publisher)
    publisher.commit(insert(publisher, removes=[old.id]))
    store.time += 2 * HOUR
    run(publisher)
    assert history_key(NS, 1) not in store.objects
    assert key_of(old) in store.objects
    assert publisher.snapshots.at_epoch(pin.epoch).manifest.parts == (old,)
    assert check_namespace(store, NS) == []
    publisher.commit(change(publisher, before=lambda draft: draft.replace(pins=())))
    store.time += 2 * HOUR
    run(publisher)
    assert key_of(old) not in store.objects
    assert history_key(NS, pin.epoch) not in store.objects


def test_a_pin_that_is_committed_while_collection_lists_is_heeded(store: Any, publisher: Any) -> None:
    old = publisher.commit(insert(publisher)).manifest.parts[0]
    token = publisher.snapshots.strong().token
    publisher.commit(insert(publisher, removes=[old.id]))
    store.time += 2 * HOUR
    pin = Pin(name="v1", kind="tag", incarnation=token[0], epoch=token[1], created_at=0.0)
    collector = make_publisher(store, 2)
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            publisher.commit(change(publisher, before=lambda draft: draft.replace(pins=(pin,))))
        return call.carry_out()

    with scripted(store, script):
        run(collector)
    assert publisher.snapshots.at_epoch(pin.epoch).manifest.parts == (old,)
    assert check_namespace(store, NS) == []


def test_the_objects_of_a_deleted_namespace_go_and_its_marker_stays(store: Any, publisher: Any) -> None:
    _, new = replaced(publisher)
    delete_namespace(store, NS, publisher=publisher)
    store.time += HOUR - 10
    run(publisher)
    assert key_of(new) in store.objects
    store.time += 20
    run(publisher)
    assert not [key for key in store.objects if "/parts/" in key or "/deletes/" in key]
    assert current(store).state == "deleted"
    create_namespace(store, NS, dim=8, metric="dot", publisher=publisher, rng=publisher.rng)
    assert check_namespace(store, NS) == []


def test_a_writer_to_a_namespace_that_was_deleted_and_collected_finds_nothing(
    store: Any, publisher: Any
) -> None:
    late = make_publisher(store, 2)
    late.snapshots.strong()
    request = insert(late)
    delete_namespace(store, NS, publisher=publisher)
    store.time += 2 * HOUR
    run(publisher)
    with pytest.raises(NamespaceNotFound):
        late.commit(request)


def test_a_readable_epoch_that_is_missing_stops_collection(store: Any, publisher: Any) -> None:
    for _ in range(4):
        replaced(publisher)
    store.delete(history_key(NS, 10))
    store.time += 10
    upload(publisher)
    with pytest.raises(StorageCorrupt) as caught:
        run(publisher, grace=0)
    assert caught.value.details["object"] == history_key(NS, 10)
    assert store.count("delete") == 1


def test_two_collections_at_once_do_no_harm(store: Any, publisher: Any) -> None:
    for _ in range(5):
        replaced(publisher)
    store.time += HOUR + 10
    replaced(publisher)
    store.time += 10
    other = make_publisher(store, 2)
    state: list[int] = []

    def script(call: Call) -> Any:
        # The other one does all its work between our listing and our reading of history.
        if call.op == "list" and "/manifest/" in call.key and not state:
            state.append(1)
            run(other)
        return call.carry_out()

    with scripted(store, script):
        run(publisher)
    assert check_namespace(store, NS) == []


def test_many_objects_go_in_batches(store: Any, publisher: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(gc, "_BATCH", 7)
    orphans = {key_of(upload(publisher)) for _ in range(40)}
    kept = [publisher.commit(insert(publisher)).manifest.parts[-1] for _ in range(5)]
    store.time += 2 * HOUR
    before = store.count("put_if_match")
    result = run(publisher)
    assert orphans <= set(result.keys)
    assert store.count("put_if_match") == before + 1
    assert all(key_of(part) in store.objects for part in kept)
    assert check_namespace(store, NS) == []


def test_collection_can_make_its_own_publisher(store: Any, publisher: Any) -> None:
    orphan = upload(publisher)
    store.time += 2 * HOUR
    time = Time()
    result = collect(store, NS, clock=time, sleep=time.sleep)
    assert result.keys == (key_of(orphan),)
    assert result.bytes == orphan.bytes


def test_history_is_not_read_when_there_is_nothing_to_delete(store: Any, publisher: Any) -> None:
    for _ in range(20):
        publisher.commit(insert(publisher))
    store.calls.clear()
    run(publisher)
    assert store.count("get", "/manifest/0") == 0


@pytest.mark.parametrize("field", ["retention", "grace"])
@pytest.mark.parametrize(
    "seconds",
    [-1, math.nan, -math.inf, 10**400, -(10**400), "1", None, True, timedelta(hours=1)],
    ids=lambda value: str(value)[:9],
)
def test_what_are_no_seconds_is_refused_and_takes_no_history(
    store: Any, publisher: Any, field: str, seconds: Any
) -> None:
    for _ in range(3):
        publisher.commit(insert(publisher))
    store.time += 10 * HOUR
    before = sorted(store.objects)
    with pytest.raises(InvalidArgument) as error:
        run(publisher, **{field: seconds})
    assert error.value.details == {"field": field, "limit": 0}
    assert sorted(store.objects) == before


def test_an_infinite_retention_keeps_all_history(store: Any, publisher: Any) -> None:
    for _ in range(3):
        publisher.commit(insert(publisher))
    store.time += 10 * HOUR
    assert run(publisher, retention=math.inf, grace=0).deleted == 0


def test_a_namespace_that_is_not_there_cannot_be_collected(store: Any) -> None:
    with pytest.raises(NamespaceNotFound):
        collect(store, "absent")


def test_current_is_never_deleted(store: Any, publisher: Any) -> None:
    for _ in range(3):
        replaced(publisher)
        store.time += 2 * HOUR
        assert current_key(NS) not in run(publisher, retention=0, grace=0).keys
    assert current_key(NS) in store.objects


# -- a name that was never used -------------------------------------------------------------


def test_what_a_killed_first_copy_has_left_goes_after_the_grace(store: Any) -> None:
    publisher = make_publisher(store)
    left = [upload(publisher), upload(publisher)]
    store.time += HOUR - 10
    assert (run(publisher).deleted, run(publisher).waiting) == (0, 2)
    assert set(store.objects) == set(map(key_of, left))  # nothing is begun for nothing
    store.time += 20
    told = run(publisher, dry_run=True)
    assert (set(told.keys), told.dry_run) == (set(map(key_of, left)), True)
    assert set(store.objects) == set(map(key_of, left))
    assert set(run(publisher).keys) == set(map(key_of, left))
    assert current(store).state == "deleted"
    assert check_namespace(store, NS) == []
    create_namespace(store, NS, dim=4, metric="l2", publisher=publisher)
    assert current(store).state == "active"


def test_nothing_of_a_first_copy_goes_while_any_of_it_is_young(store: Any) -> None:
    publisher = make_publisher(store)
    left = {key_of(upload(publisher))}
    store.time += 2 * HOUR
    left |= {key_of(upload(publisher))}
    for dry_run in (True, False):
        told = run(publisher, dry_run=dry_run)
        assert (told.deleted, told.bytes, told.waiting, told.keys) == (0, 0, 2, ())
    assert set(store.objects) == left
    store.time += HOUR + 10
    assert set(run(publisher).keys) == left


def test_what_lies_under_a_name_that_was_never_used_is_left_alone_unless_it_is_asked_for(store: Any) -> None:
    publisher = make_publisher(store)
    left = key_of(upload(publisher))
    store.time += 10 * HOUR
    with pytest.raises(NamespaceNotFound):
        run(publisher, unused=False)
    assert set(store.objects) == {left}


def test_a_creation_while_the_rest_of_a_copy_is_collected_loses_nothing(store: Any) -> None:
    publisher = make_publisher(store)
    upload(publisher)
    store.time += 2 * HOUR

    def script(call: Call) -> Any:
        if call.op == "put_if_absent" and call.key == current_key(NS):
            store.script = None
            other = make_namespace(store, 7)
            other.commit(insert(other))
        return call.carry_out()

    with scripted(store, script):
        assert run(publisher).deleted == 1
    (part,) = current(store).parts
    assert key_of(part) in store.objects
    assert check_namespace(store, NS) == []


def test_a_namespace_whose_current_is_lost_is_not_collected(store: Any, publisher: Any) -> None:
    publisher.commit(insert(publisher))
    del store.objects[current_key(NS)]
    store.time += 10 * HOUR
    before = dict(store.objects)
    with pytest.raises(StorageCorrupt, match="is lost"):
        collect(store, NS)
    assert store.objects == before
