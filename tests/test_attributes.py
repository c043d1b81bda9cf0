"""Attributes and filters through the public API, embedded and over HTTP."""

from __future__ import annotations

import random
from collections import UserList, deque
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import vecstore
from tests.core import RangeStore, clustered, engine, generator, nearest
from tests.rows.filters.oracle import TYPES, matches, random_filter, random_rows
from vecstore.api import Database, Namespace
from vecstore.errors import (
    FilterMismatch,
    IdempotencyMismatch,
    InvalidArgument,
    SchemaConflict,
    VecstoreError,
)
from vecstore.limits import MAX_ATTRIBUTE_NAME_BYTES, MAX_ATTRIBUTES, MAX_MANIFEST_BYTES, MAX_PARTS
from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore

DIM = 8
ROWS = clustered(generator(3), 60, DIM)


def found(ns: Namespace, f: list[Any]) -> list[Any]:
    """Every row that a filter matches."""
    return sorted(ns.search(ROWS[0], top_k=1_000, filter=f).ids.tolist())


@pytest.mark.parametrize("kind", [deque, UserList, tuple])
def test_columns_and_rows_may_be_any_sequence(db: Database, kind: Any) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:3], [1, 2, 3], attributes={"n": kind([1, None, 3])})
    assert [row.attributes["n"] for row in ns.scan()] == [1, None, 3]
    ns.insert(ROWS[:3], [1, 2, 3], attributes=kind([{"n": 4}, {"n": 5}, {}]))
    assert [row.attributes["n"] for row in ns.scan()] == [4, 5, None]


# -- patches and conditions -----------------------------------------------------------------


def test_patches_and_conditions_are_the_same_everywhere(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"at": "datetime"})
    ns.insert(ROWS[:6], range(6), attributes={"n": [0, 1, 2, 3, 4, 5], "lang": ["en", "de"] * 3})
    first = ns.patch([1, 2, 99], {"lang": ["fr", None, "it"], "at": [datetime(2024, 5, 6, tzinfo=UTC)] * 3})
    assert (first.patched, first.skipped, first.absent, first.affected_ids) == (2, 0, 1, None)
    assert (first.epoch, first.incarnation) == (ns.stats().epoch, ns.stats().incarnation)
    assert found(ns, ["lang", "Eq", None]) == [2]
    assert found(ns, ["at", "Eq", "2024-05-06"]) == [1, 2]

    rows = ns.patch([3, 4], [{"n": 30}, {"lang": "it", "big": 2**63}], return_ids=True)
    assert sorted(rows.affected_ids or []) == [3, 4]
    assert found(ns, ["Or", [["n", "Eq", 30], ["big", "Gt", 5]]]) == [3, 4]
    assert found(ns, ["And", [["n", "Eq", 4], ["lang", "Eq", "it"]]]) == [4]
    np.testing.assert_array_equal(ns.get(3).vector, ROWS[3])

    key = UUID(int=5)
    by_filter = ns.patch(filter=["n", "Lt", 2], attributes={"key": key, "tags": ["a"]}, return_ids=True)
    assert (by_filter.patched, sorted(by_filter.affected_ids or [])) == (2, [0, 1])
    assert found(ns, ["key", "Eq", str(key)]) == found(ns, ["tags", "Contains", "a"]) == [0, 1]

    newer = ns.insert(
        ROWS[10:13],
        [3, 4, 7],
        attributes={"n": [5, 5, 5]},
        condition=["n", "Lt", {"$ref_new": "n"}],
        return_ids=True,
    )
    assert (newer.n, newer.upserted, newer.inserted, newer.skipped) == (2, 1, 1, 1)
    assert newer.affected_ids == [4, 7]
    absent = ns.insert(ROWS[:2], [0, 8], mode="insert_if_absent", return_ids=True)
    assert (absent.inserted, absent.skipped, absent.affected_ids) == (1, 1, [8])
    none = ns.insert(ROWS[:1], [0], mode="insert_if_absent")
    assert (none.part_id, none.n, none.skipped, none.affected_ids) == (None, 0, 1, None)
    assert ns.insert(ROWS[20:22], return_ids=True).affected_ids == [9, 10]

    gone = ns.delete([0, 1, 99], condition=["lang", "Eq", "fr"], return_ids=True)
    assert (gone.deleted, gone.skipped, gone.affected_ids) == (1, 1, [1])
    rest = ns.delete(filter=["n", "Eq", 5], return_ids=True)
    assert (rest.deleted, sorted(rest.affected_ids or [])) == (3, [4, 5, 7])
    assert ns.stats().rows == 6


