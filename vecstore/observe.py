"""What the layers tell of their work, for whoever counts, traces or logs it. Imports nothing that does.

An `Observer` is an argument, from `vecstore.api.connect` down to storage; the default hears nothing and
costs nothing. `vecstore.telemetry` has those for Prometheus, OpenTelemetry and the log of slow queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vecstore.storage.cache import ReadTrace
    from vecstore.types import SearchParams

StoreKind = Literal["get", "put", "list", "head", "delete"]

# Of a search. snapshot: the current epoch is asked for; plan: its parts are opened, a filter narrows them,
# lists are chosen; scan and rerank: the kernels; fetch: what they miss is read, and what hits bring.
Stage = Literal["snapshot", "plan", "scan", "rerank", "fetch"]

Counted = Literal[
    "storage_retries",
    "storage_hedges",
    "cache_hits",
    "cache_misses",
    "cache_evictions",
    "disk_cache_hits",
    "disk_cache_written",
    "disk_cache_evictions",
    "disk_cache_damaged",
    "disk_cache_failures",
    "batch_queries",
    "commits",
    "commit_changes",
    "commit_conflicts",
    "commits_lost",
    "rows_inserted",
    "compaction_rows",
    "compaction_parts",
    "compaction_bytes",
    "compaction_failures",
    "collections",
    "collection_failures",
    "collected_objects",
    "collected_bytes",
    "recall_queries",
    "recall_found",
]
Held = Literal[
    "cache_bytes",
    "disk_cache_bytes",  # of the node
    "namespaces_open",
    "recall_bound",  # the upper end of the interval of the namespace whose recall is the worst
    "most_parts",  # of one namespace, when it was last looked at what is due
    "swept_at",  # Unix time when all namespaces had been looked at, and ...
    "collected_at",  # ... when the garbage of all of them had been collected
]


class StoreRequest:
    """One request to a store that is under way."""

    __slots__ = ()

    def done(self, *, sent: int = 0, received: int = 0, error: BaseException | None = None) -> None:
        """It has ended. Bytes are those of objects, without what frames them."""


class SearchWatch:
    """One search that is under way; told by the thread that searches."""

    __slots__ = ()

    def stage(self, stage: Stage) -> None:
        """A stage begins; the one before it has ended."""

    def ran(self, scan: float, rerank: float) -> None:
        """The kernels came back from a stage ``scan``, having spent these seconds on it and on ``rerank``."""

    def scanned(self, lists: int, rows: int) -> None:
        """The kernels are done."""

    def end(self, trace: ReadTrace, error: BaseException | None = None) -> None:
        """The search is over; ``trace`` tells what its reads have cost."""


class Observer:
    """Hears of everything and does nothing; override what is of interest.

    Methods are called on the way of requests, by many threads: they must be quick and must not raise.
    """

    def count(self, what: Counted, by: float = 1) -> None:
        """Something happened so many times."""

    def hold(self, what: Held, value: float) -> None:
        """This process has so much of something now."""

    def compacted(self, seconds: float) -> None:
        """A compaction was committed."""

    def request(self, kind: StoreKind, key: str) -> StoreRequest | None:
        """A request is sent to the store, ``key`` being its object or the prefix that it lists."""

    def search(self, namespace: str, params: SearchParams) -> SearchWatch | None:
        """A search for one query begins. None: it need not be watched."""


class Several(Observer):
    """Tells all of several observers."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def count(self, what: Counted, by: float = 1) -> None:
        for one in self._observers:
            one.count(what, by)

    def hold(self, what: Held, value: float) -> None:
        for one in self._observers:
            one.hold(what, value)

    def compacted(self, seconds: float) -> None:
        for one in self._observers:
            one.compacted(seconds)

    def request(self, kind: StoreKind, key: str) -> StoreRequest | None:
        found = [told for one in self._observers if (told := one.request(kind, key)) is not None]
        return found[0] if len(found) == 1 else _Requests(found) if found else None

    def search(self, namespace: str, params: SearchParams) -> SearchWatch | None:
        found = [told for one in self._observers if (told := one.search(namespace, params)) is not None]
        return found[0] if len(found) == 1 else _Searches(found) if found else None


class _Requests(StoreRequest):
    __slots__ = ("_each",)

    def __init__(self, each: Sequence[StoreRequest]) -> None:
        self._each = each

    def done(self, *, sent: int = 0, received: int = 0, error: BaseException | None = None) -> None:
        for one in self._each:
            one.done(sent=sent, received=received, error=error)


class _Searches(SearchWatch):
    __slots__ = ("_each",)

    def __init__(self, each: Sequence[SearchWatch]) -> None:
        self._each = each

    def stage(self, stage: Stage) -> None:
        for one in self._each:
            one.stage(stage)

    def ran(self, scan: float, rerank: float) -> None:
        for one in self._each:
            one.ran(scan, rerank)

    def scanned(self, lists: int, rows: int) -> None:
        for one in self._each:
            one.scanned(lists, rows)

    def end(self, trace: ReadTrace, error: BaseException | None = None) -> None:
        for one in self._each:
            one.end(trace, error)
