"""Where signals go: receivers that keep every byte, and a database read column by column."""

import threading

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import MetaData, Table, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.listener import Answer, Asked, Listener


class Receiver(Listener):
    """Takes whatever is posted and keeps headers and body, unpacked: for OTLP and for Sentry's protocol."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._received: list[bytes] = []
        self.bodies: list[bytes] = []

    def answer(self, asked: Asked) -> Answer:
        """Keep it."""
        # Credentials for this very receiver, whose place that is.
        ours = {"X-Sentry-Auth", "Authorization"}
        headers = [(k, v) for k, v in asked.headers.items() if k not in ours]
        with self._lock:
            self.bodies.append(asked.body)
            self._received.append(f"{asked.path} {headers}".encode() + b"\n" + asked.body)
        return Answer()

    def content(self) -> bytes:
        """Return everything that has arrived."""
        with self._lock:
            return b"\n".join(self._received)


def decoded_spans(receiver: Receiver) -> bytes:
    """Return every field of every span, link, event and resource as text; ids are in hexadecimal."""
    return "\n".join(
        str(ExportTraceServiceRequest.FromString(body)) for body in list(receiver.bodies)
    ).encode()


class BrokenProvider(Listener):
    """A payment provider whose answers cannot be understood and hold what nobody should repeat."""

    def __init__(self, answers: list[tuple[int, str]]) -> None:
        super().__init__()
        self._left = iter(answers)

    def answer(self, asked: Asked) -> Answer:
        """Give the next answer."""
        if asked.method == "GET":
            return Answer(200, b"{}")
        status, text = next(self._left, (500, ""))
        return Answer(status, text.encode())


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


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
