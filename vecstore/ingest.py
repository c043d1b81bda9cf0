"""Reads files of rows in batches, and loads them so that an interrupted load can be taken up again.

A batch is one insert under an idempotency key made of the file's content, the batch's place in it and
the namespace's settings of the load. A namespace remembers its keys for an hour: a second run asks
for them once and skips the batches that they name, and a batch whose answer was lost is not applied
twice. A batch ends before its rows take more than `vecstore.batches.BATCH_BYTES`.

A file that `vecstore.export` wrote says what its namespace was, so one like it can be made. Imports NumPy and
the public API.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import msgspec
import numpy as np

from vecstore.api import Database, Namespace
from vecstore.arrow import not_text, pyarrow, values_of
from vecstore.batches import BATCH_BYTES, Batch, VectorFile, as_f32, check_dim, fitting
from vecstore.errors import (
    NOT_JSON,
    IdExists,
    InvalidArgument,
    InvalidId,
    NamespaceExists,
    NamespaceNotFound,
    SchemaConflict,
    TooManyRequests,
    VecstoreError,
)
from vecstore.export import FORMAT, HEADER, Header
from vecstore.limits import MAX_BATCH_ROWS, MAX_IDEMPOTENCY_KEYS
from vecstore.types import F32, Metric, NamespaceInfo, RowId, WriteMode
from vecstore.vectorfiles import BinFile, NpyFile, NpzFile, VecsFile

_CHUNK: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
_ROWS_AT_ONCE: Final = 1_024  # of Parquet, before it is known how large they are


def vectors_of(file: VectorFile) -> F32:
    """All vectors of a file, f32[rows, dim]. `InvalidArgument` if it has none."""
    if not file.rows:
        raise InvalidArgument(f"{file.path} has no rows", field="file")
    return np.concatenate([batch.vectors for batch in file.batches(file.rows, 0)])


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did: rows written, rows that a run of the last hour had written, the last epoch."""

    rows: int
    skipped: int
    epoch: int | None


