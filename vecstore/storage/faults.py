"""Stores that count, fail and interfere: for tests and simulation, over any other store.

Each wrapper adds one thing. Whatever is random comes from a generator that the caller seeds.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, TypeVar, cast

from vecstore.errors import StorageRetryable
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, ObjectStore, Stamp, StoredObject, Watch

_T = TypeVar("_T")

WRITES: Final = frozenset({"put_if_absent", "put_if_match", "put_stream", "delete"})


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a store, numbered from 1 in the order of arrival.

    Attributes
    ----------
    sent
        Bytes of the caller's data; 0 for reads and for streams, which are not known beforehand.
    """

    number: int
    method: str
    key: str
    sent: int = 0


class _Wrapper:
    """Passes every call of the protocol through ``_around``."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self._numbers = 0
        self._lock = threading.Lock()

    def _around(self, call: Call, run: Callable[[], _T]) -> _T:
        raise NotImplementedError

    def _call(self, method: str, key: str, run: Callable[[], _T], sent: int = 0) -> _T:
        with self._lock:
            self._numbers += 1
            call = Call(self._numbers, method, key, sent)
        return self._around(call, run)

    @property
    def url(self) -> str:
        return self.inner.url

    def get(self, key: str) -> StoredObject:
        return self._call("get", key, lambda: self.inner.get(key))

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        return self._call("get_if_changed", key, lambda: self.inner.get_if_changed(key, etag))

    def is_current(self, key: str, etag: str) -> bool:  # noqa: ARG002
        """False, so that a strong read goes through `get_if_changed`, which can be made to fail."""
        return False

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._call("get_range", key, lambda: self.inner.get_range(key, start, length))

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        return self._call("get_ranges", key, lambda: self.inner.get_ranges(key, ranges))

    def head(self, key: str) -> ObjectMeta:
        return self._call("head", key, lambda: self.inner.head(key))

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        return self._call("put_if_absent", key, lambda: self.inner.put_if_absent(key, data), len(data))

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        return self._call("put_if_match", key, lambda: self.inner.put_if_match(key, data, etag), len(data))

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        return self._call("put_stream", key, lambda: self.inner.put_stream(key, chunks))

    def delete(self, key: str) -> None:
        return self._call("delete", key, lambda: self.inner.delete(key))

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        return self._call("list", prefix, lambda: self.inner.list(prefix, after=after, limit=limit))

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        return self._call(
            "list_children", prefix, lambda: self.inner.list_children(prefix, after=after, limit=limit)
        )

    def map(self, key: str) -> memoryview | None:
        return self._call("map", key, lambda: self.inner.map(key))

    def stamp(self, key: str) -> Stamp | None:
        return self.inner.stamp(key)

    def watch(self, stamps: Sequence[tuple[str, Stamp]]) -> Watch | None:
        return self.inner.watch(stamps)

    def now(self) -> float:
        return self._call("now", "", self.inner.now)

    def close(self) -> None:
        self.inner.close()


class CountingStore(_Wrapper):
    """Counts calls and bytes. Thread-safe.

    Attributes
    ----------
    received, sent
        Bytes a method.
    """

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._calls: deque[Call] = deque()
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call since the last `reset`, in order."""
        with self._lock:
            return tuple(self._calls)

    def count(self, method: str | None = None, prefix: str = "") -> int:
        """Calls of ``method`` (None: of any) for keys that start with ``prefix``."""
        return sum(1 for c in self.calls if method in (None, c.method) and c.key.startswith(prefix))

    def reset(self) -> None:
        """Begin again at zero; calls are numbered on."""
        with self._lock:
            self._calls.clear()
            self.received.clear()
            self.sent.clear()

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        def counted() -> Iterator[bytes | memoryview]:
            for chunk in chunks:
                with self._lock:
                    self.sent["put_stream"] += memoryview(chunk).nbytes
                yield chunk

        return super().put_stream(key, counted())

    def _around(self, call: Call, run: Callable[[], _T]) -> _T:
        with self._lock:
            self._calls.append(call)
            self.sent[call.method] += call.sent
        result = run()
        with self._lock:
            self.received[call.method] += _size(result)
        return result


