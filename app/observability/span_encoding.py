"""Spans as OTLP on the wire, redacted: most attributes come again and again, and are encoded once.

The exporter of OpenTelemetry makes three protobuf objects of each attribute of each span, and holds the
interpreter while it does so: 40 µs a span, which requests wait for. But a message on the wire is the
same as its fields on the wire, one after the other (protobuf.dev, "Encoding", "Last One Wins" and the
following), so encoded attributes can be kept and put together. Every piece is encoded by the library;
tests/unit/observability/test_span_encoding.py compares the whole with what the library makes of it.

Must never keep a value in memory that redaction.py would take out.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import Struct
from typing import Any, Final, cast

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags
from opentelemetry.proto.trace.v1.trace_pb2 import Span as EncodedSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status as EncodedStatus
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from app.observability.redaction import Clean

MAX_KEPT: Final = 4096
MAX_KEPT_LENGTH: Final = 128
SELDOM_TWICE: Final = frozenset(
    {"request.id", "user.id", "url.path", "client.port", "order_id", "messaging.message.id"}
)
"""Attributes whose values hardly ever come again: kept, they would push the others out."""

# The number of a field and the type "bytes follow their length", as both are written.
_RESOURCE_SPANS: Final = b"\x0a"
_SCOPE_SPANS: Final = b"\x12"
_SPANS: Final = b"\x12"
# The same of a span's own fields of a fixed length, with that length; the times are eight bytes as they are.
_TRACE_ID: Final = b"\x0a\x10"
_SPAN_ID: Final = b"\x12\x08"
_PARENT_SPAN_ID: Final = b"\x22\x08"
_START, _END = 0x39, 0x41
_TIMES: Final = Struct("<BQBQ").pack


class SpanEncoder:
    """Encodes batches of spans, each attribute and name as redaction shows it."""

    def __init__(
        self,
        redact: Callable[[ReadableSpan], ReadableSpan],
        redact_attribute: Callable[[str, AttributeValue], AttributeValue],
        redact_name: Callable[[str], str],
    ) -> None:
        self._redact = redact
        self._redact_attribute = redact_attribute
        self._redact_name = redact_name
        self._attributes: dict[tuple[str, AttributeValue, type], bytes] = {}
        self._kinds: dict[tuple[str, SpanKind, StatusCode, int], bytes] = {}
        self._frames: dict[tuple[Resource, InstrumentationScope | None], tuple[bytes, bytes]] = {}

    def encode(self, spans: Sequence[ReadableSpan]) -> bytes:
        """Return an ExportTraceServiceRequest."""
        groups: dict[tuple[Resource, InstrumentationScope | None], list[bytes]] = {}
        for span in spans:
            group = groups.setdefault((span.resource, span.instrumentation_scope), [])
            group.append(_field(_SPANS, self._span(span)))
            if len(group) == 1:
                self._frame(span)
        parts = []
        for group_of, encoded in groups.items():
            of_resource, of_scope = self._frames[group_of]
            in_scope = _field(_SCOPE_SPANS, of_scope + b"".join(encoded))
            parts.append(_field(_RESOURCE_SPANS, of_resource + in_scope))
        return b"".join(parts)

    def _frame(self, span: ReadableSpan) -> None:
        """Have what stands around the spans of one resource and one scope."""
        group = (span.resource, span.instrumentation_scope)
        if group not in self._frames:
            (around,) = encode_spans([span]).resource_spans
            (scope,) = around.scope_spans
            of_resource = ResourceSpans(resource=around.resource, schema_url=around.schema_url)
            of_scope = ScopeSpans(scope=scope.scope, schema_url=scope.schema_url)
            self._frames[group] = of_resource.SerializeToString(), of_scope.SerializeToString()

    def _span(self, span: ReadableSpan) -> bytes:
        if not (
            span.events
            or span.links
            or span.dropped_attributes
            or span.status.description
            or (span.context is not None and span.context.trace_state)
        ):
            # What is left is a value that has another type, or that cannot be encoded: the library
            # knows what to say of it.
            with suppress(TypeError, ValueError, KeyError):
                return self._plain(span)
        (around,) = encode_spans([self._redact(span)]).resource_spans
        encoded: bytes = around.scope_spans[0].spans[0].SerializeToString()
        return encoded

    def _plain(self, span: ReadableSpan) -> bytes:
        context, parent = span.context, span.parent
        assert context is not None  # noqa: S101 - it has ended
        flags: int = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
        if parent is not None and parent.is_remote:
            flags |= SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
        parts = [
            _TRACE_ID,
            context.trace_id.to_bytes(16),
            _SPAN_ID,
            context.span_id.to_bytes(8),
            _TIMES(_START, span.start_time, _END, span.end_time),
            self._kind_of(span.name, span.kind, span.status.status_code, flags),
        ]
        if parent is not None:
            parts += (_PARENT_SPAN_ID, parent.span_id.to_bytes(8))
        if attributes := span.attributes:
            kept = self._attributes
            for key, value in attributes.items():
                encoded = kept.get((key, value, type(value)))
                parts.append(self._attribute(key, value) if encoded is None else encoded)
        return b"".join(parts)

    def _kind_of(self, name: str, kind: SpanKind, status: StatusCode, flags: int) -> bytes:
        """Return what many spans have in common."""
        kept = self._kinds.get((name, kind, status, flags))
        if kept is not None:
            return kept
        shown = self._redact_name(name)
        fields: dict[str, Any] = {
            "name": shown,
            "kind": kind.value + 1,  # unspecified is 0 there
            "status": EncodedStatus(code=cast("Any", status.value)),
            "flags": flags,
        }
        encoded: bytes = EncodedSpan(**fields).SerializeToString()
        if shown == name:
            if len(self._kinds) >= MAX_KEPT:
                self._kinds.clear()
            self._kinds[name, kind, status, flags] = encoded
        return encoded

    def _attribute(self, key: str, value: AttributeValue) -> bytes:
        shown = self._redact_attribute(key, value)
        field: Any = {_SCALARS[type(shown)]: shown}
        one = KeyValue(key=key, value=AnyValue(**field))
        encoded: bytes = EncodedSpan(attributes=[one]).SerializeToString()
        if shown == value and key not in SELDOM_TWICE and len(str(value)) <= MAX_KEPT_LENGTH:
            if len(self._attributes) >= MAX_KEPT:
                self._attributes.clear()
            self._attributes[key, value, type(value)] = encoded
        return encoded


_SCALARS: Final[dict[type, str]] = {
    str: "string_value",
    Clean: "string_value",
    bool: "bool_value",
    int: "int_value",
    float: "double_value",
}


def _field(tag: bytes, content: bytes) -> bytes:
    length, digits = len(content), bytearray(tag)
    while length > 0x7F:  # noqa: PLR2004 - seven bits a byte
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes(digits) + content


class EncodedSpanExporter(OTLPSpanExporter):
    """OpenTelemetry's exporter, for spans that are encoded already."""

    def export_encoded(self, request: bytes) -> SpanExportResult:
        """Send an ExportTraceServiceRequest, with the exporter's own retries and time-outs."""
        if self._shutdown or not self._client.export(request).success:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS
