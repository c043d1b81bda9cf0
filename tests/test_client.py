"""The same API embedded and over HTTP, and what is the transport's own: errors, retries, forks."""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import socket
import threading
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecstore
import vecstore.aio
from tests.server.support import Server, eventually, running_server
from vecstore.api import Database
from vecstore.client import HttpBackend, _classes
from vecstore.errors import (
    DimensionMismatch,
    IdempotencyMismatch,
    IdExists,
    InvalidArgument,
    InvalidAttribute,
    InvalidId,
    InvalidVector,
    NamespaceExists,
    NamespaceNotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    PreconditionFailed,
    RouteNotFound,
    RowNotFound,
    SchemaConflict,
    ServerUnavailable,
    StorageRetryable,
    TooManyRequests,
    Unauthenticated,
    VecstoreError,
)
from vecstore.transport import Pooled
from vecstore.types import NamespaceInfo

DIM = 8
RNG = np.random.default_rng(3)
ROWS = RNG.standard_normal((50, DIM)).astype(np.float32)


def test_rows_are_found_read_and_deleted(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    created = ns.stats().epoch
    done = ns.insert(ROWS, ids=np.arange(50))
    assert (done.n, done.upserted, done.epoch, done.ids) == (50, 0, created + 1, None)
    hits = ns.search(ROWS[7], top_k=3)
    assert hits.ids[0] == 7
    assert hits.ids.dtype == np.uint64
    assert hits.distances.dtype == np.float32
    assert (len(hits), hits.epoch, hits.vectors, hits.debug) == (3, done.epoch, None, None)
    assert hits.incarnation == done.incarnation == ns.stats().incarnation
    row = ns.get(7)
    assert (row.id, row.epoch) == (7, done.epoch)
    np.testing.assert_array_equal(row.vector, ROWS[7])
    assert ns.get(7, include_vector=False).vector is None
    gone = ns.delete([7, 8, 999])
    assert (gone.deleted, gone.epoch) == (2, done.epoch + 1)
    assert 7 not in ns.search(ROWS[7]).ids
    with pytest.raises(RowNotFound):
        ns.get(7)


def test_vectors_and_debug_come_with_hits_when_asked_for(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS, ids=np.arange(50))
    hits = ns.search(ROWS[7], top_k=3, include=["vector"], debug=True)
    np.testing.assert_array_equal(hits.vectors, ROWS[hits.ids.astype(int)])
    assert hits.debug is not None
    assert hits.debug["epoch"] == hits.epoch
    batch = ns.search_batch(ROWS[:4], top_k=2, include=["vector"], debug=True)
    assert batch.vectors is not None
    assert batch.vectors.shape == (4, 2, DIM)
    np.testing.assert_array_equal(batch.vectors[:, 0], ROWS[:4])
    assert batch.debug is not None
    assert len(batch.debug) == 4


def test_a_batch_is_padded_to_top_k(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:3], ids=["a", "b", "ä/ö?"])
    batch = ns.search_batch(ROWS[:2], top_k=5)
    assert batch.ids.shape == batch.distances.shape == (2, 5)
    assert batch.counts.tolist() == [3, 3]
    assert batch.ids[:, 0].tolist() == ["a", "b"]
    assert batch.ids[0, 3:].tolist() == ["", ""]
    assert np.isinf(batch.distances[:, 3:]).all()
    assert next(hit.id for hit in batch[1]) == "b"


# What is taken out of paths, or no character to a regular expression.
DOTS_AND_LINES = [".", "..", "...", "a/..", "./a", "a/./b", "\n", "\r\n", "a\nb", "a\n"]
IDS = ["ä/ö?", "a//b", "../x", "100%", "7", "a b+c", "#", "x" * 64, *DOTS_AND_LINES]


@pytest.mark.parametrize("identity", IDS)
def test_any_string_is_an_id_in_a_path(db: Database, identity: str) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:1], ids=[identity])
    assert ns.get(identity).id == identity


def test_ids_are_assigned_and_the_largest_survives_the_wire(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "dot")
    done = ns.insert(ROWS[:3])
    assert done.ids is not None
    assert done.ids.tolist() == [0, 1, 2]
    ns.insert(ROWS[3:4], ids=[2**64 - 1])
    assert ns.get(2**64 - 1).id == 2**64 - 1
    assert int(ns.search_batch(ROWS[3:4], top_k=4).ids.max()) == 2**64 - 1


@pytest.mark.parametrize(
    "convert",
    [
        lambda v: v.tolist(),
        lambda v: v.astype(np.float64),
        lambda v: v.astype(np.float16),
        lambda v: np.asfortranarray(v),
        lambda v: np.repeat(v, 2, axis=1)[:, ::2],
        lambda v: v.astype(">f4"),
        lambda v: (v * 10).astype(np.int64),
    ],
)
def test_vectors_are_whatever_numpy_reads(db: Database, convert: Callable[[np.ndarray], Any]) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    given = convert(ROWS[:4])
    ns.insert(given, ids=range(4))
    np.testing.assert_array_equal(ns.get(2).vector, np.asarray(given)[2].astype(np.float32))
    assert ns.search(np.asarray(given)[2].tolist(), top_k=1).ids.tolist() == [2]


def test_namespaces_are_created_listed_changed_and_deleted(db: Database) -> None:
    for name in ("b1", "a", "b2"):
        db.create_namespace(name, DIM, "l2", list_rows=64)
    assert [info.name for info in db.namespaces()] == ["a", "b1", "b2"]
    assert [info.name for info in db.namespaces("b")] == ["b1", "b2"]
    assert [i.name for i in db.namespaces_page(limit=1, after="a")] == ["b1"]
    ns = db.namespace("a")
    before = ns.stats()
    assert before.defaults["list_rows"] == 64
    after = ns.update(probe_fraction=0.5, if_match=(before.incarnation, before.epoch))
    assert (after.defaults["probe_fraction"], after.epoch) == (0.5, before.epoch + 1)
    with pytest.raises(PreconditionFailed):
        db.delete_namespace("a", if_match=(before.incarnation, before.epoch))
    db.delete_namespace("a", if_match=(after.incarnation, after.epoch))
    with pytest.raises(NamespaceNotFound):
        db.namespace("a")
    with pytest.raises(NamespaceExists):
        db.create_namespace("b1", DIM)


