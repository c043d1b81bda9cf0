"""Measured recall: the figure, its interval, what is refused, and the sampling of live searches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import numpy as np
import pytest

import vecstore
from tests.core import CODED, EXACT, RangeStore, clustered, database, distances, engine, generator, nearest
from vecstore.api import Database, Namespace
from vecstore.engine import monitor as monitors
from vecstore.engine import recall as recalls
from vecstore.engine.database import EmbeddedDatabase
from vecstore.engine.monitor import RecallMonitor
from vecstore.engine.recall import interval
from vecstore.errors import (
    DimensionMismatch,
    InvalidArgument,
    InvalidVector,
    StorageMissing,
    TooManyRequests,
    VecstoreError,
)
from vecstore.types import BatchHits, Hits, RecallEstimate, SearchParams

DIM = 16
ROWS = clustered(generator(1), 2_000, DIM)
QUERIES = clustered(generator(2), 120, DIM)
METRICS: list[Any] = ["cosine", "l2", "dot"]


HARD = generator(3).standard_normal((2_000, DIM)).astype(np.float32)  # no clusters to find


def namespace(metric: Any = "l2", parts: int = 3, *, strings: bool = False, **more: Any) -> Namespace:
    ns = database(more.pop("store", None)).create_namespace("ns", dim=DIM, metric=metric, **(CODED | more))
    first = 0
    for rows in np.array_split(ROWS, parts):
        ids: list[Any] = list(range(first, first + len(rows)))
        ns.insert(rows, [f"row-{i}" for i in ids] if strings else ids)
        first += len(rows)
    return ns


# -- the figure -----------------------------------------------------------------------------


@pytest.mark.parametrize("strings", [True, False])
@pytest.mark.parametrize("metric", METRICS)
def test_recall_is_what_numpy_counts(metric: Any, strings: bool) -> None:
    ns = namespace(metric, strings=strings)
    gone = list(range(0, 2_000, 4))
    ns.delete([f"row-{i}" for i in gone] if strings else gone)
    alive = np.setdiff1d(np.arange(2_000), gone)
    for options in ({"nprobe": 1}, {"nprobe": 4, "rerank_precision": "fp32"}, {}):
        found = ns.measure_recall(QUERIES, **options)
        batch = ns.search_batch(QUERIES, **options)
        truth = alive[nearest(ROWS[alive], QUERIES, metric, 10)]
        ids = [[int(str(i).removeprefix("row-")) for i in row] for row in batch.ids]
        counted = [len(set(a) & set(b)) / 10 for a, b in zip(ids, truth.tolist(), strict=True)]
        assert found.recall == pytest.approx(np.mean(counted), abs=1e-9)
        assert found.low <= found.recall <= found.high
        assert (found.queries, found.top_k, found.source, found.rows) == (120, 10, "queries", 1_500)
        assert (found.epoch, found.incarnation) == (batch.epoch, batch.incarnation)


def test_stored_rows_are_no_hits_of_themselves() -> None:
    ns = namespace()
    found = ns.measure_recall(sample=2_000, top_k=5, nprobe=2)
    truth = np.argsort(distances(ROWS, ROWS, "l2") + np.diag(np.full(2_000, np.inf)), axis=1)[:, :5]
    batch = ns.search_batch(ROWS, top_k=6, nprobe=2)
    counted = []
    for row, (some, best) in enumerate(zip(batch.ids.tolist(), truth.tolist(), strict=True)):
        others = [i for i in some if i != row][:5]
        counted.append(len(set(others) & set(best)) / 5)
    assert (found.source, found.queries) == ("rows", 2_000)
    assert found.recall == pytest.approx(np.mean(counted), abs=1e-9)


def test_one_list_recalls_little_and_all_lists_by_fp32_recall_all() -> None:
    ns = database().create_namespace("ns", dim=DIM, metric="l2", **CODED)
    for rows in np.array_split(HARD, 3):
        ns.insert(rows)
    low = ns.measure_recall(sample=200, nprobe=1)
    assert low.high < 0.8
    assert low.rows_scanned < 0.1 * low.rows
    assert (low.lists_probed, low.lists) == (3.0, sum(p["k"] for p in ns.manifest()["parts"]))
    full = ns.measure_recall(sample=200, **EXACT)
    assert (full.recall, full.high) == (1.0, 1.0)
    assert 0.95 < full.low < 1.0
    assert (full.rows_scanned, full.lists_probed) == (2_000.0, float(full.lists))
    assert full.search_seconds > 0.0
    assert full.exact_seconds > 0.0


@pytest.mark.parametrize("kept", ["fp32", "fp16", "none"])
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_searched_whole_is_found_however_it_is_kept(metric: Any, kept: str) -> None:
    """By the rows as they are kept: int8 rows are held against int8 rows."""
    ns = namespace(metric, store_vectors=kept, store=RangeStore())
    found = ns.measure_recall(QUERIES, **EXACT)
    assert found.recall == 1.0 if kept != "none" else found.recall > 0.99
    # Of 50 rows, a few pairs that rounding the query puts the other way round would make all the difference.
    assert ns.measure_recall(sample=400, seed=1, **EXACT).recall > 0.99


def test_rows_that_tie_are_no_loss() -> None:
    ns = database().create_namespace("ns", dim=DIM, metric="l2")
    ns.insert(np.repeat(ROWS[:20], 30, axis=0))
    assert ns.measure_recall(QUERIES, top_k=7, **EXACT).recall == 1.0
    assert ns.measure_recall(sample=100, top_k=7, **EXACT).recall == 1.0


def test_fewer_rows_than_top_k_are_all_that_is_wanted() -> None:
    ns = database().create_namespace("ns", dim=DIM, metric="l2")
    ns.insert(ROWS[:4])
    assert ns.measure_recall(QUERIES[:1], top_k=10).recall == 1.0
    found = ns.measure_recall(top_k=10)
    assert (found.recall, found.queries) == (1.0, 4)
    assert found.low < 1.0


def test_the_same_seed_draws_the_same_queries() -> None:
    ns = namespace()
    first = ns.measure_recall(sample=30, nprobe=1)
    again = ns.measure_recall(sample=30, nprobe=1, seed=first.seed)
    assert (again.recall, again.seed) == (first.recall, first.seed)
    some = ns.measure_recall(QUERIES, sample=30, nprobe=1, seed=5)
    assert (some.queries, some.recall) == (30, ns.measure_recall(QUERIES, sample=30, nprobe=1, seed=5).recall)
    assert len({ns.measure_recall(sample=30, nprobe=1, seed=i).recall for i in range(6)}) > 1


def test_a_sample_is_drawn_from_all_live_rows_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalls, "BLOCK_ROWS", 100)
    db = engine()
    ns = Database(db).create_namespace("ns", dim=DIM, metric="l2", **CODED)
    for rows in np.split(ROWS[:600], 3):
        ns.insert(rows)
    ns.delete(range(0, 600, 2))
    found = db.namespace("ns")
    view = found.views.open(found.snapshots.strong().manifest, recalls.ReadTrace())
    seen = np.zeros((3, 200))
    for seed in range(60):
        parts, rows = recalls._random_rows(view, 100, generator(seed))
        assert len(np.unique(np.stack((parts, rows)), axis=1).T) == 100
        seen[parts, rows] += 1
    live = np.stack([part.live.is_live(np.arange(200)) for part in view.parts])
    assert (seen[~live] == 0).all()
    np.testing.assert_allclose(seen[live].mean(), 20.0)
    assert seen[live].min() > 5
    assert seen[live].max() < 37


def test_a_past_epoch_is_measured_as_it_was_while_writes_go_on() -> None:
    ns = namespace(parts=1)
    epoch = ns.stats().epoch
    ns.insert(QUERIES + np.float32(0.01), range(5_000, 5_120))
    found = ns.measure_recall(QUERIES, epoch=epoch, **EXACT)
    assert (found.epoch, found.rows, found.recall) == (epoch, 2_000, 1.0)
    ns.compact()
    assert ns.measure_recall(QUERIES, epoch=epoch, **EXACT).recall == 1.0
    late = ns.measure_recall(QUERIES, consistency="eventual", max_staleness=60, **EXACT)
    assert (late.rows, late.recall) == (2_120, 1.0)


def test_both_answers_are_of_one_epoch_whatever_is_written_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come, die and are merged between the search and the exact search."""
    db = engine()
    ns = Database(db).create_namespace("ns", dim=DIM, metric="l2")
    ns.insert(ROWS[:500])
    plain = db.namespace("ns").search_batch

    def and_then(queries: object, params: SearchParams) -> BatchHits:
        hits = plain(queries, params)
        ns.delete(np.unique(hits.ids))
        ns.insert(ROWS[500:600], range(10_000, 10_100))
        ns.compact()
        return hits

    monkeypatch.setattr(db.namespace("ns"), "search_batch", and_then)
    epoch = ns.stats().epoch
    found = ns.measure_recall(QUERIES, **EXACT)
    assert (found.epoch, found.rows, found.recall) == (epoch, 500, 1.0)
    assert ns.stats().epoch > epoch


