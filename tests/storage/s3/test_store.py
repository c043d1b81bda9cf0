"""The S3 store keeps the contract on two servers, and its handle behaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import pytest

from tests.conftest import Bucket
from tests.storage.contract import Behind, StoreContract
from tests.storage.s3.conftest import PART, InBucket
from tests.storage.toxic_proxy import Toxic, toxic_proxy
from vecstore.errors import InvalidArgument, StorageMissing, StorageRetryable, Unauthorised
from vecstore.storage.base import ByteRange, ObjectStore
from vecstore.storage.pages import all_objects
from vecstore.storage.s3 import S3Store


class TestOnMoto(StoreContract):
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
        monkeypatch.setattr("vecstore.storage.s3.listing._PAGE_KEYS", 10)
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


class TestOnSeaweedFS(StoreContract):
    """A real server; tests share one bucket of it, for the first object of each takes a while.

    It keeps keys as paths and lists them so: folder by folder, not in the order of whole keys, and from
    a key that there is. Ours are such that both orders are one, and we go on from keys that we saw.
    """

    big_bytes = 2 * PART
    increments = 5
    KEYS = ("a/b/c", "a/b/d", "a/c/10", "a/c/2", "b/1", "b/10", "b/2", "z/x")

    @pytest.mark.parametrize("after", KEYS)
    def test_a_listing_starts_after_any_string(self, store: ObjectStore, behind: Behind, after: str) -> None:
        super().test_a_listing_starts_after_any_string(store, behind, after)

    def test_a_folder_without_objects_is_no_child(self, store: ObjectStore) -> None:
        """Here it may stay one for a while; a namespace's folder is never without its ``current``."""
        store.put_if_absent("top/gone/deep/x", b"")
        store.put_if_absent("top/stays/x", b"")
        store.delete("top/gone/deep/x")
        assert "stays" in store.list_children("top/")
        assert store.list("top/gone/").objects == ()

    @pytest.fixture
    def prefix(self) -> str:
        return f"{uuid.uuid4().hex}/prefix"

    @pytest.fixture
    def store(self, seaweed_bucket: Bucket, prefix: str) -> Iterator[ObjectStore]:
        store = S3Store(seaweed_bucket.name, prefix, **seaweed_bucket.options(part_bytes=PART))
        yield store
        store.close()

    @pytest.fixture
    def behind(self, seaweed_bucket: Bucket, prefix: str) -> Behind:
        return InBucket(seaweed_bucket, prefix)

    def test_a_broken_upload_is_not_left_behind(self, store: ObjectStore, seaweed_bucket: Bucket) -> None:
        def breaking() -> Iterator[bytes]:
            for _ in range(3):
                yield b"x" * PART
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError):
            store.put_stream("x", breaking())
        uploads = seaweed_bucket.client.list_multipart_uploads(Bucket=seaweed_bucket.name)
        assert not uploads.get("Uploads")

    def test_a_writer_that_dies_after_its_headers_leaves_no_empty_object(
        self, seaweed_bucket: Bucket, prefix: str, behind: Behind
    ) -> None:
        """It waits there to be told that it may go on; this server takes what came for the whole body."""
        with toxic_proxy(seaweed_bucket.endpoint) as proxy:
            options = seaweed_bucket.options(endpoint_url=proxy.url, max_attempts=1, part_bytes=PART)
            store = S3Store(seaweed_bucket.name, prefix, **options)
            there = store.put_if_absent("there", b"old")
            proxy.plan(*[("PUT", Toxic.BEHEAD)] * 4)
            for write in (
                lambda: store.put_if_match("there", b"new", there.etag),
                lambda: store.put_if_absent("absent", b"new"),
                lambda: store.put_stream("streamed", [b"new"]),
                lambda: store.put_stream("parted", [b"x" * PART, b"y"]),
            ):
                with pytest.raises(StorageRetryable):
                    write()
            assert behind.read("there") == b"old"
            assert [behind.read(key) for key in ("absent", "streamed", "parted")] == [None] * 3
            store.close()


# -- what cannot be reached --------------------------------------------------------------------


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


# -- the handle ------------------------------------------------------------------------------------


def test_a_handle_opens_connections_of_its_own_in_a_forked_child(store: S3Store) -> None:
    store.put_if_absent("x", b"1234")
    ranges = [ByteRange(0, 1), ByteRange(2, 2)]
    assert store.get_ranges("x", ranges) == [b"1", b"34"]
    with store._client._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if store.get_ranges("x", ranges) == [b"1", b"34"] else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert store.get("x").data == b"1234"


@pytest.mark.parametrize("limit", [1, 2, 1_000])
def test_what_others_keep_under_names_that_are_no_keys_is_not_told_of(
    store: S3Store, behind: Behind, limit: int
) -> None:
    for key in ("a b/c", "a/b", "a/c d", "a/e", "lost+found/x"):
        behind.write(key, b"")
    assert [meta.key for meta in all_objects(store, "")] == ["a/b", "a/e"]
    seen, after = [], None
    while True:
        page = store.list("", after=after, limit=limit)
        seen += [meta.key for meta in page.objects]
        if page.next is None:
            break
        after = page.next
    assert seen == ["a/b", "a/e"]
    assert store.list_children("", limit=limit) == ("a",)


def test_an_object_that_stands_for_the_prefix_itself_is_passed_over(
    store: S3Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As consoles make them for a folder: its name is the prefix, and nothing is left of it for a key."""
    monkeypatch.setattr("vecstore.storage.s3.listing._PAGE_KEYS", 1)
    for key in ("", "a/b", "c"):
        bucket.client.put_object(Bucket=bucket.name, Key=f"some/prefix/{key}", Body=b"")
    pages = [store.list("", limit=1)]
    while (after := pages[-1].next) is not None:
        assert len(pages) < 5
        pages.append(store.list("", after=after, limit=1))
    assert [meta.key for page in pages for meta in page.objects] == ["a/b", "c"]
    assert [meta.key for meta in all_objects(store, "")] == ["a/b", "c"]
    assert store.list_children("") == ("a",)


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
