"""Plots of the report, each as PNG and SVG: recall against queries a second, builds, memory, growth."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench import peers
from bench.compare import Comparison
from bench.measure import best_at, frontier
from bench.peers.ours import ENGINE

COLOURS = {engine: f"C{i % 10}" for i, engine in enumerate(peers.PEERS)} | {ENGINE: "black"}
LEAST_RECALL = 0.8


def recall_qps(comparison: Comparison, into: Path) -> None:
    """Each engine's frontier; the vertical axis logarithmic."""
    figure, axes = plt.subplots(figsize=(8, 5.5))
    for engine in comparison.engines:
        points = [point for point in frontier(comparison.of(engine)) if point.recall >= LEAST_RECALL]
        axes.plot(
            [point.recall for point in points],
            [point.single_qps for point in points],
            marker="o",
            markersize=3,
            linewidth=2.2 if engine == ENGINE else 1.2,
            color=COLOURS[engine],
            label=engine,
        )
    axes.set(
        yscale="log",
        xlabel="recall@10",
        ylabel="queries a second, one thread, one query a call",
        title=f"{comparison.name}: {comparison.rows:,} × {comparison.dim}, {comparison.metric}",
        xlim=(LEAST_RECALL, 1.002),
    )
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=8)
    _save(figure, into / f"{comparison.name}-recall-qps")


def bars(comparison: Comparison, into: Path) -> None:
    """Seconds of the build and bytes a row, of the index that is best at .95."""
    built = {}
    for engine in comparison.engines:
        best = best_at(comparison.of(engine), 0.95)
        if best is not None:
            built[engine] = next(b for b in comparison.built if (b.engine, b.label) == (engine, best.label))
    for what, unit, values in (
        ("build", "seconds of the build, one thread", {e: b.seconds for e, b in built.items()}),
        ("memory", "bytes a row", {e: b.bytes / comparison.rows for e, b in built.items()}),
    ):
        figure, axes = plt.subplots(figsize=(8, 4))
        names = sorted(values, key=values.__getitem__, reverse=True)
        axes.barh(names, [values[name] for name in names], color=[COLOURS[name] for name in names])
        axes.set(xlabel=unit, title=f"{comparison.name}: {comparison.rows:,} × {comparison.dim}")
        axes.grid(axis="x", alpha=0.25)
        _save(figure, into / f"{comparison.name}-{what}")


def growth(rows: Iterable[dict[str, Any]], into: Path) -> None:
    """Seconds a query at recall .95 against the rows, from what row 8 recorded."""
    for one in rows:
        if one["row"] == 8 and "seconds" in one["what"]:
            pairs = re.findall(r"([\d,]+): (\d+) µs", one["detail"])
            sizes = [int(size.replace(",", "")) for size, _ in pairs]
            figure, axes = plt.subplots(figsize=(6, 4.5))
            axes.loglog(sizes, [float(time) for _, time in pairs], marker="o", color="black")
            axes.set(
                xlabel="rows",
                ylabel="µs a query at recall@10 ≥ .95",
                title=f"growth: slope {one['value']:.2f}",
            )
            axes.grid(which="both", alpha=0.25)
            _save(figure, into / "growth")


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    for kind in ("png", "svg"):
        figure.savefig(
            path.with_suffix(f".{kind}"), dpi=130, metadata={"Date": None} if kind == "svg" else None
        )
    plt.close(figure)