def test_options_are_told_with_their_defaults() -> None:
    ns = namespace(target_recall=0.9, rerank_precision="fp32")
    assert ns.measure_recall(sample=5).options == {
        "nprobe": None,
        "target_recall": 0.9,
        "probe_fraction": 0.1,
        "rerank_scale": 8.0,
        "rerank_precision": "fp32",
    }
    told = ns.measure_recall(sample=5, probe_fraction=0.5, rerank_scale=2.0).options
    assert (told["target_recall"], told["probe_fraction"], told["rerank_scale"]) == (None, 0.5, 2.0)


# -- the interval ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [30, 100, 500])
@pytest.mark.parametrize("kind", ["alike", "mixed", "nearly all perfect", "a few find nothing", "top 1"])
def test_the_interval_covers_the_true_mean(kind: str, n: int) -> None:
    rng = generator(n)
    shape = (800, n)
    if kind == "alike":
        samples, true = rng.binomial(10, 0.95, shape) / 10, 0.95
    elif kind == "mixed":
        samples, true = rng.binomial(10, rng.beta(9.5, 0.5, shape)) / 10, 0.95
    elif kind == "nearly all perfect":
        samples, true = rng.binomial(10, 0.999, shape) / 10, 0.999
    elif kind == "a few find nothing":
        samples, true = (rng.random(shape) > 0.01).astype(float), 0.99
    else:
        samples, true = rng.binomial(1, 0.9, shape).astype(float), 0.9
    found = np.array([interval(sample, 0.95) for sample in samples])
    covered = (found[:, 1] <= true) & (true <= found[:, 2])
    assert covered.mean() >= 0.93
    assert ((found[:, 1] >= 0.0) & (found[:, 1] <= found[:, 0]) & (found[:, 0] <= found[:, 2])).all()
    assert (found[:, 2] <= 1.0).all()


