"""R9: a branch shares the parts of its source; nothing that it names goes, and everything goes after it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.manifest.helpers import ScriptedStore, change, insert
from tests.manifest.worlds import HOUR, World, at_every_call
from vecstore.errors import (
    InvalidArgument,
    LimitReached,
    NamespaceExists,
    NamespaceNotFound,
    SnapshotExpired,
    StorageConflict,
    StorageCorrupt,
    VecstoreError,
)
from vecstore.limits import MAX_BRANCH_PINS
from vecstore.maintenance.branches import release_pins
from vecstore.manifest.branch import fence
from vecstore.manifest.keys import current_key, history_key
from vecstore.manifest.lifecycle import UpdateSettings
from vecstore.manifest.pins import ReleasePins, add_tag, remove_tag


def says_nothing_of(ancestor: str, error: VecstoreError) -> bool:
    return f"{ancestor!r}" not in error.message and ancestor not in error.details.values()


@pytest.fixture
def world() -> World:
    """Namespace ``a`` with two parts, one of them with a tombstone, at epoch 4."""
    made = World(ScriptedStore())
    made.create("a")
    made.store.tick = 1.0
    part = made.insert("a")
    made.insert("a")
    made.kill("a", part, 1, 2)
    return made


class Crash(BaseException):
    """The process is gone."""


def crash() -> None:
    raise Crash


# -- what a branch is -----------------------------------------------------------------------


def test_a_branch_has_the_rows_and_the_schema_and_its_own_history(world: World) -> None:
    publisher = world("a")
    publisher.commit(UpdateSettings(commit_id=publisher.new_commit_id(), changes={"list_rows": 64}))
    publisher.commit(
        change(publisher, before=lambda draft: draft.take_ids(50) and None, idempotency=("key", "request"))
    )
    add_tag(publisher, "t", 3)
    origin = publisher.snapshots.strong().manifest
    made = world.branch("a", "b")
    assert world.rows("b") == world.rows("a")
    same = ("dim", "metric", "rotation_seed", "id_kind", "settings", "means", "parts", "next_id")
    assert [getattr(made, name) for name in same] == [getattr(origin, name) for name in same]
    assert (made.namespace, made.epoch, made.pins, made.idempotency) == ("b", 1, (), ())
    assert [(a.namespace, a.incarnation, a.epoch) for a in made.ancestors] == [
        ("a", origin.incarnation, origin.epoch)
    ]
    assert not {made.incarnation, made.lineage} & {origin.incarnation, origin.lineage}
    assert world.pins("a") == [("t", 3), ("b", origin.epoch)]
    world.check()


def test_nothing_is_written_but_the_pins_a_copy_an_owner_and_the_branch(world: World) -> None:
    """Row 12 of the issue, in objects: no part, no tombstone."""
    world.branch("a", "b")
    world.kill("b", world.insert("b"), 3)
    world.kill("b", next(iter(world.rows("a"))), 5)
    epochs = {name: world("b").snapshots.strong().epoch if name == "b" else 5 for name in ("a", "b")}
    world.store.calls.clear()
    before = dict(world.store.objects)
    world.branch("b", "c")
    written = [key for op, key in world.store.calls if op.startswith("put")]
    assert sorted(written) == sorted(
        [
            history_key("a", epochs["a"]),
            current_key("a"),
            history_key("b", epochs["b"]),
            current_key("b"),
            current_key("c"),
        ]
    )
    changed = {k: v for k, v in world.store.objects.items() if before.get(k) != v}
    assert set(changed) == set(written)
    world.check()


def test_a_branch_of_a_past_epoch_has_the_rows_of_then(world: World) -> None:
    world.compact("a")
    world.branch("a", "b", epoch=3)
    assert [len(rows) for rows in world.rows("b").values()] == [10, 10]
    assert world.rows("b") == world.rows("a", 3)
    assert len(world.rows("a")) == 1
    world.check()


@pytest.mark.parametrize("deleted", ["a", "b"])
@pytest.mark.parametrize("compacted", [(), ("a",), ("b",), ("a", "b")])
def test_both_sides_diverge_and_either_may_go_first(
    world: World, deleted: str, compacted: tuple[str, ...]
) -> None:
    world.branch("a", "b")
    shared = list(world.rows("a"))
    for name, row in (("a", 4), ("b", 5)):
        world.kill(name, shared[1], row)
        world.insert(name)
    for name in compacted:
        world.compact(name)
    world.hours_pass(2)
    left = "b" if deleted == "a" else "a"
    expected = world.rows(left)
    world.delete(deleted)
    world.hours_pass(3)
    assert world.rows(left) == expected
    world.check()
    if deleted == "b":
        assert world.pins("a") == []
    else:
        assert [name for name, _ in world.pins("a")] == ["b"]
    world.comes_to_nothing()


def test_a_grandchild_keeps_what_it_needs_when_those_between_are_gone(world: World) -> None:
    world.branch("a", "b")
    world.insert("b")
    world.branch("b", "c")
    world.insert("c")
    world.branch("c", "d")
    expected = world.rows("d")
    assert len(expected) == 4
    assert [name for name, _ in world.pins("a")] == ["b", "c", "d"]
    for name in ("b", "a", "c"):
        world.delete(name)
        world.hours_pass(2)
        assert world.rows("d") == expected
        world.check()
    assert [name for name, _ in world.pins("a")] == ["d"]
    world.comes_to_nothing()


def test_an_ancestor_whose_parts_are_not_named_any_more_gets_no_pin(world: World) -> None:
    world.branch("a", "b")
    world.compact("b")
    made = world.branch("b", "c")
    assert [a.namespace for a in made.ancestors] == ["b"]
    assert world.pins("a") == [("b", 4)]
    world.check()


def test_a_branch_may_take_the_name_of_the_source_that_is_gone(world: World) -> None:
    """Made to try something out, and then put in place of the original."""
    world.branch("a", "b")
    world.insert("b")
    expected = world.rows("b")
    world.delete("a")
    world.hours_pass(2)
    made = world.branch("b", "a")
    assert (made.state, made.epoch > 5) == ("active", True)
    assert world.rows("a") == expected
    world.delete("b")
    world.hours_pass(3)
    assert world.rows("a") == expected
    world.check()
    world.branch("a", "c")
    world.delete("a")
    world.hours_pass(3)
    assert world.rows("c") == expected
    world.comes_to_nothing()


def test_a_namespace_made_anew_keeps_the_pins_of_the_branches_of_the_one_before(world: World) -> None:
    world.branch("a", "b")
    expected = world.rows("b")
    world.delete("a")
    world.create("a")
    world.insert("a")
    world.hours_pass(3)
    assert world.rows("b") == expected
    assert world.pins("a") == [("b", 4)]
    with pytest.raises(SnapshotExpired):
        world.branch("a", "c", epoch=4)
    world.check()
    world.comes_to_nothing()


def test_a_restore_on_either_side_leaves_the_other_alone(world: World) -> None:
    from vecstore.manifest.restore import restore

    world.branch("a", "b")
    world.insert("b")
    expected = world.rows("b")
    restore(world("a"), 2, expected=world("a").snapshots.strong().token)
    world.hours_pass(2)
    assert world.rows("b") == expected
    add_tag(world("b"), "first", world("b").snapshots.strong().epoch)
    world.compact("b")
    world.hours_pass(2)
    tagged = world("b").snapshots.strong().manifest.pins[0].epoch
    restore(world("b"), tagged, expected=world("b").snapshots.strong().token)
    assert world.rows("b") == expected
    remove_tag(world("b"), "first")
    world.hours_pass(2)
    assert world.rows("b") == expected
    world.comes_to_nothing()


# -- what is refused ------------------------------------------------------------------------


def test_what_cannot_be_branched_is_refused_and_nothing_is_pinned(world: World) -> None:
    world.create("b")
    world.compact("a")
    for refused, error in (
        (lambda: world.branch("a", "b"), NamespaceExists),
        (lambda: world.branch("a", "a"), NamespaceExists),
        (lambda: world.branch("x", "y"), NamespaceNotFound),
        (lambda: world.branch("a", "c", epoch=99), InvalidArgument),
    ):
        with pytest.raises(error):
            refused()
    world.hours_pass()
    with pytest.raises(SnapshotExpired):
        world.branch("a", "c", epoch=4)
    assert world.pins("a") == []
    assert world.current("c") is None


def test_a_refusal_for_what_an_ancestor_has_lost_names_the_source_alone(world: World) -> None:
    made = world.branch("a", "b")
    publisher = world("a")
    over = frozenset({("b", made.incarnation)})
    publisher.commit(ReleasePins(commit_id=publisher.new_commit_id(), over=over))
    world.delete("a")
    world.hours_pass(2)
    with pytest.raises(SnapshotExpired) as refused:
        world.branch("b", "c")
    assert says_nothing_of("a", refused.value)
    assert refused.value.details == {"namespace": "b", "epoch": made.epoch}


def test_the_number_of_branches_is_bounded_and_those_that_are_over_do_not_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_BRANCH_PINS >= 100
    monkeypatch.setattr("vecstore.manifest.pins.MAX_BRANCH_PINS", 3)
    for name in ("b", "c", "d"):
        world.branch("a", name)
    with pytest.raises(LimitReached):
        world.branch("a", "e")
    assert world.current("e") is None
    world.delete("c")
    with pytest.raises(LimitReached) as refused:
        world.branch("b", "e")
    assert says_nothing_of("a", refused.value)  # who may branch b need not know what it rests on
    world.hours_pass(2)
    world.branch("b", "e")
    assert [name for name, _ in world.pins("a")] == ["b", "d", "e"]
    world.check()


# -- when a pin is released -----------------------------------------------------------------


def test_a_pin_is_released_only_when_the_branch_is_deleted_and_its_retention_has_passed(world: World) -> None:
    world.branch("a", "b")
    world.compact("a")
    world.hours_pass(3)
    assert world.pins("a") == [("b", 4)]
    world.delete("b")
    world.store.time += HOUR - 60
    world.collect()
    assert world.pins("a") == [("b", 4)]
    world.store.time += 120
    world.collect()
    assert world.pins("a") == []
    assert not [key for key in world.store.objects if "/deletes/" in key]
    assert len(world.rows("a")) == 1


def test_a_name_that_is_used_again_does_not_hold_or_lose_the_pin_of_its_first_branch(world: World) -> None:
    world.branch("a", "b")
    world.insert("b")
    world.delete("b")
    world.branch("a", "b")
    expected = world.rows("b")
    assert [name for name, _ in world.pins("a")] == ["b", "b"]
    world.store.time += HOUR - 60
    world.collect()
    assert len(world.pins("a")) == 2
    world.hours_pass(2)
    assert world.pins("a") == [("b", 5)]
    assert world.rows("b") == expected
    world.check()
    world.comes_to_nothing()


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("taken", ["", "namespace", "namespace that is gone again"])
def test_a_branch_that_stalls_too_long_is_fenced_and_never_appears(
    world: World, used_before: bool, taken: str
) -> None:
    """It wakes with all its pins committed, and they are released."""
    if used_before:
        world.create("b")
        world.delete("b")
    switches: list[str] = []

    def stall(call: Any) -> Any:
        if call.op.startswith("put") and call.key == current_key("b") and not switches:
            switches.append(call.key)
            world.store.script = None
            others = world.other()
            if taken:
                others.create("b")
                if "gone" in taken:
                    others.delete("b")
            others.compact("a")
            assert len(others.pins("a")) == 1
            others.hours_pass(3)
            assert others.pins("a") == []
        return call.carry_out()

    world.store.script = stall
    with pytest.raises(StorageConflict):
        world.other().branch("a", "b")
    world.store.script = None
    assert switches
    assert world.exists("b") == (taken == "namespace")
    world.check()
    if taken != "namespace":
        world.branch("a", "b")  # the name is free
        assert world.rows("b") == world.rows("a")
    world.comes_to_nothing()


def test_a_pin_is_not_released_before_its_branch_had_time_to_appear(world: World) -> None:
    def impatient(call: Any) -> Any:
        if call.key == current_key("b") and call.op == "put_if_absent":
            world.store.script = None
            world.store.time += 30
            world.other().collect(retention=0)
        return call.carry_out()

    world.store.script = impatient
    world.other().branch("a", "b")
    assert world.pins("a") == [("b", 4)]
    assert world.rows("b") == world.rows("a")


def test_a_branch_and_its_fence_cannot_both_win(world: World) -> None:
    """The branch lands between the collector's look at its name and the fence."""
    world.branch("a", "b")
    pin = world("a").snapshots.strong().manifest.pins[0]
    assert not fence(world.other()("b"), pin, world("a").snapshots.strong().manifest)
    assert world.exists("b")

    late = world.other()
    start = dict(world.store.objects)
    del world.store.objects[current_key("b")]

    def script(call: Any) -> Any:
        if call.op == "put_if_absent" and call.key == current_key("b"):
            world.store.script = None
            world.store.objects[call.key] = start[call.key]
        return call.carry_out()

    world.store.time += 10 * HOUR
    world.store.script = script
    now = world.store.time
    assert release_pins(late("a"), replaced_before=now, pinned_before=now) == 0
    assert world.pins("a") == [("b", 4)]
    world.check()


