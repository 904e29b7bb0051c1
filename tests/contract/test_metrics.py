"""Every metric that was agreed on is there after a journey, with the value that the journey gives it.

Real processes on PostgreSQL and Redis, just started, so that counters begin at 0: the values are exact.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.otlp import Receiver
from tests.provider import start_provider
from tests.service import PASSWORD, RunningProcess, migrate_database, start_process
from tests.stage import SECONDS
from tests.tools import create_database, drop_database, wait_until

REGISTRATION_LIMIT = 6


@dataclass
class Page:
    """The samples of a /metrics page, by name."""

    samples: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of `name` that have these labels."""
        found = [
            value
            for given, value in self.samples.get(name, [])
            if all(given.get(label) == wanted for label, wanted in labels.items())
        ]
        assert found, f"no sample of {name} has {labels}: {self.samples.get(name)}"
        return sum(found)

    def labels(self, name: str) -> set[str]:
        """Return the label names of `name`, those of the exposition itself left out."""
        assert name in self.samples, f"{name} is not there"
        return {label for given, _ in self.samples[name] for label in given} - {"le", "quantile"}


def _scrape(process: RunningProcess) -> Page:
    page = Page()
    text = httpx2.get(f"{process.url}/metrics").raise_for_status().text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            page.samples.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return page


class _Person:
    def __init__(self, http: httpx2.Client) -> None:
        self.http = http
        self.email = f"{secrets.token_hex(8)}@example.com"

    def register(self, **extra: str) -> httpx2.Response:
        body = {"email": self.email, "password": PASSWORD, "name": "Ada", **extra}
        return self.http.post("/v1/users", json=body)

    def log_in(self, password: str = PASSWORD) -> int:
        answer = self.http.post(
            "/v1/auth/token", data={"username": self.email, "password": password}
        )
        if answer.status_code == 200:
            self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return answer.status_code

    def order(self, amount: int, currency: str = "EUR", **headers: str) -> str:
        lines = [{"sku": "TEA", "quantity": 1, "unit_amount": amount}]
        body = {"currency": currency, "lines": lines}
        answer = self.http.post("/v1/orders", json=body, headers=headers).raise_for_status()
        order_id: str = answer.json()["id"]
        return order_id

    def pay(self, order_id: str, token: str = "tok_ok") -> dict[str, Any]:
        body = {"order_id": order_id, "payment_token": token}
        answer: dict[str, Any] = self.http.post("/v1/payments", json=body).raise_for_status().json()
        return answer


def _journey(url: str) -> None:
    with ExitStack() as stack:
        clients = (stack.enter_context(httpx2.Client(base_url=url)) for _ in range(3))
        _act(*map(_Person, clients))


def _act(ada: _Person, bob: _Person, eve: _Person) -> None:
    """What happens, in figures that the assertions below repeat."""
    assert ada.register(source="mobile").status_code == 201
    assert ada.register().status_code == 409
    assert bob.register().status_code == 201
    assert eve.register().status_code == 201
    assert ada.log_in("wrong, once") == 401
    assert ada.log_in() == 200
    assert bob.log_in() == 200
    assert eve.log_in() == 200
    for _ in range(5):
        assert eve.log_in("wrong, five times") == 401
    assert eve.log_in() == 429

    paid = ada.pay(ada.order(2_500))
    assert paid["status"] == "captured"
    assert ada.pay(ada.order(50_000, "JPY"))["status"] == "captured"
    assert ada.pay(ada.order(900), "tok_declined")["decline_reason"] == "do_not_honor"
    unpaid = ada.order(1_000, **{"Idempotency-Key": "once"})
    assert ada.order(1_000, **{"Idempotency-Key": "once"}) == unpaid
    assert ada.pay(unpaid, "tok_insufficient_funds")["status"] == "declined"
    ada.http.post(f"/v1/orders/{unpaid}/cancel").raise_for_status()
    refund = ada.http.post(f"/v1/payments/{paid['id']}/refund", json={"amount": 500})
    assert refund.raise_for_status().json()["status"] == "succeeded"

    first = ada.http.get("/v1/orders", params={"limit": 1}).raise_for_status().json()
    ada.http.get("/v1/orders", params={"limit": 1, "cursor": first["next_cursor"]})
    ada.http.get("/v1/users/me/export").raise_for_status()
    bob.http.delete("/v1/users/me").raise_for_status()
    assert bob.http.get("/v1/users/me").status_code == 401
    ada.http.get("/no/such/page/4711")
    ada.http.get("/health/detailed")
    forged = {"Authorization": "Bearer not.a.token"}
    assert ada.http.get("/v1/users/me", headers=forged).status_code == 401
    other = {"currency": "EUR", "lines": [{"sku": "TEA", "quantity": 9, "unit_amount": 1}]}
    reused = ada.http.post("/v1/orders", json=other, headers={"Idempotency-Key": "once"})
    assert reused.json()["code"] == "idempotency_key_reused"
    ada.http.request("PATCH", "/v1/orders")
    while (answer := ada.register()).status_code != 429:
        assert answer.status_code == 409
    ada.http.post("/v1/auth/logout").raise_for_status()


