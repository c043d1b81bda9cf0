"""Whether the server lives and is ready, its figures, what its caches hold, and what it understands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Flask, Response

from vecstore.server import wire
from vecstore.server.access import operates
from vecstore.server.handlers import RETRY_AFTER_SECONDS, answer
from vecstore.server.openapi import document
from vecstore.server.readiness import FAILED, OK, Readiness
from vecstore.server.requests import query

if TYPE_CHECKING:
    from vecstore.api import Backend
    from vecstore.telemetry.metrics import Metrics


def register(app: Flask, backend: Backend, readiness: Readiness, metrics: Metrics | None) -> None:
    """Add the routes."""

    def healthz() -> Response:
        return answer(wire.Health(status="ok"))

    def readyz() -> Response:
        checks = readiness.checks()
        wrong = {name: found for name, found in checks.items() if found != OK}
        if not wrong:
            return answer(wire.Health(status="ready", checks=checks))
        if not operates():  # it may name buckets, hosts and folders, and anybody may ask
            wrong = dict.fromkeys(wrong, FAILED)
            checks |= wrong
        # Not raised as an error: a probe that fails each second would fill the log with its stack.
        told = ", ".join(f"{name}: {found}" for name, found in wrong.items())
        response = answer(
            wire.ErrorBody(code="not_ready", message=f"not ready: {told}", details={"checks": checks}), 503
        )
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response

    def caches() -> Response:
        query()
        return answer(backend.cache_stats())

    def openapi() -> Response:
        query()
        return answer(document())

    rule: Any = app.add_url_rule
    rule("/healthz", "healthz", healthz, methods=["GET"])
    rule("/readyz", "readyz", readyz, methods=["GET"])
    rule("/v1/caches", "caches", caches, methods=["GET"])
    rule("/openapi.json", "openapi", openapi, methods=["GET"])
    if metrics is not None:
        told = metrics

        def figures() -> Response:
            from vecstore.telemetry.metrics import CONTENT_TYPE

            return Response(told.text(), content_type=CONTENT_TYPE)

        rule("/metrics", "metrics", figures, methods=["GET"])
