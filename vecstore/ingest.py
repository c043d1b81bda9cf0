"""Reads files of vectors in batches, and loads them so that an interrupted load can be taken up again.

A batch is one insert under an idempotency key made of the file's content, the batch's place in it and
the namespace's settings of the load. A namespace remembers its keys for an hour: a second run asks
for them once and skips the batches that they name, and a batch whose answer was lost is not applied
twice. Imports NumPy and the public API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from vecstore.api import Namespace
from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_IDEMPOTENCY_KEYS
from vecstore.types import F32, RowId, WriteMode

_CHUNK: Final = 1 << 20

Batch = tuple[F32, list[RowId] | None]


class VectorFile(Protocol):
    """A file of rows: ``batches`` yields those from ``start`` on, ``size`` at a time."""

    path: Path
    rows: int
    dim: int

    def batches(self, size: int, start: int) -> Iterator[Batch]: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did: rows written, rows that an earlier run had written, the last epoch."""

    rows: int
    skipped: int
    epoch: int | None


def open_file(path: Path) -> VectorFile:
    """A reader by the file's suffix: .npy, .fvecs, .jsonl or .parquet."""
    readers: dict[str, Callable[[Path], VectorFile]] = {
        ".npy": NpyFile,
        ".fvecs": FvecsFile,
        ".jsonl": JsonLinesFile,
        ".parquet": ParquetFile,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidArgument(f"{path}: known are {', '.join(readers)}", field="file", limit=sorted(readers))
    try:
        return reader(path)
    except FileNotFoundError:
        raise InvalidArgument(f"{path} is not there", field="file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"{path} cannot be read: {error}", field="file") from error


def load(
    namespace: Namespace,
    file: VectorFile,
    *,
    batch_rows: int,
    start: int = 0,
    mode: WriteMode = "upsert",
    progress: Callable[[int], object] | None = None,
) -> Loaded:
    """Insert the rows of a file from ``start`` on, but for the batches that are there already.

    Parameters
    ----------
    progress
        Called with the number of rows after each batch.

    Raises
    ------
    InvalidArgument
        The file would need more batches than a namespace remembers keys.
    """
    batches = -(-(file.rows - start) // batch_rows)
    if batches > MAX_IDEMPOTENCY_KEYS:
        least = -(-(file.rows - start) // MAX_IDEMPOTENCY_KEYS)
        raise InvalidArgument(
            f"{file.path} would be {batches} batches, and a namespace remembers {MAX_IDEMPOTENCY_KEYS}; "
            f"use --batch {least} or more",
            field="batch",
            limit=least,
        )
    prefix = f"ingest-{_digest(file.path)}-{mode}"
    known = {record["key"] for record in namespace.manifest()["idempotency"]}
    written = skipped = 0
    epoch: int | None = None
    at = start
    pending: Iterator[Batch] | None = None
    while at < file.rows:
        rows = min(batch_rows, file.rows - at)
        key = f"{prefix}-{at}-{rows}"
        if key in known:
            skipped += rows
            pending = None  # the reader goes on behind what is skipped
        else:
            if pending is None:
                pending = file.batches(batch_rows, at)
            vectors, ids = next(pending)
            epoch = namespace.insert(vectors, ids, mode=mode, idempotency_key=key).epoch
            written += rows
        at += rows
        if progress is not None:
            progress(rows)
    return Loaded(written, skipped, epoch)


def _digest(path: Path) -> str:
    h = hashlib.blake2b(digest_size=12)
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            h.update(piece)
    return h.hexdigest()


class NpyFile:
    """A two-dimensional array of numbers; ids are assigned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array = np.load(path, mmap_mode="r", allow_pickle=False)
        if self._array.ndim != 2 or self._array.dtype.kind not in "fiu":
            raise InvalidArgument(
                f"{path} holds {self._array.dtype}{list(self._array.shape)}, not rows of numbers",
                field="file",
            )
        self.rows, self.dim = self._array.shape

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        for at in range(start, self.rows, size):
            yield np.ascontiguousarray(self._array[at : at + size], dtype=np.float32), None


class FvecsFile:
    """Rows of an int32 dimension and that many float32, as TEXMEX's sets are; ids are assigned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        words = np.memmap(path, dtype="<i4", mode="r")
        self.dim = int(words[0]) if len(words) else 0
        if self.dim < 1 or len(words) % (self.dim + 1):
            raise InvalidArgument(f"{path} is not fvecs: its size does not fit its dimension", field="file")
        self._rows = words.reshape(-1, self.dim + 1)
        if (self._rows[:, 0] != self.dim).any():
            raise InvalidArgument(f"{path} is not fvecs: rows differ in dimension", field="file")
        self.rows = len(self._rows)

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        for at in range(start, self.rows, size):
            part = np.ascontiguousarray(self._rows[at : at + size, 1:])
            yield part.view("<f4").astype(np.float32, copy=False), None


class _Line(msgspec.Struct):
    vector: list[float]
    id: RowId | None = None


class JsonLinesFile:
    """A line a row: ``{"id": …, "vector": [...]}``; other fields are not stored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(_Line)
        self.rows = 0
        with path.open("rb") as lines:
            for line in lines:
                if not self.rows and line.strip():
                    self.dim = len(self._parse(line, 1).vector)
                self.rows += bool(line.strip())
        if not self.rows:
            raise InvalidArgument(f"{path} has no rows", field="file")

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        vectors: list[F32] = []
        ids: list[RowId | None] = []
        row = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row += 1
                if row <= start:
                    continue
                parsed = self._parse(line, number)
                if len(parsed.vector) != self.dim:
                    raise InvalidArgument(
                        f"{self.path} line {number}: vector has {len(parsed.vector)} numbers, "
                        f"those before {self.dim}",
                        field="vector",
                        limit=self.dim,
                    )
                vectors.append(np.array(parsed.vector, dtype=np.float32))
                ids.append(parsed.id)
                if len(vectors) == size:
                    yield np.stack(vectors), self._checked(ids, number)
                    vectors, ids = [], []
        if vectors:
            yield np.stack(vectors), self._checked(ids, number)

    def _parse(self, line: bytes, number: int) -> _Line:
        try:
            return self._decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{self.path} line {number}: {error}", field="file", line=number) from error

    def _checked(self, ids: list[RowId | None], number: int) -> list[RowId] | None:
        given = [i for i in ids if i is not None]
        if not given:
            return None
        if len(given) != len(ids):
            raise InvalidArgument(
                f"{self.path}: some rows up to line {number} have an id and some have none", field="id"
            )
        return given


class ParquetFile:
    """Columns ``vector`` (a list of numbers a row) and, if there, ``id``; others are not stored."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise InvalidArgument(
                "Parquet needs pyarrow: pip install 'vecstore[arrow]'", field="file"
            ) from None
        self.path = path
        self._file: Any = pq.ParquetFile(path)
        names = self._file.schema_arrow.names
        if "vector" not in names:
            raise InvalidArgument(f"{path} has no column named vector", field="file")
        self._columns = [name for name in ("id", "vector") if name in names]
        self.rows = self._file.metadata.num_rows
        if not self.rows:
            raise InvalidArgument(f"{path} has no rows", field="file")
        first = next(self._file.iter_batches(1, columns=["vector"]))
        self.dim = len(first.column("vector")[0])

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        behind = start
        held: list[Batch] = []
        count = 0
        for group in self._file.iter_batches(size, columns=self._columns):
            if behind >= group.num_rows:
                behind -= group.num_rows
                continue
            group = group.slice(behind)
            behind = 0
            while group.num_rows:
                part = group.slice(0, size - count)
                group = group.slice(part.num_rows)
                held.append(self._arrays(part))
                count += part.num_rows
                if count == size:
                    yield _joined(held)
                    held, count = [], 0
        if held:
            yield _joined(held)

    def _arrays(self, part: Any) -> Batch:
        column = part.column("vector")
        if column.null_count or (part.num_rows * self.dim != len(column.flatten())):
            raise InvalidArgument(
                f"{self.path}: vectors are not all of {self.dim} numbers", field="vector", limit=self.dim
            )
        flat = column.flatten().to_numpy(zero_copy_only=False)
        ids = part.column("id").to_pylist() if "id" in self._columns else None
        return np.asarray(flat, dtype=np.float32).reshape(-1, self.dim), ids


def _joined(parts: list[Batch]) -> Batch:
    ids = [i for _, some in parts for i in some or ()]
    return np.concatenate([vectors for vectors, _ in parts]), ids or None
