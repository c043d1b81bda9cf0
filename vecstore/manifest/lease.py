"""Leases: advisory, time-limited locks that keep two processes from doing the same work.

Never a device for correctness: whoever holds one may lose it without noticing, and every commit is
checked by its ``If-Match`` all the same (DESIGN section 9, R16). Time is the store's. A lease object
is only ever replaced under its etag and never removed, so a late release cannot take a successor's.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any

import msgspec

from vecstore import deadline
from vecstore.errors import NOT_JSON, StorageConflict, StorageError, StorageMissing, StorageRetryable
from vecstore.manifest.keys import lease_key
from vecstore.manifest.uid import new_uid
from vecstore.storage.base import ObjectStore
from vecstore.storage.forks import reset_in_children


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease object says.

    Attributes
    ----------
    about
        For people: what the holder is doing.
    """

    holder: str
    token: str
    expires_at: float
    about: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(Held)


class Left(threading.local):
    """The token of the grant that this thread was last done with.

    Where its release failed, nobody is at its work.
    """

    grant = ""

    def __init__(self) -> None:
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """What the parent left is the parent's to take back."""
        self.grant = ""


class Lease:
    """A lease that this process asks for. Not shared between threads.

    Made before it is asked for, so that whoever is interrupted at any moment can release what was granted.

    Parameters
    ----------
    holder, about
        For people: they say in the object who has it, and for what.
    ttl
        Seconds after which others may take it.
    left
        Of this handle: what could not be released its own thread may take back.
    """

    def __init__(
        self,
        store: ObjectStore,
        namespace: str,
        name: str,
        *,
        holder: str,
        ttl: float,
        rng: Random,
        about: Mapping[str, Any] | None = None,
        left: Left | None = None,
    ) -> None:
        self._store = store
        self._key = lease_key(namespace, name)
        self._ttl = ttl
        self._left = left if left is not None else Left()
        self._held = Held(
            holder=holder, token=new_uid(store.now, rng), expires_at=0.0, about=dict(about or {})
        )
        self._sent = False  # whether the store may have it as ours
        self._etag: str | None = None  # until it was granted, or while that is not known

    @property
    def token(self) -> str:
        """Names this grant; no other has the same."""
        return self._held.token

    @property
    def expires_at(self) -> float:
        """Store time at which others may take it."""
        return self._held.expires_at

    def acquire(self) -> bool:
        """Take the lease if it is free or has expired; False if another holds it, or took it first."""
        now = self._store.now()
        try:
            found = self._store.get(self._key)
        except StorageMissing:
            before = None
        else:
            held = _parse(found.data)
            if held.expires_at > now and held.token != self._left.grant:
                return False
            before = found.meta.etag
        self._held = msgspec.structs.replace(self._held, expires_at=now + self._ttl)
        self._sent = True
        data = msgspec.json.encode(self._held)
        try:
            if before is None:
                self._etag = self._store.put_if_absent(self._key, data).etag
            else:
                self._etag = self._store.put_if_match(self._key, data, before).etag
        except (StorageConflict, StorageRetryable):
            self._etag = self._etag_if_ours()
            self._sent = self._etag is not None
        return self._sent

    def renew(self, about: Mapping[str, Any] | None = None) -> bool:
        """Extend it from now on; False if it was lost. A storage failure leaves it as it was.

        With ``about`` it says something else from now on.
        """
        return self._replace(self._store.now() + self._ttl, about)

    def release(self) -> None:
        """Let others have it at once; nothing if it was lost, or never granted."""
        if not self._sent:
            return
        self._left.grant = self.token  # before anything can fail
        with deadline.waived():  # or nobody would have it until it expires
            try:
                self._replace(0.0)
            except Exception:
                raise
            except BaseException:  # an interruption, which no failure may hide
                with suppress(StorageError):
                    self._replace(0.0)
                raise

    def _replace(self, expires_at: float, about: Mapping[str, Any] | None = None) -> bool:
        held = msgspec.structs.replace(
            self._held, expires_at=expires_at, about=self._held.about if about is None else dict(about)
        )
        data = msgspec.json.encode(held)
        if self._etag is None or not self._put(data, self._etag):
            etag = self._etag_if_ours()  # the answer to an earlier replacement was lost
            if etag is None or not self._put(data, etag):
                return False
        self._held = held
        return True

    def _put(self, data: bytes, etag: str) -> bool:
        try:
            self._etag = self._store.put_if_match(self._key, data, etag).etag
        except StorageConflict:
            return False
        return True

    def _etag_if_ours(self) -> str | None:
        """After an answer that was lost or refused: the etag, if the object is our grant."""
        try:
            with deadline.waived():  # or nobody would have it until it expires
                found = self._store.get(self._key)
        except StorageMissing:
            return None
        return found.meta.etag if _parse(found.data).token == self.token else None


def holder_of(store: ObjectStore, namespace: str, name: str) -> Held | None:
    """Who holds a lease now, and what for; None if it is free."""
    try:
        held = _parse(store.get(lease_key(namespace, name)).data)
    except StorageMissing:
        return None
    return held if held.expires_at > store.now() else None


def _parse(data: bytes) -> Held:
    """A lease that cannot be read is no reason to stop work for good: it counts as expired."""
    try:
        return _decoder.decode(data)
    except NOT_JSON:
        return Held(holder="?", token="", expires_at=0.0)  # nosec B106
