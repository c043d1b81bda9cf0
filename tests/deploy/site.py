"""A whole site: a server of two workers on a directory, nginx in front of it, a namespace, its clients."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.support import Nginx, nginx
from tests.server.support import Server, children, eventually, running_server

JSON = {"Content-Type": "application/json"}
SEARCH = "/v1/namespaces/docs/search"
PARTS = "/v1/namespaces/docs/parts"
QUERY = json.dumps({"vector": [3, 0], "top_k": 1})
MAX_BODY = 16 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Site:
    server: Server
    nginx: Nginx

    def connection(self) -> http.client.HTTPSConnection:
        proxy = self.nginx
        return http.client.HTTPSConnection(proxy.host, proxy.port, timeout=30, context=proxy.context())

    def ask(
        self, method: str, path: str, body: str | bytes | None = None, headers: Mapping[str, str] = JSON
    ) -> Answer:
        """One request on a connection of its own."""
        connection = self.connection()
        try:
            connection.request(method, path, body, dict(headers))
            return answer_of(connection)
        finally:
            connection.close()

    def check_healthy(self, times: int = 5) -> None:
        """A client is answered, and rightly."""
        for _ in range(times):
            found = self.ask("POST", SEARCH, QUERY)
            assert found.status == 200, found
            assert found.json["hits"][0]["id"] == 3, found

    def workers(self) -> list[int]:
        return children(self.server.process.pid)


def answer_of(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    return Answer(response.status, dict(response.getheaders()), response.read())


@contextmanager
def site_of(folder: Path, changes: Mapping[str, str] | None = None, *, workers: int = 2) -> Iterator[Site]:
    """Ready, with a namespace ``docs`` of ten rows, (i, 0) by id."""
    options = ("--workers", str(workers), "--no-maintenance")
    with (
        running_server(folder / "data", *options, VECSTORE_MAX_BODY_BYTES=str(MAX_BODY)) as server,
        nginx(folder / "nginx", server.url.removeprefix("http://"), changes=changes) as proxy,
    ):
        site = Site(server, proxy)
        made = site.ask("POST", "/v1/namespaces", json.dumps({"name": "docs", "dim": 2, "metric": "l2"}))
        assert made.status == 201, made
        rows = json.dumps({"ids": list(range(10)), "vectors": [[i, 0] for i in range(10)]})
        assert site.ask("POST", PARTS, rows).status == 201
        yield site


class Load:
    """Clients that send one request after another until they are told to end; what was not 200 or 201."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._rounds: dict[int, int] = {}
        self.done = 0
        self.failed: list[str] = []

    def searches(self, clients: int, *, kept: bool) -> None:
        """On connections that are kept, or on one a request."""
        for _ in range(clients):
            self._start(lambda number: ("POST", SEARCH, QUERY, JSON), kept)

    def inserts(self, clients: int, *, keyed: bool) -> None:
        for client in range(clients):

            def insert(number: int, client: int = client) -> tuple[str, str, str, Mapping[str, str]]:
                rows = json.dumps({"ids": [1_000 + client], "vectors": [[1_000, number]]})
                key = {"Idempotency-Key": f"{client}-{number}"} if keyed else {}
                return "POST", PARTS, rows, {**JSON, **key}

            self._start(insert, kept=True)

    def await_all(self, rounds: int = 3) -> None:
        """Until each client has got so many answers more."""
        with self._lock:
            before = dict(self._rounds)
        eventually(
            "each client is answered",
            lambda: (
                len(self._rounds) == len(self._threads)
                and all(done >= before.get(one, 0) + rounds for one, done in list(self._rounds.items()))
            ),
            60,
        )

    def _start(self, request: Any, kept: bool) -> None:
        thread = threading.Thread(target=self._run, args=(request, kept))
        thread.start()
        self._threads.append(thread)

    def _run(self, request: Any, kept: bool) -> None:
        connection, number = self._site.connection(), 0
        while not self._end.wait(0.01):  # or clients would leave workers no processor to start on
            number += 1
            method, path, body, headers = request(number)
            try:
                connection.request(method, path, body, dict(headers))
                answer = answer_of(connection)
                failure = None if answer.status in (200, 201) else f"{path}: {answer}"
            except OSError as error:
                failure = f"{path}: {error!r}"
            except http.client.HTTPException as error:
                failure = f"{path}: {error!r}"
            with self._lock:
                self.done += 1
                self._rounds[threading.get_ident()] = number
                if failure is not None:
                    self.failed.append(failure)
            if not kept or failure is not None:
                connection.close()
        connection.close()

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
