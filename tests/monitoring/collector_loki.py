"""What stands for Loki behind the collector: it takes OTLP and decodes it, or refuses it."""

import threading
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tests.listener import Answer, Asked, Listener
from tests.otlp import attributes


@dataclass(frozen=True, slots=True)
class ReceivedLine:
    """One line: `labels` is its resource, of which Loki makes streams; `metadata` is the rest."""

    body: str
    labels: dict[str, Any]
    metadata: dict[str, Any]
    severity: str
    severity_number: int
    seconds: float
    trace_id: str
    span_id: str


class LokiReceiver(Listener):
    """Keeps every line, unless `status` says that it answers with something else than 200."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._lines: list[ReceivedLine] = []
        self.status = 200
        self.paths: set[str] = set()

    @property
    def otlp_url(self) -> str:
        """What stands for http://loki:3100/otlp."""
        return f"{self.url}/otlp"

    def answer(self, asked: Asked) -> Answer:
        """Take the lines."""
        if self.status == 200:
            request = ExportLogsServiceRequest.FromString(asked.body)
            with self._lock:
                self.paths.add(asked.path)
                for resource in request.resource_logs:
                    labels = attributes(resource.resource.attributes)
                    for scope in resource.scope_logs:
                        self._lines += [_line(labels, record) for record in scope.log_records]
        body = ExportLogsServiceResponse().SerializeToString()
        return Answer(self.status, body, "application/x-protobuf")

    def lines(self, containing: str = "") -> list[ReceivedLine]:
        """Return what has arrived, in order."""
        with self._lock:
            return [line for line in self._lines if containing in line.body]


def _line(labels: dict[str, Any], record: LogRecord) -> ReceivedLine:
    return ReceivedLine(
        body=record.body.string_value,
        labels=labels,
        metadata=attributes(record.attributes),
        severity=record.severity_text,
        severity_number=record.severity_number,
        seconds=record.time_unix_nano / 1e9,
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
    )
