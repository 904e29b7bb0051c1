"""What a measurement stands on: a database with orders in it, a receiver of telemetry, and the servers."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bench import leash
from bench.process import NotMeasurable, ServerProcess
from tests.service import migrate_database
from tests.tools import PostgresServer, create_database, free_port, wait_until

ORDERS = 200
_UNLIMITED = "1000000000/minute"
_PASSWORD = "correct horse battery"  # noqa: S105 - of a customer who lives for minutes


@dataclass(frozen=True, slots=True)
class Customer:
    """Who asks: a token and the id of one of their orders."""

    token: str
    order_id: str


class Stage:
    """The database, the sink and whatever servers are up."""

    def __init__(self, directory: Path, database_url: str, sink_port: int) -> None:
        self.directory = directory
        self.database_url = database_url
        self._sink = f"http://127.0.0.1:{sink_port}"
        self._secret = secrets.token_hex(32)

    @property
    def on_postgres(self) -> bool:
        """Whether the database is PostgreSQL; the targets are about that."""
        return self.database_url.startswith("postgresql")

    def environment(self, service: str) -> dict[str, str]:
        """Return the settings of one server: everything on, and sent to our sink."""
        return {
            "DATABASE_URL": self.database_url,
            "ENVIRONMENT": "staging",
            "SECRET_KEY": self._secret,
            "LOG_FORMAT": "json",
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._sink,
            "SENTRY_DSN": self._sink.replace("//", "//key@") + "/1",
            "RATE_LIMIT_LOGIN": _UNLIMITED,
            "RATE_LIMIT_REGISTRATION": _UNLIMITED,
            "PROMETHEUS_URL": "",
            "REDIS_URL": "",
        }

    def received(self) -> dict[str, int]:
        """Return how many spans have arrived, by service."""
        with urllib.request.urlopen(f"{self._sink}/counts", timeout=10) as answer:  # noqa: S310 - ours
            counts: dict[str, int] = json.load(answer)
        return counts

    @contextmanager
    def servers(
        self,
        names: Sequence[str],
        environments: Mapping[str, Mapping[str, str]],
        progress: Callable[[str], None] = lambda _: None,
    ) -> Iterator[dict[str, ServerProcess]]:
        """Start one server for each variant, one after the other; in the end all stop together."""
        started: dict[str, ServerProcess] = {}
        try:
            for name in names:
                progress(f"starting {name}")
                environment = {**self.environment(name), **environments.get(name, {})}
                started[name] = ServerProcess(name, free_port(), environment)
            yield started
        finally:
            with ExitStack() as stack:
                for server in started.values():
                    stack.callback(server.stop)
                for server in started.values():
                    server.ask_to_stop()


@contextmanager
def open_stage(database_url: str | None) -> Iterator[Stage]:
    """Make a database, the one that is given or a PostgreSQL of our own, else SQLite, and the sink.

    Raises:
        NotMeasurable: Something of it does not start, or the database cannot be migrated.
    """
    with ExitStack() as stack, _in_one_sentence():
        temporary = tempfile.TemporaryDirectory(
            prefix="glasshouse-bench-", ignore_cleanup_errors=True
        )
        directory = Path(stack.enter_context(temporary))
        leash.hold(directory)
        stack.callback(leash.release, directory)
        directory.chmod(0o711)
        if database_url is None:
            local = f"sqlite+aiosqlite:///{directory}/bench.db"
            database_url = _own_postgres(directory, stack) or local
        _migrate(database_url)
        port = free_port()
        command = [sys.executable, "-m", "bench.sink", str(port)]
        sink = subprocess.Popen(command, start_new_session=True)
        leash.hold(sink.pid)
        stack.callback(leash.release, sink.pid)
        stack.callback(sink.wait)
        stack.callback(sink.terminate)
        stage = Stage(directory, database_url, port)
        wait_until(lambda: _answers(stage), "the receiver of telemetry answers")
        yield stage


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    try:
        yield
    except pytest.fail.Exception as trouble:  # what we share with the tests ends a test
        raise NotMeasurable(str(trouble)) from None
    except OSError as trouble:
        raise NotMeasurable(f"the stage cannot be set up: {trouble}") from None


def _migrate(database_url: str) -> None:
    try:
        migrate_database(database_url)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise NotMeasurable(f"the database cannot be migrated: {reason}") from error


def _answers(stage: Stage) -> bool:
    try:
        stage.received()
    except OSError:
        return False
    return True


def _own_postgres(directory: Path, stack: ExitStack) -> str | None:
    try:
        server = PostgresServer(name="postgres", owner=os.getpid(), directory=directory)
        server.start()
    except pytest.skip.Exception:
        return None
    stack.callback(server.stop)
    return create_database(server.url)


def customer(port: int) -> Customer:
    """Register somebody with ORDERS orders of two lines each.

    Raises:
        NotMeasurable: The server refuses it.
    """
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=30) as http:
        email = f"{secrets.token_hex(8)}@example.com"
        _checked(http.post("/users", json={"email": email, "password": _PASSWORD, "name": "B"}))
        answer = _checked(http.post("/auth/token", data={"username": email, "password": _PASSWORD}))
        http.headers["Authorization"] = f"Bearer {answer['access_token']}"
        for _ in range(ORDERS):
            order = _checked(http.post("/orders", content=ORDER, headers=_JSON))
    return Customer(answer["access_token"], order["id"])


def _checked(answer: httpx2.Response) -> Any:
    if answer.is_error:
        raise NotMeasurable(f"{answer.request.url} answered {answer.status_code}: {answer.text}")
    return answer.json()


_JSON = {"Content-Type": "application/json"}
ORDER = json.dumps(
    {
        "currency": "EUR",
        "lines": [
            {"sku": "TEA-GREEN-100", "quantity": 2, "unit_amount": 799},
            {"sku": "MUG-BLUE", "quantity": 1, "unit_amount": 1450},
        ],
    }
).encode()
