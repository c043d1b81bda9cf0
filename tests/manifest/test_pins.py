"""Tags hold an epoch and all that it names, whatever collection does beside it."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from tests.manifest.helpers import (
    NS,
    Call,
    ScriptedStore,
    change,
    insert,
    make_namespace,
    make_publisher,
    run_all,
    scripted,
    timed_out,
    upload,
)
from vecstore.errors import LimitReached, SnapshotExpired, TagExists, TagNotFound
from vecstore.invariants import check_namespace
from vecstore.limits import MAX_TAGS
from vecstore.maintenance.gc import collect
from vecstore.manifest import history
from vecstore.manifest.keys import history_key, part_key
from vecstore.manifest.lifecycle import create_namespace, delete_namespace
from vecstore.manifest.pins import add_tag, remove_tag, tags_of
from vecstore.manifest.publish import Publisher

HOUR = 3600.0


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def publisher(store: ScriptedStore) -> Publisher:
    """Epoch 2 has a part with rows, 3 a tombstone on it, 4 replaces it by another."""
    made = make_namespace(store)
    store.tick = 1.0
    old = made.commit(insert(made)).manifest.parts[0]
    made.commit(change(made, kills={old.id: [1]}))
    made.commit(insert(made, removes=[old.id]))
    return made


def names(store: Any) -> list[tuple[str, int]]:
    return [(tag.name, tag.epoch) for tag in tags_of(history.read_current(store, NS).manifest)]


def whole(store: Any, epoch: int) -> bool:
    """Whether an epoch and every object that it names is there."""
    if history_key(NS, epoch) not in store.objects:
        return False
    parts = history.read_copy(store, NS, epoch).manifest.parts
    return all(part_key(part.owner, part.id) in store.objects for part in parts)


def test_what_a_tag_holds_stays_until_it_is_deleted(store: Any, publisher: Any) -> None:
    add_tag(publisher, "before", 3)
    add_tag(publisher, "now")
    assert names(store) == [("before", 3), ("now", 5)]
    store.time += 2 * HOUR
    collect(store, NS, publisher=publisher)
    assert whole(store, 3)
    assert not whole(store, 2)
    assert publisher.snapshots.at_epoch(3).manifest.parts[0].live == 9
    assert check_namespace(store, NS) == []
    remove_tag(publisher, "before")
    store.time += 2 * HOUR
    collect(store, NS, publisher=publisher)
    assert not whole(store, 3)
    assert names(store) == [("now", 5)]
    with pytest.raises(SnapshotExpired):
        publisher.snapshots.at_epoch(3)
    assert check_namespace(store, NS) == []


def test_an_epoch_that_a_tag_holds_can_be_tagged_again_below_the_floor(store: Any, publisher: Any) -> None:
    add_tag(publisher, "a", 3)
    store.time += 2 * HOUR
    collect(store, NS, publisher=publisher)
    with pytest.raises(SnapshotExpired):
        add_tag(publisher, "b", 2)
    add_tag(publisher, "b", 3)
    remove_tag(publisher, "a")
    store.time += 2 * HOUR
    collect(store, NS, publisher=publisher)
    assert whole(store, 3)


def test_the_same_tag_again_changes_nothing_and_another_epoch_is_refused(store: Any, publisher: Any) -> None:
    first = add_tag(publisher, "a", 3)
    epoch = history.read_current(store, NS).manifest.epoch
    store.time += 5
    assert add_tag(publisher, "a", 3) == first
    with pytest.raises(TagExists):
        add_tag(publisher, "a", 2)
    with pytest.raises(TagNotFound):
        remove_tag(publisher, "b")
    assert history.read_current(store, NS).manifest.epoch == epoch


def test_the_same_tag_of_what_is_current_again_changes_nothing_until_something_else_does(
    store: Any, publisher: Any
) -> None:
    first = add_tag(publisher, "now")
    other = add_tag(publisher, "other")
    store.time += 2 * HOUR
    collect(store, NS, publisher=publisher)
    epoch = history.read_current(store, NS).manifest.epoch
    assert add_tag(publisher, "now") == first
    assert add_tag(publisher, "other") == other
    assert history.read_current(store, NS).manifest.epoch == epoch
    publisher.commit(insert(publisher))
    with pytest.raises(TagExists):
        add_tag(publisher, "now")


def test_the_number_of_tags_is_bounded(publisher: Any) -> None:
    for i in range(MAX_TAGS):
        add_tag(publisher, f"t{i}", 3)
    with pytest.raises(LimitReached):
        add_tag(publisher, "one-more", 3)
    remove_tag(publisher, "t7")
    add_tag(publisher, "one-more", 3)


def test_tags_of_one_group_see_each_other(store: Any, publisher: Any) -> None:
    results = run_all(*[lambda e=e: add_tag(publisher, "a", e) for e in (2, 2, 3, 3)])
    kept = history.read_current(store, NS).manifest.pins
    assert len(kept) == 1
    assert sum(isinstance(result, TagExists) for result in results) == 2


def test_tags_go_with_their_namespace(store: Any, publisher: Any) -> None:
    add_tag(publisher, "a", 3)
    delete_namespace(store, NS, publisher=publisher)
    store.time += 2 * HOUR
    collect(store, NS, publisher=publisher)
    assert not [key for key in store.objects if "/parts/" in key]
    create_namespace(store, NS, dim=4, metric="l2", publisher=publisher, rng=publisher.rng)
    assert names(store) == []
    with pytest.raises(SnapshotExpired):
        add_tag(publisher, "a", 3)


def test_a_tag_whose_answer_is_lost_is_there_once(store: Any, publisher: Any) -> None:
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            call.carry_out()
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script):
        assert add_tag(publisher, "a", 3).epoch == 3
    assert names(store) == [("a", 3)]


@pytest.mark.parametrize("first", ["tag", "collection"])
def test_a_tag_and_a_collection_in_any_order_keep_what_the_tag_holds(
    store: Any, publisher: Any, first: str
) -> None:
    """One of them runs whole between any two calls of the other; a tag that is acknowledged holds."""
    for _ in range(3):
        upload(publisher)  # something to collect
    start = dict(store.objects), store.time
    acknowledged = []

    def tag(seed: int) -> None:
        try:
            add_tag(make_publisher(store, seed), "a", 3)
        except SnapshotExpired:
            acknowledged.append(False)
        else:
            acknowledged.append(True)

    def collection(seed: int) -> None:
        store.time += 2 * HOUR
        collect(store, NS, publisher=make_publisher(store, seed))

    one, other = (tag, collection) if first == "tag" else (collection, tag)
    for at in count(1):
        store.objects, store.time = dict(start[0]), start[1]
        calls = [0]

        def script(call: Call, at: int = at, calls: list[int] = calls) -> Any:
            calls[0] += 1
            if calls[0] == at:
                store.script = None
                other(2)
            return call.carry_out()

        with scripted(store, script):
            one(100 + at)
        assert check_namespace(store, NS) == [], at
        if calls[0] < at:
            break
        assert whole(store, 3) or not acknowledged[-1], at
    assert set(acknowledged) == {True, False}


def test_a_crash_at_any_call_leaves_a_tag_whole_or_absent(store: Any, publisher: Any) -> None:
    class Crash(BaseException):
        pass

    start, seen = dict(store.objects), set()
    for at in count(1):
        store.objects = dict(start)
        calls = [0]

        def script(call: Call, at: int = at, calls: list[int] = calls) -> Any:
            calls[0] += 1
            result = call.carry_out()
            if calls[0] == at:
                raise Crash
            return result

        with scripted(store, script), suppress(Crash):
            add_tag(make_publisher(store, 100 + at), "a", 3)
        assert check_namespace(store, NS) == []
        seen.add(tuple(names(store)))
        if calls[0] < at:
            break
    assert seen == {(), (("a", 3),)}
