"""Prometheus and Alertmanager: rules that are not evaluated, alerts and notifications that get lost.

Of what reaches nobody at all only the Watchdog tells, by its silence.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_P: Final = 'job="prometheus"'
_FAILURES: Final = (
    'prometheus_rule_evaluation_failures_total{job="prometheus",instance="p",'
    'rule_group="/etc/prometheus/rules/api.rules.yml;api"}'
)
_ERRORS: Final = (
    'prometheus_notifications_errors_total{job="prometheus",instance="p",alertmanager="http://a"}'
)
_DROPPED: Final = 'prometheus_notifications_dropped_total{job="prometheus",instance="p"}'
_FAILED: Final = (
    'alertmanager_notifications_failed_total{job="alertmanager",instance="a",integration="%s"}'
)
_P_RELOADED: Final = 'prometheus_config_last_reload_successful{job="prometheus",instance="p"}'
_A_RELOADED: Final = 'alertmanager_config_last_reload_successful{job="alertmanager",instance="a"}'
_STARTED: Final = 'process_start_time_seconds{job="prometheus",instance="p"}'
_TSDB: Final = (
    "prometheus_tsdb_compactions_failed_total",
    "prometheus_tsdb_reloads_failures_total",
    "prometheus_tsdb_wal_corruptions_total",
    "prometheus_tsdb_checkpoint_creations_failed_total",
)

_RULE_FAILURES: Final = Alert(
    name="PrometheusRuleFailures",
    expr=f"sum by (rule_group) (increase(prometheus_rule_evaluation_failures_total{{{_P}}}[5m])) > 0",
    severity="warning",
    component="telemetry",
    wait="2m",
    summary="Rules cannot be evaluated: their alerts cannot fire.",
    description='Evaluations of {{ $labels.rule_group }} failed {{ $value | printf "%.0f" }} times in'
    " the last <5m>; it should be 0.",
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={_FAILURES: "0x5 0+4x20"},
            at="12m",
            labels={"rule_group": "/etc/prometheus/rules/api.rules.yml;api"},
            value="20",
        ),
    ),
    silent=(
        Silent(why="it failed once, a minute ago", series={_FAILURES: "0x3 8x30"}, at="5m"),
        Silent(why="all are evaluated", series={_FAILURES: "0x30"}, at="15m"),
    ),
)

_NOTIFICATIONS: Final = Alert(
    name="PrometheusNotificationsFailing",
    expr=f"""
        sum(increase(prometheus_notifications_errors_total{{{_P}}}[5m]))
        + sum(increase(prometheus_notifications_dropped_total{{{_P}}}[5m])) > 0
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Prometheus cannot hand its alerts to an Alertmanager.",
    description='{{ $value | printf "%.0f" }} alerts could not be delivered in the last <5m>;'
    " it should be 0.",
    dashboard="telemetry-cost",
    fires=(Fires(series={_ERRORS: "0+2x30", _DROPPED: "0+1x30"}, at="20m", value="15"),),
    silent=(
        Silent(
            why="Alertmanager was restarted, once",
            series={_ERRORS: "0x5 4x30", _DROPPED: "0x30"},
            at="9m",
        ),
        Silent(why="all arrive", series={_ERRORS: "9x30", _DROPPED: "0x30"}, at="20m"),
    ),
)

_NOT_NOTIFIED: Final = Alert(
    name="AlertmanagerNotificationsFailing",
    expr="""
        sum by (integration) (
          increase(alertmanager_notifications_failed_total{job="alertmanager"}[15m])
        ) > 0
    """,
    severity="critical",
    component="telemetry",
    wait="5m",
    summary="Notifications do not reach people through one of the channels.",
    description='{{ $value | printf "%.0f" }} notifications by {{ $labels.integration }} failed in the last'
    " <15m>; it should be 0. This one has come by another channel.",
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={_FAILED % "slack": "0+1x30", _FAILED % "email": "0x30"},
            at="20m",
            labels={"integration": "slack"},
            value="15",
        ),
    ),
    silent=(
        Silent(why="all are delivered", series={_FAILED % "slack": "7x30"}, at="20m"),
        Silent(
            why="one failed four minutes ago", series={_FAILED % "slack": "0x16 1x20"}, at="20m"
        ),
    ),
)

