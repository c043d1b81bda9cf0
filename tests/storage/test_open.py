"""A URL names a store, or is refused with a reason."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bucket
from vecstore.errors import InvalidArgument, StorageMissing
from vecstore.storage.base import ObjectStore
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore
from vecstore.storage.open import open_store


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "{}/", "./here"])
def test_paths_open_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "here"
    store = open_store(form.format(root))
    assert isinstance(store, LocalStore)
    assert not root.exists()
    store.put_if_absent("x", b"1")
    assert (root / "x").read_bytes() == b"1"
    assert store.url == f"file://{root}"
    assert open_store(store.url).get("x").data == b"1"


def test_a_file_url_is_decoded(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/a%20b")
    store.put_if_absent("x", b"1")
    assert (tmp_path / "a b" / "x").exists()


def test_a_relative_path_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.put_if_absent("x", b"1")
    assert (tmp_path / "data" / "x").exists()


def test_a_named_memory_store_is_one_in_a_process_and_an_unnamed_one_private() -> None:
    one, two = open_store("memory://test-open"), open_store("memory://test-open")
    assert one is two
    assert isinstance(one, MemoryStore)
    assert open_store("memory://test-open-2") is not one
    private, other = open_store("memory://"), open_store("memory://")
    private.put_if_absent("x", b"")
    with pytest.raises(StorageMissing):
        other.get("x")
    assert private.url != other.url


def test_an_s3_url_opens_a_bucket(bucket: Bucket) -> None:
    store = open_store(f"s3://{bucket.name}/some/prefix/", **bucket.options())
    store.put_if_absent("x", b"1")
    assert bucket.client.get_object(Bucket=bucket.name, Key="some/prefix/x")["Body"].read() == b"1"
    assert store.url == f"s3://{bucket.name}/some/prefix"
    store.close()
    whole = open_store(f"s3://{bucket.name}", **bucket.options())
    assert whole.get("some/prefix/x").data == b"1"
    whole.close()


def test_a_scheme_is_one_in_capitals_too(bucket: Bucket, tmp_path: Path) -> None:
    store = open_store(f"S3://{bucket.name}/x", **bucket.options())
    assert store.url == f"s3://{bucket.name}/x"
    store.close()
    assert open_store(f"FILE://{tmp_path}").url == f"file://{tmp_path}"


def test_a_folder_may_be_called_like_a_scheme_if_it_is_written_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("./s3:/bucket").url == f"file://{tmp_path}/s3:/bucket"
    assert open_store("c:/bucket").url == f"file://{tmp_path}/c:/bucket"


def test_the_environment_is_enough_for_s3(s3_url: str) -> None:
    store = open_store(s3_url)
    store.put_if_absent("x", b"1")
    assert store.get("x").data == b"1"
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://host",
        "gs://bucket",
        "s3:/bucket",
        "S3:bucket",
        "http:/host:80",
        "memory:name",
        "s3://",
        "s3:///prefix",
        "s3://key:secret@bucket/x",  # pragma: allowlist secret
        "s3://bucket/a?region=x",
        "s3://bucket/a b",
        "file://host/path",
        "file://",
        "file:///x?y",
        "a\0b",
    ],
)
def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "options"),
    [("./x", {"region": "a"}), ("memory://", {"region": "a"}), ("s3://bucket", {"colour": "red"})],
)
def test_an_option_that_means_nothing_is_refused(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        open_store(url, **options)


def _read_in_child(url: str, found: Any) -> None:
    found.put(open_store(url).get("x").data)


def test_a_url_opens_the_same_store_in_another_process(tmp_path: Path) -> None:
    open_store(str(tmp_path)).put_if_absent("x", b"1")
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    child = context.Process(target=_read_in_child, args=(f"file://{tmp_path}", found))
    child.start()
    assert found.get(timeout=60) == b"1"
    child.join(60)


def test_the_shared_fixture_gives_stores_that_work(store: ObjectStore) -> None:
    store.put_if_absent("x", b"1")
    assert store.get("x").data == b"1"


def test_the_shared_urls_open(store_url: str) -> None:
    store = open_store(store_url)
    store.put_if_absent("x", b"1")
    assert store.get("x").data == b"1"
    store.close()


def test_a_path_from_the_home_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_store("~/data").url == f"file://{tmp_path}/data"
    assert open_store("./~/data").url == f"file://{tmp_path}/~/data"
    with pytest.raises(InvalidArgument, match="no home ~nobody-of-that-name") as caught:
        open_store("~nobody-of-that-name/data")
    assert caught.value.details["field"] == "url"


@pytest.mark.parametrize("url", ["file", "file/sub", "dangling", "dangling/sub", "loop"])
def test_what_is_no_directory_is_refused(tmp_path: Path, url: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    name = url.partition("/")[0]
    with pytest.raises(InvalidArgument, match=f"{tmp_path / name} is no directory") as caught:
        open_store(str(tmp_path / url))
    assert caught.value.details["field"] == "url"


def test_a_link_to_a_directory_is_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    open_store(str(tmp_path / "link")).put_if_absent("x", b"1")
    assert (tmp_path / "real" / "x").read_bytes() == b"1"
