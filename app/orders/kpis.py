"""KPIs of the orders domain. Owns `orders_created_total`, `order_value` and `orders_current`."""

from collections.abc import Mapping

from prometheus_client import Gauge

from app.money import Currency, major_units
from app.observability.business import KpiCounter, KpiHistogram, count_funnel_step
from app.observability.error_tracking import add_breadcrumb

orders_created_total = KpiCounter("orders_created_total", "Orders created.", ["currency"])
order_value = KpiHistogram(
    "order_value",
    "Value of created orders, in major units of the currency.",
    ["currency"],
    # From a small basket to the largest total that the provider takes; 1-2-5 steps, so that a
    # quantile is off by half its value at most.
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000),
)
orders_current = Gauge(
    "orders_current",
    "Orders by status, sampled from the database by the worker.",
    ["status"],
    multiprocess_mode="livemostrecent",
)
for _currency in Currency:
    orders_created_total.labels(_currency)
    order_value.labels(_currency)


def count_created(*, currency: str, total_amount: int) -> None:
    """Count a committed order."""
    orders_created_total.labels(currency).inc()
    order_value.labels(currency).observe(major_units(total_amount, currency))
    count_funnel_step("order")
    add_breadcrumb("business", "order placed", currency=currency)


def set_current(counts: Mapping[str, int]) -> None:
    """Set how many orders are in each status that was counted; the others stay as they were."""
    for status, count in counts.items():
        orders_current.labels(status).set(count)
