"""Searches against exact search by NumPy."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Timer, get_ident
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import (
    CODED,
    EXACT,
    RangeStore,
    assert_exact,
    clustered,
    database,
    distances,
    engine,
    generator,
    nearest,
    recall,
    sample,
)
from vecstore.api import Namespace
from vecstore.errors import InvalidArgument, SnapshotExpired
from vecstore.ext.batch import GROUP
from vecstore.index import search
from vecstore.index.search import LEAST_GROUP, LEAST_SHARED, Scratch, groups_of, search_many
from vecstore.index.view import View
from vecstore.part import reader
from vecstore.storage.base import ByteRange
from vecstore.storage.cache import ReadTrace
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore
from vecstore.storage.threads import Pool
from vecstore.types import F32, SearchParams

METRICS: list[Any] = ["cosine", "l2", "dot"]
PARTS = 10


def vectors_of(metric: str, n: int, dim: int, seed: int) -> np.ndarray[Any, Any]:
    """Clustered rows; for the dot product of norms that are log-normal."""
    rng = generator(seed)
    rows = clustered(rng, n, dim)
    if metric == "dot":
        rows *= rng.lognormal(0.0, 1.0, size=(n, 1)).astype(np.float32)
    return rows


# -- the sample, in ten parts and compacted -------------------------------------------------


@pytest.fixture(scope="module")
def truth() -> np.ndarray[Any, Any]:
    glosses = sample()
    return glosses.ids[nearest(glosses.vectors, glosses.query_vectors, "cosine", 30)]


@pytest.fixture(scope="module")
def in_parts() -> Namespace:
    """The sample as ten coded parts."""
    glosses = sample()
    ns = database(seed=1).create_namespace("glosses", dim=384, metric="cosine")
    for i in range(PARTS):
        ns.insert(glosses.vectors[i::PARTS], glosses.ids[i::PARTS])
    assert ns.stats().parts == PARTS
    return ns


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Namespace:
    """The sample as one part, on a local store."""
    glosses = sample()
    db = database(LocalStore(tmp_path_factory.mktemp("compacted")), seed=2)
    ns = db.create_namespace("glosses", dim=384, metric="cosine")
    ns.insert(glosses.vectors[:4_000], glosses.ids[:4_000])
    ns.insert(glosses.vectors[4_000:], glosses.ids[4_000:])
    assert ns.compact().rows == len(glosses.ids)
    assert ns.stats().parts == 1
    return ns


def found_at(ns: Namespace, **options: Any) -> tuple[Any, float]:
    """Ids of the sample's queries, and the share of the rows that was scanned."""
    batch = ns.search_batch(sample().query_vectors, debug=True, **options)
    assert batch.debug is not None
    rows = len(sample().ids)
    return batch, float(np.mean([d["rows_scanned"] for d in batch.debug])) / rows


def test_defaults_recall_95_in_ten_parts(in_parts: Namespace, truth: Any) -> None:
    batch, share = found_at(in_parts)
    assert recall(batch.ids, truth[:, :10]) >= 0.95
    assert share < 0.9


def test_defaults_recall_95_compacted(compacted: Namespace, truth: Any) -> None:
    """10,000 rows are few: the share that must be scanned falls with their number (docs/)."""
    batch, share = found_at(compacted)
    assert recall(batch.ids, truth[:, :10]) >= 0.95
    assert share < 0.45


@pytest.mark.parametrize("target", [0.90, 0.95])
@pytest.mark.parametrize("which", ["in_parts", "compacted"])
def test_target_recall_is_met(target: float, which: str, request: pytest.FixtureRequest, truth: Any) -> None:
    batch, _ = found_at(request.getfixturevalue(which), target_recall=target)
    each = np.array([recall([a], [t]) for a, t in zip(batch.ids, truth[:, :10], strict=True)])
    assert each.mean() >= target - 0.005 - 2 * each.std() / np.sqrt(len(each))


