"""JSON of requests by its type, counted before objects are made of it.

A few kilobytes of gzip hold a list of millions, and msgspec knows how long a list is once it has made
it. Imports errors, limits and the outline of JSON.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from typing import Any, Final

import msgspec
import numpy as np

from vecstore.errors import DimensionMismatch, InvalidArgument, InvalidJson
from vecstore.ext.json import outline
from vecstore.invalid import invalid
from vecstore.limits import MAX_AGGREGATES, MAX_BATCH_ROWS, MAX_DIM, MAX_GROUP_BY, MAX_NAMES

AT_ONCE_BYTES: Final = 256 << 10  # of JSON that is decoded uncounted: it makes few objects
_MEMBERS: Final = 64  # of a body; no type has as many
_RAW: Final = ("ids", "attributes", "filter", "condition", "queries")  # bounded by whoever decodes them
_LISTS: Final = {
    "vector": MAX_DIM,
    "vectors": MAX_BATCH_ROWS,
    "aggregate_by": MAX_AGGREGATES,
    "group_by": MAX_GROUP_BY,
}
_NAME: Final = re.compile(rb'[\s{]*+("(?:[^"\\]|\\.){0,128}")')
_BYTE: Final = re.compile(r"\(byte ([0-9]+)\)")
_HALF: Final = re.compile(  # an escape of the first half of a pair, where a second one has no room any more
    rb"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})(?!\\u[dD][c-fC-F]).{0,5}\Z", re.DOTALL
)
_TAIL_BYTES: Final = 4 << 10  # in which it is looked for: 11 at the end, and backslashes before them
_PIECE_BYTES: Final = 1 << 20
_raw = msgspec.json.Decoder(msgspec.Raw)


def decode_json(data: bytes | memoryview, decoder: msgspec.json.Decoder[Any], field: str = "") -> Any:
    """A body, or the object in a ``field`` of one, by its type.

    `InvalidJson` or `InvalidArgument` names the position or the field.
    """
    if not data:
        raise InvalidArgument("the request needs a JSON body", field="body")
    try:
        if len(data) > AT_ONCE_BYTES:
            _refuse_long(data, f"{field}." if field else "")
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid(error, field) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(data, str(error)) from error


def _no_json(data: bytes | memoryview, text: str) -> InvalidJson:
    """Where a body is no JSON: msgspec counts bytes within a string, and calls half a pair truncated."""
    match = _BYTE.search(text)
    position = int(match[1]) if match else len(data)
    bad = _not_utf8(data)
    if bad is not None:
        text, position = f"it is not UTF-8: {bad[0]}", bad[1]
    elif match is None:
        tail = bytes(data[-_TAIL_BYTES:])
        half = _HALF.search(tail)
        if half is not None:
            text = "a string has one half of a surrogate pair"
            position = len(data) - len(tail) + half.start(1)
    return InvalidJson(f"the body is not JSON: {text}", field="body", position=position)


def _not_utf8(data: bytes | memoryview) -> tuple[str, int] | None:
    """Why and where a body is not UTF-8; by pieces, as one character makes a text four times as large."""
    decoder, view = getincrementaldecoder("utf-8")(), memoryview(data)
    for begin in range(0, len(view), _PIECE_BYTES):
        end = begin + _PIECE_BYTES
        held = len(decoder.getstate()[0])  # bytes of a character that the piece before has cut
        try:
            decoder.decode(view[begin:end], final=end >= len(view))
        except UnicodeDecodeError as error:
            return error.reason, begin - held + error.start
    return None


def items(data: msgspec.Raw | bytes | memoryview) -> int:
    """How many items an array or an object of valid JSON has."""
    return outline(memoryview(data), *np.zeros((4, 0), dtype=np.int64))


def _refuse_long(data: bytes | memoryview, within: str) -> None:
    """Refuse an object one of whose members has more items than its type allows."""
    shape = ends, children, inner, _ = np.zeros((4, _MEMBERS), dtype=np.int64)
    try:
        count = outline(memoryview(data), *shape)
    except ValueError as error:
        _raw.decode(data)  # tells where it is no JSON
        raise _no_json(data, str(error)) from error
    if count > _MEMBERS:
        raise InvalidArgument(
            f"{within or 'body'} has {count} members; no request has more than {_MEMBERS}",
            field=within.rstrip(".") or "body",
            limit=_MEMBERS,
        )
    begin = 0
    for end, own, most in zip(ends[:count].tolist(), children.tolist(), inner.tolist(), strict=False):
        name = _name(data, begin, end)
        begin = end + 1
        limit = _LISTS.get(name, MAX_NAMES)
        if name in _RAW:
            continue
        if own > limit:
            kind = DimensionMismatch if name == "vector" else InvalidArgument
            raise kind(
                f"{within}{name} has {own} items; at most {limit} are taken",
                field=f"{within}{name}",
                limit=limit,
            )
        if name == "vectors" and most > MAX_DIM:
            raise DimensionMismatch(
                f"{within}{name}: a row has {most} numbers; at most {MAX_DIM} are taken",
                field=f"{within}{name}",
                limit=MAX_DIM,
            )
        if name != "vectors" and most > MAX_NAMES:
            raise InvalidArgument(
                f"{within}{name}: an item has {most} items itself; at most {MAX_NAMES} are taken",
                field=f"{within}{name}",
                limit=MAX_NAMES,
            )


def _name(data: bytes | memoryview, begin: int, end: int) -> str:
    """The name of a member, or nothing if it has one that no field has."""
    match = _NAME.match(data, begin, end)
    try:
        return "" if match is None else msgspec.json.decode(match[1], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
