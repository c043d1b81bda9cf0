"""Recall of the whole engine on real data: ``make eval``, or ``python -m bench.eval --quick``.

Each set is inserted in ten parts, measured, compacted, and measured again. No query was seen by the
engine before: calibration holds out rows of its own. A cell of the table passes or fails by the
limit that stands in its column:

- ``default``: recall@10 with no option set is at least .95; once compacted, at most 15 % of the rows
  are scanned for it (of the shipped sample, which is small, as many as it takes).
- ``exact``: with every list probed, fp32 re-ranking and a wide pool, recall@10 is at least .999.
- ``target t``: mean recall@10 is at least t - .005 - 2 standard errors; and ``cost``, the rows
  scanned over those that the cheapest fixed ``nprobe`` of the same recall scans, is at most 1.5.

Under the dot product only ``default`` is judged. Exit status 1 if a cell fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

import vecstore
from bench import sets
from vecstore.api import Namespace

K = 10
PARTS = 10
CHUNK = 250  # queries a call
TARGETS = (0.90, 0.95, 0.99)
LEAST_DEFAULT = 0.95
MOST_SCANNED = 0.15
LARGE = 50_000  # rows from which the share is judged: a small set needs a larger one
LEAST_EXACT = 0.999
SLACK = 0.005
MOST_COST = 1.5
MISSED_SHARE = 0.1  # candidates a hit are at least this over the recall that a target lets go
FINE = 1.02  # the sweep of nprobe is refined until neighbours are so close, or consecutive


@dataclass(frozen=True, slots=True)
class Measured:
    """Recall and rows scanned of one way to search, means over all queries."""

    recall: float
    error: float
    rows: float
    share: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of the table beside its limit."""

    text: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.text} {'PASS' if self.passed else 'FAIL'}"


@dataclass(slots=True)
class Line:
    """One namespace in one form: what was measured, and how that is judged."""

    name: str
    form: str
    run: int
    queries: int
    cells: dict[str, Cell] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


class Sweep:
    """Recall and rows of fixed ``nprobe``, measured where they are asked for."""

    def __init__(self, measure: Callable[[int], Measured], most: int) -> None:
        self._measure = measure
        self._most = most
        self.points: dict[int, Measured] = {}

    def rows_for(self, recall: float) -> float:
        """Rows that the cheapest ``nprobe`` of this recall scans, interpolated between two settings.

        Interpolation is in our disfavour: a setting in between does not exist if they are consecutive.
        """
        low, high = 1, 1
        while self._at(high).recall < recall:
            if high == self._most:
                return self._at(high).rows
            low, high = high, min(self._most, max(high + 1, round(high * 1.25)))
        if high == low:
            return self._at(high).rows
        while high - low > 1 and high / low > FINE:
            middle = (low + high) // 2
            low, high = (middle, high) if self._at(middle).recall < recall else (low, middle)
        first, last = self._at(low), self._at(high)
        return first.rows + (last.rows - first.rows) * (recall - first.recall) / (last.recall - first.recall)

    def _at(self, nprobe: int) -> Measured:
        if nprobe not in self.points:
            self.points[nprobe] = self._measure(nprobe)
        return self.points[nprobe]


def evaluate(dataset: sets.Dataset, run: int) -> Iterator[Line]:
    """Insert a set in ten parts and judge it, then compact it and judge it again."""
    with tempfile.TemporaryDirectory(prefix="vecstore-eval-") as folder:
        db = vecstore.connect(folder, maintenance="off")
        ns = db.create_namespace("eval", dim=dataset.base.shape[1], metric=dataset.metric)
        start = time.perf_counter()
        for rows in np.array_split(np.arange(len(dataset.base)), PARTS):
            ns.insert(dataset.base[rows], ids=rows.astype(np.uint64))
        seconds = time.perf_counter() - start
        yield judge(dataset, ns, f"{PARTS} parts", run, seconds)
        start = time.perf_counter()
        ns.compact()
        seconds = time.perf_counter() - start
        yield judge(dataset, ns, "compacted", run, seconds)
        db.close()