def test_a_higher_target_scans_more(compacted: Namespace) -> None:
    shares = [found_at(compacted, target_recall=t)[1] for t in (0.5, 0.8, 0.9, 0.95, 0.99)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


@pytest.mark.parametrize("which", ["in_parts", "compacted"])
def test_every_list_and_exact_rows_are_exact_search(
    which: str, request: pytest.FixtureRequest, truth: Any
) -> None:
    batch, share = found_at(request.getfixturevalue(which), **EXACT)
    assert recall(batch.ids, truth[:, :10]) >= 0.999
    assert share == 1.0


def test_probes_asked_for_are_probes_made(compacted: Namespace) -> None:
    k = compacted.manifest()["parts"][0]["k"]
    q = sample().query_vectors[0]
    for nprobe in (1, 7, k, k + 100):
        (part,) = compacted.search(q, nprobe=nprobe, debug=True).debug["parts"]  # type: ignore[index]
        assert part["probed"] == min(nprobe, k)
        assert part["lists"] == k
        assert part["rows"] == part["live"] == len(sample().ids)
        assert part["exact"] is False


def test_debug_tells_what_was_done(compacted: Namespace) -> None:
    hits = compacted.search(sample().query_vectors[0], debug=True, nprobe=30, rerank_precision="fp32")
    debug = hits.debug
    assert debug is not None
    assert debug["epoch"] == hits.epoch == compacted.stats().epoch
    assert debug["rows_live"] == len(sample().ids)
    assert 10 <= debug["rows_reranked_fp32"] <= debug["rows_reranked"] <= debug["rows_scanned"]
    assert debug["rerank_precision"] == "fp32"
    assert all(seconds >= 0 for seconds in debug["seconds"].values())
    assert debug["storage"]["requests"] == 0, "a mapped store needs no request"
    assert compacted.search(sample().query_vectors[0]).debug is None


def test_scanning_counts_the_rows_of_the_lists(compacted: Namespace) -> None:
    k = compacted.manifest()["parts"][0]["k"]
    hits = compacted.search(sample().query_vectors[0], nprobe=k, debug=True)
    assert hits.debug is not None
    assert hits.debug["rows_scanned"] == len(sample().ids)


def test_a_batch_answers_as_single_searches_do(compacted: Namespace, in_parts: Namespace) -> None:
    queries = sample().query_vectors[:20]
    for ns in (compacted, in_parts):
        for precision in ("none", "int8", "fp32"):
            batch = ns.search_batch(queries, top_k=7, rerank_precision=precision, include=["vector"])
            assert batch.ids.shape == batch.distances.shape == (20, 7)
            assert batch.counts.tolist() == [7] * 20
            for i, q in enumerate(queries):
                single = ns.search(q, top_k=7, rerank_precision=precision, include=["vector"])
                assert single.ids.tolist() == batch[i].ids.tolist()
                np.testing.assert_array_equal(single.distances, batch[i].distances)
                np.testing.assert_array_equal(single.vectors, batch[i].vectors)
                assert (np.diff(single.distances) >= 0).all()


def test_distances_are_those_of_the_metric(compacted: Namespace) -> None:
    glosses = sample()
    for precision, tolerance in (("fp32", 1e-5), ("int8", 0.01), ("none", 0.2)):
        hits = compacted.search(glosses.query_vectors[3], rerank_precision=precision)
        rows = np.searchsorted(np.sort(glosses.ids), hits.ids)
        rows = np.argsort(glosses.ids)[rows]
        exact = distances(glosses.vectors[rows], glosses.query_vectors[3], "cosine")[0]
        np.testing.assert_allclose(hits.distances, exact, atol=tolerance)


def test_vectors_are_returned_as_given(compacted: Namespace) -> None:
    glosses = sample()
    hits = compacted.search(glosses.query_vectors[5], include=["vector"])
    place = {int(i): row for row, i in enumerate(glosses.ids)}
    for hit in hits:
        np.testing.assert_array_equal(hit.vector, glosses.vectors[place[hit.id]])
    assert compacted.search(glosses.query_vectors[5]).vectors is None
    np.testing.assert_array_equal(compacted.get(int(glosses.ids[9])).vector, glosses.vectors[9])


def test_threads_that_share_a_handle_get_the_answers_of_one(in_parts: Namespace) -> None:
    queries = sample().query_vectors[:60]
    alone = [in_parts.search(q).ids.tolist() for q in queries]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(2):
            together = list(pool.map(lambda q: in_parts.search(q).ids.tolist(), queries))
            assert together == alone


def mapped(folder: Path) -> tuple[F32, View]:
    """Some rows, and a view of them that waits for no request."""
    db = engine(LocalStore(folder))
    db.create("ns", 8, "l2", CODED)
    rows = clustered(generator(1), 400, 8)
    db.insert("ns", rows, list(range(400)), mode="insert", expected=None, idempotency_key=None)
    ns = db.namespace("ns")
    view = ns.views.open(ns.manifest(), ReadTrace())
    assert view.mapped
    return rows, view


class OneByOne(Executor):
    """A pool whose only thread is busy, has time at once, or fails."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.given: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.given.append(future)
        if self.kind == "at once":
            future.set_result(fn(*args, **kwargs))
        elif self.kind == "fails":
            future.set_exception(RuntimeError("no memory"))
        return future


@pytest.mark.parametrize("kind", ["busy", "at once", "fails"])
def test_a_batch_is_shared_with_the_threads_that_have_time(kind: str, tmp_path: Path) -> None:
    rows, view = mapped(tmp_path)
    pool = OneByOne(kind)

    def found() -> list[list[int]]:
        params = SearchParams(top_k=5, **EXACT)
        return search_many(view, rows[:300], params, Scratch(), lambda: pool, threads=3).ids.tolist()

    if kind == "fails":
        with pytest.raises(RuntimeError, match="no memory"):
            found()
    else:
        assert found() == nearest(rows, rows[:300], "l2", 5).tolist()
    assert [one.cancelled() for one in pool.given] == [kind == "busy"] * 2


@given(queries=st.integers(0, 3_000), threads=st.integers(1, 16))
def test_groups_are_of_all_queries_and_the_last_are_small(queries: int, threads: int) -> None:
    groups = list(groups_of(queries, threads))
    assert [i for start, end in groups for i in range(start, end)] == list(range(queries))
    sizes = [end - start for start, end in groups]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes, default=0) <= GROUP
    if threads == 1 or queries < LEAST_SHARED:
        assert len(groups) == -(-queries // GROUP)
    else:
        assert len(groups) >= min(threads, queries // LEAST_GROUP)
        assert sizes[-1] <= LEAST_GROUP


class Held:
    """A batch that says when it is asked, and answers when it may."""

    padded_dim = 64

    def __init__(self) -> None:
        self.asked, self.may = Event(), Event()
        self.groups = 0

    def run(self, *_: Any) -> list[int]:
        self.groups += 1
        self.asked.set()
        assert self.may.wait(30)
        return []


class Unlucky(Scratch):
    """There is a batch for the other thread, and no memory for one of the caller's."""

    def __init__(self, held: Held) -> None:
        super().__init__()
        self.held, self.caller = held, get_ident()
        self.given = 0

    def take_batch(self, width: int) -> Any:
        if get_ident() != self.caller:
            return self.held
        assert self.held.asked.wait(30)
        Timer(0.05, self.held.may.set).start()
        raise MemoryError

    def give_batch(self, batch: Any) -> None:
        self.given += batch is self.held


def test_a_batch_that_fails_waits_for_the_other_thread_which_begins_nothing_more(tmp_path: Path) -> None:
    rows, view = mapped(tmp_path)
    held = Held()
    scratch = Unlucky(held)
    with Pool(1) as pool:
        with pytest.raises(MemoryError):
            search_many(view, rows[:300], SearchParams(), scratch, lambda: pool, threads=2)
        assert (held.groups, scratch.given) == (1, 1)


def test_a_pool_that_takes_no_more_work_has_none_left_behind(tmp_path: Path) -> None:
    rows, view = mapped(tmp_path)
    pool = OneByOne("busy")

    def once() -> OneByOne:
        if pool.given:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return pool

    with pytest.raises(RuntimeError, match="after shutdown"):
        search_many(view, rows[:300], SearchParams(), Scratch(), once, threads=3)
    assert [one.cancelled() for one in pool.given] == [True]


@pytest.mark.parametrize("store", [MemoryStore, RangeStore])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_who_looks_for_equal_rows_finds_them(metric: Any, store: Callable[[], Any]) -> None:
    """By int8 a copy of a row lies up to a thousandth away."""
    rows = np.tile(sample().vectors[:2_000], (2, 1))
    ns = database(store(), seed=4).create_namespace("twice", dim=384, metric=metric)
    ns.insert(rows, np.arange(4_000))
    some = np.arange(0, 2_000, 50)
    found = ns.search_batch(rows[some], 5, max_distance=1e-5)
    assert (
        np.mean([{i, i + 2_000} <= set(ids.tolist()) for i, ids in zip(some, found.ids, strict=True)]) >= 0.9
    )
    loose = ns.search_batch(rows[some], 5, max_distance=1e-5, rerank_precision="int8")
    assert loose.counts.sum() < found.counts.sum()


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("settings", [EXACT, {}])
def test_cosine_distances_of_rows_that_point_nearly_the_same_way_have_their_digits(
    settings: dict[str, Any], dtype: str
) -> None:
    """One less a product was a multiple of 6e-8, of distances of 1e-9 to 1e-5."""
    rng = generator(4)
    one = rng.standard_normal(300)
    noise = 10.0 ** rng.uniform(-4.5, -2.5, (1_500, 1))
    rows = (one + noise * rng.standard_normal((1_500, 300))).astype(np.float32)
    if dtype == "fp16":
        rows = rows.astype(np.float16).astype(np.float32)
    ns = database(seed=4).create_namespace("near", 300, "cosine", store_vectors=dtype, **settings)
    ns.insert(rows, np.arange(1_500))
    q = rows[0]
    found = ns.search(q, 50, rerank_precision="fp32")
    true = distances(rows, q, "cosine")[0]
    np.testing.assert_allclose(found.distances[1:], true[found.ids[1:]], rtol=2e-3, atol=1e-13)
    assert found.ids[0] == 0
    assert found.distances[0] < 1e-13
    assert recall([found.ids], [np.argsort(true)[:50]]) >= 0.94


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_limit_goes_by_vectors_however_many_rows_are_near_it(metric: Any) -> None:
    """Beyond `fp32_rerank_cap` hits it went by int8: of equal rows it took all of a thousand, or none."""
    rng = generator(5)
    rows = np.repeat(rng.standard_normal((4, 32)).astype(np.float32), 600, axis=0)
    rows[600:1_200] += 1e-3 * rng.standard_normal((600, 32)).astype(np.float32)
    ns = database(seed=4).create_namespace("equal", 32, metric, fp32_rerank_cap=100, small_part_threshold=0)
    ns.insert(rows, np.arange(2_400))
    q = rows[0] + np.float32(0.1)
    limit = float(distances(rows[:1], q, metric)[0, 0])
    found = ns.search(q, 2_000, max_distance=limit * (1 + 1e-5), nprobe=10_000)
    assert set(range(600)) <= set(found.ids.tolist())
    assert (found.distances <= limit * (1 + 1e-5)).all()


def test_equal_rows_are_found_beside_a_part_that_keeps_no_vectors() -> None:
    rows = sample().vectors[:4_000]
    ns = database(seed=4).create_namespace("mixed", dim=384, metric="cosine")
    ns.insert(rows[:2_000], np.arange(2_000))
    ns.update(store_vectors="none")
    ns.insert(rows[2_000:], np.arange(2_000, 4_000))
    found = ns.search_batch(rows[:2_000:50], 5, max_distance=1e-5)
    assert np.mean([i in ids.tolist() for i, ids in zip(range(0, 2_000, 50), found.ids, strict=True)]) >= 0.9


# -- small namespaces of every kind ---------------------------------------------------------


def mixed(
    metric: Any, store: Any = None, *, strings: bool = False, **changes: Any
) -> tuple[Namespace, dict[Any, Any]]:
    """Four parts, small ones and coded ones, some rows deleted and some replaced."""
    dim = 24
    rows = vectors_of(metric, 700, dim, 11)
    ns = database(store, seed=5).create_namespace(
        "mixed", dim=dim, metric=metric, small_part_threshold=150 * dim, list_rows=16, **changes
    )
    ids: list[Any] = [f"id-{i}" for i in range(700)] if strings else list(range(100, 800))
    model: dict[Any, Any] = {}
    for part in (slice(0, 100), slice(100, 400), slice(400, 450), slice(450, 640)):
        ns.insert(rows[part], ids[part])
        model |= dict(zip(ids[part], rows[part], strict=True))
    ns.delete(ids[50:640:9])
    for i in ids[50:640:9]:
        del model[i]
    ns.insert(rows[640:], ids[0:60])  # an upsert: new vectors under old ids
    model |= dict(zip(ids[0:60], rows[640:], strict=True))
    return ns, model


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [MemoryStore, RangeStore])
def test_exact_settings_are_exact_whatever_the_parts(metric: Any, kind: Callable[[], Any]) -> None:
    ns, model = mixed(metric, kind())
    queries = vectors_of(metric, 15, 24, 12)
    for _ in range(2):
        for k in (1, 10, 300, 5_000):
            batch = ns.search_batch(queries, top_k=k, **EXACT)
            for i, q in enumerate(queries):
                assert_exact(batch[i], model, q, metric, k)
        ns.compact()


