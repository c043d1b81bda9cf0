"""Recall and time of filtered queries, by how many rows match and how that has to do with the query.

    python -m bench.filters [--set glosses|fashion|sample|grown] [--queries 40] [--peers] [--into FILE]

Filters match a share of the rows: at random; the rows nearest the query; or rows beyond the median distance;
and by real attributes, those of the glosses and the labels of Fashion-MNIST. Recall is that of
min(10, matches) rows, at the default target.

Times are medians beside the unfiltered query. *Again* is a filter that was asked before in this epoch, in
turn with the unfiltered query, the same query each time. *First* is a filter that never was, on lists and
columns whose pages were verified before: it is parsed, bound, evaluated and planned; beside it is the
unfiltered query that is asked once (*once*), each after other queries, so that neither finds in the
processor's caches what it is about to read. A filter by a real attribute is made another each time by an
alternative that matches nothing.

With ``--peers`` the same queries go to other engines (`bench.filtered_peers`) in the same run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

import vecstore
from bench import sets
from bench.grow import grown
from vecstore.api import Namespace

SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
K = 10
ROUNDS = 5
CHUNK = 65_536
BATCH_BYTES = 1 << 29
SMALL_PART = 200_000
LOADERS = {"glosses": sets.glosses, "fashion": sets.fashion, "sample": sets.sample, "grown": grown}
HEADS = [
    "filter",
    "share",
    "matches",
    "recall",
    "again ×",
    "first ×",
    "rows scored",
    "of plain",
    "plain µs",
    "once µs",
]
FORMATS = ("", "g", ",", ".3f", ".2f", ".2f", ".0f", ".2f", ".0f", ".0f")
BETWEEN = 5  # other queries


@dataclass
class Cell:
    """What was measured of one kind of filter."""

    matches: list[int] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    once: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    scanned: list[int] = field(default_factory=list)
    plain_scanned: list[int] = field(default_factory=list)

    def line(self) -> list[float]:
        """Its figures, in the order of `HEADS`."""
        plain, once = statistics.median(self.plain), statistics.median(self.once)
        return [
            int(np.mean(self.matches)),
            float(np.mean(self.recalls)),
            statistics.median(self.again) / plain,
            statistics.median(self.first) / once,
            float(np.mean(self.scanned)),
            float(np.mean(self.scanned)) / float(np.mean(self.plain_scanned)),
            plain * 1e6,
            once * 1e6,
        ]


@dataclass(frozen=True, slots=True)
class Asked:
    """A filter, the rows that it matches, and one that matches the same and was never asked."""

    filter: list[Any]
    mask: npt.NDArray[np.bool_]
    fresh: list[Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=sorted(LOADERS), default="glosses")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--rows", type=int, help="so many rows of the set")
    parser.add_argument("--peers", action="store_true", help="other engines beside")
    parser.add_argument("--into", type=Path, help="a file that the tables are added to")
    options = parser.parse_args()
    data = LOADERS[options.set]()
    base, queries = data.base[: options.rows], data.queries[: options.queries]
    real = real_of(options.set, len(base))
    distances = _distances(base, queries, data.metric)
    columns = {"r": np.random.default_rng(5).permutation(len(base)), **real}
    for i, row in enumerate(distances):
        rank = np.empty(len(base), dtype=np.int64)
        rank[np.argsort(row, kind="stable")] = np.arange(len(base))
        columns[f"d{i}"] = rank
    with (
        tempfile.TemporaryDirectory() as folder,
        vecstore.connect(f"file://{folder}/db", maintenance="off") as db,
    ):
        ns = db.create_namespace("filters", base.shape[1], data.metric)
        fill(ns, base, columns)
        size = ns.stats().bytes / len(base)
        title = f"{options.set}: {len(base):,} rows, {len(queries)} queries, {size:.0f} bytes a row"
        print(title)
        warm(ns, queries, columns)
        others = []
        if options.peers:
            from bench.filtered_peers import Peers  # the peers' packages are an extra

            others = [Peers(base, data.metric, columns, Path(folder))]
        rows, beside = [], []
        for kind, share, filters in kinds(columns, len(base), len(queries), real):
            rows.append([kind, share, *_measure(ns, queries, distances, filters).line()])
            for peers in others:
                beside += peers.measure(f"{kind} {share:.2g}", ns, queries, distances, filters)
    tables = [tabulate(rows, HEADS, tablefmt="pipe", floatfmt=FORMATS)]
    print(tables[0])
    print(f"least recall {min(row[3] for row in rows):.3f}")
    if beside:
        heads = ["filter", "engine", "setting", "recall", "µs", "our recall", "our µs", "times ours"]
        formats = ("", "", "", ".3f", ",.0f", ".3f", ",.0f", ".1f")
        tables.append(tabulate(beside, heads, tablefmt="pipe", floatfmt=formats))
        print(tables[1])
    if options.into is not None:
        options.into.parent.mkdir(parents=True, exist_ok=True)
        with options.into.open("a") as file:
            file.write("\n\n".join([f"## {title}", *tables]) + "\n\n")


def fill(ns: Namespace, base: npt.NDArray[np.float32], columns: Mapping[str, Any]) -> None:
    """All rows in one part; where they are too many bytes for one insert, by a compaction."""
    step = max(1, BATCH_BYTES // base[0].nbytes)
    starts = range(0, len(base), step)
    if len(starts) > 1:
        ns.update(small_part_threshold=1 << 32)  # brought in as they are, trained when they are merged
    for start in starts:
        some = range(start, min(len(base), start + step))
        ns.insert(
            base[some[0] : some[-1] + 1],
            ids=np.arange(some[0], some[-1] + 1),
            attributes={name: values[some[0] : some[-1] + 1] for name, values in columns.items()},
        )
    if len(starts) > 1:
        ns.update(small_part_threshold=SMALL_PART)
        ns.compact()


def warm(ns: Namespace, queries: npt.NDArray[np.float32], columns: Mapping[str, Any]) -> None:
    """Have all lists, vectors and columns read and verified once, and what a process does once done."""
    for q in queries:
        ns.search(q, K)
    ns.search(queries[0], K, probe_fraction=1.0)
    ns.measure_recall(queries[:2])
    for name, values in columns.items():
        one = values[0]
        if isinstance(one, list):
            some = [x for value in values[:2_000] for x in value]
            ns.search(queries[0], K, filter=[name, "ContainsAny", some])
        elif isinstance(one, str):
            ns.search(queries[0], K, filter=[name, "Glob", "*e*"])
        else:
            ns.search(queries[0], K, filter=[name, "Gt", int(np.min(values))])
            ns.search(queries[0], K, filter=[name, "Lt", int(np.min(values)) + 2])


def kinds(
    columns: Mapping[str, Any], n: int, queries: int, real: Mapping[str, list[Any]]
) -> Iterator[tuple[str, float, list[Asked]]]:
    """Kinds of filters, each with one a query."""
    r = columns["r"]

    def asked(f: list[Any], mask: npt.NDArray[np.bool_]) -> Asked:
        return Asked(f, mask, f)

    for share in SHARES:
        width = max(1, round(share * n))
        starts = [(7919 * i) % max(1, n - width) for i in range(queries)]
        found = [
            asked(["And", [["r", "Gte", s], ["r", "Lt", s + width]]], (r >= s) & (r < s + width))
            for s in starts
        ]
        yield "random", share, found
    for share in SHARES:
        width = max(1, round(share * n))
        found = [asked([f"d{i}", "Lt", width], columns[f"d{i}"] < width) for i in range(queries)]
        yield "nearest", share, found
    for share in SHARES:
        most = min(n, 2 * max(1, round(share * n)))
        found = [
            asked(
                ["And", [[f"d{i}", "Gte", n // 2], ["r", "Lt", most]]],
                (columns[f"d{i}"] >= n // 2) & (r < most),
            )
            for i in range(queries)
        ]
        yield "beyond the median", share, found
    for name, f in _REAL:
        if name not in real:
            continue
        mask = np.array([_matches(f, value) for value in real[name]])
        none = ["r", "Eq", n]
        found = [Asked(f, mask, ["Or", [f, [*none[:2], n + i]]]) for i in range(queries)]
        yield f"{f[0]} {f[1]} {f[2]}", float(mask.mean()), found


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
    ("label", ["label", "Eq", 0]),
    ("label", ["label", "Eq", 7]),
    ("label", ["label", "Gte", 5]),
]


def _matches(f: list[Any], value: Any) -> bool:
    if f[1] == "Eq":
        return bool(value == f[2])
    if f[1] == "Glob":
        return bool(value.startswith(f[2][:-1]))
    return bool(value >= f[2] if f[1] == "Gte" else value < f[2])


def _measure(
    ns: Namespace, queries: npt.NDArray[np.float32], distances: npt.NDArray[np.float32], filters: list[Asked]
) -> Cell:
    cell = Cell()
    for i, (q, row, asked) in enumerate(zip(queries, distances, filters, strict=True)):
        wanted = min(K, int(asked.mask.sum()))
        cell.matches.append(int(asked.mask.sum()))
        others = [queries[(i + 1 + j) % len(queries)] for j in range(BETWEEN)]
        for times, f in ((cell.once, None), (cell.first, asked.fresh)):
            for other in others:
                seconds(ns, other, None)
            times.append(seconds(ns, q, f))
        seconds(ns, q, asked.filter)
        in_turn = [(seconds(ns, q, None), seconds(ns, q, asked.filter)) for _ in range(ROUNDS)]
        cell.plain.append(statistics.median(plain for plain, _ in in_turn))
        cell.again.append(statistics.median(again for _, again in in_turn))
        hits = ns.search(q, K, filter=asked.filter, debug=True)
        if len(hits) != wanted:
            raise SystemExit(f"{len(hits)} hits of {wanted} for {asked.filter}")
        if wanted:
            cell.recalls.append(recall(hits.ids.astype(np.int64), row, asked.mask))
        cell.scanned.append((hits.debug or {})["rows_scanned"])
        cell.plain_scanned.append((ns.search(q, K, debug=True).debug or {})["rows_scanned"])
    return cell


def recall(found: npt.NDArray[np.int64], row: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> float:
    """Share of the nearest min(K, matches) that were found, ties counted as found."""
    wanted = min(K, int(mask.sum()))
    if not wanted:
        return 1.0
    last = np.partition(row[mask], wanted - 1)[wanted - 1]
    good = mask[found] & (row[found] <= last * (1 + 1e-6) + 1e-6)
    return float(min(wanted, int(good.sum()))) / wanted


def seconds(ns: Namespace, q: npt.NDArray[np.float32], f: list[Any] | None) -> float:
    """Of one search."""
    began = time.perf_counter()
    ns.search(q, K, filter=f)
    return time.perf_counter() - began


def _distances(
    base: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], metric: str
) -> npt.NDArray[np.float32]:
    """f32[M, N] in the order of the metric, worked out in float64."""
    asked = queries.astype(np.float64)
    if metric == "cosine":
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    out = np.empty((len(queries), len(base)), dtype=np.float32)
    for start in range(0, len(base), CHUNK):
        rows = base[start : start + CHUNK].astype(np.float64)
        squares = np.einsum("ij,ij->i", rows, rows)
        inner = asked @ rows.T
        if metric == "cosine":
            out[:, start : start + CHUNK] = 1.0 - inner / np.sqrt(squares)
        else:
            own = np.einsum("ij,ij->i", asked, asked)[:, None]
            out[:, start : start + CHUNK] = squares - 2.0 * inner + own
    return out


def real_of(name: str, n: int) -> dict[str, list[Any]]:
    """The attributes that come with a set."""
    if name == "glosses":
        return real_attributes(n)
    if name == "fashion":
        folder = Path(os.environ.get("VECSTORE_BENCH_FASHION", "/usr/share/datasets/fashion-mnist"))
        with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
            return {"label": np.frombuffer(file.read(), dtype=np.uint8, offset=8)[:n].tolist()}
    return {}


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
