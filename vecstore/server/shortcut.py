"""The most frequent request, answered before Flask: a search for one query that finds what it asks.

Routing, contexts and response objects of Flask cost a search about as much as the rest of its way
through this process (decision 0006). So a POST of one query, in JSON and uncompressed, is read,
decoded, searched and answered here. Everything else goes to Flask, with its body to be read again:
whatever might have to be refused is judged, and worded, in one place. Where a search itself fails,
Flask's error handlers get the exception.

Whatever must see every request, such as authentication, belongs in front of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from vecstore.api import Backend
from vecstore.limits import MAX_NAME_BYTES
from vecstore.server import wire
from vecstore.server.paths import FAILED, ROUTE, template

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PATH: Final = re.compile(rf"/v1/namespaces/([A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_BYTES - 1}}})/search")
SEARCH: Final = "/v1/namespaces/<ns>/search"
_ROUTE: Final = template(SEARCH)
_LENGTH: Final = re.compile(r"[0-9]{1,9}")
_MAX_BYTES: Final = 256 << 10  # a query of the largest dimension and all options; read in one piece


class Shortcut:
    """WSGI: the searches that it can answer, the rest through ``flask``."""

    def __init__(self, flask: WSGIApplication, backend: Backend, max_body_bytes: int) -> None:
        self._flask = flask
        self._backend = backend
        self._max_bytes = min(_MAX_BYTES, max_body_bytes)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        answer = self._answer(match[1], environ) if match is not None else None
        if answer is None:
            return self._flask(environ, start_response)
        environ[ROUTE] = _ROUTE
        body, etag = answer
        start_response(
            "200 OK",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("ETag", etag)],
        )
        return [body]

    def _answer(self, ns: str, environ: WSGIEnvironment) -> tuple[bytes, str] | None:
        """Body and ``ETag``; None leaves the request to Flask, as if it had not been read."""
        length = self._length(environ)
        if not length:
            return None
        try:
            data = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = BytesIO(data)
            asked = wire.plain_search(data) if len(data) == length else None
            if asked is None:
                return None
            hits = self._backend.search(ns, *asked)
            return wire.encode(wire.found(hits)), wire.etag(hits.incarnation, hits.epoch)
        except Exception as error:
            environ[FAILED] = error
            return None

    def _length(self, environ: dict[str, Any]) -> int:
        """Bytes of the body, 0 if this is not a plain POST of JSON without parameters."""
        if (
            environ["REQUEST_METHOD"] != "POST"
            or environ.get("CONTENT_TYPE") != "application/json"
            or environ.get("QUERY_STRING")
            or "HTTP_CONTENT_ENCODING" in environ
            or "HTTP_TRANSFER_ENCODING" in environ
        ):
            return 0
        length = environ.get("CONTENT_LENGTH", "")
        count = int(length) if _LENGTH.fullmatch(length) else 0
        return count if count <= self._max_bytes else 0
