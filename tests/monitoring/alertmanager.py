"""Alertmanager with everything around it, for tests: the program, the receiver of notifications, a mailbox.

All on loopback ports, with monitoring/alertmanager/alertmanager.yml rendered for a profile. `told` waits for
what the receiver got; e-mail arrives in mailbox.py.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import yaml

from monitoring.build.alertmanager import for_hosts, load_alertmanager, scaled
from monitoring.build.profile import DEMO, Profile
from tests.monitoring.mailbox import Mailbox
from tests.tools import Server, require_tool, wait_until

ROOT = Path(__file__).parents[2]


def amtool_programs() -> list[Path]:
    """Return Debian's amtool and the one that AMTOOL names, if it names one."""
    named = os.environ.get("AMTOOL")
    return [require_tool("amtool"), *([Path(named)] if named else [])]


def run_amtool(program: Path, *arguments: str) -> str:
    """Return what amtool said; raise with it if it failed."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(*, notifications_port: int, smtp_port: int, profile: Profile = DEMO) -> dict[str, Any]:
    """Return the configuration for programs on loopback ports."""
    hosts = {
        "notifications:8003": f"127.0.0.1:{notifications_port}",
        "mailpit:1025": f"127.0.0.1:{smtp_port}",
    }
    return for_hosts(scaled(load_alertmanager(), profile), hosts)


class AlertmanagerServer(Server):
    """Alertmanager: Debian's, or the program that ALERTMANAGER names."""

    def __init__(self, config: Mapping[str, Any], directory: Path) -> None:
        super().__init__(name="alertmanager", owner=os.getpid(), directory=directory)
        self._config = config
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self, directory: Path) -> tuple[list[str], str]:
        file = directory / "alertmanager.yml"
        file.write_text(yaml.safe_dump(self._config))
        program = os.environ.get("ALERTMANAGER") or str(require_tool("prometheus-alertmanager"))
        return [
            program,
            f"--config.file={file}",
            f"--storage.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--web.external-url={self.url}",
            "--cluster.listen-address=",
        ], "-"

    def is_ready(self) -> bool:
        return answers(f"{self.url}/-/ready")

    def post(self, *alerts: Mapping[str, Any]) -> None:
        """Tell of alerts, as Prometheus does."""
        httpx2.post(f"{self.url}/api/v2/alerts", json=list(alerts)).raise_for_status()

    def alerts(self) -> list[dict[str, Any]]:
        """Return all alerts with their state."""
        found: list[dict[str, Any]] = (
            httpx2.get(f"{self.url}/api/v2/alerts").raise_for_status().json()
        )
        return found

    def log(self) -> str:
        """Return what it wrote."""
        return self._log()


class NotificationsServer(Server):
    """`python -m sandbox.notifications`."""

    def __init__(self, directory: Path, *, runbooks: Path = ROOT / "docs" / "runbooks") -> None:
        super().__init__(name="notifications", owner=os.getpid(), directory=directory)
        self._database = directory / "notifications.db"  # survives a restart
        self._runbooks = runbooks
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self, directory: Path) -> tuple[list[str], str]:
        environment = {
            "PYTHONPATH": ROOT,
            "NOTIFICATIONS_PORT": self.port,
            "NOTIFICATIONS_DATABASE": self._database,
            "NOTIFICATIONS_RUNBOOKS": self._runbooks,
        }
        variables = [f"{name}={value}" for name, value in environment.items()]
        return ["/usr/bin/env", *variables, sys.executable, "-m", "sandbox.notifications"], "-"

    def is_ready(self) -> bool:
        return answers(f"{self.url}/health")

    def list(self, **filters: str | int) -> list[dict[str, Any]]:
        """Return the notifications, newest first."""
        answer = httpx2.get(f"{self.url}/v1/notifications", params=filters).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["notifications"]
        return found

    def wait_for(
        self, condition: Callable[[dict[str, Any]], bool], what: str, **filters: str | int
    ) -> dict[str, Any]:
        """Wait for a notification and return it."""
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            found[:] = [one for one in self.list(**filters) if condition(one)]
            return bool(found)

        wait_until(arrived, what, seconds=60)
        return found[0]


def answers(url: str) -> bool:
    """Whether something answers 200 there."""
    try:
        return httpx2.get(url, timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


@dataclass(frozen=True, slots=True)
class House:
    """Alertmanager and who is told by it."""

    alertmanager: AlertmanagerServer
    notifications: NotificationsServer
    mailbox: Mailbox


@contextmanager
def open_house(
    directory: Path, change: Callable[[dict[str, Any]], None] = lambda _: None
) -> Iterator[House]:
    """Run all three for the time of the block; `change` edits the rendered configuration."""
    require_tool("prometheus-alertmanager")
    notifications = NotificationsServer(directory)
    with Mailbox().running() as mailbox:
        config = rendered(notifications_port=notifications.port, smtp_port=mailbox.port)
        change(config)
        alertmanager = AlertmanagerServer(config, directory)
        notifications.start()
        try:
            alertmanager.start()
            try:
                yield House(alertmanager, notifications, mailbox)
            finally:
                alertmanager.stop()
        finally:
            notifications.stop()


def make_alert(
    name: str,
    labels: Mapping[str, str] | None = None,
    *,
    since: timedelta = timedelta(minutes=10),
    ended: bool = False,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return an alert as Prometheus tells of it; labels of the contract have defaults, "" takes one away."""
    now = datetime.now(UTC)
    defaults = {
        "severity": "warning",
        "service": "glasshouse",
        "environment": "test",
        "team": "shop",
        "component": "api",
    }
    alert: dict[str, Any] = {
        "labels": {
            label: value
            for label, value in ({"alertname": name} | defaults | dict(labels or {})).items()
            if value
        },
        "annotations": {"summary": f"{name} happened"} | dict(annotations or {}),
        "startsAt": (now - since).isoformat(),
        "generatorURL": "http://prometheus:9090/graph",
    }
    if ended:
        alert["endsAt"] = now.isoformat()
    return alert


def new_environment() -> str:
    """Return an environment of a test's own: no rule of Alertmanager's reaches beyond one."""
    return f"test-{secrets.token_hex(4)}"
