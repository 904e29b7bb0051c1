"""The page of notifications (python -m sandbox.notifications): everything that Alertmanager told anybody."""

from typing import Any, ClassVar

from deploy.stack.backends.http import Backend


class Notifications(Backend):
    """The API at NOTIFICATIONS_URL."""

    variable: ClassVar = "NOTIFICATIONS_URL"
    name: ClassVar = "the page of notifications"
    service: ClassVar = "notifications"
    health_path: ClassVar = "/health"

    def newest_of(self, receiver: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest notifications of a receiver, newest first."""
        found: list[dict[str, Any]] = self.get("/v1/notifications", receiver=receiver, limit=limit)[
            "notifications"
        ]
        return found

    def about(self, receiver: str, **labels: str) -> list[dict[str, Any]]:
        """Return the webhooks to a receiver of which one alert has these labels."""
        return [
            one
            for one in self.newest_of(receiver)
            if any(
                labels.items() <= alert.get("labels", {}).items()
                for alert in one["payload"].get("alerts", ())
            )
        ]
