"""Patches: other attributes for rows that stay as they are, and nothing of another writer's is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from tests.core import CODED, EXACT, RangeStore, clustered, database, generator
from tests.engine.test_writes import reader_of_ids
from vecstore.api import Namespace
from vecstore.engine import patches
from vecstore.errors import (
    FilterMismatch,
    IdempotencyMismatch,
    InvalidArgument,
    InvalidAttribute,
    InvalidFilter,
    InvalidId,
    PreconditionFailed,
    SchemaConflict,
)
from vecstore.invariants import check_namespace
from vecstore.manifest.keys import part_key
from vecstore.part.rows import PartRows
from vecstore.storage.faults import Call, FaultyStore
from vecstore.storage.memory import MemoryStore

DIM = 8
ROWS = clustered(generator(2), 300, DIM)
STORES = ("fp32", "fp16", "none")


def namespace(store: Any = None, *, n: int = 300, strings: bool = False, **settings: Any) -> Namespace:
    ns = database(store).create_namespace("ns", dim=DIM, metric="l2", **settings)
    ids: Any = [f"i{i}" for i in range(n)] if strings else range(n)
    ns.insert(ROWS[:n], ids, attributes={"n": list(range(n)), "lang": ["en", "de"] * (n // 2)})
    return ns


def attributes(ns: Namespace, identity: Any) -> dict[str, Any]:
    found = ns.get(identity).attributes
    return {name: value for name, value in (found or {}).items() if value is not None}


def matching(ns: Namespace, given: Any) -> list[Any]:
    return sorted(hit.id for hit in ns.search(ROWS[0], top_k=1_000, filter=given, **EXACT))


def vectors(ns: Namespace, ids: Any) -> list[Any]:
    return [ns.get(i).vector for i in ids]


@pytest.mark.parametrize("strings", [True, False])
@pytest.mark.parametrize("stored", STORES)
@pytest.mark.parametrize("coded", [True, False])
def test_a_patch_changes_what_it_names_and_nothing_else(strings: bool, stored: Any, coded: bool) -> None:
    ns = namespace(strings=strings, store_vectors=stored, **(CODED if coded else {}))
    ids: list[Any] = [f"i{i}" for i in (3, 40, 41)] if strings else [3, 40, 41]
    before = {hit.id: hit.distance for hit in ns.search(ROWS[3], top_k=300, **EXACT)}
    kept = vectors(ns, ids)
    done = ns.patch(ids, {"lang": ["fr", None, "it"], "new": [1.5, 2.5, None]}, return_ids=True)
    assert (done.patched, done.skipped, done.absent) == (3, 0, 0)
    assert sorted(done.affected_ids or []) == ids
    for phase in range(2):
        assert attributes(ns, ids[0]) == {"n": 3, "lang": "fr", "new": 1.5}
        assert attributes(ns, ids[1]) == {"n": 40, "new": 2.5}
        assert attributes(ns, ids[2]) == {"n": 41, "lang": "it"}
        assert matching(ns, ["lang", "In", ["fr", "it"]]) == [ids[0], ids[2]]
        assert matching(ns, ["lang", "Eq", None]) == [ids[1]]
        assert matching(ns, ["new", "Gt", 2]) == [ids[1]]
        np.testing.assert_array_equal(vectors(ns, ids), kept)
        after = ns.search(ROWS[3], top_k=300, **EXACT)
        if phase == 0 or stored != "none":
            assert {hit.id: hit.distance for hit in after} == pytest.approx(before)
        assert ns.stats().rows == 300
        if stored == "none":
            break  # a compaction encodes int8 rows anew
        ns.compact()


@pytest.mark.parametrize("stored", STORES)
@pytest.mark.parametrize("coded", [True, False])
def test_repeated_patches_do_not_wear_a_row_out(stored: Any, coded: bool) -> None:
    ns = namespace(store_vectors=stored, **(CODED if coded else {}))
    distances = [hit.distance for hit in ns.search(ROWS[7], top_k=5, **EXACT)]
    vector = ns.get(7).vector
    for i in range(5):
        ns.patch([7, 8], {"n": [i, i]})
    assert attributes(ns, 7)["n"] == 4
    np.testing.assert_array_equal(ns.get(7).vector, vector)
    assert [hit.distance for hit in ns.search(ROWS[7], top_k=5, **EXACT)] == distances


def test_a_patch_of_many_rows_goes_on_in_their_lists() -> None:
    store = MemoryStore()
    ns = namespace(store, **CODED)
    before = ns.manifest()["parts"][0]
    found = [[hit.id for hit in ns.search(q)] for q in ROWS[:20]]
    assert ns.patch(filter=["n", "Gte", 0], attributes={"seen": True}).patched == 300
    old, new = ns.manifest()["parts"]
    assert old["id"] == before["id"]
    assert (new["n"], new["k"]) == (300, before["k"])
    assert [[hit.id for hit in ns.search(q)] for q in ROWS[:20]] == found
    assert matching(ns, ["seen", "Eq", True]) == list(range(300))


def test_what_is_more_than_may_be_held_goes_into_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "PIECE_BYTES", 4 * DIM * 100)
    monkeypatch.setattr(patches, "ATTRIBUTE_COPIES", 0)
    store = MemoryStore()
    other = namespace(store, **CODED)
    ns = interfering(store, lambda: other.delete([5, 150, 299]))
    assert ns.patch(filter=["n", "Lt", 250], attributes={"lang": "fr"}).patched == 248
    assert [part["n"] for part in other.manifest()["parts"]] == [300, 100, 100, 50]
    assert matching(other, ["lang", "Eq", "fr"]) == [i for i in range(250) if i not in (5, 150)]
    assert other.stats().rows == 297
    assert check_namespace(store, "ns", read_ids=reader_of_ids(store)) == []


@pytest.mark.parametrize("coded", [True, False])
def test_attributes_count_for_what_may_be_held(monkeypatch: pytest.MonkeyPatch, coded: bool) -> None:
    """A row takes 4 KB while it is copied, so less than 100 go into a part."""
    monkeypatch.setattr(patches, "PIECE_BYTES", 400_000)
    store = MemoryStore()
    ns = namespace(store, **(CODED if coded else {}))
    texts = [f"{i:04}" * 256 for i in range(300)]
    ns.patch(range(300), {"text": texts}, schema={"text": {"type": "string", "filterable": False}})
    ns.compact()
    assert ns.patch(filter=["n", "Gte", 0], attributes={"lang": "fr"}).patched == 300
    parts = [part["n"] for part in ns.manifest()["parts"]][1:]
    assert (sum(parts), max(parts) < 100) == (300, True)
    assert [attributes(ns, i) for i in (0, 150, 299)] == [
        {"n": i, "lang": "fr", "text": texts[i]} for i in (0, 150, 299)
    ]
    assert check_namespace(store, "ns", read_ids=reader_of_ids(store)) == []
    monkeypatch.setattr(patches, "PIECE_BYTES", 1_000)
    assert ns.patch(filter=["n", "Lt", 3], attributes={"lang": "it"}).patched == 3
    assert [part["n"] for part in ns.manifest()["parts"]][-3:] == [1, 1, 1]


def test_few_rows_of_several_parts_make_one_small_part() -> None:
    ns = namespace(n=100)
    ns.insert(ROWS[100:200], range(100, 200), attributes={"n": list(range(100, 200))})
    assert ns.patch([5, 105, 999], {"n": [-5, -105, 0]}).absent == 1
    parts = ns.manifest()["parts"]
    assert [part["n"] for part in parts] == [100, 100, 2]
    assert parts[2]["k"] == 1
    assert (attributes(ns, 5), attributes(ns, 105)["n"]) == ({"n": -5, "lang": "de"}, -105)


def test_rows_say_what_they_change_and_columns_change_all() -> None:
    ns = namespace(n=10)
    ns.patch([1, 2], [{"lang": "fr"}, {"n": 20}])
    assert (attributes(ns, 1), attributes(ns, 2)) == ({"n": 1, "lang": "fr"}, {"n": 20, "lang": "en"})
    ns.patch([1, 2], [{"lang": None}, {"lang": "it", "n": None}])
    assert (attributes(ns, 1), attributes(ns, 2)) == ({"n": 1}, {"lang": "it"})
    ns.patch([1, 2], {"n": [None, 4]})
    assert (attributes(ns, 1), attributes(ns, 2)) == ({}, {"lang": "it", "n": 4})
    ns.patch([3], {"nobody": [None]})
    assert "nobody" not in ns.stats().schema


def test_a_patch_declares_types_that_json_cannot_tell() -> None:
    ns = namespace(n=4)
    ns.patch([1], {"at": ["2024-05-06"]}, schema={"at": "datetime"})
    ns.patch([2], {"at": [datetime(2024, 5, 7, tzinfo=UTC)]})
    assert attributes(ns, 1)["at"] == "2024-05-06T00:00:00.000Z"
    assert matching(ns, ["at", "Gte", "2024-05-06T12:00:00Z"]) == [2]


def test_assigned_ids_stay_those_of_their_rows() -> None:
    ns = database().create_namespace("ns", dim=DIM, metric="l2", **CODED)
    ns.insert(ROWS[:50], attributes={"n": list(range(50))})
    second = ns.insert(ROWS[50:60], attributes={"n": list(range(50, 60))})
    assert second.ids is not None
    done = ns.patch(filter=["n", "Gte", 45], attributes={"n": -1}, return_ids=True)
    assert sorted(done.affected_ids or []) == list(range(45, 60))
    for i in range(45, 60):
        np.testing.assert_array_equal(ns.get(i).vector, ROWS[i])
    third = ns.insert(ROWS[60:62])
    assert third.ids is not None
    assert third.ids.tolist() == [60, 61]


def test_a_patch_of_rows_that_are_not_there_changes_nothing() -> None:
    ns = namespace(n=4)
    before = ns.manifest()["parts"]
    done = ns.patch([77, 78], {"other": [1, 2]}, return_ids=True)
    assert (done.patched, done.absent, done.affected_ids) == (0, 2, [])
    assert ns.patch(filter=["n", "Gt", 100], attributes={"other": 1}).patched == 0
    assert ns.manifest()["parts"] == before
    assert "other" not in ns.stats().schema


def test_what_is_no_patch_is_refused_and_changes_nothing() -> None:
    ns = namespace(n=4)
    before = ns.manifest()
    for error, patch in (
        (InvalidArgument, lambda: ns.patch(None, {"n": [1]})),
        (InvalidArgument, lambda: ns.patch([1], {"n": [1]}, filter=["n", "Eq", 1])),
        (
            InvalidArgument,
            lambda: ns.patch(filter=["n", "Eq", 1], attributes={"n": 1}, condition=["n", "Eq", 1]),
        ),
        (InvalidAttribute, lambda: ns.patch([1], None)),
        (InvalidAttribute, lambda: ns.patch([1], {})),
        (InvalidAttribute, lambda: ns.patch([1], {"n": [1, 2]})),
        (InvalidAttribute, lambda: ns.patch([1], [{"n": 1}, {"n": 2}])),
        (InvalidAttribute, lambda: ns.patch(filter=["n", "Eq", 1], attributes=[{"n": 1}])),
        (InvalidAttribute, lambda: ns.patch([1], {"vector": [[1.0]]})),
        (SchemaConflict, lambda: ns.patch([1], {"n": ["x"]})),
        (SchemaConflict, lambda: ns.patch(filter=["n", "Eq", 1], attributes={"n": "x"})),
        (SchemaConflict, lambda: ns.patch([1], {"n": [1]}, schema={"n": "string"})),
        (InvalidId, lambda: ns.patch(["a"], {"n": [1]})),
        (InvalidId, lambda: ns.patch([], {"n": []})),
        (InvalidId, lambda: ns.patch([1, 1], {"n": [1, 2]})),
        (InvalidFilter, lambda: ns.patch(filter=["n"], attributes={"n": 1})),
        (InvalidFilter, lambda: ns.patch(filter=["no", "Eq", 1], attributes={"n": 1})),
        (InvalidFilter, lambda: ns.patch([1], {"n": [1]}, condition=["lang", "Eq", {"$ref_new": "lang"}])),
    ):
        with pytest.raises(error) as raised:
            patch()  # type: ignore[no-untyped-call]
        assert 400 <= raised.value.status < 500
        assert raised.value.details["field"]
    assert ns.manifest() == before


def test_attributes_may_not_grow_beyond_what_a_row_may_have() -> None:
    ns = namespace(n=4)
    spec = {name: {"type": "[]string", "filterable": False} for name in ("a", "b")}
    large = ["x" * 60_000] * 12
    ns.patch([1], {"a": [large]}, schema=spec)
    before = ns.manifest()
    with pytest.raises(InvalidAttribute) as error:
        ns.patch([0, 1], {"b": [["y"], large]})
    assert (error.value.details["row"], error.value.details["limit"]) == (1, 1 << 20)
    assert ns.manifest() == before


def test_if_match_and_idempotency_keys_hold_for_patches() -> None:
    store = MemoryStore()
    ns = namespace(store, n=10)
    seen = (ns.stats().incarnation, ns.stats().epoch)
    first = ns.patch([1], {"n": [11]}, if_match=seen, idempotency_key="k")
    with pytest.raises(PreconditionFailed):
        ns.patch([1], {"n": [12]}, if_match=seen)
    ns.patch([1], {"n": [13]})
    other = database(store, seed=5).namespace("ns")
    assert other.patch([1], {"n": [11]}, if_match=seen, idempotency_key="k") == first
    assert other.patch([1], {"n": [11]}, idempotency_key="k", return_ids=True).affected_ids is None
    assert attributes(ns, 1)["n"] == 13
    for again in (
        lambda: ns.patch([1], {"n": [12]}, idempotency_key="k"),
        lambda: ns.patch([2], {"n": [11]}, idempotency_key="k"),
        lambda: ns.patch([1], {"n": [11]}, condition=["n", "Eq", 1], idempotency_key="k"),
        lambda: ns.patch(filter=["n", "Eq", 1], attributes={"n": 11}, idempotency_key="k"),
        lambda: ns.delete([1], idempotency_key="k"),
    ):
        with pytest.raises(IdempotencyMismatch):
            again()


def test_a_repetition_gets_its_answer_when_what_it_names_has_been_dropped() -> None:
    ns = namespace(n=10)
    new = {"$ref_new": "n"}
    asked: list[Any] = [
        lambda: ns.patch(filter=["lang", "Eq", "de"], attributes={"n": 0}, idempotency_key="filter"),
        lambda: ns.patch([2], {"n": [7]}, condition=["n", "Lt", new], idempotency_key="condition"),
        lambda: ns.patch([4, 6], {"n": [None, None]}, condition=["n", "NotEq", new], idempotency_key="null"),
        lambda: ns.delete(filter=["n", "Gte", 8], idempotency_key="delete"),
    ]
    first = [again() for again in asked]
    assert [getattr(done, "patched", None) for done in first] == [5, 1, 2, None]
    ns.update(schema={"lang": None, "n": None})
    assert [again() for again in asked] == first
    with pytest.raises(FilterMismatch):
        ns.delete(filter=["n", "Gte", 8])


# -- at the same time -----------------------------------------------------------------------


def interfering(store: Any, act: Any) -> Namespace:
    """A handle, between whose upload and whose commit something happens once."""
    done: list[int] = []

    def interfere(call: Call) -> None:
        if call.method == "put_if_match" and call.key.endswith("current") and not done:
            done.append(1)
            act()

    return database(FaultyStore(store, before=interfere), seed=9).namespace("ns")


@pytest.mark.parametrize("coded", [True, False])
def test_a_patch_that_loses_the_race_keeps_what_the_winner_wrote(coded: bool) -> None:
    """R7: both copied the same old row; the loser's retry must copy the winner's."""
    store = MemoryStore()
    winner = namespace(store, n=20, **(CODED if coded else {}))
    loser = interfering(store, lambda: winner.patch([3, 4], {"lang": ["fr", "it"]}))
    assert loser.patch([3, 5], {"n": [33, 55]}).patched == 2
    assert attributes(winner, 3) == {"n": 33, "lang": "fr"}
    assert (attributes(winner, 4)["lang"], attributes(winner, 5)["n"]) == ("it", 55)
    assert winner.stats().rows == 20
    assert check_namespace(store, "ns", read_ids=reader_of_ids(store)) == []


def test_a_row_that_is_replaced_or_deleted_meanwhile_is_not_brought_back() -> None:
    store = MemoryStore()
    other = namespace(store, n=20, **CODED)

    def act() -> None:
        other.delete([3])
        other.insert(ROWS[50:51], [4], attributes={"n": [400]})

    done = interfering(store, act).patch(filter=["n", "Lte", 5], attributes={"lang": "fr"}, return_ids=True)
    assert sorted(done.affected_ids or []) == [0, 1, 2, 5]
    assert other.stats().rows == 19
    assert attributes(other, 4) == {"n": 400}
    np.testing.assert_array_equal(other.get(4).vector, ROWS[50])


def test_a_patch_of_rows_that_are_compacted_meanwhile_follows_them() -> None:
    store = MemoryStore()
    other = namespace(store, n=20)
    other.insert(ROWS[20:40], range(20, 40), attributes={"n": list(range(20, 40))})
    ns = interfering(store, other.compact)
    assert ns.patch([3, 30], {"n": [33, 300]}).patched == 2
    assert (attributes(other, 3)["n"], attributes(other, 30)["n"]) == (33, 300)
    assert other.stats().rows == 40


@pytest.mark.parametrize("write", ["patch", "delete by filter", "patch by filter"])
def test_a_compaction_keeps_what_is_patched_while_it_works(write: str) -> None:
    store = MemoryStore()
    other = namespace(store, n=20)
    other.insert(ROWS[20:40], range(20, 40), attributes={"n": list(range(20, 40))})

    def act() -> None:
        if write == "patch":
            other.patch([3, 30], {"n": [-3, -30]})
        elif write == "patch by filter":
            other.patch(filter=["n", "In", [3, 30]], attributes={"n": -1})
        else:
            other.delete(filter=["n", "In", [3, 30]])

    assert interfering(store, act).compact().part_id is not None
    assert other.stats().rows == (38 if write == "delete by filter" else 40)
    assert matching(other, ["n", "Lt", 0]) == ([] if write == "delete by filter" else [3, 30])
    assert matching(other, ["n", "In", [3, 30]]) == []


def test_what_is_dropped_and_added_anew_while_a_patch_waits_is_not_brought_back() -> None:
    store = MemoryStore()
    other = namespace(store, n=10)

    def act() -> None:
        other.update(schema={"n": None})
        other.update(schema={"n": "int"})

    interfering(store, act).patch([1, 2], [{"n": 5}, {"lang": "fr"}])
    assert (attributes(other, 1), attributes(other, 2)) == ({"n": 5, "lang": "de"}, {"lang": "fr"})


def test_a_null_is_one_of_an_attribute_that_is_new_when_the_commit_is_made() -> None:
    store = MemoryStore()
    other = namespace(store, n=10)
    ns = interfering(store, lambda: other.patch([1, 2], {"new": ["a", "b"]}))
    assert ns.patch([1], {"new": [None], "n": [11]}).patched == 1
    assert (attributes(other, 1), attributes(other, 2)["new"]) == ({"n": 11, "lang": "de"}, "b")


@pytest.mark.parametrize("kind", [None, "string"])
def test_a_null_does_not_bring_back_an_attribute_that_is_dropped_meanwhile(kind: str | None) -> None:
    store = MemoryStore()
    other = namespace(store, n=10)

    def act() -> None:
        other.update(schema={"n": None})
        if kind is not None:
            other.update(schema={"n": kind})

    assert interfering(store, act).patch([1], {"n": [None]}).patched == 1
    assert {name: known["type"] for name, known in other.stats().schema.items()}.get("n") == kind
    assert attributes(other, 1) == {"lang": "de"}


def test_a_restore_brings_back_what_a_copy_that_waits_did_not_take() -> None:
    store = MemoryStore()
    other = namespace(store, n=10)
    before = other.stats()
    other.update(schema={"lang": None})

    def act() -> None:
        other.restore(before.epoch, if_match=(before.incarnation, other.stats().epoch))

    assert interfering(store, act).patch([1], {"n": [11]}).patched == 1
    assert attributes(other, 1) == {"n": 11, "lang": "de"}


def test_a_patch_whose_upload_is_older_than_the_barrier_is_uploaded_again() -> None:
    store = MemoryStore()
    other = namespace(store, n=10)
    seen: list[str] = []

    def act() -> None:
        seen.extend(store.list_children("namespaces/ns/parts/"))
        other._backend.collect("ns", retention=0.0, grace=0.0, dry_run=False)

    assert interfering(store, act).patch([1], {"n": [5]}).patched == 1
    _, second = other.manifest()["parts"]
    assert part_key("ns", second["id"]) not in {f"namespaces/ns/parts/{name}" for name in seen}
    assert store.head(part_key("ns", second["id"])) is not None
    assert attributes(other, 1)["n"] == 5


@pytest.mark.parametrize(
    "write",
    [
        lambda ns: ns.patch([3], {"n": [33]}).patched,
        lambda ns: ns.patch(filter=["n", "Eq", 3], attributes={"n": 33}).patched,
        lambda ns: ns.delete([3]).deleted,
        lambda ns: ns.delete(filter=["n", "Eq", 3]).deleted,
    ],
)
def test_a_write_whose_parts_are_merged_and_collected_before_it_reads_them_begins_again(write: Any) -> None:
    store = RangeStore()
    other = namespace(store, n=10)
    other.insert(ROWS[10:20], range(10, 20))
    done: list[int] = []

    def interfere(call: Call) -> None:
        if "/parts/" in call.key and not done:
            done.append(1)
            before = other.manifest()["parts"]
            other.compact()
            for part in before:
                store.delete(part_key("ns", part["id"]))  # as collection does, once the epoch is old enough

    assert write(database(FaultyStore(store, before=interfere), seed=9).namespace("ns")) == 1
    assert done
    assert matching(other, ["n", "Eq", 3]) == []
    assert other.stats().rows == 19 + len(matching(other, ["id", "Eq", 3]))


def test_rows_are_copied_once_where_nothing_changed_meanwhile() -> None:
    """The copy is made ahead of the commit; the commit itself reads and uploads nothing more."""
    store = RangeStore()
    namespace(store, n=20)
    puts: list[str] = []

    def watch(call: Call) -> None:
        if call.method == "put_stream":
            puts.append(call.key)

    ns = database(FaultyStore(store, before=watch), seed=9).namespace("ns")
    assert ns.patch([3], {"n": [33]}).patched == 1
    assert len(puts) == 1


# -- conditions -----------------------------------------------------------------------------


def versioned(store: Any = None, **settings: Any) -> Namespace:
    ns = database(store).create_namespace("ns", dim=DIM, metric="l2", **settings)
    ns.insert(ROWS[:4], [0, 1, 2, 3], attributes={"v": [0, 10, 20, None], "s": ["a", "b", None, "d"]})
    return ns


NEWER = ["v", "Lt", {"$ref_new": "v"}]


def test_an_upsert_on_a_condition_replaces_the_rows_that_meet_it() -> None:
    ns = versioned()
    done = ns.insert(
        ROWS[10:16],
        [0, 1, 2, 3, 4, 5],
        attributes={"v": [5, 5, None, 5, 1, None]},
        condition=NEWER,
        return_ids=True,
    )
    assert (done.n, done.upserted, done.inserted, done.skipped) == (3, 1, 2, 3)
    assert done.affected_ids == [0, 4, 5]
    assert [ns.get(i).attributes["v"] for i in range(6)] == [5, 10, 20, None, 1, None]  # type: ignore[index]
    for i, row in ((0, 10), (1, 1), (2, 2), (3, 3), (4, 14), (5, 15)):
        np.testing.assert_array_equal(ns.get(i).vector, ROWS[row])
    assert ns.stats().rows == 6
    ns.compact()
    assert matching(ns, ["v", "Eq", 5]) == [0]


@pytest.mark.parametrize("coded", [True, False])
def test_rows_are_inserted_only_where_there_are_none(coded: bool) -> None:
    ns = versioned(**(CODED if coded else {}))
    before = ns.manifest()
    none = ns.insert(
        ROWS[10:12], [0, 3], attributes={"other": [1, 2]}, mode="insert_if_absent", return_ids=True
    )
    assert (none.n, none.skipped, none.part_id, none.affected_ids) == (0, 2, None, [])
    assert ns.manifest()["parts"] == before["parts"]
    some = ns.insert(ROWS[10:13], [0, 7, 3], mode="insert_if_absent", return_ids=True)
    assert (some.n, some.inserted, some.skipped, some.affected_ids) == (1, 1, 2, [7])
    np.testing.assert_array_equal(ns.get(7).vector, ROWS[11])
    np.testing.assert_array_equal(ns.get(0).vector, ROWS[0])
    assert ns.stats().rows == 5


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        (["v", "Gte", 10], [1, 2]),
        (["v", "Eq", None], [3]),
        (["Not", ["v", "Gte", 10]], [0, 3]),
        (["Or", [["v", "Eq", 0], ["s", "Eq", "d"]]], [0, 3]),
        (["id", "In", [1, 3]], [1, 3]),
        (["v", "Eq", {"$ref_new": "v"}], [1, 3]),
        (["v", "NotEq", {"$ref_new": "v"}], [0, 2]),
        (["v", "Lt", {"$ref_new": "v"}], [0]),
        (["v", "Lte", {"$ref_new": "v"}], [0, 1]),
        (["v", "Gt", {"$ref_new": "v"}], [2]),
        (["v", "Gte", {"$ref_new": "v"}], [1, 2]),
        (["Not", ["v", "Gt", {"$ref_new": "v"}]], [0, 1, 3]),
        (["s", "Lt", {"$ref_new": "s"}], [0]),
        (["And", [["v", "Lte", {"$ref_new": "v"}], ["s", "Eq", {"$ref_new": "s"}]]], [1]),
        (["Or", [["v", "Gt", {"$ref_new": "v"}], ["s", "Eq", "a"]]], [0, 2]),
    ],
)
def test_a_condition_is_met_or_not_row_by_row(condition: Any, met: list[int]) -> None:
    new = {"v": [5, 10, 5, None], "s": ["b", "b", "x", None]}
    ns = versioned()
    done = ns.patch([0, 1, 2, 3], {**new, "hit": [True] * 4}, condition=condition, return_ids=True)
    assert (done.patched, done.skipped) == (len(met), 4 - len(met))
    assert sorted(done.affected_ids or []) == met == matching(ns, ["hit", "Eq", True])
    ns = versioned()
    ns.insert(ROWS[10:14], [0, 1, 2, 3], attributes={**new, "hit": [True] * 4}, condition=condition)
    assert matching(ns, ["hit", "Eq", True]) == met
    if "$ref_new" not in str(condition):
        ns = versioned()
        gone = ns.delete([0, 1, 2, 3, 9], condition=condition, return_ids=True)
        assert (gone.deleted, gone.skipped, sorted(gone.affected_ids or [])) == (len(met), 4 - len(met), met)
        assert matching(ns, ["id", "Gte", 0]) == sorted({0, 1, 2, 3} - set(met))


def test_zeros_of_either_sign_are_equal_to_a_new_value() -> None:
    ns = database().create_namespace("ns", dim=DIM, metric="l2")
    ns.insert(ROWS[:2], [0, 1], attributes={"x": [-0.0, 1.0]})
    condition = ["x", "Lt", {"$ref_new": "x"}]
    assert ns.patch([0, 1], {"x": [0.0, 1.5]}, condition=condition).skipped == 1
    assert ns.patch([0], {"x": [0.0]}, condition=["x", "Eq", {"$ref_new": "x"}]).patched == 1


def test_what_is_no_condition_is_refused_by_its_place() -> None:
    ns = versioned()
    ns.patch([0], {"list": [["a"]], "flag": [True]})
    before = ns.manifest()
    for condition, at in (
        ("v", "condition"),
        (["v", "Eq", {"$ref_old": "v"}], "condition[2]"),
        (["v", "Eq", {"$ref_new": 3}], "condition[2]"),
        (["v", "In", {"$ref_new": "v"}], "condition[2]"),
        (["v", "Glob", {"$ref_new": "v"}], "condition[2]"),
        (["And", [["v", "Eq", 1], ["v", "Eq", {"$ref_new": "s"}]]], "condition[1][1][2]"),
        (["no", "Eq", {"$ref_new": "v"}], "condition[0]"),
        (["v", "Lt", {"$ref_new": "no"}], "condition[2]"),
        (["list", "Eq", {"$ref_new": "list"}], "condition[0]"),
        (["flag", "Lt", {"$ref_new": "flag"}], "condition[1]"),
        (["no", "Eq", 1], "condition[0]"),
        (["v", "Eq", "x"], "condition[2]"),
    ):
        with pytest.raises(InvalidFilter) as error:
            ns.insert(
                ROWS[:1],
                [0],
                attributes={"v": [1], "s": ["x"], "list": [["a"]], "flag": [True]},
                condition=condition,
            )
        assert (error.value.details["field"], error.value.details["at"]) == ("condition", at)
    for write in (
        lambda: ns.delete([1], condition=NEWER),
        lambda: ns.search(ROWS[0], filter=NEWER),
        lambda: ns.insert(ROWS[:1], None, condition=["v", "Eq", 1]),
        lambda: ns.insert(ROWS[:1], None, mode="insert_if_absent"),
        lambda: ns.insert(ROWS[:1], [1], mode="insert", condition=["v", "Eq", 1]),
        lambda: ns.insert(ROWS[:1], [1], mode="other"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgument):
            write()
    assert ns.manifest() == before


def test_conditions_hold_no_more_patterns_against_texts_than_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecstore.index.filtered.MAX_PATTERN_TESTS", 7)
    ns = versioned()
    before = ns.manifest()
    three = ["And", [["s", "Glob", "a*"], NEWER, ["Or", [["s", "Regex", "b"], ["s", "IGlob", "c*"]]]]]
    with pytest.raises(InvalidFilter) as error:
        ns.patch([1], {"v": [30]}, condition=three)
    assert error.value.details == {"field": "condition", "at": "condition", "limit": 7}
    assert ns.manifest() == before
    two = ["Or", [["s", "Glob", "a*"], ["s", "Regex", "^b"]]]
    assert ns.patch([0, 1, 3], {"v": [1, 2, 3]}, condition=two).patched == 2


def test_a_condition_is_asked_again_of_the_row_that_another_wrote_meanwhile() -> None:
    store = MemoryStore()
    other = versioned(store)
    ns = interfering(store, lambda: other.patch([1], {"v": [30]}))
    done = ns.insert(ROWS[10:12], [1, 8], attributes={"v": [20, 1]}, condition=NEWER, return_ids=True)
    assert (done.skipped, done.affected_ids) == (1, [8])
    assert attributes(other, 1)["v"] == 30
    ns = interfering(store, lambda: other.insert(ROWS[20:21], [9]))
    assert ns.insert(ROWS[10:11], [9], mode="insert_if_absent").skipped == 1
    ns = interfering(store, lambda: other.patch([2], {"v": [21]}))
    assert ns.delete([2], condition=["v", "Eq", 20]).skipped == 1
    ns = interfering(store, lambda: other.patch([0], {"v": [1]}))
    assert ns.patch([0], {"v": [1]}, condition=["v", "Eq", 0]).skipped == 1
    assert other.stats().rows == 6


def test_a_delete_by_filter_looks_only_into_parts_that_it_has_not_seen() -> None:
    store = MemoryStore()
    other = namespace(store, n=20)
    read: list[str] = []

    def act() -> None:
        other.insert(ROWS[20:22], [20, 21], attributes={"n": [3, 4]})
        read.clear()

    ns = interfering(store, act)
    column = PartRows.column

    def watched(self: PartRows, name: str, attribute: int) -> Any:
        read.append(self._reader.entry.id)
        return column(self, name, attribute)

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(PartRows, "column", watched)
        done = ns.delete(filter=["n", "In", [3, 4]], return_ids=True)
    assert sorted(done.affected_ids or []) == [3, 4, 20, 21]
    assert set(read) == {other.manifest()["parts"][1]["id"]}
