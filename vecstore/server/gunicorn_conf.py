"""Gunicorn's settings: the one source for ``vecstore serve`` and for ``deploy/gunicorn.conf.py``."""

from __future__ import annotations

import os
from typing import Any

from vecstore.config import Config


def settings(config: Config) -> dict[str, Any]:
    """What gunicorn is told; `InvalidArgument` if the address is open to others without leave."""
    config.check_address()
    return {
        "bind": config.address,
        "proc_name": "vecstore",
        # Kernels release the GIL and requests wait for storage, so threads help within a worker;
        # JSON and validation hold it, so a worker a processor helps too. Workers share resident
        # data through memory maps. Figures of other classes: docs/decisions/0006.
        "workers": config.processes,
        "worker_class": "gthread",
        "threads": config.threads,
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
        # Heartbeats are file times; on a disk that is busy flushing they can stall a healthy worker.
        "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: S108  # nosec B108
        # Newer gunicorns open a control socket in the home directory, which servers of one user
        # would share.
        "control_socket_disable": True,
        # Errors to stderr. No access log here: it costs time in every request, a proxy keeps one.
        "loglevel": config.log_level,
        "errorlog": "-",
        "accesslog": None,
    }