def test_a_branch_that_cannot_be_read_keeps_its_pin(world: World) -> None:
    world.branch("a", "b")
    world.branch("a", "c")
    world.delete("c")
    world.store._set(current_key("b"), b"{}")
    world.store.time += 2 * HOUR
    world.collect("a")
    assert world.pins("a") == [("b", 4)]


# -- in the midst of others -----------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("used_before", [False, True])
def test_a_crash_at_any_call_leaves_a_branch_whole_or_absent(
    world: World, after: bool, used_before: bool
) -> None:
    """And nothing of it for ever: what was pinned in vain is released, and the name can be used."""
    world.branch("a", "b")
    world.kill("b", world.insert("b"), 1)
    if used_before:
        world.create("c")
        world.delete("c")
    expected = world.rows("b")
    outcomes = []

    def job(mine: World) -> None:
        try:
            mine.branch("b", "c")
        except Crash:
            outcomes.append(mine.exists("c"))
        world.store.script = None
        mine = mine.other()
        mine.check()
        mine.compact("b")
        mine.compact("a")
        mine.hours_pass(2)
        mine.check()
        if mine.exists("c"):
            assert mine.rows("c") == expected
        else:
            assert "c" not in [name for name, _ in (*mine.pins("a"), *mine.pins("b"))]
            mine.branch("b", "c")
            assert mine.rows("c") == mine.rows("b")
        mine.comes_to_nothing()

    assert at_every_call(world, job, crash, after=after) > 6
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == ({False, True} if after else {False})


