"""Payments: whether what customers pay arrives, and what goes back.

The API counts what it hears, the worker what reconciliation settles: the sum of both is the truth. A
decline and a token that the provider does not know are answers, and no failures of ours.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_P: Final = 'job=~"api|worker"'
_SETTLED: Final = (
    f'payments_total{{{_P},status=~"captured|failed",decline_reason!="token_refused"}}'
)
_CAPTURED: Final = f'payments_total{{{_P},status="captured"}}'
_FAILED: Final = f'payments_total{{{_P},status="failed",decline_reason!="token_refused"}}'
_REFUSED: Final = f'payments_total{{{_P},status=~"declined|failed",decline_reason!="none"}}'
_ANSWERED: Final = f'payments_total{{{_P},status=~"captured|declined|failed"}}'


def _series(status: str, reason: str = "none", *, job: str = "api") -> str:
    labels = f'job="{job}",instance="a",status="{status}",decline_reason="{reason}"'
    return f"payments_total{{{labels}}}"


_SUCCESS_LOW: Final = Alert(
    name="PaymentSuccessLow",
    expr=f"""
        sum(increase({_CAPTURED}[15m])) / sum(increase({_SETTLED}[15m])) < 0.95
        and
        sum(increase({_FAILED}[15m])) >= 5
    """,
    severity="critical",
    component="business",
    wait="2m",
    depends_on=("payment_provider", "database"),
    summary="Payments fail, and not because of the customers' cards.",
    description="{{ $value | humanizePercentage }} of the payments of the last <15m> were captured,"
    " declined ones left out; it should be above 95 %.",
    dashboard="business",
    logs='{service_name=~"glasshouse.*"} | type="external" | dependency="payment_provider"',
    fires=(
        Fires(
            series={_series("captured"): "0+9x40", _series("failed", job="worker"): "0+1x40"},
            at="11m",
            value="90%",
        ),
        # The few of a night all fail: that is an outage, however few they are.
        Fires(
            series={_series("captured"): "50x40", _series("failed"): "0+0.4x40"},
            at="20m",
            value="0%",
        ),
    ),
    silent=(
        Silent(
            why="96 % are captured",
            series={_series("captured"): "0+24x40", _series("failed"): "0+1x40"},
            at="20m",
        ),
        Silent(
            why="4 failures in little traffic prove nothing",
            series={_series("captured"): "0+0.2x40", _series("failed"): "0+0.28x40"},
            at="20m",
        ),
        Silent(
            why="cards are declined and tokens refused",
            series={
                _series("captured"): "0+5x40",
                _series("failed"): "0x40",
                _series("declined", "insufficient_funds"): "0+5x40",
                _series("failed", "token_refused"): "0+5x40",
            },
            at="20m",
        ),
        Silent(
            why="it has not lasted for two minutes",
            series={_series("captured"): "0+1x40", _series("failed"): "0x18 10x20"},
            at="20m",
        ),
    ),
)

_DECLINES_HIGH: Final = Alert(
    name="PaymentDeclinesHigh",
    expr=f"""
        sum(increase({_REFUSED}[30m])) / sum(increase({_ANSWERED}[30m])) > 0.3
        and
        sum(increase({_ANSWERED}[30m])) >= 30
    """,
    severity="warning",
    component="business",
    wait="5m",
    depends_on=("payment_provider",),
    summary="Far more cards are declined, or their tokens refused, than is usual.",
    description="{{ $value | humanizePercentage }} of the payments of the last <30m> were declined or"
    " their token refused; it should be below 30 %.",
    dashboard="business",
    logs='{service_name=~"glasshouse.*"} | type="business" | payment_status=~"declined|failed"',
    fires=(
        Fires(
            series={
                _series("captured"): "0+0.72x60",
                _series("declined", "do_not_honor"): "0+0.36x60",
                _series("failed", "token_refused"): "0+0.12x60",
            },
            at="40m",
            value="40%",
        ),
    ),
    silent=(
        Silent(
            why="28 % are declined",
            series={_series("captured"): "0+7.2x60", _series("declined", "other"): "0+2.8x60"},
            at="40m",
        ),
        Silent(
            why="24 payments prove nothing",
            series={_series("captured"): "0+0.2x60", _series("declined", "other"): "0+0.6x60"},
            at="40m",
        ),
        Silent(
            why="it has lasted for two minutes",
            series={_series("captured"): "0+0.72x60", _series("declined", "other"): "0+0.48x60"},
            at="27m",
        ),
        Silent(
            why="failures of ours are no declines",
            series={_series("captured"): "0+5x60", _series("failed"): "0+5x60"},
            at="40m",
        ),
    ),
)

_PENDING_HIGH: Final = Alert(
    name="PaymentsPendingHigh",
    # Of the API alone: what the worker settles was counted as pending before.
    expr="""
        sum(increase(payments_total{job="api",status="pending"}[15m]))
        / sum(increase(payments_total{job="api"}[15m])) > 0.1
        and
        sum(increase(payments_total{job="api",status="pending"}[15m])) >= 5
    """,
    severity="warning",
    component="business",
    wait="5m",
    depends_on=("payment_provider",),
    summary="Many customers are not told whether they have paid.",
    description="The outcome of {{ $value | humanizePercentage }} of the payments of the last <15m>"
    " was unknown when the customer was answered; it should be below 10 %.",
    dashboard="business",
    logs='{service_name=~"glasshouse.*"} | type="external" | effect="unknown"',
    fires=(
        Fires(
            series={_series("captured"): "0+3.08x40", _series("pending"): "0+0.42x40"},
            at="25m",
            value="12%",
        ),
    ),
    silent=(
        Silent(
            why="8 % are pending",
            series={_series("captured"): "0+9.2x40", _series("pending"): "0+0.8x40"},
            at="25m",
        ),
        Silent(
            why="4 in little traffic prove nothing",
            series={_series("captured"): "0+0.2x40", _series("pending"): "0+0.28x40"},
            at="25m",
        ),
        Silent(
            why="it has lasted for two minutes",
            series={_series("captured"): "0+3.08x40", _series("pending"): "0+0.42x40"},
            at="14m",
        ),
    ),
)

_REFUNDS_HIGH: Final = Alert(
    name="RefundsHigh",
    expr=f"""
        sum(increase(refunds_total{{{_P}}}[1h])) / sum(increase({_CAPTURED}[1h])) > 0.2
        and
        sum(increase(refunds_total{{{_P}}}[1h])) >= 10
    """,
    severity="warning",
    component="business",
    wait="10m",
    summary="Customers are given their money back far more often than is usual.",
    description="In the last <1h> there were refunds for {{ $value | humanizePercentage }} as many"
    " payments as were captured; it should be below 20 %.",
    dashboard="business",
    logs='{service_name=~"glasshouse.*"} | type="audit" | action="refund"',
    fires=(
        Fires(
            series={
                _series("captured"): "0+0.8x100",
                'refunds_total{job="api",instance="a",currency="EUR"}': "0+0.15x100",
                'refunds_total{job="worker",instance="w",currency="USD"}': "0+0.05x100",
            },
            at="70m",
            value="25%",
        ),
    ),
    silent=(
        Silent(
            why="18 % are given back",
            series={
                _series("captured"): "0+2x100",
                'refunds_total{job="api",instance="a",currency="EUR"}': "0+0.36x100",
            },
            at="80m",
        ),
        Silent(
            why="it has lasted for five minutes",
            series={
                _series("captured"): "0+0.8x100",
                'refunds_total{job="api",instance="a",currency="EUR"}': "0+0.2x100",
            },
            at="55m",
        ),
        Silent(
            why="9 refunds in an hour prove nothing",
            series={
                _series("captured"): "0+0.2x100",
                'refunds_total{job="api",instance="a",currency="EUR"}': "0+0.15x100",
            },
            at="80m",
        ),
    ),
)

PAYMENTS: Final = (_SUCCESS_LOW, _DECLINES_HIGH, _PENDING_HIGH, _REFUNDS_HIGH)
