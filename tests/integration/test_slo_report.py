"""The report, made from a real Prometheus that knows of two weeks, an incident and a gap in it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from typer.testing import CliRunner

from app import cli
from app.observability.service_levels.objectives import load_objectives
from app.observability.service_levels.prometheus_api import PrometheusAPI
from app.observability.service_levels.report import Report, make_report
from app.observability.service_levels.report_markdown import duration, markdown, percent
from tests.slo import ERRORS, PrometheusServer, StubPrometheus, declare
from tests.tools import free_port

LONG = 120.0
MINUTE, HOUR, DAY = 60, 3_600, 86_400
END = int(datetime.now(UTC).timestamp()) // HOUR * HOUR
INCIDENT = END - 2 * DAY
GAP = END - 4 * DAY
YOUNG_END = END - HOUR + 4 * MINUTE
LATENCY = ERRORS | {"name": "tea-latency", "target": 95, "description": "Tea is served in time."}
OF_ERRORS = 'sloth_id="tea-tea-errors",sloth_service="tea",sloth_slo="tea-errors"'
OF_LATENCY = 'sloth_id="tea-tea-latency",sloth_service="tea",sloth_slo="tea-latency"'


def history() -> str:
    """Return two weeks and an hour: 600 cups in five minutes, but for three hours of which nothing is known.

    For an hour two days ago a fifth was cold, and the alert fired for 50 minutes.
    """
    minutes = range(END - 15 * DAY, END + HOUR, MINUTE)
    known = [at for at in minutes if not GAP <= at < GAP + 3 * HOUR]
    series: dict[str, dict[int, float]] = {
        f"slo:objective:ratio{{{OF_ERRORS}}}": dict.fromkeys(known, 0.999),
        f"slo:objective:ratio{{{OF_LATENCY}}}": dict.fromkeys(known, 0.95),
        f"slo:events:increase5m{{{OF_ERRORS}}}": dict.fromkeys(known, 600),
        f"slo:events:increase30d{{{OF_ERRORS}}}": dict.fromkeys(known, 4_000_000),
        f"slo:bad_events:increase30d{{{OF_ERRORS}}}": dict.fromkeys(known, 2_000),
        f"slo:sli_error:ratio_rate30d{{{OF_ERRORS}}}": dict.fromkeys(known, 0.0005),
        f"slo:bad_events:increase5m{{{OF_ERRORS}}}": {
            at: 120.0 * (INCIDENT < at <= INCIDENT + HOUR) for at in known
        },
        f"slo:sli_error:ratio_rate5m{{{OF_ERRORS}}}": {
            at: 0.2 * (INCIDENT < at <= INCIDENT + HOUR) for at in known
        },
        f"slo:sli_error:ratio_rate1h{{{OF_ERRORS}}}": {
            at: 0.2 * max(0, HOUR - abs(at - INCIDENT - HOUR)) / HOUR for at in known
        },
        f'ALERTS{{alertname="ErrorBudgetBurnPage",alertstate="firing",severity="critical",{OF_ERRORS}}}': (
            dict.fromkeys(range(INCIDENT + 10 * MINUTE, INCIDENT + HOUR, MINUTE), 1)
        ),
        f'ALERTS{{alertname="ErrorBudgetBurnTicket",alertstate="pending",severity="warning",{OF_ERRORS}}}': (
            dict.fromkeys(range(INCIDENT, INCIDENT + HOUR, MINUTE), 1)
        ),
    }
    lines = [
        f"{name} {value} {at}" for name, points in series.items() for at, value in points.items()
    ]
    return "\n".join([*lines, "# EOF\n"])


def of(name: str) -> str:
    return f'sloth_id="tea-{name}",sloth_service="tea",sloth_slo="{name}"'


def young_history() -> str:
    """Return three minutes that hold no full five minutes: an outage, a good start, and silence.

    The outage has no event in the last moment, and the period's record knows of more than the steps.
    """
    names = ("tea-errors", "tea-kept", "tea-quiet", "tea-uncounted")
    series = {f"slo:objective:ratio{{{of(name)}}}": (0.999, 0.999, 0.999) for name in names}
    series |= {
        f"slo:events:increase5m{{{of('tea-errors')}}}": (300, 600, 0),
        f"slo:bad_events:increase5m{{{of('tea-errors')}}}": (20, 300, 0),
        f"slo:events:increase30d{{{of('tea-errors')}}}": (300, 900, 900),
        f"slo:bad_events:increase30d{{{of('tea-errors')}}}": (20, 320, 320),
        f"slo:sli_error:ratio_rate30d{{{of('tea-errors')}}}": (20 / 300, 320 / 900, 320 / 900),
        f"slo:events:increase5m{{{of('tea-kept')}}}": (10, 20, 30),
        f"slo:bad_events:increase5m{{{of('tea-kept')}}}": (0, 0, 0),
        f"slo:events:increase5m{{{of('tea-quiet')}}}": (0, 0, 0),
    }
    lines = [
        f"{name} {value} {YOUNG_END - 2 * MINUTE + n * MINUTE}"
        for name, values in series.items()
        for n, value in enumerate(values)
    ]
    return "\n".join([*lines, "# EOF\n"])


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    server = PrometheusServer(tmp_path_factory.mktemp("young"), history=young_history())
    server.start()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def young_report(young: PrometheusServer, tmp_path: Path) -> Report:
    api = PrometheusAPI(SecretStr(young.url), timeout_seconds=LONG)
    names = ("tea-errors", "tea-kept", "tea-quiet", "tea-uncounted")
    declared = load_objectives(declare(tmp_path, *(ERRORS | {"name": name} for name in names)))
    try:
        return await make_report(api, declared, days=7, end=moment(YOUNG_END))
    finally:
        await api.aclose()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    server = PrometheusServer(tmp_path_factory.mktemp("prometheus"), history=history())
    server.start()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def report(prometheus: PrometheusServer, tmp_path: Path) -> Report:
    api = PrometheusAPI(SecretStr(prometheus.url), timeout_seconds=LONG, max_bytes=50_000_000)
    declared = load_objectives(declare(tmp_path, ERRORS, LATENCY))
    try:
        return await make_report(api, declared, days=7, end=datetime.fromtimestamp(END, UTC))
    finally:
        await api.aclose()


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


async def test_the_week_is_weighed_by_its_events(report: Report) -> None:
    errors, latency = report.objectives
    steps = 7 * DAY // 300 - 3 * HOUR // 300
    assert errors.these_days.events == pytest.approx(600 * steps, rel=0.002)
    assert errors.these_days.bad_events == 12 * 120
    assert errors.these_days.sli == pytest.approx(1 - 1440 / (600 * steps), abs=1e-5)
    assert errors.days_before.sli == 1
    assert errors.budget_spent == pytest.approx(1440 / 4_000), "of 0.1 % of 4,000,000"
    assert errors.status.error_budget_remaining == errors.budget_left == 0.5
    assert errors.worst_burn is not None
    assert errors.worst_burn.rate == pytest.approx(200)
    assert errors.worst_burn.at == moment(INCIDENT + HOUR)
    assert latency.these_days.sli is None
    assert latency.status.state == "no_data"


async def test_time_of_which_nothing_is_known_is_told_apart_from_time_without_events(
    report: Report,
) -> None:
    errors, latency = report.objectives
    (gap,) = errors.gaps
    assert gap.why == "not_recorded"
    assert abs(gap.start - moment(GAP)) <= timedelta(minutes=5)
    assert abs(gap.end - moment(GAP + 3 * HOUR)) <= timedelta(minutes=5)
    assert [one.why for one in latency.gaps] == ["not_counted", "not_recorded", "not_counted"]
    assert sum((one.length for one in latency.gaps), timedelta()) == timedelta(days=7)


async def test_alerts_that_fired_are_told_with_their_time(report: Report) -> None:
    (alert,) = report.alerts
    assert (alert.alert, alert.severity, alert.objective) == (
        "ErrorBudgetBurnPage",
        "critical",
        "tea-errors",
    )
    (span,) = alert.fired
    assert span.start == moment(INCIDENT + 10 * MINUTE)
    # History that was imported has no marks of its end: it counts for five minutes more.
    assert timedelta(minutes=50) <= alert.length <= timedelta(minutes=55)


async def test_the_document_reads_well(report: Report) -> None:
    text = markdown(report)
    verdict = "0 of 2 objectives were kept in these days; 1 not kept: tea-errors (missed); 1 without data:"
    assert f"**{verdict} tea-latency.**" in text
    assert "**Only 6 d 21 h of these 7 days have data**: all numbers are of that time." in text
    assert text.startswith(f"# Service levels, {moment(END - 7 * DAY):%d %b %Y} to ")
    rows = [line for line in text.splitlines() if line.startswith("| tea-")]
    incident = f"{moment(INCIDENT + HOUR):%Y-%m-%d %H:%M} UTC"
    assert rows == [
        f"| tea-errors | 99.9 % | 99.878 % | 100.000 % | 36.0 % | 50.0 % | 200.0x, {incident} | ok |",
        "| tea-latency | 95 % | no data | no data | no data | no data | no data | no data |",
    ]
    assert "| ErrorBudgetBurnPage | tea-errors | critical |" in text
    assert "- **tea-errors**: nothing was recorded for " in text
    assert "- **tea-latency**: nothing was recorded for " in text
    assert "; nothing was counted (no event, or nobody to count it) for " in text
    assert "- **tea-errors** (kitchen): Tea is served without an error." in text


async def test_a_young_prometheus_is_told_and_does_not_contradict_itself(
    young_report: Report,
) -> None:
    text = markdown(young_report)
    assert "**Only 5 min of these 7 days have data**: all numbers are of that time." in text
    assert (
        "**1 of 4 objectives were kept in these days; 1 not kept: tea-errors (missed, budget spent);"
        " 2 without data: tea-quiet, tea-uncounted.**"
    ) in text
    rows = [line for line in text.splitlines() if line.startswith("| tea-")]
    assert rows == [
        "| tea-errors | 99.9 % | 64.444 % | no data | 35555.6 % | -35455.6 % | no data | exhausted |",
        "| tea-kept | 99.9 % | 100.000 % | no data | 0.0 % | 100.0 % | no data | no data |",
        "| tea-quiet | 99.9 % | no data | no data | no data | no data | no data | no data |",
        "| tea-uncounted | 99.9 % | no data | no data | no data | no data | no data | no data |",
    ]


async def test_what_a_young_prometheus_has_spent_and_has_left_add_up(young_report: Report) -> None:
    errors, kept, quiet, _ = young_report.objectives
    assert (errors.these_days.events, errors.these_days.bad_events) == (900, 320)
    assert errors.budget_spent == pytest.approx(320 / 0.9)
    assert errors.budget_left == pytest.approx(1 - 320 / 0.9)
    assert (kept.these_days.sli, kept.budget_spent, kept.budget_left) == (1, 0, 1)
    assert (quiet.these_days.sli, quiet.budget_spent, quiet.budget_left) == (None, None, None)


async def test_silence_is_told_only_where_somebody_counted_none(young_report: Report) -> None:
    errors, _, quiet, uncounted = young_report.objectives
    assert [gap.why for gap in errors.gaps] == ["not_recorded"], "there were events within the step"
    assert [gap.why for gap in quiet.gaps] == ["not_recorded", "no_events"]
    assert [gap.why for gap in uncounted.gaps] == ["not_recorded", "not_counted"]


async def test_each_objective_is_counted_once(report: Report) -> None:
    for one in report.objectives:
        one.status.state = "exhausted"
    assert (
        "**0 of 2 objectives were kept in these days; 1 not kept: tea-errors (missed, budget spent);"
        " 1 without data: tea-latency.**"
    ) in markdown(report)


async def test_a_share_of_less_time_than_the_others_says_of_how_much(report: Report) -> None:
    report.objectives[0].covered_seconds = 2.0 * DAY
    assert "| tea-errors | 99.9 % | 99.878 % (of 2 d) |" in markdown(report)


# The command ------------------------------------------------------------------------------------------

Run = Callable[..., Any]


@pytest.fixture
def slo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `python -m app slo report ...` with these variables."""

    def run(*arguments: str, **environment: str) -> Any:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(cli.app, ["slo", "report", *arguments])

    monkeypatch.setenv("SLO_OBJECTIVES_FILE", str(declare(tmp_path, ERRORS, LATENCY)))
    return run