# -- what is written and read ---------------------------------------------------------------


def test_types_are_inferred_and_values_come_back(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    when = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=timezone(timedelta(hours=2)))
    one = UUID("12345678-9abc-def0-1234-56789abcdef0")
    ns.insert(
        ROWS[:3],
        ids=[1, 2, 3],
        attributes={
            "text": ["a", None, "ä"],
            "int": [-(2**63), 2**63 - 1, None],
            "uint": [2**64 - 1, 0, 1],
            "float": [1, 2.5, -0.0],
            "bool": [True, None, False],
            "when": [when, None, when.astimezone(UTC)],
            "uuid": [one, one, None],
            "array": [["a", "b"], [], None],
            "moments": np.array(
                ["2024-01-01", "2024-01-02", "1969-12-31T23:59:59.999"], dtype="datetime64[ms]"
            ),
            "nothing": [None, None, None],
        },
    )
    kinds = {name: known["type"] for name, known in ns.stats().schema.items()}
    assert kinds == {
        "text": "string",
        "int": "int",
        "uint": "uint",
        "float": "float",
        "bool": "bool",
        "when": "datetime",
        "uuid": "uuid",
        "array": "[]string",
        "moments": "datetime",
    }
    assert ns.get(1).attributes == {
        "text": "a",
        "int": -(2**63),
        "uint": 2**64 - 1,
        "float": 1.0,
        "bool": True,
        "when": "2024-05-06T05:08:09.123Z",
        "uuid": str(one),
        "array": ["a", "b"],
        "moments": "2024-01-01T00:00:00.000Z",
    }
    assert ns.get(2).attributes["array"] == []
    assert ns.get(3).attributes["array"] is None
    assert ns.get(3).attributes["moments"] == "1969-12-31T23:59:59.999Z"
    assert str(ns.get(3).attributes["float"]) == "-0.0"
    assert found(ns, ["when", "Eq", when]) == [1, 3]
    assert found(ns, ["uuid", "In", [one]]) == [1, 2]


def test_columns_rows_and_arrow_say_the_same(db: Database) -> None:
    columns = {"lang": ["en", None], "year": [1, 2], "tags": [["x"], []]}
    rows = [{"lang": "en", "year": 1, "tags": ["x"]}, {"year": 2, "tags": []}]
    answers = []
    for name, given in (("columns", columns), ("rows", rows), ("arrow", pa.table(columns))):
        ns = db.create_namespace(name, DIM, "l2")
        ns.insert(ROWS[:2], ids=[1, 2], attributes=given)
        answers.append([ns.get(i).attributes for i in (1, 2)])
    assert answers[0] == answers[1] == answers[2]


def test_hits_bring_what_is_asked_for(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:2], ids=[1, 2], attributes={"a": ["x", "y"], "b": [1, None]})
    ns.insert(ROWS[2:3], ids=[3])
    assert ns.search(ROWS[0], top_k=1)[0].attributes is None
    hits = ns.search(ROWS[0], top_k=3, include=["b", "vector"])
    assert {hit.id: hit.attributes for hit in hits} == {1: {"b": 1}, 2: {"b": None}, 3: {"b": None}}
    assert hits.vectors is not None
    batch = ns.search_batch(ROWS[:2], top_k=1, exclude=["b"])
    assert [batch[i][0].attributes for i in range(2)] == [{"a": "x"}, {"a": "y"}]
    assert ns.search(ROWS[0], top_k=1, exclude=[])[0].attributes == {"a": "x", "b": 1}
    with pytest.raises(InvalidArgument, match="colour"):
        ns.search(ROWS[0], include=["colour"])


