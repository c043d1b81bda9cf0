"""A store behind a network that fails, and processes that die and stall at any call of it.

Each node has a `Link`: the `ObjectStore` that the library of that node is given. A call is one step:
it travels, is carried out at one instant, and its answer travels back; meanwhile others act. The
weather decides what goes wrong: nothing of it depends on what the library does with the answer.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.ledger import PromiseBroken
from tests.simulation.scheduler import Killed, Process, Scheduler
from vecstore.errors import StorageRetryable
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, ObjectStore, Stamp, StoredObject

WRITES = frozenset({"put_if_absent", "put_if_match", "put_stream", "delete"})


@dataclass(frozen=True)
class Climate:
    """Chances, each for one call."""

    refuse: float = 0.008  # it never arrives: 503, 429, a reset
    lose: float = 0.012  # it is carried out and the answer is lost
    delay: float = 0.008  # a write that lands long after the client gave up
    crash: float = 0.002  # the process dies
    pause: float = 0.003  # the process stands still, for as long as `Weather.pause` says
    hang: float = 0.004  # the answer takes long; the rest of the process goes on
    late_list: float = 0.3  # a listing that does not show what is young, or still shows what is gone
    swap: float = 0.0  # a read that brings another object's bytes


CALM = Climate(0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Act:
    """What a directed schedule does to one call: the next of that method to such a key, of any process."""

    method: str
    key: str  # how it ends
    travel: float = 0.02  # seconds until it is carried out
    back: float = 0.0  # and until it is answered
    lose: bool = False  # whether the answer is lost


class Weather:
    """What goes wrong, and when; one generator for all of it.

    Parameters
    ----------
    scale
        Seconds that collection waits (its grace): what is long is measured by it.
    """

    def __init__(self, scheduler: Scheduler, rng: Random, climate: Climate, *, scale: float) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self.climate = climate
        self._scale = scale
        self.storm_until = 0.0

    def draw(self, chance: float) -> bool:
        """Storms multiply every chance."""
        factor = 12.0 if self._scheduler.now < self.storm_until else 1.0
        return self._rng.random() < chance * factor

    def travel(self) -> float:
        return self._rng.expovariate(1 / 0.02)

    def long(self) -> float:
        """Seconds that something takes which takes long: from a few to several times the grace."""
        return self._rng.choice((1.0, 0.1 * self._scale, 1.2 * self._scale, 4.0 * self._scale)) * (
            0.5 + self._rng.random()
        )

    def turn(self) -> None:
        """At times a storm comes up."""
        if self._rng.random() < 0.2:
            self.storm_until = self._scheduler.now + self._rng.uniform(0.1, 2.0)

    def choose(self, options: Sequence[Any]) -> Any:
        return self._rng.choice(options)

    def fraction(self) -> float:
        return self._rng.random()


class Network:
    """The one store, and the way to it.

    Attributes
    ----------
    inner
        What is really stored; verification reads it without a fault.
    steps
        Calls so far that were scheduled.
    landed
        Called after each write that took effect, with method and key.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        inner: ObjectStore,
        weather: Weather,
        landed: Callable[[str, str], None],
        crash: Callable[[Process], None],
    ) -> None:
        self.scheduler = scheduler
        self.inner = inner
        self.weather = weather
        self.steps = 0
        self.trace: deque[str] = deque(maxlen=60)
        self.faults: dict[str, int] = {}
        self.calm = False  # true once the run is to come to rest: no more faults
        self.script: list[Act] = []
        self._landed = landed
        self._crash = crash
        self._digest = hashlib.blake2b(digest_size=8)
        self._gone: deque[ObjectMeta] = deque(maxlen=8)

    @property
    def digest(self) -> str:
        """Of everything that happened so far: equal for equal seeds."""
        return self._digest.hexdigest()

    def note(self, who: str, what: str) -> None:
        """One line of the trace."""
        line = f"{self.scheduler.now:.3f} {who} {what}"
        self.trace.append(f"{self.steps:6d} {line}")
        self._digest.update(line.encode())

    def call(self, process: Process, method: str, key: str, run: Callable[[], Any]) -> Any:
        """One request of one process, from the moment it is made to that of its answer."""
        weather, scheduler = self.weather, self.scheduler
        climate = weather.climate if not self.calm else CALM
        who = process.name
        write = method in WRITES
        act = self._next_act(method, key)
        travel = weather.travel() if act is None else act.travel
        if weather.draw(climate.pause):
            self._count("pause")
            process.stalled_until = scheduler.now + weather.long()
            self.note(who, f"stalls until {process.stalled_until:.3f}")
        if write:
            # Whoever is killed meanwhile may have sent it.
            task = scheduler.current
            assert task is not None
            task.asked = lambda: self._carry_out(who, method, key, run)
        scheduler.sleep(travel)
        if write:
            task.asked = None
        self.steps += 1
        if weather.draw(climate.crash):
            self._count("crash")
            if write and weather.draw(0.5):
                self._carry_out(who, method, key, run)
            self._crash(process)
            raise Killed
        if weather.draw(climate.refuse):
            answer = weather.choose(("503", "429", "reset"))
            self._count(f"refused: {answer}")
            self.note(who, f"{method} {key}: {answer}")
            raise StorageRetryable(f"{method} {key}: {answer}", object=key)
        if write and weather.draw(climate.delay):
            self._count("late write")
            seconds = weather.long()
            self.note(who, f"{method} {key}: time-out, lands in {seconds:.1f} s")
            scheduler.at(scheduler.now + seconds, lambda: self._carry_out("late", method, key, run))
            scheduler.sleep(weather.travel() + min(seconds, 5.0) * weather.fraction())
            raise StorageRetryable(f"{method} {key}: time-out", object=key)
        lost = weather.draw(climate.lose) or (act is not None and act.lose)
        result, error = self._carry_out(who, method, key, run)
        if method == "list" and error is None and weather.draw(climate.late_list):
            result = self._late_list(result, key)
        if method in ("get", "get_if_changed", "get_range") and error is None and weather.draw(climate.swap):
            result = self._swapped(method, key, result)
        if act is not None:
            scheduler.sleep(act.back)
        if lost:
            self._count("lost answer")
            self.note(who, f"{method} {key}: answer lost")
            raise StorageRetryable(f"{method} {key}: connection reset", object=key)
        if act is None and weather.draw(climate.hang):
            self._count("hang")
            scheduler.sleep(weather.long())
        elif act is None and weather.fraction() < 0.4:
            scheduler.sleep(weather.travel())
        if error is not None:
            raise error
        return result

    def lose_connections(self, process: Process) -> None:
        """Requests that were under way when their process died: half of them were sent."""
        for task in process.tasks:
            if task.asked is not None and self.weather.fraction() < 0.5:
                self.scheduler.at(self.scheduler.now + self.weather.travel(), task.asked)

    def _next_act(self, method: str, key: str) -> Act | None:
        """The first of the script that is left, if this is the call that it waits for."""
        if self.script and self.script[0].method == method and key.endswith(self.script[0].key):
            return self.script.pop(0)
        return None

    def _carry_out(
        self, who: str, method: str, key: str, run: Callable[[], Any]
    ) -> tuple[Any, Exception | None]:
        result, error = None, None
        before = self._meta(key) if method == "delete" else None
        try:
            result = run()
        except Exception as refused:
            error = refused
        self.note(who, f"{method} {key}: {'done' if error is None else type(error).__name__}")
        if error is None and method in WRITES:
            if before is not None:
                self._gone.append(before)
            try:
                self._landed(method, key)
            except PromiseBroken as broken:
                # Not to be raised into the library, which would take it for a failure of the store.
                self.scheduler.fail(broken)
        return result, error

    def _meta(self, key: str) -> ObjectMeta | None:
        try:
            return self.inner.head(key)
        except Exception:
            return None

    def _late_list(self, page: ListPage, prefix: str) -> ListPage:
        """Shows the store as it was some seconds ago; the protocol relies on no listing."""
        self._count("late list")
        since = self.scheduler.now - 5.0 * self.weather.fraction()
        known = {meta.key for meta in page.objects}
        objects = [meta for meta in page.objects if meta.modified <= since]
        objects += [m for m in self._gone if m.key.startswith(prefix) and m.key not in known]
        return ListPage(tuple(sorted(objects, key=lambda meta: meta.key)), page.next)

    def _swapped(self, method: str, key: str, result: Any) -> Any:
        """The bytes of another object of the same kind, as a proxy that mixes up answers would give them."""
        kind = key.rpartition("/")[2][-4:]
        others = [
            meta.key
            for meta in self.inner.list("namespaces/", limit=10_000).objects
            if meta.key != key and meta.key.endswith(kind) and "/_control/" not in meta.key
        ]
        if not others:
            return result
        other = self.inner.get(self.weather.choose(others))
        self.note("network", f"{key} answered with {other.meta.key}")
        self._count("swapped answer")
        if method == "get_range":
            return other.data[: len(result)] if isinstance(result, bytes) else result
        return other

    def _count(self, fault: str) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1


