"""LogQL is read as it should be, and all of it that stands here asks for what there is."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.build.artifacts import ROOT
from monitoring.build.conventions import annotations_of, labels_of, load_conventions
from monitoring.build.logs import log_alerts
from monitoring.build.logs.model import LogAlert
from monitoring.build.logs.secrets import PATTERNS
from monitoring.build.profile import PROFILES, Profile
from tests.monitoring import logql, promql, rulebook
from tests.monitoring.log_contract import complaints
from tests.monitoring.test_rules import ANNOTATIONS, SECTIONS, SUMMARY

EXPRESSIONS = [
    ('{service_name="a", log_stream=~"b|c"}', {"service_name", "log_stream"}, set()),
    ('{service_name="a"} |= "x" or "y" !~ `z{}|"` | level="ERROR"', {"service_name"}, {"level"}),
    (
        '{service_name="a"} | status >= 500 and duration_ms > 10 or (route="/x", method!="GET")',
        {"service_name"},
        {"status", "duration_ms", "route", "method"},
    ),
    (
        'sum by (route, level) (rate({service_name="a"} | type="job" [$__auto])) / 2',
        {"service_name"},
        {"route", "level", "type"},
    ),
    (
        'quantile_over_time(0.95, {service_name=~"$service"} | unwrap duration(wait) [5m]) by (task)',
        {"service_name"},
        {"wait", "task"},
    ),
    (
        '{service_name="a"} | json code="status", b | code="401" | line_format "{{.route}} {{ .code }}"',
        {"service_name"},
        {"route"},
    ),
    (
        '{service_name="a"} | regexp "(?P<one>.)" | pattern "<two> <_>" | label_format x=level | two=one',
        {"service_name"},
        {"level"},
    ),
    (
        '{service_name="a"} | trace_id=`${__data.fields.traceID}` | drop user_id, level="INFO"',
        {"service_name"},
        {"trace_id", "user_id", "level"},
    ),
    (
        'count_over_time({service_name="a"}[1h] offset 1d) unless on (task) vector(1)',
        {"service_name"},
        {"task"},
    ),
]
UNREADABLE = [
    '{service_name="a"',
    'sum(rate({service_name="a"}[5m])',
    '{service_name="a"} | nonsense',
    '{service_name="a"} | level',
    'level="ERROR"',
    "{service_name=a|b}",
]
WRONG = [
    ('{level="ERROR"}', "level is no label of streams"),
    ('{service_name="glass"}', "service_name is never 'glass'"),
    ('{log_stream="audits"}', "log_stream is never 'audits'"),
    (
        '{service_name="glasshouse"} | severity="ERROR"',
        "no line of any type has the field severity",
    ),
    ('{service_name="glasshouse"} | type="http"', "type is never 'http'"),
    (
        '{service_name="glasshouse"} | type="http_request" | task="x"',
        "no line of http_request has the field task",
    ),
    ('{service_name="glasshouse"} | level="WARN"', "level is never 'WARN'"),
    (
        '{service_name="glasshouse"} | type="audit" | message="Audit entries"',
        "message is never 'Audit entries' on lines of audit",
    ),
    (
        'sum by (handler) (rate({service_name="glasshouse"} | type="job" [5m]))',
        "no line of job has the field handler",
    ),
    ('{service_name="glasshouse"} |~ "(" ', "is no regular expression"),
]


# The reader -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("expression", "labels", "fields"), EXPRESSIONS)
def test_labels_of_streams_and_fields_are_told_apart(
    expression: str, labels: set[str], fields: set[str]
) -> None:
    assert (logql.selectors(expression), logql.fields(expression)) == (labels, fields)


@pytest.mark.parametrize("expression", UNREADABLE)
def test_what_cannot_be_read_is_not_passed_over(expression: str) -> None:
    with pytest.raises(ValueError, match=r"expected|too early"):
        logql.read(expression)


@pytest.mark.parametrize(("expression", "complaint"), WRONG)
def test_what_there_is_not_is_found(expression: str, complaint: str) -> None:
    assert complaint in " ".join(complaints(expression))


# What stands here -------------------------------------------------------------------------------------


def _links() -> Iterator[tuple[str, str]]:
    for alert in (*rulebook.alerts(), *log_alerts()):
        if alert.logs:
            yield alert.name, alert.logs


def _pages() -> Iterator[tuple[str, str]]:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for query in re.findall(r"```logql\n(.*?)```", page.read_text(), re.DOTALL):
            yield str(page.relative_to(ROOT)), query


def test_links_of_alerts_lead_to_lines_that_there_can_be() -> None:
    links = list(_links())
    assert len(links) > 50
    assert [f"{name}: {what}" for name, query in links for what in complaints(query)] == []


def test_pages_ask_for_lines_that_there_can_be() -> None:
    pages = list(_pages())
    assert len(pages) > 50
    assert [f"{name}: {what}" for name, query in pages for what in complaints(query)] == []


# Alerts on log lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_rules_ask_for_lines_that_there_can_be(profile: Profile) -> None:
    assert [
        f"{alert.name}: {what}"
        for alert in log_alerts()
        for what in complaints(profile.promql(alert.expr))
    ] == []


def test_alerts_on_log_lines_say_what_people_need() -> None:
    conventions = load_conventions()
    wrong = []
    for alert in log_alerts():
        texts = annotations_of(alert, conventions, PROFILES["production"])
        own = labels_of(alert, conventions)
        named = {name for text in texts.values() for name in re.findall(r"\$labels\.(\w+)", text)}
        checks = {
            "a label": own.keys() >= {"severity", "service", "team", "component"},
            "an annotation": texts.keys() == ANNOTATIONS,
            "its summary, a plain sentence": SUMMARY.fullmatch(texts["summary"]) is not None,
            "its value": "$value" in alert.description,
            "a reason to stand on lines": len(alert.reason.split()) >= 8,
            "the query of its lines": bool(alert.logs),
            "a label that its cases have": all(
                named <= {*own, *case.labels} for case in alert.alarming
            ),
            "a case in which it fires": bool(alert.alarming),
            "one in which it does not": bool(alert.harmless),
            "a window": re.search(r"\[(\d+)[mhd]\]", alert.expr) is not None,
        }
        wrong += [f"{alert.name}: {what}" for what, holds in checks.items() if not holds]
    assert wrong == []


def test_no_alert_on_log_lines_has_the_name_of_another() -> None:
    names = [alert.name for alert in (*rulebook.alerts(), *log_alerts())]
    assert len(names) - len(set(names)) == len(rulebook.alerts()) - len(
        {alert.name for alert in rulebook.alerts()}
    )


def test_alerts_on_log_lines_have_a_page_with_queries_that_work() -> None:
    wrong = []
    for alert in log_alerts():
        page = rulebook.runbook(alert.page)
        if tuple(page.sections) != SECTIONS:
            wrong.append(f"{alert.page}.md has the sections {tuple(page.sections)}")
        if not list(page.fences("logql")):
            wrong.append(f"{alert.page}.md has no query of lines")
        for query in page.fences("promql"):
            wrong += [
                f"{alert.page}.md: nothing emits {selector.metric}"
                for selector in promql.selectors(query)
                if selector.metric and not rulebook.exists(selector.metric)
            ]
    assert wrong == []


def _secret_alert() -> LogAlert:
    (alert,) = (alert for alert in log_alerts() if alert.name == "SecretInLogs")
    return alert


def test_each_pattern_of_a_secret_finds_what_none_of_the_others_does() -> None:
    """A pattern that no case needs could be lost unseen."""
    said = [
        line.text or str(line.fields) for case in _secret_alert().alarming for line in case.lines
    ]
    needed = {
        pattern
        for text in said
        if len(found := [one for one in PATTERNS if re.search(one, text)]) == 1
        for pattern in found
    }
    assert set(PATTERNS) - needed == set()


def test_secrets_are_not_found_in_what_is_written_about_them() -> None:
    """Rules, pages and links travel through logs of other tools themselves."""
    alert = _secret_alert()
    texts = annotations_of(alert, load_conventions(), PROFILES["production"])
    pages = [(ROOT / "docs/runbooks" / f"{alert.page}.md").read_text()]
    for text in (alert.expr, *texts.values(), *pages):
        assert [one for one in PATTERNS if re.search(one, text)] == []


def test_rules_of_both_profiles_are_written_where_loki_looks() -> None:
    for folder in ("monitoring", "monitoring/demo"):
        files = sorted(Path(ROOT, folder, "loki/rules/fake").glob("*.yml"))
        assert [file.stem for file in files] == ["logs-backends", "logs-security", "logs-service"]
