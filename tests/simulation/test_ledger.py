"""The ledger reports each kind of violation, in histories made by hand, and nothing in those in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tests.simulation.ledger import (
    DIM,
    Attempt,
    Auditor,
    Content,
    Epoch,
    Kind,
    NamespaceLedger,
    PromiseBroken,
    Request,
    marked,
    vector_of,
)
from vecstore.engine import changes
from vecstore.engine.database import EmbeddedDatabase
from vecstore.manifest.attempt import IDEMPOTENCY_SECONDS
from vecstore.manifest.keys import current_key, history_key, part_key
from vecstore.manifest.model import IdempotencyRecord, Manifest, Part, encode_manifest
from vecstore.storage.memory import MemoryStore

NAME = "docs"
RETENTION = 60.0
FIRST, SECOND = "first", "second"  # incarnations


class Told:
    """A ledger that is told of requests, answers and epochs; epoch 1 is an empty namespace."""

    def __init__(self) -> None:
        self.ledger = NamespaceLedger(NAME, Auditor(MemoryStore()), retention=RETENTION)
        self.now = 0.0
        self._serial = 0
        created = self.ask("create")
        self.epoch({})
        self.done(created, FIRST, 1)

    def epoch(self, content: Content, incarnation: str | None = FIRST, *, keys: tuple[str, ...] = ()) -> int:
        """`current` has changed."""
        epochs = self.ledger.epochs
        self.now += 1
        if epochs:
            epochs[-1].replaced_at = self.now
        number = len(epochs) + 1
        records = tuple(IdempotencyRecord(key, "", {}, number, self.now) for key in keys)
        manifest = Manifest(
            namespace=NAME,
            incarnation=incarnation or FIRST,
            lineage="",
            epoch=number,
            state="active" if incarnation else "deleted",
            created_at=0.0,
            committed_at=self.now,
            dim=DIM,
            metric="l2",
            rotation_seed=0,
            parts=(part_of(number),),
            idempotency=records,
        )
        epochs.append(Epoch(manifest, content, self.now))
        return number

    def ask(
        self, kind: Kind, *ids: int, key: str | None = None, rows: int = 0, source: Epoch | None = None
    ) -> Attempt:
        self._serial += 1
        request = Request(self._serial, NAME, kind, ids, rows, key, source=source)
        return self.again(request)

    def again(self, request: Request) -> Attempt:
        return self.ledger.begin(request, self.now)

    def done(self, attempt: Attempt, answer: Any, epoch: int) -> None:
        self.ledger.acknowledge(attempt, answer, epoch, None)

    def marked(self, kind: Kind, *ids: int, bound: int = 0, attribute: str = "") -> Attempt:
        """Of rows with attributes."""
        attempt = self.ask(kind, *ids)
        request = attempt.request
        request.marks, request.bound, request.attribute = (
            kind in ("upsert", "newer", "absent"),
            bound,
            attribute,
        )
        return attempt

    def upsert(self, *ids: int, key: str | None = None) -> Attempt:
        return self.ask("upsert", *ids, key=key)


def part_of(epoch: int) -> Part:
    """A part that this epoch and no other names."""
    return Part(id=f"part-{epoch}", owner=NAME, n=1, k=1, bytes=1, began=0.0, sections={}, checksums_crc32c=0)


@pytest.fixture
def told() -> Told:
    return Told()


def wrote(attempt: Attempt, *rows: int) -> Content:
    """The rows of an upsert, those of its numbers that are given or all."""
    request = attempt.request
    return {request.ids[row]: (request.serial, row) for row in rows or range(len(request.ids))}


# -- what an epoch follows from ------------------------------------------------------------------


def test_a_history_in_order_is_explained(told: Told) -> None:
    first = told.upsert(1, 2)
    told.epoch(wrote(first))
    told.done(first, 0, 2)
    second, gone, lost = told.upsert(2, 3), told.ask("delete", 1), told.ask("delete", 9)
    told.epoch(wrote(second))
    told.done(second, 1, 3)
    told.done(gone, 1, 3)
    told.ledger.lose(lost)
    unknown = told.upsert(4)
    told.epoch(wrote(second) | wrote(unknown))
    told.ledger.lose(unknown)
    assigned = told.ask("assign", rows=2)
    told.epoch(
        wrote(second) | wrote(unknown) | {70: (assigned.request.serial, 0), 71: (assigned.request.serial, 1)}
    )
    told.done(assigned, [70, 71], 5)
    told.ledger.judge_all()


def test_more_requests_in_doubt_than_three_may_explain_an_epoch(told: Told) -> None:
    """As many clients of a node that crashed may have asked for, in one group (seed 1144)."""
    first = told.upsert(1, 2, 3, 4)
    told.epoch(wrote(first))
    told.done(first, 0, 2)
    deletes = [told.ask("delete", i) for i in (1, 2, 3, 4)]
    told.epoch({})
    for delete in deletes:
        told.ledger.lose(delete)
    told.ledger.judge_all()


def test_a_deletion_takes_the_traces_of_what_was_committed_with_it(told: Told) -> None:
    """A delete found the row of an upsert of which nobody knows, and then all was dropped (seed 1220)."""
    upsert, delete, drop = told.upsert(1, 2), told.ask("delete", 1), told.ask("drop")
    told.epoch({}, None)
    told.ledger.lose(upsert)
    told.done(delete, 1, 2)
    told.ledger.lose(drop)
    told.ledger.judge_all()


def test_requests_in_doubt_take_the_traces_of_one_another(told: Told) -> None:
    """An upsert lost one row to a delete, both in doubt, and the other to another upsert (seed 2016)."""
    lost, delete, upsert = told.upsert(1, 2), told.ask("delete", 2), told.upsert(1)
    told.done(upsert, 1, told.epoch(wrote(upsert)))
    told.ledger.lose(lost)
    told.ledger.lose(delete)
    told.ledger.judge_all()


def test_a_request_may_be_applied_once_more_over_its_own_rows_when_its_key_has_expired(told: Told) -> None:
    """An attempt that hung for more than an hour comes after somebody else's (seed 1364)."""
    first = told.upsert(1, 2, key="k")
    hung = told.again(first.request)
    told.done(first, 0, told.epoch(wrote(first), keys=("k",)))
    told.now += 2 * IDEMPOTENCY_SECONDS
    other = told.upsert(1)
    told.done(other, 1, told.epoch(wrote(first)))
    told.ledger.lose(hung)
    told.ledger.judge_all()