class Link:
    """The store as one process sees it. Objects cannot be mapped, as on S3."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._inner = network.inner

    @property
    def url(self) -> str:
        return self._network.inner.url

    def _call(self, method: str, key: str, run: Callable[[], Any]) -> Any:
        if not self._process.alive:
            raise Killed
        return self._network.call(self._process, method, key, run)

    def get(self, key: str) -> StoredObject:
        return self._call("get", key, lambda: self._inner.get(key))

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        return self._call("get_if_changed", key, lambda: self._inner.get_if_changed(key, etag))

    def is_current(self, key: str, etag: str) -> bool:
        return False

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._call("get_range", key, lambda: self._inner.get_range(key, start, length))

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        return self._call("get_ranges", key, lambda: self._inner.get_ranges(key, ranges))

    def head(self, key: str) -> ObjectMeta:
        return self._call("head", key, lambda: self._inner.head(key))

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        return self._call("put_if_absent", key, lambda: self._inner.put_if_absent(key, data))

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        return self._call("put_if_match", key, lambda: self._inner.put_if_match(key, data, etag))

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        data = b"".join(chunks)
        return self._call("put_stream", key, lambda: self._inner.put_stream(key, (data,)))

    def delete(self, key: str) -> None:
        self._call("delete", key, lambda: self._inner.delete(key))

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        return self._call("list", prefix, lambda: self._inner.list(prefix, after=after, limit=limit))

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        return self._call(
            "list_children", prefix, lambda: self._inner.list_children(prefix, after=after, limit=limit)
        )

    def map(self, key: str) -> memoryview | None:
        return None

    def stamp(self, key: str) -> Stamp | None:
        return None

    def watch(self, stamps: Sequence[tuple[str, Stamp]]) -> None:
        return None

    def now(self) -> float:
        """Not a step: a store's clock is told by answers that came anyway."""
        return self._inner.now()

    def close(self) -> None: ...
