"""What a request carries: its body within bounds, its headers, its query parameters.

Each function raises an error of `vecstore.errors` that names what is wrong.
"""

from __future__ import annotations

import re
import zlib
from io import BytesIO
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from flask import request

from vecstore import deadline
from vecstore.errors import InvalidArgument, PayloadTooLarge, UnsupportedMediaType
from vecstore.limits import MAX_IDEMPOTENCY_KEY_BYTES
from vecstore.server.bodies import decode_json
from vecstore.server.wire import parse_etag

JSON: Final = "application/json"
_CONDITIONS: Final = ("If-Match", "If-None-Match", "Idempotency-Key")
_PIECE_BYTES: Final = 1 << 20
_FED_BYTES: Final = 4 << 10  # at once to zlib, which copies what a member leaves of them


def json_body(decoder: msgspec.json.Decoder[Any], limit: int, *, default: Any = None) -> Any:
    """The body by its type; ``default``, if given, where there is none."""
    data = read_body(limit)
    if not data and default is not None:
        return default
    if request.environ.get("CONTENT_TYPE") != JSON and request.mimetype != JSON:
        raise UnsupportedMediaType(
            f"Content-Type must be {JSON}, not {request.mimetype or 'missing'}",
            field="Content-Type",
            limit=JSON,
        )
    return decode_json(data, decoder)


def read_body(limit: int) -> bytes:
    """The body, decompressed; `PayloadTooLarge` beyond ``limit`` before or after."""
    environ = request.environ
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip"):
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding} is not read; gzip is",
            field="Content-Encoding",
            limit=["identity", "gzip"],
        )
    length = request.content_length if "CONTENT_LENGTH" in environ else None
    if length is None:
        data = _unmeasured(environ, limit)
    elif length > limit:
        raise too_large(limit)
    else:
        data = environ["wsgi.input"].read(length)  # without werkzeug's wrappers
        if len(data) != length:
            raise InvalidArgument(
                f"the body ends after {len(data)} of {length} bytes", field="body", limit=length
            )
    return gunzip(data, limit) if encoding == "gzip" else data


def _unmeasured(environ: dict[str, Any], limit: int) -> bytes:
    """A body whose length is not told: chunked, or none. werkzeug would cut it off at the limit."""
    if not environ.get("wsgi.input_terminated"):
        return b""
    whole, size = BytesIO(), 0
    while piece := environ["wsgi.input"].read(min(_PIECE_BYTES, limit + 1 - size)):
        size += whole.write(piece)
        if size > limit:
            raise too_large(limit)
    return whole.getvalue()


def gunzip(data: bytes, limit: int) -> bytes:
    """Decompress, never holding more than ``limit`` bytes, nor any of them twice."""
    whole, size, at = BytesIO(), 0, 0
    inflate = zlib.decompressobj(wbits=31)
    try:
        while at < len(data):
            deadline.check()
            if inflate.eof:  # gzip allows several members
                inflate = zlib.decompressobj(wbits=31)
            given = data[at : at + _FED_BYTES]
            size += whole.write(inflate.decompress(given, min(_PIECE_BYTES, limit + 1 - size)))
            if size > limit:
                raise too_large(limit, "decompressed body")
            at += len(given) - len(inflate.unused_data if inflate.eof else inflate.unconsumed_tail)
    except zlib.error as error:
        raise InvalidArgument(f"the body is not gzip: {error}", field="body") from error
    if not inflate.eof:
        raise InvalidArgument("the gzip body is truncated", field="body")
    return whole.getvalue()


def too_large(limit: int, what: str = "body") -> PayloadTooLarge:
    return PayloadTooLarge(f"the {what} exceeds {limit} bytes", field="body", limit=limit)


def takes(*headers: str) -> None:
    """Refuse a header that asks a write for what it does not do: its sender would rely on it."""
    for header in _CONDITIONS:
        if header in request.headers and header not in headers:
            raise InvalidArgument(f"{header} has no effect on this request", field=header)


def if_match() -> tuple[str, int] | None:
    """What ``If-Match`` asks of the namespace; ``*`` asks no more than that it exists."""
    text = request.headers.get("If-Match")
    return None if text is None or text.strip() == "*" else parse_etag(text)


def idempotency_key() -> str | None:
    """``Idempotency-Key``: printable ASCII."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_BYTES or not (key.isascii() and key.isprintable()):
        raise InvalidArgument(
            f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY_BYTES} printable ASCII characters",
            field="Idempotency-Key",
            limit=MAX_IDEMPOTENCY_KEY_BYTES,
        )
    return key


def query(*allowed: str) -> dict[str, str]:
    """The query parameters; one that is not allowed or given twice is refused."""
    found: dict[str, str] = {}
    given = request.environ.get("QUERY_STRING")
    if not given:
        return found
    if not is_utf8(unquote_to_bytes(given.encode("latin-1"))):
        raise InvalidArgument("the query string is not UTF-8", field="query")
    for name, value in request.args.items(multi=True):
        if name not in allowed:
            expected = ", ".join(allowed) or "none"
            raise InvalidArgument(
                f"unknown query parameter {name}; known here: {expected}", field=name, limit=list(allowed)
            )
        if name in found:
            raise InvalidArgument(f"query parameter {name} is given twice", field=name)
        found[name] = value
    return found


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def past_epoch(values: dict[str, str]) -> int | None:
    """The query parameter ``epoch``; None for the current one."""
    text = values.get("epoch")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) < 1:
        raise InvalidArgument(
            "epoch must be an integer of at least 1 and at most 19 digits", field="epoch", limit=1
        )
    return int(text)


def flag(values: dict[str, str], name: str, default: bool) -> bool:
    """A query parameter that is ``true`` or ``false``."""
    text = values.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise InvalidArgument(f"{name} must be true or false", field=name, limit=["true", "false"])
    return text == "true"
