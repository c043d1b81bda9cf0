"""What S3 and its client library report, as the errors of the protocol. Decided here alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

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
from urllib3.exceptions import HTTPError

from vecstore.errors import (
    InvalidArgument,
    StorageConflict,
    StorageError,
    StorageMissing,
    StorageRetryable,
    Unauthorised,
)
from vecstore.storage.checks import missing

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
_NO_CREDENTIALS: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
_LINE_FAULTS: Final = (
    HTTPClientError,
    BotoConnectionError,
    ResponseStreamingError,
    IncompleteReadError,
    HTTPError,
    OSError,
)
_QUERY = re.compile(r"\?[^\s\"'>]*")  # of a URL: it may hold a signature


class NotModified(Exception):
    """The answer 304."""


class RangeBeyondEnd(StorageError):
    """The answer 416: an object ends before the range begins."""


def raised(error: Exception, bucket: str, key: str) -> Exception:
    """What a request's failure is to a caller of the store; ``error`` itself if it is none of S3's."""
    if isinstance(error, ClientError):
        answer = error.response
        told = answer.get("Error", {})
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return refused(status, told, bucket, key)
    if isinstance(error, _NO_CREDENTIALS):
        return Unauthorised(f"no credentials for s3://{bucket}: {error}", bucket=bucket)
    if isinstance(error, _LINE_FAULTS):
        return StorageRetryable(f"{key!r}: {_QUERY.sub('', str(error))}", object=key)
    if isinstance(error, ParamValidationError):
        return InvalidArgument(f"s3://{bucket}: {error}", field="bucket")
    if isinstance(error, BotoCoreError):
        return StorageError(f"{key!r}: {_QUERY.sub('', str(error))}", object=key)
    return error


def refused(status: int, told: Mapping[str, Any], bucket: str, key: str) -> Exception:
    """What an answer other than success is; ``told`` are its ``Code`` and ``Message``."""
    code = str(told.get("Code", ""))
    what = f"{key!r}: {code or status} {told.get('Message', '')}".rstrip()
    if status == 304:
        return NotModified(what)
    if code == "NoSuchBucket":
        return StorageMissing(f"there is no bucket {bucket!r}", bucket=bucket)
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
        return RangeBeyondEnd(what, object=key)
    if status == 404:
        return missing(key)
    return StorageError(what, object=key)
