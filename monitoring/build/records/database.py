"""The database as the processes of this service see it, by job: API and worker ask for different things.

BEGIN, COMMIT and ROLLBACK are left out of what is divided by: they are fast and many, and would hide how
many of the statements that somebody wrote are slow or fail. Integrity errors are left out of the errors:
a taken e-mail address or an idempotency key used twice is the constraint at work.
"""

from typing import Final

from monitoring.build.model import Group, Record
from monitoring.build.records.expressions import (
    increase,
    mean,
    or_zero,
    quantile,
    rate,
    share,
)

PROCESSES: Final = 'job=~"api|worker"'
STATEMENTS: Final = f'{PROCESSES},operation!="TRANSACTION"'
FAULTS: Final = f'{PROCESSES},error_type!="integrity"'

_STATEMENTS: Final = (
    Record(
        "job:database_queries:rate5m",
        rate("database_query_duration_seconds_count", "job", where=STATEMENTS),
        "Statements per second.",
    ),
    Record(
        "job_operation_table:database_queries:rate5m",
        rate("database_query_duration_seconds_count", "job, operation, table", where=STATEMENTS),
        "Statements per second by operation and table.",
    ),
    Record(
        "job:database_slow_queries:increase5m",
        or_zero(
            increase("database_slow_queries_total", "job", where=STATEMENTS),
            "job:database_queries:rate5m",
            "job",
        ),
        "Statements in 5 minutes slower than DATABASE_SLOW_QUERY_MS.",
    ),
    Record(
        "job:database_slow_queries:ratio_rate5m",
        share(
            rate("database_slow_queries_total", "job", where=STATEMENTS),
            "job:database_queries:rate5m",
            "job",
        ),
        "Share (0 to 1) of the statements that are slower than DATABASE_SLOW_QUERY_MS.",
    ),
    Record(
        "job:database_errors:increase5m",
        increase("database_errors_total", "job", where=FAULTS),
        "Statements and connections in 5 minutes that failed, integrity errors left out.",
    ),
    Record(
        "job:database_errors:ratio_rate5m",
        share(
            rate("database_errors_total", "job", where=FAULTS),
            "job:database_queries:rate5m",
            "job",
        ),
        "Failures per statement (0 to 1), integrity errors left out.",
    ),
    Record(
        "job_error_type:database_errors:rate5m",
        rate("database_errors_total", "job, error_type", where=PROCESSES),
        "Statements and connections per second that failed, by kind.",
    ),
)

_DURATIONS: Final = (
    *(
        Record(
            f"job:database_query_duration_seconds:p{rank * 100:g}_5m",
            quantile(rank, "database_query_duration_seconds", "job", where=STATEMENTS),
            f"Seconds within which {rank:.0%} of the statements had their rows.",
        )
        for rank in (0.5, 0.95, 0.99)
    ),
    Record(
        "job_operation_table:database_query_duration_seconds:p95_5m",
        quantile(
            0.95, "database_query_duration_seconds", "job, operation, table", where=STATEMENTS
        ),
        "Seconds within which 95% of the statements had their rows, by operation and table.",
    ),
    Record(
        "job_handler:database_queries_per_request:mean5m",
        mean("database_queries_per_request", "job, handler", where=PROCESSES),
        "Statements per request of a route, or run of a job.",
    ),
    Record(
        "job_handler:database_time_per_request_seconds:p95_5m",
        quantile(0.95, "database_time_per_request_seconds", "job, handler", where=PROCESSES),
        "Seconds within which 95% of the requests of a route, or runs of a job, had all their rows.",
    ),
)

_POOL: Final = (
    Record(
        "job_instance_pool:database_connections:saturation",
        f"max by (job, instance, pool) (database_connections_active{{{PROCESSES}}})"
        f" / (max by (job, instance, pool) (database_connections_max{{{PROCESSES}}}) > 0)",
        "Share (0 to 1) of the connections a process may open that are in use.",
    ),
    Record(
        "job_pool:database_connections_active:sum",
        f"sum by (job, pool) (database_connections_active{{{PROCESSES}}})",
        "Connections in use, by all processes of a job.",
    ),
    Record(
        "job_pool:database_connection_wait_seconds:p95_5m",
        quantile(0.95, "database_connection_wait_seconds", "job, pool", where=PROCESSES),
        "Seconds within which 95% of those who wanted a connection had one.",
    ),
    Record(
        "job_instance_pool:database_connection_timeouts:increase5m",
        increase("database_connection_timeouts_total", "job, instance, pool", where=PROCESSES),
        "Waits for a connection in 5 minutes that were given up.",
    ),
)

GROUPS: Final = (Group("database", (*_STATEMENTS, *_DURATIONS, *_POOL)),)
