"""Virtual time, and tasks of which one runs at a time.

A task is a call on a thread of its own, so that the library under test runs as it is. The thread
goes on only while it holds the baton, which the scheduler hands to the task whose time has come
first; a task gives it back whenever it waits for time to pass or for another task. So what happens,
and in which order, follows from the times alone, and those from one seed.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """The process of this task is dead; nothing it still does has an effect."""


class Deadlock(AssertionError):
    """Tasks wait for one another and nothing else will happen."""


class Process:
    """What dies and stalls as a whole: the tasks that share memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stalled_until = 0.0
        self.tasks: dict[Task, None] = {}  # in order of their start


class Task:
    """One call under the scheduler."""

    def __init__(self, name: str, run: Callable[[], Any], process: Process | None) -> None:
        self.name = name
        self.process = process
        self.finished = False
        self.asked: Any = None  # the request that is under way, for whoever kills the process
        self._run = run
        self._ticket = 0
        self._blocked = False
        self._worker: _Worker | None = None
        self._waiting: list[Task] = []

    @property
    def doomed(self) -> bool:
        return self.process is not None and not self.process.alive


class _Worker(threading.Thread):
    """An operating-system thread that carries out tasks, one after another."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(name="simulated", daemon=True)
        self.go = threading.Semaphore(0)
        self.task: Task | None = None
        self._scheduler = scheduler
        self.start()

    def run(self) -> None:
        while True:
            self.go.acquire()
            if self.task is None:
                return
            self._scheduler._carry_out(self.task)


class Scheduler:
    """Runs tasks and events in the order of their virtual times; ties in the order of arrival.

    Attributes
    ----------
    now
        Virtual seconds since the Unix epoch.
    current
        The task that has the baton; None while an event or whoever called `run` acts.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.now = start
        self.current: Task | None = None
        self._queue: list[tuple[float, int, Task | None, int, Callable[[], None] | None]] = []
        self._arrivals = 0
        self._back = threading.Semaphore(0)
        self._idle: list[_Worker] = []
        self._tasks: dict[Task, None] = {}
        self._failure: BaseException | None = None

    # -- for whoever drives ------------------------------------------------------------------

    def run(self, done: Callable[[], bool]) -> None:
        """Until ``done``, or nothing is left to do. Raises what any task raised."""
        while not done():
            if not self._queue:
                if self._tasks:
                    raise Deadlock(f"waiting for one another: {sorted(t.name for t in self._tasks)}")
                return
            due, _, task, ticket, event = heapq.heappop(self._queue)
            if task is not None and (task.finished or ticket != task._ticket):
                continue
            process = None if task is None else task.process
            if process is not None and process.alive and process.stalled_until > due:
                self._push(process.stalled_until, task, ticket)
                continue
            self.now = max(self.now, due)
            if task is None:
                assert event is not None
                event()
            else:
                self._hand_over(task)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure

    def close(self) -> None:
        """End every task and thread."""
        grave = Process("grave")
        grave.alive = False
        for task in list(self._tasks):
            task.process = grave
            if not task.finished:
                self._hand_over(task)
        self._failure = None
        for worker in self._idle:
            worker.task = None
            worker.go.release()
            worker.join()
        self._idle.clear()

    # -- for tasks and events ----------------------------------------------------------------

    def spawn(
        self, name: str, run: Callable[[], Any], *, process: Process | None = None, after: float = 0.0
    ) -> Task:
        """A new task. It belongs to ``process``, else to that of the current task, if there is one."""
        if process is None and self.current is not None:
            process = self.current.process
        task = Task(name, run, process)
        self._tasks[task] = None
        if process is not None:
            process.tasks[task] = None
        self._push(self.now + after, task, task._ticket)
        return task

    def at(self, due: float, event: Callable[[], None]) -> None:
        """Let ``event``, which must not wait, happen at a time."""
        self._push(due, None, 0, event)

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        task = self._mine()
        task._ticket += 1
        self._push(self.now + max(seconds, 0.0), task, task._ticket)
        self._park(task)

    def block(self, timeout: float | None = None) -> None:
        """Wait until another task calls `wake`, or so many virtual seconds have passed."""
        task = self._mine()
        task._ticket += 1
        task._blocked = True
        if timeout is not None:
            self._push(self.now + timeout, task, task._ticket)
        try:
            self._park(task)
        finally:
            task._blocked = False

    def wake(self, task: Task) -> None:
        """Let a task go on that is blocked; no effect on one that is not."""
        if task._blocked:
            self._push(self.now, task, task._ticket)

    def fail(self, failure: BaseException) -> None:
        """Let `run` raise it as soon as the baton is given back; the first one counts."""
        if self._failure is None:
            self._failure = failure

    def join(self, task: Task) -> None:
        while not task.finished:
            task._waiting.append(self._mine())
            self.block()

    def kill(self, process: Process) -> None:
        """End a process at this instant: what its tasks do from now on has no effect."""
        process.alive = False
        for task in process.tasks:
            if task is not self.current:
                task._ticket += 1
                self._push(self.now, task, task._ticket)

    # -- below: the baton --------------------------------------------------------------------

    def _mine(self) -> Task:
        task = self.current
        if task is None or task._worker is not threading.current_thread():
            raise AssertionError(
                f"{threading.current_thread().name} is no simulated task: some module makes threads that"
                " tests/simulation/threads.py does not know"
            )
        if task.doomed:
            raise Killed
        return task

    def _push(
        self, due: float, task: Task | None, ticket: int, event: Callable[[], None] | None = None
    ) -> None:
        self._arrivals += 1
        heapq.heappush(self._queue, (due, self._arrivals, task, ticket, event))

    def _hand_over(self, task: Task) -> None:
        worker = task._worker
        if worker is None:
            worker = self._idle.pop() if self._idle else _Worker(self)
            worker.task, task._worker = task, worker
        self.current = task
        worker.go.release()
        self._back.acquire()
        self.current = None

    def _park(self, task: Task) -> None:
        assert task._worker is not None
        self._back.release()
        task._worker.go.acquire()
        if task.doomed:
            raise Killed

    def _carry_out(self, task: Task) -> None:
        try:
            task._run()  # of a doomed task too: it may have to tell somebody
        except Killed:
            pass
        except BaseException as error:
            self.fail(error)
        task.finished = True
        del self._tasks[task]
        if task.process is not None:
            task.process.tasks.pop(task, None)
        for waiting in task._waiting:
            self.wake(waiting)
        worker, task._worker = task._worker, None
        assert worker is not None
        worker.task = None
        self._idle.append(worker)
        self._back.release()
