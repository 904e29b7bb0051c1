"""Whether there is a worker, and a broker between those who publish and those who work."""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_WORKER: Final = {"job": "worker"}
_UP: Final = 'up{job="worker",instance="a:8002"}'
_UP_TOO: Final = 'up{job="worker",instance="b:8002"}'
_BROKER: Final = 'dependency_up{job="worker",instance="a:8002",dependency="broker"}'
_BROKER_TOO: Final = 'dependency_up{job="worker",instance="b:8002",dependency="broker"}'
_LIFE: Final = '{service_name="glasshouse-worker"} | type=~"lifecycle|error|health"'

ALERTS: Final = (
    Alert(
        name="WorkerDown",
        # Also when the targets are gone from discovery: then there is no `up` that could be 0.
        expr="""
        (sum by (job) (up{job="worker"}) or on (job) absent(up{job="worker"}) - 1) == 0
        """,
        wait="1m",
        keep_firing="5m",
        severity="critical",
        component="queue",
        labels={"dependency": "worker"},
        summary="No worker is up: paid orders are not fulfilled, unknown payments not settled.",
        description=(
            "{{ $value }} workers have answered Prometheus for <1m>; there should be one at least."
        ),
        dashboard="worker",
        logs=_LIFE,
        fires=(
            Fires({_UP: "1x4 0x10", _UP_TOO: "1x4 0x10"}, "7m", _WORKER, "0"),
            Fires({_UP: "1x4 stale"}, "8m", _WORKER, "0"),
            Fires({'up{job="api",instance="a:8000"}': "1x10"}, "5m", _WORKER, "0"),
            Fires({_UP: "0x5 1x20"}, "10m", _WORKER, "0"),
        ),
        silent=(
            Silent("one of two still works", {_UP: "0x20", _UP_TOO: "1x20"}, "10m"),
            Silent("one scrape failed", {_UP: "1x4 0 1x20"}, "330s"),
            Silent("it came back 7 minutes ago", {_UP: "0x5 1x20"}, "13m"),
        ),
    ),
    Alert(
        name="WorkerInstanceDown",
        expr="""
        min by (job, instance) (up{job="worker"}) == 0
        and on (job) sum by (job) (up{job="worker"}) > 0
        """,
        wait="2m",
        severity="warning",
        component="queue",
        summary="A worker is down while others work.",
        description=(
            "{{ $labels.instance }} has not answered Prometheus for <2m> (up is {{ $value }}, not 1);"
            " the others do its work."
        ),
        dashboard="worker",
        variables=("instance",),
        logs=_LIFE,
        fires=(
            Fires({_UP: "1x4 0x20", _UP_TOO: "1x30"}, "8m", {**_WORKER, "instance": "a:8002"}, "0"),
        ),
        silent=(
            Silent("all are down, which WorkerDown says", {_UP: "0x20", _UP_TOO: "0x20"}, "10m"),
            Silent("it restarted within 2 minutes", {_UP: "1x4 0 1x20", _UP_TOO: "1x30"}, "6m"),
        ),
    ),
    Alert(
        name="BrokerDown",
        expr='max by (dependency) (dependency_up{job="worker",dependency="broker"}) == 0',
        wait="1m",
        keep_firing="5m",
        severity="critical",
        component="queue",
        summary="The broker cannot be reached: messages wait in the outbox, and orders with them.",
        description=(
            "{{ $value }} workers have reached the {{ $labels.dependency }} for <1m>; all should."
        ),
        dashboard="worker",
        logs='{service_name="glasshouse-worker"} | message=~"broker is unreachable|Dependency is .+"',
        fires=(
            Fires(
                {_BROKER: "1x4 0x20", _BROKER_TOO: "1x4 0x20"}, "8m", {"dependency": "broker"}, "0"
            ),
            Fires({_BROKER: "0x5 1x20"}, "10m", {"dependency": "broker"}, "0"),
        ),
        silent=(
            Silent("one of two lost it", {_BROKER: "0x20", _BROKER_TOO: "1x20"}, "10m"),
            Silent("one check failed", {_BROKER: "1x4 0 1x20"}, "330s"),
            Silent("it came back 7 minutes ago", {_BROKER: "0x5 1x20"}, "13m"),
        ),
    ),
)
