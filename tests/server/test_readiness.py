"""What makes a server ready, and how its store is asked."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import urllib3

import vecstore
from tests.server.support import eventually, running_server
from vecstore.errors import StorageRetryable
from vecstore.server.readiness import KEPT_SECONDS, Readiness


class Store:
    """Answers, fails, or hangs until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()

    def ping(self) -> None:
        self.asked += 1
        assert self.answers.wait(30)
        if self.error is not None:
            raise self.error


def test_why_the_store_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    store, now = Store(), [100.0]
    ready = Readiness(store.ping, clock=lambda: now[0])
    store.error = StorageRetryable("it is gone")
    for _ in range(3):
        assert ready.checks()["store"] != "ok"
        now[0] += KEPT_SECONDS
    assert [record.getMessage() for record in caplog.records] == [
        "not ready, the store fails: storage_unavailable: it is gone"
    ]


def test_the_store_is_asked_once_a_second_whoever_probes() -> None:
    store, now = Store(), [100.0]
    ready = Readiness(store.ping, clock=lambda: now[0])
    assert [ready.checks() for _ in range(5)] == 5 * [{"store": "ok", "draining": "ok"}]
    assert store.asked == 1
    store.error = StorageRetryable("no")
    now[0] += KEPT_SECONDS
    assert ready.checks()["store"] == "storage_unavailable: no"
    assert store.asked == 2


def test_an_error_that_nobody_foresaw_is_told() -> None:
    store = Store()
    store.error = ZeroDivisionError("oh")
    assert "ZeroDivisionError" in Readiness(store.ping).checks()["store"]


def test_a_store_that_hangs_is_asked_once_and_holds_no_probe() -> None:
    store = Store()
    store.answers.clear()
    ready = Readiness(store.ping, patience=0.01)
    assert {ready.checks()["store"] for _ in range(3)} == {"no answer within 0.01 s"}
    assert store.asked == 1
    store.answers.set()
    eventually("it answers again", lambda: ready.checks()["store"] == "ok")


def test_a_cache_folder_that_is_gone_makes_a_server_not_ready(tmp_path: Path) -> None:
    ready = Readiness(Store().ping, cache_dir=str(tmp_path / "cache"))
    assert "cannot be written to" in ready.checks()["cache_dir"]
    (tmp_path / "cache").mkdir()
    assert ready.checks()["cache_dir"] == "ok"


def test_a_server_that_is_told_to_end_is_not_ready_and_goes_on_for_a_while(tmp_path: Path) -> None:
    with running_server(
        tmp_path / "data", "--workers", "2", "--no-maintenance", VECSTORE_DRAIN_SECONDS="3"
    ) as server:
        with vecstore.connect(server.url) as database:
            database.create_namespace("docs", 2)
        os.kill(server.process.pid, signal.SIGTERM)
        codes = []

        def not_ready() -> bool:
            answer = urllib3.request("GET", f"{server.url}/readyz", retries=False)
            codes.append((answer.status, answer.json().get("details", {}).get("checks", {}).get("draining")))
            return answer.status == 503

        eventually("it is not ready", not_ready)
        assert codes[-1] == (503, "the server is about to end")
        assert urllib3.request("GET", f"{server.url}/v1/namespaces/docs", retries=False).status == 200
        assert server.process.wait(30) == 0
