"""Who may come in: API keys, what they may do in which namespaces, and how often (decision 0027).

`Access` stands in front of admission and of the plain search: it knows the key, counts it, and turns away
whoever has no business in the namespace that a path names. What a route asks beyond that is judged behind
routing, by the hooks of `register`, where nobody can disagree about which route and which namespace it is;
only the search that does not get as far is judged here whole. `may` is for handlers whose body names a
namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Response, request

from vecstore.errors import NamespaceNotFound, TooManyRequests, Unauthenticated, Unauthorised
from vecstore.keys import Key, Scope
from vecstore.limits import MAX_NAME_BYTES
from vecstore.server.audit import record
from vecstore.server.keyring import Keyring, no_key
from vecstore.server.paths import EXEMPT, FAILED, KEY, REQUEST_ID, namespace_of
from vecstore.server.scopes import SEARCH, Need, need
from vecstore.types import PartsReport

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HOLDER: Final = "vecstore.holder"  # the `Key` that a request came with
_NAMED: Final = "vecstore.named"  # the namespace that its body names
_GUARDED: Final = "v1/"  # nothing below it is open
_NAMESPACES: Final = "/v1/namespaces/"
_PRESENTED: Final = re.compile(r"vs_([0-9a-f]{12})_")


class Access:
    """WSGI: requests whose key may do something where they ask, through ``inner``.

    Parameters
    ----------
    flask
        Words refusals, by what `vecstore.server.paths.FAILED` says.
    """

    def __init__(self, inner: WSGIApplication, flask: WSGIApplication, keyring: Keyring) -> None:
        self._inner = inner
        self._flask = flask
        self._keyring = keyring

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        environ[_HOLDER] = None  # nobody yet, and there are keys
        try:
            self._judge(environ, path)
        except Unauthenticated as error:
            # Elsewhere there are open routes; what is none is refused behind routing.
            if path.lstrip("/").startswith(_GUARDED):
                return self._refuse(error, environ, start_response)
        except (NamespaceNotFound, Unauthorised, TooManyRequests) as error:
            return self._refuse(error, environ, start_response)
        return self._inner(environ, start_response)

    def _judge(self, environ: WSGIEnvironment, path: str) -> None:
        key = self._keyring.authenticate(environ.get("HTTP_AUTHORIZATION"))
        environ[KEY], environ[_HOLDER] = key.id, key
        if path not in EXEMPT:
            self._keyring.count(key)
        ns = namespace_of(path)
        if ns is None:
            return
        if path[len(_NAMESPACES) + len(ns) :] == "/search":  # may be answered before Flask
            _require(key, ns, SEARCH)
        elif not key.covers(ns):
            raise _missing(ns)

    def _refuse(
        self, error: Exception, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        environ[FAILED] = error
        return self._flask(environ, start_response)


def register(app: Flask, *, keys: bool) -> None:
    """Judge each request of ``app`` by its route if there are ``keys``, and log administrative acts."""

    def authorise() -> None:
        rule = request.url_rule
        asked = None if rule is None else need(request.method, rule.rule)
        if asked is not None and not asked.scopes:
            return
        key: Key | None = request.environ.get(_HOLDER)
        if key is None:
            raise no_key()
        if asked is None:  # no route, or not by this method, which is said next
            return
        ns = (request.view_args or {}).get("ns")
        if ns is not None:
            _require(key, ns, asked)
        if ns is None or asked.everywhere:
            grants = (grant for grant in key.grants if not (asked.everywhere and grant.prefix))
            if not any(set(grant.scopes) & set(asked.scopes) for grant in grants):
                raise _lacking(asked, " in all namespaces" if asked.everywhere else "")

    def audit(response: Response) -> Response:
        rule = request.url_rule
        act = None if rule is None else need(request.method, rule.rule).act
        if act is not None:
            named = dict(request.view_args or {})
            key = request.environ.get(KEY)
            record(
                act,
                namespace=_cut(named.get("ns")),
                tag=_cut(named.get("tag")),
                name=_cut(request.environ.get(_NAMED)),
                key=key,
                presented=_presented() if key is None else None,
                peer=request.environ.get("REMOTE_ADDR"),
                request_id=request.environ.get(REQUEST_ID),
                outcome=_outcome(response.status_code),
                status=response.status_code,
            )
        return response

    if keys:
        app.before_request(authorise)
    app.after_request(audit)


def may(scope: Scope, name: str) -> None:
    """`Unauthorised` if the key of this request lacks a scope for the namespace that its body names.

    The answer is the same whether there is such a namespace or not.
    """
    request.environ[_NAMED] = name
    key: Key | None = request.environ.get(_HOLDER)
    if key is not None and scope not in key.scopes(name):
        raise Unauthorised(
            f"this key has no scope {scope!r} for a namespace of that name", field="name", scope=scope
        )


def operates() -> bool:
    """Whether whoever asks may know the server's insides: its operator, or anybody if there are no keys."""
    if _HOLDER not in request.environ:
        return True
    key: Key | None = request.environ[_HOLDER]
    return key is not None and any("admin" in grant.scopes for grant in key.grants if not grant.prefix)


def visible(prefix: str) -> list[str]:
    """Prefixes that hold the namespaces below ``prefix`` that the key of this request may see, in order."""
    key: Key | None = request.environ.get(_HOLDER)
    return [prefix] if key is None else key.visible(prefix)


def veiled(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with null in place of other namespaces that the key of this request may not see.

    A branch names those that it rests on, and they name it.
    """
    key: Key | None = request.environ.get(_HOLDER)
    if key is None:
        return manifest
    naming = [(ancestor, "namespace") for ancestor in manifest["ancestors"]]
    naming += [(pin, "name") for pin in manifest["pins"] if pin["kind"] == "branch"]
    for part in manifest["parts"]:
        naming += [(one, "owner") for one in (part, part["tombstone"]) if one is not None]
    for holder, field in naming:
        if not key.covers(holder[field]):
            holder[field] = None
    return manifest


def veiled_parts(report: PartsReport) -> PartsReport:
    """The parts of a namespace with null in place of owners that the key of this request may not see."""
    key: Key | None = request.environ.get(_HOLDER)
    if key is None:
        return report
    return replace(
        report,
        parts=tuple(
            part if part.owner is None or key.covers(part.owner) else replace(part, owner=None)
            for part in report.parts
        ),
    )


def _require(key: Key, ns: str, asked: Need) -> None:
    """`NamespaceNotFound` where the key has no business at all, `Unauthorised` where it lacks the scope."""
    covered = False
    for grant in key.grants:
        if ns.startswith(grant.prefix):
            covered = True
            for scope in asked.scopes:
                if scope in grant.scopes:
                    return
    raise _lacking(asked, f" in {ns!r}") if covered else _missing(ns)


def _missing(ns: str) -> NamespaceNotFound:
    """What is said of a namespace that is not there."""
    return NamespaceNotFound(f"no namespace {ns!r}", namespace=ns)


def _lacking(asked: Need, where: str) -> Unauthorised:
    scope = asked.scopes[0]
    return Unauthorised(f"this key has no scope {scope!r}{where}", field="Authorization", scope=scope)


def _outcome(status: int) -> str:
    return "done" if status < 400 else "refused" if status < 500 else "failed"


def _presented() -> str | None:
    """The id of a key that was given and not taken."""
    match = _PRESENTED.search(request.environ.get("HTTP_AUTHORIZATION", ""))
    return None if match is None else match[1]


def _cut(name: str | None) -> str | None:
    """A name as a client gave it, which need not be one."""
    return None if name is None else name[:MAX_NAME_BYTES]
