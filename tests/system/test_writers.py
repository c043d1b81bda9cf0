"""Many processes write one namespace at once (promises P1, P2, P4)."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

import vecstore
from tests.conftest import Bucket
from tests.system.writer import Report, Start, Work, vectors_of, write
from vecstore.invariants import check_namespace
from vecstore.manifest.history import read_epoch
from vecstore.storage.open import open_store

PROCESSES = 16
DIM = 16


def test_sixteen_processes_lose_nothing_on_a_directory(tmp_path: Path) -> None:
    _write_and_check(Work(str(tmp_path / "store"), {}, threads=3, batches=2, rows=20))


def test_sixteen_processes_lose_nothing_on_s3(s3_url: str, bucket: Bucket) -> None:
    env = {
        "AWS_ENDPOINT_URL_S3": bucket.endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",  # pragma: allowlist secret
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    _write_and_check(Work(s3_url, env, threads=3, batches=1, rows=5))


def _write_and_check(work: Work) -> None:
    with vecstore.connect(work.url, maintenance="off") as db:
        db.create_namespace("docs", dim=DIM, metric="l2")
    reports = _run(work)

    total = PROCESSES * work.threads * work.batches
    acknowledged = dict(pair for report in reports for pair in report.acknowledged)
    assert sorted(acknowledged) == [i * work.rows for i in range(total)]
    store = open_store(work.url)
    with vecstore.connect(work.url, maintenance="off") as db:
        ns = db.namespace("docs")
        stats = ns.stats()
        assert (stats.rows, stats.parts) == (total * work.rows, total)
        # No epoch is missing; each names the commits that made it and holds their parts; each batch
        # was acknowledged with the epoch that first shows it.
        history = [read_epoch(store, "docs", epoch).manifest for epoch in range(1, stats.epoch + 1)]
        commits = Counter(commit.epoch for commit in history[-1].commits)
        assert commits == Counter([1, *acknowledged.values()])
        for before, after in pairwise(history):
            assert len(after.parts) - len(before.parts) == commits[after.epoch]
        # Group commit: the manifest was switched less often than batches were acknowledged.
        switches = stats.epoch - 1
        assert switches < total
        assert switches <= sum(report.switches for report in reports)
        ids = np.arange(total * work.rows, dtype=np.uint64)
        found = ns.search_batch(vectors_of(ids, DIM), top_k=1)
        np.testing.assert_array_equal(found.ids[:, 0], ids)
    assert check_namespace(store, "docs") == []
    store.close()


def _run(work: Work) -> list[Report]:
    """Processes that share nothing but the store; forked from one that has the imports done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.system.writer", "vecstore.storage.s3"])
    barrier = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(
        PROCESSES, mp_context=context, initializer=Start.remember, initargs=(barrier,)
    ) as pool:
        return list(pool.map(write, range(PROCESSES), [work] * PROCESSES, timeout=120))
