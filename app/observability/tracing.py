"""Traces: what happened inside one request, message or operation, and in which order.

Owns: the tracer provider, the sampling decision, the X-Trace-ID response header, and the spans of
requests, SQL statements, Redis commands, outgoing calls, messages and business operations.

The decision is taken before OpenTelemetry's middleware. A request that is not sampled gets a trace id,
so that its logs, its answer and the services it calls carry one, and no more: the middleware costs as much
as a handler even when it records nothing. One that is sampled is recorded by server_spans.py. The provider is
ours and not the global one: no library (nor FastAPI itself) starts to trace on its own, and nothing delays
the end of the process.

Must never make a request wait for a collector. What becomes of a span that has ended is span_export.py's.
"""

import os
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import NoOpMeterProvider, NoOpUpDownCounter
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes, AttributeValue
from pydantic import Field, field_validator
from sqlalchemy import event
from starlette.background import BackgroundTask
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.middleware.errors import ServerErrorMiddleware

from app.observability.context import (
    TRACE_ID_HEADER,
    TRACE_IDS,
    UNMATCHED_ROUTE,
    RequestContextMiddleware,
    ServiceSettings,
    is_operational,
    request_context,
    route_template,
    use_trace_source,
)
from app.observability.executions import watch_executions
from app.observability.late_spans import DecidedIds, LateSpan
from app.observability.redaction import (
    Clean,
    redact_matched_path,
    redact_path,
    redact_text,
)
from app.observability.server_spans import ServerSpans, add_header, span_name, write_attributes
from app.observability.span_encoding import span_exporter
from app.observability.span_export import EXPORT_TIMEOUT_SECONDS, MAX_ATTRIBUTE, CountedSpans
from app.observability.statements import read_statement

if TYPE_CHECKING:
    from httpx2 import AsyncClient
    from redis.asyncio import Redis
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Read once by the instrumentations, when the first of them is put to use, which may be before setup_tracing.
# Without it they write the attribute names of 2021.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")

_LIMITS: Final = SpanLimits(
    max_span_attributes=64, max_events=32, max_attribute_length=2 * MAX_ATTRIBUTE
)


class TracingSettings(ServiceSettings):
    """Where spans go, and the share of requests that have any."""

    otel_exporter_otlp_endpoint: str = Field(
        "", description="Base URL of an OTLP/HTTP receiver. Empty: nothing is recorded."
    )
    otel_traces_sampler_arg: float | None = Field(
        None, ge=0, le=1, description="Share of traces. Unset: 0.01 in production, 1.0 elsewhere."
    )

    @field_validator("otel_traces_sampler_arg", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _is_a_base_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://, such as http://localhost:4318")
        return value.rstrip("/")

    @property
    def sampling_ratio(self) -> float:
        """The share of traces that begin here and are recorded."""
        if self.otel_traces_sampler_arg is not None:
            return self.otel_traces_sampler_arg
        return 0.01 if self.environment == "production" else 1.0


class _ShareOfTraces(ParentBased):
    """The library's ParentBased(TraceIdRatioBased), which has one answer for all requests that begin a trace.

    (The library makes it anew each time, with a state and attributes that are empty.)
    """

    def __init__(self, ratio: float) -> None:
        super().__init__(TraceIdRatioBased(ratio))
        self.bound = TraceIdRatioBased.get_bound_for_rate(ratio)
        """Below it are the trace ids of what is recorded; the lower 64 bits count."""
        nowhere = Context()
        self._to_record = ALWAYS_ON.should_sample(nowhere, 0, "")
        self._to_drop = ALWAYS_OFF.should_sample(nowhere, 0, "")

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        *args: Any,
        **options: Any,
    ) -> SamplingResult:
        """Decide: as the parent was, else by the trace's id."""
        if attributes or trace.get_current_span(parent_context) is not trace.INVALID_SPAN:
            return super().should_sample(
                parent_context, trace_id, name, kind, attributes, *args, **options
            )
        is_recorded = trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self.bound
        return self._to_record if is_recorded else self._to_drop


