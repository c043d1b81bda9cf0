"""A store full of namespaces, embedded in this process."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import replace
from random import Random, SystemRandom
from typing import Any, Final, Literal, NoReturn

import msgspec

from vecstore.engine.monitor import RecallMonitor
from vecstore.engine.namespace import NamespaceEngine, describe
from vecstore.engine.open import OpenNamespaces
from vecstore.engine.recall import measure_recall
from vecstore.engine.warm import warm
from vecstore.errors import (
    DatabaseClosed,
    DeadlineExceeded,
    ForkedHandle,
    InvalidArgument,
    NamespaceNotFound,
    StorageConflict,
    TooManyRequests,
)
from vecstore.limits import MAX_PAGE_SIZE, MAX_RECALL_AT_ONCE
from vecstore.maintenance.compactor import compact_once, under_way
from vecstore.maintenance.gc import GRACE, RETENTION, collect
from vecstore.maintenance.policy import Policy
from vecstore.maintenance.report import parts_report
from vecstore.maintenance.worker import MaintenanceThread
from vecstore.manifest import lifecycle
from vecstore.manifest.branch import branch
from vecstore.manifest.keys import namespaces_prefix
from vecstore.manifest.model import Attribute, Settings
from vecstore.manifest.settings import updated_settings
from vecstore.manifest.tombstones import TombstoneCache
from vecstore.observe import Observer
from vecstore.progress import Progress
from vecstore.rows.ids import validate_name
from vecstore.rows.schema import declared
from vecstore.rows.vectors import validate_dim
from vecstore.storage.base import ObjectStore
from vecstore.storage.cache import PageCache
from vecstore.storage.disk import DiskCache
from vecstore.storage.pages import all_children
from vecstore.storage.threads import Pool
from vecstore.types import (
    AggregateParams,
    Aggregates,
    BatchHits,
    CacheStats,
    CompactResult,
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
    Row,
    RowId,
    ScanPage,
    ScanParams,
    SearchParams,
    Tag,
    WarmResult,
    WriteMode,
)

log = logging.getLogger(__name__)

CACHE_BYTES: Final = 256 << 20
OPEN_NAMESPACES: Final = 1_000
IO_THREADS: Final = 64  # 16 writers at once wait for three requests each
COLLECT_SECONDS: Final = 600.0  # between two collections of a namespace by one process
AGAIN_SECONDS: Final = max(RETENTION, GRACE) + 60.0  # from a write or compaction on: what it replaced may go
# Ends of a compaction or a collection that are nothing to mend: the caller's mistake or that nobody waits,
# there is nothing to do, another was first.
_NO_FAILURE: Final = (InvalidArgument, DeadlineExceeded, DatabaseClosed, NamespaceNotFound, StorageConflict)


class EmbeddedDatabase:
    """Namespaces of one store, in one process. Thread-safe.

    Parameters
    ----------
    cache_bytes, disk
        Memory for pages of parts that the store cannot map, and where else they are kept; ours to close.
    open_namespaces
        Held open at most, but for those that are in use at that moment.
    maintenance
        Whether a thread compacts and collects the namespaces that this process writes to.
    policy
        When parts are merged, and how much memory that may take.
    temp_dir
        Where the temporary files of a merge go; None as `vecstore.room.Room` takes it.
    threads
        That a batch of queries is spread over; None: as many as there are processors for this process.
    recall_sample_rate
        Share of searches whose recall a thread measures.
    observer
        Hears of what is done here; the store and the disk cache have theirs from whoever opened them.
    clock, sleep
        Monotonic seconds, and a pause.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        cache_bytes: int = CACHE_BYTES,
        disk: DiskCache | None = None,
        open_namespaces: int = OPEN_NAMESPACES,
        maintenance: bool = False,
        threads: int | None = None,
        policy: Policy | None = None,
        temp_dir: str | None = None,
        rng: Random | None = None,
        recall_sample_rate: float = 0.0,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self._observer = observer if observer is not None else Observer()
        self._cache = PageCache(cache_bytes, disk=disk, observer=self._observer)
        self._rng = rng if rng is not None else SystemRandom()
        self._policy = policy
        self._temp_dir = temp_dir
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tombstones = TombstoneCache(store)
        self._namespaces = OpenNamespaces(
            open_namespaces, self._open, lambda count: self._observer.hold("namespaces_open", count)
        )
        self._collected: dict[str, float] = {}
        self._executor: Pool | None = None
        self._pid = os.getpid()
        self._threads = min(len(os.sched_getaffinity(0)), IO_THREADS) if threads is None else threads
        self._maintenance = (
            MaintenanceThread(self.maintain, again=AGAIN_SECONDS, clock=clock) if maintenance else None
        )
        self._measuring = threading.BoundedSemaphore(MAX_RECALL_AT_ONCE)
        self.recall: RecallMonitor | None = None
        if recall_sample_rate > 0.0:
            self.recall = RecallMonitor(
                recall_sample_rate, self.namespace, rng=self._rng, observer=self._observer
            )

    def namespace(self, name: str) -> NamespaceEngine:
        """The engine of a namespace, whether it exists or not; one object a name while it is in use."""
        return self._namespaces.get(name)

    def check(self) -> None:
        """`DatabaseClosed`, or `ForkedHandle` in a child of the process that connected."""
        self._check_process()
        self._namespaces.check()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a database cannot be pickled or copied: connect to its URL where it is needed")

    def _maintained(self, name: str) -> NamespaceEngine:
        self._check_process()
        return self.namespace(name)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedHandle("the database was opened before fork; connect again in the child process")

    def _open(self, name: str) -> NamespaceEngine:
        self._check_process()
        return NamespaceEngine(
            self.store,
            name,
            self._cache,
            self._tombstones,
            self._get_executor,
            self._rng,
            threads=self._threads,
            wrote=self._wrote,
            observer=self._observer,
            clock=self._clock,
            sleep=self._sleep,
        )

    def create(
        self, name: str, dim: int, metric: Metric, settings: dict[str, Any], *, schema: object = None
    ) -> NamespaceInfo:
        """Create a namespace. `NamespaceExists` if there is one of that name."""
        engine = self.namespace(name)
        validate_dim(dim)
        specs = declared(schema)
        done = lifecycle.create_namespace(
            self.store,
            engine.name,
            dim=int(dim),
            metric=metric,
            settings=updated_settings(Settings(), settings),
            schema={
                attribute: Attribute(number, spec.type, spec.filterable)
                for number, (attribute, spec) in enumerate(specs.items())
            },
            publisher=engine.publisher,
            rng=self._rng,
        )
        return describe(done.manifest)

    def delete(self, name: str, *, incarnation: str | None = None, expected: Expected | None = None) -> None:
        """Delete a namespace by one commit; its objects go when collection may take them."""
        engine = self.namespace(name)
        lifecycle.delete_namespace(
            self.store, engine.name, incarnation=incarnation, expected=expected, publisher=engine.publisher
        )
        self._wrote(engine.name)

    def list(self, prefix: str, *, after: str | None, limit: int) -> Iterator[NamespaceInfo]:
        """Existing namespaces whose name starts with ``prefix``, by name, from the first > ``after``."""
        self._namespaces.check()
        if not 1 <= limit <= MAX_PAGE_SIZE:
            raise InvalidArgument(
                f"page_size must be 1 to {MAX_PAGE_SIZE}", field="page_size", limit=MAX_PAGE_SIZE
            )
        found = 0
        after = max(after or "", prefix[:-1]) or None  # all that begin with the prefix come after that
        while found < limit:
            names = self.store.list_children(namespaces_prefix(), after=after, limit=1_000)
            if not names:
                return
            after = names[-1]
            for name in names:
                if not name.startswith(prefix):
                    if name > prefix:  # and so are all that follow
                        return
                    continue
                try:
                    yield self.namespace(name).info()
                except (NamespaceNotFound, InvalidArgument):  # deleted, or no name of ours
                    continue
                found += 1
                if found == limit:
                    return

    def info(self, name: str) -> NamespaceInfo:
        return self.namespace(name).info()

    def update(
        self, name: str, settings: dict[str, Any], *, schema: object = None, expected: Expected | None = None
    ) -> NamespaceInfo:
        """Change settings and attributes of a namespace."""
        done = self.namespace(name).writes.update_settings(settings, schema=schema, expected=expected)
        return describe(done.manifest)

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
    ) -> InsertResult:
        done = self.namespace(name).writes.insert(
            vectors,
            ids,
            attributes=attributes,
            schema=schema,
            mode=mode,
            condition=condition,
            return_ids=return_ids,
            expected=expected,
            idempotency_key=idempotency_key,
            progress=progress,
        )
        self._observer.count("rows_inserted", done.n)
        return done

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
    ) -> DeleteResult:
        """By ids, or by a filter."""
        return self.namespace(name).writes.delete(
            ids,
            filter=filter,
            condition=condition,
            return_ids=return_ids,
            expected=expected,
            idempotency_key=idempotency_key,
        )

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
    ) -> PatchResult:
        """By ids, or by a filter."""
        return self.namespace(name).writes.patch(
            ids,
            attributes,
            filter=filter,
            schema=schema,
            condition=condition,
            return_ids=return_ids,
            expected=expected,
            idempotency_key=idempotency_key,
        )

    def search(self, name: str, vector: object, params: SearchParams) -> Hits:
        hits = self.namespace(name).search(vector, params)
        if self.recall is not None:
            self.recall.saw(name, vector, params)
        return hits

    def search_batch(self, name: str, vectors: object, params: SearchParams) -> BatchHits:
        hits = self.namespace(name).search_batch(vectors, params)
        if self.recall is not None:
            self.recall.saw_batch(name, vectors, params)
        return hits

    def aggregate(self, name: str, params: AggregateParams) -> Aggregates:
        return self.namespace(name).aggregate(params)

    def multi_query(
        self, name: str, queries: Sequence[Query | AggregateParams], moment: Moment
    ) -> Sequence[Hits | Aggregates]:
        return self.namespace(name).multi_query(queries, moment)

    def restore(self, name: str, epoch: int, *, expected: Expected) -> NamespaceInfo:
        """Make a past epoch current again, by one commit upon the one that the caller saw."""
        return describe(self.namespace(name).writes.restore(epoch, expected=expected).manifest)

    def branch(self, name: str, new_name: str, epoch: int | None) -> NamespaceInfo:
        """Create a namespace from an epoch of another one; only its manifest is copied."""
        new_name = self.namespace(new_name).name  # one that can be one
        done = branch(lambda owner: self.namespace(owner).publisher, name, new_name, epoch=epoch)
        return describe(done.manifest)

    def tags(self, name: str) -> Sequence[Tag]:
        return self.namespace(name).tags()

    def tag(self, name: str, tag: str, epoch: int | None) -> Tag:
        return self.namespace(name).writes.tag(tag, epoch)

    def untag(self, name: str, tag: str) -> None:
        self.namespace(name).writes.untag(tag)

    def measure_recall(
        self, name: str, queries: object | None, asked: RecallSample, params: SearchParams
    ) -> RecallReport:
        """Held against exact search, which keeps a processor busy: only a few at once."""
        engine = self.namespace(name)
        if not self._measuring.acquire(blocking=False):
            raise TooManyRequests(
                f"recall is measured {MAX_RECALL_AT_ONCE} times at once already; try again later",
                limit=MAX_RECALL_AT_ONCE,
            )
        try:
            recent = [] if self.recall is None else self.recall.recent(name)
            return measure_recall(engine, queries, asked, params, recent=recent)
        finally:
            self._measuring.release()

    def recall_estimate(self, name: str) -> RecallEstimate:
        self.namespace(name).manifest()  # there is one
        return RecallEstimate(0.0) if self.recall is None else self.recall.estimate(name)

    def row(self, name: str, identity: RowId, *, include_vector: bool, epoch: int | None) -> Row:
        return self.namespace(name).row(identity, include_vector=include_vector, epoch=epoch)

    def scan(self, name: str, params: ScanParams) -> ScanPage:
        return self.namespace(name).scan(params)

    def manifest(self, name: str, epoch: int | None) -> dict[str, Any]:
        engine = self.namespace(name)
        # By way of JSON, so that it is what HTTP gives: lists, not tuples.
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(engine.manifest(epoch)))
        if epoch is None:
            found["compaction"] = under_way(engine)
        return found

    def parts(self, name: str, epoch: int | None) -> PartsReport:
        """The parts of an epoch; of the current one also what compaction does and would do."""
        return parts_report(self.namespace(name), epoch, self._policy)

    def compact(self, name: str, *, everything: bool, progress: Progress | None = None) -> CompactResult:
        """One compaction of a namespace, if one is due."""
        engine, began = self._maintained(name), self._clock()
        with self._counting("compaction_failures"):
            done = compact_once(
                engine,
                policy=self._policy,
                folder=self._temp_dir,
                everything=everything,
                progress=progress,
            )
        if done.merged:
            self._wrote(engine.name)
            known = engine.snapshots.cached()  # no request, which could fail, for what has been done
            parts = () if known is None else known.manifest.parts
            size = sum(part.bytes for part in parts if part.id == done.part_id)
            self._observer.compacted(self._clock() - began)
            self._observer.count("compaction_parts", len(done.merged))
            self._observer.count("compaction_rows", done.rows)
            self._observer.count("compaction_bytes", size)
        return done

    def warm(self, name: str, cursor: str | None) -> WarmResult:
        """Read the next slice of what searches of a namespace need into the caches of this process."""
        return warm(self._maintained(name), cursor, self._cache.room)

    def collect(
        self, name: str, *, retention: float, grace: float, dry_run: bool, unused: bool = True
    ) -> GcResult:
        """Collect one namespace's garbage; with ``unused`` also what lies under a name that never was one."""
        engine = self._maintained(name)
        with self._counting("collection_failures"):
            done = collect(
                self.store,
                name,
                publisher=engine.publisher,
                retention=retention,
                grace=grace,
                dry_run=dry_run,
                unused=unused,
            )
        if not dry_run:
            self._observer.count("collections")
            self._observer.count("collected_objects", done.deleted)
            self._observer.count("collected_bytes", done.bytes)
        return done

    def cache_stats(self) -> CacheStats:
        """What the caches of this process have done and hold."""
        self.check()
        return replace(self._cache.stats(), process=os.getpid())

    def ping(self) -> None:
        """One small read, to learn whether the store answers."""
        self.check()
        self.store.list_children(namespaces_prefix(), limit=1)

    def names(self) -> Iterator[str]:
        """Every name ever used, those of deleted namespaces too: what there is to collect."""
        for name in all_children(self.store, namespaces_prefix()):
            with suppress(InvalidArgument):  # a folder that is none of ours
                yield validate_name(name)

    def compact_due(self, name: str) -> None:
        """Every compaction that is due in a namespace; in one that was deleted, none is."""
        with suppress(NamespaceNotFound):
            while self.compact(name, everything=False).part_id is not None:
                pass

    def collect_due(self, name: str, *, retention: float, grace: float) -> GcResult:
        """Collect one namespace's garbage unasked, and nothing of a first copy (`NamespaceNotFound`)."""
        return self.collect(name, retention=retention, grace=grace, dry_run=False, unused=False)

    def maintain(self, name: str) -> None:
        """What is due in a namespace that this process wrote to: compaction, and at times collection."""
        self.compact_due(name)
        now = self._clock()
        if now - self._collected.get(name, -math.inf) >= COLLECT_SECONDS:
            self._collected[name] = now
            self.collect_due(name, retention=RETENTION, grace=GRACE)

    def close(self) -> None:
        """Stop maintenance and release threads and connections; what is asked after that is `DatabaseClosed`.

        Idempotent.
        """
        if os.getpid() == self._pid:  # a forked child has the threads' locks, but not the threads
            if self._maintenance is not None:
                self._maintenance.stop()
            if self.recall is not None:
                self.recall.stop()
            self._namespaces.close()
            if self._executor is not None:
                self._executor.shutdown()
        self._cache.close()
        self.store.close()

    @contextmanager
    def _counting(self, failures: Literal["compaction_failures", "collection_failures"]) -> Iterator[None]:
        try:
            yield
        except _NO_FAILURE:
            raise
        except Exception:
            self._observer.count(failures)
            raise

    def _wrote(self, name: str) -> None:
        if self._maintenance is not None:
            self._maintenance.wake(name)

    def _get_executor(self) -> Executor:
        if self._executor is None:
            with self._lock:
                if self._executor is None:
                    self._executor = Pool(IO_THREADS, thread_name_prefix="vecstore-io")
        return self._executor
