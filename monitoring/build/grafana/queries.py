"""What panels ask: Prometheus, Loki and Jaeger, each by the fixed uid of its data source.

The shapes of PromQL are in monitoring/build/records/expressions.py, what variables choose in selectors.py.
"""

from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import loki, prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.loki import LokiQueryType
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
LOKI: Final = DataSourceRef(type_val="loki", uid="loki")
JAEGER: Final = DataSourceRef(type_val="jaeger", uid="jaeger")

Query = Builder[Dataquery]

_SHOWN_LINE: Final = "{{if .message}}{{.level}} {{.message}}{{else}}{{__line__}}{{end}}"


def over_time(expr: str, legend: str = "", *, exemplars: bool = False) -> Query:
    """Return a PromQL query whose answer is drawn over time; with exemplars, dots lead to traces."""
    query = prometheus.Dataquery().expr(expr).range().legend_format(legend or "__auto")
    query = query.datasource(PROMETHEUS).editor_mode(QueryEditorMode.CODE)
    return query.exemplar(True) if exemplars else query


def now(expr: str, legend: str = "") -> Query:
    """Return a PromQL query for the end of the shown time only: one figure a series."""
    query = prometheus.Dataquery().expr(expr).instant().legend_format(legend or "__auto")
    return query.datasource(PROMETHEUS).editor_mode(QueryEditorMode.CODE)


def rows(expr: str) -> Query:
    """Return a PromQL query for the end of the shown time, as rows of a table: a column a label."""
    query = prometheus.Dataquery().expr(expr).instant().format(PromQueryFormat.TABLE)
    return query.datasource(PROMETHEUS).editor_mode(QueryEditorMode.CODE)


def buckets(expr: str) -> Query:
    """Return a PromQL query for a heatmap: increases of a classic histogram, summed by `le`."""
    query = prometheus.Dataquery().expr(expr).range().format(PromQueryFormat.HEATMAP)
    return query.legend_format("{{le}}").datasource(PROMETHEUS).editor_mode(QueryEditorMode.CODE)


def lines(expr: str) -> Query:
    """Return a LogQL query for log lines, the newest hundred of them.

    A line of ours is JSON: shown are its level and its message, what else it says stands in its fields.
    """
    query = loki.Dataquery().expr(f"{expr} | line_format `{_SHOWN_LINE}`").datasource(LOKI)
    return query.query_type(LokiQueryType.RANGE.value).max_lines(100)


def log_metric(expr: str, legend: str = "") -> Query:
    """Return a LogQL query that counts, drawn over time."""
    query = loki.Dataquery().expr(expr).query_type(LokiQueryType.RANGE.value)
    return query.legend_format(legend).datasource(LOKI)


@dataclass(slots=True)
class JaegerSearch(Dataquery):
    """A search for traces as Grafana's Jaeger data source stores it; the SDK does not have it."""

    service: str
    tags: str
    min_duration: str
    ref_id: str = "A"

    def to_json(self) -> dict[str, Any]:
        """Return what stands in the dashboard's JSON."""
        asked: dict[str, Any] = {
            "refId": self.ref_id,
            "datasource": JAEGER,
            "queryType": "search",
            "service": self.service,
            "tags": self.tags,
            "minDuration": self.min_duration,
            "limit": 20,
        }
        return {name: value for name, value in asked.items() if value != ""}


@dataclass(frozen=True, slots=True)
class _Search(Builder[Dataquery]):
    search: JaegerSearch

    def build(self) -> Dataquery:
        return self.search


def traces(service: str, *, tags: str = "", min_duration: str = "") -> Query:
    """Return a search for traces: of one service, with these tags (logfmt), at least this long."""
    return _Search(JaegerSearch(service, tags, min_duration))
