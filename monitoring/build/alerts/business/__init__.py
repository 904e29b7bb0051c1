"""The shop: orders and customers that do not come, payments that do not work.

All that is counted here leaves out the monitoring's own journeys, so silence is silence of customers.
What is usual is taken from the day before, not from a number in a file: an alert that compares with it
needs a day of history, and says nothing in the first hours of a new service.
"""

from monitoring.build.alerts.business.payments import PAYMENTS
from monitoring.build.alerts.business.shop import SHOP, USUAL
from monitoring.build.model import Group

GROUPS: tuple[Group, ...] = (
    # A day of every route, read each quarter of a minute, would cost more than it tells.
    Group("business_usual", USUAL, interval="1m"),
    Group("business", (*SHOP, *PAYMENTS)),
)
