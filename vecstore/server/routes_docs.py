"""``/docs``: the OpenAPI document as a page for people, made from it when it is first asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response, render_template

from vecstore.server.openapi import document
from vecstore.server.requests import query

_TEMPLATES: Final = Path(__file__).parent / "templates"
_METHODS: Final = ("get", "post", "patch", "delete")
_BOUNDS: Final = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "minItems": "items at least",
    "maxItems": "items at most",
    "pattern": "matches",
}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


def register(app: Flask) -> None:
    """Add the routes."""
    app.template_folder = str(_TEMPLATES)

    @cache
    def page() -> str:
        return render_template("api.html", document=document(), methods=_METHODS, bounds=_BOUNDS)

    def show() -> Response:
        query()
        return Response(page(), content_type="text/html; charset=utf-8", headers=_HEADERS)

    def style() -> Response:
        query()
        css = (_TEMPLATES / "api.css").read_bytes()
        return Response(css, content_type="text/css; charset=utf-8", headers=_HEADERS)

    rule: Any = app.add_url_rule
    rule("/docs", "docs", show, methods=["GET"])
    rule("/docs/api.css", "docs_style", style, methods=["GET"])
