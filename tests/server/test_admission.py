"""How many requests run and wait, whose turn it is, and what becomes of those whose time is up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import vecstore
from tests.server.support import eventually, running_server
from vecstore.api import Database
from vecstore.aside import aside, working
from vecstore.config import Config
from vecstore.errors import DeadlineExceeded, TooManyRequests
from vecstore.server import admission
from vecstore.server.admission import Admission, Refusals, Turns
from vecstore.server.app import create_app
from vecstore.types import NamespaceInfo

SECONDS = 20.0


class Held:
    """A backend whose ``info`` of a namespace ends when the test says so."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._turn = threading.Condition()
        self._allowed = 0
        self.began: list[str] = []
        self.running = self.most = 0

    def info(self, name: str) -> NamespaceInfo:
        with self._turn:
            self.began.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
            with aside():  # as if for storage
                assert self._turn.wait_for(lambda: self._allowed > 0, SECONDS)
            self._allowed -= 1
            self.running -= 1
        found: NamespaceInfo = self._inner.info(name)
        return found

    def let_go(self, requests: int = 1) -> None:
        with self._turn:
            self._allowed += requests
            self._turn.notify_all()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Busy:
    """A server in this process, and requests to it that are under way."""

    def __init__(self, held: Held, config: Config, threads: ThreadPoolExecutor) -> None:
        self.held = held
        self.app = create_app(Database(held), config)  # type: ignore[arg-type]
        self._threads = threads

    def send(self, namespace: str, **headers: str) -> Future[TestResponse]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._threads.submit(self.client.get, f"/v1/namespaces/{namespace}", headers=named)

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def fill(self, namespace: str, places: int = 1) -> list[Future[TestResponse]]:
        """Requests that run."""
        before = len(self.held.began)
        sent = [self.send(namespace) for _ in range(places)]
        eventually("they run", lambda: len(self.held.began) == before + places)
        return sent

    def wait_for(self, waiting: int) -> None:
        """Until so many requests wait for their turn."""
        admission: Any = self.app.wsgi_app
        while not isinstance(admission, Admission):
            admission = admission._inner
        eventually(f"{waiting} wait", lambda: admission._turns._waiting == waiting)

    def queue(self, *namespaces: str) -> list[Future[TestResponse]]:
        """Requests that wait, each behind the one before."""
        sent = []
        for place, namespace in enumerate(namespaces, start=1):
            sent.append(self.send(namespace))
            self.wait_for(place)
        return sent


@pytest.fixture
def busy(database: Database) -> Callable[..., Any]:
    for name in ("a", "b", "c"):
        database.create_namespace(name, 2, "l2")

    @contextmanager
    def make(**settings: Any) -> Iterator[Busy]:
        held = Held(database.backend)
        with ThreadPoolExecutor(32) as threads:
            try:
                yield Busy(held, Config(**settings), threads)
            finally:
                held.let_go(1_000)

    return make


def test_no_more_requests_run_at_once_than_there_are_places_and_all_are_answered(busy: Any) -> None:
    with busy(threads=2, queue=16) as server:
        sent = [server.send("abc"[i % 3]) for i in range(12)]
        server.wait_for(10)
        server.held.let_go(12)
        assert [answer.result(SECONDS).status_code for answer in sent] == [200] * 12
        assert server.held.most == 2


def test_beyond_the_queue_a_request_is_refused_and_told_when_to_come_back(busy: Any) -> None:
    with busy(threads=1, queue=1) as server:
        running, waiting = server.fill("a"), server.queue("a")
        refused = server.client.get("/v1/namespaces/a")
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert (refused.json["code"], refused.json["details"]["limit"]) == ("too_many_requests", 1)
        server.held.let_go(2)
        assert [one.result(SECONDS).status_code for one in (*running, *waiting)] == [200, 200]
        server.held.let_go()
        assert server.client.get("/v1/namespaces/a").status_code == 200


