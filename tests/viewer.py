"""The signals viewer for tests: signals to feed it, and the viewer as a process."""

import gzip
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sandbox.signals_viewer import ViewerSettings, create_viewer
from sandbox.signals_viewer.signals import ErrorReport, Span
from sandbox.signals_viewer.store import SignalStore
from tests.tools import free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent
MILLISECOND = 1_000_000
BEGIN = 1_790_000_000 * 1_000_000_000
"""When the spans of tests begin, in Unix nanoseconds."""


def trace_id(number: int) -> str:
    """Return a trace id."""
    return f"{number:032x}"


def make_span(
    span_id: str = "1", parent_id: str = "", *, trace: int = 1, start: int = 0, **fields: Any
) -> Span:
    """Return a span that starts `start` ms after BEGIN and takes 10 ms; ids are filled up to 16 digits."""
    defaults: dict[str, Any] = {
        "service": "glasshouse",
        "instance": "one",
        "name": f"operation {span_id}",
        "kind": "internal",
        "end": BEGIN + (start + 10) * MILLISECOND,
        "failed": False,
        "status_message": "",
        "attributes": {},
        "events": (),
        "size": 500,
    }
    return Span(
        trace_id=trace_id(trace),
        span_id=span_id.rjust(16, "0"),
        parent_id=parent_id and parent_id.rjust(16, "0"),
        start=BEGIN + start * MILLISECOND,
        **(defaults | fields),
    )


def make_error(number: int = 1, **fields: Any) -> ErrorReport:
    """Return an error report."""
    defaults: dict[str, Any] = {
        "event_id": f"{number:032x}",
        "at": BEGIN + number * MILLISECOND,
        "type": "ValueError",
        "message": f"error {number}",
        "service": "glasshouse",
        "route": "/v1/orders",
        "trace_id": trace_id(1),
        "span_id": "",
        "release": "",
        "size": 500,
    }
    return ErrorReport(**(defaults | fields))


def export_of(*, service: str = "glasshouse", **span: Any) -> ExportTraceServiceRequest:
    """Return an OTLP export of one span; keywords are fields of the protocol's span."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    name = resource.resource.attributes.add(key="service.name")
    name.value.string_value = service
    fields: dict[str, Any] = {
        "trace_id": secrets.token_bytes(16),
        "span_id": secrets.token_bytes(8),
        "name": "operation",
        "start_time_unix_nano": BEGIN,
        "end_time_unix_nano": BEGIN + MILLISECOND,
    }
    resource.scope_spans.add().spans.add(**(fields | span))
    return request


def envelope_of(*events: Any, header: Any = None) -> bytes:
    """Return a Sentry envelope with these events."""
    lines = [json.dumps(header or {})]
    for event in events:
        payload = json.dumps(event)
        lines += [json.dumps({"type": "event", "length": len(payload)}), payload]
    return "\n".join(lines).encode()


class ViewerClient:
    """Speaks to a viewer in this process."""

    def __init__(self, http: httpx2.AsyncClient, store: SignalStore) -> None:
        self.http = http
        self.store = store

    async def send_spans(self, export: ExportTraceServiceRequest) -> httpx2.Response:
        """Send spans as the exporter does."""
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        body = gzip.compress(export.SerializeToString())
        return await self.http.post("/v1/traces", content=body, headers=headers)

    async def send_envelope(self, body: bytes, **headers: str) -> httpx2.Response:
        """Send an envelope as an SDK does."""
        return await self.http.post("/api/1/envelope/", content=body, headers=headers)

    async def page(self, path: str = "/") -> str:
        """Return a page."""
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text


@asynccontextmanager
async def open_viewer() -> AsyncIterator[ViewerClient]:
    """Serve the viewer in this process."""
    store = SignalStore()
    transport = httpx2.ASGITransport(app=create_viewer(ViewerSettings(), store))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield ViewerClient(http, store)


class RunningViewer:
    """The viewer as a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.dsn = f"http://local@127.0.0.1:{port}/1"
        self._log = log

    def get(self, path: str) -> Any:
        """Return a JSON document."""
        return httpx2.get(self.url + path).raise_for_status().json()

    def page(self, path: str = "/") -> str:
        """Return a page."""
        return httpx2.get(self.url + path).raise_for_status().text

    def log(self) -> str:
        """Return what the process wrote."""
        return self._log.read_text(errors="replace")

    def stop(self, number: int) -> float:
        """Send a signal, wait for the end in order and return how many seconds it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(10) == 0
        return time.monotonic() - begin


@contextmanager
def start_viewer(directory: Path) -> Iterator[RunningViewer]:
    """Run `python -m sandbox.signals_viewer` on a free port for the time of the block."""
    port, log = free_port(), directory / "viewer.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.signals_viewer"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "VIEWER_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    viewer = RunningViewer(process, port, log)
    try:
        wait_until(lambda: process.poll() is not None or _answers(viewer), "the viewer answers")
        if process.poll() is not None:
            pytest.fail(f"the viewer did not start:\n{viewer.log()}", pytrace=False)
        yield viewer
    finally:
        process.kill()
        process.wait()


def _answers(viewer: RunningViewer) -> bool:
    try:
        return httpx2.get(f"{viewer.url}/health", timeout=1).status_code == 200
    except httpx2.TransportError:
        return False
