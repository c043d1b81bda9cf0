"""The real server with three routes more, for ``bench/http.py``; no part of the product.

``python -m bench.http_app STORE PORT WORKERS ANSWER [NAME=VALUE ...]`` serves as ``vecstore serve`` does:
the same arbiter, worker class, settings and application factory. ``ANSWER`` is a file whose bytes these
routes answer, ``NAME=VALUE`` changes a setting of gunicorn.

``POST /bench/parse`` is the yardstick: what a JSON route in Flask has to do at least. It reads the body,
decodes it by the type and the functions that the search route uses, and answers bytes that are ready.
``POST /bench/plain`` does so as Flask's documentation shows it, by ``request.get_json()``, and
``POST /bench/bare`` before Flask, as close to gunicorn as WSGI allows.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from flask import Flask, Response, request

from vecstore.config import Config
from vecstore.server import serve, wire
from vecstore.server.gunicorn_conf import settings
from vecstore.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

JSON = "application/json"


class Application(serve._Application):
    """What each worker loads: the product's application with the routes of the benchmark."""

    def __init__(self, config: Config, found: dict[str, Any], answer: bytes) -> None:
        self.answer = answer
        super().__init__(config, found)

    def load(self) -> Flask:
        app = super().load()
        add_routes(app, self.answer)
        return app


def add_routes(app: Flask, answer: bytes) -> None:
    decoder = msgspec.json.Decoder(wire.Search)

    def parse() -> Response:
        asked = decoder.decode(request.get_data())
        wire.vector(asked.vector)
        return Response(answer, content_type=JSON)

    def plain() -> Response:
        given = request.get_json()["vector"]
        if isinstance(given, str):
            np.frombuffer(base64.b64decode(given), dtype="<f4")
        else:
            np.array(given, dtype=np.float32)
        return Response(answer, content_type=JSON)

    flask = app.wsgi_app

    def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/bench/bare":
            return flask(environ, start_response)
        asked = decoder.decode(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        wire.vector(asked.vector)
        start_response("200 OK", [("Content-Type", JSON), ("Content-Length", str(len(answer)))])
        return [answer]

    app.wsgi_app = bare  # type: ignore[method-assign]
    app.add_url_rule("/bench/parse", "bench_parse", parse, methods=["POST"])
    app.add_url_rule("/bench/plain", "bench_plain", plain, methods=["POST"])


def main(store: str, port: str, workers: str, answer: str, *changes: str) -> None:
    config = Config(url=store, port=int(port), workers=int(workers), maintenance=False)
    found = settings(config) | dict(change.split("=", 1) for change in changes)
    configure_logging(config.log_level, config.log_format)
    serve._Arbiter(Application(config, found, Path(answer).read_bytes())).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
