"""A server of real processes that can be killed and started again on its port."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.server.support import arguments, children, command, environment, eventually, free_port
from vecstore.client import HttpBackend
from vecstore.errors import VecstoreError

DEADLINE = 60.0


class Server:
    """``vecstore serve`` over a store."""

    def __init__(self, store: str | Path, log: Path, *, workers: int, **settings: str) -> None:
        self._store = str(store)
        self._log = log
        self._workers = workers
        self._settings = {"VECSTORE_GRACEFUL_TIMEOUT": "5", **settings}
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Return once it answers with all of its workers."""
        options = ["--port", str(self._port), "--workers", str(self._workers)]
        with self._log.open("ab") as sink:
            self._process = subprocess.Popen(
                command("serve", self._store, *options),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=environment(**self._settings),
            )
        backend = HttpBackend(self.url, timeout=10.0, attempts=1)
        eventually(f"{self.url} is ready", lambda: self._is_ready(backend), DEADLINE)
        backend.close()

    def workers(self) -> list[int]:
        """The processes that answer requests."""
        return [pid for pid in children(self._pid) if "maintain" not in arguments(pid)]

    def kill(self) -> None:
        """SIGKILL to the arbiter, so that it replaces none, and at once to all that it has started."""
        assert self._process is not None
        mine = children(self._pid)
        self._process.kill()
        for pid in mine:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(DEADLINE)
        eventually("the killed are gone", lambda: not any(map(_runs, mine)), DEADLINE)

    def stop(self) -> None:
        """End it as an operator would; nothing is left either way."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _is_ready(self, backend: HttpBackend) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text(errors="replace")
        try:
            backend.ping()
        except VecstoreError:
            return False
        return len(self.workers()) == self._workers


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
