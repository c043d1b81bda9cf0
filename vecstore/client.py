"""A database behind a server: `HttpBackend`. A `vecstore.transport` carries its requests.

What may be sent twice is decided here: reads and searches always; a write only under an idempotency key,
or if it certainly never reached the server. Keys are the caller's to give: a namespace remembers a
thousand a day, so one for every insert would fill its table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import numpy as np
import numpy.typing as npt
import tenacity
import urllib3
from urllib3.exceptions import LocationParseError

from vecstore import errors
from vecstore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    InvalidId,
    MethodNotAllowed,
    OutcomeUnknown,
    PayloadTooLarge,
    PreconditionFailed,
    RouteNotFound,
    RowNotFound,
    ServerUnavailable,
    TooManyRequests,
    Unauthenticated,
    Unauthorised,
    UnsupportedMediaType,
    VecstoreError,
)
from vecstore.limits import MAX_BODY_BYTES, MAX_NAME_BYTES
from vecstore.params import check_rows, is_integer, is_number, plain, told_of
from vecstore.progress import Progress, within
from vecstore.rows.attributes import as_json, fitted, one_row, patch_as_json
from vecstore.rows.filters import filter_bytes
from vecstore.rows.ids import Ids, parse_ids, validate_name
from vecstore.rows.inference import Guess
from vecstore.rows.schema import as_schema
from vecstore.rows.vectors import as_vector, as_vectors
from vecstore.server import wire
from vecstore.server.scans import Scanned, page_of
from vecstore.server.wire_aggregate import Aggregated
from vecstore.server.wire_queries import Answers, OneAnswer
from vecstore.transport import Answer, NeverSent, NoAnswer, Pooled, Transport
from vecstore.types import (
    F32,
    AggregateParams,
    Aggregates,
    BatchHits,
    CacheStats,
    CompactResult,
    DeleteResult,
    Expected,
    GcResult,
    Hits,
    IdKind,
    InsertResult,
    Metric,
    Moment,
    NamespaceInfo,
    PartsReport,
    PatchResult,
    Query,
    RecallEstimate,
    RecallReport,
    RecallSample,
    Row,
    RowId,
    ScanPage,
    ScanParams,
    SearchParams,
    StoredRow,
    Tag,
    WarmResult,
    WriteMode,
)

ATTEMPTS: Final = 4
OPTIONS: Final = ("api_key", "timeout", "attempts", "transport")  # of `HttpBackend`, beside the URL
MAX_TIMEOUT: Final = 2_000_000  # seconds; a socket waits for at most 2^31 milliseconds
_RETRIED: Final = frozenset({429, 502, 503, 504})
_PATIENCE: Final = 5  # seconds of Retry-After that a caller is kept waiting for
# Whose meaning is no other than that of the class.
_BY_STATUS: Final[dict[int, type[VecstoreError]]] = {
    400: InvalidArgument,
    401: Unauthenticated,
    403: Unauthorised,
    404: RouteNotFound,
    405: MethodNotAllowed,
    412: PreconditionFailed,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    429: TooManyRequests,
    502: ServerUnavailable,
    503: ServerUnavailable,
    504: ServerUnavailable,
}
_pause = tenacity.wait_random_exponential(multiplier=0.1, max=2.0)

T = TypeVar("T")
_JSON: Final = {"Content-Type": "application/json"}
_error_decoder = msgspec.json.Decoder(wire.ErrorBody)
_found_decoder = msgspec.json.Decoder(wire.Found)


class HttpBackend:
    """A database behind a server. Thread-safe; a forked child makes connections of its own.

    Parameters
    ----------
    url
        ``http://host:port`` or ``https://…``, with a path if a proxy adds one.
    api_key
        Sent with each request, and shown nowhere. Over ``http://`` the network can read it.
    timeout
        Seconds to wait for a connection, and between two bytes of an answer.
    attempts
        How often a request that may be repeated is sent at most.
    transport
        Makes what carries requests, given the timeout.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        attempts: int = ATTEMPTS,
        transport: Callable[[float], Transport] = Pooled,
    ) -> None:
        timeout, attempts = plain(timeout), plain(attempts)
        if not is_number(timeout) or not 0 < timeout <= MAX_TIMEOUT:
            raise InvalidArgument(
                f"timeout must be above 0 seconds, and at most {MAX_TIMEOUT}",
                field="timeout",
                limit=MAX_TIMEOUT,
            )
        if not is_integer(attempts) or attempts < 1:
            raise InvalidArgument("attempts must be an integer of at least 1", field="attempts", limit=1)
        try:
            parsed = urllib3.util.parse_url(url)
        except LocationParseError as error:
            raise InvalidArgument(f"{url!r} is no URL", field="url") from error
        if not parsed.host or parsed.query or parsed.fragment or parsed.auth:
            raise InvalidArgument("the URL of a server is http://host:port", field="url")
        if api_key is not None and not (isinstance(api_key, str) and re.fullmatch(r"[!-~]+", api_key)):
            raise InvalidArgument("api_key must be printable ASCII without spaces", field="api_key")
        self._base = f"{parsed.scheme}://{url.partition('://')[2].rstrip('/')}"  # in lower case
        self._authorization = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._attempts = attempts
        self._transport = transport(timeout)

    # -- the API ---------------------------------------------------------------------------

    def create(
        self, name: str, dim: int, metric: Metric, settings: dict[str, Any], *, schema: object = None
    ) -> NamespaceInfo:
        body = {"name": name, "dim": dim, "metric": metric, "defaults": settings}
        if schema is not None:
            body["schema"] = as_schema(schema)
        return _decode(self._send("POST", "/v1/namespaces", body), NamespaceInfo)

    def info(self, name: str) -> NamespaceInfo:
        return _decode(self._send("GET", _path(name), repeat=True), NamespaceInfo)

    def list(self, prefix: str, *, after: str | None, limit: int) -> Iterator[NamespaceInfo]:
        query = {"prefix": prefix, "page_size": str(limit)}
        if after is not None:  # the names that follow one too long to be any follow its beginning
            query["cursor"] = wire.encode_cursor(after[:MAX_NAME_BYTES])
        found = self._send("GET", f"/v1/namespaces?{urlencode(query)}", repeat=True)
        yield from _decode(found, wire.NamespacePage).namespaces

    def delete(self, name: str, *, incarnation: str | None = None, expected: Expected | None = None) -> None:
        if incarnation is not None and expected is None:
            raise InvalidArgument("over HTTP a deletion takes if_match, not incarnation", field="incarnation")
        self._send("DELETE", _path(name), headers=_conditions(expected, None))

    def update(
        self, name: str, settings: dict[str, Any], *, schema: object = None, expected: Expected | None = None
    ) -> NamespaceInfo:
        body: dict[str, Any] = {"defaults": settings}
        if schema is not None:
            body["schema"] = as_schema(schema, drop=True)
        found = self._send("PATCH", _path(name), body, headers=_conditions(expected, None))
        return _decode(found, NamespaceInfo)

    def insert(
        self,
        name: str,
        vectors: object,
        ids: object,
        *,
        attributes: object = None,
        schema: object = None,
        mode: WriteMode,
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None,
        idempotency_key: str | None,
        progress: Progress | None = None,
    ) -> InsertResult:
        values = as_vectors(vectors, None, "l2")
        body: dict[str, Any] = {"mode": mode, "dim": values.shape[1], "vectors": _packed(values)}
        if ids is not None:
            body["ids"] = parse_ids(ids).values.tolist()
        guesses: dict[str, Guess] = {}
        if attributes is not None:
            body["attributes"], guesses = as_json(attributes, len(values))
        body |= self._declaring(name, schema, guesses) | _asking(condition, return_ids)
        found = self._send(
            "POST",
            _path(name, "parts"),
            body,
            headers=_conditions(expected, idempotency_key),
            repeat=idempotency_key is not None,
        )
        done = _decode(found, wire.Inserted)
        assigned = None if done.ids is msgspec.UNSET else np.array(done.ids, dtype=np.uint64)
        within(progress, 0.0, 1.0)(1.0)
        return InsertResult(
            done.part_id,
            done.n,
            done.epoch,
            done.upserted,
            assigned,
            _incarnation(found),
            done.skipped,
            _told(done.affected_ids),
        )

    def _declaring(self, name: str, schema: object, guesses: dict[str, Guess]) -> dict[str, Any]:
        """The schema that a write sends: what its caller declares, and the types that JSON cannot tell."""
        declared = {} if schema is None else as_schema(schema)
        for known in declared.keys() & guesses.keys():
            guesses[known].refuse_as(declared[known]["type"])
        guesses = {untold: guess for untold, guess in guesses.items() if untold not in declared}
        declared |= fitted(guesses, self.info(name).schema) if guesses else {}
        return {"schema": declared} if declared else {}

    def delete_rows(
        self,
        name: str,
        ids: object,
        *,
        filter: object = None,
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None,
        idempotency_key: str | None,
    ) -> DeleteResult:
        body = _rows(ids, filter) | _asking(condition, return_ids)
        found = self._send(
            "POST",
            _path(name, "deletes"),
            body,
            headers=_conditions(expected, idempotency_key),
            repeat=idempotency_key is not None,
        )
        done = _decode(found, wire.Deleted)
        return DeleteResult(
            done.deleted, done.epoch, _incarnation(found), done.skipped, _told(done.affected_ids)
        )

    def patch_rows(
        self,
        name: str,
        ids: object,
        attributes: object,
        *,
        filter: object = None,
        schema: object = None,
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None,
        idempotency_key: str | None,
    ) -> PatchResult:
        body = _rows(ids, filter) | _asking(condition, return_ids)
        if filter is None:
            body["attributes"], guesses = patch_as_json(attributes, len(body.get("ids", ())))
        else:
            columns, guesses = as_json(one_row(attributes), 1)
            body["attributes"] = {attribute: values[0] for attribute, values in columns.items()}
        body |= self._declaring(name, schema, guesses)
        found = self._send(
            "POST",
            _path(name, "patches"),
            body,
            headers=_conditions(expected, idempotency_key),
            repeat=idempotency_key is not None,
        )
        done = _decode(found, wire.Patched)
        return PatchResult(
            done.patched,
            done.epoch,
            _incarnation(found),
            done.skipped,
            done.absent,
            _told(done.affected_ids),
        )

    def restore(self, name: str, epoch: int, *, expected: Expected) -> NamespaceInfo:
        found = self._send(
            "POST", _path(name, "restore"), {"epoch": epoch}, headers=_conditions(expected, None)
        )
        return _decode(found, NamespaceInfo)

    def branch(self, name: str, new_name: str, epoch: int | None) -> NamespaceInfo:
        body: dict[str, Any] = {"name": validate_name(new_name)}
        if epoch is not None:
            body["epoch"] = epoch
        return _decode(self._send("POST", _path(name, "branches"), body), NamespaceInfo)

    def tags(self, name: str) -> Sequence[Tag]:
        return _decode(self._send("GET", _path(name, "tags"), repeat=True), wire.Tags).tags

    def tag(self, name: str, tag: str, epoch: int | None) -> Tag:
        body: dict[str, Any] = {"name": validate_name(tag)}
        if epoch is not None:
            body["epoch"] = epoch
        # With an epoch, a repetition finds what the first has done.
        return _decode(self._send("POST", _path(name, "tags"), body, repeat=epoch is not None), Tag)

    def untag(self, name: str, tag: str) -> None:
        self._send("DELETE", _path(name, "tags", validate_name(tag)))

    def search(self, name: str, vector: object, params: SearchParams) -> Hits:
        body = {**_asked(vector), **_options(params)}
        found = self._send("POST", _path(name, "search"), body, repeat=True)
        answer = _decode_found(found)
        return _hits(answer, params, answer.epoch, _incarnation(found))

    def search_batch(self, name: str, vectors: object, params: SearchParams) -> BatchHits:
        queries = as_vectors(vectors, None, "l2")
        body = {"vectors": _packed(queries), "dim": queries.shape[1], **_options(params)}
        found = self._send("POST", _path(name, "search"), body, repeat=True)
        answer = _decode_found(found)
        results = answer.results if answer.results is not msgspec.UNSET else []
        counts = np.array([len(r.hits) for r in results], dtype=np.int64)
        flat = _ids([hit.id for r in results for hit in r.hits], answer.id_kind)
        shape = (len(results), params.top_k)
        ids: npt.NDArray[Any] = (
            np.full(shape, "", object) if flat.dtype == object else np.zeros(shape, np.uint64)
        )
        distances = np.full(shape, np.inf, dtype=np.float32)
        at = 0
        for i, r in enumerate(results):
            ids[i, : counts[i]] = flat[at : at + counts[i]]
            distances[i, : counts[i]] = [_distance(hit) for hit in r.hits]
            at += int(counts[i])
        stacked = _vectors([r.hits for r in results], params.top_k, params, answer.dim)
        if stacked is not None:
            stacked = stacked.reshape(*shape, stacked.shape[1])
        debug = [{} if r.debug is msgspec.UNSET else r.debug for r in results] if params.debug else None
        told = [_attributes(r.hits, params) for r in results]
        attributes = [one for one in told if one is not None]
        return BatchHits(
            ids,
            distances,
            counts,
            answer.epoch,
            stacked,
            debug,
            _incarnation(found),
            attributes or None,
            None if answer.types is msgspec.UNSET else answer.types,
        )

    def aggregate(self, name: str, params: AggregateParams) -> Aggregates:
        body = {**_aggregation(params), **_moment(params)}
        found = self._send("POST", _path(name, "aggregate"), body, repeat=True)
        done = _decode(found, Aggregated)
        return _aggregates(done, done.epoch, _incarnation(found))

    def multi_query(
        self, name: str, queries: Sequence[Query | AggregateParams], moment: Moment
    ) -> Sequence[Hits | Aggregates]:
        asked = []
        for i, one in enumerate(queries):
            with told_of(i):
                asked.append(_one_query(one))
        body = {"queries": asked, **_moment(moment)}
        found = self._send("POST", _path(name, "queries"), body, repeat=True)
        done, incarnation = _decode(found, Answers), _incarnation(found)
        answers: list[Hits | Aggregates] = []
        for one, result in zip(queries, done.results, strict=True):
            if isinstance(one, Query):
                answers.append(_hits(result, one.params, done.epoch, incarnation))
            else:
                answers.append(_aggregates(result, done.epoch, incarnation))
        return answers

    def measure_recall(
        self, name: str, queries: object | None, asked: RecallSample, params: SearchParams
    ) -> RecallReport:
        body = {**_options(params), "confidence": asked.confidence}
        for option in ("include", "exclude", "debug"):
            body.pop(option, None)
        body |= {k: v for k, v in (("sample", asked.sample), ("seed", asked.seed)) if v is not None}
        if queries is None:
            body["source"] = asked.source
        else:
            values = as_vectors(queries, None, "l2")
            body |= {"vectors": _packed(values), "dim": values.shape[1]}
        return _decode(self._send("POST", _path(name, "recall"), body), RecallReport)

    def recall_estimate(self, name: str) -> RecallEstimate:
        return _decode(self._send("GET", _path(name, "recall"), repeat=True), RecallEstimate)

    def row(self, name: str, identity: RowId, *, include_vector: bool, epoch: int | None) -> Row:
        ids = parse_ids([identity], field="id")
        # An id of dots is a step in a path, which urllib3 and proxies would take.
        segment = quote(str(ids.values[0]), safe="").replace(".", "%2E")
        query = {"include_vector": "true" if include_vector else "false"}
        if epoch is not None:
            query["epoch"] = str(epoch)
        path = f"{_path(name, 'rows')}/{segment}?{urlencode(query)}"
        try:
            found = self._send("GET", path, repeat=True)
        except RowNotFound as error:
            # Digits in a path are either kind; where there are no ids yet, neither is wrong.
            other = _other_kind(ids, error.details.get("id"))
            if other and self.manifest(name, epoch)["id_kind"] is not None:
                raise _of_other_kind(name, ids) from error
            raise
        row = _decode(found, wire.RowView)
        if _other_kind(ids, row.id):
            raise _of_other_kind(name, ids)
        vector = None if row.vector is msgspec.UNSET or row.vector is None else _float32(row.vector)
        attributes = {} if row.attributes is msgspec.UNSET else row.attributes
        return Row(row.id, vector, row.epoch, attributes, _incarnation(found))

    def scan(self, name: str, params: ScanParams) -> ScanPage:
        found = self._send(
            "POST", _path(name, "rows/scan"), {**_options(params), "vector_encoding": "base64"}, repeat=True
        )
        page = _decode(found, Scanned)
        return page_of(page, params, _ids([row.id for row in page.rows], page.id_kind), _incarnation(found))

    def manifest(self, name: str, epoch: int | None) -> dict[str, Any]:
        query = "" if epoch is None else f"?epoch={epoch}"
        found = self._send("GET", _path(name, "manifest") + query, repeat=True)
        return _decode(found, dict[str, Any])

    def parts(self, name: str, epoch: int | None) -> PartsReport:
        query = "" if epoch is None else f"?epoch={epoch}"
        return _decode(self._send("GET", _path(name, "parts") + query, repeat=True), PartsReport)

    def warm(self, name: str, cursor: str | None) -> WarmResult:
        body = {} if cursor is None else {"cursor": cursor}
        return _decode(self._send("POST", _path(name, "warm"), body), WarmResult)

    def compact(self, name: str, *, everything: bool, progress: Progress | None = None) -> CompactResult:
        found = self._send("POST", _path(name, "compact"), {"everything": everything})
        within(progress, 0.0, 1.0)(1.0)
        return _decode(found, CompactResult)

    def collect(self, name: str, *, retention: float, grace: float, dry_run: bool) -> GcResult:  # noqa: ARG002
        raise InvalidArgument(
            "garbage is collected by the server's maintenance, or by `vecstore gc` on the store itself",
            field="url",
        )

    def cache_stats(self) -> CacheStats:
        return _decode(self._send("GET", "/v1/caches", repeat=True), CacheStats)

    def ping(self) -> None:
        self._send("GET", "/readyz", repeat=True)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a database cannot be pickled or copied: connect to its URL where it is needed")

    def close(self) -> None:
        self._transport.close()

    # -- requests --------------------------------------------------------------------------

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
        repeat: bool = False,
    ) -> Answer:
        """One request, repeated if that is safe; an answer of 2xx, or the error that it stands for."""
        data = None if body is None else _encode(body)
        if data is not None and len(data) > MAX_BODY_BYTES:
            raise PayloadTooLarge(
                f"the request has {len(data)} bytes, a server takes {MAX_BODY_BYTES}; send smaller batches",
                field="body",
                limit=MAX_BODY_BYTES,
            )
        sent = {**(headers or {}), **(_JSON if data is not None else {}), **self._authorization}
        unknown: OutcomeUnknown | None = None

        def once() -> Answer:
            nonlocal unknown
            try:
                return self._once(method, path, data, sent)
            except OutcomeUnknown as error:
                unknown = error
                raise

        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: _may_repeat(error, repeat) and _retry_after(error) <= _PATIENCE
            ),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=lambda state: (
                _pause(state) + _retry_after(None if state.outcome is None else state.outcome.exception())
            ),
            sleep=self._transport.sleep,
            reraise=True,
        )
        try:
            return again(once)
        except VecstoreError as error:
            # That the last attempt came to nothing does not say what became of an earlier one.
            for_good = error.status < 500 and not _may_repeat(error, repeat=True)
            if unknown is not None and error is not unknown and not for_good:
                raise unknown from error
            raise

    def _once(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        reads = method == "GET" or (
            method == "POST" and path.endswith(("/search", "/aggregate", "/queries", "/recall", "/rows/scan"))
        )
        try:
            answer = self._transport.request(method, self._base + path, data, headers)
        except NeverSent as error:
            raise ServerUnavailable(f"{self._base} cannot be reached: {error}", url=self._base) from error
        except NoAnswer as error:
            if reads:
                raise ServerUnavailable(f"{self._base} did not answer: {error}", url=self._base) from error
            raise OutcomeUnknown(
                f"{self._base} did not say whether it carried out {method} {path}: {error}", url=self._base
            ) from error
        if not 200 <= answer.status < 300:
            raise _error(answer, reads=reads)
        if not reads and answer.status != 204 and not _is_json(answer.data):
            raise OutcomeUnknown(
                f"the answer to {method} {path} is cut off, or not a server's", url=self._base
            )
        return answer


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def _may_repeat(error: BaseException, repeat: bool) -> bool:
    if isinstance(error, ServerUnavailable) and isinstance(error.__cause__, NeverSent):
        return True
    if not repeat or not isinstance(error, VecstoreError) or isinstance(error, DeadlineExceeded):
        return False
    return isinstance(error, (ServerUnavailable, OutcomeUnknown)) or error.status in _RETRIED


def _retry_after(error: BaseException | None) -> int:
    """Seconds before which a request that was one too many is refused again."""
    told = error.details.get("retry_after", 0) if isinstance(error, TooManyRequests) else 0
    return told if isinstance(told, int) else 0


def _classes() -> dict[str, type[VecstoreError]]:
    found: dict[str, type[VecstoreError]] = {}
    waiting: list[type[VecstoreError]] = [VecstoreError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__ == errors.__name__:
            found[kind.code] = kind
        waiting.extend(kind.__subclasses__())
    return found


def _error(answer: Answer, *, reads: bool) -> VecstoreError:
    """The exception that an answer stands for: the class by its code, whatever it came through.

    By its status where the code is one of a later server, or a proxy answered in the server's place.
    """
    code, details = "", {}
    try:
        body = _error_decoder.decode(answer.data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message, details["status"] = f"HTTP {answer.status} without a body of ours", answer.status
    else:
        code, message = body.code, body.message
        details = {str(k): v for k, v in body.details.items() if k not in ("message", "self")}
    told = answer.headers.get("Retry-After", "")
    if answer.status == 429 and re.fullmatch(r"[0-9]{1,9}", told):
        details["retry_after"] = int(told)
    kind = _classes().get(code)
    if kind is not None:
        return kind(message, **details)
    error = _kind_by(answer.status, reads=reads)(message, **details)
    error.code, error.status = code or error.code, answer.status
    return error


def _kind_by(status: int, *, reads: bool) -> type[VecstoreError]:
    """The class of a status alone, which from 500 on does not say what became of a write."""
    if status >= 500 and not reads:
        return OutcomeUnknown
    return _BY_STATUS.get(status, VecstoreError)


def _path(name: str, *rest: str) -> str:
    return "/".join(("/v1/namespaces", quote(validate_name(name), safe=""), *rest))


def _rows(ids: object, filter: object) -> dict[str, Any]:
    """The rows that a write names."""
    check_rows(ids, filter)
    body: dict[str, Any] = {}
    if ids is not None:
        body["ids"] = parse_ids(ids).values.tolist()
    if filter is not None:
        body["filter"] = msgspec.Raw(filter_bytes(filter))
    return body


def _other_kind(asked: Ids, answered: object) -> bool:
    """Whether a server took the digits of an id for one of the other kind."""
    return isinstance(answered, (int, str)) and isinstance(answered, str) != (asked.kind == "string")


def _of_other_kind(name: str, asked: Ids) -> InvalidId:
    kind: IdKind = "u64" if asked.kind == "string" else "string"
    return InvalidId(f"id of namespace {name!r} are {kind}, not {asked.kind}", field="id", kind=kind)


def _asking(condition: object, return_ids: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"return_ids": True} if return_ids else {}
    if condition is not None:
        body["condition"] = msgspec.Raw(filter_bytes(condition, field="condition"))
    return body


def _told(ids: list[RowId] | msgspec.UnsetType) -> list[RowId] | None:
    return None if ids is msgspec.UNSET else ids


def _conditions(expected: Expected | None, idempotency_key: str | None) -> dict[str, str]:
    headers = {}
    if expected is not None:
        headers["If-Match"] = wire.etag(*expected)
    if idempotency_key is not None:
        if not idempotency_key or not (idempotency_key.isascii() and idempotency_key.isprintable()):
            raise InvalidArgument("over HTTP an idempotency key is printable ASCII", field="idempotency_key")
        headers["Idempotency-Key"] = idempotency_key
    return headers


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return wire.encode(body)
    except (TypeError, OverflowError, ValueError) as error:
        raise InvalidArgument(f"the request has no JSON form: {error}", field=_wordless(body)) from error


def _wordless(body: dict[str, Any]) -> str:
    """The first field that has no JSON form."""
    for name, value in body.items():
        try:
            wire.encode(value)
        except (TypeError, OverflowError, ValueError):
            return name
    return "body"


def _decode(answer: Answer, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.data, type=kind)
    except msgspec.MsgspecError as error:
        raise VecstoreError(f"the server's answer is not one of vecstore: {error}") from error


def _decode_found(answer: Answer) -> wire.Found:
    try:
        return _found_decoder.decode(answer.data)
    except msgspec.MsgspecError as error:
        raise VecstoreError(f"the server's answer is not one of vecstore: {error}") from error


def _incarnation(answer: Answer) -> str:
    """Of what an answer is; a proxy that changes bodies makes its ETag a weak one."""
    given = answer.headers.get("ETag")
    return "" if given is None else wire.parse_etag(given.removeprefix("W/"))[0]


def _options(params: SearchParams | ScanParams) -> dict[str, Any]:
    """Everything that is not left to the namespace."""
    found = {name: getattr(params, name) for name in params.__slots__}
    if params.filter is not None:
        found["filter"] = msgspec.Raw(params.filter)
    return {name: value for name, value in found.items() if value is not None}


def _asked(query: object) -> dict[str, Any]:
    """What neighbours are asked of: a vector, a stored row, or nothing where hits come in an order."""
    if query is None:
        return {}
    if isinstance(query, StoredRow):
        identity = parse_ids([query.id], field="id").values.tolist()[0]
        return {"id": identity, "include_self": query.itself}
    return {"vector": _packed(as_vector(query, None, "l2"))}


def _aggregation(params: AggregateParams) -> dict[str, Any]:
    found = {
        "aggregate_by": {
            label: [one.function] if one.attribute is None else [one.function, one.attribute]
            for label, one in params.aggregate_by
        },
        "group_by": params.group_by,
        "filter": None if params.filter is None else msgspec.Raw(params.filter),
    }
    return {name: value for name, value in found.items() if value is not None}


def _moment(params: AggregateParams | Moment) -> dict[str, Any]:
    found = {name: getattr(params, name) for name in Moment.__slots__}
    return {name: value for name, value in found.items() if value is not None}


def _one_query(one: Query | AggregateParams) -> dict[str, Any]:
    """One of several, which say together at what moment."""
    if isinstance(one, AggregateParams):
        return _aggregation(one)
    options = {name: value for name, value in _options(one.params).items() if name not in Moment.__slots__}
    return {**_asked(one.asked), **options}


def _hits(given: wire.Found | OneAnswer, params: SearchParams, epoch: int, incarnation: str) -> Hits:
    hits = [] if given.hits is msgspec.UNSET else given.hits
    return Hits(
        _ids([hit.id for hit in hits], given.id_kind),
        np.array([_distance(hit) for hit in hits], dtype=np.float32),
        epoch,
        _vectors([hits], len(hits), params, given.dim),
        None if given.debug is msgspec.UNSET else given.debug,
        incarnation,
        _attributes(hits, params),
        None if given.types is msgspec.UNSET else given.types,
    )


def _aggregates(given: Aggregated | OneAnswer, epoch: int, incarnation: str) -> Aggregates:
    values = None if given.aggregations is msgspec.UNSET else given.aggregations
    groups = None if given.aggregation_groups is msgspec.UNSET else given.aggregation_groups
    return Aggregates(epoch, values, groups, incarnation)


def _packed(values: F32) -> memoryview:
    """Bytes of little-endian float32, which msgspec writes as base64."""
    return values.astype("<f4", copy=False).data.cast("B")


def _float32(values: list[float]) -> F32:
    return np.array(values, dtype=np.float64).astype(np.float32)


def _ids(values: list[RowId], kind: IdKind | msgspec.UnsetType) -> npt.NDArray[Any]:
    """Ids of the kind that they are, or that the answer tells where there are none."""
    if kind == "string" or (values and isinstance(values[0], str)):
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found
    return np.array(values, dtype=np.uint64)


def _distance(hit: wire.Neighbour) -> float:
    return math.nan if hit.distance is msgspec.UNSET else hit.distance


def _attributes(hits: list[wire.Neighbour], params: SearchParams) -> list[dict[str, Any]] | None:
    if params.exclude is None and not set(params.include) - {"vector"}:
        return None
    return [{} if hit.attributes is msgspec.UNSET else hit.attributes for hit in hits]


def _vectors(
    hits: list[list[wire.Neighbour]], width: int, params: SearchParams, dim: int | msgspec.UnsetType
) -> F32 | None:
    """f32[M * width, n] of the hits' vectors, 0 where there is no hit, NaN where none is kept.

    Without a vector the answer tells the dimension, but not those of earlier servers: then it is 0.
    """
    if "vector" not in params.include:
        return None
    if dim is msgspec.UNSET:
        dim = next((len(h.vector) for row in hits for h in row if isinstance(h.vector, list)), 0)
    out = np.zeros((len(hits), width, dim), dtype=np.float32)
    for i, row in enumerate(hits):
        for j, hit in enumerate(row):
            out[i, j] = _float32(hit.vector) if isinstance(hit.vector, list) else np.nan
    return out.reshape(len(hits) * width, dim)