def test_patches_and_conditions_in_order_are_explained(told: Told) -> None:
    first = told.marked("upsert", 1, 2, 3)
    told.done(first, 0, told.epoch(values(first)))
    one, other = told.marked("patch", 1, 9, attribute="a"), told.marked("patch", 1, attribute="b")
    row = patched(patched(first.request.value(0), one, "a"), other, "b")
    both = told.epoch(values(first) | {1: row})
    told.done(one, (1, 1), both)
    told.done(other, (1, 0), both)
    newer, absent = told.marked("newer", 1, 2, 3), told.marked("absent", 1, 4)
    told.done(newer, (3, 0), told.epoch(values(newer)))
    told.done(absent, 1, told.epoch(values(newer) | {4: absent.request.value(1)}))
    older = told.marked("delete", 1, 2, bound=newer.request.serial)
    told.done(older, 0, 5)
    mark = told.marked("mark", 1, 2, 3, 4, attribute="b", bound=newer.request.serial + 1)
    rows = {i: patched(value, mark, "b") for i, value in values(newer).items()}
    told.done(mark, 3, told.epoch(rows | {4: absent.request.value(1)}))
    erase = told.marked("erase", 1, 2, 3, 4, bound=newer.request.serial + 1)
    told.done(erase, 3, told.epoch({4: absent.request.value(1)}))
    told.ledger.judge_all()


