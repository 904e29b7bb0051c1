"""The service's processes for the canary test: forked from one that has imported everything."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.tools import free_port, wait_until

ROOT = Path(__file__).resolve().parents[3]


class Nursery:
    """Starts processes and ends them; whatever is left of them ends with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")  # no setting of whoever runs the test
        inherited = {name: os.environ[name] for name in kept if name in os.environ}
        self._preloaded = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.canary.preloaded"],
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

    def run(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Run a command to its end; return its exit code and what it said."""
        log = self.directory / f"{name}.log"
        pid = self.order(start=list(arguments), environment=dict(environment), log=str(log))
        return self.order(end=pid, signal=0), log.read_bytes()

    def close(self) -> None:
        """Kill whatever is alive."""
        self._preloaded.communicate(timeout=30)


@contextmanager
def open_nursery(directory: Path) -> Iterator[Nursery]:
    """Yield a nursery in `directory`, for the time of the block."""
    nursery = Nursery(directory)
    try:
        yield nursery
    finally:
        nursery.close()


class Process:
    """One long-running process."""

    def __init__(
        self,
        nursery: Nursery,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.port = free_port()
        self._nursery = nursery
        self._log = nursery.directory / f"{name}.log"
        ports = {one: str(self.port) for one in ("PORT", "WORKER_METRICS_PORT", "PROVIDER_PORT")}
        self._pid = nursery.order(
            start=list(arguments), environment={**environment, **ports}, log=str(self._log)
        )

    def until_it_answers(self) -> None:
        """Wait until it accepts connections."""
        wait_until(self._accepts, f"{self.name} accepts connections", 60)

    def end(self) -> int:
        """End it in order; return its exit status."""
        return self._nursery.order(end=self._pid, signal=signal.SIGTERM)

    def log(self) -> bytes:
        """Return what it wrote to standard output and standard error."""
        return self._log.read_bytes() if self._log.exists() else b""

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
