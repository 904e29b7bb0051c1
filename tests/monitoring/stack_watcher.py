"""What a test asks of Prometheus and Alertmanager, and how it waits for what they will say."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import httpx2
import pytest

from tests.monitoring.stack_programs import Program

Sample = tuple[dict[str, str], float]
State = Literal["pending", "firing", "inactive"]

WAIT_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 15.0
NO_LABELS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Target:
    """A target of Prometheus'; `health` is up, down or unknown."""

    job: str
    instance: str
    labels: dict[str, str]
    health: str
    error: str
    url: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that is pending or firing, as Prometheus sees it."""

    name: str
    state: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Watcher:
    """Asks a running Prometheus, its Alertmanager, and the page to which that sends notifications."""

    prometheus: Program
    alertmanager: Program
    page: Program

    def query(self, promql: str) -> list[Sample]:
        """Return the samples of an instant query."""
        found = self._ask("/api/v1/query", query=promql)
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def exemplars(self, selector: str) -> list[dict[str, str]]:
        """Return the labels of the exemplars that were stored in the last hour."""
        end = time.time()
        found = self._ask(
            "/api/v1/query_exemplars", query=selector, start=str(end - 3600), end=str(end + 60)
        )
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    def targets(self) -> list[Target]:
        """Return all targets, also those that were not scraped yet."""
        return [
            Target(
                job=one["labels"]["job"],
                instance=one["labels"]["instance"],
                labels=one["labels"],
                health=one["health"],
                error=one["lastError"],
                url=one["scrapeUrl"],
            )
            for one in self._ask("/api/v1/targets", state="active")["activeTargets"]
        ]

    def alerts(self) -> list[Alert]:
        """Return the alerts that are pending or firing."""
        return [
            Alert(
                name=one["labels"]["alertname"],
                state=one["state"],
                labels=one["labels"],
                annotations=one["annotations"],
            )
            for one in self._ask("/api/v1/alerts")["alerts"]
        ]

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules as Prometheus' API tells them, each with the name of its `group`."""
        groups = self._ask("/api/v1/rules")["groups"]
        return [rule | {"group": group["name"]} for group in groups for rule in group["rules"]]

    def rule_errors(self) -> list[str]:
        """Return a sentence for each rule that could not be evaluated, lately or ever since the start."""
        now = [
            f"{rule['group']}, {rule['name']}: {rule['health']} {rule.get('lastError', '')}"
            for rule in self.rules()
            if rule["health"] not in {"ok", "unknown"}
        ]
        ever = [
            f"{labels['rule_group']}: {count:g} evaluations failed"
            for labels, count in self.query("prometheus_rule_evaluation_failures_total > 0")
        ]
        return now + ever

    def inhibited(self) -> dict[str, list[str]]:
        """Return the names of the alerts that Alertmanager holds back, each with what holds it back."""
        alerts = self._get(
            f"{self.alertmanager.url}/api/v2/alerts", active="true", inhibited="true"
        )
        names = {alert["fingerprint"]: alert["labels"]["alertname"] for alert in alerts}
        return {
            alert["labels"]["alertname"]: [
                names.get(source, "?") for source in alert["status"]["inhibitedBy"]
            ]
            for alert in alerts
            if alert["status"]["inhibitedBy"]
        }

    def notifications(
        self,
        *,
        alert: str | None = None,
        status: Literal["firing", "resolved"] | None = None,
        channel: Literal["webhook", "slack", "pagerduty"] | None = "webhook",
        receiver: str | None = None,
        after: int = 0,
    ) -> list[dict[str, Any]]:
        """Return what was sent, newest first, as the page's GET /v1/notifications describes it.

        Args:
            alert: Only those that tell of this alert.
            status: Only these; a message of several alerts is firing as long as one of them is.
            channel: Only these; all of them if None.
            receiver: Only those of this receiver of Alertmanager's.
            after: Only those with an `id` above.
        """
        asked = {"channel": channel, "receiver": receiver, "after": str(after), "limit": "500"}
        found = self._get(
            f"{self.page.url}/v1/notifications", **{k: v for k, v in asked.items() if v is not None}
        )["notifications"]
        return [
            one
            for one in found
            if (alert is None or alert in one["alerts"]) and status in {None, one["status"]}
        ]

    def wait_for_notification(
        self,
        alert: str,
        status: Literal["firing", "resolved"] = "firing",
        *,
        channel: Literal["webhook", "slack", "pagerduty"] | None = "webhook",
        receiver: str | None = None,
        after: int = 0,
        seconds: float = WAIT_SECONDS,
    ) -> dict[str, Any]:
        """Wait for a notification of an alert, and return the newest."""

        def found() -> list[dict[str, Any]]:
            return self.notifications(
                alert=alert, status=status, channel=channel, receiver=receiver, after=after
            )

        self.wait_for(lambda: bool(found()), f"a notification: {alert} {status}", seconds)
        return found()[0]

    def wait_for_alert(
        self,
        name: str,
        state: State = "firing",
        labels: Mapping[str, str] = NO_LABELS,
        *,
        seconds: float = WAIT_SECONDS,
    ) -> Alert | None:
        """Wait for an alert to be in a state, and return it; nothing is returned when it is inactive.

        Args:
            name: Of the alert.
            state: What is waited for: `inactive` is neither pending nor firing.
            labels: Which it must have, beside others.
            seconds: How long.
        """

        def found() -> list[Alert]:
            return [
                alert
                for alert in self.alerts()
                if alert.name == name
                and alert.labels.items() >= labels.items()
                and state in {alert.state, "inactive"}
            ]

        if state == "inactive":
            self.wait_for(lambda: not found(), f"{name} {dict(labels)} is not active", seconds)
            return None
        self.wait_for(lambda: bool(found()), f"{name} {dict(labels)} is {state}", seconds)
        return next(iter(found()), None)

    def wait_for_query(
        self,
        promql: str,
        holds: Callable[[list[Sample]], bool] = bool,
        *,
        seconds: float = WAIT_SECONDS,
    ) -> list[Sample]:
        """Wait until the samples of a query are as `holds` wants them: any at all, by default."""
        samples: list[Sample] = []

        def found() -> bool:
            samples[:] = self.query(promql)
            return holds(samples)

        self.wait_for(found, f"{promql} has what is expected", seconds)
        return samples

    def wait_for(
        self, condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS
    ) -> None:
        """Wait for a condition; fail with what was waited for and what is firing instead."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                active = sorted(f"{alert.name} ({alert.state})" for alert in self.alerts())
                pytest.fail(f"not within {seconds:.0f} s: {what}; active: {active}", pytrace=False)
            time.sleep(POLL_SECONDS)

    def _ask(self, path: str, **parameters: str) -> Any:
        return self._get(self.prometheus.url + path, **parameters)["data"]

    def _get(self, url: str, **parameters: str) -> Any:
        response = httpx2.get(url, params=parameters, timeout=PATIENCE_SECONDS)
        assert response.status_code == 200, f"{url} {parameters}: {response.text}"
        return response.json()
