"""Verified pages of immutable objects, for stores that cannot map: from memory, from disk, or fetched.

A page is held against its checksum before anybody sees it (promise P5), wherever it comes from; it is
fetched once however many wait for it; and what is missing of one read comes in one dependent trip.
`vecstore.storage.recency` decides what stays in memory, `vecstore.storage.disk` keeps pages for all
processes of a node. Knows nothing of what pages mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from crc32c import crc32c

from vecstore import deadline
from vecstore.errors import DeadlineExceeded, StorageCorrupt, VecstoreError
from vecstore.observe import Observer, SearchWatch
from vecstore.storage.base import ByteRange, ObjectStore
from vecstore.storage.buffers import Bytes, aligned_copy
from vecstore.storage.disk import DiskCache
from vecstore.storage.forks import reset_in_children
from vecstore.storage.ranges import MAX_GAP, MAX_JOINED, join_close, lone_in_two
from vecstore.storage.recency import Held, RecentPages
from vecstore.types import CacheStats

_Key = tuple[str, str, int, int, int]


class Checked(Protocol):
    """A range of an object that can tell whether bytes are what it holds."""

    @property
    def start(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def crc32c(self) -> int:
        """Tells it from other content at its place."""
        ...

    def check(self, key: str, data: Bytes) -> None:
        """`StorageCorrupt` unless ``data``, of the right length, is what the object should hold."""
        ...

    def section_at(self, offset: int) -> str:
        """What errors name for a byte of it."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A range whose checksum is known.

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

    def check(self, key: str, data: Bytes) -> None:
        if crc32c(data.data) != self.crc32c:
            raise _corrupt(key, self.section, self.start, "fails its checksum")

    def section_at(self, offset: int) -> str:  # noqa: ARG002
        return self.section


@dataclass(slots=True)
class ReadTrace:
    """What reads have cost; one caller adds up its own.

    Attributes
    ----------
    requests, bytes
        Sent to the store, and received.
    trips
        Times that something had to be waited for, one after another.
    cache_hits, disk_hits, cache_misses
        Pages found in memory, on disk, in neither; one that another thread was fetching already is a
        miss that cost no request.
    watch
        Of the search that reads; None if nobody watches it.
    """

    requests: int = 0
    bytes: int = 0
    trips: int = 0
    cache_hits: int = 0
    disk_hits: int = 0
    cache_misses: int = 0
    watch: SearchWatch | None = None

    def report(self) -> dict[str, int]:
        """As ``debug`` tells it."""
        return {
            "requests": self.requests,
            "bytes": self.bytes,
            "round_trips": self.trips,
            "cache_hits": self.cache_hits,
            "disk_hits": self.disk_hits,
            "cache_misses": self.cache_misses,
        }


class PageInHand(NamedTuple):
    """A page that was read.

    Attributes
    ----------
    stays
        It is mapped from the disk and was asked for before, so that holding on to it costs nobody
        anything, until `PageCache.refresh` says otherwise.
    """

    data: Bytes
    stays: bool


@dataclass(slots=True)
class _Fetched:
    """What came of one thread's promise to get some pages."""

    good: dict[_Key, Held]
    failure: BaseException | None


