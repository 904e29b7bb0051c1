"""Traces: the early decision, the spans, and what is in them."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import fakeredis
import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observability import context
from app.observability.context import RequestContextMiddleware, current_context, current_trace_ids
from app.observability.redaction import REDACTED
from app.observability.server_spans import ServerSpans
from app.observability.tracing import (
    SampledFirst,
    Tracing,
    TracingSettings,
    _ShareOfTraces,
    _taken_apart,
    business_span,
    consume_span,
    fail_span,
    inject_trace,
    instrument_tracing,
    publish_span,
    setup_tracing,
    trace_engine,
    trace_http_client,
    trace_redis,
    untraced,
)

PARENT = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = {"traceparent": f"00-{PARENT}-b7ad6b7169203331-01"}
NOT_SAMPLED = {"traceparent": f"00-{PARENT}-b7ad6b7169203331-00"}


class Recorded:
    """What was exported."""

    def __init__(self, settings: TracingSettings) -> None:
        self._memory = InMemorySpanExporter()
        self.dropped: list[int] = []
        self.tracing = setup_tracing(settings, exporter=self._memory, on_drop=self.dropped.append)

    def spans(self) -> list[ReadableSpan]:
        self.tracing.flush(60)
        return list(self._memory.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans() if span.name == name]
        return found

    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans())


def settings(ratio: float | None = 1.0, **others: Any) -> TracingSettings:
    return TracingSettings(environment="test", otel_traces_sampler_arg=ratio, **others)


@pytest.fixture(autouse=True)
def _own_trace_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_trace_source", context._no_trace)


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded(settings())
    yield recorded
    recorded.tracing.shutdown(60)


def build(tracing_: Tracing) -> FastAPI:
    router = APIRouter(prefix="/orders")

    @router.get("/{order_id}")
    def read(order_id: str) -> dict[str, Any]:
        now = current_context()
        if now:
            now.user_id = "user-1"
        carrier: dict[str, str] = {}
        inject_trace(carrier)
        return {"ids": current_trace_ids(), "carrier": carrier, "baggage": dict(baggage.get_all())}

    @router.get("/{order_id}/boom")
    def boom(order_id: str) -> None:
        raise RuntimeError(f"for a@b.com and {order_id}")

    @router.get("/{order_id}/conflict")
    def conflict(order_id: str) -> None:
        raise HTTPException(409)

    @router.get("/{order_id}/later")
    def later(order_id: str, background: BackgroundTasks) -> None:
        def work() -> None:
            with business_span("mail.send"):
                pass

        background.add_task(work)

    @router.post("/reset/{token}")
    def reset(token: str) -> None:
        pass

    app = FastAPI()

    @app.get("/health/live")
    def live() -> tuple[str, str]:
        return current_trace_ids()

    outer = APIRouter(prefix="/v1")
    outer.include_router(router, prefix="/shop")
    app.include_router(outer)
    instrument_tracing(app, tracing_)
    app.add_middleware(RequestContextMiddleware)
    return app


@contextmanager
def client_of(tracing_: Tracing) -> Iterator[TestClient]:
    with TestClient(
        build(tracing_), raise_server_exceptions=False, follow_redirects=False
    ) as client:
        yield client


@pytest.fixture
def client(recorded: Recorded) -> Iterator[TestClient]:
    with client_of(recorded.tracing) as client:
        yield client


# The decision -----------------------------------------------------------------------------------------


def test_a_sampled_request_has_one_span_named_after_its_route(
    client: TestClient, recorded: Recorded
) -> None:
    answer = client.get("/v1/shop/orders/7", headers={"User-Agent": "shop/1"})

    (span,) = recorded.spans()
    assert span.name == "GET /v1/shop/orders/{order_id}"
    assert span.kind is SpanKind.SERVER
    assert span.parent is None
    attributes = dict(span.attributes or {})
    assert attributes["http.route"] == "/v1/shop/orders/{order_id}"
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.response.status_code"] == 200
    assert attributes["url.path"] == "/v1/shop/orders/7"
    assert attributes["request.id"] == answer.headers["X-Request-ID"]
    assert attributes["user.id"] == "user-1"
    assert "http.method" not in attributes  # the names of 2021
    assert span.context is not None
    ids = [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]
    assert answer.json()["ids"] == ids
    assert answer.headers["X-Trace-ID"] == ids[0]


def test_an_unsampled_request_has_ids_and_no_span() -> None:
    recorded = Recorded(settings(0.0))
    with client_of(recorded.tracing) as client:
        first, second = (client.get("/v1/shop/orders/7") for _ in range(2))

    trace_id, span_id = first.json()["ids"]
    assert len(trace_id) == 32
    assert span_id == ""
    assert first.headers["X-Trace-ID"] == trace_id != second.headers["X-Trace-ID"]
    assert first.json()["carrier"]["traceparent"].startswith(f"00-{trace_id}-")
    assert first.json()["carrier"]["traceparent"].endswith("-00")
    assert recorded.spans() == []
    recorded.tracing.shutdown(60)


@pytest.mark.parametrize("recorder", [OpenTelemetryMiddleware, ServerSpans])
def test_an_unsampled_request_skips_what_records(
    monkeypatch: pytest.MonkeyPatch, recorder: type
) -> None:
    async def called(*_: object, **__: object) -> None:
        raise AssertionError("the request was to be recorded")

    monkeypatch.setattr(recorder, "__call__", called)
    for unsampling in (Recorded(settings(0.0)).tracing, setup_tracing(settings(1.0))):
        with client_of(unsampling) as client:
            assert client.get("/v1/shop/orders/7").status_code == 200
        unsampling.shutdown(60)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_the_applications_own_handler_answers_an_error_inside_of_the_trace(
    ratio: float,
) -> None:
    tracing = setup_tracing(settings(ratio), exporter=InMemorySpanExporter())
    app = FastAPI()
    instrument_tracing(app, tracing)

    @app.exception_handler(Exception)
    async def answer(_: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(f"{error} {current_trace_ids()[0]}", 500)

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("boom")

    app.get("/begun")(broken_off)

    for path, body, status in (("/boom", None, 500), ("/begun", b"begun", 200)):
        sent: list[Message] = []
        with pytest.raises(RuntimeError, match="boom"):  # and goes on, for the server to know of it
            await ask(app, path, sent)
        starts = [message for message in sent if message["type"] == "http.response.start"]
        assert [start["status"] for start in starts] == [status]
        trace_id = dict(starts[0]["headers"])[b"x-trace-id"]
        assert sent[1]["body"] == (body or b"boom " + trace_id)
    tracing.shutdown(60)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("identified", [True, False])
async def test_that_handler_is_called_even_where_it_is_too_late_to_answer(
    share: float, identified: bool
) -> None:
    tracing = setup_tracing(settings(share), exporter=InMemorySpanExporter())
    app = FastAPI()
    told: list[str] = []
    answers: list[Message] = []

    @app.get("/streamed")
    async def streamed() -> StreamingResponse:
        async def broken() -> AsyncIterator[str]:
            yield "a part"
            raise RuntimeError("no more of it")

        return StreamingResponse(broken())

    @app.exception_handler(Exception)
    def handle(_: Request, error: Exception) -> PlainTextResponse:
        told.append(str(error))
        return PlainTextResponse("sorry", 500)

    if identified:
        context.identify_requests(app)
    instrument_tracing(app, tracing)

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/streamed",
        "headers": [],
        "query_string": b"",
    }
    with pytest.raises(RuntimeError, match="no more"):
        await app(scope, receive, send)
    tracing.shutdown(60)
    assert told == ["no more of it"]
    assert [message["type"] for message in answers] == ["http.response.start", "http.response.body"]


async def test_what_a_handler_says_of_name_and_route_stays(recorded: Recorded) -> None:
    app = FastAPI()

    @app.get("/here/{anything}")
    def here(anything: str) -> None:
        span = trace.get_current_span()
        span.update_name("mine")
        span.set_attributes({"http.route": "/mine", "url.path": f"/for/{anything}"})

    instrument_tracing(app, recorded.tracing)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://test"
    ) as client:
        await client.get("/here/a@b.com")
    told = recorded.span("mine").attributes or {}
    assert (told["http.route"], told["url.path"]) == ("/mine", "/for/[redacted]")


async def test_whose_request_it_was_is_known_with_the_answer(recorded: Recorded) -> None:
    app = FastAPI()

    @app.get("/here")
    def here(background: BackgroundTasks) -> None:
        def become_somebody_else() -> None:
            now = current_context()
            assert now is not None
            now.user_id = "user-2"

        now = current_context()
        assert now is not None
        now.user_id = "user-1"
        background.add_task(become_somebody_else)

    context.identify_requests(app)
    instrument_tracing(app, recorded.tracing)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://test"
    ) as client:
        await client.get("/here")
    assert (recorded.span("GET /here").attributes or {})["user.id"] == "user-1"


def test_a_disabled_sdk_records_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    recorded = Recorded(settings(1.0))
    with TestClient(build(recorded.tracing)) as client:
        trace_id, span_id = client.get("/v1/shop/orders/7").json()["ids"]
    assert len(trace_id) == 32
    assert not span_id
    assert not recorded.spans()
    recorded.tracing.shutdown(60)


async def test_what_ends_after_the_shutdown_is_counted_at_once() -> None:
    recorded = Recorded(settings(1.0))
    app = build(recorded.tracing)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/v1/shop/orders/7")
        recorded.tracing.shutdown(60)
        lost = sum(recorded.dropped)
        await client.get("/v1/shop/orders/8")
        assert sum(recorded.dropped) == lost + 1


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("layers", [[], [{"echo": False}], [{}], [{"echo": False}, {}]])
async def test_every_answer_has_its_trace_id_once(
    share: float, layers: list[dict[str, Any]]
) -> None:
    tracing = setup_tracing(settings(share), exporter=InMemorySpanExporter())
    app = FastAPI()

    @app.get("/served")
    async def served() -> None:
        pass

    @app.get("/boom")  # answered outside of all layers
    async def boom() -> None:
        raise RuntimeError("boom")

    instrument_tracing(app, tracing)
    for options in layers:
        app.add_middleware(RequestContextMiddleware, **options)
    for path in ("/served", "/boom", "/nowhere"):
        sent: list[Message] = []
        with suppress(RuntimeError):
            await ask(app, path, sent)
        names = [name for name, _ in sent[0]["headers"]]
        assert names.count(b"x-trace-id") == 1, path
    tracing.shutdown(60)


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_so_has_that_of_a_layer_further_out_or_of_a_mounted_application(share: float) -> None:
    tracing = setup_tracing(settings(share), exporter=InMemorySpanExporter())

    class Outer:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/short":
                headers = iter([(b"set-cookie", b"a=b")])
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                raise RuntimeError("boom")
            await self.app(dict(scope), receive, send)

    def build(*, with_outer: bool) -> FastAPI:
        app = FastAPI()

        app.get("/begun")(broken_off)
        instrument_tracing(app, tracing)
        app.add_middleware(RequestContextMiddleware)
        if with_outer:
            app.add_middleware(cast("Any", Outer))
        return app

    outside = FastAPI()
    outside.mount("/sub", build(with_outer=False))
    outside.add_middleware(RequestContextMiddleware)
    layered = build(with_outer=True)
    for app, path, before in (
        (layered, "/short", [b"set-cookie"]),
        (layered, "/begun", []),
        (outside, "/sub/begun", []),
    ):
        sent: list[Message] = []
        with pytest.raises(RuntimeError, match="boom"):
            await ask(app, path, sent)
        starts = [message for message in sent if message["type"] == "http.response.start"]
        assert len(starts) == 1, path
        names = [name for name, _ in starts[0]["headers"]]
        assert names.count(b"x-trace-id") == 1, path
        assert names[: len(before)] == before
    tracing.shutdown(60)


def test_the_next_layer_of_ours_gives_an_answer_its_trace_id() -> None:
    """Otherwise each message of each answer would pass a layer more: FastAPI has its own between them."""
    app = FastAPI()
    tracing = setup_tracing(settings(0.0))
    instrument_tracing(app, tracing)
    app.add_middleware(RequestContextMiddleware)

    stack = app.build_middleware_stack()

    assert isinstance(stack, SampledFirst)
    assert stack._has_ids_inside
    tracing.shutdown(60)


class ReadsBodies:
    """Stands between the layers and the handler, as who checks signatures does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await self.app(scope, receive, send)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize(
    "limited", ["by itself", "where it is mounted", "by its host", "around it"]
)
async def test_so_has_the_answer_about_a_body_that_is_too_long(
    *, share: float, limited: str
) -> None:
    tracing = setup_tracing(settings(share), exporter=InMemorySpanExporter())
    app = FastAPI(max_body_size=2 if limited == "by itself" else None)

    @app.post("/long")
    async def long() -> None:
        raise AssertionError

    instrument_tracing(app, tracing)
    app.add_middleware(cast("Any", ReadsBodies))
    app.add_middleware(RequestContextMiddleware)
    asked, path = cast("ASGIApp", app), "/long"
    if limited == "around it":
        asked = RequestBodyLimitMiddleware(app, max_body_size=2)
    elif limited != "by itself":
        asked = outside = FastAPI(max_body_size=2)
        outside.mount("/sub", app)
        outside.host("shop.example", app)
        path = "/sub/long" if limited == "where it is mounted" else "/long"
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"longer", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    host = b"shop.example" if limited == "by its host" else b"localhost"
    scope = {"type": "http", "method": "POST", "headers": [(b"host", host)], "query_string": b""}
    await asked({**scope, "path": path}, receive, send)
    assert sent[0]["status"] == 413
    assert [name for name, _ in sent[0]["headers"]].count(b"x-trace-id") == 1
    tracing.shutdown(60)


