"""Loki: lines that it will not take, questions that it cannot answer, alerts that nobody hears of."""

from typing import Final

from monitoring.build.growth import growth
from monitoring.build.model import Alert, Fires, Silent

_L: Final = 'job="loki"'
_ONE: Final = 'job="loki",instance="l"'
_UP: Final = 'up{job="loki",instance="l"}'
_DISCARDED: Final = (
    "loki_discarded_samples_total{"
    + _ONE
    + ',reason="stream_limit",tenant="fake",retention_hours="168",policy="",format="otlp"}'
)
_ASKED: Final = (
    "loki_request_duration_seconds_count{" + _ONE + ',status_code="%s",route="otlp_v1_logs"}'
)
_FLUSHES: Final = (
    "loki_ingester_chunks_flush_failures_total",
    "loki_ingester_wal_disk_full_failures_total",
    "loki_ingester_wal_corruptions_total",
    "loki_ingester_checkpoint_creations_failed_total",
)
_RETENTION: Final = (
    "loki_compactor_apply_retention_last_successful_run_timestamp_seconds{" + _ONE + "}"
)
_STARTED: Final = "process_start_time_seconds{" + _ONE + "}"
_FAILURES: Final = (
    "loki_prometheus_rule_evaluation_failures_total{" + _ONE + ',user="fake",rule_group="g"}'
)
_MISSED: Final = (
    "loki_prometheus_rule_group_iterations_missed_total{" + _ONE + ',user="fake",rule_group="g"}'
)
_MANAGERS: Final = "loki_ruler_managers_total{" + _ONE + "}"
_RELOADED: Final = "loki_ruler_config_last_reload_successful{" + _ONE + ',user="fake"}'
_SENT: Final = (
    "loki_prometheus_notifications_errors_total{" + _ONE + ',user="fake",alertmanager="a"}'
)
_LOST: Final = "loki_prometheus_notifications_dropped_total{" + _ONE + ',user="fake"}'


def _stored(**values: str) -> dict[str, str]:
    """Return series of all that can fail, those that are not given at 0."""
    return {f"{metric}{{{_ONE}}}": values.get(metric, "0x120") for metric in _FLUSHES}


_DISCARDS: Final = Alert(
    name="LogLinesDiscarded",
    expr="sum by (reason) (\n"
    + growth(
        "loki_discarded_samples_total",
        *("tenant", "reason", "retention_hours", "policy", "format"),
        jobs=_L,
        window="10m",
    )
    + "\n) > 0",
    severity="warning",
    component="telemetry",
    wait="2m",
    summary="Loki refuses log lines: they are too many, too old or not as they should be.",
    description='{{ $value | printf "%.0f" }} lines were refused in the last <10m> ({{ $labels.reason }}); it'
    " should be 0.",
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={_DISCARDED: "_x20 40x20", _UP: "1x50"},
            at="25m",
            labels={"reason": "stream_limit"},
            value="40",
        ),
    ),
    silent=(
        Silent(why="it was long ago", series={_DISCARDED: "40x40", _UP: "1x40"}, at="30m"),
        Silent(why="all are taken", series={_UP: "1x40"}, at="30m"),
    ),
)

_REQUESTS: Final = Alert(
    name="LokiRequestsFailing",
    expr=f"""
        sum(rate(loki_request_duration_seconds_count{{{_L},status_code=~"5.."}}[5m]))
        / (sum(rate(loki_request_duration_seconds_count{{{_L},route!~"ready|metrics"}}[5m])) > 0)
        > 0.05
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Loki fails to take log lines or to answer questions.",
    description="{{ $value | humanizePercentage }} of its requests failed in the last <5m>; it should be"
    " below 5 %. Dashboards lack lines, and the collector keeps what it cannot hand over.",
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={_ASKED % "500": "0+6x30", _ASKED % "204": "0+54x30"},
            at="20m",
            value="10%",
        ),
    ),
    silent=(
        Silent(
            why="one of a hundred",
            series={_ASKED % "500": "0+1x30", _ASKED % "204": "0+99x30"},
            at="20m",
        ),
        Silent(why="nobody asks", series={_ASKED % "204": "50x30"}, at="20m"),
        Silent(
            why="it was restarted three minutes ago",
            series={_ASKED % "500": "0x16 30x20", _ASKED % "204": "0+54x40"},
            at="19m",
        ),
    ),
)

_STORAGE: Final = Alert(
    name="LokiStorageFailing",
    expr=" + ".join(f"sum(increase({metric}{{{_L}}}[30m]))" for metric in _FLUSHES) + " > 0",
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Loki cannot write what it was given: lines are in its memory only.",
    description='Its storage failed {{ $value | printf "%.0f" }} times in the last <30m>; it should be 0.',
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series=_stored(loki_ingester_wal_disk_full_failures_total="0x40 2x40"),
            at="50m",
            value="2",
        ),
        Fires(
            series=_stored(loki_ingester_chunks_flush_failures_total="0x40 4x40"),
            at="50m",
            value="4",
        ),
    ),
    silent=(
        Silent(why="nothing fails", series=_stored(), at="50m"),
        Silent(
            why="it failed once, before",
            series=_stored(loki_ingester_chunks_flush_failures_total="3x80"),
            at="50m",
        ),
    ),
)

_STALE: Final = Alert(
    name="LogRetentionStale",
    # The compactor has a pace of its own (every ten minutes), also in the demonstration.
    expr=f"""
        time() - max(loki_compactor_apply_retention_last_successful_run_timestamp_seconds{{{_L}}})
          > $seconds(1h, 45m)
        and
        time() - max(process_start_time_seconds{{{_L}}}) > $seconds(1h, 45m)
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Loki has not removed expired log lines for long: its disk will fill.",
    description="Retention last succeeded {{ $value | humanizeDuration }} ago; it should be every"
    " 10 minutes.",
    dashboard="telemetry-cost",
    fires=(
        Fires(series={_RETENTION: "600x90", _STARTED: "0x90"}, at="77m", value="1h 7m 0s"),
        Fires(series={_RETENTION: "0x90", _STARTED: "0x90"}, at="66m", value="1h 6m 0s"),
    ),
    silent=(
        Silent(
            why="it ran ten minutes ago",
            series={_RETENTION: "0+60x90", _STARTED: "0x90"},
            at="77m",
        ),
        Silent(
            why="it has just been started, and it is 0 until it ran",
            series={_RETENTION: "0x90", _STARTED: "3000x90"},
            at="77m",
        ),
    ),
)

