"""Whether the server lives and is ready, what its caches hold, and what it understands."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response

from vecstore.api import Backend
from vecstore.server import wire
from vecstore.server.handlers import answer
from vecstore.server.openapi import document
from vecstore.server.requests import query


def register(app: Flask, backend: Backend) -> None:
    """Add the routes."""

    def healthz() -> Response:
        return answer(wire.Health(status="ok"))

    def readyz() -> Response:
        backend.ping()
        return answer(wire.Health(status="ready"))

    def caches() -> Response:
        query()
        return answer(backend.cache_stats())

    def openapi() -> Response:
        return answer(document())

    rule: Any = app.add_url_rule
    rule("/healthz", "healthz", healthz, methods=["GET"])
    rule("/readyz", "readyz", readyz, methods=["GET"])
    rule("/v1/caches", "caches", caches, methods=["GET"])
    rule("/openapi.json", "openapi", openapi, methods=["GET"])