def test_past_epochs_and_manifests_are_read(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    first = ns.insert(ROWS[:1], ids=[1])
    ns.insert(ROWS[1:2], ids=[2])
    assert ns.search(ROWS[1], epoch=first.epoch).ids.tolist() == [1]
    assert ns.search(ROWS[1], consistency="eventual", max_staleness=5).epoch >= first.epoch
    assert ns.manifest()["epoch"] == first.epoch + 1
    assert ns.manifest(first.epoch)["epoch"] == first.epoch


def test_recall_is_measured(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", small_part_threshold=0, list_rows=4)
    ns.insert(ROWS, ids=[f"row-{i}" for i in range(50)])
    queries = np.random.default_rng(4).standard_normal((30, DIM))
    full = {"probe_fraction": 1.0, "rerank_precision": "fp32", "rerank_scale": 1000.0}
    found = ns.measure_recall(queries, **full)
    assert (found.recall, found.high, found.queries, found.source) == (1.0, 1.0, 30, "queries")
    assert (found.incarnation, found.epoch) == (ns.stats().incarnation, ns.stats().epoch)
    assert found.rows_scanned == found.rows == 50
    truth = np.argsort(((ROWS[None] - queries[:, None]) ** 2).sum(axis=2), axis=1)[:, :5]
    hits = ns.search_batch(queries, top_k=5, nprobe=1).ids
    counted = [len({f"row-{i}" for i in a} & set(b)) / 5 for a, b in zip(truth, hits, strict=True)]
    low = ns.measure_recall(queries.tolist(), top_k=5, nprobe=1, confidence=0.99, seed=3)
    assert low.recall == pytest.approx(np.mean(counted))
    assert (low.top_k, low.confidence, low.seed, low.options["nprobe"]) == (5, 0.99, 3, 1)
    some = ns.measure_recall(sample=20, nprobe=1, seed=8)
    assert (some.source, some.queries) == ("rows", 20)
    assert ns.measure_recall(sample=20, nprobe=1, seed=8).recall == some.recall
    assert ns.recall_estimate().queries == 0


def test_whether_everything_is_merged_is_said_by_a_bool(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    for value in ("x", "", 1, None):
        with pytest.raises(InvalidArgument) as error:
            ns.compact(everything=value)  # type: ignore[arg-type]
        assert error.value.details["field"] == "everything"
    ns.compact(everything=np.bool_(True))  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [{}, {"ids": [1], "filter": ["id", "Eq", 1]}])
def test_a_write_names_rows_by_ids_or_by_a_filter(db: Database, rows: dict[str, Any]) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:2], [1, 2], attributes={"n": [1, 2]})
    for write in (lambda: ns.patch(attributes={"n": [3, 4]}, **rows), lambda: ns.delete(**rows)):
        with pytest.raises(InvalidArgument) as error:
            write()
        assert "ids or a filter" in error.value.message
        assert error.value.details["field"] == "ids"


