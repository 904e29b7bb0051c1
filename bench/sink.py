"""A receiver of spans and error reports, in a process of its own, that counts what arrives.

`python -m bench.sink PORT` answers OTLP/HTTP at /v1/traces and Sentry's envelopes at /api/1/envelope/;
GET /counts says how much there was: all spans by service, and under "SERVICE/requests" those of requests
that a server has served.
"""

import gzip
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_counts: Counter[str] = Counter()
_lock = Lock()
_ANSWER = ExportTraceServiceResponse().SerializeToString()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with _lock:
            self._answer(json.dumps(_counts).encode(), "application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/v1/traces":
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self._keep(ExportTraceServiceRequest.FromString(body))
            self._answer(_ANSWER, "application/x-protobuf")
        else:
            with _lock:
                _counts["envelopes"] += 1
            self._answer(b"{}", "application/json")

    @staticmethod
    def _keep(exported: ExportTraceServiceRequest) -> None:
        with _lock:
            for resource in exported.resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                name = named.get("service.name", "")
                for scope in resource.scope_spans:
                    _counts[name] += len(scope.spans)
                    served = sum(span.kind == Span.SPAN_KIND_SERVER for span in scope.spans)
                    _counts[f"{name}/requests"] += served

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a sender that has gone: a server that ends resets its connections."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    """Serve until killed, and only while nobody else wants the processor.

    A receiver has its own, elsewhere; here it would be the server that waits for it.
    """
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()


if __name__ == "__main__":
    main()
