"""The parts of an epoch, by tier, and what compaction would do: embedded and over HTTP the same."""

from __future__ import annotations

import numpy as np
import pytest

from vecstore.api import Database
from vecstore.errors import InvalidArgument, NamespaceNotFound
from vecstore.maintenance.policy import tier


@pytest.mark.parametrize(
    ("live", "expected"), [(0, 0), (7, 0), (8, 1), (63, 1), (64, 2), (512, 3), (4095, 3)]
)
def test_a_tier_holds_fan_in_times_as_many_rows_as_the_one_below(live: int, expected: int) -> None:
    assert tier(live, 8) == expected


def test_parts_tell_rows_tier_and_size(db: Database) -> None:
    ns = db.create_namespace("parts", dim=2, metric="l2")
    first = ns.insert(np.ones((70, 2), np.float32), ids=np.arange(70))
    ns.insert(np.ones((3, 2), np.float32), ids=np.arange(100, 103))
    ns.delete(ids=[0, 1, 100])
    report = ns.parts()
    info = ns.stats()
    assert (report.epoch, report.incarnation) == (info.epoch, info.incarnation)
    assert [(part.rows, part.live, part.tier, part.owner) for part in report.parts] == [
        (70, 68, 2, "parts"),
        (3, 2, 0, "parts"),
    ]
    assert report.parts[0].id == first.part_id
    assert sum(part.bytes for part in report.parts) == info.bytes
    assert {part.lists for part in report.parts} == {1}
    assert report.compaction is None


def test_what_is_due_is_what_is_merged(db: Database) -> None:
    ns = db.create_namespace("due", dim=2, metric="l2")
    for i in range(3):
        ns.insert([[float(i), 0.0]], ids=[i])
    assert ns.parts().due is None
    for i in range(3, 8):
        ns.insert([[float(i), 0.0]], ids=[i])
    report = ns.parts()
    assert report.due is not None
    assert report.due.reason == "tiny parts"
    done = ns.compact(everything=False)
    assert set(done.merged) == set(report.due.parts)
    assert ns.parts().due is None


def test_a_part_whose_rows_have_expired_is_due(db: Database) -> None:
    ns = db.create_namespace("expiring", dim=1, schema={"until": "datetime"}, expire_by="until")
    ns.insert([[1.0]] * 4, ids=[1, 2, 3, 4], attributes={"until": ["2001-01-01", None, None, None]})
    due = ns.parts().due
    assert due is not None
    assert due.reason == "dead rows"


def test_parts_of_a_past_epoch_are_those_that_it_had(db: Database) -> None:
    ns = db.create_namespace("past", dim=1)
    inserted = [ns.insert([[1.0]], ids=[i]) for i in range(8)]
    ns.compact()
    past = ns.parts(epoch=inserted[1].epoch)
    assert [part.id for part in past.parts] == [one.part_id for one in inserted[:2]]
    assert (past.due, past.compaction) == (None, None)
    assert len(ns.parts().parts) == 1
    with pytest.raises(InvalidArgument):
        ns.parts(epoch=1_000)


def test_a_namespace_that_is_not_there_has_no_parts(db: Database) -> None:
    ns = db.create_namespace("gone", dim=1)
    db.delete_namespace("gone")
    with pytest.raises(NamespaceNotFound):
        ns.parts()
