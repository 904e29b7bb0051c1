"""What the shop does: orders, money, customers and who tries to get in.

Payments and refunds are counted by the API and, once reconciled, by the worker: their sum is the truth.
Sampled rows (orders, sessions, users) are the same in each worker: the largest is taken, never the sum.
Money is in major units and never summed over currencies.
"""

from typing import Final

from monitoring.build.model import Group, Record
from monitoring.build.records.expressions import increase, mean, quantile, rate, share

API: Final = 'job="api"'
PROCESSES: Final = 'job=~"api|worker"'
WORKER: Final = 'job="worker"'


def _payments(statuses: str, window: str) -> str:
    # A token that the provider does not know is a mistake of the client, not a payment that failed.
    match = "=~" if "|" in statuses else "="
    where = f'{PROCESSES},status{match}"{statuses}",decline_reason!="token_refused"'
    return f"sum(rate(payments_total{{{where}}}[{window}]))"


def _steps(step: str) -> str:
    return f'sum(rate(funnel_steps_total{{{PROCESSES},step="{step}"}}[1h]))'


_ORDERS: Final = (
    Record(
        "currency:orders_created:rate5m",
        rate("orders_created_total", "currency", where=API),
        "Orders per second by currency.",
    ),
    Record(
        "all:orders_created:rate5m",
        "sum(currency:orders_created:rate5m)",
        "Orders per second.",
    ),
    Record(
        "currency:order_value:mean1h",
        mean("order_value", "currency", where=API, window="1h"),
        "Value of an order in the last hour, in major units of its currency.",
    ),
    Record(
        "status:orders_current:max",
        f"max by (status) (orders_current{{{WORKER}}})",
        "Orders by status, as the workers see them in the database.",
    ),
)

_MONEY: Final = (
    Record(
        "currency:revenue:rate5m",
        rate("revenue_total", "currency", where=PROCESSES),
        "Captured amounts per second, in major units of the currency.",
    ),
    Record(
        "currency:revenue:increase1h",
        increase("revenue_total", "currency", where=PROCESSES, window="1h"),
        "Captured amounts of the last hour, in major units of the currency.",
    ),
    Record(
        "currency:refunded_amount:increase1h",
        increase("refunded_amount_total", "currency", where=PROCESSES, window="1h"),
        "Amounts given back in the last hour, in major units of the currency.",
    ),
    Record(
        "currency:refunds:rate5m",
        rate("refunds_total", "currency", where=PROCESSES),
        "Refunds per second by currency.",
    ),
    Record(
        "all:refunds:ratio_rate1h",
        share(
            f"sum(rate(refunds_total{{{PROCESSES}}}[1h]))",
            _payments("captured", "1h"),
            "",
        ),
        "Refunds per captured payment in the last hour.",
    ),
    Record(
        "status:payments:rate5m",
        rate("payments_total", "status", where=PROCESSES),
        "Payments per second by outcome.",
    ),
    Record(
        "decline_reason:payments_declined:rate5m",
        rate("payments_total", "decline_reason", where=f'{PROCESSES},status="declined"'),
        "Declined payments per second by reason.",
    ),
    Record(
        "all:payments_succeeded:ratio_rate5m",
        share(
            _payments("captured|declined", "5m"), _payments("captured|declined|failed", "5m"), ""
        ),
        "Share (0 to 1) of the settled payments that worked: a decline is an answer, not a failure.",
    ),
    Record(
        "all:payments_declined:ratio_rate5m",
        share(_payments("declined", "5m"), _payments("captured|declined", "5m"), ""),
        "Share (0 to 1) of the payments that the provider answered with a decline.",
    ),
    Record(
        "status:payment_duration_seconds:p95_5m",
        quantile(0.95, "payment_duration_seconds", "status", where=PROCESSES),
        "Seconds within which 95% of the payments had their outcome.",
    ),
)

_CUSTOMERS: Final = (
    Record(
        "source:user_registrations:rate5m",
        rate("user_registrations_total", "source", where=API),
        "Registrations per second by where they came from.",
    ),
    Record(
        "window:active_users:max",
        f"max by (window) (active_users{{{WORKER}}})",
        "Distinct users in the trailing window.",
    ),
    Record(
        "step:funnel_steps:rate1h",
        rate("funnel_steps_total", "step", where=PROCESSES, window="1h"),
        "Steps per second on the way to a customer, over an hour.",
    ),
    *(
        Record(
            f"all:funnel_{later}_of_{earlier}:ratio_rate1h",
            share(_steps(later), _steps(earlier), ""),
            f"Step `{later}` per step `{earlier}` in the last hour.",
        )
        for earlier, later in (
            ("registration", "login"),
            ("login", "order"),
            ("order", "payment"),
        )
    ),
    Record(
        "feature:feature_usage:increase1h",
        increase("feature_usage_total", "feature", where=API, window="1h"),
        "Uses of an optional feature in the last hour.",
    ),
)

_SECURITY: Final = (
    Record(
        "result:auth_attempts:rate5m",
        rate("auth_attempts_total", "result", where=API),
        "Attempts to authenticate per second by result.",
    ),
    Record(
        "all:auth_attempts_failed:ratio_rate5m",
        share(
            f'sum(rate(auth_attempts_total{{{API},result=~"failure|locked"}}[5m]))',
            f'sum(rate(auth_attempts_total{{{API},result=~"success|failure|locked"}}[5m]))',
            "",
        ),
        "Share (0 to 1) of the log-ins that failed.",
    ),
    Record(
        "all:auth_sessions_active:max",
        f"max(auth_sessions_active{{{WORKER}}})",
        "Sessions that are neither over nor revoked.",
    ),
    Record(
        "scope:rate_limit_hits:rate5m",
        rate("rate_limit_hits_total", "scope", where=API),
        "Requests per second refused by a rate limit.",
    ),
    Record(
        "event:security_events:increase1h",
        increase("security_events_total", "event", where=PROCESSES, window="1h"),
        "Events of the last hour worth a look in an audit.",
    ),
)

GROUPS: Final = (
    Group("orders_and_money", (*_ORDERS, *_MONEY)),
    Group("customers_and_security", (*_CUSTOMERS, *_SECURITY)),
)
