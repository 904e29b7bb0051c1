"""The access line that is put together says what a log line with the same fields says."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from app.observability import access_line
from app.observability.access_line import SERVED, AccessLine, access_fields
from app.observability.context import DatabaseUse, RequestContext, bind_context
from app.observability.logs import LogSettings, _AccessLog, flush_logs, setup_logs

SETTINGS = LogSettings(
    otel_service_name='the "shop"', service_version="1.2.3", environment="test", log_format="json"
)
SERVICE = {"service": 'the "shop"', "version": "1.2.3", "environment": "test"}


def served(**given: Any) -> RequestContext:
    """Return a request that has ended."""
    context = RequestContext(given.pop("request_id", "request-1"))
    found: Mapping[str, Any] = {
        "method": "GET",
        "path": "/v1/orders",
        "route": "/v1/orders",
        "client": ("203.0.113.7", 50123),
        "user_agent": b"Mozilla/5.0",
        "answered": 200,
        "seconds": 0.0123456,
        "ended": 1_763_000_000.5,
    } | given
    for name, value in found.items():
        setattr(context, "_database" if name == "database" else name, value)
    return context


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    written = io.StringIO()
    setup_logs(SETTINGS, destination=written)
    yield written
    setup_logs(SETTINGS, destination=io.StringIO())


def through_loguru(out: io.StringIO, context: RequestContext, rate: float) -> dict[str, Any]:
    level = "ERROR" if context.status >= 500 else "INFO"
    with bind_context(context):
        logger.bind(**access_fields(context, rate)).log(level, SERVED)
    assert flush_logs()
    line: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
    return line


def put_together(context: RequestContext, rate: float) -> dict[str, Any]:
    line = AccessLine(SERVICE, logger="test_access_line")(context, context.status, rate)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def assert_same(out: io.StringIO, context: RequestContext, rate: float = 1.0) -> dict[str, Any]:
    expected, found = through_loguru(out, context, rate), put_together(context, rate)
    assert found["timestamp"].startswith("2025-11-13T")
    for line in (expected, found):  # of another moment, and said by another file
        del line["timestamp"], line["logger"]
    expected.pop("trace_id")
    expected.pop("span_id")
    assert (found.pop("trace_id"), found.pop("span_id")) == context.trace_ids
    assert found == expected
    return found


REQUESTS: dict[str, dict[str, Any]] = {
    "usual": {},
    "with ids": {"trace_ids": ("a" * 32, "b" * 16), "user_id": "0190-user"},
    "an odd user": {"user_id": 'x"\\\n'},
    "synthetic": {"synthetic": True},
    "a parameter": {
        "path": "/v1/orders/7",
        "route": "/v1/orders/{order_id}",
        "path_parameters": {"order_id": 7},
    },
    "a secret in the path": {"path": "/reset/jane@example.com", "route": "unmatched"},
    "a failure": {"answered": 503},
    "an exception": {"answered": 0, "failed": True},
    "a client that left": {"gone": True},
    "no client": {"client": None},
    "no agent": {"user_agent": b""},
    "a secret agent": {"user_agent": b"mailto:jane@example.com"},
    "a hostile agent": {"user_agent": b'"}\x00\x1b[31m\\\xff'},
    "a long agent": {"user_agent": b"x y " * 200},
    "a long path": {"path": "/a" * 400, "route": "/a" * 400},
    "a database": {"database": DatabaseUse(statements=3, seconds=0.0019034, wait_seconds=0.00012)},
    "very slow": {"seconds": 12345.6789},
    "a strange method": {"method": "BREW", "answered": 405, "route": "unmatched"},
    "a route with a quote": {"path": '/"', "route": '/"'},
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_both_ways_say_the_same(out: io.StringIO, kind: str) -> None:
    for rate in (1.0, 0.1, 0.00001):
        assert_same(out, served(**REQUESTS[kind]), rate)


@settings(max_examples=100, deadline=None)
@given(
    agent=st.binary(max_size=300),
    path=st.text(max_size=40).map(lambda text: f"/{text}"),
    user=st.text(max_size=20),
    seconds=st.floats(0, 1e6),
)
def test_whatever_a_client_sends(agent: bytes, path: str, user: str, seconds: float) -> None:
    context = served(
        user_agent=agent,
        path=path,
        route="unmatched",
        user_id=user.encode("utf-8", "replace").decode(),
        seconds=seconds,
    )
    fields = access_fields(context, 1.0)
    found = put_together(context, 1.0)
    assert {name: found[name] for name in fields} == fields
    assert found["user_id"] == context.user_id


def test_no_secret_stays_in_memory() -> None:
    put_together(served(user_agent=b"mailto:jane@example.com"), 1.0)
    put_together(served(user_agent=b"curl/8.5"), 1.0)
    assert b"curl/8.5" in access_line._agents
    assert not any(b"jane" in agent for agent in access_line._agents)


def test_agents_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_line, "_MAX_AGENTS", 3)
    for number in range(10):
        put_together(served(user_agent=b"agent/%d" % number), 1.0)
    assert len(access_line._agents) <= 3


# Who else listens -------------------------------------------------------------------------------------


def lines_of(out: io.StringIO) -> list[dict[str, Any]]:
    assert flush_logs()
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def test_where_nobody_else_listens_loguru_is_not_asked(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "bind", lambda **_: pytest.fail("loguru was asked"))
    _AccessLog(None)(served())
    assert [line["message"] for line in lines_of(out)] == [SERVED]


def another_sink(_: pytest.MonkeyPatch) -> Callable[[], object]:
    number = logger.add(lambda _: None)
    return lambda: logger.remove(number)


def a_patcher(_: pytest.MonkeyPatch) -> Callable[[], object]:
    logger.configure(patcher=lambda record: record["extra"].update(more="x"))
    return lambda: logger.configure(patcher=lambda _: None)


def something_bound_for_all(_: pytest.MonkeyPatch) -> Callable[[], object]:
    logger.configure(extra={"more": "x"})
    return lambda: logger.configure(extra={})


def something_bound_for_a_while(_: pytest.MonkeyPatch) -> Callable[[], object]:
    around = logger.contextualize(more="x")
    around.__enter__()
    return lambda: around.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("way", "more"),
    [
        (another_sink, None),
        (a_patcher, "x"),
        (something_bound_for_all, "x"),
        (something_bound_for_a_while, "x"),
    ],
)
async def test_where_somebody_does_the_line_goes_through_loguru(
    out: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[pytest.MonkeyPatch], Callable[[], object]],
    more: str | None,
) -> None:
    undo = way(monkeypatch)
    try:
        with bind_context(RequestContext("request-1")):
            _AccessLog(None)(served())
        (line,) = lines_of(out)
    finally:
        undo()
        monkeypatch.setattr(logger._core, "patcher", None)  # type: ignore[attr-defined]
    assert line["message"] == SERVED
    assert line.get("more") == more


async def test_a_switched_off_logger_stays_off(out: io.StringIO) -> None:
    logger.disable("app.observability")
    try:
        _AccessLog(None)(served())
        assert lines_of(out) == []
    finally:
        logger.enable("app.observability")
        logger._core.activation_list.clear()  # type: ignore[attr-defined]


async def test_the_level_counts(out: io.StringIO) -> None:
    setup_logs(SETTINGS.model_copy(update={"log_level": "WARNING"}), destination=out)
    _AccessLog(None)(served())
    _AccessLog(None)(served(answered=500))
    assert [line["status"] for line in lines_of(out)] == [500]


async def test_a_line_that_cannot_be_put_together_is_said_otherwise(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError

    monkeypatch.setattr(AccessLine, "__call__", broken)
    _AccessLog(None)(served())
    assert [line["message"] for line in lines_of(out)] == [SERVED]