@pytest.mark.parametrize("metric", METRICS)
def test_a_search_that_keeps_all_lists_recalls_95_by_int8(metric: Any) -> None:
    ns, model = mixed(metric)
    ids, rows = list(model), np.stack(list(model.values()))
    queries = vectors_of(metric, 50, 24, 13)
    truth = [[ids[j] for j in row] for row in nearest(rows, queries, metric, 10)]
    batch = ns.search_batch(queries, probe_fraction=1.0)
    assert recall(batch.ids, truth) >= 0.95


@pytest.mark.parametrize("kind", [MemoryStore, RangeStore])
def test_string_ids_are_found_exactly(kind: Callable[[], Any]) -> None:
    ns, model = mixed("l2", kind(), strings=True)
    for q in vectors_of("l2", 5, 24, 14):
        hits = ns.search(q, top_k=20, **EXACT)
        assert all(isinstance(hit.id, str) for hit in hits)
        assert_exact(hits, model, q, "l2", 20)
    batch = ns.search_batch(vectors_of("l2", 2, 24, 14), top_k=2_000)
    assert batch.ids.dtype == object
    assert batch.ids[0, -1] == ""
    assert len(batch[0]) == len(model)


def test_a_hit_list_is_as_long_as_there_are_live_rows() -> None:
    ns, model = mixed("cosine")
    q = vectors_of("cosine", 1, 24, 15)[0]
    for options in ({}, {"nprobe": 1}, {"rerank_scale": 0.0}, EXACT):
        hits = ns.search(q, top_k=10_000, **options)
        assert sorted(hits.ids.tolist()) == sorted(model)
    batch = ns.search_batch(q[None, :], top_k=1_000)
    assert batch.counts.tolist() == [len(model)]
    assert np.isinf(batch.distances[0, len(model) :]).all()


