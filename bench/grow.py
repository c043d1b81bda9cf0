"""A million rows grown from the glosses, and the check that they are a stand-in: ``python -m bench.grow``.

The recipe, for row r of 1,006,000 (the last 6,000 are held out as queries):

1. Draw a gloss x at random.
2. y = x + 0.75 z, where z is normal with the covariance of the residuals: half that of the
   differences between 20,000 glosses and one of their 8 nearest each.
3. Divide y by its length; keep it as float16, as the glosses are kept.

All draws come from PCG64 streams with fixed seeds, one a block of 10,000 rows, so a longer set begins
with the same rows. Two rows of one gloss lie about as far apart as a gloss and its nearest neighbour:
they are no copies.

The check: an IVF of 32 rows a list needs some share of the rows for recall@10 .95, lists taken nearest
first. For 60,000 rows of the grown set that share must be within 15 % of what the 60,000 glosses
need. With less noise, or with rows mixed of neighbours, the set would be far too easy (0.5 of the
noise and a half of each row its neighbours' mean: a quarter of the share). All
held-out rows are asked: the last twentieth of the answers, which decides, comes from few queries.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench import sets
from vecstore.types import F32

ROWS = 1_000_000
HELD_OUT = 6_000
NEAR, NOISE = 8, 0.75
BLOCK = 10_000
SAMPLE = 60_000
LIST = 32
MARKS = (0.90, 0.95, 0.99)
MOST_OFF = 0.15


def grow(base: F32, count: int) -> npt.NDArray[np.float16]:
    """The first ``count`` rows of the grown set."""
    factor = _residual_factor(base)
    out = np.empty((count, base.shape[1]), dtype=np.float16)
    for start in range(0, count, BLOCK):
        rng = np.random.default_rng([2026, start // BLOCK])
        drawn = rng.integers(0, len(base), BLOCK)
        noise = rng.standard_normal((BLOCK, base.shape[1]), dtype=np.float32) @ factor.T
        rows = base[drawn] + NOISE * noise
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        out[start : start + BLOCK] = rows[: count - start]
    return out


def stored(env: Mapping[str, str] = os.environ) -> npt.NDArray[np.float16]:
    """All rows, those held out last; grown once and kept."""
    path = sets.CACHE / f"grown384-{NOISE}.f16.npy"
    if not path.exists():
        base = sets.glosses(env).base
        print(f"growing {ROWS:,} rows (kept in {sets.CACHE})", file=sys.stderr, flush=True)
        sets.save(path, grow(base, ROWS + HELD_OUT))
    rows: npt.NDArray[np.float16] = np.load(path, mmap_mode="r")
    return rows


def grown(env: Mapping[str, str] = os.environ, rows: int = ROWS) -> sets.Dataset:
    """The set; with ``rows`` a smaller one that begins alike, with the same queries."""
    kept = stored(env)
    base, held_out = kept[:rows].astype(np.float32), kept[ROWS:].astype(np.float32)
    name = "grown384" if rows == ROWS else f"grown384-{rows}"
    return sets.with_neighbours(name, "cosine", base, held_out)


def share_needed(base: F32, queries: F32, marks: tuple[float, ...] = MARKS) -> list[float]:
    """Shares of the rows that an IVF of 32 rows a list scans for each recall@10, lists nearest first."""
    import faiss

    count = len(base) // LIST
    means = faiss.Kmeans(
        base.shape[1], count, niter=10, seed=1, min_points_per_centroid=1, max_points_per_centroid=10_000
    )
    means.train(base)
    lists = means.index.search(base, 1)[1][:, 0]
    sizes = np.bincount(lists, minlength=count)
    order = means.index.search(queries, count)[1]
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(count)[None, :].repeat(len(queries), 0), axis=1)
    near = faiss.knn(queries, base, 10)[1]
    needed = np.sort(np.take_along_axis(place, lists[near], axis=1), axis=None) + 1
    scanned = np.cumsum(sizes[order], axis=1).mean(axis=0) / len(base)
    return [float(scanned[needed[math.ceil(mark * len(needed)) - 1] - 1]) for mark in marks]


def check(into: Path) -> bool:
    """Compare the grown set's sample with the glosses, print and record it."""
    import faiss

    faiss.omp_set_num_threads(1)
    real = sets.glosses()
    base, queries = real.base, real.queries
    kept = stored()
    rows = np.sort(np.random.default_rng(3).choice(ROWS, SAMPLE, replace=False))
    wanted = share_needed(base, queries)
    found = share_needed(kept[rows].astype(np.float32), kept[ROWS:].astype(np.float32))
    ratios = [b / a for a, b in zip(wanted, found, strict=True)]
    for mark, a, b, ratio in zip(MARKS, wanted, found, ratios, strict=True):
        print(
            f"recall@10 {mark}: glosses scan {100 * a:.2f} %, grown sample {100 * b:.2f} %, ratio {ratio:.3f}"
        )
    passed = abs(ratios[MARKS.index(0.95)] - 1) <= MOST_OFF
    print(f"at .95 within {MOST_OFF:.0%}: {'PASS' if passed else 'FAIL'}")
    into.mkdir(parents=True, exist_ok=True)
    record = {"marks": MARKS, "glosses": wanted, "grown": found, "ratios": ratios, "passed": passed}
    (into / "grown.json").write_text(json.dumps(record, indent=1) + "\n")
    return passed


def _residual_factor(base: F32) -> F32:
    import faiss

    rng = np.random.default_rng(2026)
    drawn = base[rng.integers(0, len(base), 20_000)]
    near = faiss.knn(drawn, base, NEAR + 1)[1]
    residuals = drawn - base[near[np.arange(len(drawn)), rng.integers(1, NEAR + 1, len(drawn))]]
    covariance = np.cov(residuals.T) / 2 + 1e-7 * np.eye(base.shape[1])
    return np.linalg.cholesky(covariance).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Grow a million rows from the glosses, and check them.")
    parser.add_argument("--into", type=Path, default=sets.OUT / "bench", help="where the figures go")
    options = parser.parse_args()
    sys.exit(0 if check(options.into) else 1)
