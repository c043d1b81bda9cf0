"""API keys: what a key file holds, how it is changed, how a key is made (decision 0027).

A key is ``vs_<id>_<secret>``. The file knows the id, which is public and stands in logs, and a digest of
the whole; the key itself is shown once, when it is made. Imports neither the server nor Flask.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_KEY_RATE, MAX_NAME_BYTES

Scope = Literal["read", "write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "write", "admin")
MAX_KEY_NAME: Final = 200  # characters
TOKEN: Final = re.compile(r"vs_([0-9a-f]{12})_[0-9a-f]{64}")


class Grant(Struct, frozen=True, forbid_unknown_fields=True):
    """Scopes in all namespaces whose name starts with ``prefix``; with "" in all there are."""

    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    prefix: Annotated[str, Meta(max_length=MAX_NAME_BYTES, pattern=r"\A([A-Za-z0-9][A-Za-z0-9._-]*)?\Z")] = ""


class Key(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What is known of a key.

    Attributes
    ----------
    digest
        SHA-256 of the whole key, in hex. The secret has 256 random bits, so a slow hash would protect
        nothing that a fast one does not.
    expires_at
        From then on the key is unknown; None: never.
    rate, burst
        Requests a second, and how many at once, a process. None: what the server's setting says, and
        what is allowed in one second. A rate of 0 is no limit.
    """

    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{12}\Z")]
    digest: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    grants: Annotated[tuple[Grant, ...], Meta(min_length=1)]
    name: Annotated[str, Meta(max_length=MAX_KEY_NAME)] = ""
    created_at: Annotated[datetime, Meta(tz=True)]
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    rate: Annotated[float, Meta(ge=0.0, le=MAX_KEY_RATE)] | None = None
    burst: Annotated[int, Meta(ge=1, le=MAX_KEY_RATE)] | None = None

    def scopes(self, namespace: str) -> set[Scope]:
        """What the key may do in a namespace of this name; nothing where no grant covers it."""
        return {scope for one in self.grants if namespace.startswith(one.prefix) for scope in one.scopes}

    def covers(self, namespace: str) -> bool:
        """Whether the key may do anything at all there."""
        return any(namespace.startswith(one.prefix) for one in self.grants)

    def visible(self, prefix: str) -> list[str]:
        """Prefixes of the namespaces that begin with ``prefix`` and that the key covers: in order, apart."""
        both = {
            max(prefix, one.prefix, key=len)
            for one in self.grants
            if prefix.startswith(one.prefix) or one.prefix.startswith(prefix)
        }
        apart: list[str] = []
        for one in sorted(both):
            if not apart or not one.startswith(apart[-1]):
                apart.append(one)
        return apart


class _File(Struct, forbid_unknown_fields=True):
    version: Literal[1]
    keys: tuple[Key, ...]


_decoder: Final = msgspec.json.Decoder(_File)


def digest(key: str) -> str:
    """What a key file keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(
    grants: tuple[Grant, ...],
    *,
    name: str = "",
    expires_at: datetime | None = None,
    rate: float | None = None,
    burst: int | None = None,
) -> tuple[str, Key]:
    """A random key, and what the file is to know of it.

    `InvalidArgument` if ``name``, ``rate`` or ``burst`` is out of bounds.
    """
    if len(name) > MAX_KEY_NAME:
        raise InvalidArgument(
            f"name must have at most {MAX_KEY_NAME} characters", field="name", limit=MAX_KEY_NAME
        )
    if rate is not None and not 0 <= rate <= MAX_KEY_RATE:  # JSON would make null of NaN and infinity
        raise InvalidArgument(
            f"rate must be a number from 0 to {MAX_KEY_RATE}, not {rate}", field="rate", limit=MAX_KEY_RATE
        )
    if burst is not None and not 1 <= burst <= MAX_KEY_RATE:
        raise InvalidArgument(
            f"burst must be an integer from 1 to {MAX_KEY_RATE}, not {burst}",
            field="burst",
            limit=MAX_KEY_RATE,
        )
    identity = secrets.token_hex(6)
    key = f"vs_{identity}_{secrets.token_hex(32)}"
    known = Key(
        id=identity,
        digest=digest(key),
        grants=grants,
        name=name,
        created_at=datetime.now(UTC).replace(microsecond=0),
        expires_at=expires_at,
        rate=rate,
        burst=burst,
    )
    return key, known


def parse_keys(data: bytes, path: str) -> tuple[Key, ...]:
    """The keys in a file; `InvalidArgument` says what is wrong with it."""
    try:
        keys = _decoder.decode(data).keys
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} is no key file: {error}", field="keys_file") from error
    if len({key.id for key in keys}) != len(keys):
        raise InvalidArgument(f"{path} has two keys of one id", field="keys_file")
    return keys


def read_keys(path: str | Path) -> tuple[Key, ...]:
    """`parse_keys` of what lies there."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(
            f"keys_file {path} cannot be read: {error.strerror}", field="keys_file"
        ) from error
    return parse_keys(data, str(path))


def edit_keys(path: str | Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Replace the keys of a file, which need not be there, by what ``change`` makes of them.

    Readers see the file before or after, and no other edit comes in between. A new file is its owner's
    alone (0600); one that was there keeps owner and mode, so that a server's account can still read it.
    """
    target = Path(os.path.realpath(path))
    try:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InvalidArgument(
            f"keys_file {path} cannot be written: {error.strerror}", field="keys_file"
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # the folder: a lock on the file would end with its replacement
        there = target.stat() if target.exists() else None
        keys = change(read_keys(target) if there is not None else ())
        data = msgspec.json.format(msgspec.json.encode(_File(version=1, keys=keys)), indent=2) + b"\n"
        parse_keys(data, str(path))  # what was given on the command line is held against the same bounds
        try:
            _replace(target, data, there)
            os.fsync(folder)
        except OSError as error:
            raise InvalidArgument(
                f"keys_file {path} cannot be written: {error.strerror}", field="keys_file"
            ) from error
    finally:
        os.close(folder)


def _replace(target: Path, data: bytes, there: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # made with 0600
    try:
        with open(descriptor, "wb") as file:
            if there is not None:
                with suppress(PermissionError):  # only root gives a file away
                    os.fchown(descriptor, there.st_uid, there.st_gid)
                os.fchmod(descriptor, there.st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
