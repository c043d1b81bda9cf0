"""Gunicorn's worker as we run it: answers in one piece, threads, and no queue but the bounded one."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import BrokenBarrierError
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vecstore
from tests.server.support import Server, children, eventually, running_server, starting_server
from vecstore.api import Database
from vecstore.client import HttpBackend
from vecstore.config import Config
from vecstore.errors import TooManyRequests
from vecstore.server.gunicorn_conf import settings
from vecstore.server.worker import PARTED, Worker


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One request at a time, and one that waits."""
    store = tmp_path_factory.mktemp("narrow") / "data"
    with vecstore.connect(str(store), maintenance="off") as database:
        ns = database.create_namespace("docs", 64, "l2")
        ns.insert(np.random.default_rng(1).standard_normal((4_000, 64), dtype=np.float32))
    options = ("--workers", "1", "--threads", "1", "--no-maintenance")
    with running_server(store, *options, VECSTORE_QUEUE="1") as server:
        yield server


def test_an_answer_comes_in_one_piece(narrow: Server) -> None:
    host, _, port = narrow.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 20) as client:
        for path, status in (("/healthz", b"200"), ("/nothing", b"404"), ("/v1/namespaces/docs", b"200")):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, body = client.recv(65_536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status)
            assert f"\r\nContent-Length: {len(body)}".encode() in head + b"\r\n"


@pytest.mark.parametrize("path", ["search", "deletes"])
@pytest.mark.parametrize(
    "body", [b"zz\r\n{}\r\n0\r\n\r\n", b"-5\r\n{}\r\n0\r\n\r\n", b"5\r\n{}", b"2\r\n{}xx0\r\n\r\n", b""]
)
def test_a_body_that_is_broken_is_refused_and_its_connection_closed(
    narrow: Server, path: str, body: bytes
) -> None:
    host, _, port = narrow.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 20) as client:
        client.sendall(
            f"POST /v1/namespaces/docs/{path} HTTP/1.1\r\nHost: x\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + body
        )
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    head, _, told = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"Connection: close" in head
    assert json.loads(told)["details"] == {"field": "body"}


@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", "Content-Length: 1000"])
@pytest.mark.parametrize("path", ["search", "deletes"])
def test_a_client_that_resets_its_request_is_no_fault_of_the_server(
    narrow: Server, path: str, length: str
) -> None:
    route = f'route="/v1/namespaces/{{ns}}/{path}"'

    def refused() -> int:
        figures = urllib.request.urlopen(f"{narrow.url}/metrics", timeout=20).read().decode()
        lines = [line for line in figures.splitlines() if route in line and 'status="400"' in line]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if "requests_total" in line)

    before = refused()
    host, _, port = narrow.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 20) as client:
        client.sendall(
            f"POST /v1/namespaces/docs/{path} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: application/json\r\n{length}\r\n\r\n40\r\n{{".encode()
        )
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually("a refusal that nobody reads", lambda: refused() == before + 1)
    assert "Traceback" not in narrow.log.read_text()


def test_a_worker_that_gets_too_few_threads_leaves_none_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPoolExecutor(4)
    waiting: list[Future[int]] = []

    def submit(work: Callable[[], int]) -> None:
        if len(waiting) == 2:
            raise RuntimeError("can't start new thread")
        waiting.append(ThreadPoolExecutor.submit(pool, work))

    worker = object.__new__(Worker)
    worker.cfg, worker.tpool = SimpleNamespace(threads=4), pool
    monkeypatch.setattr(pool, "submit", submit)
    with pytest.raises(RuntimeError, match="new thread"):
        worker.load_wsgi()
    assert all(isinstance(one.exception(timeout=30), BrokenBarrierError) for one in waiting)
    pool.shutdown()


