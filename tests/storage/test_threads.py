"""Threads that the system does not give: told by name, nothing half done, and all goes on with some."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecstore
from vecstore.errors import TooManyRequests
from vecstore.storage.threads import Pool, Workers, start

ROWS = np.random.default_rng(1).standard_normal((60, 8)).astype(np.float32)

Give = Callable[[int], None]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Lets only so many more threads start."""
    left = [1 << 30]
    really = threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        really(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)

    def give(count: int) -> None:
        left[0] = count

    return give


@pytest.mark.parametrize("kind", [Workers, Pool])
def test_a_pool_makes_do_with_the_threads_that_it_has(give: Give, kind: type[Workers]) -> None:
    give(1)
    with kind(4) as pool:
        assert list(pool.map(abs, range(-9, 0))) == list(range(9, 0, -1))


@pytest.mark.parametrize("kind", [Workers, Pool])
def test_what_was_refused_is_not_done_later(give: Give, kind: type[Workers]) -> None:
    done: list[int] = []
    give(0)
    with kind(4) as pool:
        with pytest.raises(TooManyRequests, match="no more threads"):
            pool.submit(done.append, 1)
        give(9)
        pool.submit(done.append, 2).result()
    assert done == [2]


def test_a_thread_of_its_own_is_refused_by_name(give: Give) -> None:
    give(0)
    with pytest.raises(TooManyRequests, match="no more threads"):
        start(threading.Thread(target=list))


CALLS: dict[str, Callable[[Any], object]] = {
    "search": lambda ns: ns.search(ROWS[0], top_k=1).ids.tolist(),
    "insert": lambda ns: ns.insert(ROWS[:1], ids=[100]).n,
    "delete": lambda ns: ns.delete(ids=[0]).deleted,
    "search_batch": lambda ns: ns.search_batch(ROWS[:40], top_k=1).ids.shape,
    "compact": lambda ns: len(ns.compact().merged),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("maintenance", ["thread", "off"])
def test_a_database_is_whole_and_usable_after_it_had_no_thread(
    tmp_path: Path, give: Give, call: str, maintenance: Any
) -> None:
    with vecstore.connect(tmp_path, maintenance="off") as db:
        ns = db.create_namespace("ns", dim=8)
        for i in range(5):
            ns.insert(ROWS[i * 10 : i * 10 + 10], ids=range(i * 10, i * 10 + 10))
    with vecstore.connect(tmp_path, maintenance=maintenance) as db:
        ns = db.namespace("ns")
        give(0)
        with pytest.raises(TooManyRequests):
            CALLS[call](ns)
        assert ns.stats().rows == 50
        give(1)
        expected = {"search": [0], "insert": 1, "delete": 1, "search_batch": (40, 1), "compact": 5}
        assert CALLS[call](ns) == expected[call]


def test_a_write_is_acknowledged_though_maintenance_finds_no_thread(tmp_path: Path, give: Give) -> None:
    with vecstore.connect(tmp_path, maintenance="thread") as db:
        ns = db.create_namespace("ns", dim=8)
        give(1)  # for the upload
        assert ns.insert(ROWS[:1], ids=[1]).n == 1
        give(9)
        assert ns.insert(ROWS[:1], ids=[2]).n == 1
    with vecstore.connect(tmp_path, maintenance="off") as db:
        assert db.namespace("ns").stats().rows == 2