def test_an_attribute_is_added_later_and_dropped_and_comes_back_empty(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"lang": "string"})
    ns.insert(ROWS[:2], ids=[1, 2], attributes={"lang": ["en", "de"]})
    ns.insert(ROWS[2:4], ids=[3, 4], attributes={"year": [2020, None]})
    assert found(ns, ["year", "Eq", None]) == [1, 2, 4]
    assert ns.get(3).attributes == {"lang": None, "year": 2020}
    ns.update(schema={"lang": None})
    with pytest.raises(FilterMismatch):
        ns.search(ROWS[0], filter=["lang", "Eq", "en"])
    ns.insert(ROWS[4:5], ids=[5], attributes={"lang": [7]})
    assert found(ns, ["lang", "NotEq", None]) == [5]
    ns.compact()
    assert found(ns, ["lang", "NotEq", None]) == [5]
    assert ns.get(1).attributes == {"lang": None, "year": None}


def test_attributes_with_long_names_leave_room_for_as_many_parts_as_there_may_be(db: Database) -> None:
    """What each part adds to the manifest, of 256 attributes whose names are as long as may be."""
    ns = db.create_namespace("docs", DIM, "l2")
    names = [f"{i:03}".ljust(MAX_ATTRIBUTE_NAME_BYTES, "x") for i in range(MAX_ATTRIBUTES)]
    sizes = []
    for i in range(3):
        ns.insert(ROWS[i : i + 1], ids=[i], attributes={name: [i] for name in names})
        sizes.append(len(msgspec.json.encode(ns.manifest())))
    assert (sizes[2] - sizes[1]) * MAX_PARTS <= MAX_MANIFEST_BYTES - sizes[0]
    assert ns.get(2).attributes == dict.fromkeys(names, 2)


def test_what_is_not_filterable_is_only_read(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    body = "long " * 5_000
    ns.insert(
        ROWS[:2],
        ids=[1, 2],
        attributes={"body": [body, None]},
        schema={"body": {"type": "string", "filterable": False}},
    )
    assert ns.get(1).attributes == {"body": body}
    with pytest.raises(FilterMismatch, match="not filterable"):
        ns.search(ROWS[0], filter=["body", "Eq", None])


def test_a_conflict_names_attribute_and_row_and_changes_nothing(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:1], ids=[1], attributes={"year": [1]})
    before = ns.stats()
    with pytest.raises(SchemaConflict, match="'year' of row 1") as caught:
        ns.insert(ROWS[:2], ids=[2, 3], attributes={"year": [2, "x"]})
    assert (caught.value.details["attribute"], caught.value.details["row"]) == ("year", 1)
    with pytest.raises(SchemaConflict):
        ns.insert(ROWS[:1], ids=[2], attributes={"year": [float("nan")]})
    assert ns.stats() == before


def test_a_number_of_numpy_is_named_as_what_it_is(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"some": "[]float"})
    with pytest.raises(SchemaConflict, match=r"'some' of row 0 must be a list, .*, not 1\.5$"):
        ns.insert(ROWS[:2], attributes={"some": np.array([1.5, 2.5])})


def test_rows_are_deleted_by_a_filter_in_one_commit(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS, ids=np.arange(60), attributes={"n": np.arange(60)})
    ns.insert(ROWS[:1], ids=[0], attributes={"n": [100]})
    epoch = ns.stats().epoch
    done = ns.delete(filter=["n", "Gte", 50])
    assert (done.deleted, done.epoch, ns.stats().rows) == (11, epoch + 1, 49)
    assert ns.delete(filter=["n", "Gte", 50]).deleted == 0
    assert found(ns, ["n", "Gt", 45]) == [46, 47, 48, 49]
    with pytest.raises(InvalidArgument):
        ns.delete()


