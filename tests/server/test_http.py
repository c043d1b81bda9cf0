"""What HTTP adds to the API: ETags, conditions, compression, paging, GET searches, health."""

from __future__ import annotations

import base64
import gzip
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

import vecstore
from tests.server.conftest import MAX_BODY
from vecstore.api import Database
from vecstore.config import Config
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import OutcomeUnknown, StorageRetryable, TooManyRequests
from vecstore.limits import MAX_ID_BYTES, MAX_U64
from vecstore.server.app import create_app
from vecstore.storage.faults import CountingStore
from vecstore.storage.memory import MemoryStore

DOCS = "/v1/namespaces/docs"


@pytest.fixture
def docs(client: FlaskClient) -> FlaskClient:
    assert client.post("/v1/namespaces", json={"name": "docs", "dim": 2, "metric": "l2"}).status_code == 201
    made = client.post(f"{DOCS}/parts", json={"vectors": [[0, 0], [3, 4]], "ids": [1, 2]})
    assert made.status_code == 201
    return client


def packed(*values: float) -> str:
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


def test_the_shapes_that_clients_rely_on(docs: FlaskClient) -> None:
    assert docs.post(f"{DOCS}/search", json={"vector": [0, 0], "top_k": 2}).get_json() == {
        "hits": [{"id": 1, "distance": 0.0}, {"id": 2, "distance": 25.0}],
        "epoch": 2,
    }
    assert docs.post(f"{DOCS}/search", json={"vectors": [[3, 4]], "top_k": 1}).get_json() == {
        "results": [{"hits": [{"id": 2, "distance": 0.0}]}],
        "epoch": 2,
    }
    made = docs.post(f"{DOCS}/parts", json={"vectors": packed(1, 1)})
    assert made.status_code == 201
    assert made.get_json() | {"part_id": "p"} == {
        "part_id": "p",
        "n": 1,
        "epoch": 3,
        "upserted": 0,
        "inserted": 1,
        "skipped": 0,
        "ids": [3],
    }
    assert docs.post(f"{DOCS}/deletes", json={"ids": [1, 9]}).get_json() == {
        "deleted": 1,
        "skipped": 0,
        "epoch": 4,
    }
    assert docs.get(f"{DOCS}/rows/2").get_json() == {"id": 2, "epoch": 4, "vector": [3.0, 4.0]}
    assert docs.get(f"{DOCS}/rows/2?include_vector=false").get_json() == {"id": 2, "epoch": 4}
    shown = docs.get(DOCS).get_json()
    assert (shown["rows"], shown["parts"], shown["dim"], shown["metric"]) == (2, 2, 2, "l2")


def test_recall_is_measured_and_told(docs: FlaskClient) -> None:
    full = {"probe_fraction": 1.0, "rerank_precision": "fp32", "rerank_scale": 1000, "top_k": 1}
    for body in (
        {"vectors": [[0, 1], [2, 4]], **full},
        {"vectors": packed(0, 1, 2, 4), **full},
        {"vectors": packed(0, 1, 2, 4), "dim": 2, "confidence": 0.9, **full},
        {"source": "rows", "sample": 2, "seed": 7, **full},
    ):
        answer = docs.post(f"{DOCS}/recall", json=body)
        found = answer.get_json()
        assert answer.headers["ETag"] == docs.get(DOCS).headers["ETag"]
        assert (found["recall"], found["queries"], found["epoch"], found["rows"]) == (1.0, 2, 2, 2)
        assert 0.0 <= found["low"] < found["recall"] == found["high"]
        assert found["source"] == body.get("source", "queries")
        assert found["options"] == {"nprobe": None, "target_recall": None} | {
            name: full[name] for name in ("probe_fraction", "rerank_precision", "rerank_scale")
        }
    assert found["seed"] == 7
    assert docs.post(f"{DOCS}/recall").get_json()["source"] == "rows"  # no body at all
    assert docs.get(f"{DOCS}/recall").get_json() == {
        "sample_rate": 0.0,
        "queries": 0,
        "recall": None,
        "low": None,
        "high": None,
        "confidence": 0.95,
        "since": None,
        "until": None,
        "epoch": None,
    }


