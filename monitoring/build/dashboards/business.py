"""Does the shop earn what it should?"""

from typing import Final

from monitoring.build.grafana.board import Board, Section
from monitoring.build.grafana.colours import (
    CRITICAL,
    GOOD,
    MUTED,
    NEUTRAL,
    OUTCOMES,
    above,
    below,
)
from monitoring.build.grafana.figures import bars, figure
from monitoring.build.grafana.graphs import graph, heat, states
from monitoring.build.grafana.idle import counted_while_up
from monitoring.build.grafana.links import explore_logs, explore_traces, from_row
from monitoring.build.grafana.queries import buckets, lines, now, over_time, rows, traces
from monitoring.build.grafana.selectors import API, ENVIRONMENT, SHOWN, ZOOM
from monitoring.build.grafana.tables import Column, grid, log_lines, trace_list
from monitoring.build.grafana.variables import environment, instance, label_values
from monitoring.build.records.expressions import increase, quantile, rate

BOTH: Final = 'job=~"api|worker"'
"""A payment ends in the API, or later in the worker: both count, and no instance alone has the whole."""
MONEY: Final = f'{BOTH},currency=~"$currency"'
ORDERS: Final = f'{API},currency=~"$currency"'
DECLINED: Final = f'{BOTH},status=~"declined|failed",decline_reason!="none"'
PROVIDER: Final = f'{BOTH},dependency="payment_provider"'
LOGS: Final = f'{{service_name=~"glasshouse|glasshouse-worker",{ENVIRONMENT}}} | type="business"'
SHADES: Final = {
    "^EUR": "blue",
    "^USD": "green",
    "^GBP": "purple",
    "^CHF": "orange",
    "^JPY": "semi-dark-yellow",
}
STATUSES: Final = {**OUTCOMES, "^captured": GOOD, "^fulfilled": GOOD, "^refunded": "purple"}

_ORDERS_A_MINUTE: Final = f"60 * {rate('orders_created_total', where=API, window=ZOOM)}"
_A_DAY_BEFORE: Final = (
    f"60 * sum(rate(orders_created_total{{{API}}}[{ZOOM}] offset 1d))"
    f" or 0 * {rate('orders_created_total', where=API, window=ZOOM)}"
)


def _grown(metric: str, by: str, where: str) -> str:
    return increase(metric, by, where=where, window=SHOWN)


def _provider(rank: float) -> str:
    return quantile(rank, "external_request_duration_seconds", where=PROVIDER, window=ZOOM)


_HEALTH: Final = Section(
    "Is it healthy? Orders come, and are paid",
    (
        figure(
            "Orders a minute",
            over_time(_ORDERS_A_MINUTE, "orders"),
            shows="Orders placed, a minute.",
            normal=(
                "What the same hour of yesterday had (graph below); some a minute with the local "
                "customers."
            ),
            act=(
                "None for 15 minutes where yesterday had some: NoOrders fires. Look at the API's "
                "errors first."
            ),
            unit="short",
            decimals=1,
        ),
        figure(
            "Payment success",
            over_time("all:payments_succeeded:ratio_rate5m", "succeeded"),
            shows=(
                "Share of the payments that ended as a bank wanted, captured or declined, over five "
                "minutes; the others failed."
            ),
            normal="Above 99 %: the objective payment-success.",
            act="Below 95 % PaymentSuccessLow fires: is it the provider (below), or us?",
            unit="percentunit",
            decimals=2,
            steps=below(warning=0.99, critical=0.95),
        ),
        figure(
            "Declined by banks",
            over_time("all:payments_declined:ratio_rate5m", "declined"),
            shows="Share of the payments that a bank declined: a business outcome, no error.",
            normal="5 to 15 %, as the customers' cards are.",
            act=(
                "Above 30 % PaymentDeclinesHigh fires: one reason, one currency, a wave of stolen "
                "cards?"
            ),
            unit="percentunit",
            decimals=1,
            steps=above(warning=0.3),
        ),
        figure(
            "Orders paid",
            over_time("all:funnel_payment_of_order:ratio_rate1h", "paid"),
            shows="Payments for each order: what becomes of a full basket.",
            normal="What it was yesterday; customers who think again are a part of it.",
            act=(
                "Half of yesterday's: FunnelConversionDropped fires. Compare the steps of the "
                "funnel, below."
            ),
            unit="percentunit",
            decimals=0,
        ),
        figure(
            "Left unanswered",
            now(
                counted_while_up("payments_total", "api", where=f'{API},status="pending"'),
                "pending",
            ),
            shows=(
                "Payments of the shown time that the provider left without an answer; "
                "reconciliation settles them later."
            ),
            normal="None, or one now and then.",
            act="More than a tenth of all: PaymentsPendingHigh fires. The provider hangs.",
            unit="short",
            decimals=0,
            sparkline=False,
            steps=above(warning=5),
        ),
        figure(
            "Users active today",
            over_time('max(active_users{job="worker",window="1d"})', "users"),
            shows="Different users who were seen within the last day, sampled by the worker.",
            normal="Slow to move.",
            act=(
                "A fall against seven days (below) without a fall of registrations: log-in, or a "
                "broken client."
            ),
            unit="short",
        ),
    ),
)

