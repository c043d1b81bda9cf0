"""History of a namespace: restore."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.errors import InvalidArgument
from vecstore.server import wire
from vecstore.server.handlers import answer
from vecstore.server.requests import if_match, json_body, query

_restore = msgspec.json.Decoder(wire.Restore)


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the routes."""
    limit = config.max_body_bytes

    def restore(ns: str) -> Response:
        query()
        asked = json_body(_restore, limit)
        expected = if_match()
        if expected is None:
            raise InvalidArgument(
                "a restore needs If-Match with the ETag of the namespace as it was seen", field="If-Match"
            )
        info = backend.restore(ns, asked.epoch, expected=expected)
        return answer(info, at=(info.incarnation, info.epoch))

    rule: Any = app.add_url_rule
    one = "/v1/namespaces/<ns>"
    rule(f"{one}/restore", "restore", restore, methods=["POST"])