def test_null_is_a_field_that_is_not_there(docs: FlaskClient) -> None:
    empty = {"vectors": None, "filter": None, "dim": None}
    for body in (
        {"vector": None, "id": 1},
        {"vector": [0, 0], "id": None},
        {"vector": None, "order_by": ["id", "asc"]},
    ):
        assert docs.post(f"{DOCS}/search", json={**empty, **body}).status_code == 200
    both = {"vector": None, "id": None, "vectors": [[0, 0]]}
    assert docs.post(f"{DOCS}/search", json=both).status_code == 200
    assert docs.post(f"{DOCS}/recall", json={**empty, "sample": 1}).status_code == 200
    together = {"queries": [{"vector": None, "id": 1}]}
    assert docs.post(f"{DOCS}/queries", json=together).status_code == 200


@pytest.mark.parametrize(
    "asked", [{"vector": [3, 4]}, {"vector": packed(3, 4)}, {"vectors": [[3, 4]]}], ids=str
)
def test_the_dim_of_a_vector_is_checked_without_a_request(asked: dict[str, Any]) -> None:
    store = CountingStore(MemoryStore())
    client = create_app(Database(EmbeddedDatabase(store)), Config()).test_client()
    client.post("/v1/namespaces", json={"name": "docs", "dim": 2, "metric": "l2"})
    client.post(f"{DOCS}/parts", json={"vectors": [[0, 0], [3, 4]], "ids": [1, 2]})
    asked = {**asked, "top_k": 1, "consistency": "eventual", "max_staleness": 3_600}
    plain = client.post(f"{DOCS}/search", json=asked)
    assert plain.status_code == 200
    store.reset()
    assert client.post(f"{DOCS}/search", json=asked).data == plain.data
    usual = store.count()
    store.reset()
    assert client.post(f"{DOCS}/search", json={**asked, "dim": 2}).data == plain.data
    assert store.count() == usual
    refused = client.post(f"{DOCS}/search", json={**asked, "dim": 3})
    assert (refused.status_code, refused.get_json()["details"]["field"]) == (400, "dim")
    assert store.count() == usual


def test_etags_name_the_epoch_of_every_answer_and_guard_writes(docs: FlaskClient) -> None:
    shown = docs.get(DOCS).headers["ETag"]
    assert shown.startswith('"')
    assert shown.endswith('-2"')
    for answer in (
        docs.post(f"{DOCS}/search", json={"vector": [0, 0]}),
        docs.get(f"{DOCS}/search?vector=[0,0]"),
        docs.get(f"{DOCS}/rows/1"),
        docs.get(f"{DOCS}/manifest"),
    ):
        assert answer.headers["ETag"] == shown
    body = {"vectors": [[1, 1]]}
    first = docs.post(f"{DOCS}/parts", json=body, headers={"If-Match": shown})
    assert (first.status_code, first.headers["ETag"]) == (201, shown.replace('-2"', '-3"'))
    assert docs.post(f"{DOCS}/parts", json=body, headers={"If-Match": shown}).status_code == 412
    assert docs.post(f"{DOCS}/parts", json=body, headers={"If-Match": "*"}).status_code == 201
    latest = docs.get(DOCS).headers["ETag"]
    changed = docs.patch(DOCS, json={"defaults": {"list_rows": 64}}, headers={"If-Match": latest})
    assert changed.get_json()["defaults"]["list_rows"] == 64
    gone = docs.delete(DOCS, headers={"If-Match": changed.headers["ETag"]})
    assert (gone.status_code, gone.get_data()) == (204, b"")
    assert docs.get(DOCS).status_code == 404