def test_the_same_key_with_other_attributes_is_another_request(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    one = ns.insert(ROWS[:1], ids=[1], attributes={"a": ["x"]}, idempotency_key="k")
    assert ns.insert(ROWS[:1], ids=[1], attributes={"a": ["x"]}, idempotency_key="k").epoch == one.epoch
    with pytest.raises(vecstore.errors.IdempotencyMismatch):
        ns.insert(ROWS[:1], ids=[1], attributes={"a": ["y"]}, idempotency_key="k")


# -- what filters find ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["string", "float", "[]int"])
def test_a_retry_gets_its_answer_when_its_attribute_has_been_made_anew(db: Database, kind: str) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    asked: dict[str, Any] = {"ids": [1, 2], "attributes": {"a": [1, 2]}}
    first = ns.insert(ROWS[:2], **asked, idempotency_key="k")
    ns.update(schema={"a": None})
    ns.update(schema={"a": kind})
    again = ns.insert(ROWS[:2], **asked, idempotency_key="k")
    assert (again.part_id, again.epoch) == (first.part_id, first.epoch)
    with pytest.raises(IdempotencyMismatch):
        ns.insert(ROWS[:2], ids=[1, 2], attributes={"a": [1, 3]}, idempotency_key="k")
    if kind != "float":
        for key in (None, "other"):
            with pytest.raises(SchemaConflict):
                ns.insert(ROWS[:2], **asked, idempotency_key=key)
    assert ns.stats().parts == 1


def test_a_retry_is_the_same_request_in_rows_and_in_columns(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    columns = {"a": [1, None], "tags": [["x"], []]}
    rows = [{"a": 1, "tags": ["x"]}, {"tags": []}]
    first = ns.insert(ROWS[:2], ids=[1, 2], attributes=columns, idempotency_key="k")
    assert ns.insert(ROWS[:2], ids=[1, 2], attributes=rows, idempotency_key="k").part_id == first.part_id


def test_a_retry_is_the_same_request_when_the_namespace_knows_its_types(db: Database) -> None:
    """JSON cannot tell the types of NumPy, so the client declares them while they are not known."""
    ns = db.create_namespace("docs", DIM, "l2")
    given = {"x": np.array([1.5, 2.5]), "u": np.array([1, 2], dtype=np.uint64)}
    first = ns.insert(ROWS[:2], ids=[1, 2], attributes=given, idempotency_key="k")
    assert ns.insert(ROWS[:2], ids=[1, 2], attributes=given, idempotency_key="k").epoch == first.epoch
    patch = {"y": np.array([1.5, 2.5]), "v": np.array([1, 2], dtype=np.uint64)}
    done = ns.patch([1, 2], patch, idempotency_key="p")
    assert ns.patch([1, 2], patch, idempotency_key="p") == done
    assert [known["type"] for _, known in sorted(ns.stats().schema.items())] == [
        "uint",
        "uint",
        "float",
        "float",
    ]
    with pytest.raises(IdempotencyMismatch):
        ns.patch([1, 2], patch, schema={"z": "int"}, idempotency_key="p")


@pytest.mark.parametrize("named", [{"a": 1, "b": None}, {"a": 1}])
def test_a_patch_that_names_less_is_another_request(db: Database, named: dict[str, Any]) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:2], ids=[1, 2], attributes={"a": [0, 0], "b": [0, 0]})
    first = ns.patch([1, 2], [named, {"b": 2}], idempotency_key="k")
    assert ns.patch([1, 2], [dict(named), {"b": 2}], idempotency_key="k") == first
    with pytest.raises(IdempotencyMismatch):
        ns.patch([1, 2], {"a": [1, None], "b": [None, 2]}, idempotency_key="k")