async def broken_off() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"begun"
        raise RuntimeError("boom")

    return StreamingResponse(pieces())


async def ask(app: FastAPI, path: str, sent: list[Message]) -> None:
    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await app({**scope, "asgi": {"version": "3.0"}}, receive, send)


def test_another_stack_than_the_instrumentations_is_left_as_it_is() -> None:
    async def other(*_: object) -> None:
        pass

    assert _taken_apart(other) == (other, None)


def test_the_parents_decision_counts(client: TestClient, recorded: Recorded) -> None:
    client.get("/v1/shop/orders/7", headers=NOT_SAMPLED)
    assert recorded.spans() == []

    rare = Recorded(settings(0.0))
    with client_of(rare.tracing) as rarely:
        answer = rarely.get("/v1/shop/orders/7", headers=SAMPLED)
    (span,) = rare.spans()
    assert span.parent is not None
    assert span.parent.span_id == 0xB7AD6B7169203331
    assert answer.headers["X-Trace-ID"] == PARENT
    rare.tracing.shutdown(60)


def test_an_unsampled_parents_trace_goes_on(client: TestClient) -> None:
    headers = NOT_SAMPLED | {"tracestate": "vendor=1", "baggage": "tenant=blue"}
    answer = client.get("/v1/shop/orders/7", headers=headers).json()

    assert answer["ids"] == [PARENT, ""]
    assert answer["carrier"]["traceparent"].startswith(f"00-{PARENT}-")
    assert answer["carrier"]["traceparent"].endswith("-00")
    assert "b7ad6b7169203331" not in answer["carrier"]["traceparent"]
    assert answer["carrier"]["tracestate"] == "vendor=1"
    assert answer["carrier"]["baggage"] == "tenant=blue"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tracestate", "shop=jane@example.com"),
        ("tracestate", "shop=4111111111111111,other=1"),
        ("baggage", "mail=jane%40example.com,tenant=blue"),
        ("baggage", "token=abc"),
    ],
)
def test_personal_data_beside_the_parent_goes_nowhere(
    client: TestClient, recorded: Recorded, name: str, value: str
) -> None:
    answer = client.get("/v1/shop/orders/7", headers=SAMPLED | {name: value}).json()

    assert answer["ids"][0] == PARENT
    assert name not in answer["carrier"]
    (span,) = recorded.spans()
    assert span.context is not None
    assert not span.context.trace_state


