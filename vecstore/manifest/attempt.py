"""A group of changes applied to one base: what each is answered, and the switch that would make it so.

Rules R3 (uploads older than the barrier), R4 (incarnations), R5 (groups in sequence), R6 (all of it anew
for every base) and R12 (idempotency keys). Nothing here reads or writes the store, but for what a change
does. Imports draft, model, switch and tombstones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from pyroaring import BitMap

from vecstore.errors import (
    IdempotencyMismatch,
    InvalidArgument,
    NamespaceNotFound,
    PreconditionFailed,
    StorageError,
    StorageRetryable,
    TooManyRequests,
)
from vecstore.limits import MAX_IDEMPOTENCY_KEY_BYTES, MAX_IDEMPOTENCY_KEYS, MAX_RECENT_COMMITS
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.model import (
    CommitRef,
    IdempotencyRecord,
    Manifest,
    Mean,
    Part,
    Tombstone,
    encode_manifest,
)
from vecstore.manifest.snapshot import Snapshot, repeated
from vecstore.manifest.switch import Switch
from vecstore.manifest.tombstones import TombstoneCache, encode_tombstones
from vecstore.storage.base import CLOCK_MARGIN

IDEMPOTENCY_SECONDS: Final = 3600.0
MAX_ANSWER_BYTES: Final = 4_096  # of an answer kept under an idempotency key


@dataclass(frozen=True, slots=True)
class Committed:
    """An acknowledged change.

    Attributes
    ----------
    epoch
        The first epoch that shows it; of a change that changed nothing, the epoch it was checked on.
    answer
        What `Change.apply` returned at the attempt that was committed.
    manifest
        The namespace at ``epoch``; of a replay, at the epoch that was looked at.
    replayed
        The request had been applied before under its idempotency key (R12).
    """

    epoch: int
    answer: dict[str, Any]
    manifest: Manifest
    replayed: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """A change that waits for its outcome."""

    change: Change
    committed: Committed | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.committed is not None or self.error is not None


@dataclass(slots=True)
class Attempt:
    """A group applied to one base; the outcomes hold once the switch has landed."""

    base: Snapshot
    draft: Draft
    applied: list[tuple[Request, dict[str, Any]]] = field(default_factory=list)
    replayed: list[tuple[Request, IdempotencyRecord]] = field(default_factory=list)
    refused: list[tuple[Request, Exception]] = field(default_factory=list)

    @classmethod
    def on(
        cls, base: Snapshot, group: Sequence[Request], *, now: float, tombstones: TombstoneCache
    ) -> Attempt:
        """Apply a group in sequence to a draft of ``base``, at store time ``now`` (R5)."""
        attempt = cls(base, Draft(base.manifest, now=now, tombstones=tombstones))
        draft = attempt.draft
        for request in group:
            change = request.change
            mark = draft.mark()
            try:
                record = _recorded(draft, change)
                if record is not None:
                    attempt.replayed.append((request, record))
                    continue
                _check_base(draft, change)
                _check_room_for_key(draft, change)
                _check_uploads(draft, change)
                answer = change.apply(draft)
                if change.idempotency is not None:
                    _record(draft, change.idempotency, answer)
            except Exception as error:
                draft.go_back(mark)
                attempt.refused.append((request, error))
            else:
                attempt.applied.append((request, answer))
        return attempt

    def seal(self, new_uid: Callable[[], str]) -> Switch | None:
        """The bytes of the next epoch and of its tombstones (R6); None if nothing has changed."""
        base, draft = self.base, self.draft
        if not draft.changed:
            return None
        epoch = draft.epoch
        parts = draft.manifest.parts
        delete_id, data = None, b""
        bitmaps: list[tuple[Tombstone, BitMap]] = []
        pending = draft.pending
        if pending:
            delete_id = new_uid()
            data, entries = encode_tombstones(pending)
            references = {
                entry.part_id: entry.reference(delete_id, base.manifest.namespace, draft.now)
                for entry in entries
            }
            bitmaps = [(references[part_id], rows) for part_id, rows in pending.items()]
            parts = tuple(
                replace(part, tombstone=references[part.id]) if part.id in references else part
                for part in parts
            )
        # A change that changed nothing rides along: its id must be there if its answer rests on us.
        ids = [request.change.commit_id for request, _ in self.applied]
        commits = (*base.manifest.commits, *(CommitRef(commit_id, epoch) for commit_id in ids))
        manifest = replace(
            draft.manifest,
            epoch=epoch,
            committed_at=max(draft.now, base.manifest.committed_at),
            parts=parts,
            means=_means_in_use(draft.manifest.means, parts),
            commits=commits[-MAX_RECENT_COMMITS:],
        )
        return Switch(
            base, manifest, encode_manifest(manifest), frozenset(ids), delete_id, data, tuple(bitmaps)
        )

    def answer(self, manifest: Manifest) -> None:
        """Give every request its outcome, ``manifest`` being the namespace that shows it."""
        for request, answer in self.applied:
            request.committed = Committed(manifest.epoch, answer, manifest)
        for request, record in self.replayed:
            request.committed = Committed(record.epoch, record.answer, manifest, replayed=True)
        for request, error in self.refused:
            request.error = error


def fail(group: Sequence[Request], error: Exception) -> None:
    """Fail the requests that have no outcome yet."""
    for request in group:
        if not request.done:
            request.error = repeated(error)


def _means_in_use(means: tuple[Mean, ...], parts: tuple[Part, ...]) -> tuple[Mean, ...]:
    """The means that parts name, and the newest: the next part will be encoded with it."""
    used = {part.mean for part in parts}
    return tuple(mean for mean in means if mean.id in used or mean is means[-1])


# -- checks that a change must pass at every attempt ----------------------------------------


def check_idempotency_key(change: Change) -> None:
    if change.idempotency is None:
        return
    key = change.idempotency[0]
    if not 0 < len(key.encode()) <= MAX_IDEMPOTENCY_KEY_BYTES:
        raise InvalidArgument(
            f"an idempotency key has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes",
            field="idempotency_key",
            limit=MAX_IDEMPOTENCY_KEY_BYTES,
        )


def _check_base(draft: Draft, change: Change) -> None:
    """R4, and ``If-Match``: the base, and all that precedes us in the group, is what was meant."""
    base = draft.manifest
    if change.expected is not None and (
        change.expected != (base.incarnation, base.epoch)
        or draft.changed
        or (base.state == "deleted" and not change.on_deleted)
    ):
        raise PreconditionFailed(
            f"{base.namespace!r} has moved on from epoch {change.expected[1]}",
            incarnation=base.incarnation,
            epoch=base.epoch,
        )
    if base.state == "deleted" and not change.on_deleted:
        raise NamespaceNotFound(f"no namespace {base.namespace!r}", namespace=base.namespace)
    if change.incarnation is not None and change.incarnation != base.incarnation:
        raise NamespaceNotFound(
            f"the namespace {base.namespace!r} that was meant is gone; there is another of that name",
            namespace=base.namespace,
        )


def _check_uploads(draft: Draft, change: Change) -> None:
    """R3: what began to be uploaded before the barrier may be gone, or go at any moment.

    The margin for clocks is the collector's: it deletes only what is older by some seconds.
    """
    base, oldest = draft.manifest, change.oldest_upload()
    if oldest is None or oldest >= base.horizon:
        return
    behind = base.horizon - draft.now
    if behind > CLOCK_MARGIN:  # whatever began now would be older
        raise StorageError(
            f"the store's clock is {math.ceil(behind)} s behind the collection horizon of {base.namespace!r},"
            " which was set while it was ahead: until it has caught up nothing can be uploaded, but to a"
            " branch; nothing was changed (docs/incidents.md)",
            namespace=base.namespace,
            horizon=base.horizon,
            now=draft.now,
        )
    change.upload_again()
    oldest = change.oldest_upload()
    if oldest is not None and oldest < base.horizon:
        raise StorageRetryable(
            f"uploads to {base.namespace!r} are older than its collection horizon, even repeated"
        )


def _recorded(draft: Draft, change: Change) -> IdempotencyRecord | None:
    """R12: what was answered under the change's key, if it has been applied and not expired."""
    if change.idempotency is None:
        return None
    base = draft.manifest
    if change.incarnation is not None and change.incarnation != base.incarnation:
        return None
    key, request = change.idempotency
    for record in base.idempotency:
        if record.key == key and not _has_expired(record, draft.now):
            if record.request != request:
                raise IdempotencyMismatch(f"idempotency key {key!r} was used for another request", key=key)
            return record
    return None


