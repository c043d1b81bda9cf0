"""Compaction of a large namespace: its memory, and what it does to searches: ``python -m bench.compaction``.

A process fills a directory with the grown set (``--rows``; 60,000 or fewer are glosses) in ``--parts`` parts.
Another merges them all, at the priority of a server's maintenance process, while a third asks warm queries at
a steady rate. The merging process is stopped (SIGSTOP) for a second in every five: queries of those seconds
are the idle ones, so that both kinds meet the same weather. All processes run on the processors that the
command was given: ``taskset -c 1 python -m bench.compaction`` makes them share one.

Memory is sampled from ``/proc/PID/status`` a hundred times a second. *Anonymous* is ``RssAnon``: what the
process holds for itself. *Resident* (``VmHWM``) has the mapped files too, sources and temporary files, whose
pages the kernel drops when others want the memory. ``--limit`` puts the merging process into a cgroup with so
much memory above its idle state, page cache included (root only): there it has to do with that.

Time is that of the seconds in which it ran, over a plain read of the sources and write of as many bytes as
the merged part has, with an fsync, before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

import vecstore
from bench import grow, sets
from vecstore.engine.database import EmbeddedDatabase
from vecstore.limits import COMPACTION_BYTES
from vecstore.maintenance.policy import Policy
from vecstore.server.maintenance import NICE, lower_priority
from vecstore.storage.local import LocalStore
from vecstore.types import F32

RUN, STOP = 4.0, 1.0  # seconds of a turn that the merging process runs, and stands still
CHUNK = 8 << 20
FIELDS = ("RssAnon", "RssFile", "RssShmem", "VmHWM")
Memory = dict[str, int]


def main(options: argparse.Namespace) -> dict[str, Any]:
    """One run; its figures."""
    dataset = sets.glosses() if options.rows <= 60_000 else grow.grown(rows=options.rows)
    base = dataset.base[: options.rows]
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-", dir=options.folder) as folder:
        root = Path(folder) / "store"
        with vecstore.connect(str(root), maintenance="off") as db:
            ns = db.create_namespace("docs", base.shape[1], dataset.metric)
            if options.text:
                ns.update(schema={"body": {"type": "string", "filterable": False}})
            for rows in np.array_split(np.arange(len(base)), options.parts):
                ns.insert(base[rows], rows, attributes=_attributes(rows, options.text))
        sources = sorted(root.rglob("*.part"))
        source_bytes = sum(path.stat().st_size for path in sources)
        merging, told = spawn.Pipe()
        compactor = spawn.Process(
            target=_compact, args=(str(root), options.memory, folder, options.nice, told)
        )
        asking, answered = spawn.Pipe()
        asker = spawn.Process(
            target=_ask, args=(str(root), dataset.queries, options.rate, options.settle, answered)
        )
        compactor.start()
        asker.start()
        merging.recv()
        asking.recv()
        idle = _memory(compactor.pid)
        plain = [_copy(sources, Path(folder) / "copy", source_bytes)]
        with contextlib.ExitStack() as stack:
            if options.limit:
                stack.enter_context(_limited(compactor.pid, sum(idle[f] for f in FIELDS[:3]) + options.limit))
            peak = stack.enter_context(_sampled(compactor.pid))
            asking.send(None)
            merging.send(None)
            turns = _alternate(compactor.pid, merging)
            done, cpu = merging.recv()
        asking.send(None)
        asked, latencies = asking.recv()
        merged = next(path for path in root.rglob("*.part") if path not in sources)
        plain.append(_copy(sources, Path(folder) / "copy", merged.stat().st_size))
        for process in (compactor, asker):
            process.join()
        with vecstore.connect(str(root), maintenance="off") as db:
            found = db.namespace("docs").search_batch(dataset.queries, top_k=10).ids
        gt = (
            sets.exact_neighbours(base, dataset.queries, dataset.metric, 10)
            if len(base) < len(dataset.base)
            else dataset.gt
        )
        recall = np.mean(
            [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), gt[:, :10].tolist(), strict=True)]
        )
    ran = np.zeros(len(asked), dtype=bool)
    stood = np.zeros(len(asked), dtype=bool)
    for start, stop, end in turns:
        ran |= (asked >= start) & (asked + latencies < stop)
        stood |= (asked >= stop) & (asked + latencies < end)
    busy, quiet = latencies[ran], latencies[stood]
    seconds = sum(stop - start for start, stop, _ in turns)
    return {
        "rows": len(base),
        "dimensions": base.shape[1],
        "parts": options.parts,
        "text_bytes_a_row": options.text,
        "bound": options.memory,
        "limit": options.limit,
        "processors": len(os.sched_getaffinity(0)),
        "merged_rows": done,
        "anonymous_above_idle": peak["RssAnon"] - idle["RssAnon"],
        "resident_above_idle": peak["VmHWM"] - sum(idle[f] for f in FIELDS[:3]),
        "idle": idle,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "plain_seconds": plain,
        "over_plain": seconds / float(np.mean(plain)),
        "source_bytes": source_bytes,
        "nice": options.nice,
        "rate": options.rate,
        "queries": {"running": len(busy), "stopped": len(quiet)},
        "p50_ms": [1e3 * float(np.percentile(x, 50)) for x in (quiet, busy)],
        "p99_ms": [1e3 * float(np.percentile(x, 99)) for x in (quiet, busy)],
        "p99_slowdown": float(np.percentile(busy, 99) / np.percentile(quiet, 99)),
        "recall@10": float(recall),
    }


def _attributes(rows: npt.NDArray[np.int64], text: int) -> dict[str, Any] | None:
    """A text of ``text`` bytes a row, one that is often there, and an array of numbers."""
    if not text:
        return None
    rng = np.random.default_rng(int(rows[0]))
    return {
        "body": [rng.bytes(text // 2).hex() for _ in rows],
        "topic": [f"topic {i % 1_000}" for i in rows.tolist()],
        "seen": rng.integers(0, 1 << 40, size=(len(rows), 16)).tolist(),
    }


def _compact(root: str, memory: int, folder: str, nice: int, told: Connection) -> None:
    """The merging process."""
    lower_priority(nice)
    database = EmbeddedDatabase(LocalStore(Path(root)), policy=Policy(memory=memory), temp_dir=folder)
    database.info("docs")
    told.send(None)
    told.recv()
    before = time.process_time()
    done = database.compact("docs", everything=True)
    told.send((done.rows, time.process_time() - before))
    database.close()


def _ask(root: str, queries: F32, rate: float, settle: int, answered: Connection) -> None:
    """The asking process: warm queries, the next one due ``1 / rate`` seconds after the last was."""
    asked, latencies = [], []
    with vecstore.connect(root, maintenance="off") as db:
        ns = db.namespace("docs")
        for i in range(settle):
            ns.search(queries[i % len(queries)])
        answered.send(None)
        answered.recv()
        due, i = time.monotonic(), 0
        while not answered.poll():
            due = max(due + 1 / rate, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            start = time.monotonic()
            ns.search(queries[i % len(queries)])
            asked.append(start)
            latencies.append(time.monotonic() - start)
            i += 1
    answered.send((np.array(asked), np.array(latencies)))


def _alternate(pid: int | None, merging: Connection) -> list[tuple[float, float, float]]:
    """Let the process run and stand still by turns until it is done; when each began and ended."""
    assert pid is not None
    turns = []
    while True:
        start = time.monotonic()
        over = merging.poll(RUN)
        stop = time.monotonic()
        if over:
            return [*turns, (start, stop, stop)]
        os.kill(pid, signal.SIGSTOP)
        stop = time.monotonic()
        time.sleep(STOP)
        end = time.monotonic()
        os.kill(pid, signal.SIGCONT)
        turns.append((start, stop, end))


@contextlib.contextmanager
def _sampled(pid: int | None) -> Iterator[Memory]:
    """The greatest figures of a process while the block lasts."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM from now on
    peak = _memory(pid)
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.01):
            with contextlib.suppress(OSError):  # it has ended
                for name, value in _memory(pid).items():
                    peak[name] = max(peak.get(name, 0), value)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _memory(pid: int | None) -> Memory:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) << 10 for line in lines if line[0][:-1] in FIELDS}


