"""From results and errors to answers. Every answer that is not 2xx has one shape."""

from __future__ import annotations

import logging
from typing import Any, Final

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from vecstore.errors import DeadlineExceeded, InvalidArgument, MethodNotAllowed, RouteNotFound, VecstoreError
from vecstore.server.paths import FAILED, REQUEST_ID, ROUTE, template
from vecstore.server.requests import JSON, is_utf8, too_large
from vecstore.server.wire import ErrorBody, encode, etag

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 1
LONGEST_TEXT: Final = 4_096  # characters of a message or of a detail, which name things as they were given


def answer(body: Any, status: int = 200, *, at: tuple[str, int] | None = None) -> Response:
    """A body as JSON; ``at`` is the incarnation and epoch that its ``ETag`` names."""
    response = Response(encode(body), status, content_type=JSON)
    if at is not None:
        response.headers["ETag"] = etag(*at)
    return response


def register(app: Flask, max_body_bytes: int) -> None:
    """Answer every exception of ``app``, and those that layers in front of it met."""

    def ours(error: VecstoreError) -> Response:
        return refusal(error)

    def werkzeugs(error: HTTPException) -> Response:
        response = refusal(_translated(error, max_body_bytes))
        allow = error.get_response().headers.get("Allow")
        if allow is not None:
            response.headers["Allow"] = allow
        return response

    def unexpected(error: Exception) -> Response:
        return refusal(VecstoreError("an unexpected error; the server's log has it"), error)

    def name_route() -> None:
        if request.url_rule is not None:
            request.environ[ROUTE] = template(request.url_rule.rule)

    def raise_again() -> None:
        failed = request.environ.get(FAILED)
        if failed is not None:
            raise failed

    def refuse_slashes() -> None:
        # werkzeug strips them from the front of a path; layers before it, and proxies, judge it with them.
        if request.environ.get("PATH_INFO", "").startswith("//"):
            raise RouteNotFound(f"no route {request.path}", path=request.path)

    def refuse_other_bytes() -> None:
        # werkzeug puts U+FFFD in their place, which is a character of other ids.
        if not is_utf8(request.environ.get("PATH_INFO", "").encode("latin-1")):
            raise InvalidArgument("the path is not UTF-8", field="path")

    app.before_request(name_route)
    app.before_request(raise_again)
    app.before_request(refuse_slashes)
    app.before_request(refuse_other_bytes)
    app.register_error_handler(VecstoreError, ours)
    app.register_error_handler(HTTPException, werkzeugs)
    app.register_error_handler(Exception, unexpected)


def refusal(error: VecstoreError, cause: Exception | None = None) -> Response:
    """The answer to an error; those that are ours are logged under a request id that the answer names."""
    details = {
        name: _cut(value) if isinstance(value, str) else value for name, value in error.details.items()
    }
    message = _cut(error.message)
    if error.status >= 500:
        request_id = details["request_id"] = request.environ[REQUEST_ID]
        # That a request was late is seldom a fault, and in an overload stacks would be most of the log.
        late = isinstance(error, DeadlineExceeded)
        log.log(
            logging.WARNING if late else logging.ERROR,
            "%s %s failed, request %s: %s",
            request.method,
            request.path,
            request_id,
            message,
            exc_info=None if late else cause if cause is not None else error,
        )
    body = ErrorBody(code=error.code, message=message, details=details)
    try:
        data = encode(body)
    except (TypeError, UnicodeEncodeError):  # details that JSON cannot hold
        body.details = {name: repr(value) for name, value in details.items()}
        body.message = body.message.encode("utf-8", "replace").decode()
        data = encode(body)
    response = Response(data, error.status, content_type=JSON)
    if error.status in (429, 503):
        response.headers["Retry-After"] = str(details.get("retry_after", RETRY_AFTER_SECONDS))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def _translated(error: HTTPException, max_body_bytes: int) -> VecstoreError:
    if error.code == 404:
        return RouteNotFound(f"no route {request.path}", path=request.path)
    if error.code == 405:
        return MethodNotAllowed(f"{request.method} is not allowed here", method=request.method)
    if error.code == 413:
        return too_large(max_body_bytes)
    if error.code is not None and 400 <= error.code < 500:
        return InvalidArgument(f"bad request: {error.description or error.name}", field="body")
    return VecstoreError("an unexpected error; the server's log has it")
