"""Statements: slow ones, failed ones, repeated ones (N+1) and those that block each other.

API and worker are told apart: the worker asks ten times a second even when nobody shops, which would
dilute what the API's customers feel.
"""

from typing import Final

from monitoring.build.growth import growth
from monitoring.build.model import Alert, Fires, Silent

_API: Final = {"job": "api"}
_SERIES: Final = 'job="api",instance="a:8000"'
_SLOW: Final = '{service_name=~"glasshouse.*"} | type="db_query" | event="slow_query"'
_N_PLUS_ONE: Final = '{service_name=~"glasshouse.*"} | type="db_query" | event="n_plus_one"'


def _statements(
    *, total: float, slow: float = 0, failed: float = 0, error_type: str = "connection"
) -> dict[str, str]:
    """Return statements a minute, how many of them were slow, and how many failed."""
    of = f'{_SERIES},operation="SELECT",table="orders"'
    count = "database_query_duration_seconds_count"
    series = {
        f"{count}{{{of}}}": f"0+{total:g}x60",
        # Left out: COMMITs are fast and many.
        f'{count}{{{_SERIES},operation="TRANSACTION",table=""}}': "0+1000x60",
        # The worker's are its own.
        f"{count}{{{of.replace('api', 'worker')}}}": "0+1000x60",
        f'database_errors_total{{{_SERIES},error_type="{error_type}"}}': f"0+{failed:g}x60",
    }
    if slow:
        series[f"database_slow_queries_total{{{of}}}"] = f"0+{slow:g}x60"
    return series


def _deadlocks(values: str) -> dict[str, str]:
    return {f'database_errors_total{{{_SERIES},error_type="deadlock"}}': values}


def _repeated(values: str) -> dict[str, str]:
    return {
        f'database_n_plus_one_total{{{_SERIES},handler="/v1/orders"}}': values,
        'up{job="api",instance="a:8000"}': "1x80",
    }


ALERTS: Final = (
    Alert(
        name="DatabaseSlowQueries",
        expr="""
        job:database_slow_queries:ratio_rate5m > 0.1
        and on (job) job:database_slow_queries:increase5m >= 5
        """,
        wait="5m",
        severity="warning",
        component="database",
        depends_on=("database",),
        summary="More than 10% of the statements are slow.",
        description=(
            "{{ $value | humanizePercentage }} of the statements of {{ $labels.job }} in the last <5m>"
            " took longer than DATABASE_SLOW_QUERY_MS; at most 10% should."
        ),
        dashboard="database",
        logs=_SLOW,
        fires=(Fires(_statements(total=100, slow=20), "14m", _API, "20%"),),
        silent=(
            Silent("10% exactly", _statements(total=100, slow=10), "20m"),
            Silent("few statements", _statements(total=2, slow=0.8), "20m"),
            Silent("none is slow", _statements(total=100), "20m"),
        ),
    ),
    Alert(
        name="DatabaseErrorsHigh",
        expr="""
        job:database_errors:ratio_rate5m > 0.01
        and on (job) job:database_errors:increase5m >= 5
        """,
        wait="2m",
        severity="warning",
        component="database",
        depends_on=("database",),
        summary="More than 1% of the statements fail.",
        description=(
            "{{ $value | humanizePercentage }} of the statements of {{ $labels.job }} in the last <5m>"
            " failed (integrity errors left out); at most 1% should."
        ),
        dashboard="database",
        logs='{service_name=~"glasshouse.*"} | level=~"ERROR|CRITICAL"',
        fires=(Fires(_statements(total=100, failed=5), "10m", _API, "5%"),),
        silent=(
            Silent("1% exactly", _statements(total=1000, failed=10), "20m"),
            Silent("few statements", _statements(total=2, failed=0.8), "20m"),
            Silent(
                "a constraint did its work",
                _statements(total=100, failed=50, error_type="integrity"),
                "20m",
            ),
        ),
    ),
    Alert(
        # A counter that appears with its first event goes from nothing to 1: no increase sees that.
        name="DatabaseNPlusOne",
        expr="sum by (job, handler) "
        + growth("database_n_plus_one_total", "handler", jobs='job=~"api|worker"', window="15m")
        + " > 0",
        severity="info",
        component="database",
        summary="A route or job repeats one SELECT for each row (N+1).",
        description=(
            '{{ $labels.handler }} of {{ $labels.job }} did so {{ $value | printf "%.0f" }} times'
            " within <15m>; a query that loads all rows at once does it never."
        ),
        dashboard="database",
        variables=("handler",),
        logs=_N_PLUS_ONE,
        fires=(
            Fires(_repeated("_x20 1x9"), "23m", {**_API, "handler": "/v1/orders"}, "1"),
            Fires(_repeated("7x20 9x20"), "25m", {**_API, "handler": "/v1/orders"}, "2"),
        ),
        silent=(
            Silent("it has not happened for 15 minutes", _repeated("_x20 1x60"), "39m"),
            Silent("it was a release ago", _repeated("7x60"), "40m"),
            Silent("Prometheus is new, and what it sees is old", _repeated("7x60"), "5m"),
        ),
    ),
    Alert(
        name="DatabaseDeadlocks",
        expr="""
        round(sum by (job) (
          increase(database_errors_total{job=~"api|worker",error_type="deadlock"}[15m])
        )) >= 3
        """,
        severity="warning",
        component="database",
        summary="Transactions wait for each other, and the database ends some of them.",
        description=(
            "{{ $value }} statements of {{ $labels.job }} ended as the victim of a deadlock within"
            " <15m>; there should be none."
        ),
        dashboard="database",
        logs='{service_name=~"glasshouse.*"} | type="error"',
        fires=(Fires(_deadlocks("0x10 4x30"), "20m", _API, "4"),),
        silent=(
            Silent("two only", _deadlocks("0x10 2x30"), "20m"),
            Silent("long ago", _deadlocks("0x10 9x60"), "30m"),
        ),
    ),
)