class Fault(Enum):
    """What may go wrong with one call."""

    FAIL_BEFORE = "the request never arrived"
    FAIL_AFTER = "it was carried out and the answer was lost"
    CORRUPT = "one bit of the bytes that came back is flipped"
    TRUNCATE = "the bytes that came back lack their end"


Plan = Callable[[Call], Fault | None]
Hook = Callable[[Call], None]


class FaultyStore(_Wrapper):
    """Fails calls as planned, and lets others act in between.

    Parameters
    ----------
    plan
        Says for each call what goes wrong with it; see `script` and `at_random`.
    before, after
        Called around each call that gets through: other writers' chance. ``after`` also runs when
        the answer is lost. What they do with ``store.inner`` is not interfered with.
    rng
        Chooses bits and lengths.
    """

    def __init__(
        self,
        inner: ObjectStore,
        plan: Plan | None = None,
        *,
        before: Hook | None = None,
        after: Hook | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(inner)
        self.plan = plan
        self.before = before
        self.after = after
        self._rng = rng if rng is not None else random.Random(0)  # noqa: S311  # nosec B311

    def _around(self, call: Call, run: Callable[[], _T]) -> _T:
        fault = self.plan(call) if self.plan is not None else None
        if fault is Fault.FAIL_BEFORE:
            raise StorageRetryable(f"{call}: planned, nothing happened", object=call.key)
        if self.before is not None:
            self.before(call)
        result = run()
        if self.after is not None:
            self.after(call)
        if fault is Fault.FAIL_AFTER:
            raise StorageRetryable(f"{call}: planned, the answer is lost", object=call.key)
        if fault is not None:
            result = cast(_T, self._damaged(result, fault))
        return result

    def _damaged(self, result: Any, fault: Fault) -> Any:
        """``result`` with its bytes damaged; what holds none is returned as it is."""
        if isinstance(result, StoredObject):
            return replace(result, data=self._damaged(result.data, fault))
        if isinstance(result, memoryview):
            return memoryview(self._damaged(bytes(result), fault))
        if isinstance(result, Sequence) and not isinstance(result, bytes | str) and any(map(len, result)):
            damaged = list(result)
            victim = self._rng.choice([i for i, item in enumerate(damaged) if len(item)])
            if not isinstance(damaged[victim], bytes):
                return result
            damaged[victim] = self._damaged(damaged[victim], fault)
            return damaged
        if not isinstance(result, bytes) or not result:
            return result
        if fault is Fault.TRUNCATE:
            return result[: self._rng.randrange(len(result))]
        at = self._rng.randrange(len(result))
        flipped = result[at] ^ (1 << self._rng.randrange(8))
        return result[:at] + bytes([flipped]) + result[at + 1 :]


def script(faults: Iterable[tuple[str, Fault | None]]) -> Plan:
    """The nth entry whose method is that of a call decides about the nth such call; then none fails.

    ``[("put_if_match", Fault.FAIL_AFTER)]`` loses the answer to the first compare-and-set.
    """
    waiting: dict[str, list[Fault | None]] = {}
    for method, fault in faults:
        waiting.setdefault(method, []).append(fault)
    lock = threading.Lock()

    def plan(call: Call) -> Fault | None:
        with lock:
            left = waiting.get(call.method)
            return left.pop(0) if left else None

    return plan


def at_random(rng: random.Random, rates: dict[Fault, float], *, methods: Iterable[str] | None = None) -> Plan:
    """Each fault with its probability, for calls of ``methods`` (None: all but ``map`` and ``now``)."""
    chosen = frozenset(methods) if methods is not None else None
    lock = threading.Lock()

    def plan(call: Call) -> Fault | None:
        if call.method in ("map", "now") if chosen is None else call.method not in chosen:
            return None
        with lock:
            drawn = rng.random()
        for fault, rate in rates.items():
            if drawn < rate:
                return fault
            drawn -= rate
        return None

    return plan


def _size(result: object) -> int:
    if isinstance(result, StoredObject):
        return len(result.data)
    if isinstance(result, bytes):
        return len(result)
    if isinstance(result, list | tuple):
        return sum(len(item) for item in result if isinstance(item, bytes))
    return 0
