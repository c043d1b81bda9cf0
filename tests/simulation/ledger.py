"""What was asked and what was answered, held against what verification reads.

The ledger knows what clients know, the answers that they got, and what `Auditor` reads from the store,
past all that may fail, whenever `current` has changed. It never learns how the library came to do what
it did. Every row's vector says which request wrote it, and each of its two attributes which one set that
last, so an epoch tells by itself whose rows it holds:

- each epoch follows from the one before by requests that may have been applied then, in some order that
  gives the answers they got; each acknowledged one in the epoch that its answer names;
- a row that is gone never comes back, and no id has two;
- a read shows exactly one epoch, one that it was entitled to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vecstore import invariants
from vecstore.errors import StorageCorrupt, StorageMissing
from vecstore.index.rotation import padded
from vecstore.manifest import history
from vecstore.manifest.attempt import IDEMPOTENCY_SECONDS
from vecstore.manifest.keys import current_key, delete_key, history_key, part_key
from vecstore.manifest.model import Manifest, Part
from vecstore.manifest.tombstones import read_tombstone
from vecstore.part.reader import PartReader
from vecstore.part.rows import PartRows
from vecstore.storage.base import CLOCK_MARGIN, ObjectStore
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.types import RowId

Kind = Literal[
    "upsert",
    "insert",
    "absent",  # insert if absent
    "newer",  # upsert where the stored `MARKS[0]` is less than the new one
    "assign",
    "patch",
    "delete",
    "mark",  # patch by filter
    "erase",  # delete by filter
    "create",
    "drop",
    "restore",
    "branch",
]
# The request that wrote a row and the row's number in it; and, if it has any, the requests that set its
# attributes, 0 for one that it lacks.
Value = tuple[int, int] | tuple[int, int, int, int]
Content = dict[RowId, Value]
Place = tuple[Literal["row", "id"], RowId]  # a row of a request, or an attribute of the row of an id

MARKS = ("a", "b")  # attributes, in the order of a value
WHOLE = ("create", "drop", "restore", "branch")  # kinds that are of the namespace, not of rows
DIM = 4
MOST_POSSIBLE = 6  # requests in doubt that one epoch is explained by; more would take too long to try
GROUP = 10.0  # first component of a vector: the sign says which of two groups the row is in


class PromiseBroken(AssertionError):
    """Something was observed that vecstore promises will not happen."""


def vector_of(value: Value, group: float = GROUP) -> np.ndarray[Any, Any]:
    """f32[DIM] that tells its value back, exactly."""
    return np.array([group, value[0], value[1], 1.0], dtype=np.float32)


def value_of(vector: Any, attributes: Mapping[str, Any] | None = None) -> Value:
    one, other = (int((attributes or {}).get(name) or 0) for name in MARKS)
    serial, row = int(vector[1]), int(vector[2])
    return (serial, row, one, other) if one or other else (serial, row)


def mark_of(value: Value, name: str) -> int:
    return value[2 + MARKS.index(name)] if len(value) == 4 else 0


def marked(value: Value, name: str, serial: int) -> Value:
    """A value with one attribute set."""
    marks = {other: mark_of(value, other) for other in MARKS} | {name: serial}
    return value[0], value[1], marks["a"], marks["b"]


@dataclass(eq=False)
class Request:
    """What a client wants; tried again under its idempotency key, it is still the same request.

    Attributes
    ----------
    incarnation
        That a drop names.
    source
        What a restore or a branch takes all rows from.
    marks
        Whether its rows have attributes.
    attribute
        That a patch sets.
    bound
        Only rows whose `MARKS[0]` is there and less are patched or deleted; 0: all that are named.
    """

    serial: int
    namespace: str
    kind: Kind
    ids: tuple[RowId, ...] = ()
    rows: int = 0
    key: str | None = None
    incarnation: str | None = None
    source: Epoch | None = None
    marks: bool = False
    attribute: str = ""
    bound: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def value(self, row: int) -> Value:
        """What it writes as one of its rows."""
        return (self.serial, row, self.serial, self.serial) if self.marks else (self.serial, row)

    def meets(self, value: Value) -> bool:
        """Whether it is about a stored row of a value, by its bound."""
        return not self.bound or 0 < mark_of(value, MARKS[0]) < self.bound

    @property
    def may_pass_over(self) -> bool:
        """Whether it may leave rows that it names as they are."""
        return bool(self.bound) or self.kind in ("absent", "newer", "mark", "erase")

    def __str__(self) -> str:
        told = ", ".join(str(attempt) for attempt in self.attempts)
        return f"request {self.serial} ({self.kind} {list(self.ids) or self.rows or ''}: {told})"


@dataclass(eq=False)
class Attempt:
    """One call of the library for a request.

    Attributes
    ----------
    began_after, began_at
        The epoch that was current when it was made, and when that was.
    entitled
        An epoch that somebody had been told of by then: a strong answer is not older.
    last
        Once it has ended: the last epoch that may be its doing. A switch that is still under way then
        lands on the very epoch that is current, or never.
    """

    request: Request
    began_after: int
    began_at: float
    entitled: int
    state: Literal["open", "acked", "refused", "unknown"] = "open"
    answer: Any = None
    epoch: int = 0
    last: int = 0

    def __str__(self) -> str:
        return f"{self.state}{f' in {self.epoch}' if self.state == 'acked' else ''}"


@dataclass(eq=False)
class Epoch:
    """An epoch as verification read it at the moment when it became current."""

    manifest: Manifest
    content: Content
    landed_at: float
    replaced_at: float = float("inf")

    @property
    def number(self) -> int:
        return self.manifest.epoch

    @property
    def incarnation(self) -> str | None:
        """None of a deletion marker."""
        return None if self.manifest.state == "deleted" else self.manifest.incarnation


def named_by(manifest: Manifest) -> set[str]:
    """Keys of all objects that an epoch names, whoever owns them."""
    found = {part_key(part.owner, part.id) for part in manifest.parts}
    tombstones = (part.tombstone for part in manifest.parts if part.tombstone is not None)
    return found | {delete_key(tombstone.owner, tombstone.delete_id) for tombstone in tombstones}


NOTHING: tuple[Content, str | None] = ({}, None)


class Auditor:
    """Reads all rows of an epoch, with the library's own readers, past everything that may fail."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._cache = PageCache(1 << 20)
        self._rows: dict[str, tuple[list[RowId], list[Value]]] = {}

    def content(self, manifest: Manifest) -> Content:
        found: Content = {}
        for part in manifest.parts:
            ids, values = self._read(manifest, part)
            dead = read_tombstone(self.store, part.tombstone, n=part.n) if part.tombstone is not None else ()
            for row, (identity, value) in enumerate(zip(ids, values, strict=True)):
                if row in dead:
                    continue
                if identity in found:
                    raise PromiseBroken(
                        f"epoch {manifest.epoch} of {manifest.namespace}: id {identity} lives twice, "
                        f"as {found[identity]} and as {value}"
                    )
                found[identity] = value
        return found

    def ids(self, manifest: Manifest) -> Callable[[Part], Iterable[RowId]]:
        """For `invariants.check_namespace`."""
        return lambda part: self._read(manifest, part)[0]

    def _read(self, manifest: Manifest, part: Part) -> tuple[list[RowId], list[Value]]:
        known = {name: manifest.attributes[name].id for name in MARKS if name in manifest.attributes}
        name = f"{part.owner}/{part.id}/{part.id_base}/{known}"
        if name not in self._rows:
            reader = PartReader(
                self.store,
                self._cache,
                part,
                dim=manifest.dim,
                padded_dim=padded(manifest.dim),
                id_kind=manifest.id_kind or "u64",
                trace=ReadTrace(),
            )
            ids = np.concatenate(list(reader.scan_ids(ReadTrace()))).tolist()
            every = np.arange(part.n)
            vectors = reader.read_vectors(every, ReadTrace())
            assert vectors is not None
            marks: list[dict[str, Any]] = [{} for _ in vectors]
            source = PartRows(reader, ReadTrace())
            for attribute, number in known.items():
                column = source.column(attribute, number)
                for row, mark in enumerate([] if column is None else column.values(every)):
                    marks[row][attribute] = mark
            self._rows[name] = ids, [value_of(v, some) for v, some in zip(vectors, marks, strict=True)]
        return self._rows[name]


