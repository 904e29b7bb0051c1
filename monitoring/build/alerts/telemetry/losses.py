"""What our own processes drop, suppress or fold: the picture has holes where these move."""

from typing import Final

from monitoring.build.growth import growth
from monitoring.build.model import Alert, Fires, Silent

_OURS: Final = 'job=~"api|worker|payment-provider"'
_DROPPED_SERIES: Final = 'telemetry_dropped_total{job="api",instance="a",signal="traces"}'
_SUPPRESSED_SERIES: Final = 'error_reports_suppressed_total{job="api",instance="a"}'
_FOLDED_SERIES: Final = (
    'metrics_label_values_folded_total{job="api",instance="a",'
    'metric="http_requests_total",label="handler"}'
)
_FOLDED_LABELS: Final = {"job": "api", "metric": "http_requests_total", "label": "handler"}

_DROPPED: Final = Alert(
    name="TelemetryDropped",
    expr=f"sum by (job, signal) (increase(telemetry_dropped_total{{{_OURS}}}[10m])) >= 10",
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Log lines, spans or error reports are lost: what they would tell is not to be found.",
    description='The {{ $labels.job }} dropped {{ $value | printf "%.0f" }} {{ $labels.signal }} in the'
    " last <10m>; it should be 0.",
    dashboard="telemetry-cost",
    variables=("job", "signal"),
    logs='{service_name=~"glasshouse.*"} | type="telemetry"',
    fires=(
        Fires(
            series={_DROPPED_SERIES: "0+1.2x30"},
            at="20m",
            labels={"job": "api", "signal": "traces"},
            value="12",
        ),
    ),
    silent=(
        Silent(
            why="9 in ten minutes are hardly a hole", series={_DROPPED_SERIES: "0+0.9x30"}, at="20m"
        ),
        Silent(why="they were lost long ago", series={_DROPPED_SERIES: "500x30"}, at="20m"),
        Silent(
            why="the collector was restarted four minutes ago",
            series={_DROPPED_SERIES: "0x3 64x20"},
            at="8m",
        ),
    ),
)

_SUPPRESSED: Final = Alert(
    name="ErrorReportsSuppressed",
    expr='sum by (job) (increase(error_reports_suppressed_total{job=~"api|worker"}[15m])) >= 10',
    severity="info",
    component="telemetry",
    depends_on=("database", "payment_provider"),
    summary="The same errors happen so often that not each of them is reported.",
    description='The {{ $labels.job }} held back {{ $value | printf "%.0f" }} error reports in the last <15m>'
    " since there were enough of their kind; below 10 is usual.",
    dashboard="telemetry-cost",
    variables=("job",),
    logs='{service_name=~"glasshouse.*"} | type="error"',
    fires=(
        Fires(series={_SUPPRESSED_SERIES: "0+0.8x30"}, at="20m", labels={"job": "api"}, value="12"),
    ),
    silent=(
        Silent(why="9 were held back", series={_SUPPRESSED_SERIES: "0x10 9x20"}, at="20m"),
        Silent(why="it is over", series={_SUPPRESSED_SERIES: "90x30"}, at="20m"),
    ),
)

_WATCHED: Final = 'up{job="api",instance="a"}'

_FOLDED: Final = Alert(
    name="MetricsLabelsFolded",
    expr="sum by (job, metric, label) "
    + growth("metrics_label_values_folded_total", "metric", "label", jobs=_OURS, window="1h")
    + " > 0",
    severity="info",
    component="telemetry",
    summary="A label has more values than it was made for; what is beyond counts as other.",
    description='{{ $value | printf "%.0f" }} values of {{ $labels.label }} of {{ $labels.metric }} were'
    " counted as other in the {{ $labels.job }} in the last <1h>; it should be 0.",
    dashboard="telemetry-cost",
    variables=("job",),
    fires=(
        Fires(
            series={_FOLDED_SERIES: "_x70 1x30", _WATCHED: "1x100"},
            at="75m",
            labels=_FOLDED_LABELS,
            value="1",
        ),
        Fires(series={_FOLDED_SERIES: "5x70 12x20"}, at="80m", labels=_FOLDED_LABELS, value="7"),
    ),
    silent=(
        Silent(
            why="it was more than an hour ago",
            series={_FOLDED_SERIES: "_x5 4x90", _WATCHED: "1x100"},
            at="80m",
        ),
        Silent(
            why="Prometheus is new, and what it sees is old",
            series={_FOLDED_SERIES: "4x90", _WATCHED: "1x90"},
            at="30m",
        ),
        Silent(why="nothing is folded", series={'up{job="api",instance="a"}': "1x20"}, at="15m"),
    ),
)

LOSSES: Final = (_DROPPED, _SUPPRESSED, _FOLDED)
