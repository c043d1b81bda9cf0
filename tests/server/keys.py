"""Key files for tests of access."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from vecstore.keys import Grant, Key, Scope, new_key

EVERY: tuple[Scope, ...] = ("read", "write", "admin")


class KeyFile:
    """A key file, and the keys in it by the names that `add` gave them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: dict[str, str] = {}
        self._known: list[Key] = []

    def add(
        self,
        name: str,
        *grants: Grant,
        expires_at: datetime | None = None,
        rate: float | None = None,
        burst: int | None = None,
    ) -> str:
        key, known = new_key(grants, name=name, expires_at=expires_at, rate=rate, burst=burst)
        self._known.append(known)
        self.path.write_bytes(msgspec.json.encode({"version": 1, "keys": self._known}))
        self.keys[name] = key
        return key

    def header(self, name: str | None) -> dict[str, str]:
        return {} if name is None else {"Authorization": f"Bearer {self.keys[name]}"}


def identity(key: str) -> str:
    """The public id of a key."""
    return key.split("_")[1]


def all_of(prefix: str) -> Grant:
    return Grant(EVERY, prefix)
