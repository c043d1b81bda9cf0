"""What a process of `test_writers` does. Imported by the processes, so it imports no test library."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import numpy as np
import numpy.typing as npt

from vecstore.engine.database import EmbeddedDatabase
from vecstore.storage.faults import CountingStore
from vecstore.storage.open import open_store


@dataclass(frozen=True, slots=True)
class Work:
    """Every process writes ``threads * batches`` batches of ``rows`` rows, ``threads`` at a time."""

    url: str
    env: dict[str, str]
    threads: int
    batches: int
    rows: int


@dataclass(frozen=True, slots=True)
class Report:
    """First id and epoch of each acknowledged batch; conditional writes of the manifest."""

    acknowledged: list[tuple[int, int]]
    switches: int


class Start:
    """Lets all processes go together."""

    barrier: Barrier

    @classmethod
    def remember(cls, barrier: Barrier) -> None:
        cls.barrier = barrier


def write(writer: int, work: Work) -> Report:
    os.environ.update(work.env)
    store = CountingStore(open_store(work.url))
    db = EmbeddedDatabase(store)
    engine = db.namespace("docs")
    dim = engine.info().dim

    def write_batches(thread: int) -> list[tuple[int, int]]:
        done = []
        for batch in range(work.batches):
            first = ((writer * work.threads + thread) * work.batches + batch) * work.rows
            ids = np.arange(first, first + work.rows, dtype=np.uint64)
            done.append((first, engine.writes.insert(vectors_of(ids, dim), ids).epoch))
        return done

    Start.barrier.wait(120)
    with ThreadPoolExecutor(work.threads) as pool:
        acknowledged = [pair for done in pool.map(write_batches, range(work.threads)) for pair in done]
    switches = store.count("put_if_match")
    db.close()
    return Report(acknowledged, switches)


def vectors_of(ids: npt.NDArray[np.uint64], dim: int) -> npt.NDArray[np.float32]:
    """f32[N, dim]: a vector that its id alone determines."""
    return np.stack([np.random.default_rng(int(i)).standard_normal(dim, dtype=np.float32) for i in ids])