def test_a_path_without_a_route_is_shown_without_its_secrets(
    client: TestClient, recorded: Recorded
) -> None:
    client.get("/reset/8f4e1c7b1a7c3e9f")

    (span,) = recorded.spans()
    assert span.attributes is not None
    assert span.attributes["url.path"] == f"/reset/{REDACTED}"


@pytest.mark.parametrize("broken", ["00-0-0-01", "x" * 500, "", f"00-{PARENT}-0000000000000000-01"])
def test_a_broken_parent_is_no_parent(client: TestClient, broken: str) -> None:
    answer = client.get("/v1/shop/orders/7", headers={"traceparent": broken})

    assert answer.status_code == 200
    assert answer.headers["X-Trace-ID"] not in {PARENT, "0" * 32}
    assert len(answer.headers["X-Trace-ID"]) == 32


def test_the_share_is_what_was_asked_for_and_agrees_with_the_sampler() -> None:
    recorded = Recorded(settings(0.3))
    random.seed(3)  # the ids that decide are drawn from it
    with client_of(recorded.tracing) as client:
        answers = [client.get("/v1/shop/orders/7") for _ in range(400)]

    sampled = {a.headers["X-Trace-ID"] for a in answers if a.json()["ids"][1]}
    assert 70 < len(sampled) < 170
    exported = {f"{span.context.trace_id:032x}" for span in recorded.spans() if span.context}
    assert exported == sampled
    recorded.tracing.shutdown(60)


