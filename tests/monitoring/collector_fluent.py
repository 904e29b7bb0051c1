"""What Docker's fluentd log driver sends, message by message.

(Source: Fluentd's forward protocol specification v1, message mode, with the event time of its extension
type 0; the keys are those of Docker's driver, which sends text in pieces of 16 KiB at most.)
"""

import secrets
import socket
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

PIECE: Final = 16_384


class FluentClient:
    """One container's driver: a connection over which lines go, each as a message of its own."""

    def __init__(self, port: int, *, tag: str) -> None:
        self._tag = tag
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=15)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def say(self, line: str, *, source: str = "stdout", at: float | None = None) -> None:
        """Send what a container wrote: one message, or several when the line is long."""
        raw = line.encode()
        pieces = [raw[begin : begin + PIECE] for begin in range(0, len(raw), PIECE)] or [b""]
        partial = secrets.token_hex(32)
        for number, piece in enumerate(pieces, 1):
            record = {
                "container_id": secrets.token_hex(32),
                "container_name": f"/glasshouse-{self._tag}-1",
                "source": source,
                "log": piece.decode(errors="replace"),
            }
            if len(pieces) > 1:
                record |= {
                    "partial_message": "true",
                    "partial_id": partial,
                    "partial_ordinal": str(number),
                    "partial_last": "true" if number == len(pieces) else "false",
                }
            self._socket.sendall(_message(self._tag, time.time() if at is None else at, record))


def _message(tag: str, at: float, record: Mapping[str, str]) -> bytes:
    event_time = b"\xd7\x00" + struct.pack(">II", int(at), int(at % 1 * 1e9))
    fields = b"".join(_text(key) + _text(value) for key, value in record.items())
    return b"\x93" + _text(tag) + event_time + bytes([0x80 | len(record)]) + fields


def _text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < 32:
        return bytes([0xA0 | len(raw)]) + raw
    return b"\xdb" + struct.pack(">I", len(raw)) + raw
