"""Namespaces: create, list, show, change, delete; their manifest and parts; compaction, warming."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.errors import InvalidArgument
from vecstore.server import wire
from vecstore.server.access import may, veiled, veiled_parts, visible
from vecstore.server.handlers import answer
from vecstore.server.requests import if_match, json_body, past_epoch, query, takes
from vecstore.types import NamespaceInfo

_create = msgspec.json.Decoder(wire.CreateNamespace)
_update = msgspec.json.Decoder(wire.UpdateNamespace)
_warm = msgspec.json.Decoder(wire.Warm)
_compact = msgspec.json.Decoder(wire.Compact)


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the routes."""
    limit = config.max_body_bytes

    def create() -> Response:
        query()
        takes()
        asked = json_body(_create, limit)
        may("admin", asked.name)
        settings = {} if asked.defaults is msgspec.UNSET else _given(asked.defaults)
        schema = None if asked.schema is None else msgspec.to_builtins(asked.schema)
        return _show(backend.create(asked.name, asked.dim, asked.metric, settings, schema=schema), 201)

    def listing() -> Response:
        asked = query("prefix", "page_size", "cursor")
        size = wire.page_size(asked.get("page_size"))
        cursor = asked.get("cursor")
        after = None if cursor is None else wire.decode_cursor(cursor)
        page: list[NamespaceInfo] = []
        for prefix in visible(asked.get("prefix", "")):
            page.extend(backend.list(prefix, after=after, limit=size - len(page)))
            if len(page) == size:
                break
        following = wire.encode_cursor(page[-1].name) if len(page) == size else None
        return answer(wire.NamespacePage(namespaces=page, next_cursor=following))

    def show(ns: str) -> Response:
        query()
        return _show(backend.info(ns))

    def update(ns: str) -> Response:
        query()
        takes("If-Match")
        asked = json_body(_update, limit)
        if asked.defaults is msgspec.UNSET and asked.schema is None:
            raise InvalidArgument("a change names defaults, or a schema, or both", field="defaults")
        settings = {} if asked.defaults is msgspec.UNSET else _given(asked.defaults)
        schema = None if asked.schema is None else msgspec.to_builtins(asked.schema)
        return _show(backend.update(ns, settings, schema=schema, expected=if_match()))

    def delete(ns: str) -> Response:
        query()
        takes("If-Match")
        backend.delete(ns, expected=if_match())
        return Response(status=204)

    def manifest(ns: str) -> Response:
        found = backend.manifest(ns, past_epoch(query("epoch")))
        return answer(veiled(found), at=(found["incarnation"], found["epoch"]))

    def parts(ns: str) -> Response:
        found = backend.parts(ns, past_epoch(query("epoch")))
        return answer(veiled_parts(found), at=(found.incarnation, found.epoch))

    def compact(ns: str) -> Response:
        query()
        takes()
        asked = json_body(_compact, limit, default=wire.Compact())
        return answer(backend.compact(ns, everything=asked.everything))

    def warm(ns: str) -> Response:
        query()
        takes()
        asked = json_body(_warm, limit, default=wire.Warm())
        return answer(backend.warm(ns, asked.cursor))

    rule: Any = app.add_url_rule
    one = "/v1/namespaces/<ns>"
    rule("/v1/namespaces", "create", create, methods=["POST"])
    rule("/v1/namespaces", "list", listing, methods=["GET"])
    rule(one, "show", show, methods=["GET"])
    rule(one, "update", update, methods=["PATCH"])
    rule(one, "delete", delete, methods=["DELETE"])
    rule(f"{one}/manifest", "manifest", manifest, methods=["GET"])
    rule(f"{one}/parts", "parts", parts, methods=["GET"])
    rule(f"{one}/compact", "compact", compact, methods=["POST"])
    rule(f"{one}/warm", "warm", warm, methods=["POST"])


def _show(info: NamespaceInfo, status: int = 200) -> Response:
    return answer(info, status, at=(info.incarnation, info.epoch))


def _given(defaults: msgspec.Struct) -> dict[str, Any]:
    """The settings that a request names."""
    values = {name: getattr(defaults, name) for name in defaults.__struct_fields__}
    return {name: value for name, value in values.items() if value is not msgspec.UNSET}