def test_without_an_exporter_nothing_is_recorded_and_ids_exist() -> None:
    nowhere = setup_tracing(settings(1.0))
    with client_of(nowhere) as client, business_span("outside") as span:
        ids = client.get("/v1/shop/orders/7").json()["ids"]

    assert len(ids[0]) == 32
    assert ids[1] == ""
    assert not span.is_recording()
    nowhere.shutdown(60)


def test_probes_are_not_traced(client: TestClient, recorded: Recorded) -> None:
    answer = client.get("/health/live", headers=SAMPLED)

    assert answer.json() == ["", ""]
    assert "X-Trace-ID" not in answer.headers
    assert recorded.spans() == []


@pytest.mark.parametrize(
    ("environment", "argument", "ratio"),
    [("development", None, 1.0), ("production", None, 0.01), ("production", 0.5, 0.5), ("test", "", 1)],
)  # fmt: skip
def test_the_default_share(environment: str, argument: object, ratio: float) -> None:
    values = {"environment": environment, "otel_traces_sampler_arg": argument}

    assert TracingSettings.model_validate(values).sampling_ratio == ratio


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="http://localhost:4318"):
        TracingSettings(otel_exporter_otlp_endpoint="localhost:4318")
    with pytest.raises(ValidationError):
        TracingSettings(otel_traces_sampler_arg=2)


