"""What is seen from outside: probes of addresses, and a customer's journey that is made again and again.

Presumes the jobs `blackbox` and `synthetic`; without them there are no series, and nothing fires. That a
probe or the journey itself does not run is told apart from that what it tries does not work.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Group, Silent

_PROBE: Final = 'probe_success{job="blackbox",probe="health",instance="http://app:8000/health",service="blackbox"}'
_GOOD: Final = 'synthetic_journeys_total{job="synthetic",instance="s",result="success"}'
_BAD: Final = 'synthetic_journeys_total{job="synthetic",instance="s",result="failure"}'
_SECONDS: Final = 'synthetic_journey_duration_seconds_sum{job="synthetic",instance="s"}'
_COUNT: Final = 'synthetic_journey_duration_seconds_count{job="synthetic",instance="s"}'
_MARKED: Final = (
    'synthetic_http_requests_total{job="api",instance="a",handler="/v1/orders",status="201"}'
)
_LOGS: Final = '{service_name="glasshouse-synthetic"} | type="synthetic"'

_PROBE_FAILING: Final = Alert(
    name="ProbeFailing",
    # A certificate that is not accepted is told by CertificateProbeFailing.
    # That the API is not ready is ApiNotReady's to tell.
    expr='probe_success{job="blackbox",probe!~"tls|ready"} == 0',
    severity="warning",
    component="synthetic",
    wait="3m",
    depends_on=("api", "database"),
    summary="An address that customers or machines ask does not answer as it should.",
    description="The probe {{ $labels.probe }} of {{ $labels.instance }} has failed for <3m>"
    " (probe_success is {{ $value }}; 1 is good).",
    dashboard="overview",
    variables=("probe",),
    fires=(
        Fires(
            series={_PROBE: "1x5 0x10"},
            at="10m",
            labels={"job": "blackbox", "probe": "health", "instance": "http://app:8000/health"},
            value="0",
        ),
    ),
    silent=(
        Silent(why="it failed for two minutes", series={_PROBE: "1x5 0x2 1x10"}, at="8m"),
        Silent(
            why="TLS has an alert of its own",
            series={_PROBE.replace('"health"', '"tls"'): "0x10"},
            at="10m",
        ),
    ),
)

_JOURNEY_FAILING: Final = Alert(
    name="SyntheticJourneyFailing",
    expr="""
        sum(increase(synthetic_journeys_total{job="synthetic",result="failure"}[15m]))
        / sum(increase(synthetic_journeys_total{job="synthetic"}[15m])) > 0.5
        and
        sum(increase(synthetic_journeys_total{job="synthetic",result="failure"}[15m])) >= 3
    """,
    severity="critical",
    component="synthetic",
    depends_on=("api", "database", "payment_provider"),
    summary="A customer cannot register, order, pay and be refunded.",
    description="{{ $value | humanizePercentage }} of the synthetic journeys of the last <15m> failed;"
    " it should be below 50 %, and is none on a good day.",
    dashboard="overview",
    logs=f'{_LOGS} | level=~"WARNING|ERROR"',
    fires=(Fires(series={_GOOD: "0+0.16x30", _BAD: "0+0.24x30"}, at="20m", value="60%"),),
    silent=(
        Silent(why="48 % fail", series={_GOOD: "0+0.52x30", _BAD: "0+0.48x30"}, at="20m"),
        Silent(
            why="fewer than three failures are no pattern",
            series={_GOOD: "0x30", _BAD: "0+0.18x30"},
            at="20m",
        ),
        Silent(why="there are no journeys", series={_GOOD: "7x30", _BAD: "3x30"}, at="20m"),
    ),
)

_JOURNEY_STALE: Final = Alert(
    name="SyntheticJourneyStale",
    expr='sum(increase(synthetic_journeys_total{job="synthetic"}[15m])) == 0',
    severity="warning",
    component="synthetic",
    wait="5m",
    summary="The synthetic journey has stopped: its target is up, and no journey ends.",
    description='{{ $value | printf "%.0f" }} journeys ended in the last <15m>; there is one a minute.',
    dashboard="overview",
    logs=_LOGS,
    fires=(Fires(series={_GOOD: "0+1x10 10x30", _BAD: "0x40"}, at="35m", value="0"),),
    silent=(
        Silent(why="they go on", series={_GOOD: "0+1x40", _BAD: "0x40"}, at="35m"),
        Silent(why="they go on and fail", series={_GOOD: "0x40", _BAD: "0+1x40"}, at="35m"),
        Silent(why="the last one was 17 minutes ago", series={_GOOD: "0+1x18 18x20"}, at="35m"),
    ),
)

_JOURNEY_SLOW: Final = Alert(
    name="SyntheticJourneySlow",
    # On one machine it takes 2 s, of which two hashes of a password are 0.7 s.
    expr="""
        sum(increase(synthetic_journey_duration_seconds_sum{job="synthetic"}[15m]))
        / sum(increase(synthetic_journey_duration_seconds_count{job="synthetic"}[15m])) > 5
        and
        sum(increase(synthetic_journey_duration_seconds_count{job="synthetic"}[15m])) >= 3
    """,
    severity="warning",
    component="synthetic",
    wait="5m",
    depends_on=("api", "database", "payment_provider"),
    summary="A customer's whole journey takes several seconds longer than it should.",
    description="A journey took {{ $value | humanizeDuration }} on average in the last <15m>;"
    " it should be below 5 seconds.",
    dashboard="overview",
    logs=_LOGS,
    fires=(Fires(series={_SECONDS: "0+1.44x40", _COUNT: "0+0.24x40"}, at="25m", value="6s"),),
    silent=(
        Silent(why="4.8 s are below 5", series={_SECONDS: "0+4.8x40", _COUNT: "0+1x40"}, at="25m"),
        Silent(
            why="fewer than three journeys are no pattern",
            series={_SECONDS: "0+1.8x40", _COUNT: "0+0.18x40"},
            at="25m",
        ),
        Silent(
            why="they have been slow for a minute",
            series={_SECONDS: "0+4x18 112+40x3", _COUNT: "0+1x40"},
            at="20m",
        ),
    ),
)

_UNMARKED: Final = Alert(
    name="SyntheticTrafficUnmarked",
    # No step of any journey came with a mark that the API believed: the two have different tokens.
    expr="""
        sum(increase(synthetic_journeys_total{job="synthetic",result="success"}[15m])) >= 3
        unless on ()
        sum(increase(synthetic_http_requests_total{job="api"}[15m])) > 0
    """,
    severity="warning",
    component="synthetic",
    wait="5m",
    summary="Synthetic journeys are counted as if customers made them.",
    description='{{ $value | printf "%.0f" }} journeys succeeded in the last <15m>, and the API took none of'
    " their requests for synthetic: KPIs and objectives count them.",
    dashboard="business",
    logs=_LOGS,
    fires=(
        Fires(series={_GOOD: "0+1x40", _MARKED: "7x40"}, at="30m", value="15"),
        Fires(series={_GOOD: "0+1x40"}, at="30m", value="15"),
    ),
    silent=(
        Silent(why="they are marked", series={_GOOD: "0+1x40", _MARKED: "0+7x40"}, at="30m"),
        Silent(why="there are no journeys", series={_GOOD: "7x40", _MARKED: "7x40"}, at="30m"),
        Silent(
            why="the journey has just begun",
            series={_GOOD: "0+1x40", _MARKED: "0x40"},
            at="7m",
        ),
    ),
)

GROUPS: tuple[Group, ...] = (
    Group(
        "synthetic",
        (_PROBE_FAILING, _JOURNEY_FAILING, _JOURNEY_STALE, _JOURNEY_SLOW, _UNMARKED),
    ),
)