class Tracing:
    """The tracer provider of this process, its sampler and its way out."""

    def __init__(
        self,
        settings: TracingSettings,
        exporter: SpanExporter | None,
        on_drop: Callable[[int], None],
    ) -> None:
        sampler = _ShareOfTraces(settings.sampling_ratio)
        self._bound = sampler.bound
        self.provider = TracerProvider(
            sampler=sampler if exporter else ALWAYS_OFF,
            resource=_resource(settings),
            id_generator=DecidedIds(),
            span_limits=_LIMITS,
            shutdown_on_exit=False,  # it would wait for a dead collector; shutdown() is bounded
        )
        self._spans = CountedSpans(exporter, on_drop) if exporter else None
        if self._spans:
            self.provider.add_span_processor(self._spans)
        self.tracer = self.provider.get_tracer(settings.otel_service_name, settings.service_version)
        # OTEL_SDK_DISABLED makes it one that records nothing.
        self._records = exporter is not None and not isinstance(self.tracer, trace.NoOpTracer)
        self._is_over = False

    def is_over(self) -> bool:
        """Whether it was shut down: a span that ends now is lost, and counted at once."""
        return self._is_over

    def samples(self, parent: SpanContext, trace_id: int) -> bool:
        """Decide on a trace as the provider's sampler will: as its parent did, else by its id."""
        if not self._records:
            return False
        if parent is not _NO_PARENT and parent.is_valid:
            return parent.trace_flags.sampled
        return trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound

    def flush(self, timeout: float = 2.0) -> None:
        """Export what has ended so far, waiting at most `timeout` seconds."""
        _within(timeout, self.provider.force_flush)

    def shutdown(self, timeout: float = 2.0) -> None:
        """Export what is left, waiting at most `timeout` seconds; what did not make it is counted.

        Blocks, so call it from a thread where an event loop runs. Later calls do nothing.
        """
        global _active  # noqa: PLW0603 - see setup_tracing
        if _active is self:
            _active = None
        self._is_over = True
        _within(timeout, self.provider.shutdown)
        if self._spans:
            self._spans.close()


_active: Tracing | None = None


def setup_tracing(
    settings: TracingSettings,
    *,
    exporter: SpanExporter | None = None,
    on_drop: Callable[[int], None] | None = None,
) -> Tracing:
    """Make this process's tracing. The last call counts for the functions of this module.

    Args:
        exporter: Where spans go instead of `otel_exporter_otlp_endpoint`.
        on_drop: Called with a number of spans that were lost, from any thread; count them.
    """
    global _active  # noqa: PLW0603 - one process has one tracer
    propagate.set_global_textmap(
        CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    )
    if exporter is None and settings.otel_exporter_otlp_endpoint:
        endpoint = f"{settings.otel_exporter_otlp_endpoint}/v1/traces"
        exporter = span_exporter(endpoint, timeout=EXPORT_TIMEOUT_SECONDS)
    _active = Tracing(settings, exporter, on_drop or (lambda _: None))
    use_trace_source(_current_ids)
    return _active


def _resource(settings: ServiceSettings) -> Resource:
    return Resource.create(
        {
            "service.name": settings.otel_service_name,
            "service.version": settings.service_version,
            "service.instance.id": str(uuid.uuid4()),
            "deployment.environment.name": settings.environment,
        }
    )


def _within(timeout: float, work: Callable[[], object]) -> None:
    # The SDK's own time limits do not hold (opentelemetry-python #4555, #4568): a thread's join does.
    thread = threading.Thread(target=work, name="trace-flush", daemon=True)
    thread.start()
    thread.join(timeout)


def _current_ids() -> tuple[str, str]:
    """Return the ids of the current trace; no span id when it is not sampled: there is no span."""
    span = trace.get_current_span()
    if type(span) is _Unsampled or type(span) is LateSpan:
        return span.ids
    context = span.get_span_context()
    if not context.is_valid:
        return "", ""
    return (
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}" if context.trace_flags.sampled else "",
    )


def _tracer() -> trace.Tracer:
    return _active.tracer if _active else trace.NoOpTracer()


def _provider() -> trace.TracerProvider:
    return _active.provider if _active else trace.NoOpTracerProvider()