def test_collection_at_any_call_of_a_branch_takes_nothing_that_it_names(world: World) -> None:
    world.branch("a", "b")
    world.insert("b")
    past = world("b").snapshots.strong().epoch
    expected = world.rows("b")
    world.compact("b")
    outcomes = set()

    def job(mine: World) -> None:
        try:
            mine.branch("b", "c", epoch=past)
        except (SnapshotExpired, StorageConflict) as error:
            outcomes.add(type(error))
            assert not mine.exists("c")
        else:
            outcomes.add(None)
            assert mine.rows("c") == expected
        world.store.script = None
        mine.check()
        mine.hours_pass()
        if mine.exists("c"):
            assert mine.rows("c") == expected
        mine.check()

    for wait in (HOUR + 100, 30 * HOUR):

        def collection(wait: float = wait) -> None:
            world.store.time += wait
            world.other().collect()

        at_every_call(world, job, collection)
    assert outcomes == {None, SnapshotExpired, StorageConflict}


def test_a_branch_at_any_call_of_a_collection_keeps_what_it_names(world: World) -> None:
    past = world("a").snapshots.strong().epoch
    expected = world.rows("a")
    world.compact("a")
    world.store.time += HOUR - 30
    outcomes = []

    def branching() -> None:
        try:
            world.other().branch("a", "b", epoch=past)
        except SnapshotExpired:
            outcomes.append(False)
        else:
            outcomes.append(True)

    def job(mine: World) -> None:
        world.store.time += 60
        mine.collect("a")
        world.store.script = None
        if mine.exists("b"):
            assert mine.rows("b") == expected
        mine.check()

    assert at_every_call(world, job, branching) > 10
    assert set(outcomes) == {True, False}


