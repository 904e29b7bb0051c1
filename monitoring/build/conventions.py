"""What every alert gets, whoever declared it: owner, links and labels, from monitoring/conventions.yml."""

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import yaml
from pydantic import BaseModel, ConfigDict

from monitoring.build.model import Alert
from monitoring.build.profile import Profile

FILE: Final = Path(__file__).parents[1] / "conventions.yml"
START_MARK: Final = "@start@"
END_MARK: Final = "@end@"
"""Stand for the time of the alert, in milliseconds, in links: Prometheus does not know it, so the
templates of Alertmanager put it in."""


class Conventions(BaseModel):
    """The file, checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str
    team: str
    grafana_url: str
    jaeger_url: str
    runbook_url: str


def load_conventions(path: Path = FILE) -> Conventions:
    """Return the conventions of this house."""
    return Conventions.model_validate(yaml.safe_load(path.read_text()))


def labels_of(alert: Alert, conventions: Conventions) -> dict[str, str]:
    """Return the labels that the rule sets."""
    labels = {
        "severity": alert.severity,
        "service": conventions.service,
        "team": conventions.team,
        "component": alert.component,
    }
    if alert.depends_on:
        labels["depends_on"] = ",".join(alert.depends_on)
    return labels | dict(alert.labels)


def annotations_of(alert: Alert, conventions: Conventions, profile: Profile) -> dict[str, str]:
    """Return the annotations of the rule, templates not yet filled in."""
    return {
        "summary": profile.text(alert.summary),
        "description": profile.text(alert.description),
        "runbook_url": f"{conventions.runbook_url}/{alert.page}",
        "dashboard_url": _dashboard_url(alert, conventions),
        "logs_url": _logs_url(alert, conventions),
        "traces_url": _traces_url(conventions),
    }


def _dashboard_url(alert: Alert, conventions: Conventions) -> str:
    url = f"{conventions.grafana_url}/d/{conventions.service}-{alert.dashboard}"
    parameters = ["var-environment={{ $externalLabels.environment }}"]
    for variable in alert.variables:
        name, _, label = variable.partition("=")
        parameters.append(f"var-{name}={{{{ $labels.{label or name} | urlquery }}}}")
    parameters += [f"from={START_MARK}", f"to={END_MARK}"]
    return f"{url}?{'&'.join(parameters)}"


def _logs_url(alert: Alert, conventions: Conventions) -> str:
    everything = f'{{service_name=~"{conventions.service}.*"}} | level=~"WARNING|ERROR|CRITICAL"'
    pane: dict[str, Any] = {
        "datasource": "loki",
        "queries": [{"refId": "A", "expr": alert.logs or everything}],
        "range": {"from": START_MARK, "to": END_MARK},
    }
    panes = quote(json.dumps({"logs": pane}, separators=(",", ":")), safe="@")
    return f"{conventions.grafana_url}/explore?schemaVersion=1&panes={panes}"


def _traces_url(conventions: Conventions) -> str:
    # Jaeger counts in microseconds: the mark is in milliseconds, three zeros follow it.
    tags = quote(json.dumps({"error": "true"}, separators=(",", ":")))
    return (
        f"{conventions.jaeger_url}/search?service={conventions.service}&tags={tags}"
        f"&start={START_MARK}000&end={END_MARK}000&limit=20"
    )
