"""What eight processes read and wrote of a few ids could have been done one at a time (P1, P4).

Five work on the store itself and three through a server; some are killed, and once the server is.
VECSTORE_TEST_SECONDS sets how long each run takes.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random

import pytest

import vecstore
from tests.conftest import Bucket
from tests.journal import Journal
from tests.linearizability import Operation, contradiction
from tests.server.support import eventually
from tests.system.histories import DIM, IDS, NAMESPACE, Client, read_history, run
from tests.system.processes import Server
from vecstore.invariants import check_namespace
from vecstore.storage.open import open_store

SECONDS = float(os.environ.get("VECSTORE_TEST_SECONDS", "5"))
EMBEDDED, REMOTE = 5, 3
KILLS_A_SECOND = 1.0
KINDS = ("read", "upsert", "insert", "delete", "clash")
PATIENCE = 60.0  # seconds more, on a machine that is so busy that not even one of each kind was answered


@pytest.fixture
def seaweed_url(seaweed_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed_bucket.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return f"s3://{seaweed_bucket.name}/{tmp_path.name}"


def test_histories_on_a_directory_are_linearizable(tmp_path: Path) -> None:
    _run_and_judge(str(tmp_path / "store"), tmp_path, seed=1, restart=True)


def test_histories_on_seaweedfs_are_linearizable(seaweed_url: str, tmp_path: Path) -> None:
    _run_and_judge(seaweed_url, tmp_path, seed=2, restart=False)


def _run_and_judge(url: str, folder: Path, *, seed: int, restart: bool) -> None:
    with vecstore.connect(url, maintenance="off") as db:
        db.create_namespace(NAMESPACE, dim=DIM, metric="l2", small_part_threshold=0)
    server = Server(
        url,
        folder / "server.log",
        workers=2,
        VECSTORE_MAINTENANCE_INTERVAL="0.5",
        VECSTORE_GC_INTERVAL="1",
        VECSTORE_GC_RETENTION="5",
        VECSTORE_GC_GRACE="5",
    )
    server.start()
    try:
        running = _run_clients(url, server, folder, seed, restart)
    finally:
        server.stop()

    history = read_history(sorted(folder.glob("client-*.jsonl")))
    assert [process.exitcode for process in running] == [0] * len(running)
    kinds = _kinds(history)
    print(f"{kinds.total()} operations: {dict(kinds)}; {_unknown(history)} unknown")
    for kind in KINDS:
        assert kinds[kind] > 0, f"no {kind}: {kinds}"
    for identity, operations in history.items():
        wrong = contradiction(operations)
        assert wrong is None, f"id {identity}: nothing explains {wrong}\n{_around(operations, wrong)}"
    store = open_store(url)
    assert check_namespace(store, NAMESPACE) == []
    store.close()


def _run_clients(url: str, server: Server, folder: Path, seed: int, restart: bool) -> list[ForkServerProcess]:
    """Eight at a time; a killed one is followed by another with a journal of its own. The last eight."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.system.histories", "vecstore.storage.s3", "vecstore.client"])
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    rng = Random(seed)
    started = 0

    def start(where: str) -> tuple[str, ForkServerProcess]:
        nonlocal started
        started += 1
        process = context.Process(target=run, args=(Client(where, started, folder, seed, env),))
        process.start()
        return where, process

    running = [start(where) for where in [url] * EMBEDDED + [server.url] * REMOTE]
    try:
        eventually("all have begun", lambda: len(list(folder.glob("client-*.jsonl"))) == len(running))
        end = time.monotonic() + SECONDS
        restart_at = end - SECONDS / 2 if restart else math.inf
        while (now := time.monotonic()) < end or (now < end + PATIENCE and not _every_kind(folder)):
            if now > restart_at:
                restart_at = math.inf
                server.kill()
                server.start()
            time.sleep(rng.random() * 2 / KILLS_A_SECOND)
            place = rng.randrange(len(running))
            where, process = running[place]
            process.kill()
            process.join()
            running[place] = start(where)
    finally:
        (folder / "stop").touch()
        for _, process in running:
            process.join(60)
            if process.is_alive():
                process.kill()
    return [process for _, process in running]


def _kinds(history: dict[int, list[Operation]]) -> Counter[str]:
    return Counter(operation.kind for operations in history.values() for operation in operations)


def _every_kind(folder: Path) -> bool:
    kinds = _kinds(read_history(folder.glob("client-*.jsonl")))
    return all(kinds[kind] for kind in KINDS)


def _unknown(history: dict[int, list[Operation]]) -> int:
    return sum(operation.ended == float("inf") for operations in history.values() for operation in operations)


def _around(operations: list[Operation], wrong: Operation | None) -> str:
    """What was under way in the second before, for people."""
    assert wrong is not None
    near = [o for o in operations if o.began <= wrong.ended and o.ended >= wrong.began - 1e9]
    return "\n".join(map(str, sorted(near, key=lambda operation: operation.began)))


def test_what_journals_say_is_what_is_judged(tmp_path: Path) -> None:
    """A delete that is undone, a write of a killed client that is seen, a refused one that is seen too."""
    with Journal(tmp_path / "client-1.jsonl") as mine, Journal(tmp_path / "client-2.jsonl") as other:
        mine.write(write=10, kind="upsert", ids=[0, 1], values=[10, 11], began=0)
        mine.write(answer=10, outcome="done", count=0, ended=1)
        mine.write(write=20, kind="delete", ids=[0], values=[20], began=2)
        mine.write(answer=20, outcome="done", count=1, ended=3)
        mine.write(write=30, kind="upsert", ids=[2], values=[30], began=4)
        mine.write(answer=30, outcome="refused", count=None, ended=5)
        mine.write(write=40, kind="insert", ids=[1], values=[40], began=6)
        mine.write(answer=40, outcome="clash", count=None, ended=7)
        other.write(write=50, kind="upsert", ids=[3], values=[50], began=0)
        mine.write(read=list(IDS), found={"1": 11, "3": 50}, began=8, ended=9)

        def wrong() -> list[int]:
            history = read_history(sorted(tmp_path.glob("client-*.jsonl")))
            return [identity for identity, operations in history.items() if contradiction(operations)]

        assert wrong() == []
        mine.write(read=list(IDS), found={"0": 10, "1": 11, "2": 30}, began=10, ended=11)
        assert wrong() == [0, 2, 3]
