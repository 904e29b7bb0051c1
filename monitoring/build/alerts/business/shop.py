"""Orders, registrations and revenue: are there as many as the traffic usually brings?

Traffic is what customers ask of /v1. At night it brings few orders, so that none of them in 15 minutes is
nothing unusual; at noon the same silence is a broken shop, whatever broke it.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Record, Silent

_TRAFFIC: Final = 'http_requests_total{job="api",handler=~"/v1/.+"}'
_ORDERS: Final = 'orders_created_total{job="api"}'
_REGISTRATIONS: Final = 'user_registrations_total{job="api"}'
_REVENUE: Final = 'revenue_total{job=~"api|worker"}'
_ORDERED: Final = 'funnel_steps_total{job=~"api|worker",step="order"}'
_PAID: Final = 'funnel_steps_total{job=~"api|worker",step="payment"}'


def _per(what: str, whole: str) -> str:
    return f"sum(rate({what}[1d])) / (sum(rate({whole}[1d])) > 0)"


USUAL: Final = (
    Record(
        "all:orders_per_request:ratio_rate1d",
        _per(_ORDERS, _TRAFFIC),
        "Orders per request to /v1 in the last day: what traffic usually brings.",
    ),
    Record(
        "all:registrations_per_request:ratio_rate1d",
        _per(_REGISTRATIONS, _TRAFFIC),
        "Registrations per request to /v1 in the last day.",
    ),
    Record(
        "all:paid_per_ordered:ratio_rate1d",
        _per(_PAID, _ORDERED),
        "Captured payments per order in the last day.",
    ),
)

_GET: Final = (
    'http_requests_total{job="api",instance="a",method="GET",handler="/v1/orders",status="200"}'
)
_POST_503: Final = _GET.replace('"GET"', '"POST"').replace('"200"', '"503"')
_SYNTHETIC: Final = 'synthetic_http_requests_total{job="api",handler="/v1/orders",status="201"}'
_WEB: Final = 'user_registrations_total{job="api",instance="a",method="password",source="web"}'
_STEP_ORDER: Final = 'funnel_steps_total{job="api",instance="a",step="order"}'
_STEP_PAID: Final = 'funnel_steps_total{job="api",instance="a",step="payment"}'


def _orders(currency: str) -> str:
    return f'orders_created_total{{job="api",instance="a",currency="{currency}"}}'


def _revenue(currency: str) -> str:
    return f'revenue_total{{job="api",instance="a",currency="{currency}"}}'


_EUR: Final = _orders("EUR")

_NO_ORDERS: Final = Alert(
    name="NoOrders",
    # 10 are expected and none comes: by chance once in 20,000 times.
    expr=f"""
        sum(increase({_TRAFFIC}[15m])) * on () all:orders_per_request:ratio_rate1d >= 10
        and on ()
        sum(increase({_ORDERS}[15m])) == 0
    """,
    severity="critical",
    component="business",
    depends_on=("api", "database"),
    summary="Customers are in the shop, and nobody has ordered for <15m>.",
    description="The traffic of the last <15m> usually brings"
    ' {{ $value | printf "%.0f" }} orders; there was none.',
    dashboard="business",
    logs='{service_name="glasshouse"} | type="http_request" | route="/v1/orders" | status >= 400',
    fires=(
        Fires(series={_EUR: "0+3x45 135x20", _GET: "0+10x70"}, at="1h", value="34"),
        # Every order is refused: failed requests are traffic, too.
        Fires(series={_EUR: "0+3x45 135x20", _POST_503: "0+10x45 450+3x20"}, at="1h", value="12"),
    ),
    silent=(
        Silent(
            why="at night 30 requests bring 8 orders, or none",
            series={_EUR: "0+3x45 135x20", _GET: "0+10x45 450+2x20"},
            at="1h",
        ),
        Silent(
            why="there was one order",
            series={_EUR: "0+3x45 135x10 136x9", _GET: "0+10x70"},
            at="1h",
        ),
        Silent(
            # Not 14: since Prometheus 3 a range leaves out the sample at its beginning.
            why="orders stopped only 13 minutes ago",
            series={_EUR: "0+3x47 141x20", _GET: "0+10x70"},
            at="1h",
        ),
        Silent(
            why="only the monitoring's journeys are there",
            series={_EUR: "0+3x45 135x20", _GET: "0+10x45 450x20", _SYNTHETIC: "0+10x70"},
            at="1h",
        ),
        Silent(
            why="a new service never had an order", series={_EUR: "0x70", _GET: "0+10x70"}, at="1h"
        ),
    ),
)

_NO_REGISTRATIONS: Final = Alert(
    name="NoRegistrations",
    expr=f"""
        sum(increase({_TRAFFIC}[1h])) * on () all:registrations_per_request:ratio_rate1d >= 10
        and on ()
        sum(increase({_REGISTRATIONS}[1h])) == 0
    """,
    severity="info",
    component="business",
    depends_on=("api", "database"),
    summary="There is traffic, and nobody has registered for <1h>.",
    description="The traffic of the last <1h> usually brings"
    ' {{ $value | printf "%.0f" }} registrations; there was none.',
    dashboard="business",
    logs='{service_name="glasshouse"} | type="http_request" | route="/v1/users" | status >= 400',
    fires=(Fires(series={_WEB: "0+2x30 60x70", _GET: "0+10x30 300+1.3x70"}, at="90m", value="12"),),
    silent=(
        Silent(
            why="at night the traffic brings 9",
            series={_WEB: "0+2x30 60x70", _GET: "0+10x30 300+0.9x70"},
            at="90m",
        ),
        Silent(
            why="somebody registered",
            series={_WEB: "0+2x30 60x50 61x20", _GET: "0+10x100"},
            at="90m",
        ),
    ),
)

_REVENUE_DROPPED: Final = Alert(
    name="RevenueDropped",
    # Yesterday may have been a Saturday, or last week's hour a campaign: both must have had more.
    expr=f"""
        (
          sum by (currency) (increase({_REVENUE}[1h]))
          / sum by (currency) (increase({_REVENUE}[1h] offset 1d)) < 0.5
          unless
          sum by (currency) (increase({_REVENUE}[1h]))
          / sum by (currency) (increase({_REVENUE}[1h] offset 7d)) >= 0.5
        )
        and
        sum by (currency) (increase({_ORDERS}[1h] offset 1d)) >= 30
    """,
    severity="info",
    component="business",
    wait="10m",
    depends_on=("api", "database", "payment_provider"),
    summary="Revenue is less than half of what it was at this time yesterday and a week ago.",
    description="In the last <1h> {{ $labels.currency }} came to"
    " {{ $value | humanizePercentage }} of the same hour yesterday; below 50 % is told.",
    dashboard="business",
    variables=("currency",),
    logs='{service_name=~"glasshouse.*"} | type="business" | payment_status=~"declined|failed"',
    fires=(
        Fires(
            # Dollars are at 60 %, and of francs yesterday's hour had 24 orders, which prove nothing.
            series={
                _revenue("EUR"): "0+1000x276 276000+400x30",
                _revenue("USD"): "0+1000x276 276000+600x30",
                _revenue("CHF"): "0+1000x276 276000+400x30",
                _orders("EUR"): "0+5x306",
                _orders("USD"): "0+5x306",
                _orders("CHF"): "0+2x306",
            },
            at="25h",
            labels={"currency": "EUR"},
            value="40%",
            interval="5m",
        ),
    ),
    silent=(
        Silent(
            why="there is no yesterday of a new service",
            series={_revenue("EUR"): "0+1000x60 60000x60", _orders("EUR"): "0+1x120"},
            at="2h",
        ),
    ),
)

_FUNNEL: Final = Alert(
    name="FunnelConversionDropped",
    expr=f"""
        sum(increase({_PAID}[1h])) / sum(increase({_ORDERED}[1h]))
        < on () 0.5 * all:paid_per_ordered:ratio_rate1d
        and on ()
        sum(increase({_ORDERED}[1h])) >= 30
    """,
    severity="warning",
    component="business",
    wait="10m",
    depends_on=("api", "database", "payment_provider"),
    summary="Customers order as usual, and far fewer of them pay.",
    description="{{ $value | humanizePercentage }} of the orders of the last <1h> were paid;"
    " that is less than half of the share of the last day.",
    dashboard="business",
    logs='{service_name="glasshouse"} | type="http_request" | route=~"/v1/payments.*" | status >= 400',
    fires=(
        Fires(
            series={_STEP_ORDER: "0+0.6x110", _STEP_PAID: "0+0.6x30 18+0.09x80"},
            at="100m",
            value="15%",
        ),
    ),
    silent=(
        Silent(
            why="27 % is little more than half of 49 %",
            series={_STEP_ORDER: "0+2x110", _STEP_PAID: "0+2x30 60+0.55x80"},
            at="100m",
        ),
        Silent(
            why="it has not lasted for ten minutes",
            series={_STEP_ORDER: "0+0.6x110", _STEP_PAID: "0+0.6x30 18+0.09x80"},
            at="86m",
        ),
        Silent(
            why="27 orders prove nothing",
            series={_STEP_ORDER: "0+0.45x110", _STEP_PAID: "0+0.45x30 13.5+0.05x80"},
            at="100m",
        ),
    ),
)

SHOP: Final = (_NO_ORDERS, _NO_REGISTRATIONS, _REVENUE_DROPPED, _FUNNEL)
