"""Spans as any program may send them, with times and words of the test's choice."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def new_trace() -> str:
    """Return the id of a trace that nobody else has."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class SentSpan:
    """One span; `begins` is in seconds from now on."""

    trace_id: str
    name: str = "GET /v1/orders"
    service: str = "glasshouse"
    kind: str = "SERVER"
    seconds: float = 0.01
    begins: float = 0.0
    failed: bool = False
    status: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    resource: Mapping[str, Any] = field(default_factory=dict)
    event: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of an event called `exception`."""
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))
    parent_id: str = ""


def send(url: str, *spans: SentSpan) -> httpx2.Response:
    """Send spans to an OTLP receiver, each with a resource of its own; return the answer."""
    request = ExportTraceServiceRequest()
    now = time.time()
    for one in spans:
        resource = request.resource_spans.add()
        about = {"service.name": one.service, **one.resource}
        resource.resource.attributes.extend(_pairs(about))
        begin = int((now + one.begins) * 1e9)
        span = Span(
            trace_id=bytes.fromhex(one.trace_id),
            span_id=bytes.fromhex(one.span_id),
            parent_span_id=bytes.fromhex(one.parent_id),
            name=one.name,
            kind=Span.SpanKind.Value(f"SPAN_KIND_{one.kind}"),
            start_time_unix_nano=begin,
            end_time_unix_nano=begin + int(one.seconds * 1e9),
            attributes=_pairs(one.attributes),
            status=Status(
                code=Status.STATUS_CODE_ERROR if one.failed else Status.STATUS_CODE_UNSET,
                message=one.status,
            ),
        )
        if one.event:
            happened = span.events.add()
            happened.name = "exception"
            happened.attributes.extend(_pairs(one.event))
        resource.scope_spans.add().spans.append(span)
    return httpx2.post(
        f"{url}/v1/traces",
        content=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
        timeout=15,
    )


def _pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, dict):
        structure = AnyValue()
        structure.kvlist_value.values.extend(_pairs(value))
        return structure
    return AnyValue(string_value=str(value))
