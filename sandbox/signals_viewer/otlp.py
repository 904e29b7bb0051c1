"""Spans out of the body of an OTLP/HTTP export (binary protobuf).

(Source: OpenTelemetry protocol specification 1.x, trace/v1/trace.proto.)
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships none
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from sandbox.signals_viewer.signals import MAX_NAME, MAX_TEXT, Span, SpanEvent, clean

MAX_ATTRIBUTES: Final = 64
MAX_EVENTS: Final = 32
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_BARE_SPAN_BYTES: Final = 500


class NotAnExport(ValueError):
    """The body is no ExportTraceServiceRequest."""


def decode_export(body: bytes) -> tuple[list[Span], int]:
    """Return the spans of an export, and how many could not be kept since their ids are not valid.

    Raises:
        NotAnExport: It cannot be read at all.
    """
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise NotAnExport("the body is no OTLP trace export in binary protobuf") from error
    spans, rejected = [], 0
    for resource in request.resource_spans:
        about = _attributes(resource.resource.attributes)
        service = clean(str(about.get("service.name") or "unknown service"), MAX_NAME)
        instance = clean(str(about.get("service.instance.id") or ""), MAX_NAME)
        for scope in resource.scope_spans:
            for span in scope.spans:
                if _has_valid_ids(span):
                    spans.append(_span(span, service, instance))
                else:
                    rejected += 1
    return spans, rejected


def encode_answer(rejected: int) -> bytes:
    """Return the answer to an export of which `rejected` spans were not kept."""
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = "a trace id has 16 bytes and a span id 8, not all 0"
    encoded: bytes = answer.SerializeToString()
    return encoded


def _has_valid_ids(span: trace_pb2.Span) -> bool:
    return (
        len(span.trace_id) == _TRACE_ID_BYTES
        and any(span.trace_id)
        and len(span.span_id) == _SPAN_ID_BYTES
        and any(span.span_id)
        and len(span.parent_span_id) in {0, _SPAN_ID_BYTES}
    )


def _span(span: trace_pb2.Span, service: str, instance: str) -> Span:
    attributes = _attributes(span.attributes)
    events = tuple(
        SpanEvent(clean(event.name, MAX_NAME), event.time_unix_nano, _attributes(event.attributes))
        for event in span.events[:MAX_EVENTS]
    )
    texts = orjson.dumps([attributes, [event.attributes for event in events]])
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else "",
        service=service,
        instance=instance,
        name=clean(span.name, MAX_NAME) or "(no name)",
        kind=_kind(span.kind),
        start=span.start_time_unix_nano,
        end=max(span.start_time_unix_nano, span.end_time_unix_nano),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        status_message=clean(span.status.message),
        attributes=attributes,
        events=events,
        size=_BARE_SPAN_BYTES + len(texts),
    )


def _kind(number: int) -> str:
    known = number in trace_pb2.Span.SpanKind.values()
    name = trace_pb2.Span.SpanKind.Name(trace_pb2.Span.SpanKind.ValueType(number)) if known else ""
    return name.removeprefix("SPAN_KIND_").lower() or "unspecified"


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    found = list(pairs)[:MAX_ATTRIBUTES]
    return {clean(pair.key, MAX_NAME): _short(_value(pair.value)) for pair in found}


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | dict):
        # As text where it is long: nobody reads it, and it has to be cut somewhere.
        text = orjson.dumps(value).decode()
        return value if len(text) <= MAX_TEXT else clean(text)
    return value


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {clean(pair.key, MAX_NAME): _value(pair.value) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return value.bytes_value.hex()
    if kind == "string_value":
        return clean(value.string_value)
    return getattr(value, kind) if kind else None
