"""A server that speaks as much of the Sentry protocol as it takes to receive error events.

(Source: Sentry developer documentation, "Envelopes".) For what a real server makes of them there is
bugsink.py.
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Mailbox:
    """Listens on a free loopback port and keeps every event."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        mailbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                mailbox._keep(gzip.decompress(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.dsn = f"http://key@127.0.0.1:{self._server.server_port}/1"

    def events(self) -> list[dict[str, Any]]:
        """Return what has arrived."""
        with self._lock:
            return list(self._events)

    def _keep(self, envelope: bytes) -> None:
        lines = envelope.splitlines()[1:]  # behind the header of the envelope: headers and items
        with self._lock:
            for header, item in zip(lines[::2], lines[1::2], strict=True):
                if json.loads(header)["type"] == "event":
                    self._events.append(json.loads(item))

    @contextmanager
    def running(self) -> Iterator["Mailbox"]:
        """Receive for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, name="mailbox")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
