"""The customers cause all that customers can cause, go on while the API is away, and end in order."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.catalogue import read_catalogue
from tests.provider import start_provider
from tests.service import ROOT, RunningProcess, start_process
from tests.tools import wait_until

SECONDS = 60.0
TOUR_SECONDS = 180.0
WORKER_SECONDS = 30.0
END_SECONDS = 8.0

CAUSED_BY_CUSTOMERS = (
    "user_registrations_total",
    "auth_attempts_total",
    "auth_lockouts_total",
    "rate_limit_hits_total",
    "security_events_total",
    "audit_entries_total",
    "orders_created_total",
    "order_value",
    "payments_total",
    "payment_duration_seconds",
    "revenue_total",
    "revenue_events_total",
    "refunds_total",
    "refunded_amount_total",
    "funnel_steps_total",
    "feature_usage_total",
    "cache_requests_total",
    "provider_charges_total",
    "provider_refunds_total",
    "jobs_processed_total",
)
NOT_BY_CUSTOMERS = {
    ("auth_attempts_total", "result", "expired"): "takes the lifetime of a token",
    ("audit_entries_total", "action", "profiling"): "the operators'",
    ("audit_entries_total", "action", "configuration"): "the operators'",
    ("payments_total", "decline_reason", "other"): "takes a provider that has learned a new reason",
    ("cache_requests_total", "result", "error"): "takes a Redis that is broken",
    ("provider_charges_total", "status", "canceled"): "reconciliation does so, later",
    ("provider_refunds_total", "status", "canceled"): "reconciliation does so, later",
    ("jobs_processed_total", "status", "failed"): "takes a bug",
    ("jobs_processed_total", "status", "dead"): "takes a bug",
    ("jobs_processed_total", "status", "duplicate"): "takes a crash",
    ("jobs_processed_total", "status", "cancelled"): "takes a shutdown",
}
STATUSES = {"200", "201", "204", "401", "404", "405", "409", "422", "429"}


@dataclass
class Shop:
    """The processes that customers meet."""

    api: RunningProcess
    worker: RunningProcess
    provider_url: str

    def moved(self) -> set[tuple[str, str, str]]:
        """Return metric, label and value of all that is above 0."""
        found = set()
        for url in (self.api.url, self.worker.url, self.provider_url):
            page = httpx2.get(f"{url}/metrics", timeout=SECONDS).text
            for family in text_string_to_metric_families(page):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                for sample in family.samples:
                    if sample.value > 0 and not sample.name.endswith("_created"):
                        found.add((name, "", ""))
                        found |= {(name, label, value) for label, value in sample.labels.items()}
        return found


@pytest.fixture
def shop(tmp_path: Path, postgres_service_database: str, redis_database: str) -> Iterator[Shop]:
    """The whole shop, with the limits of production, and a provider that is soon given up."""
    where = {
        "database_url": postgres_service_database,
        "REDIS_URL": redis_database,
        "RATE_LIMIT_LOGIN": "10/minute",
        "RATE_LIMIT_REGISTRATION": "20/minute",
        "FORWARDED_ALLOW_IPS": "127.0.0.1",
        "EXTERNAL_READ_TIMEOUT_SECONDS": "1",
        "EXTERNAL_ATTEMPTS": "1",
    }
    with (
        start_provider(tmp_path, slow_seconds=0.2, timeout_seconds=30) as provider,
        start_process("serve", tmp_path, provider_url=provider.url, **where) as api,
        start_process("worker", tmp_path, provider_url=provider.url, **where) as worker,
    ):
        yield Shop(api, worker, provider.url)


def customers(api_url: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start the customers."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LOG_FORMAT": "json",
        "CUSTOMERS_API_URL": api_url,
        "CUSTOMERS_SEED": "1",
        "no_proxy": "127.0.0.1",
        **settings,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox.customers", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """Wait for its end; return what it wrote."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def test_the_tour_causes_all_that_customers_can_cause(shop: Shop) -> None:
    tour = customers(shop.api.url, "--once")
    said, complaints = ended(tour, TOUR_SECONDS)
    assert tour.returncode == 0, said + complaints
    assert complaints == ""

    catalogue = read_catalogue()
    wanted = {(name, "", "") for name in CAUSED_BY_CUSTOMERS}
    for name in CAUSED_BY_CUSTOMERS:
        for label, values in catalogue.metrics[name].labels.items():
            wanted |= {(name, label, value) for value in values.closed}
    assert NOT_BY_CUSTOMERS.keys() <= wanted
    wanted -= NOT_BY_CUSTOMERS.keys()
    wanted |= {("http_requests_total", "status", status) for status in STATUSES}
    # The worker handles the last messages in its own time.
    deadline = time.monotonic() + WORKER_SECONDS
    while (missing := wanted - shop.moved()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not missing, said


def lines(text: str) -> list[dict[str, object]]:
    """Return the log lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_they_wait_for_the_api_go_on_when_it_is_back_and_end_in_order(shop: Shop) -> None:
    visitors = customers(
        shop.api.url, CUSTOMERS_USERS="3", CUSTOMERS_PAUSE_SECONDS="0.01", CUSTOMERS_DAY_SECONDS="0"
    )
    ordered = ("orders_created_total", "", "")
    wait_until(lambda: ordered in shop.moved(), "orders", SECONDS)
    shop.api.kill()
    # Whatever was under way has failed by then, and somebody has asked whether the API is there.
    time.sleep(2)
    shop.api.start()
    assert ordered not in shop.moved()
    wait_until(lambda: ordered in shop.moved(), "orders after that", SECONDS)
    started = time.monotonic()
    visitors.send_signal(signal.SIGTERM)
    said, complaints = ended(visitors, SECONDS)
    assert time.monotonic() - started < END_SECONDS
    assert visitors.returncode == 0, complaints
    assert complaints == ""
    messages = [line["message"] for line in lines(said)]
    assert messages == [
        "customers start",
        "Customers find the API",
        "Customers wait for the API",
        "Customers find the API",
        "Customers were served",
    ]
    served = lines(said)[-1]
    assert isinstance(served["requests"], int)
    assert served["requests"] > 0


def test_a_setting_that_cannot_be_is_one_sentence() -> None:
    refused = customers("127.0.0.1:8000")
    said, complaints = ended(refused, SECONDS)
    assert refused.returncode == 1
    assert said == ""
    assert complaints == (
        "The customers do not start. CUSTOMERS_API_URL: Value error, must begin with http:// or "
        "https://, such as http://127.0.0.1:8000.\n"
    )
