"""Spans as OTLP on the wire, redacted: most attributes come again and again, and are encoded once.

The exporter of OpenTelemetry makes three protobuf objects of each attribute of each span, and holds the
interpreter while it does so: 40 µs a span, which requests wait for. But a message on the wire is the
same as its fields on the wire, one after the other (protobuf.dev, "Encoding", "Last One Wins" and the
following), so encoded attributes can be kept and put together. Most pieces are encoded by the library, and
what each request has others of, ids and ports, is here;
tests/unit/observability/test_span_encoding.py compares the whole with what the library makes of it.

What is that cheap is done where the span ends, for a few spans in a row (`prepare`): a thread that wants
the interpreter for it takes it from a request each time, and costs more than the encoding. What is not,
such as an exception with its stack or a long text that a client has sent, is left to the exporter's thread.

Must never keep a value in memory that redaction.py would take out.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from struct import Struct
from time import sleep
from typing import Any, Final, cast

from opentelemetry.exporter.http.transport._urllib3 import Urllib3HTTPTransport
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags
from opentelemetry.proto.trace.v1.trace_pb2 import Span as EncodedSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status as EncodedStatus
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from requests.utils import get_environ_proxies, get_netrc_auth, select_proxy

MAX_KEPT: Final = 4096
MAX_KEPT_LENGTH: Final = 128
OFTEN_AND_LONG: Final = {"db.query.text": 2048}
"""Attributes of which longer values are kept, too, up to so many characters: of statements there are only as
many as the program has, and to look through one for secrets takes 30 µs."""
SPANS_IN_A_ROW: Final = 8
"""Requests wait for so many at a time."""
MAX_AT_ONCE: Final = 512
"""Characters of one span that requests wait for to be looked through for secrets, beside what is known."""
PAUSE_SECONDS: Final = 0.0002
"""For so long a thread leaves the interpreter to them."""
SELDOM_TWICE: Final = frozenset(
    {"url.path", "url.query", "url.full", "client.address", "client.port"}
)
"""Attributes whose values hardly ever come again, as ids do: kept, they would push the others out."""
NOT_IN_ROWS: Final = frozenset({"user_agent.original"})
"""Attributes that come again, but each time with other ones."""
MAX_ROWS: Final = 512
"""What has come together is kept together: so many rows of attributes at the most."""

# The number of a field and the type "bytes follow their length", as both are written.
_RESOURCE_SPANS: Final = b"\x0a"
_SCOPE_SPANS: Final = b"\x12"
_SPANS: Final = b"\x12"
# The same of a span's own fields of a fixed length, with that length; the times are eight bytes as they are.
_TRACE_ID: Final = b"\x0a\x10"
_SPAN_ID: Final = b"\x12\x08"
_PARENT_SPAN_ID: Final = b"\x22\x08"
_ATTRIBUTE: Final = b"\x4a"
_OF_KEY_VALUE: Final = b"\x0a"
_VALUE: Final = b"\x12"
_STRING: Final = b"\x0a"
_INT: Final = b"\x18"
_TOO_MUCH: Final = 1 << 63
"""For a protobuf's int64; the library says so."""
_START, _END = 0x39, 0x41
_OUR_OWN: Final[int] = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_FROM_AFAR: Final[int] = _OUR_OWN | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
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
        self._frames: dict[tuple[int, int], _Frame] = {}
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._rows: dict[tuple[object, ...], bytes] = {}

    def prepare(self, span: ReadableSpan) -> "ReadableSpan | PreparedSpan":
        """Encode `span` if that takes little; else `encode` will. Never raises: that is for `encode`, too."""
        try:
            if _is_plain(span):
                encoded = _field(_SPANS, self._plain(span, MAX_AT_ONCE))
                return PreparedSpan(span.context, self._frame(span), encoded)
        except Exception:  # noqa: BLE001 - who cannot export a span counts it as lost, as it does there
            return span
        return span

    def encode(self, spans: "Sequence[ReadableSpan | PreparedSpan]") -> bytes:
        """Return an ExportTraceServiceRequest."""
        groups: dict[_Frame, list[bytes]] = {}
        encoded_here = 0
        for span in spans:
            if isinstance(span, PreparedSpan):
                frame, encoded = span.frame, span.encoded
            else:
                encoded_here += 1
                if encoded_here % SPANS_IN_A_ROW == 0:
                    sleep(PAUSE_SECONDS)
                frame, encoded = self._frame(span), _field(_SPANS, self._span(span))
            groups.setdefault(frame, []).append(encoded)
        parts = []
        for frame, several in groups.items():
            in_scope = _field(_SCOPE_SPANS, frame.scope + b"".join(several))
            parts.append(_field(_RESOURCE_SPANS, frame.resource + in_scope))
        return b"".join(parts)

    def _frame(self, span: ReadableSpan) -> "_Frame":
        """Return what stands around the spans of one resource and one scope."""
        # By identity: to hash a resource is to write it down as JSON.
        whose = id(span.resource), id(span.instrumentation_scope)
        frame = self._frames.get(whose)
        if frame is None:
            if len(self._frames) >= MAX_KEPT:
                self._frames.clear()
            (around,) = encode_spans([self._redact(span)]).resource_spans
            (scope,) = around.scope_spans
            frame = self._frames[whose] = _Frame(
                ResourceSpans(resource=around.resource, schema_url=around.schema_url),
                ScopeSpans(scope=scope.scope, schema_url=scope.schema_url),
                (span.resource, span.instrumentation_scope),
            )
        return frame

    def _span(self, span: ReadableSpan) -> bytes:
        if _is_plain(span):
            # What is left is a value that has another type, or that cannot be encoded: the library
            # knows what to say of it.
            with suppress(TypeError, ValueError, KeyError):
                return self._plain(span)
        (around,) = encode_spans([self._redact(span)]).resource_spans
        encoded: bytes = around.scope_spans[0].spans[0].SerializeToString()
        return encoded

    def _plain(self, span: ReadableSpan, most: float = math.inf) -> bytes:
        """Encode it, or raise _TooLong where more than `most` characters have to be looked through."""
        context, parent = span.context, span.parent
        assert context is not None  # noqa: S101 - it has ended
        flags = _FROM_AFAR if parent is not None and parent.is_remote else _OUR_OWN
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
            # The SDK's own mapping answers item by item, each time by way of Python.
            copy = getattr(attributes, "copy", None)
            self._add_attributes(copy() if copy is not None else attributes, parts, most)
        return b"".join(parts)

    def _add_attributes(
        self, attributes: Mapping[str, AttributeValue], parts: list[bytes], most: float
    ) -> None:
        """Encode attributes: those of which rows are kept at once, the others one by one.

        Raises:
            ValueError: One has a secret in its name, and is for the library to encode, redacted.
        """
        names, values = tuple(attributes), tuple(attributes.values())
        shape = self._shapes.get(names)
        if shape is None:
            if len(self._shapes) >= MAX_KEPT:
                self._shapes.clear()
            if any(self._redact_name(name) != name for name in names):
                raise ValueError(_NOT_CLEAN)
            shape = self._shapes[names] = _Shape(names)
        together = shape.together(values)
        row = names, together, tuple(map(type, together))  # True is equal to 1
        known = self._rows.get(row)
        if known is not None:
            parts.append(known)
        for place in shape.places if known is None else shape.alone:
            key, value = names[place], values[place]
            encoded = self._attributes.get((key, value, type(value)))
            if encoded is None:
                most -= _length(value)
                if most < 0:
                    raise _TooLong
                encoded = self._attribute(key, value)
            parts.append(encoded)
        if known is None:
            self._keep(shape, row)

    def _keep(self, shape: "_Shape", row: "_Row") -> None:
        """Keep a row, if each of its attributes is kept."""
        parts = [self._attributes.get(one) for one in zip(shape.in_rows, *row[1:], strict=True)]
        if None not in parts:
            if len(self._rows) >= MAX_ROWS:
                self._rows.clear()
            self._rows[row] = b"".join(cast("list[bytes]", parts))

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
        encoded = _encoded(key, shown)
        if _comes_once(key) or isinstance(value, float):  # 0.0 is equal to -0.0
            return encoded
        if shown == value and len(str(value)) <= OFTEN_AND_LONG.get(key, MAX_KEPT_LENGTH):
            if len(self._attributes) >= MAX_KEPT:
                self._attributes.clear()
            self._attributes[key, value, type(value)] = encoded
        return encoded