def test_an_empty_namespace_has_no_hits() -> None:
    ns = database().create_namespace("empty", dim=3, metric="l2")
    hits = ns.search([1, 2, 3], debug=True, include=["vector"])
    assert len(hits) == 0
    assert list(hits) == hits.rows == []
    assert hits.epoch == 1
    assert ns.search_batch([[1, 2, 3]] * 2, top_k=4).counts.tolist() == [0, 0]
    ns.insert([[1, 1, 1]], ["only"])
    ns.delete(["only"])
    assert len(ns.search([1, 2, 3])) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_small_parts_are_exact_at_any_setting(metric: Any) -> None:
    rows, queries = vectors_of(metric, 900, 16, 20), vectors_of(metric, 10, 16, 21)
    ns = database().create_namespace("small", dim=16, metric=metric)
    ns.insert(rows[:500])
    ns.insert(rows[500:])
    model = dict(enumerate(rows))
    for options in ({}, {"nprobe": 1}, {"rerank_precision": "none"}, {"rerank_scale": 0}):
        for q in queries:
            assert_exact(ns.search(q, **options), model, q, metric, 10)


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kept", ["fp16", "none"])
def test_parts_that_keep_less_answer_nearly(kept: Any, metric: Any, coded: bool) -> None:
    rows, queries = vectors_of(metric, 800, 32, 22), vectors_of(metric, 20, 32, 23)
    threshold = 0 if coded else 1 << 20
    ns = database().create_namespace(
        "kept", dim=32, metric=metric, store_vectors=kept, small_part_threshold=threshold
    )
    ns.insert(rows, np.arange(800))
    truth = nearest(rows, queries, metric, 10)
    for precision in ("int8", "fp32"):
        batch = ns.search_batch(queries, probe_fraction=1.0, rerank_precision=precision, include=["vector"])
        assert recall(batch.ids, truth) >= 0.95
        assert batch.vectors is not None
        if kept == "none":
            assert np.isnan(batch.vectors).all()
        else:
            given_ids = batch.ids.astype(np.int64)
            np.testing.assert_allclose(batch.vectors, rows[given_ids], rtol=1e-3, atol=1e-3)
    row = ns.get(5)
    assert (row.vector is None) == (kept == "none")


