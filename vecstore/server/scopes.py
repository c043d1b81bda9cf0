"""What each route asks of a key: the table of ``docs/access.md``, which a test holds against this one.

A route that is not listed is the operator's alone, so one that somebody adds is closed until it is listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from vecstore.keys import SCOPES, Scope


@dataclass(frozen=True, slots=True)
class Need:
    """What a route asks for.

    Attributes
    ----------
    scopes
        One of these is needed in the namespace that the path names; if it names none, in some namespace.
        Empty: the route is open, also to those without a key.
    everywhere
        The scope is needed in all namespaces, those to come included.
    act
        Its name in the audit log, if it is an administrative act.
    """

    scopes: tuple[Scope, ...]
    everywhere: bool = False
    act: str | None = None


_OPEN: Final = Need(())
_ANY: Final = Need(SCOPES)
_READ: Final = Need(("read",))
SEARCH: Final = _READ  # which is judged before it is routed
_WRITE: Final = Need(("write",))
_OPERATOR: Final = Need(("admin",), everywhere=True)


def _admin(act: str) -> Need:
    return Need(("admin",), act=act)


_NS: Final = "/v1/namespaces/{}"
NEEDS: Final[Mapping[str, Need]] = MappingProxyType(
    {
        "GET /healthz": _OPEN,
        "GET /readyz": _OPEN,
        "GET /openapi.json": _OPEN,
        "GET /docs": _OPEN,
        "GET /docs/api.css": _OPEN,
        "GET /console": _OPEN,
        "GET /console/": _OPEN,
        "GET /console/{}": _OPEN,
        "GET /metrics": _OPERATOR,
        "GET /v1/caches": _OPERATOR,
        "GET /v1/namespaces": _ANY,
        "POST /v1/namespaces": _admin("create_namespace"),
        f"GET {_NS}": _ANY,
        f"PATCH {_NS}": _admin("update_namespace"),
        f"DELETE {_NS}": _admin("delete_namespace"),
        f"POST {_NS}/parts": _WRITE,
        f"POST {_NS}/patches": _WRITE,
        f"POST {_NS}/deletes": _WRITE,
        f"POST {_NS}/search": SEARCH,
        f"GET {_NS}/search": SEARCH,
        f"POST {_NS}/aggregate": _READ,
        f"POST {_NS}/queries": _READ,
        f"POST {_NS}/recall": _READ,
        f"GET {_NS}/recall": _READ,
        f"GET {_NS}/rows/{{}}": _READ,
        f"POST {_NS}/rows/scan": _READ,
        f"GET {_NS}/manifest": _READ,
        f"GET {_NS}/parts": _READ,
        f"POST {_NS}/warm": _READ,
        f"GET {_NS}/tags": _READ,
        f"POST {_NS}/tags": _admin("create_tag"),
        f"DELETE {_NS}/tags/{{}}": _admin("delete_tag"),
        f"POST {_NS}/restore": _admin("restore"),
        f"POST {_NS}/branches": _admin("create_branch"),
        f"POST {_NS}/compact": _admin("compact"),
    }
)
_PARAMETER: Final = re.compile(r"<[^>]*>|\{[^}]*\}")


@lru_cache(maxsize=1024)
def need(method: str, rule: str) -> Need:
    """What a route asks for; ``rule`` in the form of Flask or of OpenAPI."""
    return NEEDS.get(route(method, rule), _OPERATOR)


def route(method: str, rule: str) -> str:
    """Method and path with all parameters as ``{}``. What is asked by HEAD is what GET would give."""
    return f"{'GET' if method == 'HEAD' else method} {_PARAMETER.sub('{}', rule)}"
