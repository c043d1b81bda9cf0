"""What is sent again, what is not, and how much of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.storage.contract import Behind
from tests.storage.s3.conftest import PASSING
from tests.storage.toxic_proxy import Proxy, Toxic
from vecstore.errors import StorageConflict, StorageCorrupt, StorageRetryable, Unauthorised
from vecstore.storage.base import ByteRange
from vecstore.storage.s3 import S3Store
from vecstore.storage.s3.retry import Budget


@pytest.mark.parametrize("fault", [*PASSING, Toxic.HANG, Toxic.CUT])
def test_a_read_survives_two_passing_failures(
    toxic: S3Store, proxy: Proxy, behind: Behind, fault: Toxic
) -> None:
    behind.write("x", b"0123456789" * 1000)
    proxy.plan(("GET", fault), ("GET", Toxic.REFUSE_503))
    assert toxic.get("x").data == b"0123456789" * 1000
    assert proxy.count("GET") == 3
    proxy.plan(("GET", Toxic.REFUSE_503), ("GET", fault))
    assert toxic.get_range("x", 7, 5000) == (b"0123456789" * 1000)[7:5007]


@pytest.mark.parametrize("fault", [*PASSING, Toxic.CUT])
def test_a_failure_that_stays_is_retryable_and_bounded(
    toxic: S3Store, proxy: Proxy, behind: Behind, fault: Toxic
) -> None:
    behind.write("x", b"0123456789")
    for read in (lambda: toxic.get("x"), lambda: toxic.get_range("x", 1, 8)):
        proxy.plan(*[("GET", fault)] * 9)
        with pytest.raises(StorageRetryable):
            read()
        assert proxy.count("GET") == 3


def test_lists_heads_and_deletes_are_repeated(toxic: S3Store, proxy: Proxy, behind: Behind) -> None:
    behind.write("a/x", b"1")
    proxy.plan(("GET", Toxic.REFUSE_503), ("HEAD", Toxic.LATE_500), ("DELETE", Toxic.LOSE))
    assert len(toxic.list("").objects) == 1
    assert toxic.head("a/x").size == 1
    toxic.delete("a/x")
    assert behind.read("a/x") is None


def test_many_ranges_survive_one_that_fails(toxic: S3Store, proxy: Proxy, behind: Behind) -> None:
    behind.write("x", bytes(range(256)))
    proxy.plan(("GET", Toxic.CUT), ("GET", Toxic.REFUSE_503))
    ranges = [ByteRange(i, 3) for i in range(0, 200, 20)]
    assert toxic.get_ranges("x", ranges) == [bytes(range(r.start, r.stop)) for r in ranges]


def test_a_server_that_ignores_ranges_does_not_mislead(toxic: S3Store, proxy: Proxy, behind: Behind) -> None:
    behind.write("x", b"0123456789")
    proxy.plan(("GET", Toxic.WHOLE), ("GET", Toxic.WHOLE))
    assert toxic.get_range("x", 3, 4) == b"3456"
    with pytest.raises(StorageCorrupt):
        toxic.get_range("x", 8, 4)


@pytest.mark.parametrize("fault", [*PASSING, Toxic.HANG])
def test_a_compare_and_set_is_never_repeated(
    toxic: S3Store, proxy: Proxy, behind: Behind, fault: Toxic
) -> None:
    """Its outcome is for the commit protocol to find out (R1)."""
    etag = toxic.put_if_absent("x", b"1").etag
    proxy.plan(("PUT", fault))
    with pytest.raises(StorageRetryable):
        toxic.put_if_match("x", b"2", etag)
    assert proxy.requests == [request for request in proxy.requests if request.startswith("PUT")]
    assert proxy.count("PUT") == 1
    applied = fault in (Toxic.LOSE, Toxic.LATE_500, Toxic.HANG)
    assert behind.read("x") == (b"2" if applied else b"1")


def test_a_compare_and_set_that_met_another_is_a_conflict(toxic: S3Store, proxy: Proxy) -> None:
    etag = toxic.put_if_absent("x", b"1").etag
    proxy.plan(("PUT", Toxic.CONFLICT_409))
    with pytest.raises(StorageConflict):
        toxic.put_if_match("x", b"2", etag)


def test_a_refusal_is_unauthorised_at_once(toxic: S3Store, proxy: Proxy) -> None:
    for method, call in (
        ("GET", lambda: toxic.get("x")),
        ("GET", lambda: toxic.get_range("x", 0, 1)),
        ("GET", lambda: toxic.list("")),
        ("HEAD", lambda: toxic.head("x")),
        ("PUT", lambda: toxic.put_if_absent("x", b"")),
        ("PUT", lambda: toxic.put_if_match("x", b"", "e")),
        ("DELETE", lambda: toxic.delete("x")),
    ):
        proxy.plan(*[(method, Toxic.FORBID)] * 9)
        with pytest.raises(Unauthorised):
            call()
        assert len(proxy.requests) == 1


# -- how much is sent again ------------------------------------------------------------------------


def test_a_budget_grants_a_share_and_what_was_saved() -> None:
    budget = Budget(0.25, 2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.earn(3)
    assert not budget.take()
    budget.earn()
    assert [budget.take() for _ in range(2)] == [True, False]
    budget.earn(1_000)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    assert not Budget(0.0, 5).take()


def test_a_server_in_trouble_is_not_buried_in_retries(
    make: Callable[..., S3Store], proxy: Proxy, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All answers are 503: once what was saved is spent, ten calls send twelve requests, not thirty."""
    monkeypatch.setattr("vecstore.storage.s3.retry._SAVED", 10)
    store = make(endpoint_url=proxy.url, max_attempts=3)
    behind.write("x", b"1")
    proxy.plan(*[("GET", Toxic.REFUSE_503)] * 10_000)
    for _ in range(8):
        with pytest.raises(StorageRetryable):
            store.get("x")
    spent = proxy.count("GET")
    for _ in range(10):
        with pytest.raises(StorageRetryable):
            store.get("x")
    assert 10 <= proxy.count("GET") - spent <= 10 * 1.2 + 1
    proxy.plan()
    assert store.get("x").data == b"1"
