"""hnswlib: the graph over float32, M = 16, 24 and 32, ef_construction 200 as its authors use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from bench.measure import Index, Searcher, Setting
from bench.peers.kept import Keep, Record
from bench.sets import Dataset, normalised
from vecstore.types import F32

ENGINE = "hnswlib"
EF = (10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 260, 320, 400, 500, 640, 800)


class Hnsw:
    """One graph."""

    engine = ENGINE

    def __init__(self, label: str, index: Any, record: Record) -> None:
        self.label, self._index = label, index
        self.build_seconds, self.bytes = record.seconds, record.bytes

    def settings(self) -> Sequence[Setting]:
        """The search's beam."""
        return [{"ef": ef} for ef in EF]

    def use(self, setting: Setting) -> Searcher:
        """Set the beam."""
        self._index.set_ef(setting["ef"])
        search = self._index.knn_query
        return Searcher(
            lambda query: search(query, k=10, num_threads=1),
            lambda queries: search(queries, k=10, num_threads=1),
            lambda found: found[0][0],
            lambda found: found[0],
        )

    def prepare(self, queries: F32) -> Sequence[F32]:
        """Rows of the matrix."""
        return list(queries)


def build(dataset: Dataset, keep: Keep, wanted: set[str]) -> Iterator[Index]:
    """A graph for each M; at a million rows only M = 16."""
    del wanted
    base = normalised(dataset)

    def make(m: int) -> Any:
        index = hnswlib.Index(space="l2", dim=base.shape[1])
        index.init_index(max_elements=len(base), M=m, ef_construction=200, random_seed=1)
        index.add_items(base, np.arange(len(base)), num_threads=1)
        return index

    def load(path: Path) -> Any:
        index = hnswlib.Index(space="l2", dim=base.shape[1])
        index.load_index(str(path))
        return index

    for m in keep.choose((16,) if len(base) > 500_000 else (16, 24, 32)):
        label = f"M{m}"
        index, record = keep.index(
            "hnswlib", label, lambda m=m: make(m), lambda made, path: made.save_index(str(path)), load
        )
        yield Hnsw(label, index, record)
