"""Room for arrays that a process should not hold in memory: beyond a size they lie in temporary files.

Such a file has no name, so that nothing is left of it when the process ends, however it ends. It is mapped:
the kernel may write its pages out and drop them, and reads them again when they are used. Imports errors
alone.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.errors import StorageFull, StorageRetryable, Unauthorised

LARGE_FILES: Final = "/var/tmp"  # noqa: S108 - on disk where /tmp lies in memory  # nosec B108
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Room:
    """Where large arrays go.

    Attributes
    ----------
    largest
        Bytes of an array that is held in memory; None for any.
    folder
        Of the temporary files; None for ``TMPDIR``, or else `LARGE_FILES` or the system's.
    """

    largest: int | None = None
    folder: str | None = None

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array whose content is not defined.

        Raises
        ------
        StorageFull, Unauthorised, StorageRetryable
            The folder has no room for its file, or takes none.
        """
        kind, count = np.dtype(dtype), int(np.prod(shape, dtype=np.int64))
        size = count * kind.itemsize
        if self.largest is None or size <= self.largest or not size:
            return np.empty(shape, dtype=kind)
        return np.frombuffer(self._mapped(size), dtype=kind, count=count).reshape(shape)

    def zeros(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of zeros, which takes nothing where nothing is written; errors as `empty` has them."""
        kind, count = np.dtype(dtype), int(np.prod(shape, dtype=np.int64))
        if self.largest is None or count * kind.itemsize <= self.largest:
            return np.zeros(shape, dtype=kind)
        return self.empty(shape, dtype)  # a file of zeros

    def take(self, array: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """``array[rows]``."""
        out = self.empty((len(rows), *array.shape[1:]), array.dtype)
        # Without a mode that needs no undoing NumPy would fill a second array first.
        return np.take(array, rows, axis=0, out=out, mode="clip")

    def spool(self) -> Spool:
        """Bytes that are written one after another, and are an array at the end."""
        return Spool(self)

    def open_file(self) -> IO[bytes]:
        """A file without a name."""
        with self.told():
            return tempfile.TemporaryFile(prefix="vecstore-", dir=self.folder or _default_folder())

    @contextmanager
    def told(self, size: int = 0) -> Iterator[None]:
        """What the system says of a temporary file, as an error of ours."""
        folder = self.folder or _default_folder()
        try:
            yield
        except PermissionError as error:
            raise Unauthorised(f"no temporary file in {folder}: {error.strerror}", folder=folder) from error
        except OSError as error:
            name = os.strerror(error.errno or 0)
            if error.errno in _FULL:
                raise StorageFull(
                    f"{folder} has no room for a temporary file of {size} bytes: {name}", folder=folder
                ) from error
            raise StorageRetryable(f"no temporary file in {folder}: {name}", folder=folder) from error

    def _mapped(self, size: int) -> mmap.mmap:
        with self.open_file() as file, self.told(size):
            if hasattr(os, "posix_fallocate"):
                # A hole that cannot be filled ends the process with SIGBUS when it is written to.
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return mmap.mmap(file.fileno(), size)


class Spool:
    """What `Room.spool` gives.

    Attributes
    ----------
    size
        Bytes that were written.
    """

    def __init__(self, room: Room) -> None:
        self.size = 0
        self._room = room
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def write(self, data: bytes | bytearray | memoryview | npt.NDArray[Any]) -> None:
        """Add bytes; errors as `Room.empty` has them."""
        view = np.frombuffer(data, dtype=np.uint8).data if len(data) else memoryview(b"")
        self.size += len(view)
        if self._file is None:
            if self._room.largest is None or self.size <= self._room.largest:
                self._memory += view
                return
            self._file = self._room.open_file()
            self._put(memoryview(self._memory))
            self._memory = bytearray()
        self._put(view)

    def _put(self, view: memoryview) -> None:
        assert self._file is not None
        with self._room.told(self.size):
            self._file.write(view)

    def array(self, dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
        """All that was written; nothing is written afterwards."""
        if self._file is None:
            return np.frombuffer(self._memory, dtype=dtype)
        with self._file as file, self._room.told(self.size):
            file.flush()
            return np.frombuffer(mmap.mmap(file.fileno(), self.size), dtype=dtype)


IN_MEMORY: Final = Room()


def _default_folder() -> str:
    if not os.environ.get("TMPDIR") and os.access(LARGE_FILES, os.W_OK):
        return LARGE_FILES
    return tempfile.gettempdir()