def test_no_global_provider_is_set(client: TestClient) -> None:
    """With one, FastAPI would trace every request by itself, and other libraries would join in."""
    client.get("/v1/shop/orders/7")

    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"


def test_fastapis_own_tracing_stays_off(recorded: Recorded) -> None:
    native = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(native))
    app = FastAPI(telemetry={"tracer_provider": provider})
    instrument_tracing(app, recorded.tracing)
    with TestClient(app) as client:
        client.get("/nowhere")
        client.get("/nowhere", headers=NOT_SAMPLED)

    assert native.get_finished_spans() == ()


# What a request's span says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("DELETE", "/v1/shop/orders/7", "DELETE /v1/shop/orders/{order_id}", 405),
        ("GET", "/v1/shop/orders/7/", "GET", 307),
        ("GET", "/wp-login.php", "GET", 404),
        ("BREW", "/teapot", "HTTP", 404),
        ("GET", "/v1/shop/orders/7/conflict", "GET /v1/shop/orders/{order_id}/conflict", 409),
    ],
)
def test_the_name_is_never_a_path(
    client: TestClient, recorded: Recorded, method: str, path: str, name: str, status: int
) -> None:
    client.request(method, path)

    span = recorded.span(name)
    assert (span.attributes or {})["http.response.status_code"] == status
    assert span.status.status_code is StatusCode.UNSET


