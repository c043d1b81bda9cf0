"""Each way in which a store may fail: the named error, its HTTP status, and service again afterwards.

The application runs over a real store, S3 behind a proxy that spoils requests or a directory on a
filesystem of its own; each request finds nothing in memory, as after a restart.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Bucket
from tests.storage.toxic_proxy import Proxy, Toxic, toxic_proxy
from vecstore.api import Database
from vecstore.config import Config
from vecstore.engine.database import EmbeddedDatabase
from vecstore.server.app import create_app
from vecstore.storage.base import ObjectStore
from vecstore.storage.local import LocalStore
from vecstore.storage.s3 import S3Store

ROWS = np.random.default_rng(3).standard_normal((400, 16)).astype(np.float32)
ATTEMPTS = 3


class Service:
    """HTTP over a store; each request through a new database."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def create(self) -> None:
        made = self._post("/v1/namespaces", name="ns", dim=16, defaults={"small_part_threshold": 0})
        assert made[0] == 201, made

    def insert(self, start: int, count: int = 100) -> tuple[int, str, Any]:
        rows = slice(start, start + count)
        ids = list(range(rows.start, rows.stop))
        return self._post("/v1/namespaces/ns/parts", ids=ids, vectors=ROWS[rows].tolist())

    def search(self) -> tuple[int, str, Any]:
        return self._post("/v1/namespaces/ns/search", vector=ROWS[0].tolist(), top_k=3)

    def serves(self, rows: int) -> None:
        """It answers and writes again, and nothing was lost or done twice meanwhile."""
        status, _, body = self.search()
        assert status == 200, body
        assert body["hits"][0]["id"] == 0
        status, _, body = self.insert(rows)
        assert status == 201, body
        with Database(EmbeddedDatabase(self.store)) as database:
            assert database.namespace("ns").stats().rows == rows + 100

    def _post(self, path: str, **body: Any) -> tuple[int, str, Any]:
        database = Database(EmbeddedDatabase(self.store))
        answer = create_app(database, Config()).test_client().post(path, json=body)
        found = answer.get_json()
        return answer.status_code, found.get("code", ""), found


# -- S3 ------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(moto_server: str) -> Iterator[Proxy]:
    with toxic_proxy(moto_server) as running:
        yield running


@pytest.fixture
def remote(bucket: Bucket, proxy: Proxy) -> Iterator[Service]:
    """A namespace of 100 rows behind the proxy; an answer is waited for half a second."""
    store = S3Store(
        bucket.name,
        **bucket.options(endpoint_url=proxy.url, read_timeout=0.5, max_attempts=ATTEMPTS, hedge_share=0.0),
    )
    service = Service(store)
    service.create()
    assert service.insert(0)[0] == 201
    yield service
    store.close()


ALL = 10_000  # requests


@pytest.mark.parametrize(
    ("toxic", "status", "code", "sent"),
    [
        pytest.param(Toxic.REFUSE_503, 503, "storage_unavailable", ATTEMPTS, id="503 storm"),
        pytest.param(Toxic.DROP, 503, "storage_unavailable", ATTEMPTS, id="reset"),
        pytest.param(Toxic.HANG, 503, "storage_unavailable", ATTEMPTS, id="slower than the time-out"),
        pytest.param(Toxic.CUT, 503, "storage_unavailable", ATTEMPTS, id="truncated"),
        pytest.param(Toxic.FORBID, 403, "permission_denied", 1, id="403"),
        pytest.param(Toxic.FLIP, 500, "storage_corrupt", 1, id="corrupt"),
    ],
)
def test_a_read_that_fails_is_named_and_works_again(
    remote: Service, proxy: Proxy, toxic: Toxic, status: int, code: str, sent: int
) -> None:
    proxy.plan(*[("GET", toxic)] * ALL)
    assert remote.search()[:2] == (status, code)
    assert proxy.count("GET") == sent, "what cannot help is not tried again"
    proxy.plan()
    remote.serves(100)


@pytest.mark.parametrize("fault", [Toxic.CUT, Toxic.FLIP])
def test_a_part_that_comes_damaged_is_named_and_not_served(
    remote: Service, proxy: Proxy, fault: Toxic
) -> None:
    """The manifest comes whole; ranges of the part do not, and not the second time either."""
    proxy.plan(("GET", Toxic.PASS), *[("GET", fault)] * ALL)
    status, code, body = remote.search()
    if fault is Toxic.FLIP:
        assert (status, code) == (500, "storage_corrupt")
        assert body["details"]["section"]
    else:
        assert (status, code) == (503, "storage_unavailable")
    assert body["details"]["object"].startswith("namespaces/ns/parts/")
    proxy.plan()
    remote.serves(100)


def test_one_flipped_bit_on_the_way_is_fetched_again(remote: Service, proxy: Proxy) -> None:
    """After the manifest and the head of the part: a list, whose checksum tells."""
    proxy.plan(("GET", Toxic.PASS), ("GET", Toxic.PASS), ("GET", Toxic.FLIP))
    assert remote.search()[0] == 200
    proxy.plan()
    remote.serves(100)


