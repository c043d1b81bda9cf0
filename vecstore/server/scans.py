"""What crosses HTTP of a scan, as types; see `vecstore.server.wire`."""

from __future__ import annotations

import binascii
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, Struct, UnsetType

from vecstore.limits import MAX_CURSOR_BYTES, MAX_SCAN_ROWS
from vecstore.params import check_scan
from vecstore.server.wire import FilterField, dim, given_json, id_kind, numbers
from vecstore.types import AttributeType, IdKind, RowId, ScanOrder, ScanPage, ScanParams


class ScanRows(Struct, forbid_unknown_fields=True, kw_only=True):
    """One page of the rows of an epoch; ``cursor`` of the page before goes on behind it."""

    limit: Annotated[int, Meta(ge=1, le=MAX_SCAN_ROWS)] = 1_000
    order: ScanOrder | None = None
    filter: FilterField = msgspec.field(default_factory=msgspec.Raw)
    include: list[str] | None = None
    exclude: list[str] | None = None
    epoch: Annotated[int, Meta(ge=1)] | None = None
    cursor: Annotated[str, Meta(max_length=MAX_CURSOR_BYTES)] | None = None
    vector_encoding: Literal["numbers", "base64"] = "numbers"

    def params(self) -> ScanParams:
        return check_scan(
            ScanParams(
                self.limit,
                self.order,
                given_json(self.filter),
                None if self.include is None else tuple(self.include),
                None if self.exclude is None else tuple(self.exclude),
                self.epoch,
                self.cursor,
            )
        )


class ScannedRow(Struct, kw_only=True, omit_defaults=True):
    """One row; ``vector`` if asked for, null if the namespace keeps none."""

    id: RowId
    attributes: dict[str, Any] | UnsetType = UNSET
    vector: list[float] | str | UnsetType | None = UNSET


class Scanned(Struct, kw_only=True):
    """A page; ``next_cursor`` is null at the end, and only there. ``id_kind`` and ``dim`` as of a search."""

    rows: list[ScannedRow]
    types: dict[str, AttributeType]
    epoch: int
    next_cursor: str | None
    id_kind: IdKind | UnsetType = UNSET
    dim: int | UnsetType = UNSET


def scanned(page: ScanPage, encoding: Literal["numbers", "base64"]) -> Scanned:
    """The body of the answer."""
    rows = [ScannedRow(id=identity) for identity in page.ids.tolist()]
    if page.columns:
        names = list(page.columns)
        for row, values in zip(rows, zip(*page.columns.values(), strict=True), strict=True):
            row.attributes = dict(zip(names, values, strict=True))
    if page.vectors is not None:
        for row, vector in zip(rows, page.vectors, strict=True):
            if encoding == "numbers" or np.isnan(vector[0]):
                row.vector = numbers(vector)
            else:
                row.vector = binascii.b2a_base64(vector.astype("<f4").tobytes(), newline=False).decode()
    return Scanned(
        rows=rows,
        types=page.types,
        epoch=page.epoch,
        next_cursor=page.cursor,
        id_kind=id_kind(page.ids, rows),
        dim=dim(page.vectors, rows),
    )


def page_of(answer: Scanned, asked: ScanParams, ids: npt.NDArray[Any], incarnation: str) -> ScanPage:
    """What an answer with vectors in base64 stands for."""
    vectors = None
    if "vector" in (asked.include or ()):
        given = [
            np.frombuffer(binascii.a2b_base64(row.vector), dtype="<f4")
            if isinstance(row.vector, str)
            else None
            for row in answer.rows
        ]
        width = next((len(one) for one in given if one is not None), 0 if answer.dim is UNSET else answer.dim)
        vectors = np.full((len(given), width), np.nan, dtype=np.float32)
        for i, one in enumerate(given):
            if one is not None:
                vectors[i] = one
    told = [{} if row.attributes is UNSET else row.attributes for row in answer.rows]
    return ScanPage(
        ids,
        {name: [attributes[name] for attributes in told] for name in answer.types},
        answer.types,
        vectors,
        answer.epoch,
        answer.next_cursor,
        incarnation,
    )