def test_an_exception_is_on_the_span_once_and_redacted(
    client: TestClient, recorded: Recorded
) -> None:
    client.get("/v1/shop/orders/7/boom")

    span = recorded.span("GET /v1/shop/orders/{order_id}/boom")
    assert span.status.status_code is StatusCode.ERROR
    (event,) = span.events
    assert (event.attributes or {})["exception.type"] == "RuntimeError"
    assert "a@b.com" not in str(dict(event.attributes or {}))


def test_a_handled_exception_can_be_put_on_the_span(recorded: Recorded) -> None:
    with business_span("order.place"):
        fail_span(ValueError("for a@b.com"))

    span = recorded.span("order.place")
    assert span.status.description == "ValueError: for [redacted]"
    assert len(span.events) == 1


def test_no_secret_of_the_request_is_on_the_span(client: TestClient, recorded: Recorded) -> None:
    client.post(
        "/v1/shop/orders/reset/s3cr3t?email=a@b.com&code=hunter2",
        headers={
            "Authorization": "Bearer hunter2",
            "Cookie": "id=hunter2",
            "User-Agent": "a@b.com",
        },
    )

    attributes = dict(recorded.span("POST /v1/shop/orders/reset/{token}").attributes or {})
    assert attributes["url.path"] == "/v1/shop/orders/reset/[redacted]"
    assert attributes["url.query"] == "email=[redacted]&code=[redacted]"
    assert not {"s3cr3t", "hunter2", "a@b.com"} & set(str(attributes).replace("'", " ").split())
    assert "hunter2" not in str(attributes)
    assert "a@b.com" not in str(attributes)


def test_the_clients_address_is_cut_to_its_network(recorded: Recorded) -> None:
    with TestClient(build(recorded.tracing), client=("203.0.113.77", 5000)) as client:
        client.get("/v1/shop/orders/7")

    (span,) = recorded.spans()
    assert (span.attributes or {})["client.address"] == "203.0.113.0"
    assert "203.0.113.77" not in str(dict(span.attributes or {}))


def test_what_runs_after_the_answer_belongs_to_the_request(
    client: TestClient, recorded: Recorded
) -> None:
    client.get("/v1/shop/orders/7/later")

    work, request = (
        recorded.span("mail.send"),
        recorded.span("GET /v1/shop/orders/{order_id}/later"),
    )
    assert work.parent is not None
    assert request.context is not None
    assert work.parent.span_id == request.context.span_id


def test_the_resource_says_who_recorded(recorded: Recorded) -> None:
    with business_span("x"):
        pass

    resource = recorded.span("x").resource.attributes
    assert resource["service.name"] == "glasshouse"
    assert resource["service.version"] == "0.1.0"
    assert resource["deployment.environment.name"] == "test"
    assert len(str(resource["service.instance.id"])) == 36


# Operations and messages ------------------------------------------------------------------------------


def test_operations_nest_and_fail(recorded: Recorded) -> None:
    def place() -> None:
        with business_span("order.place", order_id="7", lines=2):
            with business_span("stock.reserve"):
                pass
            raise KeyError("sku")

    with pytest.raises(KeyError):
        place()

    outer, inner = recorded.span("order.place"), recorded.span("stock.reserve")
    assert dict(outer.attributes or {}) == {"order_id": "7", "lines": 2}
    assert outer.status.status_code is StatusCode.ERROR
    assert outer.context is not None
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


def test_a_secret_attribute_is_redacted(recorded: Recorded) -> None:
    card: Any = 4111111111111111
    given: Any = [None, "a@b.com"]
    with business_span(
        "x", token="t", notes=["a@b.com", "fine"], numbers=[1, 2], n=7, card=card, mixed=given
    ):
        pass

    attributes = dict(recorded.span("x").attributes or {})
    assert attributes == {
        "token": "[redacted]",
        "notes": ("[redacted]", "fine"),
        "numbers": (1, 2),
        "n": 7,
        "card": "[redacted]",
        "mixed": (None, "[redacted]"),
    }


