"""Neighbours found through the codes are those of an exact search."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.core import clustered, generator
from tests.part.helpers import spec
from vecstore.index.neighbours import Encoded, nearest_rows
from vecstore.part.builder import build_part

N, DIM, K = 3_000, 64, 30


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_the_nearest_rows_are_those_of_an_exact_search(metric: str) -> None:
    vectors = clustered(generator(5), N, DIM, spread=1.0)
    how = spec(DIM, "dot" if metric == "dot" else "l2")
    image = build_part(vectors, None, how, workers=1)
    assert image.partition is not None
    order, encoded = image.partition.order, Encoded.of(image.records, image.lists)
    z = how.rotation.apply(vectors)
    asked = generator(6).choice(N, 70, replace=False).astype(np.int64)
    # Under the dot product a longer query ranks alike and has a better code.
    queries, towards = (z[asked] * np.float32(8.0), z[asked]) if metric == "dot" else (z[asked], None)

    rows, distances = nearest_rows(z, order, encoded, asked, queries, K, towards=towards)

    far = -(z[asked] @ z.T) if metric == "dot" else ((z[asked, None] - z) ** 2).sum(axis=2)
    far[np.arange(len(asked)), asked] = np.inf
    exact = np.argsort(far, axis=1, kind="stable")[:, :K]
    found = order[rows]
    same = [len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True)]
    assert np.mean(same) > 0.995 * K
    assert np.array_equal(found[:, 0], exact[:, 0])
    np.testing.assert_allclose(distances, np.take_along_axis(far, found, axis=1), rtol=1e-4, atol=1e-3)
    assert (np.diff(distances, axis=1) >= 0).all()
    with ThreadPoolExecutor(3) as pool:
        again = nearest_rows(z, order, encoded, asked, queries, K, towards=towards, pool=pool)
    assert np.array_equal(again[0], rows)
    assert np.array_equal(again[1], distances)
