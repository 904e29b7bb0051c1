"""The lint of dashboards: what Grafana would draw, and what a person would read.

That every query has an answer is shown on real programs (test_dashboards_live.py); here is what can be known
without them, for all dashboards at once.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from urllib.parse import unquote

import pytest

from monitoring.build.dashboards import boards, quiet_panels
from monitoring.build.model import Alert, Record
from monitoring.build.profile import PRODUCTION
from tests.monitoring import log_contract, promql, rulebook
from tests.monitoring.dashboards import Dashboard, asked_by, dashboards, filled_in, variables_in
from tests.monitoring.queries import shown

ALL = dashboards()
SOURCES = {
    ("prometheus", "prometheus"),
    ("loki", "loki"),
    ("jaeger", "jaeger"),
    ("alertmanager", "alertmanager"),
}
WITHOUT_UNIT = {"text", "logs", "nodeGraph", "heatmap", "dashlist", "alertlist"}
COLUMN_PIXELS = (1440 - 64) / 24  # the side menu is closed, margins are not the panel's
CHARACTER_PIXELS = 9  # of a title, in Grafana's type face, on average
OVER_TIME = {"rate", "irate", "increase", "delta", "deriv"}
NEVER_ZERO = re.compile(
    r"_max$|_limit|_max_|capacity|_size_bytes$|MemTotal|_cores|objective|retention|cpu_seconds"
)
"""What may stand below a division line as it is: limits and sizes."""
Complaints = list[str]


def everywhere(check: Callable[[Dashboard], Iterator[str]]) -> Complaints:
    """Return what a check says of all dashboards."""
    return [f"{dashboard}: {complaint}" for dashboard in ALL for complaint in check(dashboard)]


def promql_of(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    """Yield what a dashboard asks of Prometheus: where, and the query with its variables."""
    return ((query.name, query.text) for query in shown(dashboard, "promql"))


def selectors(dashboard: Dashboard) -> Iterator[tuple[str, str, promql.Selector]]:
    """Yield what a dashboard reads: where, the query with its variables, and the series."""
    for where, expr in promql_of(dashboard):
        for selector in promql.selectors(filled_in(expr)):
            yield where, expr, selector


# What there is ----------------------------------------------------------------------------------------


def test_there_are_the_dashboards_that_alerts_lead_to() -> None:
    assert {alert.dashboard for alert in rulebook.alerts()} <= {board.name for board in ALL}
    assert {board.name for board in boards()} == {board.name for board in ALL}
    assert [board.content["uid"] for board in ALL] == [f"glasshouse-{board.name}" for board in ALL]
    assert len({board.content["title"] for board in ALL}) == len(ALL)


def test_each_asks_one_question_and_answers_it_from_symptom_to_cause() -> None:
    for dashboard in ALL:
        head, first = dashboard.placed[:2]
        assert head["type"] == "text", dashboard.name
        assert re.match(r"### .+\?\n.+", head["options"]["content"]), dashboard.name
        assert dashboard.content["description"].endswith("?"), dashboard.name
        assert first["type"] == "row", dashboard.name
        assert 8 <= len(dashboard.panels) <= 40, (dashboard.name, len(dashboard.panels))


def test_every_panel_and_query_names_its_source_by_uid() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        asking = [panel for panel in dashboard.panels if panel["type"] != "text"]
        named = {
            **{panel["title"]: panel["datasource"] for panel in asking},
            **{
                f"{panel['title']} {target['refId']}": target["datasource"]
                for panel in asking
                for target in panel["targets"]
            },
            **{f"${name}": one["datasource"] for name, one in dashboard.variables.items()},
            **{one["name"]: one["datasource"] for one in dashboard.annotations},
        }
        for where, source in named.items():
            if (source.get("type"), source.get("uid")) not in SOURCES:
                yield f"{where}: {source}"

    assert everywhere(check) == []


def test_every_panel_says_what_it_shows_what_is_normal_and_what_to_do() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for panel in dashboard.panels:
            if panel["type"] == "text":
                continue
            parts = panel.get("description", "").split("\n\n")
            marks = ["", "**Normal:** ", "**If not:** "]
            if (dashboard.content["uid"], panel["title"]) in quiet_panels():
                marks.append("**Empty:** ")
            if len(parts) != len(marks) or not all(
                part.startswith(mark) and len(part) >= len(mark) + 3
                for part, mark in zip(parts, marks, strict=False)
            ):
                yield f"{panel['title']}: {panel.get('description')!r}"

    assert everywhere(check) == []


def test_every_figure_has_a_unit() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for panel in dashboard.panels:
            unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
            if panel["type"] not in WITHOUT_UNIT and not unit:
                yield f"{panel['title']}: no unit"

    assert everywhere(check) == []


# How it looks -----------------------------------------------------------------------------------------


def test_nothing_overlaps_or_leaves_the_screen_and_ids_are_unique() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        taken: dict[tuple[int, int], str] = {}
        for panel in dashboard.placed:
            place = panel["gridPos"]
            if place["x"] + place["w"] > 24:
                yield f"{panel['title']} leaves the screen"
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    if (x, y) in taken:
                        yield f"{panel['title']} lies over {taken[x, y]}"
                    taken[x, y] = panel["title"]
        ids = [panel["id"] for panel in dashboard.placed]
        if len(set(ids)) != len(ids):
            yield "ids are not unique"
        titles = [panel["title"] for panel in dashboard.placed]
        yield from (f"two panels {title!r}" for title in set(titles) if titles.count(title) > 1)

    assert everywhere(check) == []


def test_titles_fit_at_1440_pixels() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for panel in dashboard.panels:
            # Left of the title is a margin, right of it the (i) and the menu.
            room = panel["gridPos"]["w"] * COLUMN_PIXELS - 56
            if len(panel["title"]) * CHARACTER_PIXELS > room:
                yield f"{panel['title']!r} is wider than {room:.0f} pixels"

    assert everywhere(check) == []


def test_lines_have_names_of_their_own() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for panel in dashboard.panels:
            if panel["type"] not in {"timeseries", "bargauge", "state-timeline"}:
                continue
            names = [target["legendFormat"] for target in panel["targets"] if "expr" in target]
            if "__auto" in names or "" in names or len(set(names)) != len(names):
                yield f"{panel['title']}: {names}"

    assert everywhere(check) == []


# What it asks -----------------------------------------------------------------------------------------


def test_queries_read_what_is_emitted_with_labels_that_there_are() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for where, expr in promql_of(dashboard):
            try:
                read = promql.selectors(filled_in(expr))
            except ValueError as error:
                yield f"{where}: {expr}: {error}"
                continue
            for selector in read:
                if not rulebook.exists(selector.metric):
                    yield f"{where}: nothing emits {selector.metric or expr}"
                for complaint in rulebook.complaints_about_labels(selector):
                    if ".+" not in complaint:
                        yield f"{where}: {complaint}"

    assert everywhere(check) == []


def test_queries_say_whose_series_they_mean() -> None:
    """By job, or by the chosen instances, which are those of a job."""

    def check(dashboard: Dashboard) -> Iterator[str]:
        for where, expr, selector in selectors(dashboard):
            ours = rulebook.metrics().get(selector.metric)
            chosen = selector.values("job") or selector.values("instance")
            if ours is not None and not chosen and selector.metric != "build_info":
                yield f"{where}: {selector.metric} of which process? {expr}"

    assert everywhere(check) == []


def test_log_queries_name_streams_and_fields_that_log_lines_have() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for query in shown(dashboard, "logql"):
            for complaint in log_contract.complaints(filled_in(query.text)):
                yield f"{query.name}: {complaint}"

    assert everywhere(check) == []


def test_searches_for_traces_name_services_and_tags_that_spans_have() -> None:
    known = log_contract.services()
    tags = log_contract.catalogue().attributes.keys() | {"error"}

    def check(dashboard: Dashboard) -> Iterator[str]:
        for query in shown(dashboard, "jaeger"):
            if query.service not in known:
                yield f"{query.name}: no spans of {query.service}"
            for tag in re.findall(r"([\w.]+)=", query.text):
                if tag not in tags:
                    yield f"{query.name}: no span has {tag}"

    assert everywhere(check) == []


def test_rates_follow_the_zoom() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for where, expr in promql_of(dashboard):
            for function, window in re.findall(r"\b(\w+)\([^\[\]()]*\[([^\]]+)\]", expr):
                follows = window in {"$__rate_interval", "$__range"}
                if function in OVER_TIME and not follows:
                    yield f"{where}: {function} over {window}: {expr}"

    assert everywhere(check) == []


def test_rates_are_of_counters_and_quantiles_of_aggregated_buckets() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for where, expr, selector in selectors(dashboard):
            inner = selector.functions[0] if selector.functions else ""
            ours = rulebook.metrics().get(selector.metric)
            counter = selector.metric.endswith(("_total", "_bucket", "_sum", "_count"))
            if ours and inner in {"rate", "increase"} and not counter:
                yield f"{where}: {inner} of {selector.metric}, which is no counter"
            if counter and inner in {"delta", "deriv"}:
                yield f"{where}: {inner} of {selector.metric}, which is a counter"
            if re.search(r":.*(p\d\d|ratio)", selector.metric) and "avg" in selector.functions:
                yield f"{where}: an average of {selector.metric}: {expr}"
        for where, expr in promql_of(dashboard):
            if not all(promql.quantiles(filled_in(expr))):
                yield f"{where}: a quantile of buckets that are not summed by le"

    assert everywhere(check) == []


def test_nothing_is_divided_by_nothing() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for where, expr in promql_of(dashboard):
            for denominator in promql.denominators(filled_in(expr)):
                guarded = re.search(r">\s*(bool\s+)?0|clamp_min", denominator)
                if not guarded and not NEVER_ZERO.search(denominator):
                    yield f"{where}: what if {denominator} is 0?"

    assert everywhere(check) == []


def test_vectors_are_joined_by_labels_that_both_have() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        for where, expr in promql_of(dashboard):
            for join in promql.joins(filled_in(expr)):
                if not join.explicit and not join.aggregated and join.operator != "or":
                    yield f"{where}: say on(...): {join.text}"

    assert everywhere(check) == []


# Where it leads ---------------------------------------------------------------------------------------


def test_variables_that_are_named_are_there_and_all_are_used() -> None:
    def check(dashboard: Dashboard) -> Iterator[str]:
        content = dict(dashboard.content)
        del content["templating"]
        queries = " ".join(map(asked_by, dashboard.variables.values()))
        named = variables_in(json.dumps(content)) | variables_in(queries)
        yield from (
            f"${name} is not defined" for name in sorted(named - dashboard.variables.keys())
        )
        yield from (f"${name} is not used" for name in sorted(dashboard.variables.keys() - named))

    assert everywhere(check) == []


@pytest.mark.parametrize("alert", rulebook.alerts(), ids=lambda alert: alert.name)
def test_alerts_lead_to_a_dashboard_that_takes_what_they_hand_over(alert: Alert) -> None:
    """And on which the figure that the alert is about can be seen."""
    dashboard = next(board for board in ALL if board.name == alert.dashboard)
    handed = {variable.partition("=")[0] for variable in alert.variables}
    assert handed <= dashboard.variables.keys()
    about = {
        name
        for selector in promql.selectors(PRODUCTION.promql(alert.expr))
        for name in base(selector.metric)
    }
    assert not about or shown_on(alert.dashboard) & about, (
        f"none of {sorted(about)} is on the dashboard {dashboard.name}"
    )


@cache
def base(metric: str) -> frozenset[str]:
    """Return the metrics that a series is made of: those of a record's expression, or itself."""
    made_of = _expressions().get(metric)
    if made_of is None:
        return frozenset({re.sub(r"_(bucket|sum|count)$", "", metric)})
    # A record may read itself in another family's rules: what is asked for is not asked again.
    read = {selector.metric for expr in made_of for selector in promql.selectors(expr)} - {metric}
    return frozenset({metric}).union(*(base(name) for name in read))