def open_file(path: str | os.PathLike[str]) -> VectorFile:
    """A reader by the file's suffix: what ``docs/transfer.md`` lists."""
    path = Path(path)
    readers: dict[str, Callable[[Path], VectorFile]] = {
        ".npy": NpyFile,
        ".npz": NpzFile,
        ".fvecs": VecsFile,
        ".ivecs": VecsFile,
        ".bvecs": VecsFile,
        ".fbin": BinFile,
        ".u8bin": BinFile,
        ".i8bin": BinFile,
        ".jsonl": JsonLinesFile,
        ".parquet": parquet_file,
        ".arrow": ipc_file,
        ".feather": ipc_file,
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


def check_batches(files: Sequence[VectorFile], batch_rows: int, start: int = 0) -> None:
    """`InvalidArgument` if files in one load take more keys than a namespace remembers."""

    def batches(rows: int) -> int:
        return sum(-(-max(0, file.rows - start) // rows) for file in files)

    if batches(batch_rows) <= MAX_IDEMPOTENCY_KEYS:
        return
    what = str(files[0].path) if len(files) == 1 else f"{len(files)} files"
    sizes = range(1, MAX_BATCH_ROWS + 1)
    limit = bisect_left(sizes, -MAX_IDEMPOTENCY_KEYS, key=lambda rows: -batches(rows)) + 1
    if limit <= MAX_BATCH_ROWS:
        use = f"use --batch {limit} or more"
    else:
        limit = MAX_IDEMPOTENCY_KEYS
        use = "load fewer files at once" if len(files) > 1 else "split it"
    raise InvalidArgument(
        f"{what} would be {batches(batch_rows)} batches, and a namespace remembers {MAX_IDEMPOTENCY_KEYS} an "
        f"hour; {use}",
        field="batch",
        limit=limit,
    )


def load(
    namespace: Namespace,
    file: VectorFile,
    *,
    batch_rows: int,
    start: int = 0,
    mode: WriteMode = "upsert",
    schema: Mapping[str, Any] | None = None,
    again: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Loaded:
    """Insert the rows of a file from ``start`` on, but for the batches that a run of the last hour inserted.

    Parameters
    ----------
    schema
        Attributes and their types, as for `Namespace.insert`, before those of an export.
    again
        Insert these batches too: their rows may have been deleted or changed since.
    progress
        Called with the number of rows after each batch.

    Raises
    ------
    InvalidArgument
        The file has no rows from ``start`` on, or would need more batches than a namespace remembers keys. Or
        a batch was refused, and is of the class of that: ``file`` and ``first_row`` of the details say which.
    TooManyRequests
        The namespace remembers no more keys for now, those of other loads among them: the same details, and
        ``retry_after``, say how to go on.
    """
    if file.header is None and not file.rows:
        raise InvalidArgument(f"{file.path} has no rows", field="file")
    if start and start >= file.rows:
        raise InvalidArgument(
            f"{file.path} has {file.rows} rows, and so none from row {start} on",
            field="start",
            limit=file.rows,
        )
    check_batches([file], batch_rows, start)
    prefix = f"ingest-{_digest(file.path)}-{mode}"
    if again:
        prefix += f"-{secrets.token_hex(8)}"
    known = {record["key"] for record in namespace.manifest()["idempotency"]}
    declared = {**schema_of(file), **(schema or {})} or None
    written = skipped = 0
    epoch: int | None = None
    at = start
    for batch in file.batches(batch_rows, start):
        rows = len(batch.vectors)
        key = f"{prefix}-{at}-{rows}"
        if key in known:
            skipped += rows
        else:
            with _told_of(file, at):
                done = namespace.insert(
                    batch.vectors,
                    batch.ids,
                    attributes=batch.attributes,
                    schema=declared,
                    mode=mode,
                    idempotency_key=key,
                )
            epoch = done.epoch
            written += rows
        at += rows
        if progress is not None:
            progress(rows)
    return Loaded(written, skipped, epoch)


def import_namespace(
    database: Database,
    name: str,
    file: VectorFile | str | os.PathLike[str],
    *,
    batch_rows: int = 10_000,
    mode: WriteMode = "upsert",
    again: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Loaded:
    """Load an export into a new namespace like the one that it was made of, or into one that fits.

    Called again after an interruption within an hour, it goes on where it was; ``again`` as for `load`.

    Raises
    ------
    InvalidArgument
        The file is no export; or the namespace that is there has another dimension, metric or kind of ids.
    SchemaConflict
        It has an attribute of another type. In either case nothing was written.
    """
    if isinstance(file, (str, os.PathLike)):
        file = open_file(file)
    header = file.header
    if header is None:
        raise InvalidArgument(f"{file.path} is no export of vecstore; ingest reads it", field="file")
    schema = schema_of(file)
    with namespace_for(
        database, name, header.dim, header.metric, schema=schema, defaults=header.defaults
    ) as namespace:
        _check_fit(namespace.stats(), header, schema, file.path)
        return load(namespace, file, batch_rows=batch_rows, mode=mode, again=again, progress=progress)


@contextmanager
def namespace_for(
    database: Database,
    name: str,
    dim: int,
    metric: Metric,
    *,
    schema: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Iterator[Namespace]:
    """The namespace of a name, made if there is none.

    One that was made goes again if an argument is refused before anything was written to it.
    """
    made = None
    try:
        namespace = database.namespace(name)
    except NamespaceNotFound:
        try:
            # What a creation answers is of its own epoch: asked for later, somebody may have written already.
            made = database.backend.create(name, dim, metric, dict(defaults or {}), schema=schema)
            namespace = Namespace(database.backend, made.name)
        except NamespaceExists:  # somebody else just did
            namespace = database.namespace(name)
    try:
        yield namespace
    except InvalidArgument:
        if made is not None:
            with suppress(VecstoreError):  # it has been written to
                database.delete_namespace(name, if_match=made.etag)
        raise


def schema_of(file: VectorFile) -> dict[str, Any]:
    """What an export says of attributes, as inserts take it; nothing of any other file."""
    return {} if file.header is None else cast(dict[str, Any], msgspec.to_builtins(file.header.schema))


@contextmanager
def _told_of(file: VectorFile, first: int) -> Iterator[None]:
    """What is refused of a batch, with the file and the row in it that the batch begins with."""
    try:
        yield
    except TooManyRequests as error:
        raise TooManyRequests(
            f"{file.path}, before row {first}: {error.message}; go on later with --start-at {first} of it, "
            "and then with the files behind it",
            **{**error.details, "file": str(file.path), "first_row": first},
        ) from error
    except (InvalidArgument, IdExists) as error:
        raise type(error)(
            f"{file.path}, in the batch from row {first} on: {error.message}",
            **{**error.details, "file": str(file.path), "first_row": first},
        ) from error


def _check_fit(there: NamespaceInfo, header: Header, schema: Mapping[str, Any], path: Path) -> None:
    for field, has, wanted in (
        ("dim", there.dim, header.dim),
        ("metric", there.metric, header.metric),
        ("id_kind", there.id_kind or header.id_kind, header.id_kind or there.id_kind),
    ):
        if has != wanted:
            raise InvalidArgument(
                f"{there.name} has {field} {has}, and {path} {wanted}", field=field, limit=has, given=wanted
            )
    for attribute, told in schema.items():
        if there.schema.get(attribute, told) != told:
            raise SchemaConflict(
                f"attribute {attribute!r} of {there.name} is {there.schema[attribute]}, and of {path} {told}",
                field="schema",
                attribute=attribute,
            )


def _header(data: bytes, path: Path) -> Header:
    try:
        header = msgspec.json.decode(data, type=Header)
    except NOT_JSON as error:
        raise InvalidArgument(
            f"{path}: the header of an export is malformed: {error}", field="file"
        ) from error
    if header.format != FORMAT:
        raise InvalidArgument(
            f"{path} has format {header.format}; this version reads {FORMAT}", field="file", limit=FORMAT
        )
    return header


def _digest(path: Path) -> str:
    h = hashlib.blake2b(digest_size=12)
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            h.update(piece)
    return h.hexdigest()


class _Line(msgspec.Struct):
    vector: list[float]
    id: RowId | None = None
    attributes: dict[str, Any] | None = None


class _First(msgspec.Struct):
    """The first line of an export."""

    vecstore: msgspec.Raw


class JsonLinesFile:
    """A line a row: ``{"id": …, "vector": [...], "attributes": {…}}``; other fields are attributes too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(_Line)
        self._members = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self.header: Header | None = None
        self.rows = 0
        with path.open("rb") as lines:
            first = lines.readline(BATCH_BYTES).removeprefix(_BOM)
            with suppress(*NOT_JSON):
                self.header = _header(bytes(msgspec.json.decode(first, type=_First).vecstore), path)
            if self.header is None:
                lines.seek(0)
            else:
                self.dim = self.header.dim
            for number, line in self._lines(lines):
                if not self.rows and self.header is None and line.strip():
                    self.dim = len(self._parse(line, number).vector)
                    check_dim(path, self.dim)
                self.rows += bool(line.strip())
        if self.header is not None and self.rows != self.header.rows:
            raise InvalidArgument(
                f"{path} has {self.rows} rows, and should have {self.header.rows}", field="file"
            )
        if not self.rows and self.header is None:
            raise InvalidArgument(f"{path} has no rows", field="file")

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        vectors: list[F32] = []
        held: list[_Line] = []
        taken = row = 0
        with self.path.open("rb") as lines:
            for number, line in self._lines(lines):
                if not line.strip() or (number == 1 and self.header is not None):
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
                if held and (len(held) == size or taken + len(line) > BATCH_BYTES):
                    yield self._batch(vectors, held, number - 1)
                    vectors, held, taken = [], [], 0
                vectors.append(as_f32(parsed.vector))
                parsed.vector = []
                held.append(parsed)
                taken += len(line)
        if held:
            yield self._batch(vectors, held, number)

    def _lines(self, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        """Lines and their numbers, from where the file is; none is longer than a batch may be."""
        number = int(file.tell() > 0)
        while line := file.readline(BATCH_BYTES):
            number += 1
            if len(line) == BATCH_BYTES:
                raise InvalidArgument(
                    f"{self.path} line {number} has {BATCH_BYTES} bytes or more",
                    field="file",
                    line=number,
                    limit=BATCH_BYTES,
                )
            yield number, line.removeprefix(_BOM) if number == 1 else line

    def _parse(self, line: bytes, number: int) -> _Line:
        try:
            parsed = self._decoder.decode(line)
            others = self._members.decode(line)
            for name in _Line.__struct_fields__:
                others.pop(name, None)
            decoded = {name: msgspec.json.decode(raw) for name, raw in others.items()}
        except NOT_JSON as error:
            raise InvalidArgument(
                f"{self.path} line {number}: {_told(error, line)}", field="file", line=number
            ) from error
        if decoded:
            given = parsed.attributes or {}
            if twice := given.keys() & decoded.keys():
                raise InvalidArgument(
                    f"{self.path} line {number}: {min(twice)} is a field and an attribute",
                    field="file",
                    line=number,
                )
            parsed.attributes = {**given, **decoded}
        return parsed

    def _batch(self, vectors: list[F32], held: list[_Line], number: int) -> Batch:
        given = [line.id for line in held if line.id is not None]
        if given and len(given) != len(held):
            raise InvalidArgument(
                f"{self.path}: some rows up to line {number} have an id and some have none", field="id"
            )
        names = {name: None for line in held for name in line.attributes or ()}
        columns = {name: [(line.attributes or {}).get(name) for line in held] for name in names}
        return Batch(np.stack(vectors), given or None, columns or None)


def _told(error: Exception, line: bytes) -> str:
    """What is wrong with a line: msgspec says of half of a surrogate pair that the input ends there."""
    told = str(error)
    if "truncated" in told:
        with suppress(ValueError, RecursionError):
            json.loads(line)
            return "a text holds one half of a surrogate pair (\\ud800 to \\udfff), which no UTF-8 is"
    return told


def parquet_file(path: Path) -> ArrowFile:
    """Parquet, its pages' checksums compared where there are some."""
    pyarrow("Parquet")
    import pyarrow.parquet as pq

    file: Any = pq.ParquetFile(path, page_checksum_verification=True)
    return ArrowFile(path, file.schema_arrow, file.metadata.num_rows, file.iter_batches)


def ipc_file(path: Path) -> ArrowFile:
    """The file format of Arrow, which Feather is, too; mapped, so that memory does not grow with it."""
    pa = pyarrow("Arrow")
    try:
        file: Any = pa.ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid as error:
        with suppress(pa.ArrowException):
            pa.ipc.open_stream(pa.memory_map(str(path)))
            raise InvalidArgument(
                f"{path} is a stream of Arrow, not a file: write it with pyarrow.ipc.new_file", field="file"
            ) from error
        raise

    def groups(size: int) -> Iterator[Any]:
        for at in range(file.num_record_batches):
            batch = file.get_batch(at)
            for first in range(0, batch.num_rows, size):
                yield batch.slice(first, size)

    rows = sum(file.get_batch(at).num_rows for at in range(file.num_record_batches))
    return ArrowFile(path, file.schema, rows, groups)


class ArrowFile:
    """Columns ``vector`` (a list of numbers a row) and, if there, ``id``; all others are attributes.

    Parameters
    ----------
    groups
        The rows, so many at a time or fewer.
    """

    def __init__(self, path: Path, told: Any, rows: int, groups: Callable[[int], Iterator[Any]]) -> None:
        self.path = path
        self.rows = rows
        self._read = groups
        twice = next((name for name in told.names if told.names.count(name) > 1), None)
        if twice is not None:
            raise InvalidArgument(f"{path} has two columns named {twice}", field="file")
        if "vector" not in told.names:
            raise InvalidArgument(f"{path} has no column named vector", field="file")
        _check_vectors(path, told.field("vector").type)
        written = (told.metadata or {}).get(HEADER.encode())
        self.header = None if written is None else _header(written, path)
        self._attributes = [name for name in told.names if name not in ("id", "vector")]
        for name in self._attributes:
            values_of(told.empty_table().column(name), name)  # refuses what is of no type that is kept
        self._with_ids = "id" in told.names
        if self.header is not None:
            self.dim = self.header.dim
        elif not self.rows:
            raise InvalidArgument(f"{path} has no rows", field="file")
        else:
            first = next(group for group in self._groups(1) if group.num_rows)
            self.dim = len(first.column("vector")[0].as_py() or ())
            check_dim(path, self.dim)

    def batches(self, size: int, start: int) -> Iterator[Batch]:
        behind = at = start
        held: list[Any] = []
        count = taken = 0
        for some in self._groups(fitting(min(size, _ROWS_AT_ONCE), 4 * self.dim)):
            if behind >= some.num_rows:
                behind -= some.num_rows
                continue
            rest, behind = some.slice(behind), 0
            while rest.num_rows:
                part = rest.slice(0, size - count)
                while part.num_rows > 1 and part.nbytes > BATCH_BYTES:
                    part = part.slice(0, part.num_rows // 2)
                if held and taken + part.nbytes > BATCH_BYTES:
                    yield self._batch(held, at)
                    at += count
                    held, count, taken = [], 0, 0
                rest = rest.slice(part.num_rows)
                held.append(part)
                count += part.num_rows
                taken += part.nbytes
                if count == size:
                    yield self._batch(held, at)
                    at += count
                    held, count, taken = [], 0, 0
        if held:
            yield self._batch(held, at)

    def _groups(self, size: int) -> Iterator[Any]:
        try:
            yield from self._read(size)
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{self.path} cannot be read: {error}", field="file") from error

    def _batch(self, held: list[Any], first: int) -> Batch:
        """Of rows from ``first`` on."""
        table = pyarrow("Arrow").Table.from_batches(held)
        ids = self._ids(table.column("id"), first) if self._with_ids else None
        attributes = {name: table.column(name) for name in self._attributes}
        return Batch(self._vectors(table.column("vector"), first), ids, attributes or None)

    def _ids(self, column: Any, first: int) -> list[Any]:
        try:
            return cast(list[Any], column.to_pylist())
        except UnicodeDecodeError as error:
            row = first + not_text(column)
            raise InvalidId(f"{self.path}: the id of row {row} is not UTF-8", field="id", row=row) from error

    def _vectors(self, column: Any, first: int) -> F32:
        """f32[n, dim] of lists from row ``first`` on."""
        import pyarrow.compute as pc

        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
        wrong = np.flatnonzero(lengths != self.dim)
        if len(wrong):
            length = lengths[wrong[0]]
            raise self._misfit(first + int(wrong[0]), "is null" if length < 0 else f"has {length}")
        flat = pc.list_flatten(column)
        if flat.null_count:
            at = int(np.argmax(flat.is_null().to_numpy()))
            raise self._misfit(first + at // self.dim, "has a null among them")
        return as_f32(flat.to_numpy()).reshape(-1, self.dim)

    def _misfit(self, row: int, told: str) -> InvalidArgument:
        return InvalidArgument(
            f"{self.path}: vectors are not all of {self.dim} numbers: that of row {row} {told}",
            field="vector",
            row=row,
            limit=self.dim,
        )


def _check_vectors(path: Path, told: Any) -> None:
    types: Any = pyarrow("Arrow").types
    lists = types.is_list(told) or types.is_large_list(told) or types.is_fixed_size_list(told)
    if not lists or not (types.is_floating(told.value_type) or types.is_integer(told.value_type)):
        raise InvalidArgument(f"{path}: the column vector holds {told}, not lists of numbers", field="vector")
