"""What crosses HTTP, as types: used by the server, by the client, and to write ``/openapi.json``.

Vectors are JSON numbers or base64 of little-endian float32. They are kept raw while a request is
validated and turned into arrays row by row, so that a large batch is never a tree of Python
objects. Imports errors, limits, types and the settings of a namespace.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from vecstore.errors import DimensionMismatch, InvalidArgument, InvalidId, InvalidVector
from vecstore.invalid import invalid
from vecstore.limits import (
    MAX_BATCH_ROWS,
    MAX_DELETE_IDS,
    MAX_DIM,
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    MAX_PAGE_SIZE,
    MAX_QUERIES,
    MAX_TOP_K,
    MAX_U64,
)
from vecstore.manifest.model import Settings
from vecstore.params import ETAG, query_of
from vecstore.server.bodies import AT_ONCE_BYTES, items
from vecstore.types import (
    F32,
    AttributeType,
    BatchHits,
    Consistency,
    Hits,
    IdKind,
    Metric,
    NamespaceInfo,
    RerankPrecision,
    Row,
    RowId,
    SearchParams,
    Tag,
    WriteMode,
)

_BASE64: Final = {"type": "string", "contentEncoding": "base64", "description": "little-endian float32"}
_NUMBERS: Final = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_DIM}
_ID: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": MAX_U64},
        {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES},
    ]
}


def _list_of(items: dict[str, Any], limit: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": limit}


Name = Annotated[
    str,
    Meta(
        extra_json_schema={
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$",
            "minLength": 1,
            "maxLength": MAX_NAME_BYTES,
        }
    ),
]
Id = Annotated[int | str, Meta(extra_json_schema=_ID)]
IdsField = Annotated[
    Raw, Meta(extra_json_schema={"anyOf": [_list_of(_ID, MAX_DELETE_IDS), {"type": "null"}]})
]
VectorField = Annotated[Raw, Meta(extra_json_schema={"anyOf": [_NUMBERS, _BASE64, {"type": "null"}]})]
BatchField = Annotated[Raw, Meta(extra_json_schema={"anyOf": [_list_of(_NUMBERS, MAX_BATCH_ROWS), _BASE64]})]
QueriesField = Annotated[
    Raw,
    Meta(extra_json_schema={"anyOf": [_list_of(_NUMBERS, MAX_QUERIES), _BASE64, {"type": "null"}]}),
]
FilterField = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "anyOf": [{"type": "array", "minItems": 2, "maxItems": 3}, {"type": "null"}],
            "description": "docs/filters.md",
        }
    ),
]
_ANY: Final[dict[str, Any]] = {}
AttributesField = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": "array", "items": _ANY}},
                {"type": "array", "items": {"type": "object", "additionalProperties": _ANY}},
                {"type": "null"},
            ],
            "description": "columns by name, or rows; docs/filters.md",
        }
    ),
]
PatchField = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"type": "object", "additionalProperties": _ANY},
                {"type": "array", "items": {"type": "object", "additionalProperties": _ANY}},
            ],
            "description": "as of an insert; with a filter one object of values",
        }
    ),
]
Dim = Annotated[int, Meta(ge=1, le=MAX_DIM)]

# Every setting, none of them required: what creation and PATCH may change.
Defaults: Final = msgspec.defstruct(
    "Defaults",
    [(f.name, f.type | UnsetType, UNSET) for f in msgspec.structs.fields(Settings)],
    forbid_unknown_fields=True,
    kw_only=True,
    module=__name__,
)


TypeName = Annotated[str, Meta(extra_json_schema={"enum": list(get_args(AttributeType))})]


class Attribute(Struct, forbid_unknown_fields=True, kw_only=True):
    """Type of an attribute, and whether filters may ask about it."""

    type: AttributeType
    filterable: bool = True


# -- requests ------------------------------------------------------------------------------


class CreateNamespace(Struct, forbid_unknown_fields=True, kw_only=True):
    """Create a namespace."""

    name: Name
    dim: Dim
    metric: Metric = "cosine"
    defaults: Defaults | UnsetType = UNSET  # type: ignore[valid-type]  # made from Settings above
    schema: dict[str, TypeName | Attribute] | None = None


class UpdateNamespace(Struct, forbid_unknown_fields=True, kw_only=True):
    """Change defaults of a namespace, declare attributes, or drop those that are null."""

    defaults: Defaults | UnsetType = UNSET  # type: ignore[valid-type]
    schema: dict[str, TypeName | Attribute | None] | None = None


class InsertRows(Struct, forbid_unknown_fields=True, kw_only=True):
    """Insert or upsert a batch; ``dim``, if given, says how base64 vectors are cut into rows."""

    vectors: BatchField
    ids: IdsField = msgspec.field(default_factory=Raw)
    attributes: AttributesField = msgspec.field(default_factory=Raw)
    schema: dict[str, TypeName | Attribute] | None = None
    mode: WriteMode = "upsert"
    condition: FilterField = msgspec.field(default_factory=Raw)
    return_ids: bool = False
    dim: Dim | None = None


class DeleteRows(Struct, forbid_unknown_fields=True, kw_only=True):
    """Delete rows by id, those that meet a condition, or those that a filter matches."""

    ids: IdsField = msgspec.field(default_factory=Raw)
    filter: FilterField = msgspec.field(default_factory=Raw)
    condition: FilterField = msgspec.field(default_factory=Raw)
    return_ids: bool = False


class PatchRows(Struct, forbid_unknown_fields=True, kw_only=True):
    """Give rows other attributes: columns or rows with ``ids``, one object of values with a filter."""

    attributes: PatchField
    ids: IdsField = msgspec.field(default_factory=Raw)
    filter: FilterField = msgspec.field(default_factory=Raw)
    schema: dict[str, TypeName | Attribute] | None = None
    condition: FilterField = msgspec.field(default_factory=Raw)
    return_ids: bool = False


class _Effort(Struct, forbid_unknown_fields=True, kw_only=True):
    """How to search, but not what to answer."""

    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] = 10
    probe_fraction: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    nprobe: Annotated[int, Meta(ge=1)] | None = None
    target_recall: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = None
    rerank_scale: Annotated[float, Meta(ge=0.0, le=1000.0)] | None = None
    rerank_precision: RerankPrecision | None = None
    consistency: Consistency = "strong"
    max_staleness: Annotated[float, Meta(ge=0.0)] = 10.0
    epoch: Annotated[int, Meta(ge=1)] | None = None

    def params(self) -> SearchParams:
        return SearchParams(
            top_k=self.top_k,
            probe_fraction=self.probe_fraction,
            nprobe=self.nprobe,
            target_recall=self.target_recall,
            rerank_scale=self.rerank_scale,
            rerank_precision=self.rerank_precision,
            consistency=self.consistency,
            max_staleness=self.max_staleness,
            epoch=self.epoch,
        )


class _SearchOptions(_Effort, forbid_unknown_fields=True, kw_only=True):
    include: list[str] = []
    exclude: list[str] | None = None
    max_distance: float | None = None
    debug: bool = False

    def params(self) -> SearchParams:
        return replace(
            super().params(),
            include=tuple(self.include),
            exclude=None if self.exclude is None else tuple(self.exclude),
            max_distance=self.max_distance,
            debug=self.debug,
        )


class MeasureRecall(_Effort, forbid_unknown_fields=True, kw_only=True):
    """Measure recall with ``vectors``, or with stored rows or recent queries; ``dim`` as in an insert."""

    vectors: QueriesField = msgspec.field(default_factory=Raw)
    dim: Dim | None = None
    source: Literal["rows", "recent"] | None = None
    sample: Annotated[int, Meta(ge=1, le=MAX_QUERIES)] | None = None
    confidence: Annotated[float, Meta(ge=0.5, le=0.999)] = 0.95
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None
    filter: FilterField = msgspec.field(default_factory=Raw)

    def params(self) -> SearchParams:
        return replace(super().params(), filter=given_json(self.filter))


class AnySearch(_SearchOptions, forbid_unknown_fields=True, kw_only=True):
    """Of a vector, of the row of an ``id``, or the first rows in an order (``order_by``)."""

    vector: VectorField = msgspec.field(default_factory=Raw)
    id: Id | None = None
    include_self: bool = False
    order_by: tuple[str, Literal["asc", "desc"]] | None = None
    limit_per_group: tuple[str, Annotated[int, Meta(ge=1, le=MAX_TOP_K)]] | None = None
    filter: FilterField = msgspec.field(default_factory=Raw)

    def params(self) -> SearchParams:
        return replace(
            super().params(),
            filter=given_json(self.filter),
            order_by=self.order_by,
            limit_per_group=self.limit_per_group,
        )

    def query(self) -> object:
        """What neighbours are asked of; None if hits come in an order."""
        given = vector(self.vector) if is_given(self.vector) else None
        return query_of(given, self.id, self.include_self, self.order_by)


class Search(AnySearch, forbid_unknown_fields=True, kw_only=True):
    """One search, or a batch of them (``vectors``); ``dim`` as in an insert."""

    vectors: QueriesField = msgspec.field(default_factory=Raw)
    dim: Dim | None = None


class PlainSearch(_SearchOptions, forbid_unknown_fields=True, kw_only=True):
    """`Search` for one query, decoded in one pass: by far the most frequent request."""

    vector: list[float] | str
    filter: FilterField = msgspec.field(default_factory=Raw)

    def params(self) -> SearchParams:
        found = super().params()
        return replace(found, filter=given_json(self.filter)) if len(memoryview(self.filter)) else found


class SearchQuery(_SearchOptions, forbid_unknown_fields=True, kw_only=True):
    """One query in the parameters of a GET: ``vector`` is base64 (also URL-safe) or a JSON array."""

    vector: str
    filter: str | None = None

    def params(self) -> SearchParams:
        given = None if self.filter in (None, "null") else self.filter.encode()
        return replace(super().params(), filter=given)


class Restore(Struct, forbid_unknown_fields=True, kw_only=True):
    """Make a past epoch current again."""

    epoch: Annotated[int, Meta(ge=1)]


class CreateBranch(Struct, forbid_unknown_fields=True, kw_only=True):
    """Make a namespace of this name from an epoch; from the current one if none is named."""

    name: Name
    epoch: Annotated[int, Meta(ge=1)] | None = None


class CreateTag(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold an epoch against collection; the current one if none is named."""

    name: Name
    epoch: Annotated[int, Meta(ge=1)] | None = None


