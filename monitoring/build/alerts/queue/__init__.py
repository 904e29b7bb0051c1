"""Alerts on the queue: is there a worker, does the outbox empty, do jobs do their work."""

from typing import Final

from monitoring.build.alerts.queue import jobs, outbox, workers
from monitoring.build.model import Group

GROUPS: Final[tuple[Group, ...]] = (
    Group("queue_workers", workers.ALERTS),
    Group("queue_outbox", outbox.ALERTS),
    Group("queue_jobs", jobs.RULES),
)
