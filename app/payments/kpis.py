"""KPIs of the payments domain.

Owns `payments_total`, `payment_duration_seconds`, `revenue_total`, `revenue_events_total`,
`refunds_total` and `refunded_amount_total`. Amounts are in major units of the currency.
"""

from app.money import Currency, major_units
from app.observability.business import KpiCounter, KpiHistogram, count_funnel_step
from app.observability.error_tracking import add_breadcrumb
from app.payments.states import DeclineReason, PaymentStatus

payments_total = KpiCounter(
    "payments_total",
    "Payment attempts by outcome; a pending one is counted again once it is settled.",
    ["status", "decline_reason"],
)
payment_duration_seconds = KpiHistogram(
    "payment_duration_seconds",
    "From the request to the outcome; of a reconciled payment, until it was settled.",
    ["status"],
    # The provider answers in tens of milliseconds and is given up after some seconds; what is
    # reconciled takes up to minutes.
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
revenue_total = KpiCounter("revenue_total", "Captured amounts.", ["currency"])
revenue_events_total = KpiCounter(
    "revenue_events_total",
    "Captures and refunds by size of the amount.",
    ["event_type", "amount_tier"],
)
refunds_total = KpiCounter("refunds_total", "Refunds that succeeded.", ["currency"])
refunded_amount_total = KpiCounter("refunded_amount_total", "Amounts given back.", ["currency"])

TIERS = ((10.0, "small"), (100.0, "medium"), (1_000.0, "large"))
"""Upper limits (exclusive, major units) of the tiers; above them all it is `very_large`."""
LARGEST_TIER = "very_large"

for _status in (PaymentStatus.CAPTURED, PaymentStatus.PENDING, PaymentStatus.FAILED):
    payments_total.labels(_status, "none")
payments_total.labels(PaymentStatus.FAILED, DeclineReason.TOKEN_REFUSED)
for _reason in set(DeclineReason) - {DeclineReason.TOKEN_REFUSED}:
    payments_total.labels(PaymentStatus.DECLINED, _reason)
for _currency in Currency:
    revenue_total.labels(_currency)
    refunds_total.labels(_currency)
    refunded_amount_total.labels(_currency)
for _event in ("capture", "refund"):
    for _tier in (*(name for _, name in TIERS), LARGEST_TIER):
        revenue_events_total.labels(_event, _tier)


def amount_tier(amount: float) -> str:
    """Return the tier of an amount in major units."""
    return next((name for limit, name in TIERS if amount < limit), LARGEST_TIER)


def note_begun(what: str, *, currency: str) -> None:
    """Leave a trail for error reports: money is about to move, and the outcome is not known yet."""
    add_breadcrumb("business", what, currency=currency)


def count_payment(
    *,
    status: PaymentStatus,
    decline_reason: DeclineReason | None,
    amount: int,
    currency: str,
    seconds: float,
) -> None:
    """Count an outcome that was committed."""
    payments_total.labels(status, decline_reason or "none").inc()
    payment_duration_seconds.labels(status).observe(seconds)
    add_breadcrumb("business", "payment ended", status=status.value)
    if status is PaymentStatus.CAPTURED:
        value = major_units(amount, currency)
        revenue_total.labels(currency).inc(value)
        revenue_events_total.labels("capture", amount_tier(value)).inc()
        count_funnel_step("payment")


def count_refund(*, amount: int, currency: str) -> None:
    """Count a refund that succeeded and was committed."""
    value = major_units(amount, currency)
    refunds_total.labels(currency).inc()
    refunded_amount_total.labels(currency).inc(value)
    revenue_events_total.labels("refund", amount_tier(value)).inc()
    add_breadcrumb("business", "payment refunded", currency=currency)


def count_pending() -> None:
    """Count a payment whose outcome the request did not learn."""
    payments_total.labels(PaymentStatus.PENDING, "none").inc()
    add_breadcrumb("business", "payment outcome unknown")
