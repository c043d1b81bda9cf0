"""lancedb: IVF over RaBitQ codes (IVF_RQ), refined by the stored vectors.

A local table; ``nprobes`` × ``refine_factor``. Its API has no call for many queries that answers
sooner than as many calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("LANCE_CPU_THREADS", "1")
os.environ.setdefault("TOKIO_WORKER_THREADS", "1")

import lancedb
import pyarrow as pa

from bench.measure import Index, Searcher, Setting
from bench.peers.kept import Keep, Record
from bench.sets import Dataset
from vecstore.types import F32

ENGINE = "lancedb"
PROBES = (4, 8, 16, 32, 64, 128)
LISTS = 256


class Lance:
    """One table."""

    engine = ENGINE

    def __init__(self, label: str, table: Any, record: Record) -> None:
        self.label, self._table = label, table
        self.build_seconds, self.bytes = record.seconds, record.bytes

    def settings(self) -> Sequence[Setting]:
        """Lists to probe × candidates to refine a hit."""
        return [{"nprobes": p, "refine_factor": r} for p in PROBES for r in (2, 5, 10)]

    def use(self, setting: Setting) -> Searcher:
        """A query of the table, its answer an Arrow table of ids."""
        table, probes, factor = self._table, setting["nprobes"], setting["refine_factor"]

        def search(query: Any) -> Any:
            found = table.search(query).nprobes(probes).refine_factor(factor).limit(10)
            return found.select(["id", "_distance"]).to_arrow()

        return Searcher(search, None, lambda found: found["id"].to_pylist())

    def prepare(self, queries: F32) -> Sequence[F32]:
        """Rows of the matrix."""
        return list(queries)


def build(dataset: Dataset, keep: Keep, wanted: set[str]) -> Iterator[Index]:
    """One index, of one bit a dimension."""
    del wanted
    label = f"IVF{LISTS} RQ"
    files, record = keep.store(ENGINE, label, lambda path: _fill(path, dataset))
    yield Lance(label, lancedb.connect(str(files)).open_table("bench"), record)


def _fill(path: Path, dataset: Dataset) -> None:
    base = dataset.base
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(base.ravel()), base.shape[1])
    rows = pa.table({"id": pa.array(range(len(base)), pa.int64()), "vector": vectors})
    table = lancedb.connect(str(path)).create_table("bench", rows)
    table.create_index(metric=dataset.metric, index_type="IVF_RQ", num_partitions=LISTS, num_bits=1)
