"""Reads by signed URLs: they say nothing of the signature, and find their way where boto3 does."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.storage.contract import Behind
from tests.storage.toxic_proxy import Proxy, Toxic
from vecstore.errors import StorageMissing, StorageRetryable, Unauthorised
from vecstore.storage.s3 import S3Store


def test_the_ranges_of_an_object_share_one_signature(toxic: S3Store, proxy: Proxy, behind: Behind) -> None:
    behind.write("x", b"0123456789")
    for start in range(5):
        toxic.get_range("x", start, 2)
    assert len(proxy.requests) == 5
    assert len(set(proxy.requests)) == 1
    assert "X-Amz-Signature" in proxy.requests[0]


def test_a_signature_is_renewed_before_it_expires(
    toxic: S3Store, proxy: Proxy, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind.write("x", b"0123456789")
    clock = {"now": 1e6}
    monkeypatch.setattr("vecstore.storage.s3.client.time.monotonic", lambda: clock["now"])
    signed = 0
    sign = toxic._client._boto3().generate_presigned_url

    def counted(*args: object, **options: object) -> str:
        nonlocal signed
        signed += 1
        return str(sign(*args, **options))

    monkeypatch.setattr(toxic._client._boto3(), "generate_presigned_url", counted)
    for seconds in (0, 299, 2, 100):
        clock["now"] += seconds
        toxic.get_range("x", 0, 1)
    assert signed == 2


def test_a_refused_signature_is_not_used_again(toxic: S3Store, proxy: Proxy, behind: Behind) -> None:
    """Temporary credentials may have been replaced meanwhile."""
    behind.write("x", b"0123456789")
    toxic.get_range("x", 0, 1)
    proxy.plan(("GET", Toxic.FORBID))
    with pytest.raises(Unauthorised):
        toxic.get_range("x", 0, 1)
    assert not toxic._client._signed
    assert toxic.get_range("x", 1, 1) == b"1"


@pytest.mark.parametrize("fault", [Toxic.DROP, Toxic.HANG, Toxic.CUT, Toxic.REFUSE_503])
def test_no_error_shows_a_signature(
    make: Callable[..., S3Store], proxy: Proxy, behind: Behind, fault: Toxic
) -> None:
    store = make(endpoint_url=proxy.url, read_timeout=0.5, max_attempts=1)
    behind.write("x", b"0123456789")
    proxy.plan(("GET", fault))
    with pytest.raises(StorageRetryable) as caught:
        store.get("x")
    assert "Signature" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.details["object"] == "x"


def test_an_answer_of_another_kind_is_left_to_boto3(toxic: S3Store, proxy: Proxy, behind: Behind) -> None:
    """A bucket of another region answers 301 or 400; boto3 follows it there."""
    behind.write("x", b"0123456789")
    etag = toxic.get("x").meta.etag
    for read in (
        lambda: toxic.get("x").data,
        lambda: toxic.get_range("x", 2, 3),
        lambda: toxic.get_if_changed("x", etag),
    ):
        proxy.plan()
        wanted = read()
        proxy.plan(("GET", Toxic.BAD_REQUEST))
        assert read() == wanted
        assert proxy.count("GET") == 2
    proxy.plan(("GET", Toxic.BAD_REQUEST))
    with pytest.raises(StorageMissing):
        toxic.get("absent")


def test_authorities_of_the_configuration_file_are_those_of_reads(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for boto3's own connections; without TLS nobody opens the file."""
    (tmp_path / "config").write_text(f"[default]\nca_bundle = {tmp_path}/own.pem\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    store = S3Store(bucket.name, endpoint_url=bucket.endpoint, access_key="testing", secret_key="testing")
    with pytest.raises(StorageMissing):
        store.get("x")
    assert store._client._reads_session()._verify == f"{tmp_path}/own.pem"
    store.close()
