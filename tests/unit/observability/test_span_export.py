"""The way of spans out of the process: redacted, in batches, to a collector or counted as lost."""

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue

from app.observability import context
from app.observability.span_encoding import EncodedSpanExporter
from app.observability.span_export import BATCH_SPANS, MAX_ATTRIBUTE, MAX_QUEUED_SPANS
from app.observability.tracing import (
    TracingSettings,
    business_span,
    instrument_tracing,
    setup_tracing,
)


def settings(**others: Any) -> TracingSettings:
    return TracingSettings(environment="test", otel_traces_sampler_arg=1.0, **others)


@pytest.fixture(autouse=True)
def _own_trace_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_trace_source", context._no_trace)


class Collector(ThreadingHTTPServer):
    """An OTLP/HTTP receiver of a few lines."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.status = status
        super().__init__(("127.0.0.1", 0), _Receive)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_spans_reach_a_collector_over_otlp() -> None:
    collector = Collector()
    active = setup_tracing(settings(otel_exporter_otlp_endpoint=f"{collector.url}/"))
    app = FastAPI()

    @app.get("/orders/{order_id}")
    def read(order_id: str) -> None:
        pass

    instrument_tracing(app, active)
    with TestClient(app) as client:
        answer = client.get("/orders/7?token=hunter2")
    active.shutdown(60)
    collector.close()

    resource_spans = [spans for request in collector.requests for spans in request.resource_spans]
    (span,) = [s for r in resource_spans for scope in r.scope_spans for s in scope.spans]
    assert span.trace_id.hex() == answer.headers["X-Trace-ID"]
    assert span.name == "GET /orders/{order_id}"
    resource = {a.key: a.value.string_value for a in resource_spans[0].resource.attributes}
    assert resource["service.name"] == "glasshouse"
    assert b"hunter2" not in b"".join(r.SerializeToString() for r in collector.requests)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("kind", ["refuses", "swallows"])
def test_a_dead_collector_does_not_delay_the_end(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever waited for the collector would wait for minutes.
    monkeypatch.setattr("app.observability.tracing.EXPORT_TIMEOUT_SECONDS", 600)
    lost: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        port = black_hole.getsockname()[1] if kind == "swallows" else free_port()
        active = setup_tracing(
            settings(otel_exporter_otlp_endpoint=f"http://127.0.0.1:{port}"), on_drop=lost.append
        )
        for _ in range(200):
            with business_span("x"):
                pass
        started = time.monotonic()
        active.shutdown(0.5)
        took = time.monotonic() - started

    assert took < 20
    assert sum(lost) == 200
    active.shutdown(0.5)
    assert sum(lost) == 200


class Failing(SpanExporter):
    """A collector that answers with errors, after a while."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.error = error
        self.release = threading.Event()
        self.release.set()
        self.exported = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.release.wait(120)
        self.exported += len(spans)
        if self.error:
            raise self.error
        return SpanExportResult.FAILURE


@pytest.mark.parametrize("error", [None, RuntimeError("encoding")])
def test_spans_that_a_collector_refuses_are_counted(error: Exception | None) -> None:
    lost: list[int] = []
    active = setup_tracing(settings(), exporter=Failing(error=error), on_drop=lost.append)
    for _ in range(3):
        with business_span("x"):
            pass
    active.shutdown(60)

    assert sum(lost) == 3


def test_a_forked_process_begins_with_an_empty_queue() -> None:
    slow = Failing()
    slow.release.clear()
    active = setup_tracing(settings(), exporter=slow)
    for _ in range(MAX_QUEUED_SPANS + BATCH_SPANS + 1):  # a batch may be under way
        with business_span("x"):
            pass
    spans = active._spans
    assert spans is not None
    assert not spans._export.has_room()
    spans._export._forget()  # as os.register_at_fork has it
    assert spans._export.has_room()
    slow.release.set()
    active.shutdown(60)


