"""Values that cross the public interface. Plain, immutable, free of I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Metric = Literal["cosine", "l2", "dot"]
IdKind = Literal["u64", "string"]
Consistency = Literal["strong", "eventual"]
RerankPrecision = Literal["none", "int8", "fp32"]
StoreVectors = Literal["fp32", "fp16", "none"]
WriteMode = Literal["upsert", "insert", "insert_if_absent"]
ScanOrder = Literal["id", "stored"]
RecallSource = Literal["rows", "recent", "queries"]
ScalarType = Literal["string", "int", "uint", "float", "bool", "datetime", "uuid"]
AttributeType = Literal[
    "string",
    "int",
    "uint",
    "float",
    "bool",
    "datetime",
    "uuid",
    "[]string",
    "[]int",
    "[]uint",
    "[]float",
    "[]bool",
    "[]datetime",
    "[]uuid",
]
AggregateFunction = Literal["Count", "CountDistinct", "Sum", "Avg", "Min", "Max"]
RowId = int | str
Order = tuple[str, Literal["asc", "desc"]]  # an attribute, or ``id``
Expected = tuple[str, int]  # incarnation and epoch that a write asks a namespace to be at

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]


def _equal(one: Any, other: Any) -> bool:
    """Whether results of one kind hold the same, arrays by their values.

    NaN, which says that there is no vector or no distance, is equal to itself.
    """
    if type(one) is not type(other):
        return NotImplemented  # type: ignore[no-any-return]
    return all(_same(getattr(one, told.name), getattr(other, told.name)) for told in fields(one))


def _same(one: Any, other: Any) -> bool:
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return type(one) is type(other) and bool(one == other)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")


@dataclass(frozen=True, slots=True)
class InsertResult:
    """What an acknowledged insert did.

    Attributes
    ----------
    part_id
        The part that holds the rows; None if none was written.
    n
        Rows written.
    epoch
        The first epoch in which they are visible.
    upserted
        Older live rows of the same ids that died in the same commit. The others were inserted.
    ids
        Assigned ids, u64[n], when none were given; else None.
    incarnation
        Of the namespace; with ``epoch`` the ``if_match`` of a later write.
    skipped
        Rows that were not written, because the one that is there does not meet the condition.
    affected_ids
        If asked for: the ids that were written, the first 100,000 of them. None where the answer is that
        of an earlier request under the same idempotency key.
    """

    part_id: str | None
    n: int
    epoch: int
    upserted: int = 0
    ids: U64 | None = None
    incarnation: str = ""
    skipped: int = 0
    affected_ids: list[RowId] | None = None

    __eq__ = _equal

    @property
    def inserted(self) -> int:
        """Rows of ids that were not there."""
        return self.n - self.upserted


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """``deleted`` live rows died in ``epoch``.

    Attributes
    ----------
    skipped
        Rows of the given ids that do not meet the condition.
    affected_ids
        As of `InsertResult`: those that died.
    """

    deleted: int
    epoch: int
    incarnation: str = ""
    skipped: int = 0
    affected_ids: list[RowId] | None = None


@dataclass(frozen=True, slots=True)
class PatchResult:
    """``patched`` rows have their new attributes from ``epoch`` on.

    Attributes
    ----------
    skipped
        Rows of the given ids that do not meet the condition.
    absent
        Ids that are not there.
    affected_ids
        As of `InsertResult`: those that were patched.
    """

    patched: int
    epoch: int
    incarnation: str = ""
    skipped: int = 0
    absent: int = 0
    affected_ids: list[RowId] | None = None


@dataclass(frozen=True, slots=True)
class CompactResult:
    """Parts merged, and the new one: None if nothing was due, it was thrown away, or no row was alive.

    Of several merges one after another ``part_id`` is the last of their parts, and ``rows`` those of all.
    """

    merged: tuple[str, ...]
    part_id: str | None
    rows: int
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One part of an epoch.

    Attributes
    ----------
    tier
        By which compaction groups parts of like size: live rows, as a logarithm to the base ``fan_in``.
    rows, live
        All rows, and those that are not deleted.
    lists
        Into which its rows are divided; a part of one list is scanned whole.
    vectors
        Precision at which they are kept.
    created_at
        When its upload began, in seconds of Unix time by the store's clock.
    owner
        Namespace that holds the object; another one where this is a branch, None if the key may not see it.
    """

    id: str
    tier: int
    rows: int
    live: int
    lists: int
    bytes: int
    vectors: StoreVectors
    created_at: float
    owner: str | None


