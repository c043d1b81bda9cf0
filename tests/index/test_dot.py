"""The dot product under lengths that differ widely, of rows and of queries."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecstore
from vecstore.api import Namespace
from vecstore.index.dot import dot_gain
from vecstore.sample import load_sample
from vecstore.types import F32

SAMPLE = Path(__file__).parent.parent.parent / "examples" / "glosses"


@pytest.fixture(scope="module")
def scaled() -> tuple[Namespace, F32, F32]:
    sample = load_sample(SAMPLE)
    rng = np.random.default_rng(7)
    rows = sample.vectors[:5_000]
    rows = rows * rng.lognormal(0.0, 0.5, (len(rows), 1)).astype(np.float32)
    db = vecstore.connect(f"memory://{uuid.uuid4().hex}", maintenance="off")
    ns = db.create_namespace("scaled", dim=rows.shape[1], metric="dot")
    ns.insert(rows, ids=np.arange(len(rows), dtype=np.uint64))
    return ns, rows, sample.query_vectors[:100]


@pytest.mark.parametrize("length", [1e-3, 0.1, 1.0, 50.0, 1e4])
def test_recall_does_not_depend_on_the_length_of_the_query(
    scaled: tuple[Namespace, F32, F32], length: float
) -> None:
    ns, rows, queries = scaled
    queries = queries * np.float32(length)
    hits = ns.search_batch(queries, top_k=10)
    exact = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    recall = np.mean([np.isin(found, near).mean() for found, near in zip(hits.ids, exact, strict=True)])
    assert recall >= 0.95
    products = np.einsum("ij,ikj->ik", queries, rows[hits.ids.astype(np.int64)])
    np.testing.assert_allclose(hits.distances, -products, atol=0.02 * np.abs(products).max())


def test_a_gain_is_a_power_of_two_and_reaches_the_length() -> None:
    for size in (1e-20, 0.3, 1.0, 7.0, 1e10):
        q = np.full(16, size / 4, dtype=np.float32)
        gain = dot_gain(q, 100.0)
        assert np.log2(gain) == round(np.log2(gain))
        assert 99.9 <= gain * size < 200.1
    assert dot_gain(np.zeros(16, dtype=np.float32), 100.0) == 1.0
    assert dot_gain(np.ones(16, dtype=np.float32), 0.0) == 1.0


def test_a_query_is_brought_to_a_mean_that_outweighs_the_rows() -> None:
    mean = np.full(16, 1_000.0, dtype=np.float32)
    square = 16e6
    assert dot_gain(2 * mean, 100.0, mean, square) == 2**-6  # not longer than the length asks for
    assert dot_gain(2 * mean, 1e6, mean, square) == pytest.approx(0.5)
    assert dot_gain(-mean, 1e6, mean, square) == dot_gain(mean, 1e6)


@pytest.mark.parametrize("offset", [10.0, 100.0, 1_000.0])
@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_rows_about_a_mean_far_out_are_told_apart(offset: float, spread: float) -> None:
    """The error of a code was that of the whole length of the mean, beside which rows differ by little."""
    rng = np.random.default_rng(3)
    rows = (rng.normal(size=(6_000, 64)) + offset).astype(np.float32)
    queries = (offset * (spread * rng.normal(size=(200, 64)) + 1)).astype(np.float32)
    db = vecstore.connect(f"memory://{uuid.uuid4().hex}", maintenance="off")
    ns = db.create_namespace("far", dim=64, metric="dot", small_part_threshold=0)
    ns.insert(rows, ids=np.arange(len(rows)))
    exact = np.argsort(-(queries.astype(np.float64) @ rows.T.astype(np.float64)), axis=1)[:, :10]
    found = ns.search_batch(queries, top_k=10).ids
    recall = np.mean([np.isin(ids, near).mean() for ids, near in zip(found, exact, strict=True)])
    assert recall >= (0.8 if spread < 1.0 else 0.92)  # queries that are alike miss the same row


@pytest.mark.parametrize("threshold", [0, 10_000], ids=["trained", "small"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_distances_about_a_mean_far_out_are_those_of_the_query_as_given(
    threshold: int, precision: str
) -> None:
    """Numbers whose products are exact: rounded by a scaled query they would not be."""
    rng = np.random.default_rng(5)
    rows = rng.integers(15, 26, (3_000, 16)).astype(np.float32)
    queries = rng.integers(20, 34, (50, 16)).astype(np.float32)
    db = vecstore.connect(f"memory://{uuid.uuid4().hex}", maintenance="off")
    ns = db.create_namespace(
        "far", dim=16, metric="dot", small_part_threshold=threshold, store_vectors=precision
    )
    ns.insert(rows, ids=np.arange(len(rows)))
    exact: dict[str, Any] = {"rerank_precision": "fp32", "probe_fraction": 1.0}
    for query in queries:
        hits = ns.search(query, top_k=10, **exact)
        products = (rows @ query)[hits.ids.astype(np.int64)]
        assert (-hits.distances).tolist() == products.tolist()
        assert len(ns.search(query, top_k=10, max_distance=-float(products[4]), **exact)) >= 5


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4, 1e6])
def test_without_vectors_rows_may_be_much_longer_than_the_query(size: float) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(4_000, 32)).astype(np.float32)
    queries = rng.normal(size=(50, 32)).astype(np.float32)
    db = vecstore.connect(f"memory://{uuid.uuid4().hex}", maintenance="off")
    ns = db.create_namespace("long", dim=32, metric="dot", store_vectors="none", small_part_threshold=0)
    ns.insert(rows * np.float32(size), ids=np.arange(len(rows)))
    products = queries @ rows.T
    exact = np.argsort(-products, axis=1)[:, :10]
    recalls = []
    for query, own, near in zip(queries, products, exact, strict=True):
        hits = ns.search(query, top_k=10)
        recalls.append(np.isin(hits.ids, near).mean())
        np.testing.assert_allclose(
            -hits.distances / size, own[hits.ids.astype(np.int64)], rtol=0.02, atol=0.1
        )
    assert np.mean(recalls) >= 0.9  # it was .3 and less where rows were ten thousand times as long


def test_rows_of_the_greatest_norm_are_found() -> None:
    """A query made as long as the farthest cell asks for would overflow: no hit came out."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=64) + 0.3 * rng.normal(size=(2_000, 64))
    rows[::2] *= -1.0
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True) * 9e17).astype(np.float32)
    db = vecstore.connect(f"memory://{uuid.uuid4().hex}", maintenance="off")
    ns = db.create_namespace("far", dim=64, metric="dot", small_part_threshold=0)
    ns.insert(rows)
    for size in (1e-18, 1.0, 9e17):
        q = rows[3] / np.float32(9e17) * np.float32(size)
        hits = ns.search(q, top_k=10, probe_fraction=1.0, rerank_precision="fp32", rerank_scale=1e3)
        products = rows.astype(np.float64) @ q.astype(np.float64)
        assert set(hits.ids.tolist()) == set(np.argsort(-products)[:10].tolist())
