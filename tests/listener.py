"""What the receivers of the tests have in common: an HTTP server of one's own on a loopback port."""

import gzip
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self


class Asked(NamedTuple):
    """One request, its body unpacked."""

    method: str
    path: str
    headers: Message
    body: bytes


class Answer(NamedTuple):
    """What is answered."""

    status: int = 200
    body: bytes = b""
    media_type: str = "application/json"


class Listener(ABC):
    """Listens on a free port from the start and answers while `running`."""

    def __init__(self) -> None:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kind = self.headers.get("Content-Encoding", "")
                if kind == "gzip":
                    body = gzip.decompress(body)
                elif kind == "deflate":
                    body = zlib.decompress(body)
                answer = listener.answer(Asked(self.command, self.path, self.headers, body))
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.media_type)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_POST = do_GET  # noqa: N815 - the name is http.server's

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def answer(self, asked: Asked) -> Answer:
        """Return the answer to one request. Called from a thread for each connection."""

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Answer for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, name=type(self).__name__)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
