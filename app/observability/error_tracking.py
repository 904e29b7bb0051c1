"""Error tracking: what nobody expected goes to Sentry (or a compatible server), and nothing else does.

Unhandled exceptions, and warnings that somebody has to look into, such as a slow statement.

Errors only: OpenTelemetry carries the traces, loguru the logs. The SDK runs without any integration, so
nothing is patched and nothing is reported twice; `exceptions.record_exception` calls `report_exception`.
One scrubbing function sees every event last, whoever captured it: it puts the request's identity in
(release, route, request id, user id, OpenTelemetry's trace id, breadcrumbs, the latest statement and
its pool, where its trace and its logs are shown) and takes secrets out.

Must never send a body, a cookie, a query string, a local variable or a host name, never report an
error that is an answer (4xx), and never hold up the process: queue, time-outs, flush and the number of
reports a minute are bounded.
"""

import atexit
import re
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import sentry_sdk
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from sentry_sdk.scrubber import EventScrubber
from sentry_sdk.transport import HttpTransport, Transport
from sentry_sdk.utils import BadDsn, Dsn, event_from_exception

from app.observability.context import (
    RequestContext,
    ServiceSettings,
    current_context,
    current_trace_ids,
)
from app.observability.redaction import redact, redact_text

if TYPE_CHECKING:
    from sentry_sdk._types import Event, Hint

MAX_BREADCRUMBS = 20
MAX_REPORTS_PER_MINUTE = 10
"""Of one kind. Building a report takes 2 to 3 ms and servers are paid by the report: neither must grow
with an outage."""
MAX_REPORTS_PER_MINUTE_IN_ALL = 100
MAX_WARNINGS_PER_MINUTE_IN_ALL = 30
"""Of their own, so that a slow database cannot use up what exceptions need."""
MAX_MESSAGE = 4096
"""Characters of an exception's message that are sent."""
_TRACE_ID = "{trace_id}"
_MAX_TRAILS = 1024  # requests with breadcrumbs that are remembered at a time


