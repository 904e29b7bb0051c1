"""Processes that can be killed at any moment and are back in a fraction of a second (see preloaded.py)."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.tools import free_port, wait_until

ROOT = Path(__file__).resolve().parents[3]


class Nursery:
    """Starts and kills processes; whatever is left of them ends with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SENTRY_"))}
        self._preloaded = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.crash.preloaded"],
            cwd=directory,
            env=inherited | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches pytest first; this one ends with its input
        )

    def order(self, **order: object) -> int:
        """Hand over an order, return the answer."""
        assert self._preloaded.stdin is not None
        assert self._preloaded.stdout is not None
        with self._lock:
            self._preloaded.stdin.write(json.dumps(order).encode() + b"\n")
            self._preloaded.stdin.flush()
            return int(self._preloaded.stdout.readline())

    def close(self) -> None:
        """Kill whatever is alive."""
        self._preloaded.communicate(timeout=20)


class Mortal:
    """One process: its port stays the same from life to life."""

    def __init__(
        self, nursery: Nursery, name: str, program: str, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.deaths = 0
        self._nursery = nursery
        self._program = program
        self._pid = 0
        self._log = nursery.directory / f"{name}.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        port = {name: str(self.port) for name in ("PORT", "WORKER_METRICS_PORT", "PROVIDER_PORT")}
        self._environment = {**environment, **port}

    def start(self) -> None:
        """Start the process and wait until it accepts connections."""
        self._pid = self._nursery.order(
            start=self._program, environment=self._environment, log=str(self._log)
        )
        wait_until(self._accepts, f"{self.name} accepts connections\n{self.log()}")

    def kill(self) -> None:
        """End the process as `kill -9` does; that it was still alive is asserted."""
        status = self._nursery.order(kill=self._pid)
        assert status == 0, f"{self.name} ended by itself with {status}:\n{self.log()}"
        self.deaths += 1

    def log(self) -> str:
        """Return the end of what its lives wrote."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def open_nursery(directory: Path) -> Iterator[Nursery]:
    """Yield a nursery in `directory`, for the time of the block."""
    nursery = Nursery(directory)
    try:
        yield nursery
    finally:
        nursery.close()
