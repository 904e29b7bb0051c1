"""The state machine of an order.

pending ──> paid ──> fulfilled
   │          └────┬────┘
   v               v
cancelled       refunded
"""

from enum import StrEnum

from app.orders.errors import IllegalTransition


class OrderStatus(StrEnum):
    """Where an order stands."""

    PENDING = "pending"
    PAID = "paid"
    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"


TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    OrderStatus.PENDING: frozenset({OrderStatus.PAID, OrderStatus.CANCELLED}),
    OrderStatus.PAID: frozenset({OrderStatus.FULFILLED, OrderStatus.REFUNDED}),
    OrderStatus.FULFILLED: frozenset({OrderStatus.REFUNDED}),
    OrderStatus.CANCELLED: frozenset(),
    OrderStatus.REFUNDED: frozenset(),
}


def check_transition(current: OrderStatus, target: OrderStatus) -> None:
    """Do nothing where the state machine allows the step.

    Raises:
        IllegalTransition: It does not.
    """
    if target not in TRANSITIONS[current]:
        raise IllegalTransition(current, target)
