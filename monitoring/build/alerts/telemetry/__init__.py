"""The telemetry itself: what cannot be seen any more, and alerts that do not get through."""

from monitoring.build.alerts.telemetry.alerting import ALERTING
from monitoring.build.alerts.telemetry.collector import COLLECTOR
from monitoring.build.alerts.telemetry.grafana import GRAFANA
from monitoring.build.alerts.telemetry.jaeger import JAEGER
from monitoring.build.alerts.telemetry.loki import LOKI
from monitoring.build.alerts.telemetry.losses import LOSSES
from monitoring.build.alerts.telemetry.targets import TARGETS
from monitoring.build.model import Group

GROUPS: tuple[Group, ...] = (
    Group("telemetry_targets", TARGETS),
    Group("telemetry_losses", LOSSES),
    Group("telemetry_alerting", ALERTING),
    Group("telemetry_collector", COLLECTOR),
    Group("telemetry_loki", LOKI),
    Group("telemetry_jaeger", JAEGER),
    Group("telemetry_grafana", GRAFANA),
)