_RULES: Final = Alert(
    name="LogRulesFailing",
    expr=f"""
        sum by (rule_group) (
          increase(loki_prometheus_rule_evaluation_failures_total{{{_L}}}[15m])
          + on (instance, rule_group)
          increase(loki_prometheus_rule_group_iterations_missed_total{{{_L}}}[15m])
        ) > 0
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Alerts on log lines are not evaluated: they would not fire.",
    description='Evaluations of {{ $labels.rule_group }} failed or were left out {{ $value | printf "%.0f" }}'
    " times in the last <15m>; it should be 0.",
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={_FAILURES: "0+1x40", _MISSED: "0x40"},
            at="30m",
            labels={"rule_group": "g"},
            value="15",
        ),
    ),
    silent=(
        Silent(why="all are evaluated", series={_FAILURES: "0x40", _MISSED: "0x40"}, at="30m"),
        Silent(
            why="one was left out, three minutes ago",
            series={_FAILURES: "0x40", _MISSED: "0x26 1x20"},
            at="29m",
        ),
    ),
)

_NOT_LOADED: Final = Alert(
    name="LogRulesNotLoaded",
    expr=f"""
        max by (instance) (loki_ruler_managers_total{{{_L}}}) == 0
        or
        min by (instance) (loki_ruler_config_last_reload_successful{{{_L}}}) == 0
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Loki has no rules, or could not read them: no alert on log lines can fire.",
    description="{{ $labels.instance }} finds no rules, or refuses them (it should be 1, and is"
    " {{ $value }}).",
    dashboard="telemetry-cost",
    fires=(
        Fires(series={_MANAGERS: "0x20"}, at="10m", labels={"instance": "l"}, value="0"),
        Fires(
            series={_MANAGERS: "1x20", _RELOADED: "1x5 0x20"},
            at="15m",
            labels={"instance": "l"},
            value="0",
        ),
    ),
    silent=(
        Silent(why="they are there", series={_MANAGERS: "1x20", _RELOADED: "1x20"}, at="15m"),
        Silent(why="it has just been started", series={_MANAGERS: "0x3 1x20"}, at="6m"),
    ),
)

_UNHEARD: Final = Alert(
    name="LogAlertsNotDelivered",
    expr=f"""
        sum(increase(loki_prometheus_notifications_errors_total{{{_L}}}[15m]))
        + (sum(increase(loki_prometheus_notifications_dropped_total{{{_L}}}[15m])) or vector(0))
        > 0
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Alerts on log lines do not reach Alertmanager: nobody is told of them.",
    description='Loki failed {{ $value | printf "%.0f" }} times to tell Alertmanager in the last <15m>; it'
    " should be 0.",
    dashboard="telemetry-cost",
    fires=(Fires(series={_SENT: "0+1x40", _LOST: "0x40"}, at="30m", value="15"),),
    silent=(
        Silent(why="all arrive", series={_SENT: "0x40", _LOST: "0x40"}, at="30m"),
        Silent(
            why="Alertmanager was restarted three minutes ago",
            series={_SENT: "0x26 1x20", _LOST: "0x40"},
            at="29m",
        ),
    ),
)

LOKI: Final = (_DISCARDS, _REQUESTS, _STORAGE, _STALE, _RULES, _NOT_LOADED, _UNHEARD)