def test_of_slow_requests_no_more_wait_than_run_where_that_takes_too_long(busy: Any) -> None:
    with busy(threads=2, queue=16, queue_seconds=1e-6) as server:
        for _ in range(2):  # what is known of before
            (done,) = server.fill("a")
            server.held.let_go()
            assert done.result(SECONDS).status_code == 200
        server.fill("a", 2)
        server.queue("b", "c")
        refused = server.client.get("/v1/namespaces/a")
        assert refused.status_code == 429


def test_of_quick_requests_as_many_wait_as_the_queue_holds(busy: Any) -> None:
    with busy(threads=2, queue=16, queue_seconds=3_600) as server:
        server.fill("a", 2)
        sent = server.queue(*"abcabcabcabcabca")
        assert server.client.get("/v1/namespaces/a").status_code == 429
        server.held.let_go(18)
        assert all(answer.result(SECONDS).status_code == 200 for answer in sent)


def test_without_a_queue_what_finds_no_place_is_refused(busy: Any) -> None:
    with busy(threads=1, queue=0) as server:
        server.fill("a")
        assert server.client.get("/v1/namespaces/b").status_code == 429


def test_namespaces_take_turns_whatever_one_of_them_has_sent(busy: Any) -> None:
    with busy(threads=1, queue=8) as server:
        server.fill("c")
        sent = server.queue("a", "a", "a", "a", "b", "b")
        for done in range(6):
            server.held.let_go()
            eventually("the next one runs", lambda done=done: len(server.held.began) == done + 2)
        assert server.held.began == ["c", "a", "b", "a", "b", "a", "a"]
        server.held.let_go()
        assert all(answer.result(SECONDS).status_code == 200 for answer in sent)


def test_where_the_queue_is_full_the_one_who_waits_with_most_makes_room(busy: Any) -> None:
    with busy(threads=1, queue=3) as server:
        server.fill("a")
        first, second, last = server.queue("a", "a", "a")
        other = server.send("b")
        assert last.result(SECONDS).status_code == 429
        server.wait_for(3)
        assert server.client.get("/v1/namespaces/a").status_code == 429
        server.held.let_go(4)
        assert [one.result(SECONDS).status_code for one in (first, second, other)] == [200] * 3


def test_of_searches_that_run_few_work_and_who_waits_for_storage_lets_another_one_work() -> None:
    turns = Turns(running=3, working=1, waiting=8, patience=60.0)
    steps: list[str] = []
    may_read, may_end = threading.Event(), threading.Event()

    def request(name: str, *, reads: bool) -> None:
        turn = turns.enter("/v1/namespaces/docs/search", short=True)
        steps.append(f"{name} works")
        with working(turn):
            if reads:
                with aside(), aside():  # a wait within a wait is one
                    assert may_read.wait(SECONDS)
                steps.append(f"{name} has read")
            else:
                assert may_end.wait(SECONDS)
        turn.end()
        steps.append(f"{name} is done")

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(request, "first", reads=True)
        eventually("the first one reads", lambda: turns._running == 1 and not turns._working)
        second = threads.submit(request, "second", reads=False)
        eventually("the second works meanwhile", lambda: turns._running == 2)
        third = threads.submit(request, "third", reads=False)
        eventually("the third one waits", lambda: turns._waiting == 1)
        turns.enter("/v1/namespaces/docs/parts", short=False).end()  # a write does not
        may_read.set()  # it comes back though the only place to work is taken
        first.result(SECONDS)
        assert "third works" not in steps
        may_end.set()
        for one in (second, third):
            one.result(SECONDS)
    assert steps.index("first is done") < steps.index("third works")
    assert (turns._running, turns._working, turns._waiting) == (0, 0, 0)


