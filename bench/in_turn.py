"""This checkout beside another one: ``python -m bench.in_turn ../other --set glosses --target .99``.

Both are built (``make build``). Each has a process of its own, on one processor, and both search the
namespace that this checkout wrote. They take turns, so that a disturbance of the machine meets both. The
least and the median of all passes over 1,000 queries are told, by single calls and as a batch, in us a
query, and a digest of the answers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from bench import sets
from bench.grow import grown
from bench.peers.ours import Ours

PASSES = 40
QUERIES = 1_000

# What a process does; run from its text, as the other checkout need not have this module.
CHILD = """
import hashlib, json, os, sys, time
import numpy as np
import vecstore

folder, options = sys.argv[1], json.loads(sys.argv[2])
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
queries = np.load(folder + "/queries.npy")
ns = vecstore.connect(folder, maintenance="off").namespace("bench")
for query in queries:
    ns.search(query, 10, **options)
found = ns.search_batch(queries, 10, **options)
digest = hashlib.sha256(found.ids.tobytes() + found.distances.tobytes()).hexdigest()[:8]
print(vecstore.__file__, digest, flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    for query in queries:
        ns.search(query, 10, **options)
    middle = time.perf_counter()
    ns.search_batch(queries, 10, **options)
    print(json.dumps([middle - start, time.perf_counter() - middle]), flush=True)
"""


class Searcher:
    """A process that searches by the code of one checkout."""

    def __init__(self, tree: Path, folder: Path, options: dict[str, float]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), json.dumps(options)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        where, self._digest = self._line().split()
        if not Path(where).is_relative_to(tree):
            raise SystemExit(f"{where} is not of {tree}")
        self._passes: list[list[float]] = []

    def go(self) -> None:
        """One pass."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self._passes.append(json.loads(self._line()))

    def told(self) -> str:
        """What came of all passes; the process ends."""
        self._process.communicate()
        single, batch = ([1e6 * t / QUERIES for t in times] for times in zip(*self._passes, strict=True))
        return (
            f"single {min(single):.2f} (median {median(single):.2f})  "
            f"batch {min(batch):.2f} ({median(batch):.2f})  answers {self._digest}"
        )

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a searcher ended with {self._process.wait()}")
        return line


def main() -> None:
    """Parse, write the namespace, let both search it."""
    parser = argparse.ArgumentParser(description="This checkout beside another one.")
    parser.add_argument("other", type=Path, help="built")
    parser.add_argument("--set", choices=("glosses", "fashion", "grown"), default="glosses")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the grown set")
    parser.add_argument("--target", type=float, help="a recall; the default settings if none is given")
    given = parser.parse_args()
    if given.set == "grown":
        dataset = grown(rows=given.rows)
    else:
        dataset = sets.glosses() if given.set == "glosses" else sets.fashion()
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        Ours(dataset, folder).close()
        np.save(f"{folder}/queries.npy", dataset.queries[:QUERIES])
        options = {} if given.target is None else {"target_recall": given.target}
        trees = {"this": Path(__file__).parents[1], "other": given.other.resolve()}
        searchers = {name: Searcher(tree, Path(folder), options) for name, tree in trees.items()}
        for _ in range(PASSES):
            for searcher in searchers.values():
                searcher.go()
        for name, searcher in searchers.items():
            print(f"{name:5} {searcher.told()}")


if __name__ == "__main__":
    main()