def judge(dataset: sets.Dataset, ns: Namespace, form: str, run: int, seconds: float) -> Line:
    """Measure one form of a namespace by every column of the table."""
    line = Line(dataset.name, form, run, len(dataset.held_out))
    line.figures = {"seconds": seconds, "parts": ns.stats().parts, "bytes": ns.stats().bytes}

    found = measure(dataset, ns)
    judged = form == "compacted" and dataset.metric != "dot" and len(dataset.base) >= LARGE
    fits = not judged or found.share <= MOST_SCANNED
    line.cells["default"] = Cell(
        f"{found.recall:.4f}, {100 * found.share:.1f} %", found.recall >= LEAST_DEFAULT and fits
    )
    line.figures["default"] = asdict(found)
    if dataset.metric == "dot":
        return line

    exact = measure(dataset, ns, probe_fraction=1.0, rerank_precision="fp32", rerank_scale=50.0)
    line.cells["exact"] = Cell(f"{exact.recall:.4f}", exact.recall >= LEAST_EXACT)
    line.figures["exact"] = asdict(exact)

    parts = ns.search(dataset.held_out[0], debug=True).debug["parts"]
    most = max(part["lists"] for part in parts)
    sweeps: dict[float, Sweep] = {}
    for target in TARGETS:
        # As many candidates as the engine gives itself for this target, or the comparison would favour it.
        scale = max(ns.stats().defaults["rerank_scale"], MISSED_SHARE / (1.0 - target))
        fixed = partial(measure, dataset, ns, rerank_scale=scale)
        sweep = sweeps.setdefault(scale, Sweep(lambda nprobe, fixed=fixed: fixed(nprobe=nprobe), most))
        found = measure(dataset, ns, target_recall=target)
        bound = target - SLACK - 2 * found.error
        cost = found.rows / sweep.rows_for(found.recall)
        line.cells[f"target {target:.2f}"] = Cell(
            f"{found.recall:.4f} ± {found.error:.4f}, {100 * found.share:.1f} %", found.recall >= bound
        )
        line.cells[f"cost {target:.2f}"] = Cell(f"{cost:.2f}", cost <= MOST_COST)
        line.figures[f"target {target:.2f}"] = asdict(found) | {"bound": bound, "cost": cost}
    line.figures["sweeps"] = {
        scale: {nprobe: asdict(point) for nprobe, point in sorted(sweep.points.items())}
        for scale, sweep in sweeps.items()
    }
    return line


def measure(dataset: sets.Dataset, ns: Namespace, **options: Any) -> Measured:
    """Ask every held-out query."""
    recalls, scanned = [], []
    for start in range(0, len(dataset.held_out), CHUNK):
        queries = dataset.held_out[start : start + CHUNK]
        hits = ns.search_batch(queries, top_k=K, debug=True, **options)
        exact = dataset.held_out_gt[start : start + CHUNK, :K]
        same = hits.ids[:, :, None].astype(np.int64) == exact[:, None, :]
        recalls.append(same.any(axis=1).mean(axis=1))
        scanned += [debug["rows_scanned"] for debug in hits.debug or ()]
    recall = np.concatenate(recalls)
    rows = float(np.mean(scanned))
    return Measured(
        float(recall.mean()),
        float(recall.std(ddof=1) / np.sqrt(len(recall))),
        rows,
        rows / len(dataset.base),
    )


def table(lines: list[Line]) -> str:
    """The table in Markdown."""
    columns = ["default", "exact"]
    for target in TARGETS:
        columns += [f"target {target:.2f}", f"cost {target:.2f}"]
    limits = {
        "default": f"default (≥ {LEAST_DEFAULT}, compacted ≤ {100 * MOST_SCANNED:.0f} % rows)",
        "exact": f"exact (≥ {LEAST_EXACT})",
    } | {name: f"{name} (≤ {MOST_COST})" for name in columns if name.startswith("cost")}
    out = [
        "| set | form | run | queries | " + " | ".join(limits.get(name, name) for name in columns) + " |",
        "|" + "---|" * (4 + len(columns)),
    ]
    for line in lines:
        cells = [str(line.cells.get(name, "")) for name in columns]
        out.append(f"| {line.name} | {line.form} | {line.run} | {line.queries:,} | {' | '.join(cells)} |")
    return "\n".join(out) + "\n"


def load(quick: bool) -> list[sets.Dataset]:
    """The sets to measure; the shipped sample stands in for those that this machine lacks."""
    if quick:
        return [sets.sample(), sets.scaled_sample()]
    out: list[sets.Dataset] = []
    for wanted, instead in (
        (sets.glosses, sets.sample),
        (sets.fashion, None),
        (sets.scaled_glosses, sets.scaled_sample),
    ):
        try:
            out.append(wanted())
        except sets.DataMissing as missing:
            print(f"{missing}{' The shipped sample stands in.' if instead else ''}", file=sys.stderr)
            if instead is not None:
                out.append(instead())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall on the benchmark sets, judged.")
    parser.add_argument("--quick", action="store_true", help="the shipped sample only")
    parser.add_argument(
        "--repeat", type=int, default=1, help="namespaces a set, each with a rotation of its own"
    )
    parser.add_argument("--set", action="append", help="only sets of these names")
    args = parser.parse_args()
    lines: list[Line] = []
    for dataset in load(args.quick):
        if args.set and dataset.name not in args.set:
            continue
        for run in range(1, args.repeat + 1):
            for line in evaluate(dataset, run):
                lines.append(line)
                verdicts = "; ".join(f"{name}: {cell}" for name, cell in line.cells.items())
                print(f"{line.name}, {line.form}, run {run}: {verdicts}", flush=True)
                keep(lines, "quick-eval" if args.quick else "eval")
    print("\n" + table(lines), end="")
    failed = sum(not cell.passed for line in lines for cell in line.cells.values())
    print(f"\n{failed} cells fail" if failed else "\nall cells pass")
    sys.exit(1 if failed or not lines else 0)


def keep(lines: list[Line], name: str) -> None:
    """Write the table and all figures to ``out/``."""
    sets.OUT.mkdir(exist_ok=True)
    (sets.OUT / f"{name}.md").write_text(table(lines))
    (sets.OUT / f"{name}.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")


if __name__ == "__main__":
    main()
