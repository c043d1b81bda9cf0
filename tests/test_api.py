"""The public Python API over an embedded store: what it takes, and what it refuses (issue point 8)."""

from __future__ import annotations

import random
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecstore
from tests.core import database
from vecstore.api import Database, Namespace
from vecstore.errors import (
    DimensionMismatch,
    IdExists,
    InvalidArgument,
    InvalidId,
    InvalidVector,
    NamespaceExists,
    NamespaceNotFound,
    PreconditionFailed,
    RowNotFound,
    VecstoreError,
)
from vecstore.maintenance.policy import Policy
from vecstore.types import CompactResult

ROWS = np.arange(1, 31, dtype=np.float32).reshape(10, 3)


@pytest.fixture
def db() -> Database:
    return database()


@pytest.fixture
def ns(db: Database) -> Namespace:
    made = db.create_namespace("docs", dim=3, metric="cosine")
    made.insert(ROWS, range(10))
    return made


# -- what is taken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vectors",
    [
        ROWS.tolist(),
        ROWS.astype(np.float16),
        ROWS.astype(np.float64),
        ROWS.astype(np.int32),
        np.asfortranarray(ROWS),
        np.frombuffer(b"-" + ROWS.tobytes(), dtype=np.float32, offset=1).reshape(ROWS.shape),
        np.repeat(ROWS, 2, axis=0)[::2],
        [tuple(row) for row in ROWS.tolist()],
    ],
)
def test_vectors_may_be_whatever_numpy_turns_into_numbers(db: Database, vectors: Any) -> None:
    ns = db.create_namespace("any", dim=3, metric="l2")
    ns.insert(vectors, ids=range(10))
    for i in range(10):
        np.testing.assert_array_equal(ns.get(i).vector, ROWS[i])
    assert ns.search(vectors[4], top_k=1).ids.tolist() == [4]
    assert ns.search_batch(vectors, top_k=1).ids[:, 0].tolist() == list(range(10))


def test_hits_are_arrays_and_objects(ns: Namespace) -> None:
    hits = ns.search(ROWS[2], top_k=4, include=["vector"])
    assert hits.ids.dtype == np.uint64
    assert hits.distances.dtype == np.float32
    assert len(hits) == len(hits.rows) == len(list(hits)) == 4
    assert hits[0].id == 2
    assert isinstance(hits[0].id, int)
    assert hits[0].distance == pytest.approx(0.0, abs=1e-6)
    assert [hit.id for hit in hits[1:3]] == hits.ids[1:3].tolist()
    assert hits[-1].distance == hits.distances[-1]
    np.testing.assert_array_equal(hits[0].vector, ROWS[2])


@pytest.mark.parametrize("include", [(), ["vector"], ["vector", "n"]])
def test_results_are_equal_if_they_hold_the_same(db: Database, include: Any) -> None:
    ns = db.create_namespace("docs", 3, "l2")
    first = ns.insert(ROWS, attributes={"n": list(range(10))}, idempotency_key="k")
    assert first == ns.insert(ROWS, attributes={"n": list(range(10))}, idempotency_key="k")
    assert first != ns.insert(ROWS, idempotency_key="other")

    hits, others = ns.search(ROWS[2], include=include), ns.search(ROWS[3], include=include)
    assert hits == ns.search(ROWS[2], include=include)
    assert hits != others
    assert hits != list(hits)
    assert hits[3] in hits
    assert (hits.index(hits[3]), hits.count(hits[3])) == (3, 1)
    assert hits[0] != hits[1]
    assert ns.search(order_by=["n", "asc"]) == ns.search(order_by=["n", "asc"])  # without distances
    batch = ns.search_batch(ROWS, include=include)
    assert batch == ns.search_batch(ROWS, include=include)
    assert batch != ns.search_batch(ROWS[::-1], include=include)
    assert batch[2] == hits

    (page,) = ns.scan(include=include).pages()
    assert page == next(ns.scan(include=include).pages())
    assert page != next(ns.scan(include=include, limit=3).pages())
    assert page.index(page[4]) == 4
    assert ns.get(5) == ns.get(5)
    assert ns.get(5) != ns.get(6)
    assert ns.get(5) != ns.get(5, include_vector=False)
    assert ns.search(ROWS[2]) != ns.search(ROWS[2], include=["vector"])


