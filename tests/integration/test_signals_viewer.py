"""The signals viewer as people use it: the real processes send to it what a journey leaves behind."""

import os
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.provider import start_provider
from tests.service import PASSWORD, start_process
from tests.tools import free_port, wait_until
from tests.viewer import ROOT, RunningViewer, start_viewer


@dataclass(frozen=True, slots=True)
class House:
    """The viewer, and the service that sends to it."""

    viewer: RunningViewer
    api: httpx2.Client
    database: Path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[House]:
    """Run viewer, provider, API and worker."""
    tmp_path = tmp_path_factory.mktemp("house")
    database = tmp_path / "service.db"
    shutil.copy(sqlite_template, database)
    database_url = f"sqlite+aiosqlite:///{database}"
    with start_viewer(tmp_path) as viewer:
        telemetry = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url,
            "OTEL_TRACES_SAMPLER_ARG": "1",
            "SENTRY_DSN": viewer.dsn,
        }
        with (
            start_provider(tmp_path, environment=telemetry) as provider,
            start_process(
                "serve",
                tmp_path,
                database_url=database_url,
                provider_url=provider.url,
                **telemetry,
            ) as api,
            start_process(
                "worker",
                tmp_path,
                database_url=database_url,
                provider_url=provider.url,
                **telemetry,
            ),
            httpx2.Client(base_url=api.url, timeout=10) as client,
        ):
            yield House(viewer, client, database)
        assert "Traceback" not in viewer.log()


def log_in(api: httpx2.Client) -> None:
    """Register a person and use the API as that person from now on."""
    person = {"email": f"{secrets.token_hex(4)}@example.com", "password": PASSWORD, "name": "Ada"}
    api.post("/v1/users", json=person).raise_for_status()
    form = {"username": person["email"], "password": PASSWORD}
    token = api.post("/v1/auth/token", data=form).raise_for_status().json()["access_token"]
    api.headers["Authorization"] = f"Bearer {token}"


def execute(database: Path, statement: str) -> None:
    """Execute a statement behind the service's back."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(statement)


ORDER = {"currency": "EUR", "lines": [{"sku": "TEA", "quantity": 1, "unit_amount": 2500}]}


def test_a_payment_is_shown_from_the_request_to_what_the_worker_did(house: House) -> None:
    log_in(house.api)
    order = house.api.post("/v1/orders", json=ORDER).raise_for_status().json()["id"]
    paid = house.api.post("/v1/payments", json={"order_id": order, "payment_token": "tok_ok"})
    trace_id = paid.raise_for_status().headers["X-Trace-ID"]
    expected = {
        ("glasshouse", "server", "POST /v1/payments"),
        ("glasshouse-payment-provider", "server", "POST /v1/charges"),
        ("glasshouse", "producer", "publish payment.captured"),
        ("glasshouse-worker", "consumer", "process payment.captured"),
    }

    def spans() -> list[dict[str, Any]]:
        answer = httpx2.get(f"{house.viewer.url}/api/traces/{trace_id}")
        found: list[dict[str, Any]] = answer.json()["spans"] if answer.is_success else []
        return found

    def seen() -> set[tuple[str, str, str]]:
        return {(span["process"], span["kind"], span["name"]) for span in spans()}

    wait_until(lambda: expected <= seen(), f"the whole trace of the payment ({expected})")
    wait_until(lambda: not any(span["detached"] for span in spans()), "every span has its parent")
    (outline,) = [t for t in house.viewer.get("/api/traces")["traces"] if t["trace_id"] == trace_id]
    assert outline["name"] == "POST /v1/payments"
    assert len(outline["services"]) == 3
    assert outline["failed"] is False

    overview = house.viewer.page()
    assert f'href="/traces/{trace_id}"' in overview
    page = house.viewer.page(f"/traces/{trace_id}")
    for _, _, name in expected:
        assert name in page
    assert page.count("<tr") == len(spans()) + 1
    assert PASSWORD not in page
    assert "tok_ok" not in page


def test_an_error_is_shown_with_its_stack_and_the_trace_that_it_happened_in(house: House) -> None:
    log_in(house.api)
    execute(house.database, "ALTER TABLE orders RENAME TO lost")
    answer = house.api.post("/v1/orders", json=ORDER)
    execute(house.database, "ALTER TABLE lost RENAME TO orders")
    assert answer.status_code >= 500
    trace_id = answer.json()["trace_id"]

    def errors() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = house.viewer.get("/api/errors")["errors"]
        return [error for error in found if error["trace_id"] == trace_id]

    wait_until(lambda: bool(errors()), "the report arrives")
    (error,) = errors()
    trace = f"{house.viewer.url}/api/traces/{trace_id}"

    def arrived() -> set[str]:  # its children, which name it as their parent, may come before it
        return {span["span_id"] for span in httpx2.get(trace).json().get("spans", ())}

    wait_until(lambda: error["span_id"] in arrived(), "the span that failed arrives")
    assert error["type"] == "OperationalError"
    assert "no such table: orders" in error["message"]
    assert (error["service"], error["route"]) == ("glasshouse", "/v1/orders")
    assert any(frame["ours"] for raised in error["chain"] for frame in raised["frames"])

    overview = house.viewer.page()
    row = next(row for row in re.findall(r"(?s)<tr>.*?</tr>", overview) if error["event_id"] in row)
    for text in ("OperationalError", "no such table: orders", "/v1/orders"):
        assert text in row
    assert f'href="/traces/{trace_id}"' in row
    page = house.viewer.page(f"/traces/{trace_id}")
    assert f'id="error-{error["event_id"]}"' in page
    assert f'href="#error-{error["event_id"]}"' in page, "the span that failed leads to its report"
    assert f'href="/traces/{trace_id}#' in house.viewer.page(f"/errors/{error['event_id']}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_quickly_although_a_browser_is_connected(
    tmp_path: Path, number: signal.Signals
) -> None:
    with start_viewer(tmp_path) as viewer, httpx2.Client(base_url=viewer.url) as browser:
        browser.get("/").raise_for_status()
        assert viewer.stop(number) < 3
        log = viewer.log()
    assert "signals viewer starts" in log
    assert "Traceback" not in log
    assert "GET" not in log, "requests are not logged"


@pytest.mark.parametrize("name", ["OTEL_SERVICE_NAME", "SENTRY_DSN", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_it_takes_nothing_from_the_service_s_identity_and_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setenv(name, "http://service@127.0.0.1:9/1")
    with start_viewer(tmp_path) as viewer:
        viewer.page()
        viewer.stop(signal.SIGTERM)
        assert "glasshouse-signals-viewer" in viewer.log()
        assert "127.0.0.1:9" not in viewer.log()


def run_program(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox.signals_viewer"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_busy_port_is_one_clear_sentence(tmp_path: Path) -> None:
    with start_viewer(tmp_path) as viewer:
        ended = run_program(VIEWER_PORT=str(viewer.port))
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert f"port {viewer.port}" in line
    assert "VIEWER_PORT" in line


def test_a_wrong_setting_is_one_sentence_that_names_it() -> None:
    for name, value in {"VIEWER_PORT": "many", "VIEWER_SERVICE_NAME": ""}.items():
        ended = run_program(**{"VIEWER_PORT": str(free_port()), name: value})
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert name in line
