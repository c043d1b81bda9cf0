"""Log lines of a server: of requests, of slow queries, and the id that joins them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.server.support import eventually, running_server
from vecstore.config import Config
from vecstore.server.app import create_worker_app
from vecstore.server.paths import KEY
from vecstore.telemetry.logs import JsonLines, facts, formatter, request_id

DOCS = "/v1/namespaces/docs"


class Lines(logging.Handler):
    """Lines as the JSON that they are."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


def client(**settings: Any) -> FlaskClient:
    made = create_worker_app(Config(url="memory://", metrics=False, **settings)).test_client()
    made.post("/v1/namespaces", json={"name": "docs", "dim": 2, "metric": "l2"})
    attributes = [{"year": 1}, {"year": 2}]
    made.post(f"{DOCS}/parts", json={"vectors": [[0, 0], [3, 4]], "ids": [1, 2], "attributes": attributes})
    return made


def test_each_request_is_logged_if_a_setting_asks_for_it(lines: list[dict[str, Any]]) -> None:
    asked = client(access_log=True)
    lines.clear()
    answer = asked.post(
        f"{DOCS}/search",
        json={"vector": [0, 0]},
        headers={"X-Request-Id": "mine"},
        environ_overrides={KEY: "key-7"},
    )
    (line,) = lines
    assert line.pop("ms") >= 0
    assert line.pop("process") > 0
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "vecstore.access",
        "message": "POST /v1/namespaces/{ns}/search 200",
        "method": "POST",
        "route": "/v1/namespaces/{ns}/search",
        "namespace": "docs",
        "status": 200,
        "bytes": len(answer.data),
        "key": "key-7",
        "peer": "127.0.0.1",
        "request_id": "mine",
    }
    lines.clear()
    client().get(DOCS)
    assert [line for line in lines if line["logger"] == "vecstore.access"] == []


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "ä", "a\tb", "<script>"])
def test_every_answer_has_an_id_and_one_that_is_malformed_is_replaced(given: str | None) -> None:
    asked = client()
    headers = {} if given is None else {"X-Request-Id": given}
    answers = [
        asked.get(DOCS, headers=headers),
        asked.get("/nowhere", headers=headers),
        asked.post(f"{DOCS}/search", json={"vector": [1, 1]}, headers=headers),
        asked.post(f"{DOCS}/search", json={"vector": [1]}, headers=headers),
    ]
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert len(set(ids)) == 4
    assert given not in ids
    assert asked.get(DOCS, headers={"X-Request-Id": "A-z.0_9"}).headers["X-Request-Id"] == "A-z.0_9"


def test_a_failure_of_ours_is_logged_with_its_request(
    lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("oh")

    asked = client()
    monkeypatch.setattr("vecstore.engine.database.EmbeddedDatabase.info", broken)
    lines.clear()
    answer = asked.get(DOCS)
    (line,) = lines
    assert line["request_id"] == answer.headers["X-Request-Id"] == answer.get_json()["details"]["request_id"]
    assert "ZeroDivisionError: oh" in line["exception"]


def test_a_slow_query_is_logged_with_its_plan_and_without_its_vector(lines: list[dict[str, Any]]) -> None:
    asked = client(slow_query_ms=1e-6)
    lines.clear()
    where = ["And", [["year", "Gte", 2], ["year", "In", list(range(100))]]]
    body = {"vector": [3.25, 4.75], "top_k": 7, "target_recall": 0.9, "filter": where}
    answer = asked.post(f"{DOCS}/search", json=body, headers={"X-Request-Id": "mine"})
    assert answer.status_code == 200
    (line,) = lines
    assert (line["level"], line["logger"], line["message"]) == ("warning", "vecstore.slow", "slow query")
    assert (line["namespace"], line["request_id"], line["top_k"]) == ("docs", "mine", 7)
    assert line["effort"] == {"target_recall": 0.9}
    assert {"snapshot", "plan", "scan", "rerank"} <= set(line["stages_ms"])
    assert sum(line["stages_ms"].values()) <= line["ms"] + 0.005  # each is rounded
    assert line["lists_probed"] == 1
    assert line["storage"]["requests"] == 1  # whether the epoch is current
    assert line["filter"].startswith('["And", [["year"')
    assert len(line["filter"]) == 201
    assert "3.25" not in json.dumps(line)


def test_a_query_that_fails_is_logged_if_it_was_slow(lines: list[dict[str, Any]]) -> None:
    asked = client(slow_query_ms=1e-6)
    lines.clear()
    assert asked.post(f"{DOCS}/search", json={"vector": [1, 2, 3]}).status_code == 400
    assert [line["error"] for line in lines] == ["dimension_mismatch"]


def test_a_query_that_is_quick_is_not_logged(lines: list[dict[str, Any]]) -> None:
    asked = client(slow_query_ms=1e6)
    lines.clear()
    asked.post(f"{DOCS}/search", json={"vector": [1, 2]})
    assert lines == []


def test_in_text_facts_follow_the_message() -> None:
    record = logging.makeLogRecord(
        {"name": "n", "levelname": "INFO", "msg": "done", **facts(a=1, b="x y", c=None, d={"e": [1]})}
    )
    token = request_id.set("mine")
    line = formatter("text").format(record)
    request_id.reset(token)
    assert line.endswith('n: done a=1 b="x y" d="{\\"e\\":[1]}" request_id=mine')


def test_all_lines_of_a_server_are_json_if_so_asked(tmp_path: Path) -> None:
    with running_server(
        tmp_path / "data", "--workers", "1", VECSTORE_LOG_FORMAT="json", VECSTORE_MAINTENANCE_INTERVAL="0.1"
    ) as server:

        def told() -> set[str]:
            found = [json.loads(line) for line in server.log.read_text().splitlines()]
            return {line["logger"] for line in found}

        wanted = {"gunicorn.error", "vecstore.server.maintenance"}
        eventually("lines of gunicorn and of maintenance", lambda: wanted <= told())


def test_nobody_writes_a_line_of_their_own_into_a_log_of_text() -> None:
    lines: list[str] = []

    class Text(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend(self.format(record).split("\n"))

    handler, root = Text(), logging.getLogger()
    handler.setFormatter(formatter("text"))
    root.addHandler(handler)
    try:
        forged = "/v1/namespaces/docs/rows/é%0a2030-01-01 INFO 1 vecstore.audit: {}%1b[2J"
        answer = client(request_timeout=10.0).get(forged, headers={"X-Request-Start": "t=1"})
    finally:
        root.removeHandler(handler)
    assert answer.status_code == 504
    assert any("/rows/é\\n2030-01-01 INFO 1 vecstore.audit: {}\\x1b[2J failed" in line for line in lines)
    assert not any(line.startswith("2030") or "\x1b" in line for line in lines)


def test_the_facts_of_an_administrative_act_are_fields_of_its_line(lines: list[dict[str, Any]]) -> None:
    client()
    (line,) = (line for line in lines if line["logger"] == "vecstore.audit")
    assert (line["act"], line["name"], line["status"]) == ("create_namespace", "docs", 201)
    assert line["peer"] == "127.0.0.1"
    assert line["level"] == "info"


def test_a_request_that_was_late_is_logged_without_a_stack(lines: list[dict[str, Any]]) -> None:
    asked = client(request_timeout=10.0)
    lines.clear()
    assert asked.get(DOCS, headers={"X-Request-Start": "t=1", "X-Request-Id": "late"}).status_code == 504
    (line,) = lines
    assert (line["level"], line["request_id"], "exception" in line) == ("warning", "late", False)