def values(attempt: Attempt) -> Content:
    """The rows of a write that has attributes."""
    return {i: attempt.request.value(row) for row, i in enumerate(attempt.request.ids)}


def patched(value: Any, attempt: Attempt, attribute: str) -> Any:
    return marked(value, attribute, attempt.request.serial)


def column_that_a_patch_drops(told: Told) -> None:
    """R7: the second patch copied the row as it was before the first."""
    first = told.marked("upsert", 1)
    told.done(first, 0, told.epoch(values(first)))
    one, other = told.marked("patch", 1, attribute="a"), told.marked("patch", 1, attribute="b")
    told.done(one, (1, 0), told.epoch({1: patched(first.request.value(0), one, "a")}))
    told.done(other, (1, 0), told.epoch({1: patched(first.request.value(0), other, "b")}))


def patch_that_is_lost(told: Told) -> None:
    first = told.marked("upsert", 1)
    told.done(first, 0, told.epoch(values(first)))
    told.done(told.marked("patch", 1, attribute="a"), (1, 0), told.epoch(values(first)))


def patch_of_a_row_that_was_replaced(told: Told) -> None:
    first = told.marked("upsert", 1)
    told.done(first, 0, told.epoch(values(first)))
    second, patch = told.marked("upsert", 1), told.marked("patch", 1, attribute="a")
    told.done(second, 1, told.epoch(values(second)))
    told.done(patch, (1, 0), told.epoch({1: patched(first.request.value(0), patch, "a")}))


def older_row_that_wins(told: Told) -> None:
    late = told.marked("newer", 1)
    first = told.marked("upsert", 1)
    told.done(first, 0, told.epoch(values(first)))
    told.done(late, (1, 0), told.epoch(values(late)))


def seat_that_is_taken_twice(told: Told) -> None:
    one, other = told.marked("absent", 1), told.marked("absent", 1)
    told.done(one, 1, told.epoch(values(one)))
    told.done(other, 1, told.epoch(values(other)))


def row_that_is_deleted_without_meeting_the_condition(told: Told) -> None:
    first = told.marked("upsert", 1)
    told.done(first, 0, told.epoch(values(first)))
    told.done(told.marked("delete", 1, bound=first.request.serial), 1, told.epoch({}))


def filter_that_misses_a_row(told: Told) -> None:
    first = told.marked("upsert", 1, 2)
    told.done(first, 0, told.epoch(values(first)))
    erase = told.marked("erase", 1, 2, bound=first.request.serial + 1)
    told.done(erase, 1, told.epoch({2: first.request.value(1)}))


def lost_row(told: Told) -> None:
    told.done(told.upsert(1), 0, told.epoch({}))


def half_a_batch(told: Told) -> None:
    upsert = told.upsert(1, 2)
    told.done(upsert, 0, told.epoch(wrote(upsert, 0)))


def half_a_batch_in_doubt(told: Told) -> None:
    upsert = told.upsert(1, 2)
    told.epoch(wrote(upsert, 1))
    told.ledger.lose(upsert)


def row_that_nobody_wrote(told: Told) -> None:
    told.epoch({1: (99, 0)})
    told.ledger.judge()


def row_that_vanishes(told: Told) -> None:
    upsert = told.upsert(1)
    content = wrote(upsert)
    told.done(upsert, 0, told.epoch(content))
    told.epoch({})
    told.ledger.judge()


def row_that_comes_back(told: Told) -> None:
    upsert = told.upsert(1)
    told.done(upsert, 0, told.epoch(wrote(upsert)))
    delete = told.ask("delete", 1)
    told.done(delete, 1, told.epoch({}))
    told.epoch(wrote(upsert))
    told.ledger.judge()


def old_row_that_comes_back_for_a_new_one(told: Told) -> None:
    old = told.upsert(1)
    told.done(old, 0, told.epoch(wrote(old)))
    new = told.upsert(1)
    told.done(new, 1, told.epoch(wrote(new)))
    told.epoch(wrote(old))
    told.ledger.judge()


