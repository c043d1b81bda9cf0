"""The commit protocol: what an acknowledgement means, whatever storage does to the answers."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pyroaring import BitMap

from tests.manifest.helpers import (
    NS,
    AddPart,
    Call,
    Gate,
    ScriptedStore,
    Time,
    change,
    in_thread,
    insert,
    make_namespace,
    make_publisher,
    run_all,
    scripted,
    timed_out,
    until_queued,
    upload,
)
from vecstore.errors import (
    IdempotencyMismatch,
    InvalidId,
    NamespaceNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    StorageConflict,
    StorageCorrupt,
    StorageFull,
    StorageRetryable,
    TooManyRequests,
    Unauthorised,
    VecstoreError,
)
from vecstore.invariants import check_namespace, check_successors
from vecstore.limits import MAX_RECENT_COMMITS, MAX_U64
from vecstore.maintenance.gc import Barrier
from vecstore.manifest import history
from vecstore.manifest import publish as publish_module
from vecstore.manifest.draft import Draft
from vecstore.manifest.keys import current_key, history_key
from vecstore.manifest.lifecycle import UpdateSettings, create_namespace, delete_namespace
from vecstore.manifest.model import Mean, Settings, decode_manifest
from vecstore.manifest.publish import IDEMPOTENCY_SECONDS, Publisher, longest_way
from vecstore.manifest.snapshot import SnapshotSource
from vecstore.manifest.tombstones import TombstoneCache, read_tombstone
from vecstore.observe import Counted, Observer
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore

CURRENT = current_key(NS)


def holds(store: Any) -> None:
    assert check_namespace(store, NS) == []


# -- an uncontended commit ------------------------------------------------------------------


def test_a_commit_is_in_current_and_keeps_the_epoch_it_replaced() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    first = store.objects[CURRENT][0]
    committed = publisher.commit(insert(publisher))
    assert committed.epoch == 2
    assert history.read_current(store, NS).manifest == committed.manifest
    assert store.objects[history_key(NS, 1)][0] == first
    holds(store)


def test_a_warm_insert_takes_two_dependent_trips() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.prepare()
    request = insert(publisher)
    store.calls.clear()
    publisher.commit(request)
    assert store.calls == [("put_if_match", CURRENT)]


def test_preparing_twice_copies_once() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.prepare()
    publisher.prepare()
    assert store.count("put_if_absent", "/manifest/0") == 1


def test_a_failed_preparation_is_nobodys_failure() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)

    def script(call: Call) -> Any:
        raise timed_out(call)

    with scripted(store, script):
        publisher.prepare()
    publisher.commit(insert(publisher))
    holds(store)


@pytest.mark.parametrize("failure", [Unauthorised("no"), StorageCorrupt("bad"), RuntimeError("a defect")])
def test_whatever_keeps_the_leader_from_copying_ends_the_commit(failure: Exception) -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)

    def script(call: Call) -> Any:
        if call.op == "put_if_absent" and "/manifest/" in call.key:
            raise failure
        return call.carry_out()

    with scripted(store, script), pytest.raises(type(failure)):
        publisher.commit(insert(publisher))
    assert publisher.commit(insert(publisher)).epoch == 2
    holds(store)


def test_a_leader_that_is_interrupted_while_it_copies_leaves_nothing_behind() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)

    def script(call: Call) -> Any:
        if call.op == "put_if_absent" and "/manifest/" in call.key:
            raise KeyboardInterrupt
        return call.carry_out()

    with scripted(store, script), pytest.raises(KeyboardInterrupt):
        publisher.commit(insert(publisher))
    assert publisher.commit(insert(publisher)).epoch == 2
    assert len(history.read_current(store, NS).manifest.parts) == 1
    holds(store)


def test_a_commit_upon_a_namespace_that_is_not_there_says_so() -> None:
    publisher = make_publisher(ScriptedStore())
    with pytest.raises(NamespaceNotFound):
        publisher.commit(change(publisher))


def test_a_change_that_changes_nothing_costs_no_epoch_but_a_look_at_the_current_one() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    other.commit(insert(other))
    committed = one.commit(change(one))
    assert committed.epoch == 2
    assert history.read_current(store, NS).manifest.epoch == 2


# -- R1: lost answers -----------------------------------------------------------------------


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


def test_a_lost_race_is_applied_again_upon_the_winner() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    other.snapshots.strong()
    one.commit(insert(one))
    request = insert(other)
    committed = other.commit(request)
    assert committed.epoch == 3
    assert request.attempts == 2
    assert len(committed.manifest.parts) == 2
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
    loser.commit(insert(loser))
    loser.commit(insert(loser))
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


@pytest.mark.parametrize("refusal", [Unauthorised, StorageFull])
def test_a_switch_that_is_refused_and_not_found_did_not_happen(refusal: type[VecstoreError]) -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)

    def script(call: Call) -> Any:
        if call.op == "put_if_match":
            raise refusal("no")
        return call.carry_out()

    with scripted(store, script), pytest.raises(refusal):
        publisher.commit(insert(publisher))
    assert store.count("put_if_match") == 1


def test_a_refusal_after_a_lost_answer_stays_in_doubt() -> None:
    """The first switch may still be under way."""
    store = ScriptedStore()
    publisher = make_namespace(store)

    def script(call: Call) -> Any:
        if call.op == "put_if_match":
            raise StorageRetryable("timed out") if store.count("put_if_match") == 1 else Unauthorised("no")
        return call.carry_out()

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


@pytest.mark.parametrize("failing", ["/manifest/0", "/deletes/"])
def test_a_failure_before_the_switch_is_raised_as_it_is_and_nothing_is_applied(failing: str) -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    part = publisher.commit(insert(publisher)).manifest.parts[0]

    def script(call: Call) -> Any:
        if failing in call.key:
            raise timed_out(call)
        return call.carry_out()

    request = change(publisher, kills={part.id: [1]})
    before = store.count("put_if_match")
    with scripted(store, script), pytest.raises(StorageRetryable):
        publisher.commit(request)
    assert store.count("put_if_match") == before
    assert publisher.commit(change(publisher, kills={part.id: [1]})).answer == {"killed": 1}
    holds(store)


def test_a_publisher_that_keeps_losing_gives_up_and_says_that_nothing_was_applied() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    busy = threading.local()

    def script(call: Call) -> Any:
        if call.op == "put_if_match" and not getattr(busy, "now", False):
            busy.now = True
            other.commit(insert(other))
            busy.now = False
        return call.carry_out()

    request = insert(one)
    with scripted(store, script), pytest.raises(StorageConflict, match="nothing was applied"):
        one.commit(request)
    assert all(part.id != request.part.id for part in history.read_current(store, NS).manifest.parts)


def test_a_writer_that_has_lost_often_gives_way_no_more() -> None:
    """In a play of 16 writers, of whom the one that has won goes on at once with what it knows."""
    rng, taken = Random(1), 0.1  # seconds of a request
    events = [(taken * rng.random(), number, -1) for number in range(16)]
    losses, begun, longest, epoch = [0] * 16, [0.0] * 16, 0.0, 0
    while epoch < 3_000:
        now, number, base = heapq.heappop(events)
        if base < 0:  # what is current is known; it is copied, and the switch sent
            heapq.heappush(events, (now + taken * (1.8 + 0.4 * rng.random()), number, epoch))
            continue
        if base == epoch:
            epoch += 1
            longest = max(longest, now - begun[number])
            losses[number], begun[number] = 0, now
            heapq.heappush(events, (now + taken, number, -1))  # its next upload
        else:
            losses[number] += 1
            pause = longest_way(losses[number]) * rng.random()
            heapq.heappush(events, (now + taken * (0.8 + 0.4 * rng.random()) + pause, number, -1))
    assert longest < 30, "the deadline of a commit"


def test_a_writer_that_is_ahead_of_others_gives_way_to_them() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    pauses: list[float] = []
    one.sleep = pauses.append
    for _ in range(3):
        one.prepare()
        one.commit(insert(one))
    assert not pauses, "nobody else wants to commit"

    # Another keeps a copy of what we have made, as whoever wants to commit does, and loses.
    other.snapshots.refresh()
    other.prepare()
    one.prepare()
    one.commit(insert(one))
    assert len(pauses) == 1
    # We ask what is current after the pause, so that another who has committed meanwhile costs us no attempt.
    other.snapshots.refresh()
    other.prepare()
    one.prepare()
    one.sleep = lambda _: other.commit(insert(other))
    request = insert(one)
    one.commit(request)
    assert request.attempts == 1
    holds(store)


def test_an_interrupted_leader_leaves_the_publisher_usable_and_its_group_in_doubt() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)

    def script(call: Call) -> Any:
        if call.op == "put_if_match":
            raise KeyboardInterrupt
        return call.carry_out()

    with scripted(store, script), pytest.raises(KeyboardInterrupt):
        publisher.commit(insert(publisher))
    publisher.commit(insert(publisher))
    holds(store)


def test_a_request_whose_caller_was_interrupted_before_it_was_taken_is_not_published_later() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    given_up = insert(publisher)

    def script(call: Call) -> Any:
        if "/manifest/0" in call.key:
            raise KeyboardInterrupt
        return call.carry_out()

    with scripted(store, script), pytest.raises(KeyboardInterrupt):
        publisher.commit(given_up)
    publisher.commit(insert(publisher))
    assert given_up.attempts == 0
    assert given_up.part.id not in {part.id for part in history.read_current(store, NS).manifest.parts}
    holds(store)


@pytest.mark.parametrize("times", [1, 1_000])
def test_an_error_that_nobody_expects_while_the_base_is_copied_is_the_callers(times: int) -> None:
    """And is told once: the request does not wait for ever to be taken."""
    store = ScriptedStore()
    publisher = make_namespace(store)
    failed: list[Call] = []

    def script(call: Call) -> Any:
        if "/manifest/0" in call.key:
            failed.append(call)
            if len(failed) <= times:
                raise MemoryError
        return call.carry_out()

    with scripted(store, script), pytest.raises(MemoryError):
        publisher.commit(insert(publisher))
    assert len(failed) == 1
    publisher.commit(insert(publisher))
    assert len(history.read_current(store, NS).manifest.parts) == 1
    holds(store)


# -- R2 -------------------------------------------------------------------------------------


def test_history_holds_the_bytes_that_were_current_even_if_we_would_write_them_otherwise() -> None:
    store = ScriptedStore()
    make_namespace(store)
    data, _ = store.objects[CURRENT]
    spaced = data.replace(b'{"crc32c":', b'{ "crc32c":', 1)
    store._set(CURRENT, spaced)
    publisher = make_publisher(store, 2)
    publisher.commit(insert(publisher))
    assert store.objects[history_key(NS, 1)][0] == spaced


def test_a_writer_deletes_nothing() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    other.snapshots.strong()
    part = one.commit(insert(one)).manifest.parts[0]
    other.commit(insert(other, kills={part.id: [1]}))
    one.commit(insert(one))
    assert store.count("delete") == 0


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


# -- R5: groups -----------------------------------------------------------------------------


def grouped(publisher: Publisher, store: ScriptedStore, *requests: AddPart) -> list[Any]:
    """Commit ``requests`` in one group, in this order, behind a first one of their own."""
    results: list[list[Any]] = [[] for _ in requests]
    with Gate(store) as gate:
        threads = [in_thread(lambda: publisher.commit(insert(publisher)))]
        assert gate.reached.wait(30)
        for i, request in enumerate(requests):
            threads.append(in_thread(lambda request=request: publisher.commit(request), results[i]))
            until_queued(publisher, i + 1)
    for thread in threads:
        thread.join(30)
    return [result for (result,) in results]


def test_changes_that_wait_are_committed_together_and_each_gets_its_own_answer() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    requests = [insert(publisher) for _ in range(5)]
    results = grouped(publisher, store, *requests)
    assert [result.epoch for result in results] == [3] * 5
    assert store.count("put_if_match") == 2
    current = history.read_current(store, NS).manifest
    assert len(current.parts) == 6
    assert {ref.id for ref in current.commits if ref.epoch == 3} == {r.commit_id for r in requests}
    holds(store)


def slow_copies(time: Time, copied: threading.Event | None = None) -> Callable[[Call], Any]:
    """A request for the history takes an hour of the publisher's clock."""

    def script(call: Call) -> Any:
        if call.op == "put_if_absent" and "/manifest/" in call.key:
            time.seconds += 3_600
            if copied is not None:
                copied.set()
        return call.carry_out()

    return script