@dataclass(frozen=True, slots=True)
class DueCompaction:
    """What would be merged next: ids of parts, and why."""

    parts: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class PartsReport:
    """The parts of one epoch, and of the current one what compaction does and would do.

    Attributes
    ----------
    fan_in
        So many parts of one tier are merged.
    due
        None if nothing is, and of past epochs.
    compaction
        What is being merged: ``holder``, ``began``, ``parts``, ``rows``, ``reason``, ``done`` (0 to 1). None
        if nothing is, and of past epochs.
    """

    epoch: int
    parts: tuple[PartInfo, ...]
    fan_in: int
    due: DueCompaction | None
    compaction: dict[str, Any] | None
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class DiskStats:
    """Of the node's cache (``bytes``, ``pages``, ``segments``) and of this process's use of it.

    Attributes
    ----------
    bytes
        Of the disk that segments take, filled or not; at most ``max_bytes``.
    evictions
        Pages that this process's writes drove out.
    damaged
        Pages that failed their checksum, and were dropped.
    failures
        Times that the disk or the index could not be used, and was left alone for a moment; the log
        says why.
    """

    max_bytes: int = 0
    bytes: int = 0
    pages: int = 0
    segments: int = 0
    hits: int = 0
    written: int = 0
    evictions: int = 0
    damaged: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Of the caches of one process since they were made; what a process maps is in none of them.

    Attributes
    ----------
    hits, misses
        Pages asked for that were in memory, and that were not.
    bytes, pages
        Held in memory now, with what a page takes beside its content.
    requests, fetched
        Sent to the store, and bytes received.
    disk
        None without a disk cache.
    process
        Its id. A server has one a worker, and the one that answers tells of itself.
    max_bytes
        Held in memory at most.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes: int = 0
    pages: int = 0
    requests: int = 0
    fetched: int = 0
    disk: DiskStats | None = None
    process: int = 0
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class GcResult:
    """One collection: objects deleted (or, on a dry run, that would be), and kept for the grace period."""

    deleted: int
    bytes: int
    waiting: int
    dry_run: bool
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for an epoch, which is kept as long as the tag is.

    Attributes
    ----------
    created_at
        Seconds of Unix time by the store's clock.
    """

    name: str
    epoch: int
    created_at: float


@dataclass(frozen=True, slots=True)
class WarmResult:
    """How far warming has come.

    Attributes
    ----------
    warmed, total
        Bytes that are in the caches, of those that a search at the default target may need. Less at the
        end means that the caches have no more room.
    fetched
        Bytes that had to be fetched from the store.
    next
        Where to go on; None at the end.
    """

    epoch: int
    warmed: int
    total: int
    fetched: int
    next: str | None
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that verification found wrong.

    Attributes
    ----------
    object, section
        Where; ``offset`` of the page that fails, if one does.
    rule
        The promise or the rule of the protocol that is broken.
    """

    object: str
    section: str
    rule: str
    message: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class CopiedNamespace:
    """What became of one namespace in a copy between stores.

    Attributes
    ----------
    epoch
        Of the source, that was copied; None if it failed.
    copied, copied_bytes
        Parts that were sent, or would be in a dry run.
    skipped, skipped_bytes
        Parts that the target had already.
    changed
        Whether the target needed a commit.
    code, message
        The error, if it failed; the target is then as it was.
    """

    name: str
    epoch: int | None = None
    copied: int = 0
    copied_bytes: int = 0
    skipped: int = 0
    skipped_bytes: int = 0
    changed: bool = False
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What a copy between stores did, by namespace."""

    namespaces: tuple[CopiedNamespace, ...]
    dry_run: bool

    @property
    def failed(self) -> tuple[CopiedNamespace, ...]:
        """Those that were not copied."""
        return tuple(one for one in self.namespaces if one.code is not None)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verification read and found.

    Attributes
    ----------
    found, problems
        How many there are, and the first of them.
    orphans, orphan_bytes, orphan_keys
        Objects that no readable epoch names, and the first of them: uploads under way, or garbage.
    """

    namespaces: int
    objects: int
    bytes: int
    found: int
    problems: tuple[Problem, ...]
    orphans: int
    orphan_bytes: int
    orphan_keys: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.found


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How to search; None means the namespace's default.

    ``nprobe`` (lists a part) wins over ``target_recall``, which wins over ``probe_fraction``. ``filter`` is
    JSON (`vecstore.rows.filters`). ``include`` names attributes, or ``vector``, that hits bring; with
    ``exclude`` they bring all attributes but those. Hits are no farther than ``max_distance``. With
    ``order_by`` they come in the order of an attribute, and there is no query. ``limit_per_group`` is an
    attribute and how many hits may have the same value of it.
    """

    top_k: int = 10
    probe_fraction: float | None = None
    nprobe: int | None = None
    target_recall: float | None = None
    rerank_scale: float | None = None
    rerank_precision: RerankPrecision | None = None
    consistency: Consistency = "strong"
    max_staleness: float = 10.0
    epoch: int | None = None
    include: tuple[str, ...] = ()
    debug: bool = False
    filter: bytes | None = None
    exclude: tuple[str, ...] | None = None
    max_distance: float | None = None
    order_by: Order | None = None
    limit_per_group: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class StoredRow:
    """The vector of a stored row, in the place of a query.

    Attributes
    ----------
    itself
        Whether the row may be a hit of itself.
    """

    id: RowId
    itself: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """Which epoch several queries are answered from, as in `SearchParams`."""

    consistency: Consistency = "strong"
    max_staleness: float = 10.0
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One search of several.

    Attributes
    ----------
    asked
        What neighbours are asked of: a vector, or a `StoredRow`; None if hits come in an order.
    """

    asked: object
    params: SearchParams


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One result of an aggregation; ``attribute`` is None where rows are counted."""

    function: AggregateFunction
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class AggregateParams:
    """What to compute of which rows.

    Attributes
    ----------
    aggregate_by
        Results by label.
    group_by
        Attributes; rows with the same values of them are one group.
    filter
        JSON, as in `SearchParams`.
    """

    aggregate_by: tuple[tuple[str, Aggregation], ...]
    group_by: tuple[str, ...] = ()
    filter: bytes | None = None
    consistency: Consistency = "strong"
    max_staleness: float = 10.0
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Aggregates:
    """What was computed of the rows of one epoch.

    Attributes
    ----------
    values
        Results by label; None if rows were grouped.
    groups
        Of each group its values by attribute and its results by label, in the order of the values, null
        last; None if rows were not grouped.
    """

    epoch: int
    values: dict[str, Any] | None
    groups: list[dict[str, Any]] | None
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class ScanParams:
    """One page of a scan.

    Attributes
    ----------
    limit
        Rows that it has at most.
    order
        By ascending id, or as rows are stored; None: by id where ids are integers.
    include, exclude
        As in a search, but with neither rows bring all attributes.
    cursor
        Of the page before, which decides epoch and order.
    """

    limit: int = 1_000
    order: ScanOrder | None = None
    filter: bytes | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    epoch: int | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RecallSample:
    """Which queries recall is measured with.

    Attributes
    ----------
    source
        Stored rows, recent queries of the process, or queries that are given.
    sample
        How many of them at most, drawn at random; None for a default, or for all that are given.
    confidence
        Of the interval.
    seed
        Of the draw; None for a new one.
    """

    source: RecallSource = "rows"
    sample: int | None = None
    confidence: float = 0.95
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class RecallReport:
    """Recall that was measured against exact search, on one epoch.

    Attributes
    ----------
    recall
        Mean over the queries of the share of each query's ``top_k`` nearest rows that were found.
    low, high
        Bounds of the interval of that ``confidence`` for the mean over all such queries.
    queries, source, seed
        How many were asked, where they come from, and the seed that draws the same again.
    top_k
        Rows wanted of each.
    epoch, rows
        What was searched, and its live rows.
    rows_scanned, lists_probed, lists
        Means a query of the search; all lists of the namespace.
    search_seconds, exact_seconds
        Means a query, each asked in batches.
    options
        How it was searched: the options given, and the namespace's defaults for the others.
    """

    recall: float
    low: float
    high: float
    confidence: float
    queries: int
    source: RecallSource
    seed: int
    top_k: int
    epoch: int
    rows: int
    rows_scanned: float
    lists_probed: float
    lists: int
    search_seconds: float
    exact_seconds: float
    options: dict[str, Any]
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class RecallEstimate:
    """Recall of live searches of one process, from the share of them that it samples.

    Attributes
    ----------
    sample_rate
        The share; 0 if nothing is sampled.
    queries
        Measured and counted here: the latest thousand at most.
    recall, low, high
        Mean over them and the bounds of its interval; None as long as there are none.
    since, until
        When the first and the last of them were asked, in seconds of Unix time.
    epoch
        The last that one was measured on.
    """

    sample_rate: float
    queries: int = 0
    recall: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    since: float | None = None
    until: float | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One neighbour: lower ``distance`` is nearer; None if hits come in the order of an attribute."""

    id: RowId
    distance: float | None
    attributes: dict[str, Any] | None = None
    vector: F32 | None = None

    __eq__ = _equal


