"""Inserts and deletes as changes: ids are resolved against the draft at every attempt (R5, R6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core import engine
from vecstore.engine.changes import DeleteRows, InsertRows
from vecstore.engine.choice import Choice, Resolver
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import IdExists, InvalidId
from vecstore.manifest.draft import Draft
from vecstore.part.builder import build_part
from vecstore.rows.ids import Ids, parse_ids


@pytest.fixture
def db() -> EmbeddedDatabase:
    made = engine()
    made.create("ns", 2, "l2", {})
    return made


def draft(db: EmbeddedDatabase) -> Draft:
    ns = db.namespace("ns")
    return Draft(ns.manifest(), now=db.store.now(), tombstones=ns.tombstones)


def choice(db: EmbeddedDatabase, ids: Ids) -> Choice:
    readers = db.namespace("ns").views.reader
    return Choice(readers, resolver=Resolver(ids, readers))


def insertion(db: EmbeddedDatabase, ids: Any, *, mode: Any = "upsert", n: int = 0) -> InsertRows:
    """An uploaded batch that waits for its commit."""
    ns = db.namespace("ns")
    parsed = None if ids is None else parse_ids(ids)
    vectors = np.ones((n or len(ids), 2), dtype=np.float32)
    mean = ns.writes.mean_for(ns.manifest(), vectors)
    image = build_part(vectors, parsed, ns.writes.spec(ns.manifest(), mean))

    def upload() -> Any:
        return ns.writes.upload(image, mean)

    return InsertRows(
        commit_id=ns.publisher.new_commit_id(),
        part=upload(),
        order=np.arange(len(vectors)),
        choice=None if parsed is None else choice(db, parsed),
        mode=mode,
        mean=mean,
        upload=upload,
    )


def deletion(db: EmbeddedDatabase, ids: Any) -> DeleteRows:
    ns = db.namespace("ns")
    return DeleteRows(commit_id=ns.publisher.new_commit_id(), choice=choice(db, parse_ids(ids)))


def live(draft: Draft) -> int:
    return sum(part.n - len(draft.dead(part.id)) for part in draft.manifest.parts)


@pytest.mark.parametrize("ids", [[1, 2], ["a", "b"]])
def test_two_upserts_of_an_id_in_one_group_leave_the_later_row(db: EmbeddedDatabase, ids: Any) -> None:
    """Also in the group that brings the namespace its first ids, whose kind the base does not know."""
    group = draft(db)
    first, second = insertion(db, ids), insertion(db, ids[:1])
    assert first.apply(group)["upserted"] == 0
    assert second.apply(group)["upserted"] == 1
    assert live(group) == 2
    assert len(group.dead(first.part.id)) == 1
    assert len(group.dead(second.part.id)) == 0
    assert deletion(db, ids).apply(group) == {"deleted": 2, "skipped": 0}
    assert live(group) == 0


def test_a_deletion_before_an_upsert_in_a_group_does_not_kill_its_row(db: EmbeddedDatabase) -> None:
    group = draft(db)
    insertion(db, [1]).apply(group)
    assert deletion(db, [1]).apply(group) == {"deleted": 1, "skipped": 0}
    assert insertion(db, [1]).apply(group)["upserted"] == 0
    assert live(group) == 1


def test_insert_mode_sees_what_precedes_it_in_the_group(db: EmbeddedDatabase) -> None:
    group = draft(db)
    insertion(db, [1, 2]).apply(group)
    with pytest.raises(IdExists) as error:
        insertion(db, [7, 2], mode="insert").apply(group)
    assert error.value.details["position"] == 1
    deletion(db, [2]).apply(group)
    assert insertion(db, [7, 2], mode="insert").apply(group)["upserted"] == 0


def test_kinds_of_ids_do_not_mix_within_a_group(db: EmbeddedDatabase) -> None:
    group = draft(db)
    insertion(db, ["a"]).apply(group)
    for change in (insertion(db, [1]), insertion(db, None, n=3), deletion(db, [1])):
        with pytest.raises(InvalidId):
            change.apply(group)


def test_assigned_ids_lie_above_given_ones(db: EmbeddedDatabase) -> None:
    group = draft(db)
    assert insertion(db, None, n=3).apply(group)["id_base"] == 0
    insertion(db, [10]).apply(group)
    assert insertion(db, None, n=2).apply(group)["id_base"] == 11
    assert insertion(db, [11, 1]).apply(group)["upserted"] == 2


def test_the_largest_id_is_never_assigned(db: EmbeddedDatabase) -> None:
    group = draft(db)
    insertion(db, [2**64 - 1]).apply(group)
    with pytest.raises(InvalidId):
        insertion(db, None, n=1).apply(group)


def test_an_attempt_on_another_base_is_computed_anew(db: EmbeddedDatabase) -> None:
    """R6: what was killed in an attempt that lost is killed again on the new base, no more, no less."""
    change = insertion(db, [1, 2])
    lost = draft(db)
    assert change.apply(lost)["upserted"] == 0
    for ids in ([1], [2, 3]):
        db.namespace("ns").publisher.commit(insertion(db, ids))
    assert change.apply(draft(db))["upserted"] == 2
    db.namespace("ns").publisher.commit(deletion(db, [1]))
    assert change.apply(draft(db))["upserted"] == 1


def test_an_upload_is_repeated_under_a_new_id(db: EmbeddedDatabase) -> None:
    change = insertion(db, [1])
    before = change.part
    began = change.oldest_upload()
    change.upload_again()
    assert change.part.id != before.id
    assert change.part.checksums_crc32c == before.checksums_crc32c
    assert change.oldest_upload() is not None
    assert began is not None
    assert change.oldest_upload() >= began  # type: ignore[operator]


def test_a_deletion_follows_ids_that_another_attempt_assigned_anew(db: EmbeddedDatabase) -> None:
    """Its group lost the race: the part before it now has other ids, and row 5 of it is no longer id 5."""
    group = draft(db)
    insert, delete = insertion(db, None, n=10), deletion(db, [5])
    insert.apply(group)
    assert delete.apply(group) == {"deleted": 1, "skipped": 0}
    winner = db.namespace("ns").writes.insert(np.ones((100, 2)), None)
    again = draft(db)
    insert.apply(again)
    assert delete.apply(again) == {"deleted": 1, "skipped": 0}
    assert list(again.dead(winner.part_id)) == [5]
    assert not again.dead(insert.part.id)
