"""The service for tests: in this process with a client that speaks its API, or as real processes.

`open_service` serves the API in this process (quick, shares metrics and logs with the test) and can run
a worker beside it; the provider is always the real program. `start_process` runs `python -m app ...` as
a person would, for tests that kill it, stop it or need its port.
"""

import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.infrastructure.migrations import migrate
from app.main import create_app
from app.settings import Settings
from app.worker import create_worker
from tests.tools import free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent
GUARD = Path(__file__).with_name("guard.py")
PASSWORD = "correct horse battery"
OPERATIONS_TOKEN = "operations-token-of-the-tests"
UNLIMITED = "1000000/minute"
YEAR = 360 * 24 * 3600
"""Seconds, as the library counts them: a limit per minute is another one when a minute begins meanwhile."""


def test_settings(database_url: str, **given: Any) -> Settings:
    """Return settings for a test: no `.env`, limits out of the way unless they are given."""
    defaults: dict[str, Any] = {
        "environment": "test",
        "database_url": database_url,
        "operations_token": SecretStr(OPERATIONS_TOKEN),
        "rate_limit_login": UNLIMITED,
        "rate_limit_registration": UNLIMITED,
        "otel_traces_sampler_arg": 1.0,
    }
    return Settings(_env_file=None, **(defaults | given))


test_settings.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever its name says


def migrate_database(database_url: str) -> None:
    """Bring an empty database to the newest schema, from inside or outside of a running loop."""
    with ThreadPoolExecutor(1) as thread:  # Alembic's env.py starts a loop, so it must find none
        thread.submit(migrate, database_url).result()


class ServiceClient:
    """Speaks the API as one person."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http
        self.email = f"{secrets.token_hex(8)}@example.com"
        self.headers: dict[str, str] = {}

    async def post(
        self, path: str, json: Any = None, *, key: str | None = None, **headers: str
    ) -> httpx2.Response:
        """POST as this person, with an idempotency key where one is given."""
        sent = self.headers | headers | ({"Idempotency-Key": key} if key else {})
        return await self.http.post(path, json=json, headers=sent)

    async def get(self, path: str, **parameters: Any) -> httpx2.Response:
        """GET as this person."""
        return await self.http.get(path, params=parameters, headers=self.headers)

    async def delete(self, path: str) -> httpx2.Response:
        """DELETE as this person."""
        return await self.http.delete(path, headers=self.headers)

    async def register(self, **fields: Any) -> dict[str, Any]:
        """Create this person's account."""
        body = {"email": self.email, "password": PASSWORD, "name": "Ada"} | fields
        return _json(await self.http.post("/v1/users", json=body), 201)

    async def log_in(self, password: str = PASSWORD) -> httpx2.Response:
        """Ask for a token; use it from now on where one is given."""
        form = {"username": self.email, "password": password}
        response = await self.http.post("/v1/auth/token", data=form)
        if response.status_code == 200:
            self.headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
        return response

    async def order(
        self, *, amount: int = 2500, currency: str = "EUR", key: str | None = None
    ) -> dict[str, Any]:
        """Place an order of one line."""
        lines = [{"sku": "TEA", "quantity": 1, "unit_amount": amount}]
        body = {"currency": currency, "lines": lines}
        return _json(await self.post("/v1/orders", body, key=key), 201)

    async def pay(
        self, order_id: str | uuid.UUID, token: str = "tok_ok", *, key: str | None = None
    ) -> httpx2.Response:
        """Pay an order."""
        body = {"order_id": str(order_id), "payment_token": token}
        return await self.post("/v1/payments", body, key=key)


