"""Spans that are made when somebody has a use for them: the same as those that were made at once."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)

from app.observability.late_spans import DecidedIds, LateSpan

TRACE = 0x0AF7651916CD43DD8448EB211C80319C


def span_context(flags: int, *state: tuple[str, str]) -> SpanContext:
    return SpanContext(TRACE, 7, True, TraceFlags(flags), TraceState(state))


OTHER = span_context(TraceFlags.SAMPLED)
PARENTS: dict[str, Context | SpanContext] = {
    "none": Context(),
    "sampled": span_context(TraceFlags.SAMPLED),
    "random": span_context(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID, ("vendor", "1")),
}


class _Started(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        self.spans.append(span)


class Tracing:
    def __init__(self, sampler: Sampler | None = None) -> None:
        self.started = _Started()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(id_generator=DecidedIds(), sampler=sampler)
        provider.add_span_processor(self.started)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("x")

    def late(self, parent: Context | SpanContext | None = None) -> LateSpan:
        return LateSpan(self.tracer, "GET", SpanKind.SERVER, as_context(parent), TRACE)

    def ended(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()


def as_context(parent: Context | SpanContext | None) -> Context:
    if isinstance(parent, SpanContext):
        return trace.set_span_in_context(NonRecordingSpan(parent), Context())
    return parent or Context()


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


def test_a_span_that_nobody_has_a_use_for_is_not_made(tracing: Tracing) -> None:
    span = tracing.late()
    assert span.is_recording()
    assert span.ids[0] == f"{TRACE:032x}"
    assert len(span.ids[1]) == 16
    span.close()
    assert not span.is_recording()
    assert not tracing.started.spans


@pytest.mark.parametrize("parent", PARENTS)
def test_it_is_what_the_tracer_makes_at_once(tracing: Tracing, parent: str) -> None:
    context = as_context(PARENTS[parent])
    late = tracing.late(context)
    at_once = tracing.tracer.start_span("GET", context, SpanKind.SERVER)
    late.made().end()
    at_once.end()
    expected, found = sorted(tracing.ended(), key=lambda span: span.start_time or 0, reverse=True)
    assert expected.context is not None
    assert found.context is not None
    assert late.get_span_context() == found.context
    assert late.ids == (f"{found.context.trace_id:032x}", f"{found.context.span_id:016x}")
    assert found.context.trace_id == TRACE
    for what in ("name", "kind", "parent", "status", "resource", "instrumentation_scope"):
        assert getattr(found, what) == getattr(expected, what), what
    for what in ("trace_flags", "trace_state", "is_remote"):
        assert getattr(found.context, what) == getattr(expected.context, what), what
    assert (found.start_time or 0) <= (expected.start_time or 0), "it began before it was made"


def has_attribute(span: ReadableSpan) -> bool:
    return (span.attributes or {})["a"] == 1


USES: dict[str, tuple[Callable[[Span], object], Callable[[ReadableSpan], object]]] = {
    "attribute": (lambda span: span.set_attribute("a", 1), has_attribute),
    "attributes": (lambda span: span.set_attributes({"a": 1}), has_attribute),
    "event": (lambda span: span.add_event("e", {"a": 1}, 5), lambda span: span.events[0].timestamp == 5),
    "link": (lambda span: span.add_link(OTHER), lambda span: span.links[0].context == OTHER),
    "name": (lambda span: span.update_name("other"), lambda span: span.name == "other"),
    "status": (
        lambda span: span.set_status(StatusCode.ERROR, "why"),
        lambda span: (span.status.status_code, span.status.description) == (StatusCode.ERROR, "why"),
    ),
    "exception": (
        lambda span: span.record_exception(ValueError("x"), {"a": 1}),
        lambda span: (span.events[0].attributes or {})["exception.message"] == "x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_it_takes_what_any_span_takes_until_it_is_closed(tracing: Tracing, use: str) -> None:
    tell, is_told = USES[use]
    span, closed = tracing.late(), tracing.late()
    tell(span)
    closed.close()
    tell(closed)
    for one in (span, closed):
        one.made().end()
    told, kept_out = tracing.ended()
    assert is_told(told)
    assert (kept_out.name, kept_out.status.status_code) == ("GET", StatusCode.UNSET)
    assert not kept_out.attributes
    assert not kept_out.events
    assert not kept_out.links


def test_who_writes_a_closed_span_down_needs_nobodys_leave(tracing: Tracing) -> None:
    span = tracing.late()
    span.set_attribute("a", 1)
    assert span.close()
    span.end(5)
    span.set_attribute("c", 3)
    assert span.close() is None
    assert not tracing.ended()
    span.made().set_attribute("b", 2)
    span.made().end(9)
    (ended,) = tracing.ended()
    assert (ended.end_time, dict(ended.attributes or {})) == (9, {"a": 1, "b": 2})
    assert not span.is_recording()


def test_who_uses_it_may_end_it_and_then_it_takes_nothing_but_is_not_written_down_yet(
    tracing: Tracing,
) -> None:
    span = tracing.late()
    span.end(5)
    span.end(6)
    span.set_attribute("a", 1)
    assert not span.is_recording()
    assert not tracing.started.spans
    assert span.close() == 5
    assert span.close() is None


def test_a_block_that_fails_has_its_exception_in_the_span(tracing: Tracing) -> None:
    span = tracing.late()
    with pytest.raises(ValueError, match="in the block"), span:
        raise ValueError("in the block")
    span.made().end(span.close())
    (ended,) = tracing.ended()
    assert ended.status.status_code is StatusCode.ERROR
    assert [event.name for event in ended.events] == ["exception"]


def test_a_span_inside_of_it_is_its_child(tracing: Tracing) -> None:
    parent = tracing.late()
    with trace.use_span(parent, end_on_exit=True), tracing.tracer.start_as_current_span("inner"):
        assert trace.get_current_span() is not parent
    parent.made().end(parent.close())
    inner, outer = tracing.ended()
    assert inner.parent == outer.context == parent.get_span_context()
    assert inner.context is not None
    assert outer.context is not None
    assert inner.context.trace_id == TRACE
    assert inner.context.span_id != outer.context.span_id


def test_what_the_sdks_span_has_beyond_the_interface_is_there(tracing: Tracing) -> None:
    span: Any = tracing.late()
    span.set_attribute("a", 1)
    assert (dict(span.attributes), span.name, span.kind) == ({"a": 1}, "GET", SpanKind.SERVER)
    with pytest.raises(AttributeError):
        _ = span.no_such_thing
    with pytest.raises(AttributeError):
        _ = tracing.late().__no_such_thing__


def test_threads_that_come_at_once_have_one_span_between_them() -> None:
    tracing = Tracing()
    for _ in range(50):
        span = tracing.late()
        barrier = threading.Barrier(4)

        def use(number: int, span: LateSpan = span, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(60)
            span.set_attribute(str(number), number)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        span.made().end()
    assert [len(span.attributes or {}) for span in tracing.ended()] == [4] * 50
    assert len(tracing.started.spans) == 50


def test_one_that_a_sampler_drops_is_no_trouble() -> None:
    tracing = Tracing(ALWAYS_OFF)
    span = tracing.late()
    span.set_attribute("a", 1)
    assert not span.is_recording()
    assert not span.get_span_context().trace_flags.sampled
    span.close()
    span.made().end()
    assert not tracing.ended()


def test_ids_are_decided_for_one_span_only(tracing: Tracing) -> None:
    decided = tracing.late().made().get_span_context()
    others = [tracing.tracer.start_span("x", Context()).get_span_context() for _ in range(3)]
    assert decided.trace_id == TRACE
    assert TRACE not in {other.trace_id for other in others}
    assert len({context.span_id for context in (decided, *others)}) == 4


def test_a_span_that_a_processor_begins_meanwhile_has_ids_of_its_own() -> None:
    tracing = Tracing()
    begun: list[Span] = []

    class Begins(SpanProcessor):
        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            if span.name == "GET":
                begun.append(tracing.tracer.start_span("beside", Context()))

    tracing.tracer.span_processor.add_span_processor(Begins())  # type: ignore[attr-defined]
    span = tracing.late()
    context = span.get_span_context()
    (beside,) = begun
    assert beside.get_span_context().span_id != context.span_id
    assert beside.get_span_context().trace_id != TRACE


def test_a_processor_may_ask_for_the_current_span_meanwhile() -> None:
    tracing = Tracing()
    current: list[SpanContext] = []

    class Asks(SpanProcessor):
        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            current.append(trace.get_current_span().get_span_context())

    tracing.tracer.span_processor.add_span_processor(Asks())  # type: ignore[attr-defined]
    span = tracing.late(PARENTS["sampled"])
    with trace.use_span(span):
        assert span.get_span_context().span_id != 7
    assert current == [PARENTS["sampled"]]


def test_a_copy_has_the_same_ids(tracing: Tracing) -> None:
    span = tracing.late()
    assert copy.copy(span).ids == span.ids
    assert span.ids[1] in repr(span)
