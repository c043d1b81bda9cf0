"""The switch: exactly once, whatever storage does to the answers (R1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.manifest.helpers import (
    NS,
    Call,
    ScriptedStore,
    Time,
    holds,
    insert,
    make_namespace,
    make_publisher,
    scripted,
    timed_out,
)
from vecstore.errors import (
    OutcomeUnknown,
    StorageConflict,
    StorageCorrupt,
    StorageFull,
    StorageRetryable,
    Unauthorised,
    VecstoreError,
)
from vecstore.limits import MAX_RECENT_COMMITS
from vecstore.manifest import history
from vecstore.manifest.keys import current_key, history_key
from vecstore.manifest.lifecycle import UpdateSettings
from vecstore.manifest.publish import Publisher
from vecstore.manifest.snapshot import SnapshotSource
from vecstore.observe import Counted, Observer

CURRENT = current_key(NS)


def lose_answer_once(call: Call, state: list[int], *, land: bool) -> Any:
    if call.op == "put_if_match" and not state:
        state.append(1)
        if land:
            call.carry_out()
        raise timed_out(call)
    return call.carry_out()


@pytest.mark.parametrize("land", [True, False])
def test_a_switch_whose_answer_was_lost_is_applied_exactly_once(land: bool) -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    request = insert(publisher)
    state: list[int] = []
    with scripted(store, lambda call: lose_answer_once(call, state, land=land)):
        committed = publisher.commit(request)
    assert committed.epoch == 2
    assert request.attempts == 1
    assert [part.id for part in history.read_current(store, NS).manifest.parts] == [request.part.id]
    assert store.count("put_if_match") == (1 if land else 2)
    holds(store)


def test_a_refusal_of_our_own_resent_switch_is_not_taken_for_a_conflict() -> None:
    """The client library lost the answer, sent again by itself, and reports the 412 of the second."""
    store = ScriptedStore()
    publisher = make_namespace(store)
    request = insert(publisher)

    def script(call: Call) -> Any:
        if call.op == "put_if_match":
            call.carry_out()
        return call.carry_out()

    with scripted(store, script):
        assert publisher.commit(request).epoch == 2
    assert request.attempts == 1
    holds(store)


def test_a_switch_that_lands_after_it_was_looked_for_is_not_applied_again() -> None:
    store, time = ScriptedStore(), Time()
    publisher = make_namespace(store, time=time)
    request = insert(publisher)
    under_way: list[Call] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not under_way:
            under_way.append(call)
            raise timed_out(call)
        return call.carry_out()

    def arrive() -> None:
        """It lands at last while the publisher, which did not find it, waits to send again."""
        time.during_sleep = None
        under_way[0].carry_out()

    time.during_sleep = arrive
    with scripted(store, script):
        committed = publisher.commit(request)
    assert committed.epoch == 2
    assert request.attempts == 1
    assert store.count("put_if_match") == 2
    holds(store)


def test_a_switch_that_lands_after_ours_was_sent_again_fails_by_its_etag() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    under_way: list[Call] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not under_way:
            under_way.append(call)
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script):
        publisher.commit(insert(publisher))
    publisher.commit(insert(publisher))
    with pytest.raises(StorageConflict):
        under_way[0].carry_out()
    assert len(history.read_current(store, NS).manifest.parts) == 2
    holds(store)


class Counting(Observer):
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, what: Counted, by: float = 1) -> None:
        self.counts[what] += int(by)


@pytest.mark.parametrize("followed", [False, True])
def test_a_commit_that_the_store_has_lost_to_another_winner_is_told_of(
    followed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store, apart = ScriptedStore(), ScriptedStore()
    make_namespace(store)
    apart.objects.update(store.objects)
    observer = Counting()
    loser = Publisher(store, NS, SnapshotSource(store, NS), observer=observer)
    winner = Publisher(apart, NS, SnapshotSource(apart, NS))
    loser.commit(insert(loser))
    for _ in range(1 + followed):
        winner.commit(insert(winner))
    store.objects.update(apart.objects)  # as a store has it that compared both before it replaced
    if not followed:
        with pytest.raises(OutcomeUnknown):  # for all that we know the other has come after ours
            loser.commit(insert(loser))
        with pytest.raises(StorageCorrupt):  # what was lost had become history
            loser.commit(insert(loser))
        del store.objects[history_key(NS, 2)]  # as docs/incidents.md has it
    loser.commit(insert(loser))
    loser.commit(insert(loser))
    holds(store)
    assert observer.counts["commits_lost"] == 1
    (record,) = [r for r in caplog.records if r.levelname == "CRITICAL"]
    assert f"epoch 2 of {NS!r}" in record.getMessage()


def test_a_commit_that_others_have_built_upon_is_not_told_of_as_lost() -> None:
    store = ScriptedStore()
    make_namespace(store)
    observer = Counting()
    first = Publisher(store, NS, SnapshotSource(store, NS), observer=observer)
    other = make_publisher(store)
    for _ in range(3):
        first.commit(insert(first))
        other.commit(insert(other))
    assert observer.counts["commits_lost"] == 0


def test_a_commit_is_found_behind_the_list_in_current_by_walking_history() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    request = insert(one)
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            call.carry_out()
            for i in range(MAX_RECENT_COMMITS + 5):
                other.commit(
                    UpdateSettings(commit_id=other.new_commit_id(), changes={"nprobe_cap": i % 2 + 1})
                )
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script):
        committed = one.commit(request)
    assert committed.epoch == 2
    assert request.attempts == 1
    current = history.read_current(store, NS).manifest
    assert all(ref.id != request.commit_id for ref in current.commits)
    assert len(current.commits) == MAX_RECENT_COMMITS
    assert len(current.parts) == 1
    # Without the epoch in which it would be found, nobody can tell.
    store.delete(history_key(NS, 2))
    late = insert(one)
    with pytest.raises(Exception, match="no namespaces/docs/manifest/00000000000000000002"):
        history.was_committed(store, NS, current, 2, {late.commit_id})


def test_an_outcome_that_history_no_longer_tells_is_unknown() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    state: list[int] = []

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not state:
            state.append(1)
            call.carry_out()
            for i in range(MAX_RECENT_COMMITS + 1):
                other.commit(
                    UpdateSettings(commit_id=other.new_commit_id(), changes={"nprobe_cap": i % 2 + 1})
                )
            store.delete(history_key(NS, 2))
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script), pytest.raises(OutcomeUnknown):
        one.commit(insert(one))


@pytest.mark.parametrize("land", [True, False])
def test_a_switch_that_stays_in_doubt_is_unknown_and_never_success_or_failure(land: bool) -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    request = insert(publisher)
    sent: list[Call] = []

    def script(call: Call) -> Any:
        if call.key != CURRENT:
            return call.carry_out()
        if call.op == "put_if_match" and land and not sent:
            sent.append(call)
            call.carry_out()
        raise timed_out(call)

    with scripted(store, script), pytest.raises(OutcomeUnknown):
        publisher.commit(request)
    assert len(history.read_current(store, NS).manifest.parts) == int(land)


def failing(*failures: Exception) -> Callable[[Call], Any]:
    """Switches fail so, one after another, and the last way from then on."""
    waiting = list(failures)

    def script(call: Call) -> Any:
        if call.op == "put_if_match":
            raise waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return call.carry_out()

    return script


@pytest.mark.parametrize("refusal", [Unauthorised, StorageFull])
def test_a_switch_that_is_refused_and_not_found_did_not_happen(refusal: type[VecstoreError]) -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    with scripted(store, failing(refusal("no"))), pytest.raises(refusal):
        publisher.commit(insert(publisher))
    assert store.count("put_if_match") == 1


def test_a_refusal_after_a_lost_answer_stays_in_doubt() -> None:
    """The first switch may still be under way."""
    store = ScriptedStore()
    publisher = make_namespace(store)
    script = failing(StorageRetryable("timed out"), Unauthorised("no"))
    with scripted(store, script), pytest.raises(OutcomeUnknown):
        publisher.commit(insert(publisher))
    assert store.count("put_if_match") == 2


def test_the_same_bytes_are_sent_again_while_the_epoch_has_not_moved() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    sent: list[tuple[Any, ...]] = []
    real = store.put_if_match

    def put(key: str, data: bytes, etag: str) -> Any:
        sent.append((key, data, etag))
        if len(sent) < 4:
            raise StorageRetryable("timed out")
        return real(key, data, etag)

    store.put_if_match = put  # type: ignore[method-assign]
    publisher.commit(insert(publisher))
    assert len(sent) == 4
    assert len(set(sent)) == 1
