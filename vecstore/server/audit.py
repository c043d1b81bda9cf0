"""The audit log: one line of JSON for each administrative act, done or refused (logger ``vecstore.audit``).

A line names the key by its id, never by its secret, and whatever a client has chosen stands in it as JSON,
so that nobody can write a line of their own.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from vecstore.telemetry.logs import said

log = logging.getLogger("vecstore.audit")


def record(act: str, **facts: Any) -> None:
    """Write a line; facts that are None are left out."""
    told = {name: value for name, value in facts.items() if value is not None}
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    log.info("%s", json.dumps({"time": time, "act": act, **told}), extra=said(act=act, **told))
