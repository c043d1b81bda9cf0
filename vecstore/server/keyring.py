"""The keys that a server knows: read from a file, and again whenever that has changed.

Keys are compared as digests by `hmac.compare_digest`; an id that nobody has costs the same comparison.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from vecstore.errors import InvalidArgument, TooManyRequests, Unauthenticated, VecstoreError
from vecstore.keys import TOKEN, Key, parse_keys
from vecstore.server.audit import record
from vecstore.server.rates import Rates

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0  # between two looks at the file: the longest that a revoked key still works
_BEARER: Final = re.compile(rf"[Bb][Ee][Aa][Rr][Ee][Rr] +({TOKEN.pattern})")

_Stamp = tuple[int, int, int]
_Known = tuple[Key, bytes, float]  # with its digest, and when it expires


class Keyring:
    """The keys of a file. Thread-safe; a request looks at the file at most once in `LOOK_SECONDS`.

    Parameters
    ----------
    rate
        Requests a second of a key whose entry says nothing; 0 is no limit.

    Raises
    ------
    InvalidArgument
        The file is not there, or is none. Later on such a file is reported, and the last good one holds.
    """

    def __init__(
        self,
        path: str,
        *,
        rate: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._rate = path, rate
        self._clock, self._wall = clock, wall
        self._rates = Rates(clock)
        self._lock = threading.Lock()
        self._nobody = secrets.token_bytes(32)  # what a key of an unknown id is compared with
        self._complaint = ""
        self._looked_at = clock()
        self._stamp: _Stamp | None = None
        self._known: dict[str, _Known] = {}
        self._load()

    def authenticate(self, header: str | None) -> Key:
        """The key in ``Authorization``; `Unauthenticated` if it is none that is known and holds."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._look()
        if header is None:
            raise no_key()
        match = _BEARER.fullmatch(header)
        if match is not None:
            known = self._known.get(match[2])
            given = hashlib.sha256(match[1].encode()).digest()
            same = hmac.compare_digest(given, self._nobody if known is None else known[1])
            if same and known is not None and self._wall() < known[2]:
                return known[0]
        raise Unauthenticated("the API key is not known, or no longer", field="Authorization")

    def count(self, key: Key) -> None:
        """`TooManyRequests` if a key has asked too often; otherwise this request is counted."""
        rate = self._rate if key.rate is None else key.rate
        if not rate:
            return
        burst = key.burst if key.burst is not None else max(1, int(rate))
        wait = self._rates.take(key.id, rate, burst)
        if wait:
            raise TooManyRequests(
                f"this key may send {rate:g} requests a second to a process, {burst} of them at once",
                limit=rate,
                retry_after=math.ceil(wait),
            )

    def _look(self) -> None:
        """Read the file again if it is another than it was. Threads that come meanwhile go on without."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._looked_at = self._clock()
            if self._load():
                self._rates.keep(set(self._known))
                record("reload_keys", outcome="done", file=self._path, keys=len(self._known))
            self._complaint = ""
        except VecstoreError as error:
            if error.message != self._complaint:
                self._complaint = error.message
                log.error("%s; the keys read before still hold", error.message)  # noqa: TRY400
                record("reload_keys", outcome="failed", file=self._path, reason=error.message)
        finally:
            self._lock.release()

    def _load(self) -> bool:
        """Whether the file was another, and was read."""
        try:
            if _stamp(os.stat(self._path)) == self._stamp:
                return False
            with open(self._path, "rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))  # before reading: what is written after has another
                data = file.read()
        except OSError as error:
            raise InvalidArgument(
                f"keys_file {self._path} cannot be read: {error.strerror}", field="keys_file"
            ) from error
        keys = parse_keys(data, self._path)
        self._known, self._stamp = _by_id(keys), stamp
        return True


def no_key() -> Unauthenticated:
    """What is said of a request without a key."""
    return Unauthenticated("an API key is needed: Authorization: Bearer <key>", field="Authorization")


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _by_id(keys: Iterable[Key]) -> dict[str, _Known]:
    return {
        key.id: (
            key,
            bytes.fromhex(key.digest),
            math.inf if key.expires_at is None else key.expires_at.timestamp(),
        )
        for key in keys
    }
