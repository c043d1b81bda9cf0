"""A store in a folder of a local filesystem, safe between the processes of one machine.

Carries out protocol R17. An object is a file; it appears by ``link`` and changes by ``rename``,
both atomic, so that a kill at any instant leaves the old object or the new one. What is being
written lies in ``.tmp/``, which no listing shows. Readers write nothing: a folder that is mounted
read-only can be searched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
import uuid
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NoReturn

from vecstore.errors import (
    InvalidArgument,
    StorageConflict,
    StorageError,
    StorageFull,
    StorageRetryable,
    Unauthorised,
)
from vecstore.ext.files import Watch, is_same
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, Stamp, StoredObject
from vecstore.storage.checks import (
    can_be_key,
    check_key,
    check_limit,
    check_prefix,
    check_ranges,
    cut_off,
    missing,
)
from vecstore.storage.forks import reset_in_children
from vecstore.storage.mapping import map_file

_TMP: Final = ".tmp"
_STALE_SECONDS: Final = 3600.0
_LOCK_FILES: Final = 256  # shared by all keys; a lock is held for one write and never with another
_READ_BYTES: Final = 1 << 20
_WRITE_BYTES: Final = 2 << 20  # of a huge page
_MAX_FOLDERS: Final = 10_000  # known to be durable
_MAX_HELD: Final = 128  # descriptors of objects that are asked again and again whether they changed
_MAX_WATCHED: Final = 256  # descriptors of objects that are watched; the others are asked by their paths


class LocalStore:
    """Objects under ``root``. Thread-safe, process-safe, and usable after ``fork``.

    Nothing is created before the first write. Inherited descriptors keep working in a child: they
    pin inodes, nothing is read through them, and a lock is a descriptor opened for one write.

    Parameters
    ----------
    root
        The folder; one filesystem that knows hard links and ``flock``.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.path.abspath(os.fspath(root))
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.Lock()
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._durable_folders: set[str] = set()
        self._swept = False
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    # -- reading ---------------------------------------------------------------------------

    def get(self, key: str) -> StoredObject:
        with self._reading(key) as descriptor:
            return _read(key, descriptor)

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        """As the protocol says; costs one ``stat`` while nothing changes.

        The file that was read is held open, so its inode cannot be given to another file, and every
        change is a rename: the same inode at the path is the same content (R17).
        """
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
        # ``held`` keeps its descriptor open for as long as this frame refers to it.
        if held is not None and held.etag == etag and held.is_there():
            return None
        return self._read_and_hold(key, etag)

    def is_current(self, key: str, etag: str) -> bool:
        """One ``stat``, as in `get_if_changed`."""
        held = self._held.get(key)
        return held is not None and held.etag == etag and is_same(held.path, held.device, held.inode)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get_ranges(key, (ByteRange(start, length),))[0]

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        check_ranges(ranges)
        if all(wanted.length == 0 for wanted in ranges):
            return [b""] * len(ranges)
        out = []
        with self._reading(key) as descriptor:
            size = os.fstat(descriptor).st_size
            for wanted in ranges:
                if wanted.length and wanted.stop > size:
                    raise cut_off(key, wanted, size)
                out.append(_pread(key, descriptor, wanted))
        return out

    def head(self, key: str) -> ObjectMeta:
        """Describe an object. Its etag is a digest, so all of it is read."""
        with self._reading(key) as descriptor:
            return _describe(key, descriptor)

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        """As the protocol says; etags are empty, because each would cost reading the object."""
        check_prefix(prefix)
        check_limit(limit)
        objects: list[ObjectMeta] = []
        with _os_errors(prefix):
            for key in self._walk(prefix, after or ""):
                if len(objects) == limit:
                    return ListPage(tuple(objects), objects[-1].key)
                with contextlib.suppress(FileNotFoundError):  # deleted since the folder was read
                    found = os.stat(self._path(key))
                    objects.append(ObjectMeta(key, found.st_size, "", found.st_mtime))
        return ListPage(tuple(objects), None)

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        check_prefix(prefix, folder=True)
        check_limit(limit)
        names = []
        with _os_errors(prefix):
            folders = (entry[:-1] for entry in self._entries(prefix) if entry.endswith("/"))
            for name in sorted(name for name in folders if after is None or name > after):
                # A folder that only deleted objects left behind is no child.
                if next(self._walk(f"{prefix}{name}/", ""), None) is not None:
                    names.append(name)
                    if len(names) == limit:
                        break
        return tuple(names)

    def map(self, key: str) -> memoryview | None:
        with self._reading(key) as descriptor:
            return map_file(descriptor)

    def stamp(self, key: str) -> Stamp | None:
        """Inode, size and time of the last change of content: one ``stat``."""
        try:
            found = os.stat(self._readable_path(key))
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def watch(self, stamps: Sequence[tuple[str, Stamp]]) -> Watch:
        """Costs one ``fstat`` a key each time it is asked, or ``stat`` where too many are watched."""
        files = [(os.fsencode(self._readable_path(key)), stamp) for key, stamp in stamps]
        with self._lock:
            held = sum(watch.held for watch in self._watches)
            watch = Watch(files, max(0, _MAX_WATCHED - held))
            self._watches.add(watch)
        return watch

    def now(self) -> float:
        return time.time()

    # -- writing ---------------------------------------------------------------------------

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        return self.put_stream(key, (data,))

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        path = self._writable_path(key)
        conflict = StorageConflict(f"object {key!r} exists already", object=key)
        with _os_errors(key):
            if os.path.lexists(path):
                raise conflict  # spares the writing; the link below decides
        with self._temporary(key) as temporary:
            for chunk in chunks:  # an exception of the caller's own passes unchanged
                with _os_errors(key):
                    temporary.write(chunk)
            with _os_errors(key):
                meta = temporary.finish()
                self._make_folder(path)
                try:
                    os.link(temporary.path, path)
                except FileExistsError:
                    raise conflict from None
                except FileNotFoundError as error:
                    # Swept because nothing was written for an hour, or somebody removed folders.
                    self._durable_folders.clear()
                    raise StorageRetryable(f"{key!r}: what was written is gone", object=key) from error
                _sync_written(key, path)
        return meta

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        path = self._writable_path(key)
        with _os_errors(key), self._exclusive(key):
            if not self._matches(key, etag):
                raise StorageConflict(f"object {key!r} is not the one that was read", object=key)
            with self._temporary(key) as temporary:
                temporary.write(data)
                meta = temporary.finish()
                os.replace(temporary.path, path)
                temporary.renamed = True
                self._hold(key, _Held(path, os.dup(temporary.descriptor), meta.etag))
                _sync_written(key, path)
        return meta

    def delete(self, key: str) -> None:
        """As the protocol says. Not fsynced: what a power failure brings back is collected again."""
        path = self._writable_path(key)
        # Under the lock, else a put_if_match that has just compared would bring the object back.
        with _os_errors(key):
            if not os.path.lexists(path):
                return
            with self._exclusive(key), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)

    def close(self) -> None:
        with self._lock:
            self._held.clear()

    # -- below: paths and descriptors -------------------------------------------------------

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _readable_path(self, key: str) -> str:
        check_key(key)
        if key == _TMP or key.startswith(f"{_TMP}/"):
            raise InvalidArgument(f"{_TMP!r} is kept for the store itself", field="key")
        return self._path(key)

    def _writable_path(self, key: str) -> str:
        path = self._readable_path(key)
        if not self._swept:
            self._swept = True
            self._sweep()
        return path

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[int]:
        path = self._readable_path(key)
        with _os_errors(key):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _read_and_hold(self, key: str, etag: str) -> StoredObject | None:
        with self._reading(key) as descriptor:
            found = _read(key, descriptor)
            self._hold(key, _Held(self._path(key), os.dup(descriptor), found.meta.etag))
        return None if found.meta.etag == etag else found

    def _matches(self, key: str, etag: str) -> bool:
        held = self._held.get(key)
        if held is not None and held.is_there():
            return held.etag == etag
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return _describe(key, descriptor).etag == etag
        finally:
            os.close(descriptor)

    def _hold(self, key: str, held: _Held) -> None:
        with self._lock:
            self._held[key] = held
            self._held.move_to_end(key)
            while len(self._held) > _MAX_HELD:
                self._held.popitem(last=False)

    # -- below: folders --------------------------------------------------------------------

    def _entries(self, folder: str) -> Sequence[str]:
        """Names in a folder (its key, empty or ending in ``/``); those of folders end in ``/``.

        What can be no key, ``lost+found`` above all, is not ours to tell of.
        """
        try:
            with os.scandir(self._path(folder)) as entries:
                names = [f"{e.name}/" if e.is_dir() else e.name for e in entries if can_be_key(e.name)]
        except (FileNotFoundError, NotADirectoryError):
            at = obstacle(self._root)
            if at is not None:
                raise StorageError(f"{at} is no directory: no store can be there", url=self.url) from None
            return []
        return names if folder else [name for name in names if name != f"{_TMP}/"]

    def _walk(self, prefix: str, after: str) -> Iterator[str]:
        """Keys that start with ``prefix`` and come after ``after``, in order; reads no other subtree."""
        folder = prefix[: prefix.rfind("/") + 1]
        pending = [folder]
        while pending:
            at = pending.pop()
            if at and not at.endswith("/"):
                if at > after and at.startswith(prefix):
                    yield at
                continue
            inside = (at + name for name in self._entries(at))
            wanted = [
                key
                for key in inside
                if (key.startswith(prefix) or prefix.startswith(key))
                and (key > after or after.startswith(key))
            ]
            # Folders carry their "/", so this is the order of whole keys.
            pending.extend(sorted(wanted, reverse=True))

    def _make_folder(self, path: str) -> None:
        """Make the folders above ``path`` and make them durable; they are never removed."""
        folder = os.path.dirname(path)
        if folder in self._durable_folders:
            return
        try:
            os.makedirs(folder, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidArgument(f"an object stands where {folder!r} should be", field="key") from error
        # Somebody else may have made a folder and not have fsynced it yet, so sync all of them once.
        at = folder
        while at != self._root:
            at = os.path.dirname(at)
            _sync_folder(at)
        with contextlib.suppress(PermissionError):  # the folder above the root need not be ours
            _sync_folder(os.path.dirname(self._root))
        if len(self._durable_folders) >= _MAX_FOLDERS:
            self._durable_folders.clear()
        self._durable_folders.add(folder)

    # -- below: writing --------------------------------------------------------------------

    @contextlib.contextmanager
    def _exclusive(self, key: str) -> Iterator[None]:
        """Keeps threads and processes apart: each opens the file anew, and the kernel frees it on a kill."""
        folder = self._make(f"{_TMP}/locks")
        name = f"{folder}/{zlib.crc32(key.encode()) % _LOCK_FILES:02x}"
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _temporary(self, key: str) -> Iterator[_Temporary]:
        with _os_errors(key):
            temporary = _Temporary(key, f"{self._make(_TMP)}/{os.getpid()}-{uuid.uuid4().hex}")
        try:
            yield temporary
        finally:
            temporary.close()

    def _make(self, folder: str) -> str:
        """The path of a folder of the store's own, made if it is not there."""
        path = self._path(folder)
        try:
            os.makedirs(path, exist_ok=True)
        except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
            raise StorageError(
                f"{self._root}, where the store is to be, cannot be made a directory: {error.strerror}",
                url=self.url,
            ) from error
        return path

    def _sweep(self) -> None:
        """Remove what killed writers left; one that still writes has touched its file lately."""
        with contextlib.suppress(OSError), os.scandir(self._path(_TMP)) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_file() and entry.stat().st_mtime < time.time() - _STALE_SECONDS:
                        os.unlink(entry.path)


def obstacle(root: str) -> str | None:
    """What stands where a store's folder, or one above it, is or would be made; None if nothing does."""
    at = os.path.abspath(root)
    while not os.path.lexists(at):
        at = os.path.dirname(at)
    return None if os.path.isdir(at) else at


class _Held:
    """A descriptor of a file whose content is known; it is closed with the last reference."""

    __slots__ = ("descriptor", "device", "etag", "inode", "path")

    def __init__(self, path: str, descriptor: int, etag: str) -> None:
        self.descriptor = descriptor
        self.etag = etag
        found = os.fstat(descriptor)
        self.path, self.device, self.inode = os.fsencode(path), found.st_dev, found.st_ino

    def is_there(self) -> bool:
        """Whether its path still leads to it."""
        return is_same(self.path, self.device, self.inode)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open file cannot be copied: each copy would close it")

    def __del__(self) -> None:
        os.close(self.descriptor)


class _Temporary:
    """A file in ``.tmp`` that becomes an object, or goes.

    It is written by whole huge pages: a filesystem that keeps what it is given at once in one piece
    of memory then maps it by such pages, and a search misses fewer translations (decision 0035).
    """

    def __init__(self, key: str, path: str) -> None:
        self.path = path
        self.renamed = False
        self._key = key
        self._digest = _digest()
        self._rest = bytearray()  # less than a huge page
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        if self._rest:
            wanting = _WRITE_BYTES - len(self._rest)
            self._rest += view[:wanting]
            view = view[wanting:]
            if len(self._rest) < _WRITE_BYTES:
                return
            self._write(memoryview(self._rest))
            self._rest = bytearray()
        whole = len(view) - len(view) % _WRITE_BYTES
        self._write(view[:whole])
        self._rest += view[whole:]

    def finish(self) -> ObjectMeta:
        self._write(memoryview(self._rest))
        os.fsync(self.descriptor)
        found = os.fstat(self.descriptor)
        return ObjectMeta(self._key, found.st_size, self._digest.hexdigest(), found.st_mtime)

    def _write(self, view: memoryview) -> None:
        while len(view):
            view = view[os.write(self.descriptor, view) :]

    def close(self) -> None:
        os.close(self.descriptor)
        if not self.renamed:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _read(key: str, descriptor: int) -> StoredObject:
    found = os.fstat(descriptor)
    data = _pread(key, descriptor, ByteRange(0, found.st_size))
    digest = _digest()
    digest.update(data)
    return StoredObject(data, ObjectMeta(key, len(data), digest.hexdigest(), found.st_mtime))


def _describe(key: str, descriptor: int) -> ObjectMeta:
    found = os.fstat(descriptor)
    digest = _digest()
    while data := os.read(descriptor, _READ_BYTES):
        digest.update(data)
    return ObjectMeta(key, found.st_size, digest.hexdigest(), found.st_mtime)


def _pread(key: str, descriptor: int, wanted: ByteRange) -> bytes:
    data = os.pread(descriptor, wanted.length, wanted.start)
    if len(data) == wanted.length:
        return data
    # The kernel reads at most 2 GiB at once.
    pieces, at = [data], wanted.start + len(data)
    while at < wanted.stop:
        data = os.pread(descriptor, wanted.stop - at, at)
        if not data:
            raise cut_off(key, wanted, at)
        pieces.append(data)
        at += len(data)
    return b"".join(pieces)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_written(key: str, path: str) -> None:
    """After an object has appeared: whatever fails now, it is there, so nobody may be told that it is not."""
    try:
        _sync_folder(os.path.dirname(path))
    except OSError as error:
        raise StorageRetryable(f"{key!r}: written, but {error.strerror}", object=key) from error


@contextlib.contextmanager
def _os_errors(key: str) -> Iterator[None]:
    """The filesystem's errors as those of the protocol."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise missing(key) from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Unauthorised(f"{key!r}: {error.strerror}", object=key) from error
        name = errno.errorcode.get(error.errno or 0, "unknown")
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(f"{key!r}: {error.strerror} ({name})", object=key, errno=name) from error
        raise StorageRetryable(f"{key!r}: {error.strerror} ({name})", object=key, errno=name) from error
