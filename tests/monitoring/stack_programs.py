"""Debian's Prometheus, Alertmanager and exporters as servers of the tests, and our sandbox's programs."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx2

from tests.tools import Server, require_tool

ROOT = Path(__file__).parents[2]


class Place(NamedTuple):
    """Where programs live: `owner` is the process whose end ends them, `directory` holds theirs."""

    owner: int
    directory: Path


class Program(Server):
    """A program that answers 200 on a path as soon as it serves.

    Args:
        name: Of the server, and of its directory.
        place: Where it lives.
        tool: The program; the test is skipped, or fails, where it is not installed.
        arguments: Of the program; `{port}` and `{directory}` are filled in, here and in `environment`.
        ready: The path that answers 200.
        environment: Variables beside those that the tests run with.
    """

    def __init__(
        self,
        *,
        name: str,
        place: Place,
        tool: str,
        arguments: tuple[str, ...],
        ready: str = "/metrics",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name=name, owner=place.owner, directory=place.directory)
        self._tool = require_tool(tool)
        self._arguments = arguments
        self._ready = ready
        self._variables = dict(environment or {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self, directory: Path) -> tuple[list[str], str]:
        # Through env(1), which becomes the program: the guard hands on its own environment only.
        variables = [f"{name}={value}" for name, value in self._variables.items()]
        command = ["env", *variables, str(self._tool), *self._arguments]
        return [part.format(port=self.port, directory=directory) for part in command], "-"

    def reload(self) -> None:
        """Let Prometheus or Alertmanager read its configuration again."""
        response = httpx2.post(f"{self.url}/-/reload", timeout=15)
        assert response.status_code == 200, response.text

    def is_ready(self) -> bool:
        try:
            return httpx2.get(self.url + self._ready, timeout=2).status_code == 200
        except httpx2.TransportError:
            return False


class SandboxProgram(Program):
    """A program of ours, `python -m MODULE`, that finds its port in a variable."""

    def __init__(
        self,
        *,
        name: str,
        place: Place,
        module: str,
        port_variable: str,
        ready: str = "/metrics",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            name=name,
            place=place,
            tool=sys.executable,
            arguments=("-m", module),
            ready=ready,
            environment={"PYTHONPATH": str(ROOT), **(environment or {})},
        )
        self._variables[port_variable] = str(self.port)


def is_prometheus_2() -> bool:
    """Whether the Prometheus of this machine is Debian's, which does not know all that 3 knows."""
    said = subprocess.run(
        [str(require_tool("prometheus")), "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    return re.search(r"version 2\.", said.stdout + said.stderr) is not None


def prometheus(place: Place, *, configuration: Path, environment: Mapping[str, str]) -> Program:
    """Return Prometheus, with what its 3.x has from its configuration as flags where it is 2.42."""
    flags: tuple[str, ...] = ("--enable-feature=exemplar-storage",)
    if is_prometheus_2():
        flags = (
            "--enable-feature=exemplar-storage,extra-scrape-metrics,expand-external-labels",
            "--storage.tsdb.retention.time=1d",
        )
    return Program(
        name="prometheus",
        place=place,
        tool="prometheus",
        arguments=(
            f"--config.file={configuration}",
            "--storage.tsdb.path={directory}/data",
            "--web.listen-address=127.0.0.1:{port}",
            "--web.enable-lifecycle",
            # A minute in production; what has begun to fire is told again after as long.
            "--rules.alert.resend-delay=1s",
            "--log.level=warn",
            *flags,
        ),
        ready="/-/ready",
        environment=environment,
    )


def alertmanager(place: Place, *, configuration: Path) -> Program:
    """Return a single Alertmanager."""
    return Program(
        name="alertmanager",
        place=place,
        tool="prometheus-alertmanager",
        arguments=(
            f"--config.file={configuration}",
            "--storage.path={directory}/data",
            "--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--log.level=info",
        ),
        ready="/-/ready",
    )


def blackbox_exporter(place: Place, *, configuration: Path, authority: Path) -> Program:
    """Return the blackbox exporter, which trusts certificates of this authority (and no other).

    It keeps a tenth of a second for itself of a scrape's time, which is one second here, and not a half.
    """
    return Program(
        name="blackbox-exporter",
        place=place,
        tool="prometheus-blackbox-exporter",
        arguments=(
            f"--config.file={configuration}",
            "--web.listen-address=127.0.0.1:{port}",
            "--timeout-offset=0.1",
        ),
        environment={"SSL_CERT_FILE": str(authority)},
    )


def node_exporter(place: Place, *, textfiles: Path) -> Program:
    """Return the node exporter, which also reads what commands leave in `textfiles`."""
    return Program(
        name="node-exporter",
        place=place,
        tool="prometheus-node-exporter",
        arguments=(
            "--web.listen-address=127.0.0.1:{port}",
            f"--collector.textfile.directory={textfiles}",
        ),
    )


def postgres_exporter(place: Place, *, database_url: str) -> Program:
    """Return the exporter for a PostgreSQL that trusts loopback."""
    return Program(
        name="postgres-exporter",
        place=place,
        tool="prometheus-postgres-exporter",
        arguments=("--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
        environment={"DATA_SOURCE_NAME": database_url},
    )


def redis_exporter(place: Place, *, redis_url: str) -> Program:
    """Return the exporter for a Redis."""
    return Program(
        name="redis-exporter",
        place=place,
        tool="prometheus-redis-exporter",
        arguments=("-web.listen-address=127.0.0.1:{port}", f"-redis.addr={redis_url}"),
    )
