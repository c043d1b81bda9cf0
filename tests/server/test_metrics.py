"""Figures of a real server: the true counts under many workers, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import urllib3

import vecstore
from tests.server.scrape import Scrape, parse, scrape
from tests.server.support import (
    Server,
    await_ready,
    children,
    environment,
    eventually,
    free_port,
    running_server,
)
from vecstore.config import Config
from vecstore.server.app import create_worker_app

ROWS = np.eye(4, dtype=np.float32)
DOCS = "/v1/namespaces/docs"
ROUTE = "/v1/namespaces/{ns}"
JSON = {"Content-Type": "application/json"}

# Kind -> method, path, body, route, status.
KINDS: dict[str, tuple[str, str, object, str, int]] = {
    "plain": ("POST", f"{DOCS}/search", {"vector": [1, 0, 0, 0]}, f"{ROUTE}/search", 200),
    "batch": ("POST", f"{DOCS}/search", {"vectors": [[1, 0, 0, 0], [0, 1, 0, 0]]}, f"{ROUTE}/search", 200),
    "by get": ("GET", f"{DOCS}/search?vector=[1,0,0,0]", None, f"{ROUTE}/search", 200),
    "wrong": ("POST", f"{DOCS}/search", {"vector": [1, 0]}, f"{ROUTE}/search", 400),
    "insert": ("POST", f"{DOCS}/parts", {"vectors": [[1, 2, 3, 4]]}, f"{ROUTE}/parts", 201),
    "row": ("GET", f"{DOCS}/rows/999", None, f"{ROUTE}/rows/{{identity}}", 404),
    "no namespace": ("GET", "/v1/namespaces/nobody", None, ROUTE, 404),
    "no route": ("GET", "/nowhere/at/all", None, "unmatched", 404),
    "no method": ("BREW", "/healthz", None, "unmatched", 405),
    "health": ("GET", "/healthz", None, "/healthz", 200),
}


def send(pool: urllib3.PoolManager, url: str, kind: str) -> None:
    method, path, body, _, status = KINDS[kind]
    data = None if body is None else json.dumps(body)
    answer = pool.request(method, url + path, body=data, headers=JSON if data else {}, retries=False)
    assert answer.status == status, (kind, answer.data)
    assert answer.headers["X-Request-Id"]


def drive(url: str, kinds: list[str]) -> None:
    """All of them, by eight threads."""
    pool = urllib3.PoolManager(maxsize=8, timeout=60.0)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda kind: send(pool, url, kind), kinds))


def counted(found: Scrape) -> Counter[tuple[str, str, str]]:
    """Requests by route, method and status, but for those that wait for the server or ask for figures."""
    return Counter(
        {
            (labels["route"], labels["method"], labels["status"]): int(value)
            for labels, value in found.having("http_requests_total")
            if labels["route"] not in ("/readyz", "/metrics", "/v1/namespaces")
        }
    )


def expected(kinds: list[str]) -> Counter[tuple[str, str, str]]:
    told = (KINDS[kind] for kind in kinds)
    return Counter(
        (route, "other" if method == "BREW" else method, str(status)) for method, _, _, route, status in told
    )


def check(found: Scrape, kinds: list[str]) -> None:
    """Every figure is what these requests make it, exactly."""
    sent = Counter(kinds)
    assert counted(found) == expected(kinds)
    for route in {KINDS[kind][3] for kind in kinds}:
        latencies = found.total("http_request_seconds_count", route=route)
        assert latencies == found.total("http_requests_total", route=route)
    alone = sent["plain"] + sent["by get"]
    assert found.value("search_queries_total", kind="one") == alone
    assert found.value("search_queries_total", kind="batch") == 2 * sent["batch"]
    for stage in ("snapshot", "plan", "scan", "rerank"):
        assert found.value("search_stage_seconds_count", stage=stage) == alone
    assert found.value("rows_inserted_total") == sent["insert"]
    assert found.value("commit_changes_total") == sent["insert"]
    assert found.value("http_requests_in_flight") == 1  # that which asks


def test_figures_of_four_workers_are_the_true_counts_also_when_one_is_killed(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--workers", "4", "--no-maintenance") as server:
        with vecstore.connect(server.url) as database:
            database.create_namespace("docs", 4, "l2")
        kinds = [kind for kind in KINDS for _ in range(12)]
        np.random.default_rng(0).shuffle(kinds)
        drive(server.url, kinds)
        check(scrape(server.url), kinds)

        before = children(server.process.pid)
        os.kill(before[0], signal.SIGKILL)
        eventually(
            "another worker",
            lambda: before[0] not in (now := children(server.process.pid)) and len(now) == len(before),
        )
        check(scrape(server.url), kinds)
        drive(server.url, kinds)
        check(scrape(server.url), 2 * kinds)


def test_what_maintenance_does_is_told_by_the_workers(tmp_path: Path) -> None:
    with running_server(
        tmp_path / "data",
        "--workers",
        "1",
        VECSTORE_MAINTENANCE_INTERVAL="0.1",
        VECSTORE_GC_INTERVAL="0.1",
    ) as server:
        with vecstore.connect(server.url) as database:
            ns = database.create_namespace("docs", 4, "l2")
            for i in range(9):
                ns.insert(ROWS[:1] * i, ids=[i])

        def compacted() -> bool:
            found = scrape(server.url)
            return (
                found.value("compaction_seconds_count") >= 1
                and found.value("compaction_rows_total") >= 8
                and found.value("compaction_bytes_total") > 0
                and 1 <= found.value("namespace_parts_most") < 8
                and found.value("maintenance_collected_timestamp_seconds") > 1e9
            )

        eventually("figures of a compaction and of a collection", compacted)
        assert scrape(server.url).value("collections_total") >= 1


def test_workers_under_a_process_manager_share_their_figures_too(tmp_path: Path) -> None:
    """``gunicorn -c deploy/gunicorn.conf.py``, and ``vecstore maintain`` in the same folder."""
    root = Path(__file__).parent.parent.parent
    folder = tmp_path / "figures"
    shared = {"VECSTORE_URL": str(tmp_path / "data"), "VECSTORE_METRICS_DIR": str(folder)}
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as sink:
        gunicorn = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", str(root / "deploy" / "gunicorn.conf.py")],
            cwd=root,
            stdout=sink,
            stderr=sink,
            env=environment(**shared, VECSTORE_PORT=str(port), VECSTORE_WORKERS="2"),
        )
    server = Server(f"http://127.0.0.1:{port}", gunicorn, log)
    maintain = None
    try:
        await_ready(server)
        with vecstore.connect(server.url) as database:
            database.create_namespace("docs", 4, "l2")
        kinds = ["plain", "batch", "insert", "no route"] * 5
        drive(server.url, kinds)
        check(scrape(server.url), kinds)
        maintain = subprocess.Popen(
            [sys.executable, "-m", "vecstore.cli", "maintain"],
            stderr=subprocess.DEVNULL,
            env=environment(**shared, VECSTORE_MAINTENANCE_INTERVAL="0.1"),
        )
        eventually(
            "figures of maintenance",
            lambda: scrape(server.url).value("maintenance_swept_timestamp_seconds") > 1e9,
        )
        assert counted(scrape(server.url)) == expected(kinds)
    finally:
        for process in (gunicorn, maintain):
            if process is not None:
                process.terminate()
                process.wait(30)


def test_maintenance_alone_tells_its_figures_on_a_port(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "vecstore.cli", "maintain", str(tmp_path / "data")],
        stderr=subprocess.DEVNULL,
        env=environment(VECSTORE_MAINTENANCE_METRICS_PORT=str(port), VECSTORE_MAINTENANCE_INTERVAL="0.1"),
    )

    def swept() -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return scrape(f"http://127.0.0.1:{port}").value("maintenance_swept_timestamp_seconds") > 1e9
        return False

    try:
        eventually("a sweep is told", swept)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Makes the application of a worker in this process, with settings."""
    monkeypatch.setenv("VECSTORE_FIGURES", str(tmp_path))
    return lambda **settings: create_worker_app(Config(url="memory://", **settings)).test_client()


@pytest.mark.parametrize(("asked", "label"), [(False, ""), (True, "docs")])
def test_requests_are_counted_by_namespace_only_if_a_setting_asks_for_it(
    app: Callable[..., object], asked: bool, label: str
) -> None:
    client = app(metrics_namespaces=asked)
    client.post("/v1/namespaces", json={"name": "docs", "dim": 2})
    client.get(DOCS)
    client.get("/v1/namespaces/nobody")  # what is not there must not become a label
    found = parse(client.get("/metrics").get_data(as_text=True))
    names = {labels["namespace"] for labels, _ in found.having("http_requests_total", route=ROUTE)}
    assert names == {label, ""}


def test_without_metrics_there_is_no_such_route(app: Callable[..., object]) -> None:
    assert app(metrics=False).get("/metrics").status_code == 404
