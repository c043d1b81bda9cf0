"""Commits to a store that is far away: ``python -m bench.commits``.

`bench.slow_store` answers PUTs after 100 ms and reads after 60 ms, over real HTTP. Told are

- *trips*: seconds of an insert over those of a PUT, for a namespace that the process knows and for one that
  it opens (which is told with it), with ids that the store draws, with new ones, and with some that are
  there already, whose rows take one trip more to find: that form is not held to the two trips of the others;
- *throughput*: inserts a second of one writer, of 16 threads of one process and of 16 processes, that write
  to one namespace for some seconds; and of the one that got fewest through, its share of the mean.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

import vecstore
from bench import sets
from bench.slow_store import distant
from vecstore.api import Database

PUT, READ = 0.1, 0.06  # seconds
NAME = "commits"
DIM = 64
ROWS = 16
WRITERS = 16
EACH = 12  # inserts whose trips are counted
FLOORS = {"threads": 10.0, "processes": 0.7, "warm": 2.0, "cold": 5.0}


def connected(endpoint: str) -> Database:
    """A database whose pages and manifests are not known yet."""
    return vecstore.connect(
        "s3://bucket/store",
        maintenance="off",
        endpoint_url=endpoint,
        region="us-east-1",
        access_key="bench",
        secret_key="bench",  # pragma: allowlist secret
        addressing_style="path",
    )


def rows(seed: int) -> np.ndarray:
    """f32[ROWS, DIM]"""
    return np.random.default_rng(seed).standard_normal((ROWS, DIM)).astype(np.float32)


def trips(endpoint: str) -> dict[str, float]:
    """Seconds of an insert in those of a PUT, the median of some."""
    found = {}
    with connected(endpoint) as db:
        db.create_namespace(f"{NAME}-else", dim=DIM, metric="l2")
    for form, step in (("drawn ids", None), ("new ids", ROWS), ("known ids", ROWS // 2)):
        name = f"{NAME}-{step}"
        with connected(endpoint) as db:
            db.create_namespace(name, dim=DIM, metric="l2")
        for state in ("cold", "warm"):
            times = []
            database = connected(endpoint)
            namespace = database.namespace(name)
            for number in range(EACH):
                if state == "cold":
                    database.close()
                    database = connected(endpoint)
                    database.namespace(f"{NAME}-else").insert(
                        rows(number)
                    )  # opens connections, sets the clock
                place = number + EACH * (state == "warm")
                ids = None if step is None else np.arange(ROWS, dtype=np.uint64) + step * place
                started = time.perf_counter()
                if state == "cold":
                    namespace = database.namespace(name)  # reads the manifest
                namespace.insert(rows(number), ids=ids)
                times.append(time.perf_counter() - started)
            database.close()
            found[f"{state}, {form}"] = statistics.median(times[1:]) / PUT
    return found


def throughput(endpoint: str, seconds: float) -> dict[str, list[int]]:
    """Inserts of each writer, by the way of writing side by side."""
    found = {}
    with connected(endpoint) as db:
        for way in ("one", "threads", "processes"):
            db.create_namespace(f"{NAME}-{way}", dim=DIM, metric="l2")
    found["one"] = [_insert(connected(endpoint), f"{NAME}-one", 0, seconds)]
    counts = [0] * WRITERS
    shared = connected(endpoint)

    def write(number: int) -> None:
        counts[number] = _insert(shared, f"{NAME}-threads", number, seconds)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found["threads"] = counts
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(WRITERS)
    with context.Pool(WRITERS, _prepare, (ready,)) as pool:
        arguments = [(endpoint, number, seconds) for number in range(WRITERS)]
        found["processes"] = pool.starmap(_process, arguments, chunksize=1)
    return found


def _insert(database: Database, name: str, seed: int, seconds: float) -> int:
    """Inserts that were acknowledged until the time was over; the last may end after it."""
    namespace, end, count = database.namespace(name), time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        namespace.insert(rows(seed * 1_000_003 + count))
        count += 1
    return count


_ready: Any = None


def _prepare(ready: Any) -> None:
    global _ready
    _ready = ready


def _process(endpoint: str, number: int, seconds: float) -> int:
    database = connected(endpoint)
    database.namespace(f"{NAME}-processes").stats()
    _ready.wait()
    return _insert(database, f"{NAME}-processes", number + 100, seconds)


def _state(form: str) -> str:
    """Which floor a form of insert is held to."""
    return "cold" if "known" in form else form.split(",")[0]


def main() -> None:
    """Measure, print, judge and record."""
    parser = argparse.ArgumentParser(description="Commits to a store that is far away.")
    parser.add_argument("--seconds", type=float, default=30.0, help="that each way of writing is given")
    parser.add_argument("--into", type=Path, default=sets.OUT / "bench", help="where the figures go")
    options = parser.parse_args()
    latency = {"p50": READ, "p99": READ * 1.001, "put-p50": PUT, "put-p99": PUT * 1.001}
    arguments = [text for name, value in latency.items() for text in (f"--{name}", str(value))]
    with tempfile.TemporaryDirectory() as folder, distant(Path(folder), *arguments) as endpoint:
        counted = trips(endpoint)
        written = throughput(endpoint, options.seconds)
    print(tabulate([[form, f"{value:.2f}"] for form, value in counted.items()], ["insert", "PUTs long"]))
    one = sum(written["one"])
    lines = [
        [
            way,
            sum(counts),
            f"{sum(counts) / one:.2f}",
            min(counts),
            f"{min(counts) * len(counts) / sum(counts):.2f}",
        ]
        for way, counts in written.items()
    ]
    print(tabulate(lines, ["writers", "inserts", "over one writer's", "fewest", "of the mean"]))
    passed = (
        all(value <= FLOORS[_state(form)] + 0.3 for form, value in counted.items())
        and all(sum(written[way]) >= FLOORS[way] * one for way in ("threads", "processes"))
        and min(written["processes"]) > 0
    )
    print("PASS" if passed else "FAIL")
    options.into.mkdir(parents=True, exist_ok=True)
    record = {"trips": counted, "inserts": written, "seconds": options.seconds, "passed": passed}
    (options.into / "commits.json").write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