class PageCache:
    """Pages of immutable objects. Thread-safe; a forked child starts with an empty one.

    A page that a caller holds stays valid after it is evicted.

    Parameters
    ----------
    max_bytes
        Of this process's memory. A page beyond it is returned but not kept.
    max_gap
        Misses no farther apart than so many bytes are fetched as one.
    max_request
        Bytes that one such request may grow to; a larger page is fetched whole.
    disk
        Where pages are kept that leave memory, or that other processes have fetched. What it holds
        is mapped, so that it takes of ``max_bytes`` only what an entry does.
    observer
        Hears of hits, misses and evictions, and of the bytes held in memory.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        max_gap: int = MAX_GAP,
        max_request: int = MAX_JOINED,
        disk: DiskCache | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._observer = observer if observer is not None else Observer()
        self._max_gap = max_gap
        self._max_request = max_request
        self._disk = disk
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._kept: RecentPages[_Key] = RecentPages(self._max_bytes)
        self._in_flight: dict[_Key, Future[_Fetched]] = {}
        self._stats = CacheStats(max_bytes=self._max_bytes)
        self._generation = 0

    def read(
        self, store: ObjectStore, key: str, pages: Sequence[Checked], trace: ReadTrace | None = None
    ) -> list[Bytes]:
        """The content of ``pages``, read-only u8[length] each, at addresses that are multiples of 64.

        Raises as `read_held` does.
        """
        return [page.data for page in self.read_held(store, key, pages, trace)]

    def read_held(
        self, store: ObjectStore, key: str, pages: Sequence[Checked], trace: ReadTrace | None = None
    ) -> list[PageInHand]:
        """As `read`, with what is known of each page.

        Raises
        ------
        StorageCorrupt
            A page fails its checksum, also when fetched again; ``details`` name ``object``,
            ``section`` and ``offset``.
        """
        trace = trace if trace is not None else ReadTrace()
        keys = _names(store, key, pages)
        found: dict[_Key, PageInHand] = {}
        again: list[_Key] = []
        mine: dict[_Key, Checked] = {}
        awaited: dict[_Key, Future[_Fetched]] = {}
        promise: Future[_Fetched] | None = None
        with self._lock:
            for name, page in zip(keys, pages, strict=True):
                if name in found or name in mine or name in awaited:
                    continue
                touched = self._kept.touch(name)
                if touched is not None:
                    held, second = touched
                    found[name] = PageInHand(held.data, held.segment is not None)
                    if second and held.segment is not None:
                        again.append(name)
                elif name in self._in_flight:
                    awaited[name] = self._in_flight[name]
                else:
                    promise = promise or Future()
                    mine[name] = page
                    self._in_flight[name] = promise
            self._count(hits=len(found), misses=len(mine) + len(awaited))
        trace.cache_hits += len(found)
        trace.cache_misses += len(awaited)
        trace.trips += 1 if awaited else 0
        if again and self._disk is not None:
            self._disk.mark([_disk_name(name) for name in again])
        hits, misses = len(found), len(mine) + len(awaited)
        try:
            # What is ours comes first, so that two threads that wait for each other's pages both go on.
            if promise is not None:
                obtained = self._obtain(store, key, mine, promise, trace, waiting=bool(awaited))
                found.update((name, PageInHand(data, stays=False)) for name, data in obtained.items())
        finally:
            # Not before: whatever comes of it, what was promised to others is kept.
            if hits:
                self._observer.count("cache_hits", hits)
            if misses:
                self._observer.count("cache_misses", misses)
        for name, future in awaited.items():
            data = self._await(store, key, name, pages[keys.index(name)], future)
            found[name] = PageInHand(data, stays=False)
        return [found[name] for name in keys]

    def lacks(self, store: ObjectStore, key: str, pages: Sequence[Checked]) -> int:
        """How many of these pages are neither in memory nor on disk, nor being fetched."""
        keys = _names(store, key, pages)
        with self._lock:
            absent = {name for name in keys if name not in self._kept and name not in self._in_flight}
        if absent and self._disk is not None:
            return self._disk.lacks([_disk_name(name) for name in absent])
        return len(absent)

    @property
    def on_disk(self) -> bool:
        """Whether there is a disk cache, so that pages may stay where they are."""
        return self._disk is not None

    @property
    def room(self) -> int:
        """Bytes of pages that find room for sure, beside what they take beside their content."""
        return int(0.8 * (self._max_bytes if self._disk is None else self._disk.max_bytes))

    def refresh(self) -> int:
        """Let go of pages whose disk space was given to others, or touched by a stranger.

        Returns
        -------
        int
            Rises when there were any: whoever holds on to pages that stay lets go of them too.
        """
        if self._disk is not None and (gone := self._disk.let_go()):
            with self._lock:
                self._kept.forget(gone)
                self._generation += 1
        return self._generation

    def stats(self) -> CacheStats:
        """A consistent copy of the counters."""
        with self._lock:
            found = replace(self._stats, bytes=self._kept.bytes, pages=len(self._kept))
        return found if self._disk is None else replace(found, disk=self._disk.stats())

    def clear(self) -> None:
        """Forget all pages in memory; callers keep theirs."""
        with self._lock:
            self._kept = RecentPages(self._max_bytes)

    def close(self) -> None:
        """Release what the disk cache holds open. Idempotent."""
        if self._disk is not None:
            self._disk.close()

    # -- below: pages that are not in memory ------------------------------------------------

    def _obtain(
        self,
        store: ObjectStore,
        key: str,
        mine: dict[_Key, Checked],
        promise: Future[_Fetched],
        trace: ReadTrace,
        *,
        waiting: bool,
    ) -> dict[_Key, Bytes]:
        """Get what this thread has promised to others, and keep the promise whatever happens."""
        good: dict[_Key, Held] = {}
        failure: BaseException | None = None
        try:
            left = self._from_disk(key, mine, good, trace)
            if left:
                trace.trips += 0 if waiting else 1
                with self._turn(left):
                    if self._disk is not None:  # another process may have fetched them meanwhile
                        left = self._from_disk(key, left, good, trace)
                    trace.cache_misses += len(left)
                    self._fetch(store, key, left, good, trace)
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._lock:
                for name in mine:
                    self._in_flight.pop(name, None)  # none if this process was forked meanwhile
                evicted = sum(self._kept.admit(name, held) for name, held in good.items())
                self._count(evictions=evicted)
                size = self._kept.bytes
            promise.set_result(_Fetched(good, failure))
            self._observer.hold("cache_bytes", size)  # now that nobody waits for us
            if evicted:
                self._observer.count("cache_evictions", evicted)
        return {name: held.data for name, held in good.items()}

    def _fetch(
        self,
        store: ObjectStore,
        key: str,
        wanted: dict[_Key, Checked],
        good: dict[_Key, Held],
        trace: ReadTrace,
    ) -> None:
        """Fetch pages into ``good`` and onto the disk; a page that is bad is fetched once again."""
        fetched: dict[_Key, Held] = {}
        try:
            bad = self._fetch_once(store, key, wanted, fetched, trace)
            if bad:
                # A fault of the transfer passes, damage stays.
                trace.trips += 1
                again = {name: wanted[name] for name in bad}
                bad = self._fetch_once(store, key, again, fetched, trace)
            if bad:
                raise bad[min(bad, key=lambda name: wanted[name].start)]
        finally:
            good.update(fetched)
            good.update(self._to_disk(key, wanted, fetched))

    def _fetch_once(
        self,
        store: ObjectStore,
        key: str,
        wanted: dict[_Key, Checked],
        good: dict[_Key, Held],
        trace: ReadTrace,
    ) -> dict[_Key, StorageCorrupt]:
        """Fetch pages into ``good``; returns what is wrong with the others."""
        if not wanted:
            return {}
        ranges = self._coalesce(wanted.values())
        pieces = lone_in_two(ranges)
        try:
            bodies = store.get_ranges(key, pieces)
        except StorageCorrupt as error:
            size = error.details.get("size", 0)
            cut = [page for page in wanted.values() if page.start + page.length > size]
            first = min(cut or wanted.values(), key=lambda page: page.start)
            raise _cut_off(key, first, size) from error
        requests, received = sum(1 for one in pieces if one.length), sum(len(body) for body in bodies)
        if len(pieces) > len(ranges):
            bodies = [b"".join(bodies)]
        trace.requests += requests
        trace.bytes += received
        with self._lock:
            self._count(requests=requests, fetched=received)
        bad: dict[_Key, StorageCorrupt] = {}
        at = 0
        for name, page in sorted(wanted.items(), key=lambda item: _order(item[1])):
            while page.start < ranges[at].start or page.start + page.length > ranges[at].stop:
                at += 1
            begin = page.start - ranges[at].start
            # The copy is checked, not what it was made from: it is what everybody will see.
            data = aligned_copy(memoryview(bodies[at])[begin : begin + page.length])
            try:
                if len(data) != page.length:
                    raise _cut_off(key, page, page.start + len(data))
                page.check(key, data)
            except StorageCorrupt as error:
                bad[name] = error
            else:
                good[name] = Held(data, None)
        return bad

    def _coalesce(self, pages: Iterable[Checked]) -> list[ByteRange]:
        """Ranges that cover ``pages``, in order of their starts; each page lies within one."""
        wanted = (ByteRange(page.start, page.length) for page in pages)
        return join_close(wanted, max_gap=self._max_gap, max_joined=self._max_request)

    def _await(
        self, store: ObjectStore, key: str, name: _Key, page: Checked, promise: Future[_Fetched]
    ) -> Bytes:
        """A page that another thread fetches; its failure is ours too, its interruption is not."""
        deadline.wait_for(promise)
        fetched = promise.result()
        if name in fetched.good:
            return fetched.good[name].data
        error = fetched.failure
        if isinstance(error, VecstoreError) and not isinstance(error, DeadlineExceeded):
            # One exception object must not be raised in two threads at once.
            raise type(error)(error.message, **error.details) from error
        return self.read(store, key, [page])[0]

    # -- below: the disk ---------------------------------------------------------------------

    def _from_disk(
        self, key: str, wanted: dict[_Key, Checked], good: dict[_Key, Held], trace: ReadTrace
    ) -> dict[_Key, Checked]:
        """Take what the disk has into ``good``; returns the rest. Damaged pages are dropped there."""
        if self._disk is None:
            return wanted
        names = {_disk_name(name): name for name in wanted}
        damaged = []
        for disk_name, mapped in self._disk.get(list(names)).items():
            name = names[disk_name]
            if _holds(wanted[name], key, mapped.data):
                good[name] = Held(mapped.data, mapped.segment)
            else:
                damaged.append(disk_name)
        if damaged:
            self._disk.drop(damaged)
        left = {name: page for name, page in wanted.items() if name not in good}
        trace.disk_hits += len(wanted) - len(left)
        return left

    def _to_disk(self, key: str, pages: dict[_Key, Checked], fetched: dict[_Key, Held]) -> dict[_Key, Held]:
        """Write what was fetched; those that can be read back from there, in place of our own copies."""
        if self._disk is None or not fetched:
            return {}
        names = {_disk_name(name): name for name in fetched}
        written = self._disk.put({disk: fetched[name].data for disk, name in names.items()})
        return {
            names[disk]: Held(mapped.data, mapped.segment)
            for disk, mapped in written.items()
            if _holds(pages[names[disk]], key, mapped.data)
        }

    def _turn(self, wanted: dict[_Key, Checked]) -> contextlib.AbstractContextManager[None]:
        """Processes that miss the same pages fetch one after another, so that only one does."""
        if self._disk is None:
            return contextlib.nullcontext()
        return self._disk.turn(_disk_name(min(wanted, key=lambda name: wanted[name].start)))

    # -- below: with the lock held -----------------------------------------------------------

    def _count(self, **more: int) -> None:
        self._stats = replace(
            self._stats, **{name: getattr(self._stats, name) + by for name, by in more.items()}
        )


def _names(store: ObjectStore, key: str, pages: Sequence[Checked]) -> list[_Key]:
    url = store.url
    return [(url, key, page.start, page.length, page.crc32c) for page in pages]


def _order(page: Checked) -> tuple[int, int]:
    return page.start, -page.length


def _disk_name(name: _Key) -> bytes:
    return hashlib.blake2b(repr(name).encode(), digest_size=16).digest()


def _holds(page: Checked, key: str, data: Bytes) -> bool:
    if len(data) != page.length:
        return False
    try:
        page.check(key, data)
    except StorageCorrupt:
        return False
    return True


def _cut_off(key: str, page: Checked, size: int) -> StorageCorrupt:
    """The error of an object of ``size`` bytes that ends before a page does."""
    return _corrupt(key, page.section_at(max(page.start, size)), page.start, "is cut off")


def _corrupt(key: str, section: str, offset: int, why: str) -> StorageCorrupt:
    details: dict[str, Any] = {"object": key, "section": section, "offset": offset}
    return StorageCorrupt(f"{key}: section {section!r} {why}", **details)