@pytest.mark.parametrize("store", [MemoryStore, RangeStore])
@pytest.mark.parametrize("strings", [False, True])
def test_filtered_searches_find_what_matches_through_writes_and_compaction(
    store: type[ObjectStore], strings: bool
) -> None:
    """Coded and small parts, some without columns, upserts and deletes, mapped and read by ranges."""
    rng = random.Random(5)
    n = 400
    attributes = random_rows(rng, n)
    vectors = clustered(generator(1), n, DIM)
    ids: list[Any] = [f"row {i}" if strings else 3 * i for i in range(n)]
    live: dict[Any, tuple[Any, dict[str, Any]]] = {}
    with Database(engine(store())) as db:
        ns = db.create_namespace("docs", DIM, "l2", schema=TYPES, small_part_threshold=1_000)

        def put(first: int, last: int, given: list[dict[str, Any]] | None) -> None:
            ns.insert(vectors[first:last], ids=ids[first:last], attributes=given)
            for i in range(first, last):
                row = dict.fromkeys(TYPES) if given is None else given[i - first]
                live[ids[i]] = (vectors[i], {**row, "id": ids[i]})

        def check(count: int) -> None:
            known = list(live.values())
            rows = np.array([vector for vector, _ in known])
            for _ in range(count):
                f = random_filter(rng, ids)
                matching = [i for i, (_, row) in enumerate(known) if matches(f, row)]
                q = vectors[rng.randrange(n)]
                hits = ns.search(q, top_k=10, filter=f)
                assert len(hits) == min(10, len(matching)), f
                every = ns.search(q, top_k=1_000, filter=f)
                assert sorted(every.ids.tolist()) == sorted(known[i][1]["id"] for i in matching), f
                if matching:
                    best = nearest(rows[matching], q, "l2", 1)[0, 0]
                    assert hits.ids[0] == known[matching[best]][1]["id"], f

        put(0, 250, attributes[:250])  # coded
        put(250, 300, attributes[250:300])  # small
        put(300, 330, None)
        check(40)
        put(200, 320, attributes[200:320])
        ns.delete(ids[:40])
        for i in ids[:40]:
            live.pop(i, None)
        check(40)
        ns.compact()
        check(40)
        assert ns.get(ids[100]).attributes == attributes[100]


def test_a_batch_under_a_filter_answers_as_single_queries_do() -> None:
    vectors = clustered(generator(2), 3_000, 32)
    with vecstore.connect("memory://", maintenance="off") as db:
        ns = db.create_namespace("docs", 32, "l2", small_part_threshold=0)
        ns.insert(vectors, attributes={"n": np.arange(3_000) % 10})
        f = ["n", "In", [1, 2]]
        batch = ns.search_batch(vectors[:40], top_k=7, filter=f)
        for i in range(40):
            single = ns.search(vectors[i], top_k=7, filter=f)
            assert batch[i].ids.tolist() == single.ids.tolist()
            assert set((batch[i].ids % 10).tolist()) <= {1, 2}


def test_a_part_without_a_match_is_not_read() -> None:
    vectors = clustered(generator(2), 4_000, 32)
    with Database(engine(RangeStore())) as db:
        ns = db.create_namespace("docs", 32, "l2", small_part_threshold=0)
        for start in range(0, 4_000, 1_000):
            ns.insert(vectors[start : start + 1_000], attributes={"n": np.arange(start, start + 1_000)})
        debug = ns.search(vectors[0], filter=["n", "Lt", 500], debug=True).debug
        assert debug is not None
        assert [part["probed"] > 0 for part in debug["parts"]] == [True, False, False, False]
        assert debug["storage"]["round_trips"] <= 4
        assert debug["rows_live"] == 500