def delete_without_effect(told: Told) -> None:
    upsert = told.upsert(1)
    told.done(upsert, 0, told.epoch(wrote(upsert)))
    delete = told.ask("delete", 1)
    told.done(delete, 1, told.epoch(wrote(upsert)))


def wrong_count(told: Told) -> None:
    upsert = told.upsert(1)
    told.done(upsert, 1, told.epoch(wrote(upsert)))


def insert_over_a_row(told: Told) -> None:
    upsert = told.upsert(1)
    told.done(upsert, 0, told.epoch(wrote(upsert)))
    insert = told.ask("insert", 1)
    told.done(insert, 0, told.epoch(wrote(insert)))


def refused_and_applied(told: Told) -> None:
    upsert = told.upsert(1)
    told.ledger.refuse(upsert)
    told.epoch(wrote(upsert))
    told.ledger.judge()


def in_doubt_and_applied_too_late(told: Told) -> None:
    """A switch that is under way lands on the epoch that is current, or never."""
    upsert = told.upsert(1)
    told.ledger.lose(upsert)
    other = told.upsert(2)
    told.done(other, 0, told.epoch(wrote(other)))
    told.epoch(wrote(other) | wrote(upsert))
    told.ledger.judge()


def acknowledged_for_one_epoch_and_applied_in_another(told: Told) -> None:
    upsert = told.upsert(1)
    told.epoch(wrote(upsert))
    told.done(upsert, 0, told.epoch(wrote(upsert)))


def gone_without_a_drop(told: Told) -> None:
    told.epoch({}, None)
    told.ledger.judge()


def made_anew_without_a_create(told: Told) -> None:
    drop = told.ask("drop")
    told.epoch({}, None)
    told.ledger.dropped(drop)
    told.epoch({}, SECOND)
    told.ledger.judge()


def rows_of_the_past_incarnation(told: Told) -> None:
    upsert = told.upsert(1)
    told.done(upsert, 0, told.epoch(wrote(upsert)))
    drop = told.ask("drop")
    told.epoch({}, None)
    told.ledger.dropped(drop)
    create = told.ask("create")
    told.done(create, SECOND, told.epoch(wrote(upsert), SECOND))


def restore_of_other_rows(told: Told) -> None:
    upsert = told.upsert(1, 2)
    told.done(upsert, 0, told.epoch(wrote(upsert)))
    delete = told.ask("delete", 1)
    told.done(delete, 1, told.epoch(wrote(upsert, 1)))
    restore = told.ask("restore", source=told.ledger.epoch(2))
    told.done(restore, None, told.epoch(wrote(upsert, 0)))


def never_answered(told: Told) -> None:
    told.upsert(1)
    told.ledger.judge_all()


# -- what clients are told -----------------------------------------------------------------------


def told_of_an_epoch_that_is_not_there(told: Told) -> None:
    told.done(told.upsert(1), 0, 7)


def told_of_an_epoch_before_the_request(told: Told) -> None:
    told.done(told.upsert(1), 0, 1)


def told_of_another_incarnation(told: Told) -> None:
    upsert = told.upsert(1)
    told.ledger.acknowledge(upsert, 0, told.epoch(wrote(upsert)), SECOND)


def applied_twice_under_a_key(told: Told) -> None:
    upsert = told.upsert(1, key="k")
    told.done(upsert, 0, told.epoch(wrote(upsert), keys=("k",)))
    again = told.again(upsert.request)
    told.done(again, 1, told.epoch(wrote(upsert), keys=("k",)))


def delete_that_looked_at_an_old_epoch(told: Told) -> None:
    told.done(told.upsert(1), 0, told.epoch({1: (2, 0)}))
    told.done(told.ask("delete", 9), 0, 1)


def dropped_and_still_there(told: Told) -> None:
    drop = told.ask("drop")
    drop.request.incarnation = FIRST
    told.ledger.dropped(drop)


# -- what readers see ----------------------------------------------------------------------------