def test_strings_that_are_ids_make_equal_hits(db: Database) -> None:
    ns = db.create_namespace("docs", 3, "l2", store_vectors="none")
    ns.insert(ROWS, [f"row {i}" for i in range(10)])
    hits = ns.search(ROWS[2], include=["vector"])
    assert np.isnan(hits.vectors).all()
    assert hits == ns.search(ROWS[2], include=["vector"])
    assert hits[1] in hits
    assert len(set(ns.search(ROWS[2]))) == 10


def test_numbers_of_numpy_are_numbers(ns: Namespace) -> None:
    hits = ns.search(
        ROWS[2],
        top_k=np.int64(3),  # type: ignore[arg-type]
        nprobe=np.int32(1),  # type: ignore[arg-type]
        rerank_scale=np.float32(2.0),  # type: ignore[arg-type]
        epoch=np.uint64(ns.stats().epoch),  # type: ignore[arg-type]
    )
    assert len(hits) == 3
    assert ns.get(np.uint64(3)).id == 3  # type: ignore[arg-type]
    counted = ns.aggregate({"n": ["Count"]}, consistency="eventual", max_staleness=np.float32(1))
    assert counted.values == {"n": 10}
    assert ns.gc(retention=np.float32(3600), grace=np.int64(3600)).deleted == 0


class Name(str, Enum):  # noqa: UP042  # of a StrEnum str() is the value
    """Equal to its value, but of another text."""

    DOCS = "docs"
    COPY = "copy"
    COSINE = "cosine"
    FP16 = "fp16"
    INT = "int"
    YEAR = "year"
    A = "a"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("kind", [Name, Text, np.str_])
def test_strings_of_any_kind_are_strings(db: Database, kind: Any) -> None:
    ns = db.create_namespace(
        kind("docs"), 3, kind("cosine"), schema={kind("year"): kind("int")}, store_vectors=kind("fp16")
    )
    assert (type(ns.name), ns.name) == (str, "docs")
    ids = [kind("a"), "b"]
    years = {kind("year"): [1, 2]}
    first = ns.insert(ROWS[:2], ids, attributes=years, idempotency_key=kind("a"), return_ids=True)
    assert first.affected_ids == ["a", "b"]
    again = ns.insert(ROWS[:2], ["a", "b"], attributes={"year": [1, 2]}, idempotency_key="a")
    assert again.part_id == first.part_id
    assert ns.patch(ids, [{kind("year"): 5}, {"year": 6}], idempotency_key=kind("copy")).patched == 2
    assert ns.get(kind("a")).id == "a"
    assert ns.search(ROWS[0], include=[kind("year")])[0].attributes == {"year": 5}
    assert ns.search(order_by=[kind("year"), "asc"], include=(kind("year"),))[0].attributes == {"year": 5}
    assert ns.aggregate({kind("a"): ["Count"]}, group_by=[kind("year")]).groups == [
        {"year": 5, "a": 1},
        {"year": 6, "a": 1},
    ]
    assert ns.tag(kind("docs")).name == "docs"
    assert ns.branch(kind("copy")).name == "copy"
    ns.untag(kind("docs"))
    assert ns.delete([kind("a")], idempotency_key=kind("docs"), return_ids=True).affected_ids == ["a"]
    fresh = database(db.backend.store)  # type: ignore[attr-defined]
    assert [one.name for one in fresh.namespaces()] == ["copy", "docs"]
    assert fresh.namespace("docs").stats() == ns.stats()
    assert fresh.namespace("docs").stats().schema == {"year": {"type": "int", "filterable": True}}
    db.delete_namespace(kind("docs"))
    assert [one.name for one in db.namespaces()] == ["copy"]


