"""A commit in the making: what a change is, and the draft that it is applied to.

Rules R4 (a change belongs to an incarnation), R5 (changes of a group see what precedes them), R6
(tombstones are whole, recomputed at every attempt) and R11 (the counter of ids never falls).
Imports model, tombstones and errors; `vecstore.manifest.publish` drives it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from msgspec.structs import replace
from pyroaring import BitMap

from vecstore.errors import InvalidArgument, InvalidId, TooManyRequests
from vecstore.limits import MAX_PARTS, MAX_U64
from vecstore.manifest.model import IdempotencyRecord, Manifest, Mean, Part, Settings
from vecstore.manifest.tombstones import TombstoneCache
from vecstore.types import IdKind

# The publisher's own fields: a change that set them would break the protocol.
_RESERVED = frozenset({"namespace", "epoch", "committed_at", "commits", "idempotency", "parts", "format"})


@dataclass(kw_only=True, eq=False)
class Change(ABC):
    """One request to change a namespace.

    It is handed to `Publisher.commit` once. After `OutcomeUnknown` only ``idempotency`` makes it
    safe to try the request again, as a new change.

    Attributes
    ----------
    commit_id
        A new uid that stays with the request over all attempts and group leaders (R1).
    incarnation
        The incarnation that it was prepared for (R4); None if any will do.
    expected
        Incarnation and epoch that the namespace must be at (``If-Match``); in a group, nothing
        before it may have changed anything either.
    idempotency
        Key, and digest of the request (R12).
    """

    on_deleted: ClassVar[bool] = False  # whether it may be applied to a deletion marker
    opens_group: ClassVar[bool] = False  # whether it extends a committed epoch, so that nothing precedes it

    commit_id: str
    incarnation: str | None = None
    expected: tuple[str, int] | None = None
    idempotency: tuple[str, str] | None = None

    @abstractmethod
    def apply(self, draft: Draft) -> dict[str, Any]:
        """Validate against ``draft`` and change it; the answer, JSON-serialisable and small.

        Runs at every attempt, each time on a draft of the base that is being extended (R6), so it
        keeps nothing of an earlier attempt that depends on the base. What it raises is the
        request's own failure, and leaves no trace in the draft.
        """

    def oldest_upload(self) -> float | None:
        """Store time at which the first of the uploads began that the change names (R3); None if none."""
        return None

    def upload_again(self) -> None:
        """Upload under new ids what began too early (R3); `oldest_upload` is later after it."""
        raise NotImplementedError(f"{type(self).__name__} names uploads but cannot repeat them")


@dataclass(frozen=True, slots=True)
class Mark:
    """A point that a draft can go back to."""

    parts: dict[str, Part]
    pending: dict[str, BitMap]
    fields: dict[str, Any]
    idempotency: tuple[IdempotencyRecord, ...]
    skipped: int
    edits: int


class Draft:
    """The next manifest in the making; for one attempt and one thread.

    Attributes
    ----------
    base
        The manifest that the attempt extends.
    now
        Store time of the attempt.
    """

    def __init__(self, base: Manifest, *, now: float, tombstones: TombstoneCache) -> None:
        self.base = base
        self.now = now
        self._tombstones = tombstones
        self._parts = {part.id: part for part in base.parts}
        self._pending: dict[str, BitMap] = {}
        self._fields: dict[str, Any] = {}
        self._idempotency = base.idempotency
        self._skipped = 0
        self._edits = 0
        self._view: Manifest | None = base

    # -- reading ----------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """The namespace as it stands with the changes so far.

        Its parts carry the base's tombstones: rows killed in this attempt are told by `dead`.
        """
        if self._view is None:
            self._view = replace(
                self.base,
                parts=tuple(self._parts.values()),
                idempotency=self._idempotency,
                **self._fields,
            )
        return self._view

    @property
    def changed(self) -> bool:
        """Whether anything differs from the base, so that there is something to commit."""
        return self._edits > 0

    @property
    def epoch(self) -> int:
        """The epoch that this will be."""
        return self.base.epoch + 1 + self._skipped

    @property
    def pending(self) -> dict[str, BitMap]:
        """The whole bitmap of each part in which rows were killed in this attempt (R6)."""
        return dict(self._pending)

    def part(self, part_id: str) -> Part | None:
        """The part as it stands, or None: gone from the base, or removed before us in the group."""
        return self._parts.get(part_id)

    def dead(self, part_id: str) -> BitMap:
        """Rows of a part that are dead so far, those of this attempt too. Shared: do not change it."""
        pending = self._pending.get(part_id)
        return pending if pending is not None else self._tombstones.dead(self._parts[part_id])

    # -- writing ----------------------------------------------------------------------------

    def add_part(self, part: Part) -> None:
        """Add an uploaded part. `TooManyRequests` when the namespace has as many as it may."""
        if part.id in self._parts:
            raise InvalidArgument(f"part {part.id} is in the namespace already", field="part")
        if len(self._parts) >= MAX_PARTS:
            raise TooManyRequests(
                f"{self.base.namespace!r} has {len(self._parts)} unmerged parts; wait for compaction",
                limit=MAX_PARTS,
            )
        self._parts[part.id] = part
        self._edited()

    def remove_parts(self, part_ids: Iterable[str]) -> None:
        """Drop parts, and with them what was killed in them. `KeyError` if one is not there."""
        for part_id in part_ids:
            del self._parts[part_id]
            self._pending.pop(part_id, None)
            self._edited()

    def set_parts(self, parts: Iterable[Part]) -> None:
        """Name the parts of another epoch, with their tombstones, in place of what there is (R8, R9)."""
        self._parts = {part.id: part for part in parts}
        self._pending = {}
        self._edited()

    def kill(self, part_id: str, rows: BitMap) -> int:
        """Mark rows of a part dead; how many of them were alive (R5: what precedes us counts).

        `KeyError` if the part is not there (R6: no tombstone names an absent part), `ValueError` for
        a row that it does not have.
        """
        part = self._parts[part_id]
        if not rows:
            return 0
        if rows.max() >= part.n:
            raise ValueError(f"row {rows.max()} of part {part_id}, which has {part.n}")
        before = self.dead(part_id)
        after = before | rows
        killed = len(after) - len(before)
        if killed:
            self._pending[part_id] = after
            self._edited()
        return killed

    def set_settings(self, settings: Settings) -> None:
        if settings != self.manifest.settings:
            self.replace(settings=settings)

    def set_id_kind(self, kind: IdKind) -> None:
        """Fix the kind of ids at the first insert; `InvalidId` if it is another already (R4)."""
        known = self.manifest.id_kind
        if known is None:
            self.replace(id_kind=kind)
        elif known != kind:
            raise InvalidId(
                f"ids of {self.base.namespace!r} are {known}, not {kind}", field="ids", kind=known
            )

    def add_mean(self, mean: Mean) -> None:
        """Add a mean; one that no part uses is dropped at the commit, unless it is the newest."""
        means = self.manifest.means
        if all(known.id != mean.id for known in means):
            self.replace(means=(*means, mean))

    def take_ids(self, n: int) -> int:
        """Assign ``n`` ids; the first of them (R11). The largest u64 is never assigned."""
        first = self.manifest.next_id
        if first + n > MAX_U64:
            raise InvalidId(
                f"{self.base.namespace!r} cannot assign {n} ids: they follow the largest one that was given, "
                f"and end below {MAX_U64}",
                field="ids",
                limit=MAX_U64,
            )
        if n:
            self.replace(next_id=first + n)
        return first

    def raise_next_id(self, above: int) -> None:
        """Let no id up to ``above``, which a caller gave, be assigned later (R11)."""
        wanted = min(above + 1, MAX_U64)
        if wanted > self.manifest.next_id:
            self.replace(next_id=wanted)

    def skip_epochs(self, count: int) -> None:
        """Let the next epoch be ``count`` later, so that those between are nobody's, ever.

        History has no gap from its floor on, so that is raised to the next epoch.
        """
        self._skipped += count
        self.replace(history_floor=self.epoch)

    def replace(self, **fields: Any) -> None:
        """Set fields of the manifest that have no method of their own (state, pins, horizon, …)."""
        reserved = _RESERVED.intersection(fields)
        if reserved:
            raise ValueError(f"the publisher sets {sorted(reserved)}")
        self._fields.update(fields)
        self._edited()

    # -- for the publisher ------------------------------------------------------------------

    def record(self, record: IdempotencyRecord, keep: tuple[IdempotencyRecord, ...]) -> None:
        """Remember an applied request beside those of ``keep`` (R12)."""
        self._idempotency = (*keep, record)
        self._edited()

    def forget_records(self) -> None:
        """Drop the keys: they belong to an incarnation that ends (R4)."""
        self._idempotency = ()
        self._edited()

    def mark(self) -> Mark:
        return Mark(
            dict(self._parts),
            dict(self._pending),
            dict(self._fields),
            self._idempotency,
            self._skipped,
            self._edits,
        )

    def go_back(self, mark: Mark) -> None:
        """Undo all that was done since ``mark``: a change that fails leaves no trace."""
        self._parts = mark.parts
        self._pending = mark.pending
        self._fields = mark.fields
        self._idempotency = mark.idempotency
        self._skipped = mark.skipped
        self._edits = mark.edits
        self._view = None

    def _edited(self) -> None:
        self._edits += 1
        self._view = None