@pytest.mark.parametrize("deleted", ["a", "b"])
def test_a_deletion_at_any_call_of_a_branch_leaves_it_whole_or_absent(world: World, deleted: str) -> None:
    """Of the source, or of the namespace below it; with all that collection does after that."""
    world.branch("a", "b")
    world.insert("b")
    expected = world.rows("b")
    outcomes = set()

    def deletion() -> None:
        others = world.other()
        others.delete(deleted)
        others.hours_pass(3)

    def job(mine: World) -> None:
        try:
            mine.branch("b", "c")
        except VecstoreError as error:
            outcomes.add(type(error))
            assert not mine.exists("c")
        else:
            outcomes.add(None)
            assert mine.rows("c") == expected
        world.store.script = None
        mine = mine.other()
        mine.hours_pass(2)
        if mine.exists("c"):
            assert mine.rows("c") == expected
        mine.check()
        mine.comes_to_nothing()

    at_every_call(world, job, deletion)
    assert None in outcomes
    assert outcomes <= {None, NamespaceNotFound, SnapshotExpired, StorageConflict}


def test_a_branch_back_into_the_name_of_its_source_is_whole_or_absent_if_all_else_goes(world: World) -> None:
    """What it rests on in its own name has no pin for it: the marker that it is created upon must keep it."""
    world.branch("a", "b")
    world.insert("b")
    expected = world.rows("b")
    world.delete("a")
    world.hours_pass(2)
    outcomes = set()

    def deletion() -> None:
        others = world.other()
        others.delete("b")
        world.store.time += 2 * HOUR
        others.collect("a")  # and not b, which keeps its own

    def job(mine: World) -> None:
        try:
            mine.branch("b", "a")
        except VecstoreError as error:
            outcomes.add(type(error))
            assert not mine.exists("a")
        else:
            outcomes.add(None)
            assert mine.rows("a") == expected
        world.store.script = None
        mine.check()
        mine.comes_to_nothing()

    at_every_call(world, job, deletion)
    assert outcomes >= {None, SnapshotExpired}