@dataclass(frozen=True)
class Pages:
    """What the processes say after the journey."""

    api: Page
    worker: Page
    openmetrics: str


@pytest.fixture(scope="module")
def pages(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, redis_url: str
) -> Iterator[Pages]:
    """The metrics of fresh processes after the journey and what the worker made of it."""

    directory: Path = tmp_path_factory.mktemp("metrics")
    database_url = create_database(postgres_url)
    migrate_database(database_url)
    with Receiver().running() as receiver, start_provider(directory) as provider:
        common = {
            "database_url": database_url,
            "provider_url": provider.url,
            "REDIS_URL": redis_url,
            "RATE_LIMIT_REGISTRATION": f"{REGISTRATION_LIMIT}/minute",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "SERVICE_VERSION": "1.2.3",
            "GIT_COMMIT": "abc1234",
        }
        with (
            start_process("serve", directory, **common) as api,
            start_process("worker", directory, **common) as worker,
        ):
            wait_until(lambda: api.answers("/health/ready"), "the API is ready", SECONDS)
            _journey(api.url)
            wait_until(
                lambda: (
                    _value(worker, "orders_current", status="fulfilled") == 2
                    and _value(worker, "outbox_messages") == 0
                    and _value(worker, "auth_sessions_active") == 1
                    and _value(worker, "audit_unsealed_entries") == 0
                ),
                "the worker has done its part and sampled the result",
                SECONDS,
            )
            accept = "application/openmetrics-text; version=1.0.0"
            openmetrics = httpx2.get(f"{api.url}/metrics", headers={"Accept": accept})
            yield Pages(_scrape(api), _scrape(worker), openmetrics.text)
    drop_database(database_url)


def _value(process: RunningProcess, name: str, **labels: str) -> float:
    page = _scrape(process)
    return page.value(name, **labels) if name in page.samples else -1.0


