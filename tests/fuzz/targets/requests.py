"""HTTP requests to the application in this process: nothing but 2xx and 4xx may be answered."""

from __future__ import annotations

import base64
import gzip
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import quote

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
# Each with the places in `_bodies` of those that suit it.
ROUTES: tuple[tuple[str, str, range], ...] = (
    ("POST", f"{DOCS}/search", range(6)),
    ("POST", f"{DOCS}/search", range(6)),
    ("GET", f"{DOCS}/search", range(6)),
    ("POST", f"{DOCS}/parts", range(6, 9)),
    ("POST", f"{DOCS}/patches", range(9, 11)),
    ("POST", f"{DOCS}/deletes", range(11, 13)),
    ("POST", f"{DOCS}/rows/scan", range(13, 15)),
    ("POST", f"{DOCS}/aggregate", range(15, 16)),
    ("POST", f"{DOCS}/queries", range(16, 17)),
    ("POST", f"{DOCS}/recall", range(17, 18)),
    ("GET", f"{DOCS}/rows/", range(1)),
    ("POST", f"{DOCS}/restore", range(18, 19)),
    ("POST", f"{DOCS}/branches", range(19, 20)),
    ("POST", f"{DOCS}/tags", range(19, 20)),
    ("DELETE", f"{DOCS}/tags/", range(1)),
    ("PATCH", DOCS, range(21, 22)),
    ("GET", f"{DOCS}/manifest", range(1)),
    ("POST", "/v1/namespaces", range(20, 21)),
    ("GET", "/v1/namespaces", range(1)),
    ("GET", "/v1/namespaces/", range(1)),
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
def _bodies(name: str) -> tuple[Any, ...]:
    """A sound body for each kind of request to a world, which inputs then change."""
    queries, ids = world(name).queries, world(name).ids
    q = queries[0].tolist()
    packed = base64.b64encode(queries[:3].astype("<f4").tobytes()).decode()
    rows = attributes(3, 2)
    return (
        {"vector": q, "top_k": 5, "filter": FILTERS[17], "include": ["word", "vector"]},
        {"vector": base64.b64encode(np.float32(q).tobytes()).decode(), "target_recall": 0.9, "debug": True},
        {"vectors": packed, "top_k": 2, "nprobe": 3},
        {"id": ids[5], "include_self": True, "filter": FILTERS[4], "max_distance": 4.5},
        {"order_by": ["year", "desc"], "top_k": 7, "exclude": ["body"]},
        {"vector": q, "limit_per_group": ["word", 2], "rerank_precision": "fp32", "rerank_scale": 2.0},
        {"vectors": queries[:3].tolist(), "ids": ids[:3], "attributes": rows},
        {"vectors": packed, "ids": ids[5:8], "mode": "insert_if_absent", "return_ids": True,
         "attributes": [{"n": 1, "tags": ["a"]}, {}, {"word": None}], "schema": {"new": "[]float"}},
        {"vectors": packed, "condition": ["n", "Lt", {"$ref_new": "n"}], "ids": ids[1:4],
         "attributes": {"n": [1, 2, 3]}},
        {"ids": ids[1:4], "attributes": {"year": [1, None, 3]}, "condition": FILTERS[0]},
        {"filter": FILTERS[0], "attributes": {"word": "x", "tags": ["a", "b"]}},
        {"ids": ids[4:6], "return_ids": True},
        {"filter": FILTERS[18], "condition": FILTERS[1]},
        {"filter": FILTERS[9], "limit": 20, "include": ["word", "vector"], "vector_encoding": "base64"},
        {"limit": 3, "order": "stored"},
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
    asked, dice = Dice(data[:5]), Dice(data[5:])
    method, path, suited = ROUTES[asked.below(len(ROUTES))]
    form, headers_kind = asked.byte(), asked.byte()
    number, chosen = asked.byte(), world(asked.of(("coded", "strings")))
    bodies = _bodies(chosen.name)
    body = _body(bodies[suited[number % len(suited)] if number < 224 else number % len(bodies)], dice)
    headers: dict[str, str] = {"Content-Type": "application/json"}
    if path.endswith("/"):
        path += quote(dice.take(dice.below(20)), safe="/")
    if form & 1:
        body = gzip.compress(body)
        headers["Content-Encoding"] = "gzip"
        if form & 6 == 6:
            some = bytearray(body)
            for _ in range(3):
                some[dice.below(len(some))] = dice.byte()
            body = bytes(some)
    if headers_kind >= 96:  # most requests come as they should
        headers_kind = 0
    if headers_kind & 1:
        headers["Idempotency-Key"] = _text(dice)
    if headers_kind & 2:
        headers["If-Match"] = dice.of(('"x-3"', "*", _text(dice), '"-"'))
    if headers_kind & 4:
        headers["Content-Type"] = dice.of(("application/json; charset=utf-8", "text/plain", _text(dice)))
    query = ""
    if headers_kind & 8:
        query = dice.of(("vector=", "epoch=", "top_k=", "filter=", "limit=", "after=", "x=")) + _text(dice)
    client = _servers().client(chosen)
    with _quiet():
        answer = client.open(path, method=method, data=body, headers=headers, query_string=query)
    told = answer.get_data()
    if answer.status_code >= 500:
        raise AssertionError(f"{method} {path}: {answer.status_code} {told[:300]!r}")
    if answer.status_code >= 400:
        json.loads(told)["code"]


def _body(sound: Any, dice: Dice) -> bytes:
    """A sound body with changes in its values, or in its bytes."""
    document = json.loads(json.dumps(sound))
    kind = dice.below(6)
    if kind == 0:
        body = bytearray(json.dumps(document).encode())
        for _ in range(1 + dice.below(4)):
            at = dice.below(len(body) + 1)
            body[at : at + dice.below(4)] = dice.take(dice.below(5))
        return bytes(body)
    if kind == 1:
        return dice.rest()
    for _ in range(dice.below(3)):
        json_edits.edit(document, dice)
    return json.dumps(document, ensure_ascii=bool(dice.below(2))).encode("utf-8", "surrogatepass")


def _text(dice: Dice) -> str:
    text = dice.take(dice.below(24)).decode("latin-1")
    return "".join(c for c in text if c not in "\r\n\0")


@contextmanager
def _quiet() -> Iterator[None]:
    """What is refused is logged, which would be most of what a run says."""
    log = logging.getLogger("vecstore")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
