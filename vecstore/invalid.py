"""What msgspec says of a value that does not fit its type, as an error of ours.

Imports errors and types.
"""

from __future__ import annotations

import re
from typing import Any, Final, get_args

import msgspec

from vecstore.errors import InvalidArgument, InvalidId
from vecstore.types import Consistency, Metric, WriteMode

_WHERE: Final = re.compile(r" - at `(?:key in )?\$(.*)`$", re.DOTALL)
_NAMED: Final = re.compile(r"^Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL)
_HALF_TOLD: Final = 512  # characters at each end of what msgspec says, which names fields as they were given
_LIMIT: Final = re.compile(r"(?:>=|<=|>|<) (-?[0-9][0-9.e+-]*)$")
_CHOICES: Final[dict[str, list[str]]] = {
    "metric": sorted(get_args(Metric)),
    "mode": sorted(get_args(WriteMode)),
    "consistency": sorted(get_args(Consistency)),
    "rerank_precision": ["none", "int8", "fp32"],
    "store_vectors": ["fp32", "fp16", "none"],
    "source": ["rows", "recent"],
}


def invalid(error: msgspec.ValidationError, field: str = "") -> InvalidArgument:
    """A validation error of msgspec as ours, with the field and, where there is one, the limit."""
    text = str(error)
    if len(text) > 2 * _HALF_TOLD:
        text = f"{text[:_HALF_TOLD]}…{text[-_HALF_TOLD:]}"
    where = _WHERE.search(text)
    path = where[1].lstrip(".") if where else ""
    text = text[: where.start()] if where else text
    named = _NAMED.match(text)
    if named:
        path = f"{path}.{named[1]}" if path else named[1]
    if field:
        path = f"{field}{path}" if path[:1] in ("", "[") else f"{field}.{path}"
    text = text.replace("`", "")
    details: dict[str, Any] = {"field": path or "body"}
    limit = _LIMIT.search(text)
    choices = _CHOICES.get(re.sub(r"\[.*", "", path.rpartition(".")[2]))
    if limit:
        number = float(limit[1])
        details["limit"] = int(number) if number.is_integer() else number
    elif text.startswith("Invalid enum value") and choices:
        details["limit"] = choices
        text = f"{text}; one of {', '.join(choices)} is expected"
    kind = InvalidId if not named and re.match(r"ids(\[|$)", path) else InvalidArgument
    return kind(f"{path or 'body'}: {text[:1].lower()}{text[1:]}", **details)
