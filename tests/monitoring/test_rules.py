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
from prometheus_client import REGISTRY, Histogram

import app.main  # noqa: F401 - for the metrics that it makes
from app.observability.service_levels.objectives import (
    BURN_WINDOWS,
    LatencyIndicator,
    load_objectives,
)
from monitoring.build.artifacts import GENERATED, OBJECTIVES, ROOT
from monitoring.build.conventions import annotations_of, labels_of, load_conventions
from monitoring.build.logs import log_alerts
from monitoring.build.model import Component
from monitoring.build.profile import PRODUCTION
from tests.monitoring import promql, rulebook
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
ANNOTATIONS = {
    "summary",
    "description",
    "runbook_url",
    "dashboard_url",
    "logs_url",
    "traces_url",
}
SUMMARY = re.compile(r"[A-Z][^{}<>]{10,110}\.")
TEST_FILES = sorted((ROOT / "monitoring/prometheus/tests").glob("*.test.yml"))
RULE_FILES = sorted((ROOT / "monitoring").glob("**/rules/*.rules.yml"))


Complaints = list[str]
"""All that a check found: one run tells everything there is to mend."""


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


def test_rules_stand_on_what_is_emitted() -> None:
    wrong: Complaints = []
    for rule, selector in rulebook.reads():
        if not selector.metric and not selector.values("__name__"):
            wrong.append(f"{rule} reads every series there is")
        if selector.metric and not rulebook.exists(selector.metric):
            wrong.append(f"{rule}: nothing emits {selector.metric}")
    assert not wrong, "\n".join(wrong)


def test_rules_ask_for_labels_and_values_that_there_are() -> None:
    assert [
        f"{rule}: {complaint}"
        for rule, selector in rulebook.reads()
        for complaint in rulebook.complaints_about_labels(selector)
    ] == []


def test_rules_say_whose_series_they_mean() -> None:
    """Two processes may emit a metric of one name: worker-sampled gauges read 0 on the API's page."""
    wrong: Complaints = []
    for rule, selector in rulebook.reads():
        metric = rulebook.metrics().get(selector.metric)
        if metric is None:
            continue
        there = rulebook.jobs_of(selector.metric)
        jobs = selector.values("job")
        if not jobs:
            wrong.append(f"{rule}: {selector.metric} is not selected by job, one of {there}")
        for operator, value in jobs:
            meant = set(value.split("|")) if operator == "=~" else {value}
            if operator in {"=", "=~"} and not meant & {".+", ".*"} and not meant <= there:
                wrong.append(f"{rule}: {selector.metric} comes from {there}, not from {meant}")
    assert not wrong, "\n".join(wrong)


def test_vectors_are_joined_by_labels_that_both_have() -> None:
    assert [
        f"{rule}: say on(...), or aggregate both sides by the same labels: {join.text}"
        for rule in rulebook.rules()
        for join in promql.joins(rule.expr)
        if not join.explicit and not join.aggregated and join.operator != "or"
    ] == []


def test_rates_are_of_counters_over_enough_samples() -> None:
    wrong: Complaints = []
    for rule, selector in rulebook.reads():
        inner = selector.functions[0] if selector.functions else ""
        ours = selector.metric in rulebook.metrics()
        is_counter = selector.metric.endswith(COUNTERS)
        if inner in {"rate", "increase", "irate"}:
            if ours and not is_counter:  # other people's counters are not all named as such
                wrong.append(f"{rule}: {inner} of {selector.metric}, which is no counter")
            if (selector.range_seconds or 0) < 4 * SCRAPE_SECONDS:
                wrong.append(f"{rule}: {inner} of {selector.metric} over too few samples")
        elif inner in {"delta", "deriv", "predict_linear"} and is_counter:
            wrong.append(f"{rule}: {inner} of {selector.metric}, which is a counter")
    assert not wrong, "\n".join(wrong)


def test_quantiles_are_of_aggregated_buckets() -> None:
    """A quantile of one instance's buckets says nothing of the service."""
    assert [str(rule) for rule in rulebook.rules() if not all(promql.quantiles(rule.expr))] == []


def test_nothing_averages_ratios_or_quantiles() -> None:
    assert [
        f"{rule}: an average of {selector.metric}"
        for rule, selector in rulebook.reads()
        if re.search(r":.*(p\d\d|ratio)", selector.metric) and "avg" in selector.functions
    ] == []


# What a record says -----------------------------------------------------------------------------------


def test_records_are_named_and_described() -> None:
    """level:metric:operations, as Prometheus recommends; Sloth's names begin with slo and sloth."""
    pattern = r"[a-z][a-z0-9_]*:[a-z0-9_]+:[a-z0-9_]+|sloth_slo_info"
    assert [
        record.name
        for record in rulebook.records()
        if not re.fullmatch(pattern, record.name) or len(record.meaning) <= 10
    ] == []


