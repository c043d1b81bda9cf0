"""usearch: the graph over bf16 or int8, connectivity 16 and 32, searched one query a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index as Graph

from bench.measure import Index, Searcher, Setting
from bench.peers.kept import Keep, Record
from bench.sets import Dataset, normalised
from vecstore.types import F32

ENGINE = "usearch"
EF = (10, 15, 20, 30, 40, 50, 65, 80, 100, 130, 160, 200, 260, 320, 400, 500, 640, 800)
FORMS = (("bf16", 16), ("f32", 16), ("i8", 16), ("i8", 32))


class Usearch:
    """One graph."""

    engine = ENGINE

    def __init__(self, label: str, index: Any, record: Record) -> None:
        self.label, self._index = label, index
        self.build_seconds, self.bytes = record.seconds, record.bytes

    def settings(self) -> Sequence[Setting]:
        """The search's beam."""
        return [{"expansion": ef} for ef in EF]

    def use(self, setting: Setting) -> Searcher:
        """Set the beam."""
        self._index.expansion_search = setting["expansion"]
        search = self._index.search
        return Searcher(
            lambda query: search(query, 10, threads=1),
            lambda queries: search(queries, 10, threads=1),
            lambda found: found.keys,
            lambda found: found.keys,
        )

    def prepare(self, queries: F32) -> Sequence[F32]:
        """Rows of the matrix."""
        return list(queries)


def build(dataset: Dataset, keep: Keep, wanted: set[str]) -> Iterator[Index]:
    """A graph for each scalar kind: int8 needs cosine, so L2 of images goes by bf16 and f32 alone."""
    del wanted
    base = normalised(dataset)
    keys = np.arange(len(base))
    metric = "cos" if dataset.metric == "cosine" else "l2sq"

    def make(dtype: str, m: int) -> Any:
        index = Graph(ndim=base.shape[1], metric=metric, dtype=dtype, connectivity=m, expansion_add=128)
        index.add(keys, base, threads=1)
        return index

    def load(path: Path) -> Any:
        return Graph.restore(str(path))

    for dtype, m in keep.choose([form for form in FORMS if metric == "cos" or form[0] != "i8"]):
        label = f"{dtype} M{m}"
        index, record = keep.index(
            "usearch",
            label,
            lambda dtype=dtype, m=m: make(dtype, m),
            lambda made, path: made.save(str(path)),
            load,
        )
        yield Usearch(label, index, record)