@cache
def _expressions() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for rule in rulebook.rules():
        if isinstance(rule.rule, Record):
            found.setdefault(rule.rule.name, set()).add(rule.expr)
    return found


@cache
def shown_on(name: str) -> frozenset[str]:
    """Return the metrics that stand on a dashboard, in its panels."""
    dashboard = next(board for board in ALL if board.name == name)
    return frozenset().union(
        *(
            base(selector.metric)
            for where, _, selector in selectors(dashboard)
            if not where.startswith("annotation ")
        )
    )


def test_links_lead_somewhere() -> None:
    uids = {dashboard.content["uid"] for dashboard in ALL}

    def check(dashboard: Dashboard) -> Iterator[str]:
        text = json.dumps(dashboard.content)
        yield from (
            f"there is no dashboard {uid}"
            for uid in re.findall(r"/d/([\w-]+)", text)
            if uid not in uids
        )
        if "All dashboards" not in [link["title"] for link in dashboard.content["links"]]:
            yield "no menu of dashboards"
        for link in dashboard.content["links"]:
            if link["type"] == "link" and link["url"].startswith("/d/"):
                if not (link["keepTime"] and link["includeVars"]):
                    yield f"{link['title']} forgets time or variables"
            elif link["type"] == "link":
                pane = json.loads(unquote(link["url"].partition("panes=")[2]))["pane"]
                if pane["range"] != {"from": "${__from}", "to": "${__to}"}:
                    yield f"{link['title']} forgets the time"

    assert everywhere(check) == []


def test_each_shows_alerts_and_deployments_beside_its_figures() -> None:
    for dashboard in ALL:
        assert [one["name"] for one in dashboard.annotations] == ["Alerts", "Deployments"]
        assert all(one["enable"] for one in dashboard.annotations)