@pytest.mark.parametrize(
    "key", [5, b"a", "", "\ud800", ["a"], " a", "a ", "a\t", " ", "\xa0a", "a\nb", "a\0"]
)
def test_an_idempotency_key_is_a_string(ns: Namespace, key: Any) -> None:
    before = ns.stats()
    for write in (
        lambda: ns.insert(ROWS, range(10), idempotency_key=key),
        lambda: ns.patch([1], {"n": [1]}, idempotency_key=key),
        lambda: ns.delete([1], idempotency_key=key),
    ):
        with pytest.raises(InvalidArgument) as error:
            write()
        assert error.value.details == {"field": "idempotency_key", "limit": 128}
    assert ns.stats() == before


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"top_k": 1}, {"top_k": True}),
        ({"top_k": 1}, {"top_k": 1.0}),
        ({"top_k": 1}, {"top_k": np.float64(1)}),
        ({"top_k": np.int64(1)}, {"top_k": np.bool_(True)}),
        ({"top_k": 1}, {"top_k": np.array(1)}),
        ({"nprobe": 1}, {"nprobe": True}),
        ({"nprobe": 1}, {"nprobe": 1.0}),
        ({"probe_fraction": 1.0}, {"probe_fraction": True}),
        ({"probe_fraction": 1}, {"probe_fraction": True}),
        ({"rerank_scale": 0}, {"rerank_scale": False}),
        ({"max_staleness": 1}, {"max_staleness": True}),
        ({"epoch": 1}, {"epoch": True}),
        ({"epoch": 1}, {"epoch": 1.0}),
        ({"include": ["vector"]}, {"include": "vector"}),
        ({"include": ("vector",)}, {"include": {"vector"}}),
        ({"include": ()}, {"include": np.array(["vector"])}),
        ({"include": ()}, {"include": np.array(["vector", "vector"])}),
        ({"include": []}, {"include": [["vector"]]}),
        ({"include": []}, {"include": {}}),
        ({"rerank_precision": "int8"}, {"rerank_precision": ["int8"]}),
        ({"consistency": "strong"}, {"consistency": {}}),
    ],
    ids=lambda options: "-".join(f"{name}={value!r}" for name, value in options.items()),
)
def test_a_search_that_went_well_lets_none_in_that_is_only_equal(
    ns: Namespace, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    """Parameters that were checked once are remembered; 1 == True == 1.0, and all have one hash."""
    (name,) = bad
    if name == "epoch":
        good = {"epoch": ns.stats().epoch}
        bad = {"epoch": type(bad["epoch"])(ns.stats().epoch)}
    for f in (None, None, ["id", "Gt", 1], ["id", "Gt", 2]):
        ns.search(ROWS[0], filter=f, **good)
        with pytest.raises(InvalidArgument) as caught:
            ns.search(ROWS[0], filter=f, **bad)
        assert caught.value.details["field"] == name


def test_a_search_that_was_refused_is_refused_again_and_stops_no_other(ns: Namespace) -> None:
    for _ in range(3):
        with pytest.raises(InvalidArgument):
            ns.search(ROWS[0], top_k=0)
        assert len(ns.search(ROWS[0], top_k=1)) == 1


def test_searches_at_once_each_have_their_own_options(ns: Namespace) -> None:
    """What is remembered of one search is never the answer to another."""
    rng = random.Random(4)
    asked = [(rng.randint(1, 40), rng.random() < 0.5, rng.random() < 0.5) for _ in range(300)]

    def search(options: tuple[int, bool, bool]) -> tuple[int, bool, bool]:
        top_k, vectors, debug = options
        hits = ns.search(ROWS[1], top_k=top_k, include=["vector"] if vectors else [], debug=debug)
        assert hits[0].id == 1
        return len(hits), hits[0].vector is not None, hits.debug is not None

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(search, asked))
    assert found == [(min(top_k, len(ROWS)), vectors, debug) for top_k, vectors, debug in asked]


