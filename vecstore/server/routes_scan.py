"""Scans: rows of one epoch, page by page."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.server.handlers import answer
from vecstore.server.requests import json_body, query
from vecstore.server.scans import ScanRows, scanned

_scan = msgspec.json.Decoder(ScanRows)


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the route."""

    def scan(ns: str) -> Response:
        query()
        asked = json_body(_scan, config.max_body_bytes, default=ScanRows())
        page = backend.scan(ns, asked.params())
        return answer(scanned(page, asked.vector_encoding), at=(page.incarnation, page.epoch))

    rule: Any = app.add_url_rule
    rule("/v1/namespaces/<ns>/rows/scan", "scan", scan, methods=["POST"])
