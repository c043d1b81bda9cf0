"""Caches, many namespaces, verification: ``python -m bench.caches tiers``, ``namespaces``, ``verify``.

``tiers``: one search with nothing in memory, over a store that is as far away as S3 (`bench.slow_store`),
beside the same from the disk cache (a process that has just started, and one that has asked before) and
from memory. Ways take turns, query by query. Reads are strong, which costs a request each, and eventual,
which does not. ``--set grown`` asks the million rows of `bench.cold`.

``namespaces``: a server of one process is asked the first query of each of 1,000 namespaces (``--count``),
with room for few open ones. Its memory, descriptors and maps by /proc, as it goes on.

``verify``: the time of ``vecstore verify`` over that of reading the same objects in the same chunks; by
turns, the median of the rounds' ratios. The store is a directory whose files are dropped from the page
cache before each pass; with ``--cached`` they stay, the worst case, where reading costs least.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

import vecstore
from bench import cold, grow, sets
from bench.slow_store import distant
from tests.server.support import children, running_server
from vecstore.api import Database
from vecstore.engine.database import EmbeddedDatabase
from vecstore.maintenance.verify import verify
from vecstore.storage.disk import DiskCache
from vecstore.storage.local import LocalStore
from vecstore.storage.s3 import S3Store
from vecstore.types import F32

CHUNK = 8 << 20


def tiers(options: argparse.Namespace) -> None:
    """A table: each way of having the bytes, and what a search takes."""
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        if options.set == "grown":
            root = cold.prepared(grow.ROWS)
            queries = grow.stored()[grow.ROWS : grow.ROWS + options.queries].astype(np.float32)
        else:
            dataset = getattr(sets, options.set)()
            root, queries = Path(folder) / "store", dataset.queries[: options.queries]
            with vecstore.connect(str(root), maintenance="off") as db:
                ns = db.create_namespace(cold.NAME, dataset.base.shape[1], dataset.metric)
                for start in range(0, len(dataset.base), 125_000):
                    ns.insert(dataset.base[start : start + 125_000])
                ns.compact()
        with distant(root) as endpoint:
            store, disk = cold.opened(endpoint, "signed", 0.05), Path(folder) / "disk"
            _open(store, disk).namespace(cold.NAME).warm()
            settled, memory = _open(store, disk), _open(store, None)
            for db in (settled, memory):
                for _ in range(2):
                    for query in queries:
                        db.namespace(cold.NAME).search(query, consistency="eventual", max_staleness=3600)
            local = vecstore.connect(str(root), maintenance="off")
            ways: dict[str, Callable[[], Database]] = {
                "cold": lambda: _open(store, None),
                "disk, process just started": lambda: _open(store, disk),
                "disk, process has asked before": lambda: settled,
                "memory": lambda: memory,
                "mapped directory": lambda: local,
            }
            for consistency in ("strong", "eventual"):
                _measure(options.set, consistency, ways, queries)


def _open(store: S3Store, disk: Path | None) -> Database:
    cache = None if disk is None else DiskCache(disk, 4 << 30)
    return Database(EmbeddedDatabase(store, cache_bytes=1 << 30, disk=cache))


def _measure(name: str, consistency: Any, ways: dict[str, Callable[[], Database]], queries: F32) -> None:
    asked: dict[str, Any] = {"top_k": 10, "consistency": consistency, "max_staleness": 3600.0}
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    traffic: dict[str, list[tuple[int, int, int]]] = {label: [] for label in ways}
    for query in queries:
        for label, connect in ways.items():
            ns = vecstore.Namespace(connect().backend, cold.NAME)
            began = time.perf_counter()
            hits = ns.search(query, debug=True, **asked)
            seconds[label].append(time.perf_counter() - began)
            told = (hits.debug or {})["storage"]
            traffic[label].append((told["round_trips"], told["requests"], told["bytes"]))
    most = float(np.median(seconds["cold"]))
    rows = []
    for label in ways:
        p50, p90 = np.percentile(seconds[label], [50, 90])
        trips, requests, size = np.median(traffic[label], axis=0)
        rows.append(
            (label, f"{1e3 * p50:.2f}", f"{1e3 * p90:.2f}", f"{most / p50:.1f}", trips, requests, size / 1e6)
        )
    print(f"\n{name}, {len(queries)} queries, {consistency} reads")
    head = ("", "p50 ms", "p90 ms", "cold over it", "trips", "requests", "MB")
    print(tabulate(rows, head, tablefmt="github", floatfmt=".2f", disable_numparse=[1, 2, 3]))


def namespaces(options: argparse.Namespace) -> None:
    """A line every tenth of the way."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((options.rows, 64)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        url = options.url or str(Path(folder) / "store")
        with vecstore.connect(url, maintenance="off") as db, ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: _fill(db, f"bench-{i}", rows), range(options.count)))
        limits = {
            "VECSTORE_OPEN_NAMESPACES": str(options.open),
            "VECSTORE_CACHE_BYTES": str(options.cache_bytes),
            "VECSTORE_CACHE_DIR": str(Path(folder) / "disk"),
            "VECSTORE_DISK_CACHE_BYTES": str(64 << 20),
        }
        passed = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        flags = ("--workers", "1", "--no-maintenance")
        with running_server(url, *flags, **limits, **passed) as server, vecstore.connect(server.url) as db:
            (worker,) = children(server.process.pid)
            told, seconds = [_state(worker, 0, [])], []
            for i in range(options.count):
                ns = vecstore.Namespace(db.backend, f"bench-{i}")
                began = time.perf_counter()
                ns.search(rows[0], top_k=1)
                seconds.append(time.perf_counter() - began)
                if (i + 1) % max(1, options.count // 10) == 0:
                    told.append(_state(worker, i + 1, seconds))
    head = ("namespaces", "own memory MB", "mapped MB", "descriptors", "maps", "first query p50 ms", "p99 ms")
    print(tabulate(told, head, tablefmt="github", floatfmt=".1f"))


def _fill(db: Database, name: str, rows: F32) -> None:
    db.create_namespace(name, rows.shape[1], "l2", small_part_threshold=0).insert(rows)


def _state(pid: int, count: int, seconds: list[float]) -> tuple[float, ...]:
    proc = Path(f"/proc/{pid}")
    # Own memory, and pages of files that are mapped, which the kernel shares and takes back.
    _, resident, mapped, *_ = map(int, (proc / "statm").read_text().split())
    sizes = [pages * os.sysconf("SC_PAGE_SIZE") / 1e6 for pages in (resident - mapped, mapped)]
    spread = np.percentile(seconds, [50, 99]) * 1e3 if seconds else (math.nan, math.nan)
    descriptors = len(list((proc / "fd").iterdir()))
    maps = (proc / "maps").read_text().count("\n")
    return count, *sizes, descriptors, maps, *spread


def verification(options: argparse.Namespace) -> None:
    """The ratio of the rounds' medians, and both times."""
    dataset = getattr(sets, options.set)()
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        with vecstore.connect(folder, maintenance="off") as db:
            ns = db.create_namespace("docs", dataset.base.shape[1], dataset.metric)
            for copy in range(options.copies):
                ns.insert(dataset.base + np.float32(0.01 * copy))
            ns.delete(range(0, len(dataset.base), 9))
        store = LocalStore(folder)
        os.sync()
        ratios, times = [], []
        for _ in range(options.rounds):
            size, plain = _timed(lambda: _read_all(store), None if options.cached else folder)
            report, verified = _timed(lambda: verify(store), None if options.cached else folder)
            if not report.sound or report.bytes != size:
                raise SystemExit(f"not sound, or not all of {size:,} bytes were read: {report}")
            times.append((plain, verified))
            ratios.append(verified / plain)
    plain, verified = np.median(times, axis=0)
    print(
        f"{dataset.name}: {size:,} bytes; plain read {plain:.3f} s, verify {verified:.3f} s; "
        f"median ratio {np.median(ratios):.2f} (floor 1.5)"
    )


def _timed(work: Callable[[], Any], folder: str | None) -> tuple[Any, float]:
    """What ``work`` returns and the seconds that it takes, with the files of a folder read from disk."""
    for path in [] if folder is None else [path for path in Path(folder).rglob("*") if path.is_file()]:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


def _read_all(store: LocalStore) -> int:
    size = 0
    for meta in store.list("").objects:
        for start in range(0, meta.size, CHUNK):
            size += len(store.get_range(meta.key, start, min(CHUNK, meta.size - start)))
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("tiers")
    one.add_argument("--set", default="sample", choices=("sample", "glosses", "fashion", "grown"))
    one.add_argument("--queries", type=int, default=50)
    one.set_defaults(run=tiers)
    one = commands.add_parser("namespaces")
    one.add_argument("--count", type=int, default=1_000)
    one.add_argument("--rows", type=int, default=300)
    one.add_argument("--open", type=int, default=100)
    one.add_argument("--cache-bytes", type=int, default=16 << 20)
    one.add_argument("--url", help="s3://bucket/prefix, its endpoint and keys by AWS_ variables")
    one.set_defaults(run=namespaces)
    one = commands.add_parser("verify")
    one.add_argument("--set", default="sample", choices=("sample", "glosses", "fashion"))
    one.add_argument("--rounds", type=int, default=7)
    one.add_argument("--copies", type=int, default=4, help="parts, each with all rows of the set")
    one.add_argument("--cached", action="store_true")
    one.set_defaults(run=verification)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
