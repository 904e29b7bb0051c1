"""RED metrics of the HTTP API, and the page from which Prometheus reads every metric of the process.

Owns: http_requests_total, http_request_duration_seconds, http_requests_in_progress,
http_request_size_bytes, http_response_size_bytes, synthetic_http_requests_total, build_info,
telemetry_dropped_total, error_reports_suppressed_total, GET /metrics.

A label is a route template, a known method or a status code; never a path, an id or anything else that
a client may invent. While a sampled trace is current, the request's count and duration carry its id as
an exemplar, shown to a scraper that speaks OpenMetrics: the way from a slow bucket to a trace.

The monitoring's own requests (context.py says which) are counted apart: they come at a rate that somebody
has set, so in the objectives' ratios they would hide what customers see. What they cost is in all else
(requests in progress, database, dependencies, security), since it is as real as anybody's.

Must never cost more because there are more routes, and never block the event loop for a scrape.
"""

import gzip
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from fastapi import FastAPI
from prometheus_client import (
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info
from starlette.requests import Request
from starlette.responses import Response

from app.observability.cardinality import fold
from app.observability.context import (
    RequestContext,
    ServiceSettings,
    is_operational,
    observe_requests,
    requests_in_progress,
)
from app.observability.observations import COUNT_SECONDS, Traced, observe_all
from app.observability.settling import Later, settle
from app.observability.shared_metrics import is_shared, shared_registry

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


REQUESTS = Counter(
    "http_requests_total",
    "HTTP requests that have ended. Status 499: the client left before the answer was complete.",
    ["method", "handler", "status"],
)
DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from the request's first byte seen by the application to the last byte of the answer.",
    ["method", "handler", "status"],
    # 0.2 and 1.0 are the thresholds of the latency objectives: only at
    # a bucket's bound is the share of fast requests exact. 30 is where clients give up.
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
SYNTHETIC_REQUESTS = Counter(
    "synthetic_http_requests_total",
    "Requests of the synthetic monitoring that have ended; no other HTTP metric has them.",
    ["handler", "status"],
)
IN_PROGRESS = Gauge(
    "http_requests_in_progress",
    "HTTP requests that are being served.",
    multiprocess_mode="livesum",
)
_SIZES: Final = (256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)
REQUEST_SIZE = Histogram(
    "http_request_size_bytes", "Size of request bodies.", ["handler"], buckets=_SIZES
)
RESPONSE_SIZE = Histogram(
    "http_response_size_bytes", "Size of response bodies.", ["handler"], buckets=_SIZES
)
BUILD_INFO = Gauge(
    "build_info",
    "Always 1; the labels say what runs.",
    ["version", "commit", "environment"],
    multiprocess_mode="livemostrecent",
)
TELEMETRY_DROPPED = Counter(
    "telemetry_dropped_total",
    "Log lines, spans and error reports that were lost in this process.",
    ["signal"],
)
ERROR_REPORTS_SUPPRESSED = Counter(
    "error_reports_suppressed_total",
    "Error reports that were not made because there were enough of their kind in that minute.",
)


class MetricsSettings(ServiceSettings):
    """Which build the metrics speak of: nothing but the identity of the service."""


def telemetry_dropped(signal: str) -> Callable[[int], None]:
    """Return what counts lost telemetry of `signal` (logs, traces, errors), starting at 0."""
    return TELEMETRY_DROPPED.labels(signal).inc


def instrument_metrics(app: FastAPI, settings: MetricsSettings) -> None:
    """Measure every request of `app` and serve GET /metrics."""
    publish_build_info(settings)
    # A creation timestamp for every counter would double the number of series.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's
    # Typed for the library's Info; what they get is a RequestInfo.
    instrumentator = Instrumentator().add(cast("Callable[[Info], None]", _measure))
    instrumentations = instrumentator.instrumentations

    def observe(context: RequestContext) -> None:
        info = RequestInfo(context)
        for instrumentation in instrumentations:
            instrumentation(info)

    if is_shared():
        app.add_middleware(cast("Any", _InProgress))
    observe_requests(app, Later(observe, _publish_tallies, seconds=COUNT_SECONDS).add)
    # A plain `def`: Starlette runs it in a thread, since rendering 20,000 series takes 0.2 s.
    app.add_route("/metrics", metrics_page, include_in_schema=False)


def publish_build_info(settings: ServiceSettings) -> None:
    """Say which build this is."""
    BUILD_INFO.labels(settings.service_version, settings.git_commit, settings.environment).set(1)


# Requests ---------------------------------------------------------------------------------------------

if not is_shared():  # a page that workers share reads values from files and calls no function
    IN_PROGRESS.set_function(requests_in_progress)


class _InProgress:
    """Counts the requests that are being served, for a page that workers share."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http" or is_operational(scope["path"]):
            await self.app(scope, receive, send)
            return
        with IN_PROGRESS.track_inprogress():
            await self.app(scope, receive, send)


_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_OTHER_METHOD: Final = "OTHER"
_FAILURES: Final = ("500", "503")
"""Statuses whose series begin at 0 with the first request to a route. `increase()` and `rate()` see how
much a series has grown, never that it began: the first failure of a route would be told by no alert."""


class RequestInfo(Info):
    """What the instrumentator tells its instrumentations, made of what context.py has seen.

    The library makes a Request and a Response for each of these, which most instrumentations never look at
    and which cost more than counting does; here they are made for those that do.
    """

    def __init__(self, context: RequestContext) -> None:
        self.context = context
        self.method = context.method
        self.modified_handler = context.route
        self.modified_status = _status_text(context.status)
        self.modified_duration = self.modified_duration_without_streaming = context.seconds

    @property
    def request(self) -> Request:  # type: ignore[override]  # an attribute there
        """The request's method and path; its headers and its body are gone."""
        asked = {"type": "http", "method": self.method, "path": self.context.path, "headers": []}
        return Request(asked)

    @property
    def response(self) -> Response:  # type: ignore[override]
        """The answer, without its headers and its body."""
        return Response(status_code=self.context.status)


_status_text = lru_cache(maxsize=1024)(str)


_MAX_HANDLERS: Final = 500
_MAX_STATUSES: Final = 60
"""HTTP defines about as many; the code chooses the routes and the statuses, and no type closes them."""


def _folded(handler: str, status: str) -> tuple[str, str]:
    return (
        fold("http_requests_total", "handler", handler, limit=_MAX_HANDLERS),
        fold("http_requests_total", "status", status, limit=_MAX_STATUSES),
    )


@lru_cache(maxsize=4096)
def _series(method: str, handler: str, status: str) -> tuple[Counter, Histogram]:
    for failure in _FAILURES:
        REQUESTS.labels(method, *_folded(handler, failure))
    handler, status = _folded(handler, status)
    return REQUESTS.labels(method, handler, status), DURATION.labels(method, handler, status)


@lru_cache(maxsize=1024)
def _sizes(handler: str) -> tuple[Histogram, Histogram]:
    handler = fold("http_requests_total", "handler", handler, limit=_MAX_HANDLERS)
    return REQUEST_SIZE.labels(handler), RESPONSE_SIZE.labels(handler)


class _Tally:
    """What several requests of one kind have in common, and what they have not."""

    __slots__ = ("durations", "received", "sent", "traced")

    def __init__(self) -> None:
        self.durations: list[float] = []
        """Of those that are not traced."""
        self.traced: list[Traced] = []
        """The duration of the others, with their exemplar."""
        self.received: list[int] = []
        self.sent: list[int] = []


_tallies: Final[dict[tuple[str, str, str], _Tally]] = {}
"""By method, handler and status: of the requests that are settled together, until they are."""


def _measure(info: RequestInfo) -> None:
    context = info.context
    if context.synthetic:
        SYNTHETIC_REQUESTS.labels(*_folded(info.modified_handler, info.modified_status)).inc()
        return
    asked = info.method, info.modified_handler, info.modified_status
    tally = _tallies.get(asked)
    if tally is None:
        tally = _tallies[asked] = _Tally()
    trace_id, span_id = context.trace_ids
    # Only a sampled trace has a span of ours, and only a sampled trace can be looked up.
    if span_id:
        tally.traced.append((info.modified_duration, {"trace_id": trace_id}))
    else:
        tally.durations.append(info.modified_duration)
    received, announced = context.received, context.announced
    tally.received.append(max(announced, received))
    tally.sent.append(0 if info.method == "HEAD" else context.sent)


def _publish_tallies() -> None:
    published = _tallies.copy()
    _tallies.clear()
    for (method, handler, status), tally in published.items():
        count, duration = _series(method if method in _METHODS else _OTHER_METHOD, handler, status)
        if tally.durations:
            count.inc(len(tally.durations))
        if tally.traced:
            count.inc(len(tally.traced) - 1)
            count.inc(1, dict(tally.traced[-1][1]))
        observe_all(duration, tally.durations, tally.traced)
        request_size, response_size = _sizes(handler)
        observe_all(request_size, tally.received)
        observe_all(response_size, tally.sent)


# The page ---------------------------------------------------------------------------------------------


def metrics_page(request: Request) -> Response:
    """Return all metrics, in the format and encoding that the scraper asked for.

    Exemplars exist in OpenMetrics only, and not where several workers share the page (see
    shared_metrics.py). The page is compressed at level 1: level 9 costs ten times the
    time for a tenth of the size.
    """
    settle()
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    body = encode(shared_registry() if is_shared() else REGISTRY)
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers)
