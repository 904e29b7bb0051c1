"""Alerts that stand on log lines: what no metric can tell. Loki evaluates them; one file a topic.

A reason to be here is part of each: who can write the same as PromQL puts it into `monitoring/build/alerts`,
where it is cheaper, and where an unresolved one is escalated.
"""

from typing import Final

from monitoring.build.logs.backends import BACKENDS
from monitoring.build.logs.intruders import INTRUDERS
from monitoring.build.logs.model import LogAlert
from monitoring.build.logs.secrets import SECRETS
from monitoring.build.logs.service import SERVICE
from monitoring.build.model import Group

INTERVAL: Final = "1m"
LOG_GROUPS: Final = {
    "logs-service": (Group("logs_service", SERVICE, INTERVAL),),
    "logs-backends": (Group("logs_backends", BACKENDS, INTERVAL),),
    "logs-security": (Group("logs_security", (*SECRETS, *INTRUDERS), INTERVAL),),
}
"""The groups by the name of their file."""


def log_alerts() -> list[LogAlert]:
    """Return all of them."""
    rules = (rule for groups in LOG_GROUPS.values() for group in groups for rule in group.rules)
    return [rule for rule in rules if isinstance(rule, LogAlert)]
