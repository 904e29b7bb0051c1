"""Who is being served: the identity of the service, of the request or job at hand, and of its trace.

Every other file of this package reads the request id, the user id and the trace id from here, so that
a log line, a span, a metric's exemplar and an error report about one request carry the same ids.
One context object exists per request (or job). It is shared by reference between the event loop and
the threads that serve synchronous handlers, so a value set deep inside a handler (the user id) is seen
by the middleware outside.

One layer (RequestContextMiddleware) looks at each request and its answer and notes here what happened;
signals that tell of requests are told when one has ended (`observe_requests`).

Must never do I/O. Ids are fit to be written to every signal; what a client has sent (path, parameters,
user agent, address) is not, and is redacted by whoever shows it.
"""

import hmac
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Final, Literal, cast

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


CLIENT_CLOSED_REQUEST: Final = 499
"""nginx's status for a client that left before its answer was complete."""


class RequestContext:
    """The request (or job) at hand, and what was seen of it: looked at once, for every signal.

    Empty strings stand for "not known (yet)". (A plain class whose defaults are the class's: one is made
    for every request, and most of what it may hold is never set.)
    """

    audited = False
    """Whether something was done that the audit log tells: its lines are never sampled away."""
    trace_ids: tuple[str, str] = ("", "")
    """Of the request's own span, which is not the one that is current deep inside of it."""

    # Of a request only. What an observer may ask for is copied, so that the scope can be let go of.
    scope: "Scope | None" = None
    connection: object = None
    method = ""
    path = ""
    path_parameters: Mapping[str, object] = {}
    client: tuple[str, int] | None = None
    started = 0.0
    ended = 0.0
    """Seconds since the epoch."""
    answered = 0
    """The status that was sent; 0 before the answer began."""
    user_agent = b""
    announced = 0
    """The request's Content-Length: a handler need not read the body."""
    received = 0
    """Bytes of the request's body that were read."""
    sent = 0
    """Bytes of the answer's body."""
    complete = False
    failed = False
    """Whether an exception came through, even after the answer had begun: the client saw a broken body."""
    gone = False
    """Whether the client left before its answer was complete."""
    seconds = -1.0
    """From the first layer to the end of the last; negative before that."""

    def __init__(
        self,
        request_id: str,
        route: str = "",
        user_id: str = "",
        *,
        synthetic: bool = False,
        database: DatabaseUse | None = None,
    ) -> None:
        """`synthetic` is whether the monitoring asked, and no customer: no KPI or HTTP metric has it."""
        self.request_id = request_id
        self.route = route
        self.user_id = user_id
        self.synthetic = synthetic
        self._database = database

    @property
    def database(self) -> DatabaseUse:
        """What it has asked of its databases."""
        if self._database is None:
            self._database = DatabaseUse()
        return self._database

    @property
    def used_database(self) -> DatabaseUse | None:
        """The same, None if it is nothing."""
        return self._database

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

    @property
    def status(self) -> int:
        """How the request ended: 499 for a client that left, 500 for an exception, else what was sent."""
        if self.gone:
            return CLIENT_CLOSED_REQUEST
        return _FAILED if self.failed else self.answered or _FAILED

    def end(self) -> None:
        """Note that the request has ended, the first time, and let go of the server's objects.

        They lead back here, and circles of objects wait for the garbage collector, which costs a request
        more than this file does.
        """
        scope = self.scope
        if scope is None:
            return
        self.seconds = perf_counter() - self.started
        self.ended = time()
        self.route = route_template(scope)
        if "path_params" in scope:
            self.path_parameters = scope["path_params"]
        if self.client_has_left:
            self.gone = True
        self.scope = self.connection = None


_FAILED: Final = 500

_current: ContextVar[RequestContext | None] = ContextVar("glasshouse_request_context", default=None)
_in_progress: Final[set[RequestContext]] = set()


def requests_in_progress() -> int:
    """Return how many requests this process is serving; probes, the scrape and profiles aside."""
    return sum(not is_operational(context.path) for context in tuple(_in_progress))


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


_database_observers: tuple[Callable[[RequestContext], None], ...] = ()


def observe_database_use(observer: Callable[[RequestContext], None]) -> None:
    """Call `observer` once at the end of every request and job that has used a database.

    It must be quick and must not raise. Registering it again changes nothing.
    """
    global _database_observers  # noqa: PLW0603 - one process has one set of signals
    if observer not in _database_observers:
        _database_observers = (*_database_observers, observer)


def _end(context: RequestContext) -> None:
    if context.used_database is not None:
        for observer in _database_observers:
            observer(context)


def new_request_id() -> str:
    """Return 128 random bits in hexadecimal: unique, and no secret, so no system call is made for them.

    (The generator is seeded by the system at the start of the process, and anew after a fork.)
    """
    return random.getrandbits(128).to_bytes(16).hex()


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
    path = None
    if fastapi_scope := scope.get("fastapi"):
        path = getattr(fastapi_scope.get("effective_route_context"), "path", None)
    if not path:
        path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else UNMATCHED_ROUTE


Observer = Callable[["RequestContext"], None]
"""Is told of a request that has ended, inside of its context. Must be quick and must not raise."""

_CONTEXT: Final = "glasshouse.context"
TRACE_ID_HEADER: Final = b"x-trace-id"
TRACE_IDS: Final = "glasshouse.trace_ids"
"""Where in a scope tracing leaves the ids of the request's trace and span, for who would have to ask.
A request that has them is none that `is_operational`."""


