"""A server that speaks as much of the Sentry protocol as it takes to receive error events.

(Source: Sentry developer documentation, "Envelopes".) For what a real server makes of them there is
bugsink.py.
"""

import json
import threading
from typing import Any

from tests.listener import Answer, Asked, Listener


class Mailbox(Listener):
    """Keeps every event."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        self.dsn = f"http://key@127.0.0.1:{self.port}/1"

    def answer(self, asked: Asked) -> Answer:
        """Keep the events of the envelope."""
        self._keep(asked.body)
        return Answer()

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
