"""What lies between gunicorn and Flask agrees on: names in the WSGI environment, namespaces in paths.

Layers in front of Flask, from the outside in: who sees every request (ids, figures, logs), who may come
in (keys), how many at once (admission), and the shortcut for plain searches. A layer that refuses does
not word the answer itself: it leaves its error under `FAILED` and calls Flask, whose handlers raise it.
"""

from __future__ import annotations

import re
from typing import Final

from vecstore.limits import MAX_NAME_BYTES

FAILED: Final = "vecstore.failed"  # the error that a layer in front of Flask met
REQUEST_ID: Final = "vecstore.request_id"  # of every request, as answers and logs name it
KEY: Final = "vecstore.key"  # the id of the API key that a request came with, for logs and limits
ROUTE: Final = "vecstore.route"  # the template of the path that was asked for, once it is known

EXEMPT: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # asked most urgently when all else is busy

_NAMESPACE: Final = re.compile(
    rf"/v1/namespaces/([A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_BYTES - 1}}})(?:/.*)?", re.DOTALL
)

_VARIABLE: Final = re.compile(r"<(?:\w+:)?(\w+)>")


def template(rule: str) -> str:
    """A rule of Flask's as the docs write it: ``/v1/namespaces/{ns}``."""
    return _VARIABLE.sub(r"{\1}", rule)


def namespace_of(path: str) -> str | None:
    """The namespace that a decoded path asks for; None if it names none, or one that cannot be."""
    match = _NAMESPACE.fullmatch(path)
    return match[1] if match is not None else None
