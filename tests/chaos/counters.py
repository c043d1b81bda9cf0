"""``python -m tests.chaos.counters``: does the store keep its word on a compare-and-set, without vecstore?

Processes raise counters, each an object that is replaced under ``If-Match``, some hang up before the answer,
and SeaweedFS is killed and started again. Exit status 1 if an object was replaced twice at one etag, or a
value that was acknowledged was not built upon.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from multiprocessing.context import SpawnProcess
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import click

from tests.chaos.ledger import twice_replaced
from tests.journal import Journal, read_journal
from tests.seaweed import SeaweedFS

BUCKET = "counters"
SIZE = 3_000  # bytes of an object, about
HANG_UP = 0.2  # share of writes whose answer is not waited for
UP, DOWN = 2.5, 0.2  # seconds between two kills, and until it is started again


def raise_counter(endpoint: str, key: str, urls: tuple[str, str], number: int, folder: Path) -> None:
    """Read and replace one object, over and over, until a file named ``stop`` is there."""
    rng = Random(number)
    to_get, to_put = urls
    with Journal(folder / f"{number}.jsonl") as journal:
        while not (folder / "stop").exists():
            connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=10)
            # Refused, or cut off: what comes of it is seen by the others.
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                while True:
                    connection.request("GET", to_get)
                    answer = connection.getresponse()
                    body, old = answer.read(), answer.headers["ETag"]
                    if answer.status != 200:
                        time.sleep(0.01)  # it is not whole yet
                        break
                    value = json.loads(body)["value"] + 1
                    data = json.dumps({"value": value, "by": number, "pad": rng.randbytes(SIZE // 2).hex()})
                    began = time.monotonic_ns()
                    connection.request("PUT", to_put, body=data.encode(), headers={"If-Match": old})
                    if rng.random() < HANG_UP:
                        time.sleep(0.01 * rng.random())
                        break
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == 200:
                        new = f'"{hashlib.md5(data.encode(), usedforsecurity=False).hexdigest()}"'
                        ended = time.monotonic_ns()
                        journal.write(key=key, value=value, old=old, new=new, began=began, ended=ended)
                    if (folder / "stop").exists():
                        break


def passed_over(switches: Iterable[Mapping[str, Any]]) -> list[str]:
    """Values that were acknowledged, and whose successor was built upon another of the same number."""
    won = {(switch["key"], switch["value"]): switch for switch in switches}
    return [
        f"{key}: value {value} was acknowledged as {switch['new']}, and the next one replaced {after['old']}"
        for (key, value), switch in won.items()
        if (after := won.get((key, value + 1))) is not None and after["old"] != switch["new"]
    ]


def run(restarts: int, counters: int, clients: int, folder: Path, *, at_once: bool) -> tuple[int, list[str]]:
    """How many values were acknowledged, and what was wrong."""
    store = SeaweedFS(folder / "seaweed", at_once=at_once)
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket=BUCKET)
        for number in range(counters * clients):
            key = f"{number % counters}"
            if number < counters:
                s3.put_object(Bucket=BUCKET, Key=key, Body=b'{"value": 0}')
            at = {"Params": {"Bucket": BUCKET, "Key": key}, "ExpiresIn": 86_400}
            get, put = (s3.generate_presigned_url(what, **at) for what in ("get_object", "put_object"))
            given = (store.endpoint, key, (get, put), number, folder)
            processes.append(context.Process(target=raise_counter, args=given))
            processes[-1].start()
        for _ in range(restarts):
            time.sleep(UP)
            store.kill()
            time.sleep(DOWN)
            store.start()
        time.sleep(UP)
    finally:
        (folder / "stop").touch()
        for process in processes:
            process.join()
        store.stop()
    switches = [record for path in sorted(folder.glob("*.jsonl")) for record in read_journal(path)]
    return len(switches), twice_replaced(switches) + passed_over(switches)


@click.command()
@click.option("--restarts", type=int, default=20, show_default=True)
@click.option("--counters", type=int, default=5, show_default=True)
@click.option("--clients", type=int, default=3, show_default=True, help="Of each counter.")
@click.option("--at-once", is_flag=True, help="Let the gateway serve before it knows the filers.")
def main(restarts: int, counters: int, clients: int, at_once: bool) -> None:
    """Counters on SeaweedFS, raised under If-Match while it is killed over and over."""
    with tempfile.TemporaryDirectory(prefix="vecstore-counters-") as folder:
        acknowledged, problems = run(restarts, counters, clients, Path(folder), at_once=at_once)
    print(f"{acknowledged:,} values acknowledged, {restarts} restarts; {len(problems)} problems")
    for problem in problems:
        print(problem)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