class RequestContextMiddleware:
    """Give each request its context and look at it, once for all signals: the outermost layer, pure ASGI.

    A well-formed incoming X-Request-ID (8 to 128 of A-Z a-z 0-9 . _ -) is kept, so that one id
    joins the logs of several services; anything else is replaced, since it goes into every signal. The
    answer has it, unless `echo` is off, and with it the X-Trace-ID of a request that has a trace.
    A request with the right X-Synthetic-Token is marked as synthetic. A wrong token marks nothing and
    is told to nobody: whoever guesses learns nothing, and is counted as any customer is.
    """

    def __init__(
        self,
        app: "ASGIApp",
        *,
        synthetic_token: str = "",
        observers: Sequence[Observer] = (),
        echo: bool = True,
    ) -> None:
        self.app = app
        self._synthetic_token = synthetic_token.encode()
        self._observers = observers
        self.echoes = echo
        """Whether answers get their request id, and the trace id that tracing has left in the scope."""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trace_ids = scope.get(TRACE_IDS)
        told = trace_ids is not None or not is_operational(scope["path"])
        if not told and not scope["path"].startswith(_LOOKING_INSIDE):
            await self.app(scope, receive, send)
            return
        if _CONTEXT in scope:
            await self._inside(scope[_CONTEXT], scope, receive, send)
            return
        context = scope[_CONTEXT] = self._identify(scope)
        context.trace_ids = trace_ids or current_trace_ids()
        context.connection = getattr(receive, "__self__", None)

        async def observed_receive() -> "Message":
            message = await receive()
            if message["type"] == "http.request":
                context.received += len(message.get("body", b""))
            elif not context.complete:
                context.gone = True
            return message

        async def observed_send(message: "Message") -> None:
            if message["type"] == "http.response.start":
                context.answered = message["status"]
                if self.echoes:
                    message["headers"] = _with_ids(message, context.request_id, trace_ids)
            elif message["type"] == "http.response.body":
                if "body" in message:
                    context.sent += len(message["body"])
                context.complete = "more_body" not in message or not message["more_body"]
            try:
                await send(message)
            except OSError:  # how servers of ASGI 2.4 say that the client has gone
                context.gone = True
                raise

        token = _current.set(context)
        _in_progress.add(context)
        try:
            await self.app(scope, observed_receive, observed_send)
        except BaseException:
            context.failed = True
            raise
        finally:
            _in_progress.discard(context)
            context.end()
            if context.used_database is not None:
                _end(context)
            if told:
                for observer in self._observers:
                    observer(context)
            _current.reset(token)

    async def _inside(
        self, outer: RequestContext, scope: "Scope", receive: "Receive", send: "Send"
    ) -> None:
        """Serve where another one, further out, looks already."""
        try:
            await self.app(scope, receive, send)
        except BaseException:
            outer.failed = True
            raise
        finally:
            outer.end()
            for observer in self._observers:
                observer(outer)

    def _identify(self, scope: "Scope") -> RequestContext:
        headers = dict(scope["headers"])
        request_id = ""
        if given := headers.get(b"x-request-id"):
            request_id = _accepted(given)
        context = RequestContext(request_id or new_request_id())
        if self._synthetic_token and b"x-synthetic-token" in headers:
            given = headers[b"x-synthetic-token"]
            context.synthetic = hmac.compare_digest(given, self._synthetic_token)
        context.scope = scope
        context.method = scope["method"]
        context.path = scope["path"]
        context.client = scope.get("client")
        context.user_agent = headers.get(b"user-agent", b"")
        length: bytes = headers.get(b"content-length", b"")
        if length.isdigit():
            context.announced = int(length)
        context.started = perf_counter()
        return context


def _with_ids(
    message: "Message", request_id: str, trace_ids: tuple[str, str] | None
) -> list[tuple[bytes, bytes]]:
    headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
    if trace_ids is not None:
        headers.append((TRACE_ID_HEADER, trace_ids[0].encode()))
    return headers


def _accepted(given: bytes) -> str:
    if not _WELL_FORMED_REQUEST_ID.fullmatch(given):
        return ""
    request_id = given.decode("ascii")
    # A card number and a JWT are well-formed, too.
    return request_id if redact_text(request_id) == request_id else ""


def request_context(scope: "Scope") -> RequestContext | None:
    """Return the context of the request that `scope` is of; None where nobody looks at it."""
    context: RequestContext | None = scope.get(_CONTEXT)
    return context


def identify_requests(app: "Starlette", settings: SyntheticSettings | None = None) -> None:
    """Give every request of `app` its context and id. Add it last, hence outermost.

    With `settings`, what comes with their token is marked as synthetic.
    """
    token = settings.synthetic_token if settings is not None else None
    secret = token.get_secret_value() if token is not None else ""
    _look_at_requests(app, echo=True, synthetic_token=secret)


def observe_requests(app: "Starlette", observer: Observer | None = None) -> None:
    """Have the requests of `app` looked at, and `observer` told of each that has ended.

    Signals that tell of requests call it; that there is one layer for all of them is seen to here.
    """
    observers = _look_at_requests(app)
    if observer is not None:
        observers.append(observer)


def _look_at_requests(app: "Starlette", **options: object) -> list[Observer]:
    """Have the one layer outside of all that were added so far; return its observers."""
    kwargs: dict[str, Any] = {"echo": False, "observers": []}
    for layer in tuple(app.user_middleware):
        if cast("Any", layer.cls) is RequestContextMiddleware:
            kwargs = {"observers": kwargs["observers"]} | layer.kwargs
            app.user_middleware.remove(layer)
    kwargs |= options
    app.add_middleware(cast("Any", RequestContextMiddleware), **kwargs)
    found: list[Observer] = kwargs["observers"]
    return found
