"""How log lines look, and what they say of the request that they are written for.

A line has a message, and facts for programs: ``log.info("…", extra=facts(…))``. In text they follow the
message, in JSON they are members of their own, beside ``request_id`` where a request is under way.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, Final, Literal

import msgspec

LogFormat = Literal["text", "json"]

_FACTS: Final = "vecstore_facts"
_SAID: Final = "vecstore_said"
_TEXT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"

# The id of the request that this thread works for; `vecstore.storage.threads` takes it along.
request_id: ContextVar[str | None] = ContextVar("vecstore_request_id", default=None)


def facts(**named: Any) -> dict[str, Any]:
    """``extra`` of a log line; None is left out."""
    return {_FACTS: {name: value for name, value in named.items() if value is not None}}


def said(**named: Any) -> dict[str, Any]:
    """As `facts`, where the message has them already: only JSON shows them once more, as members."""
    return {_SAID: named}


def configure_logging(level: str, form: LogFormat) -> None:
    """Log to stderr; does nothing if the process logs already."""
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter(form))
        logging.basicConfig(level=level.upper(), handlers=[handler])


def formatter(form: LogFormat) -> logging.Formatter:
    return JsonLines() if form == "json" else TextLines(_TEXT)


class TextLines(logging.Formatter):
    """A line for people; facts and the request's id follow the message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the library's name)
        line = super().formatMessage(record)
        told = [_on_one_line(line)]
        return " ".join(told + [f"{name}={_shown(value)}" for name, value in _facts_of(record).items()])


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **getattr(record, _SAID, {}),
            **_facts_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=repr)


def _facts_of(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = dict(getattr(record, _FACTS, {}))
    current = request_id.get()
    if current is not None:
        found.setdefault("request_id", current)
    return found


def _on_one_line(text: str) -> str:
    """Without what ends lines or moves a terminal's cursor: a message may hold what a client has chosen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=repr).decode()
    return json.dumps(text) if any(c.isspace() or not c.isprintable() or c in '"=' for c in text) else text
