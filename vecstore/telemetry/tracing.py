"""Spans for OpenTelemetry: requests, the stages of searches, and each request to the store.

Needs the extra ``otel``. `Tracing` is an observer, for `vecstore.connect` as well as for the server; it uses
the application's tracer provider unless it is given one. The span that is current when something begins is
its parent, also in the threads that work for it (`vecstore.storage.threads`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextvars import Token
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from vecstore.config import package_version
from vecstore.errors import VecstoreError
from vecstore.observe import Observer, SearchWatch, Stage, StoreKind, StoreRequest
from vecstore.storage.cache import ReadTrace
from vecstore.types import SearchParams

_PARENT: Final = TraceContextTextMapPropagator()


class Tracing(Observer):
    """Makes spans of what it is told.

    Parameters
    ----------
    provider
        None: the one that the application has set for all.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("vecstore", package_version(), provider)

    def request(self, kind: StoreKind, key: str) -> StoreRequest:
        attributes = {"vecstore.storage.kind": kind, "vecstore.storage.key": key}
        return _Request(
            self._tracer.start_span(f"storage.{kind}", kind=SpanKind.CLIENT, attributes=attributes)
        )

    def search(self, namespace: str, params: SearchParams) -> SearchWatch:
        attributes: dict[str, str | int] = {"vecstore.namespace": namespace, "vecstore.top_k": params.top_k}
        return _Search(self._tracer, self._tracer.start_span("search", attributes=attributes))

    def serve(self, environ: Mapping[str, Any]) -> Served:
        """A request by HTTP begins; its headers may name the span that it belongs to."""
        carrier = {
            name: environ[f"HTTP_{name.upper()}"]
            for name in ("traceparent", "tracestate")
            if f"HTTP_{name.upper()}" in environ
        }
        parent = _PARENT.extract(carrier, context=context.Context())
        method = environ["REQUEST_METHOD"]
        span = self._tracer.start_span(
            method,
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": environ.get("PATH_INFO", "")},
        )
        return Served(span, method, context.attach(trace.set_span_in_context(span, parent)))


class Served:
    """A request by HTTP that is being answered."""

    def __init__(self, span: Span, method: str, token: Token[context.Context]) -> None:
        self._span = span
        self._method = method
        self._token = token

    def answered(self, route: str, status: int, request_id: str, namespace: str | None) -> None:
        """The request is over."""
        span = self._span
        span.update_name(f"{self._method} {route}")
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("vecstore.request_id", request_id)
        if namespace is not None:
            span.set_attribute("vecstore.namespace", namespace)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        context.detach(self._token)
        span.end()


def otlp() -> Tracing:
    """Spans to a collector by OTLP over HTTP, as OpenTelemetry's own variables (``OTEL_…``) say.

    They are sent by a thread of this process, in batches, and the rest when it ends.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: "vecstore"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class _Request(StoreRequest):
    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def done(self, *, sent: int = 0, received: int = 0, error: BaseException | None = None) -> None:
        span = self._span
        if sent:
            span.set_attribute("vecstore.storage.sent_bytes", sent)
        if received:
            span.set_attribute("vecstore.storage.received_bytes", received)
        _fail(span, error)
        span.end()


class _Search(SearchWatch):
    """The span of a search, and one of each of its stages; whatever is read belongs to the stage."""

    __slots__ = ("_around", "_kernels", "_span", "_stage", "_token", "_tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._around = trace.set_span_in_context(span)
        self._token: Token[context.Context] | None = None
        self._stage: Span | None = None
        self._kernels = 0

    def stage(self, stage: Stage) -> None:
        self._close()
        if stage == "scan":
            self._kernels = time.time_ns()
            return
        self._stage = self._tracer.start_span(stage, context=self._around)
        self._token = context.attach(trace.set_span_in_context(self._stage, self._around))

    def ran(self, scan: float, rerank: float) -> None:
        at = self._kernels
        for stage, seconds in (("scan", scan), ("rerank", rerank)):
            end = at + int(1e9 * seconds)
            if seconds:
                self._tracer.start_span(stage, context=self._around, start_time=at).end(end)
            at = end

    def scanned(self, lists: int, rows: int) -> None:
        self._span.set_attribute("vecstore.lists_probed", lists)
        self._span.set_attribute("vecstore.rows_scanned", rows)

    def end(self, trace: ReadTrace, error: BaseException | None = None) -> None:
        self._close()
        for name, count in trace.report().items():
            self._span.set_attribute(f"vecstore.{name}", count)
        _fail(self._span, error)
        self._span.end()

    def _close(self) -> None:
        if self._stage is not None and self._token is not None:
            context.detach(self._token)
            self._stage.end()
            self._stage = self._token = None


def _fail(span: Span, error: BaseException | None) -> None:
    if error is not None:
        code = error.code if isinstance(error, VecstoreError) else type(error).__name__
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR)
