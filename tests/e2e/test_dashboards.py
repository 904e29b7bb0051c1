"""Grafana: the login, data sources, dashboards, every panel's query, and the ways between signals."""

from typing import Any

import pytest

from deploy.stack.backends.grafana import Grafana
from deploy.stack.doctor.checks.dashboards import DASHBOARDS, DATA_SOURCES
from tests.e2e.conftest import Journey, Stack, eventually
from tests.monitoring.dashboards import Dashboard
from tests.monitoring.substitution import Filling, Times, filling, shown_seconds

SCRAPE_SECONDS = 15.0


@pytest.fixture(scope="module")
def grafana(stack: Stack) -> Grafana:
    """Grafana, once it lets us in."""
    grafana = stack.ask(Grafana)
    assert grafana.login() == stack.access.user
    return grafana


@pytest.mark.parametrize("uid", DATA_SOURCES)
def test_a_data_source_is_healthy(grafana: Grafana, uid: str) -> None:
    is_well, said = grafana.data_source_health(uid)
    assert is_well, said


def test_no_other_data_source_is_there(grafana: Grafana) -> None:
    assert set(grafana.data_sources()) == set(DATA_SOURCES)


def test_a_signal_leads_to_the_others(grafana: Grafana) -> None:
    sources = grafana.data_sources()
    of_metrics = sources["prometheus"]["jsonData"]
    of_logs = sources["loki"]["jsonData"]
    of_traces = sources["jaeger"]["jsonData"]
    exemplars = of_metrics["exemplarTraceIdDestinations"]
    assert ("trace_id", "jaeger") in {(one["name"], one.get("datasourceUid")) for one in exemplars}
    fields = {(one["matcherRegex"], one.get("datasourceUid")) for one in of_logs["derivedFields"]}
    assert ("^trace_id$", "jaeger") in fields
    assert of_traces["tracesToLogsV2"]["datasourceUid"] == "loki"
    assert "${__span.traceId}" in of_traces["tracesToLogsV2"]["query"]
    assert of_traces["tracesToMetrics"]["datasourceUid"] == "prometheus"
    assert of_traces["nodeGraph"]["enabled"] is True
    targets = {one.get("targetUID") for one in grafana.correlations()}
    assert targets >= {"prometheus", "loki"}


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_is_provisioned(grafana: Grafana, uid: str) -> None:
    found = grafana.dashboard(uid)
    assert found["meta"]["provisioned"] is True
    assert found["dashboard"]["panels"]


def _values(grafana: Grafana, series: str, label: str) -> list[str]:
    path = f"/api/datasources/proxy/uid/prometheus/api/v1/label/{label}/values"
    answer = grafana.get(path, **({"match[]": series} if series else {}))
    found: list[str] = answer["data"]
    return found


def _queries(board: Dashboard, filled: Filling) -> list[tuple[str, dict[str, Any]]]:
    """Return every target of every panel as a browser sends it, with the name of its panel."""
    found = []
    for panel in board.panels:
        for target in panel.get("targets", ()):
            if target.get("hide"):
                continue
            sent = {
                name: filled.fill(value) if isinstance(value, str) else value
                for name, value in target.items()
            }
            found.append(
                (
                    f"{panel['title']} {target['refId']}",
                    {"intervalMs": 15_000, "maxDataPoints": 500, **sent},
                )
            )
    return found


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_panel_is_answered(grafana: Grafana, journey: Journey, uid: str) -> None:
    board = Dashboard(uid, grafana.dashboard(uid)["dashboard"])
    times = Times(shown_seconds(board), SCRAPE_SECONDS)
    filled = filling(board, times, lambda series, label: _values(grafana, series, label))
    queries = _queries(board, filled)
    assert queries, "no panel asks anything"

    def wrong() -> list[str]:
        return [problem for name, query in queries if (problem := _problem(grafana, name, query))]

    found = wrong()
    # A store that is being started or is busy says so: what is wrong is so the second time as well.
    if found:
        eventually(lambda: not wrong(), "; ".join(found), seconds=30)


def _problem(grafana: Grafana, name: str, query: dict[str, Any]) -> str:
    result = grafana.run([query]).get(query["refId"], {})
    if result.get("error") or result.get("status", 200) >= 400 or "frames" not in result:
        return f"{name}: {result.get('error') or result.get('status') or 'no answer'}"
    return ""
