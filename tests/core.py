"""What the tests of the core share: the sample, exact answers by NumPy, and stores that read ranges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from vecstore.api import Database
from vecstore.engine.database import EmbeddedDatabase
from vecstore.maintenance.policy import Policy
from vecstore.sample import Sample, load_sample
from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore
from vecstore.types import Hits

F32 = npt.NDArray[np.float32]

# Small namespaces whose parts are coded all the same.
CODED: dict[str, Any] = {"small_part_threshold": 0}
# Settings of a search under which it is exact: all lists, and every row re-ranked by its vector.
EXACT: dict[str, Any] = {"probe_fraction": 1.0, "rerank_precision": "fp32", "rerank_scale": 1000.0}


@cache
def sample() -> Sample:
    """The glosses that the repository ships: 10,000 rows and 200 queries."""
    return load_sample(Path(__file__).parent.parent / "examples" / "glosses")


class RangeStore(MemoryStore):
    """Like S3: objects cannot be mapped, so readers fetch ranges through the page cache."""

    def map(self, key: str) -> None:
        return None


def database(store: ObjectStore | None = None, *, policy: Policy | None = None, seed: int = 0) -> Database:
    """An embedded database without maintenance, in memory unless a store is given."""
    return Database(engine(store, policy=policy, seed=seed))


def engine(
    store: ObjectStore | None = None, *, policy: Policy | None = None, seed: int = 0
) -> EmbeddedDatabase:
    return EmbeddedDatabase(MemoryStore() if store is None else store, policy=policy, rng=Random(seed))


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def clustered(rng: np.random.Generator, n: int, dim: int, *, clusters: int = 20, spread: float = 0.5) -> F32:
    """Rows around a few centres, away from the origin, as embeddings lie."""
    centres = rng.standard_normal((clusters, dim)) + 0.5
    return (centres[rng.integers(clusters, size=n)] + spread * rng.standard_normal((n, dim))).astype(
        np.float32
    )


def distances(rows: npt.ArrayLike, queries: npt.ArrayLike, metric: str) -> npt.NDArray[np.float64]:
    """f64[M, N] public distances by the definition."""
    x, q = np.asarray(rows, dtype=np.float64), np.atleast_2d(np.asarray(queries, dtype=np.float64))
    if metric == "dot":
        return -(q @ x.T)
    if metric == "l2":
        return np.stack([((x - one) ** 2).sum(axis=1) for one in q])
    norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)[None, :]
    return 1.0 - (q @ x.T) / norms


def nearest(rows: npt.ArrayLike, queries: npt.ArrayLike, metric: str, k: int) -> npt.NDArray[np.int64]:
    """i64[M, k] positions of the exact nearest rows, the nearest first, ties by position."""
    return np.argsort(distances(rows, queries, metric), axis=1, kind="stable")[:, :k]


def recall(found: Sequence[Any] | npt.NDArray[Any], truth: Sequence[Any] | npt.NDArray[Any]) -> float:
    """Mean share of each query's true neighbours that were found."""
    pairs = zip(found, truth, strict=True)
    return float(np.mean([len(set(map(_key, a)) & set(map(_key, b))) / len(b) for a, b in pairs]))


def _key(identity: Any) -> Any:
    return identity if isinstance(identity, str) else int(identity)


def assert_exact(
    hits: Hits, model: dict[Any, F32], q: F32, metric: str, k: int, *, tolerance: float = 1e-5
) -> None:
    """The hits are the ``k`` nearest of the model, but for ties within float error."""
    assert len(hits) == min(k, len(model)), f"{len(hits)} hits of {len(model)} rows"
    if not model:
        return
    ids = list(model)
    rows = np.stack([model[i] for i in ids])
    truth = dict(zip(ids, distances(rows, q, metric)[0].tolist(), strict=True))
    scale = 1.0
    if metric != "cosine":
        scale = max(
            1e-3, float(np.linalg.norm(q)) ** 2, float((rows.astype(np.float64) ** 2).sum(axis=1).max())
        )
    found = [_key(i) for i in hits.ids]
    assert len(set(found)) == len(found), "an id was returned twice"
    assert set(found) <= set(ids), f"rows that are not there: {set(found) - set(ids)}"
    best = np.sort(np.array(list(truth.values())))[:k]
    np.testing.assert_allclose([truth[i] for i in found], best, atol=tolerance * scale, rtol=1e-5)
    np.testing.assert_allclose(hits.distances, best, atol=tolerance * scale, rtol=1e-5)
