"""Filtered queries of `bench.filters` to other engines, each as its own documentation has it.

    faiss       IVF over float32 with an `IDSelectorBitmap`, made before the time is taken
    hnswlib     the graph with a filter function, a look-up in a set of Python's
    lancedb     IVF over RaBitQ codes, ``where`` with ``prefilter``, scalar indexes on the columns
    qdrant-edge the graph with a payload filter, payload indexes on the columns
    usearch     its Python interface takes no filter: more hits are asked for, and those that match are kept

Each is asked with several settings. A line has the one that takes the least time of those that reach a
recall of .95, or else the one that reaches most.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("LANCE_CPU_THREADS", "1")
os.environ.setdefault("TOKIO_WORKER_THREADS", "1")

import faiss
import hnswlib
import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import qdrant_edge as qe
from usearch.index import Index as Graph

from bench.filters import Asked, K, recall, seconds
from vecstore.api import Namespace
from vecstore.types import F32

ENOUGH = 0.95
ROUNDS = 2
QUERIES = 10
LISTS = 512
CHUNK = 5_000
Ids = npt.NDArray[np.int64]


class Peer(Protocol):
    """An engine that holds the rows and the columns of numbers."""

    name: str

    def settings(self) -> list[int]: ...

    def prepare(self, asked: Asked) -> Any:
        """What a filter is to the engine; made once, out of the time."""

    def ask(self, q: F32, prepared: Any, setting: int) -> Ids:
        """The rows that it finds, at most `K`."""


class Peers:
    """All of them, over one set."""

    def __init__(self, base: F32, metric: str, columns: Mapping[str, Any], folder: Path) -> None:
        unit = base / np.linalg.norm(base, axis=1, keepdims=True) if metric == "cosine" else base
        numbers = {
            name: np.asarray(values, dtype=np.int64)
            for name, values in columns.items()
            if name == "r" or (name[1:].isdigit() and int(name[1:]) < QUERIES)
        }
        strings = {name: list(values) for name, values in columns.items() if name in ("pos", "lex")}
        numbers |= {
            name: np.asarray(columns[name], dtype=np.int64)
            for name in ("n_lemmas", "offset", "label")
            if name in columns
        }
        self._unit = metric == "cosine"
        self._peers: list[Peer] = [
            Faiss(unit),
            Hnsw(unit),
            Usearch(unit),
            Lance(unit, {**numbers, **strings}, folder / "lance"),
            Qdrant(unit, {**numbers, **strings}, folder / "qdrant"),
        ]

    def measure(
        self,
        label: str,
        ns: Namespace,
        queries: F32,
        distances: npt.NDArray[np.float32],
        filters: list[Asked],
    ) -> Iterator[list[Any]]:
        """A line an engine, beside ours on the same queries, asked in turn."""
        asked = list(zip(queries[:QUERIES], distances[:QUERIES], filters[:QUERIES], strict=True))
        for peer in self._peers:
            lines = [(setting, *self._one(peer, setting, ns, asked)) for setting in peer.settings()]
            enough = [line for line in lines if line[1] >= ENOUGH]
            best = min(enough, key=lambda line: line[2]) if enough else max(lines, key=lambda line: line[1])
            setting, found, theirs, own, ours = best
            yield [label, peer.name, setting, found, theirs * 1e6, own, ours * 1e6, theirs / ours]

    def _one(
        self, peer: Peer, setting: int, ns: Namespace, asked: list[tuple[F32, F32, Asked]]
    ) -> tuple[float, float, float, float]:
        """Recall and median seconds, theirs and ours."""
        recalls, own = [], []
        theirs, ours = [], []
        for q, row, one in asked:
            given = q / np.linalg.norm(q) if self._unit else q
            prepared = peer.prepare(one)
            found = peer.ask(given, prepared, setting)
            recalls.append(recall(found, row, one.mask))
            own.append(recall(ns.search(q, K, filter=one.filter).ids.astype(np.int64), row, one.mask))
            times = [
                (_seconds(lambda: peer.ask(given, prepared, setting)), seconds(ns, q, one.filter))  # noqa: B023
                for _ in range(ROUNDS)
            ]
            theirs.append(min(time for time, _ in times))
            ours.append(min(time for _, time in times))
        mine, other = float(np.mean(own)), float(np.mean(recalls))
        return other, statistics.median(theirs), mine, statistics.median(ours)


class Faiss:
    """IVF over float32."""

    name = "faiss"

    def __init__(self, base: F32) -> None:
        faiss.omp_set_num_threads(1)
        self._index = faiss.index_factory(base.shape[1], f"IVF{LISTS},Flat", faiss.METRIC_L2)
        self._index.train(base)
        self._index.add(base)

    def settings(self) -> list[int]:
        return [8, 32, 128, LISTS]

    def prepare(self, asked: Asked) -> Any:
        bits = np.packbits(asked.mask, bitorder="little")
        return bits, faiss.IDSelectorBitmap(len(asked.mask), faiss.swig_ptr(bits))

    def ask(self, q: F32, prepared: Any, setting: int) -> Ids:
        params = faiss.SearchParametersIVF(sel=prepared[1], nprobe=setting)
        found = self._index.search(q[None], K, params=params)[1][0]
        return found[found >= 0]


class Hnsw:
    """hnswlib's graph."""

    name = "hnswlib"

    def __init__(self, base: F32) -> None:
        self._index = hnswlib.Index(space="l2", dim=base.shape[1])
        self._index.init_index(max_elements=len(base), M=16, ef_construction=100, random_seed=1)
        self._index.add_items(base, np.arange(len(base)), num_threads=1)

    def settings(self) -> list[int]:
        return [50, 200, 1_000]

    def prepare(self, asked: Asked) -> Any:
        return set(np.flatnonzero(asked.mask).tolist()).__contains__

    def ask(self, q: F32, prepared: Any, setting: int) -> Ids:
        self._index.set_ef(setting)
        for k in (K, 1):  # it raises where it finds fewer than it was asked for
            try:
                return self._index.knn_query(q, k=k, num_threads=1, filter=prepared)[0][0].astype(np.int64)
            except RuntimeError:
                continue
        return np.empty(0, dtype=np.int64)


