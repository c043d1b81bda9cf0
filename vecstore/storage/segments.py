"""What the disk cache writes: pages at the end of segments, and which segments make room for them.

The policy is S3-FIFO (Yang et al., *FIFO queues are all you need for cache eviction*, SOSP 2023) over
segments: a page waits in a short queue, and only one that was asked for again while it was there, or
soon after it left, gets into the long one, where a use saves it once a lap. See docs/decisions/0013.

Everything happens within one transaction of the index. Files are made before the index names them and
removed before it forgets them, so a kill leaves a file too many, which the next writer sweeps, or a
name too many, which reads as a miss.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from vecstore.storage.buffers import ALIGNMENT, Bytes

SCHEMA: Final = 1
SEGMENTS: Final = 32  # that a cache is divided into; the unit of eviction
_NEW_SHARE: Final = 0.1  # of the segments, for pages that were asked for once
_MOST_MOVED: Final = 4  # segments that evictions may move for one page, so that no write moves all
_INDEX_BYTES: Final = 2 * ALIGNMENT  # of the index that a page takes, counted with it
_CHUNK: Final = 500  # names in one statement
_NEW, _MAIN = 0, 1

_TABLES: Final = {
    "segments": """
        id INTEGER PRIMARY KEY, file TEXT NOT NULL, queue INTEGER NOT NULL,
        size INTEGER NOT NULL, filled INTEGER NOT NULL""",
    "pages": """
        name BLOB PRIMARY KEY, segment INTEGER NOT NULL, start INTEGER NOT NULL,
        length INTEGER NOT NULL, used INTEGER NOT NULL""",
    "ghosts": "number INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB UNIQUE",
}


class SegmentWriter:
    """One write transaction; the only way in which the index or a segment changes.

    Parameters
    ----------
    db
        The index, in autocommit mode.
    folder
        Of the segments.
    max_bytes
        That they take.
    """

    def __init__(self, db: sqlite3.Connection, folder: str, max_bytes: int) -> None:
        self._db = db
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = max_bytes // SEGMENTS // 4096 * 4096
        self._open: dict[str, int] = {}
        self._may_move = 0
        self.evicted = 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SegmentWriter]:
        """All of it is in the index when this ends, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        else:
            self._db.execute("COMMIT")
        finally:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def prepare(self) -> None:
        """Empty tables in place of those of another schema; no more than the bound; no file too many."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA:
            for name, columns in _TABLES.items():
                self._db.execute(f"DROP TABLE IF EXISTS {name}")
                self._db.execute(f"CREATE TABLE {name} ({columns})")
            self._db.execute("CREATE INDEX pages_of_segment ON pages (segment)")
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        self._make_room(0)
        self._sweep()

    def add(self, name: bytes, data: Bytes) -> tuple[int, int, int] | None:
        """Segment, start and length of a page that was not here; None if it is too large to keep."""
        ghost = self._db.execute("SELECT 1 FROM ghosts WHERE name = ?", (name,)).fetchone()
        self._may_move = _MOST_MOVED * self._segment_bytes
        return self._append(_NEW if ghost is None else _MAIN, name, data.data)

    def mark(self, names: Sequence[bytes]) -> None:
        """Note that pages were asked for again."""
        in_chunks(self._db, "UPDATE pages SET used = 1 WHERE name IN ({})", names)

    def drop(self, names: Sequence[bytes]) -> None:
        """Forget pages; their bytes stay until their segment goes."""
        in_chunks(self._db, "DELETE FROM pages WHERE name IN ({})", names)

    def forget(self, segments: Iterable[int]) -> None:
        """Remove segments with all their pages."""
        for segment in segments:
            row = self._db.execute("SELECT file FROM segments WHERE id = ?", (segment,)).fetchone()
            if row is not None:
                self._unlink(row[0])
            self._db.execute("DELETE FROM pages WHERE segment = ?", (segment,))
            self._db.execute("DELETE FROM segments WHERE id = ?", (segment,))

    # -- below: appending ------------------------------------------------------------------

    def _append(self, queue: int, name: bytes, data: memoryview) -> tuple[int, int, int] | None:
        length = data.nbytes
        charge = -(-length // ALIGNMENT) * ALIGNMENT + _INDEX_BYTES
        if charge > self._segment_bytes:
            return None
        for _ in range(2):
            segment, file, start = self._place(queue, charge)
            if self._write(file, start, data):
                break
            # Something lies there already: a process was killed before it said so, or the index is
            # wrong. Pages in hand must never change, so the segment takes no more.
            self._db.execute("UPDATE segments SET filled = size WHERE id = ?", (segment,))
        else:
            # The second one was made for us, unless the index finds no row that it has just changed.
            raise ValueError("the index of the disk cache names no segment that can be written to")
        self._db.execute("UPDATE segments SET filled = ? WHERE id = ?", (start + charge, segment))
        self._db.execute(
            "INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?, 0)", (name, segment, start, length)
        )
        self._db.execute("DELETE FROM ghosts WHERE name = ?", (name,))
        return segment, start, length

    def _place(self, queue: int, charge: int) -> tuple[int, str, int]:
        """The newest segment of a queue, or another where that is full: id, file, and where to write."""
        found = self._newest(queue)
        if found is None or found[2] + charge > found[3]:
            self._make_room(self._segment_bytes)
            found = self._newest(queue)  # what survived may have opened another of this queue
        if found is None or found[2] + charge > found[3]:
            file = self._create()
            # Ascending, and none that an index had which was thrown away: processes remember them.
            (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM segments").fetchone()
            segment = max(last + 1, time.time_ns())
            self._db.execute(
                "INSERT INTO segments VALUES (?, ?, ?, ?, 0)", (segment, file, queue, self._segment_bytes)
            )
            return segment, file, 0
        return found[:3]

    def _newest(self, queue: int) -> tuple[int, str, int, int] | None:
        found: tuple[int, str, int, int] | None = self._db.execute(
            "SELECT id, file, filled, size FROM segments WHERE queue = ? ORDER BY id DESC LIMIT 1", (queue,)
        ).fetchone()
        return found

    def _create(self) -> str:
        self._sweep()
        file = secrets.token_hex(8)  # a name that nobody used, whatever became of the index
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = self._open[file] = os.open(self._path(file), flags, 0o600)
        os.ftruncate(descriptor, self._segment_bytes)
        os.utime(descriptor, ns=(0, 0))
        return file

    def _write(self, file: str, start: int, data: memoryview) -> bool:
        """False if the place was written to before, or the file is not what it should be."""
        descriptor = self._descriptor(file)
        if descriptor is None:
            return False
        before = os.fstat(descriptor)
        if start < 0 or start + data.nbytes > before.st_size:
            return False
        if os.pread(descriptor, data.nbytes, start) != bytes(data.nbytes):
            return False
        done = 0
        while done < data.nbytes:
            done += os.pwrite(descriptor, data[done:], start + done)
        # A time of change that is another is a stranger's: see `DiskCache.let_go`.
        os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))
        return True

    # -- below: making room ----------------------------------------------------------------

    def _make_room(self, size: int) -> None:
        """Evict until a segment of ``size`` fits."""
        while True:
            rows = self._db.execute("SELECT id, queue, size FROM segments ORDER BY id").fetchall()
            if not rows or sum(row[2] for row in rows) + size <= self._max_bytes:
                return
            new = [row for row in rows if row[1] == _NEW]
            main = [row for row in rows if row[1] == _MAIN]
            many_new = len(new) > max(1, int(len(rows) * _NEW_SHARE))
            segment, queue, _ = (new if many_new or not main else main)[0]
            self._evict(segment, queue)

    def _evict(self, segment: int, queue: int) -> None:
        """Remove a segment; what was asked for again moves to the end of the long queue."""
        rows = self._db.execute(
            "SELECT name, start, length, used FROM pages WHERE segment = ?", (segment,)
        ).fetchall()
        kept = list(self._survivors(segment, [row[:3] for row in rows if row[3]]))
        if queue == _NEW:
            gone = [(name,) for name, _, _, used in rows if not used]
            self._db.executemany("INSERT OR IGNORE INTO ghosts (name) VALUES (?)", gone)
            # As many as there are pages.
            self._db.execute(
                "DELETE FROM ghosts WHERE number <= "
                "(SELECT max(number) FROM ghosts) - (SELECT count(*) FROM pages)"
            )
        self.forget([segment])
        self.evicted += len(rows) - len(kept)
        for name, data in kept:
            self._append(_MAIN, name, memoryview(data))

    def _survivors(
        self, segment: int, used: Sequence[tuple[bytes, int, int]]
    ) -> Iterator[tuple[bytes, bytes]]:
        (file,) = self._db.execute("SELECT file FROM segments WHERE id = ?", (segment,)).fetchone()
        descriptor = self._descriptor(file)
        if descriptor is None:
            return
        for name, start, length in used:
            self._may_move -= length
            if self._may_move >= 0 and start >= 0:
                yield name, os.pread(descriptor, length, start)

    # -- below: files ----------------------------------------------------------------------

    def _path(self, file: str) -> str:
        return os.path.join(self._folder, os.path.basename(file))

    def _descriptor(self, file: str) -> int | None:
        descriptor = self._open.get(file)
        if descriptor is None:
            try:
                descriptor = os.open(self._path(file), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            self._open[file] = descriptor
        return descriptor

    def _sweep(self) -> None:
        """Remove files that the index does not name: a process was killed between the two."""
        named = {file for (file,) in self._db.execute("SELECT file FROM segments")}
        for file in os.listdir(self._folder):
            if file not in named:
                self._unlink(file)

    def _unlink(self, file: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(file))


def in_chunks(db: sqlite3.Connection, statement: str, names: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Rows of a statement over many names, whose place in it is ``{}``."""
    found: list[tuple[bytes, ...]] = []
    for start in range(0, len(names), _CHUNK):
        some = names[start : start + _CHUNK]
        found += db.execute(statement.format(",".join("?" * len(some))), some)
    return iter(found)