@pytest.mark.parametrize(
    ("path", "environ", "short"),
    [
        ("/v1/namespaces/docs/search", {"CONTENT_LENGTH": "65536"}, True),
        ("/v1/namespaces/docs/queries", {"CONTENT_LENGTH": "2"}, True),
        ("/v1/namespaces/docs/search", {"CONTENT_LENGTH": "65537"}, False),
        ("/v1/namespaces/docs/search", {"HTTP_TRANSFER_ENCODING": "chunked"}, False),
        ("/v1/namespaces/docs/search", {"CONTENT_LENGTH": "2", "HTTP_CONTENT_ENCODING": "gzip"}, False),
        ("/v1/namespaces/docs/parts", {"CONTENT_LENGTH": "2"}, False),
    ],
)
def test_searches_with_small_bodies_are_short(path: str, environ: dict[str, str], *, short: bool) -> None:
    assert admission._is_short(environ, path) is short


def test_what_waits_for_a_seat_is_no_obstacle_and_has_the_room_of_the_places_that_are_free() -> None:
    turns = Turns(running=2, working=1, waiting=1, patience=60.0)
    searching, writing = turns.enter("/a", short=True), turns.enter("/a", short=False)
    with ThreadPoolExecutor(3) as threads:
        search = threads.submit(turns.enter, "/a", short=True)
        eventually("a search waits", lambda: turns._waiting == 1)
        with pytest.raises(TooManyRequests):  # all places are taken, and one may wait
            turns.enter("/a", short=False)
        writing.end()  # and there is a place, but no seat
        write = turns.enter("/a", short=False)
        assert (turns._running, turns._waiting) == (2, 1)
        write.end()
        other = threads.submit(turns.enter, "/a", short=True)  # which has the room of the free place
        eventually("another one waits", lambda: turns._waiting == 2)
        searching.end()
        search.result(SECONDS).end()
        other.result(SECONDS).end()
    with ThreadPoolExecutor(3) as threads:  # a write that waits goes past a search that has no seat
        held = [turns.enter("/a", short=True), turns.enter("/a", short=False)]
        turns._most = 8
        search = threads.submit(turns.enter, "/a", short=True)
        eventually("a search waits", lambda: turns._waiting == 1)
        later = threads.submit(turns.enter, "/a", short=False)
        eventually("a write waits behind it", lambda: turns._waiting == 2)
        held[1].end()
        later.result(SECONDS).end()
        assert turns._waiting == 1
        held[0].end()
        search.result(SECONDS).end()
    assert (turns._running, turns._working, turns._waiting) == (0, 0, 0)


def test_so_many_refusals_are_held_and_what_is_beyond_them_is_told_at_once() -> None:
    asleep: list[float] = []
    wake = threading.Event()

    def sleep(seconds: float) -> None:
        asleep.append(seconds)
        assert wake.wait(SECONDS)

    refusals = Refusals(2, 0.5, sleep)
    with ThreadPoolExecutor(2) as threads:
        held = [threads.submit(refusals.hold) for _ in range(2)]
        eventually("two are held", lambda: len(asleep) == 2)
        refusals.hold()
        assert not any(one.done() for one in held)
        wake.set()
        for one in held:
            one.result(SECONDS)
    refusals.hold()
    assert asleep == [0.5, 0.5, 0.5]


def test_a_refusal_is_held_no_longer_than_its_request_may_take(
    busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "REFUSAL_SECONDS", 3_600.0)
    with busy(threads=1, queue=1) as server:
        server.fill("a")
        server.queue("a")
        refused = server.client.get("/v1/namespaces/a", headers={"X-Request-Timeout": "0.05"})
        assert refused.status_code == 429


def test_health_is_told_while_all_places_are_taken(busy: Any) -> None:
    with busy(threads=1, queue=0) as server:
        server.fill("a")
        assert server.client.get("/healthz").status_code == 200
        assert server.client.get("/readyz").status_code == 200


