"""The server span of a sampled request, as OpenTelemetry's own ASGI middleware records it, for less.

The middleware of opentelemetry-instrumentation-asgi decodes all headers seven times, sets each attribute
twice, and feeds metrics that nobody reads. What it writes down is written down here in one go, a bit after
the answer, when nobody waits: until then the span has a beginning, its ids, and with the answer an end.
tests/unit/observability/test_server_spans.py has both record the same requests and compares the spans, so
whoever updates the library learns what has become different.

Must never let out a path, a query or a name that redaction.py has not seen: who exports it sees to that.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.http import detect_synthetic_user_agent, sanitize_method
from opentelemetry.util.types import AttributeValue

from app.observability.context import TRACE_IDS
from app.observability.late_spans import LateSpan
from app.observability.redaction import redact_text
from app.observability.settling import Later

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

END_SECONDS: Final = 0.05
"""A request that was answered waits so long for others before it is the turn of its span,"""
_REQUESTS: Final = 8
"""or until there are so many,"""
_IN_A_ROW: Final = 2
"""and then so many have one turn: to write one down, redact and encode it takes 40 µs."""
_SERVER_ERROR: Final = 500
_HTTP: Final = 80


class ServerSpans:
    """Serves a request inside of a span of its own."""

    def __init__(
        self,
        app: "ASGIApp",
        tracer: trace.Tracer,
        note: Callable[["Scope"], "Describe"],
        *,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Record requests to `app` with `tracer`, whose ids are DecidedIds.

        Args:
            note: Is called once, when the answer was sent or will not be: the route is known. What it returns
                is called when the span is written down; it may name it, and returns more attributes, or
                better ones.
            is_over: Whether spans are lost from now on, and there may be no later.
        """
        self._app = app
        self._tracer = tracer
        self._note = note
        self._is_over = is_over
        self._later: Later[_Answered] = Later(
            self._write_down, seconds=END_SECONDS, limit=_REQUESTS, in_a_row=_IN_A_ROW
        )

    async def __call__(
        self,
        scope: "Scope",
        receive: "Receive",
        send: "Send",
        *,
        parent: Context,
        trace_id: int,
        header: tuple[bytes, bytes] | None = None,
    ) -> None:
        """Serve it; `parent` is what the request says it belongs to, `trace_id` its trace or a new one.

        Its answer gets `header`, unless it has that already.
        """
        span = LateSpan(self._tracer, span_name(scope), SpanKind.SERVER, parent, trace_id)
        scope[TRACE_IDS] = span.ids
        status: int | None = None

        # No coroutine: what it returns is mostly the inner one's own. That saves a frame for each message.
        def recorded_send(message: "Message") -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= _SERVER_ERROR:
                    span.set_status(Status(StatusCode.ERROR))
                if header is not None:
                    add_header(message, header)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                return self._send_last(send(message), span, scope, status)
            return send(message)

        token = attach(trace.set_span_in_context(span, parent))
        try:
            await self._app(scope, receive, recorded_send)
        except Exception as error:
            if answered := self._answered(span, scope, status):
                self._write_down(answered, error)
            raise
        finally:
            detach(token)
            # A client that left is told by a cancellation.
            if answered := self._answered(span, scope, status):
                self._write_down(answered)

    async def _send_last(
        self, sent: Awaitable[None], span: LateSpan, scope: "Scope", status: int | None
    ) -> None:
        await sent
        # What goes on behind the answer, such as a background task, is not the client's waiting.
        if answered := self._answered(span, scope, status):
            if self._is_over():
                self._write_down(answered)
            else:
                self._later.add(answered)

    def _answered(self, span: LateSpan, scope: "Scope", status: int | None) -> "_Answered | None":
        """Close the span, and note what will be written down: the scope is others' to change.

        Returns: None if that was done before.
        """
        end = span.close()
        if end is None:
            return None
        noted = {**scope}
        return span.made, noted, self._note(noted), status, end

    def _write_down(self, answered: "_Answered", error: Exception | None = None) -> None:
        made, scope, describe, status, end = answered
        span = made()
        try:
            found = request_attributes(scope)
            if status is not None:
                found["http.response.status_code"] = status
                if status >= _SERVER_ERROR:
                    found["error.type"] = str(status)
            found |= describe(span)
            found |= _told(span)
            write_attributes(span, found)
            if error is not None:
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        finally:
            span.end(end)