@pytest.mark.parametrize(
    "f",
    [
        ["n", "Eq", 7],
        ["n", "Lt", 20],
        ["And", [["n", "Gte", 10], ["lang", "Glob", "e*"], ["id", "Lt", 30_000]]],
        ["id", "In", [3, 20_000, 39_999]],
        ["id", "Gte", 39_000],
    ],
    ids=["equal", "range", "three", "ids", "range of ids"],
)
def test_a_cold_filtered_search_takes_four_dependent_trips(f: list[Any]) -> None:
    """Manifest, heads, what the filter asks, lists; bytes in proportion to these, not to the part."""
    n = 40_000
    vectors = generator(2).standard_normal((n, 8)).astype(np.float32)
    store = RangeStore()
    with Database(engine(store)) as db:
        ns = db.create_namespace("docs", 8, "l2", small_part_threshold=0)
        ns.insert(vectors, attributes={"n": np.arange(n) % 100, "lang": ["en", "de"] * (n // 2)})
        size = ns.stats().bytes
    with Database(engine(store)) as db:
        debug = db.namespace("docs").search(vectors[0], filter=f, debug=True).debug
    assert debug is not None
    assert debug["storage"]["round_trips"] <= 4
    assert debug["storage"]["bytes"] < size / 2


def test_recall_is_measured_under_a_filter() -> None:
    vectors = clustered(generator(2), 3_000, 32)
    with vecstore.connect("memory://", maintenance="off") as db:
        ns = db.create_namespace("docs", 32, "l2", small_part_threshold=0)
        ns.insert(vectors, attributes={"n": np.arange(3_000)})
        report = ns.measure_recall(vectors[:50] + 0.01, filter=["n", "Gte", 2_900])
        assert (report.rows, report.queries) == (100, 50)
        assert report.recall > 0.95


def test_a_branch_and_a_restore_have_the_schema_of_their_epoch() -> None:
    with vecstore.connect("memory://", maintenance="off") as db:
        ns = db.create_namespace("docs", DIM, "l2")
        first = ns.insert(ROWS[:2], ids=[1, 2], attributes={"a": ["x", "y"]})
        ns.update(schema={"a": None})
        ns.insert(ROWS[2:3], ids=[3], attributes={"a": [5]})
        branch = ns.branch("twig", first.epoch)
        assert found(branch, ["a", "Eq", "y"]) == [2]
        info = ns.stats()
        ns.restore(first.epoch, if_match=(info.incarnation, info.epoch))
        assert found(ns, ["a", "Eq", "x"]) == [1]
        ns.insert(ROWS[3:4], ids=[4], attributes={"b": [1]})
        columns = [part["columns"] for part in ns.manifest()["parts"] if "columns" in part]
        assert columns == [[0], [2]]  # 1 was that of the numbers which the restore left behind


# -- at the ends of what there is -------------------------------------------------------------


@pytest.mark.parametrize("when", ["9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00"])
def test_a_date_that_could_not_be_read_back_is_refused(db: Database, when: str) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"when": "datetime"})
    with pytest.raises(SchemaConflict, match="'when' of row 1"):
        ns.insert(ROWS[:2], attributes={"when": ["9999-12-31T23:59:59.999Z", when]})
    ns.insert(ROWS[:1], attributes={"when": ["9999-12-31T23:59:59.999Z"]})
    assert ns.search(ROWS[0], top_k=1, include=["when"]).attributes == [{"when": "9999-12-31T23:59:59.999Z"}]


def test_values_of_python_fit_a_schema_that_is_known(db: Database) -> None:
    kinds = ("datetime", "uuid", "float", "[]datetime")
    declared: dict[str, Any] = {kind: {"type": kind, "filterable": False} for kind in kinds}
    ns = db.create_namespace("docs", DIM, "l2", schema={"n": "int", "text": "string", **declared})
    ns.insert(
        ROWS[:1],
        attributes={
            "n": np.array([1], dtype=np.uint8),
            "float": np.array([2.5]),
            "datetime": [datetime(2024, 1, 1, tzinfo=UTC)],
            "uuid": [UUID(int=3)],
            "[]datetime": [[datetime(2024, 1, 1, tzinfo=UTC)]],
        },
    )
    assert ns.get(0).attributes == {
        "n": 1,
        "text": None,
        "float": 2.5,
        "datetime": "2024-01-01T00:00:00.000Z",
        "uuid": str(UUID(int=3)),
        "[]datetime": ["2024-01-01T00:00:00.000Z"],
    }
    with pytest.raises(SchemaConflict):
        ns.insert(ROWS[:1], attributes={"text": [datetime(2024, 1, 1, tzinfo=UTC)]})
    with pytest.raises(SchemaConflict):
        ns.insert(ROWS[:1], attributes={"n": np.array([2**64 - 1], dtype=np.uint64)})


@pytest.mark.parametrize(
    "f", [["id", "Eq", 5], ["id", "In", [None, 5]], ["id", "Lt", 5], ["id", "Glob", "a*"]]
)
def test_a_filter_by_id_of_either_kind_matches_nothing_where_there_is_no_row(
    db: Database, f: list[Any]
) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    assert found(ns, f) == []
    assert ns.delete(filter=f).deleted == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([np.float32(0.5), None], [0.5, None]),
        ([("a", "b"), None], [["a", "b"], None]),
        ([np.array([1, 2]), None], [[1, 2], None]),
        ([date(2024, 5, 6), None], [np.datetime64("2024-05-06"), None]),
        (np.array(["2024-05-06"] * 2, "M8[ns]"), [datetime(2024, 5, 6, tzinfo=UTC)] * 2),
    ],
)
def test_a_write_is_the_same_in_whatever_form_its_values_are_given(
    db: Database, one: Any, other: Any
) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    first = ns.insert(ROWS[:2], ids=[0, 1], attributes={"x": one}, idempotency_key="k")
    assert ns.insert(ROWS[:2], ids=[0, 1], attributes={"x": other}, idempotency_key="k").epoch == first.epoch