def stale_read(told: Told) -> None:
    told.epoch({})
    told.ledger.check_read(1, {}, at_least=2)


def read_of_other_rows(told: Told) -> None:
    told.ledger.check_read(1, {1: (1, 0)}, at_least=0)


def read_of_the_future(told: Told) -> None:
    told.ledger.check_read(2, {}, at_least=0)


def read_of_another_incarnation(told: Told) -> None:
    told.ledger.check_read(1, {}, at_least=0, incarnation=SECOND)


# -- what is deleted -----------------------------------------------------------------------------


def part_of_the_current_epoch_is_deleted(told: Told) -> None:
    told.now += 10 * RETENTION
    told.ledger.deleted(part_key(NAME, "part-1"), told.now)


def part_of_an_epoch_within_its_retention_is_deleted(told: Told) -> None:
    told.now += 10 * RETENTION  # for which it was current
    told.epoch({})
    told.ledger.deleted(part_key(NAME, "part-1"), told.now + RETENTION - 1)


def copy_within_its_retention_is_deleted(told: Told) -> None:
    told.epoch({})
    told.ledger.deleted(history_key(NAME, 1), told.now + RETENTION - 1)


def part_that_a_tag_holds_is_deleted(told: Told) -> None:
    told.ledger.tags["kept"] = told.ledger.epoch(1)
    told.epoch({})
    told.ledger.deleted(part_key(NAME, "part-1"), told.now + 10 * RETENTION)


def current_is_deleted(told: Told) -> None:
    told.ledger.deleted(current_key(NAME), told.now)


VIOLATIONS: list[tuple[Callable[[Told], None], str]] = [
    (column_that_a_patch_drops, "was applied in epoch 2 and again in 4"),
    (patch_that_is_lost, "does not follow"),
    (patch_of_a_row_that_was_replaced, "was applied in epoch 2 and again in 4"),
    (older_row_that_wins, "does not follow"),
    (seat_that_is_taken_twice, "does not follow"),
    (row_that_is_deleted_without_meeting_the_condition, "does not follow"),
    (filter_that_misses_a_row, "does not follow"),
    (lost_row, "does not follow"),
    (half_a_batch, "does not follow"),
    (half_a_batch_in_doubt, "does not follow"),
    (row_that_nobody_wrote, "nobody wrote"),
    (row_that_vanishes, "does not follow"),
    (row_that_comes_back, "was applied in epoch 2 and again in 4"),
    (old_row_that_comes_back_for_a_new_one, "was applied in epoch 2 and again in 4"),
    (delete_without_effect, "does not follow"),
    (wrong_count, "does not follow"),
    (insert_over_a_row, "does not follow"),
    (refused_and_applied, "answered as failed, and applied"),
    (in_doubt_and_applied_too_late, "was applied in epoch 3"),
    (acknowledged_for_one_epoch_and_applied_in_another, "was applied in epoch 2"),
    (gone_without_a_drop, "does not follow"),
    (made_anew_without_a_create, "does not follow"),
    (rows_of_the_past_incarnation, "was applied in epoch 4"),
    (restore_of_other_rows, "does not follow"),
    (never_answered, "never answered"),
    (told_of_an_epoch_that_is_not_there, "epoch 7 was told of"),
    (told_of_an_epoch_before_the_request, "is older than the request"),
    (told_of_another_incarnation, "was answered for incarnation second"),
    (applied_twice_under_a_key, "was applied in epoch 2 and again in 3"),
    (delete_that_looked_at_an_old_epoch, "checked on an old epoch"),
    (dropped_and_still_there, "is still there"),
    (stale_read, "and 2 was known"),
    (read_of_other_rows, "epoch 1 read as"),
    (read_of_the_future, "epoch 2 was told of; current is 1"),
    (read_of_another_incarnation, "was answered as of second"),
    (part_of_the_current_epoch_is_deleted, "which epoch 1 names"),
    (part_of_an_epoch_within_its_retention_is_deleted, "which epoch 1 names"),
    (copy_within_its_retention_is_deleted, "after the epoch was replaced"),
    (part_that_a_tag_holds_is_deleted, "held by tag kept"),
    (current_is_deleted, "current was removed"),
]


