"""Targets of Prometheus: which are gone, slow or too large.

The cardinality and slowness alerts stand on `extra_scrape_metrics` (a flag in Prometheus 2.42): without
it their series are not there, and neither fires.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_LOKI: Final = '{job="loki",instance="l"}'
_COVERED: Final = "api|worker|payment-provider|node|postgres|redis|blackbox"
"""ApiDown, WorkerDown, PaymentProviderDown, HostDown and ExporterDown speak of these; but a provider that can
be paid with and cannot be scraped is down to nobody else."""
_PROVIDER: Final = '{job="payment-provider",instance="p"}'

_PAYS: Final = 'dependency_up{job="api",instance="a",dependency="payment_provider"}'

_MISSING: Final = Alert(
    name="TargetMissing",
    expr=f"""
        up{{job!~"{_COVERED}"}} == 0
        or
        up{{job="payment-provider"}} == 0
          and on () max(dependency_up{{job="api",dependency="payment_provider"}}) == 1
    """,
    severity="warning",
    component="telemetry",
    wait="3m",
    summary="A part of the telemetry does not answer Prometheus.",
    description="{{ $labels.instance }} ({{ $labels.job }}) has not been scraped for <3m>"
    " (up is {{ $value }}; 1 is good).",
    dashboard="telemetry-cost",
    variables=("job",),
    fires=(
        Fires(
            series={f"up{_LOKI}": "1x5 0x10"},
            at="9m",
            labels={"job": "loki", "instance": "l"},
            value="0",
        ),
        Fires(
            series={f"up{_PROVIDER}": "0x10", _PAYS: "1x10"},
            at="9m",
            labels={"job": "payment-provider", "instance": "p"},
            value="0",
        ),
    ),
    silent=(
        Silent(
            why="that the provider is down has an alert of its own",
            series={f"up{_PROVIDER}": "0x10", _PAYS: "0x10"},
            at="9m",
        ),
        Silent(why="two minutes are not three", series={f"up{_LOKI}": "1x5 0x10"}, at="8m"),
        Silent(
            why="that the API is down has an alert of its own",
            series={'up{job="api",instance="a"}': "0x15"},
            at="9m",
        ),
    ),
)

_ABSENT: Final = Alert(
    name="TargetAbsent",
    # What was never there is not missed: a house without Jaeger is not told of it for ever.
    expr="count by (job) (last_over_time(up[1d])) unless count by (job) (up)",
    severity="warning",
    component="telemetry",
    wait="10m",
    summary="A scrape job has no target any more: nothing of it is watched.",
    description="The job {{ $labels.job }} had {{ $value }} targets within <1d> and now has none. A target"
    " that is down is still a target: these are gone from the configuration or from discovery.",
    dashboard="telemetry-cost",
    variables=("job",),
    fires=(
        Fires(
            series={f"up{_LOKI}": "1x5 stale", 'up{job="api",instance="a"}': "1x30"},
            at="20m",
            labels={"job": "loki"},
            value="1",
        ),
    ),
    silent=(
        Silent(
            why="one of two instances is gone",
            series={f"up{_LOKI}": "1x5 stale", 'up{job="loki",instance="m"}': "1x30"},
            at="20m",
        ),
        Silent(why="it is down, but there", series={f"up{_LOKI}": "1x5 0x30"}, at="20m"),
        Silent(
            why="it has been away for eight minutes", series={f"up{_LOKI}": "1x5 stale"}, at="14m"
        ),
    ),
)

_SLOW: Final = Alert(
    name="ScrapeSlow",
    expr="""
        max by (job, instance) (scrape_duration_seconds)
        / max by (job, instance) (scrape_timeout_seconds) > 0.8
    """,
    severity="info",
    component="telemetry",
    wait="10m",
    summary="Scraping a target takes so long that it is about to fail.",
    description="Scraping {{ $labels.instance }} ({{ $labels.job }}) takes {{ $value | humanizePercentage }}"
    " of the time it may take; it should be below 80 %.",
    dashboard="telemetry-cost",
    variables=("job",),
    fires=(
        Fires(
            series={
                f"scrape_duration_seconds{_LOKI}": "9x20",
                f"scrape_timeout_seconds{_LOKI}": "10x20",
            },
            at="15m",
            labels={"job": "loki", "instance": "l"},
            value="90%",
        ),
    ),
    silent=(
        Silent(
            why="7.5 of 10 seconds",
            series={
                f"scrape_duration_seconds{_LOKI}": "7.5x20",
                f"scrape_timeout_seconds{_LOKI}": "10x20",
            },
            at="15m",
        ),
        Silent(
            why="it has lasted for nine minutes",
            series={
                f"scrape_duration_seconds{_LOKI}": "1x5 9x20",
                f"scrape_timeout_seconds{_LOKI}": "10x30",
            },
            at="15m",
        ),
    ),
)

_CARDINALITY: Final = Alert(
    name="MetricsCardinalityHigh",
    expr="""
        max by (job, instance) (scrape_samples_post_metric_relabeling)
        / (max by (job, instance) (scrape_sample_limit) > 0) > 0.8
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    summary="A target has nearly as many series as it may have; beyond that none are taken.",
    description="{{ $labels.instance }} ({{ $labels.job }}) has {{ $value | humanizePercentage }} of the"
    " samples that its sample_limit allows; it should be below 80 %.",
    dashboard="telemetry-cost",
    variables=("job",),
    fires=(
        Fires(
            series={
                f"scrape_samples_post_metric_relabeling{_LOKI}": "9000x20",
                f"scrape_sample_limit{_LOKI}": "10000x20",
            },
            at="10m",
            labels={"job": "loki", "instance": "l"},
            value="90%",
        ),
    ),
    silent=(
        Silent(
            why="79 % is used",
            series={
                f"scrape_samples_post_metric_relabeling{_LOKI}": "7900x20",
                f"scrape_sample_limit{_LOKI}": "10000x20",
            },
            at="10m",
        ),
        Silent(
            why="it has lasted for four minutes",
            series={
                f"scrape_samples_post_metric_relabeling{_LOKI}": "100x5 9000x20",
                f"scrape_sample_limit{_LOKI}": "10000x30",
            },
            at="10m",
        ),
        Silent(
            why="there is no limit",
            series={
                f"scrape_samples_post_metric_relabeling{_LOKI}": "9000x20",
                f"scrape_sample_limit{_LOKI}": "0x20",
            },
            at="10m",
        ),
    ),
)

TARGETS: Final = (_MISSING, _ABSENT, _SLOW, _CARDINALITY)
