"""The invariants find what is wrong, and nothing in what is right."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from pyroaring import BitMap

from tests.manifest.helpers import NS, ScriptedStore, change, insert, make_namespace
from vecstore.invariants import (
    check_ids,
    check_manifest,
    check_namespace,
    check_objects,
    check_successors,
)
from vecstore.manifest import history
from vecstore.manifest.branch import branch
from vecstore.manifest.keys import delete_key, history_key, part_key
from vecstore.manifest.model import Ancestor, Attribute, CommitRef, IdempotencyRecord, Manifest, Pin
from vecstore.manifest.pins import add_tag
from vecstore.manifest.publish import Publisher


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def publisher(store: ScriptedStore) -> Publisher:
    """A namespace of two parts, one with a tombstone, at epoch 4."""
    publisher = make_namespace(store)
    part = publisher.commit(insert(publisher)).manifest.parts[0]
    publisher.commit(insert(publisher))
    publisher.commit(change(publisher, kills={part.id: [1, 2]}))
    return publisher


@pytest.fixture
def manifest(publisher: Publisher) -> Manifest:
    return publisher.snapshots.strong().manifest


def rules(violations: Any) -> set[str]:
    return {violation.rule for violation in violations}


def test_a_sound_namespace_has_no_violations(store: Any, publisher: Any) -> None:
    assert check_namespace(store, NS) == []


def broken(manifest: Manifest) -> list[tuple[str, Manifest]]:
    a, b = manifest.parts
    assert a.tombstone is not None
    commits = manifest.commits
    record = IdempotencyRecord("k", "r", {}, 1, 0.0)
    pin = Pin(name="t", kind="tag", incarnation=manifest.incarnation, epoch=99, created_at=0.0)
    return [
        ("R6", replace(manifest, parts=(a, a))),
        ("R6", replace(manifest, parts=(replace(a, tombstone=replace(a.tombstone, dead=11)),))),
        ("R6", replace(manifest, parts=(replace(a, mean="gone"),))),
        ("R11", replace(manifest, parts=(replace(a, id_base=5),))),
        ("R11", replace(manifest, next_id=50, parts=(replace(a, id_base=5), replace(b, id_base=9)))),
        ("R3", replace(manifest, history_floor=5)),
        ("R3", replace(manifest, horizon=manifest.committed_at + 1)),
        ("R4", replace(manifest, state="deleted")),
        ("R4", replace(manifest, epoch=0)),
        ("R1", replace(manifest, commits=commits[:-1])),
        ("R1", replace(manifest, commits=(*commits, commits[-1]))),
        ("R1", replace(manifest, commits=tuple(reversed(commits)))),
        ("R12", replace(manifest, idempotency=(record, record))),
        ("R9", replace(manifest, pins=(pin,))),
    ]


@pytest.mark.parametrize("i", range(14))
def test_what_is_wrong_with_one_manifest_is_found(i: int, manifest: Manifest) -> None:
    rule, wrong = broken(manifest)[i]
    assert rule in rules(check_manifest(wrong))
    assert check_manifest(manifest) == []


def wrong_successors(before: Manifest) -> list[tuple[str, Manifest]]:
    a, b = before.parts
    after = replace(before, epoch=5, commits=(*before.commits, CommitRef("new", 5)))
    return [
        ("R4", replace(after, epoch=6)),
        ("R3", replace(after, horizon=-1.0)),
        ("R3", replace(after, committed_at=before.committed_at - 1)),
        ("R1", replace(after, commits=(CommitRef("x", 1), *after.commits[1:]))),
        ("R1", replace(after, commits=after.commits[2:])),
        ("R4", replace(after, incarnation="other", parts=())),
        ("R11", replace(after, next_id=-1)),
        ("R4", replace(after, dim=5)),
        ("R4", replace(after, ancestors=(Ancestor("other", "x", 1),))),
        ("R6", replace(after, parts=(replace(a, n=9), b))),
        ("R6", replace(after, parts=(replace(a, tombstone=None), b))),
    ]


@pytest.mark.parametrize("i", range(11))
def test_what_is_wrong_between_two_epochs_is_found(i: int, manifest: Manifest) -> None:
    rule, wrong = wrong_successors(manifest)[i]
    assert rule in rules(check_successors(manifest, wrong))


def test_a_deleted_incarnation_must_not_come_back(manifest: Manifest) -> None:
    marker = replace(manifest, state="deleted", parts=())
    assert "R4" in rules(check_successors(marker, replace(manifest, epoch=5)))


def test_a_row_may_come_back_to_life_only_by_a_change_of_lineage(manifest: Manifest) -> None:
    a, b = manifest.parts
    after = replace(
        manifest,
        epoch=5,
        lineage="restored",
        parts=(replace(a, tombstone=None), b),
        commits=(*manifest.commits, CommitRef("new", 5)),
    )
    assert check_successors(manifest, after) == []


def test_attributes_have_ids_of_their_own_that_are_never_used_again(manifest: Manifest) -> None:
    a, b = manifest.parts
    schema = {"lang": Attribute(0, "string"), "year": Attribute(1, "int")}
    sound = replace(manifest, schema=schema, next_attribute=2, parts=(replace(a, columns=(0,)), b))
    assert check_manifest(sound) == []
    twice = {**schema, "year": Attribute(0, "int")}
    for wrong in (
        replace(sound, schema=twice),
        replace(sound, next_attribute=1),
        replace(sound, parts=(replace(a, columns=(7,)), b)),
    ):
        assert rules(check_manifest(wrong)) == {"R4"}
    following = replace(sound, epoch=5, commits=(*sound.commits, CommitRef("new", 5)))
    assert check_successors(sound, following) == []
    for wrong in (
        replace(following, schema={}, next_attribute=0),
        replace(following, schema={**schema, "year": Attribute(1, "float")}),
    ):
        assert rules(check_successors(sound, wrong)) == {"R4"}
    assert rules(check_successors(sound, replace(following, parts=(a, b)))) == {"R6"}


def test_an_object_that_is_gone_or_cut_is_found(store: Any, manifest: Manifest) -> None:
    part, tombstone = manifest.parts[0], manifest.parts[0].tombstone
    assert tombstone is not None
    assert check_objects(store, manifest) == []
    store._set(part_key(NS, part.id), b"x")
    assert rules(check_objects(store, manifest)) == {"R13"}
    store.delete(part_key(NS, part.id))
    assert rules(check_objects(store, manifest)) == {"R3"}
    assert rules(check_namespace(store, NS)) == {"R3"}


def test_a_damaged_bitmap_is_found_once(store: Any, manifest: Manifest) -> None:
    tombstone = manifest.parts[0].tombstone
    assert tombstone is not None
    key = delete_key(NS, tombstone.delete_id)
    data = store.objects[key][0]
    store._set(key, data[: tombstone.offset] + bytes(len(data) - tombstone.offset))
    assert rules(check_objects(store, manifest)) == {"R13"}
    assert len(check_namespace(store, NS, read_ids=lambda part: range(0))) == 1
    assert check_objects(store, manifest, bitmaps=False) == []
    store.delete(key)
    assert rules(check_objects(store, manifest)) == {"R3"}


def test_a_gap_in_history_is_found(store: Any, publisher: Any) -> None:
    store.delete(history_key(NS, 2))
    assert rules(check_namespace(store, NS)) == {"R1"}


def test_a_copy_that_is_damaged_is_found(store: Any, publisher: Any) -> None:
    store._set(history_key(NS, 2), b"{}")
    assert "R13" in rules(check_namespace(store, NS))


def test_a_pinned_epoch_that_is_gone_is_found(store: Any, publisher: Any, manifest: Manifest) -> None:
    pin = Pin(name="t", kind="tag", incarnation=manifest.incarnation, epoch=1, created_at=0.0)
    publisher.commit(change(publisher, before=lambda draft: draft.replace(pins=(pin,), history_floor=3)))
    assert check_namespace(store, NS) == []
    store.delete(history_key(NS, 1))
    assert rules(check_namespace(store, NS)) == {"R9"}


def test_what_a_tag_or_a_branch_holds_must_be_there(store: Any, publisher: Any) -> None:
    add_tag(publisher, "t", 2)
    held = history.read_copy(store, NS, 2).manifest.parts[0]
    publisher.commit(change(publisher, removes=[held.id]))
    publisher.commit(change(publisher, before=lambda draft: draft.replace(history_floor=6)))
    assert check_namespace(store, NS) == []
    store.delete(part_key(NS, held.id))
    assert rules(check_namespace(store, NS)) == {"R3"}


def test_a_branch_without_a_pin_is_found(store: Any, publisher: Any) -> None:
    branch(publisher.beside, NS, "copy")
    assert check_namespace(store, "copy") == []
    publisher.commit(change(publisher, before=lambda draft: draft.replace(pins=())))
    assert rules(check_namespace(store, "copy")) == {"R9"}
    assert check_namespace(store, NS) == []


def test_an_object_of_a_stranger_is_found(store: Any, publisher: Any, manifest: Manifest) -> None:
    other = make_namespace(store, 2, namespace="other")
    other.commit(change(other, part=manifest.parts[0]))
    assert rules(check_namespace(store, "other")) == {"R9"}


def test_an_id_that_lives_twice_is_found(store: Any, manifest: Manifest) -> None:
    a, b = manifest.parts
    ids = {a.id: list(range(10)), b.id: [1, 2, *range(20, 28)]}
    dead = {a.id: BitMap([1, 2]), b.id: None}
    assert check_ids(manifest, lambda part: ids[part.id], lambda part: dead[part.id]) == []
    assert check_namespace(store, NS, read_ids=lambda part: ids[part.id]) != []  # epoch 3: before the kill
    dead[a.id] = BitMap([1])
    found = check_ids(manifest, lambda part: ids[part.id], lambda part: dead[part.id])
    assert rules(found) == {"R5"}
    assert len(found) == 1
