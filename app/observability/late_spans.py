"""A span that is made when somebody has a use for it, and until then is its ids and its beginning.

The SDK takes as long to make a span as a request takes to pass all of our layers. Most requests never look
at theirs: nobody has a use for it before it is written down, behind the answer. Who asks the current span
for anything but whether it records, or begins another inside of it, has it made there and then, by the
tracer, with the ids and the beginning that it would have had.
"""

from contextvars import ContextVar
from time import time_ns
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AnyValue, Attributes

_NOTHING: Final = 0, 0
_decided: ContextVar[tuple[int, int]] = ContextVar("glasshouse_decided_ids", default=_NOTHING)
_random: Final = RandomIdGenerator()


class DecidedIds(RandomIdGenerator):
    """Gives a span the ids that were decided on before it was made, and all others random ones."""

    def generate_trace_id(self) -> int:
        """Return the trace id of a span that begins a trace."""
        trace_id, _ = _decided.get()
        return trace_id or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Return the id of a span."""
        _, span_id = _decided.get()
        if not span_id:
            return super().generate_span_id()
        _decided.set(_NOTHING)  # they are for one span
        return span_id


class LateSpan(Span):
    """A span of a tracer whose ids are DecidedIds. Any thread may use it, as any span."""

    _span: Span | None = None
    _closed: int | None = None

    def __init__(
        self, tracer: Tracer, name: str, kind: SpanKind, parent: Context, trace_id: int
    ) -> None:
        """Begin it now. `trace_id` is that of `parent`, if it has one."""
        self._beginning = time_ns()
        self._tracer = tracer
        self._name = name
        self._kind = kind
        self._parent = parent
        self._decided = trace_id, _random.generate_span_id()

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of its trace and itself in hexadecimal. Nothing is made for them."""
        trace_id, span_id = self._decided
        return trace_id.to_bytes(16).hex(), span_id.to_bytes(8).hex()

    def made(self) -> Span:
        """Return the tracer's span, which is made the first time."""
        span = self._span
        if span is None:
            token = _decided.set(self._decided)
            try:
                span = self._tracer.start_span(
                    self._name, self._parent, self._kind, start_time=self._beginning
                )
            finally:
                _decided.reset(token)
            # Of two threads that come at once, both have that of the first.
            span = vars(self).setdefault("_span", span)
            _close(span, self._closed)
        return span

    def close(self, end: int | None) -> None:
        """Take nothing more from anybody, as a span that has ended, `end` nanoseconds since the epoch.

        With None it takes something again, from who writes it down.
        """
        self._closed = end
        if self._span is not None:
            _close(self._span, end)

    def is_recording(self) -> bool:
        """Whether it takes anything."""
        if self._span is None:
            return self._closed is None
        return self._span.is_recording()

    # Whoever uses it has a use for it -----------------------------------------------------------------

    def get_span_context(self) -> SpanContext:
        """Return its ids and flags, as those need who begin another span inside of it."""
        return self.made().get_span_context()

    def end(self, end_time: int | None = None) -> None:
        """End it."""
        self.made().end(end_time)

    def set_attributes(self, attributes: Any) -> None:
        """Set several attributes."""
        self.made().set_attributes(attributes)

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Set one attribute."""
        self.made().set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add an event."""
        self.made().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a link to another span."""
        self.made().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        """Name it."""
        self.made().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went."""
        self.made().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception."""
        self.made().record_exception(exception, attributes, timestamp, escaped)

    def __getattr__(self, name: str) -> Any:
        """Return what the SDK's span has beyond the interface, such as `attributes`."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.made(), name)


def _close(span: Span, end: int | None) -> None:
    if hasattr(span, "_end_time"):  # the SDK's; one that is not recorded takes nothing anyway
        span._end_time = end
