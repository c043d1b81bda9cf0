"""The `ObjectStore` in a bucket: which requests each operation takes.

Getting and listing are permission enough for readers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import boto3

from vecstore.errors import StorageConflict, StorageMissing, StorageRetryable
from vecstore.observe import Observer
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, Stamp, StoredObject
from vecstore.storage.checks import check_key, check_limit, check_prefix, check_ranges, cut_off
from vecstore.storage.forks import reset_in_children
from vecstore.storage.s3.client import Answer, Client, Settings, digest
from vecstore.storage.s3.clock import seconds_of
from vecstore.storage.s3.errors import NotModified, RangeBeyondEnd
from vecstore.storage.s3.hedge import Hedges
from vecstore.storage.s3.listing import Listing
from vecstore.storage.s3.retry import Retries
from vecstore.storage.s3.uploads import PARTS_IN_FLIGHT, Uploads


class S3Store:
    """Objects of ``bucket`` under ``prefix``. Thread-safe; a forked child opens connections of its own.

    Parameters
    ----------
    endpoint_url, region, access_key, secret_key, session_token
        None leaves it to boto3's environment and configuration files.
    session
        Of boto3, for an application that has one (roles, profiles); credentials are then its own.
    connect_timeout, read_timeout
        Seconds.
    max_attempts
        Of one operation that may be repeated.
    max_connections
        Kept open; reads and parts of uploads that are under way at a time, of all callers together.
    hedge_share
        Reads that may be sent a second time because the answer is late, as a share of all; 0 for none.
    part_bytes
        Memory that a piece of a streamed upload takes, three at a time; smaller objects are one PUT.
        At least 5 MiB on S3; 10,000 of them bound the object.
    sleep
        Waits between attempts, seconds.
    observer
        Hears of each request.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        addressing_style: Literal["auto", "path", "virtual"] = "auto",
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        session: boto3.session.Session | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        max_attempts: int = 5,
        max_connections: int = 32,
        hedge_share: float = 0.05,
        part_bytes: int = 16 << 20,
        sleep: Callable[[float], None] = time.sleep,
        observer: Observer | None = None,
    ) -> None:
        prefix = prefix.strip("/")
        check_prefix(prefix)
        self._root = f"{prefix}/" if prefix else ""
        settings = Settings(
            endpoint_url=endpoint_url,
            region=region,
            addressing_style=addressing_style,
            access_key=access_key,
            secret_key=secret_key,
            session_token=session_token,
            session=session,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            connections=max_connections + PARTS_IN_FLIGHT,
        )
        self._observer = observer if observer is not None else Observer()
        self._client = Client(bucket, settings, self._observer)
        self._options = (max_attempts, sleep, hedge_share, part_bytes)
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        attempts, sleep, share, part_bytes = self._options
        self._client.reset_after_fork()
        count = self._observer.count
        self._retries = Retries(attempts, sleep, lambda: count("storage_retries"))
        self._hedges = Hedges(self._client.threads, share, lambda: count("storage_hedges"))
        self._listing = Listing(self._client, self._retries, self._root)
        self._uploads = Uploads(self._client, self._retries, self._root, part_bytes)

    @property
    def url(self) -> str:
        return f"s3://{self._client.bucket}/{self._root}".rstrip("/")

    # -- reading ---------------------------------------------------------------------------

    def get(self, key: str) -> StoredObject:
        check_key(key)
        return self._whole(key, self._read(key, {}))

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        check_key(key)
        try:
            answer = self._read(key, {"If-None-Match": etag})
        except NotModified:
            return None
        return self._whole(key, answer)

    def is_current(self, key: str, etag: str) -> bool:  # noqa: ARG002
        """False: only a request can tell."""
        return False

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get_ranges(key, (ByteRange(start, length),))[0]

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        """As the protocol says; one request a range, side by side."""
        check_key(key)
        check_ranges(ranges)
        wanted = [one for one in ranges if one.length]  # HTTP has no empty range
        found = iter(self._hedges.run([partial(self._range, key, one) for one in wanted]))
        return [next(found) if one.length else b"" for one in ranges]

    def head(self, key: str) -> ObjectMeta:
        check_key(key)
        return self._retries.run(lambda: self._uploads.describe(key)[0])

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        check_prefix(prefix)
        check_limit(limit)
        return self._listing.objects(prefix, after, limit)

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        check_prefix(prefix, folder=True)
        check_limit(limit)
        return self._listing.children(prefix, after, limit)

    def map(self, key: str) -> memoryview | None:
        """None: there is nothing to map. Asks nothing of the server."""
        check_key(key)
        return None

    def stamp(self, key: str) -> Stamp | None:
        """None: nothing is mapped."""
        check_key(key)
        return None

    def watch(self, stamps: Sequence[tuple[str, Stamp]]) -> None:
        """None: nothing is mapped."""

    def now(self) -> float:
        """The server's clock as its answers told it, at most about a second behind."""
        now = self._client.clock.now()
        if now is None:
            self._listing.objects("", None, 1)
            now = self._client.clock.now()
        if now is None:
            raise StorageRetryable(f"{self.url} does not tell the time", bucket=self._client.bucket)
        return now

    # -- writing ---------------------------------------------------------------------------

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        check_key(key)
        return self._uploads.create(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        check_key(key)
        client = self._client
        try:
            answer = client.ask(
                "put",
                lambda s3: s3.put_object(
                    Bucket=client.bucket,
                    Key=self._root + key,
                    Body=data,
                    ContentMD5=digest(data),
                    IfMatch=etag,
                ),
                key,
                sent=len(data),
            )
        except StorageMissing as error:
            if "bucket" in error.details:
                raise
            # S3 answers 404, others 412, where there is nothing to match.
            raise StorageConflict(f"there is no object {key!r} to replace", object=key) from error
        return ObjectMeta(key, len(data), answer["ETag"], self._uploads.date(key, answer))

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        """As the protocol says; holds at most five pieces of ``part_bytes`` in memory.

        Raises
        ------
        PayloadTooLarge
            More than 10,000 pieces.
        """
        check_key(key)
        return self._uploads.stream(key, chunks)

    def delete(self, key: str) -> None:
        check_key(key)
        client = self._client
        self._retries.run(
            lambda: client.ask(
                "delete", lambda s3: s3.delete_object(Bucket=client.bucket, Key=self._root + key), key
            )
        )

    def close(self) -> None:
        self._client.close()

    # -- below: reads ------------------------------------------------------------------------

    def _read(self, key: str, headers: dict[str, str]) -> Answer:
        return self._hedges.run([partial(self._get, key, headers)])[0]

    def _get(self, key: str, headers: dict[str, str], heard: Callable[[], None]) -> Answer:
        return self._retries.run(lambda: self._client.read(self._root + key, headers, key, heard))

    def _whole(self, key: str, answer: Answer) -> StoredObject:
        headers = answer.headers
        modified = seconds_of(headers.get("last-modified")) or 0.0
        return StoredObject(answer.body, ObjectMeta(key, len(answer.body), headers.get("etag", ""), modified))

    def _range(self, key: str, wanted: ByteRange, heard: Callable[[], None]) -> bytes:
        try:
            return self._retries.run(lambda: self._range_once(key, wanted, heard))
        except RangeBeyondEnd as error:
            raise cut_off(key, wanted, self.head(key).size) from error

    def _range_once(self, key: str, wanted: ByteRange, heard: Callable[[], None]) -> bytes:
        header = {"Range": f"bytes={wanted.start}-{wanted.stop - 1}"}
        answer = self._client.read(self._root + key, header, key, heard)
        part = answer.headers.get("content-range")
        # A server may ignore the range and send all.
        size = int(part.rpartition("/")[2]) if part else len(answer.body)
        if wanted.stop > size:
            raise cut_off(key, wanted, size)
        data = answer.body if part else answer.body[wanted.start : wanted.stop]
        if len(data) != wanted.length:
            raise StorageRetryable(
                f"{key!r}: got {len(data)} bytes of {wanted.length}", object=key, offset=wanted.start
            )
        return data
