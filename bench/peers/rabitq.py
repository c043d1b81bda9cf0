"""RaBitQ-Library: its IVF (5, 7 and 9 bits, or one bit with raw vectors) and its graph, SymphonyQG.

Settings of its own benchmarks: k-means by `RaBitQKMeans` with exact final assignment (seed 42),
SymphonyQG of degree 32 with ef_construction 200 and PiPNN initialisation, raw and 8-bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rabitqlib import FinalAssignmentMode, IvfIndex, RaBitQKMeans, SymqgIndex

from bench.measure import Index, Searcher, Setting
from bench.peers.kept import Keep, Record
from bench.sets import Dataset, normalised
from vecstore.types import F32

IVF, GRAPH = "rabitqlib IVF", "rabitqlib SymphonyQG"
EF = (10, 12, 14, 16, 20, 24, 28, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 700, 1024)
BITS = (7, 5, 9, 32)


class Rabitq:
    """One index; its two kinds differ in the name of their dial."""

    def __init__(self, engine: str, label: str, index: Any, record: Record, grid: Sequence[Setting]) -> None:
        self.engine, self.label, self._index, self._grid = engine, label, index, grid
        self.build_seconds, self.bytes = record.seconds, record.bytes

    def settings(self) -> Sequence[Setting]:
        """Lists to probe, or the search's beam."""
        return self._grid

    def use(self, setting: Setting) -> Searcher:
        """One call serves one query and many."""
        search, (dial,) = self._index.search, setting.values()
        return Searcher(
            lambda query: search(query, 10, dial),
            lambda queries: search(queries, 10, dial),
            lambda found: found[0][0],
            lambda found: found[0],
        )

    def prepare(self, queries: F32) -> Sequence[F32]:
        """Matrices of one row."""
        return [queries[i : i + 1] for i in range(len(queries))]


def build(dataset: Dataset, keep: Keep, wanted: set[str]) -> Iterator[Index]:
    """IVF of two list counts by four widths, and the graph in two forms (raw alone at a million)."""
    base = normalised(dataset)
    count, dim = base.shape

    def ivf(lists: int, bits: int) -> Any:
        clusters = RaBitQKMeans(
            dim, lists, num_threads=1, seed=42, final_assignment=FinalAssignmentMode.Exact
        )
        clusters.train(base)
        index = IvfIndex(dim=dim, max_elements=count, num_clusters=lists, nbits=bits, metric="l2")
        index.build(base, clusters.centroids, clusters.assignments, num_threads=1)
        return index

    def graph(degree: int, bits: int) -> Any:
        index = SymqgIndex(dim=dim, max_degree=degree, metric="l2", quantization_bits=bits)
        index.build(base, 200, num_threads=1)
        return index

    def kept(label: str, make: Any, kind: Any) -> tuple[Any, Record]:
        return keep.index(
            "rabitqlib", label, make, lambda made, path: made.save(str(path)), lambda p: _load(kind, p)
        )

    if IVF in wanted:
        for lists in keep.choose([c for c in (256, 1024) if 30 * c <= count]):
            shares = np.geomspace(0.004, 0.5, 18) * lists
            grid = [{"nprobe": p} for p in sorted({max(1, round(s)) for s in shares})]
            for bits in keep.choose(BITS):
                label = f"IVF{lists} {bits} bits"
                made, record = kept(label, lambda lists=lists, bits=bits: ivf(lists, bits), IvfIndex)
                yield Rabitq(IVF, label, made, record, grid)
    if GRAPH in wanted:
        forms = ((32, 0),) if count > 500_000 else ((32, 0), (32, 8), (64, 0))
        for degree, bits in keep.choose(forms):
            label = f"QG{degree} {f'{bits} bits' if bits else 'raw'}"
            made, record = kept(label, lambda d=degree, b=bits: graph(d, b), SymqgIndex)
            yield Rabitq(GRAPH, label, made, record, [{"ef": ef} for ef in EF])


def _load(kind: Any, path: Path) -> Any:
    return kind.load(str(path))
