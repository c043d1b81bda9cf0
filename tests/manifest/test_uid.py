"""Ids are unique, of one shape, and sort by time."""

from __future__ import annotations

from random import Random
from uuid import UUID

from vecstore.manifest.uid import new_uid


def test_ids_are_uuids_of_version_seven() -> None:
    uid = UUID(new_uid(lambda: 1_700_000_000.5, Random(1)))
    assert uid.version == 7
    assert uid.variant == "specified in RFC 4122"
    assert uid.int >> 80 == 1_700_000_000_500


def test_ids_sort_by_the_time_they_were_made() -> None:
    rng = Random(2)
    uids = [new_uid(lambda t=t: t / 1000, rng) for t in range(1, 2000, 7)]
    assert uids == sorted(uids)


def test_ids_of_one_instant_differ() -> None:
    rng = Random(3)
    assert len({new_uid(lambda: 1.0, rng) for _ in range(10_000)}) == 10_000
