"""The collector: what it cannot hand on, what waits in it, and what it sends back.

A counter of failures begins with the first failure, and its labels say why: hence `growth`.
"""

from typing import Final

from monitoring.build.growth import growth
from monitoring.build.model import Alert, Fires, Silent

_C: Final = 'job="otel-collector"'
_YOUNG: Final = f"otelcol_process_uptime_seconds_total{{{_C}}} < $seconds(10m)"
_UP: Final = 'up{job="otel-collector",instance="c"}'
_SINK: Final = 'job="otel-collector",instance="c",exporter="otlp_http/loki"'
_FAILED: Final = (
    "otelcol_exporter_send_failed_log_records_total{"
    + _SINK
    + ',error_type="Unavailable",error_permanent="false"}'
)
_DROPPED: Final = "otelcol_exporter_enqueue_failed_log_records_total{" + _SINK + "}"
_QUEUE: Final = "otelcol_exporter_queue_size{" + _SINK + ',data_type="logs"}'
_CAPACITY: Final = "otelcol_exporter_queue_capacity{" + _SINK + ',data_type="logs"}'
_REFUSED: Final = (
    'otelcol_receiver_refused_spans_total{job="otel-collector",instance="c",receiver="otlp",'
    'transport="http"}'
)
_REFUSED_LINES: Final = (
    'otelcol_receiver_refused_log_records_total{job="otel-collector",instance="c",'
    'receiver="fluent_forward",transport="tcp"}'
)
_EARLY: Final = (
    "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total"
    '{job="otel-collector",instance="c"}'
)


def _grown(metric: str, *labels: str) -> str:
    """Return what has been lost in ten minutes, spans and lines."""
    spans, lines = (
        growth(metric.format(items), *labels, jobs=_C, window="10m", young=_YOUNG)
        for items in ("spans", "log_records")
    )
    return f"{spans}\nor\n{lines}"


_EXPORT: Final = Alert(
    name="CollectorExportFailing",
    expr="sum by (exporter) (\n"
    + _grown("otelcol_exporter_send_failed_{}_total", "exporter", "error_type", "error_permanent")
    + "\n) > 0",
    severity="warning",
    component="telemetry",
    summary="The collector gave up on spans or log lines that a backend would not take.",
    description='{{ $labels.exporter }} lost {{ $value | printf "%.0f" }} spans or lines in the last <10m>,'
    " tried again as long as it may; it should be 0.",
    dashboard="telemetry-cost",
    variables=("exporter",),
    fires=(
        Fires(
            series={_FAILED: "_x20 300x20", _UP: "1x50"},
            at="25m",
            labels={"exporter": "otlp_http/loki"},
            value="300",
        ),
        Fires(
            series={_FAILED: "5+4x40", _UP: "1x50"},
            at="25m",
            labels={"exporter": "otlp_http/loki"},
            value="40",
        ),
    ),
    silent=(
        Silent(why="it was long ago", series={_FAILED: "300x40", _UP: "1x40"}, at="30m"),
        Silent(why="nothing failed", series={_UP: "1x40"}, at="30m"),
    ),
)

_DROPS: Final = Alert(
    name="CollectorDropping",
    expr="sum by (exporter) (\n"
    + _grown("otelcol_exporter_enqueue_failed_{}_total", "exporter")
    + "\n) > 0",
    severity="warning",
    component="telemetry",
    summary="The collector drops spans or log lines: its queue is full.",
    description='{{ $labels.exporter }} dropped {{ $value | printf "%.0f" }} spans or lines in the last'
    " <10m>; it should be 0.",
    dashboard="telemetry-cost",
    variables=("exporter",),
    fires=(
        Fires(
            series={_DROPPED: "_x20 700x20", _UP: "1x50"},
            at="25m",
            labels={"exporter": "otlp_http/loki"},
            value="700",
        ),
    ),
    silent=(
        Silent(why="it was long ago", series={_DROPPED: "700x40", _UP: "1x40"}, at="30m"),
        Silent(why="it never was full", series={_UP: "1x40"}, at="30m"),
    ),
)

_NEAR_FULL: Final = Alert(
    name="CollectorQueueNearFull",
    expr=f"""
        max by (instance, exporter) (otelcol_exporter_queue_size{{{_C}}})
        / max by (instance, exporter) (otelcol_exporter_queue_capacity{{{_C}}}) > 0.8
    """,
    severity="warning",
    component="telemetry",
    wait="2m",
    summary="What the collector has to hand on piles up: soon it will drop what comes.",
    description="The queue of {{ $labels.exporter }} is {{ $value | humanizePercentage }} full; it should be"
    " below 80 %.",
    dashboard="telemetry-cost",
    variables=("exporter",),
    fires=(
        Fires(
            series={_QUEUE: "100x5 45000x10", _CAPACITY: "50000x20"},
            at="10m",
            labels={"instance": "c", "exporter": "otlp_http/loki"},
            value="90%",
        ),
    ),
    silent=(
        Silent(
            why="it empties again",
            series={_QUEUE: "100x5 45000 100x10", _CAPACITY: "50000x20"},
            at="10m",
        ),
        Silent(why="half full", series={_QUEUE: "25000x15", _CAPACITY: "50000x20"}, at="10m"),
    ),
)

_REFUSES: Final = Alert(
    name="CollectorRefusing",
    expr=f"""
        sum by (receiver) (
          increase(otelcol_receiver_refused_spans_total{{{_C}}}[10m])
          or
          increase(otelcol_receiver_refused_log_records_total{{{_C}}}[10m])
        ) >= 10
    """,
    severity="warning",
    component="telemetry",
    summary="The collector sends spans or log lines back: it is out of memory, or cannot read them.",
    description='{{ $labels.receiver }} refused {{ $value | printf "%.0f" }} spans or lines in the last'
    " <10m>; it should be 0.",
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={_REFUSED: "0+6x30", _REFUSED_LINES: "0x30"},
            at="15m",
            labels={"receiver": "otlp"},
            value="60",
        ),
        Fires(
            series={_REFUSED: "0x30", _REFUSED_LINES: "0+12x30"},
            at="15m",
            labels={"receiver": "fluent_forward"},
            value="120",
        ),
    ),
    silent=(
        Silent(why="it was long ago", series={_REFUSED: "60x30"}, at="20m"),
        Silent(
            why="nothing is refused", series={_REFUSED: "0x30", _REFUSED_LINES: "0x30"}, at="20m"
        ),
    ),
)

_TOO_EARLY: Final = Alert(
    name="TracesDecidedTooEarly",
    expr=f"""
        sum(
          increase(otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total{{{_C}}}[10m])
        ) >= 10
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Traces are thrown away before anybody looked whether they are worth keeping.",
    description='{{ $value | printf "%.0f" }} traces left the memory of tail sampling undecided in the last'
    " <10m>; it should be 0. Errors may be among them.",
    dashboard="telemetry-cost",
    fires=(Fires(series={_EARLY: "0+10x30"}, at="20m", value="100"),),
    silent=(
        Silent(why="all are decided", series={_EARLY: "0x30"}, at="20m"),
        Silent(why="one burst, and it is over", series={_EARLY: "0x10 200x30"}, at="22m"),
    ),
)

COLLECTOR: Final = (_EXPORT, _DROPS, _NEAR_FULL, _REFUSES, _TOO_EARLY)
