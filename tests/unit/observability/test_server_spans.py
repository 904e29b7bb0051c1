"""Server spans: what OpenTelemetry's own middleware records of the same requests."""

import asyncio
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.instrumentation._semconv import _StabilityMode
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, StatusCode, get_current_span, use_span
from opentelemetry.util.types import AttributeValue
from starlette.types import Message, Receive, Scope, Send

from app.observability import server_spans
from app.observability.late_spans import DecidedIds
from app.observability.server_spans import Describe, ServerSpans
from app.observability.settling import settle

USER_AGENT = (b"user-agent", b"Mozilla/5.0")


def request(method: str = "GET", path: str = "/v1/orders/7", **given: Any) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": "http",
        "http_version": "1.1",
        "query_string": b"",
        "server": ("127.0.0.1", 8000),
        "client": ("203.0.113.7", 50123),
        "headers": [(b"host", b"shop.example"), USER_AGENT],
        **given,
    }


REQUESTS = {
    "usual": request(),
    "query": request(query_string=b"limit=50&cursor=%20x"),
    "posted": request("POST", headers=[(b"content-length", b"2"), USER_AGENT]),
    "unknown method": request("BREW"),
    "https on its port": request(scheme="https", server=("shop.example", 443)),
    "http on its port": request(server=("shop.example", 80)),
    "no headers": request(headers=[]),
    "two agents": request(headers=[USER_AGENT, (b"user-agent", b"other")]),
    "a bot": request(headers=[(b"user-agent", b"Googlebot/2.1")]),
    "a test": request(headers=[(b"user-agent", b"AlwaysOn")]),
    "agent beyond ASCII": request(headers=[(b"user-agent", "é".encode())]),
    "no client": request(client=None),
    "no server": request(server=None),
    "http 2": request(http_version="2"),
}


async def answer(send: Send, status: int, *, parts: int = 1) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    for part in range(parts):
        await send({"type": "http.response.body", "body": b"x", "more_body": part + 1 < parts})


def answering(status: int, *, parts: int = 1) -> Any:
    async def app(_: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, status, parts=parts)

    return app