def test_the_command_prints_it_or_writes_it(
    slo: Run, prometheus: PrometheusServer, tmp_path: Path
) -> None:
    shown = slo("--days", "5", PROMETHEUS_URL=prometheus.url)
    assert shown.exit_code == 0, shown.output
    assert "These 5 days" in shown.output
    path = tmp_path / "report.json"
    shown = slo("--format", "json", "--output", str(path))
    assert (shown.exit_code, shown.output) == (0, "")
    written = json.loads(path.read_text())
    assert written["days"] == 7
    assert written["objectives"][0]["these_days"]["bad_events"] == 1440
    shown = slo("--output", str(tmp_path / "nowhere" / "report.md"))
    assert (shown.exit_code, shown.stderr.count("\n")) == (1, 1)
    assert shown.stderr.endswith("report.md: No such file or directory\n")


def test_without_a_prometheus_there_is_one_sentence(slo: Run) -> None:
    shown = slo()
    assert shown.exit_code == 1
    assert shown.stderr.startswith("error: set PROMETHEUS_URL: ")
    shown = slo(PROMETHEUS_URL=f"http://someone:hunter2@127.0.0.1:{free_port()}")
    assert (shown.exit_code, shown.stderr) == (
        1,
        "error: Prometheus could not be asked (ConnectError)\n",
    )