def test_two_branches_of_one_name_at_once_are_one(world: World) -> None:
    outcomes = set()

    def job(mine: World) -> None:
        try:
            mine.branch("a", "c")
        except (NamespaceExists, StorageConflict) as error:
            outcomes.add(type(error))
        world.store.script = None
        assert mine.rows("c") == world.rows("a")
        mine.hours_pass(2)
        assert [name for name, _ in mine.pins("a")] == ["c"]
        mine.comes_to_nothing()

    def rival() -> None:
        world.other().branch("a", "c")

    at_every_call(world, job, rival)
    assert outcomes == {NamespaceExists, StorageConflict}


def test_a_part_that_a_writer_to_the_branch_uploaded_early_is_judged_by_the_branch(world: World) -> None:
    """Horizons are each namespace's own."""
    world.hours_pass(2)
    world.branch("a", "b")
    publisher = world("b")
    part = publisher.commit(insert(publisher)).manifest.parts[-1]
    assert part.owner == "b"
    world.check()


def test_a_name_whose_current_is_lost_becomes_no_branch_and_nothing_is_pinned_for_it(world: World) -> None:
    world.branch("a", "b")
    world.insert("b")
    del world.store.objects[current_key("b")]
    before = dict(world.store.objects)
    with pytest.raises(StorageCorrupt, match="namespaces/b/manifest/current is lost"):
        world.branch("a", "b")
    assert world.store.objects == before
