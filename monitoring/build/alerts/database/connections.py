"""Connections: those a process may open (its pool), and those the server allows all processes."""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_LABELS: Final = {"job": "api", "instance": "a:8000", "pool": "main"}
_SERIES: Final = 'job="api",instance="a:8000",pool="main"'
_POOL_LOGS: Final = '{service_name=~"glasshouse.*"} | type=~"http_request|job" | db_wait_ms > 100'


def _pool(active: str, timeouts: str = "0x60") -> dict[str, str]:
    """Return a pool of 15 connections."""
    return {
        f"database_connections_active{{{_SERIES}}}": active,
        f"database_connections_max{{{_SERIES}}}": "15x60",
        f"database_connection_timeouts_total{{{_SERIES}}}": timeouts,
    }


def _server(connections: int) -> dict[str, str]:
    server = 'job="postgres",instance="postgres-exporter:9187",server="postgres:5432"'
    return {
        f'pg_stat_activity_count{{{server},datname="shop",state="idle"}}': f"{connections - 10}x60",
        f'pg_stat_activity_count{{{server},datname="shop",state="active"}}': "10x60",
        f"pg_settings_max_connections{{{server}}}": "100x60",
    }


ALERTS: Final = (
    Alert(
        name="DatabasePoolHigh",
        expr="""
        max by (job, instance, pool) (
          avg_over_time(job_instance_pool:database_connections:saturation[5m])
        ) > 0.8
        """,
        wait="2m",
        severity="warning",
        component="database",
        depends_on=("database",),
        summary="A process uses more than 80% of the connections it may open.",
        description=(
            "{{ $labels.job }} {{ $labels.instance }} has used {{ $value | humanizePercentage }} of"
            " its connections over <5m>; it should stay below 80%."
        ),
        dashboard="database",
        variables=("instance", "pool"),
        logs=_POOL_LOGS,
        fires=(Fires(_pool("13.5x60"), "12m", _LABELS, "90%"),),
        silent=(
            Silent("80% exactly", _pool("12x60"), "20m"),
            Silent("a burst of a minute", _pool("3x9 15 3x50"), "12m"),
        ),
    ),
    Alert(
        name="DatabasePoolExhausted",
        expr="""
        max by (job, instance, pool) (
          avg_over_time(job_instance_pool:database_connections:saturation[1m])
        ) > 0.95
        or on (job, instance, pool)
        job_instance_pool:database_connections:saturation
        and on (job, instance, pool)
        round(job_instance_pool:database_connection_timeouts:increase5m) >= 3
        """,
        wait="1m",
        severity="critical",
        component="database",
        depends_on=("database",),
        summary="A process has no connections left: requests wait for one, or give up with 503.",
        description=(
            "{{ $labels.job }} {{ $labels.instance }} uses {{ $value | humanizePercentage }} of its"
            " connections, or waits for one were given up within <5m>; below 80% is healthy."
        ),
        dashboard="database",
        variables=("instance", "pool"),
        logs=_POOL_LOGS,
        fires=(
            Fires(_pool("3x4 15x50"), "8m", _LABELS, "100%"),
            # Between two scrapes the pool was full, and at neither of them.
            Fires(_pool("12x60", timeouts="0x4 3x50"), "8m", _LABELS, "80%"),
        ),
        silent=(
            Silent("14 of 15 are in use", _pool("14x60"), "20m"),
            Silent("two waits were given up", _pool("12x60", timeouts="0x4 2x50"), "8m"),
            Silent("not for a minute", _pool("3x4 15 3x50"), "330s"),
        ),
    ),
    Alert(
        name="DatabaseConnectionsNearLimit",
        expr="instance:pg_connections_used:ratio > 0.8",
        wait="5m",
        severity="warning",
        component="database",
        depends_on=("database",),
        summary="The database server has almost as many connections as it allows.",
        description=(
            "{{ $value | humanizePercentage }} of max_connections of {{ $labels.instance }} are in use;"
            " above 97% only superusers get in."
        ),
        dashboard="database",
        variables=("server=instance",),
        fires=(Fires(_server(90), "12m", {"instance": "postgres-exporter:9187"}, "90%"),),
        silent=(
            Silent("80% exactly", _server(80), "20m"),
            Silent("not for 5 minutes", _server(90), "4m"),
        ),
    ),
)
