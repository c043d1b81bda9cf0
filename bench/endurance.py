"""A site under load for half an hour: ``python -m bench.endurance --minutes 30``.

nginx with ``deploy/nginx.conf``, ``vecstore serve`` with two workers and its maintenance process, SeaweedFS.
A closed loop of reads over 100 connections measures capacity while upserts and what they bring about
(snapshots, small parts, compaction) go on beside it; then, in an open loop at 80 % of it, searches, scans,
aggregates and upserts with an ``Idempotency-Key`` arrive at random times. For the first 40 % of the time
the server is told to reload (SIGHUP) or a worker is killed (SIGKILL), in turn; in the rest nothing
is, so that growth of memory and handles can be told from processes that are new.

Floors, by the exit status:

- searches, scans and aggregates: none without its answer (nginx repeats what a killed worker leaves);
- upserts: none that the client, which repeats a failure under its key, did not get through, and no failure
  at the wire but within ten seconds after a kill;
- no other answer than 2xx and 429, whose share is told;
- memory (anonymous and resident) and open handles of all processes of nginx and vecstore together, between
  the first and the last quarter of the quiet time: at most 5 % and 16 MiB, 5 % and 16 handles more;
- every acknowledged upsert is there in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import boto3
import numpy as np

import vecstore
from bench.open_loop import Client, Outcome, Outcomes, Request, closed_loop, open_loop, post, quantile
from tests.deploy.support import Nginx, nginx
from tests.seaweed import KEY, seaweedfs
from tests.server.support import Server, arguments, children, running_server
from vecstore.errors import RowNotFound
from vecstore.sample import load_sample

CONNECTIONS = 100
SHARE = 0.8
DISTURBED = 0.4  # of the time
NAMESPACES = 8  # each remembers 1,000 keys
UPSERTS_A_SECOND = 2.0
AFTER_A_KILL = 10.0
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two disturbances")
    parser.add_argument("--set", action="append", default=[], metavar="VECSTORE_NAME=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, seaweedfs(Path(name) / "seaweed") as store:
        folder = Path(name)
        env = {
            "AWS_ENDPOINT_URL_S3": store.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        os.environ.update(env)
        boto3.client("s3", endpoint_url=store.endpoint).create_bucket(Bucket="endurance")
        url = "s3://endurance/vectors"
        site = prepare(url)
        settings = {
            "VECSTORE_MAINTENANCE_INTERVAL": "5",
            "VECSTORE_GC_INTERVAL": "60",
            "VECSTORE_GC_RETENTION": "60",
            "VECSTORE_GC_GRACE": "300",
            # So small that it is full before the quiet time: a cache that fills would look like growth.
            "VECSTORE_CACHE_BYTES": str(4 << 20),
            "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",  # as deploy/ sets it
            **dict(one.split("=", 1) for one in options.set),
        }
        with (
            running_server(url, "--workers", str(options.workers), **env, **settings) as server,
            nginx(folder / "nginx", server.url.removeprefix("http://")) as proxy,
        ):
            report = asyncio.run(run(site, server, proxy, options))
        report["upserts_missing"] = missing(url, report.pop("acknowledged"))
        report["floors"]["acknowledged"] = not report["upserts_missing"]
    print(json.dumps(report, indent=2))
    sys.exit(0 if all(report["floors"].values()) else 1)


@dataclass(slots=True)
class Work:
    """Requests."""

    queries: list[bytes]
    rng: Random
    number: int = 0

    def read(self) -> Request:
        ns, chance = f"docs-{self.rng.randrange(NAMESPACES)}", self.rng.random()
        path = f"/v1/namespaces/{ns}"
        if chance < 0.02:
            return post(f"{path}/rows/scan", b'{"limit": 20}', kind="scan")
        if chance < 0.04:
            asked = b'{"aggregate_by": {"n": ["Count"], "most": ["Max", "number"]}}'
            return post(f"{path}/aggregate", asked, kind="aggregate")
        return post(f"{path}/search", self.rng.choice(self.queries), kind="search")

    def upsert(self) -> Request:
        """Of one of few rows, so that what there is does not grow; the number of each only rises."""
        self.number += 1
        ns, row = f"docs-{self.number % NAMESPACES}", self.number // NAMESPACES % 50
        vector = [float((self.number + i) % 7) for i in range(384)]
        body = {"ids": [row], "vectors": [vector], "attributes": {"number": [self.number]}}
        about, data = (ns, row, self.number), json.dumps(body).encode()
        return post(f"/v1/namespaces/{ns}/parts", data, kind="upsert", key=f"k{self.number}", about=about)


def prepare(url: str) -> Work:
    """Fill the store."""
    data = load_sample(Path(__file__).parent.parent / "examples" / "glosses")
    with vecstore.connect(url, maintenance="off") as database:
        for number in range(NAMESPACES):
            ns = database.create_namespace(
                f"docs-{number}", data.vectors.shape[1], "cosine", schema={"number": {"type": "int"}}
            )
            some = slice(1_000 * number, 1_000 * (number + 1))
            ns.insert(data.vectors[some], ids=np.arange(1_000, 2_000))
    vectors = [base64.b64encode(one.astype("<f4").tobytes()).decode() for one in data.query_vectors]
    return Work([json.dumps({"vector": one}).encode() for one in vectors], Random(1))


def missing(url: str, acknowledged: list[Any]) -> list[str]:
    """Upserts that were acknowledged, and whose row was given neither their number nor a later one."""
    latest: dict[tuple[str, int], int] = {}
    for name, row, number in acknowledged:
        latest[(name, row)] = max(number, latest.get((name, row), 0))
    found = []
    with vecstore.connect(url, maintenance="off") as database:
        for (name, row), number in latest.items():
            try:
                there = (database.namespace(name).get(row).attributes or {})["number"]
            except RowNotFound:
                there = 0
            if there < number:
                found.append(f"{name}/{row}: {there}, not {number}")
    return found


# -- what is done to the site ----------------------------------------------------------------


def workers(server: Server) -> list[int]:
    return [pid for pid in children(server.process.pid) if "maintain" not in arguments(pid)]


async def disturb(server: Server, until: float, every: float) -> list[tuple[float, str]]:
    """Reloads and kills in turn; when each was done."""
    done: list[tuple[float, str]] = []
    while time.perf_counter() + every < until:
        await asyncio.sleep(every)
        if len(done) % 2:
            os.kill(random.choice(workers(server)), signal.SIGKILL)
            done.append((time.perf_counter(), "kill"))
        else:
            server.process.send_signal(signal.SIGHUP)
            done.append((time.perf_counter(), "reload"))
    return done


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    anonymous: int
    resident: int
    handles: int


def look(pids: list[int]) -> Sample:
    """Of processes and all that they have started."""
    found, waiting = set[int](), list(pids)
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children(pid)
    anonymous = resident = handles = 0
    for pid in found:
        try:
            status = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if ":" in line
            )
            anonymous += int(status["RssAnon"].split()[0]) << 10
            resident += int(status["VmRSS"].split()[0]) << 10
            handles += len(os.listdir(f"/proc/{pid}/fd"))
        except (OSError, KeyError):  # it has just ended
            continue
    return Sample(time.perf_counter(), anonymous, resident, handles)


async def watch(pids: list[int], samples: list[Sample]) -> None:
    while True:
        samples.append(await asyncio.to_thread(look, pids))
        await asyncio.sleep(2.0)


# -- one run -------------------------------------------------------------------------------------


async def run(work: Work, server: Server, proxy: Nginx, options: argparse.Namespace) -> dict[str, Any]:
    client = Client(proxy.host, proxy.port, proxy.context(), CONNECTIONS)
    await client.open(CONNECTIONS)
    seconds = 60.0 * options.minutes
    part = min(60.0, seconds / 10)
    upserts = asyncio.create_task(
        open_loop(client, UPSERTS_A_SECOND, 2 * part, work.upsert, Random(4), Outcomes())
    )
    await closed_loop(client, CONNECTIONS, part, work.read)  # until small parts come and go as they will
    full = await closed_loop(client, CONNECTIONS, part, work.read)
    await upserts
    capacity = len(full.accepted()) / part
    outcomes, samples = Outcomes(), list[Sample]()
    watching = asyncio.create_task(watch([server.process.pid, proxy.process.pid], samples))
    began = time.perf_counter()
    quiet = began + DISTURBED * seconds
    disturbing = asyncio.create_task(disturb(server, quiet, options.every))
    await asyncio.gather(
        open_loop(client, SHARE * capacity, seconds, work.read, Random(2), outcomes),
        open_loop(client, UPSERTS_A_SECOND, seconds, work.upsert, Random(3), outcomes),
    )
    watching.cancel()
    disturbances = await disturbing
    await client.close()
    return judged(capacity, outcomes, samples, disturbances, quiet)


def judged(
    capacity: float,
    outcomes: Outcomes,
    samples: list[Sample],
    disturbances: list[tuple[float, str]],
    quiet: float,
) -> dict[str, Any]:
    kills = [at for at, what in disturbances if what == "kill"]
    failed = [one for one in outcomes.all if one.status == 0 or one.status >= 500]
    others = Counter(one.status for one in outcomes.all if 300 <= one.status < 500 and one.status != 429)
    reads = [one for one in failed if one.kind != "upsert"]
    writes = [one for one in failed if one.kind == "upsert"]
    given_up = [one for one in writes if one.attempt == 4]
    unexplained = [one for one in writes if not any(0 <= ended(one) - at <= AFTER_A_KILL for at in kills)]
    shed = outcomes.statuses()[429] / len(outcomes.all)
    calm = [one for one in samples if one.at >= quiet + 5.0]
    quarter = max(1, len(calm) // 4)
    growth = {
        name: (
            statistics.median(getattr(one, name) for one in calm[:quarter]),
            statistics.median(getattr(one, name) for one in calm[-quarter:]),
        )
        for name in ("anonymous", "resident", "handles")
    }
    latest = {
        kind: {
            "ms_p50": round(1e3 * quantile(outcomes.accepted(kind), 0.5), 1),
            "ms_p99": round(1e3 * quantile(outcomes.accepted(kind), 0.99), 1),
        }
        for kind in ("search", "scan", "aggregate", "upsert")
    }
    return {
        "acknowledged": [
            one.about for one in outcomes.all if one.kind == "upsert" and 200 <= one.status < 300
        ],
        "capacity_a_second": round(capacity, 1),
        "requests": len(outcomes.all),
        "reloads": len(disturbances) - len(kills),
        "kills": len(kills),
        "statuses": dict(outcomes.statuses()),
        "share_429": round(shed, 5),
        "failed_reads": [told(one, disturbances) for one in reads[:20]],
        "failed_writes_at_the_wire": [told(one, disturbances) for one in writes[:20]],
        "latency": latest,
        "ms_p99_generator_late": round(1e3 * quantile(outcomes.lags, 0.99), 1),
        "memory_mib": {k: [round(v / MIB, 1) for v in growth[k]] for k in ("anonymous", "resident")},
        "handles": growth["handles"],
        "floors": {
            "reads": not reads,
            "writes": not given_up and not unexplained,
            "statuses": not others,
            **{
                name: last <= 1.05 * first + (16 if name == "handles" else 16 * MIB)
                for name, (first, last) in growth.items()
            },
        },
    }


def ended(one: Outcome) -> float:
    return one.due + one.seconds


def told(one: Outcome, disturbances: list[tuple[float, str]]) -> str:
    """A failure, and what was done before it."""
    before = [f"{ended(one) - at:.1f} s after a {what}" for at, what in disturbances if at <= ended(one)]
    return f"{one.kind}: {one.status or one.error}, {before[-1] if before else 'undisturbed'}"


if __name__ == "__main__":
    main()
