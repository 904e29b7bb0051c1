"""The end of a process: readiness first, then what is in flight, then the telemetry, within 10 s.

Real processes and real signals. The collector and the Sentry server are sockets that accept and never
answer: the worst that a dead backend can do.
"""

import asyncio
import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from app.infrastructure.outbox import OutboxMessage
from tests.provider import RunningProvider
from tests.service import OPERATIONS_TOKEN, ROOT, UNLIMITED, ServiceClient, open_service
from tests.tools import RedisServer, free_port, wait_until

END_WITHIN_SECONDS = 10.0
"""Kubernetes kills after 30 s, Docker after 10."""


class BlackHole:
    """A server that accepts connections, reads what is asked, and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._asked: list[bytes] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def was_asked(self, path: str) -> bool:
        """Whether a request to `path` has come."""
        return any(path.encode() in asked for asked in self._asked)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            connection.settimeout(5)
            with suppress(OSError):
                self._asked.append(connection.recv(4096))
            self._connections.append(connection)

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._connections:
            connection.close()


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    """Where collector and Sentry server should be."""
    server = BlackHole()
    yield server
    server.close()


class Program:
    """`python -m app COMMAND` with its exit code and its output."""

    def __init__(self, command: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / f"{command}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", command],
                cwd=directory,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(ROOT),
                    "ENVIRONMENT": "test",
                    "LOG_FORMAT": "json",
                    "PORT": str(self.port),
                    "WORKER_METRICS_PORT": str(self.port),
                    "OPERATIONS_TOKEN": OPERATIONS_TOKEN,
                    "RATE_LIMIT_LOGIN": UNLIMITED,
                    "RATE_LIMIT_REGISTRATION": UNLIMITED,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def readiness(self) -> tuple[int, str]:
        """Return status and verdict of /health/ready; 0 when nobody answers."""
        try:
            response = httpx2.get(f"{self.url}/health/ready", timeout=2)
        except httpx2.TransportError:
            return 0, ""
        return response.status_code, response.json()["status"]

    def until_ready(self) -> None:
        """Wait for the first 200."""
        wait_until(
            lambda: self.process.poll() is not None or self.readiness()[0] == 200,
            f"{self.url} is ready\n{self.text()}",
        )
        assert self.process.poll() is None, self.text()

    def text(self) -> str:
        """Return what it wrote."""
        return self._log.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Return its log lines; everything it wrote must be one."""
        return [json.loads(line) for line in self.text().splitlines()]

    def moment(self, message: str) -> dt.datetime:
        """Return when the (only) line with this message was written."""
        (line,) = [line for line in self.lines() if line["message"] == message]
        return dt.datetime.fromisoformat(line["timestamp"])

    def assert_ended_in_order(self) -> None:
        """Wait for exit code 0; all was written up to the server's last word, and nothing but lines."""
        assert self.process.wait(2 * END_WITHIN_SECONDS) == 0, self.text()
        messages = [line["message"] for line in self.lines()]
        assert "telemetry flushed" in messages
        assert f"Finished server process [{self.process.pid}]" in messages


@contextmanager
def running(command: str, directory: Path, **environment: str) -> Iterator[Program]:
    """Run a program for the time of the block."""
    program = Program(command, directory, environment)
    try:
        program.until_ready()
        yield program
    finally:
        program.process.kill()
        program.process.wait()


def faults_injected(provider: RunningProvider, kind: str) -> float:
    wanted = f'provider_injected_faults_total{{kind="{kind}"}} '
    for line in httpx2.get(f"{provider.url}/metrics").text.splitlines():
        if line.startswith(wanted):
            return float(line.removeprefix(wanted))
    raise AssertionError(f"{wanted}is not among the provider's metrics")


async def person_of(http: httpx2.AsyncClient) -> ServiceClient:
    person = ServiceClient(http)
    await person.register()
    assert (await person.log_in()).status_code == 200
    return person


