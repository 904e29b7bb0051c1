"""The server span of a sampled request, as OpenTelemetry's own ASGI middleware records it, for less.

The middleware of opentelemetry-instrumentation-asgi decodes all headers seven times, sets each attribute
twice, and feeds metrics that nobody reads. What it writes down is written down here in one go;
tests/unit/observability/test_server_spans.py has both record the same requests and compares the spans, so
whoever updates the library learns what has become different.

Must never record a path, a query or a name that redaction.py has not seen: that is done on export.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.http import detect_synthetic_user_agent, sanitize_method
from opentelemetry.util.types import AttributeValue

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SERVER_ERROR: Final = 500
_HTTP: Final = 80


class ServerSpans:
    """Serves a request inside of a span of its own."""

    def __init__(
        self, app: "ASGIApp", tracer: trace.Tracer, describe: Callable[[Span, "Scope"], None]
    ) -> None:
        """`describe` is called once the route is known: when the answer begins, or never will."""
        self._app = app
        self._tracer = tracer
        self._describe = describe

    async def __call__(
        self, scope: "Scope", receive: "Receive", send: "Send", *, parent: Context
    ) -> None:
        """Serve it; `parent` is the trace that the request says it belongs to."""
        span = self._tracer.start_span(
            span_name(scope), parent, SpanKind.SERVER, request_attributes(scope)
        )

        async def recorded_send(message: "Message") -> None:
            if message["type"] == "http.response.start":
                _answered(span, message["status"])
                self._describe(span, scope)
            await send(message)
            # What goes on behind the answer, such as a background task, is not the client's waiting.
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                span.end()

        try:
            with trace.use_span(span, end_on_exit=False):
                try:
                    await self._app(scope, receive, recorded_send)
                except BaseException:
                    # A client that left before the answer began is told by a cancellation.
                    if span.is_recording():
                        self._describe(span, scope)
                    raise
        finally:
            if span.is_recording():
                span.end()


@lru_cache(maxsize=64)
def _known_method(method: str) -> str:
    return sanitize_method(method)  # asks the environment each time


def span_name(scope: "Scope") -> str:
    """Return the name that a span has until its route is known."""
    method = _known_method(scope["method"])
    return "HTTP" if method == "_OTHER" else method


def request_attributes(scope: "Scope") -> dict[str, AttributeValue]:
    """Return what is known of a request before it is served (semantic conventions, HTTP server spans)."""
    method: str = scope["method"]
    known = _known_method(method)
    host, port = scope.get("server") or ("0.0.0.0", _HTTP)  # noqa: S104 - the library's
    found: dict[str, AttributeValue] = {
        "http.request.method": known,
        "url.scheme": scope.get("scheme", "http"),
        "url.path": scope["path"],
        "server.address": host if port == _HTTP else f"{host}:{port}",
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if port:
        found["server.port"] = port
    if known != method:
        found["http.request.method_original"] = method
    if scope.get("query_string"):
        found["url.query"] = _text(scope["query_string"])
    if client := scope.get("client"):
        found["client.address"], found["client.port"] = client
    for name, value in scope["headers"]:
        if name == b"user-agent":
            if agent := _text(value):
                found["user_agent.original"] = agent
                if kind := detect_synthetic_user_agent(agent):
                    found["user_agent.synthetic.type"] = kind
            break
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _answered(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= _SERVER_ERROR:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))
