"""The payment provider for tests: in this process, or as the process that a person would start.

`open_provider` is quick and shares the metrics and the log sinks of the test. `start_provider` runs the
real program with its ledger below `tmp_path`: for tests that kill it, stop it, or need its port.
Both answer without delay unless the test asks for one.
"""

import os
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import pytest

from app.observability.tracing import Tracing
from sandbox.payment_provider import ProviderSettings, create_provider
from tests.tools import free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent
GUARD = Path(__file__).with_name("guard.py")
STOP_SECONDS = 10.0


@asynccontextmanager
async def open_provider(
    database: Path,
    *,
    rng: random.Random | None = None,
    tracing: Tracing | None = None,
    **behaviour: float,
) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the provider in this process; yield a client of it."""
    settings = ProviderSettings(provider_database=database)
    initial = {f"provider_{name}": value for name, value in {"latency_ms": 0, **behaviour}.items()}
    app = create_provider(settings.model_copy(update=initial), rng=rng, tracing=tracing)
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://provider") as client,
    ):
        yield client


class RunningProvider:
    """The provider as a process of its own; a context manager that ends it.

    The process also ends with this one, however this one ends (see guard.py).
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = directory / "payment_provider.db"
        self._directory = directory
        self._environment = environment
        self._guard: subprocess.Popen[bytes] | None = None
        self._output = directory

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self._output = self._directory / f"provider-{secrets.token_hex(4)}"
        self._output.mkdir(parents=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PROVIDER_PORT": str(self.port),
            "PROVIDER_DATABASE": str(self.database),
            **self._environment,
        }
        program = [sys.executable, "-m", "sandbox.payment_provider"]
        self._guard = subprocess.Popen(
            [sys.executable, str(GUARD), str(os.getpid()), str(self._output), "-", *program],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: self._ended() or self._answers(), "the payment provider answers")
        if self._ended():
            pytest.fail(f"the payment provider did not start:\n{self.log()}", pytrace=False)

    def stop(self) -> None:
        """End the process in order (SIGINT)."""
        if self._guard is not None:
            self._guard.terminate()
            self._guard.wait(STOP_SECONDS + 5)
            self._guard = None

    def kill(self) -> None:
        """End the process as `kill -9` or a power cut does."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def restart(self) -> None:
        """Start the process again, on the same port, with the same ledger and the first behaviour."""
        self.stop()
        self.start()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        os.kill(int((self._output / "pid").read_text()), number)

    def wait(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until the process has ended by itself, or by a signal of the test."""
        if self._guard is not None:
            self._guard.wait(seconds)
            self._guard = None

    def behave(self, **behaviour: float) -> None:
        """Change the behaviour; what is left out is back to what the provider started with."""
        httpx2.put(f"{self.url}/v1/behaviour", json=behaviour).raise_for_status()

    def ledger(self) -> list[dict[str, Any]]:
        """Return the lines of the ledger, oldest first."""
        entries: list[dict[str, Any]] = (
            httpx2.get(f"{self.url}/v1/ledger").raise_for_status().json()["entries"]
        )
        return entries

    def log(self) -> str:
        """Return what the process wrote since its start; empty after `stop`."""
        log = self._output / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _ended(self) -> bool:
        return self._guard is None or self._guard.poll() is not None

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health", timeout=1).status_code == 200
        except httpx2.TransportError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start_provider(
    tmp_path: Path, *, environment: Mapping[str, str] | None = None, **behaviour: float
) -> RunningProvider:
    """Start the provider process; use the result as a context manager, or call its `stop`.

    Args:
        tmp_path: Where its ledger is.
        environment: Variables beside PROVIDER_PORT and PROVIDER_DATABASE, such as an exporter's address.
        behaviour: Members of the behaviour at the start, such as `failure_rate=0.1`.
    """
    initial = {
        f"PROVIDER_{name.upper()}": str(value)
        for name, value in {"latency_ms": 0, **behaviour}.items()
    }
    provider = RunningProvider(tmp_path, {**initial, **(environment or {})})
    provider.start()
    return provider