@pytest.mark.parametrize(
    ("toxic", "status", "code"),
    [
        pytest.param(Toxic.REFUSE_503, 503, "storage_unavailable", id="503 storm"),
        pytest.param(Toxic.DROP, 503, "storage_unavailable", id="reset"),
        pytest.param(Toxic.FORBID, 403, "permission_denied", id="403"),
    ],
)
def test_a_write_that_fails_is_named_and_leaves_nothing(
    remote: Service, proxy: Proxy, toxic: Toxic, status: int, code: str
) -> None:
    proxy.plan(*[("PUT", toxic)] * ALL)
    assert remote.insert(100)[:2] == (status, code)
    proxy.plan()
    remote.serves(100)


def test_a_commit_that_is_refused_is_no_riddle(remote: Service, proxy: Proxy) -> None:
    """The part and the copy of the epoch are stored; the switch is refused, so it did not happen."""
    proxy.plan(("PUT", Toxic.PASS), ("PUT", Toxic.PASS), ("PUT", Toxic.FORBID))
    assert remote.insert(100)[:2] == (403, "permission_denied")
    proxy.plan()
    remote.serves(100)


@pytest.mark.parametrize("toxic", [Toxic.LOSE, Toxic.HANG, Toxic.LATE_500])
def test_a_commit_whose_answer_is_lost_is_acknowledged_once(
    remote: Service, proxy: Proxy, toxic: Toxic
) -> None:
    proxy.plan(("PUT", Toxic.PASS), ("PUT", Toxic.PASS), ("PUT", toxic))
    assert remote.insert(100)[0] == 201
    proxy.plan()
    remote.serves(200)


def test_a_refused_connection_is_named_and_works_again(bucket: Bucket, moto_server: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        port = held.getsockname()[1]
        options = bucket.options(endpoint_url=f"http://127.0.0.1:{port}", max_attempts=ATTEMPTS)
        service = Service(S3Store(bucket.name, **options))
        assert service.search()[:2] == (503, "storage_unavailable")
    with toxic_proxy(moto_server, port=port):
        service.create()
        assert service.insert(0)[0] == 201
        service.serves(100)
    service.store.close()


def test_a_name_that_is_not_resolved_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """``.invalid`` never resolves (RFC 2606); once a name does, there is service again."""
    port = bucket.endpoint.rpartition(":")[2]
    options = bucket.options(endpoint_url=f"http://localhost.invalid:{port}", max_attempts=2)
    service = Service(S3Store(bucket.name, addressing_style="path", **options))
    status, code, body = service.search()
    assert (status, code) == (503, "storage_unavailable")
    assert "localhost.invalid" in body["message"]
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: resolve(
            "127.0.0.1" if host == "localhost.invalid" else host, *rest, **more
        ),
    )
    service.create()
    assert service.insert(0)[0] == 201
    service.serves(100)
    service.store.close()


def test_a_bucket_that_is_not_there_is_named_and_found_once_it_is(bucket: Bucket) -> None:
    name = f"{bucket.name}-later"
    service = Service(S3Store(name, **bucket.options()))
    for status, code, body in (service.search(), service._post("/v1/namespaces", name="ns", dim=16)):
        assert (status, code) == (500, "storage_missing")
        assert body["details"]["bucket"] == name
    bucket.client.create_bucket(Bucket=name)
    service.create()
    assert service.insert(0)[0] == 201
    service.serves(100)
    service.store.close()


# -- a directory ---------------------------------------------------------------------------------


@pytest.fixture
def disk() -> Iterator[Path]:
    """A filesystem of 1 MiB of its own, at a place that anybody may reach."""
    folder = Path(tempfile.mkdtemp(prefix="vecstore-disk-"))
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        folder.rmdir()
        pytest.skip("only root may mount a filesystem")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def local(disk: Path) -> Service:
    service = Service(LocalStore(disk / "store"))
    service.create()
    assert service.insert(0)[0] == 201
    return service


def filled(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def test_a_full_disk_is_named_and_works_again(local: Service, disk: Path) -> None:
    filler = filled(disk)
    assert local.insert(100)[:2] == (507, "storage_full")
    assert local.search()[0] == 200
    filler.unlink()
    local.serves(100)


def test_a_disk_that_fills_up_at_the_switch_leaves_nothing(local: Service, disk: Path) -> None:
    """Whatever is left of it when the disk fills: the old epoch or the new one, and an honest answer."""
    for room in range(0, 160_000, 16_384):
        filler = filled(disk)
        os.truncate(filler, max(0, filler.stat().st_size - room))
        status, code, _ = local.insert(100)
        filler.unlink()
        if status == 201:
            break
        assert (status, code) == (507, "storage_full")
        with Database(EmbeddedDatabase(local.store)) as database:
            assert database.namespace("ns").stats().rows == 100
    assert room > 0
    local.serves(200)


def test_a_read_only_directory_is_searched_and_refuses_writes(local: Service, disk: Path) -> None:
    local.store.close()  # descriptors that were written through keep a filesystem writable
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert local.insert(100)[:2] == (403, "permission_denied")
    assert local.search()[0] == 200
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    local.serves(100)


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's rights, which no permission binds."""
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_permission_that_is_lost_is_named_and_works_again(local: Service, disk: Path) -> None:
    """First of writing, then of reading."""
    folders = [disk / "store", *(path for path in (disk / "store").rglob("*") if path.is_dir())]
    with nobody():
        assert local.insert(100)[:2] == (403, "permission_denied")
        assert local.search()[0] == 200
    for folder in folders:
        folder.chmod(0o700)
    with nobody():
        assert local.search()[:2] == (403, "permission_denied")
    for folder in folders:
        folder.chmod(0o755)
    local.serves(100)
