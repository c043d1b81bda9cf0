"""The S3 store keeps the contract on a real server, and what it repeats, it repeats safely."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Bucket
from tests.storage.contract import Behind, StoreContract
from tests.storage.toxic_proxy import Proxy, Toxic, toxic_proxy
from vecstore.errors import (
    InvalidArgument,
    StorageConflict,
    StorageCorrupt,
    StorageMissing,
    StorageRetryable,
    Unauthorised,
)
from vecstore.storage.base import ByteRange, ObjectStore
from vecstore.storage.s3 import S3Store

PART = 5 << 20  # the least that S3 takes


class _InBucket(Behind):
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def write(self, key: str, data: bytes) -> None:
        self._bucket.client.put_object(Bucket=self._bucket.name, Key=f"some/prefix/{key}", Body=data)

    def read(self, key: str) -> bytes | None:
        try:
            found = self._bucket.client.get_object(Bucket=self._bucket.name, Key=f"some/prefix/{key}")
        except ClientError:
            return None
        return bytes(found["Body"].read())


@pytest.fixture
def make(bucket: Bucket) -> Iterator[Callable[..., S3Store]]:
    made: list[S3Store] = []

    def build(**options: Any) -> S3Store:
        made.append(S3Store(bucket.name, "some/prefix", **bucket.options(part_bytes=PART, **options)))
        return made[-1]

    yield build
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[..., S3Store]) -> ObjectStore:
    return make()


@pytest.fixture
def behind(bucket: Bucket) -> Behind:
    return _InBucket(bucket)


class TestS3Store(StoreContract):
    big_bytes = 2 * PART
    increments = 5

    def test_other_prefixes_of_the_bucket_are_not_seen(self, store: ObjectStore, bucket: Bucket) -> None:
        for key in ("some/prefix2/x", "some/prefi", "other"):
            bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"")
        store.put_if_absent("mine", b"")
        assert [meta.key for meta in store.list("").objects] == ["mine"]
        assert store.list_children("") == ()

    def test_a_broken_upload_is_not_left_behind(self, store: ObjectStore, bucket: Bucket) -> None:
        def breaking() -> Iterator[bytes]:
            for _ in range(3):
                yield b"x" * PART
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError):
            store.put_stream("x", breaking())
        assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")

    def test_a_large_listing_comes_in_pages(
        self, store: ObjectStore, behind: Behind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vecstore.storage.s3._PAGE_KEYS", 10)
        for number in range(25):
            behind.write(f"n/a-{number:02d}/x", b"")
        behind.write("n/a/x", b"")  # S3 lists it last, by name it is first
        page = store.list("n/", limit=5000)
        assert len(page.objects) == 10
        assert page.next == "n/a-09/x"
        assert len(store.list("n/", after="n/a-19/x").objects) == 6
        names = ("a", *(f"a-{number:02d}" for number in range(25)))
        assert store.list_children("n/", limit=5000) == names
        for limit in (1, 3, 9, 10, 11, 25, 26):
            assert store.list_children("n/", limit=limit) == names[:limit]
            assert store.list_children("n/", after="a-07", limit=limit) == names[9:][:limit]


# -- what is repeated --------------------------------------------------------------------------


@pytest.fixture
def proxy(moto_server: str) -> Iterator[Proxy]:
    with toxic_proxy(moto_server) as running:
        yield running


@pytest.fixture
def toxic(make: Callable[..., S3Store], proxy: Proxy) -> S3Store:
    """A store behind the proxy, which waits one second for an answer."""
    return make(endpoint_url=proxy.url, read_timeout=1.0, max_attempts=3)


PASSING = [Toxic.DROP, Toxic.LOSE, Toxic.REFUSE_503, Toxic.LATE_500]


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


@pytest.mark.parametrize("fault", [*PASSING, Toxic.HANG, Toxic.CONFLICT_409])
@pytest.mark.parametrize("metadata", [Toxic.PASS, Toxic.NO_METADATA])
def test_a_create_whose_answer_is_lost_is_made_once_and_acknowledged(
    toxic: S3Store, proxy: Proxy, behind: Behind, fault: Toxic, metadata: Toxic
) -> None:
    proxy.plan(("PUT", fault), ("HEAD", metadata))
    meta = toxic.put_if_absent("x", b"mine")
    assert behind.read("x") == b"mine"
    assert meta == toxic.head("x")
    assert proxy.count("PUT") == 2


@pytest.mark.parametrize("fault", [Toxic.DROP, Toxic.REFUSE_503, Toxic.CONFLICT_409])
@pytest.mark.parametrize("theirs", [b"theirs", b"mine"])
def test_a_create_that_failed_and_then_lost_the_race_is_a_conflict(
    make: Callable[..., S3Store], proxy: Proxy, behind: Behind, fault: Toxic, theirs: bytes
) -> None:
    """Also where the other wrote the same bytes: of two creators one is told that it created."""
    other = make()
    store = make(endpoint_url=proxy.url, sleep=lambda _: other.put_if_absent("x", theirs))
    proxy.plan(("PUT", fault))
    with pytest.raises(StorageConflict):
        store.put_if_absent("x", b"mine")
    assert behind.read("x") == theirs


def test_contention_that_lasts_is_not_taken_for_existence(toxic: S3Store, proxy: Proxy) -> None:
    proxy.plan(*[("PUT", Toxic.CONFLICT_409)] * 9)
    with pytest.raises(StorageRetryable):
        toxic.put_if_absent("x", b"mine")
    assert proxy.count("PUT") == 3


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


@pytest.mark.parametrize("fault", PASSING)
def test_an_upload_in_parts_survives_passing_failures(
    toxic: S3Store, proxy: Proxy, behind: Behind, bucket: Bucket, fault: Toxic
) -> None:
    """One while it begins, one in a part, and one in the completion, which may have been applied."""
    proxy.plan(("PUT", fault), ("POST", Toxic.REFUSE_503), ("POST", Toxic.PASS), ("POST", fault))
    meta = toxic.put_stream("x", [b"x" * PART, b"y" * PART, b"z"])
    assert behind.read("x") == b"x" * PART + b"y" * PART + b"z"
    assert meta.etag == toxic.head("x").etag
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")


def test_an_upload_in_parts_that_fails_for_good_is_aborted(
    toxic: S3Store, proxy: Proxy, behind: Behind, bucket: Bucket
) -> None:
    proxy.plan(*[("PUT", Toxic.REFUSE_503)] * 9)
    with pytest.raises(StorageRetryable):
        toxic.put_stream("x", [b"x" * PART] * 4)
    assert behind.read("x") is None
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")


def test_an_upload_in_parts_loses_to_an_object_made_meanwhile(
    toxic: S3Store, proxy: Proxy, behind: Behind, bucket: Bucket
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * 2 * PART
        behind.write("x", b"theirs")
        yield b"y"

    with pytest.raises(StorageConflict):
        toxic.put_stream("x", chunks())
    assert behind.read("x") == b"theirs"
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")


# -- what is not repeated ------------------------------------------------------------------------


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


def test_an_absent_bucket_is_named(bucket: Bucket) -> None:
    store = S3Store("no-such-bucket", **bucket.options())
    for call in (
        lambda: store.get("x"),
        lambda: store.list(""),
        lambda: store.put_if_absent("x", b""),
        lambda: store.put_if_match("x", b"", "e"),
        lambda: store.put_stream("x", [b"x" * (17 << 20)]),
    ):
        with pytest.raises(StorageMissing, match="no bucket 'no-such-bucket'"):
            call()
    store.close()


def test_nobody_at_the_endpoint_is_a_passing_failure(bucket: Bucket) -> None:
    store = S3Store(
        bucket.name, **bucket.options(endpoint_url="http://127.0.0.1:9", connect_timeout=0.5, max_attempts=2)
    )
    with pytest.raises(StorageRetryable):
        store.get("x")


def test_absent_credentials_are_unauthorised(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    store = S3Store(bucket.name, endpoint_url=bucket.endpoint)
    with pytest.raises(Unauthorised, match="credentials"):
        store.get("x")


def test_names_and_settings_that_cannot_be_are_refused(bucket: Bucket) -> None:
    with pytest.raises(InvalidArgument):
        S3Store(bucket.name, "not a prefix")
    with pytest.raises(InvalidArgument):
        S3Store(bucket.name, **bucket.options(endpoint_url="not a url")).get("x")
    with pytest.raises(InvalidArgument):
        S3Store("Not_A_Bucket!", **bucket.options()).get("x")


def test_a_profile_that_does_not_exist_is_refused(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "there-is-no-such-profile")
    with pytest.raises(InvalidArgument, match="profile"):
        S3Store(bucket.name).get("x")


# -- the server's clock --------------------------------------------------------------------------


def test_the_clock_is_the_servers_and_costs_one_request_at_most(
    toxic: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = toxic.now()
    assert len(proxy.requests) == 1
    assert abs(first - time.time()) < 10
    toxic.put_if_absent("x", b"")
    clock = {"now": 1_000_000.0}
    monkeypatch.setattr("vecstore.storage.s3.time.monotonic", lambda: clock["now"])
    made = toxic.put_if_absent("y", b"").modified  # from the answer's date
    proxy.plan()
    clock["now"] += 30
    assert toxic.now() == made + 30
    assert proxy.requests == []
    clock["now"] += 31  # too long ago to rely on
    toxic.now()
    assert len(proxy.requests) == 1


def test_the_clock_does_not_jump_back_within_a_second(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers tell whole seconds: the last of a second says less than the first and the time since."""
    clock = {"now": 50_000.0}
    monkeypatch.setattr("vecstore.storage.s3.time.monotonic", lambda: clock["now"])

    def answer(date: float) -> None:
        when = datetime.fromtimestamp(date, tz=UTC)
        store._read_clock({"ResponseMetadata": {"HTTPHeaders": {"date": format_datetime(when, usegmt=True)}}})

    start = 1_700_000_000.0
    answer(start)
    clock["now"] += 0.9
    assert store.now() == start + 0.9
    answer(start)
    assert store.now() == start + 0.9
    clock["now"] += 0.2
    answer(start + 1)
    assert store.now() == pytest.approx(start + 1.1)
    clock["now"] += 0.1
    answer(start + 2)  # ours was slow: the server is further than we thought
    assert store.now() == start + 2
    answer(start - 60)  # somebody set it back
    assert store.now() == start - 60


# -- the handle ------------------------------------------------------------------------------------


def test_a_handle_opens_connections_of_its_own_in_a_forked_child(store: S3Store) -> None:
    store.put_if_absent("x", b"1234")
    ranges = [ByteRange(0, 1), ByteRange(2, 2)]
    assert store.get_ranges("x", ranges) == [b"1", b"34"]
    with store._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if store.get_ranges("x", ranges) == [b"1", b"34"] else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert store.get("x").data == b"1234"


def test_one_client_serves_many_threads(store: S3Store, behind: Behind) -> None:
    behind.write("x", b"0123456789")
    failures: list[BaseException] = []
    barrier = threading.Barrier(16)

    def read(number: int) -> None:
        try:
            barrier.wait()
            assert store.get_range("x", number % 10, 1) == b"%d" % (number % 10)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_boto3_is_not_loaded_until_a_bucket_is_opened() -> None:
    code = (
        "import sys, vecstore, vecstore.storage, vecstore.storage.cache\n"
        "from vecstore.storage.open import open_store\n"
        "open_store('memory://'); open_store('./nothing')\n"
        "assert 'boto3' not in sys.modules and 'botocore' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd())