def test_a_cap_on_exact_re_ranking_leaves_the_rest_to_int8() -> None:
    rows, queries = clustered(generator(1), 1_000, 32), clustered(generator(2), 10, 32)
    ns = database().create_namespace("capped", dim=32, metric="l2", fp32_rerank_cap=3, **CODED)
    ns.insert(rows)
    for q in queries:
        hits = ns.search(q, top_k=10, probe_fraction=1.0, rerank_precision="fp32", debug=True)
        assert hits.debug is not None
        assert hits.debug["rows_reranked_fp32"] == 3
        assert len(hits) == 10
        truth = distances(rows, q, "l2")[0]
        exact = np.isclose(hits.distances, truth[hits.ids.astype(np.int64)], rtol=1e-6)
        assert exact.sum() >= 3
        np.testing.assert_allclose(hits.distances, truth[hits.ids.astype(np.int64)], rtol=0.05)


def test_no_re_ranking_when_the_scale_is_zero() -> None:
    ns, _ = mixed("l2")
    hits = ns.search(vectors_of("l2", 1, 24, 1)[0], rerank_scale=0, rerank_precision="fp32", debug=True)
    assert hits.debug is not None
    assert hits.debug["rows_reranked"] == hits.debug["rows_reranked_fp32"] == 0
    assert hits.debug["rerank_precision"] == "none"


