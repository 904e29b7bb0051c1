"""Prometheus: what it scrapes, which rules it evaluates, and what it knows."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from deploy.stack.backends.errors import WrongAnswer
from deploy.stack.backends.http import Backend


@dataclass(frozen=True)
class Target:
    """One address that is scraped."""

    job: str
    instance: str
    health: str
    error: str


@dataclass(frozen=True)
class Rule:
    """One rule, recording or alerting.

    Attributes:
        health: `unknown` until it is evaluated for the first time.
        error: Empty where its last evaluation went well.
        interval: Seconds between two evaluations of its group.
    """

    name: str
    kind: str
    health: str
    error: str
    state: str
    interval: float


@dataclass(frozen=True)
class Sample:
    """The value of one series."""

    labels: dict[str, str]
    value: float


class Prometheus(Backend):
    """The API at PROMETHEUS_URL."""

    variable: ClassVar = "PROMETHEUS_URL"
    name: ClassVar = "Prometheus"
    service: ClassVar = "prometheus"
    health_path: ClassVar = "/-/ready"

    def api(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer. Raises BackendError, with Prometheus' own words."""
        document = self.get(f"/api/v1/{path}", **parameters)
        if not isinstance(document, dict) or document.get("status") != "success":
            raise WrongAnswer(f"/api/v1/{path} at {self.url} is no answer of Prometheus.", 200)
        return document["data"]

    def query(self, expression: str) -> list[Sample]:
        """Return what an instant query finds now."""
        found = self.api("query", query=expression)["result"]
        return [Sample(one["metric"], float(one["value"][1])) for one in found]

    def number(self, expression: str) -> float | None:
        """Return the first value that a query finds."""
        found = self.query(expression)
        return found[0].value if found else None

    def targets(self) -> list[Target]:
        """Return what is scraped."""
        found = self.api("targets", state="active")["activeTargets"]
        return [
            Target(
                one["labels"].get("job", ""),
                one["labels"].get("instance", ""),
                one["health"],
                one.get("lastError", ""),
            )
            for one in found
        ]

    def rules(self) -> list[Rule]:
        """Return every rule of every group."""
        return read_rules(self.api("rules"))

    def configured_at(self) -> float:
        """Return when it last read its configuration and rules, in seconds since 1970."""
        return datetime.fromisoformat(self.api("status/runtimeinfo")["lastConfigTime"]).timestamp()

    def flags(self) -> dict[str, str]:
        """Return the flags that it was started with."""
        flags: dict[str, str] = self.api("status/flags")
        return flags

    def alertmanagers(self) -> list[str]:
        """Return the addresses of those that it tells."""
        return [str(one["url"]) for one in self.api("alertmanagers")["activeAlertmanagers"]]

    def exemplars(self, expression: str, minutes: float = 15) -> list[str]:
        """Return the trace ids of the exemplars of a metric's series, newest first."""
        now = time.time()
        found = self.api("query_exemplars", query=expression, start=now - minutes * 60, end=now)
        dated = [
            (float(exemplar["timestamp"]), exemplar["labels"].get("trace_id", ""))
            for series in found
            for exemplar in series["exemplars"]
        ]
        return list(dict.fromkeys(trace_id for _, trace_id in sorted(dated, reverse=True)))

    def label_values(self) -> list[str]:
        """Return every value of every label."""
        return [
            value for label in self.api("labels") for value in self.api(f"label/{label}/values")
        ]


def read_rules(data: Any) -> list[Rule]:
    """Return the rules of an answer of Prometheus, or of Loki, which answers in the same form."""
    return [
        Rule(
            name=rule["name"],
            kind=rule["type"],
            health=rule.get("health", "unknown"),
            error=rule.get("lastError", ""),
            state=rule.get("state", ""),
            interval=float(group.get("interval") or 0),
        )
        for group in data["groups"]
        for rule in group["rules"]
    ]
