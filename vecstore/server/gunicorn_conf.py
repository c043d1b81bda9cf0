"""Gunicorn's settings: the one source for ``vecstore serve`` and for ``deploy/gunicorn.conf.py``."""

from __future__ import annotations

import os
from typing import Any, Final

from gunicorn.glogging import Logger

from vecstore.config import Config
from vecstore.keys import read_keys
from vecstore.server.admission import HELD_REFUSALS
from vecstore.telemetry.logs import LogFormat, formatter
from vecstore.telemetry.shared import remove, retire, share

SPARE_THREADS: Final = 8  # beside requests that run or wait: refuse others, and answer health checks


def settings(config: Config) -> dict[str, Any]:
    """What gunicorn is told; `InvalidArgument` if anybody could connect, or the key file is none."""
    config.check_address()
    if config.keys_file:
        read_keys(config.keys_file)  # once here, or every worker would fail by itself, again and again
    threads = config.threads + (1 + HELD_REFUSALS) * config.queue + SPARE_THREADS
    return {
        **(_figures(config) if config.metrics else {}),
        "bind": config.address,
        "proc_name": "vecstore",
        # Kernels release the GIL and requests wait for storage, so threads help within a worker;
        # JSON and validation hold it, so a worker a processor helps too. Workers share resident
        # data through memory maps. Figures of other classes: docs/decisions/0006.
        "workers": config.processes,
        "worker_class": "vecstore.server.worker.Worker",  # gthread
        # Who waits for its turn waits in a thread, so that the bound on the queue (server/admission.py)
        # holds: what has no thread is in a queue of gunicorn's that knows neither bound nor fairness.
        # So does a refusal until it is told.
        "threads": threads,
        "worker_connections": 1_000 + threads,  # idle ones included
        # Each worker opens its own handles: connections, locks and threads do not survive a fork.
        "preload_app": False,
        # With gthread this watches the worker's main loop, not the request: a long insert is not
        # killed, a worker that hangs is.
        "timeout": 60,
        # On SIGTERM requests in flight may end. An insert that is cut off is whole or absent, but
        # its client cannot know which without asking.
        "graceful_timeout": config.graceful_timeout,
        # Longer than a proxy keeps an idle connection (60 s), so that it is never the server that
        # closes a connection on which the proxy is just sending.
        "keepalive": 75,
        # The longest line that gunicorn takes other than "unlimited". A vector in a GET must fit:
        # base64 float32 up to about 1,500 dimensions; larger ones need POST.
        "limit_request_line": 8190,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        # Nothing is mounted below a path. By default who comes from loopback, such as clients of a proxy
        # there, says by a header SCRIPT_NAME how much of the path does not count: past the proxy's rules.
        "forwarder_headers": "",
        # Heartbeats are file times; on a disk that is busy flushing they can stall a healthy worker.
        "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: S108  # nosec B108
        # Newer gunicorns open a control socket in the home directory, which servers of one user
        # would share.
        "control_socket_disable": True,
        # Errors to stderr. The access log is ours (`access_log`): gunicorn knows neither namespace nor key.
        "logger_class": _logger(config.log_format),
        "loglevel": config.log_level,
        "errorlog": "-",
        "accesslog": None,
    }


def _figures(config: Config) -> dict[str, Any]:
    """Hooks that keep what workers count in one folder, from before the first to after the last."""

    def on_starting(server: Any) -> None:  # noqa: ARG001
        share(config.metrics_dir)

    def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001
        retire(worker.pid)

    def on_exit(server: Any) -> None:
        if server.reexec_pid == 0:  # else another arbiter has taken over
            remove()

    return {"on_starting": on_starting, "child_exit": child_exit, "on_exit": on_exit}


def _logger(form: LogFormat) -> type[Logger]:
    """Gunicorn's own lines in the form of ours."""

    class Lines(Logger):  # type: ignore[misc]  # gunicorn has no types
        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            for handler in self.error_log.handlers:
                handler.setFormatter(formatter(form))

    return Lines
