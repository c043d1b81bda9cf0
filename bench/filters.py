"""Recall and time of filtered queries, by how many rows match and how that has to do with the query.

    python -m bench.filters [--set glosses|sample|fashion] [--queries 50] [--rows N]

Filters match a share of the rows: at random; the rows nearest the query; or rows beyond the median
distance; and, on glosses, by their real attributes. Recall is that of min(10, matches) rows, at the default
target.
Times are medians beside the unfiltered query, asked in turn with it: *again* is a filter that was asked
before in this epoch, *first* one that never was, so that it is parsed, evaluated and planned.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

import vecstore
from bench import sets
from vecstore.api import Namespace

SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
K = 10


@dataclass
class Cell:
    """What was measured of one kind of filter."""

    matches: list[int] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    scanned: list[int] = field(default_factory=list)
    plain_scanned: list[int] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=("glosses", "sample", "fashion"), default="glosses")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--rows", type=int, help="so many rows of the set")
    options = parser.parse_args()
    data = getattr(sets, options.set)()
    base = data.base[: options.rows]
    queries = data.queries[: options.queries]
    real = real_attributes(len(base)) if options.set == "glosses" else {}
    distances = _distances(base, queries, data.metric)
    rng = np.random.default_rng(5)
    columns: dict[str, Any] = {"r": rng.permutation(len(base)), **real}
    for i, row in enumerate(distances):
        rank = np.empty(len(base), dtype=np.int64)
        rank[np.argsort(row, kind="stable")] = np.arange(len(base))
        columns[f"d{i}"] = rank
    with vecstore.connect("memory://filters", maintenance="off") as db:
        ns = db.create_namespace("filters", base.shape[1], data.metric)
        ns.insert(base, ids=np.arange(len(base)), attributes=columns)
        size = ns.stats().bytes / len(base)
        print(f"{options.set}: {len(base):,} rows, {len(queries)} queries, {size:.0f} bytes a row")
        rows = []
        for kind, share, filters in _kinds(columns, len(base), len(queries), real):
            cell = _measure(ns, queries, distances, filters)
            plain = statistics.median(cell.plain)
            rows.append(
                [
                    kind,
                    share,
                    int(np.mean(cell.matches)),
                    float(np.mean(cell.recalls)),
                    statistics.median(cell.again) / plain,
                    statistics.median(cell.first) / plain,
                    float(np.mean(cell.scanned)),
                    float(np.mean(cell.scanned)) / float(np.mean(cell.plain_scanned)),
                    plain * 1e6,
                ]
            )
        heads = [
            "filter",
            "share",
            "matches",
            "recall",
            "again ×",
            "first ×",
            "rows scored",
            "of plain",
            "plain µs",
        ]
        print(tabulate(rows, heads, floatfmt=("", "g", ",", ".3f", ".2f", ".2f", ".0f", ".2f", ".0f")))
        print(f"least recall {min(row[3] for row in rows):.3f}")


Asked = list[tuple[list[Any], npt.NDArray[np.bool_]]]


def _kinds(
    columns: dict[str, Any], n: int, queries: int, real: dict[str, list[Any]]
) -> Iterator[tuple[str, float, Asked]]:
    """Kinds of filters, each with one a query and the rows that it matches."""
    r = columns["r"]
    for share in SHARES:
        width = max(1, round(share * n))
        starts = [(7919 * i) % max(1, n - width) for i in range(queries)]
        yield (
            "random",
            share,
            [
                (["And", [["r", "Gte", s], ["r", "Lt", s + width]]], (r >= s) & (r < s + width))
                for s in starts
            ],
        )
    for share in SHARES:
        width = max(1, round(share * n))
        yield "nearest", share, [([f"d{i}", "Lt", width], columns[f"d{i}"] < width) for i in range(queries)]
    for share in SHARES:
        width = max(1, round(share * n))
        yield (
            "beyond the median",
            share,
            [
                (
                    ["And", [[f"d{i}", "Gte", n // 2], ["r", "Lt", min(n, 2 * width)]]],
                    (columns[f"d{i}"] >= n // 2) & (r < min(n, 2 * width)),
                )
                for i in range(queries)
            ],
        )
    for name, f in _REAL:
        if name in real:
            mask = np.array([_matches(f, value) for value in real[name]])
            yield f"{f[0]} {f[1]} {f[2]}", float(mask.mean()), [(f, mask)] * queries


_REAL = [
    ("pos", ["pos", "Eq", "noun"]),
    ("pos", ["pos", "Eq", "verb"]),
    ("pos", ["pos", "Eq", "adv"]),
    ("lex", ["lex", "Eq", "noun.artifact"]),
    ("lex", ["lex", "Eq", "noun.food"]),
    ("lex", ["lex", "Glob", "verb.*"]),
    ("n_lemmas", ["n_lemmas", "Gte", 4]),
    ("n_lemmas", ["n_lemmas", "Gte", 9]),
    ("offset", ["offset", "Lt", 1_000_000]),
]


def _matches(f: list[Any], value: Any) -> bool:
    if f[1] == "Eq":
        return bool(value == f[2])
    if f[1] == "Glob":
        return bool(value.startswith(f[2][:-1]))
    return bool(value >= f[2] if f[1] == "Gte" else value < f[2])


def _measure(
    ns: Namespace, queries: npt.NDArray[np.float32], distances: npt.NDArray[np.float32], filters: Asked
) -> Cell:
    cell = Cell()
    for q in queries:  # whatever is read and planned once
        ns.search(q, K)
    for q, row, (f, mask) in zip(queries, distances, filters, strict=True):
        wanted = min(K, int(mask.sum()))
        cell.matches.append(int(mask.sum()))
        cell.first.append(_seconds(ns, q, f))
        times = [(_seconds(ns, q, None), _seconds(ns, q, f)) for _ in range(5)]
        cell.plain.append(statistics.median(plain for plain, _ in times))
        cell.again.append(statistics.median(again for _, again in times))
        hits = ns.search(q, K, filter=f, debug=True)
        if len(hits) != wanted:
            raise SystemExit(f"{len(hits)} hits of {wanted} for {f}")
        if wanted:
            last = np.partition(row[mask], wanted - 1)[wanted - 1]
            found = row[hits.ids.astype(np.int64)]
            cell.recalls.append(float((found <= last * (1 + 1e-6) + 1e-6).sum()) / wanted)
        cell.scanned.append((hits.debug or {})["rows_scanned"])
        cell.plain_scanned.append((ns.search(q, K, debug=True).debug or {})["rows_scanned"])
    return cell


def _seconds(ns: Namespace, q: npt.NDArray[np.float32], f: list[Any] | None) -> float:
    began = time.perf_counter()
    ns.search(q, K, filter=f)
    return time.perf_counter() - began


def _distances(
    base: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], metric: str
) -> npt.NDArray[np.float32]:
    """f32[M, N] in the order of the metric."""
    if metric == "cosine":
        unit = base / np.linalg.norm(base, axis=1, keepdims=True)
        asked = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        return np.asarray(1.0 - asked @ unit.T, dtype=np.float32)
    norms = np.einsum("ij,ij->i", base, base) + np.einsum("ij,ij->i", queries, queries)[:, None]
    return np.asarray(norms - 2.0 * (queries @ base.T), dtype=np.float32)


def real_attributes(n: int) -> dict[str, list[Any]]:
    """The attributes of the glosses, which come beside their vectors."""
    folder = Path(os.environ.get("VECSTORE_BENCH_DATA", sets.ROOT.parent / "shared" / "data"))
    path = folder / "glosses384_base_rows.jsonl.gz"
    if not path.exists():
        raise sets.DataMissing(f"{path} is missing. Set VECSTORE_BENCH_DATA to the folder that holds the set")
    with gzip.open(path) as file:
        rows = [json.loads(line) for line in file][:n]
    return {key: [row[key] for row in rows] for key in ("pos", "lex", "lemmas", "n_lemmas", "offset")}


if __name__ == "__main__":
    main()
