"""The service's processes for the canary test: forked from one that has imported everything."""

import signal
from collections.abc import Mapping, Sequence

from tests.nursery import Nursery, accepts
from tests.tools import free_port, wait_until

PROGRAM = "tests.contract.canary.preloaded"


def run_to_end(
    nursery: Nursery, name: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[int, bytes]:
    """Run a command to its end; return its exit code and what it said."""
    log = nursery.directory / f"{name}.log"
    pid = nursery.order(start=list(arguments), environment=dict(environment), log=str(log))
    return nursery.order(end=pid, signal=0), log.read_bytes()


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
        wait_until(lambda: accepts(self.port), f"{self.name} accepts connections", 60)

    def end(self) -> int:
        """End it in order; return its exit status."""
        return self._nursery.order(end=self._pid, signal=signal.SIGTERM)

    def log(self) -> bytes:
        """Return what it wrote to standard output and standard error."""
        return self._log.read_bytes() if self._log.exists() else b""
