"""What is created is created once, whole or not at all, whatever becomes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Bucket
from tests.storage.contract import Behind
from tests.storage.s3.conftest import PART, PASSING
from tests.storage.toxic_proxy import Proxy, Toxic
from vecstore.errors import StorageConflict, StorageRetryable
from vecstore.storage.s3 import S3Store


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
