"""Figures for Prometheus. Every one of them is in ``docs/observability.md``, and a test compares.

Labels are bounded: routes are templates, outcomes are codes of errors, and the namespace is left empty
unless a setting asks for it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from vecstore.errors import VecstoreError
from vecstore.observe import Counted, Held, Observer, SearchWatch, StoreKind, StoreRequest
from vecstore.storage.cache import ReadTrace
from vecstore.telemetry.shared import locked
from vecstore.telemetry.stages import StageClock
from vecstore.types import SearchParams

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_NAMESPACES: Final = 1_000  # as values of a label; the others share "other"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_REQUEST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_SECONDS: Final = (1e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
_STORAGE_SECONDS: Final = (5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WORK_SECONDS: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)

Mode = Literal["livesum", "livemin", "livemax", "livemostrecent", "max"]


class _Gauge(NamedTuple):
    name: str
    help: str
    mode: Mode  # how what several processes hold becomes one figure


COUNTERS: Final[dict[Counted, tuple[str, str]]] = {
    "storage_retries": ("storage_retries", "Requests to the store repeated after a passing failure."),
    "storage_hedges": ("storage_hedges", "Reads that were sent a second time because the answer was late."),
    "cache_hits": ("cache_hits", "Pages that were in memory."),
    "cache_misses": ("cache_misses", "Pages that were not in memory."),
    "cache_evictions": ("cache_evictions", "Pages that had to leave memory."),
    "disk_cache_hits": ("disk_cache_hits", "Pages that were on disk."),
    "disk_cache_written": ("disk_cache_written", "Pages written to disk."),
    "disk_cache_evictions": ("disk_cache_evictions", "Pages that had to leave the disk."),
    "disk_cache_damaged": ("disk_cache_damaged", "Pages on disk that failed their checksum."),
    "disk_cache_failures": ("disk_cache_failures", "Times that the disk cache could not be used."),
    "commits": ("commits", "Epochs committed."),
    "commit_changes": ("commit_changes", "Changes in them: writes are committed in groups."),
    "commit_conflicts": ("commit_conflicts", "Attempts to commit that lost to another writer."),
    "rows_inserted": ("rows_inserted", "Rows of inserts and upserts that were acknowledged."),
    "compaction_rows": ("compaction_rows", "Rows written by compactions."),
    "compaction_parts": ("compaction_parts", "Parts that compactions merged."),
    "compaction_bytes": ("compaction_bytes", "Bytes of the parts that compactions wrote."),
    "compaction_failures": ("compaction_failures", "Compactions that failed; they are repeated."),
    "collections": ("collections", "Collections of garbage, one a namespace."),
    "collection_failures": ("collection_failures", "Collections that failed; they are repeated."),
    "collected_objects": ("collected_objects", "Objects that collections deleted."),
    "collected_bytes": ("collected_bytes", "Bytes of these objects."),
    "recall_queries": ("recall_queries", "Live searches whose recall was measured."),
    "recall_found": ("recall_found", "Sum of their recalls: over recall_queries it is the mean recall."),
}
GAUGES: Final[dict[Held, _Gauge]] = {
    "cache_bytes": _Gauge("cache_bytes", "Bytes of pages held in memory, of all processes.", "livesum"),
    "namespaces_open": _Gauge("namespaces_open", "Namespaces held open, of all processes.", "livesum"),
    "recall_bound": _Gauge(
        "recall_upper_bound",
        "Upper end of the 95 % interval of measured recall, of the namespace where it is lowest.",
        "livemin",
    ),
    "most_parts": _Gauge("namespace_parts_most", "Parts of the namespace that has the most.", "livemax"),
    "swept_at": _Gauge(
        "maintenance_swept_timestamp_seconds", "When maintenance had last looked at all namespaces.", "max"
    ),
    "collected_at": _Gauge(
        "maintenance_collected_timestamp_seconds", "When the garbage of all had last been collected.", "max"
    ),
    "disk_cache_bytes": _Gauge("disk_cache_bytes", "Bytes that the disk cache takes.", "livemostrecent"),
}


class Metrics(Observer):
    """The figures of this process, or its share of those of a server.

    Parameters
    ----------
    folder
        Where the processes of a server keep theirs (`vecstore.telemetry.shared`); None: alone.
    namespaces
        Whether requests are counted by namespace.
    version, simd
        Of this build.
    """

    def __init__(
        self, *, folder: Path | None = None, namespaces: bool = False, version: str = "", simd: str = ""
    ) -> None:
        self._folder = folder
        self._namespaces = namespaces
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self._held: dict[str, Gauge] = {}
        self._counters = {what: self._counter(*told) for what, told in COUNTERS.items()}
        build = self._gauge("build_info", "1; the labels say what runs.", "livemax", ("version", "simd"))
        build.labels(version, simd).set(1)
        self._requests = self._counter(
            "http_requests", "Requests answered.", ("route", "method", "status", "namespace")
        )
        self._latency = self._histogram(
            "http_request_seconds",
            "Seconds from a request's headers to its answer, before that is sent.",
            _REQUEST_SECONDS,
            ("route", "method"),
        )
        self._answered: dict[tuple[str, str, str, str], tuple[Counter, Histogram]] = {}
        self.in_flight = self._gauge("http_requests_in_flight", "Requests being answered.", "livesum")
        queries = self._counter("search_queries", "Queries answered, alone or in batches.", ("kind",))
        self._one, self._batch = queries.labels("one"), queries.labels("batch")
        stage = self._histogram(
            "search_stage_seconds", "Seconds of a stage of a query asked alone.", _STAGE_SECONDS, ("stage",)
        )
        self._stages = {name: stage.labels(name) for name in ("snapshot", "plan", "scan", "rerank", "fetch")}
        self._rows = self._counter("search_rows_scanned", "Rows scanned by queries asked alone.")
        self._lists = self._counter("search_lists_probed", "Lists probed by queries asked alone.")
        self._storage = self._counter(
            "storage_requests", "Requests to the store, repetitions included.", ("kind", "outcome")
        )
        self._storage_latency = self._histogram(
            "storage_request_seconds", "Seconds of a request to the store.", _STORAGE_SECONDS, ("kind",)
        )
        self._asked: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        moved = self._counter("storage_bytes", "Bytes of objects sent and received.", ("direction",))
        self._sent, self._received = moved.labels("sent"), moved.labels("received")
        self._compactions = self._histogram(
            "compaction_seconds", "Seconds of a compaction that was committed.", _WORK_SECONDS
        )

    def text(self) -> bytes:
        """What ``/metrics`` answers."""
        if self._folder is None:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        with locked(self._folder):
            return generate_latest(registry)

    # -- HTTP ------------------------------------------------------------------------------

    def answered(self, route: str, method: str, status: str, namespace: str | None, seconds: float) -> None:
        """A request was answered; ``status`` is its three digits."""
        named = namespace if self._namespaces and namespace is not None and status < "400" else ""
        key = (route, method, status, named)
        children = self._answered.get(key)
        if children is None:
            children = self._admit(key)
        children[0].inc()
        children[1].observe(seconds)

    def _admit(self, key: tuple[str, str, str, str]) -> tuple[Counter, Histogram]:
        route, method, status, namespace = key
        method = method if method in _METHODS else "other"
        with self._lock:
            if namespace and namespace not in self._names:
                if len(self._names) >= MAX_NAMESPACES:
                    namespace = "other"
                else:
                    self._names.add(namespace)
        children = (
            self._requests.labels(route, method, status, namespace),
            self._latency.labels(route, method),
        )
        if method != "other" and namespace != "other":  # bounded, as a key of these is
            self._answered[key] = children
        return children

    # -- as an observer --------------------------------------------------------------------

    def count(self, what: Counted, by: float = 1) -> None:
        if what == "batch_queries":
            self._batch.inc(by)
        else:
            self._counters[what].inc(by)

    def hold(self, what: Held, value: float) -> None:
        """Set a gauge. It is not there before: a process that has nothing to tell must not tell 0."""
        gauge = self._held.get(what)
        if gauge is None:
            with self._lock:
                gauge = self._held.get(what)
                if gauge is None:
                    gauge = self._held[what] = self._gauge(*GAUGES[what])
        gauge.set(value)

    def compacted(self, seconds: float) -> None:
        self._compactions.observe(seconds)

    def request(self, kind: StoreKind, key: str) -> StoreRequest:  # noqa: ARG002
        return _Timed(self, kind)

    def search(self, namespace: str, params: SearchParams) -> SearchWatch:
        return StageClock(namespace, params, self._searched)

    def _searched(self, clock: StageClock, trace: ReadTrace, error: BaseException | None) -> None:  # noqa: ARG002
        if error is not None:
            return
        self._one.inc()
        for stage, seconds in clock.seconds.items():
            self._stages[stage].observe(seconds)
        self._rows.inc(clock.rows)
        self._lists.inc(clock.lists)

    def stored(
        self, kind: StoreKind, seconds: float, sent: int, received: int, error: BaseException | None
    ) -> None:
        """A request to the store has ended."""
        outcome = "ok" if error is None else error.code if isinstance(error, VecstoreError) else "error"
        children = self._asked.get((kind, outcome))
        if children is None:
            children = self._storage.labels(kind, outcome), self._storage_latency.labels(kind)
            self._asked[kind, outcome] = children
        children[0].inc()
        children[1].observe(seconds)
        if sent:
            self._sent.inc(sent)
        if received:
            self._received.inc(received)

    # -- below: making them ----------------------------------------------------------------

    def _counter(self, name: str, told: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"vecstore_{name}", told, labels, registry=self.registry)

    def _histogram(
        self, name: str, told: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(f"vecstore_{name}", told, labels, registry=self.registry, buckets=buckets)

    def _gauge(self, name: str, told: str, mode: Mode, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"vecstore_{name}", told, labels, registry=self.registry, multiprocess_mode=mode)


class _Timed(StoreRequest):
    """A request to the store that is under way."""

    __slots__ = ("_began", "_kind", "_metrics")

    def __init__(self, metrics: Metrics, kind: StoreKind) -> None:
        self._metrics = metrics
        self._kind: StoreKind = kind
        self._began = time.perf_counter()

    def done(self, *, sent: int = 0, received: int = 0, error: BaseException | None = None) -> None:
        self._metrics.stored(self._kind, time.perf_counter() - self._began, sent, received, error)
