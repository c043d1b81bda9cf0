"""One request to a bucket: connections, credentials, time-outs, and every failure under its own name.

Most go through boto3. Reads are what a query waits for, and boto3 takes two milliseconds of a
processor to make one; so a read is a plain GET of a URL that boto3 has signed, which is good for all
ranges of an object (decision 0012). Where that is not answered in kind, boto3 is asked.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

import boto3
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from vecstore.errors import InvalidArgument, StorageRetryable, VecstoreError
from vecstore.observe import Observer, StoreKind, StoreRequest
from vecstore.storage.s3.clock import ServerClock
from vecstore.storage.s3.errors import NotModified, raised, refused
from vecstore.storage.threads import Pool

_SIGNED_SECONDS: Final = 900  # that a URL is good for
_REUSED_SECONDS: Final = 300.0  # that it is used for
_SIGNED_KEYS: Final = 1_024
_ELSEWHERE: Final = (301, 307, 400)  # the bucket is in another region, or wants another signature
_TOLD = re.compile(rb"<(Code|Message)>([^<]*)</")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach a bucket; see `S3Store`. None leaves it to boto3's environment and files."""

    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    session: boto3.session.Session | None = None
    connect_timeout: float
    read_timeout: float
    connections: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer to a read.

    Attributes
    ----------
    headers
        By names in lower case.
    """

    headers: Mapping[str, str]
    body: bytes


class Client:
    """Sends requests about one bucket. Thread-safe; opened at first use, and again after `close`.

    Attributes
    ----------
    clock
        The server's, told by all answers.

    Parameters
    ----------
    observer
        Hears of each request on the wire: attempts that fail and second requests as well.
    """

    def __init__(self, bucket: str, settings: Settings, observer: Observer) -> None:
        self.bucket = bucket
        self._observer = observer
        self._settings = settings
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        # Sockets of the parent must not be used, nor shut down: they are left alone.
        self.clock = ServerClock()
        self._lock = threading.Lock()
        self._opened: Any = None
        self._authorities: str | None = None
        self._reads: URLLib3Session | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._signed: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def ask(self, kind: StoreKind, call: Callable[[Any], Any], key: str, *, sent: int = 0) -> Any:
        """One request of boto3's client; every failure as one of the protocol's kinds.

        ``kind`` and ``sent``, bytes of an object, are what the observer is told.
        """
        client = self._boto3()
        request = self._observer.request(kind, key)
        try:
            answer = call(client)
        except VecstoreError as error:
            _end(request, sent=sent, error=error)
            raise
        except Exception as error:
            if isinstance(error, ClientError):
                self.clock.hear(date_of(error.response))
            named = raised(error, self.bucket, key)
            _end(request, sent=sent, error=named)
            if named is error:
                raise
            raise named from error
        _end(request, sent=sent, received=len(answer.get("Body", b"")) if kind == "get" else 0)
        self.clock.hear(date_of(answer))
        return answer

    def read(
        self, full_key: str, headers: dict[str, str], key: str, heard: Callable[[], None] = lambda: None
    ) -> Answer:
        """One GET; failures as in `ask`.

        Parameters
        ----------
        full_key, key
            What is read, and what errors name.
        headers
            ``Range`` and ``If-None-Match``.
        heard
            Called when the answer begins.
        """
        client = self._boto3()
        told = self._observer.request("get", key)
        try:
            request = AWSRequest("GET", self._url(client, full_key), headers=headers, stream_output=True)
            response = self._reads_session().send(request.prepare())
            heard()
            found = {name.lower(): value for name, value in response.headers.items()}
            body: bytes = response.raw.read()
        except Exception as error:
            named = raised(error, self.bucket, key)
            _end(told, error=named)
            if named is error:
                raise
            raise named from None  # the cause shows the URL with its signature
        self.clock.hear(found.get("date"))
        status = response.status_code
        if status in (200, 206):
            size = int(found.get("content-length", len(body)))
            if len(body) != size:
                cut = StorageRetryable(f"{key!r}: got {len(body)} bytes of {size}", object=key)
                _end(told, received=len(body), error=cut)
                raise cut
            _end(told, received=size)
            return Answer(found, body)
        if status in _ELSEWHERE:
            _end(told)
            return self._read_by_boto3(full_key, headers, key)
        reasons = {name.decode(): text.decode(errors="replace") for name, text in _TOLD.findall(body)}
        if status in (401, 403):
            self._forget(full_key)  # signed with credentials that have expired, perhaps
        refusal = refused(status, reasons, self.bucket, key)
        _end(told, error=refusal)
        raise refusal

    def threads(self) -> ThreadPoolExecutor:
        """As many as there may be connections: for reads, and for the parts of an upload."""
        with self._lock:
            if self._pool is None:
                self._pool = Pool(self._settings.connections, thread_name_prefix="vecstore-s3")
            return self._pool

    def close(self) -> None:
        with self._lock:
            client, self._opened = self._opened, None
            pool, self._pool = self._pool, None
            reads, self._reads = self._reads, None
            self._signed.clear()
        if pool is not None:
            pool.shutdown(wait=False)  # a read that another overtook may take as long as it is let
        if reads is not None:
            reads.close()
        if client is not None:
            client.close()

    def _read_by_boto3(self, full_key: str, headers: Mapping[str, str], key: str) -> Answer:
        """Boto3 follows a bucket to its region, and signs from then on for that."""
        conditions = {name.replace("-", ""): value for name, value in headers.items()}

        def get(s3: Any) -> Any:
            answer = s3.get_object(Bucket=self.bucket, Key=full_key, **conditions)
            return {**answer, "Body": answer["Body"].read()}

        answer = self.ask("get", get, key)
        self._forget(full_key)
        return Answer(answer["ResponseMetadata"]["HTTPHeaders"], answer["Body"])

    def _url(self, client: Any, full_key: str) -> str:
        now = time.monotonic()
        with self._lock:
            url, until = self._signed.get(full_key, ("", 0.0))
        if now < until:
            return str(url)
        url = client.generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": full_key}, ExpiresIn=_SIGNED_SECONDS
        )
        with self._lock:
            self._signed[full_key] = (url, now + _REUSED_SECONDS)
            self._signed.move_to_end(full_key)
            while len(self._signed) > _SIGNED_KEYS:
                self._signed.popitem(last=False)
        return str(url)

    def _forget(self, full_key: str) -> None:
        with self._lock:
            self._signed.pop(full_key, None)

    def _reads_session(self) -> URLLib3Session:
        reads = self._reads
        if reads is None:
            with self._lock:
                reads = self._reads
                if reads is None:
                    settings = self._settings
                    reads = self._reads = URLLib3Session(
                        timeout=(settings.connect_timeout, settings.read_timeout),  # type: ignore[arg-type]
                        max_pool_connections=settings.connections,
                        proxies=get_environ_proxies(self._opened.meta.endpoint_url),
                        verify=self._authorities or True,  # type: ignore[arg-type]
                    )
        return reads

    def _boto3(self) -> Any:
        client = self._opened
        if client is not None:
            return client
        settings = self._settings
        with self._lock:  # sessions are not thread-safe, clients are
            if self._opened is None:
                try:
                    session = settings.session
                    if session is None:
                        session = boto3.session.Session(
                            aws_access_key_id=settings.access_key,
                            aws_secret_access_key=settings.secret_key,
                            aws_session_token=settings.session_token,
                            region_name=settings.region,
                        )
                    # As boto3 does it for its own connections: AWS_CA_BUNDLE, or the configuration file.
                    bundle = session._session.get_config_variable("ca_bundle")
                    self._authorities = bundle or os.environ.get("REQUESTS_CA_BUNDLE")
                    self._opened = session.client(
                        "s3",
                        region_name=settings.region or session.region_name or "us-east-1",
                        endpoint_url=settings.endpoint_url,
                        config=_config(settings),
                    )
                except (BotoCoreError, ValueError) as error:
                    raise InvalidArgument(f"s3://{self.bucket}: {error}", field="endpoint_url") from error
            return self._opened


def _end(
    request: StoreRequest | None, *, sent: int = 0, received: int = 0, error: Exception | None = None
) -> None:
    """Tell the observer; that an object has not changed is an answer like any other."""
    if request is not None:
        told = None if isinstance(error, NotModified) else error
        request.done(sent=sent, received=received, error=told)


def _config(settings: Settings) -> Config:
    return Config(
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.connections,
        retries={"total_max_attempts": 1, "mode": "standard"},
        signature_version="s3v4",  # else URLs are signed as buckets made since 2020 do not take it
        # Trailing checksums are unknown to several servers; ours are in the objects.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        tcp_keepalive=True,
        s3={"addressing_style": settings.addressing_style},
    )


def digest(data: bytes) -> str:
    """``Content-MD5``, which every write carries.

    A client that dies between headers and body leaves a request without a body, which some servers take
    for an empty object; whoever checks this does not.
    """
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def date_of(answer: Mapping[str, Any]) -> str | None:
    """The header ``Date`` of an answer of boto3's."""
    found: str | None = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return found
