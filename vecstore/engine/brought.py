"""What the hits of a search bring beside their ids: vectors, and attributes with their types."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.engine.scan import ROW_BYTES, check_names
from vecstore.index.search import Answer
from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.manifest.model import Manifest
from vecstore.part.rows import PartRows
from vecstore.rows.allowance import Allowance
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, AttributeType, SearchParams

ROWS_AT_ONCE: Final = 256  # whose attributes are read at once, before it is known how large they are


def vectors_of(view: View, answer: Answer, trace: ReadTrace, executor: Callable[[], Executor]) -> F32:
    """f32[k, dim]; NaN where a part keeps no vectors. One trip more, which ``debug`` tells of."""
    out = np.full((len(answer.rows), view.manifest.dim), np.nan, dtype=np.float32)
    numbers = np.unique(answer.parts).tolist()
    places = [np.flatnonzero(answer.parts == number) for number in numbers]
    reads = [
        partial(view.parts[number].reader.read_vectors, answer.rows[mine])
        for number, mine in zip(numbers, places, strict=True)
    ]
    for mine, found in zip(places, read_side_by_side(reads, trace, executor), strict=True):
        if found is not None:
            out[mine] = found
    if answer.debug is not None:
        answer.debug["storage"] = trace.report()
    return out


def attributes_of(
    view: View,
    answer: Answer,
    params: SearchParams,
    allowance: Allowance,
    trace: ReadTrace,
    executor: Callable[[], Executor],
) -> list[dict[str, Any]] | None:
    """What hits bring of their attributes; None if nothing was asked for. One trip more, or two."""
    names = _wanted(view.manifest, params)
    if names is None:
        return None
    out: list[dict[str, Any]] = [{} for _ in answer.rows]
    numbers = np.unique(answer.parts).tolist()
    places = [np.flatnonzero(answer.parts == number) for number in numbers]
    reads = [
        partial(values_of, view.manifest, view.parts[number], answer.rows[mine], names, allowance)
        for number, mine in zip(numbers, places, strict=True)
    ]
    for mine, found in zip(places, read_side_by_side(reads, trace, executor), strict=True):
        for place, attributes in zip(mine.tolist(), found, strict=True):
            out[place] = attributes
    if answer.debug is not None:
        answer.debug["storage"] = trace.report()
    return out


def types_of(manifest: Manifest, params: SearchParams) -> dict[str, AttributeType] | None:
    """The types of the attributes that hits bring."""
    if not params.include and params.exclude is None:
        return None
    names = _wanted(manifest, params)
    return None if names is None else {name: manifest.attributes[name].type for name in names}


def _wanted(manifest: Manifest, params: SearchParams) -> list[str] | None:
    """The attributes that hits are to bring; None if none were asked for."""
    known = manifest.attributes
    included = check_names(manifest, params.include, params.exclude or ())
    if params.exclude is not None:
        return [name for name in known if name not in params.exclude]
    return included or None


def values_of(
    manifest: Manifest,
    part: OpenPart,
    rows: npt.NDArray[np.int64],
    names: list[str],
    allowance: Allowance,
    trace: ReadTrace,
) -> list[dict[str, Any]]:
    """The attributes of rows of a part; None where one has none."""
    out: list[dict[str, Any]] = [{} for _ in rows]
    source = PartRows(part.reader, trace)
    columns = [(name, source.column(name, manifest.attributes[name].id)) for name in names]
    source.fetch(
        [span for _, column in columns if column is not None for span in column.spans(inverted=False)]
    )
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        allowance.take(ROW_BYTES * len(rows[some]), "include")
        for name, column in columns:
            values: list[Any] = [None] * len(rows[some])
            if column is not None:
                found = column.column(rows[some])
                allowance.take(found.size(), "include")
                values = found.values()
            for attributes, value in zip(out[some], values, strict=True):
                attributes[name] = value
    return out
