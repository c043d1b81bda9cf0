"""The outermost layer: every request gets an id, is counted, traced and logged, whatever becomes of it.

On the way of a plain search this costs what `docs/decisions/0028-figures-that-survive.md` says.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from vecstore.server.paths import KEY, REQUEST_ID, ROUTE, namespace_of
from vecstore.telemetry.logs import facts, request_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from vecstore.telemetry.metrics import Metrics
    from vecstore.telemetry.tracing import Tracing

log = logging.getLogger("vecstore.access")

UNMATCHED: Final = "unmatched"  # the route of paths that have none
_GIVEN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Observe:
    """WSGI around all other layers.

    Parameters
    ----------
    access
        Whether each request is logged.
    """

    def __init__(
        self, inner: WSGIApplication, *, metrics: Metrics | None, tracing: Tracing | None, access: bool
    ) -> None:
        self._inner = inner
        self._metrics = metrics
        self._tracing = tracing
        self._access = access
        # Unique without a call of the system for each: by process, and counted on.
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID")
        if given is None or not _GIVEN.fullmatch(given):
            given = f"{self._prefix}{next(self._numbers):06x}"
        environ[REQUEST_ID] = given
        token = request_id.set(given)
        metrics = self._metrics
        if metrics is not None:
            metrics.began()
        served = None if self._tracing is None else self._tracing.serve(environ)
        status, length = "500", None  # unless somebody says otherwise

        def start(line: str, headers: list[tuple[str, str]], *failed: Any) -> Any:
            nonlocal status, length
            status = line[:3]
            if self._access:
                length = next((value for name, value in headers if name == "Content-Length"), None)
            headers.append(("X-Request-Id", given))
            return start_response(line, headers, *failed)

        try:
            return self._inner(environ, start)
        finally:
            seconds = time.perf_counter() - began
            route = environ.get(ROUTE, UNMATCHED)
            if metrics is not None:
                namespace = namespace_in(environ) if metrics.by_namespace else None
                metrics.answered(route, environ["REQUEST_METHOD"], status, namespace, seconds)
            if served is not None:
                served.answered(route, int(status), given, namespace_in(environ))
            if self._access:
                self._log(environ, route, status, length, seconds)
            request_id.reset(token)

    def _log(
        self, environ: WSGIEnvironment, route: str, status: str, length: str | None, seconds: float
    ) -> None:
        log.info(
            "%s %s %s",
            environ["REQUEST_METHOD"],
            route,
            status,
            extra=facts(
                method=environ["REQUEST_METHOD"],
                route=route,
                namespace=namespace_in(environ),
                status=int(status),
                ms=round(1e3 * seconds, 3),
                bytes=None if length is None else int(length),
                key=environ.get(KEY),
                peer=environ.get("REMOTE_ADDR"),
            ),
        )


def namespace_in(environ: WSGIEnvironment) -> str | None:
    return namespace_of(environ.get("PATH_INFO", ""))
