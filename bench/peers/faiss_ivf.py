"""FAISS: IVF over 4-bit product codes or RaBitQ codes, scanned fast, then exact float32.

``IVF{nlist},PQ{D/2 or D/4}x4fs,RFlat`` and ``HR{D},IVF{nlist},RaBitQfs1,RFlat`` (the rotation that
RaBitQ wants), several list counts each, ``nprobe`` × ``k_factor``. Cosine is squared L2 of normalised
vectors, which is faster here than their inner product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from bench.measure import Index, Searcher, Setting
from bench.peers.kept import Keep, Record
from bench.sets import Dataset, normalised
from vecstore.types import F32

PQ, RABITQ = "faiss IVF-PQ", "faiss IVF-RaBitQ"
FACTORS = (1, 2, 4, 8, 16)


class Faiss:
    """One index of a factory string."""

    def __init__(self, engine: str, label: str, index: Any, record: Record) -> None:
        self.engine, self.label = engine, label
        self.build_seconds, self.bytes = record.seconds, record.bytes
        self._index = index
        refine = faiss.downcast_index(index)
        self._refine = refine
        inner = faiss.downcast_index(refine.base_index)
        self._ivf = faiss.extract_index_ivf(inner)

    def settings(self) -> Sequence[Setting]:
        """Lists to probe × candidates to re-rank a hit."""
        shares = np.geomspace(0.004, 0.5, 14) * self._ivf.nlist
        probes = sorted({max(1, round(share)) for share in shares})
        return [{"nprobe": nprobe, "k_factor": factor} for nprobe in probes for factor in FACTORS]

    def use(self, setting: Setting) -> Searcher:
        """Set both; one call serves one query and many."""
        self._ivf.nprobe = int(setting["nprobe"])
        self._refine.k_factor = float(setting["k_factor"])
        search = self._index.search
        return Searcher(
            lambda query: search(query, 10),
            lambda queries: search(queries, 10),
            lambda found: found[1][0],
            lambda found: found[1],
        )

    def prepare(self, queries: F32) -> Sequence[F32]:
        """Matrices of one row."""
        return [queries[i : i + 1] for i in range(len(queries))]


def factories(engine: str, rows: int, dim: int) -> Sequence[str]:
    """Factory strings: list counts from about √N to several times that."""
    if rows > 500_000:
        counts = (1024, 2048, 4096, 8192)
    else:
        counts = tuple(c for c in (256, 512, 1024, 2048) if 30 * c <= rows)
    if engine == PQ:
        strings = [f"IVF{count},PQ{dim // 4}x4fs,RFlat" for count in counts]
        middle = counts[len(counts) // 2]
        return [*strings, f"IVF{middle},PQ{dim // 2}x4fs,RFlat"]
    return [f"HR{dim},IVF{count},RaBitQfs1,RFlat" for count in counts[1:]]


def train(factory: str, base: F32) -> Any:
    """Train and fill an index, on one thread."""
    index = faiss.index_factory(base.shape[1], factory, faiss.METRIC_L2)
    index.train(base)
    index.add(base)
    return index


def build(dataset: Dataset, keep: Keep, wanted: set[str]) -> Iterator[Index]:
    """Indexes of the wanted engines, one after another."""
    faiss.omp_set_num_threads(1)
    base = normalised(dataset)
    for engine in (PQ, RABITQ):
        if engine not in wanted:
            continue
        for factory in keep.choose(factories(engine, *base.shape)):
            index, record = keep.index(
                "faiss-cpu",
                factory,
                lambda factory=factory: train(factory, base),
                lambda made, path: faiss.write_index(made, str(path)),
                _load,
            )
            yield Faiss(engine, factory, index, record)


def _load(path: Path) -> Any:
    return faiss.read_index(str(path))
