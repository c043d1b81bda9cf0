"""How far queries go: targets where rows are dead or gone, for who asks elsewhere, and for many hits."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.core import RangeStore, database, generator, nearest, recall, sample
from vecstore.storage.memory import MemoryStore


def test_the_nearest_are_deleted_and_the_answer_is_full() -> None:
    """The nearest 20 rows of each query deleted, before and after compaction, at the default settings.

    Queries that lie in holes of the data are harder than those that calibration saw: their nearest
    rows are many and nearly as far, so they need more lists and more candidates.
    """
    glosses = sample()
    some = np.sort(generator(1).choice(len(glosses.ids), 5_000, replace=False))
    vectors, ids, queries = glosses.vectors[some], glosses.ids[some], glosses.query_vectors[:100]
    ns = database(seed=4).create_namespace("glosses", dim=384, metric="cosine")
    for i in range(5):
        ns.insert(vectors[i::5], ids[i::5])
    dead = np.unique(ids[nearest(vectors, queries, "cosine", 20)])
    assert ns.delete(dead).deleted == len(dead)
    alive = ~np.isin(ids, dead)
    truth = ids[alive][nearest(vectors[alive], queries, "cosine", 10)]
    fast: list[dict[str, Any]] = [{}, {"nprobe": 1}, {"nprobe": 1, "rerank_precision": "none"}]
    for phase in ("before", "after"):
        if phase == "after":
            assert ns.compact().rows == alive.sum()
            assert ns.stats().tombstones == 0
        assert ns.stats().rows == alive.sum()
        assert recall(ns.search_batch(queries).ids, truth) >= 0.95
        for options in fast:
            batch = ns.search_batch(queries, **options)
            assert (batch.counts == 10).all()
            assert not np.isin(batch.ids, dead).any()
            assert all(len(set(found.tolist())) == 10 for found in batch.ids)


@pytest.mark.parametrize("store", [MemoryStore, RangeStore])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_who_asks_for_a_subject_that_was_deleted_finds_what_is_nearest_elsewhere(
    metric: Any, store: Callable[[], Any]
) -> None:
    """A hole of a fifth of the rows, which no plan reaches across: recall was .4 to .7."""
    rng = generator(8)
    centres = 3.0 * rng.standard_normal((40, 64))
    subjects = rng.integers(40, size=8_000)
    rows = (centres[subjects] + rng.standard_normal((8_000, 64))).astype(np.float32)
    queries = (centres[rng.integers(8, size=100)] + rng.standard_normal((100, 64))).astype(np.float32)
    ns = database(store(), seed=4).create_namespace("subjects", dim=64, metric=metric)
    ns.insert(rows, np.arange(8_000))
    ns.delete(np.flatnonzero(subjects < 8))
    alive = np.flatnonzero(subjects >= 8)
    truth = alive[nearest(rows[alive], queries, metric, 10)]
    assert recall(ns.search_batch(queries).ids, truth) >= 0.95
    beside = (centres[rng.integers(8, 40, size=50)] + rng.standard_normal((50, 64))).astype(np.float32)
    scanned = [(ns.search(q, debug=True).debug or {})["rows_scanned"] for q in beside]
    assert np.mean(scanned) < 800  # who asks elsewhere pays nothing for it


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_who_asks_for_a_subject_that_was_compacted_away_finds_what_is_nearest(metric: Any) -> None:
    """Nothing of the hole is to be seen then; recall was .7."""
    rng = generator(8)
    centres = 3.0 * rng.standard_normal((40, 64))
    subjects = rng.integers(8, 40, size=6_400)
    rows = (centres[subjects] + rng.standard_normal((6_400, 64))).astype(np.float32)
    queries = (centres[rng.integers(8, size=100)] + rng.standard_normal((100, 64))).astype(np.float32)
    ns = database(seed=4).create_namespace("subjects", dim=64, metric=metric)
    ns.insert(rows)
    assert recall(ns.search_batch(queries).ids, nearest(rows, queries, metric, 10)) >= 0.95
    beside = (centres[rng.integers(8, 40, size=50)] + rng.standard_normal((50, 64))).astype(np.float32)
    scanned = [(ns.search(q, debug=True).debug or {})["rows_scanned"] for q in beside]
    assert np.mean(scanned) < 800


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_queries_from_elsewhere_meet_their_target(metric: Any) -> None:
    """Directions at random, and the opposite of what was stored: recall was .7."""
    glosses = sample()
    ns = database(seed=4).create_namespace("glosses", dim=384, metric=metric)
    ns.insert(glosses.vectors, glosses.ids)
    drawn = generator(6).standard_normal((100, 384)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    for queries in (drawn, -glosses.query_vectors[:100]):
        truth = glosses.ids[nearest(glosses.vectors, queries, metric, 10)]
        assert recall(ns.search_batch(queries).ids, truth) >= 0.945


def test_a_query_for_the_subject_of_one_part_takes_no_more_of_the_others() -> None:
    rng = generator(7)
    rows = rng.standard_normal((2, 2_000, 8)).astype(np.float32)
    rows[1] += 8.0
    ns = database(RangeStore()).create_namespace("two", 8, "l2", small_part_threshold=0)
    for some in rows:
        ns.insert(some)
    probed = []
    for subject in (0.0, 8.0):
        for q in rng.standard_normal((20, 8)).astype(np.float32) + np.float32(subject):
            found = ns.search(q, debug=True).debug
            assert found is not None
            probed.append([part["probed"] for part in found["parts"]])
    first, second = probed[0]
    # One or another lies beyond all rows of its subject, too; the others took four times as much of one part.
    assert probed.count([first, second]) >= 36
    assert first < found["parts"][0]["lists"]


def test_queries_from_elsewhere_take_no_more_trips_than_others() -> None:
    glosses = sample()
    store = RangeStore(uuid.uuid4().hex)
    database(store).create_namespace("far", dim=384, metric="cosine", list_rows=4).insert(glosses.vectors)
    queries = generator(6).standard_normal((20, 384)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scanned: dict[str, list[int]] = {}
    for kind, asked in (("elsewhere", queries), ("here", glosses.query_vectors[:20])):
        for q in asked:
            found = database(store, seed=9).namespace("far").search(q, debug=True).debug
            assert found is not None
            assert found["storage"]["round_trips"] == 3
            scanned.setdefault(kind, []).append(found["rows_scanned"])
    assert np.mean(scanned["elsewhere"]) > 2 * np.mean(scanned["here"])


@pytest.mark.parametrize("parts", [1, 2])
def test_where_nearly_all_is_dead_every_list_is_ranked_once(parts: int) -> None:
    """A query that was to be filled had ranked all lists, and one more was ranked for its hole."""
    rng = generator(9)
    rows = (rng.standard_normal((6_000, 8)) + 3.0).astype(np.float32)
    rows[:, 0] *= 8.0
    ns = database(seed=4).create_namespace("hole", 8, "l2", k_min=128, k_max=512, small_part_threshold=0)
    for mine in np.array_split(rng.permutation(6_000), parts):
        ns.insert(rows[mine], mine)
    order = nearest(rows, rows[np.argmin(rows[:, 0])], "l2", 6_000)[0]
    ns.delete(order[:5_880])
    alive = order[5_880:]
    truth = alive[nearest(rows[alive], rows[order[:40]], "l2", 1)]
    found = ns.search_batch(rows[order[:40]], 1, target_recall=0.9)
    assert recall(found.ids, truth) >= 0.9
    for i, q in enumerate(rows[order[:40]]):
        assert ns.search(q, 1, target_recall=0.9).ids.tolist() == found[i].ids.tolist()


@pytest.mark.parametrize("store", [MemoryStore, RangeStore])
def test_a_plan_for_more_hits_than_calibration_asked_for_meets_its_target(store: Callable[[], Any]) -> None:
    """It was one for a hundred: of a thousand hits .73 were found where lists are fetched, .93 elsewhere."""
    glosses = sample()
    ns = database(store(), seed=4).create_namespace("glosses", dim=384, metric="cosine")
    ns.insert(glosses.vectors, glosses.ids)
    queries = glosses.query_vectors[:100]
    for top_k in (300, 1_000):
        truth = glosses.ids[nearest(glosses.vectors, queries, "cosine", top_k)]
        assert recall(ns.search_batch(queries, top_k).ids, truth) >= 0.945
        assert recall(ns.search_batch(queries, top_k, target_recall=0.8).ids, truth) >= 0.77


@pytest.mark.parametrize("store", [MemoryStore, RangeStore])
def test_a_hundred_hits_are_found_among_norms_that_spread_over_decades(store: Callable[[], Any]) -> None:
    """The longest rows have errors beyond all other estimates: a pool dropped a tenth of the hits."""
    rng = generator(10)
    drawn = rng.standard_normal((6_050, 64)) * np.exp(2.0 * rng.standard_normal((6_050, 1)))
    rows, queries = np.split(drawn.astype(np.float32), [6_000])
    ns = database(store(), seed=4).create_namespace("long", dim=64, metric="dot")
    ns.insert(rows)
    truth = nearest(rows, queries, "dot", 100)
    assert recall(ns.search_batch(queries, 100).ids, truth) >= 0.96
    assert recall(ns.search_batch(queries, 100, target_recall=0.99).ids, truth) >= 0.98


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_where_codes_tell_little_apart_few_rows_are_scored_and_batches_answer_as_single_queries(
    metric: Any,
) -> None:
    rng = generator(11)
    rows, queries = np.split(rng.standard_normal((6_060, 64)).astype(np.float32), [6_000])
    ns = database(seed=4).create_namespace("normal", dim=64, metric=metric)
    ns.insert(rows)
    truth = nearest(rows, queries, metric, 10)
    for target in (0.95, 0.99):
        found = ns.search_batch(queries, target_recall=target)
        assert recall(found.ids, truth) >= target - 0.015
        for q, ids in zip(queries, found.ids, strict=True):
            alone = ns.search(q, target_recall=target, debug=True)
            assert alone.ids.tolist() == ids.tolist()
            assert alone.debug is not None
            assert alone.debug["rows_reranked"] < 2_000  # pools had 640 and 2,560, and were read twice
