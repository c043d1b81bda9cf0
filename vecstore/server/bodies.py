"""JSON of requests by its type, counted before objects are made of it.

A few kilobytes of gzip hold a list of millions, and msgspec knows how long a list is once it has made
it. Imports errors, limits and the outline of JSON.
"""

from __future__ import annotations

import re
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
_NAME: Final = re.compile(rb'[\s{]*("(?:[^"\\]|\\.){0,128}")')
_BYTE: Final = re.compile(r"\(byte ([0-9]+)\)")
_HALF: Final = re.compile(  # an escape of the first half that none of the second follows
    rb"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})(?!\\u[dD][c-fC-F])"
)
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
    try:
        str(data, "utf-8")
    except UnicodeDecodeError as error:
        text, position = f"it is not UTF-8: {error.reason}", error.start
    else:
        half = None if match else _HALF.search(data)
        if half is not None:
            text, position = "a string has one half of a surrogate pair", half.start(1)
    return InvalidJson(f"the body is not JSON: {text}", field="body", position=position)


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
