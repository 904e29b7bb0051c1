"""Whether the API is there: all of it, one instance of it, and ready to be sent customers.

ApiDown is about the service: as long as one instance serves, an instance that is gone is a warning.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_API: Final = {"job": "api"}
_UP: Final = 'up{job="api",instance="a:8000"}'
_UP_TOO: Final = 'up{job="api",instance="b:8000"}'
_READY: Final = (
    'probe_success{job="blackbox",probe="ready",instance="http://app:8000/health/ready"}'
)
_LOGS: Final = '{service_name="glasshouse"} | type=~"health|lifecycle|error"'

ALERTS: Final = (
    Alert(
        name="ApiDown",
        # Also when the targets are gone from discovery: then there is no `up` that could be 0.
        expr='(sum by (job) (up{job="api"}) or on (job) absent(up{job="api"}) - 1) == 0',
        wait="1m",
        keep_firing="5m",
        severity="critical",
        component="api",
        labels={"dependency": "api"},
        summary="No instance of the API is up: customers are not served.",
        description=(
            "{{ $value }} instances of the API have answered Prometheus for <1m>;"
            " there should be one at least."
        ),
        dashboard="overview",
        logs=_LOGS,
        fires=(
            Fires({_UP: "1x4 0x10", _UP_TOO: "1x4 0x10"}, "7m", _API, "0"),
            Fires({_UP: "1x4 stale"}, "8m", _API, "0"),
            Fires({'up{job="worker",instance="w:8002"}': "1x10"}, "5m", _API, "0"),
            # Kept for 5 minutes, so that what outlasts it by a window is not told after it.
            Fires({_UP: "0x5 1x20"}, "10m", _API, "0"),
        ),
        silent=(
            Silent("one of two instances still serves", {_UP: "0x20", _UP_TOO: "1x20"}, "10m"),
            Silent("one scrape failed", {_UP: "1x4 0 1x20"}, "330s"),
            Silent("it came back, and 5 minutes are over", {_UP: "0x5 1x20"}, "13m"),
        ),
    ),
    Alert(
        name="ApiInstanceDown",
        expr="""
        min by (job, instance) (up{job="api"}) == 0
        and on (job) sum by (job) (up{job="api"}) > 0
        """,
        wait="2m",
        severity="warning",
        component="api",
        summary="An instance of the API is down while others serve.",
        description=(
            "{{ $labels.instance }} has not answered Prometheus for <2m> (up is {{ $value }}, not 1);"
            " the others carry its load."
        ),
        dashboard="api",
        variables=("instance",),
        logs=_LOGS,
        fires=(
            Fires({_UP: "1x4 0x20", _UP_TOO: "1x30"}, "8m", {**_API, "instance": "a:8000"}, "0"),
        ),
        silent=(
            Silent("all are down, which ApiDown says", {_UP: "0x20", _UP_TOO: "0x20"}, "10m"),
            Silent("it restarted within 2 minutes", {_UP: "1x4 0 1x20", _UP_TOO: "1x30"}, "6m"),
        ),
    ),
    Alert(
        name="ApiNotReady",
        expr='min by (instance) (probe_success{job="blackbox",probe="ready"}) == 0',
        wait="2m",
        severity="critical",
        component="api",
        depends_on=("api", "database"),
        summary="The API says that it is not ready: load balancers send it nothing.",
        description=(
            "{{ $labels.instance }} has not answered with 200 for <2m>"
            " (probe_success is {{ $value }}, not 1)."
        ),
        dashboard="overview",
        logs=_LOGS,
        fires=(
            Fires({_READY: "1x4 0x20"}, "8m", {"instance": "http://app:8000/health/ready"}, "0"),
        ),
        silent=(
            Silent("it drained and was replaced within a minute", {_READY: "1x4 0 1x20"}, "6m"),
            Silent(
                "another probe fails",
                {_READY: "1x20", _READY.replace("ready", "docs"): "0x20"},
                "10m",
            ),
        ),
    ),
)
