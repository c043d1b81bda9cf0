"""What measured recall costs and whether it can be believed: ``python -m bench.recall``.

    python -m bench.recall [--set glosses|fashion|sample]

Three tables in Markdown, on standard output:

- how often the interval holds the true mean, and how wide it is, on simulated recalls (`interval`);
- `Namespace.measure_recall` beside the neighbours that ``bench.sets`` has kept, and how long it takes;
- what sampling costs a search: latency with nothing sampled, and with a share of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import vecstore
from bench import sets
from vecstore.engine.recall import interval

SETS: dict[str, Callable[[], sets.Dataset]] = {
    "glosses": sets.glosses,
    "fashion": sets.fashion,
    "sample": sets.sample,
}
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray[Any, Any]]
# Recalls at 10 of single queries, and the true mean.
SIMULATED: list[tuple[str, float, Draw]] = [
    ("hits fall out at random, .95", 0.95, lambda r, s: r.binomial(10, 0.95, s) / 10),
    ("queries differ, .95", 0.95, lambda r, s: r.binomial(10, r.beta(9.5, 0.5, s)) / 10),
    ("queries differ, .70", 0.70, lambda r, s: r.binomial(10, r.beta(2.1, 0.9, s)) / 10),
    ("queries differ, .99", 0.99, lambda r, s: r.binomial(10, r.beta(9.9, 0.1, s)) / 10),
    ("nearly all perfect, .999", 0.999, lambda r, s: r.binomial(10, 0.999, s) / 10),
    ("one query in 100 finds nothing", 0.99, lambda r, s: (r.random(s) > 0.01).astype(float)),
]
SIZES = (30, 100, 500, 2_000)
ROUNDS = 2_000


def simulate() -> None:
    """Coverage and width of intervals of 95 %, beside Student's t alone."""
    print("| recalls | " + " | ".join(f"{n} queries" for n in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for name, true, draw in SIMULATED:
        cells = []
        for n in SIZES:
            samples = draw(np.random.default_rng(n), (ROUNDS, n))
            found = np.array([interval(one, 0.95) for one in samples])
            half = 1.96 * (1 + 0.6 / n) * samples.std(axis=1, ddof=1) / np.sqrt(n)
            plain = np.abs(samples.mean(axis=1) - true) <= half + 1e-12
            covered = (found[:, 1] <= true + 1e-12) & (true <= found[:, 2] + 1e-12)
            width = float((found[:, 2] - found[:, 1]).mean())
            cells.append(f"{covered.mean():.3f} ({plain.mean():.3f}) ± {width / 2:.4f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def measure(ns: vecstore.Namespace, dataset: sets.Dataset) -> None:
    """Recall by the engine and by the kept neighbours, on the same queries."""
    print("\n| options | kept neighbours | measured | interval | stored rows | CPU seconds |")
    print("|---|---|---|---|---|---|")
    settings: list[dict[str, Any]] = [{"nprobe": 1}, {"target_recall": 0.9}, {}, {"target_recall": 0.99}]
    for options in settings:
        hits = ns.search_batch(dataset.queries, **options).ids
        pairs = zip(hits.tolist(), dataset.gt[:, :10].tolist(), strict=True)
        kept = float(np.mean([len(set(a) & set(b)) / 10 for a, b in pairs]))
        began = time.process_time()
        found = ns.measure_recall(dataset.queries, **options)
        seconds = time.process_time() - began
        rows = ns.measure_recall(sample=1_000, seed=1, **options)
        print(
            f"| {options or 'defaults'} | {kept:.4f} | {found.recall:.4f} "
            f"| {found.low:.4f} to {found.high:.4f} | {rows.recall:.4f} | {seconds:.2f} |",
            flush=True,
        )


def disturb(folder: str, dataset: sets.Dataset, seconds: float) -> None:
    """Latency of single searches in turn, while a share of them is sampled and measured."""
    print("\n| share sampled | queries | CPU µs a search | p50 µs | p99 µs | p99.9 µs | measured |")
    print("|---|---|---|---|---|---|---|")
    for rate in (0.0, 0.01, 1.0, 0.0):
        with vecstore.connect(folder, maintenance="off", recall_sample_rate=rate) as db:
            ns = db.namespace("bench")
            for q in dataset.queries[:200]:
                ns.search(q)
            times, end = [], time.perf_counter() + seconds
            spent = time.thread_time()
            while time.perf_counter() < end:
                for q in dataset.queries:
                    began = time.perf_counter()
                    ns.search(q)
                    times.append(time.perf_counter() - began)
            cpu = 1e6 * (time.thread_time() - spent) / len(times)
            p50, p99, p999 = 1e6 * np.quantile(times, (0.5, 0.99, 0.999))
            told = ns.recall_estimate()
            text = "" if told.recall is None else f"{told.recall:.4f} of {told.queries}"
            print(
                f"| {rate:g} | {len(times):,} | {cpu:.1f} | {p50:.0f} | {p99:.0f} | {p999:.0f} | {text} |",
                flush=True,
            )


def main() -> None:
    """Print all three."""
    options = argparse.ArgumentParser(description="What measured recall costs, and its interval.")
    options.add_argument("--set", choices=SETS, default="sample")
    options.add_argument("--seconds", type=float, default=5.0, help="of each row of the last table")
    asked = options.parse_args()
    simulate()
    dataset = SETS[asked.set]()
    with tempfile.TemporaryDirectory() as folder:
        with vecstore.connect(folder, maintenance="off") as db:
            ns = db.create_namespace("bench", dim=dataset.base.shape[1], metric=dataset.metric)
            ns.insert(dataset.base, ids=np.arange(len(dataset.base), dtype=np.uint64))
            measure(ns, dataset)
        disturb(folder, dataset, asked.seconds)


if __name__ == "__main__":
    main()
