"""How the HTTP client's requests travel: `Transport`, and `Pooled` over urllib3.

What is sent, what may be sent twice and what an answer means is `vecstore.client`'s; a transport sends one
request once. urllib3: boto3 brings it anyway, its pool is thread-safe, drops connections that the server
has closed before it sends on them, and keeps a chunked or large body out of our hands. Its own retries are
off. The other transport is in `vecstore.aio`.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from typing import Final, Protocol

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
)

CONNECTIONS: Final = 32  # that are kept
_OBJECT: Final = re.compile(r"(?:<.*?>|_?HTTPS?Connection(?:Pool)?\(.*?\)): ")
_PARSER: Final = re.compile(r"<\w+: \d+, message=['\"](.*)['\"]>", re.DOTALL)
_NEVER_SENT: Final = (NewConnectionError, ConnectTimeoutError, NameResolutionError)


class NoAnswer(Exception):
    """The connection failed, or the time was over, before the answer was there."""


class NeverSent(NoAnswer):
    """The server was not reached, so it has certainly done nothing."""


class Answer(Protocol):
    """An answer that was read to its end; the names of headers are those of any case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def data(self) -> bytes: ...


class Transport(Protocol):
    """Sends requests. `NoAnswer` where there is none."""

    def request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer: ...
    def sleep(self, seconds: float) -> None: ...
    def close(self) -> None: ...


def connect_timeout(timeout: float) -> float:
    """Of the seconds that a caller waits for bytes, those for a connection."""
    return min(timeout, 10.0)


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    """TLS, of which a failure to connect is told from one to read: nothing was sent before."""

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:  # those of TLS are some
            raise NewConnectionError(self, str(error)) from error


class _SecuredPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class Pooled:
    """Thread-safe; a forked child makes connections of its own."""

    def __init__(self, timeout: float) -> None:
        self._timeout = urllib3.Timeout(connect=connect_timeout(timeout), read=timeout)
        self._lock = threading.Lock()
        self._pool = self._new_pool()
        self._pid = os.getpid()

    def request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        try:
            return self._connections().request(method, url, body=body, headers=headers, redirect=False)
        except _NEVER_SENT as error:
            raise NeverSent(words(error)) from error
        except (HTTPError, OSError) as error:
            raise NoAnswer(words(error)) from error

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        self._pool.clear()

    def _new_pool(self) -> urllib3.PoolManager:
        pool = urllib3.PoolManager(
            num_pools=1, maxsize=CONNECTIONS, block=False, timeout=self._timeout, retries=False
        )
        pool.pool_classes_by_scheme = {"http": urllib3.HTTPConnectionPool, "https": _SecuredPool}
        return pool

    def _connections(self) -> urllib3.PoolManager:
        if os.getpid() != self._pid:
            with self._lock:
                if os.getpid() != self._pid:
                    self._pool = self._new_pool()
                    self._pid = os.getpid()
        return self._pool


def words(error: BaseException) -> str:
    """What happened, on one line, without the objects that urllib3 and aiohttp name."""
    if isinstance(error, ProtocolError) and len(error.args) == 2:
        said, cause = error.args
        text = said if ":" in said else f"{said.rstrip('.')}: {cause}"
    else:
        text = _PARSER.sub(r"\1", _OBJECT.sub("", str(error))) or type(error).__name__
    return " ".join(text.split())
