"""Real things for all suites: an S3 server, buckets, and one store of each kind."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import settings
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

import vecstore
from tests.seaweed import seaweedfs
from tests.server.support import Server, running_server
from vecstore.api import Database
from vecstore.storage.base import ObjectStore
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore
from vecstore.storage.s3 import S3Store

settings.register_profile("vecstore", deadline=None)  # a busy machine is no failure
settings.load_profile("vecstore")


class _AtomicS3(ThreadedMotoServer):
    """Moto looks at the condition of a write and then writes; S3 does both at once."""

    def _server_entry(self) -> None:
        lock = threading.Lock()
        app = DomainDispatcherApplication(create_backend_app)

        def one_write_at_a_time(environ: Any, start_response: Any) -> Any:
            if environ["REQUEST_METHOD"] == "GET":
                return app(environ, start_response)
            with lock:
                return app(environ, start_response)

        self._server = make_server(
            self._ip_address, self._port, one_write_at_a_time, True, request_handler=MotoRequestHandler
        )
        self._server_ready_event.set()
        self._server.serve_forever()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """The endpoint of an S3 server on a free port of the loopback interface.

    ``VECSTORE_TEST_S3`` names another server to test against, which takes "testing" for both keys.
    """
    if os.environ.get("VECSTORE_TEST_S3"):
        yield os.environ["VECSTORE_TEST_S3"]
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = _AtomicS3(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket, and a client that goes behind a store's back."""

    name: str
    endpoint: str
    client: Any
    session: boto3.session.Session

    def options(self, **more: Any) -> dict[str, Any]:
        """What `S3Store` and `open_store` need to reach it."""
        # A session of boto3 takes ten times as long to make as a client.
        shared = {"session": self.session, "endpoint_url": self.endpoint, "sleep": lambda seconds: None}
        return {**shared, **more}


@pytest.fixture(scope="session")
def s3_session() -> boto3.session.Session:
    return boto3.session.Session("testing", "testing", region_name="us-east-1")


@pytest.fixture(scope="session")
def s3_client(moto_server: str, s3_session: boto3.session.Session) -> Any:
    return s3_session.client("s3", endpoint_url=moto_server)


@pytest.fixture
def bucket(moto_server: str, s3_client: Any, s3_session: boto3.session.Session) -> Bucket:
    """A bucket of this test's own."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    s3_client.create_bucket(Bucket=name)
    return Bucket(name, moto_server, s3_client, s3_session)


@pytest.fixture(scope="session")
def seaweed_bucket(
    tmp_path_factory: pytest.TempPathFactory, s3_session: boto3.session.Session
) -> Iterator[Bucket]:
    """A bucket of SeaweedFS, which this session starts and stops; its tests keep apart by prefixes."""
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as server:
        client = s3_session.client("s3", endpoint_url=server.endpoint)
        client.create_bucket(Bucket="shared")
        yield Bucket("shared", server.endpoint, client, s3_session)


@pytest.fixture
def s3_url(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL for `open_store` and ``connect``; endpoint and credentials come from the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return f"s3://{bucket.name}/prefix"


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], ObjectStore]]:
    """Makes a fresh store of a kind: ``memory``, ``local`` or ``s3``; closes them all in the end."""
    made: list[ObjectStore] = []

    def make(kind: str) -> ObjectStore:
        store: ObjectStore
        if kind == "memory":
            store = MemoryStore()
        elif kind == "local":
            store = LocalStore(tmp_path / f"store-{len(made)}")
        else:
            bucket = request.getfixturevalue("bucket")
            store = S3Store(bucket.name, "prefix", **bucket.options())
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, make_store: Callable[[str], ObjectStore]) -> ObjectStore:
    """A fresh store of each kind in turn; narrow it with ``parametrize("store", …, indirect=True)``."""
    return make_store(request.param)


@pytest.fixture(params=["memory", "local", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh URL of each kind of store in turn."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if request.param == "local":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3_url"))


# Tests must not find a developer's own buckets.
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server with one worker, on a directory."""
    with running_server(tmp_path_factory.mktemp("store") / "data", "--workers", "1") as server:
        yield server


@pytest.fixture(params=["embedded", "http"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database: in this process, and of a real server."""
    if request.param == "embedded":
        with vecstore.connect("memory://", maintenance="off") as database:
            yield database
        return
    with vecstore.connect(request.getfixturevalue("server").url) as database:
        yield database
        for info in list(database.namespaces()):
            database.delete_namespace(info.name)
