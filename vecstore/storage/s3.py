"""A store in a bucket of S3 or of a server that speaks its protocol. The only module that loads boto3.

One retry policy (bounded, full jitter) that knows what may be sent twice:

- reads, lists, deletes and parts of an upload: always;
- a create: yes, and a refusal that follows a lost answer is settled by the token which each create
  carries in its metadata (was it our own earlier attempt that landed?);
- a compare-and-set: never. A lost answer is `StorageRetryable`, and the commit protocol (R1) finds
  out what became of it.

Getting and listing are permission enough for readers.
"""

from __future__ import annotations

import email.utils
import hashlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Literal, TypeVar

import boto3
import tenacity
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ResponseStreamingError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from vecstore.errors import (
    InvalidArgument,
    PayloadTooLarge,
    StorageConflict,
    StorageError,
    StorageMissing,
    StorageRetryable,
    Unauthorised,
)
from vecstore.storage.base import ByteRange, ListPage, ObjectMeta, Stamp, StoredObject
from vecstore.storage.checks import check_key, check_limit, check_prefix, check_ranges, cut_off, missing
from vecstore.storage.forks import reset_in_children

_T = TypeVar("_T")

_PAGE_KEYS: Final = 1000  # most that S3 lists at once
_MAX_PARTS: Final = 10_000  # of a multipart upload
_PARTS_IN_FLIGHT: Final = 3
_TOKEN: Final = "vecstore-token"  # noqa: S105 - a name of metadata
_CLOCK_FRESH_SECONDS: Final = 60.0
_CLOCK_STEP_SECONDS: Final = 2.0

