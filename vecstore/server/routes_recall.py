"""Recall: measured once by POST, that of live searches by GET."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.limits import MAX_QUERIES
from vecstore.params import check_params, check_sample
from vecstore.server import wire
from vecstore.server.handlers import answer
from vecstore.server.requests import json_body, query
from vecstore.server.routes_rows import batch
from vecstore.types import RecallSample

_measure = msgspec.json.Decoder(wire.MeasureRecall)


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the routes."""
    limit = config.max_body_bytes

    def measure(ns: str) -> Response:
        query()
        asked: wire.MeasureRecall = json_body(_measure, limit, default=wire.MeasureRecall())
        given = wire.is_given(asked.vectors)
        source = asked.source if asked.source is not None else "queries" if given else "rows"
        sample = check_sample(RecallSample(source, asked.sample, asked.confidence, asked.seed), given=given)
        params = check_params(asked.params())
        queries = batch(backend, ns, asked.vectors, asked.dim, limit=MAX_QUERIES) if given else None
        if not given and asked.dim is not None:
            wire.check_dim(asked.dim, backend.info(ns).dim)
        found = backend.measure_recall(ns, queries, sample, params)
        return answer(found, at=(found.incarnation, found.epoch))

    def estimate(ns: str) -> Response:
        query()
        return answer(backend.recall_estimate(ns))

    rule: Any = app.add_url_rule
    rule("/v1/namespaces/<ns>/recall", "measure_recall", measure, methods=["POST"])
    rule("/v1/namespaces/<ns>/recall", "recall_estimate", estimate, methods=["GET"])