def test_a_request_whose_time_passes_in_the_queue_is_answered_and_leaves_it(busy: Any) -> None:
    with busy(threads=1, queue=1) as server:
        (running,) = server.fill("a")
        late = server.client.get("/v1/namespaces/a", headers={"X-Request-Timeout": "0.05"})
        assert (late.status_code, late.json["code"]) == (504, "deadline_exceeded")
        (waiting,) = server.queue("a")  # the place in the queue is free again
        server.held.let_go(2)
        assert [one.result(SECONDS).status_code for one in (running, waiting)] == [200, 200]
        assert server.held.began == ["a", "a"]


def search(client: FlaskClient, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/v1/namespaces/docs/search", json={"vectors": [[1, 2]], "top_k": 1}, headers=named)


def test_what_a_request_has_waited_in_front_of_the_server_counts(database: Database) -> None:
    database.create_namespace("docs", 2, "l2").insert([[1, 2]])
    client = create_app(database, Config(request_timeout=30)).test_client()
    assert search(client, X_Request_Start="t=1000000000.000").status_code == 504
    for harmless in ("t=9999999999.000", "nonsense", "t=nan", "t=inf"):
        assert search(client, X_Request_Start=harmless).status_code == 200
    assert search(client).status_code == 200


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "soon", "1_0"])
def test_a_time_that_is_none_is_refused_by_name(client: FlaskClient, text: str) -> None:
    refused = search(client, X_Request_Timeout=text)
    assert refused.status_code == 400
    assert refused.json is not None
    assert refused.json["details"]["field"] == "X-Request-Timeout"


def test_a_write_whose_time_is_up_before_its_commit_changes_nothing(database: Database) -> None:
    database.create_namespace("docs", 2, "l2").insert([[1, 2]], ids=[1])
    client = create_app(database).test_client()
    rows = {"vectors": [[1, 2]], "ids": [2]}
    late = client.post("/v1/namespaces/docs/parts", json=rows, headers={"X-Request-Timeout": "1e-9"})
    assert (late.status_code, late.json["code"]) == (504, "deadline_exceeded")  # type: ignore[index]
    assert database.namespace("docs").stats().epoch == 2


def test_a_compaction_may_take_longer_than_requests_may(database: Database) -> None:
    ns = database.create_namespace("docs", 2, "l2")
    for i in range(3):
        ns.insert([[1, i]])
    client = create_app(database, Config(request_timeout=1e-9)).test_client()
    assert search(client).status_code == 504
    hurried = client.post("/v1/namespaces/docs/compact", headers={"X-Request-Timeout": "1e-9"})
    assert hurried.status_code == 504
    assert ns.stats().parts == 3
    done = client.post("/v1/namespaces/docs/compact")
    assert (done.status_code, ns.stats().parts) == (200, 1)


def test_what_is_only_named_like_a_compaction_may_not(database: Database) -> None:
    database.create_namespace("docs", 2, "l2").tag("compact")
    client = create_app(database, Config(request_timeout=1e-9)).test_client()
    assert client.delete("/v1/namespaces/docs/tags/compact").status_code == 504
    assert [tag.name for tag in database.namespace("docs").tags()] == ["compact"]


def test_the_python_client_is_told_that_its_time_was_up(tmp_path: Any) -> None:
    options = ("--workers", "1", "--no-maintenance")
    with vecstore.connect(str(tmp_path / "data"), maintenance="off") as database:
        database.create_namespace("docs", 2, "l2")
    with (
        running_server(tmp_path / "data", *options, VECSTORE_REQUEST_TIMEOUT="1e-9") as server,
        vecstore.connect(server.url) as database,
    ):
        with pytest.raises(DeadlineExceeded):
            database.create_namespace("other", 2, "l2")
        ns = database.namespace("docs")
        with pytest.raises(DeadlineExceeded):
            ns.insert([[1, 2]])
        with pytest.raises(DeadlineExceeded):
            ns.search_batch([[1, 2]])
