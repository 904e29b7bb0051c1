"""The number of series is bounded, whatever clients send: shown label by label, and under fire.

LABELS is the review of every label of every metric: where its values come from and how many there can be.
A metric with a label that is not there fails; so does a value outside of its closed set.
"""

import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from itertools import chain, count
from typing import Any, get_args

import httpx2
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.infrastructure.audit import Action
from app.infrastructure.audit import Outcome as AuditOutcome
from app.infrastructure.http_effect import Outcome as CallOutcome
from app.infrastructure.outbox import DeliveryState
from app.money import Currency
from app.observability.business import ActivityWindow, Feature, FunnelStep
from app.observability.cardinality import LIMIT, OTHER
from app.observability.context import UNMATCHED_ROUTE, Environment
from app.observability.database import ErrorType
from app.observability.exceptions import Where
from app.observability.jobs import JobStatus
from app.observability.query_plans import ExplainResult
from app.observability.security import AuthResult, RateLimitScope, SecurityEvent
from app.observability.statements import Operation
from app.orders.consumers import CONSUMERS as ORDER_CONSUMERS
from app.orders.states import OrderStatus
from app.payments.consumers import CONSUMERS as PAYMENT_CONSUMERS
from app.payments.kpis import LARGEST_TIER, TIERS
from app.payments.states import DeclineReason, PaymentStatus
from app.users.kpis import METHODS
from app.users.schemas import Source
from app.users.tokens import issue_token
from sandbox.payment_provider.behaviour import Fault
from sandbox.payment_provider.schemas import ChargeStatus, RefundStatus
from sandbox.synthetic_journey.outcomes import Result as JourneyResult
from sandbox.synthetic_journey.outcomes import Step as JourneyStep
from tests.service import ROOT, Service, ServiceClient, open_service

Values = frozenset[str] | int
"""All values that a label can have, or how many it can have where the values are the deployer's."""


def closed(*values: str) -> frozenset[str]:
    return frozenset(map(str, values))


# Named in the code, in one place each: Check(...), Periodic(...), Consumer(...), create_cache(...).
_DEPENDENCIES = closed("database", "migrations", "payment_provider", "disk", "cache", "broker")
_CALLED = closed("payment_provider", "redis")
_TASKS = closed(
    "relay", "redeliver", "reconcile", "seal", "sample", "purge",
    *(consumer.name for consumer in (*ORDER_CONSUMERS, *PAYMENT_CONSUMERS)),
)  # fmt: skip
_CACHES = closed("sessions")
_CURRENCIES = closed(*Currency)
_PAYMENT_STATUSES = closed(*PaymentStatus)
_AUDIT_ACTIONS = closed(*get_args(Action))
_OPERATIONS = closed(*get_args(Operation))
_POOLS = closed("main")
# A known method or OTHER; a route's template or the name of a job (folded at 500, here there are
# two dozen); the statuses that the code sends (folded at 60): none is taken from the request.
_HTTP_METHODS = closed("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER")
_HANDLERS = 50
_STATUSES = 25
_TABLES = LIMIT + 1  # parsed from the statements in the code: folded at LIMIT
_FOLDED = 20  # calls of fold() in the code

