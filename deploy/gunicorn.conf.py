"""Gunicorn for vecstore: ``gunicorn -c deploy/gunicorn.conf.py``.

The process manager's settings come from VECSTORE_HOST, VECSTORE_PORT, VECSTORE_WORKERS and
VECSTORE_THREADS; the application reads its own VECSTORE_* variables in each worker.
"""

import os
import sys


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        sys.exit(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _processors() -> int:
    # A container's share, where the system tells it.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


wsgi_app = "vecstore.server.app:create_app_from_env()"

# Loopback unless told otherwise: there is no TLS here, that is the proxy's part.
bind = _address(os.environ.get("VECSTORE_HOST") or "127.0.0.1", _number("VECSTORE_PORT", 8080))

# Kernels release the GIL and requests wait for storage, so threads help within a worker; JSON and
# validation hold it, so a worker a processor helps too. Workers share resident data through
# memory maps.
workers = _number("VECSTORE_WORKERS", _processors())
worker_class = "gthread"
threads = _number("VECSTORE_THREADS", 8)

# Each worker opens its own handles: connections, locks and threads do not survive a fork.
preload_app = False

# With gthread this watches the worker's main loop, not the request: a long insert is not killed,
# a worker that hangs is.
timeout = 60
# On SIGTERM requests in flight may end. An insert that is cut off is whole or absent, but its
# client cannot know which without asking.
graceful_timeout = 30
# Longer than the proxy keeps an idle connection (60 s), so that it is never the server that closes
# a connection on which the proxy is just sending.
keepalive = 75

# The longest line that gunicorn takes other than "unlimited". A vector in a GET must fit: base64
# float32 up to about 1,500 dimensions; larger ones need POST.
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190

# Heartbeats are file times; on a disk that is busy flushing they can stall a healthy worker.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  (no fixed name in it)

# Newer gunicorns open a control socket in the home directory, which servers of one user would share.
control_socket_disable = True

# Errors to stderr. No access log here: it costs time in every request, and the proxy keeps one.
errorlog = "-"
accesslog = None
