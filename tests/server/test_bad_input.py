"""Every bad input is a 4xx that names the field and the limit, and changes nothing."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from tests.server.conftest import MAX_BODY
from vecstore.limits import (
    MAX_DIM,
    MAX_ID_BYTES,
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_NAME_BYTES,
    MAX_PAGE_SIZE,
    MAX_TOP_K,
    MAX_U64,
)

DOCS = "/v1/namespaces/docs"
WORDS = "/v1/namespaces/words/parts"
PARTS, DELETES, SEARCH = f"{DOCS}/parts", f"{DOCS}/deletes", f"{DOCS}/search"
RECALL = f"{DOCS}/recall"
ROW = [1.0, 0.0, 0.0]


def floats(*values: float) -> str:
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


@dataclass(frozen=True)
class Bad:
    """A request and what must be said of it: ``says`` stands in message or details."""

    name: str
    method: str
    path: str
    status: int
    code: str
    field: str | None
    body: Any = None
    raw: bytes | None = None
    limit: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def post(name: str, path: str, body: Any, code: str, where: str | None, **more: Any) -> Bad:
    return Bad(name, "POST", path, more.pop("status", 400), code, where, body, **more)


def create(title: str, code: str, where: str, limit: Any = None, /, **changes: Any) -> Bad:
    body = {"name": "new", "dim": 3, "metric": "l2", **changes}
    return post(
        title, "/v1/namespaces", {k: v for k, v in body.items() if v is not None}, code, where, limit=limit
    )


def insert(title: str, code: str, where: str, limit: Any = None, /, **body: Any) -> Bad:
    return post(title, PARTS, body, code, where, limit=limit)


def search(title: str, code: str, where: str, limit: Any = None, /, **body: Any) -> Bad:
    return post(title, SEARCH, {"vector": ROW, **body}, code, where, limit=limit)


def recall(title: str, code: str, where: str, limit: Any = None, /, **body: Any) -> Bad:
    return post(f"recall: {title}", RECALL, body, code, where, limit=limit)


def raw(name: str, path: str, data: bytes, code: str, where: str | None, **more: Any) -> Bad:
    return Bad(name, "POST", path, more.pop("status", 400), code, where, raw=data, **more)


INVALID, JSON, ID, VECTOR, DIM = (
    "invalid_argument",
    "invalid_json",
    "invalid_id",
    "invalid_vector",
    "dimension_mismatch",
)
MODES = ["insert", "insert_if_absent", "upsert"]
BOMB = gzip.compress(b" " * (MAX_BODY + 1))
GZIP = {"Content-Encoding": "gzip"}
SEEN = {"If-Match": '"0123-1"'}

WRITES: list[tuple[str, str, Any]] = [
    ("POST", "create", {"name": "new", "dim": 3}),
    ("POST", "/branches", {"name": "new"}),
    ("POST", "/tags", {"name": "t"}),
    ("DELETE", "/tags/t", None),
    ("POST", "/compact", None),
    ("POST", "/warm", None),
]
CONDITIONAL: list[tuple[str, str, Any]] = [
    ("PATCH", "", {"defaults": {"list_rows": 64}}),
    ("DELETE", "", None),
    ("POST", "/restore", {"epoch": 1}),
]
REPEATED: list[tuple[str, str, Any]] = [
    ("POST", "/parts", {"vectors": [ROW]}),
    ("POST", "/patches", {"ids": [0], "attributes": {"a": [1]}}),
    ("POST", "/deletes", {"ids": [0]}),
]

CASES = [
    # vectors
    insert("wrong dimension", DIM, "vectors", 3, vectors=[[1, 2]]),
    insert("ragged rows", DIM, "vectors", 3, vectors=[[1, 2, 3], [1, 2]]),
    insert("very ragged rows", DIM, "vectors", vectors=[[1.0] * 999, *[[]] * 999]),
    insert("an empty row", DIM, "vectors", vectors=[[]]),
    insert("an empty batch", INVALID, "vectors", 1_000_000, vectors=[]),
    insert("one dimension", INVALID, "vectors", vectors=ROW),
    insert("vectors of strings", INVALID, "vectors", vectors=[["1", "2", "3"]]),
    insert("vectors of null", INVALID, "vectors", vectors=[[1, 2, None]]),
    insert("vectors of booleans", INVALID, "vectors", vectors=[[True, 2, 3]]),
    insert("vectors as an object", INVALID, "vectors", vectors={"0": ROW}),
    insert("vectors as a number", INVALID, "vectors", vectors=3),
    insert("vectors null", INVALID, "vectors", vectors=None),
    insert("no vectors", INVALID, "vectors", ids=[1]),
    insert("a zero vector under cosine", VECTOR, "vectors", 1e-18, vectors=[[0, 0, 0]]),
    insert("a vector beyond float32", VECTOR, "vectors", 1e18, vectors=[[1e39, 0, 0]]),
    insert("a vector too long to square", VECTOR, "vectors", 1e18, vectors=[[1e19, 0, 0]]),
    raw("NaN", PARTS, b'{"vectors": [[1, 2, NaN]]}', JSON, "body"),
    raw("Infinity", PARTS, b'{"vectors": [[1, 2, -Infinity]]}', JSON, "body"),
    raw("infinity as 1e999", PARTS, b'{"vectors": [[1, 2, 1e999]]}', VECTOR, "vectors"),
    raw("infinity in a query", SEARCH, b'{"vector": [1, 2, -1e999]}', VECTOR, "vector"),
    insert("NaN in base64", VECTOR, "vectors", vectors=floats(1, 2, float("nan"))),
    insert("broken base64", INVALID, "vectors", vectors="AACA*w=="),
    insert("base64 without its padding", INVALID, "vectors", vectors=floats(1, 2).rstrip("=") or "x"),
    insert("base64 of no whole float", DIM, "vectors", 3, vectors=base64.b64encode(b"12345").decode()),
    insert("base64 of no whole row", DIM, "vectors", 3, vectors=floats(1, 2, 3, 4)),
    insert("base64 of another dimension", DIM, "vectors", 3, vectors=floats(1, 2, 3, 4), dim=4),
    insert("base64 of nothing", DIM, "vectors", 3, vectors=""),
    # ids
    insert("ids mixed", ID, "ids", vectors=[ROW, ROW], ids=[1, "b"]),
    insert("ids of the other kind", ID, "ids", vectors=[ROW], ids=["b"]),
    insert("an id twice", ID, "ids", vectors=[ROW, ROW], ids=[7, 7]),
    insert("a negative id", ID, "ids", MAX_U64, vectors=[ROW], ids=[-1]),
    insert("an id of 2^64", ID, "ids", MAX_U64, vectors=[ROW], ids=[2**64]),
    insert("a float id", ID, "ids", vectors=[ROW], ids=[1.5]),
    insert("a boolean id", ID, "ids", vectors=[ROW], ids=[True]),
    insert("ids not a list", ID, "ids", vectors=[ROW], ids=5),
    insert("more ids than vectors", ID, "ids", 1, vectors=[ROW], ids=[1, 2]),
    post("an id too long", WORDS, {"vectors": [ROW], "ids": ["x" * 65]}, ID, "ids",
         limit=MAX_ID_BYTES),
    post("an empty id", WORDS, {"vectors": [ROW], "ids": [""]}, ID, "ids", limit=MAX_ID_BYTES),
    post("ids left out where they are strings", WORDS, {"vectors": [ROW]}, ID, "ids"),
    post("deletes without ids", DELETES, {}, INVALID, "ids"),
    post("deletes of nothing", DELETES, {"ids": []}, ID, "ids", limit=1_000_000),
    insert("mode unknown", INVALID, "mode", MODES, vectors=[ROW], mode="replace"),
    post("an id that is live, in mode insert", PARTS, {"vectors": [ROW], "ids": [0], "mode": "insert"},
         "id_exists",
         None, status=409),
    # names and creation
    create("a name of dots", INVALID, "name", MAX_NAME_BYTES, name="../x"),
    create("a name with a slash", INVALID, "name", MAX_NAME_BYTES, name="a/b"),
    create("a name with a space", INVALID, "name", MAX_NAME_BYTES, name="a b"),
    create("an empty name", INVALID, "name", MAX_NAME_BYTES, name=""),
    create("a name too long", INVALID, "name", MAX_NAME_BYTES, name="n" * 129),
    create("a name with a line feed", INVALID, "name", MAX_NAME_BYTES, name="abc\n"),
    create("a name that is a number", INVALID, "name", name=5),
    create("no name", INVALID, "name", name=None),
    create("dim 0", INVALID, "dim", 1, dim=0),
    create("dim too large", INVALID, "dim", MAX_DIM, dim=4097),
    create("dim as text", INVALID, "dim", dim="x"),
    create("dim as a float", INVALID, "dim", dim=3.5),
    create("dim as a boolean", INVALID, "dim", dim=True),
    create("metric unknown", INVALID, "metric", ["cosine", "dot", "l2"], metric="hamming"),
    create("an unknown setting", INVALID, "defaults.colour", defaults={"colour": 1}),
    create("a setting too large", INVALID, "defaults.probe_fraction", 1, defaults={"probe_fraction": 1.5}),
    create("a setting too small", INVALID, "defaults.k_min", 1, defaults={"k_min": 0}),
    create("a setting of another type", INVALID, "defaults.list_rows", defaults={"list_rows": "32"}),
    create("settings that contradict", INVALID, "k_min", defaults={"k_min": 9, "k_max": 8}),
    create("an unknown field", INVALID, "colour", colour="red"),
    post("a namespace that exists", "/v1/namespaces", {"name": "docs", "dim": 3}, "namespace_exists", None,
         status=409),
    Bad("PATCH of an unknown setting", "PATCH", DOCS, 400, INVALID, "defaults.dim", {"defaults": {"dim": 4}}),
    Bad("PATCH out of bounds", "PATCH", DOCS, 400, INVALID, "defaults.target_recall",
        {"defaults": {"target_recall": 1}}, limit=1),
    Bad("PATCH of nothing", "PATCH", DOCS, 400, INVALID, "defaults", {}),
    # searches
    search("another dim than the vector", DIM, "dim", 3, dim=4),
    post("another dim than the row of an id", SEARCH, {"id": 1, "dim": 4}, DIM, "dim", limit=3),
    post("another dim than queries", SEARCH, {"vectors": [ROW], "dim": 4}, DIM, "dim", limit=3),
    insert("another dim than the vectors", DIM, "dim", 3, vectors=[ROW], dim=4),
    recall("another dim than the vectors", DIM, "dim", 3, vectors=[ROW], dim=4),
    recall("another dim than the rows", DIM, "dim", 3, dim=4),
    search("top_k 0", INVALID, "top_k", 1, top_k=0),
    search("top_k negative", INVALID, "top_k", 1, top_k=-3),
    search("top_k huge", INVALID, "top_k", MAX_TOP_K, top_k=10**12),
    search("top_k a boolean", INVALID, "top_k", top_k=True),
    search("top_k a float", INVALID, "top_k", top_k=1.5),
    search("top_k text", INVALID, "top_k", top_k="10"),
    search("top_k null", INVALID, "top_k", top_k=None),
    search("probe_fraction 0", INVALID, "probe_fraction", 0, probe_fraction=0),
    search("probe_fraction above 1", INVALID, "probe_fraction", 1, probe_fraction=1.01),
    search("nprobe 0", INVALID, "nprobe", 1, nprobe=0),
    search("target_recall 1", INVALID, "target_recall", 1, target_recall=1),
    search("rerank_scale too large", INVALID, "rerank_scale", 1000, rerank_scale=1001),
    search("rerank_precision unknown", INVALID, "rerank_precision", ["none", "int8", "fp32"],
           rerank_precision="int4"),
    search("consistency unknown", INVALID, "consistency", ["eventual", "strong"], consistency="weak"),
    search("max_staleness negative", INVALID, "max_staleness", 0, max_staleness=-1),
    search("include unknown", INVALID, "include", ["vector"], include=["lang"]),
    search("include not a list", INVALID, "include", include="vector"),
    search("debug as text", INVALID, "debug", debug="yes"),
    search("an epoch that is not yet", INVALID, "epoch", epoch=999),
    search("epoch 0", INVALID, "epoch", 1, epoch=0),
    search("a query of another dimension", DIM, "vector", 3, vector=[1, 2]),
    search("an empty query", DIM, "vector", vector=[]),
    search("a query of two dimensions", INVALID, "vector", vector=[ROW]),
    search("a zero query under cosine", VECTOR, "vector", vector=[0, 0, 0]),
    search("vector and vectors", INVALID, "vector", vectors=[ROW]),
    post("neither vector nor vectors", SEARCH, {}, INVALID, "vector"),
    Bad("GET with an unknown parameter",
         "GET", f"{SEARCH}?vector={floats(1, 0, 0)}&limit=3", 400, INVALID, "limit"),
    Bad("GET without a vector", "GET", f"{SEARCH}?top_k=3", 400, INVALID, "vector"),
    Bad("GET with top_k twice", "GET", f"{SEARCH}?vector=[1,0,0]&top_k=3&top_k=4", 400, INVALID, "top_k"),
    Bad("GET with top_k as text", "GET", f"{SEARCH}?vector=[1,0,0]&top_k=ten", 400, INVALID, "top_k"),
    Bad("GET with broken base64", "GET", f"{SEARCH}?vector=***", 400, INVALID, "vector"),
    Bad("GET with max_staleness NaN", "GET", f"{SEARCH}?vector=[1,0,0]&max_staleness=nan", 400, INVALID,
        "max_staleness", limit=0),
    Bad("GET with a body", "GET", SEARCH, 400, INVALID, "body", {"vector": ROW}),
    # recall
    recall("sample 0", INVALID, "sample", 1, sample=0),
    recall("sample huge", INVALID, "sample", 10_000, sample=10_001),
    recall("sample text", INVALID, "sample", sample="all"),
    recall("confidence 1", INVALID, "confidence", 0.999, confidence=1),
    recall("confidence too low", INVALID, "confidence", 0.5, confidence=0.1),
    recall("seed negative", INVALID, "seed", 0, seed=-1),
    recall("source unknown", INVALID, "source", ["rows", "recent"], source="log"),
    recall("source of queries", INVALID, "source", ["rows", "recent"], source="queries"),
    recall("two sources", INVALID, "source", vectors=[ROW], source="rows"),
    recall("recent queries where none are kept", INVALID, "source", source="recent"),
    recall("stored rows where there is one", INVALID, "source"),
    recall("top_k 0", INVALID, "top_k", 1, top_k=0),
    recall("top_k too large for its queries", INVALID, "sample", 100, vectors=[ROW] * 101, top_k=MAX_TOP_K),
    recall("target_recall 1", INVALID, "target_recall", 1, target_recall=1),
    recall("include", INVALID, "include", include=["vector"]),
    recall("debug", INVALID, "debug", debug=True),
    recall("a query of another dimension", DIM, "vectors", 3, vectors=[[1, 2]]),
    recall("a zero query under cosine", VECTOR, "vectors", vectors=[[0, 0, 0]]),
    recall("no queries", INVALID, "vectors", vectors=[]),
    recall("an epoch that is not yet", INVALID, "epoch", epoch=999),
    Bad("recall: a parameter", "GET", f"{RECALL}?confidence=0.9", 400, INVALID, "confidence"),
    Bad("recall of a missing namespace", "GET", "/v1/namespaces/nothing/recall", 404, "namespace_not_found",
        "nothing"),
    post("recall measured of a missing namespace", "/v1/namespaces/nothing/recall", {}, "namespace_not_found",
         "nothing", status=404),
    # listing, rows, manifests
    Bad("page_size 0", "GET", "/v1/namespaces?page_size=0", 400, INVALID, "page_size", limit=MAX_PAGE_SIZE),
    Bad("page_size huge", "GET", "/v1/namespaces?page_size=1001", 400, INVALID, "page_size",
         limit=MAX_PAGE_SIZE),
    Bad("page_size text", "GET", "/v1/namespaces?page_size=x", 400, INVALID, "page_size",
         limit=MAX_PAGE_SIZE),
    Bad("a cursor of nobody", "GET", "/v1/namespaces?cursor=%21%21", 400, INVALID, "cursor"),
    Bad("a listing parameter unknown", "GET", "/v1/namespaces?order=desc", 400, INVALID, "order"),
    Bad("a row that is not there", "GET", f"{DOCS}/rows/99", 404, "row_not_found", None),
    Bad("a row id of the other kind", "GET", f"{DOCS}/rows/abc", 400, ID, "id"),
    Bad("a row id of more digits than a number may have", "GET", f"{DOCS}/rows/{'9' * 4_301}", 400, ID, "id",
        limit=MAX_ID_BYTES),
    Bad("include_vector as text", "GET", f"{DOCS}/rows/0?include_vector=yes", 400, INVALID, "include_vector",
        limit=["true", "false"]),
    Bad("a manifest that is not yet", "GET", f"{DOCS}/manifest?epoch=999", 400, INVALID, "epoch"),
    Bad("a manifest of epoch 0", "GET", f"{DOCS}/manifest?epoch=0", 400, INVALID, "epoch", limit=1),
    Bad("a manifest of a word", "GET", f"{DOCS}/manifest?epoch=last", 400, INVALID, "epoch", limit=1),
    Bad("a row at epoch 0", "GET", f"{DOCS}/rows/0?epoch=0", 400, INVALID, "epoch", limit=1),
    Bad("a row at a word", "GET", f"{DOCS}/rows/0?epoch=-1", 400, INVALID, "epoch", limit=1),
    Bad("a row at an epoch that is not yet", "GET", f"{DOCS}/rows/0?epoch=999", 400, INVALID, "epoch"),
    # history
    post("a restore without If-Match", f"{DOCS}/restore", {"epoch": 1}, INVALID, "If-Match"),
    post("a restore of anything", f"{DOCS}/restore", {"epoch": 1}, INVALID, "If-Match",
         headers={"If-Match": "*"}),
    post("a restore of no epoch", f"{DOCS}/restore", {}, INVALID, "epoch", headers=SEEN),
    post("a restore of epoch 0", f"{DOCS}/restore", {"epoch": 0}, INVALID, "epoch", headers=SEEN),
    post("a restore of an epoch that is not yet", f"{DOCS}/restore", {"epoch": 999}, INVALID, "epoch",
         headers=SEEN),
    post("a restore upon an epoch that has passed", f"{DOCS}/restore", {"epoch": 1}, "precondition_failed",
         None, status=412, headers=SEEN),
    post("a tag without a name", f"{DOCS}/tags", {}, INVALID, "name"),
    post("a tag with a bad name", f"{DOCS}/tags", {"name": "a/b"}, INVALID, "name", limit=MAX_NAME_BYTES),
    post("a tag of epoch 0", f"{DOCS}/tags", {"name": "a", "epoch": 0}, INVALID, "epoch"),
    post("a tag of an epoch that is not yet", f"{DOCS}/tags", {"name": "a", "epoch": 999}, INVALID, "epoch"),
    post("a tag of a missing namespace", "/v1/namespaces/nothing/tags", {"name": "a"}, "namespace_not_found",
         "nothing", status=404),
    Bad("a tag that is not there", "DELETE", f"{DOCS}/tags/none", 404, "tag_not_found", None),
    Bad("a tag with a bad name in the path", "DELETE", f"{DOCS}/tags/.x", 400, INVALID, "name",
        limit=MAX_NAME_BYTES),
    post("a branch without a name", f"{DOCS}/branches", {}, INVALID, "name"),
    post("a branch with a bad name", f"{DOCS}/branches", {"name": "../x"}, INVALID, "name",
         limit=MAX_NAME_BYTES),
    post("a branch with a name that is taken", f"{DOCS}/branches", {"name": "docs"}, "namespace_exists",
         "docs", status=409),
    post("a branch of an epoch that is not yet", f"{DOCS}/branches", {"name": "b", "epoch": 999}, INVALID,
         "epoch"),
    post("a branch of a missing namespace", "/v1/namespaces/nothing/branches", {"name": "b"},
         "namespace_not_found", "nothing", status=404),
    Bad("a missing namespace", "GET", "/v1/namespaces/nothing", 404, "namespace_not_found", "nothing"),
    Bad("a bad name in the path", "GET", "/v1/namespaces/.hidden", 400, INVALID, "name",
         limit=MAX_NAME_BYTES),
    post("a search of a missing namespace", "/v1/namespaces/nothing/search", {"vector": ROW},
         "namespace_not_found", "nothing", status=404),
    post("an insert into a missing namespace", "/v1/namespaces/nothing/parts", {"vectors": [ROW]},
         "namespace_not_found", "nothing", status=404),
    # bodies
    raw("no body", PARTS, b"", INVALID, "body"),
    raw("not JSON", PARTS, b"vectors=1", JSON, "body"),
    raw("JSON cut off", PARTS, b'{"vectors": [[1,', JSON, "body"),
    raw("two JSON values", PARTS, b'{"vectors": [[1,2,3]]} {}', JSON, "body"),
    raw("JSON of the wrong shape", PARTS, b"[]", INVALID, "body"),
    raw("not UTF-8", "/v1/namespaces", b'{"name": "\xff", "dim": 3}', JSON, "body"),
    raw("an id that is not UTF-8", DELETES, b'{"ids": ["\xff"]}', "invalid_id", "ids"),
    raw("base64 that is not UTF-8", PARTS, b'{"vectors": "\xff\\\\/"}', INVALID, "vectors"),
    raw("nested too deeply", PARTS, b'{"vectors": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", JSON, "body"),
    raw("another content type", PARTS, b'{"vectors": [[1,2,3]]}', "unsupported_media_type", "Content-Type",
        status=415, headers={"Content-Type": "text/plain"}, limit="application/json"),
    raw("another encoding", PARTS, b"x", "unsupported_media_type", "Content-Encoding", status=415,
        headers={"Content-Encoding": "br"}, limit=["identity", "gzip"]),
    raw("truncated gzip", PARTS, gzip.compress(b'{"vectors": [[1,2,3]]}')[:-9], INVALID, "body",
         headers=GZIP),
    raw("gzip that is none", PARTS, b'{"vectors": [[1,2,3]]}', INVALID, "body", headers=GZIP),
    raw("zlib called gzip", PARTS, zlib.compress(b"{}"), INVALID, "body", headers=GZIP),
    raw("a gzip bomb", PARTS, BOMB, "payload_too_large", "body", status=413, headers=GZIP, limit=MAX_BODY),
    raw("a body too large", PARTS, b" " * (MAX_BODY + 1), "payload_too_large", "body", status=413,
         limit=MAX_BODY),
    # headers
    post("a stale If-Match", PARTS, {"vectors": [ROW]}, "precondition_failed", None, status=412,
         headers={"If-Match": '"0123-1"'}),
    Bad("a stale If-Match of PATCH", "PATCH", DOCS, 412, "precondition_failed", None,
        {"defaults": {"list_rows": 64}}, headers={"If-Match": '"0123-1"'}),
    Bad("a stale If-Match of DELETE", "DELETE", DOCS, 412, "precondition_failed", None,
        headers={"If-Match": '"0123-1"'}),
    post("a malformed If-Match", PARTS, {"vectors": [ROW]}, INVALID, "If-Match", headers={"If-Match": "7"}),
    post("a weak If-Match", DELETES, {"ids": [1]}, INVALID, "If-Match", headers={"If-Match": 'W/"a-1"'}),
    post("an idempotency key too long", PARTS, {"vectors": [ROW]}, INVALID, "Idempotency-Key",
         headers={"Idempotency-Key": "k" * 129}, limit=MAX_IDEMPOTENCY_KEY_BYTES),
    post("an empty idempotency key", PARTS, {"vectors": [ROW]}, INVALID, "Idempotency-Key",
         headers={"Idempotency-Key": ""}, limit=MAX_IDEMPOTENCY_KEY_BYTES),
    post("an idempotency key of another request", PARTS, {"vectors": [ROW]}, "idempotency_mismatch", "used",
         status=422, headers={"Idempotency-Key": "used"}),
    *(
        Bad(f"{header} of {method} {path}", method, f"{DOCS}{path}" if path != "create" else "/v1/namespaces",
            400, INVALID, header, body, headers={header: '"0123-1"'})
        for header, writes in {
            "If-None-Match": [*WRITES, *CONDITIONAL, *REPEATED],
            "If-Match": WRITES,
            "Idempotency-Key": [*WRITES, *CONDITIONAL],
        }.items()
        for method, path, body in writes
    ),
    # queries of URLs
    Bad("a query string that is not UTF-8", "GET", "/v1/namespaces?prefix=%FF", 400, INVALID, "query"),
    Bad("a query string cut off in a character", "GET", "/v1/namespaces?prefix=%E2%82&a=b", 400, INVALID,
        "query"),
    Bad("an empty vector of GET", "GET", f"{SEARCH}?vector=", 400, DIM, "vector is empty"),
    Bad("an endless staleness", "GET", f"{SEARCH}?vector=[1,2,3]&max_staleness=inf", 400, INVALID, "finite",
        limit=0),
    *(
        Bad(f"an unknown parameter of {path}", "GET", f"{path}?x=1", 400, INVALID, "x")
        for path in ("/openapi.json", "/docs", "/docs/api.css", "/console/")
    ),
    # routes
    post("an unknown route", "/v1/nothing", {}, "route_not_found", "/v1/nothing", status=404),
    Bad("an unknown method", "PUT", DOCS, 405, "method_not_allowed", "PUT", {}),
    Bad("OPTIONS", "OPTIONS", "/v1/namespaces", 405, "method_not_allowed", "OPTIONS"),
    post("a warming with a cursor of somebody else", f"{DOCS}/warm", {"cursor": "x"}, INVALID, "cursor"),
    post("a warming with an unknown field", f"{DOCS}/warm", {"all": True}, INVALID, "all"),
    post("a compaction with an unknown field", f"{DOCS}/compact", {"all": True}, INVALID, "all"),
]  # fmt: skip


@pytest.fixture
def filled(client: FlaskClient) -> FlaskClient:
    """Namespace ``docs`` with u64 ids and one used key, and ``words`` with string ids; both cosine."""
    for name, ids in (("docs", [0]), ("words", ["a"])):
        assert client.post("/v1/namespaces", json={"name": name, "dim": 3}).status_code == 201
        made = client.post(
            f"/v1/namespaces/{name}/parts",
            json={"vectors": [[0.5, 0.5, 0]], "ids": ids},
            headers={"Idempotency-Key": "used"},
        )
        assert made.status_code == 201
    return client


def state(client: FlaskClient) -> list[Any]:
    """Every namespace with its ETag."""
    listed = client.get("/v1/namespaces").get_json()["namespaces"]
    return [(n["name"], client.get(f"/v1/namespaces/{n['name']}").headers["ETag"], n["rows"]) for n in listed]


def test_there_are_enough_cases_and_each_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 45


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_input_is_refused_by_name_and_changes_nothing(filled: FlaskClient, case: Bad) -> None:
    before = state(filled)
    data = case.raw if case.raw is not None else None if case.body is None else json.dumps(case.body).encode()
    headers = {"Content-Type": "application/json", **case.headers} if data is not None else case.headers
    answer = filled.open(case.path, method=case.method, data=data, headers=headers)
    assert (answer.status_code, answer.content_type) == (case.status, "application/json"), answer.get_data()
    body = answer.get_json()
    assert body["code"] == case.code, body
    assert set(body) == {"code", "message", "details"}
    assert "Traceback" not in body["message"]
    if case.field is not None:
        told = body["message"] + json.dumps(body["details"])
        assert case.field in told, body
    if case.limit is not None:
        assert body["details"]["limit"] == case.limit, body
    assert state(filled) == before


def test_a_body_that_is_not_json_is_told_where(filled: FlaskClient) -> None:
    answer = filled.post(PARTS, data=b'{"vectors": [[1, 2, nan]]}', content_type="application/json")
    assert answer.get_json()["details"]["position"] == 21  # the a of nan


def test_an_unexpected_error_is_a_500_without_its_traceback_and_is_logged_under_its_id(
    filled: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("vecstore.engine.database.EmbeddedDatabase.info", broken)
    answer = filled.get(DOCS, headers={"X-Request-Id": "abc-1"})
    assert answer.status_code == 500
    assert answer.get_json()["code"] == "internal"
    assert "secret" not in answer.get_data(as_text=True)
    assert answer.headers["X-Request-Id"] == answer.get_json()["details"]["request_id"] == "abc-1"
    assert "ZeroDivisionError: a secret" in caplog.text
    assert "abc-1" in caplog.text