def test_a_database_that_is_to_be_pickled_says_what_to_do_instead(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    for handle in (db, ns, ns.scan()):
        with pytest.raises(TypeError, match="connect to its URL"):
            pickle.dumps(handle)


def test_compaction_merges_everything(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    for i in range(3):
        ns.insert(ROWS[i : i + 1], ids=[i])
    done = ns.compact()
    assert (len(done.merged), done.rows) == (3, 3)
    assert ns.stats().parts == 1
    assert ns.compact().part_id is None


def test_warming_tells_how_far_it_has_come(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", small_part_threshold=0, list_rows=4)
    done = ns.insert(ROWS, ids=range(50))
    told: list[object] = []
    warmed = ns.warm(progress=told.append)
    assert told[-1] == warmed
    assert (warmed.warmed, warmed.next, warmed.epoch) == (warmed.total, None, done.epoch)
    assert warmed.total > 0
    with pytest.raises(InvalidArgument) as caught:
        db.backend.warm("docs", "nowhere")
    assert caught.value.details["field"] == "cursor"


def test_a_key_makes_an_insert_happen_once(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    first = ns.insert(ROWS[:2], idempotency_key="k")
    again = ns.insert(ROWS[:2], idempotency_key="k")
    assert (again.part_id, again.epoch) == (first.part_id, first.epoch)
    assert ns.stats().rows == 2
    with pytest.raises(IdempotencyMismatch):
        ns.insert(ROWS[:3], idempotency_key="k")
    assert ns.delete([0], idempotency_key="d").deleted == ns.delete([0], idempotency_key="d").deleted == 1


def test_writes_can_ask_for_the_epoch_they_were_planned_on(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    done = ns.insert(ROWS[:1], ids=[1])
    ns.insert(ROWS[:1], ids=[2], if_match=(done.incarnation, done.epoch))
    with pytest.raises(PreconditionFailed):
        ns.insert(ROWS[:1], ids=[3], if_match=(done.incarnation, done.epoch))
    with pytest.raises(PreconditionFailed):
        ns.delete([1], if_match=(done.incarnation, done.epoch))


@pytest.mark.parametrize("identity", [7, "a"])
@pytest.mark.parametrize("kept", ["fp32", "none"])
def test_what_no_row_shows_is_known_of_an_answer(db: Database, identity: Any, kept: str) -> None:
    """The kind of ids where there are none, and the dimension where no vector is kept."""
    ns = db.create_namespace("docs", DIM, "l2", store_vectors=kept)
    ns.insert(ROWS[:2], ids=[identity, identity * 2], attributes={"a": [1, 2]})
    kind: Any = np.uint64 if isinstance(identity, int) else object
    padding: Any = 0 if isinstance(identity, int) else ""
    for rows, filter in ((0, ["a", "Gt", 5]), (1, ["a", "Eq", 1])):
        options: Any = {"filter": filter, "include": ["vector"], "top_k": 3}
        (several,) = ns.multi_query([{"vector": ROWS[0], **options}])
        ordered = ns.search(order_by=["a", "asc"], **options)
        page = next(iter(ns.scan(filter=filter, include=["vector"]).pages()))
        for found in (ns.search(ROWS[0], **options), several, ordered, page):
            assert (found.ids.dtype, found.ids.tolist()) == (kind, [identity][:rows])
            assert found.vectors.shape == (rows, DIM)
            assert np.isnan(found.vectors).all() == (kept == "none" or not rows)
            table = found.to_arrow()
            assert str(table.schema.field("id").type) == ("uint64" if kind is np.uint64 else "string")
            assert table.schema.field("vector").type.list_size == DIM
        assert page[:rows] == [] or page[0].id == identity
        batch = ns.search_batch(ROWS[:2], **options)
        assert (batch.ids.dtype, batch.counts.tolist()) == (kind, [rows, rows])
        assert batch.ids[:, rows:].tolist() == [[padding] * (3 - rows)] * 2
        assert batch.vectors is not None
        assert batch.vectors.shape == (2, 3, DIM)
        assert np.isnan(batch.vectors[:, :rows]).all() == (kept == "none" or not rows)
        assert not batch.vectors[:, rows:].any()
        assert ns.search(ROWS[0], filter=filter).ids.dtype == kind
        assert ns.search_batch(ROWS[:2], filter=filter).ids.dtype == kind
        assert ns.scan(filter=filter).to_arrow().schema.field("id") == table.schema.field("id")


@pytest.mark.parametrize(
    "spelt",
    [
        lambda info: (info.incarnation, info.epoch),
        lambda info: [info.incarnation, info.epoch],
        lambda info: (info.incarnation, np.uint64(info.epoch)),
        lambda info: info.etag,
    ],
)
def test_the_epoch_that_was_seen_may_be_a_pair_or_an_etag(
    db: Database, spelt: Callable[[NamespaceInfo], Any]
) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    seen = spelt(ns.stats())
    ns.insert(ROWS[:2], ids=[1, 2], attributes={"a": [1, 2]}, if_match=seen)
    first = ns.stats()
    changes: list[Callable[[Any], object]] = [
        lambda at: ns.insert(ROWS[:1], ids=[3], if_match=at),
        lambda at: ns.patch([1], {"a": [3]}, if_match=at),
        lambda at: ns.delete([1], if_match=at),
        lambda at: ns.update(probe_fraction=0.5, if_match=at),
        lambda at: ns.restore(first.epoch, if_match=at),
        lambda at: db.delete_namespace("docs", if_match=at),
    ]
    for change in changes:
        with pytest.raises(PreconditionFailed):
            change(seen)
        change(spelt(ns.stats()))


NO_PAIRS = [5, [], {"abc": 1}, ("abc",), ("abc", 1, 2), (1, "abc"), ("a b", 1)]
NO_EPOCHS = ["1", -1, 10**5_000, True, 1.0]


@pytest.mark.parametrize(
    "seen",
    ["", "abc", "abc-", '"abc-1"', "abc-" + "1" * 20, *NO_PAIRS, *(("abc", epoch) for epoch in NO_EPOCHS)],
)
def test_what_is_no_epoch_of_an_incarnation_is_refused(db: Database, seen: Any) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    before = ns.stats()
    changes: list[Callable[[], object]] = [
        lambda: ns.insert(ROWS[:1], if_match=seen),
        lambda: ns.patch([1], {"a": [1]}, if_match=seen),
        lambda: ns.delete([1], if_match=seen),
        lambda: ns.update(probe_fraction=0.5, if_match=seen),
        lambda: ns.restore(1, if_match=seen),
        lambda: db.delete_namespace("docs", if_match=seen),
    ]
    for change in changes:
        with pytest.raises(InvalidArgument) as refused:
            change()
        assert refused.value.details["field"] == "if_match"
    assert ns.stats() == before


def test_an_id_is_of_its_namespaces_kind(db: Database) -> None:
    """Digits in a path are either, but an id is a number or a string."""
    for name, mine, other in (("numbers", 5, "5"), ("words", "5", 5)):
        ns: Any = db.create_namespace(name, DIM, "l2")
        for absent in (mine, other):
            with pytest.raises(RowNotFound):
                ns.get(absent)
        ns.insert(ROWS[:1], ids=[mine])
        assert ns.get(mine).id == mine
        for wrong in (other, type(other)(77)):
            with pytest.raises(InvalidId) as refused:
                ns.get(wrong)
            assert (refused.value.details["field"], refused.value.details["kind"]) == (
                "id",
                ns.stats().id_kind,
            )


def test_before_the_first_row_no_id_is_of_the_other_kind(db: Database) -> None:
    ns = db.create_namespace("docs", dim=2)
    empty = ns.tag("empty").epoch  # which goes on from an earlier namespace of the name
    ns.insert([[1, 2]], [5])
    with pytest.raises(RowNotFound):
        ns.get("5", epoch=empty)
    with pytest.raises(InvalidId):
        ns.get("5")


@pytest.mark.parametrize("values", [None, [], [{"n": 1}], "n"])
def test_a_patch_by_filter_takes_one_object(db: Database, values: Any) -> None:
    ns = db.create_namespace("docs", dim=2, schema={"n": "int"})
    with pytest.raises(InvalidAttribute, match="one object of values where a filter chooses the rows"):
        ns.patch(filter=["n", "Eq", 1], attributes=values)


def test_vectors_of_no_dimension_are_refused_with_the_least(db: Database) -> None:
    ns = db.create_namespace("docs", dim=2)
    with pytest.raises(DimensionMismatch, match=r"vectors have 0 dimensions, (the namespace|at least 1)"):
        ns.insert([[]], [1])


def test_an_element_that_is_no_value_is_named_by_its_attribute_and_row(db: Database) -> None:
    ns = db.create_namespace("docs", dim=2)
    with pytest.raises(SchemaConflict, match=r"'b' has elements of no type .*None in row 1"):
        ns.insert([[1, 2], [3, 4]], [1, 2], attributes=[{"b": [True]}, {"b": [None]}])


def test_a_page_begins_behind_whatever_text_is_given(db: Database) -> None:
    for name in ("a", "b", "x" * 128):
        db.create_namespace(name, DIM)

    def names(after: str) -> list[str]:
        return [info.name for info in db.namespaces_page(after=after)]

    assert names("") == ["a", "b", "x" * 128]
    assert names("é/ ") == []
    assert names("b" * 300) == ["x" * 128]
    assert names("x" * 129) == []
    assert [info.name for info in db.namespaces_page(limit=np.int64(1))] == ["a"]  # type: ignore[arg-type]


def test_settings_may_be_numbers_of_numpy(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, k_max=np.int32(9))
    assert ns.stats().defaults["k_max"] == 9
    assert ns.update(probe_fraction=np.float64(0.25)).defaults["probe_fraction"] == 0.25


DATE, UUID = datetime(2024, 1, 1), uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("kind", "values", "row"),
    [
        ("string", [DATE, None], 0),
        ("string", ["a", DATE.date()], 1),
        ("string", [None, UUID], 1),
        ("string", np.array(["2024-01-01", "2024-01-02"], dtype="M8[ms]"), 0),
        ("[]string", [["a"], ["b", DATE]], 1),
        ("[]string", [[UUID], None], 0),
    ],
)
def test_dates_and_uuids_are_no_strings(db: Database, kind: str, values: Any, row: int) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:2], ids=[1, 2])
    schema = {"s": kind}
    writes: list[Callable[[], object]] = [
        lambda: ns.insert(ROWS[:2], ids=[3, 4], attributes={"s": values}, schema=schema),
        lambda: ns.insert(ROWS[:2], attributes=[{"s": one} for one in values], schema=schema),
        lambda: ns.patch([1, 2], {"s": values}, schema=schema),
    ]
    for write in writes:
        with pytest.raises(SchemaConflict) as refused:
            write()
        assert refused.value.details == {"field": "attributes", "attribute": "s", "row": row, "type": kind}
    with pytest.raises(SchemaConflict):
        ns.patch(filter=["id", "Eq", 1], attributes={"s": values[row]}, schema=schema)
    assert ns.stats().schema == {}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"vector": [np.nan] + [0] * (DIM - 1)}, "vector"),
        ({"vector": ROWS[:2]}, "vector"),
        ({"vector": "abc"}, "vector"),
        ({"id": -1}, "id"),
    ],
)
def test_a_query_of_several_that_no_server_is_asked_is_named(db: Database, query: Any, field: str) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:1], ids=[0])
    with pytest.raises(InvalidArgument) as refused:
        ns.multi_query([{"vector": ROWS[0]}, query])
    assert (refused.value.details["field"], refused.value.details["query"]) == (field, 1)


