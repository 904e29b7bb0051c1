"""What a rule is here: a recording rule, or an alert together with the proof that it fires and when not.

An alert is declared once, with its cases; the build adds what all alerts have (team, links), renders it
for a profile, and turns the cases into a test for promtool. The lint is tests/monitoring/test_rules.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote_plus

from app.observability.service_levels.objectives import Cause

Severity = Literal["critical", "warning", "info", "none"]
Component = Literal[
    "api",
    "slo",
    "business",
    "database",
    "queue",
    "cache",
    "dependency",
    "security",
    "infrastructure",
    "certificate",
    "backup",
    "telemetry",
    "synthetic",
    "watchdog",
]
Dashboard = Literal[
    "overview",
    "api",
    "database",
    "business",
    "infrastructure",
    "worker",
    "slo",
    "security",
    "web-vitals",
    "capacity",
    "telemetry-cost",
    "delivery",
]

_LABEL: Final = re.compile(r"\{\{ *\$(labels|externalLabels)\.(\w+) *(\| *urlquery *)?\}\}")
_VALUE: Final = re.compile(r"\{\{ *\$value\b[^}]*\}\}")


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule. `meaning` is for people, with the unit: it goes into docs/alerts.md."""

    name: str
    expr: str
    meaning: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fires:
    """Proof: with these series the alert fires at a time, with these labels of its series.

    `series` maps a selector such as `up{job="api"}` to values in promtool's notation (`1x10 0x20`).
    `value` is how `{{ $value | ... }}` of the description then reads, which proves its unit.
    `interval` is the time between the values.
    """

    series: Mapping[str, str]
    at: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""
    interval: str = "1m"


@dataclass(frozen=True, slots=True)
class Silent:
    """Proof: with these series the alert does not fire at a time; `why` says what is being told apart."""

    why: str
    series: Mapping[str, str]
    at: str
    interval: str = "1m"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alerting rule.

    `summary` is one plain sentence without a template; `description` says the value with its unit, and
    what it should be. `dashboard` is where to look, with `variables` taken from labels of the series:
    the name of a dashboard variable, which is also the label, or `variable=label`.
    `logs` is a LogQL query, without one all lines at WARNING and above of the service.
    """

    name: str
    expr: str
    severity: Severity
    component: Component
    summary: str
    description: str
    dashboard: Dashboard
    fires: tuple[Fires, ...]
    silent: tuple[Silent, ...]
    wait: str = ""
    """How long the condition must hold (`for`)."""
    keep_firing: str = ""
    depends_on: tuple[Cause, ...] = ()
    variables: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    logs: str = ""
    runbook: str = ""
    """The page in docs/runbooks; without one it is the alert's name."""

    @property
    def page(self) -> str:
        """The name of its page in docs/runbooks."""
        return self.runbook or self.name


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after another, every `interval` (Prometheus' default without one)."""

    name: str
    rules: tuple[Record | Alert, ...]
    interval: str = ""


def expected_text(
    text: str, *, labels: Mapping[str, str], external: Mapping[str, str], value: str
) -> str:
    """Return what a template becomes in a case: labels are known, the value is as the case says."""

    def label(found: re.Match[str]) -> str:
        text = (labels if found[1] == "labels" else external).get(found[2], "")
        return quote_plus(text) if found[3] else text

    return _VALUE.sub(lambda _: value, _LABEL.sub(label, text))
