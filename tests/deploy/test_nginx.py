"""What nginx does for all: TLS, errors in one shape, retries; nothing fails while servers come and go."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import urllib3

from tests.deploy.site import JSON, PARTS, QUERY, SEARCH, Load, Site, answer_of, site_of
from tests.deploy.support import nginx
from tests.server.support import eventually, running_server


def test_plain_http_is_sent_to_https(site: Site) -> None:
    connection = http.client.HTTPConnection(site.nginx.host, site.nginx.plain_port, timeout=20)
    connection.request("POST", SEARCH + "?a=b", QUERY, JSON)
    answer = answer_of(connection)
    assert answer.status == 308  # the method stays
    assert answer.headers["Location"] == f"https://vecstore.example.com{SEARCH}?a=b"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/v1/namespaces/docs/rows/" + "a" * 20_000, {}, 414, "invalid_argument"),
        ("GET", "/healthz", {"X-Long": "a" * 20_000}, 400, "invalid_argument"),
        ("POST", PARTS, {"Content-Length": str(300 << 20)}, 413, "payload_too_large"),
        ("GET", "/metrics", {}, 404, "route_not_found"),
        ("GET", "/_refused", {}, 404, "route_not_found"),
        ("TRACE", "/healthz", {}, 405, "method_not_allowed"),
    ],
)
def test_what_nginx_refuses_has_the_shape_of_all_errors(
    site: Site, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = site.ask(method, path, None, headers)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert set(answer.json) == {"code", "message", "details"}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"] == answer.json["details"]["request_id"]
    assert answer.headers["Server"] == "nginx"  # without a version


def test_figures_are_not_told_by_another_spelling(site: Site) -> None:
    for path in ("//metrics", "/%2Fmetrics", "/%2F%2Fmetrics", "/x/..//metrics", "/./metrics", "/%6Detrics"):
        answer = site.ask("GET", path)
        assert (answer.status, answer.json["code"]) == (404, "route_not_found"), path


def test_errors_of_the_server_pass_as_they_are(site: Site) -> None:
    answer = site.ask("POST", SEARCH, json.dumps({"vector": [1, 2, 3]}))
    assert (answer.status, answer.json["code"]) == (400, "dimension_mismatch")
    assert site.ask("GET", "/v1/nothing").json["code"] == "route_not_found"


@pytest.mark.parametrize("identity", ["%2E", "%2E%2E", "%0A", "%0D%0A", "a%2F%2E%2E"])
def test_a_row_id_passes_whatever_it_holds(site: Site, identity: str) -> None:
    answer = site.ask("GET", f"/v1/namespaces/docs/rows/{identity}")
    assert (answer.status, answer.json["code"], answer.json["details"]["field"]) == (400, "invalid_id", "id")


def test_no_server_is_told_as_json_and_when_to_come_back(tmp_path: Path) -> None:
    with nginx(tmp_path, "127.0.0.1:1") as proxy:
        connection = http.client.HTTPSConnection(proxy.host, proxy.port, timeout=20, context=proxy.context())
        for path in (SEARCH, PARTS):
            connection.request("POST", path, QUERY, {**JSON, "X-Request-Id": "mine"})
            answer = answer_of(connection)
            assert (answer.status, answer.json["code"]) == (503, "server_unavailable")
            assert answer.headers["Retry-After"] == "1"
            assert answer.json["details"] == {"request_id": "mine"}


@contextmanager
def taker(*, closes: bool) -> Iterator[str]:
    """A server that takes requests and answers none: it closes the connection, or keeps it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as kept:

        def take() -> None:
            with suppress(OSError):
                while True:
                    client = kept.enter_context(listener.accept()[0])
                    client.recv(65_536)
                    if closes:
                        client.close()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("closes", "status", "read"), [(True, 503, "server_unavailable"), (False, 504, "deadline_exceeded")]
)
def test_what_became_of_a_write_that_was_sent_and_not_answered_is_not_known(
    tmp_path: Path, closes: bool, status: int, read: str
) -> None:
    hurried = {
        "proxy_read_timeout 310s": "proxy_read_timeout 1s",
        "proxy_read_timeout 1h": "proxy_read_timeout 1s",
    }
    with taker(closes=closes) as server, nginx(tmp_path, server, changes=hurried) as proxy:
        asked = {
            "a search": ("POST", SEARCH, {}),
            "an insert": ("POST", PARTS, {}),
            "an insert with a key": ("POST", PARTS, {"Idempotency-Key": "mine"}),
            "a deletion": ("DELETE", "/v1/namespaces/docs", {}),
        }
        found = {}
        for what, (method, path, headers) in asked.items():
            connection = http.client.HTTPSConnection(
                proxy.host, proxy.port, timeout=20, context=proxy.context()
            )
            connection.request(method, path, QUERY, {**JSON, **headers})
            answer = answer_of(connection)
            connection.close()
            found[what] = answer.status, answer.json["code"]
    assert found == {what: (status, read if what == "a search" else "outcome_unknown") for what in asked}