@pytest.mark.parametrize("metric", METRICS)
def test_parts_of_different_means_are_searched_together(metric: Any) -> None:
    """The first large part brings a mean; small ones before it were encoded without."""
    dim = 16
    rows = vectors_of(metric, 900, dim, 30) + np.float32(20.0)
    ns = database().create_namespace(
        "means", dim=dim, metric=metric, small_part_threshold=300 * dim, store_vectors="none"
    )
    ns.insert(rows[:200])
    ns.insert(rows[200:700])
    ns.insert(rows[700:])
    means = {part["mean"] for part in ns.manifest()["parts"]}
    assert len(means) == 2
    assert None in means
    queries = vectors_of(metric, 20, dim, 31) + np.float32(20.0)
    batch = ns.search_batch(queries, probe_fraction=1.0)
    assert recall(batch.ids, nearest(rows, queries, metric, 10)) >= (0.9 if metric == "cosine" else 0.93)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_data_far_from_the_origin_is_searched_as_well(offset: float) -> None:
    rows = clustered(generator(7), 3_000, 48) + np.float32(offset)
    queries = clustered(generator(7), 40, 48) + np.float32(offset)
    ns = database().create_namespace("far", dim=48, metric="l2", **CODED)
    ns.insert(rows)
    assert recall(ns.search_batch(queries).ids, nearest(rows, queries, "l2", 10)) >= 0.95


