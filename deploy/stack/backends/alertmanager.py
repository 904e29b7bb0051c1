"""Alertmanager: what it has been told, and something to tell it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from deploy.stack.backends.http import Backend


class Alertmanager(Backend):
    """The API at ALERTMANAGER_URL."""

    variable: ClassVar = "ALERTMANAGER_URL"
    name: ClassVar = "Alertmanager"
    service: ClassVar = "alertmanager"
    health_path: ClassVar = "/-/ready"

    def configuration(self) -> str:
        """Return the configuration that it runs with; it shows no secret."""
        return str(self.get("/api/v2/status")["config"]["original"])

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """Return the alerts with these labels."""
        matchers = [f'{name}="{value}"' for name, value in labels.items()]
        found: list[dict[str, Any]] = self.get("/api/v2/alerts", filter=matchers)
        return found

    def receivers_of(self, **labels: str) -> list[str]:
        """Return the names of those who are told of the alerts with these labels."""
        return sorted(
            {one["name"] for alert in self.alerts(**labels) for one in alert["receivers"]}
        )

    def tell(
        self, labels: Mapping[str, str], annotations: Mapping[str, str], *, seconds: float
    ) -> None:
        """Raise an alert that is over by itself after some seconds."""
        now = datetime.now(UTC)
        alert = {
            "labels": dict(labels),
            "annotations": dict(annotations),
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(seconds=seconds)).isoformat(),
        }
        self.send("POST", "/api/v2/alerts", json=[alert])
