"""Five times what a server can do, through nginx: ``python -m bench.overload``.

gunicorn with two workers on a directory, nginx with ``deploy/nginx.conf`` before it. A request is sixteen
searches by id in the shipped sample: small to send, some milliseconds of a processor to answer, so that
one process can send several times as many as two workers answer. Measured are, in this order: capacity
(a closed loop over as many connections as are served at once), the normal latency (an open loop at 80 %
of it), the overload (an open loop at 500 %), and how long it takes from its end until a second of requests
at 80 % has a 99th percentile of at most twice the normal one and nothing is refused.

Capacity is measured once more in the end: where it is not what it was (machines that others share), 80 % of
it was not the normal load, and neither "normal" nor "recovery" says much.

Floors: the p99 of accepted requests under overload at most four times the normal one; recovery within 5 s;
no answer but 200 and 429. The exit status says whether they hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import vecstore
from bench.open_loop import Client, Outcomes, Request, closed_loop, open_loop, post, quantile
from tests.deploy.support import Nginx, nginx
from tests.server.support import running_server
from vecstore.sample import load_sample

TIMES = 5.0
NORMAL = 0.8
MOST_P99 = 4.0
MOST_RECOVERY = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--queries", type=int, default=16, help="of a request")
    parser.add_argument("--connections", type=int, default=300, help="that the generator opens at most")
    parser.add_argument("--set", action="append", default=[], metavar="VECSTORE_NAME=VALUE")
    options = parser.parse_args()
    env = dict(one.split("=", 1) for one in options.set)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = prepare(folder / "data", options.queries)
        arguments = ("--workers", str(options.workers), "--no-maintenance")
        with (
            running_server(folder / "data", *arguments, **env) as server,
            nginx(folder / "nginx", server.url.removeprefix("http://")) as proxy,
        ):
            report = asyncio.run(measure(proxy, bodies, options))
    print(json.dumps(report, indent=2))
    sys.exit(0 if all(report["floors"].values()) else 1)


def prepare(store: Path, queries: int) -> list[bytes]:
    """Fill the store; bodies of requests."""
    data = load_sample(Path(__file__).parent.parent / "examples" / "glosses")
    with vecstore.connect(str(store), maintenance="off") as database:
        ns = database.create_namespace("docs", data.vectors.shape[1], "cosine")
        ns.insert(data.vectors, ids=data.ids)
        ns.compact()
    rng, ids = Random(1), data.ids.tolist()
    return [
        json.dumps({"queries": [{"id": one, "top_k": 50} for one in rng.sample(ids, queries)]}).encode()
        for _ in range(200)
    ]


async def measure(proxy: Nginx, bodies: list[bytes], options: argparse.Namespace) -> dict[str, Any]:
    rng, seconds = Random(2), options.seconds

    def make() -> Request:
        return post("/v1/namespaces/docs/queries", rng.choice(bodies), kind="queries")

    client = Client(proxy.host, proxy.port, proxy.context(), options.connections)
    served = 8 * options.workers
    with suppress(PermissionError):
        os.nice(-5)  # before the servers, or it would be this process that is measured
    await client.open(options.connections)
    await closed_loop(client, served, 3.0, make)
    full = await closed_loop(client, served, seconds, make)
    capacity = len(full.accepted()) / seconds
    normal = Outcomes()
    await open_loop(client, NORMAL * capacity, seconds, make, rng, normal)
    normal_p99 = quantile(normal.accepted(), 0.99)
    over = Outcomes()
    began = time.perf_counter()
    await open_loop(client, TIMES * capacity, seconds, make, rng, over)
    ended = began + seconds
    recovery = await recover(client, NORMAL * capacity, make, rng, ended, 2 * normal_p99)
    after = len((await closed_loop(client, served, seconds, make)).accepted()) / seconds
    await client.close()
    accepted, statuses = over.accepted(), over.statuses()
    over_p99 = quantile(accepted, 0.99)
    floors = {
        "p99": over_p99 <= MOST_P99 * normal_p99,
        "recovery": recovery <= MOST_RECOVERY,
        "statuses": set(statuses) <= {200, 429} and set(normal.statuses()) <= {200, 429},
    }
    return {
        "capacity_a_second": round(capacity, 1),
        "normal": {
            "rate": round(NORMAL * capacity, 1),
            "ms_p50": round(1e3 * quantile(normal.accepted(), 0.5), 1),
            "ms_p99": round(1e3 * normal_p99, 1),
            "statuses": dict(normal.statuses()),
            "ms_p99_generator_late": round(1e3 * quantile(normal.lags, 0.99), 1),
        },
        "overload": {
            "rate": round(len(over.all) / seconds, 1),
            "accepted_a_second": round(len(accepted) / seconds, 1),
            "share_shed": round(statuses[429] / len(over.all), 3),
            "ms_p50": round(1e3 * quantile(accepted, 0.5), 1),
            "ms_p99": round(1e3 * over_p99, 1),
            "p99_over_normal": round(over_p99 / normal_p99, 2),
            "ms_p99_of_429": round(1e3 * quantile([o.seconds for o in over.all if o.status == 429], 0.99), 1),
            "no_connection_free": over.late,
            "statuses": dict(statuses),
            "errors": dict(Counter(one.error for one in over.all if one.error)),
            "ms_p99_generator_late": round(1e3 * quantile(over.lags, 0.99), 1),
        },
        "recovery_seconds": round(recovery, 2),
        "capacity_after_a_second": round(after, 1),
        "floors": floors,
    }


async def recover(client: Client, rate: float, make: Any, rng: Random, ended: float, most: float) -> float:
    """Seconds from the end of the overload until a second of requests is as normal."""
    while True:
        since = time.perf_counter()
        outcomes = Outcomes()
        await open_loop(client, rate, 1.0, make, rng, outcomes)
        if quantile(outcomes.accepted(), 0.99) <= most and set(outcomes.statuses()) == {200}:
            return since - ended
        if since - ended > 60.0:
            return float("inf")


if __name__ == "__main__":
    main()