_CHANGED: Final = Section(
    "What changed? Money, orders and customers, beside yesterday's",
    (
        graph(
            "Revenue an hour, by currency",
            over_time(
                f"3600 * {rate('revenue_total', 'currency', where=MONEY, window=ZOOM)}",
                "{{currency}}",
            ),
            shows=(
                "Captured amounts in major units of each currency, as if the pace were kept for an "
                "hour."
            ),
            normal="The shape of the same weekday.",
            act=(
                "Half of yesterday and of last week: RevenueDropped fires. Fewer orders, or "
                "smaller ones?"
            ),
            unit="short",
            colours=SHADES,
            width=12,
        ),
        graph(
            "Orders a minute, and a day before",
            over_time(_ORDERS_A_MINUTE, "now"),
            over_time(_A_DAY_BEFORE, "a day before"),
            shows=(
                "Orders placed a minute, and those of the same time a day earlier (0 before there "
                "was one)."
            ),
            normal="Near each other.",
            act="If only `now` falls: errors and latency of /v1/orders on the dashboard API.",
            unit="short",
            colours={"^now$": NEUTRAL, "^a day before$": MUTED},
            width=12,
        ),
        graph(
            "Payments by outcome",
            over_time(rate("payments_total", "status", where=BOTH, window=ZOOM), "{{status}}"),
            shows="Payments a second by outcome; a pending one counts again when it is settled.",
            normal="Mostly captured, some declined.",
            act="`failed` is ours or the provider's: the traces below show which.",
            unit="ops",
            stacked=True,
            colours=STATUSES,
        ),
        graph(
            "Duration of payments, p95",
            over_time(
                quantile(0.95, "payment_duration_seconds", "status", where=BOTH, window=ZOOM),
                "{{status}}",
                exemplars=True,
            ),
            shows=(
                "From the request to the outcome; a payment that is reconciled counts until it was "
                "settled."
            ),
            normal="Captured: below half a second, nearly all of it the provider's.",
            act="Click a dot for the trace: the provider's span says whose time it is.",
            unit="s",
            colours=STATUSES,
        ),
        graph(
            "Declines by reason",
            over_time(
                rate("payments_total", "decline_reason", where=DECLINED, window=ZOOM),
                "{{decline_reason}}",
            ),
            shows="Declined payments a second by the bank's reason.",
            normal="A steady mixture.",
            act=(
                "One reason alone rises: `expired_card` after New Year, `do_not_honor` in a fraud "
                "wave."
            ),
            unit="ops",
            stacked=True,
        ),
        graph(
            "Registrations by source",
            over_time(
                f"60 * {rate('user_registrations_total', 'source', where=API, window=ZOOM)}",
                "{{source}}",
            ),
            shows="Accounts created a minute, by where they came from.",
            normal="A steady mixture.",
            act=(
                "One source stops: its client or its link is broken. All stop: POST /v1/users "
                "(dashboard API)."
            ),
            unit="short",
            stacked=True,
        ),
        graph(
            "Refunds and captures by size",
            over_time(
                rate("revenue_events_total", "event_type, amount_tier", where=BOTH, window=ZOOM),
                "{{event_type}} {{amount_tier}}",
            ),
            shows=(
                "Captures and refunds a second by size: below 10, 100, 1,000 major units, and "
                "above."
            ),
            normal="Few refunds; small and medium captures.",
            act=(
                "Large refunds: the audit log names who asked (`python -m app audit list --action "
                "refund`)."
            ),
            unit="ops",
            colours={"^refund": CRITICAL},
        ),
        graph(
            "Active users",
            over_time('max by (window) (active_users{job="worker"})', "{{window}}"),
            shows="Different users seen in the last day, week and month.",
            normal="A day's below a week's below a month's.",
            act="A day's falls alone: customers do not come back, or cannot log in.",
            unit="short",
        ),
    ),
)