async def test_sigterm_drains_ends_what_is_in_flight_and_flushes_past_dead_backends(
    postgres_service_database: str, provider: RunningProvider, black_hole: BlackHole, tmp_path: Path
) -> None:
    with running(
        "serve",
        tmp_path,
        DATABASE_URL=postgres_service_database,
        PAYMENT_PROVIDER_URL=provider.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{black_hole.address}",
        OTEL_TRACES_SAMPLER_ARG="1",
        SENTRY_DSN=f"http://public@{black_hole.address}/1",
        DRAIN_SECONDS="1",
    ) as api:
        async with httpx2.AsyncClient(base_url=api.url, timeout=20) as http:
            person = await person_of(http)
            # An error report that is on its way to nowhere: the provider is not there.
            unlucky = await person.order()
            await asyncio.to_thread(provider.stop)
            assert (await person.pay(unlucky["id"])).status_code == 503
            async with asyncio.timeout(20):
                while not (
                    black_hole.was_asked("/envelope") and black_hole.was_asked("/v1/traces")
                ):
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(provider.start)

            order = await person.order()
            slow = faults_injected(provider, "slow")
            paying = asyncio.create_task(person.pay(order["id"], "tok_slow"))
            async with asyncio.timeout(20):
                while faults_injected(provider, "slow") == slow:
                    await asyncio.sleep(0.02)
            assert not paying.done(), "the payment is in flight"

            asked = time.monotonic()
            api.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                while (await asyncio.to_thread(api.readiness)) != (503, "draining"):
                    await asyncio.sleep(0.02)
            paid = await paying
            assert (paid.status_code, paid.json()["status"]) == (201, "captured")
        await asyncio.to_thread(api.assert_ended_in_order)
        assert time.monotonic() - asked < END_WITHIN_SECONDS
    # It listened on while load balancers learned that it goes.
    drained = api.moment("Shutting down") - api.moment("draining")
    assert drained >= dt.timedelta(seconds=0.99)
    access = [line for line in api.lines() if line["type"] == "http_request"]
    assert [line["status"] for line in access if line["path"] == "/v1/payments"] == [503, 201]


def test_a_second_sigterm_ends_the_draining_at_once(
    sqlite_service_database: str, tmp_path: Path
) -> None:
    with running("serve", tmp_path, DATABASE_URL=sqlite_service_database, DRAIN_SECONDS="5") as api:
        api.process.send_signal(signal.SIGTERM)
        wait_until(lambda: api.readiness() == (503, "draining"), "readiness says draining")
        api.process.send_signal(signal.SIGTERM)
        api.assert_ended_in_order()
    assert api.moment("Shutting down") - api.moment("draining") < dt.timedelta(seconds=5)


def test_ctrl_c_ends_the_api_at_once_and_in_order(
    sqlite_service_database: str, tmp_path: Path
) -> None:
    with running("serve", tmp_path, DATABASE_URL=sqlite_service_database, DRAIN_SECONDS="5") as api:
        api.process.send_signal(signal.SIGINT)
        api.assert_ended_in_order()
    assert "draining" not in api.text(), "there a person waits, not a load balancer"


async def test_the_worker_ends_in_order_past_dead_backends(
    postgres_service_database: str,
    redis_database: str,
    provider: RunningProvider,
    black_hole: BlackHole,
    tmp_path: Path,
) -> None:
    async with open_service(postgres_service_database, provider_url=provider.url) as service:
        person = await service.person()
        await person.pay((await person.order())["id"])
        async with service.app.state.database.transaction() as session:
            # That API has no collector, so it samples nothing: let the worker decide for itself.
            await session.execute(update(OutboxMessage).values(headers={}))
    with running(
        "worker",
        tmp_path,
        DATABASE_URL=postgres_service_database,
        REDIS_URL=redis_database,
        PAYMENT_PROVIDER_URL=provider.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{black_hole.address}",
        OTEL_TRACES_SAMPLER_ARG="1",
        SENTRY_DSN=f"http://public@{black_hole.address}/1",
        DRAIN_SECONDS="1",
    ) as worker:
        # Their spans have nowhere to go.
        wait_until(lambda: worker.text().count('"Job finished"') == 2, "the order is handled")
        wait_until(lambda: black_hole.was_asked("/v1/traces"), "spans are on their way")
        asked = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: worker.readiness() == (503, "draining"), "readiness says draining")
        await asyncio.to_thread(worker.assert_ended_in_order)
        assert time.monotonic() - asked < END_WITHIN_SECONDS


def test_the_worker_ends_in_order_while_redis_hangs(
    postgres_service_database: str, private_redis: RedisServer, tmp_path: Path
) -> None:
    with running(
        "worker",
        tmp_path,
        DATABASE_URL=postgres_service_database,
        REDIS_URL=private_redis.url,
        PAYMENT_PROVIDER_URL="http://127.0.0.1:9",
    ) as worker:
        private_redis.freeze()
        try:
            asked = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)
            worker.assert_ended_in_order()
            assert time.monotonic() - asked < END_WITHIN_SECONDS
        finally:
            private_redis.thaw()
