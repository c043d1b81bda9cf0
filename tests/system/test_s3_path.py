"""The whole path on S3: ingest, search, upsert, delete, compact, collect, restart with nothing cached."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import core
from tests.server.support import eventually
from vecstore.api import Database, Namespace
from vecstore.errors import NamespaceNotFound, RowNotFound, SnapshotExpired
from vecstore.invariants import check_namespace
from vecstore.storage.base import ObjectStore
from vecstore.storage.faults import Call, FaultyStore
from vecstore.types import Hits

BATCHES = 4
ROWS = 1_000  # a batch; large enough to be coded
QUERIES = 5
LATENCY = 0.05
# Exact as far as it matters: every list, and the best by code re-ranked by their vectors.
EXACT: dict[str, Any] = {**core.EXACT, "rerank_scale": 50.0}

F32 = npt.NDArray[np.float32]
MakeStore = Callable[[str], ObjectStore]


class Trips:
    """Counts dependent round trips: times that a request goes out while none is under way.

    Each request takes a while, so that those which are sent side by side overlap.
    """

    def __init__(self) -> None:
        self.count = 0
        self._under_way = 0
        self._lock = threading.Lock()

    def before(self, call: Call) -> None:
        if call.method in ("now", "map"):
            return
        with self._lock:
            self.count += self._under_way == 0
            self._under_way += 1
        time.sleep(LATENCY)

    def after(self, call: Call) -> None:
        if call.method not in ("now", "map"):
            with self._lock:
                self._under_way -= 1


class Restarts:
    """Opens the same bucket as new processes would: nothing cached."""

    def __init__(self, make_store: MakeStore) -> None:
        self.store = make_store("s3")

    def database(self, trips: Trips | None = None) -> Database:
        if trips is None:
            return core.database(self.store)
        return core.database(FaultyStore(self.store, before=trips.before, after=trips.after))


def test_the_whole_path_on_s3_over_restarts(make_store: MakeStore) -> None:
    restarts = Restarts(make_store)
    sample = core.sample()
    queries = sample.query_vectors[:QUERIES]
    model: dict[int, F32] = {}

    ns = restarts.database().create_namespace("docs", dim=384)
    for batch in range(BATCHES):
        rows = range(batch * ROWS, (batch + 1) * ROWS)
        ns.insert(sample.vectors[rows.start : rows.stop], ids=np.arange(rows.start, rows.stop))
        model |= {row: sample.vectors[row] for row in rows}
    _holds(ns, model, queries)
    _holds(restarts.database().namespace("docs"), model, queries)

    moved = list(range(500, 700))
    ns.insert(sample.vectors[9_000:9_200], ids=moved)
    model |= {row: sample.vectors[9_000 + i] for i, row in enumerate(moved)}
    _holds(ns, model, queries)

    near = sorted({int(i) for hits in _answers(ns, queries, 20) for i in hits.ids})
    assert ns.delete([*near, 123_456]).deleted == len(near)
    model = {row: vector for row, vector in model.items() if row not in near}
    _holds(ns, model, queries)
    _holds(restarts.database().namespace("docs"), model, queries)
    before = ns.stats().epoch

    assert len(ns.compact().merged) == BATCHES + 1
    assert ns.stats().tombstones == 0
    _holds(ns, model, queries)
    reader = restarts.database().namespace("docs")
    _holds(reader, model, queries)
    hits = reader.search(queries[0], epoch=before, **EXACT)
    core.assert_exact(hits, model, queries[0], "cosine", 10)

    _collect_all(ns)
    _holds(ns, model, queries)
    restarted = restarts.database().namespace("docs")
    _holds(restarted, model, queries)
    with pytest.raises(SnapshotExpired):
        restarted.search(queries[0], epoch=before)
    with pytest.raises(RowNotFound):
        restarted.get(near[0])
    np.testing.assert_array_equal(restarted.get(moved[0]).vector, model[moved[0]])
    assert check_namespace(restarts.store, "docs") == []

    seen = restarted.stats()
    restarted.tag("before", seen.epoch)
    restarted.delete(moved)
    restarted.restore(seen.epoch, if_match=(seen.incarnation, restarted.stats().epoch))
    restarted.branch("copy", seen.epoch).delete(moved[:10])
    restarts.database().delete_namespace("docs")
    with pytest.raises(NamespaceNotFound):
        restarted.search(queries[0])
    restarts.database().backend.collect("docs", retention=0.0, grace=0.0, dry_run=False)
    model = {row: vector for row, vector in model.items() if row not in moved[:10]}
    _holds(restarts.database().namespace("copy"), model, queries)
    assert check_namespace(restarts.store, "copy") == []


@pytest.mark.parametrize("compacted", [False, True])
def test_a_cold_search_on_s3_takes_three_dependent_trips_and_four_with_fp32(
    make_store: MakeStore, compacted: bool
) -> None:
    restarts = Restarts(make_store)
    sample = core.sample()
    ns = restarts.database().create_namespace("docs", dim=384)
    for batch in range(3):
        rows = slice(batch * ROWS, (batch + 1) * ROWS)
        ns.insert(sample.vectors[rows], ids=np.arange(rows.start, rows.stop))
    ns.insert(sample.vectors[3 * ROWS : 3 * ROWS + 50], ids=np.arange(3 * ROWS, 3 * ROWS + 50))
    query = sample.query_vectors[0]
    # Dead rows near the query would be worth another trip, to look deeper.
    far = core.nearest(sample.vectors[: 3 * ROWS], query, "cosine", 3 * ROWS)[0][-ROWS // 2 :]
    ns.delete(far)
    if compacted:
        ns.compact()

    assert _cold_trips(restarts, query) <= 3
    assert _cold_trips(restarts, query, include=["vector"]) <= 4
    assert _cold_trips(restarts, query, rerank_precision="fp32") <= 4
    assert _cold_trips(restarts, query, probe_fraction=1.0) <= 3


def _cold_trips(restarts: Restarts, query: F32, **options: Any) -> int:
    """Trips of a process's first search, as counted outside of it, and by itself."""
    trips = Trips()
    ns = Namespace(restarts.database(trips).backend, "docs")
    hits: Hits = ns.search(query, debug=True, **options)
    assert len(hits) == 10
    assert hits.debug is not None
    assert hits.debug["storage"]["round_trips"] == trips.count
    return trips.count


def _collect_all(ns: Namespace) -> None:
    """Collect with no retention and no grace; it leaves alone what is younger than a clock's error."""
    taken: list[str] = []

    def all_are_gone() -> bool:
        taken.extend(ns.gc(retention=0.0, grace=0.0).keys)
        return sum("/parts/" in key for key in taken) == BATCHES + 1

    eventually("the parts that were merged are gone", all_are_gone)
    assert any("/deletes/" in key for key in taken)


def _answers(ns: Namespace, queries: F32, top_k: int) -> list[Hits]:
    return [ns.search(query, top_k=top_k, **EXACT) for query in queries]


def _holds(ns: Namespace, model: dict[int, F32], queries: F32) -> None:
    """The namespace answers as the model does: exactly when asked to, and well by default."""
    assert ns.stats().rows == len(model)
    for query, hits in zip(queries, _answers(ns, queries, 10), strict=True):
        core.assert_exact(hits, model, query, "cosine", 10)
    ids = np.array(list(model))
    truth = ids[core.nearest(list(model.values()), core.sample().query_vectors, "cosine", 10)]
    found = ns.search_batch(core.sample().query_vectors, top_k=10).ids
    assert core.recall(found, truth) >= 0.93
