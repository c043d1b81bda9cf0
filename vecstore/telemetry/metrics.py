"""Figures for Prometheus. Every one of them is in ``docs/observability.md``, and a test compares.

Labels are bounded: routes are templates, outcomes are codes of errors, and the namespace is left empty
unless a setting asks for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from vecstore.errors import VecstoreError
from vecstore.observe import Counted, Held, Observer, SearchWatch, Stage, StoreKind, StoreRequest
from vecstore.storage.cache import ReadTrace
from vecstore.telemetry.figures import Figure, Figures, Kind, Spread
from vecstore.telemetry.shared import locked
from vecstore.telemetry.stages import StageClock
from vecstore.types import SearchParams

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_NAMESPACES: Final = 1_000  # as values of a label; the others share "other"
_REFUSED: Final = "429"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_REQUEST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_SECONDS: Final = (1e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
_STORAGE_SECONDS: Final = (5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WORK_SECONDS: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)


class _Gauge(NamedTuple):
    name: str
    help: str
    kind: Kind  # tells how what several processes hold becomes one figure


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
    "commits_lost": (
        "commits_lost",
        "Commits that the store had answered and then did not have.",
    ),
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
    "cache_bytes": _Gauge("cache_bytes", "Bytes of pages held in memory, of all processes.", "gauge_livesum"),
    "namespaces_open": _Gauge("namespaces_open", "Namespaces held open, of all processes.", "gauge_livesum"),
    "recall_bound": _Gauge(
        "recall_upper_bound",
        "Upper end of the 95 % interval of measured recall, of the namespace where it is lowest.",
        "gauge_livemin",
    ),
    "most_parts": _Gauge("namespace_parts_most", "Parts of the namespace with the most.", "gauge_livemax"),
    "swept_at": _Gauge(
        "maintenance_swept_timestamp_seconds",
        "When maintenance last looked at all namespaces.",
        "gauge_max",
    ),
    "collected_at": _Gauge(
        "maintenance_collected_timestamp_seconds",
        "When the garbage of all was last collected.",
        "gauge_max",
    ),
    "disk_cache_bytes": _Gauge("disk_cache_bytes", "Bytes of the disk cache.", "gauge_livemostrecent"),
}
# What is said of every metric; of those that an observer counts or holds, beside how.
HELP: Final[dict[str, str]] = {
    "build_info": "1; the labels say what runs.",
    "http_requests": "Requests answered.",
    "http_request_seconds": "Seconds from a request's headers to its answer, before that is sent; not 429.",
    "http_requests_in_flight": "Requests being answered.",
    "search_queries": "Queries answered, alone or in batches.",
    "search_stage_seconds": "Seconds of a stage of a query asked alone.",
    "search_rows_scanned": "Rows scanned by queries asked alone.",
    "search_lists_probed": "Lists probed by queries asked alone.",
    "storage_requests": "Requests to the store, repetitions included.",
    "storage_request_seconds": "Seconds of a request to the store.",
    "storage_bytes": "Bytes of objects sent and received.",
    "compaction_seconds": "Seconds of a compaction that was committed.",
    **dict(COUNTERS.values()),
    **{gauge.name: gauge.help for gauge in GAUGES.values()},
}


class Metrics(Observer):
    """The figures of this process: its share of a server's.

    Parameters
    ----------
    folder
        Where the processes of a server keep theirs (`vecstore.telemetry.shared`).
    namespaces
        Whether requests are counted by namespace.
    version, simd
        Of this build.
    process
        Tells those apart that share a folder.

    Attributes
    ----------
    by_namespace
        Whether requests are counted by namespace.
    """

    def __init__(
        self,
        folder: Path,
        *,
        namespaces: bool = False,
        version: str = "",
        simd: str = "",
        process: int | None = None,
    ) -> None:
        self._folder = folder
        self._figures = Figures(folder, os.getpid() if process is None else process)
        self._lock = self._figures.lock
        self.by_namespace = namespaces
        self._names: set[str] = set()
        self._held: dict[Held, Figure] = {}
        self._counters = {what: self._counter(name) for what, (name, _) in COUNTERS.items()}
        build = self._figures.figure(
            "gauge_livemax", *_named("build_info"), {"version": version, "simd": simd}
        )
        build.set(1.0, time.time())
        self._in_flight = self._figures.figure("gauge_livesum", *_named("http_requests_in_flight"), {})
        self._answered: dict[tuple[str, str, str, str], tuple[Figure, Spread]] = {}
        self._latency: dict[tuple[str, str], Spread] = {}
        self._one = self._counter("search_queries", kind="one")
        self._batch = self._counter("search_queries", kind="batch")
        self._stages: dict[str, Spread] = {
            stage: self._spread("search_stage_seconds", _STAGE_SECONDS, stage=stage)
            for stage in get_args(Stage)
        }
        self._rows = self._counter("search_rows_scanned")
        self._lists = self._counter("search_lists_probed")
        self._asked: dict[tuple[str, str], tuple[Figure, Spread]] = {}
        self._store_seconds = {
            kind: self._spread("storage_request_seconds", _STORAGE_SECONDS, kind=kind)
            for kind in get_args(StoreKind)
        }
        self._sent = self._counter("storage_bytes", direction="sent")
        self._received = self._counter("storage_bytes", direction="received")
        self._compactions = self._spread("compaction_seconds", _WORK_SECONDS)

    def registry(self) -> CollectorRegistry:
        """All processes' figures, for the library to present."""
        registry = CollectorRegistry()
        registry.register(_Added(self._folder))
        return registry

    def text(self) -> bytes:
        """What ``/metrics`` answers."""
        return generate_latest(self.registry())

    # -- HTTP ------------------------------------------------------------------------------

    def began(self) -> None:
        """A request came in."""
        with self._lock:
            self._in_flight.add(1.0)

    def answered(self, route: str, method: str, status: str, namespace: str | None, seconds: float) -> None:
        """It was answered; ``status`` is its three digits."""
        method = method if method in _METHODS else "other"
        named = namespace if namespace is not None and status < "400" else ""
        with self._lock:
            if named and named not in self._names:
                if len(self._names) < MAX_NAMESPACES:
                    self._names.add(named)
                else:
                    named = "other"
            found = self._answered.get((route, method, status, named))
            if found is None:
                found = self._admit(route, method, status, named)
            self._in_flight.add(-1.0)
            found[0].add(1.0)
            if status != _REFUSED:  # how long a refusal is held says nothing of how long answers take
                found[1].add(seconds)

    def _admit(self, route: str, method: str, status: str, namespace: str) -> tuple[Figure, Spread]:
        labels = {"route": route, "method": method}
        latency = self._latency.get((route, method))
        if latency is None:
            latency = self._spread("http_request_seconds", _REQUEST_SECONDS, **labels)
            self._latency[route, method] = latency
        count = self._counter("http_requests", **labels, status=status, namespace=namespace)
        self._answered[route, method, status, namespace] = count, latency
        return count, latency

    # -- as an observer --------------------------------------------------------------------

    def count(self, what: Counted, by: float = 1) -> None:
        figure = self._batch if what == "batch_queries" else self._counters[what]
        with self._lock:
            figure.add(by)

    def hold(self, what: Held, value: float) -> None:
        """Set a gauge. It is not there before: a process that has nothing to tell must not tell 0."""
        with self._lock:
            figure = self._held.get(what)
            if figure is None:
                name, told, kind = GAUGES[what]
                figure = self._held[what] = self._figures.figure(kind, f"vecstore_{name}", told, {})
            figure.set(value, time.time())

    def compacted(self, seconds: float) -> None:
        with self._lock:
            self._compactions.add(seconds)

    def request(self, kind: StoreKind, key: str) -> StoreRequest:  # noqa: ARG002
        return _Timed(self, kind)

    def search(self, namespace: str, params: SearchParams) -> SearchWatch:
        return StageClock(namespace, params, self._searched)

    def _searched(self, clock: StageClock, trace: ReadTrace, error: BaseException | None) -> None:  # noqa: ARG002
        if error is not None:
            return
        with self._lock:
            self._one.add(1.0)
            for stage, seconds in clock.seconds.items():
                self._stages[stage].add(seconds)
            self._rows.add(clock.rows)
            self._lists.add(clock.lists)

    def stored(
        self, kind: StoreKind, seconds: float, sent: int, received: int, error: BaseException | None
    ) -> None:
        """A request to the store has ended."""
        outcome = "ok" if error is None else error.code if isinstance(error, VecstoreError) else "error"
        with self._lock:
            found = self._asked.get((kind, outcome))
            if found is None:
                count = self._counter("storage_requests", kind=kind, outcome=outcome)
                found = self._asked[kind, outcome] = count, self._store_seconds[kind]
            found[0].add(1.0)
            found[1].add(seconds)
            self._sent.add(sent)
            self._received.add(received)

    # -- below: making them ----------------------------------------------------------------

    def _counter(self, name: str, **labels: str) -> Figure:
        return self._figures.figure("counter", *_named(name), labels, "_total")

    def _spread(self, name: str, bounds: tuple[float, ...], **labels: str) -> Spread:
        return self._figures.spread(*_named(name), labels, bounds)


def _named(name: str) -> tuple[str, str]:
    """The metric of a name, and what is said of it."""
    return f"vecstore_{name}", HELP[name]


class _Added(Collector):
    """What the files of all processes add up to, none of them being moved meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        with locked(self._folder):
            files: Any = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
            return list(files.collect())


class _Timed(StoreRequest):
    """A request to the store that is under way."""

    __slots__ = ("_began", "_kind", "_metrics")

    def __init__(self, metrics: Metrics, kind: StoreKind) -> None:
        self._metrics = metrics
        self._kind: StoreKind = kind
        self._began = time.perf_counter()

    def done(self, *, sent: int = 0, received: int = 0, error: BaseException | None = None) -> None:
        self._metrics.stored(self._kind, time.perf_counter() - self._began, sent, received, error)
