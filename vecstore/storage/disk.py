"""Pages of immutable objects on a local disk, shared by all processes of a node.

Carries out docs/decisions/0013. Pages lie in *segments*, files that every process maps, so that a page
is in memory once for all of them; an SQLite index says where. Nothing here vouches for a page: whoever
gets one holds it against its checksum first. So a process that is killed at any instant, a torn write
or a damaged index can cost a request, never a wrong answer; and a disk that fails is a cache that
misses.

Bytes of a segment are written once and the file is never cut, so a page in hand stays what it was,
also after its segment was evicted. Knows nothing of stores.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from vecstore.errors import InvalidArgument
from vecstore.ext.files import Watch
from vecstore.observe import Counted, Observer
from vecstore.storage.base import Stamp
from vecstore.storage.buffers import Bytes
from vecstore.storage.forks import reset_in_children
from vecstore.storage.mapping import map_file
from vecstore.storage.segments import SegmentWriter, in_chunks
from vecstore.types import DiskStats

log = logging.getLogger(__name__)

T = TypeVar("T")

LEAST_BYTES: Final = 1 << 20
_BUSY_SECONDS: Final = 2.0  # that a lookup or a write waits for another process's
_PAUSE_SECONDS: Final = 1.0  # without the disk after it failed
_TURN_SECONDS: Final = 5.0  # that a fetch waits for another process's fetch of the same
_TURN_PAUSE: Final = 0.002
_TURNS: Final = 1_024

_TAKEN: Final = "SELECT coalesce(sum(size), 0) FROM segments"
_TOLD: Final[Mapping[str, Counted]] = {
    "hits": "disk_cache_hits",
    "written": "disk_cache_written",
    "evictions": "disk_cache_evictions",
    "damaged": "disk_cache_damaged",
    "failures": "disk_cache_failures",
}

# Of SQLite: the file is no index, or not whole. Anything else passes: busy, disk full, no permission.
_BROKEN: Final = frozenset(
    (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_SCHEMA,
    )
)
# What a damaged row leads to that SQLite still reads: it may hold anything in any column.
_WRONG_VALUES: Final = (TypeError, ValueError, OverflowError)


class MappedPage(NamedTuple):
    """A page as it lies in a segment, at an address that is a multiple of 64.

    Attributes
    ----------
    data
        Read-only u8[length]; keeps the mapping alive.
    segment
        To be forgotten when `DiskCache.let_go` names it.
    """

    data: Bytes
    segment: int


class _Segment(NamedTuple):
    """A mapped file."""

    path: str
    data: Bytes
    stamp: Stamp


class DiskCache:
    """Pages by 16-byte names. Thread-safe, process-safe; a forked child opens it anew.

    Parameters
    ----------
    folder
        On a local filesystem, for this cache alone; made if it is not there.
    max_bytes
        Of the disk; at least `LEAST_BYTES`. A page beyond a 32nd of it is not kept.
    observer
        Hears of what `DiskStats` counts of this process.

    Raises
    ------
    InvalidArgument
        The folder cannot be made or written to.
    """

    def __init__(
        self, folder: str | os.PathLike[str], max_bytes: int, *, observer: Observer | None = None
    ) -> None:
        self._observer = observer if observer is not None else Observer()
        self.folder = os.path.abspath(os.fspath(folder))
        self._max_bytes = max(max_bytes, LEAST_BYTES)
        self._index = os.path.join(self.folder, "index.db")
        self._files = os.path.join(self.folder, "segments")
        self._stats = DiskStats(max_bytes=self._max_bytes)
        try:
            os.makedirs(self._files, mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise InvalidArgument(
                f"cache_dir {self.folder} cannot be written to: {error.strerror}", field="cache_dir"
            ) from error
        self._rests_until = float("-inf")
        self._inherited: list[object] = []
        self._database: sqlite3.Connection | None = None
        self.reset_after_fork()
        reset_in_children(self)

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    def reset_after_fork(self) -> None:
        # A parent's connection must be neither used nor closed in its child.
        self._inherited.append(self._database)
        self._lock = threading.RLock()
        self._database = None
        self._database_file: tuple[int, int] | None = None
        self._segments: dict[int, _Segment] = {}
        self._watch: Watch | None = None
        self._gone: set[int] = set()

    # -- pages -----------------------------------------------------------------------------

    def get(self, names: Sequence[bytes]) -> dict[bytes, MappedPage]:
        """Those of ``names`` that are here, to be held against their checksums; notes their use."""
        found: dict[bytes, MappedPage] = {}
        unused: list[bytes] = []
        lost: dict[bytes, int] = {}

        def look_up(db: sqlite3.Connection) -> None:
            for name, segment, start, length, used in _select(db, names):
                page = self._page(db, segment, start, length)
                if page is None:
                    lost[name] = segment
                    continue
                found[name] = page
                if not used:
                    unused.append(name)

        def note(writer: SegmentWriter) -> None:
            writer.forget(set(lost.values()))
            writer.drop(list(lost))  # where it is the row that is wrong, its segment has no such page
            writer.mark(unused)

        with self._lock:
            self._check_maps()
            self._attempt(look_up, None)
            if lost or unused:
                self._write(note, None)
            self._count(hits=len(found))
        return found

    def lacks(self, names: Sequence[bytes]) -> int:
        """How many of ``names`` are not here."""
        with self._lock:
            return len(names) - self._attempt(lambda db: sum(1 for _ in _select(db, names)), 0)

    def put(self, pages: Mapping[bytes, Bytes]) -> dict[bytes, MappedPage]:
        """Write pages that were verified; where those lie that were not here before."""

        def write(writer: SegmentWriter) -> dict[bytes, tuple[int, int, int]]:
            db = self._connection()
            known = {name for name, *_ in _select(db, list(pages))}
            places = {name: writer.add(name, data) for name, data in pages.items() if name not in known}
            self._count(evictions=writer.evicted)
            self._observer.hold("disk_cache_bytes", db.execute(_TAKEN).fetchone()[0])
            return {name: place for name, place in places.items() if place is not None}

        def find(db: sqlite3.Connection) -> dict[bytes, MappedPage]:
            pages = {name: self._page(db, *place) for name, place in places.items()}
            return {name: page for name, page in pages.items() if page is not None}

        with self._lock:
            self._check_maps()
            places: dict[bytes, tuple[int, int, int]] = self._write(write, {})
            found: dict[bytes, MappedPage] = self._attempt(find, {})
            self._count(written=len(found))
        return found

    def mark(self, names: Sequence[bytes]) -> None:
        """Note that pages were asked for again, by somebody who has them in hand."""

        def unused(db: sqlite3.Connection) -> list[bytes]:
            return [name for name, _, _, _, used in _select(db, names) if not used]

        with self._lock:
            marked: list[bytes] = self._attempt(unused, [])
            if marked:
                self._write(lambda writer: writer.mark(marked), None)

    def drop(self, names: Sequence[bytes]) -> None:
        """Forget pages that failed their checksum."""
        with self._lock:
            self._count(damaged=len(names))
            self._write(lambda writer: writer.drop(names), None)

    @contextlib.contextmanager
    def turn(self, name: bytes) -> Iterator[None]:
        """Keeps the processes of the node from fetching the same at once.

        Only politeness: whoever waits too long, or cannot lock, goes ahead.
        """
        folder = os.path.join(self.folder, "turns")
        path = os.path.join(folder, f"{int.from_bytes(name[:2]) % _TURNS:03x}")
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                os.makedirs(folder, mode=0o700, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, descriptor)
                deadline = time.monotonic() + _TURN_SECONDS
                # No lock has a time limit; the kernel frees that of a process which is killed.
                while not _locked(descriptor) and time.monotonic() < deadline:
                    time.sleep(_TURN_PAUSE)
            yield

    # -- what changes under those who have pages in hand ------------------------------------

    def let_go(self) -> set[int]:
        """Segments that were evicted since the last call, or written to by a stranger.

        What is held of them is to be forgotten, so that their space is freed, and what was verified
        is verified again. Costs one ``stat`` a segment.
        """
        watch = self._watch
        if watch is not None and not self._gone and not watch.changed():
            return set()  # without the lock, which a write may hold for a while
        with self._lock:
            self._check_maps()
            gone, self._gone = self._gone, set()
            return gone

    def stats(self) -> DiskStats:
        """Counters of this process beside what the node's cache holds."""

        def count(db: sqlite3.Connection) -> tuple[int, int, int]:
            query = "SELECT count(*), coalesce(sum(size), 0), (SELECT count(*) FROM pages) FROM segments"
            found: tuple[int, int, int] = db.execute(query).fetchone()
            return found

        with self._lock:
            segments, size, pages = self._attempt(count, (0, 0, 0))
            return replace(self._stats, segments=segments, bytes=size, pages=pages)

    def close(self) -> None:
        """Close the index. What others hold of segments stays valid."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    # -- below: the index, with the lock held -----------------------------------------------

    def _write(self, work: Callable[[SegmentWriter], T], otherwise: T) -> T:
        """``work`` in a transaction of its own; ``otherwise`` as in `_attempt`."""

        def within(db: sqlite3.Connection) -> T:
            with SegmentWriter(db, self._files, self._max_bytes).transaction() as writer:
                return work(writer)

        return self._attempt(within, otherwise)

    def _attempt(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """``work``, or ``otherwise`` where disk or index fail; a broken index is started over."""
        if time.monotonic() < self._rests_until:
            return otherwise
        try:
            try:
                return work(self._connection())
            except (sqlite3.Error, *_WRONG_VALUES) as error:
                code: int | None = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
                if (code or 0) & 0xFF not in _BROKEN:
                    raise
                self._count(failures=1)
                log.warning("the index of the disk cache in %s is started over: %r", self.folder, error)
                self._start_over()
                return work(self._connection())
        except (sqlite3.Error, OSError) as error:
            self._rests_until = time.monotonic() + _PAUSE_SECONDS
            self._count(failures=1)
            log.warning(
                "the disk cache in %s failed, and rests for %g s: %s", self.folder, _PAUSE_SECONDS, error
            )
        return otherwise

    def _connection(self) -> sqlite3.Connection:
        """The index; opened anew if another process has started it over."""
        if self._database is not None:
            if _file_of(self._index) == self._database_file:
                return self._database
            self._database.close()
            self._database = None
        os.makedirs(self._files, mode=0o700, exist_ok=True)
        db = sqlite3.connect(
            self._index, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            # No write-ahead log: its index is mapped memory, and a file that is cut off under a map
            # ends the process. No syncing: what a power failure leaves behind fails its checksum.
            db.execute("PRAGMA journal_mode = TRUNCATE")
            db.execute("PRAGMA synchronous = OFF")
            with SegmentWriter(db, self._files, self._max_bytes).transaction() as writer:
                writer.prepare()
        except BaseException:
            db.close()
            raise
        self._database, self._database_file = db, _file_of(self._index)
        return db

    def _start_over(self) -> None:
        """Throw away the index; its segments are swept when it is opened anew.

        Another process may use the old one until it sees that the file is another: it finds its
        segments gone, and new ones have names that nobody used before.
        """
        if self._database is not None:
            self._database.close()
            self._database = None
        for suffix in ("", "-journal"):
            with contextlib.suppress(OSError):
                os.unlink(self._index + suffix)

    # -- below: maps, with the lock held ----------------------------------------------------

    def _page(self, db: sqlite3.Connection, segment: int, start: int, length: int) -> MappedPage | None:
        """None if its file is gone or shorter than the index believes."""
        mapped = self._segments.get(segment) or self._map(db, segment)
        if mapped is None or start < 0 or length < 0 or start + length > len(mapped.data):
            return None
        return MappedPage(mapped.data[start : start + length], segment)

    def _map(self, db: sqlite3.Connection, segment: int) -> _Segment | None:
        row = db.execute("SELECT file FROM segments WHERE id = ?", (segment,)).fetchone()
        if row is None:
            return None
        path = os.path.join(self._files, os.path.basename(row[0]))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            stamp = _stamp(os.fstat(descriptor))
            data = np.frombuffer(map_file(descriptor), dtype=np.uint8)
        finally:
            os.close(descriptor)
        self._segments[segment] = _Segment(path, data, stamp)
        self._watch = None
        return self._segments[segment]

    def _check_maps(self) -> None:
        """Unmap segments that are gone, and those that somebody wrote to who is none of us.

        Our own writes leave the time of change as it was, so a time that changed is a stranger's.
        """
        if self._watch is not None and not self._watch.changed():
            return
        # The folder first: what goes while the rest is looked at changes it again.
        files = [(os.fsencode(self._files), _stamp_of(self._files))]
        for number, segment in list(self._segments.items()):
            if _stamp_of(segment.path) == segment.stamp:
                files.append((os.fsencode(segment.path), segment.stamp))
            else:
                del self._segments[number]
                self._gone.add(number)
        self._watch = Watch(files)

    def _count(self, **more: int) -> None:
        self._stats = replace(
            self._stats, **{name: getattr(self._stats, name) + by for name, by in more.items()}
        )
        for name, by in more.items():
            if by:
                self._observer.count(_TOLD[name], by)


def _select(db: sqlite3.Connection, names: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    wanted = set(names)
    query = "SELECT name, segment, start, length, used FROM pages WHERE name IN ({})"
    # A damaged index finds rows that nobody asked for.
    return (row for row in in_chunks(db, query, names) if row[0] in wanted)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _stamp_of(path: str) -> Stamp:
    """As it was noted; one that no file has if it is gone."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return 0, 0, 0


def _file_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
