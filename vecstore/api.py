"""The public Python API: `connect`, `Database`, `Namespace`.

The same over an embedded store and over HTTP: both are a `Backend`, and this module only gives
them their public shape.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidArgument
from vecstore.limits import COMPACTION_BYTES, LEAST_COMPACTION_BYTES, MAX_PAGE_SIZE, MAX_QUERIES
from vecstore.manifest.model import Settings
from vecstore.manifest.settings import check_metric, updated_settings
from vecstore.observe import Observer
from vecstore.params import (
    aggregate_params,
    check_batch,
    check_epoch,
    check_key,
    check_moment,
    check_page,
    check_params,
    check_sample,
    expected_of,
    flag,
    included,
    is_integer,
    is_number,
    ordered_by,
    params_of,
    per_group,
    plain,
    query_of,
    required_epoch,
    scan_params,
    search_params,
    several,
)
from vecstore.progress import Progress, within
from vecstore.rows.filters import filter_bytes
from vecstore.rows.given import held
from vecstore.rows.ids import validate_name
from vecstore.rows.vectors import validate_dim
from vecstore.scan import Scan
from vecstore.storage.base import ObjectStore
from vecstore.types import (
    AggregateParams,
    Aggregates,
    BatchHits,
    CacheStats,
    CompactResult,
    Consistency,
    CopyResult,
    DeleteResult,
    Expected,
    GcResult,
    Hits,
    InsertResult,
    Metric,
    Moment,
    NamespaceInfo,
    PartsReport,
    PatchResult,
    Query,
    RecallEstimate,
    RecallReport,
    RecallSample,
    RecallSource,
    RerankPrecision,
    Row,
    RowId,
    ScanOrder,
    ScanPage,
    ScanParams,
    SearchParams,
    Tag,
    WarmResult,
    WriteMode,
)
from vecstore.urls import is_server, path_of

LEAST_DISK_BYTES = 64 << 20


class Backend(Protocol):
    """What an embedded database and an HTTP client have in common."""

    def create(
        self, name: str, dim: int, metric: Metric, settings: dict[str, Any], *, schema: object = None
    ) -> NamespaceInfo: ...
    def info(self, name: str) -> NamespaceInfo: ...
    def list(self, prefix: str, *, after: str | None, limit: int) -> Iterator[NamespaceInfo]: ...
    def delete(
        self, name: str, *, incarnation: str | None = None, expected: Expected | None = None
    ) -> None: ...
    def update(
        self, name: str, settings: dict[str, Any], *, schema: object = None, expected: Expected | None = None
    ) -> NamespaceInfo: ...
    def insert(
        self,
        name: str,
        vectors: object,
        ids: object,
        *,
        attributes: object = None,
        schema: object = None,
        mode: WriteMode,
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None,
        idempotency_key: str | None,
        progress: Progress | None = None,
    ) -> InsertResult: ...
    def delete_rows(
        self,
        name: str,
        ids: object,
        *,
        filter: object = None,
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None,
        idempotency_key: str | None,
    ) -> DeleteResult: ...
    def patch_rows(
        self,
        name: str,
        ids: object,
        attributes: object,
        *,
        filter: object = None,
        schema: object = None,
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None,
        idempotency_key: str | None,
    ) -> PatchResult: ...
    def restore(self, name: str, epoch: int, *, expected: Expected) -> NamespaceInfo: ...
    def branch(self, name: str, new_name: str, epoch: int | None) -> NamespaceInfo: ...
    def tags(self, name: str) -> Sequence[Tag]: ...
    def tag(self, name: str, tag: str, epoch: int | None) -> Tag: ...
    def untag(self, name: str, tag: str) -> None: ...
    def search(self, name: str, vector: object, params: SearchParams) -> Hits: ...
    def search_batch(self, name: str, vectors: object, params: SearchParams) -> BatchHits: ...
    def aggregate(self, name: str, params: AggregateParams) -> Aggregates: ...
    def multi_query(
        self, name: str, queries: Sequence[Query | AggregateParams], moment: Moment
    ) -> Sequence[Hits | Aggregates]: ...
    def measure_recall(
        self, name: str, queries: object | None, asked: RecallSample, params: SearchParams
    ) -> RecallReport: ...
    def recall_estimate(self, name: str) -> RecallEstimate: ...
    def row(self, name: str, identity: RowId, *, include_vector: bool, epoch: int | None) -> Row: ...
    def scan(self, name: str, params: ScanParams) -> ScanPage: ...
    def manifest(self, name: str, epoch: int | None) -> dict[str, Any]: ...
    def parts(self, name: str, epoch: int | None) -> PartsReport: ...
    def compact(self, name: str, *, everything: bool, progress: Progress | None = None) -> CompactResult: ...
    def warm(self, name: str, cursor: str | None) -> WarmResult: ...
    def collect(self, name: str, *, retention: float, grace: float, dry_run: bool) -> GcResult: ...
    def cache_stats(self) -> CacheStats: ...
    def ping(self) -> None: ...
    def close(self) -> None: ...


def connect(
    url: str | os.PathLike[str] = "./data",
    *,
    maintenance: Literal["thread", "off"] = "thread",
    cache_bytes: int = 256 << 20,
    cache_dir: str | os.PathLike[str] | None = None,
    disk_cache_bytes: int = 10 << 30,
    open_namespaces: int = 1_000,
    compaction_bytes: int = COMPACTION_BYTES,
    temp_dir: str | os.PathLike[str] | None = None,
    recall_sample_rate: float = 0.0,
    observer: Observer | None = None,
    **options: Any,
) -> Database:
    """Open a database.

    Parameters
    ----------
    url
        A directory (``./data``, ``file:///…``, a path object), ``s3://bucket/prefix``, ``memory://name``, or
        ``http://host:port`` of a server.
    maintenance
        Whether a thread of this process compacts the namespaces that it writes to. A server has a
        process for that; over HTTP this is ignored.
    cache_bytes
        Memory for pages read from S3.
    cache_dir, disk_cache_bytes
        A folder on a local disk for what was read from S3, shared by all processes that name it, and
        how much it may take. None: nothing is kept on disk.
    open_namespaces
        How many are held open; one that was not used for longest makes room.
    compaction_bytes, temp_dir
        Memory that a compaction of this process may take, and where its temporary files go; None:
        ``TMPDIR``, or else ``/var/tmp`` or where the system puts such files.
    recall_sample_rate
        Share of searches whose recall a thread of this process measures (`Namespace.recall_estimate`).
        A server has a setting for that; over HTTP this is ignored.
    observer
        Hears of searches, commits and requests to the store (`vecstore.observe`); over HTTP this is ignored.
    options
        Of the transport: for S3 ``endpoint_url``, ``region``, ``access_key``, …; for HTTP ``timeout``, and
        ``api_key``, which the environment may hold as ``VECSTORE_API_KEY``.

    Raises
    ------
    InvalidArgument
        A URL or an option that is not known.
    """
    url = path_of("url", url)
    if is_server(url):
        from vecstore.client import OPTIONS, HttpBackend

        for name in options:
            if name not in OPTIONS:
                raise InvalidArgument(f"a server takes no option {name!r}", field=name)
        return Database(
            HttpBackend(url, **{"api_key": os.environ.get("VECSTORE_API_KEY") or None, **options})
        )
    if maintenance not in ("thread", "off"):
        raise InvalidArgument('maintenance must be "thread" or "off"', field="maintenance")
    recall_sample_rate = plain(recall_sample_rate)
    if not is_number(recall_sample_rate) or not 0.0 <= recall_sample_rate <= 1.0:
        raise InvalidArgument("recall_sample_rate must be from 0 to 1", field="recall_sample_rate", limit=1.0)
    cache_bytes = _bounded("cache_bytes", cache_bytes, 0)
    disk_cache_bytes = _bounded("disk_cache_bytes", disk_cache_bytes, LEAST_DISK_BYTES)
    open_namespaces = _bounded("open_namespaces", open_namespaces, 1)
    compaction_bytes = _bounded("compaction_bytes", compaction_bytes, LEAST_COMPACTION_BYTES)
    cache_dir = None if cache_dir is None else path_of("cache_dir", cache_dir)
    temp_dir = None if temp_dir is None else path_of("temp_dir", temp_dir)
    if temp_dir is not None and not os.path.isdir(temp_dir):
        raise InvalidArgument(f"temp_dir {temp_dir} is no folder", field="temp_dir")
    from vecstore.engine.database import EmbeddedDatabase
    from vecstore.maintenance.policy import Policy
    from vecstore.storage.disk import DiskCache
    from vecstore.storage.open import open_store

    return Database(
        EmbeddedDatabase(
            open_store(url, observer=observer, **options),
            cache_bytes=cache_bytes,
            disk=None if cache_dir is None else DiskCache(cache_dir, disk_cache_bytes, observer=observer),
            open_namespaces=open_namespaces,
            maintenance=maintenance == "thread",
            policy=Policy(memory=compaction_bytes),
            temp_dir=temp_dir,
            recall_sample_rate=recall_sample_rate,
            observer=observer,
        )
    )


def copy_store(
    source: str | os.PathLike[str] | Database,
    target: str | os.PathLike[str] | Database,
    namespaces: Sequence[str] | None = None,
    *,
    dry_run: bool = False,
    expect: Callable[[int], object] = lambda _: None,
    progress: Callable[[int], object] = lambda _: None,
) -> CopyResult:
    """Copy namespaces with their tags from one store to another: a backup, its restore, a move.

    Each is copied as it is at one epoch, while others write to it. What the target has already is not sent
    again. What is sent is checked against its checksums on the way, and once more where it arrived. At the
    target a namespace changes by one commit in the end, or not at all. See ``docs/backup.md``.

    Parameters
    ----------
    source, target
        URLs of stores, or embedded databases that are connected to them. Not servers.
    namespaces
        Names; None for all that the source has. Others of the target are left as they are.
    dry_run
        Tell what would be sent; nothing is changed.
    expect, progress
        Told how many bytes will be sent, as that becomes known, and how many were.

    Returns
    -------
    For each namespace what was sent and what was not, or why it could not be copied. ``diverged`` is the code
    of one that was written to at the target: it is never replaced.

    Raises
    ------
    NamespaceNotFound
        No names were given, and the source never had a namespace: its URL may be mistyped.
    """
    from vecstore.maintenance import copying

    with _store_of(source, "source") as origin, _store_of(target, "target") as goal:
        return copying.copy_store(
            origin, goal, namespaces, dry_run=flag("dry_run", dry_run), expect=expect, progress=progress
        )


@contextmanager
def _store_of(named: str | os.PathLike[str] | Database, field: str) -> Iterator[ObjectStore]:
    from vecstore.engine.database import EmbeddedDatabase
    from vecstore.storage.open import open_store

    if isinstance(named, Database):
        if not isinstance(named.backend, EmbeddedDatabase):
            raise InvalidArgument(f"{field} is a server; stores are copied", field=field)
        named.backend.check()
        yield named.backend.store
        return
    url = path_of(field, named)
    if is_server(url):
        raise InvalidArgument(f"{field} is a server; stores are copied", field=field)
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def _bounded(name: str, given: Any, least: int) -> int:
    value = plain(given)
    if not is_integer(value) or value < least:
        raise InvalidArgument(f"{name} must be an integer of at least {least}", field=name, limit=least)
    return int(value)


def _together(steps: Sequence[CompactResult]) -> CompactResult:
    """Of merges one after another: the parts that went into them, and what came of them all."""
    made: dict[str, int] = {}
    merged: list[str] = []
    for one in steps:
        merged += [part for part in one.merged if made.pop(part, None) is None]
        if one.part_id is not None:
            made[one.part_id] = one.rows
    last = max(steps, key=lambda one: one.epoch)
    return CompactResult(
        tuple(merged), next(reversed(made), None), sum(made.values()), last.epoch, steps[0].reason
    )


def _settings(defaults: dict[str, Any]) -> dict[str, Any]:
    """Settings that are ones, before JSON makes null of a number that is not finite."""
    given = {name: plain(value) for name, value in defaults.items()}
    updated_settings(Settings(), given)
    return given


class Database:
    """Many namespaces. Safe to share between threads; not across ``fork``. A context manager."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def backend(self) -> Backend:
        """What carries requests out; for transports such as the server."""
        return self._backend

    def create_namespace(
        self,
        name: str,
        dim: int,
        metric: Metric = "cosine",
        *,
        schema: Mapping[str, Any] | None = None,
        **defaults: Any,
    ) -> Namespace:
        """Create a namespace.

        Parameters
        ----------
        name
            1-128 of ``[A-Za-z0-9._-]``, the first a letter or digit.
        dim
            Dimension, 1-4,096.
        metric
            ``"cosine"`` (distance 1 - cos), ``"l2"`` (squared) or ``"dot"`` (-dot).
        schema
            Attributes and their types, as for `Namespace.insert`, where writes shall not infer them.
        defaults
            Settings of `vecstore.manifest.model.Settings`.

        Raises
        ------
        NamespaceExists, InvalidArgument
        """
        created = self._backend.create(
            validate_name(name),
            validate_dim(dim),
            check_metric(plain(metric)),
            _settings(defaults),
            schema=schema,
        )
        return Namespace(self._backend, created.name)

    def namespace(self, name: str) -> Namespace:
        """An existing namespace. `NamespaceNotFound` if there is none."""
        return Namespace(self._backend, self._backend.info(name).name)

    def namespaces(self, prefix: str = "") -> Iterator[NamespaceInfo]:
        """All namespaces whose name starts with ``prefix``, by name."""
        check_page(prefix, None, MAX_PAGE_SIZE)
        after: str | None = None
        while True:
            page = list(self._backend.list(prefix, after=after, limit=MAX_PAGE_SIZE))
            yield from page
            if len(page) < MAX_PAGE_SIZE:
                return
            after = page[-1].name

    def namespaces_page(
        self, prefix: str = "", *, after: str | None = None, limit: int = 100
    ) -> list[NamespaceInfo]:
        """One page of `namespaces`, from the first name > ``after``."""
        limit = check_page(prefix, after, limit)
        return list(self._backend.list(prefix, after=after or None, limit=limit))

    def delete_namespace(self, name: str, *, if_match: Expected | str | None = None) -> None:
        """Delete a namespace and all its rows by one commit. `NamespaceNotFound` if there is none."""
        self._backend.delete(name, expected=expected_of(if_match))

    def cache_stats(self) -> CacheStats:
        """What the caches of this process have done and hold; over HTTP, of the worker that answers."""
        return self._backend.cache_stats()

    def close(self) -> None:
        """Stop maintenance, release connections. Idempotent.

        An embedded database is of no use after that: what is asked of its namespaces is `DatabaseClosed`. One
        over HTTP connects anew for what it is asked, and has to be closed again.
        """
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Namespace:
    """A set of rows with one dimension and metric. Safe to share between threads.

    ``if_match`` of a write is the ``(incarnation, epoch)`` that the namespace must be at, or
    `NamespaceInfo.etag`; `PreconditionFailed` if it has moved on, and nothing was changed.
    """

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self.name = name

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    def insert(
        self,
        vectors: npt.ArrayLike,
        ids: Sequence[int] | Sequence[str] | npt.ArrayLike | None = None,
        *,
        attributes: Any = None,
        schema: Mapping[str, Any] | None = None,
        mode: WriteMode = "upsert",
        condition: Sequence[Any] | None = None,
        return_ids: bool = False,
        if_match: Expected | str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> InsertResult:
        """Insert a batch as one part; durable and visible everywhere when this returns.

        Parameters
        ----------
        vectors
            Anything NumPy turns into f32[N, dim].
        ids
            N u64 or N strings of at most 64 bytes, one kind a namespace: a list, an array, or a column of
            Arrow, pandas or Polars; assigned if None.
        attributes
            Of the rows: a dict of columns (lists, arrays of NumPy, columns of Arrow, pandas or Polars), a
            table of Arrow, a data frame, or a list of N dicts. None is null, which is what a row has that
            lacks the attribute. Tables and data frames need the extra ``arrow``.
        schema
            ``{name: type}``, or ``{name: {"type": …, "filterable": False}}`` for what is only read. The type
            is ``string``, ``int``, ``uint``, ``float``, ``bool``, ``datetime``, ``uuid``, or ``[]`` and one
            of these. What is not declared, here or before, is inferred: of strings and numbers what they are.
        mode
            ``"upsert"`` replaces rows of ids that exist; ``"insert"`` refuses them (`IdExists`);
            ``"insert_if_absent"`` leaves them as they are and skips what is given for them.
        condition
            Of an upsert: a filter that the stored row must match to be replaced, or else the new one is
            skipped. ``{"$ref_new": attribute}`` in place of a value is what the new row has there. Rows
            that are not there are inserted whatever it says.
        return_ids
            Whether ``affected_ids`` of the answer tells the ids that were written.
        if_match
            Incarnation and epoch that the namespace must have, as a pair or an ETag: `PreconditionFailed`,
            and nothing is written, if somebody else has written since.
        idempotency_key
            A retry under the same key is applied once and gets the same answer.
        progress
            Called with the share that is done, 0 to 1, while a large batch is built; over HTTP at the
            end alone.

        Raises
        ------
        InvalidArgument
            And its kinds `DimensionMismatch`, `InvalidVector`, `InvalidId`, `InvalidAttribute`,
            `SchemaConflict`: nothing was changed.
        OutcomeUnknown
            The store did not say whether the commit happened.
        """
        if mode not in get_args(WriteMode):
            raise InvalidArgument(
                f"mode must be one of {', '.join(get_args(WriteMode))}",
                field="mode",
                limit=list(get_args(WriteMode)),
            )
        return self._backend.insert(
            self.name,
            vectors,
            ids,
            attributes=held(attributes),
            schema=schema,
            mode=mode,
            condition=condition,
            return_ids=flag("return_ids", return_ids),
            expected=expected_of(if_match),
            idempotency_key=check_key(idempotency_key),
            progress=progress,
        )

    def delete(
        self,
        ids: Sequence[int] | Sequence[str] | npt.ArrayLike | None = None,
        *,
        filter: Sequence[Any] | None = None,
        condition: Sequence[Any] | None = None,
        return_ids: bool = False,
        if_match: Expected | str | None = None,
        idempotency_key: str | None = None,
    ) -> DeleteResult:
        """Delete rows by id, or those that a filter matches when the commit is made.

        Ids that are not there are no error and not counted; with a ``condition`` those whose rows do not
        match it are skipped. ``return_ids``, ``if_match`` and ``idempotency_key`` as of `insert`.
        """
        return self._backend.delete_rows(
            self.name,
            ids,
            filter=filter,
            condition=condition,
            return_ids=flag("return_ids", return_ids),
            expected=expected_of(if_match),
            idempotency_key=check_key(idempotency_key),
        )

    def patch(
        self,
        ids: Sequence[int] | Sequence[str] | npt.ArrayLike | None = None,
        attributes: Any = None,
        *,
        filter: Sequence[Any] | None = None,
        schema: Mapping[str, Any] | None = None,
        condition: Sequence[Any] | None = None,
        return_ids: bool = False,
        if_match: Expected | str | None = None,
        idempotency_key: str | None = None,
    ) -> PatchResult:
        """Give rows other values of some attributes; vectors and what is not named stay as they are.

        One commit; what it changes, it finds when it is made.

        Parameters
        ----------
        ids
            Of the rows. Ids that are not there are no error, but counted (``absent``).
        attributes
            With ids columns or rows, as of `insert`: None takes a value away. An attribute that a row does
            not name stays. With a filter a single dict of values, which all rows get.
        filter
            In place of ids: rows that it matches when the commit is made.
        schema
            As of `insert`.
        condition
            A filter that a stored row must match, or else it is skipped; with ``{"$ref_new": attribute}``
            for the value that the patch gives to an attribute of the same row.
        return_ids, if_match, idempotency_key
            As of `insert`.

        Raises
        ------
        InvalidArgument
            And its kinds, as of `insert`: nothing was changed.
        """
        return self._backend.patch_rows(
            self.name,
            ids,
            held(attributes) if filter is None else attributes,
            filter=filter,
            schema=schema,
            condition=condition,
            return_ids=flag("return_ids", return_ids),
            expected=expected_of(if_match),
            idempotency_key=check_key(idempotency_key),
        )

    def search(
        self,
        vector: npt.ArrayLike | None = None,
        top_k: int = 10,
        *,
        id: RowId | None = None,
        include_self: bool = False,
        probe_fraction: float | None = None,
        nprobe: int | None = None,
        target_recall: float | None = None,
        rerank_scale: float | None = None,
        rerank_precision: RerankPrecision | None = None,
        consistency: Consistency = "strong",
        max_staleness: float = 10.0,
        epoch: int | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] | None = None,
        filter: Sequence[Any] | None = None,
        max_distance: float | None = None,
        order_by: Sequence[str] | None = None,
        limit_per_group: tuple[str, int] | None = None,
        debug: bool = False,
    ) -> Hits:
        """The ``top_k`` nearest live rows of one epoch, nearest first; or with ``order_by`` the first ones.

        Parameters
        ----------
        vector
            dim numbers.
        top_k
            Hits wanted, 1 to 10,000; there are fewer only where no more rows match.
        id, include_self
            In place of a vector, that of the row of this id, which is a hit of itself only if
            ``include_self`` says so. `RowNotFound` if there is none; `InvalidArgument` where vectors are not
            stored.
        probe_fraction, nprobe, target_recall
            How many lists to scan: a share, a number a part, or as many as the namespace's own
            calibration asks for this mean recall. The namespace's defaults if none is given.
        rerank_scale, rerank_precision
            Candidates a hit that are re-ranked (0: none), by ``"int8"`` or ``"fp32"`` rows.
        consistency, max_staleness
            ``"strong"`` sees every acknowledged write; ``"eventual"`` may use a snapshot of at most
            ``max_staleness`` seconds and saves the check.
        epoch
            A past epoch within the retention window instead of the current one.
        include, exclude
            Names of attributes that hits bring, and ``"vector"`` for the stored vectors; with ``exclude``
            they bring all attributes but those.
        filter
            Only rows that it matches are found: ``["lang", "Eq", "en"]``,
            ``["And", [["year", "Gte", 2020], ["tags", "ContainsAny", ["a", "b"]]]]``; ``docs/filters.md``.
        max_distance
            Hits that are farther are left out: by their vectors as given, unless ``rerank_precision`` says
            how they are ordered.
        order_by
            In place of a vector, ``["year", "desc"]`` or ``["id", "asc"]``: the first rows in the order of
            an attribute. Rows that lack it come last, equal ones in the order of their ids.
        limit_per_group
            ``("document", 2)``: at most two hits have the same value of that attribute, which has to be
            filterable and no array; rows that lack it are one group. ``top_k`` is filled if so many exist.
            Not together with ``order_by``.
        debug
            Return plan, counts, stage times and storage traffic.
        """
        params = search_params(
            top_k,
            probe_fraction,
            nprobe,
            target_recall,
            rerank_scale,
            rerank_precision,
            consistency,
            max_staleness,
            epoch,
            include if isinstance(include, tuple) and not include else included(include),
            debug,
            None if filter is None else filter_bytes(filter),
            None if exclude is None else included(exclude, "exclude"),
            max_distance,
            None if order_by is None else ordered_by(order_by),
            None if limit_per_group is None else per_group(limit_per_group),
        )
        asked: object = vector
        if vector is None or id is not None or order_by is not None or include_self is not False:
            asked = query_of(vector, id, include_self, order_by)
        return self._backend.search(self.name, asked, params)

    def search_batch(self, vectors: npt.ArrayLike, top_k: int = 10, **options: Any) -> BatchHits:
        """As `search`, for f32[M, dim] queries on one epoch; takes the same options but ``order_by``."""
        params = check_batch(check_params(params_of(top_k, options)))
        return self._backend.search_batch(self.name, vectors, params)

    def aggregate(
        self,
        aggregate_by: Mapping[str, Sequence[str]],
        *,
        group_by: Sequence[str] = (),
        filter: Sequence[Any] | None = None,
        consistency: Consistency = "strong",
        max_staleness: float = 10.0,
        epoch: int | None = None,
    ) -> Aggregates:
        """Counts, sums, extremes and means over all live rows of one epoch, exact.

        Parameters
        ----------
        aggregate_by
            Results by label: ``{"n": ["Count"], "price": ["Avg", "price"]}``. ``Count`` of rows;
            ``Count``, ``CountDistinct``, ``Min`` and ``Max`` of any attribute but an array; ``Sum`` and
            ``Avg`` of numbers. Null is no value; of no values the sum is 0 and the others are None.
        group_by
            Attributes, at most 8; at most 10,000 groups.
        filter
            Of which rows, as for `search`.
        consistency, max_staleness, epoch
            As for `search`.

        Raises
        ------
        InvalidArgument
            Also if there are more groups, or more than a million distinct values to be counted.
        """
        params = aggregate_params(aggregate_by, group_by, filter)
        moment = {"consistency": plain(consistency), "max_staleness": plain(max_staleness)}
        params = replace(params, **moment, epoch=plain(epoch))
        return self._backend.aggregate(self.name, check_moment(params))

    def multi_query(
        self,
        queries: Sequence[Mapping[str, Any]],
        *,
        consistency: Consistency = "strong",
        max_staleness: float = 10.0,
        epoch: int | None = None,
    ) -> list[Hits | Aggregates]:
        """Answers to several queries, at most 64, all of one epoch.

        Parameters
        ----------
        queries
            Options of `search`, its ``vector`` among them, or of `aggregate`: ``{"vector": q, "top_k": 5}``,
            ``{"order_by": ["year", "desc"]}``, ``{"aggregate_by": {"n": ["Count"]}}``. An error says in
            ``details["query"]`` which one it is about.
        consistency, max_staleness, epoch
            As for `search`, for all of them.
        """
        moment = check_moment(Moment(plain(consistency), plain(max_staleness), plain(epoch)))
        return list(self._backend.multi_query(self.name, several(queries), moment))

    def measure_recall(
        self,
        queries: npt.ArrayLike | None = None,
        *,
        source: RecallSource | None = None,
        sample: int | None = None,
        top_k: int = 10,
        confidence: float = 0.95,
        seed: int | None = None,
        **options: Any,
    ) -> RecallReport:
        """Measure recall against exact search, both on one epoch.

        Exact search reads every live row, so this takes work in proportion to rows times queries.

        Parameters
        ----------
        queries
            f32[M, dim]; held-out queries tell most.
        source
            Where queries come from if none are given: ``"rows"`` (default) takes stored rows, each of
            which is no hit of itself; ``"recent"`` those that this process has answered and kept.
        sample
            How many are drawn at random; by default 500, or fewer if so many would be too much work,
            or all that are given.
        top_k
            Hits of a query, of which recall is the share that was found.
        confidence
            Of the interval, 0.5 to 0.999.
        seed
            Of the draw; the report names the one that was used.
        options
            How to search, as for `search`: ``target_recall``, ``nprobe``, ``epoch``, …

        Raises
        ------
        InvalidArgument
            And its kinds; also if there are no rows, or no recent queries.
        """
        if source is None:
            source = "rows" if queries is None else "queries"
        asked = check_sample(
            RecallSample(source, plain(sample), plain(confidence), plain(seed)), given=queries is not None
        )
        given = queries if isinstance(queries, (list, tuple, np.ndarray)) else ()
        if asked.sample is not None and len(given) > MAX_QUERIES:
            # More than a request may bring, so the draw is made here.
            asked = replace(asked, seed=secrets.randbits(63) if asked.seed is None else asked.seed)
            rng = np.random.Generator(np.random.Philox(asked.seed))
            queries = [given[row] for row in rng.choice(len(given), size=asked.sample, replace=False)]
        for name in ("include", "exclude", "debug", "max_distance", "order_by", "limit_per_group"):
            if name in options:
                raise InvalidArgument(f"a measurement of recall has no option {name!r}", field=name)
        params = check_params(params_of(top_k, options))
        return self._backend.measure_recall(self.name, queries, asked, params)

    def recall_estimate(self) -> RecallEstimate:
        """Recall of live searches, from the share that is sampled (``recall_sample_rate``).

        The figure is that of one process: this one, or the worker of a server that answers.
        """
        return self._backend.recall_estimate(self.name)

    def get(self, id: RowId, *, include_vector: bool = True, epoch: int | None = None) -> Row:
        """The row of an id that is live, now or at a past epoch. `RowNotFound` if there is none."""
        return self._backend.row(
            self.name, id, include_vector=flag("include_vector", include_vector), epoch=check_epoch(epoch)
        )

    def scan(
        self,
        *,
        filter: Sequence[Any] | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        order: ScanOrder | None = None,
        limit: int = 1_000,
        epoch: int | None = None,
        cursor: str | None = None,
    ) -> Scan:
        """All live rows of one epoch, read page by page: iterate over them, or over `Scan.pages`.

        The first page takes the current epoch and the others stay with it, whatever is written meanwhile,
        for as long as it is kept; after that the next page is `SnapshotExpired`.

        Parameters
        ----------
        filter
            As for `search`.
        include, exclude
            As for `search`, but with neither rows bring all their attributes; ``"vector"`` brings vectors.
        order
            ``"id"``, ascending, for which ids have to be integers; or ``"stored"``, which costs least
            where much is read. None: by id if they are integers.
        limit
            Rows of a page at most; pages of large rows are shorter.
        epoch
            A past epoch within the retention window instead of the current one.
        cursor
            Of a page that was read before: go on behind it, with the same filter.
        """
        params = scan_params(limit, order, filter, include, exclude, epoch, cursor)
        return Scan(partial(self._backend.scan, self.name), params)

    def stats(self) -> NamespaceInfo:
        """Rows, parts, bytes, tombstones, epoch and defaults of the current epoch."""
        return self._backend.info(self.name)

    def update(
        self,
        *,
        schema: Mapping[str, Any] | None = None,
        if_match: Expected | str | None = None,
        **defaults: Any,
    ) -> NamespaceInfo:
        """Change settings and attributes by one commit.

        Parts that exist keep the form they were built in until they are compacted, and `compact` compacts all
        that have another. ``store_vectors`` cannot be changed from ``"none"`` while there are parts without
        vectors: what was not kept cannot be given back.

        Parameters
        ----------
        schema
            Attributes to declare, as for `insert`; None as a type drops one, and its values with it.
        if_match
            As of `insert`.
        """
        return self._backend.update(
            self.name, _settings(defaults), schema=schema, expected=expected_of(if_match)
        )

    def manifest(self, epoch: int | None = None) -> dict[str, Any]:
        """The manifest of the current or of a past epoch, as JSON data.

        The current one says under ``compaction`` what is being merged, by whom, and how far it is, a few
        seconds late; None if nothing is.
        """
        return self._backend.manifest(self.name, check_epoch(epoch))

    def parts(self, epoch: int | None = None) -> PartsReport:
        """The parts of the current or of a past epoch; of the current one also what compaction does and
        would do next."""
        return self._backend.parts(self.name, check_epoch(epoch))

    def restore(self, epoch: int, *, if_match: Expected | str) -> NamespaceInfo:
        """Make a past epoch current again, by one commit; nothing is copied.

        Rows, deletions and defaults are those of that epoch. What has been written since leaves the
        namespace, but stays readable at its own epochs for as long as they are kept.

        Parameters
        ----------
        epoch
            Within the retention window, or one that a tag holds.
        if_match
            Incarnation and epoch of the namespace as the caller saw it (`stats`), so that no write that
            it does not know of is undone: `PreconditionFailed` if there was one.

        Raises
        ------
        SnapshotExpired
            The epoch has left the retention window, and no tag holds it.
        """
        expected = expected_of(if_match)
        if expected is None:
            raise InvalidArgument("a restore needs if_match, the epoch that was seen", field="if_match")
        return self._backend.restore(self.name, required_epoch(epoch), expected=expected)

    def branch(self, name: str, epoch: int | None = None) -> Namespace:
        """A new namespace ``name`` with the rows of this one, now or at a past epoch.

        Only the manifest is copied: both share the parts, each writes its own from then on, and either
        may be deleted first. Tags, idempotency keys and past epochs stay with this one.

        Raises
        ------
        NamespaceExists
            There is one of that name.
        SnapshotExpired
            The epoch has left the retention window, and no tag holds it.
        LimitReached
            100 branches rest on this namespace, or on one that it is a branch of.
        StorageConflict
            Somebody else used the name meanwhile.
        """
        return Namespace(self._backend, self._backend.branch(self.name, name, check_epoch(epoch)).name)

    def tags(self) -> list[Tag]:
        """The tags, by name."""
        return list(self._backend.tags(self.name))

    def tag(self, name: str, epoch: int | None = None) -> Tag:
        """Hold an epoch against collection, the current one if none is named.

        It can be read and restored for as long as the tag is there. To tag the same epoch again under
        the same name changes nothing, nor does it to tag the current one while only tags have changed since.

        Parameters
        ----------
        name
            As that of a namespace: 1-128 of ``[A-Za-z0-9._-]``, the first a letter or digit.
        epoch
            Within the retention window; None for the current one.

        Raises
        ------
        TagExists
            The name is taken by another epoch.
        LimitReached
            The namespace has 100 tags.
        SnapshotExpired
            The epoch has left the retention window already.
        """
        return self._backend.tag(self.name, name, check_epoch(epoch))

    def untag(self, name: str) -> None:
        """Delete a tag; collection may take what it alone held. `TagNotFound` if there is none."""
        self._backend.untag(self.name, name)

    def compact(self, *, everything: bool = True, progress: Progress | None = None) -> CompactResult:
        """Merge parts and retrain: all of them, or with ``everything=False`` the one merge that is most due.

        All of them are as many merges as the bound of a part's rows asks for, one after another; the result
        is of all together. At most as many as there were parts at first: who writes meanwhile is not
        followed.

        ``progress`` is called with the share that is done, 0 to 1; over HTTP after each merge.
        """
        if not flag("everything", everything):
            return self._backend.compact(self.name, everything=False, progress=progress)
        most = max(1, self.stats().parts)
        steps: list[CompactResult] = []
        while len(steps) < most:
            share = within(progress, len(steps) / most, (len(steps) + 1) / most)
            steps.append(self._backend.compact(self.name, everything=True, progress=share))
            if not steps[-1].merged:
                break
        within(progress, 0.0, 1.0)(1.0)
        return _together(steps)

    def warm(self, *, progress: Callable[[WarmResult], object] = lambda _: None) -> WarmResult:
        """Read ahead of time what a search at the default target needs, as far as the caches have room.

        Over HTTP that warms the disk cache of the server's node, or without one (``cache_dir``) the
        memory of the worker that answers.

        Parameters
        ----------
        progress
            Told after each slice how far it has come.
        """
        fetched, cursor = 0, None
        while True:
            done = self._backend.warm(self.name, cursor)
            fetched += done.fetched
            done = replace(done, fetched=fetched)
            progress(done)
            if done.next is None:
                return done
            cursor = done.next

    def gc(self, *, retention: float = 3600.0, grace: float = 3600.0, dry_run: bool = False) -> GcResult:
        """Delete objects older than ``grace`` that no epoch of the last ``retention`` seconds names."""
        return self._backend.collect(
            self.name,
            retention=plain(retention),
            grace=plain(grace),
            dry_run=flag("dry_run", dry_run),
        )
