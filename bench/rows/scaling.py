"""Rows 8 and 9: how a query's cost grows with the rows, and with the parts that they lie in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from bench.grow import grown
from bench.measure import Point, Setting, best_at, measure, slope
from bench.peers.ours import Ours, scanned
from bench.rows import Run, Verdict
from bench.sets import Dataset

SIZES = (60_000, 125_000, 250_000, 500_000, 1_000_000)
SMALL_SIZES = (15_000, 30_000, 60_000)
MARK = 0.95
TARGETS = (0.85, 0.90, 0.93, 0.95, 0.97)
MOST_SLOPE = 0.5
PARTS = 20
MOST_SLOWER = 4.0


def growth(run: Run) -> Iterator[Verdict]:
    """Row 8: seconds and rows scanned of the cheapest setting of recall .95, on ever more grown rows."""
    sizes = SMALL_SIZES if run.small else SIZES
    seconds, rows = [], []
    for size in sizes:
        dataset = grown(rows=size)
        with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
            index = Ours(dataset, folder)
            best = _cheapest(run, index, dataset)
            share = scanned(index, dataset.queries, dataset.gt, **best.setting)[1]
            index.close()
        run.say(f"{size:,} rows: {1e6 / best.single_qps:.0f} µs, {share:,.0f} rows scanned, {best.name}")
        seconds.append(1 / best.single_qps)
        rows.append(share)
    told = ", ".join(f"{size:,}: {1e6 * s:.0f} µs" for size, s in zip(sizes, seconds, strict=True))
    found = slope(sizes, seconds)
    yield Verdict(
        8, "grown384", "slope of seconds a query on rows, log-log", found, f"≤ {MOST_SLOPE}",
        found <= MOST_SLOPE, told,
    )  # fmt: skip
    told = ", ".join(f"{size:,}: {r:,.0f}" for size, r in zip(sizes, rows, strict=True))
    yield Verdict(8, "grown384", "slope of rows scanned on rows, log-log", slope(sizes, rows), "", None, told)


def parts(run: Run) -> Iterator[Verdict]:
    """Row 9: one part over twenty parts of the same rows, at recall .95."""
    for dataset in run.datasets():
        one = _cheapest(run, run.ours(dataset), dataset)
        many = _cheapest(run, run.ours(dataset, parts=PARTS, compact=False), dataset)
        ratio = one.single_qps / many.single_qps
        yield Verdict(
            9,
            dataset.name,
            f"times slower in {PARTS} parts than in one, at recall@10 ≥ {MARK}",
            ratio,
            f"≤ {MOST_SLOWER:g}",
            ratio <= MOST_SLOWER,
            f"{one.single_qps:,.0f}/s ({one.name}); {many.single_qps:,.0f}/s ({many.name})",
        )


def _cheapest(run: Run, index: Ours, dataset: Dataset) -> Point:
    """The fastest setting of recall .95: the ``nprobe`` found by halving, its neighbours, some targets."""
    low, high = 1, index.lists
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        recall, _ = scanned(index, dataset.queries, dataset.gt, nprobe=middle)
        low, high = (middle, high) if recall < MARK else (low, middle)
    grid = [*_around(high, index.lists), *({"target_recall": target} for target in TARGETS)]
    prepared = index.prepare(dataset.queries)
    points: list[Point] = []
    for _ in range(run.rounds):
        points += [
            measure(index, setting, prepared, dataset.queries, dataset.gt, batch=False, clock=run.timer)
            for setting in grid
        ]
    best = best_at(points, MARK)
    return best if best is not None else max(points, key=lambda point: point.recall)


def _around(nprobe: int, most: int) -> Sequence[Setting]:
    """That many lists and some more, by int8 and fp32 and with pools of several sizes."""
    counts = sorted({min(most, int(np.ceil(nprobe * factor))) for factor in (0.9, 1.0, 1.1, 1.3)})
    return [
        {"nprobe": count, "rerank_precision": precision, "rerank_scale": scale}
        for count in counts
        for precision in ("int8", "fp32")
        for scale in (3.0, 5.0, 8.0)
    ]
