"""Who may do what: the table of ``docs/access.md`` cell by cell, and ways around it that lead nowhere."""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.server.keys import KeyFile, all_of, identity
from vecstore.api import Database
from vecstore.config import Config
from vecstore.errors import StorageRetryable
from vecstore.keys import Grant
from vecstore.server import wire
from vecstore.server.app import create_app
from vecstore.server.openapi import document
from vecstore.server.scopes import NEEDS, route
from vecstore.telemetry.metrics import Metrics
from vecstore.telemetry.setup import Telemetry

DOCS = Path(__file__).parent.parent.parent / "docs" / "access.md"
COLUMNS = (None, "read", "write", "admin", "other")
ONE = "/v1/namespaces/{ns}"


def table() -> dict[str, dict[str | None, str]]:
    """Method and path as in the docs, and what each kind of key is answered."""
    rows = re.findall(r"^\| `([A-Z]+ /\S+)` \|((?: (?:yes|40[134]) \|){5})$", DOCS.read_text(), re.MULTILINE)
    return {path: dict(zip(COLUMNS, cells.replace("|", " ").split(), strict=True)) for path, cells in rows}


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    file = KeyFile(tmp_path / "keys.json")
    file.add("read", Grant(("read",), "acme-"))
    file.add("write", Grant(("write",), "acme-"))
    file.add("admin", Grant(("admin",), "acme-"))
    file.add("acme", all_of("acme-"))
    file.add("other", all_of("zeta-"))
    file.add("operator", all_of(""))
    return file


@pytest.fixture
def app(database: Database, keys: KeyFile, tmp_path: Path) -> Flask:
    seen = Telemetry(metrics=Metrics(tmp_path))
    return create_app(database, Config(keys_file=str(keys.path), max_body_bytes=1 << 20), seen=seen)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def ask(client: FlaskClient, keys: KeyFile) -> Callable[..., TestResponse]:
    """A request with the key of a name, or with none."""

    def send(key: str | None, method: str, path: str, **more: Any) -> TestResponse:
        headers = {**keys.header(key), **more.pop("headers", {})}
        return client.open(path, method=method, headers=headers, **more)

    return send


def filled(database: Database, name: str) -> str:
    """A namespace with two rows and a tag; its ``ETag``."""
    ns = database.create_namespace(name, 1, "l2")
    ns.insert([[0.0], [1.0]], ids=[0, 1], attributes={"year": [1, 2]})
    ns.tag("kept")
    return f'"{ns.stats().etag}"'


def good_request(path: str, etag: str) -> dict[str, Any]:
    """What a route needs to answer 2xx on a namespace that `filled` has made."""
    bodies: dict[str, Any] = {
        f"PATCH {ONE}": {"defaults": {"list_rows": 64}},
        f"POST {ONE}/parts": {"vectors": [[2.0]]},
        f"POST {ONE}/patches": {"ids": [0], "attributes": {"year": [3]}},
        f"POST {ONE}/deletes": {"ids": [0]},
        f"POST {ONE}/search": {"vector": [0.0]},
        f"POST {ONE}/aggregate": {"aggregate_by": {"n": ["Count"]}},
        f"POST {ONE}/queries": {"queries": [{"vector": [0.0]}, {"aggregate_by": {"n": ["Count"]}}]},
        f"POST {ONE}/restore": {"epoch": 2},
        f"POST {ONE}/branches": {"name": "acme-branch"},
        f"POST {ONE}/tags": {"name": "new"},
    }
    more: dict[str, Any] = {"json": bodies[path]} if path in bodies else {}
    if path.endswith("/restore"):
        more["headers"] = {"If-Match": etag}
    if path == f"GET {ONE}/search":
        more["query_string"] = {"vector": "[0]"}
    return more


# -- the table -----------------------------------------------------------------------------