_PASSING_CODES: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_REFUSING_CODES: Final = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)


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
        Kept open, and ranges of one read fetched at a time.
    part_bytes
        Memory that a piece of a streamed upload takes, three at a time; smaller objects are one PUT.
        At least 5 MiB on S3; 10,000 of them bound the object.
    sleep
        Waits between attempts, seconds.
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
        part_bytes: int = 16 << 20,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket = bucket
        prefix = prefix.strip("/")
        check_prefix(prefix)
        self._prefix = f"{prefix}/" if prefix else ""
        self._session = session
        self._session_options = {
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
            "aws_session_token": session_token,
            "region_name": region,
        }
        self._endpoint_url = endpoint_url
        self._config = Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=max_connections + _PARTS_IN_FLIGHT,
            retries={"total_max_attempts": 1, "mode": "standard"},
            # Trailing checksums are unknown to several servers; ours are in the objects.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
            s3={"addressing_style": addressing_style},
        )
        self._max_attempts = max_attempts
        self._max_connections = max_connections
        self._part_bytes = part_bytes
        self._sleep = sleep
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        # Sockets of the parent must not be used, nor shut down: they are left alone.
        self._lock = threading.Lock()
        self._opened: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._clock_lock = threading.Lock()
        self._clock: _ClockReading | None = None

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    # -- reading ---------------------------------------------------------------------------

    def get(self, key: str) -> StoredObject:
        check_key(key)
        return self._repeat(lambda: self._get(key))

    def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        check_key(key)

        def attempt() -> StoredObject | None:
            try:
                return self._get(key, IfNoneMatch=etag)
            except _NotModified:
                return None

        return self._repeat(attempt)

    def is_current(self, key: str, etag: str) -> bool:  # noqa: ARG002
        """False: only a request can tell."""
        return False

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_key(key)
        wanted = ByteRange(start, length)
        check_ranges((wanted,))
        return self._get_range(key, wanted)

    def get_ranges(self, key: str, ranges: Sequence[ByteRange]) -> Sequence[bytes]:
        check_key(key)
        check_ranges(ranges)
        if sum(1 for wanted in ranges if wanted.length) < 2:
            return [self._get_range(key, wanted) for wanted in ranges]
        return list(self._threads().map(lambda wanted: self._get_range(key, wanted), ranges))

    def head(self, key: str) -> ObjectMeta:
        check_key(key)
        return self._repeat(lambda: self._head(key)[0])

    def list(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> ListPage:
        check_prefix(prefix)
        check_limit(limit)
        answer = self._list(prefix, after or "", limit=limit)
        objects = tuple(
            ObjectMeta(
                found["Key"][len(self._prefix) :],
                found["Size"],
                found["ETag"],
                found["LastModified"].timestamp(),
            )
            for found in answer.get("Contents", ())
        )
        more = answer["IsTruncated"] and objects
        return ListPage(objects, objects[-1].key if more else None)

    def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> tuple[str, ...]:
        """As the protocol says: in the order of names, which is not the order in which S3 lists them.

        S3 orders ``a-b/`` before ``a/``, because ``-`` and ``.`` sort before ``/``. So the page ends
        with a few questions: is there a name that starts the last one seen?
        """
        check_prefix(prefix, folder=True)
        check_limit(limit)
        lowest = after or ""
        names: set[str] = set()
        # From ``after`` itself, not from past its folder: ``after-x/`` lies before ``after/``.
        start = f"{prefix}{lowest}" if lowest else ""
        token = ""
        while True:
            # By token, because not all servers list in the order of keys (SeaweedFS does by segments).
            answer = self._list(prefix, start, delimiter="/", token=token)
            seen = [found["Prefix"] for found in answer.get("CommonPrefixes", ())]
            seen += [found["Key"] for found in answer.get("Contents", ())]
            rests = [key[len(self._prefix) + len(prefix) :] for key in seen]
            names.update(rest[:-1] for rest in rests if rest.endswith("/") and rest[:-1] > lowest)
            if not answer["IsTruncated"]:
                break
            if len(names) >= limit:
                last = max(rests, default="")
                starts = {last[:i] for i, character in enumerate(last) if character in "-."}
                names.update(name for name in starts - names if name > lowest and self._has(prefix, name))
                break
            token = answer["NextContinuationToken"]
        return tuple(sorted(names)[:limit])

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
        reading = self._clock
        if reading is None or time.monotonic() - reading.monotonic > _CLOCK_FRESH_SECONDS:
            self._list("", "", limit=1)
            reading = self._clock
        if reading is None:
            raise StorageRetryable(f"{self.url} does not tell the time", bucket=self._bucket)
        return reading.date + (time.monotonic() - reading.monotonic)

    # -- writing ---------------------------------------------------------------------------

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        check_key(key)
        token = uuid.uuid4().hex

        def attempt() -> ObjectMeta:
            answer = self._ask(
                lambda s3: s3.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Body=data,
                    IfNoneMatch="*",
                    Metadata={_TOKEN: token},
                ),
                key,
            )
            return ObjectMeta(key, len(data), answer["ETag"], self._date(key, answer))

        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return self._create(key, attempt, _Ours(token, len(data), f'"{md5}"'))

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        check_key(key)
        try:
            answer = self._ask(
                lambda s3: s3.put_object(
                    Bucket=self._bucket, Key=self._prefix + key, Body=data, IfMatch=etag
                ),
                key,
            )
        except StorageMissing as error:
            if "bucket" in error.details:
                raise
            # S3 answers 404, others 412, where there is nothing to match.
            raise StorageConflict(f"there is no object {key!r} to replace", object=key) from error
        return ObjectMeta(key, len(data), answer["ETag"], self._date(key, answer))

    def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        """As the protocol says; holds at most five pieces of ``part_bytes`` in memory.

        Raises
        ------
        PayloadTooLarge
            More than 10,000 pieces.
        """
        check_key(key)
        pieces = _pieces(chunks, self._part_bytes)
        first = next(pieces, b"")
        second = next(pieces, None)
        if second is None:
            return self.put_if_absent(key, first)
        return self._put_in_parts(key, chain((first, second), pieces))

    def delete(self, key: str) -> None:
        check_key(key)
        self._repeat(
            lambda: self._ask(lambda s3: s3.delete_object(Bucket=self._bucket, Key=self._prefix + key), key)
        )

    def close(self) -> None:
        with self._lock:
            client, self._opened = self._opened, None
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        if client is not None:
            client.close()

    # -- below: one request each -----------------------------------------------------------

    def _get(self, key: str, **conditions: Any) -> StoredObject:
        answer = self._ask(
            lambda s3: s3.get_object(Bucket=self._bucket, Key=self._prefix + key, **conditions), key
        )
        data = self._body(key, answer)
        return StoredObject(
            data, ObjectMeta(key, len(data), answer["ETag"], answer["LastModified"].timestamp())
        )

    def _get_range(self, key: str, wanted: ByteRange) -> bytes:
        if not wanted.length:
            return b""  # HTTP has no empty range

        def attempt() -> bytes:
            header = f"bytes={wanted.start}-{wanted.stop - 1}"
            answer = self._ask(
                lambda s3: s3.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=header), key
            )
            part = answer.get("ContentRange")
            # A server may ignore the range and send all.
            size = int(part.rpartition("/")[2]) if part else answer["ContentLength"]
            if wanted.stop > size:
                answer["Body"].close()
                raise cut_off(key, wanted, size)
            data = self._body(key, answer)
            if not part:
                data = data[wanted.start : wanted.stop]
            if len(data) != wanted.length:
                raise StorageRetryable(
                    f"{key!r}: got {len(data)} bytes of {wanted.length}", object=key, offset=wanted.start
                )
            return data

        try:
            return self._repeat(attempt)
        except _RangeBeyondEnd as error:
            raise cut_off(key, wanted, self.head(key).size) from error

    def _body(self, key: str, answer: Mapping[str, Any]) -> bytes:
        """The body, whole: one that ends early is a passing failure."""
        try:
            data: bytes = answer["Body"].read()
        except (ResponseStreamingError, IncompleteReadError, HTTPClientError, OSError) as error:
            raise StorageRetryable(f"{key!r}: the answer broke off", object=key) from error
        if len(data) != answer["ContentLength"]:
            raise StorageRetryable(f"{key!r}: got {len(data)} bytes of {answer['ContentLength']}", object=key)
        return data

    def _head(self, key: str) -> tuple[ObjectMeta, Mapping[str, str]]:
        answer = self._ask(lambda s3: s3.head_object(Bucket=self._bucket, Key=self._prefix + key), key)
        meta = ObjectMeta(key, answer["ContentLength"], answer["ETag"], answer["LastModified"].timestamp())
        return meta, answer.get("Metadata", {})

    def _list(
        self, prefix: str, after: str, *, limit: int = _PAGE_KEYS, delimiter: str = "", token: str = ""
    ) -> Any:
        options = {"Delimiter": delimiter} if delimiter else {}
        if after:
            options["StartAfter"] = self._prefix + after
        if token:
            options["ContinuationToken"] = token
        return self._repeat(
            lambda: self._ask(
                lambda s3: s3.list_objects_v2(
                    Bucket=self._bucket,
                    Prefix=self._prefix + prefix,
                    MaxKeys=min(limit, _PAGE_KEYS),
                    **options,
                ),
                prefix,
            )
        )

    def _has(self, prefix: str, child: str) -> bool:
        return bool(self._list(f"{prefix}{child}/", "", limit=1).get("Contents"))

    # -- below: uploads in parts -------------------------------------------------------------

    def _put_in_parts(self, key: str, pieces: Iterator[bytes]) -> ObjectMeta:
        token = uuid.uuid4().hex
        at: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + key}
        upload = self._repeat(
            lambda: self._ask(lambda s3: s3.create_multipart_upload(**at, Metadata={_TOKEN: token}), key)
        )
        at["UploadId"] = upload["UploadId"]
        try:
            parts, size = self._upload_parts(key, at, pieces)
            self._refuse_if_there(key)

            def attempt() -> ObjectMeta:
                answer = self._ask(
                    lambda s3: s3.complete_multipart_upload(
                        **at,
                        MultipartUpload={"Parts": parts},
                        IfNoneMatch="*",
                    ),
                    key,
                )
                return ObjectMeta(key, size, answer["ETag"], self._date(key, answer))

            return self._create(key, attempt, _Ours(token, size, None))
        except BaseException:
            # Also after a lost answer: then it fails, or keeps the completion from landing later.
            self._abort(key, at)
            raise

    def _upload_parts(
        self, key: str, at: dict[str, Any], pieces: Iterator[bytes]
    ) -> tuple[Sequence[dict[str, Any]], int]:
        parts = []
        waiting: deque[Future[dict[str, Any]]] = deque()
        size = 0
        try:
            for number, piece in enumerate(pieces, start=1):
                if number > _MAX_PARTS:
                    raise PayloadTooLarge(
                        f"{key!r} is larger than {_MAX_PARTS} parts of {self._part_bytes} bytes",
                        field="part_bytes",
                        limit=_MAX_PARTS * self._part_bytes,
                    )
                size += len(piece)
                if len(waiting) == _PARTS_IN_FLIGHT:
                    parts.append(waiting.popleft().result())
                waiting.append(self._threads().submit(self._upload_part, key, at, number, piece))
            while waiting:
                parts.append(waiting.popleft().result())
        finally:
            for future in waiting:  # a part that lands after the abort would be kept and paid for
                future.cancel()
                if not future.cancelled():
                    future.exception()
        return parts, size

    def _upload_part(self, key: str, at: dict[str, Any], number: int, piece: bytes) -> dict[str, Any]:
        answer = self._repeat(
            lambda: self._ask(lambda s3: s3.upload_part(**at, PartNumber=number, Body=piece), key)
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _refuse_if_there(self, key: str) -> None:
        """Some servers ignore the condition of a completion, so ask once before it."""
        try:
            self.head(key)
        except StorageMissing:
            return
        raise StorageConflict(f"object {key!r} exists already", object=key)

    def _abort(self, key: str, at: dict[str, Any]) -> None:
        try:
            self._repeat(lambda: self._ask(lambda s3: s3.abort_multipart_upload(**at), key))
        except (StorageError, Unauthorised):
            return  # the error that led here says more; buckets expire what is left

    # -- below: repeating --------------------------------------------------------------------

    def _repeat(self, attempt: Callable[[], _T]) -> _T:
        """Run ``attempt`` until it does not fail in passing; `StorageRetryable` when attempts run out."""
        return tenacity.Retrying(
            sleep=self._sleep,
            stop=tenacity.stop_after_attempt(self._max_attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5.0),
            retry=tenacity.retry_if_exception_type(StorageRetryable),
            reraise=True,
        )(attempt)

    def _create(self, key: str, attempt: Callable[[], ObjectMeta], ours: _Ours) -> ObjectMeta:
        """Repeat a create; a refusal after an attempt whose answer was lost may be our own success."""
        unsure = False

        def resolved() -> ObjectMeta:
            nonlocal unsure
            try:
                return attempt()
            except StorageRetryable:
                unsure = True
                raise
            except (StorageConflict, StorageMissing) as refusal:
                if refusal.details.get("contended"):
                    # Not that the key exists, only that another request was under way.
                    raise StorageRetryable(refusal.message, object=key) from refusal
                # Missing: the upload whose completion has already been carried out.
                if not unsure or "bucket" in refusal.details:
                    raise
                return self._own_success(key, ours, refusal)

        return self._repeat(resolved)

    def _own_success(self, key: str, ours: _Ours, refusal: StorageError) -> ObjectMeta:
        try:
            meta, metadata = self._head(key)
        except StorageMissing:
            raise refusal from None
        token = metadata.get(_TOKEN)
        # A server that keeps no metadata leaves us the content: then equal bytes have to do.
        mine = token == ours.token if token is not None else meta.etag == ours.etag
        if not mine or meta.size != ours.size:
            raise StorageConflict(f"object {key!r} exists already", object=key) from refusal
        return meta

    # -- below: asking ------------------------------------------------------------------------

    def _ask(self, call: Callable[[Any], Any], key: str) -> Any:
        """One request; every failure as one of the protocol's kinds."""
        try:
            answer = call(self._client())
        except ClientError as error:
            self._read_clock(error.response)
            raise self._translate(error, key) from error
        except (
            NoCredentialsError,
            PartialCredentialsError,
            CredentialRetrievalError,
            TokenRetrievalError,
            UnauthorizedSSOTokenError,
        ) as error:
            raise Unauthorised(f"no credentials for {self.url}: {error}", bucket=self._bucket) from error
        except (HTTPClientError, BotoConnectionError, ResponseStreamingError, OSError) as error:
            raise StorageRetryable(f"{key!r}: {error}", object=key) from error
        except ParamValidationError as error:
            raise InvalidArgument(f"{self.url}: {error}", field="bucket") from error
        except BotoCoreError as error:
            raise StorageError(f"{key!r}: {error}", object=key) from error
        self._read_clock(answer)
        return answer

    def _translate(self, error: ClientError, key: str) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        what = f"{key!r}: {code or status} {error.response.get('Error', {}).get('Message', '')}".rstrip()
        if status == 304:
            return _NotModified(what)
        if code == "NoSuchBucket":
            return StorageMissing(f"there is no bucket {self._bucket!r}", bucket=self._bucket)
        if status == 409:
            # Two requests met; this one was not applied, which says nothing of what is there.
            return StorageConflict(what, object=key, contended=True)
        if status == 412:
            return StorageConflict(f"object {key!r} is not as the condition wants it", object=key)
        if code in _REFUSING_CODES or status in (401, 403):
            return Unauthorised(what, object=key)
        if code in _PASSING_CODES or status >= 500 or status in (408, 429):
            return StorageRetryable(what, object=key)
        if status == 416:
            return _RangeBeyondEnd(what, object=key)
        if status == 404:
            return missing(key)
        return StorageError(what, object=key)

    def _client(self) -> Any:
        client = self._opened
        if client is not None:
            return client
        with self._lock:  # sessions are not thread-safe, clients are
            if self._opened is None:
                try:
                    session = self._session
                    if session is None:
                        session = boto3.session.Session(**self._session_options)  # type: ignore[arg-type]
                    self._opened = session.client(
                        "s3",
                        region_name=self._session_options["region_name"]
                        or session.region_name
                        or "us-east-1",
                        endpoint_url=self._endpoint_url,
                        config=self._config,
                    )
                except (BotoCoreError, ValueError) as error:
                    raise InvalidArgument(f"{self.url}: {error}", field="endpoint_url") from error
            return self._opened

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._max_connections, thread_name_prefix="vecstore-s3")
            return self._pool

    # -- below: the server's clock ------------------------------------------------------------

    def _read_clock(self, answer: Mapping[str, Any]) -> None:
        """Learn the server's time; answers tell it in whole seconds, so the latest is not the best.

        Each is a lower bound. The highest is kept, or our clock would jump back whenever an answer
        came late within a second; only one that says much less means that the server's was set back.
        """
        date = _date_of(answer)
        if date is None:
            return
        with self._clock_lock:
            heard, held = time.monotonic(), self._clock
            if held is not None:
                expected = held.date + (heard - held.monotonic)
                if date <= expected < date + _CLOCK_STEP_SECONDS:
                    date = expected
            self._clock = _ClockReading(date, heard)

    def _date(self, key: str, answer: Mapping[str, Any]) -> float:
        """When the server answered; asked again if it did not say."""
        date = _date_of(answer)
        return date if date is not None else self._head(key)[0].modified


class _NotModified(Exception):
    """The answer 304."""


class _RangeBeyondEnd(StorageError):
    """The answer 416: an object ends before the range begins."""


@dataclass(frozen=True, slots=True)
class _ClockReading:
    """What the server's clock showed at least, seconds since the Unix epoch, and ours at that moment."""

    date: float
    monotonic: float


@dataclass(frozen=True, slots=True)
class _Ours:
    """By what we know an object as the one that we created; ``etag`` None if it cannot be foretold."""

    token: str
    size: int
    etag: str | None


def _date_of(answer: Mapping[str, Any]) -> float | None:
    header = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return email.utils.parsedate_to_datetime(header).timestamp() if header else None
    except ValueError:
        return None


def _pieces(chunks: Iterable[bytes | memoryview], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of ``size``; the last may be shorter, none is empty."""
    held = bytearray()
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        while len(view):
            taken = view[: size - len(held)]
            held += taken
            view = view[len(taken) :]
            if len(held) == size:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)
