import asyncio
import gzip
import json
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from pydantic import SecretStr, ValidationError
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from app.observability.context import (
    DatabaseUse,
    RequestContext,
    bind_context,
    use_trace_source,
)
from app.observability.error_tracking import (
    MAX_BREADCRUMBS,
    MAX_REPORTS_PER_MINUTE,
    MAX_REPORTS_PER_MINUTE_IN_ALL,
    MAX_WARNINGS_PER_MINUTE_IN_ALL,
    BoundedTransport,
    ErrorTrackingSettings,
    add_breadcrumb,
    flush_errors,
    report_exception,
    report_warning,
    setup_error_tracking,
)
from app.observability.redaction import REDACTED


class Mailbox(Transport):
    """Keeps what would leave the process."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events += [json.loads(item.get_bytes()) for item in envelope.items]


def settings(dsn: str | None = "https://key@tracker.test/1") -> ErrorTrackingSettings:
    return ErrorTrackingSettings(
        sentry_dsn=SecretStr(dsn) if dsn else None,
        otel_service_name="glasshouse",
        service_version="1.2.3",
        git_commit="abc1234",
        environment="staging",
    )


@pytest.fixture
def suppressed() -> list[int]:
    """What `on_suppress` was told during the test."""
    return []


@pytest.fixture
def events(suppressed: list[int]) -> Iterator[list[Any]]:
    """The events that were sent during the test."""
    mailbox = Mailbox()
    setup_error_tracking(settings(), transport=mailbox, on_suppress=suppressed.append)
    yield mailbox.events
    setup_error_tracking(settings(None))
    use_trace_source(lambda: ("", ""))


def raised(error: Exception) -> Exception:
    """Return `error` with a traceback, and with local variables that must stay here."""
    password = "hunter2-local"  # noqa: F841 - must not be sent
    try:
        raise error
    except type(error) as caught:
        return caught


def crumbs(event: Any) -> list[str]:
    return [crumb["message"] for crumb in event["breadcrumbs"]["values"]]


def test_a_report_carries_the_identity_of_service_request_and_user(events: list[Any]) -> None:
    with bind_context(RequestContext("request-1", "/v1/orders/{order_id}", "user-1")):
        report_exception(raised(ValueError("boom")), where="request")

    (event,) = events
    assert event["release"] == "glasshouse@1.2.3+abc1234"
    assert event["environment"] == "staging"
    assert event["transaction"] == "/v1/orders/{order_id}"
    assert event["user"] == {"id": "user-1"}
    assert event["tags"] == {
        "service": "glasshouse",
        "request_id": "request-1",
        "route": "/v1/orders/{order_id}",
        "where": "request",
    }
    assert event["exception"]["values"][0]["stacktrace"]["frames"][-1]["function"] == "raised"


def test_a_route_told_with_the_report_wins_over_one_not_known_yet(events: list[Any]) -> None:
    with bind_context(RequestContext("request-1")):
        report_exception(raised(ValueError("boom")), route="/v1/users/me")

    assert (events[0]["transaction"], events[0]["tags"]["route"]) == ("/v1/users/me",) * 2


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_a_report_names_the_open_telemetry_trace_whether_or_not_it_is_sampled(
    sampler: Sampler, events: list[Any]
) -> None:
    def current() -> tuple[str, str]:
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)

    use_trace_source(current)
    tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("request") as span:
        report_exception(raised(ValueError("boom")))
        context = span.get_span_context()

    assert context.trace_flags.sampled is (sampler is ALWAYS_ON)
    assert events[0]["contexts"]["trace"] == {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def test_a_trace_without_a_span_still_makes_a_valid_report(events: list[Any]) -> None:
    use_trace_source(lambda: ("ab" * 16, ""))
    report_exception(raised(ValueError("boom")))

    context = events[0]["contexts"]["trace"]
    assert context["trace_id"] == "ab" * 16
    assert re.fullmatch("[0-9a-f]{16}", context["span_id"])


def test_without_a_trace_no_trace_is_invented(events: list[Any]) -> None:
    report_exception(raised(ValueError("boom")))

    assert "trace" not in events[0]["contexts"]


def test_no_secret_leaves_with_a_report(events: list[Any]) -> None:
    failure = ValueError("login of ada@example.com with password=hunter2-message")
    failure.__cause__ = raised(KeyError("card 4111 1111 1111 1111"))
    with bind_context(RequestContext("request-1")):
        add_breadcrumb("business", "paid with token=tok-secret", card_number="4242424242424242")
        report_exception(raised(failure))

    text = json.dumps([{**event, "exception": None} for event in events])
    values = [error["value"] for error in events[0]["exception"]["values"]]
    for secret in ("4111", "ada@", "hunter2", "tok-secret", "4242"):
        assert secret not in text + "".join(values)
    assert REDACTED in values[0]
    assert REDACTED in values[1]


def test_local_variables_and_the_name_of_the_machine_stay_here(events: list[Any]) -> None:
    report_exception(raised(ValueError("boom")))

    frames = events[0]["exception"]["values"][0]["stacktrace"]["frames"]
    assert all("vars" not in frame for frame in frames)
    assert not events[0].get("server_name")
    assert socket.gethostname() not in json.dumps(events[0])


def test_whoever_captures_an_event_gets_it_scrubbed_and_identified(events: list[Any]) -> None:
    with bind_context(RequestContext("request-1", "/v1/orders")):
        sentry_sdk.capture_event(
            {
                "message": "captured by a library, password=hunter2",
                "request": {"url": "http://test/?token=abc", "data": "body", "cookies": {"a": "b"}},
                "extra": {"nested": {"api_key": "sk-1"}},
            }
        )

    (event,) = events
    assert "request" not in event
    assert event["message"] == f"captured by a library, password={REDACTED}"
    assert event["extra"]["nested"] == {"api_key": REDACTED}
    assert event["tags"]["request_id"] == "request-1"


async def test_breadcrumbs_of_concurrent_requests_do_not_mix(events: list[Any]) -> None:
    async def request(name: str) -> None:
        with bind_context(RequestContext(name)):
            add_breadcrumb("business", f"{name} began")
            await asyncio.sleep(0)
            await asyncio.to_thread(add_breadcrumb, "business", f"{name} in a thread")
            await asyncio.sleep(0)
            report_exception(raised(ValueError("boom")), route=name)

    await asyncio.gather(*(request(f"request-{n}") for n in range(20)))

    assert len(events) == 20
    for event in events:
        name = event["tags"]["request_id"]
        assert crumbs(event) == [f"{name} began", f"{name} in a thread"]


def test_two_requests_that_share_an_id_do_not_share_breadcrumbs(events: list[Any]) -> None:
    for message in ("first", "second"):
        with bind_context(RequestContext("chosen-by-the-client")):
            add_breadcrumb("business", message)
            report_exception(raised(ValueError("boom")))

    assert [crumbs(event) for event in events] == [["first"], ["second"]]


def test_a_report_tells_the_last_breadcrumbs_only(events: list[Any]) -> None:
    with bind_context(RequestContext("request-1")):
        for number in range(MAX_BREADCRUMBS + 5):
            add_breadcrumb("business", f"step {number}")
        report_exception(raised(ValueError("boom")))

    assert crumbs(events[0]) == [f"step {number}" for number in range(5, MAX_BREADCRUMBS + 5)]


def test_outside_of_a_request_a_breadcrumb_is_not_kept(events: list[Any]) -> None:
    add_breadcrumb("business", "nobody's")
    report_exception(raised(ValueError("boom")))

    assert crumbs(events[0]) == []


def test_breadcrumbs_that_libraries_leave_with_the_sdk_are_not_sent(events: list[Any]) -> None:
    sentry_sdk.add_breadcrumb(message="from any request")
    with bind_context(RequestContext("request-1")):
        report_exception(raised(ValueError("boom")))
    report_exception(raised(ValueError("boom")))

    assert [crumbs(event) for event in events] == [[], []]


def test_one_error_in_one_place_is_one_issue_whatever_its_message(events: list[Any]) -> None:
    for message, route in [("order 1", "/a"), ("order 2", "/a"), ("order 3", "/b")]:
        report_exception(raised(ValueError(message)), route=route)
    report_exception(raised(KeyError("order 4")), route="/a")

    prints = [tuple(event["fingerprint"]) for event in events]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_an_error_that_is_an_answer_to_the_client_is_not_reported(events: list[Any]) -> None:
    class ProblemError(Exception):
        title = "Problem"

        def __init__(self, status: int) -> None:
            self.status = status

    report_exception(raised(ProblemError(404)))
    assert events == []
    report_exception(raised(ProblemError(500)))
    assert len(events) == 1


class Clock:
    """The time by which the allowance goes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still until it is set."""
    clock = Clock()
    monkeypatch.setattr("app.observability.error_tracking.time", clock)
    return clock


def test_an_outage_makes_a_bounded_number_of_reports_of_each_kind(
    events: list[Any], suppressed: list[int], clock: Clock
) -> None:
    for _ in range(MAX_REPORTS_PER_MINUTE + 50):
        report_exception(raised(ConnectionError("database is down")), route="/v1/orders")
    report_exception(raised(ConnectionError("database is down")), route="/v1/users")
    report_exception(raised(ValueError("something else")), route="/v1/orders")

    assert len(events) == MAX_REPORTS_PER_MINUTE + 2
    assert sum(suppressed) == 50
    clock.now += 60
    report_exception(raised(ConnectionError("database is down")), route="/v1/orders")
    assert len(events) == MAX_REPORTS_PER_MINUTE + 3
    assert sum(suppressed) == 50


def test_all_kinds_together_make_a_bounded_number_of_reports(
    events: list[Any], suppressed: list[int], clock: Clock
) -> None:
    kinds = MAX_REPORTS_PER_MINUTE_IN_ALL + 20
    for number in range(kinds):
        report_exception(raised(ValueError("boom")), route=f"/v1/{number}")

    assert len(events) == MAX_REPORTS_PER_MINUTE_IN_ALL
    assert sum(suppressed) == 20
    clock.now += 60
    report_exception(raised(ValueError("boom")))
    assert len(events) == MAX_REPORTS_PER_MINUTE_IN_ALL + 1


def test_warnings_use_up_nothing_of_what_exceptions_may(
    events: list[Any], suppressed: list[int]
) -> None:
    for number in range(MAX_WARNINGS_PER_MINUTE_IN_ALL + 20):
        report_warning("slow", fingerprint=["slow", str(number)])
    assert len(events) == MAX_WARNINGS_PER_MINUTE_IN_ALL
    assert sum(suppressed) == 20
    report_exception(raised(ValueError("boom")))
    assert len(events) == MAX_WARNINGS_PER_MINUTE_IN_ALL + 1


def test_what_is_suppressed_and_what_is_made_add_up_whatever_thread_reports(
    events: list[Any], suppressed: list[int], clock: Clock
) -> None:
    def fail(route: str) -> None:
        for _ in range(MAX_REPORTS_PER_MINUTE * 2):
            report_exception(raised(ValueError("boom")), route=route)

    threads = [threading.Thread(target=fail, args=(f"/v1/{n % 2}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(events) + sum(suppressed) == MAX_REPORTS_PER_MINUTE * 2 * len(threads)


def test_a_warning_is_one_issue_whatever_it_says_and_carries_its_details(
    events: list[Any], suppressed: list[int], clock: Clock
) -> None:
    with bind_context(RequestContext("request-1", "/v1/orders", "user-1")):
        for number in range(MAX_REPORTS_PER_MINUTE + 5):
            report_warning(
                f"Slow statement number {number} of ada@example.com",
                fingerprint=["slow statement", "SELECT orders"],
                contexts={"database": {"duration_ms": 900.0, "password": "hunter2"}},
                operation="SELECT",
            )

    assert len(events) == MAX_REPORTS_PER_MINUTE
    assert sum(suppressed) == 5
    assert {tuple(event["fingerprint"]) for event in events} == {
        ("slow statement", "SELECT orders")
    }
    event = events[0]
    assert event["level"] == "warning"
    assert event["message"] == f"Slow statement number 0 of {REDACTED}"
    assert event["contexts"]["database"] == {"duration_ms": 900.0, "password": REDACTED}
    assert event["transaction"] == "/v1/orders"
    assert event["user"] == {"id": "user-1"}
    assert event["tags"] == {
        "service": "glasshouse",
        "request_id": "request-1",
        "route": "/v1/orders",
        "operation": "SELECT",
    }
    assert "exception" not in event


def test_a_report_tells_the_latest_statement_unless_it_brings_another(events: list[Any]) -> None:
    use = DatabaseUse(describe=lambda: {"query": "SELECT 1", "pool_active": 3})
    with bind_context(RequestContext("request-1", database=use)):
        report_exception(raised(ValueError("boom")))
        report_warning("slow", fingerprint=["slow"], contexts={"database": {"query": "SELECT 2"}})
    with bind_context(RequestContext("request-2")):
        report_exception(raised(ValueError("boom")))

    assert [event["contexts"].get("database") for event in events] == [
        {"query": "SELECT 1", "pool_active": 3},
        {"query": "SELECT 2"},
        None,
    ]


def test_a_statement_that_cannot_be_described_costs_the_report_nothing(events: list[Any]) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("no pool")

    with bind_context(RequestContext("request-1", database=DatabaseUse(describe=broken))):
        report_exception(raised(ValueError("boom")))

    assert [event["exception"]["values"][0]["type"] for event in events] == ["ValueError"]


def test_nothing_of_the_sdk_is_patched_in(events: list[Any]) -> None:
    before = (sys.excepthook, threading.excepthook)
    setup_error_tracking(settings(), transport=Mailbox())

    assert sentry_sdk.get_client().integrations == {}
    assert (sys.excepthook, threading.excepthook) == before


@pytest.mark.parametrize("dsn", [None, "", "  "])
def test_without_a_dsn_error_tracking_is_off(dsn: str | None, events: list[Any]) -> None:
    setup_error_tracking(settings(dsn))

    report_exception(raised(ValueError("boom")))
    add_breadcrumb("business", "nobody listens")
    flush_errors(1.0)

    assert not sentry_sdk.get_client().is_active()
    assert events == []


@pytest.mark.parametrize(
    "dsn", ["not a url", "https://tracker.test/1", "https://key@tracker.test/", "ftp://key@host/1"]
)
def test_a_malformed_dsn_is_refused_by_name_and_not_shown(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTRY_DSN", dsn)
    with pytest.raises(ValidationError, match="is malformed") as caught:
        ErrorTrackingSettings()

    assert "input_value" not in str(caught.value)


TRACE_PAGE = "https://traces.test/trace/{trace_id}?mode=timeline"
LOGS_PAGE = "https://logs.test/explore?q=%7B%7D%7Ctrace_id%3D%22{trace_id}%22"


@pytest.fixture
def linked(direct: None) -> list[Any]:
    """The events that are sent by a process which knows where traces and logs are shown."""
    mailbox = Mailbox()
    known = settings().model_copy(
        update={"trace_url_template": TRACE_PAGE, "logs_url_template": LOGS_PAGE}
    )
    setup_error_tracking(known, transport=mailbox)
    return mailbox.events


def test_a_report_links_to_its_trace_and_its_logs(
    linked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    monkeypatch.setattr(
        "app.observability.error_tracking.current_trace_ids", lambda: (trace_id, span_id)
    )
    report_exception(raised(ValueError("boom")))

    assert linked[0]["contexts"]["links"] == {
        "trace": f"https://traces.test/trace/{trace_id}?mode=timeline",
        "logs": f"https://logs.test/explore?q=%7B%7D%7Ctrace_id%3D%22{trace_id}%22",
    }


def test_a_report_of_what_is_not_sampled_links_to_its_logs_only(
    linked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "app.observability.error_tracking.current_trace_ids", lambda: ("a" * 32, "")
    )
    report_exception(raised(ValueError("boom")))

    assert list(linked[0]["contexts"]["links"]) == ["logs"]


def test_a_report_without_a_trace_links_nowhere(
    linked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.observability.error_tracking.current_trace_ids", lambda: ("", ""))
    report_exception(raised(ValueError("boom")))

    assert "links" not in linked[0]["contexts"]


def test_without_templates_a_report_has_no_links(
    events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "app.observability.error_tracking.current_trace_ids", lambda: ("a" * 32, "b" * 16)
    )
    report_exception(raised(ValueError("boom")))

    assert "links" not in events[0]["contexts"]


@pytest.mark.parametrize("setting", ["TRACE_URL_TEMPLATE", "LOGS_URL_TEMPLATE"])
@pytest.mark.parametrize(
    "template",
    [
        "https://traces.test/trace/",
        "traces.test/{trace_id}",
        "javascript:alert('{trace_id}')",
        "https:///{trace_id}",
        "https://traces.test/{trace_id} or elsewhere",
        "https://traces.test/{traceID}",
    ],
)
def test_a_template_that_would_link_nowhere_is_refused(
    setting: str, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, template)
    with pytest.raises(ValidationError, match="is no template"):
        ErrorTrackingSettings()


@pytest.mark.parametrize("template", ["", "  "])
def test_an_empty_template_is_none(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE_URL_TEMPLATE", template)
    assert ErrorTrackingSettings().trace_url_template is None


@contextmanager
def tracker(received: list[bytes]) -> Iterator[str]:
    """A server that speaks the Sentry protocol; yields a DSN for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Encoding"] == "gzip"
            received.append(gzip.decompress(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://key@127.0.0.1:{server.server_port}/7"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reach loopback without a proxy, and leave error tracking off afterwards."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield
    setup_error_tracking(settings(None))


@pytest.mark.usefixtures("direct")
def test_a_report_reaches_a_real_server() -> None:
    received: list[bytes] = []
    with tracker(received) as dsn:
        setup_error_tracking(settings(dsn))
        report_exception(raised(ValueError("boom")), where="job")
        flush_errors(60)
        setup_error_tracking(settings(None))

    header, item_header, item = received[0].splitlines()[:3]
    event = json.loads(item)
    assert json.loads(item_header)["type"] == "event"
    assert json.loads(header)["event_id"] == event["event_id"]
    assert event["exception"]["values"][0]["type"] == "ValueError"
    assert event["tags"]["where"] == "job"


@contextmanager
def dead_server(kind: str) -> Iterator[str]:
    """A DSN of a server that refuses connections, or accepts them and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen()
        yield f"http://key@127.0.0.1:{listener.getsockname()[1]}/1"


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("kind", ["refusing", "silent"])
def test_a_dead_server_holds_up_neither_the_caller_nor_the_flush(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedTransport, "TIMEOUT", 600)  # whoever waits for it waits for minutes
    with dead_server(kind) as dsn:
        setup_error_tracking(settings(dsn))
        started = time.monotonic()
        report_exception(raised(ValueError("boom")))
        flush_errors(0.5)
        assert time.monotonic() - started < 20


def run_until_its_end(dsn: str, *, patience: int = 1) -> float:
    """Run a process that reports one error and ends; return how many seconds its end took.

    Its server has ten minutes to answer. `patience` multiplies how long the end waits for what is left.
    """
    program = """
        import time
        from app.observability import error_tracking
        from app.observability.error_tracking import *
        BoundedTransport.TIMEOUT = 600
        error_tracking.flush_errors = lambda seconds: flush_errors(PATIENCE * seconds)
        setup_error_tracking(ErrorTrackingSettings())
        report_exception(ValueError("boom"))
        print(time.monotonic())
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program).replace("PATIENCE", str(patience))],
        env={"SENTRY_DSN": dsn, "no_proxy": "127.0.0.1"},
        check=True,
        timeout=200,
        capture_output=True,
        text=True,
    )
    return time.monotonic() - float(result.stdout)


@pytest.mark.parametrize("kind", ["refusing", "silent"])
def test_a_dead_server_does_not_hold_up_the_end_of_the_process(kind: str) -> None:
    with dead_server(kind) as dsn:
        assert run_until_its_end(dsn) < 60  # 2 s of flushing, and the interpreter's own end


def test_the_end_of_the_process_sends_what_is_waiting() -> None:
    received: list[bytes] = []
    with tracker(received) as dsn:
        run_until_its_end(dsn, patience=120)

    assert len(received) == 1


@pytest.mark.usefixtures("direct")
def test_lost_reports_are_counted_and_those_that_were_not_made_are_counted_apart() -> None:
    lost: list[int] = []
    suppressed: list[int] = []
    with dead_server("refusing") as dsn:
        setup_error_tracking(settings(dsn), on_drop=lost.append, on_suppress=suppressed.append)
        for _ in range(MAX_REPORTS_PER_MINUTE + 3):
            report_exception(raised(ValueError("boom")))
        flush_errors(60)

    assert (sum(lost), sum(suppressed)) == (MAX_REPORTS_PER_MINUTE, 3)
