"""API keys of a server: made, listed, replaced and taken back in the file that it reads (decision 0027)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
import msgspec

from vecstore.cli.common import F, Group, json_option, print_json
from vecstore.config import load_config
from vecstore.errors import InvalidArgument
from vecstore.keys import SCOPES, Grant, Key, edit_keys, new_key, read_keys
from vecstore.limits import MAX_NAME_BYTES

_ID: Final = re.compile(r"(?:vs_)?([0-9a-f]{12})(?:_.*)?", re.DOTALL)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@click.group(cls=Group)
def keys() -> None:
    """API keys: create, list, revoke, rotate.

    They work on the file that the setting keys_file names; servers read it again within a second or two.
    """


def _file_option(command: F) -> F:
    return click.option("--file", "path", help="The key file; by default the setting keys_file.")(command)


def _path(given: str | None) -> str:
    path = load_config({"keys_file": given}).keys_file
    if not path:
        raise click.UsageError("name the key file: --file, VECSTORE_KEYS_FILE or keys_file in vecstore.toml")
    return path


@keys.command("create")
@click.option(
    "--grant",
    "grants",
    multiple=True,
    required=True,
    metavar="SCOPES:PREFIX",
    help="Such as read,write:acme- or admin: for all namespaces; may be given several times.",
)
@click.option("--name", default="", help="What the key is for.")
@click.option("--expires", help="After so long (90d, 12h), or at a moment (2030-01-31T12:00:00+00:00).")
@click.option("--rate", type=float, help="Requests a second, a server process; 0 for no limit.")
@click.option("--burst", type=int, help="Requests at once; by default those of a second.")
@_file_option
@json_option
def create(
    grants: tuple[str, ...],
    name: str,
    expires: str | None,
    rate: float | None,
    burst: int | None,
    path: str | None,
    as_json: bool,
) -> None:
    """Make a key and print it: this once, since the file keeps only its digest."""
    until = None if expires is None else _later(expires)
    key, known = new_key(
        tuple(_grant(text) for text in grants), name=name, expires_at=until, rate=rate, burst=burst
    )
    edit_keys(_path(path), lambda before: (*before, known))
    _show(key, known, as_json)


@keys.command("list")
@_file_option
@json_option
def listing(path: str | None, as_json: bool) -> None:
    """Ids, names, grants and expiry."""
    found = read_keys(_path(path))
    if as_json:
        print_json([_told(key) for key in found])
        return
    for key in found:
        state = "never expires" if key.expires_at is None else f"until {key.expires_at.isoformat()}"
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            state = "expired"
        rate = "" if key.rate is None else f"{key.rate:g} requests/s"
        click.echo("\t".join(text for text in (key.id, _grants(key), state, rate, key.name) if text))


@keys.command("revoke")
@click.argument("identity", metavar="ID")
@_file_option
def revoke(identity: str, path: str | None) -> None:
    """Take a key back."""

    def without(before: tuple[Key, ...]) -> tuple[Key, ...]:
        gone = _find(before, identity)
        return tuple(key for key in before if key is not gone)

    edit_keys(_path(path), without)
    click.echo(f"{identity} revoked")


@keys.command("rotate")
@click.argument("identity", metavar="ID")
@click.option(
    "--overlap", default="1d", show_default=True, help="How long the old key still works; 0s: not at all."
)
@click.option(
    "--expires",
    help="Of the new key: after so long, or at a moment. By default it lives as long as the old one was to.",
)
@_file_option
@json_option
def rotate(identity: str, overlap: str, expires: str | None, path: str | None, as_json: bool) -> None:
    """Make another key with the same grants, and let the old one expire."""
    until, end = None if expires is None else _later(expires), _moment(overlap)
    made: list[tuple[str, Key]] = []

    def rotated(before: tuple[Key, ...]) -> tuple[Key, ...]:
        old = _find(before, identity)
        ends = until
        if ends is None and old.expires_at is not None:
            ends = datetime.now(UTC).replace(microsecond=0) + (old.expires_at - old.created_at)
        made.append(new_key(old.grants, name=old.name, expires_at=ends, rate=old.rate, burst=old.burst))
        last = end if old.expires_at is None else min(end, old.expires_at)
        kept = (msgspec.structs.replace(key, expires_at=last) if key is old else key for key in before)
        return (*kept, made[0][1])

    edit_keys(_path(path), rotated)
    _show(*made[0], as_json)


def _find(known: tuple[Key, ...], identity: str) -> Key:
    """The key of an id; what is none is not printed, since it may be a whole key."""
    match = _ID.fullmatch(identity)
    if match is None:
        raise InvalidArgument(
            "the id of a key has 12 hexadecimal digits, as `vecstore keys list` tells it", field="id"
        )
    if match[1] != identity:
        raise InvalidArgument(f"a key is named by its id alone, which is {match[1]}", field="id")
    found = next((key for key in known if key.id == identity), None)
    if found is None:
        raise InvalidArgument(f"no key has the id {identity!r}", field="id")
    return found


def _grant(text: str) -> Grant:
    scopes, colon, prefix = text.partition(":")
    given = tuple(dict.fromkeys(scopes.split(",")))
    unknown = [scope for scope in given if scope not in SCOPES]
    if not colon or unknown:
        raise click.UsageError(
            f"--grant is SCOPES:PREFIX, like read,write:acme-, of {', '.join(SCOPES)}; not {text!r}"
        )
    try:
        return msgspec.convert({"scopes": given, "prefix": prefix}, Grant)
    except msgspec.ValidationError:
        raise InvalidArgument(
            f"--grant {text}: a prefix has at most {MAX_NAME_BYTES} of A-Z a-z 0-9 . _ - and starts with a "
            "letter or digit",
            field="grant",
            limit=MAX_NAME_BYTES,
        ) from None


def _moment(text: str) -> datetime:
    """Now and so long, or a moment; without a zone it is UTC."""
    length = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if length is not None:
        found = datetime.now(UTC) + timedelta(seconds=int(length[1]) * _SECONDS[length[2]])
        return found.replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is neither a time such as 90d or 12h nor a date") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _later(text: str) -> datetime:
    """When a new key expires: a moment that is still to come."""
    found = _moment(text)
    if found <= datetime.now(UTC):
        raise click.UsageError(f"--expires {text} is over already: no request could use the key")
    return found


def _grants(key: Key) -> str:
    return " ".join(f"{','.join(grant.scopes)}:{grant.prefix}" for grant in key.grants)


def _told(key: Key) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(key)
    return {name: value for name, value in told.items() if name != "digest"}


def _show(key: str, known: Key, as_json: bool) -> None:
    """The key alone on stdout, so that it can be put away by a pipe."""
    if as_json:
        print_json({"key": key, **_told(known)})
        return
    click.echo(f"{known.id}: {_grants(known)}; the key is shown this once:", err=True)
    click.echo(key)