def test_a_prometheus_without_service_levels_has_no_report(slo: Run) -> None:
    empty = {"status": "success", "data": {"resultType": "vector", "result": []}}
    with StubPrometheus(200, json.dumps(empty).encode()).running() as stub:
        matrix = json.dumps(empty).replace("vector", "matrix").encode()
        answer = stub.answer
        stub.answer = lambda asked: (  # type: ignore[method-assign]
            answer(asked)
            if asked.path.startswith("/api/v1/query?")
            else answer(asked)._replace(body=matrix)
        )
        shown = slo(PROMETHEUS_URL=stub.url)
    assert (shown.exit_code, shown.stderr) == (
        1,
        "error: Prometheus has recorded no service level in these days\n",
    )


# How numbers are written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "target", "written"),
    [
        (0.9996, "99.9", "99.960 %"),
        (0.999999, "99.9", "99.999 %"),
        (0.9999999, "95", "99.99 %"),
        (1.0, "99.9", "100.000 %"),
        (1 - 0.001, "99.9", "99.900 %"),
        (None, "99.9", "no data"),
        (0.0, "95", "0.00 %"),
    ],
)
def test_a_share_is_never_rounded_up_to_all(ratio: float | None, target: str, written: str) -> None:
    assert percent(ratio, target) == written


def test_a_duration_has_two_units_at_most() -> None:
    assert duration(timedelta(seconds=20)) == "0 min"
    assert duration(timedelta(minutes=50)) == "50 min"
    assert duration(timedelta(hours=3, minutes=20)) == "3 h 20 min"
    assert duration(timedelta(days=2, hours=3, minutes=20)) == "2 d 3 h"
