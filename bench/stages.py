"""Where a query's time goes, and how fast it reads: ``python -m bench.stages --set glosses``.

One thread on one processor. Each query is asked several times with ``debug`` and keeps the least time of
each stage; what an ordinary call takes longer than their sum is Python, the snapshot check and the answer.
Beside the stages stand the bytes that they must read of the part and the bytes a second that makes, beside
what the same processor reads of an array that no cache holds, in the same run. Of a set that the caches hold
in part, a stage may read more a second than the memory gives.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from bench import sets
from bench.measure import WARM
from bench.peers.ours import Ours
from bench.rows import SETS
from bench.rows.__main__ import pin
from bench.rows.kernel import bytes_a_second
from vecstore.ext import rabitq
from vecstore.ext.ivf import LOOKED_AT_A_LIST, LOOKED_AT_LEAST, LOOKED_AT_SHARE
from vecstore.index.recall import BASE, MOST_REACH
from vecstore.index.rotation import Rotation

QUERIES = 1_000
ROUNDS = 5
FAR = 30_000_000  # numbers, 240 MB
BLOCK = 32  # rows
HEADER = 64  # bytes of a record before its centroid
FACTORS = 8  # bytes of an int8 row's factors


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage takes of a mean query: microseconds, and bytes that it must read of the part."""

    name: str
    microseconds: float
    bytes: float


def stages(index: Ours, queries: np.ndarray) -> Iterator[Stage]:
    """The stages of the mean query at the defaults, in order, and what lies outside them."""
    padded_dim = Rotation(queries.shape[1], 1).padded_dim
    block = 4 * padded_dim + 12 * BLOCK
    prepared = list(queries)
    whole = np.full(len(prepared), np.inf)
    seconds: dict[str, np.ndarray] = {}
    lists = reranked = ranked = 0.0
    for round_ in range(ROUNDS):
        for i, query in enumerate(prepared):
            start = time.perf_counter()
            index.ns.search(query, 10)
            whole[i] = min(whole[i], time.perf_counter() - start)
        for i, query in enumerate(prepared):
            told = index.debug(query, top_k=10)
            for name, value in told["seconds"].items():
                least = seconds.setdefault(name, np.full(len(prepared), np.inf))
                least[i] = min(least[i], value)
            if round_:
                continue
            probed = sum(part["probed"] for part in told["parts"])
            lists += probed
            reranked += told["rows_reranked"]
            most = MOST_REACH * probed / BASE
            least = max(LOOKED_AT_LEAST, index.lists // LOOKED_AT_SHARE)
            ranked += min(index.lists, LOOKED_AT_A_LIST * most + least)
    lists, reranked, ranked = (total / len(prepared) for total in (lists, reranked, ranked))
    read = {
        "rank": ranked / BLOCK * block,
        "scan": lists * (HEADER + padded_dim + block),
        "rerank": reranked * (padded_dim + FACTORS),
    }
    for name, least in seconds.items():
        yield Stage(name, float(least.mean()) * 1e6, read.get(name, 0.0))
    inside = sum(least for least in seconds.values())
    yield Stage("outside", float((whole - inside).mean()) * 1e6, 0.0)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description="Where a query's time goes.")
    parser.add_argument("--set", action="append", choices=sorted(SETS), help="default: glosses and fashion")
    parser.add_argument("--into", type=Path, default=sets.OUT / "bench", help="where the figures go")
    options = parser.parse_args()
    pin(1, "bench.stages")
    memory = bytes_a_second(time.perf_counter, np.ones(FAR, dtype=np.int64))
    told = {}
    for name in options.set or ("glosses", "fashion"):
        dataset = SETS[name]()
        queries = dataset.queries[:QUERIES]
        with tempfile.TemporaryDirectory() as folder:
            index = Ours(dataset, folder)
            for query in queries[:WARM]:
                index.ns.search(query, 10)
            found = list(stages(index, queries))
            index.close()
        total = sum(stage.microseconds for stage in found)
        lines = [
            [
                stage.name,
                f"{stage.microseconds:.1f}",
                f"{stage.microseconds / total:.0%}",
                f"{stage.bytes / 1e3:.0f}" if stage.bytes else "",
                f"{stage.bytes / stage.microseconds / 1e3:.1f}" if stage.bytes else "",
            ]
            for stage in found
            if stage.microseconds
        ]
        print(f"\n{dataset.name}: {total:.1f} µs a query, {rabitq.simd()}; memory {memory / 1e9:.1f} GB/s\n")
        print(tabulate(lines, ["stage", "µs", "share", "KB read", "GB/s"], tablefmt="pipe"))
        told[dataset.name] = [asdict(stage) for stage in found]
    options.into.mkdir(parents=True, exist_ok=True)
    record = {"memory": memory, "simd": rabitq.simd(), "sets": told}
    (options.into / "stages.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