def test_a_leader_waits_for_a_writer_that_is_about_to_come() -> None:
    store, time, copied = ScriptedStore(), Time(), threading.Event()
    publisher = make_namespace(store, time=time)
    mine, theirs = insert(publisher), insert(publisher)
    result: list[Any] = []
    with scripted(store, slow_copies(time, copied)), publisher.arriving() as arrival:
        leader = in_thread(lambda: publisher.commit(theirs), result)
        assert copied.wait(30)
        assert publisher.commit(mine, arrival).epoch == 2
        leader.join(30)
    assert [committed.epoch for committed in result] == [2]
    assert store.count("put_if_match") == 1
    holds(store)


def test_a_leader_waits_no_longer_for_a_writer_that_fails() -> None:
    store, time, copied = ScriptedStore(), Time(), threading.Event()
    publisher = make_namespace(store, time=time)
    result: list[Any] = []
    with scripted(store, slow_copies(time, copied)), publisher.arriving():
        leader = in_thread(lambda: publisher.commit(insert(publisher)), result)
        assert copied.wait(30)
        assert not result
    leader.join(30)
    assert [committed.epoch for committed in result] == [2]


def test_a_leader_does_not_wait_for_a_writer_that_takes_long() -> None:
    store, time = ScriptedStore(), Time()
    publisher = make_namespace(store, time=time)
    with scripted(store, slow_copies(time)), publisher.arriving():
        time.seconds += 2 * 3_600
        assert publisher.commit(insert(publisher)).epoch == 2


