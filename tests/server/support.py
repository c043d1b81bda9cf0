"""A real server as a process, for the tests and for ``bench/http.py``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vecstore.client import HttpBackend
from vecstore.errors import VecstoreError

DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """``url`` answers; ``log`` is what it has written so far."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vecstore.cli", *arguments]


def environment(**extra: str) -> dict[str, str]:
    """The caller's, without settings of ours."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("VECSTORE_") or k == "VECSTORE_SIMD"}
    return {**plain, **extra}


@contextmanager
def running_server(store: str | Path, *options: str, **env: str) -> Iterator[Server]:
    """A `starting_server` that is ready."""
    with starting_server(store, *options, **env) as server:
        await_ready(server)
        yield server


@contextmanager
def starting_server(store: str | Path, *options: str, **env: str) -> Iterator[Server]:
    """``vecstore serve`` on a free port of loopback; ended by SIGTERM, and nothing is left."""
    env = {"VECSTORE_GRACEFUL_TIMEOUT": "5", **env}
    port = free_port()
    beside = f"{tempfile.gettempdir()}/vecstore" if "://" in str(store) else store
    log = Path(f"{beside}.{port}.log")
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command("serve", str(store), "--port", str(port), *options),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment(**env),
            start_new_session=True,
        )
    try:
        yield Server(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            log.unlink(missing_ok=True)


def await_ready(server: Server) -> None:
    backend = HttpBackend(server.url, timeout=10.0, attempts=1)
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            backend.ping()
        except VecstoreError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(server.log.read_text(errors="replace")) from None
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(0.02)
        else:
            backend.close()
            return


def children(pid: int) -> list[int]:
    """Processes that ``pid`` has started and that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def arguments(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def eventually(what: object, condition: object, seconds: float = 30.0) -> None:
    """Wait until ``condition()`` holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    pause = socket.socketpair()
    try:
        pause[0].settimeout(0.02)
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            with suppress(TimeoutError):
                pause[0].recv(1)
    finally:
        for end in pause:
            end.close()
