"""Leases: at most one holder by the store's clock, as long as nobody stalls."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest

from tests.manifest.helpers import NS, Call, ScriptedStore, run_all, scripted, timed_out
from vecstore.errors import StorageRetryable
from vecstore.manifest.keys import lease_key
from vecstore.manifest.lease import Lease, Left, holder_of
from vecstore.storage.memory import MemoryStore


def asking(store: Any, seed: int = 1, **more: Any) -> Lease:
    more = {"holder": f"node-{seed}", **more}
    return Lease(store, NS, "compaction", ttl=60, rng=Random(seed), **more)


def acquire(store: Any, seed: int = 1) -> Lease | None:
    lease = asking(store, seed)
    return lease if lease.acquire() else None


def test_a_lease_that_is_held_is_not_granted_twice() -> None:
    store = ScriptedStore()
    assert acquire(store) is not None
    assert acquire(store, 2) is None


def test_a_lease_that_expired_is_taken_over_and_its_old_holder_notices() -> None:
    store = ScriptedStore()
    old = acquire(store)
    store.time += 60
    new = acquire(store, 2)
    assert new is not None
    assert old is not None
    assert new.token != old.token
    assert not old.renew()
    old.release()  # takes nothing from its successor
    assert acquire(store, 3) is None
    assert new.renew()


def test_a_renewed_lease_stays_held() -> None:
    store = ScriptedStore()
    lease = acquire(store)
    assert lease is not None
    store.time += 50
    assert lease.renew()
    store.time += 50
    assert acquire(store, 2) is None
    assert lease.expires_at == store.time + 10


def test_a_released_lease_is_free_at_once() -> None:
    store = ScriptedStore()
    lease = acquire(store)
    assert lease is not None
    lease.release()
    assert acquire(store, 2) is not None


def test_of_many_who_ask_at_once_one_gets_it() -> None:
    store = MemoryStore()
    granted = run_all(*[lambda seed=seed: acquire(store, seed) for seed in range(8)])
    assert sum(lease is not None for lease in granted) == 1


@pytest.mark.parametrize("operation", ["put_if_absent", "put_if_match"])
def test_a_lease_whose_answer_was_lost_is_ours(operation: str) -> None:
    store = ScriptedStore()
    if operation == "put_if_match":
        acquire(store)
        store.time += 60

    def script(call: Call) -> Any:
        if call.op == operation:
            call.carry_out()
            raise timed_out(call)
        return call.carry_out()

    with scripted(store, script):
        lease = acquire(store, 2)
    assert lease is not None
    assert lease.renew()


def test_a_renewal_whose_answer_was_lost_does_not_lose_the_lease() -> None:
    store = ScriptedStore()
    lease = acquire(store)
    assert lease is not None

    def script(call: Call) -> Any:
        if call.op == "put_if_match":
            store.time += 1
            call.carry_out()
        return call.carry_out()

    with scripted(store, script):
        assert lease.renew()
    assert lease.renew()


def test_a_lease_says_who_holds_it_and_what_for_until_it_is_free() -> None:
    store = ScriptedStore()
    assert holder_of(store, NS, "compaction") is None
    lease = asking(store, holder="me", about={"parts": 3, "done": 0.0})
    assert lease.acquire()

    def told() -> Any:
        held = holder_of(store, NS, "compaction")
        return None if held is None else (held.holder, held.about)

    assert told() == ("me", {"parts": 3, "done": 0.0})
    assert lease.renew({"parts": 3, "done": 0.5})
    assert lease.renew()
    assert told() == ("me", {"parts": 3, "done": 0.5})
    store.time += 60
    assert told() is None
    assert lease.renew()
    lease.release()
    assert told() is None


def unreleased(store: ScriptedStore, left: Left) -> Lease:
    """A lease whose release failed."""
    lease = asking(store, left=left)
    assert lease.acquire()

    def script(call: Call) -> Any:
        raise timed_out(call)

    with scripted(store, script), pytest.raises(StorageRetryable):
        lease.release()
    return lease


def test_a_thread_takes_back_what_it_left_and_nothing_that_is_held() -> None:
    store, left = ScriptedStore(), Left()
    lease = unreleased(store, left)
    assert not asking(store, 2).acquire()
    later = asking(store, 3, left=left)
    assert later.acquire()
    assert not lease.renew()
    assert not asking(store, 4, left=left).acquire(), "its holder is at work"
    assert later.renew()


def test_a_forked_child_takes_nothing_that_its_parent_left() -> None:
    store, left = ScriptedStore(), Left()
    unreleased(store, left)
    child = os.fork()
    if child == 0:
        granted = True
        try:
            granted = asking(store, 2, left=left).acquire()
        finally:
            os._exit(int(granted))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asking(store, 3, left=left).acquire()


def test_a_lease_that_cannot_be_read_does_not_stop_work_for_good() -> None:
    store = ScriptedStore()
    store._set(lease_key(NS, "compaction"), b"\0")
    assert acquire(store) is not None
