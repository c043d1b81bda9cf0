"""Spans: one a request to the store, under the right parents, embedded and of a real server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests import core
from tests.conftest import Bucket
from tests.server.support import eventually, running_server
from tests.storage.toxic_proxy import Proxy, Toxic, toxic_proxy
from vecstore.api import Database, Namespace
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import NamespaceNotFound
from vecstore.storage.s3 import S3Store
from vecstore.telemetry.tracing import Tracing

QUERY = np.ones(8, dtype=np.float32)
ROWS = 400


class Traced:
    """Spans as they end."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.provider)

    def take(self) -> list[ReadableSpan]:
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found


@pytest.fixture
def traced() -> Traced:
    return Traced()


def sent(proxy: Proxy) -> Counter[str]:
    """Requests that came by, by what vecstore calls them."""
    found: Counter[str] = Counter()
    for request in proxy.requests:
        method, _, path = request.partition(" ")
        kind = {"GET": "list" if "list-type" in path else "get", "POST": "put"}.get(method, method.lower())
        found[kind] += 1
    return found


def filled(store: Any, traced: Traced) -> Database:
    """Three coded parts of which one has dead rows."""
    database = Database(EmbeddedDatabase(store, observer=traced.tracing))
    ns = database.create_namespace("docs", 8, "l2", **core.CODED)
    rows = core.clustered(core.generator(1), 3 * ROWS, 8)
    for i in range(3):
        ns.insert(rows[i * ROWS : (i + 1) * ROWS], ids=np.arange(i * ROWS, (i + 1) * ROWS))
    ns.delete([1, 2, 3])
    return database


def kinds(spans: list[ReadableSpan]) -> Counter[str]:
    names = (span.name.partition(".") for span in spans)
    return Counter(rest for first, dot, rest in names if dot and first == "storage")


def ancestors(span: ReadableSpan, spans: list[ReadableSpan]) -> list[str]:
    """Names from a span's parent up."""
    by_id = {one.context.span_id: one for one in spans if one.context is not None}
    names = []
    while span.parent is not None and span.parent.span_id in by_id:
        span = by_id[span.parent.span_id]
        names.append(span.name)
    return names


def test_each_request_on_the_wire_has_one_span_in_the_stage_that_sent_it(
    bucket: Bucket, traced: Traced
) -> None:
    with toxic_proxy(bucket.endpoint) as proxy:

        def store() -> S3Store:
            options = bucket.options(endpoint_url=proxy.url, observer=traced.tracing, hedge_share=0.0)
            return S3Store(bucket.name, "prefix", **options)

        filled(store(), traced).close()
        written = traced.take()
        assert kinds(written) == sent(proxy)
        assert sent(proxy)["put"] >= 4

        database = Database(EmbeddedDatabase(store(), observer=traced.tracing))
        ns = database.namespace("docs")
        traced.take()
        proxy.plan()
        tracer = traced.provider.get_tracer("test")
        with tracer.start_as_current_span("caller"):
            assert len(ns.search(QUERY, include=["vector"])) == 10
        spans = traced.take()
        database.close()
        assert kinds(spans) == sent(proxy)
        assert sent(proxy)["get"] >= 8
        asked = [span for span in spans if span.name.startswith("storage.")]
        chains = {tuple(ancestors(span, spans)) for span in asked}
        assert chains == {(stage, "search", "caller") for stage in ("snapshot", "plan", "fetch")}
        stages = Counter(span.name for span in spans if ancestors(span, spans) == ["search", "caller"])
        assert set(stages) == {"snapshot", "plan", "scan", "rerank", "fetch"}
        (search,) = (span for span in spans if span.name == "search")
        assert search.attributes is not None
        assert search.attributes["vecstore.requests"] == len(asked)
        assert search.attributes["vecstore.rows_scanned"] > 0


def test_a_repetition_has_a_span_of_its_own(bucket: Bucket, traced: Traced) -> None:
    with toxic_proxy(bucket.endpoint) as proxy:
        options = bucket.options(endpoint_url=proxy.url, observer=traced.tracing)
        store = S3Store(bucket.name, "prefix", **options)
        store.put_if_absent("x", b"1")
        traced.take()
        proxy.plan(("GET", Toxic.REFUSE_503))
        assert store.get("x").data == b"1"
        store.close()
    first, second = sorted(traced.take(), key=lambda span: span.start_time or 0)
    assert (first.name, second.name) == ("storage.get", "storage.get")
    assert (first.attributes or {})["error.type"] == "storage_unavailable"
    assert first.status.is_ok is False
    assert second.status.is_ok
    assert (second.attributes or {})["vecstore.storage.received_bytes"] == 1


def test_a_search_that_fails_ends_its_spans(traced: Traced) -> None:
    ns = Namespace(EmbeddedDatabase(core.RangeStore(), observer=traced.tracing), "docs")
    with pytest.raises(NamespaceNotFound):
        ns.search(QUERY)
    spans = {span.name: span for span in traced.take()}
    assert set(spans) == {"search", "snapshot"}
    assert (spans["search"].attributes or {})["error.type"] == "namespace_not_found"


def test_without_tracing_nothing_of_opentelemetry_is_loaded(tmp_path: Path) -> None:
    script = (
        "import sys, vecstore; from vecstore.config import Config;"
        "from vecstore.server.app import create_worker_app;"
        "app = create_worker_app(Config(url='memory://'));"
        "app.test_client().get('/metrics');"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    env = {"VECSTORE_FIGURES": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "[]"


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        self.spans: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_sends_the_spans_of_a_request_under_the_callers(
    s3_url: str, bucket: Bucket, collector: Collector
) -> None:
    trace_id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with (
        toxic_proxy(bucket.endpoint) as proxy,
        running_server(
            s3_url,
            "--workers",
            "1",
            "--no-maintenance",
            VECSTORE_TRACING="true",
            AWS_ENDPOINT_URL_S3=proxy.url,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
            OTEL_BSP_SCHEDULE_DELAY="50",
        ) as server,
    ):
        url = f"{server.url}/v1/namespaces"
        assert urllib3.request("POST", url, json={"name": "docs", "dim": 8}).status == 201
        proxy.plan()
        body = {"vectors": np.eye(8).tolist()}
        headers = {"traceparent": f"00-{trace_id}-{caller}-01", "X-Request-Id": "mine"}
        made = urllib3.request("POST", f"{url}/docs/parts", json=body, headers=headers)
        found = urllib3.request("POST", f"{url}/docs/search", json={"vector": [1] * 8}, headers=headers)
        assert (made.status, found.status) == (201, 200)

        def mine() -> list[Any]:
            return [span for span in list(collector.spans) if span.trace_id.hex() == trace_id]

        def ended() -> bool:
            tops = sum(span.parent_span_id.hex() == caller for span in mine())
            below = sum(span.name.startswith("storage.") for span in mine())
            return tops == 2 and below == len(proxy.requests)

        eventually("all spans of both requests were sent", ended)
        spans = {span.span_id: span for span in mine()}
        tops = {span.name for span in spans.values() if span.parent_span_id.hex() == caller}
        assert tops == {"POST /v1/namespaces/{ns}/parts", "POST /v1/namespaces/{ns}/search"}
        stored = Counter(s.name for s in spans.values() if s.name.startswith("storage."))
        assert stored == Counter({f"storage.{kind}": count for kind, count in sent(proxy).items()})
        for span in spans.values():  # none is an orphan
            assert span.parent_span_id in spans or span.parent_span_id.hex() == caller
