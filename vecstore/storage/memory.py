"""A store in this process's memory: for tests, simulation and trying things out. Durable is nothing."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vecstore.errors import StorageConflict
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, Stamp, StoredObject
from vecstore.storage.buffers import Bytes, aligned_copy
from vecstore.storage.checks import check_key, check_limit, check_prefix, check_ranges, cut_off, missing
from vecstore.storage.forks import reset_in_children


@dataclass(slots=True)
class _Object:
    data: bytes
    meta: ObjectMeta
    mapped: Bytes | None = field(default=None)


class MemoryStore:
    """Objects in a dictionary. Thread-safe; a forked child has a copy of its own from then on.

    Parameters
    ----------
    name
        What ``url`` says; made up if None.
    clock
        The store's clock, seconds since the Unix epoch.
    """

    def __init__(self, name: str | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._name = name if name is not None else f"private-{uuid.uuid4().hex}"
        self._clock = clock
        self._objects: dict[str, _Object] = {}
        self._lock = threading.Lock()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    def get(self, key: str) -> StoredObject:
        found = self._find(key)
        return StoredObject(found.data, found.meta)

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        found = self._find(key)
        return None if found.meta.etag == etag else StoredObject(found.data, found.meta)

    def is_current(self, key: str, etag: str) -> bool:  # noqa: ARG002
        """False: only `get_if_changed` tells, so that whoever counts or fails reads sees it."""
        return False

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get_ranges(key, (ByteRange(start, length),))[0]

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        check_ranges(ranges)
        if all(wanted.length == 0 for wanted in ranges):
            return [b""] * len(ranges)
        data = self._find(key).data
        out = []
        for wanted in ranges:
            if wanted.length and wanted.stop > len(data):
                raise cut_off(key, wanted, len(data))
            out.append(data[wanted.start : wanted.stop])
        return out

    def head(self, key: str) -> ObjectMeta:
        return self._find(key).meta

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        check_key(key)
        made = self._make(key, data)
        with self._lock:
            if key in self._objects:
                raise StorageConflict(f"object {key!r} exists already", object=key)
            self._objects[key] = made
        return made.meta

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        check_key(key)
        made = self._make(key, data)
        with self._lock:
            found = self._objects.get(key)
            if found is None or found.meta.etag != etag:
                raise StorageConflict(f"object {key!r} is not the one that was read", object=key)
            self._objects[key] = made
        return made.meta

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        check_key(key)
        return self.put_if_absent(key, b"".join(chunks))

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        check_prefix(prefix)
        check_limit(limit)
        with self._lock:
            metas = [found.meta for key, found in self._objects.items() if key.startswith(prefix)]
        metas = sorted((m for m in metas if after is None or m.key > after), key=lambda m: m.key)
        page = tuple(metas[:limit])
        return ListPage(page, page[-1].key if len(metas) > limit else None)

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        check_prefix(prefix, folder=True)
        check_limit(limit)
        with self._lock:
            rests = [key[len(prefix) :] for key in self._objects if key.startswith(prefix)]
        names = {rest.partition("/")[0] for rest in rests if "/" in rest}
        return tuple(sorted(name for name in names if after is None or name > after)[:limit])

    def map(self, key: str) -> memoryview | None:
        """A view of an aligned copy, made once: kernels may rely on the alignment of a real mapping."""
        found = self._find(key)
        if found.mapped is None:
            found.mapped = aligned_copy(found.data)
        return found.mapped.data

    def stamp(self, key: str) -> Stamp | None:
        """None: what is mapped is a copy that nobody else can reach."""
        check_key(key)
        return None

    def watch(self, stamps: Sequence[tuple[str, Stamp]]) -> None:
        """None: what is mapped is a copy that nobody else can reach."""

    def now(self) -> float:
        return self._clock()

    def close(self) -> None:
        """Nothing to release: a store reached by name outlives its handles."""

    def _find(self, key: str) -> _Object:
        check_key(key)
        found = self._objects.get(key)
        if found is None:
            raise missing(key)
        return found

    def _make(self, key: str, data: bytes) -> _Object:
        copy = bytes(data)
        etag = hashlib.blake2b(copy, digest_size=16).hexdigest()
        return _Object(copy, ObjectMeta(key, len(copy), etag, self._clock()))


class _Registry:
    """The stores that ``memory://name`` reaches; they live as long as the process."""

    def __init__(self) -> None:
        self._stores: dict[str, MemoryStore] = {}

    def get(self, name: str) -> MemoryStore:
        # setdefault is atomic, so two threads that open a name get the same store.
        return self._stores.setdefault(name, MemoryStore(name))


_registry = _Registry()


def named_store(name: str) -> MemoryStore:
    """The one store of that name in this process; made at first use."""
    return _registry.get(name)
