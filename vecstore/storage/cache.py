"""A bounded cache of verified pages of immutable objects, shared by all namespaces of a process.

For stores that cannot map. A page is held against its CRC32C before anybody sees it (promise P5),
is fetched once however many wait for it, and what is missing of one read comes in one dependent
trip. Imports the store protocol and errors; knows nothing of what pages mean.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from crc32c import crc32c

from vecstore.errors import StorageCorrupt, VecstoreError
from vecstore.storage.base import ByteRange, ObjectStore
from vecstore.storage.buffers import Bytes, aligned_copy
from vecstore.storage.forks import reset_in_children
from vecstore.storage.ranges import MAX_GAP, MAX_JOINED, join_close

_PAGE_OVERHEAD: Final = 512  # bytes of memory that a cached page takes beside its content
_PROTECTED_SHARE: Final = 0.8  # of the cache that pages used more than once may take
_PROTECTED_AGE: Final = 4  # times the cache's size admitted since a page was last used

_Key = tuple[str, str, int, int, int]


@dataclass(frozen=True, slots=True)
class Page:
    """A checksummed range of an object.

    Attributes
    ----------
    section
        What errors name.
    start, length
        Bytes of the object.
    """

    section: str
    start: int
    length: int
    crc32c: int

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(slots=True)
class ReadTrace:
    """What reads have cost; one caller adds up its own.

    Attributes
    ----------
    requests, bytes
        Sent to the store, and received.
    trips
        Times that something had to be waited for, one after another.
    cache_hits, cache_misses
        Pages; one that another thread was fetching already is a miss that cost no request.
    """

    requests: int = 0
    bytes: int = 0
    trips: int = 0
    cache_hits: int = 0
    cache_misses: int = 0

    def report(self) -> dict[str, int]:
        """As ``debug`` tells it."""
        return {
            "requests": self.requests,
            "bytes": self.bytes,
            "round_trips": self.trips,
            "cache_hits": self.cache_hits,
            "cache_misses": self.cache_misses,
        }


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Of a cache since it was made.

    Attributes
    ----------
    bytes
        Held now, with what a page takes beside its content.
    pages
        Held now.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes: int = 0
    pages: int = 0


class PageCache:
    """Pages of immutable objects. Thread-safe; a forked child starts with an empty one.

    Pages used once compete among themselves only (a segmented LRU), so that a scan does not drive
    out those in use; those no longer in use age, so that another working set finds room. A page
    that a caller holds stays valid after it is evicted.

    Parameters
    ----------
    max_bytes
        Of memory. A page beyond it is returned but not kept.
    max_gap
        Misses no farther apart than so many bytes are fetched as one.
    max_request
        Bytes that one such request may grow to; a larger page is fetched whole.
    """

    def __init__(self, max_bytes: int, *, max_gap: int = MAX_GAP, max_request: int = MAX_JOINED) -> None:
        self._max_bytes = max_bytes
        self._max_gap = max_gap
        self._max_request = max_request
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._once: OrderedDict[_Key, Bytes] = OrderedDict()
        self._again: OrderedDict[_Key, tuple[Bytes, int]] = OrderedDict()  # with `_admitted` at its use
        self._again_bytes = 0
        self._admitted = 0  # bytes so far: the clock by which pages age
        self._in_flight: dict[_Key, Future[Bytes]] = {}
        self._stats = CacheStats()

    def read(
        self, store: ObjectStore, key: str, pages: Sequence[Page], trace: ReadTrace | None = None
    ) -> list[Bytes]:
        """The content of ``pages``, read-only u8[length] each, at addresses that are multiples of 64.

        Raises
        ------
        StorageCorrupt
            A page fails its checksum, also when fetched again; ``details`` name ``object``,
            ``section`` and ``offset``.
        """
        trace = trace if trace is not None else ReadTrace()
        keys = [(store.url, key, page.start, page.length, page.crc32c) for page in pages]
        found: dict[_Key, Bytes] = {}
        mine: dict[_Key, Page] = {}
        awaited: dict[_Key, Future[Bytes]] = {}
        with self._lock:
            for name, page in zip(keys, pages, strict=True):
                if name in found or name in mine or name in awaited:
                    continue
                cached = self._touch(name)
                if cached is not None:
                    found[name] = cached
                elif name in self._in_flight:
                    awaited[name] = self._in_flight[name]
                else:
                    mine[name] = page
                    self._in_flight[name] = Future()
            misses = len(mine) + len(awaited)
            self._count(hits=len(found), misses=misses)
        trace.cache_hits += len(found)
        trace.cache_misses += misses
        trace.trips += 1 if misses else 0
        # What is ours comes first, so that two threads that wait for each other's pages both go on.
        if mine:
            found.update(self._fetch(store, key, mine, trace))
        for name, future in awaited.items():
            found[name] = self._await(store, key, pages[keys.index(name)], future)
        return [found[name] for name in keys]

    def stats(self) -> CacheStats:
        """A consistent copy of the counters."""
        with self._lock:
            return self._stats

    def clear(self) -> None:
        """Forget all pages; callers keep theirs."""
        with self._lock:
            self._once.clear()
            self._again.clear()
            self._again_bytes = 0
            self._stats = replace(self._stats, bytes=0, pages=0)

    # -- below: fetching -------------------------------------------------------------------

    def _fetch(
        self, store: ObjectStore, key: str, mine: dict[_Key, Page], trace: ReadTrace
    ) -> dict[_Key, Bytes]:
        """Fetch what this thread has promised to others, and keep the promise whatever happens."""
        good: dict[_Key, Bytes] = {}
        failure: BaseException | None = None
        try:
            bad = self._fetch_once(store, key, mine, good, trace)
            if bad:
                # A fault of the transfer passes, damage stays.
                trace.trips += 1
                bad = self._fetch_once(store, key, bad, good, trace)
            if bad:
                page = min(bad.values(), key=lambda page: page.start)
                raise _corrupt(key, page, "fails its checksum")
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._lock:
                futures = {name: self._in_flight.pop(name, None) for name in mine}
                for name, data in good.items():
                    self._admit(name, data)
            for name, future in futures.items():
                if future is None:
                    continue  # this process was forked meanwhile
                if name in good:
                    future.set_result(good[name])
                else:
                    future.set_exception(failure or AssertionError("a page was neither good nor bad"))
        return good

    def _fetch_once(
        self,
        store: ObjectStore,
        key: str,
        wanted: dict[_Key, Page],
        good: dict[_Key, Bytes],
        trace: ReadTrace,
    ) -> dict[_Key, Page]:
        """Fetch pages into ``good``; returns those that failed their checksum."""
        ranges = self._coalesce(wanted.values())
        try:
            bodies = store.get_ranges(key, ranges)
        except StorageCorrupt as error:
            size = error.details.get("size", 0)
            cut = [page for page in wanted.values() if page.stop > size]
            raise _corrupt(
                key, min(cut or wanted.values(), key=lambda page: page.start), "is cut off"
            ) from error
        trace.requests += sum(1 for r in ranges if r.length)
        trace.bytes += sum(len(body) for body in bodies)
        bad: dict[_Key, Page] = {}
        at = 0
        for name, page in sorted(wanted.items(), key=lambda item: _order(item[1])):
            while page.start < ranges[at].start or page.stop > ranges[at].stop:
                at += 1
            begin = page.start - ranges[at].start
            data = aligned_copy(memoryview(bodies[at])[begin : begin + page.length])
            # The copy is checked, not what it was made from: it is what everybody will see.
            if len(data) == page.length and crc32c(data.data) == page.crc32c:
                good[name] = data
            else:
                bad[name] = page
        return bad

    def _coalesce(self, pages: Iterable[Page]) -> list[ByteRange]:
        """Ranges that cover ``pages``, in order of their starts; each page lies within one."""
        wanted = (ByteRange(page.start, page.length) for page in pages)
        return join_close(wanted, max_gap=self._max_gap, max_joined=self._max_request)

    def _await(self, store: ObjectStore, key: str, page: Page, future: Future[Bytes]) -> Bytes:
        """A page that another thread fetches; its failure is ours too, its interruption is not."""
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, VecstoreError):
            # One exception object must not be raised in two threads at once.
            raise type(error)(error.message, **error.details) from error
        return self.read(store, key, [page])[0]

    # -- below: with the lock held ---------------------------------------------------------

    def _touch(self, name: _Key) -> Bytes | None:
        protected = self._again.get(name)
        if protected is not None:
            self._again[name] = (protected[0], self._admitted)
            self._again.move_to_end(name)
            return protected[0]
        data = self._once.pop(name, None)
        if data is None:
            return None
        self._again[name] = (data, self._admitted)
        self._again_bytes += _charge(data)
        while self._again_bytes > self._max_bytes * _PROTECTED_SHARE and len(self._again) > 1:
            self._demote()
        return data

    def _demote(self) -> None:
        name, (data, _) = self._again.popitem(last=False)
        self._again_bytes -= _charge(data)
        self._once[name] = data

    def _admit(self, name: _Key, data: Bytes) -> None:
        charge = _charge(data)
        if charge > self._max_bytes or name in self._once or name in self._again:
            return
        self._count(bytes=charge, pages=1)
        self._admitted += charge
        while self._stats.bytes > self._max_bytes:
            oldest = next(iter(self._again.values()), None)
            if oldest is not None and (
                not self._once or self._admitted - oldest[1] > _PROTECTED_AGE * self._max_bytes
            ):
                self._demote()
            _, old = self._once.popitem(last=False)
            self._count(bytes=-_charge(old), pages=-1, evictions=1)
        self._once[name] = data

    def _count(
        self, *, hits: int = 0, misses: int = 0, evictions: int = 0, bytes: int = 0, pages: int = 0
    ) -> None:
        now = self._stats
        self._stats = CacheStats(
            now.hits + hits,
            now.misses + misses,
            now.evictions + evictions,
            now.bytes + bytes,
            now.pages + pages,
        )


def _order(page: Page) -> tuple[int, int]:
    return page.start, -page.length


def _charge(data: Bytes) -> int:
    return int(data.nbytes) + _PAGE_OVERHEAD


def _corrupt(key: str, page: Page, why: str) -> StorageCorrupt:
    return StorageCorrupt(
        f"{key}: section {page.section!r} {why}", object=key, section=page.section, offset=page.start
    )
