"""Servers over one store: what one acknowledges the others show, and a kill loses nothing (P1, P2, P4).

VECSTORE_TEST_ROWS sets how many rows are ingested: the sample's 10,000 unless told otherwise; more
are made of its rows with some noise.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import vecstore
from tests import core
from tests.server.support import eventually
from tests.system.processes import Server
from vecstore.errors import OutcomeUnknown, RowNotFound, ServerUnavailable
from vecstore.invariants import check_namespace
from vecstore.storage.open import open_store

ROWS = int(os.environ.get("VECSTORE_TEST_ROWS", "10000"))
CLIENTS = 4
BATCHES = 32
SEEN = 10  # rows of a batch that the other server is asked for
WHOLE = {"probe_fraction": 1.0, "rerank_precision": "fp32"}

F32 = npt.NDArray[np.float32]
Start = Callable[..., Server]


@dataclass
class Ingest:
    """Batches of consecutive ids, and what became of each."""

    vectors: F32
    batches: list[range]
    acknowledged: dict[int, int] = field(default_factory=dict)
    tried: set[int] = field(default_factory=set)

    def insert(self, ns: vecstore.Namespace, number: int) -> int:
        """Insert a batch; its epoch once it is acknowledged."""
        rows = self.batches[number]
        self.tried.add(number)
        done = ns.insert(self.vectors[rows.start : rows.stop], ids=np.arange(rows.start, rows.stop))
        assert done.n == len(rows)
        self.acknowledged[number] = done.epoch
        return done.epoch

    def check_visible(self, ns: vecstore.Namespace, number: int) -> None:
        """A strong search finds the batch now."""
        rows = self.batches[number][:: max(1, len(self.batches[number]) // SEEN)]
        hits = ns.search_batch(self.vectors[list(rows)], top_k=1, **WHOLE)
        assert hits.epoch >= self.acknowledged[number]
        np.testing.assert_array_equal(hits.ids[:, 0], list(rows))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server over the test's store; all are stopped in the end."""
    started: list[Server] = []

    def make(*, workers: int) -> Server:
        server = Server(tmp_path / "store", tmp_path / f"server-{len(started)}.log", workers=workers)
        started.append(server)
        server.start()
        return server

    yield make
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def ingest_rows() -> F32:
    rng = np.random.default_rng(3)
    rows = core.sample().vectors
    rows = rows[np.arange(ROWS) % len(rows)]
    # No two alike, so that the nearest row of each is itself.
    return rows + rng.standard_normal(rows.shape, dtype=np.float32) * np.float32(0.005)


def test_what_one_server_acknowledges_the_other_shows(start: Start, ingest_rows: F32, tmp_path: Path) -> None:
    servers = [start(workers=1), start(workers=1)]
    ingest = _new_ingest(servers[0], ingest_rows)

    def client(number: int) -> None:
        with (
            vecstore.connect(servers[number % 2].url) as mine,
            vecstore.connect(servers[(number + 1) % 2].url) as other,
        ):
            writes, reads = mine.namespace("docs"), other.namespace("docs")
            for batch in range(number, BATCHES, CLIENTS):
                ingest.insert(writes, batch)
                ingest.check_visible(reads, batch)

    _run_clients(client)
    _check_all_there(ingest, tmp_path)


def test_what_one_worker_acknowledges_the_other_shows(start: Start, ingest_rows: F32, tmp_path: Path) -> None:
    server = start(workers=2)
    assert len(server.workers()) == 2
    ingest = _new_ingest(server, ingest_rows)

    def client(number: int) -> None:
        # Each connection goes to whichever worker accepts it, so several reads meet both.
        with vecstore.connect(server.url) as mine:
            for batch in range(number, BATCHES, CLIENTS):
                ingest.insert(mine.namespace("docs"), batch)
                for _ in range(3):
                    with vecstore.connect(server.url) as other:
                        ingest.check_visible(other.namespace("docs"), batch)

    _run_clients(client)
    _check_all_there(ingest, tmp_path)


