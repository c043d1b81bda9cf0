"""Several queries on one epoch."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.server.handlers import answer
from vecstore.server.requests import json_body, query
from vecstore.server.wire_queries import Queries, answers

_queries = msgspec.json.Decoder(Queries)


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the route."""

    def post(ns: str) -> Response:
        query()
        asked: Queries = json_body(_queries, config.max_body_bytes)
        found = backend.multi_query(ns, asked.asked(), asked.moment())
        return answer(answers(found), at=(found[0].incarnation, found[0].epoch))

    rule: Any = app.add_url_rule
    rule("/v1/namespaces/<ns>/queries", "queries", post, methods=["POST"])
