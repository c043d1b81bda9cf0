"""Creates objects, never over one that is there: in one request, or streamed in parts.

A create may be sent twice. It carries a token in the object's metadata, so that a refusal which
follows a lost answer is settled by reading: was it our own earlier attempt that landed?
"""

from __future__ import annotations

import base64
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from vecstore.errors import (
    PayloadTooLarge,
    StorageConflict,
    StorageError,
    StorageMissing,
    StorageRetryable,
    Unauthorised,
)
from vecstore.storage.base import ObjectMeta
from vecstore.storage.s3.client import Client, date_of, digest
from vecstore.storage.s3.clock import seconds_of
from vecstore.storage.s3.retry import Retries

_MAX_PARTS: Final = 10_000  # of a multipart upload
_TOKEN: Final = "vecstore-token"  # noqa: S105 - a name of metadata

PARTS_IN_FLIGHT: Final = 3


class Uploads:
    """Creates and describes objects of a bucket; ``root`` starts their keys there.

    Parameters
    ----------
    part_bytes
        Of a piece of a streamed upload.
    """

    def __init__(self, client: Client, retries: Retries, root: str, part_bytes: int) -> None:
        self._client = client
        self._retries = retries
        self._root = root
        self._part_bytes = part_bytes

    def create(self, key: str, data: bytes) -> ObjectMeta:
        """In one request."""
        token = uuid.uuid4().hex
        md5 = digest(data)

        def attempt() -> ObjectMeta:
            answer = self._client.ask(
                "put",
                lambda s3: s3.put_object(
                    **self._at(key), Body=data, ContentMD5=md5, IfNoneMatch="*", Metadata={_TOKEN: token}
                ),
                key,
                sent=len(data),
            )
            return ObjectMeta(key, len(data), answer["ETag"], self.date(key, answer))

        etag = f'"{base64.b64decode(md5).hex()}"'
        return self._resolved(key, attempt, _Ours(token, len(data), etag))

    def stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
        """In parts, if there is more than one; holds at most five pieces in memory."""
        pieces = _pieces(chunks, self._part_bytes)
        first = next(pieces, b"")
        second = next(pieces, None)
        if second is None:
            return self.create(key, first)
        return self._in_parts(key, chain((first, second), pieces))

    def describe(self, key: str) -> tuple[ObjectMeta, Mapping[str, str]]:
        """An object and its metadata, by one request."""
        answer = self._client.ask("head", lambda s3: s3.head_object(**self._at(key)), key)
        meta = ObjectMeta(key, answer["ContentLength"], answer["ETag"], answer["LastModified"].timestamp())
        return meta, answer.get("Metadata", {})

    def date(self, key: str, answer: Mapping[str, Any]) -> float:
        """When the server answered a write; asked again if it did not say."""
        date = seconds_of(date_of(answer))
        return date if date is not None else self.describe(key)[0].modified

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._client.bucket, "Key": self._root + key}

    # -- in parts --------------------------------------------------------------------------

    def _in_parts(self, key: str, pieces: Iterator[bytes]) -> ObjectMeta:
        token = uuid.uuid4().hex
        at = self._at(key)
        upload = self._retries.run(
            lambda: self._client.ask(
                "put", lambda s3: s3.create_multipart_upload(**at, Metadata={_TOKEN: token}), key
            )
        )
        at["UploadId"] = upload["UploadId"]
        try:
            parts, size = self._send_parts(key, at, pieces)
            self._refuse_if_there(key)

            def attempt() -> ObjectMeta:
                answer = self._client.ask(
                    "put",
                    lambda s3: s3.complete_multipart_upload(
                        **at, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                    ),
                    key,
                )
                return ObjectMeta(key, size, answer["ETag"], self.date(key, answer))

            return self._resolved(key, attempt, _Ours(token, size, None))
        except BaseException:
            # Also after a lost answer: then it fails, or keeps the completion from landing later.
            self._abort(key, at)
            raise

    def _send_parts(
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
                if len(waiting) == PARTS_IN_FLIGHT:
                    parts.append(waiting.popleft().result())
                waiting.append(self._client.threads().submit(self._send_part, key, at, number, piece))
            while waiting:
                parts.append(waiting.popleft().result())
        finally:
            for future in waiting:  # a part that lands after the abort would be kept and paid for
                future.cancel()
                if not future.cancelled():
                    future.exception()
        return parts, size

    def _send_part(self, key: str, at: dict[str, Any], number: int, piece: bytes) -> dict[str, Any]:
        md5 = digest(piece)
        answer = self._retries.run(
            lambda: self._client.ask(
                "put",
                lambda s3: s3.upload_part(**at, PartNumber=number, Body=piece, ContentMD5=md5),
                key,
                sent=len(piece),
            )
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _refuse_if_there(self, key: str) -> None:
        """Some servers ignore the condition of a completion, so ask once before it."""
        try:
            self._retries.run(lambda: self.describe(key))
        except StorageMissing:
            return
        raise StorageConflict(f"object {key!r} exists already", object=key)

    def _abort(self, key: str, at: dict[str, Any]) -> None:
        try:
            self._retries.run(
                lambda: self._client.ask("delete", lambda s3: s3.abort_multipart_upload(**at), key)
            )
        except (StorageError, Unauthorised):
            return  # the error that led here says more; buckets expire what is left

    # -- lost answers ------------------------------------------------------------------------

    def _resolved(self, key: str, attempt: Callable[[], ObjectMeta], ours: _Ours) -> ObjectMeta:
        """Repeat a create; a refusal after an attempt whose answer was lost may be our own success."""
        unsure = False

        def once() -> ObjectMeta:
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

        return self._retries.run(once)

    def _own_success(self, key: str, ours: _Ours, refusal: StorageError) -> ObjectMeta:
        try:
            meta, metadata = self.describe(key)
        except StorageMissing:
            raise refusal from None
        token = metadata.get(_TOKEN)
        # A server that keeps no metadata leaves us the content: then equal bytes have to do.
        mine = token == ours.token if token is not None else meta.etag == ours.etag
        if not mine or meta.size != ours.size:
            raise StorageConflict(f"object {key!r} exists already", object=key) from refusal
        return meta


@dataclass(frozen=True, slots=True)
class _Ours:
    """By what we know an object as the one that we created; ``etag`` None if it cannot be foretold."""

    token: str
    size: int
    etag: str | None


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
