"""Files of vectors as NumPy, TEXMEX and big-ann write them. They are mapped or read in pieces.

Ids are assigned unless an ``.npz`` has some.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from vecstore.batches import Batch, as_f32, check_dim, fitting
from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_VALUE_BYTES

_ROWS_AT_ONCE: Final = 1 << 20  # whose dimensions are compared
_ITEM_BYTES: Final = 4 * MAX_VALUE_BYTES  # of a value of an archive: NumPy has four bytes a character
# Of `zipfile`, beside `OSError` and `ValueError`; a `RuntimeError` is a member that is encrypted.
_OF_ARCHIVES: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_ELEMENTS: Final = {
    ".fvecs": "<f4",
    ".ivecs": "<i4",
    ".bvecs": "u1",
    ".fbin": "<f4",
    ".u8bin": "u1",
    ".i8bin": "i1",
}


class NpyFile:
    """A two-dimensional array of numbers."""

    header = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array = np.lib.format.open_memmap(path, mode="r")
        _check_array(path, self._array.dtype, self._array.shape)
        self.rows, self.dim = self._array.shape

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        size = fitting(size, 4 * self.dim)
        for at in range(start, self.rows, size):
            yield Batch(as_f32(self._array[at : at + size]))


class NpzFile:
    """An archive of arrays: ``vectors``, perhaps ``ids``, and all others attributes, a value a row.

    Vectors are read in pieces, compressed or not; the other arrays are held. What an array says of itself is
    held against the archive before memory is taken for it.
    """

    header = None

    def __init__(self, path: Path) -> None:
        self.path = path
        with _archive(path) as archive:
            members = (name for name in archive.namelist() if name.endswith(".npy"))
            names = [name.removesuffix(".npy") for name in members]
            if "vectors" not in names:
                raise InvalidArgument(f"{path} has no array named vectors", field="file")
            with archive.open("vectors.npy") as member:
                shape, by_column, self._dtype = _array_header(member)
                self._offset = member.tell()
            _check_array(path, self._dtype, shape)
            if by_column:
                raise InvalidArgument(
                    f"{path}: vectors lie by column; save np.ascontiguousarray of them", field="file"
                )
            self.rows, self.dim = shape
            _check_size(path, archive, "vectors", self._offset + self.rows * self.dim * self._dtype.itemsize)
            held = {name: self._read(archive, name) for name in dict.fromkeys(names) if name != "vectors"}
        self._ids = held.pop("ids", None)
        self._attributes = held

    def _read(self, archive: zipfile.ZipFile, name: str) -> Any:
        """An array of a value a row."""
        with archive.open(f"{name}.npy") as member:
            shape, _, dtype = _array_header(member)
            offset = member.tell()
        if shape != (self.rows,):
            raise InvalidArgument(
                f"{self.path}: {name} has the shape {list(shape)}, and there are {self.rows} vectors",
                field=name,
                limit=self.rows,
            )
        if dtype.hasobject:
            raise InvalidArgument(f"{self.path}: {name} holds objects of Python", field=name)
        if dtype.itemsize > _ITEM_BYTES:
            raise InvalidArgument(
                f"{self.path}: {name} has {dtype.itemsize} bytes a value", field=name, limit=_ITEM_BYTES
            )
        _check_size(self.path, archive, name, offset + self.rows * dtype.itemsize)
        with archive.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        a_row = self._dtype.itemsize * self.dim
        size = fitting(size, max(a_row, 4 * self.dim))
        with _archive(self.path) as archive, archive.open("vectors.npy") as member:
            member.seek(self._offset + start * a_row)
            for at in range(start, self.rows, size):
                count = min(size, self.rows - at)
                piece = member.read(count * a_row)
                if len(piece) != count * a_row:
                    raise InvalidArgument(f"{self.path} ends within its vectors", field="file")
                rows = slice(at, at + count)
                yield Batch(
                    as_f32(np.frombuffer(piece, self._dtype).reshape(count, self.dim)),
                    None if self._ids is None else self._ids[rows].tolist(),
                    {name: values[rows] for name, values in self._attributes.items()} or None,
                )


class VecsFile:
    """Rows of an int32 dimension and that many float32, int32 or bytes: TEXMEX's fvecs, ivecs, bvecs."""

    header = None

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = path.suffix.lower()
        self._dtype = np.dtype(_ELEMENTS[kind])
        data = np.memmap(path, dtype=np.uint8, mode="r")
        self.dim = int(data[:4].view("<i4")[0]) if len(data) >= 4 else 0
        stride = 4 + self.dim * self._dtype.itemsize
        if self.dim < 1 or len(data) % stride:
            raise InvalidArgument(
                f"{path} is not {kind[1:]}: its size does not fit its dimension", field="file"
            )
        check_dim(path, self.dim)
        self._data = data.reshape(-1, stride)
        self.rows = len(self._data)
        for at in range(0, self.rows, _ROWS_AT_ONCE):
            if (self._data[at : at + _ROWS_AT_ONCE, :4] != self._data[0, :4]).any():
                raise InvalidArgument(f"{path} is not {kind[1:]}: rows differ in dimension", field="file")

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        size = fitting(size, 4 * self.dim)
        for at in range(start, self.rows, size):
            piece = np.ascontiguousarray(self._data[at : at + size, 4:])
            yield Batch(as_f32(piece.view(self._dtype)))


class BinFile:
    """Numbers of rows and of dimensions, uint32 each, and the rows: big-ann's fbin, u8bin, i8bin."""

    header = None

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = path.suffix.lower()
        dtype = np.dtype(_ELEMENTS[kind])
        counts = np.fromfile(path, "<u4", 2)
        self.rows, self.dim = map(int, counts) if len(counts) == 2 else (0, 0)
        if not self.rows or not self.dim:
            raise InvalidArgument(f"{path} is not {kind[1:]}: it has no rows", field="file")
        size = path.stat().st_size
        if size != 8 + self.rows * self.dim * dtype.itemsize:
            raise InvalidArgument(
                f"{path} is not {kind[1:]}: {self.rows} rows of {self.dim} do not fit its {size} bytes",
                field="file",
            )
        check_dim(path, self.dim)
        self._array = np.memmap(path, dtype, mode="r", offset=8, shape=(self.rows, self.dim))

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        size = fitting(size, 4 * self.dim)
        for at in range(start, self.rows, size):
            yield Batch(as_f32(self._array[at : at + size]))


def _check_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[0] < 0 or dtype.kind not in "fiu":
        raise InvalidArgument(f"{path} holds {dtype}{list(shape)}, not rows of numbers", field="file")
    check_dim(path, shape[1])


def _check_size(path: Path, archive: zipfile.ZipFile, name: str, size: int) -> None:
    """Whether an array's member is as long as the array says."""
    found = archive.getinfo(f"{name}.npy").file_size
    if found != size:
        raise InvalidArgument(
            f"{path}: {name} takes {found} bytes, and says that it takes {size}", field="file"
        )


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose damage is an `InvalidArgument`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _OF_ARCHIVES as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"{path} cannot be read: {error}", field="file") from error


def _array_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it lies by column, and type of the array that a file begins with."""
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise InvalidArgument(f"an array of NumPy's format {version} is not read", field="file")
    return read[version](member)