@contextlib.contextmanager
def _limited(pid: int | None, limit: int) -> Iterator[None]:
    """A cgroup of its own for a process, of version 2 or 1."""
    root = Path("/sys/fs/cgroup")
    v2 = (root / "cgroup.controllers").exists()
    group = (root if v2 else root / "memory") / f"vecstore-bench-{pid}"
    group.mkdir()
    try:
        (group / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(limit))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(OSError):  # the process has ended
            (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _copy(sources: list[Path], target: Path, size: int) -> float:
    """Seconds of reading the sources and writing ``size`` bytes."""
    start = time.monotonic()
    with target.open("wb") as out:
        written = 0
        for path in sources:
            with path.open("rb") as source:
                while chunk := source.read(CHUNK):
                    out.write(chunk[: max(0, size - written)])
                    written += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    target.unlink()
    return time.monotonic() - start


def show(report: dict[str, Any]) -> str:
    """A table for people."""
    mib = 1 << 20
    quiet, busy = report["p99_ms"]
    rows = [
        ("rows × dimensions, parts", f"{report['rows']:,} × {report['dimensions']}, {report['parts']}"),
        ("bytes of text a row", report["text_bytes_a_row"]),
        ("bound", f"{report['bound'] / mib:.0f} MiB"),
        ("peak anonymous memory above idle", f"{report['anonymous_above_idle'] / mib:.0f} MiB"),
        (
            "peak resident memory above idle, mapped files included",
            f"{report['resident_above_idle'] / mib:.0f} MiB",
        ),
        ("cgroup above idle", f"{report['limit'] / mib:.0f} MiB" if report["limit"] else "none"),
        ("seconds that it ran; of processor time", f"{report['seconds']:.1f}; {report['cpu_seconds']:.1f}"),
        ("over a plain read and write", f"{report['over_plain']:.1f} ×"),
        (f"p99 of queries at {report['rate']:g}/s, idle; compacting", f"{quiet:.2f} ms; {busy:.2f} ms"),
        ("slowdown (p99)", f"{report['p99_slowdown']:.2f} ×"),
        ("processors for all of it; niceness of the compaction", f"{report['processors']}; {report['nice']}"),
        ("recall@10 of the merged part", f"{report['recall@10']:.4f}"),
    ]
    return tabulate(rows, tablefmt="plain")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=grow.ROWS)
    parser.add_argument("--parts", type=int, default=64)
    parser.add_argument("--text", type=int, default=0, help="bytes of text a row, and two attributes more")
    parser.add_argument("--memory", type=int, default=COMPACTION_BYTES, help="bound of the compaction, bytes")
    parser.add_argument("--limit", type=int, default=0, help="of a cgroup for it, bytes above idle")
    parser.add_argument("--nice", type=int, default=NICE, help="of the merging process; default: a server's")
    parser.add_argument("--rate", type=float, default=100.0, help="queries a second")
    parser.add_argument("--settle", type=int, default=2_000, help="queries before the clock starts")
    parser.add_argument("--folder", type=Path, help="where the store and the temporary files go")
    parser.add_argument("--into", type=Path, default=sets.OUT / "bench")
    given = parser.parse_args()
    found = main(given)
    given.into.mkdir(parents=True, exist_ok=True)
    (given.into / "compaction.json").write_text(json.dumps(found, indent=1) + "\n")
    print(show(found))