class Compact(Struct, forbid_unknown_fields=True, kw_only=True):
    """Merge all parts, or only what is due."""

    everything: bool = True


class Warm(Struct, forbid_unknown_fields=True, kw_only=True):
    """Begin, or go on where the answer before said."""

    cursor: Annotated[str, Meta(max_length=64)] | None = None


# -- answers -------------------------------------------------------------------------------


class NamespacePage(Struct, kw_only=True):
    """Namespaces by name; ``next_cursor`` continues."""

    namespaces: list[NamespaceInfo]
    next_cursor: str | None = None


class Tags(Struct, kw_only=True):
    """The tags of a namespace, by name."""

    tags: list[Tag]


class Inserted(Struct, kw_only=True, omit_defaults=True):
    """An acknowledged insert; ``ids`` if they were assigned, ``part_id`` null if no row was written."""

    part_id: str | None
    n: int
    epoch: int
    upserted: int
    inserted: int
    skipped: int
    ids: list[int] | UnsetType = UNSET
    affected_ids: list[RowId] | UnsetType = UNSET


class Deleted(Struct, kw_only=True, omit_defaults=True):
    """An acknowledged delete."""

    deleted: int
    skipped: int
    epoch: int
    affected_ids: list[RowId] | UnsetType = UNSET


class Patched(Struct, kw_only=True, omit_defaults=True):
    """An acknowledged patch; ``absent`` ids are not there."""

    patched: int
    skipped: int
    absent: int
    epoch: int
    affected_ids: list[RowId] | UnsetType = UNSET


