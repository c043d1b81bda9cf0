"""Tasks take turns as their times say, and a killed process has no effect any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.simulation.scheduler import Deadlock, Killed, Process, Scheduler
from tests.simulation.threads import SimulatedCondition, SimulatedLock


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(0.0)
    yield made
    made.close()


def test_tasks_go_on_in_the_order_of_their_times(scheduler: Scheduler) -> None:
    seen: list[tuple[float, str]] = []

    def task(name: str, *pauses: float) -> Callable[[], None]:
        def run() -> None:
            for pause in pauses:
                scheduler.sleep(pause)
                seen.append((scheduler.now, name))

        return run

    scheduler.spawn("a", task("a", 1.0, 3.0))
    scheduler.spawn("b", task("b", 2.0, 2.0))
    scheduler.at(3.0, lambda: seen.append((scheduler.now, "event")))
    scheduler.run(lambda: False)
    assert seen == [(1.0, "a"), (2.0, "b"), (3.0, "event"), (4.0, "a"), (4.0, "b")]


def test_a_lock_is_held_by_one_task_over_its_pauses(scheduler: Scheduler) -> None:
    lock = SimulatedLock(scheduler)
    inside: list[str] = []

    def run(name: str) -> None:
        with lock:
            inside.append(name)
            scheduler.sleep(5.0)
            inside.append(name)

    for name in ("a", "b", "c"):
        scheduler.spawn(name, lambda name=name: run(name))
    scheduler.run(lambda: False)
    assert inside == ["a", "a", "b", "b", "c", "c"]


def test_a_condition_wakes_who_waits(scheduler: Scheduler) -> None:
    condition = SimulatedCondition(scheduler)
    ready: list[int] = []

    def wait() -> None:
        with condition:
            while not ready:
                condition.wait()
            ready.append(2)

    def wake() -> None:
        scheduler.sleep(1.0)
        with condition:
            ready.append(1)
            condition.notify_all()

    scheduler.spawn("wait", wait)
    scheduler.spawn("wake", wake)
    scheduler.run(lambda: False)
    assert ready == [1, 2]


def test_a_wait_with_a_timeout_ends_when_it_is_notified_or_over(scheduler: Scheduler) -> None:
    condition = SimulatedCondition(scheduler)
    began = scheduler.now
    seen: list[tuple[bool, float]] = []

    def wait() -> None:
        with condition:
            for timeout in (5.0, 5.0, 5.0):
                seen.append((condition.wait(timeout), scheduler.now - began))

    def wake() -> None:
        scheduler.sleep(2.0)
        with condition:
            condition.notify_all()
        scheduler.sleep(6.0)
        with condition:
            condition.notify_all()

    scheduler.spawn("wait", wait)
    scheduler.spawn("wake", wake)
    scheduler.run(lambda: False)
    assert seen == [(True, 2.0), (False, 7.0), (True, 8.0)]


def test_a_killed_process_goes_no_further_and_cleans_up_in_vain(scheduler: Scheduler) -> None:
    process = Process("victim")
    seen: list[str] = []

    def run() -> None:
        try:
            scheduler.sleep(2.0)
            seen.append("woke")
        finally:
            with pytest.raises(Killed):
                scheduler.sleep(1.0)
            seen.append("unwound")

    scheduler.spawn("victim", run, process=process)
    scheduler.at(1.0, lambda: scheduler.kill(process))
    scheduler.run(lambda: False)
    assert seen == ["unwound"]
    assert scheduler.now == 1.0


def test_a_process_that_stands_still_wakes_late(scheduler: Scheduler) -> None:
    process = Process("sleepy")
    woke: list[float] = []

    def run() -> None:
        scheduler.sleep(1.0)
        woke.append(scheduler.now)

    scheduler.spawn("sleepy", run, process=process)
    scheduler.at(0.5, lambda: setattr(process, "stalled_until", 3600.0))
    scheduler.run(lambda: False)
    assert woke == [3600.0]


def test_tasks_that_wait_for_one_another_are_told(scheduler: Scheduler) -> None:
    lock = SimulatedLock(scheduler)
    lock.acquire()
    scheduler.spawn("stuck", lock.acquire)
    with pytest.raises(Deadlock, match="stuck"):
        scheduler.run(lambda: False)
    lock.release()


def test_what_a_task_raises_reaches_whoever_runs_it(scheduler: Scheduler) -> None:
    def run() -> None:
        raise ValueError("wrong")

    scheduler.spawn("wrong", run)
    with pytest.raises(ValueError, match="wrong"):
        scheduler.run(lambda: False)
