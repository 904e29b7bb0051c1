"""The processes themselves: event loop, CPU, memory, descriptors, and what of the telemetry gets lost.

Where WEB_CONCURRENCY is above 1 there are no `process_*` metrics (docs/decisions/0005-several-workers.md):
then these records have the other processes only.
"""

from typing import Final

from monitoring.build.model import Group, Record
from monitoring.build.records.expressions import quantile, rate

PROCESSES: Final = 'job=~"api|worker"'
OURS: Final = 'job=~"api|worker|payment-provider"'

GROUPS: Final = (
    Group(
        "runtime",
        (
            Record(
                "job_instance:event_loop_lag_seconds:p99_5m",
                quantile(0.99, "event_loop_lag_seconds", "job, instance", where=PROCESSES),
                "Seconds by which 99% of the timers were late at most: the loop served nobody.",
            ),
            Record(
                "job_instance:process_cpu_seconds:rate5m",
                rate("process_cpu_seconds_total", "job, instance", where=OURS),
                "CPU seconds per second: 1 is all that one process can use.",
            ),
            Record(
                "job:process_resident_memory_bytes:sum",
                f"sum by (job) (process_resident_memory_bytes{{{OURS}}})",
                "Bytes of memory in RAM, of all processes of a job.",
            ),
            Record(
                "job_instance:process_open_fds:ratio",
                f"max by (job, instance) (process_open_fds{{{OURS}}})"
                f" / max by (job, instance) (process_max_fds{{{OURS}}})",
                "Share (0 to 1) of the file descriptors that are open.",
            ),
            Record(
                "job_where:unhandled_exceptions:rate5m",
                rate("unhandled_exceptions_total", "job, where", where=OURS),
                "Exceptions per second that nothing handled, by where they escaped.",
            ),
            Record(
                "job_signal:telemetry_dropped:rate5m",
                rate("telemetry_dropped_total", "job, signal", where=OURS),
                "Log lines, spans and error reports per second that were lost in the process.",
            ),
        ),
    ),
)
