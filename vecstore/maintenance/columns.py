"""Attributes on their way through compaction: the columns of the sources, of the rows that are kept.

What the schema no longer names is left behind. Imports manifest, part and rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from vecstore.index.view import OpenPart
from vecstore.manifest.model import Manifest
from vecstore.part.builder import PartImage
from vecstore.part.rows import PartRows
from vecstore.rows.attributes import Column, joined, nulls
from vecstore.rows.schema import Spec
from vecstore.storage.cache import ReadTrace


def gather_columns(
    manifest: Manifest, parts: Sequence[OpenPart], kept: Sequence[npt.NDArray[np.int64]]
) -> dict[str, Column]:
    """The columns of rows of parts, part after part, of the attributes that any of the parts has.

    Parameters
    ----------
    kept
        i64: the rows of each part.
    """
    sources = [PartRows(part.reader, ReadTrace()) for part in parts]
    found = {}
    for name, known in manifest.attributes.items():
        readers = [source.column(name, known.id) for source in sources]
        if all(reader is None for reader in readers):
            continue
        spec = Spec(known.type, known.filterable)
        column = joined(
            [
                nulls(spec, len(rows)) if reader is None else reader.column(rows)
                for reader, rows in zip(readers, kept, strict=True)
            ]
        )
        if not column.null.all():
            found[name] = column
    return dict(sorted(found.items()))


def merged_columns(manifest: Manifest, image: PartImage | None) -> tuple[int, ...] | UnsetType:
    """The `Part.columns` of a part that was made under a manifest's schema."""
    names = () if image is None else image.columns[1]
    return tuple(manifest.attributes[name].id for name in names) or UNSET
