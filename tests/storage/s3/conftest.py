"""A store of S3 over Moto, a way behind its back, and a proxy that spoils requests in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Bucket
from tests.storage.contract import Behind
from tests.storage.toxic_proxy import Proxy, Toxic, toxic_proxy
from vecstore.storage.base import ObjectStore
from vecstore.storage.s3 import S3Store

PART = 5 << 20  # the least that S3 takes
PASSING = [Toxic.DROP, Toxic.LOSE, Toxic.REFUSE_503, Toxic.LATE_500]


class InBucket(Behind):
    """What lies under a prefix of a bucket."""

    def __init__(self, bucket: Bucket, prefix: str = "some/prefix") -> None:
        self._bucket = bucket
        self._prefix = prefix

    def write(self, key: str, data: bytes) -> None:
        self._bucket.client.put_object(Bucket=self._bucket.name, Key=f"{self._prefix}/{key}", Body=data)

    def read(self, key: str) -> bytes | None:
        try:
            found = self._bucket.client.get_object(Bucket=self._bucket.name, Key=f"{self._prefix}/{key}")
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
    return InBucket(bucket)


@pytest.fixture
def proxy(moto_server: str) -> Iterator[Proxy]:
    with toxic_proxy(moto_server) as running:
        yield running


@pytest.fixture
def toxic(make: Callable[..., S3Store], proxy: Proxy) -> S3Store:
    """A store behind the proxy, which waits one second for an answer."""
    return make(endpoint_url=proxy.url, read_timeout=1.0, max_attempts=3)
