"""Two builds of the package beside each other: what a compiler or the stable ABI costs.

``python -m bench.builds PYTHON_A PYTHON_B [--rounds N]`` runs searches of the sample in both interpreters in turn, each
of which imports its own vecstore, and prints the median of each figure and of the ratios A / B, pair by pair.
Figures: ``docs/decisions/0030-wheels-for-the-stable-abi.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Runs in the interpreter that is measured, which may know nothing of this folder.
CHILD = """
import json, sys, time
import numpy as np
import vecstore
from vecstore.ext import masks, rabitq
from vecstore.sample import load_sample

sample = load_sample(sys.argv[1])
ns = vecstore.connect("memory://", maintenance="off").create_namespace("s", sample.vectors.shape[1], "cosine")
began = time.perf_counter()
ns.insert(sample.vectors, ids=sample.ids, attributes={"n": np.arange(len(sample.ids)) % 100})
insert = time.perf_counter() - began
queries = sample.query_vectors

def best(repeat, run):
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)

def searches(**options):
    def run():
        for query in queries:
            ns.search(query, top_k=10, **options)
    return run

packed = np.random.default_rng(0).integers(0, 256, 2 * 640_000 + 8, dtype=np.uint8)

def compared(width):
    def run():
        bits = np.full(10_000, 2**64 - 1, dtype=np.uint64)
        masks.keep_between(packed, width, 640_000, 3, 2 ** (width - 1), bits)
    return run

found = {
    "insert, s": insert,
    "search, us": 1e6 * best(9, searches()) / len(queries),
    "tiny search, us": 1e6 * best(9, searches(probe_fraction=1e-6)) / len(queries),
    "filtered, us": 1e6 * best(9, searches(filter=["n", "Lt", 30])) / len(queries),
    "batch, us": 1e6 * best(9, lambda: ns.search_batch(queries, top_k=10)) / len(queries),
    "compare 11, us": 1e6 * best(9, compared(11)),
    "compare 16, us": 1e6 * best(9, compared(16)),
}
print(json.dumps([found, rabitq.simd(), vecstore.__file__]))
"""


def measure(python: str) -> tuple[dict[str, float], str, str]:
    done = subprocess.run(
        [python, "-c", CHILD, str(ROOT / "examples" / "glosses")],
        cwd="/",
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python", nargs=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        pair = [measure(python) for python in options.python]
        if not number:
            for (_, simd, where), letter in zip(pair, "AB", strict=True):
                print(f"{letter}: {simd}, {where}")
        rounds.append([figures for figures, *_ in pair])
    print(f"{'':<16} {'A':>9} {'B':>9} {'A / B':>7}")
    for name in rounds[0][0]:
        a, b = (statistics.median(pair[side][name] for pair in rounds) for side in (0, 1))
        ratio = statistics.median(pair[0][name] / pair[1][name] for pair in rounds)
        print(f"{name:<16} {a:9.2f} {b:9.2f} {ratio:7.3f}")


if __name__ == "__main__":
    main()