def test_namespaces_are_listed_by_name(db: Database) -> None:
    for name in ("b", "a2", "a10", "c"):
        db.create_namespace(name, dim=2)
    db.delete_namespace("c")
    assert [info.name for info in db.namespaces()] == ["a10", "a2", "b"]
    assert [info.name for info in db.namespaces("a")] == ["a10", "a2"]
    assert [info.name for info in db.namespaces_page(limit=2)] == ["a10", "a2"]
    assert [info.name for info in db.namespaces_page(after="a10", limit=2)] == ["a2", "b"]
    assert list(db.namespaces("zz")) == []


def test_a_name_can_be_used_again_after_deletion(db: Database, ns: Namespace) -> None:
    first = ns.stats().incarnation
    db.delete_namespace("docs")
    for use in (ns.stats, lambda: ns.search(ROWS[0]), lambda: ns.insert(ROWS), lambda: ns.get(1)):
        with pytest.raises(NamespaceNotFound):
            use()
    again = db.create_namespace("docs", dim=2, metric="l2")
    assert again.stats().incarnation != first
    assert again.stats().rows == 0
    again.insert([[1, 2]], ["s"])
    assert again.search([1, 2]).ids.tolist() == ["s"]


def test_defaults_given_at_creation_are_kept(db: Database) -> None:
    made = db.create_namespace("tuned", dim=2, rerank_precision="fp32", target_recall=None, k_max=7)
    kept = made.stats().defaults
    assert (kept["rerank_precision"], kept["target_recall"], kept["k_max"]) == ("fp32", None, 7)
    assert made.stats().metric == "cosine"


@pytest.mark.parametrize("scheme", ["path", "file", "memory"])
def test_what_one_handle_wrote_another_finds(scheme: str, tmp_path: Path) -> None:
    memory = f"memory://{uuid.uuid4().hex}"
    url = {"path": str(tmp_path / "d"), "file": f"file://{tmp_path}/d", "memory": memory}[scheme]
    with vecstore.connect(url, maintenance="off") as one:
        one.create_namespace("ns", dim=3).insert(ROWS, range(10))
    with vecstore.connect(url) as two:
        assert two.namespace("ns").search(ROWS[5], top_k=1).ids.tolist() == [5]
    two.close()


def test_importing_vecstore_loads_neither_boto3_nor_flask() -> None:
    code = "import sys, vecstore; print([m for m in ('boto3', 'botocore', 'flask') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# -- what is refused ------------------------------------------------------------------------

Use = Callable[[Database, Namespace], object]
NAN = np.full((1, 3), np.nan)
MANY = [[0.0, 1.0, 2.0]]

