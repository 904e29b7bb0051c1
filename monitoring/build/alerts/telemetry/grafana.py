"""Grafana: pages that it cannot show, and data sources that do not answer it."""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_G: Final = 'job="grafana"'
_QUERIES: Final = (
    'grafana_plugin_request_total{job="grafana",instance="g",plugin_id="loki",endpoint="queryData",'
    'status="%s",status_source="downstream",target="local"}'
)
_PAGES: Final = (
    'grafana_http_request_duration_seconds_count{job="grafana",instance="g",handler="/api/search",'
    'method="GET",status_code="%s"}'
)

_SOURCES: Final = Alert(
    name="GrafanaDataSourceFailing",
    expr=f"""
        sum by (plugin_id) (rate(grafana_plugin_request_total{{{_G},status="error"}}[10m]))
        / (sum by (plugin_id) (rate(grafana_plugin_request_total{{{_G}}}[10m])) > 0)
        > 0.2
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Panels stay empty: a data source does not answer Grafana.",
    description="{{ $value | humanizePercentage }} of the questions to {{ $labels.plugin_id }} failed in the"
    " last <10m>; it should be below 20 %.",
    dashboard="telemetry-cost",
    logs='{service_name="grafana"} | level=~"WARNING|ERROR|CRITICAL"',
    fires=(
        Fires(
            series={_QUERIES % "error": "0+3x40", _QUERIES % "ok": "0+3x40"},
            at="30m",
            labels={"plugin_id": "loki"},
            value="50%",
        ),
    ),
    silent=(
        Silent(
            why="somebody tries out a query",
            series={_QUERIES % "error": "0+1x40", _QUERIES % "ok": "0+9x40"},
            at="30m",
        ),
        Silent(
            why="nobody looks",
            series={_QUERIES % "error": "7x40", _QUERIES % "ok": "7x40"},
            at="30m",
        ),
    ),
)

_ERRORS: Final = Alert(
    name="GrafanaErrors",
    expr=f"""
        sum(rate(grafana_http_request_duration_seconds_count{{{_G},status_code=~"5.."}}[10m]))
        / (sum(rate(grafana_http_request_duration_seconds_count{{{_G}}}[10m])) > 0)
        > 0.05
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Grafana fails to answer: dashboards do not open.",
    description="{{ $value | humanizePercentage }} of its requests failed in the last <10m>; it should be"
    " below 5 %.",
    dashboard="telemetry-cost",
    logs='{service_name="grafana"} | level=~"WARNING|ERROR|CRITICAL"',
    fires=(
        Fires(series={_PAGES % "500": "0+1x40", _PAGES % "200": "0+9x40"}, at="30m", value="10%"),
    ),
    silent=(
        Silent(
            why="one of a hundred",
            series={_PAGES % "500": "0+1x40", _PAGES % "200": "0+99x40"},
            at="30m",
        ),
        Silent(why="nobody looks", series={_PAGES % "200": "90x40"}, at="30m"),
    ),
)

GRAFANA: Final = (_SOURCES, _ERRORS)