def test_a_client_beyond_its_rate_gets_429_as_json(site: Site, tmp_path: Path) -> None:
    slow = {"rate=5000r/s": "rate=1r/m", "zone=rate burst=1000 nodelay": "zone=rate burst=1 nodelay"}
    with nginx(tmp_path, site.server.url.removeprefix("http://"), changes=slow) as proxy:
        hurried = Site(site.server, proxy)
        answers = [hurried.ask("POST", SEARCH, QUERY) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        assert answers[-1].json["code"] == "too_many_requests"
        assert answers[-1].headers["Retry-After"] == "1"


def test_requests_beyond_what_the_server_is_to_have_at_once_get_429(tmp_path: Path) -> None:
    request = f"POST {SEARCH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(QUERY)}\r\n\r\n{QUERY}"
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
        proxy = stack.enter_context(nginx(tmp_path, f"127.0.0.1:{silent.getsockname()[1]}"))
        clients = [stack.enter_context(proxy.connect()) for _ in range(166)]
        for client in clients:
            client.sendall(request.encode())
            client.settimeout(0)
        refused: dict[int, bytes] = {}

        def listen() -> int:
            for number, client in enumerate(clients):
                with suppress(ssl.SSLWantReadError):
                    refused[number] = refused.get(number, b"") + client.recv(65_536)
            return len(refused)

        eventually("those beyond 160 are refused", lambda: listen() == 6)
        for answer in refused.values():
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nRetry-After: 1\r\n" in answer
            assert b'"code":"too_many_requests"' in answer


def test_etags_stay_strong_and_conditions_arrive(site: Site) -> None:
    shown = site.ask("GET", "/v1/namespaces/docs", headers={"Accept-Encoding": "gzip, br"})
    etag = shown.headers["ETag"]
    assert etag.startswith('"')
    changed = json.dumps({"defaults": {"probe_fraction": 0.5}})
    path = "/v1/namespaces/docs"
    assert site.ask("PATCH", path, changed, {**JSON, "If-Match": etag}).status == 200
    assert site.ask("PATCH", path, changed, {**JSON, "If-Match": etag}).status == 412


def test_ids_with_slashes_and_dots_reach_the_server_as_they_are(site: Site) -> None:
    made = json.dumps({"name": "paths", "dim": 1, "metric": "l2"})
    assert site.ask("POST", "/v1/namespaces", made).status == 201
    ids = ["a//b", "a/../b", "a%2Fb", "ä"]
    rows = json.dumps({"ids": ids, "vectors": [[i] for i in range(4)]})
    assert site.ask("POST", "/v1/namespaces/paths/parts", rows).status == 201
    written = ["a//b", "a/%2E%2E/b", "a%252Fb", "%C3%A4"]
    for identity, path in zip(ids, written, strict=True):
        answer = site.ask("GET", f"/v1/namespaces/paths/rows/{path}")
        assert (answer.status, answer.json.get("id")) == (200, identity)
    assert site.ask("DELETE", "/v1/namespaces/paths").status == 204


def test_a_reload_fails_no_request(site: Site) -> None:
    load = Load(site)
    try:
        load.searches(3, kept=True)
        load.searches(1, kept=False)
        load.inserts(2, keyed=False)
        before = set(site.workers())
        load.await_all()
        site.server.process.send_signal(signal.SIGHUP)
        eventually("all workers are others", lambda: gone(site, before), 60)
        load.await_all()
    finally:
        load.end()
    assert load.failed == []


def gone(site: Site, before: set[int]) -> bool:
    now = set(site.workers())
    return len(now) == 2 and not now & before


def test_workers_that_are_killed_fail_no_search_and_no_write_with_a_key(site: Site) -> None:
    load = Load(site)
    try:
        load.searches(3, kept=True)
        load.inserts(2, keyed=True)
        for kill in range(3):
            eventually("two workers", lambda: len(site.workers()) == 2)
            load.await_all()  # nginx sends a request twice, so two deaths may not hit the same one
            os.kill(site.workers()[kill % 2], signal.SIGKILL)
        load.await_all()
    finally:
        load.end()
    assert load.failed == []


def test_a_node_that_stops_fails_no_search_where_there_is_another(tmp_path: Path) -> None:
    options = ("--workers", "1", "--no-maintenance")
    with (
        running_server(tmp_path / "data", *options) as first,
        running_server(tmp_path / "data", *options) as second,
    ):
        backends = [node.url.removeprefix("http://") for node in (first, second)]
        with nginx(tmp_path / "nginx", *backends) as proxy:
            site = Site(first, proxy)
            made = json.dumps({"name": "docs", "dim": 2, "metric": "l2"})
            assert site.ask("POST", "/v1/namespaces", made).status == 201
            load = Load(site)
            try:
                load.searches(3, kept=True)
                load.inserts(1, keyed=True)
                load.await_all()
                first.process.terminate()
                first.process.wait(30)
                load.await_all()
            finally:
                load.end()
            assert load.failed == []


def test_a_request_under_way_is_answered_when_the_server_is_told_to_stop(tmp_path: Path) -> None:
    with site_of(tmp_path, workers=1) as site:
        connection = site.connection()
        vectors = [[i % 7, i % 11] for i in range(10_000)]
        connection.request("POST", SEARCH, json.dumps({"vectors": vectors, "top_k": 10, "debug": True}), JSON)
        eventually("it has begun", lambda: under_way(site) > 1)  # the question is one too
        site.server.process.terminate()
        assert answer_of(connection).status == 200
        site.server.process.wait(30)


def under_way(site: Site) -> int:
    """Requests that the server is answering now, as it tells itself."""
    told = urllib3.request("GET", f"{site.server.url}/metrics", retries=False).data.decode()
    (count,) = re.findall(r"^vecstore_http_requests_in_flight (\S+)$", told, re.MULTILINE)
    return int(float(count))
