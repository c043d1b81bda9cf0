"""Whoever waits for storage, or for another thread, leaves its place to others meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from botocore.httpsession import URLLib3Session

import vecstore
from vecstore import deadline
from vecstore.api import Namespace
from vecstore.aside import aside, working
from vecstore.storage.s3.hedge import Hedges

SECONDS = 20.0


class Recorded:
    """A place, and whether its thread is away."""

    def __init__(self) -> None:
        self.away = 0
        self.left = 0
        self._changed = threading.Condition()

    def leave_for_a_while(self) -> None:
        with self._changed:
            self.away += 1
            self.left += 1
            self._changed.notify_all()

    def come_back(self) -> None:
        with self._changed:
            self.away -= 1

    def is_left(self, seconds: float = SECONDS) -> bool:
        """Whether it is, or is left in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.away > 0, seconds)


def test_where_nobody_counts_it_does_nothing() -> None:
    with aside():
        pass


def test_a_wait_within_a_wait_is_one_and_an_error_ends_it() -> None:
    place = Recorded()

    def fail() -> None:
        with aside():
            with aside():
                assert place.away == 1
            assert place.away == 1
            raise RuntimeError

    with working(place):
        with pytest.raises(RuntimeError):
            fail()
        assert (place.away, place.left) == (0, 1)
        with aside():
            assert (place.away, place.left) == (1, 2)
    with aside():
        assert place.left == 2


def test_a_thread_beside_has_no_place_of_ours() -> None:
    place = Recorded()
    with working(place), ThreadPoolExecutor(1) as other:
        other.submit(lambda: aside().__enter__()).result(SECONDS)
        assert place.left == 0


def vectors(n: int) -> Any:
    return np.random.default_rng(1).standard_normal((n, 8), dtype=np.float32)


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda ns: ns.search(np.ones(8, dtype=np.float32)), id="search"),
        pytest.param(lambda ns: ns.get(3), id="get"),
        pytest.param(lambda ns: list(ns.scan()), id="scan"),
    ],
)
def test_while_a_distant_store_is_asked_the_place_is_free(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, work: Callable[[Namespace], Any]
) -> None:
    with vecstore.connect(s3_url, maintenance="off") as database:
        ns = database.create_namespace("docs", 8, "l2")
        ns.insert(vectors(2_000), ids=np.arange(2_000))
    place, sent, send = Recorded(), list[bool](), URLLib3Session.send

    def watched(self: URLLib3Session, request: Any) -> Any:
        sent.append(place.is_left())
        return send(self, request)

    with vecstore.connect(s3_url, maintenance="off") as database:
        ns = database.namespace("docs")
        monkeypatch.setattr(URLLib3Session, "send", watched)
        with working(place), deadline.within(10 * SECONDS):
            work(ns)
    assert len(sent) >= 2
    assert all(sent)
    assert place.away == 0


def test_the_place_is_free_while_it_is_not_known_yet_that_an_answer_is_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Recorded()
    with ThreadPoolExecutor(1) as threads:
        hedges = Hedges(lambda: threads, 0.0)
        monkeypatch.setattr(hedges, "patience", lambda: SECONDS)
        with working(place):
            assert hedges.run([lambda _: place.is_left(1.0)]) == [True]
    assert (place.away, place.left) == (0, 1)