def _check_room_for_key(draft: Draft, change: Change) -> None:
    """R12: a full table is the caller's to wait for; no unexpired key is dropped for a new one."""
    if change.idempotency is None:
        return
    unexpired = [record.at for record in draft.manifest.idempotency if not _has_expired(record, draft.now)]
    if len(unexpired) >= MAX_IDEMPOTENCY_KEYS:
        # Those that have to go until there is room: more than one, where the limit was higher.
        last = sorted(unexpired)[len(unexpired) - MAX_IDEMPOTENCY_KEYS]
        raise TooManyRequests(
            f"{draft.base.namespace!r} remembers {len(unexpired)} idempotency keys and takes no more for now",
            limit=MAX_IDEMPOTENCY_KEYS,
            retry_after=math.ceil(last + IDEMPOTENCY_SECONDS - draft.now),
        )


def _record(draft: Draft, idempotency: tuple[str, str], answer: dict[str, Any]) -> None:
    size = len(msgspec.json.encode(answer))
    if size > MAX_ANSWER_BYTES:
        raise InvalidArgument(
            f"an answer of {size} bytes cannot be kept under an idempotency key", limit=MAX_ANSWER_BYTES
        )
    keep = tuple(r for r in draft.manifest.idempotency if not _has_expired(r, draft.now))
    key, request = idempotency
    draft.record(IdempotencyRecord(key, request, answer, draft.epoch, draft.now), keep)


def _has_expired(record: IdempotencyRecord, now: float) -> bool:
    return record.at + IDEMPOTENCY_SECONDS <= now