def test_the_table_has_a_row_for_every_route_and_no_other(app: Flask) -> None:
    routes = {
        route(method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {route(*path.split(" ", 1)) for path in table()} == routes == set(NEEDS)


@pytest.mark.parametrize("path", table())
def test_each_cell_of_the_table_holds(
    path: str, database: Database, ask: Callable[..., TestResponse]
) -> None:
    method, where = path.split(" ", 1)
    for number, (key, cell) in enumerate(table()[path].items()):
        name = f"acme-{number}"
        more = good_request(path, filled(database, name))
        if path == "POST /v1/namespaces":
            more["json"] = {"name": f"acme-new-{number}", "dim": 1}
        at = where.format(ns=name, id="1", tag="kept", name="main.js")
        before = len(list(database.namespaces())), database.namespace(name).stats()
        answer = ask(key, method, at, **more)
        if cell == "yes":
            assert 200 <= answer.status_code < 400, (key, answer.get_data())
        else:
            assert answer.status_code == int(cell), (key, answer.get_data())
            assert (len(list(database.namespaces())), database.namespace(name).stats()) == before
        if cell == "403" and method != "HEAD":
            assert answer.get_json()["details"]["scope"] in ("read", "write", "admin")
        if cell == "401":
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        if method == "GET":
            head = ask(key, "HEAD", at, **more)
            assert (head.status_code, head.get_data()) == (answer.status_code, b"")


def test_the_document_asks_for_what_the_table_says() -> None:
    for path, cells in table().items():
        method, where = path.split(" ", 1)
        if where == "/metrics" or where.startswith(("/console", "/docs/")):  # no part of the API
            continue
        operation = document()["paths"][where][method.lower()]
        asked = {scope for one in operation["security"] for scope in one["key"]}
        can = {scope for scope in ("read", "write", "admin") if cells[scope] == "yes" != cells[None]}
        assert asked == (can or ({"admin"} if cells["admin"] == "403" else set()))
        assert ("401" in operation["responses"]) == (cells[None] == "401")


def test_a_route_that_is_not_in_the_table_is_the_operators(
    app: Flask, client: FlaskClient, keys: KeyFile
) -> None:
    app.add_url_rule("/figures", "figures", lambda: "42")
    app.add_url_rule("/v1/namespaces/<ns>/figures", "ns_figures", lambda ns: "42")
    for path in ("/figures", "/v1/namespaces/acme-a/figures"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=keys.header("acme")).status_code == 403
        assert client.get(path, headers=keys.header("operator")).get_data() == b"42"


def test_without_a_key_file_nobody_is_asked_for_a_key(database: Database) -> None:
    client = create_app(database).test_client()
    assert client.post("/v1/namespaces", json={"name": "docs", "dim": 1}).status_code == 201
    assert client.get("/v1/namespaces/docs", headers={"Authorization": "Bearer x"}).status_code == 200


# -- other tenants -------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in table() if "{ns}" in path])
def test_a_namespace_of_another_cannot_be_told_from_one_that_is_not_there(
    path: str, database: Database, ask: Callable[..., TestResponse]
) -> None:
    method, where = path.split(" ", 1)
    more = good_request(path, filled(database, "zeta-real"))
    answers = [
        ask(key, method, where.format(ns=name, id="1", tag="kept"), **more)
        for key, name in (("acme", "zeta-real"), ("acme", "zeta-none"), ("operator", "zeta-none"))
    ]
    said = [answer.get_data().replace(b"zeta-real", b"zeta-none") for answer in answers]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert said[0] == said[1] == said[2]
    headers = [sorted(h for h in answer.headers if h[0] != "X-Request-Id") for answer in answers]
    assert headers[0] == headers[1] == headers[2]


@pytest.mark.parametrize("path", ["/v1/namespaces", "/v1/namespaces/acme-source/branches"])
def test_a_name_in_a_body_is_judged_without_telling_whether_it_is_there(
    path: str, database: Database, ask: Callable[..., TestResponse]
) -> None:
    filled(database, "zeta-real")
    filled(database, "acme-source")
    dim = {} if path.endswith("branches") else {"dim": 1}
    there, missing = (ask("acme", "POST", path, json={"name": f"zeta-{n}", **dim}) for n in ("real", "none"))
    assert there.status_code == missing.status_code == 403
    assert there.get_data() == missing.get_data()
    assert [info.name for info in database.namespaces()] == ["acme-source", "zeta-real"]
    mine = ask("acme", "POST", path, json={"name": "acme-new", **dim})
    assert mine.status_code == 201


def test_a_branch_out_of_a_namespace_of_another_is_refused_like_a_missing_one(
    database: Database, ask: Callable[..., TestResponse]
) -> None:
    filled(database, "zeta-real")
    answer = ask("acme", "POST", "/v1/namespaces/zeta-real/branches", json={"name": "acme-mine"})
    assert answer.get_json()["code"] == "namespace_not_found"
    assert [info.name for info in database.namespaces()] == ["zeta-real"]


def test_a_manifest_keeps_back_the_names_of_others(
    database: Database, ask: Callable[..., TestResponse]
) -> None:
    filled(database, "zeta-source")
    database.namespace("zeta-source").branch("acme-branch")
    database.namespace("acme-branch").branch("zeta-again")
    for key, hidden in (("acme", b"zeta-"), ("other", b"acme-")):
        for name in ("zeta-source", "acme-branch", "zeta-again"):
            answer = ask(key, "GET", f"/v1/namespaces/{name}/manifest")
            assert hidden not in answer.get_data().replace(b"no namespace 'zeta-", b"").replace(
                b'"namespace":"' + name.encode(), b""
            ).replace(name.encode(), b"")
    full = ask("operator", "GET", "/v1/namespaces/acme-branch/manifest").get_json()
    assert full["ancestors"][0]["namespace"] == "zeta-source"
    assert full["parts"][0]["owner"] == "zeta-source"
    mine = ask("acme", "GET", "/v1/namespaces/acme-branch/manifest").get_json()
    assert mine["ancestors"][0]["namespace"] is None
    assert mine["parts"][0]["owner"] is None
    assert {pin["name"] for pin in mine["pins"] if pin["kind"] == "branch"} == {None}


def test_a_list_of_parts_keeps_back_whose_they_are(
    database: Database, ask: Callable[..., TestResponse]
) -> None:
    filled(database, "zeta-source")
    database.namespace("zeta-source").branch("acme-branch").insert([[2.0]])
    owners = {
        key: {
            part["owner"] for part in ask(key, "GET", "/v1/namespaces/acme-branch/parts").get_json()["parts"]
        }
        for key in ("operator", "acme")
    }
    assert owners == {"operator": {"zeta-source", "acme-branch"}, "acme": {None, "acme-branch"}}


def test_why_a_server_is_not_ready_is_told_to_its_operator_alone(
    database: Database, keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise StorageRetryable("http://10.0.0.7:9000/vault does not answer")

    monkeypatch.setattr(database.backend, "ping", fail)
    with_keys = create_app(database, Config(keys_file=str(keys.path))).test_client()
    for key in ("acme", None):
        answer = with_keys.get("/readyz", headers=keys.header(key))
        assert answer.status_code == 503
        assert answer.get_json()["details"] == {"checks": {"store": "failed", "draining": "ok"}}
        assert b"vault" not in answer.get_data()
    without = create_app(database).test_client()
    for client, name in ((with_keys, "operator"), (without, None)):
        assert b"vault" in client.get("/readyz", headers=keys.header(name)).get_data()


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("prefix", ["", "a", "acme-", "acme-1", "b", "zeta-"])
def test_a_listing_has_what_the_key_covers_on_full_pages(
    size: int, prefix: str, database: Database, keys: KeyFile, tmp_path: Path
) -> None:
    names = ["a", "acme", "acme-", "acme-1", "acme-1.x", "acme-2", "acmf", "b-0", "b-1", "b0", "zeta-1"]
    for name in names:
        database.create_namespace(name, 1)
    keys.add("several", Grant(("write",), "b-"), Grant(("read",), "acme-"), Grant(("admin",), "acme-1"))
    client = create_app(database, Config(keys_file=str(keys.path))).test_client()
    pages: list[list[str]] = []
    query = {"prefix": prefix, "page_size": str(size)}
    while True:
        answer = client.get("/v1/namespaces", query_string=query, headers=keys.header("several"))
        page = answer.get_json()
        pages.append([info["name"] for info in page["namespaces"]])
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    covered = [n for n in sorted(names) if n.startswith(("acme-", "b-")) and n.startswith(prefix)]
    assert [name for page in pages for name in page] == covered
    assert {len(page) for page in pages[:-1]} <= {size}


def test_a_cursor_of_another_leads_to_nothing_of_theirs(
    database: Database, ask: Callable[..., TestResponse]
) -> None:
    for name in ("acme-1", "zeta-1", "zeta-2", "zeta-3"):
        database.create_namespace(name, 1)
    theirs = ask("other", "GET", "/v1/namespaces?page_size=1").get_json()["next_cursor"]
    for cursor in (theirs, wire.encode_cursor("acme-0")):
        found = ask("acme", "GET", "/v1/namespaces", query_string={"cursor": cursor}).get_json()
        assert [info["name"] for info in found["namespaces"]] in ([], ["acme-1"])
        assert found["next_cursor"] is None
    asked = ask("acme", "GET", "/v1/namespaces", query_string={"prefix": "zeta-"}).get_json()
    assert asked == {"namespaces": [], "next_cursor": None}


def test_an_idempotency_key_of_one_tenant_says_nothing_to_another(
    database: Database, ask: Callable[..., TestResponse]
) -> None:
    filled(database, "acme-a")
    filled(database, "zeta-a")
    headers = {"Idempotency-Key": "same"}
    body = {"vectors": [[5.0], [6.0]]}
    theirs = ask("other", "POST", "/v1/namespaces/zeta-a/parts", json=body, headers=headers)
    mine = ask("acme", "POST", "/v1/namespaces/acme-a/parts", json={"vectors": [[7.0]]}, headers=headers)
    assert (theirs.status_code, mine.status_code) == (201, 201)
    assert mine.get_json()["n"] == 1
    probe = ask("acme", "POST", "/v1/namespaces/zeta-a/parts", json=body, headers=headers)
    assert probe.get_json()["code"] == "namespace_not_found"


# -- keys that are none --------------------------------------------------------------------


def bad_headers(keys: KeyFile) -> dict[str, str]:
    good, other = keys.keys["acme"], keys.keys["operator"]
    start, secret = good.rsplit("_", 1)
    return {
        "empty": "",
        "scheme alone": "Bearer",
        "no scheme": good,
        "another scheme": f"Basic {good}",
        "two keys": f"Bearer {good},Bearer {other}",
        "two keys of one header": f"Bearer {good}, {other}",
        "quoted": f'Bearer "{good}"',
        "tab": f"Bearer\t{good}",
        "something behind": f"Bearer {good} x",
        "newline behind": f"Bearer {good}\n",
        "upper case": f"Bearer {good.upper()}",
        "other secret": f"Bearer {start}_{secret[::-1]}",
        "secret of another": f"Bearer {start}_{other.rsplit('_', 1)[1]}",
        "id of another": f"Bearer vs_{identity(other)}_{secret}",
        "unknown id": f"Bearer vs_{'0' * 12}_{secret}",
        "too short": f"Bearer {good[:-1]}",
        "too long": f"Bearer {good}0",
        "digest": f"Bearer {start}_{json.loads(keys.path.read_bytes())['keys'][3]['digest']}",
        "not ASCII": f"Bearer {start}_{'é' * 64}",
        "digits of another script": f"Bearer {start}_{chr(0xB2) * 64}",
        "huge": f"Bearer {'a' * 100_000}",
        "huge in spaces": f"Bearer {' ' * 100_000}",
        "percent": f"Bearer%20{good}",
    }


def test_what_is_no_key_that_holds_is_answered_the_same(
    client: FlaskClient, keys: KeyFile, database: Database
) -> None:
    filled(database, "acme-a")
    said = set()
    for name, header in bad_headers(keys).items():
        answer = client.get("/v1/namespaces/acme-a", environ_overrides={"HTTP_AUTHORIZATION": header})
        assert answer.status_code == 401, name
        said.add(answer.get_data())
    assert len(said) == 1


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer    "])
def test_the_scheme_is_read_as_http_has_it(client: FlaskClient, keys: KeyFile, scheme: str) -> None:
    answer = client.get("/v1/namespaces", headers={"Authorization": scheme + keys.keys["acme"]})
    assert answer.status_code == 200


def test_a_key_anywhere_else_is_none(client: FlaskClient, keys: KeyFile) -> None:
    key = keys.keys["acme"]
    for more in (
        {"query_string": {"access_token": key, "api_key": key}},
        {"headers": {"X-API-Key": key, "Proxy-Authorization": f"Bearer {key}", "Cookie": f"key={key}"}},
        {"environ_overrides": {"AUTHORIZATION": f"Bearer {key}", "REMOTE_USER": "acme"}},
    ):
        assert client.get("/v1/namespaces", **more).status_code == 401  # type: ignore[arg-type]


def test_digests_are_compared_in_constant_time_once_whoever_asks(
    client: FlaskClient, keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    good = keys.keys["acme"]
    start, secret = good.rsplit("_", 1)
    for key in (good, f"{start}_{secret[::-1]}", f"vs_{'f' * 12}_{secret}"):
        client.get("/v1/namespaces", headers={"Authorization": f"Bearer {key}"})
    assert compared == [(32, 32)] * 3


def test_every_route_and_none_needs_a_key(client: FlaskClient) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        for path in (
            "/nowhere",
            "/v1",
            "/v1/",
            "/v1/namespaces/",
            "/v1/nothing",
            "//v1/namespaces",
            "/V1/namespaces",
        ):
            assert client.open(path, method=method).status_code == 401, (method, path)


# -- ways around ---------------------------------------------------------------------------

DETOURS = [
    "//v1/namespaces/{}",
    "///v1/namespaces/{}/search",
    "/v1//namespaces/{}",
    "/v1/namespaces//{}",
    "/v1/namespaces/{}/",
    "/v1/namespaces/{}//search",
    "/v1/namespaces/{}/search/",
    "/v1/namespaces/acme-a/../{}",
    "/v1/namespaces/acme-a/../{}/search",
    "/v1/./namespaces/{}",
    "/v1/namespaces/acme-a%2F..%2F{}",
    "/v1/namespaces/acme-a%2f..%2f{}/search",
    "/v1/namespaces/acme-a%252F..%252F{}",
    "/v1/namespaces/%2e%2e/{}",
    "/v1/namespaces/{}%00",
    "/v1/namespaces/{}%0a",
    "/v1/namespaces/{}%20",
    "/v1/namespaces/%20{}",
    "/v1/namespaces/{};acme-a",
    "/v1/namespaces/{}%3Facme-a",
    "/v1/namespaces/{}%23",
    "/V1/Namespaces/{}",
    "/v1/namespaces/acme-a|{}",
    "/v1/namespaces/acme-a\\..\\{}",
    "/v1/namespaces/{}/rows/..%2F..%2Facme-a",
    "/v1/namespaces/acme-a/rows/..%2F..%2F{}",
]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_no_spelling_of_a_path_reaches_a_namespace_of_another(
    method: str, database: Database, ask: Callable[..., TestResponse]
) -> None:
    filled(database, "acme-a")
    filled(database, "zeta-real")
    before = database.namespace("zeta-real").stats()
    for detour in DETOURS:
        there, missing = (
            ask("acme", method, detour.format(name), json={"vector": [0.0]} if method == "POST" else None)
            for name in ("zeta-real", "zeta-none")
        )
        assert there.status_code >= 400, detour
        assert there.status_code == missing.status_code, detour
        assert there.get_data().replace(b"zeta-real", b"zeta-none") == missing.get_data(), detour
    assert database.namespace("zeta-real").stats() == before


def test_headers_that_rewrite_requests_elsewhere_do_nothing_here(
    database: Database, ask: Callable[..., TestResponse]
) -> None:
    filled(database, "acme-a")
    filled(database, "zeta-real")
    headers = {
        "X-HTTP-Method-Override": "DELETE",
        "X-HTTP-Method": "DELETE",
        "X-Original-URL": "/v1/namespaces/zeta-real",
        "X-Rewrite-URL": "/v1/namespaces/zeta-real",
        "X-Forwarded-Prefix": "/v1/namespaces/zeta-real",
        "X-Forwarded-Host": "zeta",
        "X-Script-Name": "/v1",
    }
    answer = ask("read", "POST", f"{ONE}/search".format(ns="acme-a"), json={"vector": [0.0]}, headers=headers)
    assert (answer.status_code, len(answer.get_json()["hits"])) == (200, 2)
    assert {info.name for info in database.namespaces()} == {"acme-a", "zeta-real"}
    upgraded = ask(
        "acme",
        "GET",
        "/v1/namespaces/zeta-real",
        headers={"Connection": "Upgrade", "Upgrade": "websocket"},
    )
    assert upgraded.status_code in (400, 404)


def test_a_search_of_another_is_refused_before_it_is_read(
    database: Database, ask: Callable[..., TestResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(database, "zeta-real")
    asked: list[object] = []
    monkeypatch.setattr("vecstore.engine.database.EmbeddedDatabase.search", lambda *a: asked.append(a))
    assert ask("acme", "POST", "/v1/namespaces/zeta-real/search", json={"vector": [0.0]}).status_code == 404
    assert ask("write", "POST", "/v1/namespaces/acme-x/search", json={"vector": [0.0]}).status_code == 403
    assert asked == []


# -- limits --------------------------------------------------------------------------------


def test_a_key_that_asks_too_often_is_told_when_to_come_back(database: Database, keys: KeyFile) -> None:
    filled(database, "acme-a")
    keys.add("slow", Grant(("read",), "acme-"), rate=0.05, burst=2)
    app = create_app(database, Config(keys_file=str(keys.path)))
    client, headers = app.test_client(), keys.header("slow")
    codes = []
    for _ in range(3):
        answer = client.post("/v1/namespaces/acme-a/search", json={"vector": [0.0]}, headers=headers)
        codes.append(answer.status_code)
    assert codes == [200, 200, 429]
    assert answer.get_json()["code"] == "too_many_requests"
    assert 1 <= int(answer.headers["Retry-After"]) <= 20
    assert client.get("/v1/namespaces/acme-a", headers=keys.header("read")).status_code == 200
    for probe in ("/healthz", "/readyz", "/metrics"):  # whatever key they come with
        assert client.get(probe, headers=headers).status_code != 429


def test_a_setting_limits_keys_that_say_nothing(database: Database, keys: KeyFile) -> None:
    keys.add("free", all_of("acme-"), rate=0.0)
    client = create_app(database, Config(keys_file=str(keys.path), key_rate=1e-3)).test_client()
    said = {
        name: [client.get("/v1/namespaces", headers=keys.header(name)) for _ in "ab"] for name in keys.keys
    }
    assert [answer.status_code for answer in said["read"]] == [200, 429]
    assert [answer.status_code for answer in said["free"]] == [200, 200]


# -- the audit log -------------------------------------------------------------------------


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The lines of the audit log so far."""
    caplog.set_level(logging.DEBUG)
    return lambda: [json.loads(r.getMessage()) for r in caplog.records if r.name == "vecstore.audit"]


ACTS = {
    "POST /v1/namespaces": "create_namespace",
    f"PATCH {ONE}": "update_namespace",
    f"DELETE {ONE}": "delete_namespace",
    f"POST {ONE}/restore": "restore",
    f"POST {ONE}/branches": "create_branch",
    f"POST {ONE}/tags": "create_tag",
    f"DELETE {ONE}/tags/{{tag}}": "delete_tag",
    f"POST {ONE}/compact": "compact",
}


@pytest.mark.parametrize("path", table())
def test_administrative_acts_are_logged_done_or_refused_and_nothing_else_is(
    path: str,
    database: Database,
    ask: Callable[..., TestResponse],
    keys: KeyFile,
    audit: Callable[[], list[dict[str, Any]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    method, where = path.split(" ", 1)
    more = good_request(path, filled(database, "acme-a"))
    if path == "POST /v1/namespaces":
        more["json"] = {"name": "acme-new", "dim": 1}
    for key in ("read", "admin", "other", None):
        ask(key, method, where.format(ns="acme-a", id="1", tag="kept", name="main.js"), **more)
    lines = audit()
    assert [line["act"] for line in lines] == [ACTS[path]] * 4 if path in ACTS else lines == []
    for line, key in zip(lines, ("read", "admin", "other", None), strict=bool(lines)):
        assert line["outcome"] == ("done" if key == "admin" else "refused")
        assert line.get("key") == (None if key is None else identity(keys.keys[key]))
        assert line.get("namespace") == ("acme-a" if "{ns}" in path else None)
    if path == f"POST {ONE}/branches":
        assert lines[1]["name"] == "acme-branch"
    if path == f"DELETE {ONE}/tags/{{tag}}":
        assert lines[1]["tag"] == "kept"
    for key in keys.keys.values():
        assert key.rsplit("_", 1)[1] not in caplog.text


def test_a_key_that_is_not_taken_is_named_by_the_id_that_it_claims(
    client: FlaskClient, audit: Callable[[], list[dict[str, Any]]]
) -> None:
    claimed = f"vs_{'a' * 12}_{'b' * 64}"
    client.delete("/v1/namespaces/acme-a", headers={"Authorization": f"Bearer {claimed}"})
    (line,) = audit()
    assert (line["presented"], line["status"], "key" in line) == ("a" * 12, 401, False)
    assert "b" * 64 not in json.dumps(line)


def test_without_keys_the_audit_log_is_kept_too_and_names_the_request(
    database: Database, audit: Callable[[], list[dict[str, Any]]]
) -> None:
    client = create_app(database).test_client()
    body = {"name": "docs", "dim": 1}
    client.post("/v1/namespaces", json=body, headers={"X-Request-Id": "r-1"})
    (line,) = audit()
    assert (line["act"], line["name"], line["outcome"]) == ("create_namespace", "docs", "done")
    assert (line["request_id"], "key" in line) == ("r-1", False)


def test_nobody_writes_a_line_of_their_own_into_the_audit_log(
    client: FlaskClient, keys: KeyFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name = 'x%0a{"act": "compact"}' + "y" * 3_000
    client.delete(f"/v1/namespaces/{name}", headers=keys.header("acme"))
    (message,) = [r.getMessage() for r in caplog.records if r.name == "vecstore.audit"]
    assert "\n" not in message
    assert len(message) < 500
    assert json.loads(message)["namespace"].startswith('x\n{"act"')
