"""Leases: advisory, time-limited locks that keep two processes from doing the same work.

Never a device for correctness: whoever holds one may lose it without noticing, and every commit is
checked by its ``If-Match`` all the same (DESIGN section 9, R16). Time is the store's. A lease object
is only ever replaced under its etag and never removed, so a late release cannot take a successor's.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec

from vecstore import deadline
from vecstore.errors import NOT_JSON, StorageConflict, StorageMissing, StorageRetryable
from vecstore.manifest.keys import lease_key
from vecstore.manifest.uid import new_uid
from vecstore.storage.base import ObjectStore


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


class Lease:
    """A lease that this process was granted. Not shared between threads."""

    def __init__(self, store: ObjectStore, key: str, *, etag: str, held: Held, ttl: float) -> None:
        self._store = store
        self._key = key
        self._etag = etag
        self._held = held
        self._ttl = ttl

    @property
    def token(self) -> str:
        """Names this grant; no other has the same."""
        return self._held.token

    @property
    def expires_at(self) -> float:
        """Store time at which others may take it."""
        return self._held.expires_at

    @classmethod
    def acquire(
        cls,
        store: ObjectStore,
        namespace: str,
        name: str,
        *,
        holder: str,
        ttl: float,
        rng: Random,
        about: Mapping[str, Any] | None = None,
    ) -> Lease | None:
        """Take the lease if it is free or has expired; None if another holds it, or took it first.

        ``holder`` and ``about`` are for people: they say in the object who has it, and for what.
        """
        key = lease_key(namespace, name)
        now = store.now()
        wanted = Held(
            holder=holder,
            token=new_uid(store.now, rng),
            expires_at=now + ttl,
            about=dict(about or {}),
        )
        data = msgspec.json.encode(wanted)
        try:
            found = store.get(key)
        except StorageMissing:
            etag = None
        else:
            if _parse(found.data).expires_at > now:
                return None
            etag = found.meta.etag
        try:
            if etag is None:
                meta = store.put_if_absent(key, data)
            else:
                meta = store.put_if_match(key, data, etag)
        except (StorageConflict, StorageRetryable):
            etag = _etag_if_ours(store, key, wanted.token)
            return None if etag is None else cls(store, key, etag=etag, held=wanted, ttl=ttl)
        return cls(store, key, etag=meta.etag, held=wanted, ttl=ttl)

    def renew(self, about: Mapping[str, Any] | None = None) -> bool:
        """Extend it from now on; False if it was lost. A storage failure leaves it as it was.

        With ``about`` it says something else from now on.
        """
        return self._replace(self._store.now() + self._ttl, about)

    def release(self) -> None:
        """Let others have it at once; no error if it was lost."""
        self._replace(0.0)

    def _replace(self, expires_at: float, about: Mapping[str, Any] | None = None) -> bool:
        held = msgspec.structs.replace(
            self._held, expires_at=expires_at, about=self._held.about if about is None else dict(about)
        )
        try:
            meta = self._store.put_if_match(self._key, msgspec.json.encode(held), self._etag)
        except StorageConflict:
            etag = _etag_if_ours(self._store, self._key, self.token)
            if etag is None:
                return False
            self._etag = etag  # the answer to an earlier replacement was lost
            try:
                meta = self._store.put_if_match(self._key, msgspec.json.encode(held), etag)
            except StorageConflict:
                return False
        self._etag, self._held = meta.etag, held
        return True


def holder_of(store: ObjectStore, namespace: str, name: str) -> Held | None:
    """Who holds a lease now, and what for; None if it is free."""
    try:
        held = _parse(store.get(lease_key(namespace, name)).data)
    except StorageMissing:
        return None
    return held if held.expires_at > store.now() else None


def _etag_if_ours(store: ObjectStore, key: str, token: str) -> str | None:
    """After an answer that was lost or refused: the etag, if the object is our grant."""
    try:
        with deadline.waived():  # or nobody would have it until it expires
            found = store.get(key)
    except StorageMissing:
        return None
    return found.meta.etag if _parse(found.data).token == token else None


def _parse(data: bytes) -> Held:
    """A lease that cannot be read is no reason to stop work for good: it counts as expired."""
    try:
        return _decoder.decode(data)
    except NOT_JSON:
        return Held(holder="?", token="", expires_at=0.0)  # nosec B106
