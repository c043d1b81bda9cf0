"""Keys in front of a real server: over sockets, from other processes, while it runs."""

from __future__ import annotations

import http.client
import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from click.testing import CliRunner

import vecstore
from tests.server.keys import KeyFile, all_of, identity
from tests.server.support import Server, command, environment, eventually, running_server
from vecstore.cli import main
from vecstore.client import HttpBackend
from vecstore.errors import InvalidArgument, NamespaceNotFound, Unauthenticated, Unauthorised
from vecstore.keys import Grant


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    file.add("operator", all_of(""))
    file.add("acme", all_of("acme-"))
    file.add("writer", Grant(("write",), "acme-"))
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: KeyFile) -> Iterator[Server]:
    """Two workers, on all addresses: with keys that needs no further leave."""
    with running_server(
        tmp_path_factory.mktemp("store") / "data",
        "--workers",
        "2",
        "--no-maintenance",
        "--host",
        "0.0.0.0",
        VECSTORE_KEYS_FILE=str(keys.path),
    ) as server:
        with vecstore.connect(server.url, api_key=keys.keys["operator"]) as database:
            for name in ("acme-a", "zeta-real"):
                database.create_namespace(name, 2, "l2").insert(np.eye(2, dtype=np.float32), ids=[1, 2])
        yield server


def raw(
    server: Server, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b""
) -> tuple[int, bytes]:
    """A request whose path and headers go out as they are."""
    at = urlsplit(server.url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def bearer(key: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {key}"


def test_two_headers_and_headers_that_look_alike_are_no_key(server: Server, keys: KeyFile) -> None:
    good, wrong = bearer(keys.keys["acme"]), bearer(keys.keys["acme"][:-1])
    assert raw(server, "GET", "/v1/namespaces", [good])[0] == 200
    assert raw(server, "GET", "/v1/namespaces", [("authorization", good[1])])[0] == 200
    for headers in ([good, good], [good, wrong], [wrong, good], [good, ("AUTHORIZATION", wrong[1])]):
        assert raw(server, "GET", "/v1/namespaces", headers)[0] == 401
    for name in ("Authorization_", "X-Authorization", "HTTP-Authorization", "Proxy-Authorization"):
        assert raw(server, "GET", "/v1/namespaces", [(name, good[1])])[0] == 401
    assert 400 <= raw(server, "GET", "/v1/namespaces", [bearer("a" * 20_000)])[0] < 500


@pytest.mark.parametrize(
    "detour",
    [
        "/v1/namespaces/acme-a/../{}",
        "/v1/namespaces/acme-a/..%2f{}",
        "/v1/namespaces/acme-a/%2e%2e/{}/search?vector=[0,0]",
        "/v1/namespaces/acme-a%2F..%2F{}",
        "/v1/namespaces/%7A{}",
        "//v1/namespaces/{}",
        "/v1//namespaces/{}",
        "http://x/v1/namespaces/{}",
        "/v1/namespaces/{}/",
        "/v1/namespaces/{}%00",
        "/v1/namespaces/acme-a?/../{}",
        "/v1/namespaces/{}/search?vector=[0,0]",
        "/healthz/../v1/namespaces/{}",
    ],
)
def test_no_path_on_the_wire_leads_to_a_namespace_of_another(
    server: Server, keys: KeyFile, detour: str
) -> None:
    first = "" if "%7A" in detour else "z"
    said = [
        raw(server, "GET", detour.format(f"{first}eta-{name}"), [bearer(keys.keys["acme"])])
        for name in ("real", "none")
    ]
    assert said[0][0] == said[1][0]
    assert said[0][1].replace(b"-real", b"-none") == said[1][1]
    assert b"incarnation" not in said[0][1] or b'"name":"acme-a"' in said[0][1]
    assert raw(server, "GET", detour.format(f"{first}eta-real"), [])[0] in (401, 404)


def test_keys_come_and_go_while_the_server_runs(server: Server, keys: KeyFile) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(main, ["keys", *words, "--file", str(keys.path)])
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    def taken(key: str) -> bool:
        # New connections, so that both workers are asked in the end.
        return {raw(server, "GET", "/v1/namespaces", [bearer(key)])[0] for _ in range(8)} == {200}

    def refused(key: str) -> bool:
        return {raw(server, "GET", "/v1/namespaces", [bearer(key)])[0] for _ in range(8)} == {401}

    first = run("create", "--grant", "read:acme-")
    eventually("the new key", lambda: taken(first))
    second = run("rotate", identity(first), "--overlap", "1h")
    eventually("its successor", lambda: taken(second))
    eventually("both at once", lambda: taken(first) and taken(second))
    run("revoke", identity(first))
    eventually("the end of the first", lambda: refused(first) and taken(second))
    run("revoke", identity(second))
    eventually("the end of the second", lambda: refused(second))
    assert '"act": "reload_keys"' in server.log.read_text()


def test_the_client_carries_a_key_and_shows_it_nowhere(
    server: Server, keys: KeyFile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    key = keys.keys["acme"]
    with vecstore.connect(server.url) as database, pytest.raises(Unauthenticated):
        database.namespace("acme-a")
    with vecstore.connect(server.url, api_key=key) as database:
        ns = database.namespace("acme-a")
        assert ns.search([0, 1], top_k=1).ids.tolist() == [2]
        assert [info.name for info in database.namespaces()] == ["acme-a"]
        with pytest.raises(NamespaceNotFound):
            database.namespace("zeta-real")
        with pytest.raises(Unauthorised, match="admin"):
            database.create_namespace("zeta-new", 2)
        shown = f"{database!r} {database.backend!r} {ns!r} {vars(database)!r}"
    monkeypatch.setenv("VECSTORE_API_KEY", keys.keys["writer"])
    with vecstore.connect(server.url) as database:
        ns = database.namespace("acme-a")
        ns.insert(np.ones((1, 2), dtype=np.float32), ids=[1])
        with pytest.raises(Unauthorised, match="read") as caught:
            ns.search([0, 1])
    for secret in (key.rsplit("_", 1)[1], keys.keys["writer"].rsplit("_", 1)[1]):
        assert secret not in shown + caplog.text + repr(caught.value) + server.log.read_text()


@pytest.mark.parametrize("key", ["", "two words", "line\nX-Evil: 1", "ключ"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        HttpBackend("http://127.0.0.1:1", api_key=key)
    assert caught.value.details["field"] == "api_key"
    assert not key or key not in str(caught.value)


def test_commands_take_the_key_from_the_environment(server: Server, keys: KeyFile) -> None:
    listed = CliRunner().invoke(
        main, ["ns", "list", server.url, "--json"], env={"VECSTORE_API_KEY": keys.keys["acme"]}
    )
    assert [info["name"] for info in json.loads(listed.stdout)] == ["acme-a"]
    without = CliRunner().invoke(main, ["ns", "list", server.url], env={"VECSTORE_API_KEY": ""})
    assert (without.exit_code, len(without.stderr.splitlines())) == (1, 1)
    assert "API key is needed" in without.stderr


def test_a_server_does_not_start_with_a_key_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    done = subprocess.run(
        command("serve", str(tmp_path / "data"), "--keys-file", str(tmp_path / "keys.json")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(VECSTORE_PORT="0"),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "keys.json" in done.stderr