class Neighbour(Struct, kw_only=True, omit_defaults=True):
    """One hit; attributes and ``vector`` if asked for, null if the namespace keeps none.

    ``distance`` is left out where hits come in the order of an attribute.
    """

    id: RowId
    distance: float | UnsetType = UNSET
    attributes: dict[str, Any] | UnsetType = UNSET
    vector: list[float] | UnsetType | None = UNSET


class Result(Struct, kw_only=True, omit_defaults=True):
    """The hits of one query of a batch."""

    hits: list[Neighbour]
    debug: dict[str, Any] | UnsetType = UNSET


class Found(Struct, kw_only=True, omit_defaults=True):
    """The answer to a search: ``hits`` to a vector, ``results`` to vectors; ``types`` of their attributes.

    What no hit shows is told beside them: ``id_kind`` if ids are strings, ``dim`` if vectors are asked for.
    """

    epoch: int
    id_kind: IdKind | UnsetType = UNSET
    dim: int | UnsetType = UNSET
    types: dict[str, AttributeType] | UnsetType = UNSET
    hits: list[Neighbour] | UnsetType = UNSET
    results: list[Result] | UnsetType = UNSET
    debug: dict[str, Any] | UnsetType = UNSET


class RowView(Struct, kw_only=True, omit_defaults=True):
    """One row; ``vector`` unless it was left out, null if the namespace keeps none."""

    id: RowId
    epoch: int
    attributes: dict[str, Any] | UnsetType = UNSET
    vector: list[float] | UnsetType | None = UNSET


