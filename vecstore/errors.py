"""The one error hierarchy of vecstore.

The class of an error decides its code, its HTTP status and whether a caller may retry;
nowhere else is that decided a second time. This module imports nothing of the package.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

# What msgspec raises for bytes that are no JSON, or none of the type: also if nested too deep, or no UTF-8.
NOT_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class VecstoreError(Exception):
    """Base of every error that vecstore raises on purpose.

    Parameters
    ----------
    message
        One sentence for a person; names the field and the limit where there is one.
    **details
        Facts for a program (``field``, ``limit``, ``object``, ``section``, …); JSON-serialisable.
    """

    code: str = "internal"  # of the class, but for an answer of a server whose code no class has
    status: int = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details


# -- what a caller did wrong ---------------------------------------------------------------


class InvalidArgument(VecstoreError, ValueError):
    """A value is of the wrong type, out of bounds, or not allowed here."""

    code = "invalid_argument"
    status = 400


class InvalidJson(InvalidArgument):
    """A request body that is not JSON; ``details`` name the position."""

    code = "invalid_json"


class DimensionMismatch(InvalidArgument):
    """Vectors do not have the namespace's dimension."""

    code = "dimension_mismatch"


class InvalidVector(InvalidArgument):
    """A vector holds NaN or infinity, or is zero where the metric needs a direction."""

    code = "invalid_vector"


class InvalidId(InvalidArgument):
    """An id is of the wrong kind, too long, out of range, or given twice in one request."""

    code = "invalid_id"


class InvalidAttribute(InvalidArgument):
    """Attributes of rows, or a schema, that are malformed; ``details`` name the attribute and the row."""

    code = "invalid_attribute"


class InvalidFilter(InvalidArgument):
    """A filter that is malformed or too large; ``details.at`` is the place in it."""

    code = "invalid_filter"


class Unauthenticated(VecstoreError):
    """A request without an API key, or with one that is not known, or no longer."""

    code = "unauthenticated"
    status = 401


class Unauthorised(VecstoreError):
    """Permissions are missing: an API key lacks a scope, or the store refuses us."""

    code = "permission_denied"
    status = 403


class NamespaceNotFound(VecstoreError, LookupError):
    """No such namespace, or it was deleted."""

    code = "namespace_not_found"
    status = 404


class RowNotFound(VecstoreError, LookupError):
    """No live row has this id."""

    code = "row_not_found"
    status = 404


class TagNotFound(VecstoreError, LookupError):
    """The namespace has no tag of this name."""

    code = "tag_not_found"
    status = 404


class RouteNotFound(VecstoreError):
    """No such path in the HTTP API."""

    code = "route_not_found"
    status = 404


class MethodNotAllowed(VecstoreError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = 405


class NamespaceExists(VecstoreError):
    """Creation of a namespace that exists already."""

    code = "namespace_exists"
    status = 409


class IdExists(VecstoreError):
    """``mode="insert"`` and an id is already live."""

    code = "id_exists"
    status = 409


class TagExists(VecstoreError):
    """The name of a tag is taken by another epoch."""

    code = "tag_exists"
    status = 409


class LimitReached(VecstoreError):
    """A namespace has as many of something as it may; the caller has to remove one first."""

    code = "limit_reached"
    status = 409


class Diverged(VecstoreError):
    """A copy would replace a namespace that holds what the source does not know of."""

    code = "diverged"
    status = 409


class SnapshotExpired(VecstoreError):
    """The epoch asked for has left the retention window (protocol R10)."""

    code = "snapshot_expired"
    status = 410


class PreconditionFailed(VecstoreError):
    """``If-Match`` names another incarnation or epoch than the current one."""

    code = "precondition_failed"
    status = 412


class PayloadTooLarge(InvalidArgument):
    """A body, before or after decompression, exceeds its limit."""

    code = "payload_too_large"
    status = 413


class UnsupportedMediaType(VecstoreError):
    """A content type or encoding that the server does not read."""

    code = "unsupported_media_type"
    status = 415


class IdempotencyMismatch(VecstoreError):
    """The same ``Idempotency-Key`` with another request (protocol R12)."""

    code = "idempotency_mismatch"
    status = 422


class SchemaConflict(InvalidAttribute):
    """An attribute has another type than the schema says, or than its other values have."""

    code = "schema_conflict"
    status = 422


class FilterMismatch(InvalidFilter):
    """A well-formed filter that does not fit the schema: no such attribute, or another type."""

    code = "filter_mismatch"
    status = 422


class TooManyRequests(VecstoreError):
    """A bound on work in flight or on unmerged state is reached; try again later."""

    code = "too_many_requests"
    status = 429
    retryable = True


# -- what storage did ----------------------------------------------------------------------


class StorageError(VecstoreError):
    """Base of the four kinds of storage failure."""

    code = "storage_error"
    status = 503


class StorageRetryable(StorageError):
    """A passing failure: time-out, reset, 5xx, throttling. The outcome of a write is unknown."""

    code = "storage_unavailable"
    status = 503
    retryable = True


class StorageConflict(StorageError):
    """A conditional write did not apply because its condition did not hold."""

    code = "storage_conflict"
    status = 409
    retryable = True


class StorageCorrupt(StorageError):
    """Bytes that fail their checksum or their format; ``details`` name object and section."""

    code = "storage_corrupt"
    status = 500


class UnsupportedFormat(StorageCorrupt):
    """An object of a format that this build does not read, most likely a newer one.

    ``details`` name the object, its section, and the formats that were found and are read. Upgrade vecstore.
    """

    code = "unsupported_format"


class StorageFull(StorageError):
    """The store has no room left. Nothing was written."""

    code = "storage_full"
    status = 507


class StorageMissing(StorageError):
    """No object of that key; ``details`` name it."""

    code = "storage_missing"
    status = 500


class OutcomeUnknown(VecstoreError):
    """A commit may or may not have happened and that cannot be found out in time (protocol R1)."""

    code = "outcome_unknown"
    status = 503


class ServerUnavailable(VecstoreError):
    """A server cannot be reached or does not answer; nothing was changed by this request."""

    code = "server_unavailable"
    status = 503
    retryable = True


class DeadlineExceeded(VecstoreError):
    """The caller's time was up, and the work was stopped: nothing was changed."""

    code = "deadline_exceeded"
    status = 504


class ForkedHandle(VecstoreError):
    """A handle was opened in another process and cannot be used after ``fork``."""

    code = "forked_handle"


class DatabaseClosed(VecstoreError):
    """A database was closed, and is asked for something all the same; nothing was changed."""

    code = "database_closed"


def unsupported_format(
    what: str, found: object, supported: int, *, key: str, section: str
) -> UnsupportedFormat:
    """The error of an object ``what`` that says it is of format ``found``."""
    return UnsupportedFormat(
        f"{key}: {what} format {found}; this build reads {supported}",
        object=key,
        section=section,
        found=found,
        supported=supported,
    )
