"""A store in memory with a clock of its own and a hook before and after every request, and changes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pyroaring import BitMap

from vecstore.errors import StorageConflict, StorageCorrupt, StorageMissing, StorageRetryable
from vecstore.invariants import check_namespace
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.keys import part_key
from vecstore.manifest.lifecycle import create_namespace
from vecstore.manifest.model import Part, Section
from vecstore.manifest.publish import Publisher
from vecstore.manifest.snapshot import SnapshotSource
from vecstore.manifest.uid import new_uid
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, StoredObject

NS = "docs"


@dataclass
class Call:
    """One request: what is asked, and how to carry it out."""

    op: str
    key: str
    carry_out: Callable[[], Any]


class ScriptedStore:
    """An object store whose ``script`` may fail, hold, or lose the answer of any request.

    ``script`` takes a `Call` and returns what the caller gets: usually ``call.carry_out()``.
    """

    url = "scripted:"

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.time = now
        self.tick = 0.0  # seconds that pass with each write
        self.objects: dict[str, tuple[bytes, ObjectMeta]] = {}
        self.calls: list[tuple[str, str]] = []
        self.script: Callable[[Call], Any] | None = None
        self._mutex = threading.RLock()

    def _do(self, op: str, key: str, carry_out: Callable[[], Any]) -> Any:
        def locked() -> Any:
            with self._mutex:
                return carry_out()

        with self._mutex:
            self.calls.append((op, key))
        return self.script(Call(op, key, locked)) if self.script is not None else locked()

    def count(self, op: str, part: str = "") -> int:
        return sum(o == op and part in key for o, key in self.calls)

    def _found(self, key: str) -> tuple[bytes, ObjectMeta]:
        try:
            return self.objects[key]
        except KeyError:
            raise StorageMissing(f"no {key}", object=key) from None

    def _set(self, key: str, data: bytes) -> ObjectMeta:
        self.time += self.tick
        meta = ObjectMeta(key, len(data), hashlib.sha256(data).hexdigest(), self.time)
        self.objects[key] = (bytes(data), meta)
        return meta

    def get(self, key: str) -> StoredObject:
        return self._do("get", key, lambda: StoredObject(*self._found(key)))

    def is_current(self, key: str, etag: str) -> bool:
        """Nothing is known without a request, as of S3."""
        return False

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        def carry_out() -> StoredObject | None:
            data, meta = self._found(key)
            return None if meta.etag == etag else StoredObject(data, meta)

        return self._do("get_if_changed", key, carry_out)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        def carry_out() -> bytes:
            data = self._found(key)[0][start : start + length]
            if len(data) != length:
                raise StorageCorrupt(f"{key} is short", object=key, section="range")
            return data

        return self._do("get_range", key, carry_out)

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        return [self.get_range(key, r.start, r.length) for r in ranges]

    def head(self, key: str) -> ObjectMeta:
        return self._do("head", key, lambda: self._found(key)[1])

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        def carry_out() -> ObjectMeta:
            if key in self.objects:
                raise StorageConflict(f"{key} exists")
            return self._set(key, data)

        return self._do("put_if_absent", key, carry_out)

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        def carry_out() -> ObjectMeta:
            if key not in self.objects or self.objects[key][1].etag != etag:
                raise StorageConflict(f"{key} has another etag")
            return self._set(key, data)

        return self._do("put_if_match", key, carry_out)

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        return self.put_if_absent(key, b"".join(chunks))

    def delete(self, key: str) -> None:
        self._do("delete", key, lambda: self.objects.pop(key, None))

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        def carry_out() -> ListPage:
            keys = sorted(k for k in self.objects if k.startswith(prefix) and (after is None or k > after))
            page = tuple(self.objects[k][1] for k in keys[:limit])
            return ListPage(page, page[-1].key if len(keys) > limit else None)

        return self._do("list", prefix, carry_out)

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        names = {k[len(prefix) :].split("/")[0] for k in self.objects if k.startswith(prefix)}
        return tuple(sorted(name for name in names if after is None or name > after)[:limit])

    def map(self, key: str) -> memoryview | None:
        return None

    def now(self) -> float:
        return self.time

    def close(self) -> None: ...


class Time:
    """Monotonic seconds that pass only when somebody sleeps; a hook may act during the sleep."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.during_sleep: Callable[[], None] | None = None

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 0.001)
        if self.during_sleep is not None:
            self.during_sleep()


