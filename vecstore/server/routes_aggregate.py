"""Aggregations over rows."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.server.handlers import answer
from vecstore.server.requests import json_body, query
from vecstore.server.wire_aggregate import Aggregate, aggregated

_aggregate = msgspec.json.Decoder(Aggregate)


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the route."""

    def post(ns: str) -> Response:
        query()
        found = backend.aggregate(ns, json_body(_aggregate, config.max_body_bytes).params())
        return answer(aggregated(found), at=(found.incarnation, found.epoch))

    rule: Any = app.add_url_rule
    rule("/v1/namespaces/<ns>/aggregate", "aggregate", post, methods=["POST"])
