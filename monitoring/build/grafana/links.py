"""Links between dashboards, into Explore and to what stands beside Grafana; all keep time and variables."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

SHOWN_TIME: Final = {"from": "${__from}", "to": "${__to}"}


def uid(name: str) -> str:
    """Return the fixed uid of a dashboard."""
    return f"glasshouse-{name}"


def neighbour(name: str, title: str) -> DashboardLink:
    """Return a link at the top of a dashboard to another one."""
    return (
        DashboardLink(title)
        .type(DashboardLinkType.LINK)
        .icon("dashboard")
        .tooltip(f"The same time and instances on the dashboard {title}")
        .url(f"/d/{uid(name)}")
        .keep_time(True)
        .include_vars(True)
    )


def all_dashboards() -> DashboardLink:
    """Return the menu of all dashboards."""
    return (
        DashboardLink("All dashboards")
        .type(DashboardLinkType.DASHBOARDS)
        .tags(["glasshouse"])
        .as_dropdown(True)
        .icon("external link")
        .keep_time(True)
        .include_vars(True)
    )


def explore_logs(expr: str, title: str = "Logs") -> DashboardLink:
    """Return a link to the log lines of the shown time in Explore."""
    return _external(title, "The log lines of this time in Explore", logs_url(expr), icon="doc")


def explore_traces(service: str, title: str = "Traces") -> DashboardLink:
    """Return a link to the traces of the shown time in Explore."""
    url = traces_url(service)
    return _external(title, "The traces of this time in Explore", url, icon="bolt")


def logs_url(expr: str) -> str:
    """Return the address of Explore with a LogQL query, for the shown time."""
    query = {
        "refId": "A",
        "datasource": {"type": "loki", "uid": "loki"},
        "expr": expr,
        "queryType": "range",
    }
    return _explore("loki", query)


def traces_url(service: str) -> str:
    """Return the address of Explore with a search for traces, for the shown time."""
    query = {
        "refId": "A",
        "datasource": {"type": "jaeger", "uid": "jaeger"},
        "queryType": "search",
        "service": service,
        "limit": 20,
    }
    return _explore("jaeger", query)


def drill_down(
    name: str, title: str, variables: Mapping[str, str], *, fixed: Mapping[str, str] | None = None
) -> DashboardLink:
    """Return a data link from a point of a series to another dashboard: its label becomes a variable.

    `variables` maps the name of the variable to the label: {"handler": "handler"}; `fixed` to a value.
    """
    chosen = "".join(
        f"&var-{variable}=${{__field.labels.{label}}}" for variable, label in variables.items()
    ) + "".join(f"&var-{variable}={value}" for variable, value in (fixed or {}).items())
    return (
        DashboardLink(title)
        .type(DashboardLinkType.LINK)
        .url(f"/d/{uid(name)}?${{__url_time_range}}&${{environment:queryparam}}{chosen}")
    )


def from_row(name: str, title: str, variables: Mapping[str, str]) -> DashboardLink:
    """Return a data link from a row of a table to another dashboard: a cell becomes a variable.

    `variables` maps the name of the variable to the heading of the column: {"handler": "Route"}.
    """
    chosen = "".join(
        f'&var-{variable}=${{__data.fields["{heading}"]}}'
        for variable, heading in variables.items()
    )
    return (
        DashboardLink(title)
        .type(DashboardLinkType.LINK)
        .url(f"/d/{uid(name)}?${{__url_time_range}}&${{environment:queryparam}}{chosen}")
    )


def _external(title: str, tooltip: str, url: str, *, icon: str) -> DashboardLink:
    link = DashboardLink(title).type(DashboardLinkType.LINK).icon(icon).tooltip(tooltip)
    return link.url(url).target_blank(True)


def _explore(datasource: str, query: Mapping[str, Any]) -> str:
    pane = {"datasource": datasource, "queries": [query], "range": SHOWN_TIME}
    # What Grafana replaces must stay readable to it: ${name:format}.
    text = quote(json.dumps({"pane": pane}, separators=(",", ":")), safe="${}:_")
    return f"/explore?schemaVersion=1&orgId=1&panes={text}"
