"""Where telemetry goes, with a switch: a reader of stdout, a disk, a collector, a Sentry server.

Each can be broken and mended while the service runs.
"""

import fcntl
import gzip
import json
import os
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SMALLEST_PIPE = 4096
"""Bytes that the kernel takes when nobody reads: what does not fit here is the service's problem."""


class Reader:
    """Reads the service's stdout from a pipe, like a container runtime; may stop and go on."""

    def __init__(self) -> None:
        self._read, self.descriptor = os.pipe()
        fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
        self._reading = threading.Event()
        self._reading.set()
        self._received = bytearray()
        self._thread = threading.Thread(target=self._run, name="reader-of-stdout")
        self._thread.start()

    def stall(self) -> None:
        """Stop reading."""
        self._reading.clear()

    def resume(self) -> None:
        """Read again."""
        self._reading.set()

    def count(self, text: bytes) -> int:
        """Return how often `text` has arrived."""
        return self._received.count(text)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines that have arrived; each must be whole."""
        text = bytes(self._received)
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def _run(self) -> None:
        while part := os.read(self._read, 65536):
            self._received += part
            self._reading.wait()

    def close(self) -> None:
        """End it. Whoever writes must have ended before."""
        self.resume()
        self._thread.join()
        os.close(self._read)


class LogFile:
    """The service's stdout is a file, and its disk can be full: nothing can be written behind its end.

    The limit of a file's size (RLIMIT_FSIZE) holds for every file of the process, so the log begins far
    behind the end of any other, with a hole.
    """

    BEGINS = 256 * 1024 * 1024

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.truncate(path, self.BEGINS)

    def fill_disk_of(self, pid: int, *, left: int = 0) -> None:
        """Let the process `pid` write `left` more bytes and then no more."""
        size = self.path.stat().st_size
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + left, hard))

    def free_disk_of(self, pid: int) -> None:
        """Let it write again."""
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def count(self, text: bytes) -> int:
        """Return how often `text` was written."""
        return self._text().count(text)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines; each must be whole."""
        text = self._text()
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def _text(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.BEGINS)
            return file.read()

    def close(self) -> None:
        """Give it back."""
        os.close(self.descriptor)
        self.path.unlink()


_SERVER = Span.SpanKind.SPAN_KIND_SERVER

Mode = Literal["answers", "refuses", "swallows"] | int
"""`swallows`: takes the request and never answers. A number: that status is the answer."""


class Backend:
    """A server of HTTP that keeps what it is sent while it answers, and fails in the way asked for."""

    def __init__(self) -> None:
        # Holds the port while nobody listens on it: no other program may get it meanwhile.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._reservation.getsockname())
        self.mode: Mode = "refuses"
        self.asked = 0
        self.spans: Counter[bytes] = Counter()
        """How many have arrived, by trace."""
        self.requests_traced = 0
        self.reports: list[dict[str, Any]] = []
        self._mended = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def be(self, mode: Mode) -> None:
        """Behave like this from now on."""
        self._stop()
        self.mode = mode
        if mode != "refuses":
            self._start()

    def _start(self) -> None:
        backend = self
        self._mended = mended = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                backend.asked += 1
                if backend.mode == "swallows":
                    mended.wait()  # and then the connection is closed
                    return
                if backend.mode == "answers":
                    if self.headers.get("Content-Encoding") == "gzip":
                        body = gzip.decompress(body)
                    backend._keep(self.path, body)
                status = backend.mode if isinstance(backend.mode, int) else 200
                with suppress(OSError):  # it did not wait so long
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        host, port = self._reservation.getsockname()
        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = False  # so that closing waits for them
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="backend"
        )
        self._thread.start()

    def _stop(self) -> None:
        self._mended.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._server = self._thread = None

    def _keep(self, path: str, body: bytes) -> None:
        if path != "/v1/traces":
            # An envelope is a header, then a header and a body for each item, one a line.
            self.reports.append(json.loads(body.splitlines()[2]))
            return
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource_spans.scope_spans:
                self.spans.update(span.trace_id for span in scope.spans)
                self.requests_traced += sum(span.kind == _SERVER for span in scope.spans)

    def close(self) -> None:
        """End it."""
        self._stop()
        self._reservation.close()


@contextmanager
def open_backend() -> Iterator[Backend]:
    """Yield a server that answers, for the time of the block."""
    backend = Backend()
    backend.be("answers")
    try:
        yield backend
    finally:
        backend.close()
