"""Whether the server lives and is ready, and what it understands."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response

from vecstore.api import Backend
from vecstore.server import wire
from vecstore.server.handlers import answer
from vecstore.server.openapi import document


def register(app: Flask, backend: Backend) -> None:
    """Add the routes."""

    def healthz() -> Response:
        return answer(wire.Health(status="ok"))

    def readyz() -> Response:
        backend.ping()
        return answer(wire.Health(status="ready"))

    def openapi() -> Response:
        return answer(document())

    rule: Any = app.add_url_rule
    rule("/healthz", "healthz", healthz, methods=["GET"])
    rule("/readyz", "readyz", readyz, methods=["GET"])
    rule("/openapi.json", "openapi", openapi, methods=["GET"])