@dataclass(slots=True)
class Hits(Sequence[Hit]):
    """The neighbours of one query, nearest first.

    One is made for every query, and to freeze it takes longer than all checks of the query (1 us).

    Attributes
    ----------
    ids
        u64[k], or an object array of str.
    distances
        f32[k]: ``1 - cos``, squared L2, or ``-dot``; NaN if hits come in the order of an attribute.
    epoch
        The one epoch that was read.
    vectors
        f32[k, D] if asked for with ``include=["vector"]``.
    debug
        Plan, counts, times and storage traffic if asked for.
    attributes
        Of each hit, those that were asked for; None if none were.
    types
        Of these attributes, by name.
    """

    ids: npt.NDArray[Any]
    distances: F32
    epoch: int
    vectors: F32 | None = None
    debug: dict[str, Any] | None = None
    incarnation: str = ""
    attributes: list[dict[str, Any]] | None = None
    types: dict[str, AttributeType] | None = None

    __eq__ = _equal

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        identity, distance = self.ids[i], float(self.distances[i])
        return Hit(
            id=identity if isinstance(identity, str) else int(identity),
            distance=None if math.isnan(distance) else distance,
            attributes=None if self.attributes is None else self.attributes[i],
            vector=None if self.vectors is None else self.vectors[i],
        )

    def __iter__(self) -> Iterator[Hit]:
        return (self[i] for i in range(len(self)))

    @property
    def rows(self) -> list[Hit]:
        """The hits as objects."""
        return list(self)

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table`` of ``id``, ``distance``, and ``vector`` and attributes if asked for.

        Needs the extra ``arrow``. Datetimes are in milliseconds of UTC, UUIDs text.
        """
        from vecstore.arrow import rows_as_table

        types = self.types or {}
        told = self.attributes or []
        columns = {name: [one[name] for one in told] for name in types}
        return rows_as_table(self.ids, columns, types, self.vectors, {"distance": self.distances})

    def to_pandas(self) -> Any:
        """As `to_arrow`, a ``pandas.DataFrame``. Extra ``pandas``."""
        from vecstore.arrow import to_pandas

        return to_pandas(self.to_arrow())


@dataclass(frozen=True, slots=True)
class BatchHits:
    """The neighbours of M queries of one epoch; a query with fewer than k hits is padded.

    Attributes
    ----------
    ids
        u64[M, k] or object[M, k]; padding is 0 or "".
    distances
        f32[M, k]; padding is +inf.
    counts
        i64[M]: hits of each query.
    """

    ids: npt.NDArray[Any]
    distances: F32
    counts: npt.NDArray[np.int64]
    epoch: int
    vectors: F32 | None = None
    debug: list[dict[str, Any]] | None = None
    incarnation: str = ""
    attributes: list[list[dict[str, Any]]] | None = None  # of the hits of each query
    types: dict[str, AttributeType] | None = None

    __eq__ = _equal

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, i: int) -> Hits:
        n = int(self.counts[i])
        return Hits(
            ids=self.ids[i, :n],
            distances=self.distances[i, :n],
            epoch=self.epoch,
            vectors=None if self.vectors is None else self.vectors[i, :n],
            debug=None if self.debug is None else self.debug[i],
            incarnation=self.incarnation,
            attributes=None if self.attributes is None else self.attributes[i],
            types=self.types,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One live row by id; ``vector`` is exact unless the namespace stores fp16 or none."""

    id: RowId
    vector: F32 | None
    epoch: int
    attributes: dict[str, Any] = field(default_factory=dict)
    incarnation: str = ""

    __eq__ = _equal