def test_a_repeated_key_gets_the_first_answer(docs: FlaskClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = docs.post(f"{DOCS}/parts", json={"vectors": [[1, 1]]}, headers=headers)
    again = docs.post(f"{DOCS}/parts", json={"vectors": [[1, 1]]}, headers=headers)
    assert first.get_json() == again.get_json()
    assert docs.get(DOCS).get_json()["rows"] == 3


@pytest.mark.parametrize(
    "vector",
    ["[3,4]", packed(3, 4), packed(3, 4).rstrip("="), packed(3, 4).replace("+", "-").replace("/", "_")],
)
def test_a_get_takes_the_vector_in_each_form(docs: FlaskClient, vector: str) -> None:
    found = docs.get(
        f"{DOCS}/search",
        query_string={"vector": vector, "top_k": "1", "include": "vector", "debug": "true", "epoch": "2"},
    )
    assert found.status_code == 200, found.get_data()
    assert found.get_json()["hits"] == [{"id": 2, "distance": 0.0, "vector": [3.0, 4.0]}]
    assert found.get_json()["debug"]["rows_live"] == 2


def test_base64_may_have_escaped_slashes(docs: FlaskClient) -> None:
    vector = np.array([255, 255, 127, 63, 255, 255, 127, 63], dtype=np.uint8).tobytes()
    text = base64.b64encode(vector).decode()
    assert "/" in text
    body = '{"vector": "' + text.replace("/", "\\/") + '"}'
    found = docs.post(f"{DOCS}/search", data=body, content_type="application/json")
    assert found.status_code == 200


def test_gzip_is_read_in_one_or_several_members(docs: FlaskClient) -> None:
    headers = {"Content-Encoding": "gzip"}
    body = b'{"vector": [0, 0], "top_k": 1}'
    for data in (gzip.compress(body), gzip.compress(body[:9]) + gzip.compress(body[9:])):
        answer = docs.post(f"{DOCS}/search", data=data, headers=headers, content_type="application/json")
        assert answer.get_json()["hits"][0]["id"] == 1


def test_a_body_without_a_length_is_read_and_bounded(docs: FlaskClient) -> None:
    def chunked(data: bytes) -> Any:
        return docs.post(
            f"{DOCS}/search",
            input_stream=BytesIO(data),
            headers={"Transfer-Encoding": "chunked"},
            content_type="application/json",
            environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
        )

    assert chunked(b'{"vector": [0, 0]}').status_code == 200
    refused = chunked(b" " * (MAX_BODY + 1))
    assert (refused.status_code, refused.get_json()["code"]) == (413, "payload_too_large")


def test_a_body_that_ends_early_is_refused(docs: FlaskClient) -> None:
    answer = docs.post(
        f"{DOCS}/search",
        input_stream=BytesIO(b'{"vector": [0, 0]}'),
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": "99"},
    )
    assert (answer.status_code, answer.get_json()["details"]["limit"]) == (400, 99)


def test_a_json_content_type_may_name_its_charset(docs: FlaskClient) -> None:
    answer = docs.post(
        f"{DOCS}/search", data=b'{"vector": [0, 0]}', content_type="application/json; charset=utf-8"
    )
    assert answer.status_code == 200


def test_pages_of_namespaces_together_are_all_of_them_once(client: FlaskClient) -> None:
    names = [f"n{i}" for i in range(5)] + ["other"]
    for name in names:
        client.post("/v1/namespaces", json={"name": name, "dim": 1})
    seen: list[str] = []
    query = {"prefix": "n", "page_size": "2"}
    while True:
        page = client.get("/v1/namespaces", query_string=query).get_json()
        seen += [info["name"] for info in page["namespaces"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == names[:5]


def test_compaction_takes_no_body_or_one(docs: FlaskClient) -> None:
    docs.post(f"{DOCS}/parts", json={"vectors": [[1, 1]]})
    assert docs.post(f"{DOCS}/compact", json={"everything": False}).get_json()["merged"] == []
    assert len(docs.post(f"{DOCS}/compact").get_json()["merged"]) == 2


def test_digits_are_a_number_or_a_string_as_the_namespace_has_them(client: FlaskClient) -> None:
    for name, identity in (("numbers", 7), ("words", "7")):
        client.post("/v1/namespaces", json={"name": name, "dim": 1, "metric": "l2"})
        client.post(f"/v1/namespaces/{name}/parts", json={"vectors": [[1]], "ids": [identity]})
        assert client.get(f"/v1/namespaces/{name}/rows/7").get_json()["id"] == identity
    assert client.get("/v1/namespaces/numbers/rows/007").status_code == 400
    for identity in (str(MAX_U64 + 1), "9" * MAX_ID_BYTES):
        client.post("/v1/namespaces/words/parts", json={"vectors": [[1]], "ids": [identity]})
        assert client.get(f"/v1/namespaces/words/rows/{identity}").get_json()["id"] == identity


def test_health_and_readiness(client: FlaskClient) -> None:
    assert client.get("/healthz").get_json() == client.get("/healthz?now=1").get_json() == {"status": "ok"}
    ready = {"status": "ready", "checks": {"store": "ok", "draining": "ok"}}
    assert client.get("/readyz").get_json() == ready


def test_a_server_whose_store_fails_lives_but_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*arguments: object) -> None:
        raise StorageRetryable("the store does not answer")

    monkeypatch.setattr("vecstore.engine.database.EmbeddedDatabase.ping", down)
    with vecstore.connect("memory://", maintenance="off") as database:
        client = create_app(database).test_client()
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.get_json()["code"] == "not_ready"
        failure = "storage_unavailable: the store does not answer"
        assert answer.get_json()["details"]["checks"] == {"store": failure, "draining": "ok"}
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("error", [TooManyRequests, OutcomeUnknown, StorageRetryable])
def test_what_passes_says_when_to_try_again(
    docs: FlaskClient, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def busy(*arguments: object, **more: object) -> None:
        raise error("busy")

    monkeypatch.setattr("vecstore.engine.database.EmbeddedDatabase.insert", busy)
    answer = docs.post(f"{DOCS}/parts", json={"vectors": [[1, 1]]})
    assert answer.headers["Retry-After"] == "1"
    assert answer.get_json()["code"] == error.code  # type: ignore[attr-defined]


def test_vectors_that_are_not_kept_are_null(client: FlaskClient) -> None:
    client.post(
        "/v1/namespaces",
        json={"name": "docs", "dim": 2, "metric": "l2", "defaults": {"store_vectors": "none"}},
    )
    client.post(f"{DOCS}/parts", json={"vectors": [[3, 4]], "ids": [1]})
    assert client.get(f"{DOCS}/rows/1").get_json()["vector"] is None
    found = client.post(f"{DOCS}/search", json={"vector": [3, 4], "include": ["vector"]}).get_json()
    assert (found["hits"][0]["vector"], found["dim"]) == (None, 2)


def test_an_answer_tells_beside_its_rows_only_what_none_of_them_shows(client: FlaskClient) -> None:
    client.post("/v1/namespaces", json={"name": "docs", "dim": 2, "metric": "l2"})
    client.post(f"{DOCS}/parts", json={"vectors": [[3, 4]], "ids": ["a"], "attributes": {"n": [1]}})
    asked: dict[str, Any] = {"include": ["vector"], "filter": ["n", "Eq", 1]}
    missed = {**asked, "filter": ["n", "Eq", 2]}

    def answers(one: dict[str, Any]) -> list[Any]:
        queries = {"queries": [{"vector": [3, 4], **one}]}
        return [
            client.post(f"{DOCS}/search", json={"vector": [3, 4], **one}).get_json(),
            client.post(f"{DOCS}/search", json={"vectors": [[3, 4]], **one}).get_json(),
            client.post(f"{DOCS}/queries", json=queries).get_json()["results"][0],
            client.post(f"{DOCS}/rows/scan", json=one).get_json(),
        ]

    for found in answers(missed):
        assert (found["id_kind"], found["dim"]) == ("string", 2)
    for found in answers(asked):
        assert not {"id_kind", "dim"} & found.keys()


def test_the_limit_of_a_body_is_a_setting(database: Database) -> None:
    client = create_app(database, Config(max_body_bytes=2_000)).test_client()
    answer = client.post("/v1/namespaces", data=b" " * 2_001, content_type="application/json")
    assert answer.get_json()["details"]["limit"] == 2_000


def test_parts_carry_the_etag_of_their_epoch(docs: FlaskClient) -> None:
    now, past = docs.get(f"{DOCS}/parts"), docs.get(f"{DOCS}/parts?epoch=1")
    assert now.headers["ETag"] == docs.get(DOCS).headers["ETag"]
    assert past.headers["ETag"] == now.headers["ETag"].replace('-2"', '-1"')
    assert (len(now.get_json()["parts"]), past.get_json()["parts"]) == (1, [])
    assert docs.get(f"{DOCS}/parts?epoch=0").get_json()["details"]["field"] == "epoch"
    assert docs.get("/v1/caches?x=1").status_code == 400
