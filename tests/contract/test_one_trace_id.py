"""One trace id joins everything that is said of a request: header, access line, spans, exemplar, error event.

And of what the request causes: the worker's log lines, spans and error event carry the same id. Real
processes; the spans are read at a real OTLP receiver, the errors in a real Sentry-compatible server.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.bugsink import Project, Tracker
from tests.otlp import ReceivedSpan, Receiver
from tests.provider import start_provider
from tests.service import PASSWORD, RunningProcess, migrate_database, start_process
from tests.tools import wait_until

SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Story:
    """A payment that was made and whose answer then could not be kept, and what was said of it."""

    headers: httpx2.Headers
    receiver: Receiver
    errors: Project
    api: RunningProcess
    worker: RunningProcess

    @property
    def trace_id(self) -> str:
        trace_id: str = self.headers["X-Trace-ID"]
        return trace_id

    def lines(self, process: RunningProcess) -> list[dict[str, Any]]:
        """Return what a process wrote that has the trace id, or the request id, of the payment."""
        found = [json.loads(line) for line in process.log().splitlines() if line.startswith("{")]
        request_id = self.headers["X-Request-ID"]
        return [
            line
            for line in found
            if line.get("trace_id") == self.trace_id or line.get("request_id") == request_id
        ]

    def spans(self, service: str) -> list[ReceivedSpan]:
        """Return the spans of the trace that a service has sent."""
        return [span for span in self.receiver.spans(self.trace_id) if span.service == service]

    def events(self, service: str) -> list[dict[str, Any]]:
        """Return the error events that a service has reported."""
        return [event for event in self.errors.events() if event["tags"]["service"] == service]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, bugsink: Tracker) -> Iterator[Story]:
    """Pay; the trigger lets the charge be kept and neither the answer's copy nor the receipt."""
    directory = tmp_path_factory.mktemp("story")
    database = directory / "service.db"
    database_url = f"sqlite+aiosqlite:///{database}"
    migrate_database(database_url)
    _refuse(database, "UPDATE OF body ON idempotency_keys")
    _refuse(database, "INSERT ON receipts")
    errors = bugsink.project()
    with Receiver().running() as receiver:
        signals = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_TRACES_SAMPLER_ARG": "1.0",
            "DATABASE_SLOW_QUERY_MS": "600000",
            **errors.environment,
        }
        with start_provider(directory, environment=signals) as provider:
            where = {"database_url": database_url, "provider_url": provider.url}
            with (
                start_process("serve", directory, **where, **signals) as api,
                start_process("worker", directory, **where, **signals) as worker,
            ):
                yield Story(_pay(api.url), receiver, errors, api, worker)


def _refuse(database: Path, operation: str) -> None:
    name = operation.replace(" ", "_")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            f"CREATE TRIGGER {name} BEFORE {operation} BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )


def _pay(url: str) -> httpx2.Headers:
    with httpx2.Client(base_url=url, timeout=60, trust_env=False) as http:
        email = f"{secrets.token_hex(8)}@example.com"
        person = {"email": email, "password": PASSWORD, "name": "Ada"}
        http.post("/v1/users", json=person).raise_for_status()
        form = {"username": email, "password": PASSWORD}
        token = http.post("/v1/auth/token", data=form).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        lines = [{"sku": "TEA", "quantity": 1, "unit_amount": 2500}]
        order = http.post("/v1/orders", json={"currency": "EUR", "lines": lines})
        paid = http.post(
            "/v1/payments",
            json={"order_id": order.raise_for_status().json()["id"], "payment_token": "tok_ok"},
            headers={"Idempotency-Key": "once"},
        )
        assert paid.status_code == 500, paid.text
        assert paid.json()["trace_id"] == paid.headers["X-Trace-ID"]
        return paid.headers


