"""Alerts on the database: is it reachable, are there connections, and what becomes of statements."""

from typing import Final

from monitoring.build.alerts.database import connections, reachability, statements
from monitoring.build.model import Group

GROUPS: Final[tuple[Group, ...]] = (
    Group("database_reachability", reachability.ALERTS),
    Group("database_connections", connections.ALERTS),
    Group("database_statements", statements.ALERTS),
)
