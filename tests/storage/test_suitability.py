"""A store that does what is asked passes; each way not to do it is found and named."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import Bucket
from vecstore.cli import main
from vecstore.errors import StorageRetryable
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, ObjectStore, StoredObject
from vecstore.storage.memory import MemoryStore, named_store
from vecstore.storage.s3 import S3Store
from vecstore.storage.suitability import PIECE, examine


def problems(mine: ObjectStore, theirs: ObjectStore) -> dict[str, str]:
    found = list(examine(mine, theirs, "check"))
    assert len(found) == 12
    assert mine.list("").objects == (), "what was tried out is removed"
    return {finding.name: finding.problem for finding in found if not finding.passed}


def test_a_directory_and_memory_are_fit(make_store: Callable[[str], ObjectStore]) -> None:
    for kind in ("memory", "local"):
        store = make_store(kind)
        assert problems(store, store) == {}


def test_seaweedfs_is_fit(seaweed_bucket: Bucket) -> None:
    prefix = uuid.uuid4().hex
    mine, theirs = (
        S3Store(seaweed_bucket.name, prefix, **seaweed_bucket.options(part_bytes=PIECE)) for _ in range(2)
    )
    assert problems(mine, theirs) == {}
    mine.close()
    theirs.close()


class Overwrites(MemoryStore):
    """As a server that does not know If-None-Match."""

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        self.delete(key)
        return super().put_if_absent(key, data)


class TakesAnyEtag(MemoryStore):
    """As a server that does not know If-Match."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        self.delete(key)
        return super().put_if_absent(key, data)


class ComparesThenReplaces(MemoryStore):
    """As a server that checks the condition and writes in two steps."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        current = self.get(key).meta.etag
        if current != etag:
            return super().put_if_match(key, data, etag)
        time.sleep(0.002)
        return super().put_if_match(key, data, self.get(key).meta.etag)


class NeverNotModified(MemoryStore):
    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        return self.get(key)


class SendsTheStart(MemoryStore):
    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        return [self.get(key).data[: one.length] for one in ranges]


class ListsLate(MemoryStore):
    """A listing shows what was there at the listing before."""

    seen: ListPage = ListPage((), None)

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        before, self.seen = self.seen, super().list(prefix, after=after, limit=limit)
        return before if not after and prefix.count("/") > 1 else self.seen


class ReplacesByParts(MemoryStore):
    """As a server that does not know the condition of a completion."""

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        data = b"".join(bytes(chunk) for chunk in chunks)
        self.delete(key)
        return super().put_if_absent(key, data)


class LivesInThePast(MemoryStore):
    def now(self) -> float:
        return super().now() - 3_600


@pytest.mark.parametrize(
    ("store", "lacks"),
    [
        (Overwrites, "create"),
        (TakesAnyEtag, "replace"),
        (ComparesThenReplaces, "no lost update"),
        (NeverNotModified, "not modified"),
        (SendsTheStart, "ranges"),
        (ListsLate, "listing"),
        (ReplacesByParts, "upload in parts"),
        (LivesInThePast, "clock"),
    ],
)
def test_what_is_missing_is_named(store: type[MemoryStore], lacks: str) -> None:
    unfit = store()
    found = {one.name: one for one in examine(unfit, unfit, "check")}
    assert found[lacks].problem
    assert found[lacks].asks


def test_a_store_that_cannot_be_reached_is_an_error_and_no_finding(bucket: Bucket) -> None:
    store = S3Store(bucket.name, **bucket.options(endpoint_url="http://127.0.0.1:9", max_attempts=1))
    with pytest.raises(StorageRetryable):
        next(examine(store, store, "check"))


def test_the_command_tells_people_and_programs() -> None:
    name = uuid.uuid4().hex
    done = CliRunner().invoke(main, ["check-store", f"memory://{name}"])
    assert done.exit_code == 0
    assert done.output.count("ok ") == 12
    done = CliRunner().invoke(main, ["check-store", f"memory://{name}", "--json"])
    told: dict[str, Any] = json.loads(done.output)
    assert told["fit"] is True
    assert [check["problem"] for check in told["checks"]] == [""] * 12
    assert named_store(name).list("").objects == ()


def test_the_command_fails_on_a_store_that_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecstore.storage.open.open_store", lambda url, **options: unfit)
    unfit = Overwrites()
    done = CliRunner().invoke(main, ["check-store", "memory://"])
    assert done.exit_code == 1
    assert "MISSING create" in done.output
    assert "created twice" in done.output
    assert CliRunner().invoke(main, ["check-store", "http://127.0.0.1:1"]).exit_code == 1
