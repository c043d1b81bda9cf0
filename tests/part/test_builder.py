"""What `build_part` makes of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import clustered, database, distances, generator
from tests.part.helpers import build, open_part, put, read_everything, spec
from vecstore.index.view import OpenPart
from vecstore.live import LiveSet
from vecstore.part.builder import MIN_HALF, build_part, mean_of, prepare
from vecstore.rows.ids import parse_ids
from vecstore.storage.cache import ReadTrace
from vecstore.storage.memory import MemoryStore


def test_the_same_batch_and_seed_give_the_same_bytes() -> None:
    vectors = clustered(generator(1), 900, 48)
    ids = parse_ids(np.arange(900))
    first = build(vectors, ids, spec(48, seed=3))
    assert build(vectors, ids, spec(48, seed=3)).data == first.data
    assert build(vectors, ids, spec(48, seed=4)).data != first.data


def test_an_image_is_streamed_as_often_as_an_upload_needs_it() -> None:
    image = build_part(clustered(generator(1), 300, 16), None, spec(16))
    once = b"".join(bytes(chunk) for chunk in image.chunks())
    assert b"".join(bytes(chunk) for chunk in image.chunks()) == once
    assert image.entry(part_id="p", owner="n", began=1.0, mean=None).bytes == len(once)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 200),
    dim=st.sampled_from([1, 2, 63, 64, 65, 100]),
    metric=st.sampled_from(["l2", "cosine", "dot"]),
    store=st.sampled_from(["fp32", "fp16", "none"]),
    ids=st.sampled_from(["u64", "string", "assigned"]),
    coded=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_row_comes_back(
    n: int, dim: int, metric: Any, store: Any, ids: str, coded: bool, seed: int
) -> None:
    rng = generator(seed)
    vectors = clustered(rng, n, dim)
    given_ids: Any = None
    if ids == "u64":
        given_ids = parse_ids(rng.integers(2**64, size=n, dtype=np.uint64))
    elif ids == "string":
        given_ids = parse_ids([f"row-{i}-ä" for i in range(n)])
    how = spec(dim, metric, store_vectors=store, small_part_threshold=0 if coded else 1 << 20)
    stored = build(vectors, given_ids, how)
    memory = MemoryStore()
    put(memory, stored)
    reader = open_part(memory, stored)
    read_everything(reader)

    values = np.arange(n, dtype=np.uint64) if given_ids is None else given_ids.values
    scanned = np.concatenate(list(reader.scan_ids(ReadTrace(), batch=3)))
    assert scanned.tolist() == values[stored.order].tolist()
    rows = rng.permutation(n)
    assert reader.ids_of(rows, ReadTrace()).tolist() == values[stored.order][rows].tolist()
    found = reader.read_vectors(rows, ReadTrace())
    if store == "none":
        assert found is None
    else:
        expected = vectors[stored.order][rows]
        if store == "fp16" and np.abs(vectors).max(axis=1).min() >= MIN_HALF:
            expected = expected.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dim", [1, 4096])
@pytest.mark.parametrize("n", [1, 2, 33])
@pytest.mark.parametrize("threshold", [0, 1 << 20])
def test_the_smallest_and_the_widest_parts_are_built_and_read(n: int, dim: int, threshold: int) -> None:
    vectors = clustered(generator(n), n, dim)
    stored = build(vectors, parse_ids(np.arange(n)), spec(dim, small_part_threshold=threshold))
    memory = MemoryStore()
    put(memory, stored)
    reader = open_part(memory, stored)
    read_everything(reader)
    assert reader.entry.n == n
    assert (reader.cells is None) == (threshold > 0)
    found = reader.read_vectors(np.arange(n), ReadTrace())
    np.testing.assert_array_equal(found, vectors[stored.order])


def test_rows_that_are_all_the_same_fill_their_lists() -> None:
    vectors = np.tile(clustered(generator(2), 1, 32), (700, 1))
    stored = build(vectors, parse_ids(np.arange(700)), spec(32))
    assert stored.entry.k == -(-700 // 32)
    memory = MemoryStore()
    put(memory, stored)
    read_everything(open_part(memory, stored))


@pytest.mark.parametrize(
    ("settings_", "expected"),
    [
        ({"list_rows": 10}, range(20, 22)),
        ({"list_rows": 10, "k_max": 5}, range(1, 6)),
        ({"list_rows": 100, "k_min": 50}, range(30, 51)),
        ({"list_rows": 0, "cluster_factor": 1.0}, range(8, 15)),
        ({"list_rows": 1_000_000}, range(1, 2)),
    ],
)
def test_the_number_of_lists_obeys_the_settings(settings_: dict[str, Any], expected: range) -> None:
    stored = build(generator(5).standard_normal((200, 8)).astype(np.float32), None, spec(8, **settings_))
    assert stored.entry.k in expected


def test_small_parts_have_no_codes_and_large_ones_have() -> None:
    vectors = clustered(generator(1), 100, 16)
    small = build(vectors, None, spec(16, small_part_threshold=1_600))
    large = build(vectors, None, spec(16, small_part_threshold=1_599))
    assert small.entry.k == 1
    assert "centroid_codes" not in small.entry.sections
    assert large.entry.k > 1
    assert "centroid_codes" in large.entry.sections


def test_a_batch_is_not_changed_by_building_it() -> None:
    vectors = clustered(generator(1), 100, 16)
    before = vectors.copy()
    vectors.flags.writeable = False
    build(vectors, None, spec(16, "cosine"))
    np.testing.assert_array_equal(vectors, before)


def test_cosine_prepares_unit_vectors_and_other_metrics_leave_them() -> None:
    vectors = clustered(generator(1), 50, 16) * np.float32(1e9)
    np.testing.assert_allclose(np.linalg.norm(prepare(vectors, "cosine"), axis=1), 1.0, atol=1e-6)
    assert prepare(vectors, "l2") is vectors
    np.testing.assert_allclose(mean_of(vectors, "l2"), vectors.mean(axis=0, dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_a_part_without_vectors_gives_them_back_nearly(metric: Any, coded: bool, centred: bool) -> None:
    vectors = clustered(generator(9), 400, 70) * np.float32(3.0)
    mean = mean_of(vectors, metric) if centred else None
    how = spec(70, metric, mean=mean, store_vectors="none", small_part_threshold=0 if coded else 1 << 20)
    stored = build(vectors, parse_ids(np.arange(400)), how)
    memory = MemoryStore()
    put(memory, stored)
    reader = open_part(memory, stored)
    rows = generator(3).permutation(400)[:150]
    found = reader.approximate_vectors(rows, how.rotation, mean, ReadTrace())
    expected = prepare(vectors, metric)[stored.order][rows]
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert found.dtype == np.float32
    assert error.max() < 0.02


def test_estimates_of_a_part_agree_with_exact_distances() -> None:
    """The records are what the kernels expect: a full scan with int8 ranks like NumPy."""
    from vecstore.ext.ivf import Pool, scan_lists
    from vecstore.ext.rabitq import QueryTable
    from vecstore.ext.rerank import rerank_int8

    vectors, q = clustered(generator(4), 600, 64), clustered(generator(5), 1, 64)[0]
    stored = build(vectors, parse_ids(np.arange(600) + 50), spec(64))
    memory = MemoryStore()
    put(memory, stored)
    reader = open_part(memory, stored)
    part = OpenPart(0, reader, LiveSet.from_deletes(None, 600, reader.list_rows), 0)
    table, pool = QueryTable(64), Pool(600)
    table.prepare(stored.spec.rotation.apply(q[None, :])[0], 0.0)
    everything = np.arange(reader.entry.k, dtype=np.int32)
    records = reader.records(everything, ReadTrace())
    scan_lists(table, pool, 0, records.addresses, reader.first_rows, reader.first_blocks, part.live.words)
    hits = rerank_int8(table, pool, 600)
    truth = distances(vectors, q, "l2")[0]
    np.testing.assert_allclose(hits.distance, truth[hits.ids.astype(np.int64) - 50], rtol=0.02, atol=0.5)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("size", [1e6, 1e-9])
def test_rows_that_half_precision_cannot_hold_are_found(metric: Any, size: float) -> None:
    """Such a part keeps fp32; float16 made infinity of the large and zero of the small."""
    rows = clustered(generator(5), 50, 8) * np.float32(size)
    ns = database().create_namespace("half", 8, metric, store_vectors="fp16")
    ns.insert(rows, ids=np.arange(50))
    hits = ns.search(rows[3], top_k=10, include=["vector"])
    truth = distances(rows, rows[3], metric)[0]
    assert len(set(hits.ids.tolist())) == 10
    scale = 1.0 if metric == "cosine" else size**2
    np.testing.assert_allclose(hits.distances / scale, np.sort(truth)[:10] / scale, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(hits.vectors, rows[hits.ids.astype(np.int64)])
    assert [part["vectors"] for part in ns.manifest()["parts"]] == ["fp32"]


def test_rows_that_half_precision_holds_are_kept_so() -> None:
    rows = clustered(generator(5), 50, 8)
    rows[7] = 0.0
    assert build_part(rows, None, spec(8, store_vectors="fp16")).stored == "fp16"
