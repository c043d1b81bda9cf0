"""Attributes on their way through compaction: the columns of the sources, of the rows that are kept.

What the schema no longer names is left behind. Imports manifest, part and rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from vecstore.manifest.model import Manifest
from vecstore.part.builder import PartImage
from vecstore.part.reader import PartReader
from vecstore.part.rows import PartRows
from vecstore.progress import Progress
from vecstore.room import Room
from vecstore.rows.column import Column, ColumnBuilder
from vecstore.rows.schema import Spec
from vecstore.storage.cache import ReadTrace

I64 = npt.NDArray[np.int64]


def gather_columns(
    manifest: Manifest,
    readers: Sequence[PartReader],
    kept: Sequence[I64],
    order: I64,
    room: Room,
    progress: Progress,
) -> Iterator[tuple[str, Column]]:
    """One by one, the columns of rows of parts, of the attributes that any of the rows has, names in order.

    Parameters
    ----------
    kept
        i64, ascending: the rows of each part.
    order
        i64[N]: in which the rows are wanted, of those of one part after another.
    """
    parts = [PartRows(reader, ReadTrace()) for reader in readers]
    for i, (name, known) in enumerate(sorted(manifest.attributes.items())):
        to, first = ColumnBuilder(Spec(known.type, known.filterable), len(order), room), 0
        for number, (part, rows) in enumerate(zip(parts, kept, strict=True)):
            progress((i + number / len(parts)) / len(manifest.attributes))
            column = part.column(name, known.id)
            if column is not None:
                column.pour(rows, to, first, room)
            first += len(rows)
        if not to.null.all():
            yield name, to.column().take(order, room)


def merged_columns(manifest: Manifest, image: PartImage | None) -> tuple[int, ...] | UnsetType:
    """The `Part.columns` of a part that was made under a manifest's schema."""
    names = () if image is None else image.columns[1]
    return tuple(manifest.attributes[name].id for name in names) or UNSET