def exemplars(process: RunningProcess, name: str) -> list[tuple[dict[str, str], str]]:
    """Return the labels and the trace id of each sample of `name` that has an exemplar."""
    page = httpx2.get(
        f"{process.url}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
        timeout=60,
        trust_env=False,
    ).text
    return [
        (sample.labels, sample.exemplar.labels["trace_id"])
        for family in text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name == name and sample.exemplar
    ]


def test_one_id_joins_header_line_spans_exemplar_and_error_event(story: Story) -> None:
    wait_until(
        lambda: "POST /v1/payments" in {span.name for span in story.spans("glasshouse")},
        "the request's span arrives",
        SECONDS,
    )
    wait_until(lambda: bool(story.events("glasshouse")), "the error arrives", SECONDS)
    wait_until(
        lambda: "http_request" in {line["type"] for line in story.lines(story.api)},
        "the access line is written",
        SECONDS,
    )

    # 1. The answer said it: everything below is found by this id alone.
    assert len(story.trace_id) == 32

    # 2. Every line of the request on standard output, the access line and the error among them.
    lines = story.lines(story.api)
    assert {line["trace_id"] for line in lines} == {story.trace_id}
    (access,) = [line for line in lines if line["type"] == "http_request"]
    assert (access["route"], access["status"]) == ("/v1/payments", 500)
    assert {"business", "error"} <= {line["type"] for line in lines}

    # 3. The tree of spans: one root, which failed, and the charge below it.
    (root,) = [span for span in story.receiver.spans(story.trace_id) if not span.parent_id]
    assert (root.service, root.name, root.failed) == ("glasshouse", "POST /v1/payments", True)
    assert "payment.charge" in {span.name for span in story.spans("glasshouse")}

    # 4. The exemplar of the series that the error is counted in.
    labels = {"method": "POST", "handler": "/v1/payments", "status": "500"}
    assert (labels, story.trace_id) in exemplars(story.api, "http_requests_total")

    # 5. The one error event, which tells what had happened before.
    (event,) = story.events("glasshouse")
    assert event["contexts"]["trace"]["trace_id"] == story.trace_id
    assert event["tags"]["request_id"] == access["request_id"] == story.headers["X-Request-ID"]
    assert event["user"]["id"] == access["user_id"]
    assert event["breadcrumbs"]["values"][-1]["message"] == "payment ended"
    assert event["contexts"]["trace"]["span_id"] in {
        span.span_id for span in story.spans("glasshouse")
    }


def test_the_same_id_is_on_all_that_the_worker_does_for_the_request(story: Story) -> None:
    def consumed() -> list[ReceivedSpan]:
        found = [span for span in story.spans("glasshouse-worker") if span.kind == "CONSUMER"]
        return [span for span in found if span.name == "process payment.captured"]

    def told() -> set[tuple[str, str]]:
        lines = [line for line in story.lines(story.worker) if line["type"] == "job"]
        return {(line["task"], line["status"]) for line in lines}

    wait_until(
        lambda: {span.failed for span in consumed()} == {True, False}, "both spans arrive", SECONDS
    )
    wait_until(lambda: bool(story.events("glasshouse-worker")), "the error arrives", SECONDS)
    both = {("fulfil_order", "succeeded"), ("write_receipt", "failed")}
    wait_until(lambda: both <= told(), "both jobs are told", SECONDS)

    published = next(s for s in story.spans("glasshouse") if s.name == "publish payment.captured")
    assert {span.parent_id for span in consumed()} == {published.span_id}
    said = [line for line in story.lines(story.worker) if line["type"] in {"job", "error"}]
    assert {(line["trace_id"], line["request_id"]) for line in said} == {
        (story.trace_id, story.headers["X-Request-ID"])
    }
    events = story.events("glasshouse-worker")  # one for each attempt until now
    for event in events:
        assert event["contexts"]["trace"]["trace_id"] == story.trace_id
        assert event["tags"]["request_id"] == story.headers["X-Request-ID"]
        assert event["tags"]["task"] == "write_receipt"
    assert events[0]["contexts"]["trace"]["span_id"] in {span.span_id for span in consumed()}