LABELS: dict[str, dict[str, Values]] = {
    "active_users": {"window": closed(*get_args(ActivityWindow))},
    "audit_entries_total": {
        "action": _AUDIT_ACTIONS,
        "outcome": closed(*get_args(AuditOutcome)),
    },
    "audit_failures_total": {"action": _AUDIT_ACTIONS},
    "auth_attempts_total": {"result": closed(*get_args(AuthResult))},
    # The deployer's: one of each in a process.
    "build_info": {"version": 1, "commit": 1, "environment": closed(*get_args(Environment))},
    "cache_evictions_total": {"cache": _CACHES},
    "cache_operation_duration_seconds": {
        "cache": _CACHES,
        "operation": closed("get", "set", "delete"),
    },
    "cache_requests_total": {"cache": _CACHES, "result": closed("hit", "miss", "error")},
    "circuit_breaker_state": {"dependency": _CALLED},
    "circuit_breaker_transitions_total": {
        "dependency": _CALLED,
        "to": closed("closed", "open", "half_open"),
    },
    "database_connection_timeouts_total": {"pool": _POOLS},
    "database_connection_wait_seconds": {"pool": _POOLS},
    "database_connections_active": {"pool": _POOLS},
    "database_connections_idle": {"pool": _POOLS},
    "database_connections_max": {"pool": _POOLS},
    "database_connections_overflow": {"pool": _POOLS},
    "database_errors_total": {"error_type": closed(*get_args(ErrorType))},
    "database_explains_total": {"result": closed(*get_args(ExplainResult))},
    "database_n_plus_one_total": {"handler": _HANDLERS},
    "database_queries_per_request": {"handler": _HANDLERS},
    "database_query_duration_seconds": {"operation": _OPERATIONS, "table": _TABLES},
    "database_rows_returned": {"operation": _OPERATIONS, "table": _TABLES},
    "database_slow_queries_total": {"operation": _OPERATIONS, "table": _TABLES},
    "database_time_per_request_seconds": {"handler": _HANDLERS},
    "dead_letters_total": {"task": _TASKS},
    "dependency_check_duration_seconds": {"dependency": _DEPENDENCIES},
    "dependency_up": {"dependency": _DEPENDENCIES},
    "external_request_duration_seconds": {"dependency": _CALLED},
    "external_requests_total": {
        "dependency": _CALLED,
        "outcome": closed(*get_args(CallOutcome)),
    },
    "external_retries_total": {"dependency": _CALLED},
    "feature_usage_total": {"feature": closed(*get_args(Feature))},
    "funnel_steps_total": {"step": closed(*get_args(FunnelStep))},
    "http_request_duration_seconds": {
        "method": _HTTP_METHODS,
        "handler": _HANDLERS,
        "status": _STATUSES,
    },
    "http_request_size_bytes": {"handler": _HANDLERS},
    "http_requests_total": {"method": _HTTP_METHODS, "handler": _HANDLERS, "status": _STATUSES},
    "http_response_size_bytes": {"handler": _HANDLERS},
    "job_duration_seconds": {"task": _TASKS},
    "job_last_success_timestamp_seconds": {"task": _TASKS},
    "job_retries_total": {"task": _TASKS},
    "jobs_processed_total": {"task": _TASKS, "status": closed(*get_args(JobStatus))},
    "metrics_label_values_folded_total": {"metric": _FOLDED, "label": _FOLDED},
    "order_value": {"currency": _CURRENCIES},
    "orders_created_total": {"currency": _CURRENCIES},
    "orders_current": {"status": closed(*OrderStatus)},
    "outbox_messages": {"state": closed(*DeliveryState)},
    "payment_duration_seconds": {"status": _PAYMENT_STATUSES},
    # What the provider answers is folded into the enumeration before it gets here.
    "payments_total": {
        "status": _PAYMENT_STATUSES,
        "decline_reason": closed("none", *DeclineReason),
    },
    "rate_limit_hits_total": {"scope": closed(*get_args(RateLimitScope))},
    "rate_limit_unenforced_total": {"scope": closed(*get_args(RateLimitScope))},
    "refunded_amount_total": {"currency": _CURRENCIES},
    "refunds_total": {"currency": _CURRENCIES},
    "revenue_events_total": {
        "event_type": closed("capture", "refund"),
        "amount_tier": closed(*(name for _, name in TIERS), LARGEST_TIER),
    },
    "revenue_total": {"currency": _CURRENCIES},
    "security_events_total": {"event": closed(*get_args(SecurityEvent))},
    "synthetic_http_requests_total": {"handler": _HANDLERS, "status": _STATUSES},
    "telemetry_dropped_total": {"signal": closed("logs", "traces", "errors")},
    "unhandled_exceptions_total": {"where": closed(*get_args(Where))},
    "user_registrations_total": {"method": closed(*METHODS), "source": closed(*Source)},
    # The sandbox's, processes of their own.
    "provider_charges_total": {"status": closed(*get_args(ChargeStatus))},
    "provider_injected_faults_total": {"kind": closed(*get_args(Fault))},
    "provider_refunds_total": {"status": closed(*get_args(RefundStatus))},
    "synthetic_journeys_total": {"result": closed(*get_args(JourneyResult))},
    "synthetic_step_duration_seconds": {"step": closed(*get_args(JourneyStep))},
    "synthetic_step_failures_total": {"step": closed(*get_args(JourneyStep))},
}