API_METRICS = {
    "http_requests_total": {"method", "handler", "status"},
    "http_request_duration_seconds_bucket": {"method", "handler", "status"},
    "http_requests_in_progress": set(),
    "http_request_size_bytes_bucket": {"handler"},
    "http_response_size_bytes_bucket": {"handler"},
    "auth_attempts_total": {"result"},
    "auth_lockouts_total": set(),
    "rate_limit_hits_total": {"scope"},
    "security_events_total": {"event"},
    "user_registrations_total": {"method", "source"},
    "orders_created_total": {"currency"},
    "order_value_bucket": {"currency"},
    "revenue_total": {"currency"},
    "revenue_events_total": {"event_type", "amount_tier"},
    "payments_total": {"status", "decline_reason"},
    "payment_duration_seconds_bucket": {"status"},
    "refunds_total": {"currency"},
    "funnel_steps_total": {"step"},
    "feature_usage_total": {"feature"},
    "cache_requests_total": {"cache", "result"},
    "cache_operation_duration_seconds_bucket": {"cache", "operation"},
    "dependency_up": {"dependency"},
    "dependency_check_duration_seconds_bucket": {"dependency"},
    "external_requests_total": {"dependency", "outcome"},
    "external_request_duration_seconds_bucket": {"dependency"},
    "circuit_breaker_state": {"dependency"},
    "event_loop_lag_seconds_bucket": set(),
    "build_info": {"version", "commit", "environment"},
    "telemetry_dropped_total": {"signal"},
    "unhandled_exceptions_total": {"where"},
    "error_reports_suppressed_total": set(),
    "rate_limit_unenforced_total": {"scope"},
    "refunded_amount_total": {"currency"},
    "circuit_breaker_transitions_total": {"dependency", "to"},
    "external_retries_total": {"dependency"},
    "audit_entries_total": {"action", "outcome"},
    "database_query_duration_seconds_bucket": {"operation", "table"},
    "database_rows_returned_bucket": {"operation", "table"},
    "database_errors_total": {"error_type"},
    "database_explains_total": {"result"},
    "database_queries_per_request_bucket": {"handler"},
    "database_time_per_request_seconds_bucket": {"handler"},
    "database_connections_active": {"pool"},
    "database_connections_idle": {"pool"},
    "database_connections_max": {"pool"},
    "database_connections_overflow": {"pool"},
    "database_connection_wait_seconds_bucket": {"pool"},
    "database_connection_timeouts_total": {"pool"},
    "asyncio_tasks": set(),
    "python_threads": set(),
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "process_open_fds": set(),
    "process_uptime_seconds": set(),
    "python_gc_collections_total": {"generation"},
}
WORKER_METRICS = {
    "active_users": {"window"},
    "auth_sessions_active": set(),
    "orders_current": {"status"},
    "outbox_messages": {"state"},
    "outbox_oldest_age_seconds": set(),
    "jobs_processed_total": {"task", "status"},
    "job_duration_seconds_bucket": {"task"},
    "job_retries_total": {"task"},
    "dead_letters_total": {"task"},
    "job_last_success_timestamp_seconds": {"task"},
    "dependency_up": {"dependency"},
    "circuit_breaker_state": {"dependency"},
    "event_loop_lag_seconds_bucket": set(),
    "build_info": {"version", "commit", "environment"},
    "telemetry_dropped_total": {"signal"},
    "audit_entries_total": {"action", "outcome"},
    "audit_unsealed_entries": set(),
    "database_query_duration_seconds_bucket": {"operation", "table"},
    "database_queries_per_request_bucket": {"handler"},
    "database_time_per_request_seconds_bucket": {"handler"},
    "database_connections_max": {"pool"},
    "error_reports_suppressed_total": set(),
}


@pytest.mark.parametrize("name", API_METRICS)
def test_the_api_has_the_metric_with_the_agreed_labels(pages: Pages, name: str) -> None:
    assert pages.api.labels(name) == API_METRICS[name]


@pytest.mark.parametrize("name", WORKER_METRICS)
def test_the_worker_has_the_metric_with_the_agreed_labels(pages: Pages, name: str) -> None:
    assert pages.worker.labels(name) == WORKER_METRICS[name]