Describe = Callable[[Span], Mapping[str, AttributeValue]]
_Answered = tuple[Callable[[], Span], "Scope", Describe, int | None, int]
"""What makes the span, the request, what describes it, the status of the answer, and when it was sent, in
nanoseconds."""


def add_header(message: "Message", header: tuple[bytes, bytes]) -> None:
    """Add a header to the beginning of an answer, unless it has it already."""
    headers = [*message.get("headers", ())]
    if header not in headers:
        headers.append(header)
    message["headers"] = headers


_MAX_ATTRIBUTES: Final = 64
"""A span has fewer, unless it is told very much before its route is known."""


def write_attributes(span: Span, attributes: Mapping[str, AttributeValue]) -> None:
    """Set attributes of ours: names and simple values, which need not be looked at one by one.

    (That is what the SDK does, for half of what a span costs it.)
    """
    bounded = getattr(span, "_attributes", None)
    if type(bounded) is not BoundedAttributes:
        span.set_attributes(attributes)
    elif len(bounded) + len(attributes) <= _MAX_ATTRIBUTES:
        bounded._dict.update(attributes)
    else:  # each that is set anew counts as dropped where there is no room
        span.set_attributes({k: v for k, v in attributes.items() if bounded.get(k) != v})


def _told(span: Span) -> dict[str, AttributeValue]:
    """Return what the request itself has said of its span meanwhile."""
    bounded = getattr(span, "_attributes", None)
    return dict(bounded._dict) if type(bounded) is BoundedAttributes else {}


@lru_cache(maxsize=64)
def _known_method(method: str) -> str:
    return sanitize_method(method)  # asks the environment each time


def span_name(scope: "Scope") -> str:
    """Return the name that a span has until its route is known."""
    method = _known_method(scope["method"])
    return "HTTP" if method == "_OTHER" else method


def request_attributes(scope: "Scope") -> dict[str, AttributeValue]:
    """Return what is known of a request before it is served (semantic conventions, HTTP server spans)."""
    host, port = scope.get("server") or ("0.0.0.0", _HTTP)  # noqa: S104 - the library's
    method, scheme = scope["method"], scope.get("scheme", "http")
    found = _of_many(method, scheme, host, port, scope.get("http_version", "1.1")).copy()
    found["url.path"] = scope["path"][:MAX_TEXT]
    if scope.get("query_string"):
        found["url.query"] = _text(scope["query_string"])
    if client := scope.get("client"):
        found["client.address"], found["client.port"] = client
    for name, value in scope["headers"]:
        if name == b"user-agent":
            found |= _agents.get(value) or _of_agent(value)
            break
    return found


@lru_cache(maxsize=256)
def _of_many(
    method: str, scheme: str, host: str, port: int | None, version: str
) -> dict[str, AttributeValue]:
    known = _known_method(method)
    found: dict[str, AttributeValue] = {
        "http.request.method": known,
        "url.scheme": scheme,
        "server.address": host if port == _HTTP else f"{host}:{port}",
        "network.protocol.version": version,
    }
    if port:
        found["server.port"] = port
    if known != method:
        found["http.request.method_original"] = method
    return found


_agents: Final[dict[bytes, dict[str, AttributeValue]]] = {}
_MAX_AGENTS: Final = 1024
_MAX_AGENT_LENGTH: Final = 256
"""A longer one is no browser's. It is not kept, nor looked at while requests wait."""


def _of_agent(given: bytes) -> dict[str, AttributeValue]:
    agent = _text(given)
    found: dict[str, AttributeValue] = {"user_agent.original": agent} if agent else {}
    if kind := detect_synthetic_user_agent(agent):
        found["user_agent.synthetic.type"] = kind
    # No secret is to stay in memory.
    if len(given) <= _MAX_AGENT_LENGTH and redact_text(agent) == agent:
        if len(_agents) >= _MAX_AGENTS:
            _agents.clear()
        _agents[given] = found
    return found


MAX_TEXT: Final = 16_384
"""Characters of what a client has sent. (span_export.py exports half of it: a secret that is cut in half
is not recognised.)"""


def _text(value: bytes) -> str:
    try:
        return value.decode()[:MAX_TEXT]
    except UnicodeDecodeError:
        return value.decode("latin-1")[:MAX_TEXT]
