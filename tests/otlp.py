"""A real OTLP/HTTP receiver for tests: what the service exports, decoded from the wire.

(Source: OpenTelemetry protocol specification, OTLP/HTTP with binary protobuf.)
"""

import threading
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.listener import Answer, Asked, Listener


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span as it arrived; ids in lower-case hexadecimal, `parent_id` empty for a root."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    failed: bool
    scope: str = ""
    """The instrumentation scope: the library, or the part of ours, that made the span."""
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Attributes by the name of the event."""
    resource: dict[str, Any] = field(default_factory=dict)


class Receiver(Listener):
    """Keeps every span."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._spans: list[ReceivedSpan] = []
        self.refuses = False
        """Whether everything is answered with 400, which no exporter tries again."""

    def answer(self, asked: Asked) -> Answer:
        """Keep the spans, unless they are refused."""
        if not self.refuses:
            self._keep(ExportTraceServiceRequest.FromString(asked.body))
        body = ExportTraceServiceResponse().SerializeToString()
        return Answer(400 if self.refuses else 200, body, "application/x-protobuf")

    def spans(self, trace_id: str | None = None) -> list[ReceivedSpan]:
        """Return what has arrived, of one trace or of all."""
        with self._lock:
            return [span for span in self._spans if trace_id in {None, span.trace_id}]

    def _keep(self, request: ExportTraceServiceRequest) -> None:
        with self._lock:
            for resource in request.resource_spans:
                about = attributes(resource.resource.attributes)
                for scope in resource.scope_spans:
                    self._spans.extend(_span(about, scope.scope.name, span) for span in scope.spans)


def _span(resource: dict[str, Any], scope: str, span: Span) -> ReceivedSpan:
    return ReceivedSpan(
        service=resource.get("service.name", ""),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=attributes(span.attributes),
        failed=span.status.code == 2,  # STATUS_CODE_ERROR
        scope=scope,
        events={event.name: attributes(event.attributes) for event in span.events},
        resource=resource,
    )


def attributes(pairs: Any) -> dict[str, Any]:
    """Return attributes as they stand on the wire as a dictionary."""
    found: list[KeyValue] = list(pairs)
    return {pair.key: _value(pair.value) for pair in found}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
