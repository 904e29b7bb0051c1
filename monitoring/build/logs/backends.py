"""What the programs that we stand on write before, or instead of, failing in a way that is measured."""

from typing import Final

from monitoring.build.logs.model import Alarming, Harmless, Line, LogAlert

DAMAGE: Final = (
    "PANIC: |invalid page in block|page verification failed|could not read block"
    "|was terminated by signal|could not write to file"
)
_POSTGRES: Final = '{service_name="postgres"}'
# A line about a failed statement quotes it, and what is quoted may say anything.
_QUOTES: Final = "(STATEMENT|DETAIL|QUERY|CONTEXT): "
_STAMP: Final = "2026-11-21 14:02:15.123 UTC [42] "
_EXHAUSTED: Final = (
    "(?i)(out of memory|cannot allocate memory|no space left on device|too many open files)"
)

_REPORTS_DAMAGE: Final = LogAlert(
    name="DatabaseReportsDamage",
    expr=f"""
        sum(count_over_time({_POSTGRES} |~ "{DAMAGE}" !~ "{_QUOTES}" [10m])) > 0
    """,
    severity="critical",
    component="database",
    summary="PostgreSQL says that its data are damaged, or that it could not go on.",
    description='{{ $value | printf "%.0f" }} lines in the last <10m> speak of a panic, a damaged page, a'
    " failed write or a killed process; it should be 0.",
    dashboard="database",
    logs=f'{_POSTGRES} |~ "{DAMAGE}"',
    reason="PostgreSQL counts checksum failures for each database, and no panic, no killed process and no"
    " page that it cannot read; it may be up again before the next scrape.",
    alarming=(
        Alarming(
            lines=(
                Line(
                    "postgres",
                    text=_STAMP + "ERROR:  invalid page in block 3 of relation base/5/16384",
                ),
                Line(
                    "postgres",
                    text=_STAMP
                    + "LOG:  server process (PID 77) was terminated by signal 9: Killed",
                ),
            ),
            value="2",
        ),
    ),
    harmless=(
        Harmless(
            why="a statement that speaks of it",
            lines=(
                Line("postgres", text=_STAMP + "ERROR:  duplicate key value violates a constraint"),
                Line(
                    "postgres",
                    text=_STAMP + "STATEMENT:  SELECT 'PANIC: could not read block'",
                ),
            ),
        ),
        Harmless(
            why="a restart in order",
            lines=(
                Line(
                    "postgres",
                    text=_STAMP + "FATAL:  terminating connection due to administrator command",
                ),
                Line("postgres", text=_STAMP + "LOG:  database system is shut down"),
            ),
        ),
    ),
)

_RESOURCE: Final = LogAlert(
    name="ResourceExhausted",
    # What a client sent (a path, a user agent) may say anything: access lines do not count.
    expr=f"""
        sum by (service_name) (
          count_over_time({{service_name=~".+"}} |~ "{_EXHAUSTED}" | type!="http_request" [10m])
        ) > 0
    """,
    severity="warning",
    component="infrastructure",
    summary="A program has run out of memory, disk or file descriptors.",
    description='{{ $labels.service_name }} said so {{ $value | printf "%.0f" }} times in the last <10m>; it'
    " should be never.",
    dashboard="infrastructure",
    logs=f'{{service_name=~".+"}} |~ "{_EXHAUSTED}" | type!="http_request"',
    reason="Metrics see the machine and our processes. The limit that a container or a volume of another"
    " program hits is seen by that program alone.",
    alarming=(
        Alarming(
            lines=(
                Line(
                    "valkey",
                    text="1:M 21 Nov 2026 14:02 # Can't save in background: fork: Cannot allocate memory",
                ),
            ),
            labels={"service_name": "valkey"},
            value="1",
        ),
        Alarming(
            lines=(
                Line(
                    "glasshouse",
                    {
                        "type": "error",
                        "level": "ERROR",
                        "message": "Unhandled exception",
                        "detail": "[Errno 24] Too many open files",
                    },
                ),
            ),
            labels={"service_name": "glasshouse"},
            value="1",
        ),
    ),
    harmless=(
        Harmless(
            why="a client calls itself that",
            lines=(
                Line(
                    "glasshouse",
                    {
                        "type": "http_request",
                        "level": "INFO",
                        "message": "request served",
                        "user_agent": "out of memory/1.0",
                    },
                ),
            ),
        ),
        Harmless(
            why="a warning ahead of time",
            lines=(
                Line(
                    "valkey",
                    text="1:M 21 Nov 2026 14:02:15.123 # WARNING Memory overcommit must be enabled!",
                ),
            ),
        ),
    ),
)

BACKENDS: Final = (_REPORTS_DAMAGE, _RESOURCE)
