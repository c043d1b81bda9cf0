"""What was measured, as JSON, as tables in Markdown, and as plots: ``python -m bench.report``."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from bench import plots, sets
from bench.compare import Built, Comparison
from bench.measure import MARKS, Point, best_at

if TYPE_CHECKING:
    from bench.rows import Verdict

PACKAGES = (
    "faiss-cpu", "hnswlib", "usearch", "rabitqlib", "pyglass-portable", "qdrant-edge-py", "lancedb", "zvec",
)  # fmt: skip


def keep(into: Path, verdicts: Iterable[Verdict], comparisons: Iterable[Comparison], clock: str) -> None:
    """Add verdicts to ``rows.json``, in place of older ones of the same figure; write comparisons."""
    into.mkdir(parents=True, exist_ok=True)
    path = into / "rows.json"
    known = {_key(one): one for one in (json.loads(path.read_text()) if path.exists() else [])}
    for verdict in verdicts:
        one = asdict(verdict) | {"clock": clock, "machine": machine()}
        known[_key(one)] = one
    path.write_text(json.dumps(sorted(known.values(), key=lambda one: one["row"]), indent=1) + "\n")
    for comparison in comparisons:
        told = {"machine": machine(), "clock": clock, "versions": versions(), **comparison.json()}
        (into / f"{comparison.name}.json").write_text(json.dumps(told, indent=1) + "\n")


def write(into: Path) -> None:
    """Tables and plots of all that is recorded there."""
    comparisons = [
        read(path) for path in sorted(into.glob("*.json")) if path.name not in ("rows.json", "grown.json")
    ]
    rows = json.loads((into / "rows.json").read_text()) if (into / "rows.json").exists() else []
    parts = ["# Benchmark figures", ""]
    if rows:
        parts += [f"Machine of the last run: {rows[-1]['machine']}.", "", "## Rows", "", verdicts(rows), ""]
    for comparison in comparisons:
        parts += [
            f"## {comparison.name}: {comparison.rows:,} × {comparison.dim}, {comparison.metric}", "",
            speeds(comparison), "",
        ]  # fmt: skip
        parts += [f"![recall and queries a second]({comparison.name}-recall-qps.svg)", ""]
        plots.recall_qps(comparison, into)
        plots.bars(comparison, into)
    plots.growth(rows, into)
    (into / "report.md").write_text("\n".join(parts))


def verdicts(rows: Iterable[dict[str, Any]]) -> str:
    """The table of rows in Markdown."""
    word = {None: "", True: "PASS", False: "FAIL"}
    lines = [
        [one["row"], one["set"], one["what"], "–" if one["value"] is None else f"{one['value']:.3f}",
         one["floor"], word[one["passed"]], one["detail"].replace("|", "\\|")]
        for one in rows
    ]  # fmt: skip
    header = ["row", "set", "what", "figure", "floor", "", "how"]
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True)


def speeds(comparison: Comparison) -> str:
    """Each engine's best at each mark, one query a call and as a batch; its build and its bytes."""
    lines = []
    for engine in comparison.engines:
        own = comparison.of(engine)
        line = [engine]
        for mark in MARKS:
            one, many = best_at(own, mark), best_at(own, mark, batch=True)
            line.append("–" if one is None else f"{one.single_qps:,.0f}")
            line.append("–" if many is None or not many.batch_qps else f"{many.batch_qps:,.0f}")
        best = best_at(own, 0.95) or max(own, key=lambda point: point.recall)
        (built,) = (b for b in comparison.built if (b.engine, b.label) == (engine, best.label))
        line += [f"{built.seconds:.1f}", f"{built.bytes / comparison.rows:,.0f}", str(len(own)), best.name]
        lines.append(line)
    header = ["engine"]
    for mark in MARKS:
        header += [f"{mark:.2f}", "batch"]
    header += ["build s", "bytes a row", "settings", "at .95 by"]
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True)


def read(path: Path) -> Comparison:
    """A comparison as `keep` wrote it."""
    told = json.loads(path.read_text())
    points = [Point(**point) for point in told["points"]]
    built = [Built(**one) for one in told["built"]]
    return Comparison(told["name"], told["metric"], told["rows"], told["dim"], told["queries"], points, built)


def machine() -> str:
    """The processor's own name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    out = {}
    for package in PACKAGES:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            continue
    return out


def _key(one: dict[str, Any]) -> tuple[int, str, str]:
    return one["row"], one["set"], one["what"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tables and plots of what was measured.")
    parser.add_argument("--into", type=Path, default=sets.OUT / "bench", help="the folder of the figures")
    write(parser.parse_args().into)