class ErrorTrackingSettings(ServiceSettings):
    """Where errors go. Without SENTRY_DSN error tracking is off."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    sentry_dsn: SecretStr | None = Field(None, description="https://PUBLIC_KEY@HOST/PROJECT_ID")
    trace_url_template: str | None = Field(
        None, description="Where a person sees a trace, with {trace_id}; reports link there."
    )
    logs_url_template: str | None = Field(
        None, description="Where a person sees a trace's log lines, with {trace_id}; the same."
    )

    @field_validator("sentry_dsn")
    @classmethod
    def _well_formed(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        try:
            Dsn(value.get_secret_value())
        except (BadDsn, ValueError):
            # What is wrong with it is not said: the SDK's words for that repeat parts of it.
            raise ValueError(
                "is malformed; it looks like https://PUBLIC_KEY@HOST/PROJECT_ID"
            ) from None
        return value

    @field_validator("trace_url_template", "logs_url_template")
    @classmethod
    def _names_a_trace(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        if not re.fullmatch(r"https?://[^\s/]+/\S*", value) or _TRACE_ID not in value:
            raise ValueError(f"is no template; it looks like https://HOST/trace/{_TRACE_ID}")
        return value


class BoundedTransport(HttpTransport):
    """The SDK's transport, which tells what it loses and gives up sooner.

    The SDK's own time-out of 30 s would let one dead server fill the queue within minutes.
    """

    TIMEOUT = 5
    on_drop: Callable[[int], None] | None = None

    def _get_pool_options(self) -> dict[str, Any]:
        # urllib3 tries three times more, without a pause and with a warning for each.
        return {**super()._get_pool_options(), "retries": False}

    def on_dropped_event(self, _reason: str) -> None:
        """Count one lost report: the queue is full, the server is down, refuses it or limits us."""
        if self.on_drop is not None:
            self.on_drop(1)


def setup_error_tracking(
    settings: ErrorTrackingSettings,
    *,
    on_drop: Callable[[int], None] | None = None,
    on_suppress: Callable[[int], None] | None = None,
    transport: Transport | type[Transport] = BoundedTransport,
) -> None:
    """Start error tracking, or stop it when no DSN is set. The last call of a process wins.

    `on_drop` is told how many reports were lost, `on_suppress` how many were not made because there
    were enough of their kind; `transport` is where reports leave the process.
    """
    global _allowance, _warnings  # noqa: PLW0603 - one process has one error tracker
    _allowance = _Allowance(MAX_REPORTS_PER_MINUTE_IN_ALL, on_suppress or _nobody)
    _warnings = _Allowance(MAX_WARNINGS_PER_MINUTE_IN_ALL, on_suppress or _nobody)
    sentry_sdk.get_client().close(timeout=0)
    if settings.sentry_dsn is None:
        sentry_sdk.get_global_scope().set_client(None)
        return
    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        transport=transport,
        release=f"{settings.otel_service_name}@{settings.service_version}+{settings.git_commit}",
        environment=settings.environment,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        send_client_reports=False,
        enable_backpressure_handling=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_value_length=2 * MAX_MESSAGE,  # cut by us, after what is secret was taken out
        event_scrubber=EventScrubber(recursive=True),
        # Code of ours is what lies in our package: by default it is all below the working directory,
        # which code that SQLAlchemy generates says of itself.
        in_app_include=[__name__.partition(".")[0]],
        project_root=str(Path(__file__).resolve().parents[1]),
        propagate_traces=False,
        spotlight=False,
        # Else brotli would be used wherever it happens to be installed, which not every receiver reads.
        _experiments=cast("Any", {"transport_compression_algo": "gzip"}),
        debug=False,
        before_send=_Finisher(
            settings.otel_service_name,
            trace=settings.trace_url_template,
            logs=settings.logs_url_template,
            on_drop=on_drop or _nobody,
        ),
    )
    used = sentry_sdk.get_client().transport
    if isinstance(used, BoundedTransport):
        used.on_drop = on_drop
    atexit.unregister(flush_errors)
    atexit.register(flush_errors, 2.0)


def report_exception(error: BaseException, /, **tags: str) -> None:
    """Send `error` to the error tracker in the background, unless it is an answer to the client.

    `tags` are short and bounded, such as `where`; `route` names the transaction, the route of the
    current context being the default. Of one type and route, MAX_REPORTS_PER_MINUTE are made.
    """
    client = sentry_sdk.get_client()
    if not client.is_active() or is_expected(error):
        return
    context = current_context()
    route = tags.get("route") or (context.handler if context is not None else "")
    if not _allowance.take(f"{type(error).__module__}.{type(error).__qualname__} {route}"):
        return
    event, hint = event_from_exception(
        error, client_options=client.options, mechanism={"type": "generic", "handled": False}
    )
    event["tags"] = dict(tags)
    sentry_sdk.capture_event(event, hint)


def report_warning(
    message: str,
    *,
    fingerprint: Sequence[str],
    contexts: Mapping[str, Mapping[str, object]] | None = None,
    **tags: str,
) -> None:
    """Send something that is no exception, but that somebody should look into.

    Reports with the same `fingerprint` are one issue, whatever their message says; of each,
    MAX_REPORTS_PER_MINUTE are made, and of all MAX_WARNINGS_PER_MINUTE_IN_ALL. `contexts` are its
    details, by heading.
    """
    if not sentry_sdk.get_client().is_active() or not _warnings.take(" ".join(fingerprint)):
        return
    event: dict[str, Any] = {
        "level": "warning",
        "message": message,
        "fingerprint": list(fingerprint),
        "contexts": {name: dict(details) for name, details in (contexts or {}).items()},
        "tags": dict(tags),
    }
    sentry_sdk.capture_event(cast("Event", event))


class _Allowance:
    """How many reports may still be made in the current minute, of a kind and in all."""

    def __init__(self, in_all: int, on_suppress: Callable[[int], None]) -> None:
        self._most = in_all
        self._on_suppress = on_suppress
        self._used: Counter[str] = Counter()
        self._in_all = 0
        self._ends = 0.0
        self._lock = threading.Lock()

    def take(self, kind: str) -> bool:
        now = time.monotonic()
        with self._lock:
            if now >= self._ends:
                self._used.clear()
                self._in_all = 0
                self._ends = now + 60
            self._used[kind] += 1
            taken = self._used[kind] <= MAX_REPORTS_PER_MINUTE and self._in_all < self._most
            self._in_all += taken
        if not taken:
            self._on_suppress(1)
        return taken


def _nobody(_: int) -> None:
    """Nobody wants to know."""


_allowance = _Allowance(MAX_REPORTS_PER_MINUTE_IN_ALL, _nobody)
_warnings = _Allowance(MAX_WARNINGS_PER_MINUTE_IN_ALL, _nobody)


def is_expected(error: BaseException) -> bool:
    """Whether `error` describes a 4xx answer: an RFC 9457 problem with its own `status` and `title`."""
    status = getattr(error, "status", None)
    return (
        isinstance(status, int)
        and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        and hasattr(error, "title")
    )


def flush_errors(timeout: float) -> None:
    """Wait until pending reports are sent, at most `timeout` seconds. Blocks: call it in a thread."""
    sentry_sdk.get_client().flush(timeout=timeout)


_trails: OrderedDict[int, tuple[RequestContext, deque[dict[str, Any]]]] = OrderedDict()
_trails_lock = threading.Lock()


def add_breadcrumb(category: str, message: str, **data: object) -> None:
    """Remember a business event of this request or job; its report, if there is one, tells the last 20.

    Breadcrumbs belong to the request's context, not to the thread or task, so those of one request can
    never show in another's report. Outside of a request or job this does nothing.
    """
    context = current_context()
    if context is None or not sentry_sdk.get_client().is_active():
        return
    crumb = {
        "timestamp": datetime.now(UTC).isoformat(),
        "type": "default",
        "level": "info",
        "category": category,
        "message": message,
        "data": data,
    }
    with _trails_lock:
        # The entry holds its context, so the id cannot be given to another one meanwhile.
        _, trail = _trails.setdefault(id(context), (context, deque(maxlen=MAX_BREADCRUMBS)))
        trail.append(crumb)
        if len(_trails) > _MAX_TRAILS:
            _trails.popitem(last=False)


def _trail_of(context: RequestContext | None) -> list[dict[str, Any]]:
    with _trails_lock:
        entry = _trails.get(id(context))
        return list(entry[1]) if entry else []


class _Finisher:
    """The last hand on every event: identity in, secrets out."""

    def __init__(
        self,
        service: str,
        *,
        trace: str | None,
        logs: str | None,
        on_drop: Callable[[int], None],
    ) -> None:
        self._service = service
        self._trace = trace
        self._logs = logs
        self._on_drop = on_drop

    def __call__(self, event: "Event", _hint: "Hint") -> "Event | None":
        try:
            return self._finished(event)
        except Exception:  # noqa: BLE001 - what could not be scrubbed is not sent, but counted
            self._on_drop(1)
            return None

    def _finished(self, event: "Event") -> "Event":
        context = current_context()
        tags = {"service": self._service, **cast("dict[str, str]", event.get("tags") or {})}
        if context is not None:
            tags.setdefault("request_id", context.request_id)
            tags.setdefault("route", context.handler)
            event["user"] = {"id": context.user_id} if context.user_id else {}
            if context.database.describe is not None:
                with suppress(Exception):  # a report without it is better than none
                    event.setdefault("contexts", {}).setdefault(
                        "database", dict(context.database.describe())
                    )
        # In place of the SDK's own breadcrumbs, which all requests share.
        event["breadcrumbs"] = {"values": _trail_of(context)}
        event["tags"] = {name: value for name, value in tags.items() if value}
        if tags.get("route"):
            event["transaction"] = tags["route"]
            event["transaction_info"] = {"source": "route"}
        if event.get("exception"):
            event["fingerprint"] = _fingerprint(event)
        _scrub(event)
        trace_id, span_id = current_trace_ids()
        _use_trace(event, trace_id, span_id)
        self._link(event, trace_id, span_id)
        return event

    def _link(self, event: "Event", trace_id: str, span_id: str) -> None:
        """Say where the rest of the story is. A trace that is not recorded is nowhere; its logs are."""
        links = {"trace": self._trace if span_id else None, "logs": self._logs}
        found = {name: url.replace(_TRACE_ID, trace_id) for name, url in links.items() if url}
        if trace_id and found:
            event["contexts"]["links"] = dict[str, object](found)


# The release, name@version, would pass for an e-mail address.
_HARMLESS = {
    "exception",
    "event_id",
    "release",
    "environment",
    "timestamp",
    "level",
    "platform",
    "sdk",
}


def _scrub(event: "Event") -> None:
    """Take out what identifies a machine or a person, and what may be a secret."""
    part: Any = event  # a TypedDict with more keys than its type tells
    for unwanted in ("server_name", "request", "modules"):
        part.pop(unwanted, None)
    for error in (part.get("exception") or {}).get("values") or ():
        # The frames are left alone: they are source code, and they would use up redact's allowance.
        error["value"] = redact_text(str(error.get("value") or ""), MAX_MESSAGE)
    for name in part.keys() - _HARMLESS:
        part[name] = redact(part[name])


def _fingerprint(event: "Event") -> list[str]:
    """Group by exception type, route and the innermost function of ours, not by the library below it.

    The default, the whole stack, makes one time-out of a database a new issue for each of the ways
    that lead to it inside of the driver.
    """
    error: dict[str, Any] = event["exception"]["values"][-1]
    frames: list[dict[str, Any]] = (error.get("stacktrace") or {}).get("frames") or []
    ours = [frame for frame in frames if frame.get("in_app")] or frames or [{}]
    return [
        f"{error.get('module') or 'builtins'}.{error.get('type')}",
        event.get("transaction") or "no route",
        f"{ours[-1].get('module')}.{ours[-1].get('function')}",
    ]


def _use_trace(event: "Event", trace_id: str, span_id: str) -> None:
    contexts = event.setdefault("contexts", {})
    made_up = contexts.pop("trace", None) or {}  # the SDK's own ids, which no trace has
    if trace_id:
        # The protocol wants a span; an unsampled request has none, so it keeps the made-up one.
        contexts["trace"] = {"trace_id": trace_id, "span_id": span_id or made_up.get("span_id")}