def _is_sampled() -> bool:
    span = trace.get_current_span()
    # isinstance() would ask an abstract class, which costs ten times as much.
    if type(span) is _Unsampled:
        return False
    if type(span) is LateSpan:
        return True
    context = span.get_span_context()
    return context.is_valid and context.trace_flags.sampled


# Requests ---------------------------------------------------------------------------------------------

_PROPAGATED: Final = {b"traceparent", b"tracestate", b"baggage"}
_FREE_TEXT: Final = {b"tracestate", b"baggage"}


def instrument_tracing(app: FastAPI, tracing: Tracing) -> None:
    """Trace the requests of `app`, outside of every middleware that is or will be added."""
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=tracing.provider,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["receive", "send"],
    )
    _keep_background_tasks_ours()
    build_recorded = app.build_middleware_stack

    def build_middleware_stack() -> "ASGIApp":
        return SampledFirst(_recorder(build_recorded()), tracing)

    # The instrumentation works by replacing this method; so do we, one layer further out.
    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]


def _keep_background_tasks_ours() -> None:
    # The instrumentation patches BackgroundTask for the whole process, with the tracer of the first
    # application. What a background task does is in the request's trace without it.
    original = getattr(BackgroundTask, "_otel_original_call", None)
    if original is not None:
        BackgroundTask.__call__ = original  # type: ignore[method-assign]
        del BackgroundTask._otel_original_call  # type: ignore[attr-defined]


def _recorder(stack: "ASGIApp") -> OpenTelemetryMiddleware:
    """Return the instrumentation's middleware from its stack, which puts an error handler around it."""
    recorder = getattr(stack, "app", None)
    if not isinstance(recorder, OpenTelemetryMiddleware):
        raise TypeError(
            "opentelemetry-instrumentation-fastapi builds its middleware differently now"
        )
    return recorder


