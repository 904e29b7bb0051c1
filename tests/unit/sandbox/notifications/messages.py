"""What the receiver of notifications is fed in tests, and who feeds it."""

import json
from pathlib import Path
from typing import Any

import httpx2

from sandbox.notifications.store import NotificationStore

KEY = "0" * 32


def webhook(**fields: Any) -> dict[str, Any]:
    """A webhook as Alertmanager sends it, with one firing alert."""
    alert = {
        "status": "firing",
        "labels": {"alertname": "ErrorsHigh", "severity": "critical"},
        "annotations": {
            "summary": "Requests fail",
            "description": "7 % fail",
            "runbook_url": "http://localhost:8003/runbooks/ErrorsHigh",
        },
        "startsAt": "2026-11-21T10:00:00.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": "f",
    }
    return {
        "version": "4",
        "groupKey": "{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "critical",
        "groupLabels": {},
        "commonLabels": {"severity": "critical"},
        "commonAnnotations": {},
        "externalURL": "http://localhost:9093",
        "alerts": [alert],
    } | fields


def slack(text: str = "*Requests fail*", **fields: Any) -> dict[str, Any]:
    """A message as Alertmanager sends it to Slack."""
    attachment = {
        "title": "[CRITICAL] Requests fail",
        "title_link": "http://localhost:9093/",
        "text": text,
        "fallback": "",
        "footer": "Alertmanager, receiver critical",
        "color": "danger",
        "mrkdwn_in": ["text"],
    }
    return {"username": "Alertmanager", "attachments": [attachment | fields]}


def pagerduty(**fields: Any) -> dict[str, Any]:
    """An event as Alertmanager sends it to PagerDuty."""
    return {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": "d" * 64,
        "client": "Alertmanager",
        "client_url": "http://localhost:9093",
        "links": [{"href": "http://localhost:3000/d/x", "text": "Dashboard"}],
        "payload": {
            "summary": "[CRITICAL] Requests fail",
            "source": "Glasshouse Alertmanager",
            "severity": "critical",
            "custom_details": {"firing": "Requests fail\n7 % fail", "receiver": "critical"},
        },
    } | fields


class Client:
    """Speaks to the receiver."""

    def __init__(self, http: httpx2.AsyncClient, store: NotificationStore, runbooks: Path) -> None:
        self.http = http
        self.store = store
        self.runbooks = runbooks

    async def send(self, path: str, message: Any) -> httpx2.Response:
        """Send a message as JSON, whatever it is."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await self.http.post(
            path, content=body, headers={"Content-Type": "application/json"}
        )

    async def list(self, **filters: str | int) -> list[dict[str, Any]]:
        """Return the notifications, newest first."""
        answer = await self.http.get("/v1/notifications", params=filters)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["notifications"]
        return found

    async def page(self, path: str = "/") -> str:
        """Return a page."""
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text
