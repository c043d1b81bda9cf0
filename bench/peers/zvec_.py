"""zvec: HNSW over int8 and IVF over RaBitQ codes, both refined by the stored vectors.

Asked through ``query_internal_ids``, the fastest call it has: of a collection opened for reading.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zvec

from bench.measure import Index, Searcher, Setting
from bench.peers.kept import Keep, Record
from bench.sets import Dataset
from vecstore.types import F32

ENGINE = "zvec"
CHUNK = 1_000
EF = (10, 20, 40, 64, 100, 160, 256, 400, 640)
PROBES = (4, 8, 16, 32, 64, 128, 256)


class Zvec:
    """One collection of one index."""

    engine = ENGINE

    def __init__(self, label: str, collection: Any, record: Record, grid: Sequence[Setting]) -> None:
        self.label, self._collection, self._grid = label, collection, grid
        self.build_seconds, self.bytes = record.seconds, record.bytes

    def settings(self) -> Sequence[Setting]:
        """Beam or lists × refined or not."""
        return self._grid

    def use(self, setting: Setting) -> Searcher:
        """Queries of one form."""
        refine = setting["refine"]
        if "ef" in setting:
            param = zvec.HnswQueryParam(ef=setting["ef"], is_using_refiner=bool(refine))
        else:
            param = zvec.IvfRabitqQueryParam(
                nprobe=setting["nprobe"], is_using_refiner=bool(refine), scale_factor=float(refine or 1)
            )
        search, query = self._collection.query_internal_ids, zvec.Query
        return Searcher(
            lambda vector: search(query(field_name="vector", vector=vector, param=param), topk=10),
            None,
            self._rows,
        )

    def prepare(self, queries: F32) -> Sequence[F32]:
        """Rows of the matrix."""
        return list(queries)

    def _rows(self, found: Any) -> Sequence[int]:
        return [int(key) for key in self._collection.resolve_internal_ids(found)]


def build(dataset: Dataset, keep: Keep, wanted: set[str]) -> Iterator[Index]:
    """HNSW of m = 16 with int8, IVF-RaBitQ of 7 bits."""
    del wanted
    with contextlib.suppress(RuntimeError):  # it may be called once a process
        zvec.init(query_threads=1, optimize_threads=1, log_level=zvec.LogLevel.ERROR)
    metric = zvec.MetricType.COSINE if dataset.metric == "cosine" else zvec.MetricType.L2
    hnsw = zvec.HnswIndexParam(
        metric_type=metric,
        m=16,
        ef_construction=200,
        quantize_type=zvec.QuantizeType.INT8,
        use_contiguous_memory=True,
    )
    lists = max(16, int(np.sqrt(len(dataset.base)) * 2))
    ivf = zvec.IvfRabitqIndexParam(metric_type=metric, nlist=lists, total_bits=7)
    grids: list[tuple[str, Any, list[Setting]]] = [
        ("HNSW16 int8", hnsw, [{"ef": ef, "refine": refine} for ef in EF for refine in (0, 1)]),
        (
            f"IVF{lists} RaBitQ",
            ivf,
            [{"nprobe": p, "refine": refine} for p in PROBES if p < lists for refine in (0, 4)],
        ),
    ]
    for label, param, grid in keep.choose(grids[::-1]):
        files, record = keep.store(ENGINE, label, lambda path, p=param: _fill(path, dataset, p))
        opened = zvec.open(str(files), zvec.CollectionOption(read_only=True, enable_mmap=True))
        yield Zvec(label, opened, record, grid)


def _fill(path: Path, dataset: Dataset, param: Any) -> None:
    vectors = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, dataset.base.shape[1], param)
    collection = zvec.create_and_open(
        path=str(path), schema=zvec.CollectionSchema(name="bench", vectors=vectors)
    )
    for start in range(0, len(dataset.base), CHUNK):
        rows = dataset.base[start : start + CHUNK]
        collection.insert(
            [zvec.Doc(id=str(start + i), vectors={"vector": row}) for i, row in enumerate(rows)]
        )
    collection.optimize(zvec.OptimizeOption(concurrency=1))
    collection.flush()
    collection.close()
