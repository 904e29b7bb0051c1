"""A span that is made when somebody has a use for it, and until then is its ids and its beginning.

The SDK takes as long to make a span as a request takes to pass all of our layers. Most requests never look
at theirs: nobody has a use for it before it is written down, behind the answer. Who asks the current span
for anything but whether it records, or begins another inside of it, has it made there and then, by the
tracer, with the ids and the beginning that it would have had.
"""

import os
import threading
from contextvars import ContextVar
from time import time_ns
from types import TracebackType
from typing import Any, Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AnyValue, Attributes

_NOTHING: Final = 0, 0
_decided: ContextVar[tuple[int, int]] = ContextVar("glasshouse_decided_ids", default=_NOTHING)
_random: Final = RandomIdGenerator()
_making = threading.RLock()
"""Of two threads that come at once, one makes the span."""


def _forget_in_child() -> None:
    global _making  # noqa: PLW0603 - a thread that is not in the child may have it
    _making = threading.RLock()


os.register_at_fork(after_in_child=_forget_in_child)


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
    """A span of a tracer whose ids are DecidedIds. Any thread may use it, and use it too late.

    It is the only one that has the SDK's span, and takes nothing once it has ended or is closed: so who
    writes it down, and ends the SDK's, needs nobody's leave. (It is no instance of the SDK's classes, but has
    what they have.)
    """

    _made: Span | None = None
    _takes_nothing = _is_closed = False
    _ended: int | None = None

    def __init__(
        self, tracer: Tracer, name: str, kind: SpanKind, parent: Context, trace_id: int
    ) -> None:
        """Begin it now. `trace_id` is that of `parent`, if it has one."""
        self._begun = tracer, name, kind, parent, time_ns()
        self._decided = trace_id, _random.generate_span_id()

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of its trace and itself in hexadecimal. Nothing is made for them."""
        trace_id, span_id = self._decided
        return trace_id.to_bytes(16).hex(), span_id.to_bytes(8).hex()

    def made(self) -> Span:
        """Return the tracer's span, which is made the first time. For who writes it down, closed or not."""
        if self._made is not None:
            return self._made
        with _making:
            if self._made is None:
                tracer, name, kind, parent, beginning = self._begun
                decided = _decided.set(self._decided)
                # To processors nothing is current yet but the parent.
                token = attach(parent)
                try:
                    self._made = tracer.start_span(name, parent, kind, start_time=beginning)
                finally:
                    detach(token)
                    _decided.reset(decided)
            return self._made

    def close(self) -> int | None:
        """Take nothing more from anybody, as a span that has ended.

        Returns: When it has ended, in nanoseconds since the epoch: now, unless who used it has ended it
            before. None if it is closed already.
        """
        if self._is_closed:
            return None
        self._takes_nothing = self._is_closed = True
        return time_ns() if self._ended is None else self._ended

    def is_recording(self) -> bool:
        """Whether it takes anything."""
        return not self._takes_nothing and (self._made is None or self._made.is_recording())

    def __repr__(self) -> str:
        """Return its ids."""
        return "LateSpan(trace_id={}, span_id={})".format(*self.ids)

    # Whoever uses it has a use for it -----------------------------------------------------------------

    def get_span_context(self) -> SpanContext:
        """Return its ids and flags, as those need who begin another span inside of it."""
        return self.made().get_span_context()

    def end(self, end_time: int | None = None) -> None:
        """End it; what is known of it is still to be written down."""
        if not self._takes_nothing:
            self._ended = time_ns() if end_time is None else end_time
            self._takes_nothing = True

    def set_attributes(self, attributes: Any) -> None:
        """Set several attributes."""
        if not self._takes_nothing:
            self.made().set_attributes(attributes)

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Set one attribute."""
        if not self._takes_nothing:
            self.made().set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add an event."""
        if not self._takes_nothing:
            self.made().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a link to another span."""
        if not self._takes_nothing:
            self.made().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        """Name it."""
        if not self._takes_nothing:
            self.made().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went."""
        if not self._takes_nothing:
            self.made().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception."""
        if not self._takes_nothing:
            self.made().record_exception(exception, attributes, timestamp, escaped)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, with the exception that ends the block."""
        if isinstance(error, Exception):
            self.record_exception(error)
            self.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
        self.end()

    def __getattr__(self, name: str) -> Any:
        """Return what the SDK's span has beyond the interface, such as `attributes`."""
        if name.startswith("__") or name in {"_begun", "_decided"}:  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.made(), name)
