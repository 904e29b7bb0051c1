"""What this service calls: the payment provider, the circuits, and the alert that silences what outlasts.

The provider answers for itself (its health is asked every 10 s) and by what calls to it come to; the one
can be well while the other is not.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Group, Silent

_PROVIDER: Final = {"dependency": "payment_provider"}
_CALLS: Final = '{service_name=~"glasshouse.*"} | type="external" | dependency="payment_provider"'
_ROOT_CAUSES: Final = "ApiDown|WorkerDown|DatabaseDown|PaymentProviderDown|CacheDown|BrokerDown"


def _seen(api: str, worker: str) -> dict[str, str]:
    of = 'dependency="payment_provider"'
    return {
        f'dependency_up{{job="api",instance="a:8000",{of}}}': api,
        f'dependency_up{{job="worker",instance="w:8002",{of}}}': worker,
    }


def _calls(*, good: float, bad: float = 0, outcome: str = "timeout") -> dict[str, str]:
    """Return attempts a minute by outcome."""
    of = 'job="api",instance="a:8000",dependency="payment_provider"'
    return {
        f'external_requests_total{{{of},outcome="success"}}': f"0+{good:g}x60",
        f'external_requests_total{{{of},outcome="{outcome}"}}': f"0+{bad:g}x60",
    }


def _durations(*, total: int, within_1s: int) -> dict[str, str]:
    of = 'job="api",instance="a:8000",dependency="payment_provider"'
    bounds = {"1.0": within_1s, "2.5": total, "+Inf": total}
    return _calls(good=total) | {
        f'external_request_duration_seconds_bucket{{{of},le="{le}"}}': f"0+{count}x60"
        for le, count in bounds.items()
    }


def _retries(*, attempts: float, retries: float) -> dict[str, str]:
    of = 'job="api",instance="a:8000",dependency="payment_provider"'
    return _calls(good=attempts) | {f"external_retries_total{{{of}}}": f"0+{retries:g}x60"}


def _circuit(state: str, opened: str) -> dict[str, str]:
    of = 'job="api",instance="a:8000",dependency="payment_provider"'
    return {
        f"circuit_breaker_state{{{of}}}": state,
        f'circuit_breaker_transitions_total{{{of},to="open"}}': opened,
    }


def _root_cause(values: str, state: str = "firing") -> dict[str, str]:
    of = f'alertname="DatabaseDown",alertstate="{state}",dependency="database",severity="critical"'
    return {f"ALERTS{{{of}}}": values}


_PAYMENT_PROVIDER: Final = (
    Alert(
        name="PaymentProviderDown",
        expr="""
        min by (dependency) (job_dependency:dependency_up:max{dependency="payment_provider"}) == 0
        """,
        wait="1m",
        keep_firing="5m",
        severity="critical",
        component="dependency",
        summary="The payment provider cannot be reached: nobody can pay.",
        description=(
            "{{ $value }} of the processes of the API or of the worker have reached the"
            " {{ $labels.dependency }} for <1m>; all should."
        ),
        dashboard="business",
        logs='{service_name=~"glasshouse.*"} | type="health" | dependency="payment_provider"',
        fires=(
            Fires(_seen("1x4 0x20", "1x4 0x20"), "8m", _PROVIDER, "0"),
            Fires(_seen("1x4 0x20", "1x30"), "8m", _PROVIDER, "0"),
            Fires(_seen("0x5 1x20", "1x30"), "10m", _PROVIDER, "0"),
        ),
        silent=(
            Silent("one check failed", _seen("1x4 0 1x20", "1x30"), "330s"),
            Silent("it came back 7 minutes ago", _seen("0x5 1x20", "1x30"), "13m"),
        ),
    ),
    Alert(
        name="PaymentProviderErrors",
        expr="""
        dependency:external_requests_failed:ratio_rate5m{dependency="payment_provider"} > 0.05
        and on (dependency)
        dependency:external_requests_failed:increase5m{dependency="payment_provider"} >= 5
        """,
        wait="2m",
        severity="warning",
        component="dependency",
        depends_on=("payment_provider",),
        summary="More than 5% of the calls to the payment provider fail.",
        description=(
            "{{ $value | humanizePercentage }} of the attempts to call the {{ $labels.dependency }} in"
            " the last <5m> failed or were refused by the circuit; at most 5% should."
        ),
        dashboard="business",
        logs=_CALLS,
        fires=(
            Fires(_calls(good=45, bad=5), "10m", _PROVIDER, "10%"),
            Fires(_calls(good=0, bad=5, outcome="circuit_open"), "10m", _PROVIDER, "100%"),
        ),
        silent=(
            Silent("5% exactly", _calls(good=95, bad=5), "20m"),
            Silent("few calls", _calls(good=1, bad=0.8), "20m"),
            Silent(
                "what we asked was wrong", _calls(good=5, bad=45, outcome="client_error"), "20m"
            ),
        ),
    ),
    Alert(
        name="PaymentProviderSlow",
        expr="""
        dependency:external_request_duration_seconds:p95_5m{dependency="payment_provider"} > 1
        and on (dependency)
        dependency:external_requests:increase5m{dependency="payment_provider"} >= 20
        """,
        wait="5m",
        severity="warning",
        component="dependency",
        depends_on=("payment_provider",),
        summary="The payment provider answers slowly, and customers wait for it.",
        description=(
            "95% of the attempts to call the {{ $labels.dependency }} in the last <5m> ended within"
            " {{ $value | humanizeDuration }}; it should be 1s at most."
        ),
        dashboard="business",
        logs=_CALLS,
        fires=(Fires(_durations(total=60, within_1s=54), "14m", _PROVIDER, "1.75s"),),
        silent=(
            Silent("95% within a second", _durations(total=60, within_1s=57), "20m"),
            Silent("too few to tell", _durations(total=3, within_1s=0), "20m"),
        ),
    ),
)

_CALLING: Final = (
    Alert(
        # The gauge is as of the last attempt. Where nobody tries any more it stays open for ever, so
        # the circuit must have opened (again) lately: it does so with each probe that fails.
        name="CircuitBreakerOpen",
        expr="""
        job_dependency:circuit_breaker_state:max > 0
        and on (job, dependency)
        sum by (job, dependency) (
          increase(circuit_breaker_transitions_total{job=~"api|worker",to="open"}[10m])
        ) > 0
        """,
        wait="1m",
        severity="warning",
        component="dependency",
        depends_on=("payment_provider", "cache"),
        summary="The circuit to a dependency is open: attempts are refused at once.",
        description=(
            "The circuit from {{ $labels.job }} to {{ $labels.dependency }} has state {{ $value }}"
            " (0 closed, 1 open, 2 half-open) for <1m>; it should be 0."
        ),
        dashboard="api",
        logs='{service_name=~"glasshouse.*"} | type="external" | message=~"circuit (opened|closed)"',
        fires=(
            Fires(_circuit("0x4 1x50", "0x4 1x50"), "8m", {**_PROVIDER, "job": "api"}, "1"),
            Fires(_circuit("0x4 2x50", "0x4 1+1x50"), "20m", {**_PROVIDER, "job": "api"}, "2"),
        ),
        silent=(
            Silent("it closed again at once", _circuit("0x4 1 0x50", "0x4 1x50"), "330s"),
            Silent("nobody has tried for a while", _circuit("0x4 1x50", "0x4 1x50"), "30m"),
        ),
    ),
    Alert(
        name="ExternalRetriesHigh",
        expr="""
        dependency:external_retries:ratio_rate10m > 0.2
        and on (dependency) dependency:external_retries:increase10m >= 10
        """,
        wait="5m",
        severity="info",
        component="dependency",
        depends_on=("payment_provider",),
        summary="Many calls to a dependency take more than one attempt.",
        description=(
            "{{ $value | humanizePercentage }} of the attempts to call the {{ $labels.dependency }} in"
            " the last <10m> were retries; usually it is below 5%."
        ),
        dashboard="api",
        logs=_CALLS,
        fires=(Fires(_retries(attempts=20, retries=6), "20m", _PROVIDER, "30%"),),
        silent=(
            Silent("20% exactly", _retries(attempts=20, retries=4), "30m"),
            Silent("few calls", _retries(attempts=2, retries=0.8), "30m"),
        ),
    ),
)

_SILENCERS: Final = (
    Alert(
        # It tells nobody. It inhibits alerts on service levels, whose windows remember the outage
        # after the dependency is well. 35 minutes: the short window of the slower page is 30.
        name="DependencyRecentlyDown",
        expr=f"""
        max by (dependency) (
          max_over_time(ALERTS{{alertname=~"{_ROOT_CAUSES}",alertstate="firing"}}[35m])
        ) > 0
        """,
        severity="none",
        component="dependency",
        summary="A dependency was down a short while ago: it explains what still burns.",
        description=(
            "{{ $labels.dependency }} was down within <35m>; while this is {{ $value }}, alerts on"
            " service levels that depend on it are not told."
        ),
        dashboard="slo",
        fires=(
            Fires(_root_cause("1x5"), "3m", {"dependency": "database"}, "1"),
            Fires(_root_cause("1x5 stale"), "39m", {"dependency": "database"}, "1"),
        ),
        silent=(
            Silent("it was down an hour ago", _root_cause("1x5 stale"), "60m"),
            Silent("it may have been one failed check", _root_cause("1x5", "pending"), "3m"),
        ),
    ),
)

GROUPS: Final[tuple[Group, ...]] = (
    Group("dependency_payment_provider", _PAYMENT_PROVIDER),
    Group("dependency_calls", _CALLING),
    Group("dependency_silencers", _SILENCERS),
)
