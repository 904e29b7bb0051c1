"""Outbox and jobs. Several workers sample the same rows, so the largest sample is taken, never the sum."""

from typing import Final

from monitoring.build.model import Group, Record
from monitoring.build.records.expressions import increase, quantile, rate, share

WORKER: Final = 'job="worker"'
PERIODIC: Final = "relay|redeliver|reconcile|seal|sample|purge"
"""What runs again and again; the other jobs handle messages (docs/telemetry.md, Worker and queue)."""

_OUTBOX: Final = (
    Record(
        "state:outbox_messages:max",
        f"max by (state) (outbox_messages{{{WORKER}}})",
        "Messages not yet handled, by state.",
    ),
    Record(
        "all:outbox_oldest_age_seconds:max",
        f"max(outbox_oldest_age_seconds{{{WORKER}}})",
        "Age in seconds of the oldest message not yet handled, dead letters excepted.",
    ),
    Record(
        "task:dead_letters:increase1h",
        increase("dead_letters_total", "task", where=WORKER, window="1h"),
        "Messages of the last hour that were given up on.",
    ),
)

_JOBS: Final = (
    Record(
        "task:jobs_processed:rate5m",
        rate("jobs_processed_total", "task", where=WORKER),
        "Runs of a job per second.",
    ),
    Record(
        "task_status:jobs_processed:rate5m",
        rate("jobs_processed_total", "task, status", where=WORKER),
        "Runs of a job per second by outcome.",
    ),
    Record(
        "task:jobs_failed:increase10m",
        increase(
            "jobs_processed_total",
            "task",
            where=f'{WORKER},status=~"failed|dead"',
            window="10m",
        ),
        "Runs of a job in 10 minutes that failed.",
    ),
    Record(
        "task:jobs_failed:ratio_rate10m",
        share(
            rate(
                "jobs_processed_total",
                "task",
                where=f'{WORKER},status=~"failed|dead"',
                window="10m",
            ),
            rate(
                "jobs_processed_total",
                "task",
                where=f'{WORKER},status=~"succeeded|failed|dead"',
                window="10m",
            ),
            "task",
        ),
        "Share (0 to 1) of the runs of a job that failed.",
    ),
    Record(
        "task:job_duration_seconds:p95_5m",
        quantile(0.95, "job_duration_seconds", "task", where=f'{WORKER},task!~"{PERIODIC}"'),
        "Seconds within which 95% of the runs of a job that handles messages ended.",
    ),
    Record(
        "task:job_retries:rate5m",
        rate("job_retries_total", "task", where=WORKER),
        "Runs of a job per second that failed and will be tried again.",
    ),
)

GROUPS: Final = (Group("queue", (*_OUTBOX, *_JOBS)),)
