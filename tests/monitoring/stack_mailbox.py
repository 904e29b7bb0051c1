"""A mailbox for tests: takes every message that is handed over by SMTP, as Mailpit does in containers.

(Source: RFC 5321. Only what a sender without encryption and log-in needs.)
"""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from typing import Self


class Mailbox:
    """Listens on a free loopback port; answers while `running`."""

    def __init__(self) -> None:
        mailbox = self
        self._lock = threading.Lock()
        self._messages: list[Message] = []

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                mailbox._serve(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
        self._server.daemon_threads = True  # a sender that keeps its connection holds up no end
        self._server.block_on_close = False
        self.port: int = self._server.server_address[1]

    def messages(self) -> list[Message]:
        """Return what has arrived."""
        with self._lock:
            return list(self._messages)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Answer for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, name="Mailbox")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def _serve(self, session: socketserver.StreamRequestHandler) -> None:
        def say(line: str) -> None:
            session.wfile.write(line.encode() + b"\r\n")

        say("220 mailbox")
        while line := session.rfile.readline():
            verb = line.strip().upper()
            if verb == b"DATA":
                say("354 go on")
                body = b"".join(iter(session.rfile.readline, b".\r\n"))
                with self._lock:
                    self._messages.append(message_from_bytes(body))
            say("221 bye" if verb == b"QUIT" else "250 ok")
            if verb == b"QUIT":
                return
