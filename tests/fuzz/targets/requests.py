"""HTTP requests to the application in this process: nothing but 2xx and 4xx may be answered."""

from __future__ import annotations

import base64
import gzip
import json
import logging
from functools import cache
from typing import Any

import numpy as np
from flask.testing import FlaskClient

from tests.fuzz import json_edits
from tests.fuzz.dice import Dice
from tests.fuzz.exercise import FILTERS, SCALARS, Unthreaded
from tests.fuzz.worlds import NS, World, attributes, world
from vecstore.api import Database
from vecstore.config import Config
from vecstore.server.app import create_app
from vecstore.storage.memory import MemoryStore

DOCS = f"/v1/namespaces/{NS}"
MAX_BODY = 1 << 20
ROUTES = (
    ("POST", f"{DOCS}/search"),
    ("POST", f"{DOCS}/search"),
    ("GET", f"{DOCS}/search"),
    ("POST", f"{DOCS}/parts"),
    ("POST", f"{DOCS}/patches"),
    ("POST", f"{DOCS}/deletes"),
    ("POST", f"{DOCS}/rows/scan"),
    ("POST", f"{DOCS}/aggregate"),
    ("POST", f"{DOCS}/queries"),
    ("POST", f"{DOCS}/recall"),
    ("GET", f"{DOCS}/rows/"),
    ("POST", f"{DOCS}/restore"),
    ("POST", f"{DOCS}/branches"),
    ("POST", f"{DOCS}/tags"),
    ("DELETE", f"{DOCS}/tags/"),
    ("PATCH", DOCS),
    ("GET", f"{DOCS}/manifest"),
    ("POST", "/v1/namespaces"),
    ("GET", "/v1/namespaces"),
    ("GET", "/v1/namespaces/"),
)