@pytest.mark.parametrize(
    ("error", "field", "call"),
    [
        (DimensionMismatch, "vectors", lambda ns: ns.insert(ROWS[:, :4])),
        (DimensionMismatch, "vectors", lambda ns: ns.insert(ROWS[:, :0])),
        (InvalidArgument, "idempotency_key", lambda ns: ns.insert(ROWS[:1], idempotency_key=5)),
        (InvalidArgument, "idempotency_key", lambda ns: ns.delete([0], idempotency_key="\ud800")),
        (InvalidArgument, "idempotency_key", lambda ns: ns.patch([0], {"a": [1]}, idempotency_key=b"k")),
        (InvalidArgument, "idempotency_key", lambda ns: ns.delete([0], idempotency_key="")),
        (InvalidArgument, "max_distance", lambda ns: ns.search(ROWS[0], max_distance=10**400)),
        (InvalidArgument, "max_staleness", lambda ns: ns.search(ROWS[0], max_staleness=10**400)),
        (InvalidArgument, "vector", lambda ns: ns.search("abc")),
        (InvalidArgument, "vector", lambda ns: ns.search({"a": 1})),
        (DimensionMismatch, "vector", lambda ns: ns.search(5)),
        (DimensionMismatch, "vector", lambda ns: ns.search([])),
        (DimensionMismatch, "vector", lambda ns: ns.search([[1.0], [1.0, 2.0]])),
        (InvalidArgument, "vectors", lambda ns: ns.search_batch("abc")),
        (DimensionMismatch, "vectors", lambda ns: ns.insert(ROWS[:2, :4], ids=[1, 2])),
        (DimensionMismatch, "vectors", lambda ns: ns.insert([[1.0], [1.0, 2.0]])),
        (DimensionMismatch, "vectors", lambda ns: ns.insert(ROWS[0])),
        (InvalidArgument, "vectors", lambda ns: ns.insert(np.zeros((0, DIM)))),
        (InvalidArgument, "vectors", lambda ns: ns.insert([["a"] * DIM])),
        (InvalidVector, "vectors", lambda ns: ns.insert(np.full((1, DIM), np.nan))),
        (InvalidVector, "vectors", lambda ns: ns.insert(np.zeros((1, DIM)))),
        (InvalidId, "ids", lambda ns: ns.insert(ROWS[:2], ids=[1, 1])),
        (InvalidId, "ids", lambda ns: ns.insert(ROWS[:2], ids=[1, "b"])),
        (InvalidId, "ids", lambda ns: ns.insert(ROWS[:2], ids=[1])),
        (InvalidId, "ids", lambda ns: ns.insert(ROWS[:1], ids=["b"])),
        (InvalidId, "ids", lambda ns: ns.delete([2**64])),
        (InvalidArgument, "mode", lambda ns: ns.insert(ROWS[:1], mode="replace")),
        (IdExists, None, lambda ns: ns.insert(ROWS[:1], ids=[0], mode="insert")),
        (InvalidArgument, "top_k", lambda ns: ns.search(ROWS[0], top_k=0)),
        (InvalidArgument, "epoch", lambda ns: ns.search(ROWS[0], epoch=10**6)),
        (DimensionMismatch, "vector", lambda ns: ns.search(ROWS[0, :4])),
        (DimensionMismatch, "vector", lambda ns: ns.search(ROWS[:2])),
        (DimensionMismatch, "vectors", lambda ns: ns.search_batch(ROWS[0])),
        (InvalidVector, None, lambda ns: ns.search(np.zeros(DIM))),
        (InvalidArgument, "colour", lambda ns: ns.search_batch(ROWS[:1], colour=1)),
        (InvalidArgument, "defaults.colour", lambda ns: ns.update(colour=1)),
        (InvalidId, "id", lambda ns: ns.get("b")),
        (RowNotFound, None, lambda ns: ns.get(99)),
        (InvalidArgument, "epoch", lambda ns: ns.manifest(10**6)),
        (InvalidArgument, "sample", lambda ns: ns.measure_recall(ROWS, sample=0)),
        (InvalidArgument, "source", lambda ns: ns.measure_recall(source="recent")),
        (InvalidArgument, "source", lambda ns: ns.measure_recall()),
        (InvalidArgument, "debug", lambda ns: ns.measure_recall(ROWS, debug=True)),
        (InvalidArgument, "exclude", lambda ns: ns.measure_recall(ROWS, exclude=["a"])),
        (DimensionMismatch, "vectors", lambda ns: ns.measure_recall(ROWS[:, :4])),
        (InvalidVector, "vectors", lambda ns: ns.measure_recall(np.zeros((1, DIM)))),
    ],
)
def test_errors_are_the_same_classes_with_the_same_field(
    db: Database, error: type[VecstoreError], field: str | None, call: Callable[[Any], object]
) -> None:
    ns = db.create_namespace("docs", DIM, "cosine")
    ns.insert(ROWS[:1], ids=[0])
    epoch = ns.stats().epoch
    with pytest.raises(error) as caught:
        call(ns)
    assert type(caught.value) is error
    if field is not None:
        assert caught.value.details["field"] == field
    assert ns.stats().epoch == epoch