EXPECTED: list[tuple[str, dict[str, str], float]] = [
    ("http_requests_total", {"handler": "/v1/users", "method": "POST", "status": "201"}, 3),
    ("http_requests_total", {"handler": "/v1/users", "method": "POST", "status": "429"}, 1),
    ("http_requests_total", {"handler": "/v1/orders", "method": "POST", "status": "201"}, 5),
    ("http_requests_total", {"handler": "/v1/orders", "method": "PATCH", "status": "405"}, 1),
    ("http_requests_total", {"handler": "unmatched", "status": "404"}, 1),
    ("http_requests_total", {"handler": "/v1/orders/{order_id}/cancel", "status": "200"}, 1),
    ("http_request_duration_seconds_count", {"handler": "/v1/payments", "status": "201"}, 4),
    ("http_requests_in_progress", {}, 0),
    ("http_request_size_bytes_count", {"handler": "/v1/payments"}, 4),
    ("auth_attempts_total", {"result": "success"}, 3),
    ("auth_attempts_total", {"result": "failure"}, 6),
    ("auth_attempts_total", {"result": "locked"}, 1),
    ("auth_attempts_total", {"result": "revoked"}, 1),
    ("auth_lockouts_total", {}, 1),
    ("rate_limit_hits_total", {"scope": "registration"}, 1),
    ("rate_limit_hits_total", {"scope": "login"}, 0),
    ("security_events_total", {"event": "account_erased"}, 1),
    ("security_events_total", {"event": "logout"}, 1),
    ("security_events_total", {"event": "data_exported"}, 1),
    ("security_events_total", {"event": "account_locked"}, 1),
    ("security_events_total", {"event": "invalid_token"}, 1),
    ("security_events_total", {"event": "idempotency_key_mismatch"}, 1),
    ("security_events_total", {"event": "operations_access_denied"}, 1),
    ("user_registrations_total", {"method": "password", "source": "mobile"}, 1),
    ("user_registrations_total", {"method": "password", "source": "web"}, 2),
    ("orders_created_total", {"currency": "EUR"}, 3),
    ("orders_created_total", {"currency": "JPY"}, 1),
    ("order_value_sum", {"currency": "EUR"}, 25 + 9 + 10),
    ("order_value_sum", {"currency": "JPY"}, 50_000),
    ("payments_total", {"status": "captured", "decline_reason": "none"}, 2),
    ("payments_total", {"status": "declined", "decline_reason": "do_not_honor"}, 1),
    ("payments_total", {"status": "declined", "decline_reason": "insufficient_funds"}, 1),
    ("payments_total", {"status": "pending"}, 0),
    ("payment_duration_seconds_count", {"status": "captured"}, 2),
    ("revenue_total", {"currency": "EUR"}, 25),
    ("revenue_total", {"currency": "JPY"}, 50_000),
    ("revenue_events_total", {"event_type": "capture", "amount_tier": "medium"}, 1),
    ("revenue_events_total", {"event_type": "capture", "amount_tier": "very_large"}, 1),
    ("revenue_events_total", {"event_type": "refund", "amount_tier": "small"}, 1),
    ("refunds_total", {"currency": "EUR"}, 1),
    ("refunded_amount_total", {"currency": "EUR"}, 5),
    ("funnel_steps_total", {"step": "registration"}, 3),
    ("funnel_steps_total", {"step": "login"}, 3),
    ("funnel_steps_total", {"step": "order"}, 4),
    ("funnel_steps_total", {"step": "payment"}, 2),
    ("feature_usage_total", {"feature": "idempotent_replay"}, 1),
    ("feature_usage_total", {"feature": "order_cancel"}, 1),
    ("feature_usage_total", {"feature": "refund"}, 1),
    ("feature_usage_total", {"feature": "pagination"}, 1),
    ("feature_usage_total", {"feature": "data_export"}, 1),
    ("feature_usage_total", {"feature": "erasure"}, 1),
    # Two people call the API with a token: each one's session is looked up once, then found.
    ("cache_requests_total", {"cache": "sessions", "result": "miss"}, 2),
    ("cache_requests_total", {"cache": "sessions", "result": "error"}, 0),
    ("external_requests_total", {"dependency": "payment_provider", "outcome": "success"}, 5),
    ("external_request_duration_seconds_count", {"dependency": "payment_provider"}, 5),
    ("circuit_breaker_state", {"dependency": "payment_provider"}, 0),
    ("dependency_up", {"dependency": "database"}, 1),
    ("dependency_up", {"dependency": "migrations"}, 1),
    ("dependency_up", {"dependency": "cache"}, 1),
    ("dependency_up", {"dependency": "payment_provider"}, 1),
    ("build_info", {"version": "1.2.3", "commit": "abc1234", "environment": "test"}, 1),
    ("telemetry_dropped_total", {"signal": "logs"}, 0),
    ("telemetry_dropped_total", {"signal": "traces"}, 0),
    ("telemetry_dropped_total", {"signal": "errors"}, 0),
    ("unhandled_exceptions_total", {}, 0),
    ("error_reports_suppressed_total", {}, 0),
    ("rate_limit_unenforced_total", {}, 0),
    ("external_retries_total", {"dependency": "payment_provider"}, 0),
    ("circuit_breaker_transitions_total", {}, 0),
    ("audit_entries_total", {"action": "registration", "outcome": "success"}, 3),
    ("audit_entries_total", {"action": "login", "outcome": "success"}, 3),
    ("audit_entries_total", {"action": "login", "outcome": "failure"}, 6),
    ("audit_entries_total", {"action": "login", "outcome": "denied"}, 1),
    ("audit_entries_total", {"action": "lockout", "outcome": "success"}, 1),
    ("audit_entries_total", {"action": "logout", "outcome": "success"}, 1),
    ("audit_entries_total", {"action": "data_export", "outcome": "success"}, 1),
    ("audit_entries_total", {"action": "erasure", "outcome": "success"}, 1),
    ("audit_entries_total", {"action": "refund", "outcome": "requested"}, 1),
    ("audit_entries_total", {"action": "refund", "outcome": "success"}, 1),
    ("audit_entries_total", {"action": "refund", "outcome": "failure"}, 0),
    ("audit_entries_total", {"action": "configuration", "outcome": "success"}, 1),
    ("database_query_duration_seconds_count", {"operation": "INSERT", "table": "orders"}, 4),
    ("database_query_duration_seconds_count", {"operation": "INSERT", "table": "payments"}, 4),
    ("database_query_duration_seconds_count", {"operation": "INSERT", "table": "refunds"}, 1),
    # Each registration that the limit let through tries; an address that is taken makes no row.
    (
        "database_query_duration_seconds_count",
        {"operation": "INSERT", "table": "users"},
        REGISTRATION_LIMIT,
    ),
    ("database_queries_per_request_count", {"handler": "/v1/payments"}, 4),
    ("database_queries_per_request_count", {"handler": "/v1/users"}, REGISTRATION_LIMIT),
    ("database_time_per_request_seconds_count", {"handler": "/v1/payments"}, 4),
    ("database_connections_max", {"pool": "main"}, 10 + 5),
    ("database_connection_timeouts_total", {"pool": "main"}, 0),
    ("database_errors_total", {}, 0),
    ("database_explains_total", {}, 0),
]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    EXPECTED,
    ids=[
        f"{name}{''.join(f'-{value}' for value in labels.values())}" for name, labels, _ in EXPECTED
    ],
)
def test_the_api_counts_what_happened(
    pages: Pages, name: str, labels: dict[str, str], expected: float
) -> None:
    assert pages.api.value(name, **labels) == pytest.approx(expected)


