"""``vecstore serve``: gunicorn's arbiter in this process, its workers, and one maintenance process.

The arbiter looks after the maintenance process as it does after its workers: it starts it, starts
it again if it dies, and stops it first. Nothing of a database is opened before the fork.
"""

from __future__ import annotations

import logging
import mmap
import os
import subprocess
import sys
import time
from typing import Any, Final

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from vecstore.config import Config
from vecstore.errors import InvalidArgument
from vecstore.server.app import create_worker_app, open_database
from vecstore.server.gunicorn_conf import settings
from vecstore.telemetry.logs import configure_logging
from vecstore.telemetry.shared import retire
from vecstore.urls import is_server

log = logging.getLogger(__name__)

RESTART_SECONDS: Final = 2.0
STOP_SECONDS: Final = 10.0
DRAIN_PAUSE: Final = 0.1
BOOT_SECONDS: Final = 30.0


def serve(config: Config) -> None:
    """Serve ``config.url`` until SIGTERM or SIGINT; does not return.

    Raises
    ------
    InvalidArgument
        The address is open to others without leave, or the store cannot be shared by processes.
    StorageError
        The store does not answer.
    """
    if is_server(config.url) or config.url.lower().startswith("memory://"):
        raise InvalidArgument(
            "a server needs a store that its processes share: a directory or s3://bucket/prefix", field="url"
        )
    found = settings(config)
    configure_logging(config.log_level, config.log_format)
    with open_database(config) as database:
        database.backend.ping()
    _Arbiter(_Application(config, found)).run()


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn loads in each worker."""

    def __init__(self, config: Config, found: dict[str, Any]) -> None:
        self.vecstore_config = config
        self._found = found
        self.draining = mmap.mmap(-1, 1)  # shared with the workers: 1 once the server is about to end
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._found.items():
            if name in self.cfg.settings:  # older gunicorns know fewer
                self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_worker_app(self.vecstore_config, lambda: self.draining[0] == 1)


class _Arbiter(Arbiter):  # type: ignore[misc]
    """Gunicorn's arbiter with one child more."""

    def __init__(self, app: _Application) -> None:
        self._config = app.vecstore_config
        self._draining = app.draining
        self._maintenance: subprocess.Popen[bytes] | None = None
        self._started = float("-inf")
        super().__init__(app)

    def manage_workers(self) -> None:
        """Called about once a second, whenever a child ends, and by a reload."""
        if len(self.WORKERS) > self.num_workers:
            self._await_new_workers()
        super().manage_workers()
        if not self._config.maintenance:
            return
        if self._maintenance is not None and self._maintenance.poll() is None:
            return
        if time.monotonic() - self._started < RESTART_SECONDS:
            return
        if self._maintenance is not None:
            log.warning("the maintenance process %d ended; starting another", self._maintenance.pid)
            retire(self._maintenance.pid)
        self._started = time.monotonic()
        self._maintenance = subprocess.Popen(  # noqa: S603  (our own command)
            [sys.executable, "-m", "vecstore.cli", "maintain", "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self._config.environ()},
        )

    def handle_term(self) -> None:
        """Be not ready for a while before the listeners close, so that a proxy sends to others."""
        self._draining[0] = 1
        until = time.monotonic() + self._config.drain_seconds
        while time.monotonic() < until:
            time.sleep(min(DRAIN_PAUSE, self._config.drain_seconds))
            self.reap_workers()
            self.murder_workers()
            self.manage_workers()
        super().handle_term()

    def _await_new_workers(self) -> None:
        """Until the youngest answer: there are more than are wanted, and the oldest are told to end next."""
        give_up = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < give_up:
            self.reap_workers()
            youngest = sorted(self.WORKERS.values(), key=lambda worker: worker.age)[-self.num_workers :]
            if all(worker.ready for worker in youngest):
                return
            time.sleep(0.05)

    def stop(self, graceful: bool = True) -> None:
        """End everything; maintenance may be cut off at any point without loss."""
        child, self._maintenance = self._maintenance, None
        if child is not None:
            child.terminate()
        super().stop(graceful)
        if child is not None:
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