@pytest.mark.parametrize(
    ("settings", "field", "limit"),
    [
        ({"probe_fraction": 2.0}, "defaults.probe_fraction", 1),
        ({"k_min": 0}, "defaults.k_min", 1),
        ({"k_max": "7"}, "defaults.k_max", None),
        ({"store_vectors": "fp8"}, "defaults.store_vectors", ["fp32", "fp16", "none"]),
        ({"depth": 3}, "defaults.depth", None),
        ({"k_min": 9, "k_max": 3}, "k_min", None),
        ({"target_recall": math.nan}, "defaults.target_recall", 0),
        ({"target_recall": math.inf}, "defaults.target_recall", 1),
        ({"target_recall": np.float32("nan")}, "defaults.target_recall", 0),
        ({"rerank_scale": math.inf}, "defaults.rerank_scale", 1000),
        ({"expire_by": math.nan}, "defaults.expire_by", None),
    ],
)
def test_a_setting_that_is_refused_is_named_with_its_limit(
    db: Database, settings: dict[str, Any], field: str, limit: object
) -> None:
    ns = db.create_namespace("docs", DIM)
    calls: list[Callable[[], object]] = [
        lambda: ns.update(**settings),
        lambda: db.create_namespace("more", DIM, **settings),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument) as refused:
            call()
        assert (refused.value.details["field"], refused.value.details.get("limit")) == (field, limit)
    assert [info.name for info in db.namespaces()] == ["docs"]


HALF = "\ud800"


@pytest.mark.parametrize(
    ("error", "field", "call"),
    [
        (InvalidArgument, "aggregate_by", lambda ns: ns.aggregate({HALF: ["Count"]})),
        (
            InvalidArgument,
            "aggregate_by",
            lambda ns: ns.multi_query([{"aggregate_by": {HALF: ["Count"]}}]),
        ),
        (InvalidArgument, "aggregate_by", lambda ns: ns.aggregate({"n": ["Count", HALF]})),
        (InvalidArgument, "group_by", lambda ns: ns.aggregate({"n": ["Count"]}, group_by=[HALF])),
        (InvalidArgument, "include", lambda ns: ns.search(ROWS[0], include=[HALF])),
        (InvalidArgument, "exclude", lambda ns: list(ns.scan(exclude=[HALF]))),
        (InvalidArgument, "cursor", lambda ns: list(ns.scan(cursor=HALF))),
        (InvalidArgument, "order_by", lambda ns: ns.search(order_by=[HALF, "asc"])),
        (SchemaConflict, "attributes", lambda ns: ns.insert(ROWS[:1], attributes={"s": [HALF]})),
        (SchemaConflict, "attributes", lambda ns: ns.insert(ROWS[:1], attributes={"new": [HALF]})),
        (SchemaConflict, "attributes", lambda ns: ns.patch([0], {"s": [HALF]})),
        (
            SchemaConflict,
            "attributes",
            lambda ns: ns.patch(filter=["id", "Eq", 0], attributes={"s": HALF}),
        ),
    ],
)
def test_half_a_surrogate_pair_is_no_text(
    db: Database, error: type[VecstoreError], field: str, call: Callable[[Any], object]
) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:1], ids=[0], attributes={"s": ["ä\U0001f600"]})
    with pytest.raises(error) as refused:
        call(ns)
    assert refused.value.details["field"] == field
    assert ns.search(ROWS[0], include=["s"])[0].attributes == {"s": "ä\U0001f600"}