class Health(Struct, kw_only=True):
    """Whether the server answers, or is ready: then with what was checked."""

    status: Literal["ok", "ready"]
    checks: dict[str, str] | UnsetType = UNSET


class ErrorBody(Struct, kw_only=True):
    """Every answer that is not 2xx."""

    code: str
    message: str
    details: dict[str, Any] = {}


# -- encoding ------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
encode = _encoder.encode


def found(hits: Hits) -> Found:
    """The body of the answer to one query."""
    neighbours = _neighbours(hits)
    return Found(
        epoch=hits.epoch,
        id_kind=id_kind(hits.ids, neighbours),
        dim=dim(hits.vectors, neighbours),
        types=UNSET if hits.types is None else hits.types,
        hits=neighbours,
        debug=UNSET if hits.debug is None else hits.debug,
    )


def found_batch(hits: BatchHits) -> Found:
    """The body of the answer to a batch."""
    results = [
        Result(hits=_neighbours(one), debug=UNSET if one.debug is None else one.debug)
        for one in (hits[i] for i in range(len(hits)))
    ]
    neighbours = [one for result in results for one in result.hits]
    return Found(
        epoch=hits.epoch,
        id_kind=id_kind(hits.ids, neighbours),
        dim=dim(hits.vectors, neighbours),
        types=UNSET if hits.types is None else hits.types,
        results=results,
    )


def id_kind(ids: npt.NDArray[Any], rows: Sequence[Struct]) -> IdKind | UnsetType:
    """What an answer tells of ids: that they are strings, if it has no row that shows it."""
    return "string" if not rows and ids.dtype == object else UNSET


def dim(vectors: F32 | None, rows: Sequence[Any]) -> int | UnsetType:
    """What an answer tells of the vectors that were asked for: their dimension, if no row shows it."""
    if vectors is None or any(row.vector is not None for row in rows):
        return UNSET
    return int(vectors.shape[-1])


def row_view(row: Row, *, with_vector: bool) -> RowView:
    """The body of the answer to a read by id."""
    view = RowView(id=row.id, epoch=row.epoch, attributes=row.attributes or UNSET)
    if with_vector:
        view.vector = None if row.vector is None else numbers(row.vector)
    return view


def _neighbours(hits: Hits) -> list[Neighbour]:
    ids, distances = hits.ids.tolist(), hits.distances.tolist()
    if distances and math.isnan(distances[0]):  # in the order of an attribute
        found = [Neighbour(id=i) for i in ids]
    else:
        found = [Neighbour(id=i, distance=d) for i, d in zip(ids, distances, strict=True)]
    if hits.vectors is not None:
        for one, vector in zip(found, hits.vectors, strict=True):
            one.vector = numbers(vector)
    if hits.attributes is not None:
        for one, attributes in zip(found, hits.attributes, strict=True):
            one.attributes = attributes
    return found


def given_json(raw: Raw) -> bytes | None:
    """The JSON of a filter, or of attributes, in a request; None if it is not there, or null."""
    return bytes(memoryview(raw)) if is_given(raw) else None