_WHY: Final = Section(
    "Why? The funnel, the provider, the stock of orders",
    (
        bars(
            "Funnel of the shown time",
            now(
                f"sort_desc({_grown('funnel_steps_total', 'step', BOTH)})",
                "{{step}}",
            ),
            shows="Steps completed on the way from a visitor to a paying customer.",
            normal=(
                "Returning customers log in and order without registering: steps need not shrink."
            ),
            act="The step that fell against the others is the route to look at.",
            unit="short",
            decimals=0,
        ),
        graph(
            "Conversion from step to step",
            over_time("all:funnel_login_of_registration:ratio_rate1h", "log-in of registration"),
            over_time("all:funnel_order_of_login:ratio_rate1h", "order of log-in"),
            over_time("all:funnel_payment_of_order:ratio_rate1h", "payment of order"),
            shows="How many of one step there are for each of the step before, over an hour.",
            normal="Steady; above 100 % where customers repeat a step.",
            act=(
                "`payment of order` falls: payments fail or are declined. `order of log-in`: "
                "orders are refused."
            ),
            unit="percentunit",
        ),
        graph(
            "Provider: calls by outcome",
            over_time(
                rate("external_requests_total", "outcome", where=PROVIDER, window=ZOOM),
                "{{outcome}}",
            ),
            shows="Attempts to call the payment provider a second, retries included.",
            normal="All `success`.",
            act=(
                "PaymentProviderErrors fires above 5 %: tell the provider, with the trace ids of "
                "the errors."
            ),
            unit="ops",
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Provider: duration",
            over_time(_provider(0.95), "p95", exemplars=True),
            over_time(_provider(0.5), "p50"),
            shows=(
                "One attempt, until its answer was read; the dashed line is where "
                "PaymentProviderSlow fires."
            ),
            normal="p95 below 100 ms with the sandbox's provider.",
            act=(
                "Their time, not ours: customers wait it out, and the breaker opens when it gets "
                "worse."
            ),
            unit="s",
            limit=1,
            colours={"p50": "light-blue", "p95": "blue"},
        ),
        states(
            "Provider: up, circuit breaker",
            over_time(
                'min by (dependency) (dependency_up{job="api",dependency="payment_provider"})',
                "answers",
            ),
            over_time(
                f"1 - (max by (dependency) (circuit_breaker_state{{{PROVIDER}}}) > bool 0)",
                "breaker lets calls through",
            ),
            shows=(
                "Whether the last check of the provider passed, and whether calls are let through "
                "to it."
            ),
            normal="Yes and yes.",
            act="An open breaker answers payments with `pending` at once; it closes by itself.",
            texts={"0": ("no", CRITICAL), "1": ("yes", GOOD)},
            height=8,
        ),
        graph(
            "Orders by status",
            over_time('max by (status) (orders_current{job="worker"})', "{{status}}"),
            shows="How many orders stand where, sampled by the worker.",
            normal="`paid` stays low: it becomes `fulfilled` within seconds.",
            act="`paid` grows: FulfilmentLagging fires, and the dashboard Worker says why.",
            unit="short",
            colours=STATUSES,
        ),
        heat(
            "Value of orders",
            buckets(rate("order_value_bucket", "le", where=ORDERS, window=ZOOM)),
            shows="How many orders of which value, in major units of the chosen currencies.",
            normal="A broad band that stays where it is.",
            act=(
                "The band moves: a price that is wrong, or a campaign. Choose one currency to be "
                "sure."
            ),
            unit="short",
        ),
        grid(
            "By currency, in the shown time",
            rows(_grown("orders_created_total", "currency", ORDERS)),
            rows(_grown("revenue_total", "currency", MONEY)),
            rows(_grown("refunded_amount_total", "currency", MONEY)),
            rows(
                f"{_grown('order_value_sum', 'currency', ORDERS)}"
                f" / ({_grown('order_value_count', 'currency', ORDERS)} > 0)"
            ),
            shows=(
                "Orders, captured and refunded amounts and the mean order, in major units of each "
                "currency."
            ),
            normal="Refunds far below revenue.",
            act="A click on a currency shows it alone.",
            labels={"currency": "Currency"},
            columns=[
                Column("Orders", "short", decimals=0),
                Column("Revenue", "short", decimals=2),
                Column("Refunded", "short", decimals=2),
                Column("Mean order", "short", decimals=2),
            ],
            sorted_by="Orders",
            links=[from_row("business", "Only this currency", {"currency": "Currency"})],
        ),
        bars(
            "Features used in the shown time",
            now(
                f"sort_desc({_grown('feature_usage_total', 'feature', API)})",
                "{{feature}}",
            ),
            shows="Uses of what a customer may do and need not.",
            normal="Whatever it is: for decisions, not for alarms.",
            act=(
                "`idempotent_replay` that rises: clients repeat requests, so answers get lost on "
                "the way."
            ),
            unit="short",
            decimals=0,
        ),
        graph(
            "Refunds of captures",
            over_time("all:refunds:ratio_rate1h", "refunds"),
            shows="Refunds for each captured payment, over an hour.",
            normal="A few per cent.",
            act="Above 20 % RefundsHigh fires: fraud, or a product that is broken.",
            unit="percentunit",
            limit=0.2,
        ),
        graph(
            "Scripted customer",
            over_time(
                rate("synthetic_journeys_total", "result", where='job="synthetic"', window=ZOOM)
                + " * 60",
                "{{result}}",
            ),
            over_time(
                rate("synthetic_http_requests_total", where='job="api"', window=ZOOM) + " * 60",
                "its requests, as marked",
            ),
            shows=(
                "Journeys of the scripted customer a minute, and its requests that the API kept "
                "out of the KPIs."
            ),
            normal="Journeys succeed, and each has seven marked requests or more.",
            act=(
                "Journeys without marked requests: the tokens differ, and SyntheticTrafficUnmarked "
                "fires."
            ),
            unit="short",
            colours=OUTCOMES,
        ),
        trace_list(
            "Payments, newest traces",
            traces("glasshouse", tags="http.route=/v1/payments"),
            shows="Traces of payments over API, provider and worker, newest first.",
            normal="Four hops, most of the time in the provider.",
            act="Open one; its logs are one click further.",
            width=12,
        ),
        log_lines(
            "Business events",
            lines(LOGS),
            shows=(
                "What the shop says of registrations, orders, payments and refunds; ids, no names."
            ),
            normal="A line for each.",
            act="Open a line for its fields; its trace id leads to the trace.",
            width=12,
            height=8,
        ),
    ),
)

BOARD: Final = Board(
    name="business",
    title="Business",
    asks="Does the shop earn what it should?",
    reading=(
        "Without the monitoring's own journeys. The figures say whether orders come and are paid; the graphs "
        "compare with before; the last row says at which step of the way, in whose system, it got stuck."
    ),
    sections=(_HEALTH, _CHANGED, _WHY),
    variables=(
        environment(),
        instance("api"),
        label_values(
            "currency",
            "Currency",
            'orders_created_total{job="api"}',
            of="currency",
            description="Amounts of different currencies are never added up.",
        ),
    ),
    neighbours=(
        ("overview", "Overview"),
        ("api", "API"),
        ("worker", "Worker"),
        ("slo", "Service levels"),
    ),
    explore=(explore_logs(LOGS), explore_traces("glasshouse")),
    time_from="now-3h",
)