def test_one_that_fails_in_a_group_leaves_no_trace_and_does_not_harm_the_others() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    part = publisher.commit(insert(publisher)).manifest.parts[0]

    def fail(draft: Draft) -> None:
        draft.kill(part.id, BitMap([1, 2, 3]))
        draft.take_ids(100)
        draft.set_settings(Settings(nprobe_cap=7))
        draft.remove_parts([part.id])
        raise InvalidId("mine alone")

    good, bad, last = (
        insert(publisher),
        insert(publisher, before=fail),
        insert(publisher, kills={part.id: [1]}),
    )
    results = grouped(publisher, store, good, bad, last)
    assert isinstance(results[1], InvalidId)
    assert results[0].epoch == results[2].epoch
    assert results[2].answer == {"killed": 1}
    manifest = results[2].manifest
    assert bad.part.id not in {p.id for p in manifest.parts}
    assert (manifest.next_id, manifest.settings.nprobe_cap) == (0, Settings().nprobe_cap)
    holds(store)


def test_two_upserts_of_one_id_in_one_group_leave_one_live_row() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    old = publisher.commit(insert(publisher, n=1)).manifest.parts[0]

    def upsert() -> AddPart:
        """Kill whatever row of the id lives at that point, then add a new one."""

        def resolve(draft: Draft) -> None:
            for part in draft.manifest.parts:
                if part.n == 1:
                    draft.kill(part.id, BitMap([0]))

        return insert(publisher, n=1, before=resolve)

    grouped(publisher, store, upsert(), upsert())
    manifest = history.read_current(store, NS).manifest
    assert sum(part.live for part in manifest.parts if part.n == 1) == 1
    assert next(part for part in manifest.parts if part.id == old.id).live == 0
    holds(store)


