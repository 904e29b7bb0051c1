"""KPIs of the users domain. Owns `user_registrations_total`; counts the registration funnel step."""

from app.observability.business import KpiCounter, count_funnel_step
from app.observability.error_tracking import add_breadcrumb
from app.users.schemas import Source

METHODS = ("password",)

user_registrations_total = KpiCounter(
    "user_registrations_total",
    "Registered users, by method and by where they came from.",
    ["method", "source"],
)
for _method in METHODS:
    for _source in Source:
        user_registrations_total.labels(_method, _source)


def count_registration(*, method: str, source: str) -> None:
    """Count a committed registration."""
    user_registrations_total.labels(method, source).inc()
    count_funnel_step("registration")
    add_breadcrumb("business", "user registered", source=source)


def count_login() -> None:
    """Count a session that was opened."""
    count_funnel_step("login")
    add_breadcrumb("business", "user logged in")
