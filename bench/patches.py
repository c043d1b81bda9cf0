"""What patches cost beside upserts of the same rows, and what they do to searches: `python -m bench.patches`.

The glosses with their attributes, in a directory. In turn, each on a fresh copy of the same namespace: some
rows, drawn at random, get another value of one attribute by a patch, and the same rows are upserted with
their vectors and all their attributes. Told are the seconds of processor of both, the bytes of parts that
they wrote, and of a patched namespace recall@10 and the rows that searches score, beside those before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

import vecstore
from bench import sets
from bench.filters import real_attributes
from bench.measure import recall_at

SHARES = (0.0, 0.01, 0.1, 1.0)  # of the rows; at least ten
QUERIES = 300


def written(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*.part"))


def searched(ns: Any, dataset: sets.Dataset) -> tuple[float, float]:
    """Recall at the default target, and rows scored."""
    found = [ns.search(q, debug=True) for q in dataset.queries[:QUERIES]]
    scored = statistics.mean(hits.debug["rows_scanned"] for hits in found)
    return recall_at([hits.ids.tolist() for hits in found], dataset.gt[:QUERIES, :10], 10), scored


def measure(
    share: float, rounds: int, dataset: sets.Dataset, attributes: dict[str, list[Any]], filled: Path
) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    n = len(dataset.base)
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        rows = np.sort(rng.choice(n, size=max(10, round(share * n)), replace=False))
        for way in ("patch", "upsert"):
            with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
                root = Path(folder) / "store"
                shutil.copytree(filled, root)
                with vecstore.connect(str(root), maintenance="off") as db:
                    ns = db.namespace("docs")
                    ns.search(dataset.queries[0])
                    size, began = written(root), time.process_time()
                    if way == "patch":
                        done = ns.patch(rows, {"n_lemmas": np.full(len(rows), 99)}).patched
                    else:
                        some = {name: [values[i] for i in rows] for name, values in attributes.items()}
                        done = ns.insert(dataset.base[rows], rows, attributes=some).upserted
                    figures.setdefault(f"{way} s", []).append(time.process_time() - began)
                    assert done == len(rows)
                    figures.setdefault(f"{way} bytes", []).append(written(root) - size)
                    if way == "patch":
                        for name, value in zip(("recall", "scored"), searched(ns, dataset), strict=True):
                            figures.setdefault(name, []).append(value)
    return {"rows": len(rows), **{name: statistics.median(values) for name, values in figures.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each size; medians are told")
    parser.add_argument("--rows", type=int, default=60_000, help="of the glosses")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    dataset = sets.glosses()
    if asked.rows < len(dataset.base):
        base = dataset.base[: asked.rows]
        near = sets.exact_neighbours(base, dataset.queries, dataset.metric, 10)
        dataset = replace(dataset, base=base, held_out=dataset.queries, held_out_gt=near)
    attributes = real_attributes(len(dataset.base))
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        filled = Path(folder) / "store"
        with vecstore.connect(str(filled), maintenance="off") as db:
            ns = db.create_namespace("docs", dataset.base.shape[1], dataset.metric)
            ns.insert(dataset.base, np.arange(len(dataset.base)), attributes=attributes)
            before = dict(zip(("recall", "scored"), searched(ns, dataset), strict=True))
        figures = [
            {"rows": 0, **before},
            *(measure(share, asked.rounds, dataset, attributes, filled) for share in SHARES),
        ]
    print(json.dumps(figures, indent=1) if asked.json else tabulate(figures, headers="keys", floatfmt=".4g"))


if __name__ == "__main__":
    main()