def test_dot_products_of_widely_different_norms_recall_95() -> None:
    rng = generator(8)
    both = clustered(rng, 4_100, 64)
    rows = both[:4_000] * rng.lognormal(0.0, 1.5, size=(4_000, 1)).astype(np.float32)
    queries = both[4_000:]
    ns = database().create_namespace("dot", dim=64, metric="dot")
    for i in range(4):
        ns.insert(rows[i * 1_000 : (i + 1) * 1_000])
    truth = nearest(rows, queries, "dot", 10)
    assert recall(ns.search_batch(queries).ids, truth) >= 0.95
    ns.compact()
    assert ns.stats().parts == 1
    assert recall(ns.search_batch(queries).ids, truth) >= 0.95


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 120),
    dim=st.sampled_from([1, 3, 64, 130]),
    metric=st.sampled_from(METRICS),
    coded=st.booleans(),
    copies=st.integers(1, 4),
    k=st.integers(1, 50),
    seed=st.integers(0, 2**32),
)
def test_exact_settings_are_exact_for_any_small_data(
    n: int, dim: int, metric: Any, coded: bool, copies: int, k: int, seed: int
) -> None:
    """Rows that are the same, one dimension, one row, more hits than rows."""
    rng = generator(seed)
    rows = np.repeat(clustered(rng, n, dim, clusters=3), copies, axis=0)
    ns = database().create_namespace("any", dim=dim, metric=metric, **(CODED if coded else {}))
    ns.insert(rows)
    q = clustered(rng, 1, dim)[0]
    assert_exact(ns.search(q, top_k=k, **EXACT), dict(enumerate(rows)), q, metric, k)


# -- snapshots ------------------------------------------------------------------------------


def test_a_past_epoch_answers_as_it_did() -> None:
    rows = clustered(generator(1), 300, 8)
    ns = database().create_namespace("past", dim=8, metric="l2", **CODED)
    epochs = [ns.insert(rows[:100], range(100)).epoch, ns.insert(rows[100:200], range(100, 200)).epoch]
    epochs.append(ns.delete(range(0, 200, 2)).epoch)
    epochs.append(ns.insert(rows[200:], range(100)).epoch)
    ns.compact()
    q = clustered(generator(2), 1, 8)[0]
    models: list[dict[Any, Any]] = [dict(enumerate(rows[:100])), dict(enumerate(rows[:200]))]
    models.append({i: v for i, v in models[-1].items() if i % 2})
    models.append(models[-1] | dict(enumerate(rows[200:])))
    for _ in range(2):
        for epoch, model in zip(epochs, models, strict=True):
            hits = ns.search(q, top_k=50, epoch=epoch, **EXACT)
            assert hits.epoch == epoch
            assert_exact(hits, model, q, "l2", 50)
        assert_exact(ns.search(q, top_k=50, **EXACT), models[-1], q, "l2", 50)


def test_an_epoch_whose_history_was_collected_has_expired() -> None:
    now = [1_000_000.0]
    ns = database(MemoryStore(clock=lambda: now[0])).create_namespace("past", dim=2, metric="l2")
    old = ns.insert([[1, 2]], [1]).epoch
    ns.insert([[3, 4]], [1])
    ns.compact()
    now[0] += 10_000.0
    ns.insert([[5, 6]], [2])
    assert ns.gc(retention=60, grace=60).deleted > 0
    with pytest.raises(SnapshotExpired) as error:
        ns.search([1, 2], epoch=old)
    assert error.value.status == 410
    assert len(ns.search([1, 2])) == 2


