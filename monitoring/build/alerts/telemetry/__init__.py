"""The telemetry itself: what cannot be seen any more, and alerts that do not get through."""

from monitoring.build.alerts.telemetry.alerting import ALERTING
from monitoring.build.alerts.telemetry.losses import LOSSES
from monitoring.build.alerts.telemetry.targets import TARGETS
from monitoring.build.model import Group

GROUPS: tuple[Group, ...] = (
    Group("telemetry_targets", TARGETS),
    Group("telemetry_losses", LOSSES),
    Group("telemetry_alerting", ALERTING),
)