@pytest.mark.parametrize("given", ["no", 1, 0, None, [], np.int64(1)])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("debug", lambda ns, **o: ns.search(ROWS[0], **o)),
        ("debug", lambda ns, **o: ns.search_batch(ROWS[:1], **o)),
        ("debug", lambda ns, **o: ns.multi_query([{"vector": ROWS[0], **o}])),
        ("include_self", lambda ns, **o: ns.search(id=0, **o)),
        ("include_self", lambda ns, **o: ns.search(ROWS[0], **o)),
        ("include_self", lambda ns, **o: ns.multi_query([{"id": 0, **o}])),
        ("include_vector", lambda ns, **o: ns.get(0, **o)),
        ("return_ids", lambda ns, **o: ns.insert(ROWS[:1], **o)),
        ("return_ids", lambda ns, **o: ns.delete([0], **o)),
        ("return_ids", lambda ns, **o: ns.patch([0], {"a": [1]}, **o)),
        ("dry_run", lambda ns, **o: ns.gc(**o)),
    ],
)
def test_a_bool_is_one(db: Database, name: str, call: Callable[..., object], given: Any) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:1], ids=[0])
    epoch = ns.stats().epoch
    with pytest.raises(InvalidArgument) as refused:
        call(ns, **{name: given})
    assert (refused.value.message, refused.value.details["field"]) == (f"{name} must be true or false", name)
    assert ns.stats().epoch == epoch
    if name != "dry_run":  # garbage is not collected over HTTP
        call(ns, **{name: np.bool_(True)})


