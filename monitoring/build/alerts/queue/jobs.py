"""Whether jobs do their work: failing, or, worse, silent."""

from typing import Final

from monitoring.build.model import Alert, Fires, Record, Silent
from monitoring.build.records.queue import PERIODIC, WORKER

_LOGS: Final = '{service_name="glasshouse-worker"} | level=~"WARNING|ERROR"'


def _runs(*, good: float, failed: float, status: str = "failed") -> dict[str, str]:
    """Return runs a minute, by two workers."""
    return {
        f'jobs_processed_total{{job="worker",instance="{name}",task="write_receipt",'
        f'status="{outcome}"}}': f"0+{count / 2:g}x60"
        for name in ("a:8002", "b:8002")
        for outcome, count in (("succeeded", good), (status, failed))
    }


def _last_success(task: str, *values: str) -> dict[str, str]:
    return {
        f'job_last_success_timestamp_seconds{{job="worker",instance="{number}:8002",'
        f'task="{task}"}}': value
        for number, value in enumerate(values)
    }


def _never_succeeded(task: str) -> dict[str, str]:
    """Return what a worker shows whose periodic job has failed since the start."""
    of = 'job="worker",instance="0:8002"'
    return {
        f"process_uptime_seconds{{{of}}}": "0+60x200",
        f'jobs_processed_total{{{of},task="{task}",status="succeeded"}}': "0x200",
    }


RULES: Final = (
    # Here, since it counts the seconds: in another group it could be one evaluation older.
    Record(
        "task:job_success_age_seconds:min",
        f"""
        time() - max by (task) (job_last_success_timestamp_seconds{{{WORKER}}})
        or
        max by (task) (
          process_uptime_seconds{{{WORKER}}}
          * on (job, instance) group_right ()
          (0 * jobs_processed_total{{{WORKER},status="succeeded",task=~"{PERIODIC}"}} + 1)
        )""",
        "Seconds since a periodic job last ended well on any worker; since the start if it never did.",
    ),
    Alert(
        name="JobFailuresHigh",
        expr="""
        task:jobs_failed:ratio_rate10m > 0.1
        and on (task) task:jobs_failed:increase10m >= 5
        """,
        wait="5m",
        severity="warning",
        component="queue",
        depends_on=("database", "broker"),
        summary="More than 10% of the runs of a job fail.",
        description=(
            "{{ $value | humanizePercentage }} of the runs of {{ $labels.task }} in the last <10m>"
            " failed; at most 10% should. Each is tried 6 times, then it is a dead letter."
        ),
        dashboard="worker",
        variables=("task",),
        logs=_LOGS,
        fires=(
            Fires(_runs(good=8, failed=2), "20m", {"task": "write_receipt"}, "20%"),
            Fires(_runs(good=0, failed=2, status="dead"), "20m", {"task": "write_receipt"}, "100%"),
        ),
        silent=(
            Silent("10% exactly", _runs(good=18, failed=2), "30m"),
            Silent("few runs", _runs(good=0.2, failed=0.4), "30m"),
            Silent(
                "another worker was faster",
                _runs(good=8, failed=20, status="duplicate"),
                "30m",
            ),
        ),
    ),
    Alert(
        # `purge` runs every 10 minutes, whatever the profile; the others within seconds.
        name="PeriodicJobStale",
        expr="""
        task:job_success_age_seconds:min{task!="purge"} > $seconds(15m)
        or on (task) task:job_success_age_seconds:min{task="purge"} > 7200
        """,
        wait="1m",
        severity="warning",
        component="queue",
        depends_on=("worker", "database", "broker"),
        summary="A periodic job has not ended well for a long time.",
        description=(
            "{{ $labels.task }} last ended well {{ $value | humanizeDuration }} ago; it should every"
            " few seconds (purge: every 10 minutes)."
        ),
        dashboard="worker",
        variables=("task",),
        logs=_LOGS,
        fires=(
            Fires(_last_success("relay", "0x90"), "20m", {"task": "relay"}, "20m 0s"),
            Fires(_last_success("purge", "0x200"), "150m", {"task": "purge"}, "2h 30m 0s"),
            Fires(_never_succeeded("seal"), "20m", {"task": "seal"}, "20m 0s"),
        ),
        silent=(
            Silent("it runs", _last_success("relay", "0+60x90"), "30m"),
            Silent("15 minutes exactly", _last_success("relay", "0x90"), "15m"),
            Silent("another worker does it", _last_success("relay", "0x90", "0+60x90"), "30m"),
            Silent("it is not due that often", _last_success("purge", "0x200"), "60m"),
            Silent("the worker has just started", _never_succeeded("seal"), "10m"),
            Silent(
                "it succeeded later",
                _never_succeeded("seal") | _last_success("seal", "0+60x200"),
                "30m",
            ),
        ),
    ),
)
