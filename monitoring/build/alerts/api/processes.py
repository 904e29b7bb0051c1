"""The API's processes from within: full, restarting, blocked, or failing in ways that nobody handled."""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_INSTANCE: Final = {"job": "api", "instance": "a:8000"}
_SERIES: Final = 'job="api",instance="a:8000"'
_UPTIME: Final = f"process_uptime_seconds{{{_SERIES}}}"
_IN_PROGRESS: Final = f"http_requests_in_progress{{{_SERIES}}}"
_LIFE: Final = '{service_name=~"glasshouse.*"} | type=~"lifecycle|error"'


def _lag(*, within: int) -> dict[str, str]:
    """Return the timers of a loop, 120 a minute, of which some are not late by more than 0.25 s."""
    name = f"event_loop_lag_seconds_bucket{{{_SERIES}"
    return {
        f'{name},le="0.25"}}': f"0+{within}x60",
        f'{name},le="0.5"}}': "0+120x60",
        f'{name},le="+Inf"}}': "0+120x60",
    }


def _exceptions(*, where: str, values: str) -> dict[str, str]:
    return {f'unhandled_exceptions_total{{{_SERIES},where="{where}"}}': values}


ALERTS: Final = (
    Alert(
        name="ApiSaturated",
        # More than three times the connections of the pool: most of them wait.
        expr='max by (job, instance) (avg_over_time(http_requests_in_progress{job="api"}[5m])) > 50',
        wait="5m",
        severity="warning",
        component="api",
        depends_on=("database", "payment_provider"),
        summary="An instance of the API has more requests at hand than it can serve.",
        description=(
            '{{ $labels.instance }} had {{ $value | printf "%.0f" }} requests at hand on average over'
            " <5m>; up to 50 are served without waiting for long."
        ),
        dashboard="api",
        variables=("instance",),
        fires=(Fires({_IN_PROGRESS: "60x30"}, "12m", _INSTANCE, "60"),),
        silent=(
            Silent("50 is the limit", {_IN_PROGRESS: "50x30"}, "20m"),
            Silent("a burst of a minute", {_IN_PROGRESS: "5x9 150 5x20"}, "12m"),
        ),
    ),
    Alert(
        name="ApiRestarting",
        # By the uptime, which falls at a restart: where workers share a page there is no start time.
        expr='max by (job, instance) (resets(process_uptime_seconds{job="api"}[30m])) >= 3',
        severity="warning",
        component="api",
        summary="An instance of the API restarts again and again.",
        description=(
            "{{ $labels.instance }} restarted {{ $value }} times within <30m>; a deployment restarts it"
            " once."
        ),
        dashboard="api",
        variables=("instance",),
        logs=_LIFE,
        fires=(Fires({_UPTIME: "5+60x5 5+60x5 5+60x5 5+60x20"}, "25m", _INSTANCE, "3"),),
        silent=(
            Silent("two deployments", {_UPTIME: "5+60x5 5+60x5 5+60x20"}, "25m"),
            Silent("long ago", {_UPTIME: "5+60x5 5+60x5 5+60x5 5+60x60"}, "55m"),
        ),
    ),
    Alert(
        name="EventLoopBlocked",
        expr="job_instance:event_loop_lag_seconds:p99_5m > 0.25",
        wait="5m",
        severity="warning",
        component="api",
        summary="The event loop of a process is blocked again and again: meanwhile it serves nobody.",
        description=(
            "1% of the timers of {{ $labels.job }} {{ $labels.instance }} are late by"
            " {{ $value | humanizeDuration }} or more; an idle loop is late by 1ms."
        ),
        dashboard="api",
        variables=("instance",),
        fires=(Fires(_lag(within=114), "14m", _INSTANCE, "450ms"),),
        silent=(
            Silent("late by a quarter of a second at most", _lag(within=120), "20m"),
            Silent("not for 5 minutes", _lag(within=114), "4m"),
        ),
    ),
    Alert(
        # Of jobs the worker's alerts tell. The error tracker tells each kind of exception once; this
        # is about those that repeat.
        name="UnhandledExceptions",
        expr="""
        round(sum by (job, where) (
          increase(unhandled_exceptions_total{job=~"api|worker",where!="job"}[15m])
        )) >= 3
        """,
        severity="warning",
        component="api",
        depends_on=("database",),
        summary="Exceptions escape that no code handles.",
        description=(
            "{{ $value }} exceptions escaped from a {{ $labels.where }} of {{ $labels.job }} within"
            " <15m>; there should be none."
        ),
        dashboard="api",
        logs='{service_name=~"glasshouse.*"} | type="error"',
        fires=(
            Fires(
                _exceptions(where="request", values="0x10 4x30"),
                "20m",
                {"job": "api", "where": "request"},
                "4",
            ),
        ),
        silent=(
            Silent("two only", _exceptions(where="request", values="0x10 2x30"), "20m"),
            Silent(
                "a job's, which is tried again", _exceptions(where="job", values="0+2x40"), "20m"
            ),
            Silent("long ago", _exceptions(where="request", values="0x10 9x60"), "30m"),
        ),
    ),
)
