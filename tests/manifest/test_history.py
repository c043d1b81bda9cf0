"""Past epochs: read by name, kept as they were."""

from __future__ import annotations

from typing import Any

import pytest

from tests.manifest.helpers import NS, Call, ScriptedStore, insert, make_namespace, scripted
from vecstore.errors import InvalidArgument, SnapshotExpired, StorageCorrupt, StorageMissing
from vecstore.maintenance.gc import Barrier
from vecstore.manifest import history
from vecstore.manifest.keys import current_key, history_key, history_prefix
from vecstore.storage.base import ListPage


def test_the_epoch_that_is_current_has_no_copy_and_is_read_all_the_same() -> None:
    store = ScriptedStore()
    make_namespace(store)
    assert history.read_epoch(store, NS, 1).manifest.epoch == 1


def test_an_epoch_that_is_replaced_while_it_is_looked_for_is_found() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "get" and call.key == current_key(NS) and not state:
            state.append(1)
            publisher.commit(insert(publisher))
        return call.carry_out()

    with scripted(store, script):
        assert history.read_epoch(store, NS, 1).manifest.epoch == 1


def test_an_epoch_below_the_floor_whose_copy_is_gone_has_expired() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    publisher.commit(Barrier(commit_id=publisher.new_commit_id(), horizon=0.0, floor=2))
    store.delete(history_key(NS, 1))
    with pytest.raises(SnapshotExpired):
        history.read_epoch(store, NS, 1)


def test_an_epoch_whose_copy_is_gone_has_expired() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    store.delete(history_key(NS, 1))
    with pytest.raises(SnapshotExpired):
        history.read_epoch(store, NS, 1)


def test_an_epoch_that_has_yet_to_come_and_a_namespace_that_never_was_are_told_apart() -> None:
    store = ScriptedStore()
    with pytest.raises(StorageMissing):
        history.read_epoch(store, NS, 1)
    make_namespace(store)
    with pytest.raises(InvalidArgument):
        history.read_epoch(store, NS, 5)


def test_a_copy_under_the_name_of_another_epoch_is_corrupt() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    publisher.commit(insert(publisher))
    store._set(history_key(NS, 2), store.objects[history_key(NS, 1)][0])
    with pytest.raises(StorageCorrupt) as caught:
        history.read_copy(store, NS, 2)
    assert caught.value.details == {"object": history_key(NS, 2), "section": "manifest"}


def test_a_copy_that_is_there_already_is_as_good() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    raw = publisher.snapshots.strong().raw
    history.write_copy(store, NS, 1, raw)
    history.write_copy(store, NS, 1, raw)
    assert store.objects[history_key(NS, 1)][0] == raw


def test_history_is_found_behind_a_page_of_what_others_keep_there() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    history.check_not_lost(store, NS)
    del store.objects[current_key(NS)]
    foreign = f"{history_prefix(NS)} (copy).json"
    pages = iter((ListPage((), foreign),))

    def script(call: Call) -> Any:
        return next(pages, None) or call.carry_out()

    with scripted(store, script), pytest.raises(StorageCorrupt, match="is lost"):
        history.check_not_lost(store, NS)


def test_a_copy_of_another_history_is_neither_replaced_nor_taken_for_ours() -> None:
    store = ScriptedStore()
    raw = make_namespace(store).snapshots.strong().raw
    history.write_copy(store, NS, 1, raw)
    other = make_namespace(ScriptedStore(), 2).snapshots.strong().raw
    with pytest.raises(StorageCorrupt) as caught:
        history.write_copy(store, NS, 1, other)
    assert caught.value.details == {"object": history_key(NS, 1), "section": "manifest"}
    assert store.objects[history_key(NS, 1)][0] == raw
