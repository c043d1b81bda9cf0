"""Other engines, one module each, behind the small interface of `bench.measure.Index`.

A module of this package names its engines and builds their indexes: ``build(dataset, keep)`` yields
them one by one, ``keep`` (see `bench.peers.kept`) storing what was built so that a second run need
not build it again. To add a peer, write such a module and name it in `PEERS`.

Each engine runs in the one process of the benchmark, on one thread. Where its library has a pool of
threads, the module sets it to one; the process is bound to one processor besides, so that a thread
too many could not help it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping

from bench.measure import Index
from bench.peers.kept import Keep
from bench.sets import Dataset

# engine -> module; the order of legends and tables
PEERS: Mapping[str, str] = {
    "faiss IVF-PQ": "faiss_ivf",
    "faiss IVF-RaBitQ": "faiss_ivf",
    "rabitqlib IVF": "rabitq",
    "rabitqlib SymphonyQG": "rabitq",
    "hnswlib": "hnsw",
    "usearch": "usearch_",
    "glass": "glass_",
    "qdrant-edge": "qdrant",
    "lancedb": "lance",
    "zvec": "zvec_",
}
LARGE = ("faiss IVF-PQ", "faiss IVF-RaBitQ", "hnswlib", "rabitqlib SymphonyQG")  # those compared at 1 M


def build(
    engines: tuple[str, ...], dataset: Dataset, keep: Keep, say: Callable[[str], None]
) -> Iterator[Index]:
    """Indexes of the named engines; an engine whose package is missing is skipped with a word."""
    for module_name in dict.fromkeys(PEERS[engine] for engine in engines):
        try:
            module = importlib.import_module(f"bench.peers.{module_name}")
        except ImportError as missing:
            print(f"bench.peers.{module_name}: skipped, {missing}", file=sys.stderr, flush=True)
            continue
        wanted = {engine for engine in engines if PEERS[engine] == module_name}
        for index in module.build(dataset, keep, wanted):
            say(f"{index.engine}, {index.label}: built in {index.build_seconds:.1f} s")
            yield index
