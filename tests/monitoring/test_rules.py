"""The lint of rules: every alert says what it must, stands on what is emitted, and has its page.

What promtool, mixtool and pint look for, and what they cannot know: our catalogue of metrics
(docs/telemetry.md), our labels, our runbooks.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from app.observability.objectives import BURN_WINDOWS
from monitoring.build.artifacts import GENERATED, ROOT
from monitoring.build.conventions import annotations_of, labels_of, load_conventions
from monitoring.build.model import Alert, Component, Record
from monitoring.build.profile import PRODUCTION
from tests.monitoring import promql, rulebook
from tests.monitoring.rulebook import Rule
from tests.tools import require_tool

SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "Escalation")
SCRAPE_SECONDS = 15
FAMILIES = {
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
}
COUNTERS = ("_total", "_bucket", "_sum", "_count")
TEST_FILES = sorted((ROOT / "monitoring/prometheus/tests").glob("*.test.yml"))
RULE_FILES = sorted((ROOT / "monitoring").glob("**/rules/*.rules.yml"))


def every_rule(function: object) -> object:
    """Run a test once for each rule, by its name."""
    return pytest.mark.parametrize("rule", rulebook.rules(), ids=str)(function)


def every_alert(function: object) -> object:
    """Run a test once for each alert, by its name."""
    return pytest.mark.parametrize("alert", rulebook.alerts(), ids=lambda alert: alert.name)(
        function
    )


# All of them ------------------------------------------------------------------------------------------


def test_what_is_generated_is_what_would_be_generated() -> None:
    """The rules in the repository are those of the objectives and declared alerts of this commit."""
    checked = subprocess.run(
        [sys.executable, "-m", "monitoring.build", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_there_is_an_alert_of_every_family() -> None:
    assert {alert.component for alert in rulebook.alerts()} == FAMILIES == set(get_args(Component))
    assert len(rulebook.alerts()) >= 25
    assert len({record.name for record in rulebook.records() if record.name[:4] != "slo:"}) >= 40


def test_no_two_rules_share_a_name_unless_their_labels_tell_them_apart() -> None:
    seen = set()
    for rule in rulebook.rules():
        name = (rule.rule.name, *sorted(rule.rule.labels.items()))
        assert name not in seen, rule.rule.name
        seen.add(name)


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_prometheus_accepts_the_rules(file: Path) -> None:
    promtool = require_tool("promtool")
    checked = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.name)
def test_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    promtool = require_tool("promtool")
    tested = subprocess.run(
        [promtool, "test", "rules", file.name],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, (tested.stdout + tested.stderr)[-5000:]


def test_no_generated_directory_is_empty() -> None:
    for directory in GENERATED:
        assert any(file.is_file() for file in (ROOT / directory).rglob("*")), directory


# What a rule says -------------------------------------------------------------------------------------


@every_rule
def test_a_rule_stands_on_what_is_emitted(rule: Rule) -> None:
    for selector in promql.selectors(rule.expr):
        if selector.metric:
            assert rulebook.exists(selector.metric), selector.metric
        else:
            assert selector.values("__name__"), "reads every series there is"


@every_rule
def test_a_rule_asks_for_labels_and_values_that_there_are(rule: Rule) -> None:
    for selector in promql.selectors(rule.expr):
        metric = rulebook.metrics().get(selector.metric)
        if metric is None:
            continue
        for label, operator, value in selector.matchers:
            if label in {"job", "instance", "service", "le", "__name__"}:
                continue
            assert label in metric.labels, f"{selector.metric} has no label {label}"
            closed = metric.labels[label].closed
            if closed and operator == "=":
                assert value in closed, f'{selector.metric}{{{label}="{value}"}}'
            elif closed and operator == "=~":
                for part in value.split("|"):
                    assert any(re.fullmatch(part, one) for one in closed), (
                        f"{label}=~{value}: {part}"
                    )


@every_rule
def test_a_rule_says_whose_series_it_means(rule: Rule) -> None:
    """Two processes may emit a metric of one name: worker-sampled gauges read 0 on the API's page."""
    for selector in promql.selectors(rule.expr):
        metric = rulebook.metrics().get(selector.metric)
        if metric is None:
            continue
        jobs = selector.values("job")
        assert jobs, f"{selector.metric} is not selected by job"
        for operator, value in jobs:
            meant = set(value.split("|")) if operator == "=~" else {value}
            there = {rulebook.JOBS[process] for process in metric.processes}
            if operator in {"=", "=~"} and ".+" not in meant:
                assert meant <= there, f"{selector.metric} comes from {there}, not from {meant}"


@every_rule
def test_vectors_are_joined_by_labels_that_both_have(rule: Rule) -> None:
    for join in promql.joins(rule.expr):
        assert join.explicit or join.aggregated, f"say on(...), or aggregate both: {join.text}"


@every_rule
def test_rates_are_of_counters_over_enough_samples(rule: Rule) -> None:
    for selector in promql.selectors(rule.expr):
        inner = selector.functions[0] if selector.functions else ""
        if inner in {"rate", "increase", "irate"}:
            assert selector.metric.endswith(COUNTERS), f"{inner} of {selector.metric}, no counter"
            assert selector.range_seconds is not None
            assert selector.range_seconds >= 4 * SCRAPE_SECONDS, selector
        if inner in {"delta", "deriv", "predict_linear"}:
            assert not selector.metric.endswith("_total"), (
                f"{inner} of {selector.metric}, a counter"
            )


@every_rule
def test_quantiles_are_of_aggregated_buckets(rule: Rule) -> None:
    """A quantile of one instance's buckets, or an average of quantiles, says nothing of the service."""
    assert all(promql.quantiles(rule.expr))


@every_rule
def test_nothing_averages_over_instances(rule: Rule) -> None:
    for selector in promql.selectors(rule.expr):
        if ":" in selector.metric and re.search(r"p\d\d|ratio", selector.metric):
            assert "avg" not in selector.functions, f"an average of {selector.metric}"


# What a record says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("record", rulebook.records(), ids=lambda record: record.name)
def test_a_record_is_named_and_described(record: Record) -> None:
    """level:metric:operations, as Prometheus recommends; Sloth's names begin with slo and sloth."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*:[a-z0-9_]+:[a-z0-9_]+|sloth_slo_info", record.name)
    assert len(record.meaning) > 10


# What an alert says -----------------------------------------------------------------------------------


@every_alert
def test_an_alert_says_what_people_need(alert: Alert) -> None:
    conventions = load_conventions()
    labels = labels_of(alert, conventions)
    texts = annotations_of(alert, conventions, PRODUCTION)
    assert re.fullmatch(r"[A-Z][a-zA-Z0-9]+", alert.name)
    assert {"severity", "service", "team", "component"} <= labels.keys()
    assert "environment" not in labels, "an external label"
    assert {
        "summary",
        "description",
        "runbook_url",
        "dashboard_url",
        "logs_url",
        "traces_url",
    } == texts.keys()
    assert re.fullmatch(r"[A-Z][^{}<>]{10,110}\.", texts["summary"]), texts["summary"]
    assert texts["description"] != texts["summary"]
    assert "<" not in texts["description"], "a duration that was not spelt out"


@every_alert
def test_an_alert_says_the_value_with_its_unit(alert: Alert) -> None:
    if alert.severity == "none" or "absent(" in alert.expr or "== 0" in alert.expr:
        return  # there is no value: something is there or not
    assert "$value" in alert.description, alert.description


@every_alert
def test_a_description_names_only_labels_that_the_alert_has(alert: Alert) -> None:
    texts = annotations_of(alert, load_conventions(), PRODUCTION).values()
    named = {name for text in texts for name in re.findall(r"\$labels\.(\w+)", text)}
    for case in alert.fires:
        missing = named - case.labels.keys() - labels_of(alert, load_conventions()).keys()
        assert not missing, f"{missing} would be empty"


@every_alert
def test_every_alert_waits_or_says_why_not(alert: Alert) -> None:
    """One bad evaluation is no reason to wake anybody: `for`, or a window in the expression."""
    windows = [
        selector.range_seconds
        for selector in promql.selectors(PRODUCTION.promql(alert.expr))
        if selector.range_seconds
    ]
    over_windows = ":" in alert.expr or any(window >= 300 for window in windows)
    assert alert.wait or over_windows or alert.severity == "none", alert.name


@every_alert
def test_an_alert_has_a_runbook_with_queries_that_work(alert: Alert) -> None:
    page = rulebook.runbook(alert.page)
    assert tuple(page.sections) == SECTIONS, page.path.name
    for name, text in page.sections.items():
        assert len(text.split()) >= 10, f"{page.path.name}: {name} says nothing"
    queries = list(page.fences("promql"))
    assert queries, f"{page.path.name}: no query"
    for query in queries:
        for selector in promql.selectors(query):
            assert not selector.metric or rulebook.exists(selector.metric), selector.metric


def test_every_runbook_is_somebodys() -> None:
    pages = {page.stem for page in rulebook.RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {alert.page for alert in rulebook.alerts()} | _pages_of_objectives()


def _pages_of_objectives() -> set[str]:
    from app.observability.objectives import load_objectives  # noqa: PLC0415
    from monitoring.build.artifacts import OBJECTIVES  # noqa: PLC0415

    declared = load_objectives(OBJECTIVES).objectives
    return {objective.runbook for objective in declared} | {
        "ErrorBudgetBurnPage",
        "ErrorBudgetBurnTicket",
        "ErrorBudgetExhausted",
    }


def test_burn_windows_are_those_of_the_workbook() -> None:
    """Google's SRE workbook, chapter 5, table 5-8."""
    found = [(str(w.factor), w.long, w.short, w.severity) for w in BURN_WINDOWS]
    assert found == [
        ("14.4", "1h", "5m", "page"),
        ("6", "6h", "30m", "page"),
        ("3", "1d", "2h", "ticket"),
        ("1", "3d", "6h", "ticket"),
    ]
