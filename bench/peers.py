"""Other engines behind one small interface, and the sweep that measures any of them.

An engine is an ``Index``: it names its settings, takes one of them, and answers queries.
``sweep`` turns an index into points of recall and speed; ``best_at`` picks the fastest point
of at least some recall. To add a peer, write a class with the four members of ``Index`` and a
function that builds it; ``PEERS`` lists those functions.

    python -m bench.peers [--set glosses] [--peer faiss]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench import data
from vecstore.types import F32

ROUNDS = 3
RECALLS = (0.90, 0.95, 0.99)

Setting = Mapping[str, float]
Rows = npt.NDArray[Any]
Clock = Callable[[], float]


class Index(Protocol):
    """A built index. ``search`` answers f32[M, D] with row numbers [M, k], -1 where it has none."""

    name: str
    build_seconds: float

    def settings(self) -> Sequence[Setting]:
        """The grid to sweep."""

    def use(self, setting: Setting) -> None:
        """Search with this setting from now on."""

    def search(self, queries: F32, k: int) -> Rows:
        """The k rows nearest each query."""


@dataclass(frozen=True, slots=True)
class Point:
    """What one setting reaches: recall@k, and queries a second one at a time and as one batch."""

    setting: Setting
    recall: float
    single_qps: float
    batch_qps: float


def sweep(
    index: Index,
    queries: F32,
    gt: Rows,
    k: int = 10,
    *,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
) -> list[Point]:
    """Measure every setting of ``index``, in the order of its grid.

    The whole grid is gone through ``rounds`` times and each setting keeps its fastest time, so a
    disturbance of the machine has to last through all rounds to show. With
    ``clock=time.process_time`` the unit is a second of processor time, which other work on the
    machine disturbs less.
    """
    settings = index.settings()
    singles = [queries[i : i + 1] for i in range(len(queries))]
    recalls = np.zeros(len(settings))
    single = np.full(len(settings), np.inf)
    batch = np.full(len(settings), np.inf)
    for _ in range(rounds):
        for i, setting in enumerate(settings):
            index.use(setting)
            index.search(queries[:10], k)
            start = clock()
            found = [index.search(query, k) for query in singles]
            middle = clock()
            index.search(queries, k)
            end = clock()
            single[i] = min(single[i], middle - start)
            batch[i] = min(batch[i], end - middle)
            recalls[i] = recall_at(np.concatenate(found), gt, k)
    return [
        Point(setting, float(recalls[i]), float(len(queries) / single[i]), float(len(queries) / batch[i]))
        for i, setting in enumerate(settings)
    ]


def best_at(points: Sequence[Point], recall: float, *, batch: bool = False) -> Point | None:
    """The fastest point of at least this recall, or None if no point reaches it."""
    enough = [point for point in points if point.recall >= recall]
    return max(enough, key=lambda point: point.batch_qps if batch else point.single_qps, default=None)


def recall_at(found: Rows, gt: Rows, k: int) -> float:
    """The mean share of the exact k nearest rows that were found."""
    hits = sum(len(np.intersect1d(near[:k], exact[:k])) for near, exact in zip(found, gt, strict=True))
    return hits / (k * len(gt))


class FaissIvfPq:
    """FAISS ``IVF256,PQ{D/4}x4fs,RFlat``: 4-bit product codes scanned fast, then exact float32.

    Cosine is squared L2 of normalised vectors, which is 8 % faster here than their inner product;
    the queries of our cosine set are normalised as they come. ``k_factor`` × k candidates are
    re-ranked. FAISS and its BLAS use one thread, while building and while searching.
    """

    def __init__(self, dataset: data.Dataset) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        base = dataset.base
        if dataset.metric == "cosine":
            base = base / np.linalg.norm(base, axis=1, keepdims=True)
        dim = base.shape[1]
        factory = f"IVF256,PQ{dim // 4}x4fs,RFlat"
        metric = faiss.METRIC_INNER_PRODUCT if dataset.metric == "dot" else faiss.METRIC_L2
        self.name = f"faiss {faiss.__version__} {factory}"
        start = time.perf_counter()
        index: Any = faiss.index_factory(dim, factory, metric)
        index.train(base)
        index.add(base)
        self.build_seconds = time.perf_counter() - start
        self._index = index
        self._ivf = faiss.extract_index_ivf(index.base_index)

    def settings(self) -> Sequence[Setting]:
        """Lists to probe × candidates to re-rank."""
        probes = (4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128)
        return [{"nprobe": nprobe, "k_factor": factor} for nprobe in probes for factor in (2, 3, 4, 6, 8, 16)]

    def use(self, setting: Setting) -> None:
        """Set both."""
        self._ivf.nprobe = int(setting["nprobe"])
        self._index.k_factor = setting["k_factor"]

    def search(self, queries: F32, k: int) -> Rows:
        """Rows by the index as it is set."""
        found: Rows = self._index.search(queries, k)[1]
        return found


def build_faiss(dataset: data.Dataset) -> Index:
    """Build the FAISS index, timed."""
    return FaissIvfPq(dataset)


PEERS: Mapping[str, Callable[[data.Dataset], Index]] = {"faiss": build_faiss}
SETS: Mapping[str, Callable[[], data.Dataset]] = {
    "glosses": data.glosses,
    "fashion": data.fashion,
    "scaled_glosses": data.scaled_glosses,
    "sample": data.sample,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure other engines on the benchmark sets.")
    parser.add_argument("--set", action="append", choices=sorted(SETS), help="default: glosses, fashion")
    parser.add_argument("--peer", action="append", choices=sorted(PEERS))
    args = parser.parse_args()
    for name in args.set or ("glosses", "fashion"):
        dataset = SETS[name]()
        for peer in args.peer or sorted(PEERS):
            index = PEERS[peer](dataset)
            report(dataset, index, sweep(index, dataset.queries, dataset.gt))


def report(dataset: data.Dataset, index: Index, points: Sequence[Point]) -> None:
    """Print the build time and the best point at each recall."""
    print(f"{dataset.name} ({dataset.metric}): {index.name}, built in {index.build_seconds:.1f} s")
    for recall in RECALLS:
        for batch in (False, True):
            point = best_at(points, recall, batch=batch)
            how = "batch " if batch else "single"
            if point is None:
                print(f"  recall >= {recall:.2f} {how}: not reached")
                continue
            qps = point.batch_qps if batch else point.single_qps
            setting = ", ".join(f"{key} {value:g}" for key, value in point.setting.items())
            print(f"  recall >= {recall:.2f} {how}: {qps:8,.0f} queries/s at {point.recall:.4f} ({setting})")


if __name__ == "__main__":
    main()
