"""Everything that is checked, from the ground up: where one thing causes another, the cause comes first."""

from typing import Final

from deploy.stack.doctor.checks import (
    alerts,
    collector,
    dashboards,
    errors,
    logs,
    metrics,
    service,
    traces,
)
from deploy.stack.doctor.examination import Check

CHECKS: Final[tuple[Check, ...]] = (
    *service.CHECKS,
    *metrics.CHECKS,
    *collector.CHECKS,
    *traces.CHECKS,
    *logs.CHECKS,
    *alerts.CHECKS,
    *errors.CHECKS,
    *dashboards.CHECKS,
)