@lru_cache(maxsize=1024)
def _comes_once(key: str) -> bool:
    """Whether an attribute has hardly ever the same value twice."""
    return key in SELDOM_TWICE or key.endswith((".id", "_id"))


_Row = tuple[tuple[str, ...], tuple[AttributeValue, ...], tuple[type, ...]]
"""The names of all of a span's attributes, and values and types of those that are kept together."""


class _Shape:
    """Which of the attributes of some names are kept together."""

    __slots__ = ("alone", "in_rows", "places", "together")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.places = range(len(names))
        alone = {name for name in names if name in NOT_IN_ROWS or _comes_once(name)}
        self.alone = [place for place in self.places if names[place] in alone]
        self.in_rows = [name for name in names if name not in alone]
        self.together = _getter([place for place in self.places if place not in self.alone])
        """Takes the values of the latter from all values."""


_NOT_CLEAN: Final = "a name of an attribute has a secret in it"
_Values = tuple[AttributeValue, ...]


def _getter(places: Sequence[int]) -> Callable[[_Values], _Values]:
    if len(places) > 1:
        return cast("Callable[[_Values], _Values]", itemgetter(*places))
    return lambda values: tuple(values[place] for place in places)


class _TooLong(Exception):
    """There is more to look through than requests should wait for."""


