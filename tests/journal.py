"""What a process that may be killed at any instant has done so far: a file of JSON lines, each durable."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class Journal:
    """Appends records; one that `write` has returned from outlives the process. One writer a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

    def write(self, **record: Any) -> None:
        line = _encoder.encode(record) + b"\n"
        assert os.write(self._file, line) == len(line)
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The records in order, also of a file that is being written; a line that was cut off is none."""
    *lines, _cut_off = path.read_bytes().split(b"\n")
    return [_decoder.decode(line) for line in lines]