def test_the_worker_counts_what_happened(pages: Pages) -> None:
    worker = pages.worker
    for task, runs in {"write_receipt": 2, "fulfil_order": 2, "write_credit_note": 1}.items():
        assert worker.value("jobs_processed_total", task=task, status="succeeded") == runs
        assert worker.value("job_duration_seconds_count", task=task) == runs
        assert worker.value("job_retries_total", task=task) == 0
        assert worker.value("dead_letters_total", task=task) == 0
    statuses = {"pending": 1, "fulfilled": 2, "cancelled": 1, "paid": 0, "refunded": 0}
    for status, orders in statuses.items():
        assert worker.value("orders_current", status=status) == orders
    for window in ("1d", "7d", "30d"):
        assert worker.value("active_users", window=window) == 3
    for task, runs in {"write_receipt": 2, "fulfil_order": 2, "write_credit_note": 1}.items():
        assert worker.value("database_queries_per_request_count", handler=task) == runs
    inserted = {"operation": "INSERT", "table": "receipts"}
    assert worker.value("database_query_duration_seconds_count", **inserted) == 2 + 1
    assert worker.value("audit_entries_total", action="configuration", outcome="success") == 1
    assert worker.value("audit_unsealed_entries") == 0
    assert worker.value("outbox_oldest_age_seconds") == 0
    assert worker.value("job_last_success_timestamp_seconds", task="relay") > 0


def test_cached_sessions_are_found_again(pages: Pages) -> None:
    # All of ada's and bob's calls but the first of each, and the one after the erasure.
    assert pages.api.value("cache_requests_total", cache="sessions", result="hit") > 10


def test_a_scraper_that_speaks_openmetrics_gets_exemplars_with_trace_ids(pages: Pages) -> None:
    with_exemplar = [
        line
        for line in pages.openmetrics.splitlines()
        if line.startswith("http_request_duration_seconds_bucket") and "trace_id=" in line
    ]
    assert any('handler="/v1/payments"' in line for line in with_exemplar)
    assert pages.openmetrics.rstrip().endswith("# EOF")


def test_no_series_of_probes_or_scrapes_and_none_with_a_raw_path(pages: Pages) -> None:
    handlers = {labels["handler"] for labels, _ in pages.api.samples["http_requests_total"]}
    assert not {handler for handler in handlers if handler.startswith(("/health", "/metrics"))}
    assert all("4711" not in handler for handler in handlers)


def test_no_creation_timestamps_double_the_number_of_series(pages: Pages) -> None:
    created = [name for name in pages.api.samples if name.endswith("_created")]
    assert created == []
