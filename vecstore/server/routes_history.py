"""History of a namespace: restore, branches and tags."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.errors import InvalidArgument
from vecstore.server import wire
from vecstore.server.access import may
from vecstore.server.handlers import answer
from vecstore.server.requests import if_match, json_body, query, takes

_restore = msgspec.json.Decoder(wire.Restore)
_branch = msgspec.json.Decoder(wire.CreateBranch)
_tag = msgspec.json.Decoder(wire.CreateTag)


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the routes."""
    limit = config.max_body_bytes

    def restore(ns: str) -> Response:
        query()
        takes("If-Match")
        asked = json_body(_restore, limit)
        expected = if_match()
        if expected is None:
            raise InvalidArgument(
                "a restore needs If-Match with the ETag of the namespace as it was seen", field="If-Match"
            )
        info = backend.restore(ns, asked.epoch, expected=expected)
        return answer(info, at=(info.incarnation, info.epoch))

    def branch(ns: str) -> Response:
        query()
        takes()
        asked = json_body(_branch, limit)
        may("admin", asked.name)
        info = backend.branch(ns, asked.name, asked.epoch)
        return answer(info, 201, at=(info.incarnation, info.epoch))

    def tags(ns: str) -> Response:
        query()
        return answer(wire.Tags(tags=list(backend.tags(ns))))

    def tag(ns: str) -> Response:
        query()
        takes()
        asked = json_body(_tag, limit)
        return answer(backend.tag(ns, asked.name, asked.epoch), 201)

    def untag(ns: str, tag: str) -> Response:
        query()
        takes()
        backend.untag(ns, tag)
        return Response(status=204)

    rule: Any = app.add_url_rule
    one = "/v1/namespaces/<ns>"
    rule(f"{one}/restore", "restore", restore, methods=["POST"])
    rule(f"{one}/branches", "branch", branch, methods=["POST"])
    rule(f"{one}/tags", "tags", tags, methods=["GET"])
    rule(f"{one}/tags", "tag", tag, methods=["POST"])
    rule(f"{one}/tags/<tag>", "untag", untag, methods=["DELETE"])