# What is done, the error, and what its message and its details say.
REFUSED: list[tuple[str, Use, type[VecstoreError], str]] = [
    ("fewer dimensions", lambda db, ns: ns.insert([[1, 2]], [1]), DimensionMismatch, "vectors"),
    ("more dimensions", lambda db, ns: ns.insert([[1, 2, 3, 4]], [1]), DimensionMismatch, "vectors"),
    ("one vector for a batch", lambda db, ns: ns.insert([1, 2, 3], [1]), DimensionMismatch, "vectors"),
    ("ragged", lambda db, ns: ns.insert([[1, 2, 3], [1]], [1, 2]), DimensionMismatch, "vectors"),
    ("no rows", lambda db, ns: ns.insert(np.empty((0, 3)), []), InvalidArgument, "vectors"),
    ("nan", lambda db, ns: ns.insert(NAN, [1]), InvalidVector, "vectors"),
    ("infinity", lambda db, ns: ns.insert([[1, 2, np.inf]], [1]), InvalidVector, "vectors"),
    ("too long", lambda db, ns: ns.insert([[1e30, 0, 0]], [1]), InvalidVector, "vectors"),
    ("zero under cosine", lambda db, ns: ns.insert([[0, 0, 0]], [1]), InvalidVector, "vectors"),
    ("strings as vectors", lambda db, ns: ns.insert([["a", "b", "c"]], [1]), InvalidArgument, "vectors"),
    ("none as vectors", lambda db, ns: ns.insert(None, [1]), InvalidArgument, "vectors"),  # type: ignore[arg-type]
    ("booleans", lambda db, ns: ns.insert([[True, False, True]], [1]), InvalidArgument, "vectors"),
    ("complex", lambda db, ns: ns.insert([[1j, 1, 1]], [1]), InvalidArgument, "vectors"),
    ("mixed ids", lambda db, ns: ns.insert(ROWS[:2], [1, "a"]), InvalidId, "ids"),
    ("ids of the other kind", lambda db, ns: ns.insert(ROWS[:1], ["a"]), InvalidId, "ids"),
    ("an id twice", lambda db, ns: ns.insert(ROWS[:2], [77, 77]), InvalidId, "ids"),
    ("an id too long", lambda db, ns: ns.insert(ROWS[:1], ["x" * 65]), InvalidId, "ids"),
    ("an empty id", lambda db, ns: ns.insert(ROWS[:1], [""]), InvalidId, "ids"),
    ("a negative id", lambda db, ns: ns.insert(ROWS[:1], [-1]), InvalidId, "ids"),
    ("an id of 65 bits", lambda db, ns: ns.insert(ROWS[:1], [2**64]), InvalidId, "ids"),
    ("a float as id", lambda db, ns: ns.insert(ROWS[:1], [1.5]), InvalidId, "ids"),
    ("a boolean as id", lambda db, ns: ns.insert(ROWS[:1], [True]), InvalidId, "ids"),
    ("fewer ids", lambda db, ns: ns.insert(ROWS[:2], [1]), InvalidId, "ids"),
    ("more ids", lambda db, ns: ns.insert(ROWS[:1], [1, 2]), InvalidId, "ids"),
    ("a string for ids", lambda db, ns: ns.insert(ROWS[:3], "abc"), InvalidId, "ids"),
    ("a number for ids", lambda db, ns: ns.insert(ROWS[:1], 5), InvalidId, "ids"),  # type: ignore[arg-type]
    ("unknown mode", lambda db, ns: ns.insert(ROWS[:1], [1], mode="x"), InvalidArgument, "mode"),  # type: ignore[arg-type]
    (
        "an id that exists",
        lambda db, ns: ns.insert(ROWS[:1], [3], mode="insert"),
        IdExists,
        "ids[0]: id 3 exists",
    ),
    (
        "a stale epoch",
        lambda db, ns: ns.insert(ROWS[:1], [1], if_match=("x", 1)),
        PreconditionFailed,
        "epoch",
    ),
    (
        "an idempotency key too long",
        lambda db, ns: ns.insert(ROWS[:1], [1], idempotency_key="k" * 129),
        InvalidArgument,
        "idempotency",
    ),
    ("no ids to delete", lambda db, ns: ns.delete([]), InvalidId, "ids"),
    ("ids to delete of the other kind", lambda db, ns: ns.delete(["a"]), InvalidId, "ids"),
    ("an id to delete twice", lambda db, ns: ns.delete([1, 1]), InvalidId, "ids"),
    ("a row that is not there", lambda db, ns: ns.get(99), RowNotFound, "99"),
    ("a row id of the other kind", lambda db, ns: ns.get("a"), InvalidId, "id"),
    ("a row id that is none", lambda db, ns: ns.get(1.5), InvalidId, "id"),  # type: ignore[arg-type]
    ("a query of other dimensions", lambda db, ns: ns.search([1, 2]), DimensionMismatch, "vector"),
    ("a query in two dimensions", lambda db, ns: ns.search(ROWS), DimensionMismatch, "vector"),
    ("a query of nan", lambda db, ns: ns.search(NAN[0]), InvalidVector, "vector"),
    ("a query of zero", lambda db, ns: ns.search([0, 0, 0]), InvalidVector, "vector"),
    ("a query that is none", lambda db, ns: ns.search(None), InvalidArgument, "vector"),  # type: ignore[arg-type]
    ("a batch of one vector", lambda db, ns: ns.search_batch([1, 2, 3]), DimensionMismatch, "vectors"),
    ("too many queries", lambda db, ns: ns.search_batch(MANY * 10_001), InvalidArgument, "vectors"),
    ("no top_k", lambda db, ns: ns.search(ROWS[0], 0), InvalidArgument, "top_k"),
    ("a huge top_k", lambda db, ns: ns.search(ROWS[0], 10_001), InvalidArgument, "top_k"),
    ("half a top_k", lambda db, ns: ns.search(ROWS[0], 2.5), InvalidArgument, "top_k"),  # type: ignore[arg-type]
    ("top_k of true", lambda db, ns: ns.search(ROWS[0], True), InvalidArgument, "top_k"),
    ("no share", lambda db, ns: ns.search(ROWS[0], probe_fraction=0), InvalidArgument, "probe_fraction"),
    (
        "more than all",
        lambda db, ns: ns.search(ROWS[0], probe_fraction=1.1),
        InvalidArgument,
        "probe_fraction",
    ),
    ("no probe", lambda db, ns: ns.search(ROWS[0], nprobe=0), InvalidArgument, "nprobe"),
    ("a recall of 1", lambda db, ns: ns.search(ROWS[0], target_recall=1.0), InvalidArgument, "target_recall"),
    ("recall nan", lambda db, ns: ns.search(ROWS[0], target_recall=np.nan), InvalidArgument, "target_recall"),
    ("a scale below 0", lambda db, ns: ns.search(ROWS[0], rerank_scale=-1), InvalidArgument, "rerank_scale"),
    ("no float", lambda db, ns: ns.search(ROWS[0], rerank_scale=10**400), InvalidArgument, "rerank_scale"),
    (
        "no distance",
        lambda db, ns: ns.search(ROWS[0], max_distance=-(10**400)),
        InvalidArgument,
        "max_distance",
    ),
    ("no moment", lambda db, ns: ns.search(ROWS[0], max_staleness=10**400), InvalidArgument, "max_staleness"),
    ("NaN as retention", lambda db, ns: ns.gc(retention=np.nan), InvalidArgument, "retention"),
    ("a text as grace", lambda db, ns: ns.gc(grace="1"), InvalidArgument, "grace"),  # type: ignore[arg-type]
    ("a huge scale", lambda db, ns: ns.search(ROWS[0], rerank_scale=1e9), InvalidArgument, "rerank_scale"),
    (
        "unknown precision",
        lambda db, ns: ns.search(ROWS[0], rerank_precision="fp8"),  # type: ignore[arg-type]
        InvalidArgument,
        "rerank_precision",
    ),
    (
        "unknown consistency",
        lambda db, ns: ns.search(ROWS[0], consistency="weak"),  # type: ignore[arg-type]
        InvalidArgument,
        "consistency",
    ),
    ("stale below 0", lambda db, ns: ns.search(ROWS[0], max_staleness=-1), InvalidArgument, "max_staleness"),
    ("epoch 0", lambda db, ns: ns.search(ROWS[0], epoch=0), InvalidArgument, "epoch"),
    ("an epoch to come", lambda db, ns: ns.search(ROWS[0], epoch=99), InvalidArgument, "epoch"),
    ("unknown include", lambda db, ns: ns.search(ROWS[0], include=["text"]), InvalidArgument, "include"),
    ("a string as include", lambda db, ns: ns.search(ROWS[0], include="vector"), InvalidArgument, "include"),
    ("a number as include", lambda db, ns: ns.search(ROWS[0], include=5), InvalidArgument, "include"),  # type: ignore[arg-type]
    ("none as include", lambda db, ns: ns.search_batch(ROWS, include=None), InvalidArgument, "include"),
    ("unknown option", lambda db, ns: ns.search_batch(ROWS, depth=3), InvalidArgument, "depth"),
    ("name of a parent", lambda db, ns: db.create_namespace("../x", dim=3), InvalidArgument, "name"),
    ("no name", lambda db, ns: db.create_namespace("", dim=3), InvalidArgument, "name"),
    ("a long name", lambda db, ns: db.create_namespace("x" * 129, dim=3), InvalidArgument, "name"),
    ("a name twice", lambda db, ns: db.create_namespace("docs", dim=3), NamespaceExists, "docs"),
    ("no dimension", lambda db, ns: db.create_namespace("x", dim=0), InvalidArgument, "dim"),
    ("a huge dimension", lambda db, ns: db.create_namespace("x", dim=4_097), InvalidArgument, "dim"),
    (
        "unknown metric",
        lambda db, ns: db.create_namespace("x", dim=3, metric="l1"),  # type: ignore[arg-type]
        InvalidArgument,
        "metric",
    ),
    ("unknown setting", lambda db, ns: db.create_namespace("x", dim=3, lists=3), InvalidArgument, "lists"),
    (
        "setting out of bounds",
        lambda db, ns: ns.update(probe_fraction=2.0),
        InvalidArgument,
        "probe_fraction",
    ),
    ("setting of another type", lambda db, ns: ns.update(k_max="7"), InvalidArgument, "k_max"),
    ("settings that disagree", lambda db, ns: ns.update(k_min=9, k_max=3), InvalidArgument, "k_min"),
    ("missing namespace", lambda db, ns: db.namespace("absent"), NamespaceNotFound, "absent"),
    ("deleting what is missing", lambda db, ns: db.delete_namespace("absent"), NamespaceNotFound, "absent"),
    (
        "a page too large",
        lambda db, ns: db.namespaces_page(limit=1_001),
        InvalidArgument,
        "page_size",
    ),
    ("an old epoch of the manifest", lambda db, ns: ns.manifest(77), InvalidArgument, "epoch"),
    ("retention below 0", lambda db, ns: ns.gc(retention=-1), InvalidArgument, "retention"),
]