_ALERTMANAGER_CONFIG: Final = Alert(
    name="AlertmanagerConfigReloadFailed",
    expr='alertmanager_config_last_reload_successful{job="alertmanager"} == 0',
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Alertmanager refuses its configuration and goes on with the old one.",
    description="{{ $labels.instance }} could not read its configuration (last_reload_successful is"
    " {{ $value }}; 1 is good). It will not start with it.",
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={_A_RELOADED: "1x5 0x10"},
            at="12m",
            labels={"job": "alertmanager", "instance": "a"},
            value="0",
        ),
    ),
    silent=(Silent(why="somebody is repairing it", series={_A_RELOADED: "1x5 0x10"}, at="9m"),),
)

_PROMETHEUS_CONFIG: Final = Alert(
    name="PrometheusConfigReloadFailed",
    expr=f"prometheus_config_last_reload_successful{{{_P}}} == 0",
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Prometheus refuses its configuration or rules and goes on with the old ones.",
    description="{{ $labels.instance }} could not read its configuration (last_reload_successful is"
    " {{ $value }}; 1 is good). It will not start with it.",
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={_P_RELOADED: "1x5 0x10"},
            at="12m",
            labels={"job": "prometheus", "instance": "p"},
            value="0",
        ),
    ),
    silent=(Silent(why="somebody is repairing it", series={_P_RELOADED: "1x5 0x10"}, at="9m"),),
)

_RESTARTING: Final = Alert(
    name="PrometheusRestarting",
    expr=f"max(changes(process_start_time_seconds{{{_P}}}[1h])) >= 3",
    severity="warning",
    component="telemetry",
    summary="Prometheus has restarted again and again: it crashes, or is killed.",
    description='It started {{ $value | printf "%.0f" }} times in the last <1h>; below 3 is usual.',
    dashboard="telemetry-cost",
    fires=(Fires(series={_STARTED: "1x10 600x10 1200x10 1800x20"}, at="45m", value="3"),),
    silent=(
        Silent(
            why="a configuration was tried out", series={_STARTED: "1x10 600x10 1200x30"}, at="45m"
        ),
    ),
)

_STORAGE: Final = Alert(
    name="PrometheusStorageFailing",
    expr=" + ".join(f"sum(increase({metric}{{{_P}}}[1h]))" for metric in _TSDB) + " > 0",
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="Prometheus cannot write or read what it stores.",
    description='Its storage failed {{ $value | printf "%.0f" }} times in the last <1h>; it should be 0.',
    dashboard="telemetry-cost",
    fires=(
        Fires(
            series={
                f'{_TSDB[0]}{{job="prometheus",instance="p"}}': "0x60 2x20",
                **{f'{metric}{{job="prometheus",instance="p"}}': "0x80" for metric in _TSDB[1:]},
            },
            at="70m",
            value="2",
        ),
    ),
    silent=(
        Silent(
            why="it failed two minutes ago, and may have repaired itself",
            series={
                f'{_TSDB[0]}{{job="prometheus",instance="p"}}': "0x60 2x20",
                **{f'{metric}{{job="prometheus",instance="p"}}': "0x80" for metric in _TSDB[1:]},
            },
            at="63m",
        ),
        Silent(
            why="it failed once, before",
            series={f'{metric}{{job="prometheus",instance="p"}}': "3x80" for metric in _TSDB},
            at="70m",
        ),
    ),
)

ALERTING: Final = (
    _RULE_FAILURES,
    _NOTIFICATIONS,
    _NOT_NOTIFIED,
    _ALERTMANAGER_CONFIG,
    _PROMETHEUS_CONFIG,
    _RESTARTING,
    _STORAGE,
)
