"""Processes that can be killed at any moment and are back in a fraction of a second (see preloaded.py)."""

from collections.abc import Mapping

from tests.nursery import Nursery, accepts
from tests.tools import free_port, wait_until

PROGRAM = "tests.integration.crash.preloaded"


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
        wait_until(lambda: accepts(self.port), f"{self.name} accepts connections\n{self.log()}")

    def kill(self) -> None:
        """End the process as `kill -9` does; that it was still alive is asserted."""
        status = self._nursery.order(kill=self._pid)
        assert status == 0, f"{self.name} ended by itself with {status}:\n{self.log()}"
        self.deaths += 1

    def log(self) -> str:
        """Return the end of what its lives wrote."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""