@pytest.mark.parametrize(("use", "kind", "named"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_bad_input_is_refused_by_name_and_changes_nothing(
    use: Use, kind: type[VecstoreError], named: str, db: Database, ns: Namespace
) -> None:
    before = ns.manifest()
    with pytest.raises(kind) as error:
        use(db, ns)
    assert type(error.value) is kind
    assert 400 <= error.value.status < 500
    assert error.value.code == kind.code
    assert named in error.value.message
    assert ns.manifest() == before
    assert [info.name for info in db.namespaces()] == ["docs"]


@pytest.mark.parametrize(
    ("url", "options"),
    [("memory://x", {"maintenance": "often"}), ("ftp://x", {}), ("memory://x", {"depth": 3})],
)
def test_a_url_or_option_that_is_not_known_is_refused(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        vecstore.connect(url, **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_bytes", -1),
        ("cache_bytes", 1.5),
        ("disk_cache_bytes", 1 << 20),
        ("open_namespaces", 0),
        ("open_namespaces", True),
        ("compaction_bytes", "1"),
        ("recall_sample_rate", np.nan),
        ("recall_sample_rate", 10**400),
        ("cache_dir", 5.5),
        ("cache_dir", b"cache"),
        ("cache_dir", "a\0b"),
        ("temp_dir", 0),
        ("temp_dir", "/absent"),
        ("url", 5),
        ("url", None),
        ("url", b"data"),
    ],
)
def test_options_of_a_database_are_checked_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=name) as caught:
        vecstore.connect(**{"url": "memory://", name: value})  # type: ignore[arg-type]
    assert caught.value.details["field"] == name


def test_paths_and_numbers_of_numpy_are_taken(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    options: dict[str, Any] = {
        "cache_bytes": np.int64(1 << 20),
        "cache_dir": tmp_path / "cache",
        "disk_cache_bytes": np.uint64(1 << 30),
        "open_namespaces": np.int8(3),
        "compaction_bytes": np.int64(1 << 30),
        "temp_dir": tmp_path / "temporary",
        "recall_sample_rate": np.float32(0.5),
    }
    with vecstore.connect(tmp_path / "data", maintenance="off", **options) as db:
        assert db.cache_stats().max_bytes == 1 << 20
        ns = db.create_namespace("docs", 3, probe_fraction=np.float32(0.5), nprobe_cap=np.int64(7))
        assert ns.update(list_rows=np.int32(64), k_min=np.uint8(2)).defaults["list_rows"] == 64
        assert (ns.stats().defaults["probe_fraction"], ns.stats().defaults["nprobe_cap"]) == (0.5, 7)
    assert (tmp_path / "data").is_dir()
    copied = vecstore.copy_store(tmp_path / "data", tmp_path / "copy")
    assert [one.name for one in copied.namespaces] == ["docs"]


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidArgument, match="cache_dir"):
        vecstore.connect("memory://", cache_dir=tmp_path / "file" / "cache")


def test_the_package_tells_its_version_and_no_name_that_it_has_not() -> None:
    assert vecstore.__version__ == version("vecstore")
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        vecstore.serach  # type: ignore[attr-defined]  # noqa: B018


# -- compaction -----------------------------------------------------------------------------


def worn(parts: int, *, rows: int = 100) -> Namespace:
    """Parts of which no two may be merged, each with a row that is dead."""
    made = database(policy=Policy(memory=2 * 128 * (rows + 50))).create_namespace("worn", 2, "l2")
    for part in range(parts):
        first = part * rows
        made.insert(np.full((rows, 2), part), range(first, first + rows))
    made.delete(range(0, parts * rows, rows))
    return made


def test_a_compaction_of_everything_goes_on_until_nothing_is_due() -> None:
    ns, told = worn(3), []
    before = [part.id for part in ns.parts().parts]
    done = ns.compact(progress=told.append)
    after = ns.parts().parts
    assert sorted(done.merged) == sorted(before)
    assert done.rows == 297 == sum(part.rows for part in after)
    assert done.part_id in {part.id for part in after}
    assert (done.epoch, done.reason) == (ns.stats().epoch, "asked for")
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert ns.compact() == CompactResult((), None, 0, done.epoch, "nothing due")


def test_a_compaction_of_what_is_due_is_one_merge() -> None:
    ns = worn(3, rows=4)
    assert len(ns.compact(everything=False).merged) == 1
    assert ns.stats().tombstones == 2


def test_who_writes_meanwhile_does_not_keep_a_compaction_going() -> None:
    ns, firsts = worn(3), iter(range(1_000, 1_000_000, 1_000))

    def write(_: float) -> None:
        first = next(firsts)
        ns.insert(np.ones((100, 2)), range(first, first + 100))
        ns.delete([first])

    assert len(ns.compact(progress=write).merged) == 3
    assert ns.stats().tombstones > 0, "what was written meanwhile waits for the next one"


# -- messages -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 1.5, uuid.UUID(int=5), b"a"], ids=repr)
def test_an_id_that_is_none_is_shown(db: Database, wrong: Any) -> None:
    made = db.create_namespace("ids", 3, "l2")
    with pytest.raises(InvalidId) as refused:
        made.insert(ROWS[:2], [1, wrong])
    assert refused.value.message == f"ids[1] is {wrong!r}; ids are all integers or all strings"


def test_a_vector_that_is_too_short_for_a_direction_is_not_called_zero(ns: Namespace) -> None:
    with pytest.raises(InvalidVector, match=r"vectors\[0\] has a norm below 1e-.*, and so no direction"):
        ns.insert([[1e-30, 0, 0]], [1])
    with pytest.raises(InvalidVector, match=r"vectors\[0\] is zero, which has no direction"):
        ns.insert([[0, 0, 0]], [1])


# -- recall ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [np.asarray, list])
def test_queries_are_drawn_from_more_than_a_request_may_bring(ns: Namespace, given: Any) -> None:
    queries = given(np.random.default_rng(0).standard_normal((20_000, 3), dtype=np.float32))
    found = ns.measure_recall(queries, sample=20, top_k=2)
    assert (found.queries, found.recall) == (20, 1.0)
    again = ns.measure_recall(queries, sample=20, top_k=2, seed=found.seed)
    assert again.seed == found.seed
    with pytest.raises(InvalidArgument, match="at most 10000"):
        ns.measure_recall(queries)
