"""Commits: groups, races, history, and what a failure before the switch leaves."""

from __future__ import annotations

import heapq
import threading
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
    ScriptedStore,
    Time,
    change,
    grouped,
    holds,
    in_thread,
    insert,
    make_namespace,
    make_publisher,
    run_all,
    scripted,
    timed_out,
    until_queued,
)
from vecstore.errors import (
    InvalidId,
    NamespaceNotFound,
    PreconditionFailed,
    StorageConflict,
    StorageCorrupt,
    StorageFull,
    StorageRetryable,
    TooManyRequests,
    Unauthorised,
)
from vecstore.invariants import check_successors
from vecstore.maintenance.gc import Barrier
from vecstore.manifest import history
from vecstore.manifest import publish as publish_module
from vecstore.manifest.draft import Draft
from vecstore.manifest.keys import current_key, history_key
from vecstore.manifest.model import Mean, Settings, decode_manifest
from vecstore.manifest.publish import longest_way
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore

CURRENT = current_key(NS)


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


def test_a_disk_without_room_for_the_copy_says_how_much_a_commit_needs() -> None:
    store = ScriptedStore()
    publisher = make_namespace(store)
    size = len(history.read_current(store, NS).raw)

    def script(call: Call) -> Any:
        if call.op == "put_if_absent" and "/manifest/" in call.key:
            raise StorageFull(f"{call.key}: no space", object=call.key)
        return call.carry_out()

    with scripted(store, script), pytest.raises(StorageFull, match=f"first keeps {size} bytes") as full:
        publisher.commit(Barrier(commit_id=publisher.new_commit_id(), horizon=0.0, floor=1))
    assert full.value.details["object"] == history_key(NS, 1)
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


# -- races, failures, interruptions ---------------------------------------------------------


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


def test_a_writer_gives_way_for_as_long_as_one_request_takes_also_where_a_copy_cost_it_two() -> None:
    store, time = ScriptedStore(), Time()
    one, other = make_namespace(store, time=time), make_publisher(store, 2)
    pauses: list[float] = []
    one.sleep = pauses.append
    one.rng.random = lambda: 1.0  # type: ignore[method-assign]
    one.commit(insert(one))
    other.snapshots.refresh()
    other.prepare()

    def script(call: Call) -> Any:
        time.seconds += 1.0
        return call.carry_out()

    with scripted(store, script):
        one.commit(insert(one))
    assert pauses == [8.0]  # requests of a second


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


# -- R5: groups -----------------------------------------------------------------------------


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


def test_an_older_state_laid_over_a_store_ends_in_an_error_before_two_histories_mix() -> None:
    """Files of a backup over what is there: copies of later epochs stay, under numbers that come again."""
    store = ScriptedStore()
    publisher = make_namespace(store)
    publisher.commit(insert(publisher))
    older = dict(store.objects)
    for _ in range(4):
        publisher.commit(insert(publisher))
    store.objects.update(older)
    anew = make_publisher(store, 2)
    assert anew.commit(insert(anew)).epoch == 3
    before = store.objects[CURRENT], store.objects[history_key(NS, 3)]
    for writer in (anew, make_publisher(store, 3)):
        with pytest.raises(StorageCorrupt) as caught:
            writer.commit(insert(writer))
        assert caught.value.details["object"] == history_key(NS, 3)
    assert (store.objects[CURRENT], store.objects[history_key(NS, 3)]) == before
    for key in [key for key in store.objects if history_key(NS, 3) <= key < CURRENT]:
        del store.objects[key]  # as docs/incidents.md has it
    assert anew.commit(insert(anew)).epoch == 4
    holds(store)


def test_a_process_that_outlived_the_loss_of_a_store_commits_to_the_one_that_came_in_its_place() -> None:
    """What it knows is of another history than what is kept by now, which is no damage."""
    store, other = ScriptedStore(), ScriptedStore()
    publisher, anew = make_namespace(store), make_namespace(other, 2)
    for _ in range(3):
        anew.commit(insert(anew))
    publisher.commit(insert(publisher))
    store.objects = dict(other.objects)
    assert publisher.commit(insert(publisher)).epoch == 5
    holds(store)


def test_only_a_copy_that_is_there_already_costs_a_read() -> None:
    store = ScriptedStore()
    first = make_namespace(store)
    second = make_publisher(store, 2)
    second.snapshots.strong()
    store.calls.clear()
    first.prepare()
    assert store.calls == [("put_if_absent", history_key(NS, 1))]
    second.prepare()
    assert store.calls[1:] == [("put_if_absent", history_key(NS, 1)), ("get", history_key(NS, 1))]