def test_the_interval_is_near_that_of_student_where_recalls_spread() -> None:
    sample = generator(3).binomial(10, 0.9, 1_000) / 10
    mean, low, high = interval(sample, 0.95)
    half = 1.9623 * sample.std(ddof=1) / np.sqrt(1_000)  # t of 999 degrees of freedom
    assert mean == pytest.approx(sample.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert interval(sample, 0.99)[1] < low < interval(sample, 0.5)[1]


def test_perfect_and_hopeless_samples_have_intervals_too() -> None:
    for n, far in ((1, 0.0), (10, 0.6), (1_000, 0.99)):
        mean, low, high = interval(np.ones(n), 0.95)
        assert (mean, high) == (1.0, 1.0)
        assert far <= low < 1.0
        assert interval(np.zeros(n), 0.95) == pytest.approx((0.0, 0.0, 1.0 - low))
    assert interval(np.ones(10), 0.5)[2] == 1.0


# -- what is refused ------------------------------------------------------------------------

REFUSED: list[tuple[str, Callable[[Namespace], object], type[VecstoreError], str]] = [
    ("no sample", lambda ns: ns.measure_recall(sample=0), InvalidArgument, "sample"),
    ("a huge sample", lambda ns: ns.measure_recall(sample=10_001), InvalidArgument, "sample"),
    ("half a sample", lambda ns: ns.measure_recall(sample=1.5), InvalidArgument, "sample"),  # type: ignore[arg-type]
    ("a sample of true", lambda ns: ns.measure_recall(sample=True), InvalidArgument, "sample"),
    ("certainty", lambda ns: ns.measure_recall(confidence=1.0), InvalidArgument, "confidence"),
    ("no confidence", lambda ns: ns.measure_recall(confidence=0.1), InvalidArgument, "confidence"),
    ("confidence nan", lambda ns: ns.measure_recall(confidence=np.nan), InvalidArgument, "confidence"),
    ("a seed below 0", lambda ns: ns.measure_recall(seed=-1), InvalidArgument, "seed"),
    ("a seed of 64 bits", lambda ns: ns.measure_recall(seed=1 << 63), InvalidArgument, "seed"),
    ("a seed that is text", lambda ns: ns.measure_recall(seed="x"), InvalidArgument, "seed"),  # type: ignore[arg-type]
    ("an unknown source", lambda ns: ns.measure_recall(source="log"), InvalidArgument, "source"),  # type: ignore[arg-type]
    ("queries from nowhere", lambda ns: ns.measure_recall(source="queries"), InvalidArgument, "source"),
    ("two sources", lambda ns: ns.measure_recall(QUERIES, source="rows"), InvalidArgument, "source"),
    ("no recent queries", lambda ns: ns.measure_recall(source="recent"), InvalidArgument, "source"),
    ("no queries", lambda ns: ns.measure_recall(np.empty((0, DIM))), InvalidArgument, "vectors"),
    ("one dimension", lambda ns: ns.measure_recall(QUERIES[0]), DimensionMismatch, "vectors"),
    ("other dimensions", lambda ns: ns.measure_recall(QUERIES[:, :3]), DimensionMismatch, "vectors"),
    ("nan", lambda ns: ns.measure_recall(np.full((1, DIM), np.nan)), InvalidVector, "vectors"),
    ("a zero", lambda ns: ns.measure_recall(np.zeros((1, DIM))), InvalidVector, "vectors"),
    ("too many queries", lambda ns: ns.measure_recall(np.ones((10_001, DIM))), InvalidArgument, "vectors"),
    ("too many hits", lambda ns: ns.measure_recall(QUERIES, top_k=10_000), InvalidArgument, "sample"),
    ("all rows as hits", lambda ns: ns.measure_recall(top_k=10_000), InvalidArgument, "top_k"),
    ("no hits", lambda ns: ns.measure_recall(top_k=0), InvalidArgument, "top_k"),
    ("an unknown option", lambda ns: ns.measure_recall(depth=3), InvalidArgument, "depth"),
    ("include", lambda ns: ns.measure_recall(include=["vector"]), InvalidArgument, "include"),
    ("debug", lambda ns: ns.measure_recall(debug=True), InvalidArgument, "debug"),
    ("an epoch to come", lambda ns: ns.measure_recall(epoch=99), InvalidArgument, "epoch"),
]


@pytest.mark.parametrize(("use", "kind", "field"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_bad_measurement_is_refused_by_field(
    use: Callable[[Namespace], object], kind: type[VecstoreError], field: str
) -> None:
    ns = database().create_namespace("ns", dim=DIM, metric="cosine")
    ns.insert(ROWS[:50])
    with pytest.raises(kind) as error:
        use(ns)
    assert type(error.value) is kind
    assert 400 <= error.value.status < 500
    assert error.value.details["field"] == field
    assert field in error.value.message or field == "source"


def test_without_rows_there_is_nothing_to_measure() -> None:
    ns = database().create_namespace("ns", dim=DIM, metric="l2")
    for use in (ns.measure_recall, lambda: ns.measure_recall(QUERIES)):
        with pytest.raises(InvalidArgument, match="rows"):
            use()
    ns.insert(ROWS[:1])
    with pytest.raises(InvalidArgument, match="two"):
        ns.measure_recall()
    assert ns.measure_recall(QUERIES).recall == 1.0


def test_the_work_of_a_measurement_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    ns = namespace()
    monkeypatch.setattr(recalls, "MAX_RECALL_WORK", 50 * 2_000 * DIM)
    assert ns.measure_recall().queries == 50  # by default, as many as are allowed
    for use in (lambda: ns.measure_recall(sample=51), lambda: ns.measure_recall(QUERIES)):
        with pytest.raises(InvalidArgument) as error:
            use()
        assert (error.value.details["field"], error.value.details["limit"]) == ("sample", 50)
    assert ns.measure_recall(QUERIES, sample=50).queries == 50
    monkeypatch.setattr(recalls, "MAX_RECALL_WORK", 2_000)
    with pytest.raises(InvalidArgument, match="too many"):
        ns.measure_recall()


def test_only_a_few_measurements_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ns = namespace()
    begun, go_on = threading.Semaphore(0), threading.Event()
    plain = recalls.exact_search

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.release()
        assert go_on.wait(60.0)
        return plain(*arguments, **options)

    monkeypatch.setattr(recalls, "exact_search", slow)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(ns.measure_recall, sample=5) for _ in range(2)]
        try:
            for _ in running:
                assert begun.acquire(timeout=60.0)
            with pytest.raises(TooManyRequests) as error:
                ns.measure_recall(sample=5)
        finally:
            go_on.set()
        assert (error.value.status, error.value.retryable) == (429, True)
        assert [one.result().queries for one in running] == [5, 5]
    with pytest.raises(InvalidArgument):  # gives its place back
        ns.measure_recall(QUERIES, epoch=99)
    assert ns.measure_recall(sample=5).queries == 5


def test_a_measurement_whose_parts_are_collected_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    ns = namespace(parts=1)
    plain = recalls.exact_search
    calls: list[int] = []

    def lost_once(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            ns.insert(QUERIES, range(5_000, 5_120))
            raise StorageMissing("no such part")
        return plain(*arguments, **options)

    monkeypatch.setattr(recalls, "exact_search", lost_once)
    assert ns.measure_recall(sample=10).rows == 2_120
    calls.clear()
    epoch = ns.stats().epoch
    with pytest.raises(StorageMissing):  # a past epoch is not replaced by another
        ns.measure_recall(sample=10, epoch=epoch)

    def lost(*arguments: Any, **options: Any) -> Any:
        raise StorageMissing("no such part")

    monkeypatch.setattr(recalls, "exact_search", lost)
    with pytest.raises(StorageMissing):  # nor a part that the current epoch names
        ns.measure_recall(sample=10)


# -- live searches --------------------------------------------------------------------------


class Watched:
    """A database in which every search is sampled, and a monitor that does not wait between rounds."""

    def __init__(self, rate: float = 1.0, **more: Any) -> None:
        self.engine: EmbeddedDatabase = engine()
        settings: dict[str, Any] = {"share": 1.0, "pause": 0.001, "now": lambda: 1_000.0, **more}
        self.monitor = RecallMonitor(rate, self.engine.namespace, rng=Random(1), **settings)
        self.engine.recall = self.monitor
        self.db = Database(self.engine)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *rest: object) -> None:
        self.engine.close()

    def estimate(self, name: str = "ns") -> RecallEstimate:
        return self.engine.recall_estimate(name)

    def measured(self, count: int, name: str = "ns") -> RecallEstimate:
        """Wait until so many queries are counted."""
        with self.monitor.changed:
            assert self.monitor.changed.wait_for(lambda: self.monitor.estimate(name).queries >= count, 60.0)
        return self.estimate(name)


def test_live_searches_are_measured_by_a_thread() -> None:
    with Watched() as watched:
        ns = watched.db.create_namespace("ns", dim=DIM, metric="l2", **CODED)
        ns.insert(ROWS)
        assert watched.estimate() == RecallEstimate(1.0)
        for q in QUERIES[:40]:
            ns.search(q, nprobe=1)
        ns.search_batch(QUERIES[40:100], nprobe=1, top_k=10, include=["vector"], debug=True)
        found = watched.measured(100)
        truth = ns.measure_recall(QUERIES[:100], nprobe=1)
        assert (found.queries, found.sample_rate, found.epoch) == (100, 1.0, ns.stats().epoch)
        assert found.recall == pytest.approx(truth.recall)
        assert (found.low, found.high) == pytest.approx((truth.low, truth.high))
        assert found.since == found.until == 1_000.0
        assert ns.recall_estimate() == found
        assert watched.monitor.estimates() == {"ns": found}


def test_each_live_search_is_measured_with_its_own_options() -> None:
    with Watched() as watched:
        ns = watched.db.create_namespace("ns", dim=DIM, metric="cosine", **CODED)
        ns.insert(ROWS)
        for q in QUERIES[:20]:
            ns.search(q.tolist(), top_k=5, **EXACT)
            ns.search(q.astype(np.float64), top_k=1, nprobe=1)
        found = watched.measured(40)
        some = ns.measure_recall(QUERIES[:20], top_k=1, nprobe=1)
        assert found.recall == pytest.approx((1.0 + some.recall) / 2)


def test_a_share_of_the_searches_is_kept_and_no_more_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with Watched(0.25, pause=600.0) as watched:
        ns = watched.db.create_namespace("ns", dim=DIM, metric="l2")
        ns.insert(ROWS[:10])
        for _ in range(8):
            ns.search_batch(np.repeat(QUERIES, 8, axis=0))
            for q in QUERIES[:60]:
                ns.search(q)
        kept = watched.monitor.recent("ns")
        assert len(kept) == monitors.RECENT_QUERIES
        assert {q.tobytes() for q in kept} <= {q.tobytes() for q in QUERIES}
        assert ns.measure_recall(source="recent", seed=1).queries == 500
    with Watched(0.25, pause=600.0) as watched:
        ns = watched.db.create_namespace("ns", dim=DIM, metric="l2")
        ns.insert(ROWS[:10])
        ns.search_batch(np.repeat(QUERIES, 10, axis=0))
        assert 200 < len(watched.monitor.recent("ns")) < 400
        found = ns.measure_recall(source="recent")
        assert (found.source, found.recall) == ("recent", 1.0)
        monkeypatch.setattr(recalls, "MAX_RECALL_WORK", 50 * 10 * DIM)
        assert ns.measure_recall(source="recent").queries == 50  # as many as are allowed


def test_large_queries_are_kept_by_their_bytes() -> None:
    with Watched(pause=600.0) as watched:
        ns = watched.db.create_namespace("ns", dim=4_096, metric="l2")
        ns.insert(np.ones((2, 4_096)))
        ns.search_batch(np.ones((300, 4_096)))
        assert len(watched.monitor.recent("ns")) == monitors.RECENT_BYTES // (4 * 4_096) == 256


def test_searches_of_past_epochs_and_those_that_fail_are_not_sampled() -> None:
    with Watched(pause=600.0) as watched:
        ns = watched.db.create_namespace("ns", dim=DIM, metric="l2")
        epoch = ns.insert(ROWS[:10]).epoch
        ns.search(QUERIES[0], epoch=epoch)
        ns.search_batch(QUERIES, epoch=epoch)
        with pytest.raises(InvalidVector):
            ns.search(np.full(DIM, np.nan))
        assert watched.monitor.recent("ns") == []


def test_measuring_does_not_sample_itself() -> None:
    with Watched(pause=600.0) as watched:
        ns = watched.db.create_namespace("ns", dim=DIM, metric="l2")
        ns.insert(ROWS[:100])
        ns.measure_recall(QUERIES)
        assert watched.monitor.recent("ns") == []


def test_a_namespace_made_anew_starts_anew() -> None:
    with Watched() as watched:
        ns = watched.db.create_namespace("ns", dim=DIM, metric="l2", **CODED)
        ns.insert(ROWS)
        ns.search_batch(QUERIES, nprobe=1)
        assert watched.measured(len(QUERIES)).recall != 1.0
        watched.db.delete_namespace("ns")
        ns = watched.db.create_namespace("ns", dim=DIM, metric="l2")
        ns.insert(ROWS)
        with watched.monitor.changed:
            ns.search_batch(QUERIES, **EXACT)
            assert watched.monitor.changed.wait_for(
                lambda: watched.monitor.estimate("ns").recall == 1.0, 60.0
            )
        watched.db.delete_namespace("ns")
        ns = watched.db.create_namespace("ns", dim=3, metric="l2")
        ns.insert(ROWS[:, :3])
        ns.search_batch(QUERIES[:, :3])
        with watched.monitor.changed:
            assert watched.monitor.changed.wait_for(
                lambda: watched.monitor.estimate("ns").epoch == ns.stats().epoch, 60.0
            )
        assert ns.measure_recall(source="recent").queries == len(QUERIES)


def test_the_thread_outlives_a_namespace_that_is_gone_and_one_that_fails(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Watched() as watched:
        for name in ("gone", "bad", "ns"):
            watched.db.create_namespace(name, dim=DIM, metric="l2").insert(ROWS[:50])
        plain = watched.engine.namespace("bad").search_batch

        def fail(*arguments: object) -> BatchHits:
            raise ZeroDivisionError("on purpose")

        monkeypatch.setattr(watched.engine.namespace("bad"), "search_batch", fail)
        watched.db.delete_namespace("gone")
        watched.monitor.saw("gone", QUERIES[0], SearchParams())
        watched.engine.search("bad", QUERIES[0], SearchParams())
        with watched.monitor.changed:
            assert watched.monitor.changed.wait_for(lambda: "on purpose" in caplog.text, 60.0)
        watched.engine.search("ns", QUERIES[0], SearchParams())
        assert watched.measured(1).recall == 1.0
        monkeypatch.setattr(watched.engine.namespace("bad"), "search_batch", plain)
        watched.engine.search("bad", QUERIES[0], SearchParams())
        assert watched.measured(1, "bad").recall == 1.0
        with watched.monitor.changed:
            assert watched.monitor.changed.wait_for(lambda: "gone" not in watched.monitor.estimates(), 60.0)


def test_the_namespace_that_was_searched_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitors, "MAX_NAMESPACES", 3)
    times = iter(range(100))
    with Watched(now=lambda: float(next(times))) as watched:
        for name in ("a", "b", "c", "d"):
            watched.db.create_namespace(name, dim=DIM, metric="l2").insert(ROWS[:50])
        for name in ("b", "a"):
            watched.engine.search(name, QUERIES[0], SearchParams())
            watched.measured(1, name)
        watched.engine.search("c", QUERIES[0], SearchParams())
        watched.engine.search("d", QUERIES[0], SearchParams())  # finds no room, and asks for some
        with watched.monitor.changed:
            assert watched.monitor.changed.wait_for(lambda: "b" not in watched.monitor.estimates(), 60.0)
        watched.engine.search("d", QUERIES[0], SearchParams())
        watched.measured(1, "d")


def test_closing_ends_the_thread_in_the_midst_of_its_work() -> None:
    watched = Watched(share=1e-6)  # a round would take hours
    ns = watched.db.create_namespace("ns", dim=DIM, metric="l2", **CODED)
    ns.insert(ROWS)
    ns.search_batch(QUERIES)
    watched.engine.close()
    watched.engine.close()
    assert not [
        t for t in threading.enumerate() if t.name == "vecstore-recall" and t is watched.monitor._thread
    ]
    assert watched.monitor.estimate("ns").queries == 0


def test_sampling_is_off_unless_asked_for() -> None:
    db = database()
    ns = db.create_namespace("ns", dim=DIM, metric="l2")
    ns.insert(ROWS[:10])
    hits: Hits = ns.search(QUERIES[0])
    assert len(hits) == 10
    assert ns.recall_estimate() == RecallEstimate(0.0)
    with vecstore.connect("memory://", maintenance="off", recall_sample_rate=1) as other:
        ns = other.create_namespace("ns", dim=DIM, metric="l2")
        ns.insert(ROWS[:10])
        ns.search(QUERIES[0])
        monitor = other.backend.recall  # type: ignore[attr-defined]
        with monitor.changed:
            assert monitor.changed.wait_for(lambda: ns.recall_estimate().queries == 1, 60.0)
        assert ns.recall_estimate().recall == 1.0


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), "1", True])
def test_a_rate_that_is_no_share_is_refused(rate: Any) -> None:
    with pytest.raises(InvalidArgument, match="recall_sample_rate"):
        vecstore.connect("memory://", recall_sample_rate=rate)
