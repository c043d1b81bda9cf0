"""The slow store answers as S3 does, late and no faster than it says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.slow_store import distant
from vecstore.errors import StorageConflict, StorageCorrupt, StorageMissing
from vecstore.storage.base import ByteRange
from vecstore.storage.s3 import S3Store

DATA = bytes(range(256)) * 4_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(DATA)
    return tmp_path


def opened(endpoint: str) -> S3Store:
    return S3Store(
        "bucket",
        endpoint_url=endpoint,
        access_key="bench",
        secret_key="bench",  # pragma: allowlist secret
        region="us-east-1",
        addressing_style="path",
        max_attempts=1,
    )


@pytest.fixture
def quick(folder: Path) -> Iterator[S3Store]:
    with distant(folder, "--p50", "0.001", "--p99", "0.002") as endpoint:
        store = opened(endpoint)
        yield store
        store.close()


def test_it_reads_as_s3_does(quick: S3Store) -> None:
    found = quick.get("a/x")
    assert found.data == DATA
    assert quick.get_if_changed("a/x", found.meta.etag) is None
    wanted = [ByteRange(i * 50_000, 700) for i in range(20)]
    assert quick.get_ranges("a/x", wanted) == [DATA[one.start : one.stop] for one in wanted]
    with pytest.raises(StorageMissing):
        quick.get("a/y")
    with pytest.raises(StorageCorrupt):
        quick.get_range("a/x", len(DATA), 1)


def test_it_writes_as_s3_does_and_leaves_the_folder_alone(quick: S3Store, folder: Path) -> None:
    first = quick.put_if_absent("a/new", DATA)
    assert quick.get("a/new").data == DATA
    with pytest.raises(StorageConflict):
        quick.put_if_absent("a/x", b"other")
    second = quick.put_if_match("a/new", b"second", first.etag)
    with pytest.raises(StorageConflict):
        quick.put_if_match("a/new", b"third", first.etag)
    assert quick.get("a/new").data == b"second"
    assert quick.head("a/new").etag == second.etag
    assert second.etag != first.etag
    assert quick.get("a/x").data == DATA
    assert not (folder / "a" / "new").exists()


def test_answers_are_late_and_bytes_take_their_time(folder: Path) -> None:
    with distant(folder, "--p50", "0.05", "--p99", "0.0501", "--connection-rate", "5e6") as endpoint:
        store = opened(endpoint)
        store.get_range("a/x", 0, 1)
        began = time.perf_counter()
        store.get_range("a/x", 0, 1)
        assert time.perf_counter() - began >= 0.049
        began = time.perf_counter()
        store.get("a/x")
        assert time.perf_counter() - began >= 0.049 + 0.9 * len(DATA) / 5e6
        store.close()
