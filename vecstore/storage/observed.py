"""A store that tells of each request, for stores that have no wire: `S3Store` tells of its own.

What costs no request (`is_current`, `map`, `stamp`, `watch`, `now`) goes to the store itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from vecstore.observe import Observer, StoreKind
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, ObjectStore, Stamp, StoredObject, Watch

T = TypeVar("T")


class ObservedStore:
    """The store ``inner``, and ``observer`` hears of what it is asked."""

    is_current: Callable[[str, str], bool]
    map: Callable[[str], memoryview | None]
    stamp: Callable[[str], Stamp | None]
    watch: Callable[[Sequence[tuple[str, Stamp]]], Watch | None]
    now: Callable[[], float]
    close: Callable[[], None]

    def __init__(self, inner: ObjectStore, observer: Observer) -> None:
        self.inner = inner
        self.url = inner.url
        self._observer = observer
        self.is_current, self.map, self.stamp = inner.is_current, inner.map, inner.stamp
        self.watch, self.now, self.close = inner.watch, inner.now, inner.close

    def get(self, key: str) -> StoredObject:
        return self._told("get", key, lambda: self.inner.get(key), received=lambda found: len(found.data))

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        def size(found: StoredObject | None) -> int:
            return 0 if found is None else len(found.data)

        return self._told("get", key, lambda: self.inner.get_if_changed(key, etag), received=size)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._told("get", key, lambda: self.inner.get_range(key, start, length), received=len)

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        def size(found: Sequence[bytes]) -> int:
            return sum(map(len, found))

        return self._told("get", key, lambda: self.inner.get_ranges(key, ranges), received=size)

    def head(self, key: str) -> ObjectMeta:
        return self._told("head", key, lambda: self.inner.head(key))

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        return self._told("put", key, lambda: self.inner.put_if_absent(key, data), sent=lambda: len(data))

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        def put() -> ObjectMeta:
            return self.inner.put_if_match(key, data, etag)

        return self._told("put", key, put, sent=lambda: len(data))

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        size = 0

        def counted() -> Iterator[bytes | memoryview]:
            nonlocal size
            for chunk in chunks:
                size += memoryview(chunk).nbytes
                yield chunk

        return self._told("put", key, lambda: self.inner.put_stream(key, counted()), sent=lambda: size)

    def delete(self, key: str) -> None:
        self._told("delete", key, lambda: self.inner.delete(key))

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        return self._told("list", prefix, lambda: self.inner.list(prefix, after=after, limit=limit))

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        return self._told("list", prefix, lambda: self.inner.list_children(prefix, after=after, limit=limit))

    def _told(
        self,
        kind: StoreKind,
        key: str,
        ask: Callable[[], T],
        *,
        sent: Callable[[], int] = lambda: 0,
        received: Callable[[T], int] = lambda _: 0,
    ) -> T:
        request = self._observer.request(kind, key)
        if request is None:
            return ask()
        try:
            found = ask()
        except BaseException as error:
            request.done(sent=sent(), error=error)
            raise
        request.done(sent=sent(), received=received(found))
        return found