async def failing(_: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("no")


async def breaking_off(_: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("no")


async def silent(_: Scope, _receive: Receive, _send: Send) -> None:
    pass


ENDS = {
    "200": answering(200),
    "404": answering(404),
    "500": answering(500),
    "503": answering(503),
    "stream": answering(200, parts=3),
    "fails": failing,
    "breaks off": breaking_off,
    "says nothing": silent,
}


class Recorder:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(id_generator=DecidedIds())
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("x")

    def span_of(self, serve: Any, scope: Scope) -> ReadableSpan:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_: Message) -> None:
            pass

        with suppress(RuntimeError):  # what `failing` and `breaking_off` raise
            asyncio.run(serve(scope, receive, send))
        settle()
        (span,) = self.exporter.get_finished_spans()
        self.exporter.clear()
        return span


def librarys(app: Any, scope: Scope) -> ReadableSpan:
    recorder = Recorder()
    middleware = OpenTelemetryMiddleware(
        app,
        tracer_provider=recorder.provider,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["receive", "send"],
    )
    middleware._sem_conv_opt_in_mode = _StabilityMode.HTTP  # as tracing.py asks for
    middleware.default_span_details = lambda one: (
        one["method"] if one["method"] != "BREW" else "HTTP",
        {},
    )
    return recorder.span_of(middleware, scope)


def ours(app: Any, scope: Scope) -> ReadableSpan:
    recorder = Recorder()
    spans = ServerSpans(app, recorder.tracer, note_nothing)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await spans(scope, receive, send, parent=Context(), trace_id=1)

    return recorder.span_of(serve, scope)


def note_nothing(_: Scope) -> Describe:
    """Add nothing: what tracing.py adds is not the library's."""
    return lambda _: {}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", REQUESTS)
def test_the_librarys_span(kind: str, end: str) -> None:
    expected, found = (how(ENDS[end], dict(REQUESTS[kind])) for how in (librarys, ours))

    assert found.name == expected.name
    assert found.kind == expected.kind
    assert found.status.status_code == expected.status.status_code
    assert found.status.description == expected.status.description
    assert dict(found.attributes or {}) == dict(expected.attributes or {})
    assert [event.name for event in found.events] == [event.name for event in expected.events]


def test_it_is_described_once_whether_it_was_answered_or_not() -> None:
    described: list[str] = []

    def note(scope: Scope) -> Describe:
        def describe(span: Span) -> dict[str, AttributeValue]:
            assert span.is_recording()
            described.append(scope["path"])
            return {"http.route": "/here", "url.path": "/better"}

        return describe

    for end in ("200", "fails", "stream"):
        recorder = Recorder()
        spans = ServerSpans(ENDS[end], recorder.tracer, note)

        async def serve(
            scope: Scope, receive: Receive, send: Send, spans: ServerSpans = spans
        ) -> None:
            await spans(scope, receive, send, parent=Context(), trace_id=1)

        attributes = recorder.span_of(serve, request(path=f"/{end}")).attributes or {}
        assert (attributes["http.route"], attributes["url.path"]) == ("/here", "/better")
    assert described == ["/200", "/fails", "/stream"]


def test_what_the_request_has_told_of_itself_stays() -> None:
    async def telling(_: Scope, _receive: Receive, send: Send) -> None:
        span = get_current_span()
        span.set_attribute("server.address", "mine")
        await send({"type": "http.response.start", "status": 503, "headers": []})
        span.set_status(StatusCode.ERROR, "told in the middle")
        await send({"type": "http.response.body", "body": b""})

    span = ours(telling, request())

    assert dict(span.attributes or {})["server.address"] == "mine"
    assert dict(span.attributes or {})["error.type"] == "503"
    assert span.status.description == "told in the middle"


@pytest.mark.parametrize("how", ["end", "with", "use_span"])
def test_a_span_that_the_request_ends_says_as_much_as_any_other(how: str) -> None:
    ended_at = 0

    async def ending(_: Scope, _receive: Receive, send: Send) -> None:
        nonlocal ended_at
        span = get_current_span()
        if how == "end":
            span.end()
        elif how == "with":
            with span:
                pass
        else:
            with use_span(span, end_on_exit=True):
                pass
        ended_at = time.time_ns()
        assert not span.is_recording()
        span.set_attribute("told", "too late")
        await asyncio.sleep(0.001)
        await answer(send, 200)

    span = ours(ending, request())
    plain = ours(answering(200), request())
    assert span.attributes == plain.attributes
    assert span.end_time is not None
    assert span.end_time <= ended_at


def test_attributes_that_have_no_room_are_dropped_once() -> None:
    async def telling(_: Scope, _receive: Receive, send: Send) -> None:
        get_current_span().set_attributes({f"told.{number}": number for number in range(125)})
        await answer(send, 200)

    for_itself = len(ours(answering(200), request()).attributes or {})
    span = ours(telling, request())
    assert len(span.attributes or {}) == 128  # OpenTelemetry's own limit
    assert span.dropped_attributes == 125 + for_itself - 128


def test_it_ends_with_the_answer_and_not_with_what_goes_on_behind() -> None:
    recorder = Recorder()

    async def with_a_background_task(_: Scope, _receive: Receive, send: Send) -> None:
        span = get_current_span()
        await answer(send, 200)
        answered = time.time_ns()
        assert not span.is_recording()
        span.record_exception(RuntimeError("behind the answer"))
        span.set_attribute("told", "too late")
        await asyncio.sleep(0.001)
        settle()
        (recorded,) = recorder.exporter.get_finished_spans()
        assert recorded.end_time is not None
        assert recorded.end_time <= answered
        assert not recorded.events
        assert "told" not in (recorded.attributes or {})

    spans = ServerSpans(with_a_background_task, recorder.tracer, note_nothing)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await spans(scope, receive, send, parent=Context(), trace_id=1)

    recorder.span_of(serve, request())


async def behind_the_answer(scope: Scope, _receive: Receive, send: Send) -> None:
    await answer(send, 200)
    scope["path"] = "/changed"
    scope["client"] = "nonsense"
    span = get_current_span()
    span.update_name("changed")
    span.end()


def test_what_is_changed_behind_the_answer_is_not_in_it() -> None:
    span = ours(behind_the_answer, request(path="/asked"))
    assert (span.name, (span.attributes or {})["url.path"]) == ("GET", "/asked")


def test_a_span_ends_whatever_becomes_of_its_description() -> None:
    recorder = Recorder()

    def failing_note(_: Scope) -> Describe:
        def describe(_: Span) -> dict[str, AttributeValue]:
            raise ValueError("nobody can describe it")

        return describe

    spans = ServerSpans(answering(200), recorder.tracer, failing_note)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await spans(scope, receive, send, parent=Context(), trace_id=1)
        with pytest.raises(ValueError, match="nobody"):
            settle()

    assert recorder.span_of(serve, request()).end_time


def test_where_spans_are_lost_from_now_on_none_is_put_off() -> None:
    recorder = Recorder()
    spans = ServerSpans(answering(200), recorder.tracer, note_nothing, is_over=lambda: True)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await spans(scope, receive, send, parent=Context(), trace_id=1)
        assert len(recorder.exporter.get_finished_spans()) == 1

    recorder.span_of(serve, request())


def test_threads_that_use_a_span_too_late_neither_fail_nor_have_it_recorded_twice() -> None:
    recorder = Recorder()
    failures: list[BaseException] = []

    async def app(_: Scope, _receive: Receive, send: Send) -> None:
        span = get_current_span()
        begin = threading.Barrier(3)

        def use() -> None:
            begin.wait(60)
            try:
                span.set_attribute("told", "late")
                span.end()
            except Exception as error:  # noqa: BLE001 - to be told by the test
                failures.append(error)

        threads = [threading.Thread(target=use) for _ in range(2)]
        for thread in threads:
            thread.start()
        begin.wait(60)
        await answer(send, 200)
        settle()
        for thread in threads:
            thread.join(60)

    spans = ServerSpans(app, recorder.tracer, note_nothing)

    async def receive() -> Message:
        raise AssertionError

    async def send(_: Message) -> None:
        pass

    async def many() -> None:
        for _ in range(200):
            await spans(request(), receive, send, parent=Context(), trace_id=1)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asyncio.run(many())
    finally:
        sys.setswitchinterval(before)
    settle()
    recorded = [
        one.context.span_id for one in recorder.exporter.get_finished_spans() if one.context
    ]
    assert len(recorded) == len(set(recorded)) == 200
    assert not failures


@pytest.mark.parametrize("sent", [[], [(b"x-trace-id", b"1")], iter([(b"set-cookie", b"a=b")])])
async def test_an_answer_gets_a_header_once(sent: Any) -> None:
    answers: list[Message] = []

    async def app(_: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": b"x"})

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        answers.append(message)

    spans = ServerSpans(app, Recorder().tracer, note_nothing)
    header = (b"x-trace-id", b"1")
    await spans(request(), receive, send, parent=Context(), trace_id=1, header=header)
    assert list(answers[0]["headers"]).count(header) == 1
    assert "headers" not in answers[1]


def test_no_user_agent_with_personal_data_is_kept() -> None:
    long = b"x" * 257
    for agent in (b"crawler (+mailto:jane@example.com)", long, b"Mozilla/5.0 (kept)"):
        for _ in range(2):
            found = ours(answering(200), request(headers=[(b"user-agent", agent)])).attributes
            assert (found or {})["user_agent.original"] == agent.decode()
    assert b"Mozilla/5.0 (kept)" in server_spans._agents
    assert not [agent for agent in server_spans._agents if b"jane" in agent or agent == long]


def test_not_too_many_user_agents_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_spans, "_MAX_AGENTS", 2)
    for number in range(5):
        ours(answering(200), request(headers=[(b"user-agent", b"agent/%d" % number)]))
    assert len(server_spans._agents) <= 2