_DESCRIBE = """
import json
import app.main, app.worker, app.observability.profiling, sandbox.payment_provider.app
import sandbox.synthetic_journey.app
from prometheus_client import REGISTRY
print(json.dumps([
    (family.name + "_total" * (family.type == "counter"), collector._labelnames,
     getattr(collector, "_multiprocess_mode", None))
    for collector in list(REGISTRY._collector_to_names)
    if hasattr(collector, "_labelnames")
    for family in collector.describe()
]))
"""


@pytest.fixture(scope="module")
def metrics() -> list[tuple[str, list[str], str | None]]:
    """Name, labels and multiprocess mode of every metric that the code makes."""
    ended = subprocess.run(
        [sys.executable, "-c", _DESCRIBE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [(name, labels, mode) for name, labels, mode in json.loads(ended.stdout)]


def test_every_label_of_every_metric_was_reviewed(
    metrics: list[tuple[str, list[str], str | None]],
) -> None:
    found = {name: set(labels) for name, labels, _ in metrics if labels}
    assert found == {name: set(labels) for name, labels in LABELS.items()}


def test_every_gauge_says_what_it_is_over_several_workers(
    metrics: list[tuple[str, list[str], str | None]],
) -> None:
    # "all", which is what the library takes unasked, adds the process id as a label.
    assert [name for name, _, mode in metrics if mode in {"all", "liveall"}] == []


# Under fire -------------------------------------------------------------------------------------------

REQUESTS = 10_000
AT_ONCE = 500
SETTLED_AFTER = 2
"""Rounds of AT_ONCE requests, after which not a single series is added."""
MAX_SERIES = 3_000
"""Samples on the page of an API process after all kinds of traffic; each histogram has a dozen or so."""


def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    families = text_string_to_metric_families(generate_latest().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in families
        for sample in family.samples
    }


class Fire:
    """Requests in which everything that a client can choose is different each time."""

    def __init__(self, service: Service, person: ServiceClient) -> None:
        self._service = service
        self._person = person
        self._numbers = count()
        self.seen: dict[str, set[str]] = {
            kind: set() for kind in ("path", "method", "user", "sku", "request_id", "user_agent")
        }
        self.sent = 0

    async def round(self) -> None:
        """Send AT_ONCE requests of all kinds."""
        for request in self._requests():
            await self._send(**request)

    async def _send(self, method: str, path: str, **rest: Any) -> httpx2.Response:
        unique = secrets.token_hex(16)
        headers = {
            "X-Request-ID": unique,
            "User-Agent": f"agent/{unique}",
            "Idempotency-Key": unique,
            "Origin": f"https://{unique}.example.com",
            "X-Forwarded-For": f"10.0.0.{self.sent % 256}",
            "traceparent": f"00-{unique}-{unique[:16]}-01",
        } | rest.pop("headers", {})
        self.sent += 1
        self.seen["method"].add(method)
        self.seen["path"].add(path)
        self.seen["request_id"].add(unique)
        self.seen["user_agent"].add(unique)
        url = f"{path}{'&' if '?' in path else '?'}q={unique}&{unique}=1"
        return await self._service.http.request(method, url, headers=headers, **rest)

    def _requests(self) -> Iterator[dict[str, Any]]:
        kinds = chain(
            self._paths(200),
            self._methods(60),
            self._users(60),
            self._orders(4),
            self._values(30),
        )
        number = 0
        for number, request in enumerate(kinds, start=1):  # noqa: B007 - the last one counts
            yield request
        yield from self._paths(AT_ONCE - number)

    def _paths(self, number: int) -> Iterator[dict[str, Any]]:
        prefixes = ("/", "/v1/", "/v1/orders/", "/metrics/", "/health/", "/v1/payments/", "/%2e/")
        suffixes = ("", "/", "/refund", "/cancel", ".php")
        for _ in range(number):
            at = next(self._numbers)
            prefix, suffix = prefixes[at % len(prefixes)], suffixes[at % len(suffixes)]
            yield {"method": "GET", "path": f"{prefix}{uuid.uuid4()}{suffix}"}

    def _methods(self, number: int) -> Iterator[dict[str, Any]]:
        for at in range(number):
            path = ("/v1/orders", "/nowhere", "/v1/users/me")[at % 3]
            yield {"method": f"M{next(self._numbers)}", "path": path}

    def _users(self, number: int) -> Iterator[dict[str, Any]]:
        for at in range(number):
            user = uuid.uuid4()
            self.seen["user"].add(str(user))
            token = issue_token(self._service.settings, user_id=user, session_id=uuid.uuid4())
            path = ("/v1/users/me", "/v1/orders")[at % 2]
            yield {
                "method": "GET",
                "path": path,
                "headers": {"Authorization": f"Bearer {token}"},
            }

    def _orders(self, number: int) -> Iterator[dict[str, Any]]:
        for at in range(number):
            skus = [f"SKU-{next(self._numbers)}-{line}" for line in range(30 + at)]
            self.seen["sku"].update(skus)
            lines = [{"sku": sku, "quantity": 1, "unit_amount": 100} for sku in skus]
            body = {"currency": "EUR", "lines": lines}
            yield self._as_person("POST", "/v1/orders", json=body)

    def _values(self, number: int) -> Iterator[dict[str, Any]]:
        for _ in range(number):
            unique = secrets.token_hex(8)
            lines = [{"sku": unique, "quantity": 1, "unit_amount": 100}]
            order = {"currency": unique[:3].upper(), "lines": lines}
            yield self._as_person("POST", "/v1/orders", json=order)
            payment = {"order_id": str(uuid.uuid4()), "payment_token": f"tok_{unique}"}
            yield self._as_person("POST", "/v1/payments", json=payment)
            yield self._as_person("GET", f"/v1/orders?limit=2&cursor={unique}")
            yield self._as_person("GET", f"/v1/payments/{uuid.uuid4()}")
            who = {"email": f"{unique}@example.com", "name": unique, "source": unique}
            yield {"method": "POST", "path": "/v1/users", "json": who | {"password": unique}}

    def _as_person(self, method: str, path: str, **rest: Any) -> dict[str, Any]:
        return {"method": method, "path": path, "headers": self._person.headers, **rest}


async def test_ten_thousand_of_everything_add_no_series(sqlite_service_database: str) -> None:
    # A statement may be slow by accident, on a busy machine and for the first time.
    settings: dict[str, Any] = {"database_slow_query_ms": 1e9, "otel_traces_sampler_arg": 0.0}
    async with open_service(sqlite_service_database, **settings) as service:
        before = series()
        fire = Fire(service, await service.person())
        for _ in range(SETTLED_AFTER):
            await fire.round()
        settled = series()
        while fire.sent < REQUESTS:
            await fire.round()
        after = series()

    assert {kind: len(values) for kind, values in fire.seen.items()} == {
        "path": pytest.approx(REQUESTS * 0.6, rel=0.3),
        "method": 60 * REQUESTS / AT_ONCE + 2,
        "user": 60 * REQUESTS / AT_ONCE,
        "sku": sum(range(30, 34)) * REQUESTS / AT_ONCE,
        "request_id": fire.sent,
        "user_agent": fire.sent,
    }
    assert after - settled == set()
    assert len(after - before) <= MAX_SERIES  # others of this process are of other tests
    for name, labels in after - before:
        for label, value in labels:
            if label != "le":
                _assert_reviewed(name, label, value)


def _assert_reviewed(name: str, label: str, value: str) -> None:
    stem = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
    allowed = LABELS[stem][label]
    if isinstance(allowed, frozenset):
        assert value in allowed, (name, label, value)
    elif label == "handler":
        assert value.startswith("/") or value in {UNMATCHED_ROUTE, OTHER}, (name, value)
        assert not any(character.isdigit() for character in value.removeprefix("/v1")), value
    elif label == "status":
        assert value.isdigit(), value