# What an alert says -----------------------------------------------------------------------------------


def test_alerts_say_what_people_need() -> None:
    conventions = load_conventions()
    wrong: Complaints = []
    for alert in rulebook.alerts():
        labels = labels_of(alert, conventions)
        texts = annotations_of(alert, conventions, PRODUCTION)
        checks = {
            "its name": re.fullmatch(r"[A-Z][a-zA-Z0-9]+", alert.name) is not None,
            "a label": labels.keys() >= {"severity", "service", "team", "component"},
            "environment is an external label": "environment" not in labels,
            "an annotation": texts.keys() == ANNOTATIONS,
            "its summary, a plain sentence": SUMMARY.fullmatch(texts["summary"]) is not None,
            "a description that says more": texts["description"] != texts["summary"],
            "a duration that is spelt out": re.search(r"<\d", texts["description"]) is None,
        }
        wrong += [f"{alert.name}: {what}" for what, holds in checks.items() if not holds]
    assert not wrong, "\n".join(wrong)


def test_alerts_say_their_value_with_its_unit() -> None:
    """Except where there is none: something is there, or it is not."""
    assert [
        alert.name
        for alert in rulebook.alerts()
        if alert.severity != "none"
        and not re.search(r"absent|== 0|!= 1", alert.expr)
        and "$value" not in alert.description
    ] == []


def test_texts_name_only_labels_that_the_alert_has() -> None:
    conventions = load_conventions()
    wrong: Complaints = []
    for alert in rulebook.alerts():
        texts = annotations_of(alert, conventions, PRODUCTION).values()
        named = {name for text in texts for name in re.findall(r"\$labels\.(\w+)", text)}
        for case in alert.fires:
            missing = named - case.labels.keys() - labels_of(alert, conventions).keys()
            wrong += [f"{alert.name}: {label} would be empty" for label in sorted(missing)]
    assert not wrong, "\n".join(wrong)


def test_alerts_wait_or_look_at_a_window() -> None:
    """One bad evaluation is no reason to wake anybody."""
    wrong: Complaints = []
    for alert in rulebook.alerts():
        expr = PRODUCTION.promql(alert.expr)
        windows = [selector.range_seconds or 0 for selector in promql.selectors(expr)]
        if not (alert.wait or alert.severity == "none" or ":" in expr or max(windows) >= 300):
            wrong.append(alert.name)
    assert not wrong, "\n".join(wrong)


def test_alerts_have_a_runbook_with_queries_that_work() -> None:
    wrong: Complaints = []
    for name in sorted({alert.page for alert in rulebook.alerts()}):
        try:
            page = rulebook.runbook(name)
        except FileNotFoundError:
            wrong.append(f"{name}.md is missing")
            continue
        if tuple(page.sections) != SECTIONS:
            wrong.append(f"{name}.md has the sections {tuple(page.sections)}")
        wrong += [
            f"{name}.md: {heading} says nothing"
            for heading, text in page.sections.items()
            if len(text.split()) < 10
        ]
        queries = list(page.fences("promql"))
        if not queries:
            wrong.append(f"{name}.md has no query")
        for query in queries:
            wrong += [f"{name}.md: {complaint}" for complaint in _complaints(query)]
    assert not wrong, "\n".join(wrong)


def _complaints(query: str) -> Complaints:
    try:
        found = promql.selectors(query)
    except ValueError as error:
        return [f"{query!r}: {error}"]
    return [
        f"nothing emits {selector.metric}"
        for selector in found
        if selector.metric and not rulebook.exists(selector.metric)
    ]


def test_thresholds_of_objectives_are_bounds_of_their_histograms() -> None:
    """Between two bounds nothing is known: there would be no series, and no alert would ever fire."""
    bounds = {
        collector._name: collector._upper_bounds
        for collector in set(REGISTRY._collector_to_names)
        if isinstance(collector, Histogram)
    }
    indicators = [objective.indicator for objective in load_objectives(OBJECTIVES).objectives]
    latencies = [one for one in indicators if isinstance(one, LatencyIndicator)]
    assert latencies
    for indicator in latencies:
        assert float(indicator.threshold_seconds) in bounds[indicator.metric], indicator


def test_every_runbook_is_somebodys() -> None:
    pages = {page.stem for page in rulebook.RUNBOOKS.glob("*.md")} - {"README"}
    alerts = (*rulebook.alerts(), *log_alerts())
    assert pages == {alert.page for alert in alerts} | _pages_of_objectives()


def _pages_of_objectives() -> set[str]:
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