class NamespaceLedger:
    """One name, over all its incarnations."""

    def __init__(self, name: str, auditor: Auditor, *, retention: float) -> None:
        self.name = name
        self.epochs: list[Epoch] = []
        self.requests: dict[int, Request] = {}
        self.told = 0  # the newest epoch that any client has been told of
        self._auditor = auditor
        self._retention = retention
        self._open: dict[Attempt, None] = {}
        self.tags: dict[str, Epoch] = {}  # that clients were told of and have not asked to be released
        self._pending: list[Request] = []  # that may still be applied, or were in what is not judged yet
        self._judged = 0
        self._born: dict[tuple[int, Place], int] = {}

    # -- what verification sees --------------------------------------------------------------

    @property
    def current(self) -> int:
        return self.epochs[-1].number if self.epochs else 0

    def epoch(self, number: int) -> Epoch:
        if not 1 <= number <= self.current:
            raise PromiseBroken(f"{self.name}: epoch {number} was told of; current is {self.current}")
        return self.epochs[number - 1]

    def switched(self, now: float) -> None:
        """`current` has changed: read it, and all that it names."""
        store = self._auditor.store
        try:
            found = history.read_current(store, self.name)
            manifest = found.manifest
            wrong = invariants.check_manifest(manifest)
            if self.epochs:
                wrong += invariants.check_successors(self.epochs[-1].manifest, manifest)
            elif manifest.epoch != 1:
                wrong.append(invariants.Violation("R4", f"the first epoch is {manifest.epoch}"))
            wrong += invariants.check_objects(store, manifest)
            if wrong:
                raise PromiseBroken(f"{self.name}: {'; '.join(f'{w.rule}: {w.message}' for w in wrong)}")
            self._check_copy()
            content = self._auditor.content(manifest)
        except (StorageMissing, StorageCorrupt) as error:
            raise PromiseBroken(f"{self.name}: the current epoch cannot be read: {error}") from error
        if self.epochs:
            self.epochs[-1].replaced_at = now
        self.epochs.append(Epoch(manifest, content, now))

    def _check_copy(self) -> None:
        """The epoch that was replaced is kept, as it was."""
        if not self.epochs:
            return
        before = self.epochs[-1].manifest
        kept = history.read_copy(self._auditor.store, self.name, before.epoch).manifest
        if kept != before:
            raise PromiseBroken(f"{self.name}: the copy of epoch {before.epoch} is not what was current")

    def deleted(self, key: str, now: float) -> None:
        """An object is gone: no epoch may need it that may still be read."""
        at = f"{self.name}: {key} was deleted"
        for tag, epoch in self.tags.items():
            if key in named_by(epoch.manifest) and epoch.incarnation == self.epochs[-1].incarnation:
                raise PromiseBroken(f"{at}, which epoch {epoch.number} names, held by tag {tag}")
        for epoch in reversed(self.epochs):
            if epoch.replaced_at + self._retention <= now:
                break
            if key in named_by(epoch.manifest):
                raise PromiseBroken(f"{at}, which epoch {epoch.number} names")
            if epoch is not self.epochs[-1] and key == history_key(self.name, epoch.number):
                raise PromiseBroken(f"{at}, {now - epoch.replaced_at:.1f} s after the epoch was replaced")
        if key == current_key(self.name):
            raise PromiseBroken(f"{self.name}: current was removed")

    # -- what clients do and are told --------------------------------------------------------

    def begin(self, request: Request, now: float) -> Attempt:
        attempt = Attempt(request, self.current, now, self.told)
        request.attempts.append(attempt)
        self._open[attempt] = None
        self.requests[request.serial] = request
        if request not in self._pending:
            self._pending.append(request)
        return attempt

    def acknowledge(self, attempt: Attempt, answer: Any, epoch: int, incarnation: str | None) -> None:
        """The client was told that it was applied, in ``epoch``."""
        there = self.epoch(epoch)
        attempt.state, attempt.answer, attempt.epoch = "acked", answer, epoch
        if incarnation is not None and there.incarnation not in (incarnation, None):
            raise PromiseBroken(
                f"{self.name}: {attempt.request} was answered for incarnation {incarnation};"
                f" epoch {epoch} is of {there.incarnation}"
            )
        for other in attempt.request.attempts:
            if other is not attempt and other.state == "acked" and other.epoch != epoch:
                self._check_applied_twice(attempt.request, other.epoch, epoch)
        first = min(other.began_after for other in attempt.request.attempts)
        if self._has_effect(attempt) and epoch <= first:
            raise PromiseBroken(f"{self.name}: {attempt.request} is older than the request")
        if not self._has_effect(attempt) and epoch < attempt.entitled and attempt.request.key is None:
            raise PromiseBroken(f"{self.name}: {attempt.request} was checked on an old epoch")
        self.told = max(self.told, epoch)
        self._end(attempt)

    def dropped(self, attempt: Attempt) -> None:
        """The client was told that the incarnation which it named is gone; not in which epoch."""
        attempt.state = "acked"
        last = self.epochs[-1]
        if attempt.request.incarnation is not None and last.incarnation == attempt.request.incarnation:
            raise PromiseBroken(f"{self.name}: {attempt.request}, and the namespace is still there")
        self._end(attempt)

    def refuse(self, attempt: Attempt) -> None:
        """The client was told that nothing was applied."""
        attempt.state = "refused"
        self._end(attempt)

    def lose(self, attempt: Attempt) -> None:
        """Nobody was told anything, or that it is unknown."""
        attempt.state = "unknown"
        self._end(attempt)

    def _end(self, attempt: Attempt) -> None:
        del self._open[attempt]
        attempt.last = self.current + (attempt.state == "unknown")
        self.judge()

    def _check_applied_twice(self, request: Request, one: int, other: int) -> None:
        """Only a request whose key was forgotten may be: it expired, or the namespace was deleted."""
        first, second = self.epoch(min(one, other)), self.epoch(max(one, other))
        recorded = [r.at for r in first.manifest.idempotency if r.key == request.key]
        kept_until = recorded[0] + IDEMPOTENCY_SECONDS - CLOCK_MARGIN if recorded else float("inf")
        anew = first.manifest.incarnation != second.manifest.incarnation
        if second.landed_at < kept_until and not anew:
            raise PromiseBroken(
                f"{self.name}: {request} was applied in epoch {first.number} and again in {second.number}"
            )

    @staticmethod
    def _has_effect(attempt: Attempt) -> bool:
        answer, kind = attempt.answer, attempt.request.kind
        if kind in ("delete", "erase", "mark", "absent"):
            return bool(answer > 0)
        if kind == "patch":
            return bool(answer[0] > 0)
        return kind != "newer" or answer[1] < len(attempt.request.ids)

    # -- what readers see --------------------------------------------------------------------

    def check_read(
        self, number: int, rows: Content | None, *, at_least: int, incarnation: str | None = None
    ) -> Epoch:
        """A read was answered from one epoch, with all its rows."""
        epoch = self.epoch(number)
        if number < at_least:
            raise PromiseBroken(
                f"{self.name}: a read was answered from epoch {number}, and {at_least} was known"
            )
        if incarnation is not None and incarnation != epoch.incarnation:
            raise PromiseBroken(f"{self.name}: epoch {number} was answered as of {incarnation}")
        if rows is not None and rows != epoch.content:
            raise PromiseBroken(f"{self.name}: epoch {number} read as {_difference(epoch.content, rows)}")
        return epoch

    def at(self, time: float) -> int:
        """The epoch that was current at a time; 0 if none was."""
        return sum(epoch.landed_at <= time for epoch in self.epochs)

    def may_exist(self, request: Request, first: int) -> bool:
        """Whether one of the request's ids was there since ``first``, or somebody was about to write it."""
        ids = set(request.ids)
        return self.some_epoch(first, lambda epoch: not ids.isdisjoint(epoch.content)) or any(
            other is not request
            and other.kind not in ("delete", "erase", "patch", "mark")
            and not ids.isdisjoint(other.ids)
            for other in self._pending
        )

    def some_epoch(self, first: int, holds: Callable[[Epoch], bool]) -> bool:
        """Whether it holds of an epoch that was current since ``first`` was."""
        return any(holds(epoch) for epoch in self.epochs[max(first, 1) - 1 :])

    # -- whether every epoch follows from the requests ---------------------------------------

    def judge(self) -> None:
        """Judge each epoch once every request that was under way when it landed has been answered."""
        while self._judged < len(self.epochs):
            epoch = self.epochs[self._judged]
            if any(attempt.began_after < epoch.number for attempt in self._open):
                return
            self._judge(epoch)
            self._judged += 1
        horizon = self._judged
        self._pending = [r for r in self._pending if self._may_come(r, horizon)]

    def judge_all(self) -> None:
        """At the end, when nothing is under way."""
        if self._open:
            raise PromiseBroken(f"{self.name}: never answered: {[str(a.request) for a in self._open]}")
        self.judge()

    def _may_come(self, request: Request, judged: int) -> bool:
        return any(a.state == "open" or a.last > judged or a.epoch > judged for a in request.attempts)

    def _judge(self, epoch: Epoch) -> None:
        number = epoch.number
        before = self.epochs[number - 2] if number > 1 else None
        old = (before.content, before.incarnation) if before is not None else NOTHING
        new = (epoch.content, epoch.incarnation)
        certain: dict[Request, None] = {}
        for request in self._pending:
            if any(a.state == "acked" and a.epoch == number for a in request.attempts):
                certain[request] = None
        # A restore or a branch brings rows that others wrote.
        brought = [
            request.source.content
            for request in self._pending
            if request.source is not None and self._in_time(request, number)
        ]
        for identity, value in epoch.content.items():
            if any(content.get(identity) == value for content in brought):
                continue
            if old[0].get(identity) != value:
                known = [content[identity] for content in (old[0], *brought) if identity in content]
                for serial, place in sorted(_told_by(identity, value, known), key=str):
                    certain[self._writer(serial, place, epoch)] = None
                    self._born[serial, place] = number
        for request in list(certain):
            if request.kind not in WHOLE and self._found_nothing(request, number, old, new):
                del certain[request]
        concerned = {i for i in {*old[0], *new[0]} if old[0].get(i) != new[0].get(i)}
        concerned.update(i for request in certain for i in request.ids)
        # What a deletion, a restore or a branch puts an end to leaves no trace.
        wiped = epoch.incarnation is None or any(r.kind in ("restore", "branch") for r in certain)
        doubtful = [
            r
            for r in self._pending
            if r not in certain and self._in_time(r, number) and not self._is_spent(r, epoch)
        ]
        possible: list[Request] = []
        while True:  # what one of them may have written, another may have taken away
            more = [
                r
                for r in doubtful
                if r not in possible
                and (r.kind in WHOLE or not concerned.isdisjoint(r.ids))
                and (wiped or self._leaves_no_trace(r, old[0], new[0], [*certain, *doubtful]))
            ]
            if not more:
                break
            possible += more
            concerned.update(i for r in more for i in r.ids)
        for most in range(MOST_POSSIBLE + 1):
            if self._explains(old, new, list(certain), possible, number, most):
                return
        raise PromiseBroken(
            f"{self.name}: epoch {number} does not follow from what was asked:"
            f" {_difference(old[0], new[0])}; {old[1]} to {new[1]}; certain"
            f" {[str(r) for r in certain]}; possible {[str(r) for r in possible]}"
        )

    def _writer(self, serial: int, place: Place, epoch: Epoch) -> Request:
        """The request that a new row is of, or a new attribute.

        It must be one that could be applied now, and was not before.
        """
        number = epoch.number
        request = self.requests.get(serial)
        if request is None:
            raise PromiseBroken(f"{self.name}: epoch {number} holds what nobody wrote: {serial}, {place}")
        born = self._born.get((serial, place))
        if born is not None:
            self._check_applied_twice(request, born, number)
        if all(attempt.state == "refused" for attempt in request.attempts):
            raise PromiseBroken(f"{self.name}: {request} was answered as failed, and applied in {number}")
        if not self._in_time(request, number):
            raise PromiseBroken(f"{self.name}: {request} was applied in epoch {number}")
        return request

    @staticmethod
    def _in_time(request: Request, number: int) -> bool:
        """Whether the request may have been applied in that epoch, for all that was answered."""
        for attempt in request.attempts:
            if attempt.state == "acked" and request.kind != "drop":
                if attempt.epoch == number:
                    return True
            elif attempt.state != "refused" and attempt.began_after < number <= attempt.last:
                return True
        return False

    def _is_spent(self, request: Request, epoch: Epoch) -> bool:
        """Whether a request in doubt is known to have been applied before, and its key still to be known."""
        applied = {a.epoch for a in request.attempts if a.state == "acked" and a.epoch}
        places: list[Place] = [("row", row) for row in range(len(request.ids))]
        places += [("id", identity) for identity in request.ids]
        applied.update(e for place in places if (e := self._born.get((request.serial, place))))
        return any(
            self.epoch(e).incarnation == epoch.incarnation
            and epoch.landed_at - self.epoch(e).landed_at < IDEMPOTENCY_SECONDS / 2
            for e in applied
            if e < epoch.number
        )

    @staticmethod
    def _leaves_no_trace(request: Request, old: Content, new: Content, others: Iterable[Request]) -> bool:
        """Whether a request in doubt can have been among the others: its rows would show, and do not."""
        if request.kind in WHOLE or request.may_pass_over:
            return True
        touched = {i for other in others if other is not request for i in other.ids}
        if request.kind == "delete":
            return all(i in touched or i not in new for i in request.ids)
        if request.kind == "patch":
            return all(
                i in touched or i not in new or mark_of(new[i], request.attribute) == request.serial
                for i in request.ids
            )
        return all(
            i in touched or old.get(i) != new.get(i) or new.get(i) == request.value(row)
            for row, i in enumerate(request.ids)
        )

    def _found_nothing(
        self,
        request: Request,
        number: int,
        old: tuple[Content, str | None],
        new: tuple[Content, str | None],
    ) -> bool:
        """What changed nothing may have been checked on this epoch, or rode along."""
        told = [a for a in request.attempts if a.state == "acked" and a.epoch == number]
        if not told or any(self._has_effect(attempt) for attempt in told):
            return False
        return any(self._applied(state, new, request, number) == state for state in (old, new))

    def _explains(
        self,
        start: tuple[Content, str | None],
        goal: tuple[Content, str | None],
        certain: Sequence[Request],
        possible: Sequence[Request],
        number: int,
        most: int,
    ) -> bool:
        """Whether all that are certain, and ``most`` that are possible, in some order lead to the next.

        Most orders lead to the same rows, so that what has been reached once is not tried again.
        """
        requests = [*certain, *possible]
        needed = (1 << len(certain)) - 1
        seen: set[tuple[int, frozenset[tuple[RowId, Value]], str | None]] = set()

        def reaches(state: tuple[Content, str | None], used: int) -> bool:
            if used & needed == needed and state == goal:
                return True
            here = (used, frozenset(state[0].items()), state[1])
            if here in seen:
                return False
            seen.add(here)
            for i, request in enumerate(requests):
                if used >> i & 1 or (i >= len(certain) and (used & ~needed).bit_count() == most):
                    continue
                after = self._applied(state, goal, request, number)
                if after is not None and reaches(after, used | 1 << i):
                    return True
            return False

        return reaches(start, 0)

    @staticmethod
    def _applied(
        state: tuple[Content, str | None], goal: tuple[Content, str | None], request: Request, number: int
    ) -> tuple[Content, str | None] | None:
        """The state after a request; None if that contradicts the answer it got."""
        content, incarnation = state
        acked = [a for a in request.attempts if a.state == "acked" and a.epoch == number]
        answer = acked[0].answer if acked else None
        if request.kind == "create":
            return ({}, goal[1]) if incarnation is None and answer in (None, goal[1]) else None
        if request.kind == "branch":
            assert request.source is not None
            fits = incarnation is None and answer in (None, goal[1])
            return (request.source.content, goal[1]) if fits else None
        if incarnation is None:
            return None
        if request.kind == "restore":
            assert request.source is not None
            same = request.source.incarnation == incarnation
            return (request.source.content, incarnation) if same else None
        if request.kind == "drop":
            return ({}, None) if request.incarnation in (None, incarnation) else None
        ids: Sequence[RowId] = request.ids
        if request.kind == "assign":
            wrote = {
                value[:2]: i
                for i, value in goal[0].items()
                if value[0] == request.serial and content.get(i, (0, 0))[:2] != value[:2]
            }
            ids = (
                answer
                if answer is not None
                else [wrote.get((request.serial, r)) for r in range(request.rows)]
            )
            if None in ids:
                return None
        there = [i for i in ids if i in content]
        if request.kind in ("mark", "erase"):
            there = list(content)
        meant = [i for i in there if request.meets(content[i])]
        if request.kind in ("delete", "erase"):
            if answer is not None and answer != len(meant):
                return None
            return {i: value for i, value in content.items() if i not in meant}, incarnation
        if request.kind in ("patch", "mark"):
            counted = (len(meant), len(ids) - len(there)) if request.kind == "patch" else len(meant)
            if answer is not None and answer != counted:
                return None
            changed = {i: marked(content[i], request.attribute, request.serial) for i in meant}
            return content | changed, incarnation
        if request.kind in ("absent", "newer"):
            older = [
                i
                for i in there
                if request.kind == "newer" and 0 < mark_of(content[i], MARKS[0]) < request.serial
            ]
            written = {i: request.value(row) for row, i in enumerate(ids) if i not in content or i in older}
            told = len(written) if request.kind == "absent" else (len(older), len(ids) - len(written))
            return None if answer is not None and answer != told else (content | written, incarnation)
        if (request.kind != "upsert" and there) or (
            request.kind == "upsert" and answer is not None and answer != len(there)
        ):
            return None
        return content | {i: request.value(row) for row, i in enumerate(ids)}, incarnation


def _told_by(identity: RowId, value: Value, known: Sequence[Value]) -> set[tuple[int, Place]]:
    """The requests that a row which was not there before tells of, and by what.

    Parameters
    ----------
    known
        What the id's row may have been before.
    """
    row: tuple[int, Place] = (value[0], ("row", value[1]))
    before = [one for one in known if one[:2] == value[:2]]
    new = [mark_of(value, name) for name in MARKS]
    marks = [[mark_of(one, name) for name in MARKS] for one in before] or [[value[0]] * len(MARKS)]
    closest = min(marks, key=lambda some: sum(a != b for a, b in zip(some, new, strict=True)))
    told = {mark for old, mark in zip(closest, new, strict=True) if mark and mark != old}
    # Its own mark in place of another's: its writer was there once more.
    found = {row if mark == value[0] else (mark, ("id", identity)) for mark in told}
    return found if before else found | {row}


def _difference(old: Content, new: Content) -> str:
    """For people: how one content differs from another."""
    every = sorted({*old, *new}, key=str)
    return str({i: (old.get(i), new.get(i)) for i in every if old.get(i) != new.get(i)})
