"""What the API's clients feel: requests that fail, are slow, or are refused.

A share counts only with a minimum of bad requests: one error in a quiet night is no 10%.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_API: Final = {"job": "api"}
_FAILURES: Final = '{service_name="glasshouse"} | type="http_request" | status >= 500'
_SLOW: Final = '{service_name="glasshouse"} | type="http_request" | duration_ms > 1000'


def _requests(*, served: float, bad: float = 0, status: str = "500") -> dict[str, str]:
    """Return requests a minute, spread over two instances and routes."""
    series = {}
    for instance, route in (("a:8000", "/v1/orders"), ("b:8000", "/v1/payments")):
        labels = f'job="api",instance="{instance}",method="POST",handler="{route}"'
        series[f'http_requests_total{{{labels},status="201"}}'] = f"0+{served / 2:g}x60"
        if bad:
            series[f'http_requests_total{{{labels},status="{status}"}}'] = f"0+{bad / 2:g}x60"
    return series


def _durations(*, total: float, within_1s: float, within_2s: float) -> dict[str, str]:
    """Return requests a minute, and how many of them are answered within a second, and two."""
    labels = 'job="api",instance="a:8000",method="GET",handler="/v1/orders",status="200"'
    series = {f"http_requests_total{{{labels}}}": f"0+{total:g}x60"}
    for bound, count in (("1.0", within_1s), ("2.0", within_2s), ("5.0", total), ("+Inf", total)):
        name = f'http_request_duration_seconds_bucket{{{labels},le="{bound}"}}'
        series[name] = f"0+{count:g}x60"
    return series


_ERRORS: Final = (
    Alert(
        name="ApiErrorRateHigh",
        expr="""
        job:http_requests_failed:ratio_rate5m{job="api"} > 0.01
        and on (job) job:http_requests_failed:increase5m{job="api"} >= 5
        """,
        wait="5m",
        severity="warning",
        component="api",
        depends_on=("api", "database", "payment_provider"),
        summary="More than 1% of the API's requests fail.",
        description=(
            "{{ $value | humanizePercentage }} of the requests of the last <5m> were answered with"
            " 5xx; at most 1% should be."
        ),
        dashboard="api",
        logs=_FAILURES,
        fires=(Fires(_requests(served=98, bad=2), "12m", _API, "2%"),),
        silent=(
            Silent("1% exactly", _requests(served=198, bad=2), "20m"),
            Silent("few errors in little traffic", _requests(served=2, bad=0.8), "20m"),
            Silent(
                "4xx are the clients' errors",
                _requests(served=50, bad=50, status="422"),
                "20m",
            ),
            Silent("it has not lasted 5 minutes", _requests(served=98, bad=2), "4m"),
        ),
    ),
    Alert(
        name="ApiErrorRateCritical",
        expr="""
        job:http_requests_failed:ratio_rate5m{job="api"} > 0.05
        and on (job) job:http_requests_failed:increase5m{job="api"} >= 5
        """,
        wait="2m",
        severity="critical",
        component="api",
        depends_on=("api", "database", "payment_provider"),
        summary="More than 5% of the API's requests fail.",
        description=(
            "{{ $value | humanizePercentage }} of the requests of the last <5m> were answered with"
            " 5xx; at most 1% should be."
        ),
        dashboard="api",
        logs=_FAILURES,
        fires=(Fires(_requests(served=90, bad=10), "10m", _API, "10%"),),
        silent=(
            Silent("5% exactly", _requests(served=190, bad=10), "20m"),
            Silent("few errors in little traffic", _requests(served=2, bad=0.8), "20m"),
            Silent("no traffic at all", _requests(served=0), "20m"),
        ),
    ),
)

_LATENCY: Final = (
    Alert(
        name="ApiLatencyHigh",
        expr="""
        job:http_request_duration_seconds:p95_5m{job="api"} > 1
        and on (job) job:http_requests:increase5m{job="api"} >= 20
        """,
        wait="5m",
        severity="warning",
        component="api",
        depends_on=("api", "database", "payment_provider"),
        summary="The API answers slowly: more than 5% of the requests take over a second.",
        description=(
            "95% of the requests of the last <5m> were answered within {{ $value | humanizeDuration }};"
            " it should be 200ms, and at most 1s."
        ),
        dashboard="api",
        logs=_SLOW,
        fires=(Fires(_durations(total=60, within_1s=54, within_2s=60), "14m", _API, "1.5s"),),
        silent=(
            Silent("95% within a second", _durations(total=60, within_1s=57, within_2s=60), "20m"),
            Silent("too few to tell", _durations(total=3, within_1s=0, within_2s=0), "20m"),
            Silent("not for 5 minutes", _durations(total=60, within_1s=54, within_2s=60), "4m"),
        ),
    ),
    Alert(
        # 2 s is a bound of the buckets, so the share on either side of it is exact.
        name="ApiLatencyCritical",
        expr="""
        job:http_request_duration_seconds:p95_5m{job="api"} > 2
        and on (job) job:http_requests:increase5m{job="api"} >= 20
        """,
        wait="5m",
        severity="critical",
        component="api",
        depends_on=("api", "database", "payment_provider"),
        summary="The API answers so slowly that customers leave: over two seconds at the 95th percentile.",
        description=(
            "95% of the requests of the last <5m> were answered within {{ $value | humanizeDuration }};"
            " it should be 200ms, and at most 1s."
        ),
        dashboard="api",
        logs=_SLOW,
        fires=(Fires(_durations(total=60, within_1s=0, within_2s=54), "14m", _API, "3.5s"),),
        silent=(
            Silent("slow, not too slow", _durations(total=60, within_1s=0, within_2s=57), "20m"),
            Silent("too few to tell", _durations(total=3, within_1s=0, within_2s=0), "20m"),
        ),
    ),
)

_CLIENTS: Final = (
    Alert(
        # 401 and 429 are told by the alerts on security; 499 is not the client's mistake; scanners ask
        # for routes that do not exist.
        name="ClientErrorsHigh",
        expr="""
        sum by (job) (
          rate(http_requests_total{
            job="api",handler!="unmatched",status=~"4..",status!~"401|429|499"}[15m])
        )
        / sum by (job) (rate(http_requests_total{job="api",handler!="unmatched"}[15m])) > 0.3
        and on (job)
        sum by (job) (
          increase(http_requests_total{
            job="api",handler!="unmatched",status=~"4..",status!~"401|429|499"}[15m])
        ) >= 50
        """,
        wait="5m",
        severity="info",
        component="api",
        depends_on=("api",),
        summary="Many requests are refused with 4xx: a client may be broken.",
        description=(
            "{{ $value | humanizePercentage }} of the requests of the last <15m> were answered with"
            " 4xx (401 and 429 left out); usually it is below 10%."
        ),
        dashboard="api",
        logs='{service_name="glasshouse"} | type="http_request" | status >= 400 | status < 499',
        fires=(Fires(_requests(served=12, bad=8, status="422"), "25m", _API, "40%"),),
        silent=(
            Silent("30% exactly", _requests(served=14, bad=6, status="422"), "40m"),
            Silent("wrong passwords", _requests(served=12, bad=8, status="401"), "40m"),
            Silent("little traffic", _requests(served=3, bad=3, status="422"), "40m"),
        ),
    ),
)

ALERTS: Final = (*_ERRORS, *_LATENCY, *_CLIENTS)
