"""Namespaces come, change and go by commits alone."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest

from tests.manifest.helpers import (
    NS,
    Call,
    Gate,
    ScriptedStore,
    Time,
    in_thread,
    insert,
    make_namespace,
    make_publisher,
    run_all,
    scripted,
    timed_out,
    until_queued,
)
from vecstore import deadline
from vecstore.errors import (
    InvalidArgument,
    NamespaceExists,
    NamespaceNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    StorageCorrupt,
    StorageRetryable,
)
from vecstore.invariants import check_namespace
from vecstore.manifest import history
from vecstore.manifest.draft import Draft
from vecstore.manifest.keys import current_key, history_key
from vecstore.manifest.lifecycle import DeleteNamespace, UpdateSettings, create_namespace, delete_namespace
from vecstore.manifest.model import Pin, Settings
from vecstore.storage.memory import MemoryStore


def create(store: Any, seed: int = 1, **more: Any) -> Any:
    clock = Time()
    return create_namespace(
        store, NS, dim=4, metric="cosine", rng=Random(seed), clock=clock, sleep=clock.sleep, **more
    )


def test_a_deletion_and_a_creation_that_wait_together_leave_a_marker_between_them() -> None:
    """Found by the simulation: committed in one group, an incarnation followed another without a marker."""
    store = ScriptedStore()
    publisher = make_namespace(store)
    incarnation = publisher.snapshots.strong().manifest.incarnation
    with Gate(store) as gate:
        threads = [in_thread(lambda: publisher.commit(insert(publisher)))]
        assert gate.reached.wait(30)
        threads.append(
            in_thread(lambda: delete_namespace(store, NS, incarnation=incarnation, publisher=publisher))
        )
        until_queued(publisher, 1)
        threads.append(in_thread(lambda: create(store, 2, publisher=publisher)))
        until_queued(publisher, 2)
    for thread in threads:
        thread.join(30)
    current = history.read_current(store, NS).manifest
    assert (current.epoch, current.state) == (4, "active")
    assert current.incarnation != incarnation
    assert history.read_copy(store, NS, 3).manifest.state == "deleted"
    assert check_namespace(store, NS) == []


def test_a_new_namespace_starts_at_epoch_one_and_is_empty() -> None:
    store = ScriptedStore()
    committed = create(store, settings=Settings(list_rows=64))
    manifest = history.read_current(store, NS).manifest
    assert manifest == committed.manifest
    assert (manifest.epoch, manifest.parts, manifest.dim, manifest.metric) == (1, (), 4, "cosine")
    assert manifest.settings.list_rows == 64
    assert check_namespace(store, NS) == []


def test_a_namespace_that_exists_is_not_created_again() -> None:
    store = ScriptedStore()
    create(store)
    with pytest.raises(NamespaceExists):
        create(store, 2)


def test_of_many_who_create_one_name_one_succeeds() -> None:
    store = MemoryStore()
    results = run_all(*[lambda seed=seed: create(store, seed) for seed in range(8)])
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert sum(isinstance(result, NamespaceExists) for result in results) == 7


@pytest.mark.parametrize("land", [True, False])
def test_a_creation_whose_answer_was_lost_succeeds_once(land: bool) -> None:
    store = ScriptedStore()
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_absent" and not state:
            state.append(1)
            if land:
                call.carry_out()
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script):
        committed = create(store)
    assert history.read_current(store, NS).manifest == committed.manifest


def test_a_creation_whose_answer_was_lost_is_seen_through_though_nobody_waits() -> None:
    """R1: "it was stopped and changed nothing" would not be true."""
    store = ScriptedStore()
    ends = time.monotonic() + 0.1
    lost: list[str] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_absent" and not lost:
            lost.append(call.key)
            call.carry_out()
            while time.monotonic() <= ends:
                pass
            raise timed_out(call)
        if call.op == "get":
            deadline.check()  # as S3 does while it waits for an answer
        return call.carry_out()

    token = deadline.begin(ends)
    try:
        with scripted(store, script):
            committed = create(store)
    finally:
        deadline.end(token)
    assert history.read_current(store, NS).manifest == committed.manifest


def test_a_creation_in_doubt_is_unknown() -> None:
    store = ScriptedStore()

    def script(call: Call) -> Any:
        if call.op == "list":
            return call.carry_out()
        raise timed_out(call)

    with scripted(store, script), pytest.raises(OutcomeUnknown):
        create(store)


def test_a_creation_is_one_look_for_history_and_one_write() -> None:
    store = ScriptedStore()
    create(store)
    assert [op for op, _ in store.calls] == ["list", "put_if_absent"]


def test_a_creation_that_cannot_look_for_history_has_created_nothing() -> None:
    store = ScriptedStore()

    def script(call: Call) -> Any:
        if call.op == "list":
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script), pytest.raises(StorageRetryable):
        create(store)
    assert store.objects == {}


def test_a_namespace_whose_current_is_lost_is_not_created_over() -> None:
    """R4: epochs that began anew would pass for those that are kept, and collection takes their parts."""
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    del store.objects[current_key(NS)]
    before = dict(store.objects)
    with pytest.raises(StorageCorrupt) as caught:
        create(store, 2)
    assert caught.value.details == {"object": current_key(NS), "section": "manifest"}
    assert store.objects == before
    store._set(current_key(NS), store.objects[history_key(NS, 1)][0])  # as docs/incidents.md has it
    anew = make_publisher(store, 3)
    assert anew.commit(insert(anew)).epoch == 2
    assert check_namespace(store, NS) == []


def test_a_name_that_is_taken_while_it_is_looked_for_is_no_loss() -> None:
    store = ScriptedStore()

    def script(call: Call) -> Any:
        if call.op == "list":
            store.script = None
            other = make_namespace(store, 5)
            other.commit(insert(other))
        return call.carry_out()

    with scripted(store, script), pytest.raises(NamespaceExists):
        create(store)


def test_a_lost_creation_upon_which_others_have_committed_is_still_ours() -> None:
    store = ScriptedStore()
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_absent" and call.key == current_key(NS) and not state:
            state.append(1)
            call.carry_out()
            other = make_publisher(store, 5)
            other.commit(insert(other))
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script):
        assert create(store).epoch == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"dim": 0}, "dim"), ({"dim": 5000}, "dim"), ({"metric": "hamming"}, "metric")],
)
def test_a_namespace_that_makes_no_sense_is_refused(fields: dict[str, Any], field: str) -> None:
    store = ScriptedStore()
    with pytest.raises(InvalidArgument) as caught:
        create_namespace(store, NS, **{"dim": 4, "metric": "l2", **fields})
    assert caught.value.details["field"] == field
    assert store.objects == {}


def test_a_namespace_made_anew_counts_epochs_on_and_shares_nothing_with_the_old_one() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher, before=lambda draft: draft.take_ids(10) and None))
    old = publisher.snapshots.strong().manifest
    delete_namespace(store, NS, publisher=publisher)
    marker = history.read_current(store, NS).manifest
    assert (marker.state, marker.epoch, marker.parts) == ("deleted", 3, ())
    new = create(store, 2).manifest
    assert new.epoch == 4
    assert new.incarnation != old.incarnation
    assert new.lineage != old.lineage
    assert (new.dim, new.metric, new.parts, new.next_id) == (4, "cosine", (), 0)
    assert check_namespace(store, NS) == []


def test_a_retried_deletion_does_not_remove_a_namespace_that_was_made_anew() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    incarnation = publisher.snapshots.strong().manifest.incarnation
    delete_namespace(store, NS, incarnation=incarnation, publisher=publisher)
    create(store, 2)
    with pytest.raises(NamespaceNotFound):
        delete_namespace(store, NS, incarnation=incarnation, publisher=publisher)
    assert history.read_current(store, NS).manifest.state == "active"


def test_a_deletion_whose_answer_was_lost_succeeds_once() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            call.carry_out()
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script):
        assert delete_namespace(store, NS, publisher=publisher).epoch == 2
    assert history.read_current(store, NS).manifest.epoch == 2


def test_a_deletion_heeds_its_precondition_and_names_what_it_means() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    token = publisher.snapshots.strong().token
    publisher.commit(insert(publisher))
    with pytest.raises(PreconditionFailed):
        delete_namespace(store, NS, incarnation=token[0], expected=token, publisher=publisher)
    with pytest.raises(InvalidArgument):
        publisher.commit(DeleteNamespace(commit_id=publisher.new_commit_id()))


def test_pins_outlive_a_deletion_and_a_creation_anew() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    incarnation = publisher.snapshots.strong().manifest.incarnation
    pin = Pin(name="b", kind="branch", incarnation=incarnation, epoch=1, created_at=0.0)

    def branch(draft: Draft) -> None:
        draft.replace(pins=(pin,))

    publisher.commit(insert(publisher, before=branch))
    delete_namespace(store, NS, publisher=publisher)
    assert history.read_current(store, NS).manifest.pins == (pin,)
    assert create(store, 2).manifest.pins == (pin,)


def test_settings_change_one_by_one_upon_whatever_is_current() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    other.snapshots.strong()
    one.commit(UpdateSettings(commit_id=one.new_commit_id(), changes={"nprobe_cap": 7}))
    committed = other.commit(UpdateSettings(commit_id=other.new_commit_id(), changes={"list_rows": 64}))
    settings = committed.manifest.settings
    assert (settings.nprobe_cap, settings.list_rows) == (7, 64)


@pytest.mark.parametrize(
    "changes", [{"nprobe_cap": 0}, {"no_such": 1}, {"k_min": 9, "k_max": 8}, {"list_rows": "x"}]
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    with pytest.raises(InvalidArgument):
        publisher.commit(UpdateSettings(commit_id=publisher.new_commit_id(), changes=changes))
    assert history.read_current(store, NS).manifest.epoch == 1