@pytest.mark.parametrize(
    ("given", "says", "limit"),
    [
        *(
            ((name, DIM), "name must be 1 to 128 of A-Z a-z 0-9 . _ -", 128)
            for name in (5, None, "", "x y", "a" * 129, "\ud800")
        ),
        *(
            (("docs", dim), "dim must be an integer from 1 to 4096", 4096)
            for dim in (0, -1, 4_097, 10**30, 3.0, "3", True, None)
        ),
        *(
            (("docs", DIM, metric), 'metric must be "cosine", "l2" or "dot"', ["cosine", "dot", "l2"])
            for metric in ("euclid", 5, None, ["l2"])
        ),
    ],
)
def test_a_namespace_that_cannot_be_made_is_refused_in_the_same_words(
    db: Database, given: tuple[Any, ...], says: str, limit: object
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        db.create_namespace(*given)
    assert refused.value.message.startswith(says)
    assert refused.value.details == {"field": says.partition(" ")[0], "limit": limit}
    assert list(db.namespaces()) == []


@pytest.mark.parametrize(
    ("field", "page"),
    [
        ("page_size", {"limit": "5"}),
        ("page_size", {"limit": 2.0}),
        ("page_size", {"limit": 0}),
        ("page_size", {"limit": True}),
        ("prefix", {"prefix": None}),
        ("prefix", {"prefix": "\ud800"}),
        ("after", {"after": 5}),
        ("after", {"after": "\ud800"}),
    ],
)
def test_a_page_that_cannot_be_is_refused(db: Database, field: str, page: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        db.namespaces_page(**page)
    assert refused.value.details["field"] == field


def test_a_server_samples_live_searches_if_it_is_told_to(tmp_path: Path) -> None:
    with (
        running_server(
            tmp_path / "data", "--workers", "1", "--no-maintenance", "--recall-sample-rate", "1"
        ) as server,
        vecstore.connect(server.url) as db,
    ):
        ns = db.create_namespace("docs", DIM, "l2")
        ns.insert(ROWS)
        assert ns.recall_estimate().sample_rate == 1.0
        ns.search(ROWS[0])
        ns.search_batch(ROWS[1:10])
        eventually("ten searches measured", lambda: ns.recall_estimate().queries == 10)
        found = ns.recall_estimate()
        assert (found.recall, found.epoch) == (1.0, ns.stats().epoch)
        assert found.since is not None
        assert found.until is not None
        assert found.since <= found.until
        assert ns.measure_recall(source="recent").queries == 10


# -- the transport -------------------------------------------------------------------------


def test_every_error_of_the_hierarchy_comes_back_as_itself() -> None:
    found = _classes()
    for kind in (VecstoreError, InvalidArgument, StorageRetryable, OutcomeUnknown, PayloadTooLarge):
        assert found[kind.code] is kind


def test_many_threads_share_a_handle(server: Server) -> None:
    with vecstore.connect(server.url) as db:
        ns = db.create_namespace("threads", DIM, "l2")
        ns.insert(ROWS, ids=np.arange(50))
        wrong: list[int] = []

        def ask(first: int) -> None:
            for i in range(first, 50, 8):
                if ns.search(ROWS[i], top_k=1).ids.tolist() != [i]:
                    wrong.append(i)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        db.delete_namespace("threads")
    assert wrong == []


def test_a_forked_child_uses_the_handle_on_connections_of_its_own(server: Server) -> None:
    with vecstore.connect(server.url) as db:
        ns = db.create_namespace("fork", DIM, "l2")
        ns.insert(ROWS, ids=np.arange(50))
        child = os.fork()
        if child == 0:
            good = all(ns.search(ROWS[i], top_k=1).ids[0] == i for i in range(20))
            os._exit(0 if good else 1)
        good = all(ns.search(ROWS[i], top_k=1).ids[0] == i for i in range(20, 40))
        assert good
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        db.delete_namespace("fork")


class Scripted:
    """A server of one thread that answers each request as its script says, or hangs up on None.

    Whoever connects after the last answer waits, or is refused if it ``ends`` with its script.
    """

    def __init__(self, *answers: bytes | None, ends: bool = False) -> None:
        self.requests: list[bytes] = []
        self._ends = ends
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number, answer in enumerate(self._answers, start=1):
            connection, _ = self._listener.accept()
            if self._ends and number == len(self._answers):
                self._listener.close()
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65_536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = next(
                    (int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0
                )
                while len(body) < length:
                    body += connection.recv(65_536)
                self.requests.append(head + b"\r\n\r\n" + body)
                if answer is not None:
                    connection.sendall(answer)

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._thread.join(10)
        self._listener.close()


def said(status: str, body: bytes, *headers: bytes) -> bytes:
    lines = [
        b"HTTP/1.1 " + status.encode(),
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


INSERTED = said(
    "201 Created", b'{"part_id":"p","n":1,"epoch":2,"upserted":0,"inserted":1,"skipped":0}', b'ETag: "abc-2"'
)
BUSY = said("503 Service Unavailable", b'{"code":"storage_unavailable","message":"later","details":{}}')
FOUND = said("200 OK", b'{"epoch":2,"hits":[{"id":1,"distance":0.5}]}', b'ETag: "abc-2"')


def insert(backend: HttpBackend, key: str | None) -> Any:
    return backend.insert("docs", ROWS[:1], [1], mode="upsert", expected=None, idempotency_key=key)


def test_a_search_is_sent_again_after_a_reset_and_after_503() -> None:
    with Scripted(None, BUSY, FOUND) as server:
        hits = HttpBackend(server.url).search("docs", ROWS[0], vecstore.api.SearchParams())
    assert hits.ids.tolist() == [1]
    assert len(server.requests) == 3


def test_an_etag_that_a_proxy_made_weak_is_understood() -> None:
    weak = INSERTED.replace(b'ETag: "', b'ETag: W/"')
    with Scripted(weak) as server:
        assert insert(HttpBackend(server.url), None).incarnation == "abc"


def test_an_answer_without_hits_of_an_earlier_server_is_understood() -> None:
    nothing = said("200 OK", b'{"epoch":2,"hits":[]}', b'ETag: "abc-2"')
    with Scripted(nothing) as server:
        params = vecstore.api.SearchParams(include=("vector",))
        hits = HttpBackend(server.url).search("docs", ROWS[0], params)
    assert (hits.ids.dtype, hits.vectors.shape) == (np.uint64, (0, 0))


class Patient(Pooled):
    """Does not sleep, but remembers how long it should have."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.slept: list[float] = []
        PATIENT.append(self)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


PATIENT: list[Patient] = []


def hurried(seconds: bytes) -> bytes:
    body = b'{"code":"too_many_requests","message":"later","details":{"limit":1}}'
    return said("429 Too Many Requests", body, b"Retry-After: " + seconds)


def test_who_is_told_when_to_come_back_comes_back_then() -> None:
    with Scripted(hurried(b"2"), hurried(b"soon"), FOUND) as server:
        backend = HttpBackend(server.url, transport=Patient)
        assert backend.search("docs", ROWS[0], vecstore.api.SearchParams()).ids.tolist() == [1]
    first, second = PATIENT[-1].slept
    assert 2.0 <= first < 2.5
    assert second < 0.5


def test_who_is_told_to_come_back_much_later_is_not_kept_waiting() -> None:
    with Scripted(hurried(b"60")) as server, pytest.raises(TooManyRequests) as refused:
        HttpBackend(server.url, transport=Patient).search("docs", ROWS[0], vecstore.api.SearchParams())
    assert refused.value.details == {"limit": 1, "retry_after": 60}
    assert PATIENT[-1].slept == []


def test_a_write_with_a_key_is_sent_again_with_the_same_key() -> None:
    with Scripted(None, BUSY, INSERTED) as server:
        done = insert(HttpBackend(server.url), "key-1")
    assert (done.part_id, done.incarnation) == ("p", "abc")
    assert len(server.requests) == 3
    assert all(b"Idempotency-Key: key-1" in request for request in server.requests)


def test_a_write_without_a_key_is_sent_once_and_its_outcome_is_unknown() -> None:
    with Scripted(None) as server, pytest.raises(OutcomeUnknown):
        insert(HttpBackend(server.url), None)
    assert len(server.requests) == 1
    with Scripted(BUSY) as server, pytest.raises(StorageRetryable):
        insert(HttpBackend(server.url), None)
    assert len(server.requests) == 1


@pytest.mark.parametrize("last", [BUSY, None], ids=["refused", "no answer"])
def test_a_write_of_which_one_attempt_may_have_been_applied_is_not_said_to_have_failed(
    last: bytes | None,
) -> None:
    with Scripted(None, last) as server, pytest.raises(OutcomeUnknown):
        insert(HttpBackend(server.url, attempts=2), "key-1")
    assert len(server.requests) == 2


def test_a_write_whose_server_is_gone_when_it_is_sent_again_is_not_said_to_have_failed() -> None:
    with Scripted(None, ends=True) as server, pytest.raises(OutcomeUnknown):
        insert(HttpBackend(server.url, attempts=2), "key-1")
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["key-1", None])
def test_a_write_that_a_proxy_gave_up_is_not_said_to_have_failed(key: str | None) -> None:
    with Scripted(said("504 Gateway Timeout", b"<html>")) as server, pytest.raises(OutcomeUnknown):
        insert(HttpBackend(server.url, attempts=1), key)


@pytest.mark.parametrize("name", ["search", "recall"])
@pytest.mark.parametrize("answer", [None, said("504 Gateway Timeout", b"<html>")], ids=["none", "proxy"])
def test_a_namespace_may_have_the_name_of_a_read(name: str, answer: bytes | None) -> None:
    with Scripted(answer) as server, pytest.raises(OutcomeUnknown):
        HttpBackend(server.url, attempts=1).delete(name, expected=None)


def test_a_write_whose_last_attempt_met_a_failure_of_the_server_is_not_said_to_have_failed() -> None:
    broken = said("500 Internal Server Error", b'{"code": "internal", "message": "m", "details": {}}')
    with Scripted(None, broken) as server, pytest.raises(OutcomeUnknown):
        insert(HttpBackend(server.url, attempts=2), "key-1")


def test_a_write_that_is_refused_for_good_when_it_is_sent_again_was_not_applied_before() -> None:
    mismatch = said("422 Unprocessable", b'{"code": "idempotency_mismatch", "message": "m", "details": {}}')
    with Scripted(None, mismatch) as server, pytest.raises(IdempotencyMismatch):
        insert(HttpBackend(server.url, attempts=2), "key-1")


def test_a_write_whose_answer_is_cut_off_has_an_unknown_outcome() -> None:
    cut = said("201 Created", b'{"part_id":"p","n":1,"epo')
    with Scripted(cut) as server, pytest.raises(OutcomeUnknown, match="cut off"):
        insert(HttpBackend(server.url), None)
    with Scripted(cut, INSERTED) as server:
        assert insert(HttpBackend(server.url), "key-1").part_id == "p"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidArgument),
        (401, Unauthenticated),
        (404, RouteNotFound),
        (409, VecstoreError),
        (413, PayloadTooLarge),
        (429, TooManyRequests),
        (500, VecstoreError),
        (503, ServerUnavailable),
    ],
)
@pytest.mark.parametrize("body", [b'{"code":"newer","message":"m","details":{"of":1}}', b"<html>"])
def test_an_error_of_a_code_that_is_not_known_is_taken_by_its_status(
    status: int, kind: type[VecstoreError], body: bytes
) -> None:
    with Scripted(said(f"{status} X", body)) as server, pytest.raises(VecstoreError) as refused:
        HttpBackend(server.url, attempts=1).info("docs")
    error = refused.value
    assert type(error) is kind
    assert error.status == status
    if body != b"<html>":
        assert (error.code, error.message, error.details) == ("newer", "m", {"of": 1})
    assert kind("of ours").status == kind.status  # others have what their class says


def test_a_read_that_is_refused_in_passing_is_sent_again_whatever_the_code() -> None:
    newer = said("503 X", b'{"code":"newer","message":"m","details":{}}')
    with Scripted(newer, FOUND) as server:
        assert len(HttpBackend(server.url).search("docs", ROWS[0], vecstore.api.SearchParams())) == 1
    with Scripted(newer) as server, pytest.raises(OutcomeUnknown):
        insert(HttpBackend(server.url), None)


def test_attempts_are_bounded() -> None:
    with Scripted(*[BUSY] * 4) as server, pytest.raises(StorageRetryable):
        HttpBackend(server.url, attempts=4).info("docs")
    assert len(server.requests) == 4


def test_a_server_that_is_not_there_is_named_for_reads_and_writes_alike() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    backend = HttpBackend(url, attempts=2)
    with pytest.raises(ServerUnavailable, match=url):
        backend.info("docs")
    with pytest.raises(ServerUnavailable, match=url):
        insert(backend, None)


def test_a_server_that_does_not_answer_in_time_is_a_read_that_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(ServerUnavailable, match="did not answer"):
            HttpBackend(url, timeout=0.1, attempts=1).ping()


def test_answers_that_are_not_ours_are_errors() -> None:
    with Scripted(said("200 OK", b"<html>")) as server, pytest.raises(VecstoreError, match="not one of"):
        HttpBackend(server.url).info("docs")
    with Scripted(said("418 Teapot", b"<html>")) as server, pytest.raises(VecstoreError, match="HTTP 418"):
        HttpBackend(server.url).info("docs")
    with Scripted(said("502 Bad", b"<html>")) as server, pytest.raises(ServerUnavailable, match="HTTP 502"):
        HttpBackend(server.url, attempts=1).info("docs")


# pragma: allowlist nextline secret
@pytest.mark.parametrize("url", ["http://", "http://h?x=1", "http://user:pw@h", "http://h#f"])
def test_urls_that_are_no_server_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        HttpBackend(url)
    assert caught.value.details["field"] == "url"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", value) for value in (0, -1, True, "1", None, math.inf, math.nan, 1e10, 10**400)),
        *(("api_key", value) for value in (5, "", "a b", b"key")),
        *(("attempts", value) for value in (0, 1.5, True)),
        ("colour", 1),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    for connect in (vecstore.connect, vecstore.aio.connect):
        with pytest.raises(InvalidArgument) as refused:
            connect("http://127.0.0.1:1", **{name: value})
        assert refused.value.details["field"] == name


def test_the_scheme_of_a_server_may_be_in_upper_case(server: Server) -> None:
    shouted = server.url.replace("http", "HTTP")
    with vecstore.connect(shouted) as db:
        assert list(db.namespaces()) == []

    async def listed() -> list[str]:
        async with vecstore.aio.connect(shouted) as db:
            return [info.name async for info in db.namespaces()]

    assert asyncio.run(listed()) == []


def test_what_http_does_not_do_is_refused() -> None:
    backend = HttpBackend("http://127.0.0.1:1")
    with pytest.raises(InvalidArgument, match="vecstore gc"):
        backend.collect("docs", retention=0, grace=0, dry_run=True)
    with pytest.raises(InvalidArgument, match="incarnation"):
        backend.delete("docs", incarnation="abc")
    with pytest.raises(InvalidArgument, match="ASCII"):
        insert(backend, "ключ")
    with pytest.raises(InvalidArgument, match="name"):
        backend.info("../x")


def test_a_batch_beyond_the_body_limit_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecstore.client.MAX_BODY_BYTES", 50)
    with pytest.raises(PayloadTooLarge) as caught:
        insert(HttpBackend("http://127.0.0.1:1"), None)
    assert caught.value.details["limit"] == 50


def test_what_one_server_acknowledges_another_finds(tmp_path: Path) -> None:
    store = tmp_path / "data"
    with running_server(store, "--workers", "1") as one, running_server(store, "--workers", "1") as two:
        writer, reader = vecstore.connect(one.url), vecstore.connect(two.url)
        ns = writer.create_namespace("docs", DIM, "l2")
        for i in range(5):
            ns.insert(ROWS[i : i + 1], ids=[i])
            assert reader.namespace("docs").search(ROWS[i], top_k=1).ids.tolist() == [i]


def test_progress_ascends_to_one(db: Database) -> None:
    ns = db.create_namespace("progress", dim=DIM)
    seen: list[float] = []
    for rows in (ROWS[:30], ROWS[30:]):
        ns.insert(rows, progress=seen.append)
        assert seen[-1] == 1.0
        assert seen == sorted(seen)
        seen.clear()
    assert ns.compact(progress=seen.append).rows == len(ROWS)
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