def test_a_precondition_holds_against_what_precedes_it_in_the_group() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    incarnation = publisher.snapshots.strong().manifest.incarnation
    results = grouped(
        publisher,
        store,
        insert(publisher, expected=(incarnation, 2)),
        insert(publisher, expected=(incarnation, 2)),
        insert(publisher),
    )
    assert results[0].epoch == results[2].epoch == 3
    assert isinstance(results[1], PreconditionFailed)


def test_a_precondition_is_checked_again_after_a_lost_race() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    token = one.snapshots.strong().token
    other.commit(insert(other))
    with pytest.raises(PreconditionFailed):
        one.commit(insert(one, expected=token))


def test_a_precondition_newer_than_what_this_process_knows_is_looked_up() -> None:
    store = ScriptedStore()
    one, other = make_namespace(store), make_publisher(store, 2)
    other.commit(insert(other))
    assert one.commit(insert(one, expected=other.snapshots.strong().token)).epoch == 3


def test_a_failure_that_nobody_foresaw_is_the_requests_own() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)

    def fail(draft: Draft) -> None:
        raise ZeroDivisionError

    results = grouped(publisher, store, insert(publisher, before=fail), insert(publisher))
    assert isinstance(results[0], ZeroDivisionError)
    assert results[1].epoch == 3


