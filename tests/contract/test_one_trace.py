"""One payment is one trace: API, provider, outbox and worker, with each span under its right parent.

Real processes on SQLite export to a real OTLP receiver; the trace is read as it arrived on the wire.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.otlp import ReceivedSpan, Receiver
from tests.provider import start_provider
from tests.service import PASSWORD, migrate_database, start_process
from tests.tools import wait_until


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ReceivedSpan]]:
    """The spans of the request that paid, and the answer's trace id as the first attribute check."""
    directory: Path = tmp_path_factory.mktemp("trace")
    database_url = f"sqlite+aiosqlite:///{directory / 'service.db'}"
    migrate_database(database_url)
    with Receiver().running() as receiver:
        telemetry = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_TRACES_SAMPLER_ARG": "1.0",
        }
        with (
            start_provider(directory, environment=telemetry) as provider,
            start_process(
                "serve",
                directory,
                database_url=database_url,
                provider_url=provider.url,
                **telemetry,
            ) as api,
            start_process(
                "worker",
                directory,
                database_url=database_url,
                provider_url=provider.url,
                **telemetry,
            ),
        ):
            trace_id = _pay(api.url)

            def is_complete() -> bool:
                names = {span.name for span in receiver.spans(trace_id)}
                return {
                    "process payment.captured",
                    "POST /v1/payments",
                    "POST /v1/charges",
                } <= names

            wait_until(is_complete, "the trace of the payment is complete", seconds=30)
            wait_until(
                lambda: len(_named(receiver.spans(trace_id), "process payment.captured")) == 2,
                "both consumers have traced their work",
            )
        yield receiver.spans(trace_id)


def _pay(url: str) -> str:
    email = f"{secrets.token_hex(8)}@example.com"
    body = {"email": email, "password": PASSWORD, "name": "Ada"}
    httpx2.post(f"{url}/v1/users", json=body).raise_for_status()
    token = httpx2.post(f"{url}/v1/auth/token", data={"username": email, "password": PASSWORD})
    headers = {"Authorization": f"Bearer {token.raise_for_status().json()['access_token']}"}
    lines = [{"sku": "TEA", "quantity": 1, "unit_amount": 2500}]
    placed = {"currency": "EUR", "lines": lines}
    order = httpx2.post(f"{url}/v1/orders", json=placed, headers=headers).raise_for_status()
    paid = httpx2.post(
        f"{url}/v1/payments",
        json={"order_id": order.json()["id"], "payment_token": "tok_ok"},
        headers=headers,
    )
    assert paid.raise_for_status().json()["status"] == "captured"
    trace_id: str = paid.headers["X-Trace-ID"]
    return trace_id


def _named(spans: list[ReceivedSpan], name: str) -> list[ReceivedSpan]:
    return [span for span in spans if span.name == name]


def _one(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    found = _named(spans, name)
    assert len(found) == 1, f"{name}: {len(found)} of {sorted(span.name for span in spans)}"
    return found[0]


def _ancestors(spans: list[ReceivedSpan], span: ReceivedSpan) -> list[str]:
    by_id = {span.span_id: span for span in spans}
    names = []
    while parent := by_id.get(span.parent_id):
        names.append(parent.name)
        span = parent
    return names


def test_the_whole_payment_is_one_trace_with_one_root(trace: list[ReceivedSpan]) -> None:
    roots = [span for span in trace if not span.parent_id]
    assert [(root.service, root.name, root.kind) for root in roots] == [
        ("glasshouse", "POST /v1/payments", "SERVER")
    ]
    known = {span.span_id for span in trace}
    assert [span.name for span in trace if span.parent_id and span.parent_id not in known] == []


def test_the_provider_s_span_hangs_below_the_call_that_reached_it(
    trace: list[ReceivedSpan],
) -> None:
    served = _one(trace, "POST /v1/charges")
    assert (served.service, served.kind) == ("glasshouse-payment-provider", "SERVER")
    call = next(span for span in trace if span.span_id == served.parent_id)
    assert (call.service, call.kind) == ("glasshouse", "CLIENT")
    assert _ancestors(trace, call) == ["payment.charge", "POST /v1/payments"]


def test_each_consumer_s_span_hangs_below_the_event_that_caused_it(
    trace: list[ReceivedSpan],
) -> None:
    published = _one(trace, "publish payment.captured")
    assert published.kind == "PRODUCER"
    assert _ancestors(trace, published)[-1] == "POST /v1/payments"
    consumed = _named(trace, "process payment.captured")
    assert [span.kind for span in consumed] == ["CONSUMER", "CONSUMER"]
    assert {span.service for span in consumed} == {"glasshouse-worker"}
    assert {span.parent_id for span in consumed} == {published.span_id}


def test_statements_hang_below_what_needed_them(trace: list[ReceivedSpan]) -> None:
    statements = [span for span in trace if span.attributes.get("db.system.name")]
    assert {_ancestors(trace, span)[0] for span in _named(statements, "INSERT receipts")} == {
        "process payment.captured"
    }
    assert _ancestors(trace, _one(statements, "INSERT payments"))[-1] == "POST /v1/payments"


def test_no_span_carries_a_token_a_password_or_an_address(trace: list[ReceivedSpan]) -> None:
    text = repr(trace)
    assert "tok_ok" not in text
    assert PASSWORD not in text
    assert "@example.com" not in text
