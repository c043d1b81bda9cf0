"""The server's clock is learnt from its answers and goes forward."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from tests.storage.toxic_proxy import Proxy
from vecstore.storage.s3 import S3Store
from vecstore.storage.s3.clock import ServerClock


def test_the_clock_is_the_servers_and_costs_one_request_at_most(
    toxic: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = toxic.now()
    assert len(proxy.requests) == 1
    assert abs(first - time.time()) < 10
    toxic.put_if_absent("x", b"")
    clock = {"now": 1_000_000.0}
    monkeypatch.setattr("vecstore.storage.s3.clock.time.monotonic", lambda: clock["now"])
    made = toxic.put_if_absent("y", b"").modified  # from the answer's date
    proxy.plan()
    clock["now"] += 30
    assert toxic.now() == made + 30
    assert proxy.requests == []
    clock["now"] += 31  # too long ago to rely on
    toxic.now()
    assert len(proxy.requests) == 1


def test_the_clock_does_not_jump_back_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers tell whole seconds: the last of a second says less than the first and the time since."""
    clock = {"now": 50_000.0}
    server = ServerClock()
    monkeypatch.setattr("vecstore.storage.s3.clock.time.monotonic", lambda: clock["now"])

    def answer(date: float) -> None:
        when = datetime.fromtimestamp(date, tz=UTC)
        server.hear(format_datetime(when, usegmt=True))

    start = 1_700_000_000.0
    answer(start)
    clock["now"] += 0.9
    assert server.now() == start + 0.9
    answer(start)
    assert server.now() == start + 0.9
    clock["now"] += 0.2
    answer(start + 1)
    assert server.now() == pytest.approx(start + 1.1)
    clock["now"] += 0.1
    answer(start + 2)  # ours was slow: the server is further than we thought
    assert server.now() == start + 2
    answer(start - 60)  # somebody set it back
    assert server.now() == start - 60
