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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.errors import StorageFull, StorageRetryable, Unauthorised

LARGE_FILES: Final = "/var/tmp"  # noqa: S108 - on disk where /tmp lies in memory
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

    def take(self, array: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """``array[rows]``."""
        out = self.empty((len(rows), *array.shape[1:]), array.dtype)
        # Without a mode that needs no undoing NumPy would fill a second array first.
        return np.take(array, rows, axis=0, out=out, mode="clip")

    def _mapped(self, size: int) -> mmap.mmap:
        folder = self.folder or _default_folder()
        try:
            with tempfile.TemporaryFile(prefix="vecstore-", dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    # A hole that cannot be filled ends the process with SIGBUS when it is written to.
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                return mmap.mmap(file.fileno(), size)
        except PermissionError as error:
            raise Unauthorised(f"no temporary file in {folder}: {error.strerror}", folder=folder) from error
        except OSError as error:
            name = os.strerror(error.errno or 0)
            if error.errno in _FULL:
                raise StorageFull(
                    f"{folder} has no room for a temporary file of {size} bytes: {name}", folder=folder
                ) from error
            raise StorageRetryable(f"no temporary file in {folder}: {name}", folder=folder) from error


IN_MEMORY: Final = Room()


def _default_folder() -> str:
    if not os.environ.get("TMPDIR") and os.access(LARGE_FILES, os.W_OK):
        return LARGE_FILES
    return tempfile.gettempdir()
