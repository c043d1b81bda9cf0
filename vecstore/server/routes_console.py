"""The console: files of ``vecstore/server/console/``, public, for browsers.

They hold no data; what they show they ask of the API, with the key that their reader gives. Their
policy lets a browser run our scripts alone, load nothing from elsewhere, and never parse text as HTML.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response, request

from vecstore.errors import RouteNotFound
from vecstore.server.requests import query

_FOLDER: Final = Path(__file__).parent / "console"
_INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but asked about: a page of one version never gets scripts of another
}


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    content_type: str
    etag: str


def register(app: Flask) -> None:
    """Add the routes. What is not a file of ours is no route."""
    files = {path.name: _read(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}

    def enter() -> Response:
        # Relative, so that it holds behind a proxy that adds a path, and whatever Host says.
        return Response(status=308, headers={"Location": "console/", "Cache-Control": "no-cache"})

    def show(name: str = _INDEX) -> Response:
        query()
        found = files.get(name)
        if found is None:
            raise RouteNotFound(f"no route {request.path}", path=request.path)
        response = Response(found.data, content_type=found.content_type, headers=_HEADERS)
        response.set_etag(found.etag)
        response.make_conditional(request)
        return response

    rule: Any = app.add_url_rule
    rule("/console", "console_enter", enter, methods=["GET"])
    rule("/console/", "console", show, methods=["GET"])
    rule("/console/<name>", "console_file", show, methods=["GET"])


def _read(path: Path) -> _File:
    data = path.read_bytes()
    return _File(data, _TYPES[path.suffix], hashlib.sha256(data).hexdigest()[:32])