def _length(value: AttributeValue) -> float:
    if isinstance(value, str):
        return len(value)
    return 0 if isinstance(value, (bool, int, float)) else math.inf


class PreparedSpan:
    """A span that is encoded, as a field of what stands around it."""

    __slots__ = ("context", "encoded", "frame")

    def __init__(self, context: SpanContext | None, frame: "_Frame", encoded: bytes) -> None:
        self.context = context
        self.frame = frame
        self.encoded = encoded


def _is_plain(span: ReadableSpan) -> bool:
    return not (
        span._events  # asked for by its name, a list is copied
        or span._links
        or span.dropped_attributes
        or span.status.description
        or (span.context is not None and span.context.trace_state)
    )


class _Frame:
    """A resource and a scope, encoded; they are kept, so that nothing else gets their identity."""

    __slots__ = ("_of", "resource", "scope")

    def __init__(self, resource: ResourceSpans, scope: ScopeSpans, of: object) -> None:
        self.resource: bytes = resource.SerializeToString()
        self.scope: bytes = scope.SerializeToString()
        self._of = of


_SCALARS: Final[dict[type, str]] = {
    bool: "bool_value",
    int: "int_value",
    float: "double_value",
}


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return _field(_OF_KEY_VALUE, key.encode())


def _encoded(key: str, shown: AttributeValue) -> bytes:
    """Encode an attribute that was redacted."""
    if isinstance(shown, str):
        text = shown.encode()
        return _before(key, len(text)) + text
    if type(shown) is int and 0 <= shown < _TOO_MUCH:
        return _int_attribute(key, shown)
    field: Any = {_SCALARS[type(shown)]: shown}
    one = KeyValue(key=key, value=AnyValue(**field))
    encoded: bytes = EncodedSpan(attributes=[one]).SerializeToString()
    return encoded


@lru_cache(maxsize=4096)
def _before(key: str, length: int) -> bytes:
    """Return what stands before the `length` bytes of a text: most that are not kept are ids, all as long."""
    text = bytes(length)
    whole = _field(_ATTRIBUTE, _key(key) + _field(_VALUE, _field(_STRING, text)))
    return whole[: len(whole) - length]


@lru_cache(maxsize=1024)
def _int_attribute(key: str, number: int) -> bytes:
    return _field(_ATTRIBUTE, _key(key) + _field(_VALUE, _INT + _varint(number)))


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def span_exporter(endpoint: str, *, timeout: float) -> "EncodedSpanExporter":
    """Return an exporter to `endpoint`, whose requests take `timeout` seconds at the most.

    The library brings two ways to send them. Its usual one, by requests, takes 1.1 ms of the interpreter's
    time for each, and the event loop waits meanwhile; urllib3 alone takes 0.5 ms, and knows of no proxies,
    no netrc and no credential providers. It is taken where nothing of that is asked for. (How to name it is
    private to the library, whose version is pinned.)
    """
    if _needs_requests(endpoint):
        return EncodedSpanExporter(endpoint, timeout=timeout)
    return EncodedSpanExporter(endpoint, timeout=timeout, _transport=Urllib3HTTPTransport())


def _needs_requests(endpoint: str) -> bool:
    return (
        not endpoint.startswith("http://")
        or select_proxy(endpoint, get_environ_proxies(endpoint, None)) is not None
        or get_netrc_auth(endpoint) is not None
        or any(name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ)
    )


class EncodedSpanExporter(OTLPSpanExporter):
    """OpenTelemetry's exporter, for spans that are encoded already."""

    def export_encoded(self, request: bytes) -> SpanExportResult:
        """Send an ExportTraceServiceRequest, with the exporter's own retries and time-outs."""
        if self._shutdown or not self._client.export(request).success:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS
