"""vecstore beside FAISS in one run, on one processor: ``make bench``.

Both engines are built from the same vectors and answer the same queries, taking turns setting by
setting, so that a disturbance of the machine meets both. The process keeps to one processor and
OpenMP and BLAS to one thread. Ours is a local store, its reads strong; queries are asked one at a
time (``Namespace.search``) and as one batch (``search_batch``).

    python -m bench.speed [--set fashion] [--rounds 3] [--clock cpu]

Prints, and writes to ``out/``, a table in Markdown and all points in JSON. Exit status 1 if a ratio
misses what is promised: queries a second at recall .95 at least 0.8 of FAISS's, a build at most 4
times as long, memory of an insert at most 4 times its batch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import vecstore
from bench import data, peers
from bench.peers import Clock, Index, Point, Rows, Setting
from vecstore.types import F32

RECALLS = (0.95, 0.99)
LEAST_SPEED = 0.8  # of FAISS's queries a second, at the first of RECALLS
MOST_BUILD = 4.0  # times FAISS's
MOST_MEMORY = 4.0  # times the batch, itself included
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


class Ours:
    """A namespace of one part on a local store, built by one insert."""

    name = "vecstore"

    def __init__(self, dataset: data.Dataset, folder: str) -> None:
        self._db = vecstore.connect(folder, maintenance="off")
        self._ns = self._db.create_namespace("bench", dim=dataset.base.shape[1], metric=dataset.metric)
        ids = np.arange(len(dataset.base), dtype=np.uint64)
        start = time.perf_counter()
        self._ns.insert(dataset.base, ids=ids)
        self.build_seconds = time.perf_counter() - start
        self._setting: dict[str, Any] = {}

    def settings(self) -> Sequence[Setting]:
        """Lists to probe × fp32 re-ranking or not."""
        lists = self._ns.search(np.ones(self._ns.stats().dim), debug=True).debug["parts"][0]["lists"]
        probes = sorted({round(p) for p in np.geomspace(0.003, 1.0, 40) * lists})
        return [{"nprobe": p, "fp32": exact} for p in probes for exact in (0, 1)]

    def use(self, setting: Setting) -> None:
        """Search so from now on."""
        precision = "fp32" if setting["fp32"] else "int8"
        self._setting = {"nprobe": int(setting["nprobe"]), "rerank_precision": precision}

    def search(self, queries: F32, k: int) -> Rows:
        """Ids, which are row numbers."""
        if len(queries) == 1:
            return self._ns.search(queries[0], top_k=k, **self._setting).ids[None, :].astype(np.int64)
        return self._ns.search_batch(queries, top_k=k, **self._setting).ids.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of ours beside FAISS's, and what it must be."""

    what: str
    ours: float
    theirs: float | None
    ratio: float
    limit: str
    passed: bool | None
    how: str = ""


def sweep_together(
    indexes: Sequence[Index], dataset: data.Dataset, rounds: int, clock: Clock
) -> list[list[Point]]:
    """Points of each index; settings of all take turns, and each keeps its best of ``rounds``."""
    grids = [list(index.settings()) for index in indexes]
    best: list[list[Point | None]] = [[None] * len(grid) for grid in grids]
    turns = sorted(
        ((i + 0.5) / len(grid), which, i) for which, grid in enumerate(grids) for i in range(len(grid))
    )
    for _ in range(rounds):
        for _, which, i in turns:
            one = _One(indexes[which], grids[which][i])
            (point,) = peers.sweep(one, dataset.queries, dataset.gt, rounds=1, clock=clock)
            before = best[which][i]
            if before is not None:
                point = Point(
                    point.setting,
                    point.recall,
                    max(point.single_qps, before.single_qps),
                    max(point.batch_qps, before.batch_qps),
                )
            best[which][i] = point
    return [[point for point in points if point is not None] for points in best]


class _One:
    """An index with a grid of one setting."""

    def __init__(self, index: Index, setting: Setting) -> None:
        self.name = index.name
        self.build_seconds = index.build_seconds
        self.use = index.use
        self.search = index.search
        self._setting = setting

    def settings(self) -> Sequence[Setting]:
        return [self._setting]


def compare(
    dataset: data.Dataset, name: str, rounds: int, clock: Clock
) -> tuple[list[Ratio], dict[str, Any]]:
    """Build, sweep and weigh both engines on one set."""
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        theirs = peers.build_faiss(dataset)
        ours = Ours(dataset, folder)
        print(
            f"{dataset.name}: built in {ours.build_seconds:.1f} s, FAISS in {theirs.build_seconds:.1f} s",
            flush=True,
        )
        mine, other = sweep_together([ours, theirs], dataset, rounds, clock)
    ratio = ours.build_seconds / theirs.build_seconds
    out = [
        Ratio(
            f"build {len(dataset.base):,} × {dataset.base.shape[1]}, s",
            ours.build_seconds,
            theirs.build_seconds,
            ratio,
            f"≤ {MOST_BUILD:g}",
            ratio <= MOST_BUILD,
        )
    ]
    out += [_at(mine, other, recall, batch=batch) for recall in RECALLS for batch in (False, True)]
    batch_bytes = dataset.base.nbytes
    held = insert_memory(name)
    ratio = (held + batch_bytes) / batch_bytes
    out.append(
        Ratio(
            f"memory of an insert and its batch of {batch_bytes / 1e6:.0f} MB, MB",
            (held + batch_bytes) / 1e6,
            None,
            ratio,
            f"≤ {MOST_MEMORY:g} × the batch",
            ratio <= MOST_MEMORY,
        )
    )
    figures = {
        "ours": {"name": ours.name, "build_seconds": ours.build_seconds, "points": [asdict(p) for p in mine]},
        "theirs": {
            "name": theirs.name,
            "build_seconds": theirs.build_seconds,
            "points": [asdict(p) for p in other],
        },
    }
    return out, figures


def _at(mine: Sequence[Point], other: Sequence[Point], recall: float, *, batch: bool) -> Ratio:
    what = f"queries/s at recall@10 ≥ {recall}, {'as a batch' if batch else 'one at a time'}"
    limit, judged = (f"≥ {LEAST_SPEED:g}", True) if recall == RECALLS[0] else ("", False)
    a, b = peers.best_at(mine, recall, batch=batch), peers.best_at(other, recall, batch=batch)
    if a is None or b is None:
        return Ratio(what, 0.0, 0.0, 0.0, limit, False if judged and a is None else None, "not reached")
    ours, theirs = (a.batch_qps, b.batch_qps) if batch else (a.single_qps, b.single_qps)
    settings = "; ".join(
        " ".join(f"{key} {value:g}" for key, value in p.setting.items()) + f" ({p.recall:.4f})"
        for p in (a, b)
    )
    ratio = ours / theirs
    return Ratio(what, ours, theirs, ratio, limit, ratio >= LEAST_SPEED if judged else None, settings)


def insert_memory(name: str) -> int:
    """Bytes by which a process of its own grows at most while it inserts the whole set as one batch."""
    child = subprocess.run(
        [sys.executable, "-m", "bench.speed", "--memory-of", name],
        check=True,
        capture_output=True,
        text=True,
        cwd=data.ROOT,
    )
    return int(child.stdout.split()[-1])


def measure_memory(dataset: data.Dataset) -> int:
    """Highest resident memory during an insert above what was resident before it."""
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        db = vecstore.connect(folder, maintenance="off")
        for count in (2_000, len(dataset.base)):  # the first loads code and starts threads
            ns = db.create_namespace(f"n{count}", dim=dataset.base.shape[1], metric=dataset.metric)
            ids = np.arange(count, dtype=np.uint64)
            rows = dataset.base[:count]
            before, reset = _resident(), _forget_peak()
            ns.insert(rows, ids=ids)
        return _resident_peak() - before if reset else max(0, _resident_peak() - before)


def _forget_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _resident() -> int:
    return _status("VmRSS")


def _resident_peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def table(ratios: dict[str, list[Ratio]]) -> str:
    """The table in Markdown."""
    out = [
        "| set | | vecstore | FAISS | ratio | must be | | settings (recall), ours; FAISS's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    verdicts = {None: "", True: "PASS", False: "FAIL"}
    for name, some in ratios.items():
        out += [
            f"| {name} | {r.what} | {_number(r.ours)} | {_number(r.theirs)} | {r.ratio:.2f} | {r.limit} "
            f"| {verdicts[r.passed]} | {r.how} |"
            for r in some
        ]
    return "\n".join(out) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def pin() -> None:
    """Keep to one processor and one thread; the libraries read their variables when they load."""
    if any(os.environ.get(name) != "1" for name in THREADS):
        environment = os.environ | dict.fromkeys(THREADS, "1")
        os.execve(sys.executable, [sys.executable, "-m", "bench.speed", *sys.argv[1:]], environment)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory beside FAISS.")
    parser.add_argument(
        "--set", action="append", choices=sorted(peers.SETS), help="default: glosses, fashion"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each setting is measured")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--memory-of", choices=sorted(peers.SETS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(measure_memory(peers.SETS[args.memory_of]()))
        return
    pin()
    ratios: dict[str, list[Ratio]] = {}
    figures: dict[str, Any] = {"clock": args.clock, "rounds": args.rounds}
    for name in args.set or ("glosses", "fashion"):
        load: Callable[[], data.Dataset] = peers.SETS[name]
        try:
            dataset = load()
        except data.DataMissing as missing:
            print(f"{missing} The shipped sample stands in.", file=sys.stderr)
            name, dataset = "sample", data.sample()
        ratios[dataset.name], figures[dataset.name] = compare(dataset, name, args.rounds, CLOCKS[args.clock])
    text = table(ratios)
    data.OUT.mkdir(exist_ok=True)
    (data.OUT / "speed.md").write_text(text)
    (data.OUT / "speed.json").write_text(json.dumps(figures, indent=1) + "\n")
    print("\n" + text, end="")
    sys.exit(1 if any(r.passed is False for some in ratios.values() for r in some) else 0)


if __name__ == "__main__":
    main()
