"""A million rows grown from the glosses, and the check that they are a stand-in: ``python -m bench.grow``.

The glosses are divided three times, by k-means into 20, 200 and 2,000 groups. The recipe, for each of
1,006,000 rows (the last 6,000 are held out as queries):

1. Draw a gloss and one of the three divisions; a coarser one where the gloss's group has fewer than 8
   members.
2. Draw three more glosses of that group, and four weights whose squares add up to 1: the squares come
   from a Dirichlet distribution with all parameters 2.
3. The row is the group's mean plus the weighted sum of the four glosses' differences from it, divided
   by its length and kept as float16, as the glosses are.

As the squared weights add up to 1, a group keeps its mean and its covariance. No noise is added and no
gloss is copied: rows that lean on the same gloss are near each other, and the more rows there are the
nearer the nearest of them (docs/decisions/0018).

All draws come from PCG64 streams with fixed seeds, one a block of 10,000 rows, so a longer set begins
with the same rows.

The check has two parts. *Hardness*: an IVF of 32 rows a list needs some share of the rows for recall@10
.95, lists taken nearest first; for 60,000 of the grown rows that share must be within 15 % of what the
60,000 glosses need. *Growth*: from 7,500 to 60,000 glosses the blocks that a part must scan rise by a power
of the rows, and the similarity of the tenth neighbour by their logarithm. At a million the grown set's blocks
must be within a third of that power law, its tenth neighbour within .05 of that line. For the hardness all
held-out rows are asked: the last twentieth of the answers, which decides, comes from few queries.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench import partition, sets
from vecstore.manifest.model import Settings
from vecstore.part.builder import SPREAD_WEIGHT
from vecstore.types import F32

ROWS = 1_000_000
HELD_OUT = 6_000
DIVISIONS = (20, 200, 2_000)
LEAST_GROUP = 8
PARENTS, EVENNESS = 4, 2.0
RECIPE = "20-200-2000-by-4"  # names the file that is kept
BLOCK = 10_000
SAMPLE = 60_000
SIZES = (7_500, 15_000, 30_000, 60_000)
LIST = 32
MARKS = (0.90, 0.95, 0.99)
MARK = MARKS.index(0.95)
MOST_OFF, MOST_OFF_BLOCKS, MOST_OFF_TENTH = 0.15, 1 / 3, 0.05

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Groups:
    """The groups of all divisions, numbered through.

    Attributes
    ----------
    of
        i64[divisions, N]: each gloss's group in each division.
    finest
        i64[N]: the finest division in which that group has enough members.
    means
        f32[G, D].
    members, first, sizes
        The glosses of group g are ``members[first[g] : first[g] + sizes[g]]``.
    """

    of: I64
    finest: I64
    means: F32
    members: I64
    first: I64
    sizes: I64

    @classmethod
    def among(cls, base: F32) -> _Groups:
        divided = [_k_means(base, count, 8) for count in DIVISIONS]
        of = np.stack([labels for _, labels in divided])
        of += (np.cumsum(DIVISIONS) - DIVISIONS)[:, None]
        sizes = np.bincount(of.ravel(), minlength=sum(DIVISIONS))
        finest = len(DIVISIONS) - 1 - (sizes[of] >= LEAST_GROUP)[::-1].argmax(axis=0)
        members = np.argsort(of, axis=None, kind="stable") % len(base)
        means = np.concatenate([means for means, _ in divided])
        return cls(of, finest, means, members, np.cumsum(sizes) - sizes, sizes)


def grow(base: F32, count: int) -> npt.NDArray[np.float16]:
    """The first ``count`` rows of the grown set."""
    groups = _Groups.among(base)
    out = np.empty((count, base.shape[1]), dtype=np.float16)
    for start in range(0, count, BLOCK):
        rng = np.random.default_rng([2026, start // BLOCK])
        drawn = rng.integers(0, len(base), BLOCK)
        division = np.minimum(rng.integers(0, len(DIVISIONS), BLOCK), groups.finest[drawn])
        group = groups.of[division, drawn]
        places = rng.random((BLOCK, PARENTS - 1)) * groups.sizes[group][:, None]
        others = groups.members[groups.first[group][:, None] + places.astype(np.int64)]
        weights = np.sqrt(rng.dirichlet([EVENNESS] * PARENTS, BLOCK)).astype(np.float32)
        rows = (1 - weights.sum(axis=1, keepdims=True)) * groups.means[group]
        for parent, weight in zip([drawn, *others.T], weights.T, strict=True):
            rows += weight[:, None] * base[parent]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        out[start : start + BLOCK] = rows[: count - start]
    return out


def stored(env: Mapping[str, str] = os.environ) -> npt.NDArray[np.float16]:
    """All rows, those held out last; grown once and kept."""
    path = sets.CACHE / f"grown384-{RECIPE}.f16.npy"
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


def shares_needed(dataset: sets.Dataset) -> list[float]:
    """Shares of the rows that an IVF of 32 rows a list scans for each recall@10, lists nearest first."""
    means, lists = _k_means(dataset.base, len(dataset.base) // LIST, 10)
    sizes, half = np.bincount(lists, minlength=len(means)), np.einsum("ij,ij->i", means, means) / 2
    scanned = np.zeros(len(means))
    places = []
    for start in range(0, len(dataset.held_out), 250):
        some = slice(start, start + 250)
        order = np.argsort(half - dataset.held_out[some] @ means.T, axis=1)
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(len(means))[None, :], axis=1)
        places.append(np.take_along_axis(place, lists[dataset.held_out_gt[some, :10]], axis=1))
        scanned += np.cumsum(sizes[order], axis=1).sum(axis=0)
    ascending = np.sort(np.concatenate(places), axis=None)
    last = [ascending[math.ceil(mark * ascending.size) - 1] for mark in MARKS]
    return [float(scanned[place] / scanned[-1]) for place in last]


def blocks_needed(dataset: sets.Dataset) -> float:
    """Lists of one block that a part scans for .95 of the ten nearest of the queries (`bench.partition`)."""
    z, queries = partition.rotated(dataset)
    lists = partition.divided(z, Settings(), 1)
    order = partition.ranks(lists, z, queries, float(SPREAD_WEIGHT))
    return partition.blocks_needed(lists, order, dataset.gt)[partition.TARGETS.index(0.95)]


def similarities(dataset: sets.Dataset) -> tuple[float, float, float]:
    """Mean cosine of the first and of the tenth neighbour, and the share of first ones above .9."""
    first, tenth = (
        np.einsum("ij,ij->i", dataset.held_out, dataset.base[dataset.held_out_gt[:, rank]]) for rank in (0, 9)
    )
    return float(first.mean()), float(tenth.mean()), float((first > 0.9).mean())


def check(into: Path) -> bool:
    """Compare the grown set with the glosses, print and record it."""
    import faiss

    faiss.omp_set_num_threads(1)
    real, full = sets.glosses(), grown()
    hardness, growth = _hardness(real, full), _growth(real, full)
    into.mkdir(parents=True, exist_ok=True)
    record = {"recipe": RECIPE, "hardness": hardness, "growth": growth}
    (into / "grown.json").write_text(json.dumps(record, indent=1) + "\n")
    return bool(hardness["passed"] and growth["passed"])


def _hardness(real: sets.Dataset, full: sets.Dataset) -> dict[str, object]:
    rows = np.sort(np.random.default_rng(3).choice(ROWS, SAMPLE, replace=False))
    sample = sets.with_neighbours("grown384-sample", full.metric, full.base[rows], full.held_out)
    wanted, found = shares_needed(real), shares_needed(sample)
    ratios = [b / a for a, b in zip(wanted, found, strict=True)]
    for mark, a, b, ratio in zip(MARKS, wanted, found, ratios, strict=True):
        print(
            f"recall@10 {mark}: glosses scan {100 * a:.2f} %, grown sample {100 * b:.2f} %, ratio {ratio:.3f}"
        )
    passed = abs(ratios[MARK] - 1) <= MOST_OFF
    print(f"at .95 within {MOST_OFF:.0%}: {_verdict(passed)}", flush=True)
    return {"marks": MARKS, "glosses": wanted, "grown": found, "ratios": ratios, "passed": passed}


def _growth(real: sets.Dataset, full: sets.Dataset) -> dict[str, object]:
    order = np.random.default_rng(5).permutation(len(real.base))
    glosses = [
        sets.with_neighbours(f"glosses384-{n}", real.metric, real.base[np.sort(order[:n])], real.held_out)
        for n in SIZES
    ]
    told, blocks, tenths = [], [], []
    for dataset in (*glosses, full):
        needed = blocks_needed(dataset)
        first, tenth, copies = similarities(dataset)
        print(
            f"{dataset.name}, {len(dataset.base):,} rows: {needed:.0f} blocks for .95; first neighbour "
            f"{first:.3f}, tenth {tenth:.3f}, first above .9: {copies:.1%}",
            flush=True,
        )
        told.append([len(dataset.base), needed, first, tenth, copies])
        blocks.append(needed)
        tenths.append(tenth)
    exponent, factor = np.polyfit(np.log(SIZES), np.log(blocks[:-1]), 1)
    law = float(np.exp(factor) * ROWS**exponent)
    line = float(np.polyval(np.polyfit(np.log(SIZES), tenths[:-1], 1), np.log(ROWS)))
    ratio, off = blocks[-1] / law, tenths[-1] - line
    passed = abs(ratio - 1) <= MOST_OFF_BLOCKS and abs(off) <= MOST_OFF_TENTH
    print(
        f"the glosses' trend at {ROWS:,} rows: {law:.0f} blocks for .95 (exponent {exponent:.2f}), tenth "
        f"neighbour {line:.3f}; grown: {ratio:.2f} times these blocks, tenth neighbour {off:+.3f} off\n"
        f"within {MOST_OFF_BLOCKS:.0%} and {MOST_OFF_TENTH}: {_verdict(passed)}"
    )
    return {"sets": told, "law": law, "exponent": exponent, "line": line, "ratio": ratio, "passed": passed}


def _verdict(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


def _k_means(rows: F32, count: int, iterations: int) -> tuple[F32, I64]:
    """f32[count, D] centroids, by FAISS, and i64[N]: the nearest of each row."""
    import faiss

    means = faiss.Kmeans(
        rows.shape[1],
        count,
        niter=iterations,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=10_000,
    )
    means.train(rows)
    return means.centroids, means.index.search(rows, 1)[1][:, 0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Grow a million rows from the glosses, and check them.")
    parser.add_argument("--into", type=Path, default=sets.OUT / "bench", help="where the figures go")
    options = parser.parse_args()
    sys.exit(0 if check(options.into) else 1)
