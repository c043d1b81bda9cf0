"""qdrant-edge: HNSW over int8 (scalar quantisation, rescored by the float32 vectors).

One shard, one thread, vectors in memory, quantised ones pinned; ``hnsw_ef`` × oversampling, with
rescoring and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as qe

from bench.measure import Index, Searcher, Setting
from bench.peers.kept import Keep, Record
from bench.sets import Dataset
from vecstore.types import F32

ENGINE = "qdrant-edge"
EF = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CHUNK = 5_000


class Qdrant:
    """One shard."""

    engine = ENGINE

    def __init__(self, label: str, shard: Any, record: Record) -> None:
        self.label, self._shard = label, shard
        self.build_seconds, self.bytes = record.seconds, record.bytes

    def settings(self) -> Sequence[Setting]:
        """Beam × candidates that are rescored; 0: none."""
        return [{"hnsw_ef": ef, "oversampling": over} for ef in EF for over in (0.0, 1.0, 2.0)]

    def use(self, setting: Setting) -> Searcher:
        """Requests of one form, each with its vector."""
        over = setting["oversampling"]
        quantised = qe.QuantizationSearchParams(rescore=over > 0, oversampling=over or None)
        params = qe.SearchParams(hnsw_ef=setting["hnsw_ef"], quantization=quantised)
        search, batch = self._shard.search, self._shard.query_batch
        nearest, request, many = qe.Query.Nearest, qe.SearchRequest, qe.QueryRequest

        def ask(queries: F32) -> Any:
            requests = [many(limit=10, query=nearest(query), params=params) for query in queries]
            return batch(qe.QueryBatchRequest(requests))

        return Searcher(
            lambda query: search(request(query=nearest(query), limit=10, params=params)),
            ask,
            lambda points: [point.id for point in points],
        )

    def prepare(self, queries: F32) -> Sequence[Any]:
        """Lists of floats, which it converts faster than arrays."""
        return queries.tolist()


def build(dataset: Dataset, keep: Keep, wanted: set[str]) -> Iterator[Index]:
    """Graphs of m = 16 and 32."""
    del wanted
    for m in keep.choose((16, 32)):
        label = f"HNSW{m} int8"
        files, record = keep.store(ENGINE + "-py", label, lambda path, m=m: _fill(path, dataset, m))
        yield Qdrant(label, qe.EdgeShard.load(str(files)), record)


def _fill(path: Path, dataset: Dataset, m: int) -> None:
    path.mkdir()
    config = qe.EdgeConfig(
        vectors=qe.EdgeVectorParams(
            size=dataset.base.shape[1],
            distance=qe.Distance.Cosine if dataset.metric == "cosine" else qe.Distance.Euclid,
        ),
        hnsw_config=qe.HnswIndexConfig(m=m, ef_construct=128, full_scan_threshold=10, max_indexing_threads=1),
        quantization_config=qe.ScalarQuantizationConfig(
            type=qe.ScalarType.Int8, quantile=0.99, memory=qe.Memory.Pinned
        ),
        optimizers=qe.EdgeOptimizersConfig(
            indexing_threshold=1_000, default_segment_number=1, max_segment_size=100_000_000
        ),
        max_search_threads=1,
    )
    shard = qe.EdgeShard.create(str(path), config)
    for start in range(0, len(dataset.base), CHUNK):
        rows = dataset.base[start : start + CHUNK].tolist()
        points = [qe.Point(id=start + i, vector=row, payload={}) for i, row in enumerate(rows)]
        shard.update(qe.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    shard.close()
