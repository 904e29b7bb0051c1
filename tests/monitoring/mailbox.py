"""A mailbox for tests: takes every message that is handed over by SMTP, as Mailpit does in containers.

(Source: RFC 5321. Only what a sender without encryption and log-in needs.)
"""

import email.policy
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage

from tests.tools import wait_until


@dataclass(frozen=True, slots=True)
class Mail:
    """One e-mail that arrived."""

    recipients: tuple[str, ...]
    message: EmailMessage

    def part(self, kind: str) -> str:
        """Return the part that is `plain` or `html`."""
        body = self.message.get_body((kind,))
        assert isinstance(body, EmailMessage)
        return str(body.get_content()).replace("\r\n", "\n")


class Mailbox:
    """Takes every e-mail on a free port."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        mails = self.mails

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                recipients: list[str] = []
                self._say("220 mailbox")
                while line := self.rfile.readline():
                    command = line.strip().decode("ascii", "replace")
                    verb = command.partition(" ")[0].upper()
                    if verb == "RCPT":
                        recipients.append(command.partition(":")[2].partition(">")[0].strip("<> "))
                    if verb == "DATA":
                        self._say("354 go on")
                        mails.append(Mail(tuple(recipients), self._read_message()))
                    self._say("221 bye" if verb == "QUIT" else "250 ok")
                    if verb == "QUIT":
                        return

            def _say(self, line: str) -> None:
                self.wfile.write(line.encode() + b"\r\n")

            def _read_message(self) -> EmailMessage:
                lines = []
                while (line := self.rfile.readline()) not in {b".\r\n", b""}:
                    lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
                message = message_from_bytes(b"".join(lines), policy=email.policy.default)
                assert isinstance(message, EmailMessage)
                return message

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
        self._server.daemon_threads = True  # a sender that keeps its connection holds up no end
        self._server.block_on_close = False
        self.port: int = self._server.server_address[1]

    @contextmanager
    def running(self) -> Iterator["Mailbox"]:
        """Take e-mail for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, name="mailbox")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def wait_for(self, condition: Callable[[Mail], bool], what: str) -> Mail:
        """Wait for an e-mail and return it."""
        wait_until(lambda: any(map(condition, self.mails)), what, seconds=60)
        return next(filter(condition, self.mails))
