"""Rows of a file as inserts take them, and what a file of rows is to those who load it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidArgument
from vecstore.export import Header
from vecstore.limits import MAX_DIM
from vecstore.types import F32, RowId

BATCH_BYTES: Final = 64 << 20  # of an insert, as the rows lie in their file; a request may have 256 MiB


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file: f32[n, dim], their ids if it has any, and the values of their attributes."""

    vectors: F32
    ids: list[RowId] | None = None
    attributes: dict[str, Any] | None = None


class VectorFile(Protocol):
    """A file of rows.

    ``batches`` yields those from ``start`` on, ``size`` at a time or fewer. ``header`` is what an export
    says of the namespace.
    """

    path: Path
    rows: int
    dim: int

    @property
    def header(self) -> Header | None: ...

    def batches(self, size: int, start: int) -> Iterator[Batch]: ...


def fitting(size: int, a_row: int) -> int:
    """So many rows of ``a_row`` bytes, or as many as a batch holds."""
    return max(1, min(size, BATCH_BYTES // a_row))


def as_f32(numbers: npt.ArrayLike) -> F32:
    """Contiguous; what is beyond float32 is infinite, which an insert refuses."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers, dtype=np.float32)


def check_dim(path: Path, dim: int) -> None:
    """`InvalidArgument` if no namespace has vectors of ``dim`` numbers: before memory is taken for one."""
    if not 1 <= dim <= MAX_DIM:
        raise InvalidArgument(
            f"{path} has vectors of {dim} numbers, and there may be 1 to {MAX_DIM}",
            field="vector",
            limit=MAX_DIM,
        )