class _Servers:
    """An application a world, as long as no request has changed its store."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[MemoryStore, int, FlaskClient]] = {}

    def client(self, chosen: World) -> FlaskClient:
        held = self._open.get(chosen.name)
        if held is not None and len(held[0].list("").objects) == held[1]:
            return held[2]
        store = MemoryStore("fuzz", clock=lambda: 1_700_000_100.0)
        for key, data in chosen.objects.items():
            store.put_if_absent(key, data)
        database = Database(Unthreaded(store, threads=1, sleep=lambda _: None))
        client = create_app(database, Config(max_body_bytes=MAX_BODY)).test_client()
        self._open[chosen.name] = store, len(store.list("").objects), client
        return client


_servers = cache(_Servers)


@cache
def _bodies() -> tuple[Any, ...]:
    """A sound body for each kind of request, which inputs then change."""
    q = world("coded").queries[0].tolist()
    packed = base64.b64encode(world("coded").queries[:3].astype("<f4").tobytes()).decode()
    rows = attributes(3, 2)
    return (
        {"vector": q, "top_k": 5, "filter": FILTERS[17], "include": ["word", "vector"]},
        {"vector": base64.b64encode(np.float32(q).tobytes()).decode(), "target_recall": 0.9, "debug": True},
        {"vectors": packed, "top_k": 2, "nprobe": 3},
        {"id": 5, "include_self": True, "filter": FILTERS[4], "max_distance": 4.5},
        {"order_by": ["year", "desc"], "top_k": 7, "exclude": ["body"]},
        {"vector": q, "limit_per_group": ["word", 2], "rerank_precision": "fp32", "rerank_scale": 2.0},
        {"vectors": world("coded").queries[:3].tolist(), "ids": [1, 2, 900], "attributes": rows},
        {"vectors": packed, "ids": [5, 6, 7], "mode": "insert_if_absent", "return_ids": True,
         "attributes": [{"n": 1, "tags": ["a"]}, {}, {"word": None}], "schema": {"new": "[]float"}},
        {"vectors": packed, "condition": ["n", "Lt", {"$ref_new": "n"}], "ids": [1, 2, 3],
         "attributes": {"n": [1, 2, 3]}},
        {"ids": [1, 2, 3], "attributes": {"year": [1, None, 3]}, "condition": FILTERS[0]},
        {"filter": FILTERS[0], "attributes": {"word": "x", "tags": ["a", "b"]}},
        {"ids": [4, 5], "return_ids": True},
        {"filter": FILTERS[18], "condition": FILTERS[1]},
        {"filter": FILTERS[9], "limit": 20, "include": ["title", "vector"], "vector_encoding": "base64"},
        {"limit": 3, "order": "stored", "cursor": "WyIwMSIsMl0="},
        {"aggregate_by": {"n": ["Count"], "m": ["Avg", "year"], "d": ["CountDistinct", "text"]},
         "group_by": ["word"]},
        {"queries": [{"vector": q, "top_k": 2}, {"order_by": [SCALARS[0], "asc"]},
                     {"aggregate_by": {"n": ["Max", "u"]}}]},
        {"sample": 5, "top_k": 3, "target_recall": 0.9, "source": "rows", "seed": 3},
        {"epoch": 3},
        {"name": "other", "epoch": 2},
        {"name": "more", "dim": 3, "metric": "l2", "schema": {"a": "int"}, "nprobe_cap": 3},
        {"nprobe_cap": 5, "target_recall": None, "schema": {"a": "string", "body": None}},
    )  # fmt: skip


def request(data: bytes) -> None:
    asked, dice = Dice(data[:6]), Dice(data[6:])
    method, path = ROUTES[asked.below(len(ROUTES))]
    form, headers_kind = asked.byte(), asked.byte()
    body = _body(asked.below(len(_bodies())), dice)
    headers: dict[str, str] = {"Content-Type": "application/json"}
    if path.endswith("/"):
        path += dice.take(dice.below(20)).decode("latin-1")
    if form & 1:
        body = gzip.compress(body)
        headers["Content-Encoding"] = "gzip"
        if form & 2:
            some = bytearray(body)
            for _ in range(3):
                some[dice.below(len(some))] = dice.byte()
            body = bytes(some)
    if headers_kind & 1:
        headers["Idempotency-Key"] = _text(dice)
    if headers_kind & 2:
        headers["If-Match"] = dice.of(('"x-3"', "*", _text(dice), '"-"'))
    if headers_kind & 4:
        headers["Content-Type"] = dice.of(("application/json; charset=utf-8", "text/plain", _text(dice)))
    query = ""
    if method == "GET" or headers_kind & 8:
        query = dice.of(("vector=", "epoch=", "top_k=", "filter=", "limit=", "after=", "x=")) + _text(dice)
    chosen = world("strings" if headers_kind & 16 else "coded")
    logging.getLogger("vecstore").setLevel(logging.CRITICAL)
    client = _servers().client(chosen)
    answer = client.open(path, method=method, data=body, headers=headers, query_string=query)
    told = answer.get_data()
    if answer.status_code >= 500:
        raise AssertionError(f"{method} {path}: {answer.status_code} {told[:300]!r}")
    if answer.status_code >= 400:
        json.loads(told)["code"]


def _body(which: int, dice: Dice) -> bytes:
    """A sound body with changes in its values, or in its bytes."""
    document = json.loads(json.dumps(_bodies()[which]))
    kind = dice.below(4)
    if kind == 0:
        body = bytearray(json.dumps(document).encode())
        for _ in range(1 + dice.below(4)):
            at = dice.below(len(body) + 1)
            body[at : at + dice.below(4)] = dice.take(dice.below(5))
        return bytes(body)
    if kind == 1:
        return dice.rest()
    for _ in range(1 + dice.below(3)):
        json_edits.edit(document, dice)
    return json.dumps(document, ensure_ascii=bool(dice.below(2))).encode("utf-8", "surrogatepass")


def _text(dice: Dice) -> str:
    text = dice.take(dice.below(24)).decode("latin-1")
    return "".join(c for c in text if c not in "\r\n\0")
