"""What this service stands on as it sees it: calls to others, circuits, health checks and the cache."""

from typing import Final

from monitoring.build.model import Group, Record
from monitoring.build.records.expressions import increase, quantile, rate, share

PROCESSES: Final = 'job=~"api|worker"'
API: Final = 'job="api"'
FAILED: Final = f'{PROCESSES},outcome=~"server_error|timeout|connection_error|circuit_open"'
"""What speaks against the other side; `circuit_open` is what it costs us that it did before."""

_CALLS: Final = (
    Record(
        "dependency:external_requests:rate5m",
        rate("external_requests_total", "dependency", where=PROCESSES),
        "Attempts per second to call a dependency.",
    ),
    Record(
        "dependency_outcome:external_requests:rate5m",
        rate("external_requests_total", "dependency, outcome", where=PROCESSES),
        "Attempts per second to call a dependency, by outcome.",
    ),
    Record(
        "dependency:external_requests:increase5m",
        increase("external_requests_total", "dependency", where=PROCESSES),
        "Attempts in 5 minutes to call a dependency.",
    ),
    Record(
        "dependency:external_requests_failed:increase5m",
        increase("external_requests_total", "dependency", where=FAILED),
        "Attempts in 5 minutes that failed on the other side, or were refused by the circuit.",
    ),
    Record(
        "dependency:external_requests_failed:ratio_rate5m",
        share(
            rate("external_requests_total", "dependency", where=FAILED),
            "dependency:external_requests:rate5m",
            "dependency",
        ),
        "Share (0 to 1) of the attempts that failed on the other side, or were refused by the circuit.",
    ),
    *(
        Record(
            f"dependency:external_request_duration_seconds:p{rank * 100:g}_5m",
            quantile(rank, "external_request_duration_seconds", "dependency", where=PROCESSES),
            f"Seconds within which {rank:.0%} of the attempts had their answer or failed.",
        )
        for rank in (0.5, 0.95)
    ),
    Record(
        "dependency:external_retries:increase10m",
        increase("external_retries_total", "dependency", where=PROCESSES, window="10m"),
        "Attempts in 10 minutes after the first one of a call.",
    ),
    Record(
        "dependency:external_retries:ratio_rate10m",
        share(
            rate("external_retries_total", "dependency", where=PROCESSES, window="10m"),
            rate("external_requests_total", "dependency", where=PROCESSES, window="10m"),
            "dependency",
        ),
        "Share (0 to 1) of the attempts that are not the first one of a call.",
    ),
)

_STATE: Final = (
    Record(
        "job_dependency:circuit_breaker_state:max",
        f"max by (job, dependency) (circuit_breaker_state{{{PROCESSES}}})",
        "State of the worst circuit: 0 closed, 1 open, 2 half-open.",
    ),
    Record(
        "job_dependency:dependency_up:max",
        f"max by (job, dependency) (dependency_up{{{PROCESSES}}})",
        "1 while at least one process of the job sees the dependency, 0 when none does.",
    ),
    Record(
        "job_dependency:dependency_check_duration_seconds:p95_5m",
        quantile(0.95, "dependency_check_duration_seconds", "job, dependency", where=PROCESSES),
        "Seconds within which 95% of the checks of a dependency ended; they are given up after 2.",
    ),
)

_CACHE: Final = (
    Record(
        "cache:cache_requests:rate5m",
        rate("cache_requests_total", "cache", where=API),
        "Reads of a cache per second.",
    ),
    Record(
        "cache:cache_requests_hit:ratio_rate5m",
        share(
            rate("cache_requests_total", "cache", where=f'{API},result="hit"'),
            rate("cache_requests_total", "cache", where=f'{API},result=~"hit|miss"'),
            "cache",
        ),
        "Share (0 to 1) of the reads that found something, failed ones left out.",
    ),
    Record(
        "cache:cache_requests_failed:ratio_rate5m",
        share(
            rate("cache_requests_total", "cache", where=f'{API},result="error"'),
            "cache:cache_requests:rate5m",
            "cache",
        ),
        "Share (0 to 1) of the reads that failed.",
    ),
    Record(
        "cache_operation:cache_operation_duration_seconds:p95_5m",
        quantile(0.95, "cache_operation_duration_seconds", "cache, operation", where=API),
        "Seconds within which 95% of the operations of a cache ended.",
    ),
)

GROUPS: Final = (Group("dependencies", (*_CALLS, *_STATE, *_CACHE)),)
