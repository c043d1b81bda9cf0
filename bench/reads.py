"""Searches in an order, aggregates and limits a group: time beside NumPy and a plain search, and recall.

    python -m bench.reads [--set glosses|sample|fashion] [--queries 100]

The first table is of a million rows with attributes, asked through the API, against NumPy over arrays in
memory: int64 values and int32 codes of strings, which the columns have to be read into first. The second is
of a set under ``limit_per_group``: recall of ten hits against an exact search that takes rows one by one, at
the default target, and time over the search without a limit. *Documents* are 20 rows that lie anywhere;
*topics* are the rows nearest one of 300 of them, so that groups lie together. Medians, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

import vecstore
from bench import sets
from vecstore.api import Namespace

N = 1_000_000
K = 10
ROUNDS = 9
WORDS = [f"word {i}" for i in range(20)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=("glosses", "sample", "fashion"), default="glosses")
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    with vecstore.connect("memory://", maintenance="off") as db:
        print(columns(db))
        print()
        data = getattr(sets, options.set)()
        print(groups(db, data, data.queries[: options.queries]))


# -- a million rows -------------------------------------------------------------------------


def columns(db: vecstore.Database) -> str:
    rng = np.random.default_rng(1)
    n = rng.permutation(N)
    f = rng.standard_normal(N)
    codes = rng.integers(len(WORDS), size=N).astype(np.int32)
    half = rng.random(N) < 0.5
    ns = db.create_namespace("columns", 4, "l2", small_part_threshold=0, list_rows=2_048)
    ns.insert(
        rng.standard_normal((N, 4)),
        ids=np.arange(N),
        attributes={"n": n, "f": f, "word": [WORDS[i] for i in codes.tolist()], "half": half},
    )
    cases: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "first 10 by an int": (
            lambda: ns.search(order_by=["n", "asc"], top_k=K).ids.tolist(),
            lambda: first(n),
        ),
        "first 10 by an int, of half": (
            lambda: ns.search(order_by=["n", "asc"], top_k=K, filter=["half", "Eq", True]).ids.tolist(),
            lambda: np.flatnonzero(half)[first(n[half])].tolist(),
        ),
        "first 10 by a string of 20": (
            lambda: ns.search(order_by=["word", "desc"], top_k=K).ids.tolist(),
            lambda: np.flatnonzero(codes == WORDS.index(max(WORDS)))[:K].tolist(),
        ),
        "count, sum, min, max of ints": (
            lambda: (
                ns.aggregate({"c": ["Count"], "s": ["Sum", "n"], "a": ["Min", "n"], "b": ["Max", "n"]}).values
            ),
            lambda: {"c": len(n), "s": int(n.sum()), "a": int(n.min()), "b": int(n.max())},
        ),
        "the same by a string of 20": (
            lambda: grouped(ns),
            lambda: by_word(n, codes),
        ),
        "mean of floats": (
            lambda: round(value(ns, ["Avg", "f"]), 9),
            lambda: round(float(f.mean()), 9),
        ),
        "distinct ints": (
            lambda: value(ns, ["CountDistinct", "n"]),
            lambda: len(np.unique(n)),
        ),
    }
    table = []
    for name, (ours, numpy) in cases.items():
        if ours() != numpy():
            raise SystemExit(f"{name}: {ours()} is not {numpy()}")
        took = timed([ours, numpy])
        table.append([name, took[0] * 1e3, took[1] * 1e3, took[0] / took[1]])
    return tabulate(table, ["a million rows", "ms", "NumPy ms", "ratio"], floatfmt=".2f", tablefmt="github")


def first(values: npt.NDArray[Any]) -> Any:
    """Of permutations, so that none are equal."""
    some = np.argpartition(values, K)[:K]
    return some[np.argsort(values[some])].tolist()


def value(ns: Namespace, asked: list[str]) -> Any:
    found = ns.aggregate({"x": asked}).values
    return None if found is None else found["x"]


def grouped(ns: Namespace) -> Any:
    asked = {"c": ["Count"], "s": ["Sum", "n"], "a": ["Min", "n"], "b": ["Max", "n"]}
    return ns.aggregate(asked, group_by=["word"]).groups


def by_word(n: npt.NDArray[np.int64], codes: npt.NDArray[np.int32]) -> list[dict[str, Any]]:
    """Sums in float64, which are exact of so few."""
    counts, sums = np.bincount(codes), np.bincount(codes, weights=n)
    least, most = np.full(len(WORDS), N), np.full(len(WORDS), -1)
    np.minimum.at(least, codes, n)
    np.maximum.at(most, codes, n)
    return [
        {
            "word": WORDS[i],
            "c": int(counts[i]),
            "s": int(sums[i]),
            "a": int(least[i]),
            "b": int(most[i]),
        }
        for i in sorted(range(len(WORDS)), key=WORDS.__getitem__)
    ]


# -- a limit a group ------------------------------------------------------------------------


def groups(db: vecstore.Database, data: sets.Dataset, queries: npt.NDArray[np.float32]) -> str:
    rng = np.random.default_rng(2)
    n = len(data.base)
    centres = data.base[rng.choice(n, size=300, replace=False)]
    attributes = {
        "document": rng.integers(n // 20, size=n),
        "topic": nearest_centre(data.base, centres, data.metric),
    }
    ns = db.create_namespace("groups", data.base.shape[1], data.metric)
    ns.insert(data.base, ids=np.arange(n), attributes=attributes)
    table = []
    for name, most in (("document", 1), ("document", 3), ("topic", 1), ("topic", 3)):
        of, recalls, searches, times = attributes[name], [], [], []
        for q in queries:
            hits = ns.search(q, top_k=K, limit_per_group=(name, most), debug=True)
            truth = exact(distances(data.base, q, data.metric), of, most)
            recalls.append(len(set(hits.ids.tolist()) & set(truth)) / K)
            searches.append((hits.debug or {})["searches"])
            limited, plain = timed(
                [
                    lambda q=q, name=name, most=most: ns.search(q, top_k=K, limit_per_group=(name, most)),
                    lambda q=q: ns.search(q, top_k=K),
                ]
            )
            times.append(limited / plain)
        table.append(
            [
                f"{most} a {name}",
                float(np.mean(recalls)),
                statistics.mean(searches),
                max(searches),
                statistics.median(times),
            ]
        )
    headers = [f"{data.name}, 10 hits, at most", "recall", "searches", "most", "time, over no limit"]
    return tabulate(table, headers, floatfmt=".3f", tablefmt="github")


def nearest_centre(
    base: npt.NDArray[np.float32], centres: npt.NDArray[np.float32], metric: str
) -> npt.NDArray[np.int64]:
    products = base @ centres.T
    if metric == "l2":
        products -= (centres**2).sum(axis=1) / 2
    return products.argmax(axis=1)


def distances(
    base: npt.NDArray[np.float32], q: npt.NDArray[np.float32], metric: str
) -> npt.NDArray[np.float32]:
    if metric == "l2":
        return ((base - q) ** 2).sum(axis=1)
    return -(base @ q) / np.linalg.norm(base, axis=1)


def exact(far: npt.NDArray[np.float32], of: npt.NDArray[np.int64], most: int) -> list[int]:
    counts: Counter[int] = Counter()
    found: list[int] = []
    for row in np.argsort(far, kind="stable").tolist():
        if counts[of[row]] < most:
            counts[of[row]] += 1
            found.append(row)
            if len(found) == K:
                break
    return found


def timed(asked: list[Callable[[], Any]]) -> list[float]:
    """The median time of each, in turn."""
    took: list[list[float]] = [[] for _ in asked]
    for _ in range(ROUNDS):
        for one, times in zip(asked, took, strict=True):
            began = time.perf_counter()
            one()
            times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in took]


if __name__ == "__main__":
    main()
