"""Server CPU of a search over HTTP beside that of a route that only parses: ``python -m bench.http``.

Two gunicorn workers as ``vecstore serve`` runs them hold the glosses (60,000 x 384; `bench.sets`) on a
local store, in one part after ``compact()``; `bench.http_app` adds the routes to compare with. ``wrk``
(Debian's package) asks over kept-alive connections of loopback, each request with another query, the
routes by turns in several rounds. The figure of a request is what master and workers together spent on
it by /proc (user and system time, in ticks of 10 ms, so of thousands of requests), the median of the
rounds; the ratio is the median of the rounds' ratios. Searches have their defaults: strong reads, k = 10.

Results: ``bench/results/http.json`` and ``http.md``, unless ``--dry-run``.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import vecstore
from bench.sets import glosses
from tests.server.support import Server, await_ready, children, environment, eventually, free_port
from vecstore.server import wire
from vecstore.types import F32

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
TICK = os.sysconf("SC_CLK_TCK")
SEARCH = "/v1/namespaces/glosses/search"
PARSE, PLAIN, BARE = "/bench/parse", "/bench/plain", "/bench/bare"
FLOOR, GOAL = 1.5, 1.2

# Each request carries the next body; each thread of wrk begins at another.
LUA = """
local bodies = {}
for line in io.lines(os.getenv("BENCH_BODIES")) do bodies[#bodies + 1] = line end
local headers = {["Content-Type"] = "application/json"}
local i = 0
function request()
  i = i % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[i])
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=3, help="of one route in one round")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of gunicorn")
    parser.add_argument("--dry-run", action="store_true", help="write no results")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    data = glosses()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answer, engine = prepare(folder / "store", data.base, data.queries)
        (folder / "answer").write_bytes(answer)
        bodies = write_bodies(folder, data.queries)
        with running(folder, options) as server:
            report = measure(server, folder, bodies, options)
    report = {
        "machine": f"{platform.machine()}, processors to run on: {len(os.sched_getaffinity(0))}",
        "python": platform.python_version(),
        "workers": options.workers,
        "connections": options.connections,
        "gunicorn": options.set,
        "answer_bytes": len(answer),
        "engine_us": round(engine * 1e6, 1),
        **report,
    }
    print(json.dumps(report, indent=2))
    print(table(report))
    if not options.dry_run:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "http.json").write_text(json.dumps(report, indent=2) + "\n")
        (RESULTS / "http.md").write_text(table(report))