def make_publisher(
    store: Any, seed: int = 1, *, time: Time | None = None, namespace: str = NS, **more: Any
) -> Publisher:
    clock = time if time is not None else Time()
    return Publisher(
        store,
        namespace,
        SnapshotSource(store, namespace, clock=clock),
        clock=clock,
        rng=Random(seed),
        sleep=clock.sleep,
        **more,
    )


def make_namespace(store: Any, seed: int = 1, **more: Any) -> Publisher:
    """A fresh namespace and a publisher that knows of it."""
    publisher = make_publisher(store, seed, **more)
    create_namespace(
        store, publisher.namespace, dim=4, metric="l2", publisher=publisher, rng=Random(seed + 1000)
    )
    return publisher


def upload(publisher: Publisher, n: int = 10, data: bytes = b"part") -> Part:
    """Put a stand-in for a part and describe it."""
    began = publisher.store.now()
    part_id = new_uid(publisher.store.now, publisher.rng)
    publisher.store.put_if_absent(part_key(publisher.namespace, part_id), data)
    return Part(
        id=part_id,
        owner=publisher.namespace,
        n=n,
        k=1,
        bytes=len(data),
        began=began,
        sections={"lists": Section(64, 32)},
        checksums_crc32c=0,
    )


@dataclass(kw_only=True, eq=False)
class AddPart(Change):
    """Add one uploaded part; kill rows of others."""

    part: Part | None = None
    kills: dict[str, list[int]] = field(default_factory=dict)
    removes: list[str] = field(default_factory=list)
    before: Callable[[Draft], None] | None = None
    reupload: Callable[[], Part] | None = None
    attempts: int = 0

    def apply(self, draft: Draft) -> dict[str, Any]:
        self.attempts += 1
        if self.before is not None:
            self.before(draft)
        draft.remove_parts(self.removes)
        killed = sum(draft.kill(part_id, BitMap(rows)) for part_id, rows in self.kills.items())
        if self.part is not None:
            draft.add_part(self.part)
        return {"killed": killed}

    def oldest_upload(self) -> float | None:
        return None if self.part is None else self.part.began

    def upload_again(self) -> None:
        assert self.reupload is not None
        self.part = self.reupload()


def change(publisher: Publisher, **fields: Any) -> AddPart:
    return AddPart(commit_id=publisher.new_commit_id(), **fields)


def insert(publisher: Publisher, n: int = 10, **fields: Any) -> AddPart:
    return change(publisher, part=upload(publisher, n), **fields)


@contextmanager
def scripted(store: ScriptedStore, script: Callable[[Call], Any]) -> Iterator[None]:
    store.script = script
    try:
        yield
    finally:
        store.script = None


def timed_out(call: Call) -> StorageRetryable:
    return StorageRetryable(f"{call.op} {call.key} timed out")


def in_thread(job: Callable[[], Any], into: list[Any] | None = None) -> threading.Thread:
    """Start a job; its result, or the exception that it raised, goes ``into`` a list."""

    def run() -> None:
        try:
            result = job()
        except Exception as error:
            result = error
        if into is not None:
            into.append(result)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def until_queued(publisher: Publisher, requests: int) -> None:
    """Return once so many requests wait for the one that is being published."""
    while True:
        with publisher._mutex:
            if len(publisher._queue) == requests:
                return


class Gate:
    """Holds the first switch until the block ends, so that others queue behind it."""

    def __init__(self, store: ScriptedStore) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        self._store = store

    def _script(self, call: Call) -> Any:
        if call.op == "put_if_match" and not self.reached.is_set():
            self.reached.set()
            assert self._open.wait(30)
        return call.carry_out()

    def __enter__(self) -> Gate:
        self._store.script = self._script
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self._store.script = None


def run_all(*jobs: Callable[[], Any]) -> list[Any]:
    """Run jobs on a thread each; the result or the exception of each."""
    results: list[Any] = [None] * len(jobs)

    def run(i: int) -> None:
        try:
            results[i] = jobs[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a job hangs"
    return results


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


def holds(store: Any) -> None:
    """What is stored breaks no invariant."""
    assert check_namespace(store, NS) == []