@pytest.mark.parametrize(("happens", "message"), VIOLATIONS, ids=[f.__name__ for f, _ in VIOLATIONS])
def test_a_violation_is_reported(told: Told, happens: Callable[[Told], None], message: str) -> None:
    with pytest.raises(PromiseBroken, match=message):
        happens(told)


def test_what_may_be_deleted_is_no_violation(told: Told) -> None:
    told.epoch({})
    told.ledger.deleted(part_key(NAME, "part-1"), told.now + RETENTION + 1)
    told.ledger.deleted(history_key(NAME, 1), told.now + RETENTION + 1)
    told.ledger.deleted(part_key(NAME, "of-nobody"), told.now)


# -- what verification reads from the store ------------------------------------------------------


class Written:
    """A real namespace of two parts, whose store is then changed behind its back."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.db = EmbeddedDatabase(self.store)
        self.ledger = NamespaceLedger(NAME, Auditor(self.store), retention=RETENTION)
        self.db.create(NAME, DIM, "l2", {})
        self.ledger.switched(0.0)
        for serial, ids in enumerate(((1, 2), (3, 4)), start=1):
            self.insert(serial, *ids)
            self.ledger.switched(float(serial))

    def insert(self, serial: int, *ids: int) -> None:
        rows = [vector_of((serial, row)) for row in range(len(ids))]
        self.db.insert(NAME, rows, list(ids), mode="upsert", expected=None, idempotency_key=None)

    def damage(self, key: str, data: bytes | None) -> None:
        self.store.delete(key)
        if data is not None:
            self.store.put_if_absent(key, data)


@pytest.fixture
def written() -> Written:
    return Written()


def test_each_epoch_of_a_sound_namespace_is_read(written: Written) -> None:
    assert [epoch.content for epoch in written.ledger.epochs] == [
        {},
        {1: (1, 0), 2: (1, 1)},
        {1: (1, 0), 2: (1, 1), 3: (2, 0), 4: (2, 1)},
    ]


def test_an_object_that_is_gone_is_reported(written: Written) -> None:
    part = written.ledger.epochs[-1].manifest.parts[0]
    written.insert(3, 5)
    written.damage(part_key(part.owner, part.id), None)
    with pytest.raises(PromiseBroken, match=part.id):
        written.ledger.switched(3.0)


def test_damage_is_reported(written: Written) -> None:
    written.insert(3, 5)
    written.damage(current_key(NAME), b"{}")
    with pytest.raises(PromiseBroken, match="cannot be read"):
        written.ledger.switched(3.0)


def test_a_copy_that_is_not_what_was_current_is_reported(written: Written) -> None:
    written.insert(3, 5)
    before = written.ledger.epochs[-1].manifest
    other = replace(before, committed_at=before.committed_at + 1)
    written.damage(history_key(NAME, 3), encode_manifest(other))
    with pytest.raises(PromiseBroken, match="the copy of epoch 3 is not what was current"):
        written.ledger.switched(3.0)


def test_a_copy_that_is_gone_is_reported(written: Written) -> None:
    written.insert(3, 5)
    written.damage(history_key(NAME, 3), None)
    with pytest.raises(PromiseBroken, match="cannot be read"):
        written.ledger.switched(3.0)


def test_an_epoch_that_was_skipped_is_reported(written: Written) -> None:
    written.insert(3, 5)
    written.insert(4, 6)
    with pytest.raises(PromiseBroken, match="epoch"):
        written.ledger.switched(3.0)


def test_an_id_that_lives_twice_is_reported(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "kill", lambda draft, found: None)
    written.insert(3, 4)
    with pytest.raises(PromiseBroken, match=r"id 4 lives twice, as \(2, 1\) and as \(3, 0\)"):
        written.ledger.switched(3.0)
