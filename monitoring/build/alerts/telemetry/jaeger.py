"""Jaeger: spans that it lost, and traces that it cannot find any more."""

from typing import Final

from monitoring.build.growth import growth
from monitoring.build.model import Alert, Fires, Silent

_J: Final = 'job="jaeger"'
_READS: Final = f'{_J},operation!="get_trace"'
_UP: Final = 'up{job="jaeger",instance="j"}'
_ASKED: Final = (
    'jaeger_storage_requests_total{job="jaeger",instance="j",kind="badger",name="traces",role="tracestore",'
    'operation="%s",result="%s"}'
)
_FAILED: Final = (
    'otelcol_exporter_send_failed_spans_total{job="jaeger",instance="j",exporter="jaeger_storage_exporter",'
    'error_type="_OTHER",error_permanent="false"}'
)

_STORAGE: Final = Alert(
    name="JaegerQueriesFailing",
    # A trace that was not sampled, or is no longer kept, is an error of get_trace: people ask for those.
    expr=f"""
        sum by (operation) (rate(jaeger_storage_requests_total{{{_READS},result="err"}}[15m]))
        / (sum by (operation) (rate(jaeger_storage_requests_total{{{_READS}}}[15m])) > 0)
        > 0.1
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Jaeger cannot read traces: links from logs and graphs lead nowhere.",
    description="{{ $value | humanizePercentage }} of {{ $labels.operation }} failed in the last <15m>; it"
    " should be below 10 %.",
    dashboard="telemetry-cost",
    logs='{service_name="jaeger"} | level=~"WARNING|ERROR|CRITICAL"',
    fires=(
        Fires(
            series={
                _ASKED % ("find_traces", "err"): "0+1x40",
                _ASKED % ("find_traces", "ok"): "0+3x40",
            },
            at="30m",
            labels={"operation": "find_traces"},
            value="25%",
        ),
    ),
    silent=(
        Silent(
            why="one of twenty",
            series={
                _ASKED % ("find_traces", "err"): "0+1x40",
                _ASKED % ("find_traces", "ok"): "0+19x40",
            },
            at="30m",
        ),
        Silent(
            why="somebody asks for a trace that was not sampled",
            series={
                _ASKED % ("get_trace", "err"): "0+1x40",
                _ASKED % ("find_traces", "err"): "0x40",
                _ASKED % ("find_traces", "ok"): "0+1x40",
            },
            at="30m",
        ),
        Silent(
            why="nobody asks",
            series={
                _ASKED % ("find_traces", "err"): "9x40",
                _ASKED % ("find_traces", "ok"): "9x40",
            },
            at="30m",
        ),
    ),
)

_SPANS: Final = Alert(
    name="JaegerLosesSpans",
    expr="sum by (exporter) (\n"
    + growth(
        "otelcol_exporter_send_failed_spans_total",
        *("exporter", "error_type", "error_permanent"),
        jobs=_J,
        window="10m",
        young=f"otelcol_process_uptime_seconds_total{{{_J}}} < $seconds(10m)",
    )
    + "\n) > 0",
    severity="warning",
    component="telemetry",
    wait="2m",
    summary="Jaeger took spans and could not store them: traces have holes.",
    description='{{ $value | printf "%.0f" }} spans were lost in the last <10m>; it should be 0.',
    dashboard="telemetry-cost",
    logs='{service_name="jaeger"} | level=~"WARNING|ERROR|CRITICAL"',
    fires=(
        Fires(
            series={_FAILED: "_x20 80x20", _UP: "1x50"},
            at="25m",
            labels={"exporter": "jaeger_storage_exporter"},
            value="80",
        ),
    ),
    silent=(
        Silent(why="it was long ago", series={_FAILED: "80x40", _UP: "1x40"}, at="30m"),
        Silent(why="all are stored", series={_UP: "1x40"}, at="30m"),
    ),
)

JAEGER: Final = (_STORAGE, _SPANS)