def is_given(raw: Raw) -> bool:
    """Whether a field is there, and not null; told without a copy of it."""
    return bytes(memoryview(raw)[:4]) not in (b"", b"null")


def check_dim(given: int | None, dim: int) -> None:
    """`DimensionMismatch` where a request says another dimension than its vectors or the namespace have."""
    if given is not None and given != dim:
        raise DimensionMismatch(
            f"dim is {given}, the vectors have {dim}", field="dim", limit=dim, given=given
        )


def numbers(vector: F32) -> Any:
    """A vector to be encoded as JSON numbers; None where a part keeps no vectors (the engine says NaN).

    `encode` makes a list of it when it gets there: those of all vectors are eight times as large as they.
    """
    return None if len(vector) and np.isnan(vector[0]) else vector


def etag(incarnation: str, epoch: int) -> str:
    """The ``ETag`` of a namespace at an epoch."""
    return f'"{incarnation}-{epoch}"'


def parse_etag(text: str) -> tuple[str, int]:
    """Incarnation and epoch of an ``ETag``."""
    text = text.strip()
    match = ETAG.fullmatch(text[1:-1]) if text[:1] == text[-1:] == '"' else None
    if match is None:
        raise InvalidArgument(
            'If-Match must be one ETag as answers carry it: "<incarnation>-<epoch>"', field="If-Match"
        )
    return match[1], int(match[2])


def encode_cursor(name: str) -> str:
    """Where a listing goes on: after ``name``."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The name in a cursor; `InvalidArgument` if it is none of ours."""
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidArgument("cursor is not one that a listing returned", field="cursor") from error
    if not 1 <= len(name) <= MAX_NAME_BYTES or encode_cursor(name) != cursor:
        raise InvalidArgument("cursor is not one that a listing returned", field="cursor")
    return name


# -- decoding ------------------------------------------------------------------------------

_ids_decoder = msgspec.json.Decoder(list[int | str])
_row_decoder = msgspec.json.Decoder(list[float])
_rows_decoder = msgspec.json.Decoder(list[Raw])
_plain_decoder = msgspec.json.Decoder(PlainSearch)


def plain_search(data: bytes) -> tuple[F32, SearchParams] | None:
    """One query and how to search, or None: a batch, or whatever else `Search` may have to refuse."""
    try:
        asked = _plain_decoder.decode(data)
        given = asked.vector
        if isinstance(given, str):
            values = _floats(_strict_base64(given, "vector"), "vector")
        else:
            values = _array(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidArgument):
        return None
    return (values, asked.params()) if len(values) and asked.exclude is None else None


def ids(data: bytes | None, *, limit: int) -> list[int | str] | None:
    """The ids of their JSON, counted before objects are made of them."""
    if data is None:
        return None
    if items(data) > limit:
        raise InvalidId(f"ids must be 1 to {limit}", field="ids", limit=limit)
    try:
        return _ids_decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid(error, "ids") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # strings have only been skipped so far
        raise InvalidId(f"ids hold what is no text: {error}", field="ids") from error


def vector(raw: Raw | bytes, *, field: str = "vector") -> F32:
    """f32[n] from JSON numbers or base64."""
    view = memoryview(raw)
    if bytes(view[:1]) == b'"':
        return _floats(_from_base64(view, field), field)
    return _row(view, field)


