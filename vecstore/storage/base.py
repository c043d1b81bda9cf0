"""What vecstore asks of an object store. Storage knows nothing of vectors.

Keys are ``/``-separated relative paths of ``[A-Za-z0-9._-]`` segments, made by us, never by
users. Every method raises only the kinds of :mod:`vecstore.errors`: `StorageRetryable`,
`StorageConflict`, `StorageCorrupt`, `StorageMissing`, `StorageFull`, `Unauthorised`.

One contract suite, ``tests/storage/contract.py``, runs over every implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

# Store clocks are read to the second and on several machines: two that differ by less may be the same.
CLOCK_MARGIN: Final = 2.0


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``start … start + length - 1`` of an object; ``length`` may be 0."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """One object as the store describes it.

    Attributes
    ----------
    etag
        Changes whenever the content does; opaque. Never derived from a time or a size (R17).
        Empty in a listing where the store would have to read each object to know it.
    modified
        Seconds since the Unix epoch by the *store's* clock.
    """

    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A whole object and its description, read in one request."""

    data: bytes
    meta: ObjectMeta


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a listing in key order; ``next`` continues it, None ends it."""

    objects: tuple[ObjectMeta, ...]
    next: str | None


Stamp = tuple[int, int, int]


class Watch(Protocol):
    """Objects whose stamps were noted."""

    def changed(self) -> Sequence[int]:
        """Numbers of those whose bytes somebody touched since; ones that are gone are left out."""
        ...


class ObjectStore(Protocol):
    """An object store. Thread-safe; a handle that cannot survive ``fork`` reopens itself."""

    @property
    def url(self) -> str:
        """How messages and logs name this store; free of secrets."""
        ...

    def get(self, key: str) -> StoredObject:
        """Read a whole object. `StorageMissing` if there is none."""
        ...

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        """None if the object still has ``etag`` (a 304), else as `get`."""
        ...

    def is_current(self, key: str, etag: str) -> bool:
        """Whether an object is known to have ``etag`` still, at the cost of no request.

        False says nothing: `get_if_changed` tells.
        """
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes; `StorageCorrupt` if the object ends before them."""
        ...

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        """Several ranges of one object, concurrently where that pays; one result a range."""
        ...

    def head(self, key: str) -> ObjectMeta:
        """Describe an object. `StorageMissing` if there is none."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        """Create; `StorageConflict` if the key exists, whatever its content."""
        ...

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        """Replace atomically; `StorageConflict` if the object is absent or has another etag."""
        ...

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        """Create from chunks, atomically and only if absent, holding little of it in memory.

        ``chunks`` is consumed once. An exception from it leaves nothing visible under ``key``.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove; no error if absent."""
        ...

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        """Objects whose key starts with ``prefix``, in key order, from the first key > ``after``.

        What others keep there under names that can be no keys is not told of, so that a page may be short.
        """
        ...

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        """Names of the next path segment under ``prefix`` (ends in ``/``), sorted, each > ``after``.

        Only segments that have objects below them, and may be part of a key: folders, not objects of
        ``prefix`` itself.
        """
        ...

    def map(self, key: str) -> memoryview | None:
        """A read-only view of the whole object that shares memory with other processes.

        None where the store cannot map (S3): the caller then reads ranges. Only for objects
        that are never replaced. The view keeps the mapping alive, also after a `delete`.
        """
        ...

    def stamp(self, key: str) -> Stamp | None:
        """What changes when somebody touches a mapped object's bytes behind the store's back.

        Costs no request. None where the store cannot tell, or the object is gone (a mapping of it
        then still holds what it held).
        """
        ...

    def watch(self, stamps: Sequence[tuple[str, Stamp]]) -> Watch | None:
        """Keys and stamps that `stamp` gave, to be asked together which of them have changed.

        None where the store cannot tell.
        """
        ...

    def now(self) -> float:
        """The store's clock, seconds since the Unix epoch; never this process's guess of it."""
        ...

    def close(self) -> None:
        """Release connections and descriptors. Idempotent."""
        ...
