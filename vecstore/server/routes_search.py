"""Searches: one query or a batch by POST, one query by GET.

A plain POST of one query has been answered by `vecstore.server.shortcut` before it gets here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.errors import InvalidArgument
from vecstore.invalid import invalid
from vecstore.limits import MAX_QUERIES
from vecstore.params import check_params
from vecstore.server import wire
from vecstore.server.handlers import answer
from vecstore.server.requests import json_body, query, read_body
from vecstore.server.routes_rows import batch
from vecstore.server.shortcut import SEARCH
from vecstore.types import SearchParams

_search = msgspec.json.Decoder(wire.Search)
_PARAMETERS: Final = wire.SearchQuery.__struct_fields__


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the routes."""
    limit = config.max_body_bytes

    def one(ns: str, asked: object, params: SearchParams) -> Response:
        hits = backend.search(ns, asked, check_params(params))
        return answer(wire.found(hits), at=(hits.incarnation, hits.epoch))

    def post(ns: str) -> Response:
        query()
        asked: wire.Search = json_body(_search, limit)
        if not wire.is_given(asked.vectors):
            wanted = asked.query()
            if asked.dim is not None:
                # A search holds its vector against the namespace; to ask for that here is a strong read.
                dim = len(wanted) if isinstance(wanted, np.ndarray) else backend.info(ns).dim
                wire.check_dim(asked.dim, dim)
            return one(ns, wanted, asked.params())
        if wire.is_given(asked.vector) or asked.id is not None or asked.order_by is not None:
            raise InvalidArgument("a search has one of vector, vectors, id and order_by", field="vector")
        queries = batch(backend, ns, asked.vectors, asked.dim, limit=MAX_QUERIES)
        hits = backend.search_batch(ns, queries, check_params(asked.params()))
        return answer(wire.found_batch(hits), at=(hits.incarnation, hits.epoch))

    def get(ns: str) -> Response:
        if read_body(limit):
            raise InvalidArgument("a search by GET has query parameters and no body", field="body")
        values: dict[str, Any] = query(*_PARAMETERS)
        for listed in ("include", "exclude"):
            if listed in values:
                values[listed] = [name for name in values[listed].split(",") if name]
        try:
            asked = msgspec.convert(values, wire.SearchQuery, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error) from error
        return one(ns, wire.from_query(asked.vector), asked.params())

    rule: Any = app.add_url_rule
    rule(SEARCH, "search", post, methods=["POST"])
    rule(SEARCH, "search_get", get, methods=["GET"])