def _json(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    return body


class Service:
    """The service under test in this process."""

    def __init__(self, app: FastAPI, settings: Settings, http: httpx2.AsyncClient) -> None:
        self.app = app
        self.settings = settings
        self.http = http

    async def person(self, *, registered: bool = True) -> ServiceClient:
        """Return a new person, registered and logged in unless asked otherwise."""
        client = ServiceClient(self.http)
        if registered:
            await client.register()
            assert (await client.log_in()).status_code == 200
        return client


@asynccontextmanager
async def open_service(
    database_url: str,
    *,
    provider_url: str = "http://127.0.0.1:9",
    worker: bool = False,
    raise_app_exceptions: bool = True,
    **settings: Any,
) -> AsyncIterator[Service]:
    """Serve the API in this process, on a migrated database; with `worker`, run one beside it.

    The default provider is the discard port, where nobody listens: a test that pays names a provider.
    """
    composed = test_settings(database_url, payment_provider_url=provider_url, **settings)
    app = create_app(composed)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=raise_app_exceptions)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        if worker:
            beside = create_worker(composed)
            await stack.enter_async_context(beside.router.lifespan_context(beside))
        http = await stack.enter_async_context(
            httpx2.AsyncClient(transport=transport, base_url="http://service")
        )
        yield Service(app, composed, http)


class RunningProcess:
    """`python -m app COMMAND` as a process of its own; a context manager that ends it.

    The process also ends with this one, however this one ends (see guard.py).
    """

    def __init__(
        self, command: str, directory: Path, environment: Mapping[str, str], *, port: int = 0
    ) -> None:
        self.command = command
        self.program: tuple[str, ...] = ("app", command)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._environment = dict(environment)
        self._guard: subprocess.Popen[bytes] | None = None
        self._output = directory
        self._earlier_logs: list[str] = []

    def start(self, *, path: str = "/health/live") -> None:
        """Start the process and wait until it answers 200 on `path`."""
        self._output = self._directory / f"{self.command}-{secrets.token_hex(4)}"
        self._output.mkdir(parents=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "PYTHONPATH": str(ROOT),
            "ENVIRONMENT": "test",
            "LOG_FORMAT": "json",
            "PORT": str(self.port),
            "WORKER_METRICS_PORT": str(self.port),
            "OPERATIONS_TOKEN": OPERATIONS_TOKEN,
            "RATE_LIMIT_LOGIN": UNLIMITED,
            "RATE_LIMIT_REGISTRATION": UNLIMITED,
            **self._environment,
        }
        program = [sys.executable, "-m", *self.program]
        self._guard = subprocess.Popen(
            [sys.executable, str(GUARD), str(os.getpid()), str(self._output), "-", *program],
            cwd=self._directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: self._ended() or self.answers(path), f"{self.command} answers")
        if self._ended():
            pytest.fail(f"{self.command} did not start:\n{self.log()}", pytrace=False)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        os.kill(int((self._output / "pid").read_text()), number)

    def kill(self) -> None:
        """End the process as `kill -9` or a power cut does."""
        self._earlier_logs.append(self.log())
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """End the process in order."""
        if self._guard is not None:
            self._earlier_logs.append(self.log())
            self._guard.terminate()
            self._guard.wait(20)
            self._guard = None

    def wait(self, seconds: float = 20.0) -> None:
        """Wait until the process has ended by itself, or by a signal of the test."""
        if self._guard is not None:
            self._guard.wait(seconds)
            self._guard = None

    def answers(self, path: str) -> bool:
        """Whether the process answers 200 on `path`."""
        try:
            return httpx2.get(f"{self.url}{path}", timeout=1).status_code == 200
        except httpx2.TransportError:
            return False

    def log(self) -> str:
        """Return what the process wrote since its last start."""
        log = self._output / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _ended(self) -> bool:
        return self._guard is None or self._guard.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start_process(
    command: str, directory: Path, *, database_url: str, provider_url: str, **environment: str
) -> RunningProcess:
    """Start the API (`serve`) or a worker (`worker`) on a free port.

    Args:
        command: Of `python -m app`.
        directory: Where its output goes.
        database_url: A migrated database.
        provider_url: A running payment provider.
        environment: More variables, such as REDIS_URL.
    """
    process = RunningProcess(
        command,
        directory,
        {
            "DATABASE_URL": database_url,
            "PAYMENT_PROVIDER_URL": provider_url,
            **environment,
        },
    )
    process.start()
    return process
