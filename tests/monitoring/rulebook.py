"""All rules and runbooks of this repository, and the metrics that rules may stand on."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from monitoring.build.artifacts import ROOT, rule_groups
from monitoring.build.model import Alert, Record
from monitoring.build.profile import PRODUCTION
from tests.catalogue import Metric, read_catalogue
from tests.monitoring.promql import Selector, selectors

RUNBOOKS: Final = ROOT / "docs/runbooks"
OTHERS: Final = ROOT / "monitoring/prometheus/metrics_of_others.yml"
JOBS: Final = {
    "api": "api",
    "worker": "worker",
    "provider": "payment-provider",
    "synthetic": "synthetic",
    "notifications": "notifications",
}
"""The scrape job of each process of the catalogue."""
OF_PROMETHEUS: Final = frozenset(
    {
        "up",
        "scrape_duration_seconds",
        "scrape_samples_scraped",
        "scrape_samples_post_metric_relabeling",
        "scrape_series_added",
        "scrape_sample_limit",
        "scrape_timeout_seconds",
        "ALERTS",
        "ALERTS_FOR_STATE",
    }
)
"""What Prometheus makes itself of each scrape and of alerts."""
_OF_SCRAPES: Final = frozenset({"job", "instance", "service", "le", "__name__"})
_SUFFIXES: Final = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, its family, and its expression as production evaluates it."""

    family: str
    rule: Alert | Record
    expr: str

    def __str__(self) -> str:
        return f"{self.family}/{self.rule.name}"


@cache
def rules() -> tuple[Rule, ...]:
    """Return all rules."""
    return tuple(
        Rule(family, rule, PRODUCTION.promql(rule.expr))
        for family, groups in rule_groups().items()
        for group in groups
        for rule in group.rules
    )


def alerts() -> list[Alert]:
    """Return all alerts."""
    return [rule.rule for rule in rules() if isinstance(rule.rule, Alert)]


def records() -> list[Record]:
    """Return all recording rules."""
    return [rule.rule for rule in rules() if isinstance(rule.rule, Record)]


@cache
def reads() -> tuple[tuple[Rule, Selector], ...]:
    """Return what each rule reads."""
    return tuple((rule, selector) for rule in rules() for selector in selectors(rule.expr))


@cache
def metrics() -> dict[str, Metric]:
    """Return our own metrics by the names of their series."""
    series = {}
    for name, metric in read_catalogue().metrics.items():
        series[name] = metric
        if metric.type == "histogram":
            series |= {name + suffix: metric for suffix in _SUFFIXES}
    return series


@cache
def metrics_of_others() -> dict[str, frozenset[str]]:
    """Return what other programs expose, by scrape job."""
    listed = yaml.safe_load(OTHERS.read_text())
    return {job: frozenset(names) for job, names in listed.items()}


@cache
def exists(metric: str) -> bool:
    """Whether something emits or records series of that name."""
    return (
        metric in OF_PROMETHEUS
        or metric in metrics()
        or any(metric in names for names in metrics_of_others().values())
        or metric in {record.name for record in records()}
    )


def jobs_of(metric: str) -> set[str]:
    """Return the scrape jobs whose targets expose a metric."""
    ours = metrics().get(metric)
    own = {JOBS[process] for process in ours.processes} if ours is not None else set()
    return own | {job for job, names in metrics_of_others().items() if metric in names}


def complaints_about_labels(selector: Selector) -> Iterator[str]:
    """Yield a sentence for each condition on one of our metrics that no series of it can meet."""
    metric = metrics().get(selector.metric)
    for label, operator, value in selector.matchers if metric is not None else ():
        if metric is None or label in _OF_SCRAPES:
            continue
        if label not in metric.labels:
            yield f"{selector.metric} has no label {label}"
            continue
        closed = metric.labels[label].closed
        for one in value.split("|") if operator in {"=~", "!~"} else [value]:
            if closed and not any(re.fullmatch(one, value) for value in closed):
                yield f'{selector.metric}{{{label}}} is never "{one}"'


@dataclass(frozen=True, slots=True)
class Runbook:
    """A page: its sections by heading, and the code that stands in fences of a language."""

    path: Path
    sections: dict[str, str]

    def fences(self, language: str) -> Iterator[str]:
        """Yield the code blocks of a language."""
        for text in self.sections.values():
            yield from re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def runbook(name: str) -> Runbook:
    """Return a page of docs/runbooks."""
    path = RUNBOOKS / f"{name}.md"
    parts = re.split(r"^## +(.+)$", path.read_text(), flags=re.MULTILINE)
    return Runbook(path, dict(zip(parts[1::2], parts[2::2], strict=True)))
