"""Alerts on the API: is it there, what do its clients feel, and how are its processes."""

from typing import Final

from monitoring.build.alerts.api import availability, processes, requests
from monitoring.build.model import Group

GROUPS: Final[tuple[Group, ...]] = (
    Group("api_availability", availability.ALERTS),
    Group("api_requests", requests.ALERTS),
    Group("api_processes", processes.ALERTS),
)
