from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.ext.helpers import VARIANTS, Part, variant
from tests.ext.test_ivf import ALL, exact, near_rows, table_of
from vecstore.ext import ivf, rabitq
from vecstore.ext.ivf import Pool
from vecstore.ext.rabitq import QueryTable
from vecstore.ext.rerank import pool_hits, rerank_fp32, rerank_int8

SIZES = [1, 31, 32, 33, 0, 64, 170, 5]


def int8_distances(part: Part, table: QueryTable) -> NDArray[np.float32]:
    out = np.empty(part.n, np.float32)
    for i, n in enumerate(part.sizes):
        pool = Pool(max(1, n))
        words = np.full(-(-n // 32), ALL, np.uint32)
        ivf.scan_int8(table, pool, 0, int(part.addresses[i]), int(part.starts[i]), words)
        out[pool.entries().row] = pool.entries().estimate
    return out


def order(distance: NDArray[np.float32], row: NDArray[np.int64]) -> list[tuple[float, int]]:
    return sorted(zip(distance.tolist(), row.tolist(), strict=True))


@given(seed=st.integers(0, 1000), top_k=st.integers(0, 400), capacity=st.integers(1, 400))
def test_without_bounds_it_is_a_sort_by_int8_distance(seed: int, top_k: int, capacity: int) -> None:
    rng = np.random.default_rng(seed)
    part = Part(rng, 64, SIZES)
    table, pool = table_of(rng.standard_normal(64).astype(np.float32)), Pool(capacity)
    part.scan(table, pool, skip_bound=True)
    rows = pool.entries().row
    wanted = order(int8_distances(part, table)[rows], rows)[:top_k]
    hits = rerank_int8(table, pool, top_k)
    assert list(zip(hits.distance.tolist(), hits.row.tolist(), strict=True)) == wanted
    assert hits.ids.tolist() == [3 * row + 7 for _, row in wanted]
    assert hits.reranked == (len(pool) if top_k else 0)


@pytest.mark.parametrize("seed", range(8))
def test_pruning_loses_only_rows_beyond_their_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    part = Part(rng, 192, [30] * 100)
    z = part.z[11] + rng.standard_normal(192).astype(np.float32) * np.float32(0.3)
    table, pool = table_of(z), Pool(500)
    part.scan(table, pool)
    entries = pool.entries()
    hits = rerank_int8(table, pool, 10)
    assert 10 <= hits.reranked < len(pool)
    distance = int8_distances(part, table)[entries.row]
    last = hits.distance[-1]
    lost = (distance < last) & ~np.isin(entries.row, hits.row)
    assert (entries.estimate[lost] - entries.bound[lost] > distance[lost]).all()
    sure = distance >= entries.estimate - entries.bound
    wanted = order(distance, entries.row)[:10]
    if sure[np.isin(entries.row, [row for _, row in wanted])].all():
        assert hits.row.tolist() == [row for _, row in wanted]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dim", [64, 320, 1024])
def test_every_variant_reranks_alike(name: str, dim: int) -> None:
    part = Part(np.random.default_rng(dim), dim, SIZES)
    z = part.z[5] + np.float32(0.1)
    for top_k in (1, 10, 300, 500):
        seen = []
        for which in ("serial", name):
            with variant(which):
                table, pool = table_of(z), Pool(300)
                part.scan(table, pool)
                hits = rerank_int8(table, pool, top_k)
                columns = (hits.distance, hits.part, hits.row, hits.ids, hits.place)
                seen.append(([column.tobytes() for column in columns], hits.reranked, hits.margin))
        assert seen[0] == seen[1]


def test_the_margin_tells_how_far_beyond_the_last_hit_the_pool_ends() -> None:
    part = Part(np.random.default_rng(3), 64, SIZES)
    table, pool = table_of(part.z[5]), Pool(40)
    part.scan(table, pool)
    entries = pool.entries()
    hits = rerank_int8(table, pool, 10)
    expected = (entries.estimate[-1] - hits.distance[-1]) / entries.bound[-1]
    assert hits.margin == pytest.approx(expected, rel=1e-6)
    roomy = Pool(10_000)
    part.scan(table, roomy)
    assert rerank_int8(table, roomy, 10).margin == np.inf, "nothing was dropped"


def test_a_hit_tells_the_place_of_its_list() -> None:
    part = Part(np.random.default_rng(4), 64, SIZES)
    table, pool = table_of(part.z[5]), Pool(10_000)
    part.scan(table, pool)
    hits = rerank_int8(table, pool, part.n)
    first = np.concatenate([[0], np.cumsum(SIZES)])[:-1]
    assert hits.place.tolist() == (np.searchsorted(first, hits.row, side="right") - 1).tolist()


def test_candidates_without_int8_rows_keep_their_estimates() -> None:
    rng = np.random.default_rng(2)
    bare, full = Part(rng, 64, SIZES, int8=False, with_ids=False), Part(rng, 64, SIZES)
    table, pool = table_of(rng.standard_normal(64).astype(np.float32)), Pool(1000)
    bare.scan(table, pool, part=0, skip_bound=True)
    full.scan(table, pool, part=1, skip_bound=True)
    entries = pool.entries()
    hits = rerank_int8(table, pool, 1000)
    assert hits.reranked == full.n
    mine = hits.part == 0
    assert hits.distance[mine].tolist() == entries.estimate[entries.part == 0].tolist()
    assert not hits.ids[mine].any()
    assert order(hits.distance[~mine], hits.row[~mine]) == order(
        int8_distances(full, table), np.arange(full.n)
    )


def test_exact_distances_are_kept_beside_int8_rows() -> None:
    rng = np.random.default_rng(2)
    part = Part(rng, 64, [40])
    q = rng.standard_normal(64).astype(np.float32)
    table, pool = table_of(q), Pool(40)
    words = np.full(2, ALL, np.uint32)
    record = int(part.addresses[0])
    ivf.scan_vectors(q, pool, 0, part.z.ctypes.data, "f4", 40, "l2", words, record)
    hits = rerank_int8(table, pool, 5)
    assert hits.reranked == 0
    assert hits.distance.tolist() == pool.entries().estimate[:5].tolist()
    assert hits.ids.tolist() == (3 * hits.row + 7).tolist()
    for got, wanted in zip(pool_hits(pool, 5)[:4], hits[:4], strict=True):
        assert np.array_equal(got, wanted)


@given(top_k=st.integers(0, 50), count=st.integers(0, 40))
def test_hits_are_the_head_of_the_pool(top_k: int, count: int) -> None:
    rows = np.random.default_rng(count).integers(5, size=(count, 1)).astype(np.float32)
    pool = Pool(30)
    words = np.full(2, ALL, np.uint32)
    ivf.scan_vectors(np.zeros(1, np.float32), pool, 4, rows.ctypes.data or 1, "f4", count, "l2", words)
    hits, entries = pool_hits(pool, top_k), pool.entries()
    assert len(hits.row) == min(top_k, len(pool))
    assert hits.row.tolist() == entries.row[:top_k].tolist()
    assert hits.distance.tolist() == entries.estimate[:top_k].tolist()
    assert (hits.part == 4).all()
    assert hits.reranked == 0


def test_an_empty_pool_gives_no_hits() -> None:
    for hits in (rerank_int8(table_of(np.zeros(64, np.float32)), Pool(5), 10), pool_hits(Pool(5), 10)):
        assert [len(column) for column in hits[:4]] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", rabitq.simd_available())
@pytest.mark.parametrize("dtype", ["f4", "f2"])
@pytest.mark.parametrize("metric", ["l2", "dot", "cosine"])
def test_exact_reranking_is_the_exact_distance(name: str, dtype: str, metric: str) -> None:
    for dim in (1, 31, 33, 100, 384, 1000):
        rng = np.random.default_rng(dim)
        rows = rng.standard_normal((20, dim)).astype(dtype)
        q = rng.standard_normal(dim).astype(np.float32)
        q /= np.linalg.norm(q)
        rows[:4] = near_rows(q, 0.0, 1e-3, 0.09, 0.2)
        some = rng.integers(20, size=7)
        with variant(name):
            got = rerank_fp32(q, (rows.ctypes.data + some * rows.strides[0]).astype(np.uint64), dtype, metric)  # type: ignore[arg-type]
        assert np.array_equal(got, np.array([exact(q, rows[i], metric) for i in some]))


def test_bad_arguments_are_refused() -> None:
    pool, q = Pool(3), np.zeros(4, np.float32)
    table = table_of(np.zeros(64, np.float32))
    with pytest.raises(ValueError, match="not prepared"):
        rerank_int8(QueryTable(64), pool, 1)
    with pytest.raises(ValueError):
        rerank_int8(table, pool, -1)
    with pytest.raises(ValueError):
        pool_hits(pool, -1)
    at = np.array([q.ctypes.data], np.uint64)
    for arguments in (
        (q, at, "f8", "l2"),
        (q, at, "f4", "euclid"),
        (q[:0], at, "f4", "l2"),
        (q, np.zeros(1, np.uint64), "f4", "l2"),
        (q, at.astype(np.int64), "f4", "l2"),
    ):
        with pytest.raises(ValueError):
            rerank_fp32(*arguments)  # type: ignore[arg-type]