def test_an_eventual_search_may_be_as_stale_as_it_says_and_no_more(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    writer, reader = database(store, seed=1), database(store, seed=2)
    ours = writer.create_namespace("ns", dim=2, metric="l2")
    theirs = reader.namespace("ns")
    ours.insert([[0, 0]], [1])
    assert len(theirs.search([0, 0])) == 1
    ours.insert([[1, 1]], [2])
    assert len(theirs.search([0, 0], consistency="eventual", max_staleness=3_600)) == 1
    assert len(theirs.search([0, 0], consistency="eventual", max_staleness=0)) == 2
    ours.insert([[1, 1]], [3])
    assert len(theirs.search([0, 0], consistency="strong")) == 3


def test_a_cold_search_takes_three_dependent_trips() -> None:
    store = RangeStore(uuid.uuid4().hex)
    ns = database(store).create_namespace("cold", dim=16, metric="l2", list_rows=16, **CODED)
    rows = clustered(generator(1), 600, 16)
    ns.insert(rows[:300])
    ns.insert(rows[300:])
    ns.delete([5, 400])
    fresh = database(store, seed=9).namespace("cold")
    hits = fresh.search(rows[0], debug=True)
    assert hits.debug is not None
    traffic = hits.debug["storage"]
    # `current`, heads and tombstones side by side, then lists.
    assert traffic["round_trips"] == 3
    assert traffic["requests"] >= 5
    again = fresh.search(rows[0], debug=True).debug
    assert again is not None
    # Only whether `current` is still current.
    assert again["storage"]["requests"] == again["storage"]["round_trips"] == 1


class Counting(RangeStore):
    """Counts how often ranges were asked for."""

    asked = 0

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        self.asked += 1
        return super().get_ranges(key, ranges)


@pytest.mark.parametrize("include", [[], ["vector", "n"]])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_queries_of_a_cold_batch_wait_together(precision: Any, include: list[str]) -> None:
    store = Counting(uuid.uuid4().hex)
    ns = database(store).create_namespace("cold", dim=16, metric="l2", list_rows=16, **CODED)
    rows = clustered(generator(1), 3_000, 16)
    for start in (0, 1_500):
        ids = np.arange(start, start + 1_500)
        ns.insert(rows[ids], ids, attributes={"n": ids})
    ns.insert(rows[:9] + 0.5)
    queries = clustered(generator(2), 100, 16)
    how: dict[str, Any] = {"nprobe": 5, "rerank_precision": precision, "include": include}
    fresh = database(store, seed=9).namespace("cold")
    store.asked = 0
    found = fresh.search_batch(queries, **how)
    groups = -(-len(queries) // GROUP)
    # Three parts: their heads, what each group misses of them, and what the hits bring at the end.
    a_group = 4 + 2 * (precision == "fp32")
    assert store.asked <= 3 + a_group * groups + 6 * bool(include)
    for i, q in enumerate(queries):
        one = fresh.search(q, **how)
        assert found[i].ids.tolist() == one.ids.tolist()
        assert found[i].distances.tolist() == one.distances.tolist()
        assert found[i].attributes == one.attributes
        np.testing.assert_array_equal(found[i].vectors, one.vectors)


def test_what_a_cold_batch_holds_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Counting(uuid.uuid4().hex)
    ns = database(store).create_namespace("cold", dim=16, metric="l2", list_rows=16, **CODED)
    ns.insert(clustered(generator(1), 1_500, 16))
    queries = clustered(generator(2), 20, 16)

    def asked(most: int) -> int:
        monkeypatch.setattr(search, "STEP_BYTES", most)
        fresh = database(store, seed=9).namespace("cold")
        store.asked = 0
        fresh.search_batch(queries, nprobe=5)
        return store.asked

    assert asked(1 << 30) == 2  # the head, and the lists of all queries
    assert asked(1) > 10  # of each query what those before it have left


def test_vectors_of_a_distant_part_are_read_some_pages_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Counting(uuid.uuid4().hex)
    ns = database(store).create_namespace("cold", dim=700, metric="l2", list_rows=16, **CODED)
    rows = clustered(generator(1), 1_000, 700)
    ns.insert(rows, np.arange(1_000))

    def asked(most: int) -> int:
        monkeypatch.setattr(reader, "PAGES_AT_ONCE", most)
        fresh = database(store, seed=9).namespace("cold")
        store.asked = 0
        found = fresh.search_batch(rows[:30], 20, include=["vector"], rerank_precision="int8")
        assert found.vectors is not None
        np.testing.assert_array_equal(found.vectors, rows[found.ids.astype(np.int64)])
        return store.asked

    assert asked(2_048) == 3  # the head, lists, vectors
    assert asked(8) > 6  # two pages a row at most, so that four rows are read at a time, of 40 pages


@pytest.mark.parametrize("options", [{"include": ["absent"]}, {"exclude": ["absent"]}])
def test_an_unknown_name_is_refused_before_a_batch_is_searched(options: dict[str, Any]) -> None:
    store = Counting(uuid.uuid4().hex)
    ns = database(store).create_namespace("cold", dim=16, metric="l2", list_rows=16, **CODED)
    ns.insert(clustered(generator(1), 1_500, 16))
    fresh = database(store, seed=9).namespace("cold")
    fresh.search(np.ones(16, dtype=np.float32), nprobe=1)
    store.asked = 0
    with pytest.raises(InvalidArgument, match="absent"):
        fresh.search_batch(clustered(generator(2), 20, 16), probe_fraction=1.0, **options)
    assert store.asked == 0