class Colour(str, Enum):  # noqa: UP042  # `str` says otherwise of it than of a StrEnum
    RED = "red"


class Level(IntEnum):
    LOW = 1


MOMENT = np.datetime64("2024-01-01T00:00:00.123456789")
READ = "2024-01-01T00:00:00.123Z"


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        ([Colour.RED, "blue"], "string", ["red", "blue"]),
        ([Level.LOW, 2], "int", [1, 2]),
        ([MOMENT, None], "datetime", [READ, None]),
        (np.array([MOMENT, MOMENT]), "datetime", [READ, READ]),
        ([np.array([MOMENT]), [MOMENT]], "[]datetime", [[READ], [READ]]),
        ([pd.Timestamp(MOMENT), date(2024, 5, 6)], "datetime", [READ, "2024-05-06T00:00:00.000Z"]),
        (np.array([0.5, 2], np.longdouble), "float", [0.5, 2.0]),
        ([np.longdouble(0.5), 2], "float", [0.5, 2.0]),
        ([np.array(5), np.int8(-1)], "int", [5, -1]),
        ([np.uint64(1), np.uint64(2**63 + 5)], "uint", [1, 2**63 + 5]),
        ([np.array([1], np.uint64), [2]], "[]uint", [[1], [2]]),
        ([np.array([0.5]), np.array([1, 2])], "[]float", [[0.5], [1.0, 2.0]]),
    ],
)
def test_values_of_other_libraries_are_the_same_everywhere(
    db: Database, values: Any, kind: str, read: list[Any]
) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:2], ids=[0, 1], attributes={"x": values})
    assert ns.stats().schema["x"]["type"] == kind
    assert [row.attributes["x"] for row in ns.scan()] == read


@pytest.mark.parametrize(
    "values",
    [
        [b"text", None],
        [Decimal("9.99"), Decimal(1)],
        [timedelta(hours=1), None],
        [{1}, {2}],
        [["a", b"b"], None],
        ["yesterday", datetime(2024, 1, 1, tzinfo=UTC)],
        [datetime(2024, 1, 1, tzinfo=UTC), "2024-05-06"],
        ["x", UUID(int=1)],
        [None, np.datetime64("NaT")],
        [pd.NaT, None],
        [0.5, float("nan")],
        [[0.5], [np.float32("inf")]],
        np.array(["2024-01-01", "NaT"], "M8[ns]"),
        np.array([0, 18_446_745_773_709_551], "i8").astype("M8[s]"),  # beyond what milliseconds hold
        np.array([b"a", b"b"]),
        np.array([1, 2], "m8[s]"),
        [10**400, 0.5],
    ],
    ids=repr,
)
def test_what_is_no_value_of_one_type_is_refused_everywhere(db: Database, values: Any) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    with pytest.raises(SchemaConflict, match="'x'") as refused:
        ns.insert(ROWS[:2], ids=[0, 1], attributes={"x": values})
    assert refused.value.details["attribute"] == "x"
    assert (ns.stats().rows, ns.stats().schema) == (0, {})


@pytest.mark.parametrize("key", [None, "k"])
def test_what_cannot_be_written_down_is_refused(db: Database, key: str | None) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    for value in (endless, deep, 10**5_000, [10**5_000]):
        with pytest.raises(VecstoreError):
            ns.insert(ROWS[:1], ids=[0], attributes={"x": [value]}, idempotency_key=key)
    assert ns.stats().rows == 0


