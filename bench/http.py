"""Server CPU of a warm search over HTTP: ``python -m bench.http [--workers 2] [--clients 2]``.

Starts the real server over a local store that holds the shipped sample in one part, searches it
through the client, and reads what the worker processes spent from /proc (user and system time, 10 ms
ticks, so over thousands of requests). Strong reads, one query a request, k = 10. The client runs on
the same machine: the requests a second below are of both together, the CPU of the server alone.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import vecstore
from tests.server.support import children, running_server
from vecstore.sample import load_sample

ROOT = Path(__file__).parent.parent
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=5_000)
    options = parser.parse_args()
    sample = load_sample(ROOT / "examples" / "glosses")
    with tempfile.TemporaryDirectory() as folder:
        with vecstore.connect(folder, maintenance="off") as database:
            ns = database.create_namespace("glosses", sample.vectors.shape[1], "cosine")
            ns.insert(sample.vectors, ids=sample.ids)
            embedded = embedded_cpu(ns, sample.query_vectors)
        with running_server(folder, "--workers", str(options.workers), "--no-maintenance") as server:
            report = measure(server.url, server.process.pid, sample.query_vectors, options)
    report["cpu_ms_a_search_embedded"] = round(embedded * 1e3, 3)
    print(json.dumps(report, indent=2))


def embedded_cpu(ns: vecstore.Namespace, queries: np.ndarray) -> float:
    """CPU seconds of the same search without HTTP: what the engine alone costs."""
    for query in queries:
        ns.search(query)
    began = time.process_time()
    for _ in range(10):
        for query in queries:
            ns.search(query)
    return (time.process_time() - began) / (10 * len(queries))


def measure(url: str, pid: int, queries: np.ndarray, options: argparse.Namespace) -> dict[str, object]:
    each = options.requests // options.clients
    times: list[float] = []

    def ask(count: int) -> None:
        with vecstore.connect(url) as database:
            ns = database.namespace("glosses")
            mine = []
            for i in range(count):
                began = time.perf_counter()
                ns.search(queries[i % len(queries)])
                mine.append(time.perf_counter() - began)
            times.extend(mine)

    def run(count: int) -> None:
        threads = [threading.Thread(target=ask, args=(count,)) for _ in range(options.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run(max(200, 100 * options.workers))  # every worker has the part open
    times.clear()
    workers = children(pid)
    before = sum(map(cpu_seconds, workers))
    began = time.perf_counter()
    run(each)
    elapsed = time.perf_counter() - began
    spent = sum(map(cpu_seconds, workers)) - before
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {
        "requests": len(times),
        "workers": options.workers,
        "clients": options.clients,
        "server_cpu_ms_a_request": round(spent / len(times) * 1e3, 3),
        "requests_a_second": round(len(times) / elapsed),
        "latency_ms_p50": round(float(p50), 3),
        "latency_ms_p99": round(float(p99), 3),
    }


if __name__ == "__main__":
    main()
