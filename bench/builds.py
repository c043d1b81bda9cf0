"""Two builds of the package beside each other: what a compiler or the stable ABI costs.

``python -m bench.builds PYTHON_A PYTHON_B [--rounds N]`` runs searches of the sample in both interpreters
in turn, each of which imports its own vecstore, and prints microseconds: the least of each, and the ratio
A / B. Figures: ``docs/decisions/0030-wheels-for-the-stable-abi.md``.
"""

from __future__ import annotations

import argparse
import json
import os
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

def least(*calls):
    # Microseconds of a call: the mean of the least that each took, so that other work shows little.
    times = [float("inf")] * len(calls)
    for _ in range(15):
        for number, call in enumerate(calls):
            began = time.perf_counter()
            call()
            times[number] = min(times[number], time.perf_counter() - began)
    return 1e6 * sum(times) / len(times)

def searches(**options):
    return [lambda query=query: ns.search(query, top_k=10, **options) for query in sample.query_vectors]

packed = np.random.default_rng(0).integers(0, 256, 2 * 640_000 + 8, dtype=np.uint8)
bits = np.empty(10_000, dtype=np.uint64)

def compare(width):
    bits.fill(2**64 - 1)
    masks.keep_between(packed, width, 640_000, 3, 2 ** (width - 1), bits)

found = {
    "insert": 1e6 * insert,
    "search": least(*searches()),
    "search one list": least(*searches(probe_fraction=1e-6)),
    "search filtered": least(*searches(filter=["n", "Lt", 30])),
    "batch of 50": least(lambda: ns.search_batch(sample.query_vectors[:50], top_k=10)),
    "compare 11 bits": least(lambda: compare(11)),
    "compare 16 bits": least(lambda: compare(16)),
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
    print(f"{'':<16} {'A, us':>11} {'B, us':>11} {'A / B':>7}")
    for name in rounds[0][0]:
        a, b = (min(pair[side][name] for pair in rounds) for side in (0, 1))
        print(f"{name:<16} {a:11.1f} {b:11.1f} {a / b:7.3f}")


if __name__ == "__main__":
    main()
