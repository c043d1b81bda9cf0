"""glass (pyglass-portable): HNSW, R = 32 and 16, L = 200, over 8-bit codes, refined in fp16.

The graph is built over 8-bit codes, as its authors do; the searcher tunes its own prefetching
(``optimize``) before it is measured. A searcher takes the graph that it is given for itself: each has one
of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import glass

from bench.measure import Index, Searcher, Setting
from bench.peers.kept import Keep, Record
from bench.sets import Dataset, normalised
from vecstore.types import F32

ENGINE = "glass"
EF = (10, 12, 15, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 700)


class Glass:
    """One searcher over the graph."""

    engine = ENGINE

    def __init__(self, label: str, searcher: Any, record: Record) -> None:
        self.label, self._searcher = label, searcher
        self.build_seconds, self.bytes = record.seconds, record.bytes

    def settings(self) -> Sequence[Setting]:
        """The search's beam."""
        return [{"ef": ef} for ef in EF]

    def use(self, setting: Setting) -> Searcher:
        """Set the beam."""
        self._searcher.set_ef(setting["ef"])
        search, batch = self._searcher.search, self._searcher.batch_search
        return Searcher(
            lambda query: search(query, 10),
            lambda queries: batch(queries, 10, 1),
            lambda found: found[0],
            lambda found: found[0],
        )

    def prepare(self, queries: F32) -> Sequence[F32]:
        """Rows of the matrix."""
        return list(queries)


def build(dataset: Dataset, keep: Keep, wanted: set[str]) -> Iterator[Index]:
    """A graph and a searcher for each degree."""
    del wanted
    glass.set_num_threads(1)
    base = normalised(dataset)
    for degree in keep.choose((32, 16)):
        label = f"HNSW R{degree} SQ8U"
        graph, record = keep.index(
            "pyglass-portable", label, lambda degree=degree: _graph(base, degree), _save, _load
        )
        with told_to_stderr():
            searcher = glass.Searcher(graph, base, "L2", "SQ8U", "FP16")
            searcher.set_ef(50)
            searcher.optimize(1)
        own = base.size * (1 + 2)  # codes, and what refines them
        yield Glass(f"{label} FP16", searcher, Record(record.seconds, record.bytes + own))


@contextlib.contextmanager
def told_to_stderr() -> Iterator[None]:
    """What the library prints of its progress goes where progress goes."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _graph(base: F32, degree: int) -> Any:
    with told_to_stderr():
        return glass.Index("HNSW", "L2", "SQ8U", R=degree, L=200).build(base)


def _save(graph: Any, path: Path) -> None:
    with told_to_stderr():
        graph.save(str(path))


def _load(path: Path) -> Any:
    with told_to_stderr():
        return glass.Graph(str(path), "glass")