class Usearch:
    """usearch's graph, filtered afterwards."""

    name = "usearch"

    def __init__(self, base: F32) -> None:
        self._index = Graph(ndim=base.shape[1], metric="l2sq", dtype="f32", connectivity=16)
        self._index.add(np.arange(len(base)), base, threads=1)

    def settings(self) -> list[int]:
        return [30, 200, 2_000]

    def prepare(self, asked: Asked) -> Any:
        return asked.mask

    def ask(self, q: F32, prepared: Any, setting: int) -> Ids:
        keys = self._index.search(q, setting, threads=1).keys.astype(np.int64)
        return keys[prepared[keys]][:K]


class Lance:
    """A table with scalar indexes."""

    name = "lancedb"

    def __init__(self, base: F32, columns: Mapping[str, Any], path: Path) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(base.ravel()), base.shape[1])
        rows = pa.table({"id": pa.array(range(len(base)), pa.int64()), "vector": vectors, **columns})
        self._table = lancedb.connect(str(path)).create_table("bench", rows)
        self._table.create_index(metric="l2", index_type="IVF_RQ", num_partitions=256, num_bits=1)
        for name, values in columns.items():
            kind = "BITMAP" if isinstance(values, list) else "BTREE"
            self._table.create_scalar_index(name, index_type=kind)

    def settings(self) -> list[int]:
        return [16, 64, 256]

    def prepare(self, asked: Asked) -> Any:
        return _sql(asked.filter)

    def ask(self, q: F32, prepared: Any, setting: int) -> Ids:
        found = self._table.search(q).where(prepared, prefilter=True)
        found = found.nprobes(setting).refine_factor(10).limit(K)
        return np.array(found.select(["id", "_distance"]).to_arrow()["id"].to_pylist(), dtype=np.int64)


class Qdrant:
    """A shard with payload indexes."""

    name = "qdrant-edge"

    def __init__(self, base: F32, columns: Mapping[str, Any], path: Path) -> None:
        path.mkdir()
        config = qe.EdgeConfig(
            vectors=qe.EdgeVectorParams(size=base.shape[1], distance=qe.Distance.Euclid),
            hnsw_config=qe.HnswIndexConfig(
                m=16, ef_construct=100, full_scan_threshold=10, max_indexing_threads=1
            ),
            quantization_config=qe.ScalarQuantizationConfig(
                type=qe.ScalarType.Int8, quantile=0.99, memory=qe.Memory.Pinned
            ),
            optimizers=qe.EdgeOptimizersConfig(
                indexing_threshold=1_000, default_segment_number=1, max_segment_size=100_000_000
            ),
            max_search_threads=1,
        )
        self._shard = qe.EdgeShard.create(str(path), config)
        for name, values in columns.items():
            kind = qe.PayloadSchemaType.Keyword if isinstance(values, list) else qe.PayloadSchemaType.Integer
            self._shard.update(qe.UpdateOperation.create_field_index(name, kind))
        plain = {name: v if isinstance(v, list) else v.tolist() for name, v in columns.items()}
        for start in range(0, len(base), CHUNK):
            rows = base[start : start + CHUNK].tolist()
            points = [
                qe.Point(id=i, vector=row, payload={name: values[i] for name, values in plain.items()})
                for i, row in enumerate(rows, start)
            ]
            self._shard.update(qe.UpdateOperation.upsert_points(points))
        self._shard.optimize()

    def settings(self) -> list[int]:
        return [32, 128, 512]

    def prepare(self, asked: Asked) -> Any:
        return _conditions(asked.filter)

    def ask(self, q: F32, prepared: Any, setting: int) -> Ids:
        params = qe.SearchParams(
            hnsw_ef=setting, quantization=qe.QuantizationSearchParams(rescore=True, oversampling=2.0)
        )
        nearest = qe.Query.Nearest(q.tolist())
        request = qe.SearchRequest(query=nearest, limit=K, filter=prepared, params=params)
        return np.array([point.id for point in self._shard.search(request)], dtype=np.int64)


_SQL = {"Eq": "=", "Gte": ">=", "Lt": "<"}
_RANGE = {"Gte": "gte", "Lt": "lt"}


def _parts(f: list[Any]) -> list[list[Any]]:
    return f[1] if f[0] == "And" else [f]


def _sql(f: list[Any]) -> str:
    def one(name: str, operator: str, value: Any) -> str:
        if operator == "Glob":
            return f"{name} LIKE '{value[:-1]}%'"
        return f"{name} {_SQL[operator]} {value!r}"

    return " AND ".join(one(*part) for part in _parts(f))


def _conditions(f: list[Any]) -> Any:
    def one(name: str, operator: str, value: Any) -> Any:
        if operator == "Eq":
            return qe.FieldCondition(name, match=qe.MatchValue(value))
        if operator == "Glob":
            return qe.FieldCondition(name, match=qe.MatchPrefix(value[:-1]))
        return qe.FieldCondition(name, range=qe.RangeFloat(**{_RANGE[operator]: float(value)}))

    return qe.Filter(must=[one(*part) for part in _parts(f)])


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
