"""Who is being served: the identity of the service, of the request or job at hand, and of its trace.

Every other file of this package reads the request id, the user id and the trace id from here, so that
a log line, a span, a metric's exemplar and an error report about one request carry the same ids.
One context object exists per request (or job). It is shared by reference between the event loop and
the threads that serve synchronous handlers, so a value set deep inside a handler (the user id) is seen
by the middleware outside.

Must never do I/O, and must never hold anything secret: whatever is here is written to every signal.
"""

import hmac
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.observability.redaction import redact_text

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "X-Request-ID"
UNMATCHED_ROUTE = "unmatched"
"""The route of every request that no route template matches: one label value, whatever was asked."""

Environment = Literal["development", "test", "staging", "production"]

_WELL_FORMED_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._\-]{7,127}")


class ServiceSettings(BaseSettings):
    """Which service this is: the resource attributes that every signal carries."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    otel_service_name: str = Field("glasshouse", min_length=1)
    service_version: str = Field("0.1.0", min_length=1)
    git_commit: str = Field("unknown", min_length=1, description="Commit the build was made from.")
    environment: Environment = "development"


class SyntheticSettings(BaseSettings):
    """How the monitoring's own requests are told from those of customers."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    synthetic_token: SecretStr | None = Field(
        None, description="Requests that send it as X-Synthetic-Token are tests, not business."
    )

    @field_validator("synthetic_token")
    @classmethod
    def _empty_synthetic_token_is_unset(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value() else None


@dataclass(slots=True)
class DatabaseUse:
    """What the request or job has asked of its databases so far. Written by database.py."""

    statements: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    """Time to get connections."""
    repeated: dict[str, int] = field(default_factory=dict)
    """Executions by fingerprint, of those statements that can make an N+1."""
    describe: Callable[[], Mapping[str, object]] | None = None
    """Returns the latest statement and the state of its pool, for error reports."""


@dataclass(slots=True)
class RequestContext:
    """The request (or job) at hand. Empty strings stand for "not known (yet)"."""

    request_id: str
    route: str = ""
    user_id: str = ""
    audited: bool = False
    """Whether something was done that the audit log tells: its lines are never sampled away."""
    synthetic: bool = False
    """Whether the monitoring asked, and no customer: it is left out of KPIs and HTTP metrics."""
    scope: "Scope | None" = field(default=None, repr=False)
    connection: object = field(default=None, repr=False)
    database: DatabaseUse = field(default_factory=DatabaseUse)

    @property
    def handler(self) -> str:
        """The route template or the name of the job; UNMATCHED_ROUTE before the router has decided."""
        if self.route or self.scope is None:
            return self.route
        return route_template(self.scope)

    @property
    def client_has_left(self) -> bool:
        """Whether the client closed the connection before it had its answer.

        ASGI tells it to who waits for a message, which nobody does once the body was read; uvicorn's
        object behind `receive` knows it all the same. False under a server that has no such object.
        """
        return getattr(self.connection, "disconnected", False) is True


_current: ContextVar[RequestContext | None] = ContextVar("glasshouse_request_context", default=None)


def current_context() -> RequestContext | None:
    """Return the context of the request or job at hand, or None outside of both."""
    return _current.get()


def is_synthetic() -> bool:
    """Whether the request or job at hand is a test by the monitoring; False outside of both."""
    context = _current.get()
    return context is not None and context.synthetic


def mark_synthetic() -> None:
    """Call the request at hand a test, as who finds out that its account is one does."""
    if context := _current.get():
        context.synthetic = True


@contextmanager
def bind_context(context: RequestContext) -> Iterator[RequestContext]:
    """Make `context` the current one for the block, as a job does for its own run."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _end(context)
        _current.reset(token)


_end_observers: tuple[Callable[[RequestContext], None], ...] = ()


def observe_ends(observer: Callable[[RequestContext], None]) -> None:
    """Call `observer` once at the end of every request and job, still inside of its context.

    It must be quick and must not raise. Registering it again changes nothing.
    """
    global _end_observers  # noqa: PLW0603 - one process has one set of signals
    if observer not in _end_observers:
        _end_observers = (*_end_observers, observer)


def _end(context: RequestContext) -> None:
    for observer in _end_observers:
        observer(context)


def new_request_id() -> str:
    """Return 128 random bits in hexadecimal."""
    return secrets.token_hex(16)


def _no_trace() -> tuple[str, str]:
    return "", ""


_trace_source: Callable[[], tuple[str, str]] = _no_trace


def current_trace_ids() -> tuple[str, str]:
    """Return (trace id, span id) in lower-case hexadecimal, or two empty strings without a trace."""
    return _trace_source()


def use_trace_source(source: Callable[[], tuple[str, str]]) -> None:
    """Tell where trace ids come from. Called by tracing; without it the other signals work untraced."""
    global _trace_source  # noqa: PLW0603 - one process has one tracer
    _trace_source = source


def is_operational(path: str) -> bool:
    """Whether `path` is for operators: probes, the scrape and profiles, which no signal observes.

    They would drown the users' requests, and a profile of 30 s would look like a slow answer.
    """
    return path in _operational or path.startswith(("/health/", _LOOKING_INSIDE))


_LOOKING_INSIDE = "/debug/"
"""These have an identity all the same: the audit log tells who asked, from where, in which request."""
_operational = {"/metrics", "/health"}


def declare_operational(*paths: str) -> None:
    """Take `paths` out of what signals observe, such as pages that are there for probers."""
    _operational.update(paths)


def route_template(scope: "Scope") -> str:
    """Return the full template of the matched route, such as `/v1/orders/{order_id}`.

    Known only after routing, so read it when the request has ended. FastAPI >= 0.137 includes routers
    lazily: `scope["route"].path` lacks the prefixes, the effective route context has them.
    Returns UNMATCHED_ROUTE for a 404, a slash redirect or a mounted sub-application.
    """
    if "app_root_path" in scope:  # Starlette's mark of a mount: the route below lacks its prefix
        return UNMATCHED_ROUTE
    fastapi_scope: dict[str, Any] = scope.get("fastapi") or {}
    effective = fastapi_scope.get("effective_route_context")
    path = getattr(effective, "path", None) or getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else UNMATCHED_ROUTE


class RequestContextMiddleware:
    """Give each request its context and echo its id: the outermost layer, pure ASGI.

    A well-formed incoming X-Request-ID (8 to 128 of A-Z a-z 0-9 . _ -) is kept, so that one id
    joins the logs of several services; anything else is replaced, since it goes into every signal.
    A request with the right X-Synthetic-Token is marked as synthetic. A wrong token marks nothing and
    is told to nobody: whoever guesses learns nothing, and is counted as any customer is.
    """

    def __init__(self, app: "ASGIApp", *, synthetic_token: str = "") -> None:
        self.app = app
        self._synthetic_token = synthetic_token.encode()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        path: str = scope.get("path", "")
        is_probe = is_operational(path) and not path.startswith(_LOOKING_INSIDE)
        if scope["type"] != "http" or is_probe:
            await self.app(scope, receive, send)
            return
        request_id = ""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _WELL_FORMED_REQUEST_ID.fullmatch(value):
                given = value.decode("ascii")
                # A card number and a JWT are well-formed, too.
                request_id = given if redact_text(given) == given else ""
        context = RequestContext(
            request_id or new_request_id(),
            scope=scope,
            connection=getattr(receive, "__self__", None),
            synthetic=bool(self._synthetic_token) and self._has_token(scope),
        )
        header = (b"x-request-id", context.request_id.encode("ascii"))

        async def send_with_id(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        token = _current.set(context)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            _end(context)
            _current.reset(token)

    def _has_token(self, scope: "Scope") -> bool:
        return any(
            name == b"x-synthetic-token" and hmac.compare_digest(value, self._synthetic_token)
            for name, value in scope["headers"]
        )


def identify_requests(app: "Starlette", settings: SyntheticSettings | None = None) -> None:
    """Give every request of `app` its context and id. Add it last, hence outermost.

    With `settings`, what comes with their token is marked as synthetic.
    """
    token = settings.synthetic_token if settings is not None else None
    secret = token.get_secret_value() if token is not None else ""
    app.add_middleware(cast("Any", RequestContextMiddleware), synthetic_token=secret)
