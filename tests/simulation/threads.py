"""The library's locks, threads and pools, on the scheduler.

`simulated_threads` swaps what the modules of ``vecstore`` know as ``threading``, ``Workers``, ``Pool``
and ``Future``, so that a task which waits for another one gives the baton back, and the work that
the library does side by side is interleaved like everything else.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from tests.simulation.scheduler import Killed, Scheduler, Task
from vecstore.storage.threads import Pool, Workers

# A pool of these only shares out computing: its tasks call no store, and their number is the machine's.
_COMPUTING = ("vecstore.part.", "vecstore.index.")


class SimulatedLock:
    """`threading.Lock`; ``reentrant``, `threading.RLock`."""

    def __init__(self, scheduler: Scheduler, *, reentrant: bool = False) -> None:
        self._scheduler = scheduler
        self._reentrant = reentrant
        self._owner: object = None
        self._depth = 0
        self._waiting: deque[Task] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self._scheduler.current or self
        while self._depth and not (self._reentrant and self._owner is me):
            if not blocking:
                return False
            if isinstance(me, Task) and not me.doomed:
                self._waiting.append(me)
            self._scheduler.block()
        self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            if self._waiting:
                self._scheduler.wake(self._waiting.popleft())

    def locked(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedCondition:
    """`threading.Condition`."""

    def __init__(self, scheduler: Scheduler, lock: SimulatedLock | None = None) -> None:
        self._scheduler = scheduler
        self._lock = lock if lock is not None else SimulatedLock(scheduler, reentrant=True)
        self._waiting: deque[Task] = deque()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def wait(self, timeout: float | None = None) -> bool:
        task = self._scheduler.current
        assert task is not None
        self._waiting.append(task)
        self._lock.release()
        try:
            self._scheduler.block(timeout)
        finally:
            self._lock.acquire()
            notified = task not in self._waiting
            if not notified:
                self._waiting.remove(task)
        return notified

    def notify(self, n: int = 1) -> None:
        for _ in range(min(n, len(self._waiting))):
            self._scheduler.wake(self._waiting.popleft())

    def notify_all(self) -> None:
        self.notify(len(self._waiting))

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class SimulatedThread:
    """`threading.Thread`."""

    def __init__(
        self,
        scheduler: Scheduler,
        target: Callable[..., Any],
        name: str = "thread",
        args: tuple[Any, ...] = (),
        daemon: bool | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._run = lambda: target(*args)
        self._name = name
        self._task: Task | None = None

    def start(self) -> None:
        self._task = self._scheduler.spawn(self._name, self._run)

    def join(self) -> None:
        assert self._task is not None
        self._scheduler.join(self._task)


class SimulatedFuture(Future[Any]):
    """`concurrent.futures.Future`, waited for on the scheduler."""

    scheduler: Scheduler

    def result(self, timeout: float | None = None) -> Any:
        self._wait()
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait()
        return super().exception(0)

    def _wait(self) -> None:
        while not self.done():
            task = self.scheduler.current
            assert task is not None
            self.add_done_callback(lambda _, task=task: self.scheduler.wake(task))
            self.scheduler.block()


class SimulatedExecutor(Executor):
    """`Workers`: at most ``max_workers`` tasks at a time, begun in order."""

    def __init__(
        self,
        scheduler: Scheduler,
        future: Callable[[], SimulatedFuture],
        max_workers: int | None = None,
        thread_name_prefix: str = "pool",
    ) -> None:
        self._scheduler = scheduler
        self._future = future
        self._name = thread_name_prefix
        self._free = max_workers if max_workers is not None else 8
        self._queue: deque[tuple[SimulatedFuture, Callable[[], Any]]] = deque()
        self._workers: list[Task] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = self._future()
        self._queue.append((future, lambda: fn(*args, **kwargs)))
        if self._scheduler.current is None:
            self._work()  # whoever verifies is no task: nothing of it is interleaved
        elif self._free:
            self._free -= 1
            self._workers = [task for task in self._workers if not task.finished]
            self._workers.append(self._scheduler.spawn(self._name, self._work))
        return future

    def _work(self) -> None:
        while self._queue:
            future, run = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(run())
            except Killed:
                raise
            except BaseException as error:
                future.set_exception(error)
        if self._scheduler.current is not None:
            self._free += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if wait and self._scheduler.current is not None:
            for task in self._workers:
                self._scheduler.join(task)


class _InlineExecutor(Executor):
    """A pool that computes at once, in order."""

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Threading:
    """The names of `threading` that the library uses, the rest as they are."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.Lock = lambda: SimulatedLock(scheduler)
        self.RLock = lambda: SimulatedLock(scheduler, reentrant=True)
        self.Condition = lambda lock=None: SimulatedCondition(scheduler, lock)
        self.Thread = lambda target, **more: SimulatedThread(scheduler, target, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


@contextmanager
def simulated_threads(scheduler: Scheduler) -> Iterator[None]:
    """Within it, what modules of ``vecstore`` make waits on the scheduler."""

    class BoundFuture(SimulatedFuture):
        pass

    BoundFuture.scheduler = scheduler
    swaps: dict[str, tuple[object, object]] = {
        "threading": (threading, _Threading(scheduler)),
        "Future": (Future, BoundFuture),
        "Workers": (Workers, lambda *args, **more: SimulatedExecutor(scheduler, BoundFuture, *args, **more)),
        # A context goes along for who looks at requests, which nobody does here.
        "Pool": (Pool, lambda *args, **more: SimulatedExecutor(scheduler, BoundFuture, *args, **more)),
    }
    undo: list[tuple[Any, str, object]] = []
    for module_name, module in sorted(sys.modules.items()):
        if not module_name.startswith("vecstore."):
            continue
        for name, (real, simulated) in swaps.items():
            if vars(module).get(name) is real:
                computing = name == "Workers" and module_name.startswith(_COMPUTING)
                undo.append((module, name, real))
                setattr(module, name, _InlineExecutor if computing else simulated)
    try:
        yield
    finally:
        for module, name, real in undo:
            setattr(module, name, real)
