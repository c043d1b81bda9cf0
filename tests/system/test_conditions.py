"""Conditional writes of many processes: a counter loses nothing, a seat is taken once (promises P2, P4)."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import vecstore
from tests.conftest import Bucket
from tests.system.contender import DIM, Taken, contend
from tests.system.writer import Start
from vecstore.invariants import check_namespace
from vecstore.storage.open import open_store

PROCESSES = 8
STEPS = 4  # that each process adds to the counter
SEATS = 4  # that all of them want


def test_conditions_hold_between_processes_on_a_directory(tmp_path: Path) -> None:
    _contend_and_check(str(tmp_path / "store"), {})


def test_conditions_hold_between_processes_on_s3(s3_url: str, bucket: Bucket) -> None:
    _contend_and_check(s3_url, _environment(bucket))


def _environment(bucket: Bucket) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": bucket.endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",  # pragma: allowlist secret
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _contend_and_check(url: str, env: dict[str, str]) -> None:
    with vecstore.connect(url, maintenance="off") as db:
        ns = db.create_namespace("docs", dim=DIM, metric="l2")
        ns.insert(np.zeros((1, DIM)), [0], attributes={"count": [0], "pairs": [0]})
    taken = _run(url, env)

    store = open_store(url)
    with vecstore.connect(url, maintenance="off") as db:
        ns = db.namespace("docs")
        counter = ns.get(0).attributes
        assert counter is not None
        # Every step that was acknowledged took the counter from one value to the next, and none was lost
        # to the patches of another attribute that went on meanwhile.
        assert sorted(value for one in taken for value in one.steps) == list(range(1, PROCESSES * STEPS + 1))
        assert counter["count"] == PROCESSES * STEPS
        assert counter["pairs"] == PROCESSES * STEPS
        assert sum(one.refused for one in taken) > 0, "nobody contended: the test says nothing"
        for seat in range(SEATS):
            winners = [number for number, one in enumerate(taken) if 100 + seat in one.seats]
            assert len(winners) == 1
            row = ns.get(100 + seat)
            assert row.attributes == {"count": None, "pairs": None, "owner": winners[0]}
            assert row.vector is not None
            assert row.vector[0] == winners[0]
        assert ns.stats().rows == 1 + SEATS
    assert check_namespace(store, "docs") == []
    store.close()


def _run(url: str, env: dict[str, str]) -> list[Taken]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.system.contender", "vecstore.storage.s3"])
    barrier = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(
        PROCESSES, mp_context=context, initializer=Start.remember, initargs=(barrier,)
    ) as pool:
        every = range(PROCESSES)
        asked = [[url] * PROCESSES, [env] * PROCESSES, [STEPS] * PROCESSES, [SEATS] * PROCESSES]
        return list(pool.map(contend, every, *asked, timeout=240))
