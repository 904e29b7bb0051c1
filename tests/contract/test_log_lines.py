"""What a real process writes to stdout: JSON objects with the agreed fields, one access line a request."""

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.provider import RunningProvider
from tests.service import PASSWORD, ROOT, migrate_database, start_process

FIELDS = {
    "timestamp", "level", "message", "logger", "service", "version", "environment", "trace_id", "span_id",
    "request_id", "user_id", "type",
}  # fmt: skip
ACCESS_FIELDS = {
    "method", "path", "route", "status", "duration_ms", "client_ip", "user_agent", "db_statements",
    "db_duration_ms", "db_wait_ms", "sample_rate",
}  # fmt: skip


@dataclass(frozen=True)
class Output:
    """The lines of a process, and the answers to the requests that it served, in order."""

    lines: list[dict[str, Any]]
    answers: list[httpx2.Response]

    @property
    def access(self) -> list[dict[str, Any]]:
        """The access lines."""
        return [line for line in self.lines if line["type"] == "http_request"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, provider: RunningProvider) -> Iterator[Output]:
    """A process that was started, asked this and that, and stopped."""
    directory: Path = tmp_path_factory.mktemp("logs")
    url = f"sqlite+aiosqlite:///{directory / 'service.db'}"
    migrate_database(url)
    # Its guard removes the output of a process that it stopped; this one is ended by a signal instead.
    process = start_process("serve", directory, database_url=url, provider_url=provider.url)
    with process, httpx2.Client(base_url=process.url) as client:
        email = f"{secrets.token_hex(8)}@example.com"
        body = {"email": email, "password": PASSWORD, "name": "Ada"}
        answers = [client.post("/v1/users", json=body)]
        form = {"username": email, "password": PASSWORD}
        answers.append(client.post("/v1/auth/token", data=form))
        client.headers["Authorization"] = f"Bearer {answers[-1].json()['access_token']}"
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            client.get(path).raise_for_status()
        request_id = {"X-Request-ID": "given-by-the-caller"}
        answers += [
            client.get("/v1/users/me", headers=request_id),
            client.get("/v1/users/me", headers=[(b"X-Request-ID", b"no good \xe9")]),
            client.get("/v1/orders", params={"limit": 1, "cursor": "not-a-cursor"}),
            client.get("/no/such/page"),
            client.get("/v1/orders/", follow_redirects=False),
            client.post("/v1/users", content=b"{not json"),
        ]
        process.send_signal(signal.SIGTERM)
        process.wait()
        yield Output([json.loads(line) for line in process.log().splitlines()], answers)


def test_every_line_is_an_object_with_the_agreed_fields(output: Output) -> None:
    assert output.lines
    for line in output.lines:
        assert line.keys() >= FIELDS, line
        assert line["service"] == "glasshouse"
        assert line["environment"] == "test"


def test_there_is_one_access_line_for_each_request_and_none_for_probes(output: Output) -> None:
    asked = [
        (answer.request.method, answer.request.url.path, answer.status_code)
        for answer in output.answers
    ]
    assert [(line["method"], line["path"], line["status"]) for line in output.access] == asked
    for line in output.access:
        assert line.keys() == FIELDS | ACCESS_FIELDS


def test_an_access_line_carries_the_ids_that_the_answer_told(output: Output) -> None:
    for line, answer in zip(output.access, output.answers, strict=True):
        assert line["request_id"] == answer.headers["X-Request-ID"]
        assert line["trace_id"] == answer.headers["X-Trace-ID"]
    given = [line["request_id"] for line in output.access if line["route"] == "/v1/users/me"]
    assert given[0] == "given-by-the-caller"
    assert given[1] != "no good \u00e9"


def test_an_access_line_names_the_route_and_never_the_query(output: Output) -> None:
    assert [line["route"] for line in output.access] == [
        "/v1/users",
        "/v1/auth/token",
        "/v1/users/me",
        "/v1/users/me",
        "/v1/orders",
        "unmatched",
        "unmatched",
        "/v1/users",
    ]
    assert not [line for line in output.lines if "not-a-cursor" in json.dumps(line)]


def test_an_access_line_knows_the_user_and_only_a_part_of_the_address(output: Output) -> None:
    user_id = output.answers[0].json()["id"]
    known = [line["user_id"] for line in output.access if line["route"] == "/v1/users/me"]
    assert known == [user_id, user_id]
    assert {line["client_ip"] for line in output.access} == {"127.0.0.0"}


def test_the_server_s_own_lines_come_through_the_same_sink(output: Output) -> None:
    names = [line["logger"] for line in output.lines]
    assert "uvicorn.error" in names
    assert "uvicorn.access" not in names
    assert output.lines[-1]["message"].startswith("Finished server process")


def test_migrations_write_through_the_same_sink(tmp_path: Path) -> None:
    migrated = subprocess.run(
        [sys.executable, "-m", "app", "migrate"],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}",
            "ENVIRONMENT": "test",
            "LOG_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = [json.loads(line) for line in migrated.stdout.splitlines()]
    assert "alembic.runtime.migration" in {line["logger"] for line in lines}
    assert all(line.keys() >= FIELDS for line in lines)
    assert migrated.stderr == ""
