"""Where signals go: receivers that keep every byte, and a database read column by column."""

import gzip
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import MetaData, Table, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


class Receiver:
    """Takes whatever is posted and keeps headers and body, unpacked: for OTLP and for Sentry's protocol."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received: list[bytes] = []
        self.bodies: list[bytes] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind = self.headers.get("Content-Encoding", "")
                if kind == "gzip":
                    body = gzip.decompress(body)
                elif kind == "deflate":
                    body = zlib.decompress(body)
                # Credentials for this very receiver, whose place that is.
                ours = {"X-Sentry-Auth", "Authorization"}
                headers = [(k, v) for k, v in self.headers.items() if k not in ours]
                with receiver._lock:
                    receiver.bodies.append(body)
                    receiver._received.append(f"{self.path} {headers}".encode() + b"\n" + body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_port

    def content(self) -> bytes:
        """Return everything that has arrived."""
        with self._lock:
            return b"\n".join(self._received)

    @contextmanager
    def running(self) -> Iterator["Receiver"]:
        """Receive for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, name="receiver")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def decoded_spans(receiver: Receiver) -> bytes:
    """Return every field of every span, link, event and resource as text; ids are in hexadecimal."""
    return "\n".join(
        str(ExportTraceServiceRequest.FromString(body)) for body in list(receiver.bodies)
    ).encode()


class BrokenProvider:
    """A payment provider whose answers cannot be understood and hold what nobody should repeat."""

    def __init__(self, answers: list[tuple[int, str]]) -> None:
        left = iter(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, "{}")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(*next(left, (500, "")))

            def _answer(self, status: int, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_port

    @contextmanager
    def running(self) -> Iterator["BrokenProvider"]:
        """Answer for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, name="broken-provider")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


async def read_columns(url: str) -> dict[str, bytes]:
    """Return what is in each column of each table that is not a number or a moment, as text."""
    engine = create_async_engine(url, poolclass=NullPool)
    found: dict[str, bytes] = {}
    async with engine.connect() as connection:
        metadata = MetaData()
        await connection.run_sync(metadata.reflect)
        for table in metadata.tables.values():
            rows = (await connection.execute(select(table))).mappings().all()
            for column in _texts(table):
                values = [row[column] for row in rows]
                found[f"{table.name}.{column}"] = "\n".join(map(_text, values)).encode()
    await engine.dispose()
    return found


def _texts(table: Table) -> list[str]:
    others = ("INTEGER", "BIGINT", "BOOLEAN", "TIMESTAMP", "DATETIME", "UUID")
    return [column.name for column in table.columns if not str(column.type).startswith(others)]


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
