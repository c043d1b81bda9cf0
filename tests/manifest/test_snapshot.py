"""What a process knows of a namespace: shared refreshes, staleness, and epochs that only go forward."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.manifest.helpers import (
    NS,
    Call,
    ScriptedStore,
    Time,
    in_thread,
    insert,
    make_namespace,
    make_publisher,
    run_all,
    scripted,
    timed_out,
)
from vecstore.errors import (
    InvalidArgument,
    NamespaceNotFound,
    SnapshotExpired,
    StorageCorrupt,
    StorageRetryable,
)
from vecstore.maintenance.gc import Barrier
from vecstore.manifest.draft import Draft
from vecstore.manifest.keys import current_key, history_key
from vecstore.manifest.lifecycle import create_namespace, delete_namespace
from vecstore.manifest.model import Pin
from vecstore.manifest.snapshot import SnapshotSource
from vecstore.storage.local import LocalStore

CURRENT = current_key(NS)


class HeldRefresh:
    """The first refresh is carried out, but its answer stays under way until it is let go."""

    def __init__(self, store: ScriptedStore, then: Callable[[Call], Any] | None = None) -> None:
        self.sent, self.let_go = threading.Event(), threading.Event()
        self.refreshes = 0
        self._then = then
        self._mutex = threading.Lock()
        store.script = self._script

    def _script(self, call: Call) -> Any:
        if call.op not in ("get", "get_if_changed") or call.key != CURRENT:
            return call.carry_out()
        with self._mutex:
            self.refreshes += 1
            number = self.refreshes
        if number == 1:
            answer = call.carry_out()
            self.sent.set()
            assert self.let_go.wait(30)
            return answer
        return self._then(call) if self._then is not None else call.carry_out()


def waiting(source: SnapshotSource, callers: int) -> None:
    """Return once so many callers wait for an answer."""
    while True:
        with source._mutex:
            if source._waiting == callers:
                return


def test_a_strong_read_sees_what_another_process_committed() -> None:
    store = ScriptedStore()
    writer = make_namespace(store)
    source = SnapshotSource(store, NS)
    assert source.strong().epoch == 1
    writer.commit(insert(writer))
    assert source.strong().epoch == 2


def _switch(root: str, told: Any) -> None:
    """Another process: a switch each time that it is asked for one, and says its epoch."""
    publisher = make_publisher(LocalStore(root), 2)
    while told.recv():
        publisher.commit(insert(publisher))
        told.send(publisher.snapshots.strong().epoch)


def test_a_strong_read_sees_every_switch_of_another_process_at_once(tmp_path: Path) -> None:
    """With nothing but a stat to tell: no notice is given, and no time goes by."""
    make_namespace(LocalStore(tmp_path))
    source = SnapshotSource(LocalStore(tmp_path), NS)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    writer = spawn.Process(target=_switch, args=(str(tmp_path), theirs))
    writer.start()
    try:
        for epoch in range(2, 60):
            assert source.strong() is source.strong()
            ours.send(True)
            assert ours.poll(60)
            assert ours.recv() == source.strong().epoch == epoch
    finally:
        ours.send(False)
        writer.join(60)
    assert writer.exitcode == 0


def test_a_strong_read_sees_that_the_folder_went_and_was_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "store"
    publisher = make_namespace(LocalStore(root))
    publisher.commit(insert(publisher))
    source = SnapshotSource(LocalStore(root), NS)
    for seed in range(2, 12):
        incarnation = source.strong().manifest.incarnation
        assert source.strong().manifest.incarnation == incarnation
        shutil.rmtree(root)
        with pytest.raises(NamespaceNotFound):
            source.strong()
        publisher = make_namespace(LocalStore(root), seed)
        assert source.strong().token == publisher.snapshots.strong().token
        publisher.commit(insert(publisher))
        assert source.strong().token == publisher.snapshots.strong().token
        # And where nobody looked in between.
        shutil.rmtree(root)
        publisher = make_namespace(LocalStore(root), seed + 100)
        assert source.strong().token == publisher.snapshots.strong().token


def test_an_unchanged_namespace_is_the_same_snapshot_at_the_cost_of_one_conditional_request() -> None:
    store = ScriptedStore()
    make_namespace(store)
    source = SnapshotSource(store, NS)
    first = source.strong()
    store.calls.clear()
    assert source.strong() is first
    assert store.calls == [("get_if_changed", CURRENT)]


def test_callers_that_arrived_after_a_refresh_was_sent_share_a_newer_one() -> None:
    store = ScriptedStore()
    writer = make_namespace(store)
    source = SnapshotSource(store, NS)
    held = HeldRefresh(store)
    early: list[Any] = []
    late: list[Any] = []
    threads = [in_thread(source.strong, early)]
    assert held.sent.wait(30)
    writer.commit(insert(writer))  # acknowledged before the late callers arrive
    threads += [in_thread(source.strong, late) for _ in range(5)]
    waiting(source, 5)
    held.let_go.set()
    for thread in threads:
        thread.join(30)
    assert [snapshot.epoch for snapshot in early] == [1]
    assert [snapshot.epoch for snapshot in late] == [2] * 5
    assert held.refreshes == 2


def test_a_failed_refresh_fails_those_who_waited_for_it_and_the_next_caller_tries_again() -> None:
    store = ScriptedStore()
    make_namespace(store)
    source = SnapshotSource(store, NS)

    def fail(call: Call) -> Any:
        raise timed_out(call)

    held = HeldRefresh(store, then=fail)
    early: list[Any] = []
    late: list[Any] = []
    threads = [in_thread(source.strong, early)]
    assert held.sent.wait(30)
    threads += [in_thread(source.strong, late) for _ in range(4)]
    waiting(source, 4)
    held.let_go.set()
    for thread in threads:
        thread.join(30)
    assert early[0].epoch == 1
    assert [type(error) for error in late] == [StorageRetryable] * 4
    assert len({id(error) for error in late}) == 4
    assert held.refreshes == 2
    store.script = None
    assert source.strong().epoch == 1


def test_an_interrupted_refresh_does_not_block_those_who_wait() -> None:
    store = ScriptedStore()
    make_namespace(store)
    source = SnapshotSource(store, NS)

    def interrupt(call: Call) -> Any:
        raise KeyboardInterrupt

    with scripted(store, interrupt), pytest.raises(KeyboardInterrupt):
        source.strong()
    assert source.strong().epoch == 1


def test_a_late_answer_does_not_take_back_what_a_commit_has_shown() -> None:
    store = ScriptedStore()
    publisher, other = make_namespace(store), make_publisher(store, 2)
    other.commit(insert(other))
    source = SnapshotSource(store, NS)
    held = HeldRefresh(store)  # its answer will be epoch 2
    early: list[Any] = []
    thread = in_thread(source.strong, early)
    assert held.sent.wait(30)
    publisher.commit(insert(publisher))
    source.observe(publisher.snapshots.cached())
    held.let_go.set()
    thread.join(30)
    assert early[0].epoch == 3
    assert source.eventual(1e9).epoch == 3


def test_an_observed_snapshot_that_is_older_changes_nothing() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    old = publisher.snapshots.strong()
    publisher.commit(insert(publisher))
    publisher.snapshots.observe(old)
    assert publisher.snapshots.cached().epoch == 2


def test_epochs_go_forward_over_deletion_and_creation_anew() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    source = SnapshotSource(store, NS)
    first = source.strong()
    delete_namespace(store, NS, publisher=publisher)
    with pytest.raises(NamespaceNotFound):
        source.strong()
    with pytest.raises(NamespaceNotFound):
        source.eventual(1e9)
    create_namespace(store, NS, dim=8, metric="dot", publisher=publisher, rng=publisher.rng)
    again = source.strong()
    assert again.epoch == 3
    assert again.manifest.incarnation != first.manifest.incarnation


def test_a_store_that_was_emptied_and_filled_anew_is_followed() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    source = SnapshotSource(store, NS)
    assert source.strong().epoch == 2
    store.objects.clear()
    make_namespace(store, 7)
    assert source.strong().epoch == 1


def test_an_epoch_of_a_store_that_was_emptied_does_not_hide_the_one_that_was_restored() -> None:
    """A tag of a restored namespace may have a number that the lost one had used."""
    store = ScriptedStore()
    lost = make_namespace(store)
    for _ in range(2):
        lost.commit(insert(lost))
    source = SnapshotSource(store, NS)
    source.strong()
    assert source.at_epoch(2).manifest.incarnation == lost.snapshots.strong().manifest.incarnation
    store.objects.clear()
    restored = make_namespace(store, 7)
    for _ in range(3):
        restored.commit(insert(restored))
    assert source.strong().epoch == 4
    assert source.at_epoch(2).manifest.incarnation == restored.snapshots.strong().manifest.incarnation


def test_an_answer_from_before_a_creation_anew_does_not_bring_the_old_one_back() -> None:
    """R14: of two incarnations the later epoch wins, whichever answer arrives last."""
    store = ScriptedStore()
    admin = make_namespace(store)
    source = SnapshotSource(store, NS)
    held = HeldRefresh(store)  # its answer will be the first incarnation
    early: list[Any] = []
    thread = in_thread(source.refresh, early)
    assert held.sent.wait(30)
    delete_namespace(store, NS, publisher=admin)
    create_namespace(store, NS, dim=8, metric="dot", publisher=admin, rng=admin.rng)
    source.observe(admin.snapshots.cached())
    held.let_go.set()
    thread.join(30)
    assert early[0].epoch == source.cached().epoch == 3


def test_a_namespace_that_is_not_there_is_not_found_and_may_appear() -> None:
    store = ScriptedStore()
    source = SnapshotSource(store, NS)
    with pytest.raises(NamespaceNotFound):
        source.strong()
    make_namespace(store)
    assert source.strong().epoch == 1
    store.objects.clear()
    with pytest.raises(NamespaceNotFound):
        source.strong()
    assert source.cached() is None


def test_an_eventual_read_is_no_older_than_was_asked_for() -> None:
    store, time = ScriptedStore(), Time()
    writer = make_namespace(store)
    source = SnapshotSource(store, NS, clock=time)
    source.strong()
    writer.commit(insert(writer))
    time.seconds += 10
    store.calls.clear()
    assert source.eventual(10).epoch == 1
    assert store.calls == []
    assert source.eventual(9).epoch == 2


def test_a_refresh_that_found_nothing_new_makes_the_snapshot_young_again() -> None:
    store, time = ScriptedStore(), Time()
    make_namespace(store)
    source = SnapshotSource(store, NS, clock=time)
    source.strong()
    time.seconds += 10
    source.strong()
    store.calls.clear()
    source.eventual(5)
    assert store.calls == []


def test_a_damaged_manifest_is_named_and_never_served() -> None:
    store = ScriptedStore()
    make_namespace(store)
    data = store.objects[CURRENT][0]
    store._set(CURRENT, data.replace(b'"dim":4', b'"dim":5'))
    with pytest.raises(StorageCorrupt) as caught:
        SnapshotSource(store, NS).strong()
    assert caught.value.details["object"] == CURRENT


def test_threads_that_read_together_all_get_the_current_epoch() -> None:
    store = ScriptedStore()
    writer = make_namespace(store)
    source = SnapshotSource(store, NS)

    def read() -> None:
        for _ in range(50):
            known = writer.snapshots.cached().epoch
            assert source.strong().epoch >= known

    def write() -> None:
        for _ in range(50):
            writer.commit(insert(writer))

    assert run_all(write, *[read] * 8) == [None] * 9


# -- R15 and past epochs --------------------------------------------------------------------


def test_a_past_epoch_is_read_as_it_was() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    for _ in range(3):
        publisher.commit(insert(publisher))
    source = SnapshotSource(store, NS)
    assert [len(source.at_epoch(epoch).manifest.parts) for epoch in (1, 2, 3, 4)] == [0, 1, 2, 3]
    store.calls.clear()
    source.at_epoch(2)
    assert store.calls == [("get_if_changed", CURRENT)]


def test_an_epoch_that_has_yet_to_come_is_an_error() -> None:
    store = ScriptedStore()
    make_namespace(store)
    with pytest.raises(InvalidArgument):
        SnapshotSource(store, NS).at_epoch(2)


def test_an_epoch_below_the_floor_has_expired_even_if_its_copy_is_still_there() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    publisher.commit(Barrier(commit_id=publisher.new_commit_id(), horizon=0.0, floor=2))
    assert history_key(NS, 1) in store.objects
    with pytest.raises(SnapshotExpired):
        publisher.snapshots.at_epoch(1)


def test_a_pinned_epoch_below_the_floor_can_be_read() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    incarnation = publisher.snapshots.strong().manifest.incarnation
    pin = Pin(name="v1", kind="tag", incarnation=incarnation, epoch=1, created_at=0.0)

    def tag(draft: Draft) -> None:
        draft.replace(pins=(pin,))

    publisher.commit(insert(publisher, before=tag))
    publisher.commit(Barrier(commit_id=publisher.new_commit_id(), horizon=0.0, floor=2))
    assert publisher.snapshots.at_epoch(1).epoch == 1


def test_the_history_of_an_earlier_namespace_of_the_name_is_not_ours() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    delete_namespace(store, NS, publisher=publisher)
    create_namespace(store, NS, dim=8, metric="dot", publisher=publisher, rng=publisher.rng)
    with pytest.raises(SnapshotExpired):
        publisher.snapshots.at_epoch(1)