def vectors(raw: Raw, dim: int | None, *, limit: int, field: str = "vectors") -> F32 | bytes:
    """f32[N, n] from rows of JSON numbers or from base64; its bytes if ``dim`` is not known."""
    view = memoryview(raw)
    if bytes(view[:1]) == b'"':
        packed = _from_base64(view, field)
        return packed if dim is None else cut(packed, dim, field=field)
    try:
        if len(view) > AT_ONCE_BYTES and items(view) > limit:
            raise InvalidArgument(f"{field} must hold 1 to {limit} rows", field=field, limit=limit)
        rows = _rows_decoder.decode(view)
    except msgspec.ValidationError as error:
        raise InvalidArgument(
            f"{field} must be a list of rows of numbers, or base64 of float32", field=field
        ) from error
    if not 1 <= len(rows) <= limit:
        raise InvalidArgument(f"{field} must hold 1 to {limit} rows", field=field, limit=limit)
    first = _row(rows[0], f"{field}[0]")
    if len(rows) * len(first) * 2 > len(view):  # a number takes two bytes: not all rows are that long
        raise DimensionMismatch(f"{field} are not all of one length", field=field)
    out = np.empty((len(rows), len(first)), dtype=np.float32)
    out[0] = first
    for position in range(1, len(rows)):
        row = _row(rows[position], f"{field}[{position}]")
        if len(row) != len(first):
            raise DimensionMismatch(
                f"{field}[{position}] has {len(row)} numbers, the row before it {len(first)}",
                field=field,
                row=position,
                limit=len(first),
            )
        out[position] = row
    return out


def cut(packed: bytes, dim: int, *, field: str = "vectors") -> F32:
    """Bytes of float32 as f32[N, dim]."""
    if not packed or len(packed) % (4 * dim):
        raise DimensionMismatch(
            f"{field} hold {len(packed)} bytes, which is no multiple of {dim} float32",
            field=field,
            limit=dim,
            given=len(packed),
        )
    return _floats(packed, field).reshape(-1, dim)


def from_query(text: str, *, field: str = "vector") -> F32:
    """f32[n] from a query parameter: a JSON array, or base64 in either alphabet, padded or not."""
    if text.startswith("["):
        return _row(text.encode(), field)
    text = text.replace("-", "+").replace("_", "/").replace(" ", "+")
    return _floats(_strict_base64(text + "=" * (-len(text) % 4), field), field)


def _row(data: Raw | bytes | memoryview, field: str) -> F32:
    data = memoryview(data)
    if len(data) > AT_ONCE_BYTES and items(data) > MAX_DIM:
        raise DimensionMismatch(
            f"{field} has more than {MAX_DIM} numbers", field=_outer(field), limit=MAX_DIM
        )
    try:
        values = _row_decoder.decode(data)
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            raise InvalidVector(f"{field} holds a number beyond float64", field=_outer(field)) from error
        found = invalid(error, field)
        found.details = {"field": _outer(field), "at": found.details["field"]}
        raise found from error
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"{field} must be numbers or base64 of float32", field=_outer(field)) from error
    if not values:
        raise DimensionMismatch(f"{field} is empty", field=_outer(field))
    return _array(values)


def _array(values: list[float]) -> F32:
    """f32[n]; infinite where a number is beyond float32. By way of ``struct``, which is faster than NumPy."""
    try:
        return np.frombuffer(struct.pack(f"<{len(values)}f", *values), dtype="<f4")
    except OverflowError:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float64).astype(np.float32)


def _outer(field: str) -> str:
    return field.partition("[")[0]


def _from_base64(quoted: bytes | memoryview, field: str) -> bytes:
    try:
        return _strict_base64(quoted[1:-1], field)
    except InvalidArgument:
        if b"\\" in bytes(quoted):  # some encoders write / as \/
            return _strict_base64(_text(quoted, field), field)
        raise


def _text(quoted: bytes | memoryview, field: str) -> str:
    try:
        return msgspec.json.decode(quoted, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{field} is not base64: {error}", field=field) from error


def _strict_base64(text: str | bytes | memoryview, field: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise InvalidArgument(f"{field} is not base64: {error}", field=field) from error


def _floats(packed: bytes, field: str) -> F32:
    if not packed:
        raise DimensionMismatch(f"{field} is empty", field=field)
    if len(packed) % 4:
        raise DimensionMismatch(
            f"{field} holds {len(packed)} bytes, which is no whole number of float32",
            field=field,
            given=len(packed),
        )
    values: npt.NDArray[np.float32] = np.frombuffer(packed, dtype="<f4").astype(np.float32, copy=False)
    return values


def page_size(text: str | None) -> int:
    """``page_size`` of a listing."""
    if text is None:
        return 100
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_PAGE_SIZE:
        raise InvalidArgument(
            f"page_size must be an integer from 1 to {MAX_PAGE_SIZE}", field="page_size", limit=MAX_PAGE_SIZE
        )
    return int(text)