class SampledFirst:
    """Decide whether a request is sampled, give it a trace id, and only then have it recorded."""

    def __init__(self, recorder: OpenTelemetryMiddleware, tracing: Tracing) -> None:
        self._tracing = tracing
        self._ids = RandomIdGenerator()
        # FastAPI looks for the instrumentation's class along `.app` and leaves its native tracing off.
        self.app = recorder
        self._handled = recorder.app
        self._unrecorded, self._answer_error = _taken_apart(recorder.app)
        self._recorded, self._recorded_inside = (
            ServerSpans(app, recorder.tracer, _note, is_over=tracing.is_over)
            for app in (recorder.app, self._handling_errors)
        )
        self._has_ids_inside = _gives_ids(self._unrecorded)
        """Whether the next layer gives each answer its trace id, together with its request id."""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http" or is_operational(scope["path"]):
            await self._handled(scope, receive, send)
            return
        context, parent, has_parent = _NO_CONTEXT, _NO_PARENT, False
        if not _PROPAGATED.isdisjoint(dict(scope["headers"])):
            propagated = [header for header in scope["headers"] if header[0] in _PROPAGATED]
            scope, propagated = _without_secrets(scope, propagated)
            context = _incoming_context(propagated)
            parent = trace.get_current_span(context).get_span_context()
            has_parent = parent.is_valid
        trace_id = parent.trace_id if has_parent else self._ids.generate_trace_id()
        in_hexadecimal = trace_id.to_bytes(16).hex()
        # From an application around this one a request may have a context, or a limit of its body: where
        # that is exceeded, FastAPI's own layer answers.
        is_ours = request_context(scope) is None and MAX_BODY_SIZE_SCOPE_KEY not in scope
        has_ids = self._has_ids_inside and is_ours
        if self._tracing.samples(parent, trace_id):
            if has_ids:
                await self._recorded_inside(scope, receive, send, parent=context, trace_id=trace_id)
            else:
                header = TRACE_ID_HEADER, in_hexadecimal.encode()
                await self._recorded(
                    scope, receive, send, parent=context, trace_id=trace_id, header=header
                )
            return
        unsampled = _Unsampled(trace_id, in_hexadecimal, parent)
        scope[TRACE_IDS] = unsampled.ids
        sender = send if has_ids else _SendWithId(send, in_hexadecimal)
        token = otel_context.attach(Context({**context, _CURRENT_SPAN: unsampled}))
        try:
            await self._unrecorded(scope, receive, sender)
        except Exception as error:
            if self._answer_error is None:
                raise
            send_with_id = (
                _send_nothing if _has_begun(sender, scope) else _SendWithId(send, in_hexadecimal)
            )
            await self._answer_error(error)(scope, receive, send_with_id)
        finally:
            otel_context.detach(token)

    async def _handling_errors(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a sampled request, and answer an error, as the layers do that were taken apart."""
        try:
            await self._unrecorded(scope, receive, send)
        except Exception as error:
            fail_span(error)
            if self._answer_error is None:
                raise
            trace_id, _ = scope[TRACE_IDS]
            send_with_id = _send_nothing if _has_begun(send, scope) else _SendWithId(send, trace_id)
            await self._answer_error(error)(scope, receive, send_with_id)


class _SendWithId:
    """Sends, and sees to it that the answer has its trace id."""

    __slots__ = ("_header", "_send", "has_begun")

    def __init__(self, send: "Send", in_hexadecimal: str) -> None:
        self._send = send
        self._header = TRACE_ID_HEADER, in_hexadecimal.encode()
        self.has_begun = False

    # No coroutine: what it returns is the server's own. That saves a frame for each message.
    def __call__(self, message: "Message") -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.has_begun = True
            add_header(message, self._header)
        return self._send(message)


async def _send_nothing(_: "Message") -> None:
    """Send no second answer: an application's own handler of errors is called all the same."""


def _has_begun(sender: "Send", scope: "Scope") -> bool:
    if isinstance(sender, _SendWithId):
        return sender.has_begun
    context = request_context(scope)
    return context is not None and context.answered != 0


def _gives_ids(layer: object) -> bool:
    """Whether every answer that comes through `layer` has its trace id."""
    # FastAPI's own layers answer nothing, unless bodies are limited outside. (Where they are limited here,
    # one of Starlette's follows.)
    while type(layer).__module__.startswith("fastapi."):
        layer = getattr(layer, "app", None)
    return isinstance(layer, RequestContextMiddleware) and layer.echoes


def _taken_apart(
    handled: "ASGIApp",
) -> tuple["ASGIApp", Callable[[Exception], "ASGIApp"] | None]:
    """Take the instrumentation's error handler apart.

    It looks at every message, to know whether an answer has begun, and inside of it is a layer that notes
    exceptions in the span. For a request that is not recorded the first is asked when there is an error,
    and the second has nothing to do.

    Returns:
        What is inside of both, and what answers (and raises) an error; None where they are not what they
        were.
    """
    if type(handled) is not ServerErrorMiddleware or not hasattr(handled.app, "app"):
        return handled, None

    def answer(error: Exception) -> ServerErrorMiddleware:
        async def fail(*_: object) -> None:
            raise error

        return ServerErrorMiddleware(fail, handled.handler, handled.debug)

    return handled.app.app, answer


class _Unsampled(NonRecordingSpan):
    """The span of a request that is not sampled. Few of them are ever asked for more than the trace's id."""

    _own: SpanContext | None = None

    def __init__(self, trace_id: int, in_hexadecimal: str, parent: SpanContext) -> None:
        self._trace_id = trace_id
        self._parent = parent
        self.ids = in_hexadecimal, ""
        """The trace id, and no span id: there is no span."""

    def get_span_context(self) -> SpanContext:
        """Return what is sent to whoever is called."""
        if self._own is None:
            self._own = SpanContext(
                self._trace_id,
                _span_ids.generate_span_id(),
                is_remote=False,
                trace_flags=TraceFlags(self._parent.trace_flags & ~TraceFlags.SAMPLED),
                trace_state=self._parent.trace_state,
            )
        return self._own


_span_ids: Final = RandomIdGenerator()
_NO_CONTEXT: Final = Context()
_NO_PARENT: Final = trace.INVALID_SPAN_CONTEXT
(_CURRENT_SPAN,) = trace.set_span_in_context(trace.INVALID_SPAN, _NO_CONTEXT)
_Headers = list[tuple[bytes, bytes]]


def _without_secrets(scope: "Scope", propagated: _Headers) -> tuple["Scope", _Headers]:
    """Return both without a tracestate or baggage that has personal data in it.

    Both go on to whoever is called and into stored messages. (W3C Trace Context, section 6, lets a
    service drop what it does not know.)
    """
    dropped = [
        header
        for header in propagated
        if header[0] in _FREE_TEXT and _tells_secrets(header[1].decode("latin-1"))
    ]
    if not dropped:
        return scope, propagated
    kept = [one for one in scope["headers"] if one not in dropped]
    return {**scope, "headers": kept}, [one for one in propagated if one not in dropped]


def _tells_secrets(value: str) -> bool:
    return redact_text(value) != value


def _incoming_context(propagated: _Headers) -> Context:
    carrier = {name.decode("ascii"): value.decode("latin-1") for name, value in propagated}
    return propagate.extract(carrier, Context()) if carrier else Context()


def _note(scope: "Scope") -> Callable[[Span], dict[str, AttributeValue]]:
    """Note whose request it was, and return what names its span after the route and says so."""
    context = request_context(scope)
    whose = (context.request_id, context.user_id, context.synthetic) if context else None
    return partial(_describe, scope, whose)


def _describe(
    scope: "Scope", whose: tuple[str, str, bool] | None, span: Span
) -> dict[str, AttributeValue]:
    route = route_template(scope)
    path, parameters = scope["path"], scope.get("path_params") or {}
    found: dict[str, AttributeValue]
    if route == UNMATCHED_ROUTE:
        found = {"url.path": redact_path(path, parameters)}
    else:
        name = span_name(scope)
        if getattr(span, "name", name) == name:  # nobody has named it
            span.update_name(f"{name} {route}")
        found = {"http.route": route, "url.path": redact_matched_path(path, parameters)}
    if whose:
        request_id, user_id, synthetic = whose
        found["request.id"] = Clean(request_id)  # looked at when it came in
        if user_id:
            found["user.id"] = user_id
        if synthetic:
            # OpenTelemetry semantic conventions, registry: "bot", or "test" for synthetic monitoring.
            found["user_agent.synthetic.type"] = "test"
    return found


def fail_span(error: BaseException) -> None:
    """Record `error` on the current span, for who handles it before the span's end."""
    span = trace.get_current_span()
    if span.is_recording():
        span.record_exception(error)
        span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")


# Operations and messages ------------------------------------------------------------------------------


@contextmanager
def business_span(name: str, **attributes: AttributeValue) -> Iterator[Span]:
    """Record the block as one operation, such as `order.place`; an exception marks it failed.

    Attributes are ids, counts and kinds with names like `order_id`; never personal data.
    """
    current = trace.get_current_span()
    if type(current) is _Unsampled or (current.get_span_context().is_valid and not _is_sampled()):
        yield current  # nobody will see it: the cheapest way
        return
    with _tracer().start_as_current_span(name, attributes=attributes) as span:
        yield span


@contextmanager
def publish_span(destination: str, message_id: str) -> Iterator[Span]:
    """Record the hand-over of a message; use `inject_trace` inside. (Semantic conventions 1.3x.)"""
    attributes = _message_attributes("publish", "send", destination, message_id)
    with _tracer().start_as_current_span(
        f"publish {destination}", kind=SpanKind.PRODUCER, attributes=attributes
    ) as span:
        yield span


@contextmanager
def consume_span(destination: str, message_id: str, carrier: Mapping[str, str]) -> Iterator[Span]:
    """Record the handling of a message as part of the trace that published it.

    Args:
        carrier: The message's headers, as `inject_trace` filled them.
    """
    attributes = _message_attributes("process", "process", destination, message_id)
    token = otel_context.attach(propagate.extract(carrier, Context()))
    try:
        with _tracer().start_as_current_span(
            f"process {destination}", kind=SpanKind.CONSUMER, attributes=attributes
        ) as span:
            yield span
    finally:
        otel_context.detach(token)


def _message_attributes(
    operation: str, kind: str, destination: str, message_id: str
) -> dict[str, AttributeValue]:
    return {
        "messaging.system": "outbox",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
        "messaging.message.id": message_id,
    }


def inject_trace(carrier: dict[str, str]) -> None:
    """Write the current trace into `carrier` (W3C traceparent, tracestate, baggage)."""
    propagate.inject(carrier)


@contextmanager
def untraced() -> Iterator[None]:
    """Keep statements, commands and calls of the block out of all traces, as polling loops should."""
    with suppress_instrumentation():
        yield


# Dependencies -----------------------------------------------------------------------------------------


def trace_engine(engine: "AsyncEngine") -> None:
    """Record the statements of `engine` inside sampled traces. Call after setup_tracing."""
    _StatementSpans(_provider().get_tracer("sqlalchemy"), engine.sync_engine)


def trace_http_client(client: "AsyncClient") -> None:
    """Record the calls of `client` and send the trace along. Call after setup_tracing."""
    HTTPX2ClientInstrumentor.instrument_client(
        client, tracer_provider=_provider(), meter_provider=NoOpMeterProvider()
    )


def trace_redis(client: "Redis") -> None:
    """Record the commands of `client` (without their arguments) inside sampled traces."""
    plain = {name: getattr(client, name) for name in ("execute_command", "pipeline")}
    RedisInstrumentor.instrument_client(client, tracer_provider=_provider())
    for name, unrecorded in plain.items():
        setattr(client, name, partial(_if_sampled, getattr(client, name), unrecorded))


def _if_sampled(
    recorded: Callable[..., object], unrecorded: Callable[..., object], *args: Any, **options: Any
) -> object:
    return (recorded if _is_sampled() else unrecorded)(*args, **options)


class _StatementSpans(EngineTracer):
    """The instrumentation's engine tracer, attached to one engine instead of patched into SQLAlchemy.

    Unlike its parent it listens where that costs little (executions.py), records nothing outside of a
    sampled trace, counts no connections (that is database.py's), names spans after verb and table, and
    keeps the path of an SQLite file to itself.
    """

    def __init__(self, tracer: trace.Tracer, engine: "Engine") -> None:
        self._namespace = PurePath(engine.url.database or "").name
        parent: Any = super()  # the library is untyped
        parent.__init__(tracer, engine, NoOpUpDownCounter("unused"))

    @classmethod
    def _register_event_listener(
        cls, target: Any, identifier: str, func: Any, *args: Any, **options: Any
    ) -> None:
        if identifier == "before_cursor_execute":
            watch_executions(target, before=func)
        elif identifier == "after_cursor_execute":
            watch_executions(target, after=func)
        elif identifier == "handle_error":
            event.listen(target, identifier, func, *args, **options)

    def _before_cur_exec(
        self, conn: Any, cursor: Any, statement: str, params: Any, context: Any, executemany: bool
    ) -> tuple[str, Any]:
        if not _is_sampled():
            return statement, params
        parent: Any = super()
        before: tuple[str, Any] = parent._before_cur_exec(
            conn, cursor, statement, params, context, executemany
        )
        return before

    def _operation_name(self, db_name: str | None, statement: str) -> str:  # noqa: ARG002
        return read_statement(statement).name

    def _set_db_client_span_attributes(
        self, span: Span, statement: str, db_name: str | None, attrs: dict[str, Any]
    ) -> None:
        parent: Any = super()
        found = _Noted()
        parent._set_db_client_span_attributes(found, statement, db_name, attrs)
        read = read_statement(statement)
        found["db.query.text"] = read.fingerprint  # a literal is a customer's
        found["db.namespace"] = self._namespace
        found["db.operation.name"] = read.verb
        if read.table:
            found["db.collection.name"] = read.table
        write_attributes(span, found)


class _Noted(dict[str, AttributeValue]):
    """Attributes on their way to a span, which takes several at a time for less."""

    def set_attribute(self, key: str, value: AttributeValue | None) -> None:
        """Note it: to who sets it, this is the span."""
        if value is not None:
            self[key] = value