def test_a_server_that_is_told_to_end_while_its_worker_starts_threads_ends(tmp_path: Path) -> None:
    """Leaving waits for its end, and not for as long as requests that are under way would get."""
    options = ("--workers", "1", "--no-maintenance")
    with starting_server(tmp_path / "data", *options, VECSTORE_GRACEFUL_TIMEOUT="120") as server:
        deadline = time.monotonic() + 60
        while not any(_threads(worker) > 5 for worker in children(server.process.pid)):
            assert server.process.poll() is None, server.log.read_text(errors="replace")
            assert time.monotonic() < deadline
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(0.001)
    assert server.process.returncode == 0


def _threads(pid: int) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    return 0


def test_all_threads_run_before_there_is_a_request_for_them(narrow: Server) -> None:
    (worker,) = children(narrow.process.pid)
    running = len(list(Path(f"/proc/{worker}/task").iterdir()))
    assert running > settings(Config(threads=1, queue=1))["threads"]


def test_an_answer_without_a_body_comes_too(narrow: Server) -> None:
    with vecstore.connect(narrow.url) as database:
        database.create_namespace("gone", 2, "l2")
        database.delete_namespace("gone")
        assert [info.name for info in database.namespaces()] == ["docs"]


def test_what_finds_neither_a_place_nor_room_in_the_queue_is_refused_by_the_process(narrow: Server) -> None:
    def measure(number: int) -> bool:
        with Database(HttpBackend(narrow.url, timeout=60.0, attempts=1)) as database:
            try:
                database.namespace("docs").measure_recall(sample=1_000, seed=number)
            except TooManyRequests:
                return False
            return True

    with ThreadPoolExecutor(16) as threads:
        done = list(threads.map(measure, range(16)))
    assert True in done
    assert False in done


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_with_several_requests_lets_go_of_a_connection_now_and_then(
    tmp_path: Path, workers: int
) -> None:
    with running_server(tmp_path / "data", "--workers", str(workers), "--no-maintenance") as server:
        host, _, port = server.url.removeprefix("http://").partition(":")

        def connect() -> socket.socket:
            return socket.create_connection((host, int(port)), 20)

        def ended(asked: int) -> int:
            """How many answers end their connection, which is opened again then."""
            found, client = 0, connect()
            try:
                for _ in range(asked):
                    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                    if b"connection: close" in client.recv(65_536).lower():
                        found += 1
                        client.close()
                        client = connect()
            finally:
                client.close()
            return found

        assert ended(4 * PARTED) == 0
        held = [connect() for _ in range(8 * workers)]
        for one in held:  # their bodies do not come, so they are under way, of each worker some
            one.sendall(b"POST /v1/namespaces/docs/search HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        deadline = time.monotonic() + 30
        found = 0
        while workers > 1 and not found and time.monotonic() < deadline:
            found = ended(PARTED)
        assert (found > 0) == (workers > 1)
        if workers == 1:
            assert ended(4 * PARTED) == 0
        for one in held:
            one.close()


def test_a_connection_is_let_go_in_the_thread_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """In gunicorn's main loop nothing else would be taken up until the client has closed its end."""

    class Connection:
        closed = 0

        def close(self, graceful: bool = False) -> None:
            assert graceful
            self.closed += 1

    worker, forced = object.__new__(Worker), list[bool]()
    worker.cfg = SimpleNamespace(workers=2)
    worker._counting, worker._under_way, worker._crowded = threading.Lock(), 1, PARTED - 1
    monkeypatch.setattr(Worker, "_answer", lambda *_: not forced)
    request: Any = SimpleNamespace(force_close=lambda: forced.append(True))
    connection: Any = Connection()
    assert worker.handle_request(request, connection) is False
    connection.close(graceful=True)  # as gunicorn's main loop does
    assert (forced, Connection.closed, connection.closed) == ([True], 0, 1)
    other: Any = Connection()
    forced.clear()
    assert worker.handle_request(request, other) is True
    assert (forced, other.closed, worker._under_way) == ([], 0, 1)
