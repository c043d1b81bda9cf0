"""vecstore itself: a namespace on a local store after ``compact()``, strong reads, the public API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vecstore
from bench.measure import Searcher, Setting
from bench.peers.kept import Stopwatch
from bench.sets import Dataset
from vecstore.api import Namespace
from vecstore.types import F32

ENGINE = "vecstore"
SCALES = (None, 3.0)  # candidates a hit; None: the namespace's default
TARGETS = (0.85, 0.90, 0.93, 0.95, 0.97, 0.98, 0.99)
MAX_BATCH = 1 << 29  # bytes of vectors in one insert
MAX_PLAIN = 1 << 32  # numbers in a part that is kept without lists


class Ours:
    """One namespace, whole in one part unless asked otherwise.

    Parameters
    ----------
    folder
        Of the local store; the caller removes it.
    parts
        Inserts that the rows are split into.
    compact
        Whether they are merged afterwards.
    """

    engine = ENGINE

    def __init__(
        self,
        dataset: Dataset,
        folder: str | Path,
        *,
        parts: int = 1,
        compact: bool = True,
        clock: str = "wall",
    ) -> None:
        self.folder = str(folder)
        self.db = vecstore.connect(self.folder, maintenance="off")
        self.ns: Namespace = self.db.create_namespace(
            "bench", dim=dataset.base.shape[1], metric=dataset.metric
        )
        self.label = "vecstore"
        own_threshold = self.ns.stats().defaults["small_part_threshold"]
        parts = max(parts, -(-dataset.base.nbytes // MAX_BATCH))
        merged = compact and parts > 1
        if merged:  # what will be merged at once need not be trained before
            self.ns.update(small_part_threshold=MAX_PLAIN)
        watch = Stopwatch()
        for rows in np.array_split(np.arange(len(dataset.base), dtype=np.uint64), parts):
            self.ns.insert(dataset.base[rows[0] : rows[-1] + 1], ids=rows)
        if merged:
            self.ns.update(small_part_threshold=own_threshold)
            self.ns.compact()
        self.build_seconds = watch.read()[clock]
        if compact and parts == 1:
            self.ns.compact()  # as users do; of one part that is its own best form there is nothing to do
        # What is compared is warm: the first use of a record holds it against its checksum.
        self.ns.search_batch(dataset.queries, 10, target_recall=0.99)
        self.bytes = self.ns.stats().bytes
        self.lists = max(part["lists"] for part in self.debug(dataset.queries[0])["parts"])

    def debug(self, query: F32, **options: Any) -> dict[str, Any]:
        """What the engine tells of one search."""
        told = self.ns.search(query, debug=True, **options).debug
        assert told is not None
        return told

    def settings(self) -> Sequence[Setting]:
        """Lists to probe by int8 or fp32 and pool, target recalls, and the defaults: the empty setting.

        It stands in the middle: the first setting of a sweep is measured on a processor that is not warm.
        """
        probes = sorted({max(1, round(p)) for p in np.geomspace(0.006, 0.6, 16) * self.lists})
        grid: list[Setting] = [{"target_recall": target} for target in TARGETS]
        grid += [
            {"nprobe": nprobe, "rerank_precision": precision}
            | ({} if scale is None else {"rerank_scale": scale})
            for nprobe in probes
            for precision in ("int8", "fp32")
            for scale in SCALES
        ]
        return [*grid[: len(grid) // 2], {}, *grid[len(grid) // 2 :]]

    def use(self, setting: Setting) -> Searcher:
        """The public calls, one query or many."""
        search, search_batch, options = self.ns.search, self.ns.search_batch, dict(setting)
        return Searcher(
            lambda query: search(query, 10, **options),
            lambda queries: search_batch(queries, 10, **options),
            lambda hits: hits.ids,
            lambda hits: hits.ids,
        )

    def prepare(self, queries: F32) -> Sequence[F32]:
        """Rows of the matrix."""
        return list(queries)

    @contextlib.contextmanager
    def on_threads(self, threads: int, queries: F32) -> Iterator[Namespace]:
        """The namespace opened anew, warm, and with so many threads for a batch.

        A database takes as many as its process may use processors while it is opened.
        """
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(allowed)[-threads:])
        try:
            db = vecstore.connect(self.folder, maintenance="off")
            ns = db.namespace("bench")
            ns.search_batch(queries, 10, target_recall=0.99)
        finally:
            os.sched_setaffinity(0, allowed)
        with db:
            yield ns

    def close(self) -> None:
        """Release the store."""
        self.db.close()


def stored_bytes(index: Ours) -> dict[str, float]:
    """Bytes of the parts' sections, and of what is in the records of a list: codes, int8 rows, the rest."""
    manifest = index.ns.manifest()
    kinds: dict[str, float] = {}
    for part in manifest["parts"]:
        for section, (_, length, *_) in part["sections"].items():
            kinds[section] = kinds.get(section, 0) + length
    rows, dim = index.ns.stats().rows, manifest["dim"]
    if "records" in kinds:
        kinds["of the records: 1-bit codes"] = rows * dim / 8
        kinds["of the records: int8 rows"] = rows * dim
        kinds["of the records: factors, ids, padding"] = kinds["records"] - rows * dim * 9 / 8
    return kinds


def scanned(
    index: Ours, queries: F32, gt: Any, k: int = 10, chunk: int = 250, **options: Any
) -> tuple[float, float]:
    """Recall@k and rows scanned a query under some options, by batches with ``debug``."""
    same, rows = 0, 0
    for start in range(0, len(queries), chunk):
        hits = index.ns.search_batch(queries[start : start + chunk], top_k=k, debug=True, **options)
        exact = gt[start : start + chunk, :k]
        same += int((hits.ids[:, :, None].astype(np.int64) == exact[:, None, :]).any(axis=2).sum())
        rows += sum(told["rows_scanned"] for told in hits.debug or ())
    return same / (k * len(queries)), rows / len(queries)