async def test_what_ends_when_all_is_over_is_counted_at_once() -> None:
    lost: list[int] = []
    tracing = setup_tracing(settings(), exporter=InMemorySpanExporter(), on_drop=lost.append)
    early, late = tracing.tracer.start_span("early"), tracing.tracer.start_span("late")
    await asyncio.to_thread(tracing.provider.shutdown)
    early.end()  # it waits for others to be handled with it, and there will be none
    await asyncio.to_thread(tracing.shutdown, 60)
    assert sum(lost) == 1
    late.end()
    assert sum(lost) == 2


def test_a_full_queue_loses_spans_and_counts_them() -> None:
    slow = Failing()
    slow.release.clear()
    lost: list[int] = []
    active = setup_tracing(settings(), exporter=slow, on_drop=lost.append)
    for _ in range(MAX_QUEUED_SPANS + 500):
        with business_span("x"):
            pass
    assert slow.exported == 0  # so nobody waited for the collector
    assert 500 - BATCH_SPANS <= sum(lost) <= 500  # up to a batch is under way
    slow.release.set()
    active.shutdown(60)

    assert sum(lost) == MAX_QUEUED_SPANS + 500
    assert slow.exported + 500 >= MAX_QUEUED_SPANS


async def test_what_has_just_ended_is_exported_with_the_rest() -> None:
    for leave in ("flush", "shutdown"):
        exporter = InMemorySpanExporter()
        tracing = setup_tracing(settings(), exporter=exporter)
        with business_span("x"):
            pass
        assert not exporter.get_finished_spans()
        await asyncio.to_thread(getattr(tracing, leave), 60)
        assert [span.name for span in exporter.get_finished_spans()] == ["x"]
        await asyncio.to_thread(tracing.shutdown, 60)


def exported(**attributes: AttributeValue) -> Attributes:
    """Return what becomes of a span's attributes on their way."""
    exporter = InMemorySpanExporter()
    tracing = setup_tracing(settings(), exporter=exporter)
    with business_span("x", **attributes):
        pass
    tracing.shutdown(60)
    (span,) = exporter.get_finished_spans()
    return span.attributes


def test_a_secret_across_the_end_of_an_attribute_is_recognised() -> None:
    for place in range(0, 24, 4):
        attributes = exported(note=f"{'x' * (MAX_ATTRIBUTE - place)} jane.doe@example.com now")
        assert attributes is not None
        assert str(attributes["note"]).startswith("x")
        assert "jan" not in str(attributes["note"])


def test_no_part_of_a_span_tells_a_secret() -> None:
    exported: list[bytes] = []

    class Kept(EncodedSpanExporter):
        def export_encoded(self, encoded: bytes) -> SpanExportResult:
            exported.append(encoded)
            return SpanExportResult.SUCCESS

    tracing = setup_tracing(settings(), exporter=Kept())
    for part in ("event", "link", "key", "name", "status"):
        span = tracing.tracer.start_span("jane@example.com" if part == "name" else part)
        if part == "event":
            span.add_event("to jane@example.com", {"to jane@example.com": 1, "password": "hunter2"})
        elif part == "link":
            afar = SpanContext(1, 2, is_remote=True)
            span.add_link(afar, {"password": "hunter2", "to jane@example.com": "jane@example.com"})
        elif part == "key":
            span.set_attribute("to jane@example.com", 1)
        elif part == "status":
            span.set_status(StatusCode.ERROR, "jane@example.com")
        span.end()
    tracing.shutdown(60)

    spans = [
        span
        for request in map(ExportTraceServiceRequest.FromString, exported)
        for around in request.resource_spans
        for scope in around.scope_spans
        for span in scope.spans
    ]
    assert len(spans) == 5
    assert [len(part) for span in spans for part in (span.events, span.links)].count(1) == 2
    shown = str(spans)
    assert shown.count("to [redacted]") == 4
    assert "jane" not in shown
    assert "hunter2" not in shown


def test_an_address_loses_its_whole_query() -> None:
    attributes = exported(**{"url.full": "https://shop.test/find?name=it's hunter2"})
    assert attributes == {"url.full": "https://shop.test/find?name=[redacted]"}
