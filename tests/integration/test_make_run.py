"""`make run` as a person uses it: start, paste the printed journey, stop; and why it does not start."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from deploy.local.environment import Ports
from deploy.local.welcome import journey, welcome
from tests.tools import free_port, require_tool, wait_until

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 10.0


class Supervisor:
    """The process behind `make run`, in a directory of its own, so that no .env and no var/ is shared."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = Ports(free_port(), free_port(), free_port(), free_port())
        self.output = directory / "output"
        self.errors = directory / "errors"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start it on free ports, with further settings."""
        ports = {variable: str(port) for variable, port in self.ports.by_variable().items()}
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local.run"],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **ports, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
        return self.process

    def refusal(self, **environment: str) -> str:
        """Return the one sentence on standard error with which it refuses to start."""
        assert self.start(**environment).wait(60) == 1
        said = self.errors.read_text()
        assert said.count("\n") == 1, said
        assert said.startswith("glasshouse: ")
        return said

    def listening(self) -> list[str]:
        """Return the variables of the ports on which something listens."""
        found = []
        for variable, port in self.ports.by_variable().items():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                found.append(variable)
        return found


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path)
    yield supervisor
    if supervisor.process is not None and supervisor.process.poll() is None:
        supervisor.process.kill()  # its guard ends the rest
        supervisor.process.wait()


def test_a_person_starts_it_pastes_the_journey_and_stops_it(supervisor: Supervisor) -> None:
    require_tool("curl")
    process = supervisor.start()
    expected = welcome(supervisor.ports, ["traces", "errors"]).rstrip()
    wait_until(
        lambda: expected in supervisor.output.read_text() or process.poll() is not None,
        "everything is ready and the person is told where to look",
        seconds=90,
    )
    assert process.poll() is None, supervisor.output.read_text() + supervisor.errors.read_text()
    for port, path in zip(
        (supervisor.ports.api, supervisor.ports.provider, supervisor.ports.worker_metrics),
        ("/health/ready", "/health", "/health/ready"),
        strict=True,
    ):
        assert httpx2.get(f"http://127.0.0.1:{port}{path}").status_code == 200
        assert "python_info{" in httpx2.get(f"http://127.0.0.1:{port}/metrics").text

    search_path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    pasted = subprocess.run(
        [require_tool("bash"), "-e", "-o", "pipefail"],
        input=journey(supervisor.ports),
        env={**os.environ, "PATH": search_path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    user, payment = (json.loads(line) for line in pasted.stdout.splitlines())
    assert user["name"] == "Ada"
    assert payment["status"] == "captured"
    ledger = httpx2.get(f"http://127.0.0.1:{supervisor.ports.provider}/v1/ledger").json()["entries"]
    assert [(entry["kind"], entry["amount"]) for entry in ledger] == [("charge", payment["amount"])]
    wait_until(
        lambda: any(
            line.startswith("worker") and payment["order_id"] in line and "fulfilled" in line
            for line in supervisor.output.read_text().splitlines()
        ),
        "the worker fulfils the order, and its log line is shown",
    )

    viewer = f"http://127.0.0.1:{supervisor.ports.viewer}"
    wait_until(
        lambda: any(
            trace["name"] == "POST /v1/payments" and len(trace["services"]) == 3
            for trace in httpx2.get(f"{viewer}/api/traces").json()["traces"]
        ),
        "the viewer shows the payment's trace through the API, the provider and the worker",
    )

    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(STOP_SECONDS + 5) == 0
    assert time.monotonic() - begin < STOP_SECONDS
    assert supervisor.listening() == []
    assert supervisor.errors.read_text() == ""
    assert "killed" not in supervisor.output.read_text()


def test_a_busy_port_is_said_before_anything_is_touched(supervisor: Supervisor) -> None:
    with socket.create_server(("127.0.0.1", supervisor.ports.worker_metrics)):
        said = supervisor.refusal()
    assert f"port {supervisor.ports.worker_metrics} (WORKER_METRICS_PORT) is busy" in said
    assert list((supervisor.directory / "var").iterdir()) == []


def test_without_a_use_for_the_viewer_it_is_not_started(supervisor: Supervisor) -> None:
    elsewhere = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "SENTRY_DSN": "http://key@127.0.0.1:9/1",
    }
    process = supervisor.start(**elsewhere)
    wait_until(
        lambda: "Glasshouse is running" in supervisor.output.read_text(),
        "everything is ready",
        seconds=90,
    )
    assert supervisor.listening() == ["PORT", "PROVIDER_PORT", "WORKER_METRICS_PORT"]
    assert "Traces" not in supervisor.output.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(STOP_SECONDS + 5) == 0


def test_bad_settings_are_named_together(supervisor: Supervisor) -> None:
    said = supervisor.refusal(LOG_LEVEL="LOUD", PROVIDER_FAILURE_RATE="7")
    assert "LOG_LEVEL: " in said
    assert "PROVIDER_FAILURE_RATE: " in said


def test_a_setting_in_the_file_counts_for_the_provider_too(supervisor: Supervisor) -> None:
    (supervisor.directory / ".env").write_text("LOG_LEVEL=LOUD\nPROVIDER_FAILURE_RATE=7\n")
    said = supervisor.refusal()
    assert "LOG_LEVEL: " in said
    assert "PROVIDER_FAILURE_RATE: " in said


def test_a_database_that_cannot_be_opened_is_said(supervisor: Supervisor) -> None:
    (supervisor.directory / "file").touch()
    nowhere = f"sqlite+aiosqlite:///{supervisor.directory}/file/glasshouse.db"
    said = supervisor.refusal(DATABASE_URL=nowhere)
    assert "the database could not be migrated: " in said
    assert f"{supervisor.directory}/file" in said
    assert supervisor.listening() == []


def test_a_process_that_dies_takes_the_others_along(supervisor: Supervisor) -> None:
    process = supervisor.start(PROVIDER_DATABASE=str(supervisor.directory / "errors" / "ledger.db"))
    assert process.wait(60) == 1
    assert supervisor.errors.read_text().startswith("glasshouse: provider ended with exit code 1")
    assert "Cannot open the ledger" in supervisor.output.read_text()
    assert supervisor.listening() == []