def test_workers_killed_in_mid_ingest_lose_nothing_acknowledged(
    start: Start, ingest_rows: F32, tmp_path: Path
) -> None:
    server = start(workers=2)
    ingest = _new_ingest(server, ingest_rows)
    waiting = list(range(BATCHES))
    lock = threading.Lock()
    stop = threading.Event()

    def client(_: int) -> None:
        mine = vecstore.connect(server.url, timeout=30.0, attempts=1)
        with mine, suppress(OutcomeUnknown, ServerUnavailable):
            ns = mine.namespace("docs")
            while not stop.is_set():
                with lock:
                    if not waiting:
                        return
                    batch = waiting.pop(0)
                ingest.insert(ns, batch)

    for quarter in (1, 2, 3):
        with ThreadPoolExecutor(CLIENTS) as pool:
            running = [pool.submit(client, number) for number in range(CLIENTS)]
            eventually("a quarter more is in", lambda q=quarter: len(ingest.acknowledged) >= q * BATCHES // 4)
            server.kill()
            stop.set()
            for done in running:
                done.result(60)
        stop.clear()
        server.start()
        _check_whole_or_absent(ingest, server)
    assert ingest.tried - set(ingest.acknowledged), "no insert was cut off: nothing was tested"
    _run_clients(client)
    # What nobody answered for is tried again: the batch is there once, whatever became of it before.
    with vecstore.connect(server.url) as db:
        for batch in sorted(ingest.tried - set(ingest.acknowledged)):
            ingest.insert(db.namespace("docs"), batch)
    _check_all_there(ingest, tmp_path)


def _new_ingest(server: Server, vectors: F32) -> Ingest:
    with vecstore.connect(server.url) as db:
        db.create_namespace("docs", dim=vectors.shape[1])
    bounds = np.linspace(0, len(vectors), BATCHES + 1).astype(int).tolist()
    return Ingest(vectors, [range(*pair) for pair in pairwise(bounds)])


def _run_clients(client: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client, number) for number in range(CLIENTS)]:
            done.result(300)


def _check_whole_or_absent(ingest: Ingest, server: Server) -> None:
    """Through the restarted server: every acknowledged batch, and of the others all or nothing."""
    with vecstore.connect(server.url) as db:
        ns = db.namespace("docs")
        there = 0
        for batch in sorted(ingest.tried):
            rows = ingest.batches[batch]
            present = [_is_there(ns, row) for row in (rows[0], rows[len(rows) // 2], rows[-1])]
            assert len(set(present)) == 1, f"batch {batch} is there in part"
            assert present[0] or batch not in ingest.acknowledged, (
                f"batch {batch} was acknowledged and is lost"
            )
            there += len(rows) if present[0] else 0
            if present[0] and batch in ingest.acknowledged:
                ingest.check_visible(ns, batch)
        # The count closes the gaps between the rows that were asked for.
        assert ns.stats().rows == there


def _is_there(ns: vecstore.Namespace, row: int) -> bool:
    try:
        return ns.get(row, include_vector=False).id == row
    except RowNotFound:
        return False


def _check_all_there(ingest: Ingest, tmp_path: Path) -> None:
    """Every row of every batch is there once, under its vector, in a store that is sound."""
    assert sorted(ingest.acknowledged) == list(range(BATCHES))
    with vecstore.connect(str(tmp_path / "store"), maintenance="off") as db:
        ns = db.namespace("docs")
        assert ns.stats().rows == len(ingest.vectors)
        for row in range(0, len(ingest.vectors), 37):
            np.testing.assert_array_equal(ns.get(row).vector, ingest.vectors[row])
        found = ns.search_batch(ingest.vectors[::97], top_k=1, **WHOLE)
        np.testing.assert_array_equal(found.ids[:, 0], np.arange(0, len(ingest.vectors), 97))
    store = open_store(str(tmp_path / "store"))
    assert check_namespace(store, "docs") == []
    store.close()