@pytest.mark.parametrize("digits", [309, 5_000])
def test_an_integer_that_no_float_holds_is_refused(db: Database, digits: int) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:1], ids=[0], attributes={"x": [0.5], "xs": [[0.5]]})
    for given in ({"x": [10**digits]}, {"xs": [[10**digits]]}):
        with pytest.raises(VecstoreError):
            ns.insert(ROWS[1:2], ids=[1], attributes=given)
        with pytest.raises(VecstoreError):
            ns.patch([0], given)
    with pytest.raises(VecstoreError):
        ns.search(ROWS[0], filter=["x", "Gt", 10**digits])
    assert ns.get(0).attributes == {"x": 0.5, "xs": [0.5]}


def test_no_time_and_no_name_are_refused(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    with pytest.raises(SchemaConflict, match="'when' of row 0"):
        ns.insert(ROWS[:1], attributes={"when": np.array(["NaT"], dtype="datetime64[ms]")})
    with pytest.raises(InvalidArgument, match="1 must be a name"):
        ns.insert(ROWS[:1], attributes={1: [1], "a": [2]})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "text",
    [
        "0x345678-9abc-def0-1234-56789abcdef0",
        " 12345678-9abc-def0-1234-56789abcdef",
        "123456789abc-def0-1234-56789abcdef0-",
        "1-2345678-9abc-def0-1234-56789abcdef",
        "12345678_9abc_def0_1234_56789abcdef0",
        "{2345678-9abc-def0-1234-56789abcdef}",
        "12345678-9abc-def0-1234-56789abcde\u0660\u0661",
        "123456789abcdef0123456789abcdef0",
        "12345678-9abc-def0-1234-56789abcdef0\n",
    ],
)
def test_what_is_no_uuid_is_not_taken_for_another_one(text: str) -> None:
    ns = Database(engine()).create_namespace("ns", 2, "l2", schema={"u": "uuid"})
    with pytest.raises(SchemaConflict, match="a UUID as 12345678-"):
        ns.insert(np.ones((1, 2)), [1], attributes={"u": [text]})
    with pytest.raises(FilterMismatch, match="a UUID as 12345678-"):
        ns.search([1.0, 1.0], filter=["u", "Eq", text])
    ns.insert(np.ones((1, 2)), [1], attributes={"u": ["12345678-9ABC-def0-1234-56789abcdef0"]})
    assert ns.get(1).attributes == {"u": "12345678-9abc-def0-1234-56789abcdef0"}


@pytest.mark.parametrize(
    ("given", "at", "attribute"),
    [
        (["n", "Eq", {"$ref_new": "zz"}], "condition[2]", "zz"),
        (["zz", "Eq", {"$ref_new": "n"}], "condition[0]", "zz"),
        (["n", "Eq", {"$ref_new": "s"}], "condition[2]", "s"),
        (["n", "Eq", {"$ref_new": "l"}], "condition[2]", "l"),
    ],
)
def test_a_reference_that_does_not_fit_is_told_by_its_attribute(given: Any, at: str, attribute: str) -> None:
    ns = Database(engine()).create_namespace("ns", 2, "l2", schema={"n": "int", "s": "string", "l": "[]int"})
    with pytest.raises(FilterMismatch) as refused:
        ns.insert(np.ones((1, 2)), [1], attributes={"n": [1]}, condition=given)
    assert (refused.value.details["at"], refused.value.details["attribute"]) == (at, attribute)


def test_what_cannot_become_filterable_is_told_so() -> None:
    ns = Database(engine()).create_namespace("ns", 2, "l2", schema={"s": "string"})
    with pytest.raises(
        SchemaConflict, match="attribute 's' is filterable, and cannot become one that is not"
    ):
        ns.update(schema={"s": {"type": "string", "filterable": False}})
    with pytest.raises(SchemaConflict, match="attribute 's' is string, not int"):
        ns.update(schema={"s": "int"})