@dataclass(frozen=True, slots=True)
class ScanPage(Sequence[Row]):
    """Rows of one epoch, each live there.

    Attributes
    ----------
    ids
        u64[n], or an object array of str.
    columns
        Of the attributes that were asked for: a value a row, as JSON has it.
    types
        Of these attributes.
    vectors
        f32[n, D] if asked for; NaN where none are kept.
    cursor
        Where the next page begins; None at the end, and only there: a page may have fewer rows than its
        limit, or none.
    """

    ids: npt.NDArray[Any]
    columns: dict[str, list[Any]]
    types: dict[str, AttributeType]
    vectors: F32 | None
    epoch: int
    cursor: str | None
    incarnation: str = ""

    __eq__ = _equal

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        identity = self.ids[i]
        return Row(
            identity if isinstance(identity, str) else int(identity),
            None if self.vectors is None else self.vectors[i],
            self.epoch,
            {name: values[i] for name, values in self.columns.items()},
            self.incarnation,
        )

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table``, as `Hits.to_arrow`, of ``id``, and ``vector`` and attributes if asked for."""
        from vecstore.arrow import rows_as_table

        return rows_as_table(self.ids, self.columns, self.types, self.vectors)

    def to_pandas(self) -> Any:
        """As `to_arrow`, a ``pandas.DataFrame``. Extra ``pandas``."""
        from vecstore.arrow import to_pandas

        return to_pandas(self.to_arrow())


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """What a namespace is and holds at one epoch."""

    name: str
    dim: int
    metric: Metric
    id_kind: IdKind | None
    incarnation: str
    epoch: int
    rows: int
    parts: int
    bytes: int
    tombstones: int
    created_at: float
    updated_at: float
    defaults: dict[str, Any]
    schema: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        """The value of the HTTP ``ETag``: incarnation and epoch."""
        return f"{self.incarnation}-{self.epoch}"
