"""Writes a namespace to a file that `vecstore.ingest` reads back: Parquet, or JSON lines.

All rows of one epoch, in the order in which they are stored, page by page, so memory does not grow with them.
What the namespace is (dimension, metric, schema, settings) travels in the file: `Header`. The file
appears under its name once it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec
import numpy as np

from vecstore.api import Namespace
from vecstore.arrow import pyarrow, rows_as_table
from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_SCAN_ROWS, MAX_U64
from vecstore.types import AttributeType, IdKind, Metric, ScanPage

HEADER: Final = "vecstore"  # the key of the header, in the metadata of Parquet and in the first line of JSON
FORMAT: Final = 0
LINES: Final = 256  # that are numbers of Python at a time


class Declared(msgspec.Struct, frozen=True):
    """An attribute of the schema."""

    type: AttributeType
    filterable: bool = True


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a namespace was at the epoch that was written.

    Attributes
    ----------
    id_kind
        None of a namespace that never had a row.
    rows
        How many lines follow; None in Parquet, which tells it itself.
    """

    format: int
    dim: int
    metric: Metric
    id_kind: IdKind | None
    rows: int | None = None
    schema: dict[str, Declared]
    defaults: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rows: int
    epoch: int
    bytes: int


class _Writer(Protocol):
    def write(self, page: ScanPage) -> None: ...


def export_namespace(
    namespace: Namespace,
    path: str | os.PathLike[str],
    *,
    epoch: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Exported:
    """Write all live rows of an epoch, the current one if none is named.

    Parameters
    ----------
    path
        Ends in ``.parquet`` (which needs the extra ``arrow``) or ``.jsonl``; a file of that name is replaced.
    progress
        Called with the number of rows after each page.

    Raises
    ------
    InvalidArgument
        Another suffix; or the namespace keeps no vectors, so that nothing could be made of the file.
    SnapshotExpired
        The epoch left the retention window before all of it was read; no file was written.
    """
    path = Path(path)
    writers = {".parquet": _parquet, ".jsonl": _json_lines}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise InvalidArgument(f"{path}: known are {', '.join(writers)}", field="file", limit=sorted(writers))
    manifest = namespace.manifest(epoch)
    header = _header(manifest)
    if any(part.get("vectors") == "none" for part in manifest["parts"]):
        raise InvalidArgument(
            f"{namespace.name} keeps no vectors, so it cannot be exported", field="namespace"
        )
    scan = namespace.scan(
        include=["vector"], exclude=[], order="stored", limit=MAX_SCAN_ROWS, epoch=manifest["epoch"]
    )
    rows = 0
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with writer(partial, header) as out:
            for page in scan.pages():
                if len(page):
                    out.write(page)
                rows += len(page)
                if progress is not None:
                    progress(len(page))
        size = partial.stat().st_size
        partial.replace(path)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error}", field="file") from error
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):  # it was not made, or its folder is none
            partial.unlink()
    return Exported(rows, manifest["epoch"], size)


def _header(manifest: dict[str, Any]) -> Header:
    return Header(
        format=FORMAT,
        dim=manifest["dim"],
        metric=manifest["metric"],
        id_kind=manifest.get("id_kind"),
        schema={
            name: Declared(one["type"], one.get("filterable", True))
            for name, one in manifest.get("schema", {}).items()
        },
        defaults=manifest["settings"],
    )


@contextmanager
def _json_lines(path: Path, header: Header) -> Iterator[_Writer]:
    with path.open("wb") as out:
        writer = _Lines(out, header)
        yield writer
        writer.close()


class _Lines:
    """A row a line, as HTTP has it, but for attributes that are null.

    The header comes first and says how many they are, which is known at last: rows may expire meanwhile.
    """

    def __init__(self, out: IO[bytes], header: Header) -> None:
        self._out = out
        self._header = header
        self._encoder = msgspec.json.Encoder()
        self._rows = 0
        self._room = len(self._first(MAX_U64))
        out.write(bytes(self._room) + b"\n")

    def _first(self, rows: int) -> bytes:
        return msgspec.json.encode({HEADER: msgspec.structs.replace(self._header, rows=rows)})

    def write(self, page: ScanPage) -> None:
        for start in range(0, len(page), LINES):
            rows = page[start : start + LINES]
            lines = [
                {
                    "id": row.id,
                    "vector": row.vector.tolist(),
                    "attributes": {name: one for name, one in row.attributes.items() if one is not None},
                }
                for row in rows
            ]
            self._out.write(self._encoder.encode_lines(lines))
        self._rows += len(page)

    def close(self) -> None:
        self._out.seek(0)
        self._out.write(self._first(self._rows).ljust(self._room))


@contextmanager
def _parquet(path: Path, header: Header) -> Iterator[_Writer]:
    pyarrow("Parquet")
    writer = _Groups(path, header)
    try:
        yield writer
    finally:
        writer.close()


class _Groups:
    """A page a row group, compressed with zstd, with checksums."""

    def __init__(self, path: Path, header: Header) -> None:
        import pyarrow.parquet as pq

        empty = rows_as_table(
            np.empty(0, dtype=object if header.id_kind == "string" else np.uint64),
            {name: [] for name in header.schema},
            {name: one.type for name, one in header.schema.items()},
            np.empty((0, header.dim), dtype=np.float32),
            metadata={HEADER: msgspec.json.encode(header).decode()},
        )
        self._schema = empty.schema
        self._writer: Any = pq.ParquetWriter(path, empty.schema, compression="zstd", write_page_checksum=True)

    def write(self, page: ScanPage) -> None:
        table = rows_as_table(page.ids, page.columns, page.types, page.vectors)
        self._writer.write_table(table.cast(self._schema))

    def close(self) -> None:
        self._writer.close()
