"""PromQL that stands on more than one dashboard."""

from typing import Final

from monitoring.build.grafana.selectors import ZOOM
from monitoring.build.records.expressions import rate

TARGETS_DOWN: Final = "count(up == 0) or vector(0)"
DEPENDENCIES: Final = "min by (dependency) (job_dependency:dependency_up:max)"
"""Whether all processes that need a dependency reach it."""
REQUEST_SPANS: Final = rate(
    "traces_span_metrics_calls_total",
    where='job="span-metrics",service_name="glasshouse",span_kind="SPAN_KIND_SERVER"',
    window=ZOOM,
)
"""Requests a second as their spans tell, before tail sampling."""


def requests_by_class(where: str) -> str:
    """Return requests a second by the first digit of their status, in a label `class`."""
    requests = f"rate(http_requests_total{{{where}}}[{ZOOM}])"
    return f'sum by (class) (label_replace({requests}, "class", "$1", "status", "(.).."))'
