"""One namespace: settings, and what reads see."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.core import CODED, EXACT, RangeStore, assert_exact, clustered, database, engine, generator, nearest
from vecstore.api import Namespace
from vecstore.errors import (
    InvalidArgument,
    RowNotFound,
)
from vecstore.storage.memory import MemoryStore

DIM = 8
ROWS = clustered(generator(1), 400, DIM)


def namespace(store: Any = None, **settings: Any) -> Namespace:
    return database(store).create_namespace("ns", dim=DIM, metric="l2", **settings)


def ids_found(ns: Namespace, q: Any, k: int = 1_000) -> list[Any]:
    return [hit.id for hit in ns.search(q, top_k=k, **EXACT)]


# -- settings -------------------------------------------------------------------------------


def test_a_change_of_settings_changes_plans() -> None:
    ns = namespace(**CODED)
    ns.insert(ROWS, range(400))
    k = ns.manifest()["parts"][0]["k"]

    def probed() -> int:
        debug = ns.search(ROWS[0], debug=True).debug
        assert debug is not None
        return int(debug["parts"][0]["probed"])

    ns.update(target_recall=None, probe_fraction=1.0)
    assert probed() == k
    ns.update(nprobe_cap=2)
    assert probed() == 2
    ns.update(nprobe_cap=8_192, probe_fraction=3 / k)
    assert probed() == 3
    assert ns.update(rerank_precision="fp32").defaults["rerank_precision"] == "fp32"
    debug = ns.search(ROWS[0], debug=True).debug
    assert debug is not None
    assert debug["rerank_precision"] == "fp32"
    with pytest.raises(InvalidArgument):
        ns.update(probe_fraction=2.0)
    with pytest.raises(InvalidArgument):
        ns.update(unknown=1)
    with pytest.raises(InvalidArgument):
        ns.update(k_min=9, k_max=3)


def test_new_settings_shape_new_parts_and_compaction() -> None:
    ns = namespace()
    ns.insert(ROWS[:200], range(200))
    ns.update(small_part_threshold=0, list_rows=10, store_vectors="fp16")
    ns.insert(ROWS[200:], range(200, 400))
    old, new = ns.manifest()["parts"]
    assert (old["k"], old["vectors"]) == (1, "fp32")
    assert new["k"] > 10
    assert new["vectors"] == "fp16"
    ns.compact()
    (merged,) = ns.manifest()["parts"]
    assert merged["k"] > 20
    assert merged["vectors"] == "fp16"
    model = {i: v.astype(np.float16).astype(np.float32) for i, v in enumerate(ROWS)}
    assert_exact(ns.search(ROWS[5], top_k=50, **EXACT), model, ROWS[5], "l2", 50)


def forms(ns: Namespace) -> list[tuple[int, str]]:
    return [(part["k"], part["vectors"]) for part in ns.manifest()["parts"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"list_rows": 64},
        {"list_rows": 0},
        {"k_max": 2},
        {"small_part_threshold": 1 << 20},
        {"store_vectors": "fp16"},
    ],
    ids=str,
)
def test_compaction_brings_a_single_part_into_the_form_that_the_settings_ask_for(changes: Any) -> None:
    ns = namespace(**CODED)
    ns.insert(ROWS, range(400))
    assert ns.compact().reason == "nothing due"
    before = forms(ns)
    ns.update(**changes)
    assert len(ns.compact().merged) == 1
    assert forms(ns) != before
    assert ns.compact().reason == "nothing due"
    ns.update(target_recall=0.9, rerank_scale=4.0)  # of searches alone
    assert ns.compact().reason == "nothing due"


def test_rows_that_float16_cannot_hold_are_not_rewritten_for_ever() -> None:
    ns = namespace()
    ns.insert(1e6 * ROWS, range(400))
    ns.update(store_vectors="fp16")
    assert len(ns.compact().merged) == 1
    assert forms(ns) == [(1, "fp32")]
    assert ns.compact().reason == "nothing due"


def test_parts_that_a_patch_has_copied_are_trained_anew_if_their_lists_are_not_those_asked_for() -> None:
    ns = namespace(**CODED)
    ns.insert(ROWS, range(400))
    ns.update(list_rows=200)
    ns.patch(range(400), {"a": [1] * 400})
    ns.compact(everything=False)  # which drops the part that is dead now
    ((before, _),) = forms(ns)
    assert len(ns.compact().merged) == 1
    assert forms(ns)[0][0] < before / 2
    assert ns.compact().reason == "nothing due"


def test_vectors_that_were_never_kept_are_not_made_up() -> None:
    ns = namespace(store_vectors="none")
    ns.update(store_vectors="fp32")  # nothing is there yet
    ns.update(store_vectors="none")
    ns.insert(ROWS, range(400))
    for how in ({}, {"schema": {"a": "int"}}):
        with pytest.raises(InvalidArgument, match="keep no vectors") as refused:
            ns.update(store_vectors="fp32", **how)
        assert refused.value.details["field"] == "store_vectors"
    ns.update(store_vectors="none", list_rows=64)
    assert ns.stats().defaults["store_vectors"] == "none"
    ns.delete(range(400))
    ns.compact()
    assert ns.update(store_vectors="fp32").defaults["store_vectors"] == "fp32"


def test_a_namespace_may_stop_to_keep_vectors_and_begin_again_while_all_are_there() -> None:
    ns = namespace()
    ns.insert(ROWS, range(400))
    ns.update(store_vectors="none")
    ns.update(store_vectors="fp32")
    np.testing.assert_array_equal(ns.get(7).vector, ROWS[7])


# -- reads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MemoryStore, RangeStore])
def test_a_row_is_read_by_its_id_from_whatever_part(kind: Any) -> None:
    ns = namespace(kind(), **CODED)
    ns.insert(ROWS[:150], range(150))
    ns.insert(ROWS[150:300], range(1_000, 1_150))
    for i, row in ((0, 0), (149, 149), (1_000, 150), (1_149, 299)):
        found = ns.get(i)
        assert (found.id, found.epoch) == (i, ns.stats().epoch)
        np.testing.assert_array_equal(found.vector, ROWS[row])
        assert ns.get(i, include_vector=False).vector is None
    for i in (150, 999, 2**64 - 1):
        with pytest.raises(RowNotFound):
            ns.get(i)


def test_stats_add_up() -> None:
    ns = namespace()
    ns.insert(ROWS[:10], range(10))
    ns.insert(ROWS[10:15], range(5, 10))
    ns.delete([0])
    stats = ns.stats()
    assert (stats.rows, stats.parts, stats.tombstones, stats.epoch) == (9, 2, 6, 4)
    assert stats.bytes == sum(part["bytes"] for part in ns.manifest()["parts"])
    assert stats.etag == f"{stats.incarnation}-4"
    assert stats.created_at <= stats.updated_at
    assert stats.defaults["probe_fraction"] == 0.1


def test_a_manifest_of_a_past_epoch_can_be_read() -> None:
    ns = namespace()
    ns.insert(ROWS[:1], [1])
    assert ns.manifest(1)["parts"] == []
    assert ns.manifest() == ns.manifest(2) | {"compaction": None}
    with pytest.raises(InvalidArgument):
        ns.manifest(3)


def test_more_threads_than_scratch_areas_search_at_once() -> None:
    ns = namespace(**CODED)
    ns.insert(ROWS, range(400))
    truth = nearest(ROWS, ROWS[:100], "l2", 5)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda q: ns.search(q, top_k=5, **EXACT).ids.tolist(), ROWS[:100]))
    assert found == truth.tolist()


def test_a_pool_is_never_larger_than_the_rows_or_than_a_pool_may_be() -> None:
    """With half of the rows dead, the widest request asked for more candidates than a pool can hold."""
    ns = namespace(**CODED)
    ns.insert(ROWS, range(400))
    ns.delete(range(250))
    hits = ns.search(ROWS[300], top_k=10_000, rerank_scale=1000.0, target_recall=0.9)
    assert len(hits) == 150
    assert hits.ids[0] == 300


def test_the_answer_of_a_batch_is_bounded() -> None:
    """Room is made for top_k hits a query, however few rows there are."""
    ns = namespace()
    ns.insert(ROWS[:3])
    queries = np.zeros((101, DIM), dtype=np.float32)
    assert ns.search_batch(queries[:100], top_k=10_000).counts.tolist() == [3] * 100
    with pytest.raises(InvalidArgument, match="1000000 hits") as refused:
        ns.search_batch(queries, top_k=10_000)
    assert refused.value.details == {"field": "top_k", "limit": 1_000_000}
    wide = database().create_namespace("wide", dim=4_096, metric="l2")
    wide.insert(np.zeros((1, 4_096), dtype=np.float32))
    with pytest.raises(InvalidArgument, match="70000 vectors of 4096 numbers; an answer holds at most 2621"):
        wide.search_batch(np.zeros((7, 4_096), np.float32), top_k=10_000, include=["vector"])


def test_a_row_is_read_again_where_its_parts_were_collected_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the snapshot and the reading, others merged the parts and removed them."""
    store = RangeStore()
    writer, reader = engine(store), engine(store)
    writer.create("ns", DIM, "l2", {})
    for first in (0, 100):
        writer.namespace("ns").writes.insert(ROWS[first : first + 100], range(first, first + 100))
    sources = store.list("namespaces/ns/parts/").objects
    ns = reader.namespace("ns")
    strong = ns.snapshots.strong

    def then_lose_the_parts() -> Any:
        found = strong()
        monkeypatch.setattr(ns.snapshots, "strong", strong)
        writer.compact("ns", everything=True)
        for meta in sources:
            store.delete(meta.key)
        return found

    monkeypatch.setattr(ns.snapshots, "strong", then_lose_the_parts)
    row = ns.row(105)
    assert row.vector is not None
    np.testing.assert_array_equal(row.vector, ROWS[105])
    assert row.epoch == 4
