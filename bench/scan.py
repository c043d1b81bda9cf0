"""A scan of a million rows while they are upserted: each row of its epoch once; and rows a second.

    python -m bench.scan [--rows 1000000] [--dim 32] [--limit 1000]

One thread replaces rows, a thousand a commit and a few commits a second, for as long as the scans run. Each
row has the number of the commit that wrote it, so what an epoch holds is known from the commits alone: every
row of a scan is held against that. Rows a second are those of a scan beside the writer, on the processors
that the process has, and those of one alone.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from typing import Any

import numpy as np
from tabulate import tabulate

import vecstore
from vecstore.api import Namespace

BATCH = 1_000
PAUSE = 0.2  # seconds between two commits: each is a part more, and nothing merges them here
PARTS = 20


class Writer(threading.Thread):
    """Replaces rows until it is told to stop, and remembers what it did in which epoch."""

    def __init__(self, ns: Namespace, rows: int, dim: int, epoch: int) -> None:
        super().__init__()
        self._ns, self._rows, self._dim = ns, rows, dim
        self._rng = np.random.default_rng(1)
        self._ended = threading.Event()
        self.commits: list[tuple[int, Any]] = [(epoch, np.arange(rows))]

    def run(self) -> None:
        number = 1
        while not self._ended.wait(PAUSE):
            some = self._rng.choice(self._rows, BATCH, replace=False)
            vectors = self._rng.standard_normal((BATCH, self._dim), dtype=np.float32)
            done = self._ns.insert(vectors, some, attributes={"commit": np.full(BATCH, number)})
            self.commits.append((done.epoch, some))
            number += 1

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def at(self, epoch: int) -> Any:
        """The commit that wrote each row, as of an epoch; only once the writer has ended."""
        out = np.zeros(self._rows, dtype=np.int64)
        for number, (committed, some) in enumerate(self.commits):
            if committed <= epoch:
                out[some] = number
        return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--limit", type=int, default=1_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        vecstore.connect(folder, maintenance="off") as db,
    ):
        # Lists play no part in a scan, and to train them takes most of the time.
        ns = db.create_namespace("docs", options.dim, "l2", small_part_threshold=options.rows * options.dim)
        rng = np.random.default_rng(0)
        order = rng.permutation(options.rows)
        for ids in np.array_split(order, PARTS):
            vectors = rng.standard_normal((len(ids), options.dim), dtype=np.float32)
            epoch = ns.insert(vectors, ids, attributes={"commit": np.zeros(len(ids), dtype=np.int64)}).epoch
        alone = [_scan(ns, options, case) for case in CASES]
        writer = Writer(ns, options.rows, options.dim, epoch)
        writer.start()
        try:
            beside = [_scan(ns, options, case) for case in CASES]
        finally:
            writer.stop()
        table = []
        for case, quiet, busy in zip(CASES, alone, beside, strict=True):
            seconds, epoch, ids, commits = busy
            if not np.array_equal(np.sort(ids), np.arange(options.rows)):
                raise SystemExit(f"{case}: {len(ids):,} rows, {len(np.unique(ids)):,} of them different")
            if not np.array_equal(commits, writer.at(epoch)[ids]):
                raise SystemExit(f"{case}: rows of another epoch than {epoch}")
            if case["order"] == "id" and not (np.diff(ids) > 0).all():
                raise SystemExit("not in ascending order")
            table.append([*case.values(), options.rows / quiet[0], options.rows / seconds, epoch])
        print(
            f"{len(writer.commits) - 1:,} commits of {BATCH:,} rows meanwhile; every row of each epoch once"
        )
        print(
            tabulate(
                table,
                ["order", "vectors", "rows/s alone", "rows/s beside", "epoch"],
                intfmt=",",
                floatfmt=",.0f",
            )
        )


CASES: list[dict[str, Any]] = [
    {"order": order, "vectors": vectors} for order in ("id", "stored") for vectors in (False, True)
]


def _scan(ns: Namespace, options: Any, case: dict[str, Any]) -> tuple[float, int, Any, Any]:
    """Seconds, epoch, and the id and the commit of every row, in order."""
    include = ["commit", "vector"] if case["vectors"] else ["commit"]
    began = time.perf_counter()
    pages = [
        (page.epoch, page.ids.astype(np.int64), np.array(page.columns["commit"]))
        for page in ns.scan(order=case["order"], include=include, limit=options.limit).pages()
    ]
    seconds = time.perf_counter() - began
    epochs = {epoch for epoch, _, _ in pages}
    if len(epochs) != 1:
        raise SystemExit(f"pages of epochs {sorted(epochs)}")
    return (
        seconds,
        epochs.pop(),
        np.concatenate([ids for _, ids, _ in pages]),
        np.concatenate([commits for _, _, commits in pages]),
    )


if __name__ == "__main__":
    main()