def prepare(store: Path, base: F32, queries: F32) -> tuple[bytes, float]:
    """Fill the store; an answer of the usual length, and the CPU seconds of a search without HTTP."""
    with vecstore.connect(str(store), maintenance="off") as database:
        ns = database.create_namespace("glosses", base.shape[1], "cosine")
        ns.insert(base)
        ns.compact()
        answers = sorted((wire.encode(wire.found(ns.search(q))) for q in queries), key=len)
        began = time.process_time()
        for _ in range(3):
            for query in queries:
                ns.search(query)
        spent = time.process_time() - began
    return answers[len(answers) // 2], spent / (3 * len(queries))


def write_bodies(folder: Path, queries: F32) -> dict[str, Path]:
    """One body a line, for each form of a vector."""
    forms = {"numbers": np.ndarray.tolist, "base64": lambda q: base64.b64encode(q.tobytes()).decode()}
    found = {}
    for form, written in forms.items():
        found[form] = folder / form
        found[form].write_text("".join(json.dumps({"vector": written(q)}) + "\n" for q in queries))
    (folder / "wrk.lua").write_text(LUA)
    return found


@contextmanager
def running(folder: Path, options: argparse.Namespace) -> Iterator[Server]:
    port, log = free_port(), folder / "log"
    arguments = [str(folder / "store"), str(port), str(options.workers), str(folder / "answer"), *options.set]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.http_app", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment(),
            cwd=ROOT,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        await_ready(server)
        eventually("the workers", lambda: len(children(process.pid)) == options.workers)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def measure(
    server: Server, folder: Path, bodies: dict[str, Path], options: argparse.Namespace
) -> dict[str, Any]:
    pids = [server.process.pid, *children(server.process.pid)]
    forms: dict[str, Any] = {}
    for form, path in bodies.items():
        routes: dict[str, list[dict[str, float]]] = {SEARCH: [], PARSE: [], PLAIN: [], BARE: []}
        for route in routes:
            wrk(server.url + route, folder, path, options.connections, 1)
        for round_number in range(options.rounds):
            for route in list(routes)[:: 1 if round_number % 2 == 0 else -1]:
                before = sum(map(cpu_seconds, pids))
                told = wrk(server.url + route, folder, path, options.connections, options.seconds)
                told["cpu_us"] = (sum(map(cpu_seconds, pids)) - before) / told["requests"] * 1e6
                routes[route].append(told)
        search, parse, plain, bare = (summary(rounds) for rounds in routes.values())
        forms[form] = {
            "body_bytes": round(path.stat().st_size / 1_000),
            "search": search,
            "parse": parse,
            "plain": plain,
            "bare": bare,
            "ratio": ratio(routes[SEARCH], routes[PARSE]),
            "ratio_to_plain": ratio(routes[SEARCH], routes[PLAIN]),
            "ratio_to_bare": ratio(routes[SEARCH], routes[BARE]),
        }
    return forms


def wrk(url: str, folder: Path, bodies: Path, connections: int, seconds: int) -> dict[str, float]:
    """Requests answered, and how long they took; every answer must be a 200."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(folder / "wrk.lua"), url],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "BENCH_BODIES": str(bodies)},
    ).stdout
    count = re.search(r"([0-9]+) requests in", done)
    if count is None or "Non-2xx" in done or "Socket errors" in done:
        sys.exit(f"{url}: {done}")
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done)
    times = {p: re.search(rf"{p}%\s+([0-9.]+)(us|ms|s)", done) for p in (50, 99)}
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    told = {"requests": float(count[1]), "requests_a_second": float(rate[1]) if rate else 0.0}
    for p, found in times.items():
        told[f"ms_p{p}"] = float(found[1]) * scale[found[2]] if found else float("nan")
    return told


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds, and the range of the CPU."""
    spent = [told["cpu_us"] for told in rounds]
    middle = {name: float(np.median([told[name] for told in rounds])) for name in rounds[0]}
    return {
        "cpu_us": round(middle["cpu_us"], 1),
        "cpu_us_min": round(min(spent), 1),
        "cpu_us_max": round(max(spent), 1),
        "requests": round(sum(told["requests"] for told in rounds)),
        "requests_a_second": round(middle["requests_a_second"]),
        "ms_p50": round(middle["ms_p50"], 2),
        "ms_p99": round(middle["ms_p99"], 2),
    }


def ratio(rounds: list[dict[str, float]], others: list[dict[str, float]]) -> float:
    """The median over the rounds of one route's CPU a request over that of another in the same round."""
    return round(
        float(np.median([a["cpu_us"] / b["cpu_us"] for a, b in zip(rounds, others, strict=True)])), 3
    )


def table(report: dict[str, Any]) -> str:
    lines = [
        f"Server CPU a request, {report['workers']} workers, {report['connections']} connections, "
        f"{report['machine']}; the engine alone {report['engine_us']} µs (`python -m bench.http`).",
        "",
        "| vector as | search, µs | parse in Flask, µs | ratio | must be (goal) | | plain Flask, µs | ratio "
        "| parse before Flask, µs | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for form in ("numbers", "base64"):
        found = report[form]
        lines.append(
            f"| {form} | {found['search']['cpu_us']:.0f} | {found['parse']['cpu_us']:.0f} "
            f"| {found['ratio']:.2f} | ≤ {FLOOR} ({GOAL}) | {'PASS' if found['ratio'] <= FLOOR else 'FAIL'} "
            f"| {found['plain']['cpu_us']:.0f} | {found['ratio_to_plain']:.2f} "
            f"| {found['bare']['cpu_us']:.0f} | {found['ratio_to_bare']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