def test_a_message_carries_its_trace_to_its_consumer(recorded: Recorded) -> None:
    carrier: dict[str, str] = {}
    with business_span("order.place"), publish_span("order.created", "m-1"):
        inject_trace(carrier)
    with consume_span("order.created", "m-1", carrier):
        assert current_trace_ids()[1]

    sent, handled = recorded.span("publish order.created"), recorded.span("process order.created")
    assert (sent.kind, handled.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert sent.context is not None
    assert handled.parent is not None
    assert handled.parent.span_id == sent.context.span_id
    assert handled.parent.trace_id == sent.context.trace_id
    assert (handled.attributes or {})["messaging.message.id"] == "m-1"
    assert (handled.attributes or {})["messaging.operation.type"] == "process"
    assert (sent.attributes or {})["messaging.destination.name"] == "order.created"
    assert current_trace_ids() == ("", "")


def test_a_message_of_an_unsampled_trace_stays_unsampled(recorded: Recorded) -> None:
    with consume_span("order.created", "m-1", NOT_SAMPLED):
        ids = current_trace_ids()
        with business_span("stock.reserve"):
            pass

    assert ids == (PARENT, "")
    assert recorded.spans() == []


def test_a_message_without_a_trace_begins_one(recorded: Recorded) -> None:
    with business_span("unrelated"), consume_span("order.created", "m-1", {}):
        pass

    assert recorded.span("process order.created").parent is None


def test_before_set_up_and_after_shutdown_everything_works_unrecorded(recorded: Recorded) -> None:
    recorded.tracing.shutdown(60)
    with business_span("x") as span, publish_span("t", "m"), consume_span("t", "m", {}):
        inject_trace({})

    assert not span.is_recording()


# Dependencies -----------------------------------------------------------------------------------------


async def test_statements_are_recorded_inside_a_trace(recorded: Recorded, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    trace_engine(engine)
    with business_span("order.place"):
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (id INTEGER, note TEXT)"))
            await connection.execute(
                text("insert into orders values (:id, :note)"), {"id": 1, "note": "hunter2"}
            )
            await connection.execute(text("SELECT id, note FROM orders WHERE note = 'a@b.com'"))
            await connection.execute(text("/* hint */ UPDATE orders SET id = 2"))
            await connection.execute(text("select 1"))
    await engine.dispose()

    assert recorded.names() == [
        "CREATE orders", "INSERT orders", "SELECT", "SELECT orders", "UPDATE orders", "order.place",
    ]  # fmt: skip
    attributes = dict(recorded.span("SELECT orders").attributes or {})
    assert attributes == {
        "db.system.name": "sqlite",
        "db.namespace": "shop.db",
        "db.operation.name": "SELECT",
        "db.collection.name": "orders",
        "db.query.text": "SELECT id, note FROM orders WHERE note = ?",
    }
    everything = str([(s.name, dict(s.attributes or {})) for s in recorded.spans()])
    assert str(tmp_path) not in everything
    assert "hunter2" not in everything


async def test_a_failed_statement_is_marked_without_its_values(recorded: Recorded) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    trace_engine(engine)
    async with engine.connect() as connection:
        with business_span("x"), pytest.raises(OperationalError):
            await connection.execute(text("SELECT * FROM missing"))
    await engine.dispose()

    assert recorded.span("SELECT missing").status.status_code is StatusCode.ERROR


async def test_statements_outside_of_a_sampled_trace_make_no_span(recorded: Recorded) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    trace_engine(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        with business_span("x"), untraced():
            await connection.execute(text("SELECT 2"))
        with consume_span("t", "m", NOT_SAMPLED):
            await connection.execute(text("SELECT 3"))
    await engine.dispose()

    assert recorded.names() == ["x"]


async def test_commands_are_recorded_without_their_arguments(recorded: Recorded) -> None:
    redis = fakeredis.FakeAsyncRedis()
    trace_redis(redis)
    await redis.set("outside", 1)
    with business_span("x"):
        await redis.set("user:a@b.com", "hunter2")
        async with redis.pipeline() as pipeline:
            pipeline.get("user:a@b.com")
            pipeline.get("user:2")
            await pipeline.execute()
        with untraced():
            await redis.get("polled")
    with consume_span("t", "m", NOT_SAMPLED):
        assert await redis.get("user:a@b.com") == b"hunter2"
    await redis.aclose()

    assert recorded.names() == ["GET GET", "SET", "x"]
    assert (recorded.span("SET").attributes or {})["db.query.text"] == "SET ? ?"
    everything = str([dict(s.attributes or {}) for s in recorded.spans()])
    assert "hunter2" not in everything
    assert "a@b.com" not in everything


async def test_calls_carry_the_trace_and_hide_the_query(recorded: Recorded) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        trace_http_client(client)
        with business_span("x"):
            await client.get("https://user:hunter2@provider.test/v1/charges?token=hunter2")
        with consume_span("t", "m", NOT_SAMPLED):
            await client.get("https://provider.test/v1/charges")

    call = recorded.span("GET")
    assert call.context is not None
    ids = f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-"
    assert asked[0].headers["traceparent"].startswith(ids)
    assert int(asked[0].headers["traceparent"][-2:], 16) & TraceFlags.SAMPLED
    assert asked[1].headers["traceparent"].startswith(f"00-{PARENT}-")
    assert asked[1].headers["traceparent"].endswith("-00")
    attributes = dict(call.attributes or {})
    assert attributes["url.full"] == "https://[redacted]@provider.test/v1/charges?token=[redacted]"
    assert attributes["http.response.status_code"] == 200
    assert "hunter2" not in str(attributes)


async def test_a_request_leaves_no_trace_behind_in_its_task(recorded: Recorded) -> None:
    transport = httpx2.ASGITransport(app=build(recorded.tracing))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/v1/shop/orders/7", headers=NOT_SAMPLED)

    assert current_trace_ids() == ("", "")


async def test_concurrent_requests_keep_their_own_ids(recorded: Recorded) -> None:
    transport = httpx2.ASGITransport(app=build(recorded.tracing))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = await asyncio.gather(*(client.get("/v1/shop/orders/7") for _ in range(20)))

    ids = {answer.headers["X-Trace-ID"] for answer in answers}
    assert len(ids) == 20
    assert all(answer.json()["ids"][0] == answer.headers["X-Trace-ID"] for answer in answers)


async def test_a_caller_in_the_same_task_is_no_parent_but_by_its_header(recorded: Recorded) -> None:
    transport = httpx2.ASGITransport(app=build(recorded.tracing))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        with business_span("caller"):
            await client.get("/v1/shop/orders/7")
        with business_span("sender"):
            trace_http_client(client)
            await client.get("/v1/shop/orders/8")

    first, second = [s for s in recorded.spans() if s.kind is SpanKind.SERVER]
    assert first.parent is None
    assert second.parent is not None
    call = min((s for s in recorded.spans() if s.name == "GET"), key=lambda s: s.start_time or 0)
    assert call.context is not None
    assert second.parent.span_id == call.context.span_id


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_sampler_decides_as_the_librarys_does(ratio: float) -> None:
    chance = random.Random(7)
    library, ours = ParentBased(TraceIdRatioBased(ratio)), _ShareOfTraces(ratio)
    parents = [
        Context(),
        *(
            trace.set_span_in_context(
                NonRecordingSpan(
                    SpanContext(7, 8, is_remote, TraceFlags(flags), TraceState([("a", "b")]))
                ),
                Context(),
            )
            for is_remote in (True, False)
            for flags in (0, 1)
        ),
    ]
    for parent, attributes in itertools.product(parents, (None, {}, {"order_id": "7"})):
        for _ in range(20):
            asked = parent, chance.getrandbits(128), "x", SpanKind.SERVER, attributes
            expected, found = (one.should_sample(*asked) for one in (library, ours))
            assert found.decision is expected.decision
            assert found.attributes == expected.attributes
            assert found.trace_state == expected.trace_state