def test_a_manifest_beyond_its_bound_is_refused_and_the_others_go_on(monkeypatch: Any) -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)

    def grow(draft: Draft) -> None:
        draft.add_mean(Mean("big", bytes(50_000)))

    monkeypatch.setattr(publish_module, "MAX_MANIFEST_BYTES", 20_000)
    results = grouped(publisher, store, insert(publisher), insert(publisher, before=grow), insert(publisher))
    assert isinstance(results[1], TooManyRequests)
    assert {results[0].epoch, results[2].epoch} == {3, 4}
    holds(store)


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
    monkeypatch.setattr(publish_module, "MAX_IDEMPOTENCY_KEYS", 2)
    store = ScriptedStore()
    publisher = make_namespace(store)
    for key in ("a", "b"):
        publisher.commit(insert(publisher, idempotency=(key, "digest")))
    with pytest.raises(TooManyRequests):
        publisher.commit(insert(publisher, idempotency=("c", "digest")))
    assert publisher.commit(insert(publisher, idempotency=("a", "digest"))).replayed
    publisher.commit(insert(publisher))


def test_a_refused_request_does_not_use_up_its_key() -> None:
    publisher = make_namespace(ScriptedStore())

    def fail(draft: Draft) -> None:
        raise InvalidId("no")

    with pytest.raises(InvalidId):
        publisher.commit(insert(publisher, before=fail, idempotency=("key", "digest")))
    assert not publisher.commit(insert(publisher, idempotency=("key", "digest"))).replayed


# -- many at once ---------------------------------------------------------------------------


@pytest.fixture(params=["memory", "local"])
def real_store(request: Any, tmp_path: Path) -> Any:
    store = MemoryStore() if request.param == "memory" else LocalStore(tmp_path)
    yield store
    store.close()


class Recorder:
    """Remembers the bytes of every switch that landed; ``first`` is waited for before the first."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.landed: list[bytes] = []
        self.first: Callable[[bytes], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_match(self, key: str, data: bytes, etag: str) -> Any:
        if not self.landed:
            self.first(data)
        meta = self._store.put_if_match(key, data, etag)
        self.landed.append(data)
        return meta


def test_threads_of_one_publisher_share_manifest_writes(real_store: Any) -> None:
    store = Recorder(real_store)
    publisher = make_namespace(store)
    # While the first of them are committed, all others come to wait.
    store.first = lambda data: until_queued(
        publisher, 16 - len(decode_manifest(data, key=CURRENT, namespace=NS).parts)
    )
    start = threading.Barrier(16)

    def work() -> list[int]:
        start.wait()
        return [publisher.commit(insert(publisher)).epoch for _ in range(5)]

    epochs = run_all(*[work] * 16)
    assert all(mine == sorted(set(mine)) for mine in epochs)
    manifest = history.read_current(store, NS).manifest
    assert len(manifest.parts) == 80
    assert len(store.landed) < 80
    assert manifest.epoch == len(store.landed) + 1
    holds(real_store)


def test_writers_on_many_nodes_lose_nothing_and_leave_no_gap(real_store: Any) -> None:
    store = Recorder(real_store)
    nodes = [make_namespace(store), *(make_publisher(store, seed) for seed in range(2, 5))]
    first = real_store.get(CURRENT).data
    victim = nodes[0].commit(insert(nodes[0], n=2000)).manifest.parts[0]

    def work(node: Any, thread: int) -> list[str]:
        mine = []
        for i in range(3):
            request = insert(node, kills={victim.id: [100 * thread + i, 999]})
            node.prepare()
            node.commit(request)
            mine.append(request.part.id)
        return mine

    jobs = [(lambda n=node, t=t: work(n, 4 * nodes.index(n) + t)) for node in nodes for t in range(3)]
    for node in nodes:
        node.deadline = 1e9
    done = run_all(*jobs)
    assert not [result for result in done if isinstance(result, Exception)]
    manifest = history.read_current(real_store, NS).manifest
    assert {part.id for part in manifest.parts} == {victim.id, *(i for mine in done for i in mine)}
    killed = next(part for part in manifest.parts if part.id == victim.id)
    assert killed.tombstone is not None
    assert killed.tombstone.dead == 12 * 3 + 1
    by_epoch = {decode_manifest(d, key="", namespace=NS).epoch: d for d in [first, *store.landed]}
    assert sorted(by_epoch) == list(range(1, manifest.epoch + 1))
    for epoch in range(1, manifest.epoch):
        assert real_store.get(history_key(NS, epoch)).data == by_epoch[epoch]
    epochs = [decode_manifest(by_epoch[e], key="", namespace=NS) for e in sorted(by_epoch)]
    assert [v for a, b in pairwise(epochs) for v in check_successors(a, b)] == []
    holds(real_store)
